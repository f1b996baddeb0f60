//! Motion: the window moves, the belief blurs.

use super::GridBelief;
use super::grid::check_point;
use super::math::{add_scaled, scale_and_add};
use crate::{Error, Result};

impl GridBelief {
    /// The vehicle moved by `motion_m` (`[east, north]`), give or take `sigma_m` along each axis.
    ///
    /// The window moves along exactly, sub-cell, and the belief in it is convolved with a Gaussian.
    /// Returns the share of the mass that spread beyond the window; the rest is normalised to 1.
    ///
    /// # Errors
    /// [`Error::Belief`] for numbers that are not finite or a negative sigma; nothing changes then.
    pub fn predict(&mut self, motion_m: [f64; 2], sigma_m: f64) -> Result<f64> {
        check_point("motion", motion_m)?;
        if !(0.0..1e6).contains(&sigma_m) {
            return Err(Error::Belief(format!(
                "motion sigma is {sigma_m} m; need finite and not negative"
            )));
        }
        let centre_m = [
            self.centre_m[0] + motion_m[0],
            self.centre_m[1] + motion_m[1],
        ];
        check_point("window centre", centre_m)?;
        self.centre_m = centre_m;
        Ok(self.blur(sigma_m))
    }

    /// Mixes in a uniform distribution: a share of the mass is distributed evenly over the window, so
    /// that no place becomes impossible.
    ///
    /// # Errors
    /// [`Error::Belief`] unless the share is in 0..=1; nothing changes then.
    pub fn mix_uniform(&mut self, share: f64) -> Result<()> {
        if !(0.0..=1.0).contains(&share) {
            return Err(Error::Belief(format!(
                "a uniform share of {share}; it must be between 0 and 1"
            )));
        }
        let even = share / self.p.len() as f64;
        scale_and_add(&mut self.p, (1.0 - share) as f32, even as f32);
        self.normalise();
        Ok(())
    }

    /// Convolves with a Gaussian, nothing beyond the edges; returns the mass that left.
    pub(super) fn blur(&mut self, sigma_m: f64) -> f64 {
        let kernel = kernel(sigma_m / self.metres_per_cell, self.cells);
        if kernel.len() == 1 {
            return 0.0;
        }
        let cells = self.cells;
        let radius = kernel.len() / 2;
        let mut lines = vec![0.0f32; self.p.len()];
        let mut wide = vec![0.0f32; cells + 2 * radius];
        for (from, to) in self
            .p
            .chunks_exact(cells)
            .zip(lines.chunks_exact_mut(cells))
        {
            wide[radius..radius + cells].copy_from_slice(from);
            for (k, &weight) in kernel.iter().enumerate() {
                add_scaled(to, &wide[k..k + cells], weight);
            }
        }
        for (row, out) in self.p.chunks_exact_mut(cells).enumerate() {
            out.fill(0.0);
            let from = row.saturating_sub(radius);
            let to = (row + radius).min(cells - 1);
            for source in from..=to {
                add_scaled(
                    out,
                    &lines[source * cells..(source + 1) * cells],
                    kernel[source + radius - row],
                );
            }
        }
        (1.0 - self.normalise().exp()).max(0.0)
    }
}

