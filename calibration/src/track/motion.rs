//! How a vehicle moved between pictures: its yaw by headings and turns, its steps by odometry and
//! coarse positions.

use super::{Drift, Frame, TrackModel};
use crate::angle::Yaw;

/// Error of a turn that odometry measured, as a share of it.
const TURN_SHARE: f64 = 0.02;
/// Error of each turn, radians.
pub(super) const TURN_STEP_RAD: f64 = 0.003;
/// What a gyro may be off by, radians a second.
pub(super) const GYRO_BIAS_RAD_S: f64 = 0.005;
/// Turn between two frames where no odometry tells, radians.
const UNKNOWN_TURN_RAD: f64 = 0.6;
/// Headings err alike for a while: smoothing them does not make yaw better than this share of their
/// sigma.
const HEADING_REPEATS: f64 = 0.4;
/// A jump of coarse positions against odometry beyond this many sigmas is a new bias.
const JUMP_SIGMAS: f64 = 4.0;
/// A step of unknown length has at least this sigma, metres.
const UNKNOWN_STEP_M: f64 = 30.0;

/// Coarse positions further apart than this are not of one drive, whatever its name, m/s.
pub(super) const MOST_SPEED_MPS: f64 = 90.0;

/// A step between two frames.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Motion {
    /// `[east, north]` metres.
    pub step_m: [f64; 2],
    /// Standard deviation along each axis.
    pub sigma_m: f64,
}

impl Motion {
    /// Its length in units of `of_m`, at most 1; 1 where nothing repeats.
    pub(super) fn travel(&self, of_m: f64) -> f64 {
        let length = self.step_m[0].hypot(self.step_m[1]);
        if of_m > 0.0 {
            (length / of_m).min(1.0)
        } else {
            1.0
        }
    }
}

/// Yaw and its standard deviation at each frame, radians: measured headings and measured turns by a
/// Kalman filter with a gyro bias, and a smoother (Rauch, Tung, Striebel 1965).
pub fn yaws(frames: &[Frame], drift: &Drift) -> Vec<(f64, f64)> {
    let Some(first) = frames.first() else {
        return Vec::new();
    };
    // State: yaw and gyro bias. `p` is [yaw yaw, yaw bias, bias bias].
    let heading = |frame: &Frame| frame.yaw_rad + drift.yaw_rad;
    let mut yaw = heading(first);
    let mut bias = 0.0;
    let variance = |frame: &Frame| frame.yaw_sigma_rad.clamp(1e-4, 10.0).powi(2);
    let mut p = [variance(first), 0.0, GYRO_BIAS_RAD_S.powi(2)];
    let mut filtered = Vec::with_capacity(frames.len());
    let mut predicted = Vec::with_capacity(frames.len());
    let mut times = Vec::with_capacity(frames.len());
    for (index, frame) in frames.iter().enumerate() {
        let mut dt = 0.0;
        if index > 0 {
            dt = (frame.time_s - frames[index - 1].time_s).clamp(0.0, 1e3);
            if let Some([_, _, turn]) = frame.odometry {
                yaw += turn - bias * dt;
                let noise = (TURN_SHARE * turn).powi(2) + TURN_STEP_RAD.powi(2);
                p = [
                    p[0] - 2.0 * dt * p[1] + dt * dt * p[2] + noise,
                    p[1] - dt * p[2],
                    p[2],
                ];
            } else {
                dt = 0.0;
                p[0] += UNKNOWN_TURN_RAD.powi(2);
            }
        }
        predicted.push((yaw, bias, p));
        times.push(dt);
        // The first heading is where the filter begins; it counts once.
        if index > 0 {
            let variance = variance(frame);
            let gain = [p[0] / (p[0] + variance), p[1] / (p[0] + variance)];
            let residual = Yaw::new(heading(frame) - yaw).radians();
            yaw += gain[0] * residual;
            bias += gain[1] * residual;
            p = [
                p[0] * (1.0 - gain[0]),
                p[1] * (1.0 - gain[0]),
                p[2] - gain[1] * p[1],
            ];
        }
        filtered.push((yaw, bias, p));
    }
    let mut smoothed = filtered.clone();
    for index in (0..frames.len() - 1).rev() {
        let (yaw, bias, p) = filtered[index];
        let (ahead_yaw, ahead_bias, ahead_p) = predicted[index + 1];
        let (next_yaw, next_bias, next_p) = smoothed[index + 1];
        let dt = times[index + 1];
        // Cross covariance of this state with the predicted next one: P Fᵀ, F = [1 −dt; 0 1].
        let cross = [[p[0] - dt * p[1], p[1]], [p[1] - dt * p[2], p[2]]];
        let determinant = ahead_p[0] * ahead_p[2] - ahead_p[1] * ahead_p[1];
        if !(determinant > 0.0) {
            continue;
        }
        let gain = cross.map(|[a, b]| {
            [
                (a * ahead_p[2] - b * ahead_p[1]) / determinant,
                (b * ahead_p[0] - a * ahead_p[1]) / determinant,
            ]
        });
        let difference = [next_yaw - ahead_yaw, next_bias - ahead_bias];
        let change = gain.map(|[a, b]| a * difference[0] + b * difference[1]);
        let [a, b] = gain[0];
        let d = [0, 1, 2].map(|part| next_p[part] - ahead_p[part]);
        let variance = p[0] + a * a * d[0] + 2.0 * a * b * d[1] + b * b * d[2];
        smoothed[index] = (
            yaw + change[0],
            bias + change[1],
            [variance.max(1e-8), p[1], p[2]],
        );
    }
    let sigma = |variance: f64, frame: &Frame| {
        let floor = HEADING_REPEATS * frame.yaw_sigma_rad.min(0.2) * drift.yaw_share;
        variance.sqrt().max(floor)
    };
    smoothed
        .iter()
        .zip(frames)
        .map(|((yaw, _, p), frame)| (*yaw, sigma(p[0], frame)))
        .collect()
}

