//! The shuffles of numpy's legacy generator, which the published splits were drawn with.
//!
//! Source: Matsumoto and Nishimura, *Mersenne Twister* (1998), MT19937 with 32-bit seeding; bounded
//! integers by masked rejection and Fisher–Yates from the end, as `numpy.random.seed(s)` followed
//! by `numpy.random.shuffle` does. Checked against permutations made by the published loaders.

const WORDS: usize = 624;
const SHIFTED: usize = 397;

/// The Mersenne Twister.
#[derive(Clone)]
pub struct Mt19937 {
    words: [u32; WORDS],
    next: usize,
}

impl Mt19937 {
    /// The generator after `numpy.random.seed(seed)`.
    pub fn seeded(seed: u32) -> Self {
        let mut words = [0; WORDS];
        words[0] = seed;
        for i in 1..WORDS {
            let before: u32 = words[i - 1];
            words[i] = 1_812_433_253u32
                .wrapping_mul(before ^ (before >> 30))
                .wrapping_add(i as u32);
        }
        Self { words, next: WORDS }
    }

    /// The next 32 bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.next == WORDS {
            self.refill();
        }
        let mut word = self.words[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    fn refill(&mut self) {
        for i in 0..WORDS {
            let joined =
                (self.words[i] & 0x8000_0000) | (self.words[(i + 1) % WORDS] & 0x7fff_ffff);
            let twist = if joined & 1 == 0 { 0 } else { 0x9908_b0df };
            self.words[i] = self.words[(i + SHIFTED) % WORDS] ^ (joined >> 1) ^ twist;
        }
        self.next = 0;
    }

    /// An integer from 0 to `most`, each as likely.
    pub fn up_to(&mut self, most: u32) -> u32 {
        if most == 0 {
            return 0; // numpy draws nothing here either
        }
        let mask = u32::MAX.checked_shr(most.leading_zeros()).unwrap_or(0);
        loop {
            let drawn = self.next_u32() & mask;
            if drawn <= most {
                return drawn;
            }
        }
    }

    /// Shuffles as `numpy.random.shuffle` does.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.up_to(u32::try_from(last).unwrap_or(u32::MAX));
            items.swap(last, other as usize);
        }
    }
}

/// 0 to `count` - 1, shuffled by a generator fresh from `seed`.
pub fn shuffled(seed: u32, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    Mt19937::seeded(seed).shuffle(&mut order);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ten_thousandth_word_is_the_one_of_the_cpp_standard() {
        // ISO C++ [rand.predef]: the 10000th call of a default mt19937 (seed 5489).
        let mut generator = Mt19937::seeded(5489);
        let last = (0..10_000).map(|_| generator.next_u32()).last();
        assert_eq!(last, Some(4_123_659_995));
    }

    #[test]
    fn bounded_draws_stay_within_their_bound() {
        let mut generator = Mt19937::seeded(1);
        for most in [0, 1, 2, 7, 8, 1000] {
            assert!((0..200).all(|_| generator.up_to(most) <= most));
        }
    }

    #[test]
    fn a_shuffle_of_nothing_or_one_is_itself() {
        assert_eq!(shuffled(3, 0), Vec::<usize>::new());
        assert_eq!(shuffled(3, 1), [0]);
    }
}
