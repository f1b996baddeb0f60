//! Odometry from GNSS speed and course, for vehicles that give us nothing better.

use crate::config::OdometryConfig;
use crate::event::{GnssFix, Heading, OdometrySample, wrap_rad, yaw_rad_from_heading_deg};

/// 1-sigma of a yaw rate that is not known, rad/s: a brisk turn.
const UNKNOWN_YAW_RATE_SIGMA_RPS: f64 = 0.3;
/// Courses further apart than this say nothing about the yaw rate between them.
const MAX_COURSE_GAP_S: f64 = 2.5;

/// Makes odometry of GNSS fixes while no other odometry arrives.
#[derive(Debug)]
pub struct GnssOdometry {
    config: OdometryConfig,
    other_ns: Option<i64>,
    last_course: Option<(i64, f64)>, // time and yaw
}

impl GnssOdometry {
    /// Starts without any history.
    pub fn new(config: &OdometryConfig) -> Self {
        Self {
            config: config.clone(),
            other_ns: None,
            last_course: None,
        }
    }

    /// Notes that the vehicle's own odometry is alive.
    pub fn saw_odometry(&mut self, time_ns: i64) {
        self.other_ns = Some(time_ns);
    }

    /// The sample that the fix stands in for, if it has to.
    ///
    /// Course is taken as heading: right for a vehicle that drives forward without slip.
    pub fn sample(&mut self, fix: &GnssFix) -> Option<OdometrySample> {
        let timeout_ns = (self.config.other_timeout_s * 1e9) as i64;
        let other_is_alive = self.other_ns.is_some_and(|other_ns| {
            fix.time_ns.saturating_sub(other_ns).saturating_abs() <= timeout_ns
        });
        if !self.config.from_gnss || other_is_alive {
            self.last_course = None;
            return None;
        }
        let speed_mps = fix.speed_mps?;
        let speed_sigma_mps = self.config.gnss_speed_sigma_mps;
        let course = fix
            .track_deg
            .filter(|_| speed_mps >= self.config.min_course_speed_mps.max(1e-3));
        let heading = course.map(|track_deg| Heading {
            yaw_rad: yaw_rad_from_heading_deg(track_deg),
            sigma_rad: speed_sigma_mps.atan2(speed_mps),
        });
        let (yaw_rate_rps, yaw_rate_sigma_rps) = match (heading, self.last_course) {
            (Some(heading), Some((last_ns, last_yaw_rad))) => {
                let gap_s = fix.time_ns.saturating_sub(last_ns) as f64 * 1e-9;
                if gap_s > 0.0 && gap_s <= MAX_COURSE_GAP_S {
                    let rate_rps = wrap_rad(heading.yaw_rad - last_yaw_rad) / gap_s;
                    (
                        rate_rps,
                        (heading.sigma_rad * std::f64::consts::SQRT_2 / gap_s)
                            .min(UNKNOWN_YAW_RATE_SIGMA_RPS),
                    )
                } else {
                    (0.0, UNKNOWN_YAW_RATE_SIGMA_RPS)
                }
            }
            // A vehicle that barely moves barely turns.
            (None, _) => (
                0.0,
                UNKNOWN_YAW_RATE_SIGMA_RPS * (speed_mps / 5.0).clamp(0.05, 1.0),
            ),
            (Some(_), None) => (0.0, UNKNOWN_YAW_RATE_SIGMA_RPS),
        };
        self.last_course = heading.map(|heading| (fix.time_ns, heading.yaw_rad));
        Some(OdometrySample {
            time_ns: fix.time_ns,
            forward_speed_mps: speed_mps,
            yaw_rate_rps,
            heading,
            speed_sigma_mps,
            yaw_rate_sigma_rps,
        })
    }
}

#[cfg(test)]
mod tests {
    use crossfix_calibration::Geodetic;

    use super::*;
    use crate::event::{CovarianceRule, FixDimension};

    fn fix(time_s: i64, speed_mps: f64, track_deg: f64) -> GnssFix {
        GnssFix {
            time_ns: time_s * 1_000_000_000,
            position: Geodetic::new(52.0, 4.0, 0.0).unwrap(),
            covariance_m2: [[1.0, 0.0], [0.0, 1.0]],
            height_sigma_m: 1.0,
            covariance_rule: CovarianceRule::Default,
            speed_mps: Some(speed_mps),
            track_deg: Some(track_deg),
            dimension: FixDimension::Three,
        }
    }

    #[test]
    fn turning_right_through_north_is_a_negative_yaw_rate() {
        let mut odometry = GnssOdometry::new(&OdometryConfig::default());
        odometry.sample(&fix(0, 10.0, 355.0)).unwrap();
        let sample = odometry.sample(&fix(1, 10.0, 5.0)).unwrap();
        assert!((sample.yaw_rate_rps + 10f64.to_radians()).abs() < 1e-9);
        assert!((sample.heading.unwrap().yaw_rad - 85f64.to_radians()).abs() < 1e-9);
    }

    #[test]
    fn a_parked_vehicle_has_no_course() {
        let mut odometry = GnssOdometry::new(&OdometryConfig::default());
        assert_eq!(odometry.sample(&fix(0, 0.2, 123.0)).unwrap().heading, None);
    }

    #[test]
    fn real_odometry_silences_the_substitute_until_it_dies() {
        let mut odometry = GnssOdometry::new(&OdometryConfig::default());
        odometry.saw_odometry(9_900_000_000);
        assert_eq!(odometry.sample(&fix(10, 10.0, 0.0)), None);
        assert!(odometry.sample(&fix(12, 10.0, 0.0)).is_some());
    }
}
