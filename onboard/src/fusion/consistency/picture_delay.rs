//! Whether pictures are later (or earlier) than their stamps say: then heatmaps lie behind the track
//! by the speed times the delay, and shift against it in each turn and at each change of speed.
//!
//! A Kalman filter over the places of heatmaps minus the track: `c + b u − τ v + noise`, where `c` is where the track
//! lies (a random walk along the way: dead reckoning drifts, and heatmaps of one street err alike), `u` the direction
//! in which the vehicle points, `b` how far the camera is ahead of the point about which the track turns (the rear
//! axle, mostly), `v` the velocity at each frame and τ the delay. At one speed `b` and τ look alike; speeds that differ
//! tell them apart. On 48 drives of eight cities, with a camera 1.5 m
//! behind to 4 m ahead of the axle, τ errs by 0.9 to 1.1 of its sigma (root mean square).

use nalgebra::{Matrix2, Matrix2x4, Matrix4, Vector2, Vector4};

use super::gate::{Gate, Trust};

/// 1-sigma scatter of a clear heatmap's mode on each axis, metres.
const MODE_SIGMA_M: f64 = 0.8;
/// How fast `c` walks, m² per metre driven.
const WALK_M2_PER_M: f64 = 0.02;
/// How fast τ walks, s² per second.
const DELAY_WALK_S2_PER_S: f64 = 1e-4;
/// 1-sigma of `c`, metres, and of τ, seconds, while nothing is known of them.
const UNKNOWN_PLACE_M: f64 = 100.0;
const UNKNOWN_DELAY_S: f64 = 0.6;
/// 1-sigma of `b`, metres.
const UNKNOWN_AHEAD_M: f64 = 1.5;
/// A heatmap this many sigma away is an outlier; after so many in a row the track lies somewhere else.
const OUTLIER_SIGMAS: f64 = 3.5;
const MOST_OUTLIERS: u32 = 5;
/// A delay from here on matters, seconds, and from here on it cannot be taken into account.
const LEAST_DELAY_S: f64 = 0.15;
const MOST_DELAY_S: f64 = 1.6;
/// It has to be this many sigma from zero, at so many heatmaps in a row.
const SIGMAS: f64 = 4.0;
const CONFIRMATIONS: u32 = 3;
/// From here on a position is not called good, seconds and sigma.
const DOUBTFUL_DELAY_S: f64 = 0.2;
const DOUBTFUL_SIGMAS: f64 = 3.0;
/// What is taken into account is mended by more than this, seconds, when it is this many sigma.
const LEAST_CHANGE_S: f64 = 0.08;
const CHANGE_SIGMAS: f64 = 2.5;
/// So many sigma beyond the estimate count as possible.
const BOUND_SIGMAS: f64 = 3.0;
/// 1-sigma error of a delay that was just found, as a share of it.
const FOUND_SIGMA: f64 = 0.5;
/// Each heatmap is this share of the mean misfit, and the largest with which a delay is believed.
const MISFIT_SHARE: f64 = 0.1;
const LARGEST_MISFIT: f64 = 1.6;
/// Heatmaps taken at the speed of before this way still shape the position, metres.
const SPEED_WAY_M: f64 = 20.0;
/// Heatmaps that shift along the way at once, as by another delay, shift back by about this factor from one to the next,
/// since the track follows them. By so many sigma in all it is no chance.
const SHIFT_KEPT: f64 = 0.7;
const SHIFT_SIGMAS: f64 = 3.0;
const SHIFT_HEATMAPS: usize = 6;
/// 1-sigma of the delay after a shift, seconds.
const SHIFT_DELAY_S: f64 = 0.3;
/// Slower than this no shift along the way is looked for, m/s.
const SHIFT_LEAST_MPS: f64 = 2.0;
/// Known to this 1-sigma, a delay near zero is none, seconds.
const KNOWN_SIGMA_S: f64 = 0.2;

/// A heatmap beside the track.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Point {
    /// The heatmap's mode minus the track, metres.
    pub(crate) offset_m: [f64; 2],
    /// Where the vehicle points: east and north.
    pub(crate) direction: [f64; 2],
    /// East and north, m/s.
    pub(crate) velocity_mps: [f64; 2],
    pub(crate) driven_m: f64,
    pub(crate) time_ns: i64,
}

