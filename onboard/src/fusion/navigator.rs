//! A small Kalman filter over motion and GNSS: position, yaw, the odometry's errors and the
//! receiver's slow error.
//!
//! It never sees a heatmap, so its position can be multiplied with the visual belief without counting
//! anything twice. It also integrates a dead-reckoned *track*, the frame in which the belief lives:
//! position = track + offset, and the offset barely moves.
//!
//! # Why sixty fixes don't count as sixty
//! The correlated share of a receiver's variance is the state `bias`, a first-order Gauss–Markov
//! process with the correlation time of the config. Fixes within that time agree about the same wrong
//! place, and the filter accounts for it: standing still, its variance never falls much below that share.
//!
//! # A receiver better than its stated error
//! Many receivers state metres and vary by centimetres. Weighing such fixes by the stated error would
//! let odometry pull the output away from them, so the filter learns from its own residuals which
//! share of the stated variance shows, works with that, and adds the rest back when asked for its
//! covariance: what does not vary may still be wrong.
//!
//! # A receiver without other sensors
//! When the motion comes from the receiver too, it has already weighed fixes against motion, better
//! than can be done here. Then the filter follows the fixes, and doubts one only if it lies outside of
//! what the receiver itself states.

use std::ops::AddAssign;

use crossfix_calibration::Yaw;
use nalgebra::{Matrix2, SMatrix, SVector, Vector2};

use super::config::FusionConfig;

const EAST: usize = 0;
const NORTH: usize = 1;
const YAW: usize = 2;
/// True speed over reported speed, minus 1.
const SCALE: usize = 3;
/// Reported yaw rate minus true one, rad/s.
const GYRO_BIAS: usize = 4;
const BIAS_EAST: usize = 5;
const BIAS_NORTH: usize = 6;

const STATES: usize = 7;
type Covariance = SMatrix<f64, STATES, STATES>;

/// Random walk of the speed scale, per √s.
const SCALE_WALK: f64 = 3e-4;
/// Random walk of the gyro bias, rad/s per √s.
const GYRO_BIAS_WALK: f64 = 2e-5;
/// Squared Mahalanobis distance from which a measurement's noise is inflated.
const GATE: f64 = 6.0;
/// How fast [`Navigator::visible_share`] is learned, per fix.
const LEARNING: f64 = 0.05;
/// Least share of the stated variance that fixes are weighed with.
const LEAST_VISIBLE_SHARE: f64 = 0.02;
/// That share while the motion comes from the receiver too.
const VISIBLE_SHARE_ALONE: f64 = 1e-4;
/// 1-sigma error of dead reckoning as a share of the way, while nothing corrects it.
const LASTING_DRIFT: f64 = 0.015;
/// 1-sigma change of a vehicle's speed in one second, for a speed reported by the receiver, m/s.
const HELD_SPEED_SIGMA_MPS: f64 = 1.0;
/// Squared Mahalanobis distance from which it counts as contradicting (99.75 % of χ² with 2 degrees).
const CONTRADICTION: f64 = 12.0;

/// How the vehicle moves, held until the next measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Motion {
    pub(crate) speed_mps: f64,
    pub(crate) yaw_rate_rps: f64,
    pub(crate) speed_sigma_mps: f64,
    pub(crate) yaw_rate_sigma_rps: f64,
    /// Whether a scale of the speed is worth learning: true for wheels.
    pub(crate) lasting_speed: bool,
    /// Whether an offset of the yaw rate is worth learning: true for gyros.
    pub(crate) lasting_yaw_rate: bool,
}

