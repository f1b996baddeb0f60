//! Spoils real inputs, from a seed: what a coverage-guided fuzzer does better and needs a nightly compiler for.

/// xorshift64*, Vigna 2016.
pub struct Random(u64);

impl Random {
    /// The same numbers for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `limit`, which is not zero.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// Pieces that break parsers.
const PIECES: [&[u8]; 16] = [
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x00\x00\x00\x00\x00\x00\x00\x80",
    b"\xff\xff\xff\x7f",
    b"-1",
    b"1e999",
    b"nan",
    b"null",
    b"99999999999999999999",
    b"\"",
    b"{",
    b"[[[[[[[[[[[[[[[[",
    b",",
    b"\n",
    b"\xf0\x9f\xa6\x80",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    b"*00",
];

/// A spoiled copy of one of the inputs, at most `limit` bytes long.
pub fn spoiled(seeds: &[Vec<u8>], limit: usize, random: &mut Random) -> Vec<u8> {
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(6) {
        let length = bytes.len();
        let at = random.below(length + 1);
        let end = (at + 1 + random.below(64)).min(length);
        match random.below(8) {
            0 if at < length => bytes[at] ^= 1 << random.below(8),
            1 if at < length => bytes[at] = random.next() as u8,
            2 => bytes.truncate(at),
            3 if at < end => drop(bytes.drain(at..end)),
            4 if at < end => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            5 => {
                let piece = PIECES[random.below(PIECES.len())];
                bytes.splice(at..at, piece.iter().copied());
            }
            6 if at < length => {
                let piece = PIECES[random.below(PIECES.len())];
                let end = (at + piece.len()).min(length);
                bytes[at..end].copy_from_slice(&piece[..end - at]);
            }
            7 => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len() + 1);
                let to = (from + random.below(256)).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
            _ => {}
        }
    }
    bytes.truncate(limit);
    bytes
}