/// `c`, τ beyond what is taken into account, and `b`, with their covariance.
#[derive(Debug, Clone, Copy)]
struct Belief {
    mean: Vector4<f64>,
    covariance: Matrix4<f64>,
    driven_m: f64,
    time_ns: i64,
}

/// The check of the pictures' times.
#[derive(Debug, Clone)]
pub(crate) struct PictureDelay {
    pub(crate) gate: Gate,
    belief: Belief,
    /// Outliers in a row.
    outliers: u32,
    /// How far the last heatmaps lie ahead along the way of what was expected.
    shift: Shift,
    /// Mean squared distance of the last heatmaps from what was expected, in sigma of each axis.
    misfit: f64,
    /// The highest speed of the last metres, m/s.
    speed_mps: f64,
    /// Heatmaps in a row that showed a delay.
    run: u32,
    /// The delay that the config states, and the one that is taken into account, nanoseconds.
    stated_ns: i64,
    pub(crate) delay_ns: i64,
}

impl PictureDelay {
    /// Pictures are late by `stated_s`, according to the config.
    pub(crate) fn new(stated_s: f64) -> Self {
        let stated_ns = (stated_s * 1e9) as i64;
        Self {
            gate: Gate::new("pictures_vs_motion", "camera"),
            belief: Belief::unknown(),
            outliers: 0,
            shift: Shift::default(),
            misfit: 1.0,
            speed_mps: 0.0,
            run: 0,
            stated_ns,
            delay_ns: stated_ns,
        }
    }

    /// A heatmap with one clear mode comes. Returns whether the delay changes.
    pub(crate) fn note(&mut self, point: Point) -> bool {
        let way_m = point.driven_m - self.belief.driven_m;
        let [east_mps, north_mps] = point.velocity_mps;
        let kept_mps = self.speed_mps * (-way_m.abs() / SPEED_WAY_M).exp();
        self.speed_mps = kept_mps.max(east_mps.hypot(north_mps));
        self.belief.walk(&point);
        let innovation = self.belief.update(&point);
        let squared = innovation.squared;
        let fitted = self.misfit < LARGEST_MISFIT;
        self.misfit += MISFIT_SHARE * (0.5 * squared.min(OUTLIER_SIGMAS.powi(2)) - self.misfit);
        if squared > OUTLIER_SIGMAS.powi(2) {
            self.outliers += 1;
            self.run = 0;
            self.shift = Shift::default();
            if self.outliers >= MOST_OUTLIERS {
                self.outliers = 0;
                self.belief.forget_place();
                self.belief.forget_delay(UNKNOWN_DELAY_S);
                self.belief.update(&point);
            }
            return false;
        }
        self.outliers = 0;
        if self.belief.delay_s().1 > KNOWN_SIGMA_S || self.gate.trust == Trust::Excluded {
            // The bound holds anyway, and a delay that is being learned or followed shifts heatmaps too.
            self.shift = Shift::default();
        } else if self.shift.note(innovation.along) {
            // On a straight road another delay looks like another place of the track.
            self.belief.forget_place();
            self.belief.forget_delay(SHIFT_DELAY_S);
        }
        let (delay_s, sigma_s) = self.belief.delay_s();
        let stated_s = self.stated_ns as f64 * 1e-9;
        let excess_s = (self.delay_ns - self.stated_ns) as f64 * 1e-9 + delay_s;
        let is = |least_s: f64, sigmas: f64| delay_s.abs() > least_s.max(sigmas * sigma_s);
        let is_known = self.delay_ns != self.stated_ns;
        // What fits no delay shows none: a student that is wrong.
        let fits = self.misfit < LARGEST_MISFIT;
        if fits && !fitted && self.gate.trust != Trust::Excluded {
            // Whatever was wrong is over, and how well it knew the delay is void. That there is one stays in doubt until
            // heatmaps that fit have shown that there is none.
            self.belief.forget_delay(UNKNOWN_DELAY_S);
            self.run = 0;
            return false;
        }
        let found =
            fits && (is(LEAST_DELAY_S, SIGMAS) || is_known && is(LEAST_CHANGE_S, CHANGE_SIGMAS));
        let is_doubtful = is(DOUBTFUL_DELAY_S, DOUBTFUL_SIGMAS);
        self.run = if found { self.run + 1 } else { 0 };
        if found && self.run >= CONFIRMATIONS && excess_s.abs() < MOST_DELAY_S {
            self.run = 0;
            if is_known && excess_s < LEAST_DELAY_S {
                self.gate.pardon();
                return self.take_into_account(stated_s);
            }
            let is_new = self.gate.trust != Trust::Excluded;
            self.gate.exclude(self.words(excess_s));
            // It has come up lately, or it would have been found before: a part of it passes for `c`.
            if is_new {
                self.belief.forget_delay(FOUND_SIGMA * delay_s.abs());
            }
            // Early ones are used at their stamps: it may be the odometry that is late.
            return self.take_into_account(stated_s + excess_s.max(0.0));
        }
        if found || is_doubtful {
            self.gate
                .contradict(u32::MAX, "the heatmaps lag or lead the motion");
        } else if !is_known {
            let is_none = sigma_s < KNOWN_SIGMA_S && delay_s.abs() < LEAST_DELAY_S;
            let is_small = self.gate.trust == Trust::Doubted && delay_s.abs() < DOUBTFUL_DELAY_S;
            if is_none || is_small {
                self.gate.agree(point.time_ns, CONFIRMATIONS);
            }
        }
        false
    }

