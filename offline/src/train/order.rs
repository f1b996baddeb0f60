//! Which example comes when, and what random numbers a step has: functions of seed and step alone, so
//! that steps can be prepared in any order and a run resumes to the same bits.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// Which example comes at each place of an endless run: a fresh shuffle for every epoch.
pub(super) struct Order {
    seed: u64,
    epoch: Option<u64>,
    shuffled: Vec<usize>,
}

impl Order {
    pub fn new(seed: u64, examples: usize) -> Self {
        Self {
            seed,
            epoch: None,
            shuffled: (0..examples).collect(),
        }
    }

    pub fn at(&mut self, place: u64) -> usize {
        let n = self.shuffled.len() as u64;
        let epoch = place / n;
        if self.epoch != Some(epoch) {
            self.shuffled = (0..n as usize).collect();
            self.shuffled
                .shuffle(&mut generator(self.seed, 0x0e90c, epoch));
            self.epoch = Some(epoch);
        }
        self.shuffled[(place % n) as usize]
    }
}

/// An RNG for one purpose at one time, so that nothing depends on what was drawn before.
pub(super) fn generator(seed: u64, purpose: u64, time: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(purpose);
    rng.set_word_pos(u128::from(time) << 16);
    rng
}

#[cfg(test)]
fn first_draw(seed: u64, purpose: u64, time: u64) -> u64 {
    rand::Rng::random(&mut generator(seed, purpose, time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_visits_every_example_once() {
        let mut order = Order::new(3, 5);
        for epoch in 0..3u64 {
            let mut seen: Vec<usize> = (0..5).map(|place| order.at(epoch * 5 + place)).collect();
            seen.sort_unstable();
            assert_eq!(seen, [0, 1, 2, 3, 4]);
        }
    }

    #[test]
    fn generators_differ_by_purpose_time_and_seed() {
        let draws =
            [(0, 1, 0), (0, 2, 0), (0, 1, 1), (1, 1, 0)].map(|(s, p, t)| first_draw(s, p, t));
        for (i, a) in draws.iter().enumerate() {
            assert!(draws[i + 1..].iter().all(|b| a != b));
        }
    }
}
