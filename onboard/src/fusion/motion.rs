//! How the vehicle moves between measurements: by odometry, else by the receiver, else unknown.
//!
//! Speed and yaw rate are chosen one by one: a wheel sensor that lies does not cost the gyro.

use crossfix_calibration::{Heading, Yaw};

use super::filter::Filter;
use super::navigator::Motion;
use super::{SLOWEST_COURSE_MPS, Unused, seconds};
use crate::event::{GnssFix, OdometrySample};

/// 1-sigma of a speed that a receiver reports, m/s.
const TOLD_SPEED_SIGMA_MPS: f64 = 0.7;
/// 1-sigma of the speed of a vehicle whose receiver reports none, m/s.
const UNREPORTED_SPEED_SIGMA_MPS: f64 = 15.0;
/// 1-sigma of the speed when nothing reports it, m/s.
const BLIND_SPEED_MPS: f64 = 10.0;
/// 1-sigma of the acceleration when nothing reports the speed any more, m/s².
const BLIND_ACCELERATION: f64 = 2.0;
/// How long the last speed is held, seconds.
const LONGEST_HELD_S: f64 = 8.0;
/// 1-sigma of a yaw rate that nothing reports, rad/s.
const BLIND_YAW_RATE_RPS: f64 = 0.3;
/// 1-sigma of a yaw rate between two courses of the receiver, rad/s.
const COURSE_RATE_SIGMA_RPS: f64 = 0.15;
/// Courses that differ by more than this are no turn, radians.
const LARGEST_TURN_RAD: f64 = 2.6;
/// Courses further apart than this say little about the turn between them, seconds.
const LONGEST_TURN_S: f64 = 2.5;
/// Seconds that pass between absolute headings that count; those in between repeat them.
const HEADING_SPACING_S: f64 = 1.0;
/// Headings err alike for about this many of them, so each counts for less.
const HEADING_REPETITION: f64 = 10.0;

/// Wheels below this speed stand, m/s, and the receiver may say up to this.
const STILL_MPS: f64 = 0.02;
const STILL_BY_GNSS_MPS: f64 = 0.5;
/// They must have stood for this long, nanoseconds: a vehicle sways when it stops.
const STILL_FOR_NS: i64 = 1_000_000_000;
/// 1-sigma error of a gyro's bias after a second of standing, rad/s.
const STILL_BIAS_SIGMA_RPS: f64 = 0.002;
/// A yaw rate further from the known bias than this, while standing, is a turntable or a broken gyro, rad/s; and
/// while nobody but the wheels says that the vehicle stands.
const LARGEST_GYRO_BIAS_RPS: f64 = 0.1;
const LARGEST_REFINEMENT_RPS: f64 = 0.006;

/// What is owed is made up for within this time, seconds.
const MAKE_UP_S: f64 = 0.05;

/// A speed or a yaw rate that a source reported.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Reported {
    pub(super) time_ns: i64,
    pub(super) value: f64,
    pub(super) sigma: f64,
}

/// The way and the turn that lie between what samples said when they came and what the next ones say
/// of the same stretch.
///
/// Between two samples of a quantity it changes evenly. Where measurements of something else (a yaw
/// rate from another source) made the filter advance in between, with the older sample held, the
/// difference is made up for over the next moments.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Owed {
    way_m: f64,
    turn_rad: f64,
}

impl Owed {
    /// Adds as much as is due in a step to its motion.
    pub(super) fn pay(&mut self, step_ns: i64, motion: &mut Motion) {
        if *self == Self::default() || step_ns <= 0 {
            return;
        }
        let step_s = step_ns as f64 * 1e-9;
        let share = (step_s / MAKE_UP_S).min(1.0);
        motion.speed_mps += share * self.way_m / step_s;
        motion.yaw_rate_rps += share * self.turn_rad / step_s;
        self.way_m *= 1.0 - share;
        self.turn_rad *= 1.0 - share;
    }
}

