//! Which source is believed: each kind of contradiction has its gate.
//!
//! A gate compares one quantity of one source with another source, says what it found in words, and
//! excludes the quantity while it contradicts. Exclusions may begin in the past: the fusion then goes
//! back to where the lie began and takes the measurements since in again, without it.

mod exclusion;
mod gate;
mod heading;
mod heatmaps;
mod picture_delay;
mod positions;
mod receiver_motion;
mod receivers;
mod speed;
mod yaw_rate;

use std::sync::Arc;

use crossfix_calibration::Heading;

pub(super) use exclusion::Exclusions;
use gate::Gate;
pub use gate::{SourceVerdict, Trust};

use self::heading::HeadingGate;
pub(super) use self::heatmaps::{HeatmapGate, Sighting};
use self::picture_delay::PictureDelay;
pub(super) use self::picture_delay::Point;
use self::positions::{Finding, PositionWay};
use self::receiver_motion::{Odometer, ReceiverMotion};
pub(super) use self::receivers::{Comparison, Receivers, Verdict};
use self::speed::SpeedGate;
use self::yaw_rate::YawRateGate;
use super::filter::Filter;
use super::update::is_null_island;
use crate::event::{GnssFix, OdometrySample};

/// All gates of one drive.
#[derive(Debug, Clone)]
pub(super) struct Gates {
    pub(super) excluded: Exclusions,
    speed: SpeedGate,
    yaw_rate: YawRateGate,
    heading: HeadingGate,
    pub(super) pictures: PictureDelay,
    /// By the receiver's name; those beyond [`MOST_RECEIVERS`] share the last one.
    receivers: Vec<Receiver>,
    /// Where the odometry has led, believed or not, metres, and the time of its last sample.
    led_m: [f64; 2],
    led_ns: i64,
    /// Time of the last fix that told a speed.
    speed_told_ns: Option<i64>,
}

/// What is checked of one receiver.
#[derive(Debug, Clone)]
struct Receiver {
    name: Arc<str>,
    motion: ReceiverMotion,
    /// Of fixes without a speed.
    way: PositionWay,
}

/// Longer without a sample the odometry's way is not known, nanoseconds.
const LONGEST_ODOMETRY_GAP_NS: i64 = 1_000_000_000;
/// Receivers whose motion is checked apart.
const MOST_RECEIVERS: usize = 8;
/// The evidence for the motion must be this recent, nanoseconds.
const MOTION_EVIDENCE_NS: i64 = 2_600_000_000;

impl Gates {
    /// Pictures are late by `picture_delay_s`, according to the config.
    pub(super) fn new(picture_delay_s: f64) -> Self {
        Self {
            excluded: Exclusions::default(),
            speed: SpeedGate::new(),
            yaw_rate: YawRateGate::new(),
            heading: HeadingGate::new(),
            pictures: PictureDelay::new(picture_delay_s),
            receivers: Vec::new(),
            led_m: [0.0; 2],
            led_ns: i64::MIN,
            speed_told_ns: None,
        }
    }

    /// Judges a sample before it is taken in. Returns the time to go back to, if any.
    pub(super) fn judge_odometry(
        &mut self,
        sample: &OdometrySample,
        filter: &Filter,
    ) -> Option<i64> {
        self.lead(sample, filter);
        let excluded = &mut self.excluded;
        let speed = self.speed.on_sample(sample, &mut excluded.speed);
        let moving_mps = filter.motion(filter.now_ns).speed_mps.abs();
        self.heading.on_sample(sample, &mut excluded.heading);
        let heading = sample
            .yaw
            .filter(|_| self.heading.gate.trust == Trust::Agrees && self.heading.gate.good_run > 3);
        let unbiased = OdometrySample {
            yaw_rate_rps: sample
                .yaw_rate_rps
                .map(|rate| rate - filter.gyro_bias_rps()),
            ..*sample
        };
        let yaw_rate =
            self.yaw_rate
                .on_sample(&unbiased, moving_mps, heading, &mut excluded.yaw_rate);
        earlier(speed, yaw_rate)
    }

    /// Where a sample leads.
    fn lead(&mut self, sample: &OdometrySample, filter: &Filter) {
        let Some(speed_mps) = sample.forward_speed_mps.filter(|mps| mps.is_finite()) else {
            return;
        };
        let since_ns = sample.time_ns.saturating_sub(self.led_ns);
        if since_ns <= 0 {
            return;
        }
        self.led_ns = sample.time_ns;
        if since_ns > LONGEST_ODOMETRY_GAP_NS {
            for receiver in &mut self.receivers {
                receiver.way = PositionWay::default();
            }
            return;
        }
        if let Some(yaw) = filter.yaw_at(filter.now_ns) {
            let (sine, cosine) = yaw.radians().sin_cos();
            let step_m = speed_mps * since_ns as f64 * 1e-9;
            self.led_m[0] += step_m * cosine;
            self.led_m[1] += step_m * sine;
        }
    }

    /// Judges the odometry's way by a fix without a speed.
    fn judge_way(&mut self, at: usize, fix: &GnssFix, filter: &Filter) {
        let way = &mut self.receivers[at].way;
        let is_known = (fix.time_ns.saturating_sub(self.led_ns)).abs() <= LONGEST_ODOMETRY_GAP_NS
            && filter.yaw_at(filter.now_ns).is_some();
        if fix.speed_mps.is_some() || !is_known || is_null_island(fix) {
            *way = PositionWay::default();
            return;
        }
        match way.note(fix, self.led_m) {
            // Heatmaps that go along with the odometry are against the receiver.
            Some(Finding::Differs(ratio)) if !filter.heatmaps_support() => {
                let excluded = &mut self.excluded.speed;
                self.speed
                    .differs_from_positions(fix.time_ns, ratio, excluded);
            }
            Some(Finding::Fits) => {
                let excluded = &mut self.excluded.speed;
                self.speed.fits_positions(fix.time_ns, excluded);
            }
            _ => {}
        }
    }

