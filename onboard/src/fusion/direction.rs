//! Forwards or backwards, where a receiver alone says how the vehicle moves: its course turns round both
//! when the vehicle does and when it reverses.
//!
//! A road vehicle does not turn round within a stop, so a course that points backwards after one is taken
//! for reverse gear: the heading stays. It was a turn after all when the vehicle gets faster or goes further
//! than vehicles do in reverse. Until then the heading may be the opposite one, which its sigma says.

use std::f64::consts::PI;

use crossfix_calibration::Yaw;

use super::motion::GnssMotion;

/// A course further than this from the heading points backwards, radians.
const BACKWARDS_RAD: f64 = 120.0 * PI / 180.0;
/// Nobody turns this far between two fixes, radians.
const NO_TURN_RAD: f64 = 150.0 * PI / 180.0;
/// Fixes further apart than this leave time to turn round, seconds.
const NO_TURN_S: f64 = 2.5;
/// Vehicles turn round slower than this without stopping in between, m/s.
const SLOW_MPS: f64 = 5.0;
/// Faster than this is not reverse gear, m/s.
const FASTEST_REVERSE_MPS: f64 = 7.0;
/// Further than this is not driven in reverse, metres.
const LONGEST_REVERSE_M: f64 = 60.0;
/// A heading that is known worse than this says nothing of reversing, radians.
const DOUBTFUL_HEADING_RAD: f64 = 60.0 * PI / 180.0;
/// 1-sigma of a heading that is the opposite one in one case of ten, radians: π times the root of 0.1.
pub(super) const ASSUMED_SIGMA_RAD: f64 = 0.993;

/// What the receiver's courses amount to so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Direction {
    /// Stood since the last course.
    stood: bool,
    /// Taken for reverse gear.
    reversing: bool,
    /// In reverse, metres.
    driven_m: f64,
}

impl Direction {
    /// Follows the receiver; `heading` is the vehicle's, with its 1-sigma in radians.
    pub(super) fn follow(
        &mut self,
        before: Option<&GnssMotion>,
        now: &GnssMotion,
        heading: Option<(Yaw, f64)>,
    ) {
        let Some(speed_mps) = now.speed_mps else {
            return;
        };
        let Some(course) = now.course else {
            self.stood = true;
            return;
        };
        let gap_s = before.map_or(f64::INFINITY, |before| {
            (now.time_ns - before.time_ns) as f64 * 1e-9
        });
        let turned_at_once = before.is_some_and(|before| {
            let slow = |motion: &GnssMotion| motion.speed_mps.is_some_and(|mps| mps < SLOW_MPS);
            let turned = before.course.map(|old| course.difference_rad(old).abs());
            turned.is_some_and(|turned| turned > NO_TURN_RAD)
                && gap_s < NO_TURN_S
                && slow(before)
                && slow(now)
        });
        if self.stood || turned_at_once {
            let known = heading.filter(|(_, sigma_rad)| *sigma_rad < DOUBTFUL_HEADING_RAD);
            self.reversing =
                known.is_some_and(|(yaw, _)| course.difference_rad(yaw).abs() > BACKWARDS_RAD);
            self.driven_m = 0.0;
            self.stood = false;
        } else if gap_s.is_finite() {
            self.driven_m += speed_mps * gap_s;
        }
        if speed_mps > FASTEST_REVERSE_MPS || self.driven_m > LONGEST_REVERSE_M {
            self.reversing = false;
        }
    }