    /// What a delay beyond the stated one looks like. Odometry that is stamped otherwise looks the same.
    fn words(&self, excess_s: f64) -> String {
        let stated_s = self.stated_ns as f64 * 1e-9;
        let total_s = stated_s + excess_s;
        let is = if total_s > 0.0 { "late" } else { "early" };
        let instead = if excess_s > 0.0 { "early" } else { "late" };
        let stated = match self.stated_ns {
            0 => String::new(),
            _ => format!(" (picture_delay_s = {stated_s})"),
        };
        format!(
            "the pictures are {is} by about {:.1} s{stated}, or the odometry is {instead}",
            total_s.abs()
        )
    }

    fn take_into_account(&mut self, delay_s: f64) -> bool {
        let before_ns = std::mem::replace(&mut self.delay_ns, (delay_s * 1e9) as i64);
        self.belief.mean[2] -= (self.delay_ns - before_ns) as f64 * 1e-9;
        self.delay_ns != before_ns
    }

    /// The track lies somewhere else now. What is known of the delay stays.
    pub(crate) fn forget(&mut self) {
        self.outliers = 0;
        self.shift = Shift::default();
        self.belief.forget_place();
    }

    /// Pictures or odometry may be stamped in another way now.
    pub(crate) fn doubt(&mut self) {
        self.belief.forget_delay(UNKNOWN_DELAY_S);
    }

    /// How far off the heatmaps of this time may be at `speed_mps` because of their stamps, metres: by the delay that
    /// was found, and by what is not excluded on top of it up to `bound_s` in all. What is taken into account is not
    /// in it.
    pub(crate) fn possible_m(&self, speed_mps: f64, bound_s: f64) -> [f64; 2] {
        let (delay_s, sigma_s) = self.belief.delay_s();
        let delay_s = delay_s.abs();
        // Less than two sigma are chance.
        let least_s = if delay_s > 2.0 * sigma_s {
            delay_s
        } else {
            0.0
        };
        // Where a delay shows, what was allowed for without one is no bound.
        let bound_s = match self.gate.problem() {
            Some(_) => bound_s.max(MOST_DELAY_S),
            None => bound_s,
        };
        let most_s = least_s.max((delay_s + BOUND_SIGMAS * sigma_s).min(bound_s));
        let found_s = self.gate.problem().map_or(0.0, |_| delay_s.min(most_s));
        // The position keeps the error that it got before the vehicle braked.
        let speed_mps = speed_mps.abs().max(self.speed_mps);
        [found_s, most_s - found_s].map(|delay_s| delay_s * speed_mps)
    }
}