/// Symmetric weights that sum to 1 and have the variance `sigma²` (in cells), at most `limit` wide to each side.
///
/// Below 0.7 cells a sampled Gaussian has the wrong variance, but three taps have exactly the right
/// one: `v/2, 1 − v, v/2`.
pub(super) fn kernel(sigma: f64, limit: usize) -> Vec<f32> {
    let variance = sigma * sigma;
    if variance < 1e-9 {
        return vec![1.0];
    }
    if variance < 0.5 {
        return [variance / 2.0, 1.0 - variance, variance / 2.0]
            .map(|w| w as f32)
            .to_vec();
    }
    let radius = ((4.0 * sigma).ceil() as usize).min(limit) as i64;
    let weights: Vec<f64> = (-radius..=radius)
        .map(|i| (-0.5 * (i * i) as f64 / variance).exp())
        .collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|w| (w / sum) as f32).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn kernels_have_the_variance_they_were_asked_for() {
        for sigma in [0.05, 0.3, 0.6, 0.7, 0.72, 1.0, 2.5, 9.0] {
            let k = kernel(sigma, 100);
            let radius = (k.len() / 2) as f64;
            let (mut sum, mut variance) = (0.0, 0.0);
            for (i, &w) in k.iter().enumerate() {
                sum += f64::from(w);
                variance += f64::from(w) * (i as f64 - radius).powi(2);
            }
            assert!(
                (sum - 1.0).abs() < 1e-6 && (variance / (sigma * sigma) - 1.0).abs() < 5e-3,
                "{sigma}: {variance}"
            );
        }
        assert_eq!(kernel(0.0, 9), [1.0]);
        assert_eq!(kernel(1e5, 9).len(), 19);
    }

    #[test]
    fn spreading_lifts_every_cell_by_the_same_mass() {
        let mut belief = GridBelief::new([0.0, 0.0], 32, 0.5).unwrap();
        belief
            .update_gnss([1.0, 2.0], [[1.0, 0.0], [0.0, 1.0]], f64::INFINITY)
            .unwrap();
        let before = belief.probabilities().to_vec();
        belief.mix_uniform(0.1).unwrap();
        for (after, before) in belief.probabilities().iter().zip(&before) {
            let expected = 0.9 * before + 0.1 / 1024.0;
            assert!(
                (after - expected).abs() < 1e-6 * expected,
                "{after} {expected}"
            );
        }
        assert!(belief.mix_uniform(1.1).is_err() && belief.mix_uniform(f64::NAN).is_err());
    }

    #[test]
    fn many_small_steps_spread_like_one_large_one() {
        let mut belief = GridBelief::new([0.0, 0.0], 128, 0.5).unwrap();
        belief
            .update_gnss([0.0, 0.0], [[1.0, 0.0], [0.0, 1.0]], f64::INFINITY)
            .unwrap();
        for _ in 0..100 {
            belief.predict([0.1, -0.05], 0.2).unwrap();
        }
        let estimate = belief.estimate();
        // 1 m² and a hundred times 0.04 m², and the cell's own twelfth.
        let expected = 5.0 + 0.25 / 12.0;
        assert!(
            (estimate.covariance_m2[0][0] - expected).abs() < 0.02,
            "{estimate:?}"
        );
        assert!(
            (estimate.mean_m[0] - 10.0).abs() < 1e-3 && (estimate.mean_m[1] + 5.0).abs() < 1e-3
        );
    }

    #[test]
    fn mass_beyond_the_window_is_reported() {
        let mut belief = GridBelief::new([0.0, 0.0], 16, 0.5).unwrap();
        let lost = belief.predict([0.0, 0.0], 3.0).unwrap();
        assert!((0.3..0.9).contains(&lost), "{lost}");
        assert!(
            belief.predict([f64::NAN, 0.0], 1.0).is_err()
                && belief.predict([0.0; 2], -1.0).is_err()
        );
        assert!(belief.predict([0.0; 2], f64::NAN).is_err());
    }

    proptest! {
        #[test]
        fn a_step_moves_the_belief_and_keeps_its_mass(e in -40.0..40.0f64, n in -40.0..40.0f64, sigma in 0.0..2.0f64) {
            let mut belief = GridBelief::new([0.0, 0.0], 96, 0.5).unwrap();
            belief.update_gnss([1.3, -2.2], [[2.0, 0.5], [0.5, 1.0]], f64::INFINITY).unwrap();
            let before = belief.estimate();
            let lost = belief.predict([e, n], sigma).unwrap();
            let after = belief.estimate();
            let mass: f64 = belief.probabilities().iter().map(|&p| f64::from(p)).sum();
            prop_assert!((mass - 1.0).abs() < 1e-4 && lost < 1e-4);
            prop_assert!((after.mean_m[0] - before.mean_m[0] - e).abs() < 1e-3);
            prop_assert!((after.mean_m[1] - before.mean_m[1] - n).abs() < 1e-3);
            let grown = after.covariance_m2[0][0] - before.covariance_m2[0][0];
            prop_assert!((grown - sigma * sigma).abs() < 0.02 + 0.01 * sigma * sigma, "{grown}");
        }
    }
}
