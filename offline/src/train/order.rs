//! Which example comes when, and what random numbers a step has: functions of seed and step alone, so
//! that steps can be prepared in any order and a run resumes to the same bits.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// Which example comes at each place of an endless run: a fresh shuffle for every epoch.
pub(super) struct Order<'a> {
    seed: u64,
    /// Examples of each epoch, the first of all; those after the last have as many as it.
    epochs: &'a [usize],
    epoch: Option<u64>,
    shuffled: Vec<usize>,
}

impl<'a> Order<'a> {
    pub fn new(seed: u64, epochs: &'a [usize]) -> Self {
        Self {
            seed,
            epochs,
            epoch: None,
            shuffled: Vec::new(),
        }
    }

    pub fn at(&mut self, place: u64) -> usize {
        let (epoch, n, within) = find(self.epochs, place);
        if self.epoch != Some(epoch) {
            self.shuffled = (0..n).collect();
            self.shuffled
                .shuffle(&mut generator(self.seed, 0x0e90c, epoch));
            self.epoch = Some(epoch);
        }
        self.shuffled[within]
    }
}

/// The epoch of a place, its examples, and the place within it.
fn find(epochs: &[usize], place: u64) -> (u64, usize, usize) {
    let (last, before) = epochs.split_last().expect("there is an example");
    let mut left = place;
    for (epoch, n) in before.iter().enumerate() {
        if left < *n as u64 {
            return (epoch as u64, *n, left as usize);
        }
        left -= *n as u64;
    }
    let n = *last as u64;
    let epoch = before.len() as u64 + left / n;
    (epoch, *last, (left % n) as usize)
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
        let mut order = Order::new(3, &[5]);
        for epoch in 0..3u64 {
            let mut seen: Vec<usize> = (0..5).map(|place| order.at(epoch * 5 + place)).collect();
            seen.sort_unstable();
            assert_eq!(seen, [0, 1, 2, 3, 4]);
        }
    }

    #[test]
    fn epochs_of_fewer_examples_visit_the_first_of_all() {
        let mut order = Order::new(3, &[5, 3, 2]);
        let mut from = 0;
        for (epoch, n) in [5u64, 3, 2, 2].into_iter().enumerate() {
            let mut seen: Vec<usize> = (from..from + n).map(|place| order.at(place)).collect();
            seen.sort_unstable();
            assert!(seen.iter().copied().eq(0..n as usize), "{epoch}: {seen:?}");
            from += n;
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