/// How the receiver says that it moves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct GnssMotion {
    pub(super) time_ns: i64,
    /// m/s; not every receiver reports it.
    pub(super) speed_mps: Option<f64>,
    pub(super) course: Option<Yaw>,
    /// From the course before to this one.
    pub(super) yaw_rate_rps: f64,
}

impl GnssMotion {
    /// What a fix says of its motion, after the fix before it.
    pub(super) fn new(fix: &GnssFix, before: Option<&Self>) -> Self {
        let speed_mps = fix
            .speed_mps
            .filter(|v| v.is_finite() && (0.0..150.0).contains(v));
        let course = fix
            .track_deg
            .filter(|v| v.is_finite() && speed_mps.is_some_and(|s| s > SLOWEST_COURSE_MPS))
            .map(|track_deg| Heading::from_degrees(track_deg).yaw());
        let turn = before.and_then(|before| {
            let dt_s = (fix.time_ns - before.time_ns) as f64 * 1e-9;
            let turned_rad = course?.difference_rad(before.course?);
            // A course that turns round at once is a gear change.
            (dt_s > 0.0 && dt_s < LONGEST_TURN_S && turned_rad.abs() < LARGEST_TURN_RAD)
                .then(|| (turned_rad / dt_s).clamp(-1.0, 1.0))
        });
        Self {
            time_ns: fix.time_ns,
            speed_mps,
            course,
            yaw_rate_rps: turn.unwrap_or(0.0),
        }
    }
}

impl Filter {
    /// Takes in speed, yaw rate and perhaps heading.
    pub(super) fn take_odometry(&mut self, sample: &OdometrySample) -> Result<(), Unused> {
        let sane = |value: Option<f64>, sigma: f64, limit: f64| {
            value.is_none_or(|value| value.is_finite() && sigma.is_finite() && value.abs() < limit)
        };
        if !sane(sample.forward_speed_mps, sample.speed_sigma_mps, 150.0)
            || !sane(sample.yaw_rate_rps, sample.yaw_rate_sigma_rps, 100.0)
        {
            return Err(Unused::Invalid);
        }
        let time_ns = sample.time_ns;
        let believed = |excluded: bool, value: Option<f64>, sigma: f64| {
            value.filter(|_| !excluded).map(|value| Reported {
                time_ns,
                value,
                sigma,
            })
        };
        let speed = believed(
            self.excluded.speed.covers(time_ns),
            sample.forward_speed_mps,
            sample.speed_sigma_mps.clamp(0.0, 50.0),
        );
        let yaw_rate = believed(
            self.excluded.yaw_rate.covers(time_ns)
                || sample.yaw_rate_rps.is_some_and(|rate| rate.abs() > 10.0),
            sample.yaw_rate_rps,
            sample.yaw_rate_sigma_rps.clamp(0.0, 1.0),
        );
        // Between two samples the motion was between them too.
        if sample.forward_speed_mps.is_none() || sample.yaw_rate_rps.is_none() {
            self.catch_up(speed, yaw_rate);
        } else if time_ns > self.now_ns {
            let timeout_ns = seconds(self.config.odometry_timeout_s);
            for (kept, new) in [(&mut self.speed, speed), (&mut self.yaw_rate, yaw_rate)] {
                if let (Some(before), Some(new)) = (kept, new)
                    && time_ns - before.time_ns <= timeout_ns
                    && before.time_ns <= self.now_ns
                {
                    before.value = 0.5 * (before.value + new.value);
                    before.time_ns = time_ns;
                }
            }
        }
        self.advance(time_ns);
        for (kept, new) in [(&mut self.speed, speed), (&mut self.yaw_rate, yaw_rate)] {
            if new.is_some() && kept.is_none_or(|kept| kept.time_ns <= time_ns) {
                *kept = new;
            }
        }
        if sample.forward_speed_mps.is_some() {
            self.odometry_ns = self.odometry_ns.max(time_ns);
        }
        self.learn_gyro_bias(time_ns, yaw_rate);
        // Without a gyro the headings have to carry the turns.
        let without_gyro = self.excluded.yaw_rate.covers(time_ns);
        let spacing_ns = if without_gyro {
            0
        } else {
            seconds(HEADING_SPACING_S)
        };
        if let Some(measured) = sample.yaw
            && measured.yaw.is_finite()
            && measured.sigma_rad > 0.0
            && !self.excluded.heading.covers(time_ns)
            && time_ns >= self.heading_ns.saturating_add(spacing_ns)
            && let Some(started) = &mut self.started
            && let Some(then) = started.history.at(time_ns)
        {
            self.heading_ns = time_ns;
            let first = !started.navigator.yaw_known();
            let repetition = if first || without_gyro {
                1.0
            } else {
                HEADING_REPETITION.sqrt()
            };
            let sigma_rad = measured.sigma_rad.clamp(0.005, 1.5) * repetition;
            started
                .navigator
                .update_yaw(measured.yaw, then.yaw, sigma_rad);
            self.remember();
        }
        Ok(())
    }

