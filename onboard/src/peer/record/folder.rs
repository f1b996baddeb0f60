//! The folder of the recordings: names, the oldest files, and how much is free.

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock, statvfs};
use tracing::{info, warn};

use crate::port::PeerError;
use crate::utc::{self, compact_from_ns, ns_from_compact};

const PREFIX: &str = "crossfix-";
const SUFFIX: &str = ".mcap";
/// What a file is called until there is something in it.
const UNFINISHED: &str = ".part";
const MEGABYTE: u64 = 1_000_000;
const DAY_NS: f64 = 86_400e9;
/// The machine's clock is not believed before 2020, nanoseconds.
const PLAUSIBLE_NS: i64 = 1_577_836_800_000_000_000;

/// A folder that one recorder has for itself.
pub struct Folder {
    path: PathBuf,
    min_free_bytes: u64,
    /// Held while the recorder runs.
    _lock: File,
}

/// A recording in the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// Its place in the order of the files.
    pub number: u64,
    /// UTC of the first fix in it, nanoseconds.
    pub began_ns: i64,
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
}

impl Folder {
    /// Takes the folder, makes it if need be, and removes files that were begun and hold nothing.
    ///
    /// # Errors
    /// [`PeerError`] when it cannot be made or written, or another recorder has it.
    pub fn open(path: &Path, min_free_mb: u64) -> Result<Self, PeerError> {
        let fail = |what: &str| PeerError::io(format!("{what} {path:?}"));
        std::fs::create_dir_all(path).map_err(fail("making the folder of recordings"))?;
        let lock = File::open(path).map_err(fail("opening the folder of recordings"))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(PeerError::Protocol(format!(
                "another recorder writes into {path:?}; give each its own folder"
            )));
        }
        let folder = Self {
            path: path.to_owned(),
            min_free_bytes: min_free_mb * MEGABYTE,
            _lock: lock,
        };
        for name in folder.names() {
            if let Some(whole) = name.strip_suffix(UNFINISHED)
                && parsed(whole).is_some()
            {
                // If this fails, it stays and holds nothing.
                let _ = std::fs::remove_file(path.join(&name));
            }
        }
        Ok(folder)
    }

    /// Fails when less is free than there should be.
    ///
    /// # Errors
    /// [`PeerError::Protocol`] that says what to do.
    pub fn check_space(&self) -> Result<(), PeerError> {
        let Ok(disk) = statvfs(&self.path) else {
            return Ok(());
        };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free >= self.min_free_bytes {
            return Ok(());
        }
        // Without the figure that is free now: the same sentence again is not logged again.
        Err(PeerError::Protocol(format!(
            "the disk of {:?} has less than {} MB free, so nothing is recorded; free some space or lower \
             min_free_mb",
            self.path,
            self.min_free_bytes / MEGABYTE
        )))
    }

    /// The recordings, oldest first.
    pub fn recordings(&self) -> Vec<Recording> {
        let mut found: Vec<Recording> = self
            .names()
            .into_iter()
            .filter_map(|name| {
                let (number, began_ns) = parsed(&name)?;
                let path = self.path.join(&name);
                let about = std::fs::symlink_metadata(&path).ok()?;
                about.is_file().then_some(Recording {
                    number,
                    began_ns,
                    path,
                    bytes: about.len(),
                })
            })
            .collect();
        found.sort_by_key(|recording| recording.number);
        found
    }

    /// Where the next recording is begun, and its path once there is something in it.
    pub fn next(&self, began_ns: i64) -> (PathBuf, PathBuf) {
        let last = self.recordings().last().map_or(0, |last| last.number);
        let time = compact_from_ns(began_ns);
        let name = format!("{PREFIX}{:06}-{time}{SUFFIX}", last + 1);
        (
            self.path.join(format!("{name}{UNFINISHED}")),
            self.path.join(name),
        )
    }

    /// Removes the oldest files until all together have at most `total_mb`, and those that are too old at
    /// `now_ns`; never the one at `current`.
    pub fn tidy(&self, current: &Path, total_mb: u64, retention_days: f64, now_ns: i64) {
        let recordings = self.recordings();
        let mut total: u64 = recordings.iter().map(|recording| recording.bytes).sum();
        for recording in recordings {
            let too_many = total > total_mb.saturating_mul(MEGABYTE);
            let too_old =
                retention_days > 0.0 && age_ns(&recording, now_ns) as f64 > retention_days * DAY_NS;
            if recording.path == current || !(too_many || too_old) {
                continue;
            }
            match std::fs::remove_file(&recording.path) {
                Ok(()) => {
                    total -= recording.bytes;
                    info!(path = ?recording.path, too_old, "an old recording was removed");
                }
                Err(error) => {
                    warn!(path = ?recording.path, %error, "cannot remove an old recording");
                }
            }
        }
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.path)
            .into_iter()
            .flatten()
            .flatten();
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    }
}

