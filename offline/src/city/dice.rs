//! The simulator's only source of chance: a `ChaCha8` stream per purpose, so that the same seed
//! gives the same bytes however many threads share the work.

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::f64::consts::TAU;

/// Mixes a seed with labels (area, part, district, drive, ...) into an independent seed.
pub fn derive_seed(seed: u64, labels: &[u64]) -> u64 {
    labels.iter().fold(seed, |state, &label| {
        // SplitMix64's finaliser (Steele et al. 2014), applied once per label.
        let mut z =
            (state ^ label.wrapping_mul(0xD6E8_FEB8_6659_FD93)).wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    })
}

/// A seeded stream of the few distributions that the city needs.
pub struct Dice(ChaCha8Rng);

impl Dice {
    /// A stream for one purpose.
    pub fn new(seed: u64, labels: &[u64]) -> Self {
        Self(ChaCha8Rng::seed_from_u64(derive_seed(seed, labels)))
    }

    /// A raw 32-bit value.
    pub fn bits(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform in [low, high).
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Uniform between the two ends of a style's range.
    pub fn within(&mut self, range: [f32; 2]) -> f32 {
        range[0] + (range[1] - range[0]) * self.unit() as f32
    }

    /// Gaussian with mean 0 (Box and Muller 1958).
    pub fn normal(&mut self, sigma: f64) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        sigma * radius * (TAU * self.unit()).cos()
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f32) -> bool {
        self.unit() < f64::from(probability)
    }

    /// An index below `count`, which is not 0.
    pub fn index(&mut self, count: usize) -> usize {
        ((self.unit() * count as f64) as usize).min(count - 1)
    }

    /// One of the entries of a list that is not empty.
    pub fn pick<T: Copy>(&mut self, entries: &[T]) -> T {
        entries[self.index(entries.len())]
    }

    /// An index drawn in proportion to the weights.
    pub fn weighted(&mut self, weights: impl Iterator<Item = f32> + Clone) -> usize {
        let total: f32 = weights.clone().sum();
        let mut left = self.unit() as f32 * total;
        let mut last = 0;
        for (index, weight) in weights.enumerate() {
            last = index;
            left -= weight;
            if left < 0.0 {
                break;
            }
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_depends_on_the_seed_and_on_every_label() {
        let draw = |seed, labels: &[u64]| Dice::new(seed, labels).bits();
        assert_eq!(draw(7, &[1, 2]), draw(7, &[1, 2]));
        assert_ne!(draw(7, &[1, 2]), draw(7, &[2, 1]));
        assert_ne!(draw(7, &[1, 2]), draw(8, &[1, 2]));
    }

    #[test]
    fn normal_has_the_sigma_asked_for() {
        let mut dice = Dice::new(3, &[]);
        let draws: Vec<f64> = (0..20_000).map(|_| dice.normal(2.0)).collect();
        let mean = draws.iter().sum::<f64>() / 20_000.0;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 20_000.0;
        assert!(mean.abs() < 0.05, "mean {mean}");
        assert!(
            (variance.sqrt() - 2.0).abs() < 0.05,
            "sigma {}",
            variance.sqrt()
        );
    }
}
