//! A file that is a whole MCAP file at every moment, also while it is written and after `kill -9`.
//!
//! It always ends in an end mark: `DataEnd`, a `Footer` without a summary, and the magic. What was
//! written since the last [`Write::flush`] waits in memory; a flush first writes all of it that lies
//! behind the old end mark, with a new end mark, and then, in one small write, the rest over the old
//! one. In between a reader finds the old end mark, and does not look behind it.
//!
//! # Source
//! MCAP specification, "File Structure", "Data End" and "Footer": a `summary_start` of 0 means no
//! summary section, a CRC of 0 means that it was not computed.

use std::fs::File;
use std::io::{Error, ErrorKind, Result, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

/// `DataEnd`, `Footer`, magic.
const END_MARK: [u8; 50] = {
    let mut mark = [0; 50];
    mark[0] = 0x0f; // DataEnd, of 4 bytes
    mark[1] = 4;
    mark[13] = FOOTER[0];
    mark[14] = FOOTER[1];
    let mut at = 0;
    while at < MAGIC.len() {
        mark[42 + at] = MAGIC[at];
        at += 1;
    }
    mark
};
/// Opcode and length of a footer record.
const FOOTER: [u8; 9] = [0x02, 20, 0, 0, 0, 0, 0, 0, 0];
const MAGIC: [u8; 8] = *b"\x89MCAP0\r\n";

/// What keeps the bytes.
pub trait Storage {
    /// Writes all bytes at this place.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> Result<()>;
    /// Forgets everything behind this length.
    fn cut(&mut self, length: u64) -> Result<()>;
    /// Waits until all of it is on the disk.
    fn sync(&mut self) -> Result<()>;
}

impl Storage for File {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn cut(&mut self, length: u64) -> Result<()> {
        self.set_len(length)
    }

    fn sync(&mut self) -> Result<()> {
        self.sync_data()
    }
}

/// The stream that an MCAP writer writes to. A flush must come between records.
pub struct EndMarked<S: Storage = File> {
    storage: S,
    /// Bytes that are flushed, without the end mark.
    flushed: u64,
    /// What follows them.
    pending: Vec<u8>,
    /// Where the next byte goes in `pending`.
    at: usize,
}

impl<S: Storage> EndMarked<S> {
    /// An empty file; it is none before the first flush.
    pub fn new(storage: S) -> Self {
        Self {
            storage,
            flushed: 0,
            pending: Vec::new(),
            at: 0,
        }
    }

    fn add(&mut self, bytes: &[u8]) -> Result<()> {
        let mark = END_MARK.len().min(bytes.len());
        let behind = if self.flushed == 0 { 0 } else { mark };
        self.storage
            .write_at(&bytes[behind..], self.flushed + behind as u64)?;
        self.storage.sync()?;
        if behind > 0 {
            self.storage.write_at(&bytes[..behind], self.flushed)?;
            self.storage.sync()?;
        }
        Ok(())
    }
}

/// Whether the bytes end in a footer and the magic.
fn is_closed(bytes: &[u8]) -> bool {
    let end = FOOTER.len() + 20 + MAGIC.len();
    bytes.len() >= end && bytes.ends_with(&MAGIC) && bytes[bytes.len() - end..].starts_with(&FOOTER)
}

impl<S: Storage> Write for EndMarked<S> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let over = bytes.len().min(self.pending.len() - self.at);
        self.pending[self.at..self.at + over].copy_from_slice(&bytes[..over]);
        self.pending.extend_from_slice(&bytes[over..]);
        self.at += bytes.len();
        Ok(bytes.len())
    }

    /// Makes what was written part of the file, and waits until it is on the disk. When that fails, the
    /// file is as it was before.
    fn flush(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let length = self.pending.len();
        if !is_closed(&self.pending) {
            self.pending.extend_from_slice(&END_MARK);
        }
        let bytes = std::mem::take(&mut self.pending);
        if let Err(error) = self.add(&bytes) {
            if self.flushed > 0 {
                // If this fails too, a reader still stops at the old end mark.
                let _ = self.storage.cut(self.flushed + END_MARK.len() as u64);
            }
            self.pending = bytes;
            self.pending.truncate(length);
            return Err(error);
        }
        self.flushed += length as u64;
        self.at = 0;
        Ok(())
    }
}