/// How the bias of coarse positions enters the smoothing.
#[derive(Debug, Clone, PartialEq)]
pub struct GnssWeights {
    /// Share of each frame's own precision that it contributes.
    pub unary: Vec<f64>,
    /// Standard deviation along each axis of the difference of two coarse positions, from each frame
    /// to the one before; infinite where the bias began anew.
    pub step_sigma_m: Vec<f64>,
}

/// Weights that make a Gauss–Markov bias exact in a chain over positions alone.
///
/// With `b` the bias, σ its sigma and ρ = exp(−Δt / memory), the density of a bias given the one
/// before is `N(b₁; ρ b₀, σ² (1 − ρ²))`. Its exponent is
/// `ρ (b₁ − b₀)² + (1 − ρ) b₁² − ρ (1 − ρ) b₀²` over `2 σ² (1 − ρ²)`: a step of the bias, that is of
/// coarse position minus position, with variance `σ² (1 − ρ²) / ρ`, and a share of each frame's own
/// Gaussian prior. So a minute of fixes counts little more than one fix, while their differences
/// measure the motion.
pub fn gnss_weights(frames: &[Frame], model: &TrackModel) -> GnssWeights {
    let variance = |frame: &Frame| {
        let [[ee, _], [_, nn]] = frame.coarse_covariance_m2;
        f64::midpoint(ee, nn) * model.gnss_inflation.powi(2)
    };
    let mut unary = vec![1.0; frames.len()];
    let mut step_sigma_m = vec![f64::INFINITY; frames.len()];
    for index in 1..frames.len() {
        let (before, frame) = (&frames[index - 1], &frames[index]);
        let dt = (frame.time_s - before.time_s).max(0.0);
        let rho = (-dt / model.gnss_memory_s).exp();
        if rho < 0.01 {
            continue;
        }
        let bias = f64::midpoint(variance(before), variance(frame)) * (1.0 - rho * rho) / rho;
        let sigma_m = (bias + 2.0 * model.gnss_noise_m.powi(2)).sqrt();
        let coarse = [0, 1].map(|axis| frame.coarse_m[axis] - before.coarse_m[axis]);
        let length = coarse[0].hypot(coarse[1]);
        // Lengths alone are compared with odometry: they need no yaw.
        let jump = match frame.odometry {
            Some([forward, left, _]) => (length - forward.hypot(left)).abs(),
            None => length - MOST_SPEED_MPS * dt,
        };
        if jump > JUMP_SIGMAS * sigma_m {
            continue;
        }
        step_sigma_m[index] = sigma_m;
        unary[index - 1] -= rho / (1.0 + rho);
        unary[index] = 1.0 / (1.0 + rho);
    }
    GnssWeights {
        unary,
        step_sigma_m,
    }
}

/// The step that led to each frame, odometry and differences of coarse positions weighed by their
/// variances; `None` for the first, and where neither tells.
pub fn motions(
    frames: &[Frame],
    yaws: &[(f64, f64)],
    gnss: &GnssWeights,
    model: &TrackModel,
    drift: &Drift,
) -> Vec<Option<Motion>> {
    let step = |index: usize| {
        let (before, frame) = (frames.get(index.checked_sub(1)?)?, &frames[index]);
        let odometry = frame.odometry.map(|[forward, left, _]| {
            let (yaw, yaw_sigma) = yaws[index - 1];
            let (sin, cos) = yaw.sin_cos();
            let scale = 1.0 + drift.scale;
            let step_m = [
                scale * (forward * cos - left * sin),
                scale * (forward * sin + left * cos),
            ];
            let length = forward.hypot(left);
            let across = yaw_sigma.min(1.5);
            let share = (model.odometry_share * drift.scale_share).hypot(across);
            Motion {
                step_m,
                sigma_m: (share * length)
                    .hypot(model.odometry_step_m * (length / model.repeat_m.max(0.1)).sqrt()),
            }
        });
        let sigma_m = gnss.step_sigma_m[index];
        let coarse = sigma_m.is_finite().then(|| Motion {
            step_m: [0, 1].map(|axis| frame.coarse_m[axis] - before.coarse_m[axis]),
            sigma_m,
        });
        match (odometry, coarse) {
            (Some(a), Some(b)) => {
                let (a_weight, b_weight) = (a.sigma_m.powi(-2), b.sigma_m.powi(-2));
                let share = b_weight / (a_weight + b_weight);
                Some(Motion {
                    step_m: [0, 1]
                        .map(|axis| a.step_m[axis] + share * (b.step_m[axis] - a.step_m[axis])),
                    sigma_m: (a_weight + b_weight).sqrt().recip(),
                })
            }
            (one, other) => one
                .or(other)
                .filter(|motion| motion.sigma_m < UNKNOWN_STEP_M),
        }
    };
    (0..frames.len()).map(step).collect()
}
