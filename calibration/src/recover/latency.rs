//! How much later coarse positions are than pictures, by how far ahead they are at speed.

use super::{Estimate, bootstrap};

/// Neighbours further apart than this are not compared, seconds.
const MOST_GAP_S: f64 = 5.0;
/// Differences beyond this are jumps, metres.
const JUMP_M: f64 = 4.0;

/// One picture of a drive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moment {
    /// Seconds.
    pub time_s: f64,
    /// Coarse position minus place, metres along the vehicle.
    pub ahead_m: f64,
    /// Metres a second.
    pub speed_mps: f64,
}

/// Seconds by which coarse positions are older than the pictures that they came with, negative where
/// they are newer: a position that is `latency` old lies `speed · latency` behind. `None` of fewer than
/// three drives or where the vehicles hardly changed their speed.
///
/// # Method
/// Least squares of changes of the error along the vehicle on changes of speed between pictures, which
/// leaves a lasting bias out.
pub fn latency(drives: &[Vec<Moment>]) -> Option<Estimate> {
    let sums: Vec<[f64; 2]> = drives
        .iter()
        .map(|drive| {
            let mut sums = [0.0; 2];
            // Over several pictures speed changes by more than places err by.
            for step in [1, 4, 8] {
                for (before, after) in drive.iter().zip(drive.iter().skip(step)) {
                    let change = after.speed_mps - before.speed_mps;
                    let error = after.ahead_m - before.ahead_m;
                    if after.time_s - before.time_s < MOST_GAP_S && error.abs() < JUMP_M {
                        sums[0] -= change * error;
                        sums[1] += change * change;
                    }
                }
            }
            sums
        })
        .collect();
    let of = |drives: &[&[f64; 2]]| {
        let [with, of] = drives
            .iter()
            .fold([0.0; 2], |[a, b], [c, d]| [a + c, b + d]);
        (of > 1.0).then(|| [with / of])
    };
    bootstrap(&sums, of).map(|[estimate]| estimate)
}
