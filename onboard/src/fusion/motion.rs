//! How the vehicle moves between measurements: by odometry, else by the receiver, else unknown.

use super::filter::Filter;
use super::navigator::Motion;
use super::{SLOWEST_COURSE_MPS, Unused, seconds};
use crossfix_calibration::Heading;

use crate::event::{GnssFix, OdometrySample};

/// 1-sigma of a speed that a receiver reports, m/s.
const TOLD_SPEED_SIGMA_MPS: f64 = 0.7;
/// 1-sigma of the speed of a vehicle whose receiver reports none, m/s.
const UNREPORTED_SPEED_SIGMA_MPS: f64 = 15.0;
/// 1-sigma of the speed when nothing reports it, m/s.
const BLIND_SPEED_MPS: f64 = 10.0;
/// Seconds that pass between absolute headings that count; those in between repeat them.
const HEADING_SPACING_S: f64 = 1.0;
/// Headings err alike for about this many of them, so each counts for less.
const HEADING_REPETITION: f64 = 10.0;

impl Filter {
    /// Takes in speed, yaw rate and perhaps heading.
    pub(super) fn take_odometry(&mut self, sample: &OdometrySample) -> Result<(), Unused> {
        let numbers = [
            sample.forward_speed_mps,
            sample.yaw_rate_rps,
            sample.speed_sigma_mps,
            sample.yaw_rate_sigma_rps,
        ];
        let sane = numbers.iter().all(|v| v.is_finite())
            && sample.forward_speed_mps.abs() < 150.0
            && sample.yaw_rate_rps.abs() < 10.0;
        if !sane {
            return Err(Unused::Invalid);
        }
        let motion = Motion {
            speed_mps: sample.forward_speed_mps,
            yaw_rate_rps: sample.yaw_rate_rps,
            speed_sigma_mps: sample.speed_sigma_mps.clamp(0.0, 50.0),
            yaw_rate_sigma_rps: sample.yaw_rate_sigma_rps.clamp(0.0, 1.0),
            lasting: true,
        };
        // Between two samples the motion was between them too.
        if let (Some((time_ns, before)), true) = (self.odometry, sample.time_ns > self.now_ns)
            && sample.time_ns - time_ns <= seconds(self.config.odometry_timeout_s)
            && time_ns <= self.now_ns
        {
            let half = |a: f64, b: f64| 0.5 * (a + b);
            let middle = Motion {
                speed_mps: half(before.speed_mps, motion.speed_mps),
                yaw_rate_rps: half(before.yaw_rate_rps, motion.yaw_rate_rps),
                ..motion
            };
            self.odometry = Some((sample.time_ns, middle));
        }
        self.advance(sample.time_ns);
        if self
            .odometry
            .is_none_or(|(time_ns, _)| time_ns <= sample.time_ns)
        {
            self.odometry = Some((sample.time_ns, motion));
        }
        if let Some(measured) = sample.yaw
            && measured.yaw.is_finite()
            && measured.sigma_rad > 0.0
            && sample.time_ns >= self.heading_ns.saturating_add(seconds(HEADING_SPACING_S))
            && let Some(started) = &mut self.started
            && let Some(then) = started.history.at(sample.time_ns)
        {
            self.heading_ns = sample.time_ns;
            let first = !started.navigator.yaw_known();
            let repetition = if first {
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

    /// Speed and yaw rate from the receiver, for when there is no odometry. Returns the motion since
    /// the fix before, where both fixes reported it.
    pub(super) fn note_gnss_motion(&mut self, fix: &GnssFix) -> Option<Motion> {
        let before = self.gnss_motion;
        if before.is_some_and(|(time_ns, ..)| fix.time_ns <= time_ns) {
            return None;
        }
        let speed = fix
            .speed_mps
            .filter(|v| v.is_finite() && (0.0..150.0).contains(v));
        let course = fix
            .track_deg
            .filter(|v| v.is_finite() && speed.is_some_and(|s| s > SLOWEST_COURSE_MPS))
            .map(|track_deg| Heading::from_degrees(track_deg).yaw());
        let yaw_rate_rps = match (before, course) {
            (Some((time_ns, _, Some(before))), Some(now))
                if fix.time_ns > time_ns && fix.time_ns - time_ns < seconds(2.5) =>
            {
                let dt_s = (fix.time_ns - time_ns) as f64 * 1e-9;
                (now.difference_rad(before) / dt_s).clamp(-1.0, 1.0)
            }
            _ => 0.0,
        };
        let motion = match speed {
            Some(speed_mps) => Motion {
                speed_mps,
                yaw_rate_rps,
                speed_sigma_mps: TOLD_SPEED_SIGMA_MPS,
                yaw_rate_sigma_rps: 0.15,
                lasting: false,
            },
            // Anything a road vehicle does: the fixes themselves have to say.
            None => Motion {
                speed_mps: 0.0,
                yaw_rate_rps: 0.0,
                speed_sigma_mps: UNREPORTED_SPEED_SIGMA_MPS,
                yaw_rate_sigma_rps: 0.3,
                lasting: false,
            },
        };
        self.gnss_motion = Some((fix.time_ns, motion, course));
        let (time_ns, before, _) = before?;
        let is_reported = |motion: &Motion| motion.speed_sigma_mps < UNREPORTED_SPEED_SIGMA_MPS;
        let near = fix.time_ns - time_ns <= seconds(self.config.gnss_timeout_s);
        (near && is_reported(&before) && is_reported(&motion)).then_some(Motion {
            speed_mps: 0.5 * (before.speed_mps + motion.speed_mps),
            ..motion
        })
    }

    /// The motion to hold at `time_ns`: odometry, else the receiver's, else anything.
    pub(super) fn motion(&self, time_ns: i64) -> Motion {
        if let Some((at_ns, motion)) = self.odometry
            && time_ns - at_ns <= seconds(self.config.odometry_timeout_s)
        {
            return motion;
        }
        if let Some((at_ns, motion, _)) = self.gnss_motion
            && time_ns - at_ns <= seconds(self.config.gnss_timeout_s)
        {
            return motion;
        }
        let heard_ns = self.odometry.map(|(at_ns, _)| at_ns);
        let heard_ns = heard_ns.max(self.gnss_motion.map(|(at_ns, ..)| at_ns));
        let blind_s = (time_ns - heard_ns.unwrap_or(time_ns)).max(0) as f64 * 1e-9;
        // An unknown but lasting speed puts the vehicle `BLIND_SPEED_MPS · t` away, not `√t`; this is
        // the noise per second whose sum is that square.
        Motion {
            speed_mps: 0.0,
            yaw_rate_rps: 0.0,
            speed_sigma_mps: BLIND_SPEED_MPS * (2.0 * blind_s).sqrt().max(1.0),
            yaw_rate_sigma_rps: 0.3,
            lasting: false,
        }
    }
}
