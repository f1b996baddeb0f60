//! The odometry's yaw rate against what a vehicle can do, and against the turns of the receiver's
//! course.

use std::collections::VecDeque;

use crossfix_calibration::Yaw;

use super::exclusion::Exclusion;
use super::gate::{Gate, Trust};
use crate::event::{OdometrySample, YawMeasurement};

/// Over these times the gyro is compared with the odometry's own heading, nanoseconds: short ones find
/// a wrong scale or sign in a turn, long ones a drift.
const HEADING_STRETCHES_NS: [i64; 2] = [2_000_000_000, 8_000_000_000];
/// Without a receiver's course, a new level is believed after this time, nanoseconds.
const NOBODY_SAYS_NS: i64 = 10_000_000_000;
/// A turn of this much shows whether a yaw rate that was wrong is right again, radians.
const TELLING_TURN_RAD: f64 = 0.15;
/// How long turns and courses are kept, nanoseconds.
const KEEP_NS: i64 = 14_000_000_000;
/// Stretches that are compared, nanoseconds.
const STRETCH_NS: std::ops::RangeInclusive<i64> = 700_000_000..=12_200_000_000;
/// Drift of a good gyro while its bias is not known better, rad/s.
const DRIFT_RPS: f64 = 0.006;
/// A receiver's course may be late by each of these, nanoseconds.
const COURSE_LAGS_NS: [i64; 3] = [0, 200_000_000, 400_000_000];
/// Below this speed a course is too noisy, m/s.
const SLOWEST_MPS: f64 = 3.0;
/// Largest yaw rate, rad/s.
const LARGEST_RATE_RPS: f64 = 3.0;
/// Largest acceleration to the side, m/s².
const LARGEST_LATERAL: f64 = 15.0;
/// Largest change of the yaw rate at speed, rad/s².
const LARGEST_CHANGE: f64 = 6.0;
/// Agreeing fixes until an excluded yaw rate is believed again, and contradicting ones until it is
/// excluded.
const AGREEMENTS: u32 = 3;
const CONTRADICTIONS: u32 = 2;

/// The check of the odometry's yaw rate.
#[derive(Debug, Clone)]
pub(crate) struct YawRateGate {
    pub(crate) gate: Gate,
    /// Time, turn since the start, rate.
    turns: VecDeque<(i64, f64, f64)>,
    /// Time, course, 1-sigma error.
    courses: VecDeque<(i64, Yaw, f64)>,
    /// Time, turn since the start and heading of the odometry itself.
    headings: VecDeque<(i64, f64, Yaw)>,
    /// Samples in a row that contradict the odometry's own heading.
    against_heading: u32,
    /// The last plausible sample.
    plausible: Option<(i64, f64)>,
    doubted_ns: i64,
}

impl YawRateGate {
    pub(crate) fn new() -> Self {
        Self {
            gate: Gate::new("odometry_vs_gnss", "yaw rate"),
            turns: VecDeque::new(),
            courses: VecDeque::new(),
            headings: VecDeque::new(),
            against_heading: 0,
            plausible: None,
            doubted_ns: 0,
        }
    }

