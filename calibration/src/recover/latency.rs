//! How much later coarse positions are than pictures, by how far ahead they are at speed.

use super::{Estimate, bootstrap};

/// Neighbours further apart than this are not compared, seconds.
const MOST_GAP_S: f64 = 5.0;
/// Differences beyond this, beside what the latency makes, are jumps, metres.
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
    let of = |drives: &[&[f64; 2]]| {
        let [with, of] = drives
            .iter()
            .fold([0.0; 2], |[a, b], [c, d]| [a + c, b + d]);
        (of > 1.0).then(|| [with / of])
    };
    let mut sums: Vec<[f64; 2]> = Vec::new();
    let mut latency_s = 0.0;
    // A jump is what the latency does not explain: large changes alone are what it makes.
    for most_m in [3.0 * JUMP_M, JUMP_M, JUMP_M, JUMP_M] {
        sums = drives
            .iter()
            .map(|drive| changes(drive, latency_s, most_m))
            .collect();
        [latency_s] = of(&sums.iter().collect::<Vec<_>>())?;
    }
    bootstrap(&sums, of).map(|[estimate]| estimate)
}

/// Sums of changes of speed times changes of the error, and of changes of speed squared, over neighbours
/// whose error changes by less than `most_m` beside what `latency_s` explains.
fn changes(drive: &[Moment], latency_s: f64, most_m: f64) -> [f64; 2] {
    let mut sums = [0.0; 2];
    // Over several pictures speed changes by more than places err by.
    for step in [1, 4, 8] {
        for (before, after) in drive.iter().zip(drive.iter().skip(step)) {
            let change = after.speed_mps - before.speed_mps;
            let error = after.ahead_m - before.ahead_m;
            let jump_m = (error + latency_s * change).abs();
            if after.time_s - before.time_s < MOST_GAP_S && jump_m < most_m {
                sums[0] -= change * error;
                sums[1] += change * change;
            }
        }
    }
    sums
}
