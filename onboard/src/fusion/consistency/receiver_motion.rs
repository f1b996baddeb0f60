//! The receiver's own speed and course: what jumps away from odometry that agreed a moment ago, or leads
//! elsewhere than the receiver's own positions, is no reference for others.

use std::collections::VecDeque;

use crossfix_calibration::{Geodetic, Heading, LocalFrame, Yaw};

use super::super::update::is_null_island;
use super::gate::Gate;
use crate::event::GnssFix;

/// Slower odometry is no witness: it may be dead, m/s.
const SLOWEST_WITNESS_MPS: f64 = 2.0;
/// The same while the receiver is under suspicion.
const SLOWEST_SECOND_WITNESS_MPS: f64 = 0.3;
/// Vehicles brake and accelerate by no more than this in traffic, m/s².
const USUAL_ACCELERATION: f64 = 4.0;
/// After this time without a word to be believed, what the receiver says is tried again, seconds.
const LONGEST_SUSPICION_S: f64 = 30.0;
/// Below this speed a course may do anything, m/s.
const SLOWEST_MPS: f64 = 4.0;
/// The way between two fixes this far apart is compared with the speed and course of those in between,
/// nanoseconds.
const WAY_NS: std::ops::RangeInclusive<i64> = 8_000_000_000..=15_000_000_000;
/// Fixes further apart than this say nothing about the way between them, nanoseconds.
const LONGEST_GAP_NS: i64 = 2_500_000_000;
/// Nor do those that are so far from each other, metres.
const LARGEST_STEP_M: f64 = 250.0;
/// The way by speed and course may be off by this share, and by so many sigma of the positions.
const WAY_SHARE: f64 = 0.3;
const WAY_SIGMAS: f64 = 2.0;
/// Fixes in a row that agree with the odometry until the receiver is believed again.
const AGREEMENTS: u32 = 2;

/// Fixes in a row that are elsewhere until speed or course are no reference.
const ASTRAY: u32 = 3;

/// The checks of the receiver's speed and course.
#[derive(Debug, Clone)]
pub(crate) struct ReceiverMotion {
    pub(crate) speed: Gate,
    pub(crate) course: Gate,
    /// The last speed that was believed, m/s, and its time; the time of the last such course.
    last_speed: Option<(i64, f64)>,
    last_course_ns: Option<i64>,
    /// The last fixes, and how many in a row were not where their speeds led, or their courses.
    way: VecDeque<WayPoint>,
    speed_astray: u32,
    course_astray: u32,
    /// The way by speeds over the way between fixes.
    way_factor: f64,
}