impl Belief {
    fn unknown() -> Self {
        let place_m2 = UNKNOWN_PLACE_M.powi(2);
        let delay_s2 = UNKNOWN_DELAY_S.powi(2);
        let ahead_m2 = UNKNOWN_AHEAD_M.powi(2);
        Self {
            mean: Vector4::zeros(),
            covariance: Matrix4::from_diagonal(&Vector4::new(
                place_m2, place_m2, delay_s2, ahead_m2,
            )),
            driven_m: f64::NAN,
            time_ns: i64::MIN,
        }
    }

    /// Nothing is known of `c` any more.
    fn forget_place(&mut self) {
        let unknown = Self::unknown().covariance;
        for axis in 0..2 {
            self.covariance.fill_row(axis, 0.0);
            self.covariance.fill_column(axis, 0.0);
            self.covariance[(axis, axis)] = unknown[(axis, axis)];
        }
    }

    /// The mean of τ errs by at least this, seconds.
    fn forget_delay(&mut self, sigma_s: f64) {
        let variance = self.covariance[(2, 2)].max(sigma_s.powi(2));
        self.covariance.fill_row(2, 0.0);
        self.covariance.fill_column(2, 0.0);
        self.covariance[(2, 2)] = variance;
    }

    /// τ and its 1-sigma error, seconds.
    fn delay_s(&self) -> (f64, f64) {
        (self.mean[2], self.covariance[(2, 2)].max(0.0).sqrt())
    }

    /// On to the time of a heatmap.
    fn walk(&mut self, point: &Point) {
        let way_m = point.driven_m - self.driven_m;
        let passed_ns = point.time_ns.saturating_sub(self.time_ns);
        if way_m < 0.0 || passed_ns < 0 {
            self.forget_place();
        } else if way_m.is_finite() {
            let place_m2 = WALK_M2_PER_M * way_m;
            let delay_s2 = DELAY_WALK_S2_PER_S * passed_ns as f64 * 1e-9;
            let walked = Vector4::new(place_m2, place_m2, delay_s2, 0.0);
            self.covariance += Matrix4::from_diagonal(&walked);
            // Beyond what is usual it does not walk.
            let most = (UNKNOWN_DELAY_S / self.delay_s().1).min(1.0);
            let shrink = Matrix4::from_diagonal(&Vector4::new(1.0, 1.0, most, 1.0));
            self.covariance = shrink * self.covariance * shrink;
        }
        (self.driven_m, self.time_ns) = (point.driven_m, point.time_ns);
    }

    /// Takes a heatmap in; not when it is an outlier. Returns how far it lies from what was expected.
    fn update(&mut self, point: &Point) -> Innovation {
        let [east_mps, north_mps] = point.velocity_mps;
        let [east, north] = point.direction;
        #[rustfmt::skip]
        let seen = Matrix2x4::new(
            1.0, 0.0, -east_mps, east,
            0.0, 1.0, -north_mps, north,
        );
        let residual = Vector2::from(point.offset_m) - seen * self.mean;
        let scatter =
            seen * self.covariance * seen.transpose() + Matrix2::identity() * MODE_SIGMA_M.powi(2);
        let Some(inverse) = scatter.try_inverse() else {
            return Innovation::OUTLIER;
        };
        let squared = (residual.transpose() * inverse * residual)[0];
        if !squared.is_finite() {
            return Innovation::OUTLIER;
        }
        let velocity = Vector2::from(point.velocity_mps);
        let speed_mps = velocity.norm();
        let way = velocity / speed_mps;
        let innovation = Innovation {
            squared,
            along: (speed_mps > SHIFT_LEAST_MPS)
                .then(|| residual.dot(&way) / (way.transpose() * scatter * way)[0].sqrt()),
        };
        if squared > OUTLIER_SIGMAS.powi(2) {
            return innovation;
        }
        let gain = self.covariance * seen.transpose() * inverse;
        self.mean += gain * residual;
        // Joseph's form stays positive.
        let rest = Matrix4::identity() - gain * seen;
        self.covariance = rest * self.covariance * rest.transpose()
            + gain * gain.transpose() * MODE_SIGMA_M.powi(2);
        innovation
    }
}

/// How far a heatmap lies from what was expected, in sigma.
#[derive(Debug, Clone, Copy)]
struct Innovation {
    /// Squared, over both axes.
    squared: f64,
    /// Ahead along the way; nothing while the vehicle hardly moves.
    along: Option<f64>,
}

