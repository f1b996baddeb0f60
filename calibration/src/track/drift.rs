//! What instruments had wrong over a whole drive, by the places of its frames.

use super::{Frame, Place, motion::yaws};
use crate::angle::Yaw;

/// Frames between the ends of a stretch that odometry is compared over.
const STRETCH: usize = 10;

/// Constant errors of a drive, and how far they are settled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drift {
    /// Odometry's distances are too short by this share.
    pub scale: f64,
    /// Headings are too far clockwise by this, radians.
    pub yaw_rad: f64,
    /// Coarse positions are off by this wherever they are, metres east and north.
    pub offset_m: [f64; 2],
    /// Share of the model's error of distances that is left.
    pub scale_share: f64,
    /// Share of the headings' error that is left.
    pub yaw_share: f64,
}

impl Default for Drift {
    /// Nothing known.
    fn default() -> Self {
        Self {
            scale: 0.0,
            yaw_rad: 0.0,
            offset_m: [0.0; 2],
            scale_share: 1.0,
            yaw_share: 1.0,
        }
    }
}

/// Scale of odometry and offset of headings that lead best from place to place, with priors of
/// `scale_sigma` and `yaw_sigma_rad` about nothing; stretches count by the support of their ends, and
/// those far off count less (iteratively reweighted least squares).
pub fn drift(frames: &[Frame], places: &[Place], scale_sigma: f64, yaw_sigma_rad: f64) -> Drift {
    let yaws = yaws(frames, &Drift::default());
    // Odometry's own track, broken where it is missing.
    let mut track = vec![Some([0.0, 0.0]); frames.len()];
    for index in 1..frames.len() {
        track[index] = frames[index].odometry.map(|[forward, left, _]| {
            let [east, north] = track[index - 1].unwrap_or([0.0; 2]);
            let (sin, cos) = yaws[index - 1].0.sin_cos();
            [
                east + forward * cos - left * sin,
                north + forward * sin + left * cos,
            ]
        });
    }
    let mut rows = Vec::new();
    for index in STRETCH..frames.len() {
        let whole = track[index - STRETCH + 1..=index]
            .iter()
            .all(Option::is_some);
        let (Some(to), Some(from)) = (track[index], track[index - STRETCH]) else {
            continue;
        };
        if !whole {
            continue;
        }
        let measured = [0, 1].map(|axis| to[axis] - from[axis]);
        let (a, b) = (&places[index - STRETCH], &places[index]);
        let found = [0, 1].map(|axis| b.mode_m[axis] - a.mode_m[axis]);
        rows.push((measured, found, a.support * b.support));
    }
    let [mut scale, mut yaw] = [0.0f64; 2];
    // Neighbouring stretches share all but one of their steps.
    let repeats = 1.0 / STRETCH as f64;
    for _ in 0..5 {
        let mut sums = [[0.0f64; 2]; 2];
        for (measured, found, support) in &rows {
            let length = measured[0].hypot(measured[1]);
            if length < 5.0 {
                continue;
            }
            // Of the found step in the direction of the measured one: along and across.
            let along = (measured[0] * found[0] + measured[1] * found[1]) / length;
            let across = (measured[0] * found[1] - measured[1] * found[0]) / length;
            let off = (along - length * (1.0 + scale)).hypot(across - length * yaw);
            let robust = 1.0 / (1.0 + (off / 1.0).powi(2));
            let weight = support * robust * repeats;
            sums[0][0] += weight * length * (along - length);
            sums[1][0] += weight * length * across;
            for sum in &mut sums {
                sum[1] += weight * length * length;
            }
        }
        // Ends of a stretch are good to about a metre.
        scale = sums[0][0] / (sums[0][1] + scale_sigma.powi(-2));
        yaw = sums[1][0] / (sums[1][1] + yaw_sigma_rad.powi(-2));
    }
    let weight: f64 = rows
        .iter()
        .map(|(measured, _, support)| support * measured[0].hypot(measured[1]).powi(2))
        .sum();
    let left = |sigma: f64| (1.0 / (1.0 + weight * repeats * sigma * sigma)).sqrt();
    Drift {
        scale,
        yaw_rad: Yaw::new(yaw).radians(),
        offset_m: [0.0; 2],
        scale_share: left(scale_sigma).clamp(0.3, 1.0),
        yaw_share: left(yaw_sigma_rad).clamp(0.3, 1.0),
    }
}
