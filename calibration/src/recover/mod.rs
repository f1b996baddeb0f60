//! What instruments have in common over many drives, without a true position: from where
//! [`crate::track`] found the vehicle, and what its instruments said there.
//!
//! Each number comes with a standard deviation, by drawing drives anew (bootstrap): frames of a drive
//! share their errors, drives do not.

mod gnss;
mod latency;

pub use gnss::{GnssModel, gnss_model};
pub use latency::{Moment, latency};

use serde::{Deserialize, Serialize};

/// Times that drives are drawn anew.
const DRAWS: usize = 100;

/// A number and how sure it is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The number.
    pub value: f64,
    /// Its standard deviation.
    pub sigma: f64,
}

/// The mean of a number that each drive has its own of, weighed by `weight`; its sigma is of the mean,
/// not of a drive. `None` of fewer than three drives.
pub fn mean(drives: &[(f64, f64)]) -> Option<Estimate> {
    let of = |drives: &[&(f64, f64)]| {
        let weight: f64 = drives.iter().map(|(_, weight)| weight).sum();
        let sum: f64 = drives.iter().map(|(value, weight)| value * weight).sum();
        (weight > 0.0).then(|| [sum / weight])
    };
    bootstrap(drives, of).map(|[estimate]| estimate)
}

/// What `of` makes of all drives, with the spread of what it makes of drives drawn with replacement.
/// `None` of fewer than three drives, or where `of` makes nothing of them.
fn bootstrap<T, const N: usize>(
    drives: &[T],
    of: impl Fn(&[&T]) -> Option<[f64; N]>,
) -> Option<[Estimate; N]> {
    if drives.len() < 3 {
        return None;
    }
    let values = of(&drives.iter().collect::<Vec<_>>())?;
    let mut state = 1u64;
    let mut draw = || {
        // Knuth's MMIX generator; its upper bits are even enough to draw drives with.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % drives.len()
    };
    let mut sums = [[0.0; 2]; N];
    let mut count = 0.0;
    for _ in 0..DRAWS {
        let drawn: Vec<&T> = (0..drives.len()).map(|_| &drives[draw()]).collect();
        let Some(again) = of(&drawn) else { continue };
        count += 1.0;
        for (sums, value) in sums.iter_mut().zip(again) {
            sums[0] += value;
            sums[1] += value * value;
        }
    }
    if count < 2.0 {
        return None;
    }
    // A sample of n drives spreads by (n − 1) / n too little.
    let few = drives.len() as f64 / (drives.len() as f64 - 1.0);
    let sigma = |[sum, squares]: [f64; 2]| {
        let variance = (squares - sum * sum / count) / (count - 1.0);
        (variance.max(0.0) * few).sqrt()
    };
    Some(std::array::from_fn(|part| Estimate {
        value: values[part],
        sigma: sigma(sums[part]),
    }))
}

#[cfg(test)]
mod tests;