    /// A sample comes, at this speed; `heading` is its heading if the course has confirmed it. Returns
    /// the time to go back to when earlier ones turn out to be wrong.
    pub(crate) fn on_sample(
        &mut self,
        sample: &OdometrySample,
        speed_mps: f64,
        heading: Option<YawMeasurement>,
        exclusion: &mut Exclusion,
    ) -> Option<i64> {
        let time_ns = sample.time_ns;
        let rate = sample.yaw_rate_rps?;
        let last = self.turns.back().copied();
        if !rate.is_finite() || last.is_some_and(|(last_ns, ..)| time_ns <= last_ns) {
            return None;
        }
        let turn = match last {
            Some((last_ns, turn, before)) if time_ns - last_ns < 1_000_000_000 => {
                turn + 0.5 * (before + rate) * (time_ns - last_ns) as f64 * 1e-9
            }
            _ => {
                // How it turned in the gap nobody knows.
                self.turns.clear();
                self.headings.clear();
                self.against_heading = 0;
                0.0
            }
        };
        self.turns.push_back((time_ns, turn, rate));
        while self
            .turns
            .front()
            .is_some_and(|(old_ns, ..)| *old_ns < time_ns - KEEP_NS)
        {
            self.turns.pop_front();
        }
        let contradicts = self.contradicts_heading(time_ns, turn, heading);
        if self.gate.trust == Trust::Excluded {
            return None;
        }
        if let Some(stretch_ns) = contradicts {
            self.gate
                .exclude("the odometry's yaw rate differs from the turns of its own heading");
            self.gate.is_accused_by_receiver = false;
            let newly = !exclusion.is_open();
            let since_ns = time_ns - stretch_ns;
            exclusion.open(since_ns);
            return newly.then_some(since_ns);
        }
        let impossible = rate.abs() > LARGEST_RATE_RPS && speed_mps > 1.0
            || (rate * speed_mps).abs() > LARGEST_LATERAL && speed_mps > SLOWEST_MPS;
        let jumps = speed_mps > SLOWEST_MPS
            && self.plausible.is_some_and(|(last_ns, last)| {
                let dt_s = ((time_ns - last_ns) as f64 * 1e-9).min(0.5);
                let noise = 6.0 * sample.yaw_rate_sigma_rps.clamp(0.002, 0.03);
                (rate - last).abs() > LARGEST_CHANGE * 0.5 * dt_s + noise + 0.05
            });
        if impossible || jumps {
            if !exclusion.is_open() {
                self.doubted_ns = time_ns;
                self.gate.trust = Trust::Doubted;
                self.gate.is_accused_by_receiver = false;
                self.gate
                    .explain("the odometry's yaw rate jumps more than a vehicle can");
                exclusion.open(time_ns);
            }
        } else if exclusion.is_open()
            && (self
                .plausible
                .is_some_and(|(last_ns, _)| time_ns - last_ns <= 300_000_000)
                || time_ns - self.doubted_ns > NOBODY_SAYS_NS
                    && self
                        .courses
                        .back()
                        .is_none_or(|(at_ns, ..)| time_ns - at_ns > NOBODY_SAYS_NS))
        {
            exclusion.close(time_ns);
            self.gate.trust = Trust::Unchecked;
        }
        if !exclusion.is_open() {
            self.plausible = Some((time_ns, rate));
        }
        None
    }

    /// Over which stretch the turns contradict the odometry's own heading, if over any.
    fn contradicts_heading(
        &mut self,
        time_ns: i64,
        turn: f64,
        heading: Option<YawMeasurement>,
    ) -> Option<i64> {
        let Some(heading) = heading else {
            self.headings.clear();
            self.against_heading = 0;
            return None;
        };
        let [.., longest_ns] = HEADING_STRETCHES_NS;
        while self
            .headings
            .front()
            .is_some_and(|(old_ns, ..)| *old_ns < time_ns - longest_ns)
        {
            self.headings.pop_front();
        }
        let tolerance = (5.0 * heading.sigma_rad).max(0.15);
        let off = |stretch_ns: i64| {
            let first = self
                .headings
                .partition_point(|(old_ns, ..)| *old_ns < time_ns - stretch_ns);
            self.headings.get(first).map_or(0.0, |(_, then, yaw)| {
                let turned = heading.yaw.difference_rad(*yaw);
                // The gyro counts whole turns, the heading does not.
                Yaw::new(turn - then).difference_rad(Yaw::new(turned)).abs()
            })
        };
        let found = HEADING_STRETCHES_NS
            .into_iter()
            .find(|stretch_ns| off(*stretch_ns) > tolerance);
        self.headings.push_back((time_ns, turn, heading.yaw));
        self.against_heading = if found.is_some() {
            self.against_heading + 1
        } else {
            0
        };
        found.filter(|_| self.against_heading >= 3)
    }