    /// Judges a fix's own speed and course before it is taken in; what cannot be is left out.
    pub(super) fn judge_receiver(
        &mut self,
        source: &Arc<str>,
        fix: &GnssFix,
        filter: &Filter,
    ) -> GnssFix {
        let reversing = filter.is_reversing();
        let odometer = Odometer {
            speed_mps: filter.odometer_mps(),
            yaw: filter
                .yaw_at(fix.time_ns.min(filter.now_ns))
                .map(|yaw| yaw.turned(if reversing { std::f64::consts::PI } else { 0.0 })),
            was_confirmed: self.confirms_motion(filter.now_ns)
                && !self.excluded.speed.is_open()
                && self.yaw_rate.gate.problem().is_none()
                && self.heading.gate.problem().is_none(),
        };
        let known = self
            .receivers
            .iter()
            .position(|receiver| receiver.name == *source);
        let at = match known {
            Some(at) => at,
            None if self.receivers.len() < MOST_RECEIVERS => {
                self.receivers.push(Receiver {
                    name: source.clone(),
                    motion: ReceiverMotion::new(source),
                    way: PositionWay::default(),
                });
                self.receivers.len() - 1
            }
            None => MOST_RECEIVERS - 1,
        };
        self.judge_way(at, fix, filter);
        let receiver = &mut self.receivers[at].motion;
        let judged = receiver.judge(fix, odometer);
        let excluded = &mut self.excluded;
        if let Some(factor) = receiver.speed_factor() {
            self.speed.appeal(fix.time_ns, factor, &mut excluded.speed);
        }
        if receiver.is_course_wrong() {
            for (gate, exclusion) in [
                (&mut self.heading.gate, &mut excluded.heading),
                (&mut self.yaw_rate.gate, &mut excluded.yaw_rate),
            ] {
                if gate.problem().is_some() && gate.is_accused_by_receiver {
                    gate.pardon();
                    exclusion.close(fix.time_ns);
                }
            }
        }
        judged
    }

    /// Judges the odometry by a fix that was taken in. Returns the time to go back to, if any.
    pub(super) fn judge_by_fix(&mut self, fix: &GnssFix, filter: &Filter) -> Option<i64> {
        let speed_mps = fix.speed_mps.filter(|v| v.is_finite() && *v >= 0.0)?;
        self.speed_told_ns = Some(fix.time_ns);
        let course = fix
            .track_deg
            .filter(|v| v.is_finite())
            .map(|track_deg| Heading::from_degrees(track_deg).yaw());
        let reversing = filter.is_reversing();
        let sure_of_yaw =
            self.heading.gate.trust == Trust::Agrees && self.heading.gate.good_run > 3;
        let backwards = course
            .filter(|_| speed_mps > 2.0 && sure_of_yaw)
            .map(|course| {
                let yaw = filter.yaw_at(fix.time_ns).unwrap_or(course);
                course.difference_rad(yaw).abs() > 2.0
            });
        let excluded = &mut self.excluded;
        let mut back_ns = self
            .speed
            .on_fix(fix.time_ns, speed_mps, backwards, &mut excluded.speed);
        if let Some(course) = course {
            let forward = if reversing {
                course.turned(std::f64::consts::PI)
            } else {
                course
            };
            let since =
                self.yaw_rate
                    .on_fix(fix.time_ns, course, speed_mps, &mut excluded.yaw_rate);
            back_ns = earlier(back_ns, since);
            let since = self
                .heading
                .on_fix(fix.time_ns, forward, speed_mps, &mut excluded.heading);
            back_ns = earlier(back_ns, since);
        }
        back_ns
    }

    /// Whether the receiver has confirmed the speed lately.
    pub(super) fn confirms_motion(&self, now_ns: i64) -> bool {
        self.speed.gate.agreed_within(now_ns, MOTION_EVIDENCE_NS)
    }

    /// What speaks against `ok`, as sentences.
    pub(super) fn problems(&self, now_ns: i64) -> Vec<String> {
        let mut problems: Vec<String> = self
            .gates()
            .into_iter()
            .filter_map(Gate::problem)
            .map(str::to_owned)
            .collect();
        problems.dedup();
        let told = self
            .speed_told_ns
            .is_some_and(|told_ns| now_ns - told_ns <= MOTION_EVIDENCE_NS);
        if problems.is_empty() && told && !self.confirms_motion(now_ns) {
            problems.push("the motion is not confirmed".to_owned());
        }
        problems
    }

    fn gates(&self) -> Vec<&Gate> {
        let mut gates = vec![
            &self.speed.gate,
            &self.yaw_rate.gate,
            &self.heading.gate,
            &self.pictures.gate,
        ];
        for receiver in &self.receivers {
            gates.extend([&receiver.motion.speed, &receiver.motion.course]);
        }
        gates
    }

    /// What every gate found.
    pub(super) fn verdicts(&self) -> Vec<SourceVerdict> {
        self.gates().into_iter().map(Gate::verdict).collect()
    }
}

fn earlier(a: Option<i64>, b: Option<i64>) -> Option<i64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
