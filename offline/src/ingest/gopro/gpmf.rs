//! GPMF, the telemetry format of GoPro cameras: entries of a key, a type and values, nested by `DEVC` (a device)
//! and `STRM` (one of its streams).
//!
//! Source: the format's description in GoPro's repository gpmf-parser (facts; no code of it).

/// Bytes of an entry before its values: key, type, bytes of a structure, structures.
const HEADER_BYTES: usize = 8;

/// One entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What it is, for instance `GPS5`.
    pub key: [u8; 4],
    /// The type of its values; 0 for entries inside entries.
    pub kind: u8,
    /// Bytes of one structure, of several values.
    pub structure_bytes: usize,
    /// All structures.
    pub data: &'a [u8],
}

impl<'a> Entry<'a> {
    /// The entries inside.
    pub fn inside(&self) -> Entries<'a> {
        entries(if self.kind == 0 { self.data } else { &[] })
    }

    /// The first value, of a type without a sign.
    pub fn first_unsigned(&self) -> Option<u32> {
        match (self.kind, self.data) {
            (b'S', [a, b, ..]) => Some(u16::from_be_bytes([*a, *b]).into()),
            (b'L', [a, b, c, d, ..]) => Some(u32::from_be_bytes([*a, *b, *c, *d])),
            _ => None,
        }
    }

    /// All values, of the types that scales have.
    pub fn scales(&self) -> Option<Vec<f64>> {
        let pairs = || self.data.chunks_exact(2).map(|two| [two[0], two[1]]);
        let fours = || {
            let chunks = self.data.chunks_exact(4);
            chunks.map(|four| [four[0], four[1], four[2], four[3]])
        };
        Some(match self.kind {
            b's' => pairs().map(|it| i16::from_be_bytes(it).into()).collect(),
            b'S' => pairs().map(|it| u16::from_be_bytes(it).into()).collect(),
            b'l' => fours().map(|it| i32::from_be_bytes(it).into()).collect(),
            b'L' => fours().map(|it| u32::from_be_bytes(it).into()).collect(),
            b'f' => fours().map(|it| f32::from_be_bytes(it).into()).collect(),
            _ => return None,
        })
    }
}

/// Entries one after another.
#[derive(Debug, Clone)]
pub struct Entries<'a> {
    left: &'a [u8],
}

/// The entries of a payload, or of what an entry holds. Padding and what is cut short at the end are no entries.
pub fn entries(bytes: &[u8]) -> Entries<'_> {
    Entries { left: bytes }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        let (header, values) = self.left.split_at_checked(HEADER_BYTES)?;
        let key = [header[0], header[1], header[2], header[3]];
        if key == [0; 4] {
            return None;
        }
        let structure_bytes = usize::from(header[5]);
        let bytes = structure_bytes * usize::from(u16::from_be_bytes([header[6], header[7]]));
        let data = values.get(..bytes)?;
        self.left = values.get(bytes.next_multiple_of(4)..).unwrap_or(&[]);
        Some(Entry {
            key,
            kind: header[4],
            structure_bytes,
            data,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_padded_to_four_bytes_and_end_where_they_are_cut() {
        let bytes = *b"GPSPS\x02\x00\x01\x02\x5e\0\0GPSFL\x04\x00\x01\0\0\0\x03";
        let found: Vec<Entry> = entries(&bytes).collect();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].first_unsigned(), Some(606));
        assert_eq!(found[1].first_unsigned(), Some(3));
        for length in 0..bytes.len() {
            let count = entries(&bytes[..length]).count();
            // Padding may be missing at the very end.
            assert_eq!(count, usize::from(length >= 10), "{length}");
        }
        assert_eq!(found[0].inside().count(), 0, "values are no entries");
    }

    #[test]
    fn nothing_inside_nothing() {
        assert_eq!(entries(&[0; 64]).count(), 0);
        assert_eq!(entries(b"DEVC\0\x01\xff\xff").count(), 0);
    }
}
