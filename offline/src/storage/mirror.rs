//! What is read from object storage, as files of a cache.
//!
//! `objects/` holds the bytes of each version of an object, named by a hash of where it lies, its ETag and its size;
//! `views/` holds a folder of hard links for each listing. Both are made under another name and renamed when they are whole, so
//! what is there is complete, a second run fetches nothing, and a changed object is another file.

use super::remote::{Object, Remote, wait};
use super::{Address, StorageError};
use crate::run::sha256_json;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::{Error, GetOptions, ObjectStore};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Objects that are fetched at a time.
const AT_A_TIME: usize = 16;

/// Fetches what is not in the cache; the local file or folder that stands for it.
pub(super) fn fetch(remote: &Remote, cache: &Path) -> Result<PathBuf, StorageError> {
    let address = &remote.address;
    let objects = remote.list()?;
    if objects.is_empty() {
        return Err(StorageError::NotThere {
            url: address.url.clone(),
        });
    }
    // Of several processes of a machine one fetches, and the others find it. Where locks are not to be had, all fetch.
    let lock = cache.join("locks").join(sha256_json(&address.url));
    let lock = made(&lock).and_then(|()| File::create(&lock).map_err(at(&lock)))?;
    let _ = lock.lock();
    let places: Vec<PathBuf> = objects
        .iter()
        .map(|object| place(cache, address, object))
        .collect();
    fetch_missing(remote, cache, &objects, &places)?;
    let single = objects.len() == 1 && objects[0].meta.location == remote.prefix;
    let view = view(remote, cache, &objects, &places, single)?;
    Ok(if single {
        view.join(&objects[0].name)
    } else {
        view
    })
}

/// Puts every object below `folder`, as files that may be changed.
pub(super) fn copy_into(remote: &Remote, folder: &Path) -> Result<Vec<Object>, StorageError> {
    let objects = remote.list()?;
    let places: Vec<PathBuf> = objects
        .iter()
        .map(|object| folder.join(&object.name))
        .collect();
    fetch_missing(remote, folder, &objects, &places)?;
    Ok(objects)
}

/// Where the bytes of an object's version are kept.
fn place(cache: &Path, address: &Address, object: &Object) -> PathBuf {
    let meta = &object.meta;
    // Stores without ETags have times.
    let version = meta
        .e_tag
        .clone()
        .unwrap_or_else(|| meta.last_modified.to_string());
    let scheme = format!("{:?}", address.scheme);
    let key = (
        scheme,
        &address.bucket,
        meta.location.as_ref(),
        version,
        meta.size,
    );
    let hash = sha256_json(&key);
    cache.join("objects").join(&hash[..2]).join(hash)
}

/// Whether a file is there, whole.
fn is_whole(path: &Path, size: u64) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() == size)
}

fn fetch_missing(
    remote: &Remote,
    cache: &Path,
    objects: &[Object],
    places: &[PathBuf],
) -> Result<(), StorageError> {
    let all = objects.iter().zip(places);
    let missing: HashMap<&PathBuf, &Object> = all
        .filter(|(object, place)| !is_whole(place, object.meta.size))
        .map(|(object, place)| (place, object))
        .collect();
    let bytes: u64 = missing.values().map(|object| object.meta.size).sum();
    let left = AtomicU64::new(bytes);
    let work = missing
        .iter()
        .map(|(place, object)| fetch_one(remote, object, place, &left));
    let fetched = stream::iter(work)
        .buffer_unordered(AT_A_TIME)
        .try_collect::<Vec<()>>();
    wait(fetched).map_err(|error| match error {
        StorageError::File { error, .. } if is_full(error.kind()) => StorageError::Full {
            url: remote.address.url.clone(),
            folder: cache.display().to_string(),
            bytes: left.load(Ordering::Relaxed),
        },
        error => error,
    })?;
    crate::note!(
        "{}: {} objects, {} of them fetched now ({:.1} MB)",
        remote.address.url,
        objects.len(),
        missing.len(),
        bytes as f64 / 1e6
    );
    Ok(())
}

