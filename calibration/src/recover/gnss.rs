//! How coarse positions err: a bias that lasts, and noise.

use super::{Estimate, bootstrap};
use serde::{Deserialize, Serialize};

/// Longest lag between two errors that are compared, seconds.
const MOST_LAG_S: f64 = 60.0;
/// Lags are sorted into this many classes.
const CLASSES: usize = 30;
/// Memories tried: from this, each by the factor more, seconds.
const LEAST_MEMORY_S: f64 = 3.0;
const MEMORY_FACTOR: f64 = 1.15;
const MEMORIES: usize = 36;

/// A Gauss–Markov bias and white noise, along each axis.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GnssModel {
    /// Sigma of the bias, metres.
    pub bias_sigma_m: Estimate,
    /// Time in which the bias forgets itself, seconds.
    pub memory_s: Estimate,
    /// Sigma of the noise, metres.
    pub noise_sigma_m: Estimate,
}

/// From the errors of each drive: seconds, and metres east and north, in the order of time. `None` of
/// fewer than three drives, or where they are too short to tell.
///
/// # Method
/// The semivariogram of a Gauss–Markov process with noise, γ(Δ) = noise² + bias² (1 − exp(−Δ / memory)),
/// whose height is the variance of all errors; noise and memory by weighted least squares over a grid
/// of memories.
pub fn gnss_model(drives: &[Vec<(f64, [f64; 2])>]) -> Option<GnssModel> {
    let summaries: Vec<Summary> = drives.iter().map(|drive| Summary::of(drive)).collect();
    let found = bootstrap(&summaries, fit)?;
    let [bias_sigma_m, memory_s, noise_sigma_m] = found;
    Some(GnssModel {
        bias_sigma_m,
        memory_s,
        noise_sigma_m,
    })
}

/// What the fit needs of a drive.
struct Summary {
    /// Sum of half squared differences and their number, by class of lag.
    lags: Vec<[f64; 2]>,
    /// Sum of squared errors along both axes, and twice their number.
    squares: [f64; 2],
}

impl Summary {
    fn of(drive: &[(f64, [f64; 2])]) -> Self {
        let mut lags = vec![[0.0; 2]; CLASSES];
        let mut squares = [0.0; 2];
        for (index, (time, error)) in drive.iter().enumerate() {
            squares[0] += error[0].powi(2) + error[1].powi(2);
            squares[1] += 2.0;
            for (later, other) in &drive[index + 1..] {
                let lag = later - time;
                if lag >= MOST_LAG_S {
                    break;
                }
                let class = (lag / MOST_LAG_S * CLASSES as f64) as usize;
                let off = [0, 1].map(|axis| other[axis] - error[axis]);
                lags[class.min(CLASSES - 1)][0] += 0.25 * (off[0].powi(2) + off[1].powi(2));
                lags[class.min(CLASSES - 1)][1] += 1.0;
            }
        }
        Self { lags, squares }
    }
}

/// Bias sigma, memory, noise sigma.
fn fit(drives: &[&Summary]) -> Option<[f64; 3]> {
    let sum = |part: fn(&Summary) -> [f64; 2]| {
        drives.iter().fold([0.0; 2], |[a, b], drive| {
            let [c, d] = part(drive);
            [a + c, b + d]
        })
    };
    let [squares, count] = sum(|drive| drive.squares);
    let height = squares / count;
    let mut points = Vec::new();
    for class in 0..CLASSES {
        let (mut total, mut pairs) = (0.0, 0.0);
        for drive in drives {
            total += drive.lags[class][0];
            pairs += drive.lags[class][1];
        }
        if pairs > 0.0 {
            let lag = (class as f64 + 0.5) / CLASSES as f64 * MOST_LAG_S;
            points.push((lag, total / pairs, pairs));
        }
    }
    if points.len() < 3 || !(height > 0.0) {
        return None;
    }
    let mut best: Option<(f64, [f64; 3])> = None;
    let mut memory = LEAST_MEMORY_S;
    for _ in 0..MEMORIES {
        // γ = noise² exp(−Δ/memory) + height (1 − exp(−Δ/memory)) is linear in noise².
        let [mut with, mut of] = [0.0; 2];
        let decay = |lag: f64| (-lag / memory).exp();
        let weight = |gamma: f64, pairs: f64| pairs / (gamma + 0.01 * height).powi(2);
        for (lag, gamma, pairs) in &points {
            let weight = weight(*gamma, *pairs);
            with += weight * decay(*lag) * (gamma - height * (1.0 - decay(*lag)));
            of += weight * decay(*lag).powi(2);
        }
        let noise = (with / of).clamp(0.0, height);
        let misfit: f64 = points
            .iter()
            .map(|(lag, gamma, pairs)| {
                let model = noise * decay(*lag) + height * (1.0 - decay(*lag));
                weight(*gamma, *pairs) * (gamma - model).powi(2)
            })
            .sum();
        if best.is_none_or(|(least, _)| misfit < least) {
            best = Some((misfit, [(height - noise).sqrt(), memory, noise.sqrt()]));
        }
        memory *= MEMORY_FACTOR;
    }
    best.map(|(_, found)| found)
}