/// The filter's state.
#[derive(Debug, Clone)]
pub(crate) struct Navigator {
    state: SVector<f64, STATES>,
    covariance: Covariance,
    /// Dead-reckoned place, never corrected.
    track_m: [f64; 2],
    /// Metres driven, forwards or backwards.
    pub(crate) driven_m: f64,
    /// Variance that the track has gathered against a straight ruler, per axis, m².
    pub(crate) track_variance_m2: f64,
    /// Metres driven since something else than dead reckoning confirmed the track.
    pub(crate) unanchored_m: f64,
    yaw_known: bool,
    bias_variance_m2: [f64; 2],
    stated_covariance_m2: Matrix2<f64>,
    /// Share of the stated variance that is visible in the residuals of fixes against an independent
    /// motion.
    visible_share: f64,
    /// The rest of it, which the last fix was not weighed with.
    hidden_share: f64,
    /// Whether the receiver's slow error is estimated apart from the position.
    bias_known: bool,
    /// Whether the motion comes from something else than the receiver.
    independent_motion: bool,
}

impl Navigator {
    /// Starts at a fix. The yaw is not known yet.
    pub(crate) fn new(
        position_m: [f64; 2],
        fix_covariance_m2: Matrix2<f64>,
        config: &FusionConfig,
    ) -> Self {
        let share = config.gnss_correlated_share;
        let mut covariance = Covariance::zeros();
        for (row, bias_row) in [(EAST, BIAS_EAST), (NORTH, BIAS_NORTH)] {
            for (column, bias_column) in [(EAST, BIAS_EAST), (NORTH, BIAS_NORTH)] {
                let value = fix_covariance_m2[(row, column)];
                covariance[(row, column)] = value;
                // position = fix − bias − noise
                covariance[(bias_row, bias_column)] = share * value;
                covariance[(row, bias_column)] = -share * value;
                covariance[(bias_row, column)] = -share * value;
            }
        }
        covariance[(YAW, YAW)] = std::f64::consts::PI.powi(2) / 3.0;
        covariance[(SCALE, SCALE)] = config.speed_scale_sigma.powi(2);
        covariance[(GYRO_BIAS, GYRO_BIAS)] = config.gyro_bias_sigma_rps.powi(2);
        let mut state = SVector::zeros();
        state[EAST] = position_m[0];
        state[NORTH] = position_m[1];
        Self {
            state,
            covariance,
            track_m: position_m,
            driven_m: 0.0,
            track_variance_m2: 0.0,
            unanchored_m: 0.0,
            yaw_known: false,
            bias_variance_m2: [
                share * fix_covariance_m2[(0, 0)],
                share * fix_covariance_m2[(1, 1)],
            ],
            stated_covariance_m2: fix_covariance_m2,
            visible_share: 1.0,
            hidden_share: 0.0,
            bias_known: true,
            independent_motion: true,
        }
    }

    pub(crate) fn track_m(&self) -> [f64; 2] {
        self.track_m
    }

    /// Position minus track.
    pub(crate) fn offset_m(&self) -> [f64; 2] {
        [
            self.state[EAST] - self.track_m[0],
            self.state[NORTH] - self.track_m[1],
        ]
    }

    pub(crate) fn position_covariance_m2(&self) -> Matrix2<f64> {
        self.covariance.fixed_view::<2, 2>(EAST, EAST)
            + self.stated_covariance_m2 * self.hidden_share
    }

    pub(crate) fn yaw(&self) -> Yaw {
        Yaw::new(self.state[YAW])
    }

    pub(crate) fn yaw_sigma_rad(&self) -> f64 {
        self.covariance[(YAW, YAW)].sqrt()
    }

    pub(crate) fn yaw_known(&self) -> bool {
        self.yaw_known
    }

    pub(crate) fn speed_scale(&self) -> f64 {
        1.0 + self.state[SCALE]
    }

    /// Moves everything by `shift_m`: the local frame got another origin.
    pub(crate) fn shift(&mut self, shift_m: [f64; 2]) {
        for axis in 0..2 {
            self.state[axis] += shift_m[axis];
            self.track_m[axis] += shift_m[axis];
        }
    }