fn is_full(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
    )
}

/// Fetches one object under another name, and renames it when it is whole.
async fn fetch_one(
    remote: &Remote,
    object: &Object,
    place: &Path,
    left: &AtomicU64,
) -> Result<(), StorageError> {
    let options = GetOptions {
        if_match: object.meta.e_tag.clone(),
        ..GetOptions::default()
    };
    let changed = || StorageError::Changed {
        url: remote.address.url.clone(),
        name: object.name.clone(),
    };
    let told = |error: Error| match error {
        Error::Precondition { .. } | Error::NotFound { .. } => changed(),
        error => remote.told(&error),
    };
    let found = remote.store.get_opts(&object.meta.location, options).await;
    let mut bytes = found.map_err(told)?.into_stream();
    made(place)?;
    let part = beginning(place);
    let written = async {
        let mut file = File::create_new(&part).map_err(at(&part))?;
        let mut size = 0;
        while let Some(some) = bytes.try_next().await.map_err(told)? {
            file.write_all(&some).map_err(at(&part))?;
            size += some.len() as u64;
            left.fetch_sub(some.len() as u64, Ordering::Relaxed);
        }
        if size != object.meta.size {
            return Err(changed());
        }
        // Views are links to it: who writes into one would change what later runs read.
        let mut rights = file.metadata().map_err(at(&part))?.permissions();
        rights.set_readonly(true);
        file.set_permissions(rights).map_err(at(&part))?;
        fs::rename(&part, place).map_err(at(place))
    };
    let written = written.await;
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    written
}

/// The name under which a file or folder is made before it gets its own: no other process has it, in whichever container.
fn beginning(place: &Path) -> PathBuf {
    let mut name = place.as_os_str().to_owned();
    name.push(format!(".{:016x}.part", rand::random::<u64>()));
    name.into()
}

/// A folder of hard links with the objects' names.
fn view(
    remote: &Remote,
    cache: &Path,
    objects: &[Object],
    places: &[PathBuf],
    single: bool,
) -> Result<PathBuf, StorageError> {
    let names = objects.iter().map(|object| &object.name);
    let listing: Vec<_> = names
        .zip(places.iter().map(|place| place.file_name()))
        .collect();
    let listing: Vec<(String, String)> = listing
        .into_iter()
        .map(|(name, hash)| {
            (
                name.clone(),
                hash.unwrap_or_default().to_string_lossy().into(),
            )
        })
        .collect();
    let hash = sha256_json(&(&remote.address.url, listing));
    let folder = cache.join("views").join(&hash[..32]);
    let name = if single { "" } else { remote.address.name() };
    let whole = |folder: &Path| {
        let mut all = objects.iter();
        all.all(|object| is_whole(&folder.join(name).join(&object.name), object.meta.size))
    };
    if whole(&folder) {
        return Ok(folder.join(name));
    }
    let part = beginning(&folder);
    for (object, place) in objects.iter().zip(places) {
        let path = part.join(name).join(&object.name);
        made(&path)?;
        // File systems without hard links, or with no more of them for this file.
        if fs::hard_link(place, &path).is_err() {
            fs::copy(place, &path).map_err(at(&path))?;
        }
    }
    let _ = fs::remove_dir_all(&folder);
    if let Err(error) = fs::rename(&part, &folder) {
        let _ = fs::remove_dir_all(&part);
        // Another process, where locks are not to be had, was there first.
        if !whole(&folder) {
            return Err(at(&folder)(error));
        }
    }
    Ok(folder.join(name))
}

/// Makes the folder that a file lies in.
pub(super) fn made(path: &Path) -> Result<(), StorageError> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(at(folder))
}

