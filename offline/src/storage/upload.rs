//! What is written to object storage: a staging folder, and uploads of what changed in it.

use super::mirror::{at, copy_into, made};
use super::remote::{Remote, wait};
use super::{Role, StorageError, stage};
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStoreExt, PutPayload, WriteMultipart};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// Files that are uploaded at a time.
const AT_A_TIME: usize = 8;
/// Larger files go in parts, bytes.
const PART_BYTES: u64 = 32 << 20;
/// Stores take so many parts of a file.
const MOST_PARTS: u64 = 9_000;
/// Held while a staging folder is used.
const LOCK: &str = "in-use";
/// There while a staging folder holds what could not be uploaded.
const PENDING: &str = "not-uploaded";
/// Large files are read ahead of the store by so many parts.
const PARTS_AHEAD: usize = 1;

/// What tells one state of a file from another.
type State = (u64, SystemTime);

/// A place that is written to.
#[derive(Debug)]
pub(super) struct Output {
    remote: Remote,
    /// Made for this process; holds all others and the lock.
    folder: PathBuf,
    /// What stands for the address.
    local: PathBuf,
    /// Everything below it is uploaded.
    root: PathBuf,
    /// What names of objects begin with.
    base: String,
    /// Files as they are on the store.
    there: Mutex<BTreeMap<String, State>>,
    _lock: File,
}

static SHARED: Mutex<Vec<Arc<Output>>> = Mutex::new(Vec::new());

/// Makes an output known to [`share`].
pub(super) fn register(output: Output) -> Arc<Output> {
    let output = Arc::new(output);
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.push(output.clone());
    output
}

/// As [`super::share`].
pub(super) fn share(folder: &Path) {
    let shared = SHARED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    for output in shared
        .iter()
        .filter(|output| folder.starts_with(&output.root))
    {
        if let Err(error) = output.upload() {
            crate::note!("{error}; tried again at the next checkpoint");
        }
    }
}

/// As [`super::Storage::finish`].
pub(super) fn finish(outputs: &[Arc<Output>]) -> Result<(), StorageError> {
    let mut failed = None;
    for output in outputs {
        match output.upload() {
            Ok(_) => {
                let _ = fs::remove_dir_all(&output.folder);
            }
            Err(error) => {
                let kept = kept(&output.folder);
                let moved = fs::rename(&output.folder, &kept).is_ok();
                let folder = if moved { &kept } else { &output.folder };
                let kept = StorageError::Kept {
                    error: Box::new(error),
                    folder: folder.display().to_string(),
                };
                if let Some(before) = failed.replace(kept) {
                    crate::note!("{before}");
                }
            }
        }
    }
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.retain(|output| !outputs.iter().any(|done| Arc::ptr_eq(done, output)));
    failed.map_or(Ok(()), Err)
}