    /// Starts over at a fix, keeping what is known about yaw and odometry.
    pub(crate) fn relocate(
        &mut self,
        position_m: [f64; 2],
        fix_covariance_m2: Matrix2<f64>,
        config: &FusionConfig,
    ) {
        let before = self.clone();
        *self = Self::new(position_m, fix_covariance_m2, config);
        for row in [YAW, SCALE, GYRO_BIAS] {
            self.state[row] = before.state[row];
            for column in [YAW, SCALE, GYRO_BIAS] {
                self.covariance[(row, column)] = before.covariance[(row, column)];
            }
        }
        self.track_m = before.track_m;
        self.driven_m = before.driven_m;
        self.track_variance_m2 = before.track_variance_m2;
        self.unanchored_m = before.unanchored_m;
        self.visible_share = before.visible_share;
        self.independent_motion = before.independent_motion;
        self.yaw_known = before.yaw_known;
    }

    /// Moves on by `dt_s` seconds.
    pub(crate) fn predict(&mut self, dt_s: f64, motion: Motion, config: &FusionConfig) {
        let learn = if motion.lasting_speed { 1.0 } else { 0.0 };
        let learn_gyro = if motion.lasting_yaw_rate { 1.0 } else { 0.0 };
        self.independent_motion = motion.lasting_speed;
        let rate = motion.yaw_rate_rps - learn_gyro * self.state[GYRO_BIAS];
        let yaw_mid = self.state[YAW] + 0.5 * rate * dt_s;
        let forward_m = motion.speed_mps * (1.0 + learn * self.state[SCALE]) * dt_s;
        let distance_m = forward_m.abs();
        let mut transition = Covariance::identity();
        let mut noise = SVector::<f64, STATES>::zeros();
        // An error of the speed lasts about a second, then it is another one.
        let speed_sigma_mps = if motion.lasting_speed {
            motion.speed_sigma_mps
        } else {
            motion.speed_sigma_mps.max(HELD_SPEED_SIGMA_MPS)
        };
        let mut position_noise_m2 =
            config.odometry_noise_m2_per_m * distance_m + speed_sigma_mps.powi(2) * dt_s;
        if self.yaw_known {
            let (sine, cosine) = yaw_mid.sin_cos();
            let step = [forward_m * cosine, forward_m * sine];
            for axis in 0..2 {
                self.state[axis] += step[axis];
                self.track_m[axis] += step[axis];
            }
            transition[(EAST, YAW)] = -step[1];
            transition[(NORTH, YAW)] = step[0];
            transition[(EAST, SCALE)] = learn * motion.speed_mps * dt_s * cosine;
            transition[(NORTH, SCALE)] = learn * motion.speed_mps * dt_s * sine;
            let drift = self.covariance[(YAW, YAW)] + self.covariance[(SCALE, SCALE)];
            self.track_variance_m2 +=
                position_noise_m2 + 0.5 * drift.min(1.0) * distance_m * config.drift_memory_m;
        } else {
            // Somewhere on a circle; a second of it counts as one error.
            position_noise_m2 += 0.5 * motion.speed_mps.powi(2) * dt_s;
            self.track_variance_m2 += position_noise_m2;
        }
        // A heading that is off for long makes an error that grows with the way, not with its root.
        self.track_variance_m2 += 2.0 * LASTING_DRIFT.powi(2) * self.unanchored_m * distance_m;
        self.unanchored_m += distance_m;
        self.driven_m += distance_m;
        self.state[YAW] = self.yaw().turned(rate * dt_s).radians();
        transition[(YAW, GYRO_BIAS)] = -learn_gyro * dt_s;
        let keep = (-dt_s / config.gnss_correlation_s).exp();
        noise[EAST] = position_noise_m2;
        noise[NORTH] = position_noise_m2;
        noise[YAW] = motion.yaw_rate_sigma_rps.powi(2) * dt_s;
        noise[SCALE] = SCALE_WALK.powi(2) * dt_s;
        noise[GYRO_BIAS] = GYRO_BIAS_WALK.powi(2) * dt_s;
        for (axis, bias) in [BIAS_EAST, BIAS_NORTH].into_iter().enumerate() {
            self.state[bias] *= keep;
            transition[(bias, bias)] = keep;
            noise[bias] = self.bias_variance_m2[axis] * (1.0 - keep * keep);
        }
        self.covariance = transition * self.covariance * transition.transpose()
            + Covariance::from_diagonal(&noise);
    }