/// An error of the operating system at a file.
pub(super) fn at(path: &Path) -> impl Fn(std::io::Error) -> StorageError + '_ {
    |error| StorageError::File {
        path: path.display().to_string(),
        error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;
    use object_store::path::Path as ObjectPath;
    use object_store::{ObjectStoreExt, PutPayload};
    use std::sync::Arc;

    fn remote(url: &str, store: &Arc<InMemory>) -> Remote {
        let address = Address::of(Path::new(url)).unwrap().unwrap();
        Remote::with_store(address, store.clone()).unwrap()
    }

    fn put(store: &InMemory, name: &str, text: &str) {
        let payload = PutPayload::from(text.as_bytes().to_vec());
        wait(store.put(&ObjectPath::parse(name).unwrap(), payload)).unwrap();
    }

    fn times(cache: &Path) -> Vec<(PathBuf, std::time::SystemTime)> {
        let mut all = Vec::new();
        for folder in fs::read_dir(cache.join("objects")).unwrap() {
            for entry in fs::read_dir(folder.unwrap().path()).unwrap() {
                let entry = entry.unwrap();
                all.push((entry.path(), entry.metadata().unwrap().modified().unwrap()));
            }
        }
        all.sort();
        all
    }

    #[test]
    fn a_second_run_fetches_nothing_and_a_changed_object_is_fetched_again() {
        let (store, cache) = (Arc::new(InMemory::new()), tempfile::tempdir().unwrap());
        put(&store, "areas/delft/dataset.toml", "one");
        put(&store, "areas/delft/images/1.jpg", "picture");
        put(&store, "areas/delft", "");
        put(&store, "areas/delft-south/dataset.toml", "other");
        let remote = remote("s3://bucket/areas/delft", &store);
        let first = fetch(&remote, cache.path()).unwrap();
        assert_eq!(first.file_name().unwrap(), "delft");
        assert_eq!(
            fs::read_to_string(first.join("images/1.jpg")).unwrap(),
            "picture"
        );
        assert_eq!(fs::read_dir(&first).unwrap().count(), 2);
        let before = times(cache.path());
        assert_eq!(fetch(&remote, cache.path()).unwrap(), first);
        assert_eq!(times(cache.path()), before);
        put(&store, "areas/delft/dataset.toml", "two");
        let second = fetch(&remote, cache.path()).unwrap();
        assert_ne!(second, first);
        assert_eq!(
            fs::read_to_string(second.join("dataset.toml")).unwrap(),
            "two"
        );
        // A reader of the first view is not disturbed.
        assert_eq!(
            fs::read_to_string(first.join("dataset.toml")).unwrap(),
            "one"
        );
        let after = times(cache.path());
        assert!(after.len() == 3 && before.iter().all(|old| after.contains(old)));
    }

    #[test]
    fn what_is_cut_or_gone_in_the_cache_is_made_again() {
        let (store, cache) = (Arc::new(InMemory::new()), tempfile::tempdir().unwrap());
        put(&store, "model.safetensors", "weights");
        let remote = remote("s3://bucket/model.safetensors", &store);
        let file = fetch(&remote, cache.path()).unwrap();
        assert_eq!(file.file_name().unwrap(), "model.safetensors");
        let (object, _) = &times(cache.path())[0];
        fs::remove_file(object).unwrap();
        fs::write(object, "wei").unwrap();
        assert_eq!(fetch(&remote, cache.path()).unwrap(), file);
        assert_eq!(fs::read_to_string(&file).unwrap(), "weights");
        fs::remove_file(&file).unwrap();
        assert_eq!(fetch(&remote, cache.path()).unwrap(), file);
        assert_eq!(fs::read_to_string(&file).unwrap(), "weights");
    }

    #[test]
    fn nothing_a_file_that_is_a_folder_and_a_full_disk_are_told() {
        let (store, cache) = (Arc::new(InMemory::new()), tempfile::tempdir().unwrap());
        let none = fetch(&remote("s3://bucket/none", &store), cache.path()).unwrap_err();
        assert!(matches!(none, StorageError::NotThere { .. }), "{none}");
        put(&store, "both/a", "file");
        put(&store, "both/a/b", "below");
        let both = fetch(&remote("s3://bucket/both", &store), cache.path()).unwrap_err();
        assert!(both.to_string().contains("a file and a folder"), "{both}");
        // A full disk is tried by tests/scripts/object_storage.py.
    }
}
