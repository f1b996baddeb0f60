//! An MCAP log of estimates.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tracing::info;

use super::McapSinkConfig;
use crate::log::LogWriter;
use crate::port::{Outbound, PeerError, Writer};

/// Writes estimates to a file, and makes sure of them every few seconds.
pub struct McapWriter {
    writer: LogWriter,
    file: NewFile,
    every: Duration,
    synced: Instant,
    dirty: bool,
}

impl McapWriter {
    /// Creates the file, under a free name.
    pub fn open(config: &McapSinkConfig) -> Result<Self, PeerError> {
        let path = free_path(&config.path);
        let writer = LogWriter::create(&path)?;
        info!(sink = "mcap", ?path, "recording");
        Ok(Self {
            writer,
            file: NewFile { path, kept: false },
            every: Duration::from_secs_f64(config.flush_s),
            synced: Instant::now(),
            dirty: false,
        })
    }
}

impl Writer for McapWriter {
    fn write(&mut self, outbound: &Outbound) -> Result<(), PeerError> {
        match outbound {
            Outbound::Estimate(estimate) => self.writer.write_estimate(estimate)?,
            Outbound::Shadow(comparison) => self.writer.write_comparison(comparison)?,
            _ => return self.poll(),
        }
        self.dirty = true;
        self.poll()
    }

    fn poll(&mut self) -> Result<(), PeerError> {
        if self.dirty && self.synced.elapsed() >= self.every {
            self.writer.flush()?;
            self.file.kept = true;
            self.synced = Instant::now();
            self.dirty = false;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), PeerError> {
        let Self {
            writer, mut file, ..
        } = *self;
        writer.finish()?;
        file.kept = true;
        Ok(())
    }
}

/// A file that is removed again unless something of it is safely on the disk. A full disk makes every
/// try fail, and each would leave an empty file behind.
struct NewFile {
    path: PathBuf,
    kept: bool,
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.kept {
            // If this fails too, the file stays; nothing depends on it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// The path, or with a number added while files of that name exist.
fn free_path(path: &Path) -> PathBuf {
    let stem = path
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let extension = path.extension().map_or(String::new(), |extension| {
        format!(".{}", extension.to_string_lossy())
    });
    std::iter::once(path.to_owned())
        .chain((1..).map(|number| path.with_file_name(format!("{stem}-{number}{extension}"))))
        .find(|path| !path.exists())
        .expect("there are endless numbers")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::State;
    use crate::log::{LogReader, Message};
    use crate::peer::testing::outbound;

    #[test]
    fn an_old_recording_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let config = McapSinkConfig {
            path: folder.path().join("out.mcap"),
            flush_s: 0.1,
        };
        for _ in 0..2 {
            let mut sink = Box::new(McapWriter::open(&config).unwrap());
            sink.write(&outbound(State::Degraded)).unwrap();
            sink.finish().unwrap();
        }
        for name in ["out.mcap", "out-1.mcap"] {
            let messages: Vec<_> = LogReader::open(&folder.path().join(name))
                .unwrap()
                .map(Result::unwrap)
                .collect();
            assert!(
                matches!(&messages[0], Message::Estimate(found) if found.state == State::Degraded)
            );
        }
    }

    #[test]
    fn a_file_with_nothing_safe_in_it_is_removed_and_any_other_stays() {
        let folder = tempfile::tempdir().unwrap();
        let open = |name: &str| {
            let config = McapSinkConfig {
                path: folder.path().join(name),
                flush_s: 0.05,
            };
            McapWriter::open(&config).unwrap()
        };
        // As after a failure: dropped without being finished.
        let mut failed = open("failed.mcap");
        failed.write(&outbound(State::Ok)).unwrap();
        drop(failed);
        assert!(!folder.path().join("failed.mcap").exists());
        let mut synced = open("synced.mcap");
        synced.write(&outbound(State::Ok)).unwrap();
        std::thread::sleep(Duration::from_millis(60));
        synced.poll().unwrap();
        drop(synced);
        assert!(folder.path().join("synced.mcap").exists());
        Box::new(open("finished.mcap")).finish().unwrap();
        assert!(folder.path().join("finished.mcap").exists());
    }

    #[test]
    fn what_was_synced_survives_a_crash() {
        let folder = tempfile::tempdir().unwrap();
        let config = McapSinkConfig {
            path: folder.path().join("out.mcap"),
            flush_s: 0.1,
        };
        let mut sink = McapWriter::open(&config).unwrap();
        sink.write(&outbound(State::Ok)).unwrap();
        std::thread::sleep(Duration::from_millis(120));
        sink.poll().unwrap();
        std::mem::forget(sink);
        let items: Vec<_> = LogReader::open(&config.path).unwrap().collect();
        assert!(matches!(&items[0], Ok(Message::Estimate(_))));
        assert!(items.iter().all(Result::is_ok), "it is a whole file");
    }
}