impl Output {
    /// Makes a staging folder, with what is on the store already where a folder is written.
    pub(super) fn open(remote: Remote, cache: &Path, role: Role) -> Result<Self, StorageError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let staging = cache.join("staging");
        // Nobody cleans between the making of a folder and its lock.
        let door = staging.join("lock");
        made(&door)?;
        let door = File::create(&door).map_err(at(&door))?;
        let _ = door.lock();
        clean(&staging);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let nanoseconds = since.map_or(0, |since| since.as_nanos());
        let folder = staging.join(format!(
            "{}{nanoseconds:x}-{}-{number}",
            host(),
            std::process::id()
        ));
        let lock = folder.join(LOCK);
        made(&lock)?;
        let lock_file = File::create(&lock).map_err(at(&lock))?;
        let _ = lock_file.lock();
        drop(door);
        let name = remote.address.name();
        let prefix = remote.prefix.as_ref();
        // What is written beside a file goes beside it.
        let (root, local, base) = if matches!(role, Role::File | Role::New) {
            let root = folder.join("files");
            fs::create_dir_all(&root).map_err(at(&root))?;
            let above = prefix.rsplit_once('/').map_or("", |(above, _)| above);
            (root.clone(), root.join(name), above.to_owned())
        } else {
            let local = folder.join("folder").join(name);
            made(&local)?;
            (local.clone(), local, prefix.to_owned())
        };
        let output = Self {
            folder,
            local,
            root,
            base,
            there: Mutex::default(),
            _lock: lock_file,
            remote,
        };
        if role == Role::New {
            output.refuse_what_is_there()?;
        }
        if role == Role::Folder {
            let found = copy_into(&output.remote, &output.local)?;
            if found
                .iter()
                .any(|object| object.meta.location == output.remote.prefix)
            {
                return Err(StorageError::Store {
                    url: output.remote.address.url.clone(),
                    what: "a folder is to be written, and there is an object of that name; give another --out".into(),
                });
            }
            fs::create_dir_all(&output.root).map_err(at(&output.root))?;
            *output.there() = output.files()?;
        }
        Ok(output)
    }

    /// A new file and the one beside it that describes it overwrite nothing.
    fn refuse_what_is_there(&self) -> Result<(), StorageError> {
        let name = Path::new(self.remote.address.name());
        for name in [name.to_path_buf(), name.with_extension("toml")] {
            let location = self.location(&name.to_string_lossy())?;
            match wait(self.remote.store.head(&location)) {
                Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(self.remote.told(&error)),
                Ok(_) => {
                    return Err(StorageError::Store {
                        url: self.remote.address.url.clone(),
                        what: format!(
                            "{location} is there already; give another --out or remove it"
                        ),
                    });
                }
            }
        }
        Ok(())
    }

    /// The local file or folder that stands for it.
    pub(super) fn local(&self) -> &Path {
        &self.local
    }

    fn there(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, State>> {
        self.there.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every file that is whole, by name.
    fn files(&self) -> Result<BTreeMap<String, State>, StorageError> {
        let mut files = BTreeMap::new();
        let mut open = vec![self.root.clone()];
        while let Some(path) = open.pop() {
            let found = match fs::symlink_metadata(&path) {
                Ok(found) => found,
                // Written anew or removed meanwhile; the folder itself must be there, or all of it would count as removed.
                Err(error) if error.kind() == ErrorKind::NotFound && path != self.root => continue,
                Err(error) => return Err(at(&path)(error)),
            };
            if found.is_dir() {
                for entry in fs::read_dir(&path).map_err(at(&path))? {
                    open.push(entry.map_err(at(&path))?.path());
                }
            } else if found.is_file()
                && path
                    .extension()
                    .is_none_or(|end| end != "part" && end != "partial")
            {
                let name = path.strip_prefix(&self.root).unwrap_or(&path);
                let modified = found.modified().map_err(at(&path))?;
                files.insert(name.to_string_lossy().into_owned(), (found.len(), modified));
            }
        }
        Ok(files)
    }

    /// Uploads what changed, stage by stage, and removes what is gone; until that succeeds, nobody removes the folder.
    fn upload(&self) -> Result<usize, StorageError> {
        let pending = self.folder.join(PENDING);
        let done = self.upload_changes();
        match &done {
            Ok(_) => drop(fs::remove_file(pending)),
            Err(_) => drop(fs::write(pending, "")),
        }
        done
    }

    fn upload_changes(&self) -> Result<usize, StorageError> {
        let files = self.files()?;
        let mut there = self.there();
        let gone: Vec<String> = there
            .keys()
            .filter(|name| !files.contains_key(*name))
            .cloned()
            .collect();
        if !gone.is_empty() {
            let url = &self.remote.address.url;
            crate::note!(
                "{url}: {} files that the run removed are removed",
                gone.len()
            );
        }
        for name in gone {
            let location = self.location(&name)?;
            match wait(self.remote.store.delete(&location)) {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(self.remote.told(&error)),
            }
            there.remove(&name);
        }
        let changed: Vec<(&String, &State)> = files
            .iter()
            .filter(|(name, state)| there.get(*name) != Some(*state))
            .collect();
        let mut bytes = 0;
        for number in 0..4 {
            let some = changed.iter().filter(|(name, _)| stage(name) == number);
            let some: Vec<_> = some.collect();
            let work = some.iter().map(|(name, state)| self.put(name, state.0));
            wait(
                stream::iter(work)
                    .buffer_unordered(AT_A_TIME)
                    .try_collect::<Vec<()>>(),
            )?;
            for (name, state) in some {
                there.insert((*name).clone(), **state);
                bytes += state.0;
            }
        }
        if !changed.is_empty() {
            crate::note!(
                "{}: {} files uploaded ({:.1} MB)",
                self.remote.address.url,
                changed.len(),
                bytes as f64 / 1e6
            );
        }
        Ok(changed.len())
    }

    fn location(&self, name: &str) -> Result<ObjectPath, StorageError> {
        let whole = match self.base.as_str() {
            "" => name.to_owned(),
            base => format!("{base}/{name}"),
        };
        ObjectPath::parse(&whole).map_err(|error| StorageError::Store {
            url: self.remote.address.url.clone(),
            what: format!("{name:?} cannot be an object's name: {error}"),
        })
    }

    /// Uploads one file; it appears on the store when it is whole.
    async fn put(&self, name: &str, size: u64) -> Result<(), StorageError> {
        let path = self.root.join(name);
        let location = self.location(name)?;
        let told = |error: object_store::Error| self.remote.told(&error);
        if size <= PART_BYTES {
            let bytes = fs::read(&path).map_err(at(&path))?;
            let put = self.remote.store.put(&location, PutPayload::from(bytes));
            return put.await.map(|_| ()).map_err(told);
        }
        let mut file = File::open(&path).map_err(at(&path))?;
        let part = PART_BYTES.max(size.div_ceil(MOST_PARTS)) as usize;
        let upload = self
            .remote
            .store
            .put_multipart(&location)
            .await
            .map_err(told)?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, part);
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) => {
                    let _ = upload.abort().await;
                    return Err(at(&path)(error));
                }
            };
            if let Err(error) = upload.wait_for_capacity(PARTS_AHEAD).await {
                let _ = upload.abort().await;
                return Err(told(error));
            }
            upload.write(&buffer[..read]);
        }
        upload.finish().await.map(|_| ()).map_err(told)
    }
}