    /// A fix with a course comes. Returns the time to go back to when samples since turn out wrong.
    pub(crate) fn on_fix(
        &mut self,
        time_ns: i64,
        course: Yaw,
        speed_mps: f64,
        exclusion: &mut Exclusion,
    ) -> Option<i64> {
        if speed_mps < SLOWEST_MPS {
            self.courses.clear();
            return None;
        }
        let sigma = (0.35 / speed_mps).hypot(0.02);
        let mut worst = 0.0f64;
        let (mut product, mut square, mut compared) = (0.0, 0.0, 0);
        let mut largest_turn = 0.0f64;
        for (then_ns, then, then_sigma) in &self.courses {
            if !STRETCH_NS.contains(&(time_ns - then_ns)) {
                continue;
            }
            let turned = course.difference_rad(*then);
            let by_lag = COURSE_LAGS_NS.iter().filter_map(|lag_ns| {
                Some(self.turn_at(time_ns - lag_ns)? - self.turn_at(then_ns - lag_ns)?)
            });
            let Some(gyro) =
                by_lag.min_by(|a, b| (a - turned).abs().total_cmp(&(b - turned).abs()))
            else {
                continue;
            };
            compared += 1;
            largest_turn = largest_turn.max(turned.abs().min(gyro.abs()));
            product += gyro * turned;
            square += gyro * gyro;
            // The gyro counts whole turns, the course does not.
            let off = Yaw::new(gyro).difference_rad(Yaw::new(turned)).abs();
            let whole = (gyro - turned)
                .abs()
                .min(off.max((gyro.abs() - 6.0).max(0.0)));
            let drift = DRIFT_RPS * (time_ns - then_ns) as f64 * 1e-9;
            worst = worst.max(whole / (3.0 * sigma.hypot(*then_sigma) + 0.03 + drift));
        }
        self.courses.push_back((time_ns, course, sigma));
        while self
            .courses
            .front()
            .is_some_and(|(old_ns, ..)| *old_ns < time_ns - KEEP_NS)
        {
            self.courses.pop_front();
        }
        if compared == 0 {
            return None;
        }
        if worst > 1.0 {
            let since_ns = self.gate.agreed_ns.unwrap_or(i64::MIN);
            let words = explain(product, square);
            if self.gate.problem().is_none() {
                self.gate.is_accused_by_receiver = true;
            }
            self.gate
                .contradict(if worst > 2.0 { 1 } else { CONTRADICTIONS }, words);
            let newly = !exclusion.is_open();
            exclusion.open(since_ns);
            return newly.then_some(since_ns);
        }
        // Driving straight on says nothing about a yaw rate that was wrong in a turn.
        let telling = !exclusion.is_open() || largest_turn > TELLING_TURN_RAD;
        if worst < 0.7 && telling {
            self.gate.agree(time_ns, AGREEMENTS);
            if self.gate.trust == Trust::Agrees && exclusion.is_open() {
                exclusion.close(time_ns);
            }
        }
        None
    }

    fn turn_at(&self, time_ns: i64) -> Option<f64> {
        let after = self.turns.partition_point(|(at_ns, ..)| *at_ns < time_ns);
        let later = self.turns.get(after)?;
        if later.0 == time_ns {
            return Some(later.1);
        }
        let earlier = self.turns.get(after.checked_sub(1)?)?;
        let share = (time_ns - earlier.0) as f64 / (later.0 - earlier.0) as f64;
        Some(earlier.1 + share * (later.1 - earlier.1))
    }
}

