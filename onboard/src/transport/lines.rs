//! Lines out of a byte stream, with a limit and without losing a part that came before a time-out.

use std::io::Read;

use super::is_timeout;

/// Collects bytes and hands out lines, without their line ends.
#[derive(Debug)]
pub struct LineBuffer {
    bytes: Vec<u8>,
    start: usize,
    limit: usize,
    skipping: bool,
    dropped: u64,
}

impl LineBuffer {
    /// A buffer whose lines have at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            bytes: Vec::new(),
            start: 0,
            limit,
            skipping: false,
            dropped: 0,
        }
    }

    /// Lines that were too long and are lost.
    #[cfg(test)]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Adds what was read. Everything but the last unfinished line should be taken in between.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.start);
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole line; an empty one is passed over.
    pub fn next_line(&mut self) -> Option<&[u8]> {
        loop {
            let rest = &self.bytes[self.start..];
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                if rest.len() > self.limit {
                    self.dropped += u64::from(!self.skipping);
                    self.skipping = true;
                    self.bytes.clear();
                    self.start = 0;
                }
                return None;
            };
            let line = self.start..self.start + end;
            self.start += end + 1;
            if std::mem::take(&mut self.skipping) {
                continue; // the tail of a line that was already counted as dropped
            }
            if line.len() > self.limit {
                self.dropped += 1;
                continue;
            }
            let trimmed = self.bytes[line.clone()].trim_ascii();
            if !trimmed.is_empty() {
                return Some(self.bytes[line].trim_ascii());
            }
        }
    }

    /// Reads once. `Ok(None)` is a time-out, `Ok(Some(0))` the end.
    pub fn fill(&mut self, input: &mut dyn Read) -> std::io::Result<Option<usize>> {
        let mut bytes = [0; 4096];
        match input.read(&mut bytes) {
            Ok(count) => {
                self.push(&bytes[..count]);
                Ok(Some(count))
            }
            Err(error) if is_timeout(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(buffer: &mut LineBuffer) -> Vec<String> {
        std::iter::from_fn(|| {
            buffer
                .next_line()
                .map(|line| String::from_utf8_lossy(line).into_owned())
        })
        .collect()
    }

    #[test]
    fn a_line_may_come_in_pieces() {
        let mut buffer = LineBuffer::new(16);
        buffer.push(b"one\r\n\r\ntw");
        assert_eq!(lines(&mut buffer), ["one"]);
        buffer.push(b"o");
        assert!(lines(&mut buffer).is_empty());
        buffer.push(b"\nthree\n");
        assert_eq!(lines(&mut buffer), ["two", "three"]);
    }

    #[test]
    fn a_line_without_end_is_dropped_and_the_next_one_read() {
        let mut buffer = LineBuffer::new(16);
        for _ in 0..1000 {
            buffer.push(&[b'x'; 100]);
            assert!(lines(&mut buffer).is_empty());
            assert!(buffer.bytes.len() <= 116);
        }
        buffer.push(b"tail\nnext\n");
        assert_eq!(lines(&mut buffer), ["next"]);
        assert_eq!(buffer.dropped(), 1);
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_cut_makes_no_difference(bytes in prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..200), cut in 1usize..50) {
            let mut whole = LineBuffer::new(64);
            whole.push(&bytes);
            let expected = lines(&mut whole);
            let mut pieces = LineBuffer::new(64);
            let mut found = Vec::new();
            for piece in bytes.chunks(cut) {
                pieces.push(piece);
                found.extend(lines(&mut pieces));
            }
            prop_assert_eq!(found, expected);
        }
    }
}