impl<S: Storage> Seek for EndMarked<S> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        let end = self.flushed + self.pending.len() as u64;
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => end.checked_add_signed(offset),
            SeekFrom::Current(offset) => (self.flushed + self.at as u64).checked_add_signed(offset),
        };
        let target = target
            .filter(|target| (self.flushed..=end).contains(target))
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::InvalidInput,
                    "only what is not flushed can be changed",
                )
            })?;
        self.at = (target - self.flushed) as usize;
        Ok(target)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::log::{LogReader, LogWriter};
    use crate::peer::testing::fix;

    /// Bytes, of which a copy is kept after every write, and room for so many.
    struct Memory<'a> {
        bytes: Vec<u8>,
        room: usize,
        states: &'a mut Vec<Vec<u8>>,
    }

    impl Storage for Memory<'_> {
        fn write_at(&mut self, bytes: &[u8], offset: u64) -> Result<()> {
            let start = offset as usize;
            let fits = bytes.len().min(self.room.saturating_sub(start));
            if self.bytes.len() < start + fits {
                self.bytes.resize(start + fits, 0);
            }
            self.bytes[start..start + fits].copy_from_slice(&bytes[..fits]);
            self.states.push(self.bytes.clone());
            if fits < bytes.len() {
                return Err(ErrorKind::StorageFull.into());
            }
            Ok(())
        }

        fn cut(&mut self, length: u64) -> Result<()> {
            self.bytes.truncate(length as usize);
            self.states.push(self.bytes.clone());
            Ok(())
        }

        fn sync(&mut self) -> Result<()> {
            Ok(())
        }
    }

    /// Every state that a log of `fixes` goes through, flushed after every one of them.
    fn states(fixes: i64, room: usize) -> (Vec<Vec<u8>>, bool) {
        let mut states = Vec::new();
        let storage = Memory {
            bytes: Vec::new(),
            room,
            states: &mut states,
        };
        let mut good = true;
        {
            let stream = EndMarked::new(storage);
            let mut log = LogWriter::new(stream, Path::new("states.mcap")).unwrap();
            for index in 0..fixes {
                good &= log.write_gnss(&fix(index)).is_ok() && log.flush().is_ok();
                if !good {
                    break;
                }
            }
            if good {
                log.finish().unwrap();
            }
        }
        (states, good)
    }

    fn messages(bytes: &[u8]) -> usize {
        let messages = LogReader::new(bytes, Path::new("states.mcap"));
        messages.fold(0, |count, message| {
            message.expect("no damage");
            count + 1
        })
    }

    #[test]
    fn the_file_is_whole_after_every_single_write() {
        let (states, good) = states(20, usize::MAX);
        assert!(good);
        let counts: Vec<usize> = states.iter().map(|state| messages(state)).collect();
        assert!(counts.is_sorted(), "{counts:?}");
        assert_eq!((counts[0], *counts.last().unwrap()), (1, 20));
        let closed = states.last().unwrap();
        let summary = mcap::Summary::read(closed).unwrap().expect("an index");
        assert_eq!(summary.stats.unwrap().message_count, 20);
    }

    #[test]
    fn when_the_disk_is_full_the_file_stays_as_it_was() {
        let (whole, _) = states(20, usize::MAX);
        let length = whole[whole.len() / 2].len();
        for room in [
            length - 60,
            length - 1,
            length,
            length + 1,
            length + 49,
            length + 51,
        ] {
            let (states, good) = states(20, room);
            assert!(!good);
            let found = messages(states.last().unwrap());
            assert!((8..12).contains(&found), "{found}");
        }
    }
}