/// A fix, and where speed and course have led since the first one.
#[derive(Debug, Clone, Copy)]
struct WayPoint {
    time_ns: i64,
    position: Geodetic,
    sigma_m: f64,
    velocity_mps: [f64; 2],
    led_m: [f64; 2],
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
    /// Of the receiver with this name.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            speed: Gate::new("receiver_motion", format!("speed of {name}")),
            course: Gate::new("receiver_motion", format!("course of {name}")),
            last_speed: None,
            last_course_ns: None,
            way: VecDeque::new(),
            speed_astray: 0,
            course_astray: 0,
            way_factor: 1.0,
        }
    }

    /// How many times too fast its speed is by its own positions, where it is found to be wrong.
    pub(crate) fn speed_factor(&self) -> Option<f64> {
        (self.speed_astray >= ASTRAY).then_some(self.way_factor)
    }

    /// Whether its course is wrong by its own positions.
    pub(crate) fn is_course_wrong(&self) -> bool {
        self.course_astray >= ASTRAY
    }

    /// The fix without the speed or course that cannot be.
    pub(crate) fn judge(&mut self, fix: &GnssFix, odometer: Odometer) -> GnssFix {
        let mut judged = fix.clone();
        let Some(speed_mps) = fix.speed_mps.filter(|mps| mps.is_finite()) else {
            return judged;
        };
        self.follow_way(fix, speed_mps);
        let lately = |then_ns: Option<i64>| {
            then_ns.is_some_and(|then_ns| {
                (fix.time_ns.saturating_sub(then_ns) as f64 * 1e-9) < LONGEST_SUSPICION_S
            })
        };
        // Odometry that agreed a moment ago and went on smoothly is a witness against the receiver.
        let suspicious =
            self.speed.problem().is_some() && lately(self.last_speed.map(|(at_ns, _)| at_ns));
        // One that changes as a vehicle does may be right: then it is the odometry that is stuck.
        let jumps = self.last_speed.is_none_or(|(at_ns, last_mps)| {
            let since_s = fix.time_ns.saturating_sub(at_ns) as f64 * 1e-9;
            (speed_mps - last_mps).abs() > USUAL_ACCELERATION * since_s + 1.0
        });
        let slowest_mps = if suspicious {
            SLOWEST_SECOND_WITNESS_MPS
        } else {
            SLOWEST_WITNESS_MPS
        };
        let witness_mps = odometer.speed_mps.map(f64::abs);
        let witness_mps = witness_mps.filter(|mps| *mps > slowest_mps);
        let off = witness_mps.is_some_and(|mps| {
            let off_mps = (mps - speed_mps).abs();
            let allowed_mps = match suspicious {
                true if mps < SLOWEST_WITNESS_MPS => 0.6,
                true => 1.2,
                false => 2.5,
            };
            off_mps > allowed_mps && off_mps > 0.25 * mps
        });
        if self.speed_astray >= ASTRAY {
            self.speed
                .contradict(2, "the receiver's speed contradicts its own positions");
            judged.speed_mps = None;
            judged.track_deg = None;
        } else if off && (suspicious || odometer.was_confirmed && jumps) {
            self.speed
                .contradict(2, "the receiver's speed jumps away from the odometry's");
            judged.speed_mps = None;
            judged.track_deg = None;
        } else {
            // Standing still says nothing about a speed that was wrong in motion.
            if !suspicious || witness_mps.is_some_and(|mps| mps > SLOWEST_WITNESS_MPS) {
                self.speed.agree(fix.time_ns, AGREEMENTS);
            }
            self.last_speed = Some((fix.time_ns, speed_mps));
        }
        let Some(track_deg) = judged.track_deg.filter(|deg| deg.is_finite()) else {
            return judged;
        };
        if speed_mps < SLOWEST_MPS {
            judged.track_deg = judged.track_deg.filter(|_| self.course.problem().is_none());
            return judged;
        }
        let course = Heading::from_degrees(track_deg).yaw();
        let suspicious = self.course.problem().is_some() && lately(self.last_course_ns);
        let off = odometer.yaw.is_some_and(|yaw| {
            let off_rad = course.difference_rad(yaw).abs();
            off_rad > if suspicious { 0.5 } else { 1.0 }
        });
        if self.course_astray >= ASTRAY {
            self.course
                .contradict(2, "the receiver's course contradicts its own positions");
            judged.track_deg = None;
        } else if off && (suspicious || odometer.was_confirmed) {
            self.course
                .contradict(2, "the receiver's course jumps away from the vehicle's yaw");
            judged.track_deg = None;
        } else {
            self.course.agree(fix.time_ns, AGREEMENTS);
            self.last_course_ns = Some(fix.time_ns);
        }
        judged
    }

    /// Compares the way between fixes with that by their speeds and courses.
    fn follow_way(&mut self, fix: &GnssFix, speed_mps: f64) {
        if is_null_island(fix) {
            return;
        }
        let course = fix.track_deg.filter(|deg| deg.is_finite());
        // A stop without a course does not take back what was found.
        let (Some(track_deg), true) = (course, fix.position.check().is_ok()) else {
            self.way.clear();
            return;
        };
        if self
            .way
            .back()
            .is_some_and(|last| last.time_ns == fix.time_ns)
        {
            return;
        }
        let (sine, cosine) = Heading::from_degrees(track_deg).yaw().radians().sin_cos();
        let velocity_mps = [speed_mps * cosine, speed_mps * sine];
        let [[ee, _], [_, nn]] = fix.covariance_m2;
        let mut led_m = [0.0; 2];
        if let Some(last) = self.way.back() {
            let step_ns = fix.time_ns.saturating_sub(last.time_ns);
            let step = LocalFrame::new(last.position).enu_from_geodetic(fix.position);
            // A position that jumps is not the speed's fault.
            let jumps = step.east().hypot(step.north()) > LARGEST_STEP_M;
            if (1..=LONGEST_GAP_NS).contains(&step_ns) && !jumps {
                led_m = [0, 1].map(|axis| {
                    let mean_mps = 0.5 * (last.velocity_mps[axis] + velocity_mps[axis]);
                    last.led_m[axis] + mean_mps * step_ns as f64 * 1e-9
                });
            } else {
                self.way.clear();
            }
        }
        let here = WayPoint {
            time_ns: fix.time_ns,
            position: fix.position,
            sigma_m: (0.5 * (ee + nn)).max(0.0).sqrt(),
            velocity_mps,
            led_m,
        };
        self.way.push_back(here);
        while self
            .way
            .front()
            .is_some_and(|old| fix.time_ns - old.time_ns > *WAY_NS.end())
        {
            self.way.pop_front();
        }
        let Some(first) = self.way.front() else {
            return;
        };
        if fix.time_ns - first.time_ns < *WAY_NS.start() {
            return;
        }
        let went = LocalFrame::new(first.position).enu_from_geodetic(here.position);
        let by_motion = [0, 1].map(|axis| here.led_m[axis] - first.led_m[axis]);
        let (went_m, led_m) = (
            went.east().hypot(went.north()),
            by_motion[0].hypot(by_motion[1]),
        );
        let allowed_m =
            WAY_SHARE * went_m.max(led_m) + WAY_SIGMAS * first.sigma_m.hypot(here.sigma_m);
        // Along the chord: its length is the speed's, what lies beside it the course's.
        let along = went.east() * by_motion[0] + went.north() * by_motion[1];
        let across = went.north() * by_motion[0] - went.east() * by_motion[1];
        let turned_rad = across.atan2(along).abs();
        let beside_m = 2.0 * went_m.min(led_m) * (0.5 * turned_rad).sin();
        self.way_factor = led_m / went_m.max(1.0);
        let count = |astray: u32, off: bool| if off { astray + 1 } else { 0 };
        self.speed_astray = count(self.speed_astray, (went_m - led_m).abs() > allowed_m);
        self.course_astray = count(self.course_astray, beside_m > allowed_m);
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
        let mut receiver = ReceiverMotion::new("gnss");
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

    /// Fixes of a drive to the east at 8 m/s, whose speed is scaled and whose course is turned from the first
    /// one on, beside odometry that nobody has confirmed: after how many speed and course are left out.
    fn left_out_after(scale: f64, turned_deg: f64) -> [Option<i64>; 2] {
        let mut receiver = ReceiverMotion::new("gnss");
        let mut first = [None; 2];
        for second in 0..40 {
            // Some metres to and fro, as among houses.
            let wander_m = 4.0 * (second as f64 * 0.7).sin();
            let mut said = fix(second, [8.0 * second as f64 + wander_m, wander_m]);
            (said.speed_mps, said.track_deg) = (Some(8.0 * scale), Some(90.0 + turned_deg));
            let judged = receiver.judge(&said, driving(false));
            for (first, left) in first
                .iter_mut()
                .zip([judged.speed_mps.is_none(), judged.track_deg.is_none()])
            {
                if left {
                    *first = first.or(Some(second));
                }
            }
        }
        first
    }

    #[test]
    fn a_receiver_whose_motion_contradicts_its_own_positions_is_no_reference() {
        for (scale, turned_deg) in [
            (1.944, 0.0),
            (2.237, 0.0),
            (3.6, 0.0),
            (1.0, 180.0),
            (1.0, 90.0),
        ] {
            let [speed, course] = left_out_after(scale, turned_deg);
            let found = if scale == 1.0 { course } else { speed };
            assert!(
                found.is_some_and(|second| second <= 20),
                "{scale} {turned_deg}: {found:?}"
            );
        }
        assert_eq!(left_out_after(1.0, 0.0), [None; 2]);
    }

    #[test]
    fn a_receiver_that_slows_down_as_a_vehicle_does_is_not_blamed_for_a_stuck_odometer() {
        let mut receiver = ReceiverMotion::new("gnss");
        for (second, mps) in [8.0, 8.0, 5.0, 2.0, 0.1].into_iter().enumerate() {
            let mut said = fix(second as i64, [0.0, 0.0]);
            (said.speed_mps, said.track_deg) = (Some(mps), None);
            assert_eq!(receiver.judge(&said, driving(true)).speed_mps, Some(mps));
        }
    }

    #[test]
    fn positions_that_jump_say_nothing_about_the_speed() {
        let mut receiver = ReceiverMotion::new("gnss");
        for second in 0..40 {
            let jump_m = if second < 20 { 0.0 } else { 3000.0 };
            let mut said = fix(second, [8.0 * second as f64 + jump_m, 0.0]);
            if second % 7 == 3 {
                said.position = Geodetic::new(0.0, 0.0, 0.0).unwrap();
            }
            (said.speed_mps, said.track_deg) = (Some(8.0), Some(90.0));
            assert_eq!(receiver.judge(&said, driving(true)).speed_mps, Some(8.0));
        }
    }

    #[test]
    fn dead_odometry_is_no_witness() {
        let mut receiver = ReceiverMotion::new("gnss");
        let mut said = fix(0, [0.0, 0.0]);
        (said.speed_mps, said.track_deg) = (Some(9.0), None);
        let dead = Odometer {
            speed_mps: Some(0.0),
            ..driving(true)
        };
        assert_eq!(receiver.judge(&said, dead).speed_mps, Some(9.0));
    }
}