/// What the turns of the gyro look like beside those of the course.
fn explain(product: f64, square: f64) -> &'static str {
    if square < 1e-3 {
        return "the odometry's yaw rate reads 0 while the course turns";
    }
    let scale = product / square;
    if (-1.4..-0.6).contains(&scale) {
        "the odometry's yaw rate has the wrong sign"
    } else if scale.abs() < 0.05 {
        "the odometry's yaw rate looks like degrees"
    } else {
        "the odometry's yaw rate differs from the turns of the GNSS course"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fusion::tests_support::sample;

    /// Turns to and fro at 8 m/s; after ten seconds `lie` changes the rate.
    fn drive(lie: fn(f64) -> f64, with_heading: bool) -> (YawRateGate, Exclusion, Option<f64>) {
        let (mut gate, mut exclusion) = (YawRateGate::new(), Exclusion::default());
        let (mut yaw, mut first_s) = (Yaw::new(0.3), None);
        for tenth in 0..240 {
            let truth = 0.3 * (tenth as f64 * 0.06).sin();
            yaw = yaw.turned(truth * 0.1);
            let rate = if tenth < 100 { truth } else { lie(truth) };
            let sample = sample(tenth, 8.0, rate, yaw.radians());
            let heading = sample.yaw.filter(|_| with_heading);
            gate.on_sample(&sample, 8.0, heading, &mut exclusion);
            if tenth % 10 == 0 {
                gate.on_fix(tenth * 100_000_000, yaw, 8.0, &mut exclusion);
            }
            if tenth >= 100 && exclusion.is_open() {
                first_s = first_s.or(Some((tenth - 100) as f64 / 10.0));
            }
        }
        (gate, exclusion, first_s)
    }

    #[test]
    fn a_wrong_yaw_rate_is_found_with_and_without_a_heading() {
        let lies: [fn(f64) -> f64; 3] = [|rate| -rate, |_| 0.0, |rate| rate * 57.3];
        for lie in lies {
            for with_heading in [false, true] {
                let (_, exclusion, first_s) = drive(lie, with_heading);
                assert!(exclusion.is_open());
                assert!(first_s.is_some_and(|s| s < 3.5), "{first_s:?}");
            }
        }
    }

    #[test]
    fn a_drift_of_one_degree_per_second_is_found_by_the_heading_and_of_three_by_the_course() {
        let (_, exclusion, first_s) = drive(|rate| rate + 0.024, true);
        assert!(exclusion.is_open());
        assert!(first_s.is_some_and(|s| s < 9.0), "{first_s:?}");
        let (_, exclusion, first_s) = drive(|rate| rate + 0.052, false);
        assert!(exclusion.is_open());
        assert!(first_s.is_some_and(|s| s < 9.0), "{first_s:?}");
        // What any gyro drifts is not a fault.
        for with_heading in [false, true] {
            let (_, exclusion, first_s) = drive(|rate| rate + 0.004, with_heading);
            assert!(!exclusion.is_open(), "{first_s:?}");
        }
    }

    #[test]
    fn gaps_between_samples_accuse_nobody() {
        let (mut gate, mut exclusion) = (YawRateGate::new(), Exclusion::default());
        let mut yaw = Yaw::new(0.3);
        for tenth in 0..400 {
            let truth = 0.3 * (tenth as f64 * 0.06).sin();
            yaw = yaw.turned(truth * 0.1);
            if tenth % 10 == 0 {
                gate.on_fix(tenth * 100_000_000, yaw, 8.0, &mut exclusion);
            }
            // Silent for two of every five seconds, then one sample in two seconds.
            let is_silent = if tenth < 200 {
                tenth % 50 < 20
            } else {
                tenth % 20 != 0
            };
            if !is_silent {
                let sample = sample(tenth, 8.0, truth, yaw.radians());
                gate.on_sample(&sample, 8.0, sample.yaw, &mut exclusion);
            }
            assert!(!exclusion.is_open(), "at {tenth}");
        }
    }

    #[test]
    fn a_good_yaw_rate_is_confirmed() {
        let (gate, exclusion, first_s) = drive(|rate| rate, true);
        assert!(!exclusion.is_open() && first_s.is_none());
        assert_eq!(gate.gate.trust, Trust::Agrees);
    }
}