    /// A gyro's bias shows while the vehicle stands. Where no receiver says so too (a turntable, a ferry, dead
    /// wheels), what is known of it is only refined.
    fn learn_gyro_bias(&mut self, time_ns: i64, yaw_rate: Option<Reported>) {
        let Some(receiver_stands) = self.stands(time_ns) else {
            self.still_ns = None;
            return;
        };
        let since_ns = *self.still_ns.get_or_insert(time_ns);
        let furthest_rps = if receiver_stands {
            LARGEST_GYRO_BIAS_RPS
        } else {
            LARGEST_REFINEMENT_RPS
        };
        let known_rps = self.gyro_bias_rps();
        let Some(reported) = yaw_rate.filter(|rate| (rate.value - known_rps).abs() < furthest_rps)
        else {
            return;
        };
        let before_ns = self
            .bias_learned_ns
            .max(since_ns.saturating_add(STILL_FOR_NS));
        if time_ns <= before_ns {
            return;
        }
        let step_s = ((time_ns - before_ns) as f64 * 1e-9).clamp(1e-3, 1.0);
        self.bias_learned_ns = time_ns;
        if let Some(started) = &mut self.started {
            let sigma_rps = (STILL_BIAS_SIGMA_RPS / step_s.sqrt()).max(reported.sigma);
            started
                .navigator
                .update_gyro_bias(reported.value, sigma_rps);
        }
    }

    /// Whether a receiver says that the vehicle stands where its wheels do; nothing where it moves.
    fn stands(&self, time_ns: i64) -> Option<bool> {
        let wheels = self.speed.is_some_and(|speed| {
            speed.value.abs() < STILL_MPS
                && time_ns.saturating_sub(speed.time_ns) <= seconds(self.config.odometry_timeout_s)
        });
        let timeout_ns = seconds(self.config.gnss_timeout_s);
        let receiver_mps = self.receiver_speed.and_then(|(told_ns, mps)| {
            (time_ns.saturating_sub(told_ns) <= timeout_ns).then_some(mps)
        });
        let moves = receiver_mps.is_some_and(|mps| mps > STILL_BY_GNSS_MPS);
        (wheels && !moves).then_some(receiver_mps.is_some())
    }

    /// A sample comes of one quantity alone: from the sample before to this one it changed evenly, also
    /// where the filter already advanced with the older one held.
    fn catch_up(&mut self, speed: Option<Reported>, yaw_rate: Option<Reported>) {
        let timeout_ns = seconds(self.config.odometry_timeout_s);
        let now_ns = self.now_ns;
        let step = |kept: &mut Option<Reported>, new: Option<Reported>, owed: &mut f64| {
            let (Some(before), Some(new)) = (kept, new) else {
                return;
            };
            let span_ns = new.time_ns - before.time_ns;
            if span_ns <= 0 || span_ns > timeout_ns || before.time_ns > now_ns {
                return;
            }
            let gone_ns = now_ns.min(new.time_ns) - before.time_ns;
            let share = gone_ns as f64 / span_ns as f64;
            let change = new.value - before.value;
            *owed += 0.5 * change * share * gone_ns as f64 * 1e-9;
            if new.time_ns > now_ns {
                before.value += 0.5 * change * (1.0 + share);
                before.time_ns = new.time_ns;
            }
        };
        step(&mut self.speed, speed, &mut self.owed.way_m);
        step(&mut self.yaw_rate, yaw_rate, &mut self.owed.turn_rad);
    }