    /// Whether a fix is far from what fixes and odometry before it lead to expect.
    pub(crate) fn is_surprised(
        &self,
        fix_m: [f64; 2],
        fix_covariance_m2: Matrix2<f64>,
        track_then_m: [f64; 2],
        config: &FusionConfig,
    ) -> bool {
        let mut copy = self.clone();
        copy.update_position(fix_m, fix_covariance_m2, track_then_m, config)
    }

    /// A fix that was true when the track was `track_then_m`. Returns whether it contradicts what was
    /// known; a contradicting fix is weighed down, not ignored.
    pub(crate) fn update_position(
        &mut self,
        fix_m: [f64; 2],
        fix_covariance_m2: Matrix2<f64>,
        track_then_m: [f64; 2],
        config: &FusionConfig,
    ) -> bool {
        let share = config.gnss_correlated_share;
        self.stated_covariance_m2 = fix_covariance_m2;
        let visible_share = if self.independent_motion {
            self.visible_share
        } else {
            VISIBLE_SHARE_ALONE
        };
        self.hidden_share = 1.0 - visible_share;
        let stated_covariance_m2 = fix_covariance_m2;
        let fix_covariance_m2 = stated_covariance_m2 * visible_share;
        self.know_bias(self.independent_motion, fix_covariance_m2 * share);
        let moved = [
            self.track_m[0] - track_then_m[0],
            self.track_m[1] - track_then_m[1],
        ];
        let residual = Vector2::new(
            fix_m[0] + moved[0] - self.state[EAST] - self.state[BIAS_EAST],
            fix_m[1] + moved[1] - self.state[NORTH] - self.state[BIAS_NORTH],
        );
        let mut observation = SMatrix::<f64, 2, STATES>::zeros();
        observation[(0, EAST)] = 1.0;
        observation[(0, BIAS_EAST)] = 1.0;
        observation[(1, NORTH)] = 1.0;
        observation[(1, BIAS_NORTH)] = 1.0;
        let noise = fix_covariance_m2 * (1.0 - share);
        let innovation_covariance = observation * self.covariance * observation.transpose() + noise;
        // Without the bias the same residual would be judged against the whole stated error.
        let expected = if self.independent_motion {
            innovation_covariance
        } else {
            innovation_covariance + stated_covariance_m2
        };
        let Some(inverse) = expected.try_inverse() else {
            return true;
        };
        let distance = (residual.transpose() * inverse * residual)[0];
        if self.independent_motion {
            let excess = (distance / 2.0).min(3.0) - 1.0;
            self.visible_share =
                (self.visible_share * (LEARNING * excess).exp()).clamp(LEAST_VISIBLE_SHARE, 1.0);
        }
        // Like a Student-t: a residual far outside is taken for a larger error.
        let inflation = (distance / GATE).max(1.0);
        self.correct(observation, residual, noise + expected * (inflation - 1.0));
        distance > CONTRADICTION
    }

    /// Keeps the receiver's slow error of this variance as a state, or does without: as long as only
    /// the receiver speaks, position and error cannot be told apart, and what was known fades.
    fn know_bias(&mut self, known: bool, variance_m2: Matrix2<f64>) {
        self.bias_variance_m2 = if known {
            [variance_m2[(0, 0)], variance_m2[(1, 1)]]
        } else {
            [0.0, 0.0]
        };
        if known && !self.bias_known {
            self.covariance
                .fixed_view_mut::<2, 2>(BIAS_EAST, BIAS_EAST)
                .add_assign(&variance_m2);
            self.covariance
                .fixed_view_mut::<2, 2>(EAST, EAST)
                .add_assign(&variance_m2);
            for (row, column) in [(EAST, BIAS_EAST), (BIAS_EAST, EAST)] {
                self.covariance
                    .fixed_view_mut::<2, 2>(row, column)
                    .add_assign(&(-variance_m2));
            }
        }
        if !known {
            for bias in [BIAS_EAST, BIAS_NORTH] {
                self.covariance.row_mut(bias).fill(0.0);
                self.covariance.column_mut(bias).fill(0.0);
            }
        }
        self.bias_known = known;
    }

