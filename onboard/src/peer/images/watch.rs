//! The names that appear in a folder, told by the system instead of looked for.

use std::collections::{HashSet, VecDeque};
use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use notify::event::{AccessKind, AccessMode, CreateKind, EventKind, ModifyKind, RenameMode};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tracing::warn;

use crate::port::PeerError;

/// How often the folder itself is looked at.
const FOLDER_CHECK: Duration = Duration::from_secs(1);
/// How often a folder is listed whose changes the system does not tell, as on network file systems.
const LIST_INTERVAL: Duration = Duration::from_millis(200);
/// Names that may wait to be read; more, and the oldest are lost.
const MOST_WAITING: usize = 4096;

type Told = notify::Result<notify::Event>;

/// Tells the names that appear in a folder, in the order in which they do. A file that is made and then
/// written is told twice.
pub struct Watch {
    folder: PathBuf,
    identity: (u64, u64),
    /// When the folder last changed, by its own file system.
    changed: (i64, i64),
    checked: Instant,
    events: Receiver<Told>,
    _watcher: RecommendedWatcher,
    waiting: VecDeque<PathBuf>,
    /// What was in the folder when it was last listed, as hashes; none while the system tells.
    listed: Option<HashSet<u64>>,
    /// Whether the system has told anything.
    is_told: bool,
}

impl Watch {
    /// Begins with what appears from now on.
    pub fn open(folder: &Path) -> Result<Self, PeerError> {
        let fail =
            |error: notify::Error| PeerError::Protocol(format!("cannot watch {folder:?}: {error}"));
        let (identity, changed) = look(folder)?;
        let (sender, events): (Sender<Told>, _) = crossbeam_channel::bounded(MOST_WAITING);
        let overflow = std::sync::atomic::AtomicBool::new(false);
        let mut watcher = notify::recommended_watcher(move |event: Told| {
            use std::sync::atomic::Ordering::Relaxed;
            // Never waits: what is lost is found by listing the folder.
            if overflow.swap(false, Relaxed) && sender.try_send(Ok(rescan())).is_err() {
                overflow.store(true, Relaxed);
            }
            if sender.try_send(event).is_err() {
                overflow.store(true, Relaxed);
            }
        })
        .map_err(fail)?;
        watcher
            .watch(folder, RecursiveMode::NonRecursive)
            .map_err(fail)?;
        Ok(Self {
            folder: folder.to_owned(),
            identity,
            changed,
            checked: Instant::now(),
            events,
            _watcher: watcher,
            waiting: VecDeque::new(),
            listed: Some(names(folder)?.iter().map(hash).collect()),
            is_told: false,
        })
    }

    /// The next new name, waiting for `patience` at most.
    pub fn next(&mut self, patience: Duration) -> Result<Option<PathBuf>, PeerError> {
        if let Some(path) = self.waiting.pop_front() {
            return Ok(Some(path));
        }
        let every = if self.is_told {
            FOLDER_CHECK
        } else {
            LIST_INTERVAL
        };
        let left = every.saturating_sub(self.checked.elapsed());
        match self.events.recv_timeout(patience.min(left)) {
            Ok(Ok(event)) => self.take(event)?,
            Ok(Err(error)) => {
                return Err(PeerError::Protocol(format!(
                    "watching {:?}: {error}",
                    self.folder
                )));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(PeerError::Protocol(format!(
                    "{:?} is watched no more",
                    self.folder
                )));
            }
        }
        if self.checked.elapsed() >= every {
            self.check_folder()?;
        }
        Ok(self.waiting.pop_front())
    }

    fn take(&mut self, event: notify::Event) -> Result<(), PeerError> {
        if event.need_rescan() {
            return self.list();
        }
        let leaves = matches!(
            event.kind,
            EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_))
        );
        if leaves && event.paths.contains(&self.folder) {
            return Err(self.is_gone());
        }
        if !self.is_told {
            self.is_told = true;
            self.listed = None;
        }
        // Links and pipes are made and not written; files are written and closed.
        let appeared = matches!(
            event.kind,
            EventKind::Create(CreateKind::File | CreateKind::Any | CreateKind::Other)
                | EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both))
                | EventKind::Access(AccessKind::Close(AccessMode::Write))
        );
        if appeared && let Some(path) = event.paths.last() {
            self.add(path.clone());
        }
        Ok(())
    }

    fn add(&mut self, path: PathBuf) {
        self.waiting.push_back(path);
        if self.waiting.len() > MOST_WAITING {
            self.waiting.pop_front();
        }
    }

    /// Whether the folder is still the same one, and whether it changes without being told.
    fn check_folder(&mut self) -> Result<(), PeerError> {
        self.checked = Instant::now();
        let (identity, changed) = look(&self.folder)?;
        if identity != self.identity {
            return Err(self.is_gone());
        }
        if self.is_told || changed == self.changed || !self.events.is_empty() {
            return Ok(());
        }
        self.changed = changed;
        self.list()
    }

    fn is_gone(&self) -> PeerError {
        match look(&self.folder) {
            Err(missing) => missing,
            Ok(_) => PeerError::Protocol(format!("{:?} was taken away", self.folder)),
        }
    }

    /// Lists the folder: whatever was not there the last time is new.
    fn list(&mut self) -> Result<(), PeerError> {
        let Some(known) = self.listed.take() else {
            warn!(folder = ?self.folder, "too much appeared at once; some pictures are lost");
            return Ok(());
        };
        let names = names(&self.folder)?;
        let mut new: Vec<_> = names
            .iter()
            .filter(|name| !known.contains(&hash(name)))
            .collect();
        new.sort();
        for name in new {
            self.add(self.folder.join(name));
        }
        self.listed = Some(names.iter().map(hash).collect());
        Ok(())
    }
}

/// The device and number of a folder, and when it changed.
type Looked = ((u64, u64), (i64, i64));

fn look(folder: &Path) -> Result<Looked, PeerError> {
    let found =
        std::fs::metadata(folder).map_err(PeerError::io(format!("looking at {folder:?}")))?;
    Ok((
        (found.dev(), found.ino()),
        (found.mtime(), found.mtime_nsec()),
    ))
}

fn names(folder: &Path) -> Result<Vec<OsString>, PeerError> {
    let entries =
        std::fs::read_dir(folder).map_err(PeerError::io(format!("listing {folder:?}")))?;
    Ok(entries
        .filter_map(|entry| Some(entry.ok()?.file_name()))
        .collect())
}

fn hash(name: &OsString) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

fn rescan() -> notify::Event {
    notify::Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan)
}