    /// Whether speed or yaw rate come from the receiver at this time, so that the way between two
    /// fixes is known only at the second one.
    pub(super) fn follows_gnss_motion(&self) -> bool {
        let fresh = |reported: Option<Reported>| {
            reported.is_some_and(|reported| {
                self.now_ns - reported.time_ns <= seconds(self.config.odometry_timeout_s)
            })
        };
        !fresh(self.speed)
            || !fresh(self.yaw_rate)
            || self.excluded.speed.covers(self.now_ns)
            || self.excluded.yaw_rate.covers(self.now_ns)
    }

    /// The motion to hold up to `time_ns`: odometry, else the receiver's, else anything.
    pub(super) fn motion(&self, time_ns: i64) -> Motion {
        let timeout_ns = seconds(self.config.odometry_timeout_s);
        let newest_fix_ns = self.gnss_motion.map_or(i64::MIN, |motion| motion.time_ns);
        let usable = |reported: Option<Reported>, excluded: bool| {
            reported.filter(|reported| {
                time_ns - reported.time_ns <= timeout_ns
                    && (!excluded || self.gnss_next.is_none() && reported.time_ns > newest_fix_ns)
            })
        };
        let speed = usable(self.speed, self.excluded.speed.covers(time_ns));
        let yaw_rate = usable(self.yaw_rate, self.excluded.yaw_rate.covers(time_ns));
        let (gnss_speed, gnss_rate) = self.gnss_motion_at(time_ns);
        let chosen = |odometry: Option<Reported>, gnss: (f64, f64)| match odometry {
            Some(reported) => (reported.value, reported.sigma, true),
            None => (gnss.0, gnss.1, false),
        };
        let (speed_mps, speed_sigma_mps, lasting_speed) = chosen(speed, gnss_speed);
        let (yaw_rate_rps, yaw_rate_sigma_rps, lasting_yaw_rate) = chosen(yaw_rate, gnss_rate);
        Motion {
            speed_mps,
            yaw_rate_rps,
            speed_sigma_mps,
            yaw_rate_sigma_rps,
            lasting_speed,
            lasting_yaw_rate,
        }
    }

    /// Forward speed of an amount that the receiver reports, m/s.
    fn forward(&self, speed_mps: f64) -> f64 {
        if self.direction.is_reversing() {
            -speed_mps
        } else {
            speed_mps
        }
    }

    /// Forward speed and yaw rate by the receiver, each with its 1-sigma error.
    fn gnss_motion_at(&self, time_ns: i64) -> ((f64, f64), (f64, f64)) {
        let timeout_ns = seconds(self.config.gnss_timeout_s);
        let unreported = ((0.0, UNREPORTED_SPEED_SIGMA_MPS), (0.0, BLIND_YAW_RATE_RPS));
        let before = self
            .gnss_motion
            .filter(|motion| time_ns.saturating_sub(motion.time_ns) <= timeout_ns);
        let Some(before) = before else {
            return self.blind_motion(time_ns);
        };
        // The way between two fixes lies between what both say.
        if let Some(next) = self.gnss_next
            && next.time_ns > before.time_ns
            && next.time_ns >= time_ns
        {
            let middle_ns = self.now_ns.max(before.time_ns).midpoint(time_ns);
            let share =
                (middle_ns - before.time_ns) as f64 / (next.time_ns - before.time_ns) as f64;
            return match (before.speed_mps, next.speed_mps) {
                (Some(from), Some(to)) => (
                    (
                        self.forward(from + share.clamp(0.0, 1.0) * (to - from)),
                        TOLD_SPEED_SIGMA_MPS,
                    ),
                    (next.yaw_rate_rps, COURSE_RATE_SIGMA_RPS),
                ),
                _ => unreported,
            };
        }
        match before.speed_mps {
            Some(speed_mps) => (
                (self.forward(speed_mps), TOLD_SPEED_SIGMA_MPS),
                (before.yaw_rate_rps, COURSE_RATE_SIGMA_RPS),
            ),
            // Anything a road vehicle does: the fixes themselves have to say.
            None => unreported,
        }
    }