    /// Whether the vehicle is taken to be driving backwards.
    pub(super) fn is_reversing(&self) -> bool {
        self.reversing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::GnssFix;
    use crate::fusion::tests_support::fix;
    use crate::fusion::{Fusion, FusionConfig};
    use crossfix_calibration::Heading;

    fn motion(second: i64, speed_mps: f64, course_deg: f64) -> GnssMotion {
        GnssMotion {
            time_ns: second * 1_000_000_000,
            speed_mps: Some(speed_mps),
            course: (speed_mps > 2.0).then(|| Heading::from_degrees(course_deg).yaw()),
            yaw_rate_rps: 0.0,
        }
    }

    /// Follows (speed, course) at 1 Hz with a vehicle that points east; whether it reverses after each.
    fn follow(steps: &[(f64, f64)]) -> Vec<bool> {
        let east = Heading::from_degrees(90.0).yaw();
        let mut direction = Direction::default();
        let mut before: Option<GnssMotion> = None;
        let each = |(second, (speed, course)): (usize, &(f64, f64))| {
            let now = motion(second as i64, *speed, *course);
            direction.follow(before.as_ref(), &now, Some((east, 0.1)));
            before = Some(now);
            direction.is_reversing()
        };
        steps.iter().enumerate().map(each).collect()
    }

    #[test]
    fn a_course_that_points_back_after_a_stop_is_reverse_gear_until_the_next_stop() {
        let found = follow(&[
            (6.0, 90.0),
            (0.0, 0.0),
            (3.0, 268.0),
            (3.0, 270.0),
            (0.0, 0.0),
            (4.0, 92.0),
        ]);
        assert_eq!(found, [false, false, true, true, true, false]);
    }

    #[test]
    fn also_where_the_stop_lies_between_two_fixes() {
        assert_eq!(follow(&[(2.5, 90.0), (2.5, 270.0)]), [false, true]);
        // A turn takes longer, and goes through other courses.
        let turn = [(4.0, 90.0), (4.0, 150.0), (4.0, 210.0), (4.0, 270.0)];
        assert_eq!(follow(&turn), [false; 4]);
    }

    #[test]
    fn fast_or_far_was_a_turn_after_all() {
        let fast = follow(&[
            (6.0, 90.0),
            (0.0, 0.0),
            (3.0, 270.0),
            (8.0, 270.0),
            (3.0, 270.0),
        ]);
        assert_eq!(fast, [false, false, true, false, false]);
        let mut far = vec![(6.0, 90.0), (0.0, 0.0)];
        far.extend([(5.0, 270.0); 15]);
        let far = follow(&far);
        assert!(far[2..14].iter().all(|reversing| *reversing) && !far[16]);
    }

    #[test]
    fn a_turn_by_less_than_a_half_is_none_and_so_is_an_unknown_heading() {
        assert_eq!(follow(&[(6.0, 90.0), (0.0, 0.0), (3.0, 180.0)]), [false; 3]);
        let mut direction = Direction::default();
        direction.follow(None, &motion(0, 0.0, 0.0), None);
        direction.follow(None, &motion(1, 3.0, 270.0), None);
        assert!(!direction.is_reversing());
    }

    /// East at 6 m/s, a stop, back at 3 m/s, a stop, and east again, with fixes alone.
    #[test]
    fn a_vehicle_that_reverses_keeps_its_heading_with_a_wide_sigma_and_without_a_reset() {
        let mut fusion = Fusion::new(FusionConfig::default(), 0.5);
        let mut east_m = 0.0;
        for second in 0..45 {
            let speed_mps: f64 = match second {
                0..15 => 6.0,
                15..20 | 30..33 => 0.0,
                20..30 => -3.0,
                _ => 6.0,
            };
            let fix = GnssFix {
                speed_mps: Some(speed_mps.abs()),
                track_deg: (speed_mps != 0.0).then_some(if speed_mps > 0.0 { 90.0 } else { 270.0 }),
                ..fix(second, [east_m, 0.0])
            };
            // What stands still repeats itself; those are refused.
            let _ = fusion.on_gnss(&"gnss".into(), &fix);
            east_m += speed_mps;
            let estimates = fusion.estimates(None);
            let fused = &estimates[0];
            assert_eq!(fused.reset_count, 0, "at {second} s");
            let off_rad = fused.yaw.difference_rad(Heading::from_degrees(90.0).yaw());
            assert!(off_rad.abs() < 0.3, "{off_rad} at {second} s");
            if (21..30).contains(&second) {
                assert!(fused.yaw_sigma_rad > 0.9, "at {second} s");
                assert!(fused.speed_mps < 0.0, "at {second} s");
            }
        }
    }
}
