//! Coverage: does the region that claims to hold the truth with probability q hold it that often?
//!
//! A sample becomes a **level**: the probability of the smallest region that reaches the truth. If
//! the stated uncertainty is honest, levels are uniform between 0 and 1.

use crate::Heatmap;

/// How often the truth was inside the regions of one nominal probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reliability {
    /// Nominal probability of the regions.
    pub nominal: f64,
    /// Share of samples for which that was so.
    pub observed: f64,
}

/// Level of the truth in a heatmap: the mass of all cells more probable than the true one, plus half
/// of those equally probable (the true cell itself included); 1 when the truth is outside.
#[expect(clippy::float_cmp, reason = "cells tie only when their bits are equal")]
pub fn heatmap_level(heatmap: &Heatmap, truth_offset_m: [f64; 2]) -> f64 {
    let Some([col, row]) = heatmap.cell_at(truth_offset_m) else {
        return 1.0;
    };
    let probabilities = heatmap.probabilities();
    let truth = probabilities[row * heatmap.side() + col];
    let (mut above, mut equal) = (0.0, 0.0);
    for &p in probabilities {
        if p > truth {
            above += f64::from(p);
        } else if p == truth {
            equal += f64::from(p);
        }
    }
    (above + 0.5 * equal).min(1.0)
}

/// Level of a horizontal error under its Gaussian: `1 − exp(−d² / 2)` with `d²` the squared
/// Mahalanobis distance (a chi-square of two degrees of freedom); `None` when the covariance is not
/// positive definite.
pub fn gaussian_level(error_m: [f64; 2], covariance_m2: [[f64; 2]; 2]) -> Option<f64> {
    let squared = super::normalised_error_squared(error_m, covariance_m2)?;
    Some(-(-0.5 * squared).exp_m1())
}

/// Share of samples whose truth lies inside the region of probability `nominal`; 0 without samples.
pub fn coverage(levels: &[f64], nominal: f64) -> f64 {
    if levels.is_empty() {
        return 0.0;
    }
    levels.iter().filter(|level| **level <= nominal).count() as f64 / levels.len() as f64
}

/// The reliability curve at `bins` evenly spaced probabilities, the last one 1.
pub fn reliability(levels: &[f64], bins: usize) -> Vec<Reliability> {
    (1..=bins)
        .map(|bin| {
            let nominal = bin as f64 / bins as f64;
            Reliability {
                nominal,
                observed: coverage(levels, nominal),
            }
        })
        .collect()
}

/// Mean distance between the reliability curve and the diagonal: 0 is honest, 0.5 the worst.
pub fn expected_calibration_error(levels: &[f64]) -> f64 {
    let curve = reliability(levels, 100);
    curve
        .iter()
        .map(|point| (point.observed - point.nominal).abs())
        .sum::<f64>()
        / curve.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_a_gaussian_are_its_quantiles() {
        // A circle of radius 2.4477 sigma holds 95 %.
        let level = gaussian_level([2.447_7 * 3.0, 0.0], [[9.0, 0.0], [0.0, 9.0]]).unwrap();
        assert!((level - 0.95).abs() < 1e-5, "{level}");
        assert_eq!(
            gaussian_level([0.0, 0.0], [[1.0, 0.0], [0.0, 1.0]]),
            Some(0.0)
        );
        assert_eq!(gaussian_level([0.0, 0.0], [[1.0, 1.0], [1.0, 1.0]]), None);
    }

    #[test]
    fn heatmap_levels_count_the_mass_above() {
        let heatmap = Heatmap::new(2, 1.0, vec![0.5, 0.3, 0.1, 0.1]).unwrap();
        for (offset, expected) in [
            ([-0.5, 0.5], 0.25),
            ([0.5, 0.5], 0.65),
            ([0.5, -0.5], 0.9),
            ([3.0, 0.0], 1.0),
        ] {
            assert!(
                (heatmap_level(&heatmap, offset) - expected).abs() < 1e-6,
                "{offset:?}"
            );
        }
    }

    #[test]
    fn truths_drawn_from_their_heatmaps_cover_honestly_and_tempered_ones_do_not() {
        let heatmap = Heatmap::gaussian(64, 1.0, [2.0, -3.0], 4.0).unwrap();
        let sharp = heatmap.tempered(4.0).unwrap();
        // One truth per ten-thousandth of mass, in reading order.
        let (mut levels, mut sharp_levels) = (Vec::new(), Vec::new());
        let mut mass = 0.0;
        let mut next = 0.5e-4;
        for (at, &p) in heatmap.probabilities().iter().enumerate() {
            mass += f64::from(p);
            while next < mass {
                let truth = heatmap.offset_m([at % 64, at / 64]);
                levels.push(heatmap_level(&heatmap, truth));
                sharp_levels.push(heatmap_level(&sharp, truth));
                next += 1e-4;
            }
        }
        assert!(
            expected_calibration_error(&levels) < 0.02,
            "{}",
            expected_calibration_error(&levels)
        );
        assert!((coverage(&levels, 0.9) - 0.9).abs() < 0.02);
        assert!(
            coverage(&sharp_levels, 0.9) < 0.5 && expected_calibration_error(&sharp_levels) > 0.2
        );
    }

    #[test]
    fn nothing_covers_nothing() {
        assert_eq!(coverage(&[], 0.5), 0.0);
        assert_eq!(
            reliability(&[0.2, 0.7], 2)[0],
            Reliability {
                nominal: 0.5,
                observed: 0.5
            }
        );
    }
}