impl Innovation {
    const OUTLIER: Self = Self {
        squared: f64::INFINITY,
        along: None,
    };
}

/// Matched filters for a shift that the estimate of the place follows: one for each heatmap at which it may have begun.
#[derive(Debug, Clone, Copy, Default)]
struct Shift {
    /// The last innovations along the way, the newest first.
    along: [f64; SHIFT_HEATMAPS],
}

impl Shift {
    /// The next innovation, of heatmaps that follow each other. Whether there was a shift; then the search begins anew.
    fn note(&mut self, along: Option<f64>) -> bool {
        let Some(along) = along else {
            *self = Self::default();
            return false;
        };
        self.along.rotate_right(1);
        self.along[0] = along;
        let is_shift = (0..SHIFT_HEATMAPS).any(|begin| {
            // What is left of a shift of one sigma at each heatmap since.
            let left = |heatmap: usize| SHIFT_KEPT.powi((begin - heatmap) as i32);
            let sum: f64 = (0..=begin).map(|at| left(at) * self.along[at]).sum();
            let variance: f64 = (0..=begin).map(|at| left(at).powi(2)).sum();
            sum.abs() > SHIFT_SIGMAS * variance.sqrt()
        });
        if is_shift {
            *self = Self::default();
        }
        is_shift
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Straight on and then round corners, with heatmaps that scatter by half a metre.
    fn points(delay_s: f64) -> impl Iterator<Item = Point> {
        points_ahead(delay_s, 0.0)
    }

    /// The same with a camera so far ahead of the axle.
    fn points_ahead(delay_s: f64, ahead_m: f64) -> impl Iterator<Item = Point> {
        (0..60).map(move |frame: i64| {
            let angle = 1.2 * (0.2 * (frame - 10).max(0) as f64).sin();
            let direction = [angle.cos(), angle.sin()];
            let speed_mps = 8.0 + 4.0 * (0.13 * frame as f64).sin();
            let velocity_mps = direction.map(|part| speed_mps * part);
            let scatter = 0.5 * ((frame * 7919 % 13) as f64 / 6.0 - 1.0);
            Point {
                offset_m: [0, 1].map(|axis| {
                    3.0 + scatter + ahead_m * direction[axis] - delay_s * velocity_mps[axis]
                }),
                direction,
                velocity_mps,
                driven_m: frame as f64 * 4.0,
                time_ns: frame * 500_000_000,
            }
        })
    }

    fn possible_s(check: &PictureDelay, bound_s: f64) -> f64 {
        let speed_mps = check.speed_mps.max(8.0);
        check.possible_m(speed_mps, bound_s).iter().sum::<f64>() / speed_mps
    }

    #[test]
    fn a_delay_is_found_and_named() {
        for delay_s in [0.45, 1.0] {
            let mut check = PictureDelay::new(0.0);
            assert!(points(delay_s).any(|point| check.note(point)), "{delay_s}");
            let found_s = check.delay_ns as f64 * 1e-9;
            assert!((found_s - delay_s).abs() < 0.1, "{found_s}");
            assert!(check.gate.problem().is_some());
        }
        // An early one is named, and used at its stamp: it may be the odometry that is late.
        let mut check = PictureDelay::new(0.0);
        assert!(!points(-0.45).any(|point| check.note(point)));
        assert_eq!(check.delay_ns, 0);
        assert!(
            check
                .gate
                .problem()
                .is_some_and(|words| words.contains("early by about 0."))
        );
    }

    #[test]
    fn a_delay_that_is_stated_is_none() {
        // The points are those of pictures used at their stamps less what is stated.
        let mut check = PictureDelay::new(0.4);
        assert_eq!(check.delay_ns, 400_000_000);
        assert!(!points(0.0).any(|point| check.note(point)));
        assert_eq!(check.gate.problem(), None);
        // It was stated too small.
        let mut check = PictureDelay::new(0.4);
        assert!(points(0.45).any(|point| check.note(point)));
        let found_s = check.delay_ns as f64 * 1e-9;
        assert!((found_s - 0.85).abs() < 0.1, "{found_s}");
        let words = check.gate.problem().unwrap_or_default();
        assert!(words.contains("late by about 0.8") || words.contains("late by about 0.9"));
    }

    #[test]
    fn on_a_straight_road_the_bound_holds_until_turns_tell_more() {
        let mut check = PictureDelay::new(0.0);
        let bound_s = 0.5;
        assert_eq!(possible_s(&check, bound_s), bound_s);
        let mut points = points(0.0);
        for point in points.by_ref().take(4) {
            check.note(point);
        }
        assert_eq!(possible_s(&check, bound_s), bound_s);
        points.for_each(|point| {
            check.note(point);
        });
        let known_s = possible_s(&check, bound_s);
        assert!((0.05..0.45).contains(&known_s), "{known_s}");
        // A position keeps what it got before the vehicle stood still.
        let [_, standing_m] = check.possible_m(0.0, bound_s);
        assert!((standing_m - check.speed_mps * known_s).abs() < 1e-9);
        // Somewhere else on the track it is still known.
        check.forget();
        assert!((possible_s(&check, bound_s) - known_s).abs() < 1e-9);
        // Without a bound, only what was found counts.
        assert!(possible_s(&check, 0.0) < 0.1);
        // Stamped in another way it is not known any more.
        check.doubt();
        assert_eq!(possible_s(&check, bound_s), bound_s);
    }

    #[test]
    fn another_delay_on_a_straight_road_brings_the_bound_back() {
        let bound_s = 0.5;
        let mut check = PictureDelay::new(0.0);
        points(0.0).for_each(|point| {
            check.note(point);
        });
        assert!(possible_s(&check, bound_s) < 0.45);
        // Straight on at 10 m/s, and from the twentieth heatmap on the pictures are older.
        for number in 0..30 {
            if number == 20 {
                assert!(possible_s(&check, bound_s) < 0.45);
            }
            let late_m = if number < 20 { 0.0 } else { 3.0 };
            let scatter = 0.5 * (f64::from(number * 7919 % 13) / 6.0 - 1.0);
            check.note(Point {
                offset_m: [3.0 + scatter - late_m, 3.0],
                direction: [1.0, 0.0],
                velocity_mps: [10.0, 0.0],
                driven_m: 240.0 + 5.0 * f64::from(number),
                time_ns: 30_000_000_000 + i64::from(number) * 500_000_000,
            });
        }
        assert_eq!(possible_s(&check, bound_s), bound_s);
    }

    #[test]
    fn outliers_are_left_out_and_a_new_place_is_learned() {
        let mut check = PictureDelay::new(0.0);
        for (number, point) in points(0.0).enumerate() {
            let far_m = if number % 5 == 4 { 20.0 } else { 0.0 };
            let offset_m = [point.offset_m[0] + far_m, point.offset_m[1]];
            assert!(!check.note(Point { offset_m, ..point }));
        }
        assert!(check.gate.problem().is_none());
        assert!(check.belief.mean[0] < 5.0);
        for number in 0..10 {
            check.note(Point {
                offset_m: [50.0, 3.0],
                direction: [0.0, 1.0],
                velocity_mps: [0.0, 8.0],
                driven_m: 240.0 + 4.0 * f64::from(number),
                time_ns: 30_000_000_000 + i64::from(number) * 500_000_000,
            });
        }
        assert!((check.belief.mean[0] - 50.0).abs() < 1.0);
    }

    #[test]
    fn a_camera_ahead_of_the_axle_is_no_delay() {
        for ahead_m in [-1.5, 1.5, 2.5, 4.0] {
            let mut check = PictureDelay::new(0.0);
            assert!(!points_ahead(0.0, ahead_m).any(|point| check.note(point)));
            assert_eq!(check.gate.problem(), None, "{ahead_m}");
            let mut check = PictureDelay::new(0.0);
            assert!(points_ahead(0.6, ahead_m).any(|point| check.note(point)));
            let found_s = check.delay_ns as f64 * 1e-9;
            assert!((found_s - 0.6).abs() < 0.25, "{ahead_m}: {found_s}");
        }
    }

    #[test]
    fn pictures_on_time_are_not_suspected() {
        let mut check = PictureDelay::new(0.0);
        assert!(!points(0.0).any(|point| check.note(point)));
        assert_eq!(check.gate.problem(), None);
    }
}