    /// A direction of travel or a heading, with the yaw of the track at the same time.
    pub(crate) fn update_yaw(&mut self, measured: Yaw, yaw_then: Yaw, sigma_rad: f64) {
        let residual = measured.difference_rad(yaw_then);
        if !self.yaw_known {
            self.state[YAW] = self.yaw().turned(residual).radians();
            for other in 0..STATES {
                self.covariance[(YAW, other)] = 0.0;
                self.covariance[(other, YAW)] = 0.0;
            }
            self.covariance[(YAW, YAW)] = sigma_rad.powi(2);
            self.yaw_known = true;
            return;
        }
        self.update_scalar(YAW, residual, sigma_rad);
    }

    /// Reported yaw rate minus true one, rad/s.
    pub(crate) fn gyro_bias_rps(&self) -> f64 {
        self.state[GYRO_BIAS]
    }

    /// The yaw rate that the gyro reports while the vehicle stands: all of it is its bias (a zero
    /// angular rate update).
    pub(crate) fn update_gyro_bias(&mut self, reported_rps: f64, sigma_rps: f64) {
        let residual = reported_rps - self.state[GYRO_BIAS];
        let variance = sigma_rps.powi(2);
        let expected = self.covariance[(GYRO_BIAS, GYRO_BIAS)] + variance;
        // Biases wander slowly. One that is far off has jumped, with the temperature or a fault.
        if residual.powi(2) > GATE * expected {
            self.covariance[(GYRO_BIAS, GYRO_BIAS)] += residual.powi(2);
        }
        let mut observation = SMatrix::<f64, 1, STATES>::zeros();
        observation[(0, GYRO_BIAS)] = 1.0;
        self.correct(
            observation,
            SMatrix::<f64, 1, 1>::new(residual),
            SMatrix::<f64, 1, 1>::new(variance),
        );
    }

    /// True speed over reported speed, minus 1, as another sensor sees it.
    pub(crate) fn update_scale(&mut self, measured: f64, sigma: f64) {
        self.update_scalar(SCALE, measured - self.state[SCALE], sigma);
    }

    fn update_scalar(&mut self, index: usize, residual: f64, sigma: f64) {
        let mut observation = SMatrix::<f64, 1, STATES>::zeros();
        observation[(0, index)] = 1.0;
        let noise = sigma.powi(2);
        let innovation_variance = self.covariance[(index, index)] + noise;
        let inflation = (residual.powi(2) / innovation_variance / GATE).max(1.0);
        let noise = SMatrix::<f64, 1, 1>::new(noise + innovation_variance * (inflation - 1.0));
        self.correct(observation, SMatrix::<f64, 1, 1>::new(residual), noise);
    }