/// The age of a recording: by its name, and no more than by the file's own time where the machine's clock
/// can be believed, so that one wrong clock removes nothing.
fn age_ns(recording: &Recording, now_ns: i64) -> i64 {
    let by_name_ns = now_ns.saturating_sub(recording.began_ns);
    let machine_ns = utc::now_ns();
    if machine_ns < PLAUSIBLE_NS {
        return by_name_ns;
    }
    let written = std::fs::metadata(&recording.path).and_then(|about| about.modified());
    let written_ns = written
        .ok()
        .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
        .and_then(|since| i64::try_from(since.as_nanos()).ok());
    let by_file_ns = written_ns.map_or(0, |written_ns| machine_ns.saturating_sub(written_ns));
    by_name_ns.min(by_file_ns)
}

/// Number and time out of a name.
fn parsed(name: &str) -> Option<(u64, i64)> {
    let (number, time) = name
        .strip_prefix(PREFIX)?
        .strip_suffix(SUFFIX)?
        .split_once('-')?;
    let digits = number.len() >= 6 && number.bytes().all(|byte| byte.is_ascii_digit());
    digits.then_some(())?;
    Some((number.parse().ok()?, ns_from_compact(time)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MADE_NS: i64 = 1_764_428_100_000_000_000; // 2025-11-29T14:55:00Z

    fn make(folder: &Path, name: &str, bytes: usize) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, vec![0; bytes]).unwrap();
        path
    }

    #[test]
    fn only_recordings_are_removed_the_lowest_numbers_first() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path();
        let strangers = [
            "holiday.mcap",
            "crossfix-000001.mcap",
            "crossfix-1-20251129T145500Z.mcap",
            "crossfix-000001-20251129T145500Z.mcap.bak",
            "crossfix-00000x-20251129T145500Z.mcap",
        ];
        let strangers = strangers.map(|name| make(path, name, 3_000_000));
        let unfinished = make(path, "crossfix-000009-20251129T145500Z.mcap.part", 10);
        let folder = Folder::open(path, 0).unwrap();
        assert!(!unfinished.exists());
        // The clock was wrong when the first was made.
        let ours = [
            "crossfix-000002-20391129T145500Z.mcap",
            "crossfix-000010-20251129T145500Z.mcap",
            "crossfix-000011-20251129T145501Z.mcap",
        ]
        .map(|name| make(path, name, 1_500_000));
        let (part, next) = folder.next(MADE_NS);
        assert_eq!(next, path.join("crossfix-000012-20251129T145500Z.mcap"));
        assert_eq!(
            part,
            path.join("crossfix-000012-20251129T145500Z.mcap.part")
        );
        folder.tidy(&ours[2], 3, 0.0, MADE_NS);
        assert_eq!(ours.clone().map(|path| path.exists()), [false, true, true]);
        folder.tidy(&ours[2], 1, 0.0, MADE_NS);
        assert_eq!(ours.map(|path| path.exists()), [false, false, true]);
        assert!(strangers.iter().all(|path| path.exists()));
    }

    #[test]
    fn what_is_too_old_by_both_clocks_is_removed() {
        let temp = tempfile::tempdir().unwrap();
        let folder = Folder::open(temp.path(), 0).unwrap();
        let current = temp.path().join("none");
        let old = make(temp.path(), "crossfix-000001-20251129T145500Z.mcap", 10);
        let now_ns = MADE_NS + 3 * DAY_NS as i64;
        folder.tidy(&current, 100, 2.0, now_ns);
        assert!(old.exists(), "the file itself is of today");
        let then = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(MADE_NS as u64);
        File::open(&old).unwrap().set_modified(then).unwrap();
        folder.tidy(&current, 100, 4.0, now_ns);
        assert!(old.exists());
        folder.tidy(&current, 100, 2.0, now_ns);
        assert!(!old.exists());
    }

    #[test]
    fn a_folder_has_one_recorder_and_needs_space() {
        let temp = tempfile::tempdir().unwrap();
        let folder = Folder::open(temp.path(), 0).unwrap();
        folder.check_space().unwrap();
        let second = Folder::open(temp.path(), 0).err().unwrap().to_string();
        assert!(second.contains("another recorder"), "{second}");
        drop(folder);
        let picky = Folder::open(temp.path(), u64::MAX / MEGABYTE).unwrap();
        let full = picky.check_space().unwrap_err().to_string();
        assert!(full.contains("min_free_mb"), "{full}");
    }
}