/// The name of this machine, as names of folders begin: locks of some network file systems hold on one machine only.
fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let plain = |c: &char| c.is_ascii_alphanumeric() || *c == '-';
    let name: String = name.chars().filter(plain).collect();
    format!("{name}.")
}

/// Removes staging folders of processes of this machine that were killed, but what could not be uploaded.
fn clean(staging: &Path) {
    let own = host();
    for entry in fs::read_dir(staging).into_iter().flatten().flatten() {
        let folder = entry.path();
        let is_own = entry.file_name().to_string_lossy().starts_with(&own);
        let is_kept = folder.extension().is_some_and(|end| end == "kept");
        let Ok(lock) = File::open(folder.join(LOCK)) else {
            continue;
        };
        if !is_own || is_kept || lock.try_lock().is_err() {
            continue;
        }
        let kept = kept(&folder);
        if !folder.join(PENDING).exists() {
            let _ = fs::remove_dir_all(&folder);
        } else if fs::rename(&folder, &kept).is_ok() {
            crate::note!(
                "{}: what a run that ended could not upload is kept here",
                kept.display()
            );
        }
    }
}

/// The name of a staging folder that nobody removes.
fn kept(folder: &Path) -> PathBuf {
    let mut name = folder.as_os_str().to_owned();
    name.push(".kept");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Address;
    use object_store::memory::InMemory;

    fn open(store: &Arc<InMemory>, url: &str, cache: &Path, role: Role) -> Output {
        let address = Address::of(Path::new(url)).unwrap().unwrap();
        let remote = Remote::with_store(address, store.clone()).unwrap();
        Output::open(remote, cache, role).unwrap()
    }

    fn names(store: &InMemory) -> Vec<String> {
        use object_store::ObjectStore;
        let all = wait(store.list(None).try_collect::<Vec<_>>()).unwrap();
        let mut names: Vec<String> = all
            .into_iter()
            .map(|meta| meta.location.to_string())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_run_goes_on_from_what_is_uploaded_and_only_changes_travel() {
        let (store, cache) = (Arc::new(InMemory::new()), tempfile::tempdir().unwrap());
        let run = open(&store, "s3://bucket/runs/a", cache.path(), Role::Folder);
        fs::create_dir_all(run.local().join("round-1")).unwrap();
        fs::write(
            run.local().join("round-1/x.checkpoint.safetensors"),
            "weights",
        )
        .unwrap();
        fs::write(run.local().join("refused.json"), "{}").unwrap();
        fs::write(run.local().join("half.123.part"), "half").unwrap();
        assert_eq!(run.upload().unwrap(), 2);
        assert_eq!(run.upload().unwrap(), 0);
        let inside = [
            "runs/a/refused.json",
            "runs/a/round-1/x.checkpoint.safetensors",
        ];
        assert_eq!(names(&store), inside);
        let killed = run.folder.clone();
        drop(run);
        let next = open(&store, "s3://bucket/runs/a", cache.path(), Role::Folder);
        assert!(
            !killed.exists(),
            "the staging folder of a process that is gone"
        );
        let text = fs::read_to_string(next.local().join("round-1/x.checkpoint.safetensors"));
        assert_eq!(text.unwrap(), "weights");
        fs::remove_file(next.local().join("refused.json")).unwrap();
        fs::write(next.local().join("run.json"), "{}").unwrap();
        assert_eq!(next.upload().unwrap(), 1);
        let inside = ["runs/a/round-1/x.checkpoint.safetensors", "runs/a/run.json"];
        assert_eq!(names(&store), inside);
        finish(&[Arc::new(next)]).unwrap();
        let left = fs::read_dir(cache.path().join("staging")).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["lock"]);
    }

    #[test]
    fn a_staging_folder_that_vanishes_removes_nothing_from_the_store() {
        let (store, cache) = (Arc::new(InMemory::new()), tempfile::tempdir().unwrap());
        let run = open(&store, "s3://bucket/runs/a", cache.path(), Role::Folder);
        fs::write(run.local().join("run.json"), "{}").unwrap();
        run.upload().unwrap();
        fs::remove_dir_all(run.local()).unwrap();
        assert!(run.upload().is_err());
        assert_eq!(names(&store), ["runs/a/run.json"]);
        // What could not be uploaded outlives the process.
        let folder = run.folder.clone();
        assert!(folder.join(PENDING).exists());
        drop(run);
        open(&store, "s3://bucket/runs/b", cache.path(), Role::Folder);
        assert!(!folder.exists() && kept(&folder).exists());
    }

    #[test]
    fn a_new_file_overwrites_neither_its_like_nor_what_lies_beside_it() {
        let (store, cache) = (Arc::new(InMemory::new()), tempfile::tempdir().unwrap());
        let url = "s3://bucket/tiles/delft.pmtiles";
        let beside = open(
            &store,
            "s3://bucket/tiles/delft.toml",
            cache.path(),
            Role::File,
        );
        fs::write(beside.local(), "other").unwrap();
        beside.upload().unwrap();
        let address = Address::of(Path::new(url)).unwrap().unwrap();
        let remote = Remote::with_store(address, store.clone()).unwrap();
        let refused = Output::open(remote, cache.path(), Role::New).unwrap_err();
        assert!(
            refused.to_string().contains("is there already"),
            "{refused}"
        );
        let other = "s3://bucket/tiles/other.pmtiles";
        open(&store, other, cache.path(), Role::New);
    }

    #[test]
    fn a_file_has_the_name_of_its_address_and_large_ones_go_in_parts() {
        let (store, cache) = (Arc::new(InMemory::new()), tempfile::tempdir().unwrap());
        let output = open(
            &store,
            "s3://bucket/out/large.onnx",
            cache.path(),
            Role::File,
        );
        assert_eq!(output.local().file_name().unwrap(), "large.onnx");
        let size = PART_BYTES as usize + 12_345;
        let bytes: Vec<u8> = (0..size).map(|index| (index * 7 % 251) as u8).collect();
        fs::write(output.local(), &bytes).unwrap();
        fs::write(output.local().with_extension("toml"), "beside").unwrap();
        output.upload().unwrap();
        assert_eq!(names(&store), ["out/large.onnx", "out/large.toml"]);
        let path = ObjectPath::parse("out/large.onnx").unwrap();
        let found = wait(async { store.get(&path).await.unwrap().bytes().await.unwrap() });
        assert!(found == bytes);
    }
}