    fn correct<const M: usize>(
        &mut self,
        observation: SMatrix<f64, M, STATES>,
        residual: SMatrix<f64, M, 1>,
        noise: SMatrix<f64, M, M>,
    ) {
        let innovation_covariance = observation * self.covariance * observation.transpose() + noise;
        let Some(inverse) = innovation_covariance.try_inverse() else {
            return;
        };
        let gain = self.covariance * observation.transpose() * inverse;
        self.state += gain * residual;
        self.state[YAW] = self.yaw().radians();
        // Joseph's form stays symmetric and positive whatever the rounding.
        let rest = Covariance::identity() - gain * observation;
        self.covariance =
            rest * self.covariance * rest.transpose() + gain * noise * gain.transpose();
        self.covariance = (self.covariance + self.covariance.transpose()) * 0.5;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixes_steadier_than_stated_are_followed_and_the_stated_error_is_still_told() {
        let config = FusionConfig::default();
        let covariance = Matrix2::identity() * 25.0;
        let mut navigator = Navigator::new([0.0, 0.0], covariance, &config);
        navigator.update_yaw(Yaw::new(0.0), navigator.yaw(), 0.02);
        for second in 1..=200 {
            for _ in 0..10 {
                navigator.predict(0.1, driving(), &config);
            }
            // The road bends away from what the odometry believes.
            let fix = [f64::from(second) * 10.0, 0.003 * f64::from(second * second)];
            navigator.update_position(fix, covariance, navigator.track_m(), &config);
        }
        let north = navigator.offset_m()[1] + navigator.track_m()[1];
        assert!((north - 120.0).abs() < 3.0, "{north}");
        assert!(navigator.position_covariance_m2()[(0, 0)] > 15.0);
    }

    fn still() -> Motion {
        Motion {
            speed_mps: 0.0,
            yaw_rate_rps: 0.0,
            speed_sigma_mps: 0.0,
            yaw_rate_sigma_rps: 0.01,
            lasting_speed: true,
            lasting_yaw_rate: true,
        }
    }

    fn driving() -> Motion {
        Motion {
            speed_mps: 10.0,
            speed_sigma_mps: 0.05,
            ..still()
        }
    }

    #[test]
    fn sixty_fixes_in_a_minute_are_not_sixty_measurements() {
        let config = FusionConfig::default();
        let covariance = Matrix2::identity() * 16.0;
        let mut navigator = Navigator::new([0.0, 0.0], covariance, &config);
        for _ in 0..60 {
            navigator.predict(1.0, still(), &config);
            navigator.update_position([0.0, 0.0], covariance, navigator.track_m(), &config);
        }
        let variance = navigator.position_covariance_m2()[(0, 0)];
        // Independent fixes would leave 16/61 = 0.26 m²; a minute is one and a half correlation times.
        assert!((6.0..20.0).contains(&variance), "{variance}");
    }

    #[test]
    fn driving_straight_by_good_odometry_follows_the_fixes_and_learns_the_speed_scale() {
        let config = FusionConfig::default();
        let covariance = Matrix2::identity();
        let mut navigator = Navigator::new([0.0, 0.0], covariance, &config);
        navigator.update_yaw(Yaw::new(0.0), navigator.yaw(), 0.02);
        for second in 1..=60 {
            for _ in 0..10 {
                navigator.predict(0.1, driving(), &config);
            }
            let fix = [f64::from(second) * 10.2, 0.0];
            assert!(!navigator.update_position(fix, covariance, navigator.track_m(), &config));
        }
        assert!(
            (navigator.speed_scale() - 1.02).abs() < 0.004,
            "{}",
            navigator.speed_scale()
        );
        let east = navigator.offset_m()[0] + navigator.track_m()[0];
        assert!((east - 612.0).abs() < 0.5, "{east}");
    }

    #[test]
    fn a_far_fix_contradicts_and_moves_little() {
        let config = FusionConfig::default();
        let covariance = Matrix2::identity();
        let mut navigator = Navigator::new([0.0, 0.0], covariance, &config);
        navigator.predict(1.0, still(), &config);
        assert!(navigator.update_position([700.0, 0.0], covariance, [0.0, 0.0], &config));
        assert!(
            navigator.offset_m()[0].abs() < 30.0,
            "{:?}",
            navigator.offset_m()
        );
    }

    #[test]
    fn a_late_fix_is_carried_forward_along_the_track() {
        let config = FusionConfig::default();
        let covariance = Matrix2::identity() * 4.0;
        let mut navigator = Navigator::new([0.0, 0.0], covariance, &config);
        navigator.update_yaw(Yaw::new(0.0), navigator.yaw(), 0.02);
        let then = navigator.track_m();
        for _ in 0..10 {
            navigator.predict(0.1, driving(), &config);
        }
        let before = navigator.offset_m();
        navigator.update_position([0.0, 0.0], covariance, then, &config);
        let after = navigator.offset_m();
        assert!((after[0] - before[0]).abs() < 1e-9, "{before:?} {after:?}");
    }
}
