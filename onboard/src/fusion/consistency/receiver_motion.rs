//! The receiver's own speed and course: what jumps away from odometry that
//! agreed a moment ago is no reference for others.

use crossfix_calibration::{Heading, Yaw};

use super::gate::Gate;
use crate::event::GnssFix;

/// Slower odometry is no witness: it may be dead, m/s.
const SLOWEST_WITNESS_MPS: f64 = 2.0;
/// After this time without a word to be believed, what the receiver says is tried again, seconds.
const LONGEST_SUSPICION_S: f64 = 30.0;
/// Below this speed a course may do anything, m/s.
const SLOWEST_MPS: f64 = 4.0;
/// Fixes in a row that agree with the odometry until the receiver is believed again.
const AGREEMENTS: u32 = 2;

/// The checks of the receiver's speed and course.
#[derive(Debug, Clone)]
pub(crate) struct ReceiverMotion {
    pub(crate) speed: Gate,
    pub(crate) course: Gate,
    /// Times of the last speed and course that were believed.
    last_speed_ns: Option<i64>,
    last_course_ns: Option<i64>,
}

/// What the odometry says at a fix, as far as it is believed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Odometer {
    pub(crate) speed_mps: Option<f64>,
    pub(crate) yaw: Option<Yaw>,
    /// The receiver has confirmed it a moment ago.
    pub(crate) was_confirmed: bool,
}

impl ReceiverMotion {
    pub(crate) fn new() -> Self {
        Self {
            speed: Gate::new("receiver_motion", "GNSS speed"),
            course: Gate::new("receiver_motion", "GNSS course"),
            last_speed_ns: None,
            last_course_ns: None,
        }
    }

    /// The fix without the speed or course that cannot be.
    pub(crate) fn judge(&mut self, fix: &GnssFix, odometer: Odometer) -> GnssFix {
        let mut judged = fix.clone();
        let Some(speed_mps) = fix.speed_mps.filter(|mps| mps.is_finite()) else {
            return judged;
        };
        let since_s = |then_ns: i64| (fix.time_ns - then_ns) as f64 * 1e-9;
        // Odometry that agreed a moment ago and went on smoothly is a witness against the receiver.
        let suspicious = self.speed.problem().is_some()
            && self
                .last_speed_ns
                .is_some_and(|then_ns| since_s(then_ns) < LONGEST_SUSPICION_S);
        let off = odometer
            .speed_mps
            .map(f64::abs)
            .filter(|mps| *mps > SLOWEST_WITNESS_MPS)
            .is_some_and(|mps| {
                let off_mps = (mps - speed_mps).abs();
                off_mps > if suspicious { 1.2 } else { 2.5 } && off_mps > 0.25 * mps
            });
        if off && (suspicious || odometer.was_confirmed) {
            self.speed
                .contradict(2, "the receiver's speed jumps away from the odometry's");
            judged.speed_mps = None;
            judged.track_deg = None;
        } else {
            self.speed.agree(fix.time_ns, AGREEMENTS);
            self.last_speed_ns = Some(fix.time_ns);
        }
        let Some(track_deg) = judged.track_deg.filter(|deg| deg.is_finite()) else {
            return judged;
        };
        if speed_mps < SLOWEST_MPS {
            return judged;
        }
        let course = Heading::from_degrees(track_deg).yaw();
        let suspicious = self.course.problem().is_some()
            && self
                .last_course_ns
                .is_some_and(|then_ns| since_s(then_ns) < LONGEST_SUSPICION_S);
        let off = odometer.yaw.is_some_and(|yaw| {
            let off_rad = course.difference_rad(yaw).abs();
            off_rad > if suspicious { 0.5 } else { 1.0 }
        });
        if off && (suspicious || odometer.was_confirmed) {
            self.course
                .contradict(2, "the receiver's course jumps away from the vehicle's yaw");
            judged.track_deg = None;
        } else {
            self.course.agree(fix.time_ns, AGREEMENTS);
            self.last_course_ns = Some(fix.time_ns);
        }
        judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fusion::tests_support::fix;

    fn driving(confirmed: bool) -> Odometer {
        Odometer {
            speed_mps: Some(8.0),
            yaw: Some(Yaw::new(0.0)),
            was_confirmed: confirmed,
        }
    }

    #[test]
    fn a_speed_in_knots_and_a_reversed_course_are_left_out_until_they_agree_again() {
        let mut receiver = ReceiverMotion::new();
        let say = |receiver: &mut ReceiverMotion, second: i64, mps: f64, track_deg: f64| {
            let mut said = fix(second, [0.0, 0.0]);
            (said.speed_mps, said.track_deg) = (Some(mps), Some(track_deg));
            let judged = receiver.judge(&said, driving(second < 3));
            (judged.speed_mps.is_some(), judged.track_deg.is_some())
        };
        assert_eq!(say(&mut receiver, 0, 8.1, 90.0), (true, true));
        assert_eq!(say(&mut receiver, 1, 8.0, 270.0), (true, false));
        assert_eq!(say(&mut receiver, 2, 15.6, 90.0), (false, false));
        assert_eq!(say(&mut receiver, 3, 15.6, 90.0), (false, false));
        assert_eq!(say(&mut receiver, 4, 8.2, 90.0), (true, true));
    }

    #[test]
    fn dead_odometry_is_no_witness() {
        let mut receiver = ReceiverMotion::new();
        let mut said = fix(0, [0.0, 0.0]);
        (said.speed_mps, said.track_deg) = (Some(9.0), None);
        let dead = Odometer {
            speed_mps: Some(0.0),
            ..driving(true)
        };
        assert_eq!(receiver.judge(&said, dead).speed_mps, Some(9.0));
    }
}