    /// The motion when nothing reports it.
    fn blind_motion(&self, time_ns: i64) -> ((f64, f64), (f64, f64)) {
        let heard_ns = self
            .speed
            .map(|speed| speed.time_ns)
            .max(self.gnss_motion.map(|motion| motion.time_ns));
        let blind_s = (time_ns - heard_ns.unwrap_or(time_ns)).max(0) as f64 * 1e-9;
        // The last speed is held. An unknown acceleration puts the vehicle `a t² / 2` away and an
        // unknown but lasting speed `v t`, not `√t`; these are the noises per second whose sums are
        // the squares of that.
        let by_acceleration = BLIND_ACCELERATION * blind_s.powf(1.5);
        let by_speed = BLIND_SPEED_MPS * (2.0 * blind_s).sqrt();
        let by_gnss = |gnss: GnssMotion| gnss.speed_mps.map(|mps| self.forward(mps));
        let held_mps = match (self.speed, self.gnss_motion) {
            (Some(speed), Some(gnss)) if gnss.time_ns > speed.time_ns => by_gnss(gnss),
            (Some(speed), _) => Some(speed.value),
            (None, gnss) => gnss.and_then(by_gnss),
        };
        match held_mps {
            Some(mps) if blind_s < LONGEST_HELD_S => (
                (mps, by_acceleration.min(by_speed).max(TOLD_SPEED_SIGMA_MPS)),
                (0.0, BLIND_YAW_RATE_RPS),
            ),
            _ => (
                (0.0, by_speed.max(BLIND_SPEED_MPS)),
                (0.0, BLIND_YAW_RATE_RPS),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use crossfix_calibration::{Geodetic, LocalFrame};

    use crate::event::OdometrySample;
    use crate::fusion::tests_support::{fix, sample};
    use crate::fusion::{Fusion, FusionConfig};

    const MS_NS: i64 = 1_000_000;

    /// The speed of a start and the yaw rate of a bend.
    fn truth(time_ns: i64) -> (f64, f64) {
        let time_s = time_ns as f64 * 1e-9;
        ((2.0 * time_s).min(12.0), 0.3 * (0.5 * time_s).sin())
    }

    /// Where dead reckoning by these samples ends, metres east and north.
    fn end(samples: impl Iterator<Item = OdometrySample>) -> [f64; 2] {
        let mut fusion = Fusion::new(FusionConfig::default(), 0.0);
        fusion.on_gnss(&"gnss".into(), &fix(0, [0.0, 0.0])).unwrap();
        fusion.on_odometry(&sample(0, 0.0, 0.0, 0.0)).unwrap();
        samples.for_each(|sample| fusion.on_odometry(&sample).unwrap());
        let place = fusion.estimates(None)[0].position;
        let origin = Geodetic::new(52.0116, 4.3571, 0.0).unwrap();
        let point = LocalFrame::new(origin).enu_from_geodetic(place);
        [point.east(), point.north()]
    }

    #[test]
    fn speed_and_yaw_rate_of_two_sources_lead_to_where_one_source_does() {
        let of = |time_ms: i64, has_speed: bool, has_yaw_rate: bool| {
            let time_ns = time_ms * MS_NS;
            let (speed_mps, yaw_rate_rps) = truth(time_ns);
            OdometrySample {
                time_ns,
                forward_speed_mps: has_speed.then_some(speed_mps),
                yaw_rate_rps: has_yaw_rate.then_some(yaw_rate_rps),
                yaw: None,
                ..sample(0, 0.0, 0.0, 0.0)
            }
        };
        let both = end((1..=1000).map(|step| of(20 * step, true, true)));
        assert!(both[0].hypot(both[1]) > 50.0, "{both:?}");
        // Wheels at 10 Hz and a gyro at 50 Hz: at the same moments, at others, and the gyro last.
        for (speed_after_ms, speed_is_first) in [(0, false), (0, true), (3, false), (17, true)] {
            let apart = end((1..=1000).flat_map(|step| {
                let gyro = of(20 * step, false, true);
                let wheels = (step % 5 == 0).then(|| of(20 * step + speed_after_ms, true, false));
                let mut samples: Vec<_> = std::iter::once(gyro).chain(wheels).collect();
                if speed_is_first && speed_after_ms == 0 {
                    samples.reverse();
                }
                samples
            }));
            let late_s = speed_after_ms as f64 * 1e-3;
            let off = (apart[0] - both[0]).hypot(apart[1] - both[1]);
            assert!(
                off < 0.15 + 12.0 * late_s,
                "{speed_after_ms} ms: {apart:?} {both:?}"
            );
        }
    }

    /// Drives for 20 s, stands for `still_s` and drives on straight to the north for 30 s with a gyro that is
    /// off by this much: the yaw at the end, radians.
    fn yaw_after_a_stop(bias_rps: f64, still_s: i64, receiver_mps: f64) -> f64 {
        let mut fusion = Fusion::new(FusionConfig::default(), 0.0);
        let gnss: std::sync::Arc<str> = "gnss".into();
        let stop_tenth = 10 * (20 + still_s);
        let mut north_m = 0.0;
        for tenth in 0..stop_tenth + 300 {
            let stands = (200..stop_tenth).contains(&tenth);
            // Braking and starting take four seconds each.
            let from_stop = (200 - tenth).max(tenth - stop_tenth).max(0) as f64;
            let speed_mps = (0.2 * from_stop).min(8.0);
            let off_rps = if tenth < 200 { 0.0 } else { bias_rps };
            north_m += 0.1 * speed_mps;
            if tenth % 10 == 0 && tenth <= stop_tenth {
                let place = fix(tenth / 10, [0.0, north_m]);
                let fix = crate::event::GnssFix {
                    speed_mps: Some(if stands { receiver_mps } else { speed_mps }),
                    track_deg: (speed_mps > 1.0).then_some(0.0),
                    ..place
                };
                let _ = fusion.on_gnss(&gnss, &fix);
            }
            let sample = OdometrySample {
                yaw: None,
                ..sample(tenth, speed_mps, off_rps, 0.0)
            };
            fusion.on_odometry(&sample).unwrap();
        }
        fusion.estimates(None)[0].yaw.radians() - std::f64::consts::FRAC_PI_2
    }

    #[test]
    fn a_stop_shows_the_bias_of_the_gyro() {
        let turned_rad = |bias: f64, still_s: i64| yaw_after_a_stop(bias, still_s, 0.0).abs();
        for bias_rps in [0.01, -0.03, 0.05] {
            let held = turned_rad(bias_rps, 6);
            assert!(held < 0.15 * bias_rps.abs() * 30.0, "{bias_rps}: {held}");
        }
        // Without a stop it turns the heading away.
        let turned = turned_rad(0.01, 0);
        assert!(turned > 0.2, "{turned}");
    }

    #[test]
    fn a_ferry_that_turns_shows_no_bias() {
        // The wheels stand, the receiver moves: what the gyro says is a turn.
        let turned_rad = yaw_after_a_stop(0.01, 6, 5.0);
        assert!(turned_rad > 0.2, "{turned_rad}");
    }
}
