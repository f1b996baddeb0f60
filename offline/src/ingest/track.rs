//! Where a vehicle was while its pictures were taken: fixes, odometry and headings of one recording, asked at
//! any time.

use crate::data::OdometryStep;
use crossfix_calibration::{Geodetic, LocalFrame, Yaw};
use crossfix_onboard::event::{GnssFix, OdometrySample, YawMeasurement};

const SECOND_NS: f64 = 1e9;
/// Fixes further apart than this have nothing between them.
const FIX_GAP_S: f64 = 2.5;
/// Odometry further apart than this is missing in between.
const ODOMETRY_GAP_S: f64 = 1.0;
/// A heading of that age still holds.
const HEADING_AGE_S: f64 = 0.6;
/// Vehicles that are slower than this have no course, m/s.
const COURSE_SPEED_MPS: f64 = 3.0;
/// 1-sigma of a course as a heading, degrees: slip, lever arm and the receiver's own delay.
const COURSE_SIGMA_DEG: f64 = 6.0;

/// One recording's fixes, odometry and headings, each in the order of time.
#[derive(Debug, Clone, Default)]
pub struct Track {
    fixes: Vec<GnssFix>,
    /// Forward speeds, m/s.
    speeds: Vec<(i64, f64)>,
    /// Yaw rates, rad/s counter-clockwise.
    rates: Vec<(i64, f64)>,
    /// Headings that the daemon worked out, and those that odometry measured.
    headings: [Vec<(i64, YawMeasurement)>; 2],
}

/// Where and how a vehicle stood at one time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Placed {
    /// Position of the receiver's antenna.
    pub position: Geodetic,
    /// Its covariance, east and north.
    pub covariance_m2: [[f64; 2]; 2],
    /// The vehicle's yaw, where anything said it.
    pub yaw: Option<YawMeasurement>,
}

impl Track {
    /// A track of these; sorts them. `headings` are better than those of odometry.
    pub fn new(
        mut fixes: Vec<GnssFix>,
        mut odometry: Vec<OdometrySample>,
        mut headings: Vec<(i64, YawMeasurement)>,
    ) -> Self {
        fixes.sort_by_key(|fix| fix.time_ns);
        fixes.dedup_by_key(|fix| fix.time_ns);
        odometry.sort_by_key(|sample| sample.time_ns);
        headings.sort_by_key(|(time_ns, _)| *time_ns);
        let series = |pick: fn(&OdometrySample) -> Option<f64>| {
            let mut values: Vec<(i64, f64)> = odometry
                .iter()
                .filter_map(|sample| Some((sample.time_ns, pick(sample)?)))
                .collect();
            values.dedup_by_key(|(time_ns, _)| *time_ns);
            values
        };
        let measured = odometry
            .iter()
            .filter_map(|sample| Some((sample.time_ns, sample.yaw?)));
        Self {
            speeds: series(|sample| sample.forward_speed_mps),
            rates: series(|sample| sample.yaw_rate_rps),
            headings: [headings, measured.collect()],
            fixes,
        }
    }

    /// Fixes in it.
    pub fn fixes(&self) -> &[GnssFix] {
        &self.fixes
    }

    /// The place at a time: between the fixes around it, which must be near; nothing elsewhere.
    pub fn at(&self, time_ns: i64) -> Option<Placed> {
        let after = self.fixes.partition_point(|fix| fix.time_ns < time_ns);
        let next = self.fixes.get(after);
        if let Some(fix) = next.filter(|fix| fix.time_ns == time_ns) {
            return Some(self.placed(time_ns, fix.position, fix.covariance_m2));
        }
        let before = &self.fixes[after.checked_sub(1)?];
        let next = next?;
        let gap = (next.time_ns - before.time_ns) as f64;
        if gap > FIX_GAP_S * SECOND_NS {
            return None;
        }
        let share = (time_ns - before.time_ns) as f64 / gap;
        let mix = |a: f64, b: f64| a + (b - a) * share;
        // The short way, over the antimeridian too.
        let east_deg = next.position.longitude_deg - before.position.longitude_deg;
        let east_deg = (east_deg + 540.0).rem_euclid(360.0) - 180.0;
        let longitude_deg = before.position.longitude_deg + share * east_deg;
        let position = Geodetic {
            latitude_deg: mix(before.position.latitude_deg, next.position.latitude_deg),
            longitude_deg: (longitude_deg + 540.0).rem_euclid(360.0) - 180.0,
            height_m: mix(before.position.height_m, next.position.height_m),
        };
        // Errors of neighbouring fixes are nearly the same, so the mean is no better than they are.
        let covariance_m2 = [0, 1]
            .map(|i| [0, 1].map(|j| mix(before.covariance_m2[i][j], next.covariance_m2[i][j])));
        Some(self.placed(time_ns, position, covariance_m2))
    }

    fn placed(&self, time_ns: i64, position: Geodetic, covariance_m2: [[f64; 2]; 2]) -> Placed {
        Placed {
            position,
            covariance_m2,
            yaw: self.yaw_at(time_ns),
        }
    }

    /// The measured heading nearest in time, moved on by the yaw rate; or else the course of a vehicle that
    /// drives forward.
    fn yaw_at(&self, time_ns: i64) -> Option<YawMeasurement> {
        let measured = self.headings.iter().find_map(|headings| {
            let after = headings.partition_point(|(at_ns, _)| *at_ns < time_ns);
            let around = after.saturating_sub(1)..headings.len().min(after + 1);
            let age = |at_ns: i64| (at_ns - time_ns).abs();
            let nearest = headings[around]
                .iter()
                .min_by_key(|(at_ns, _)| age(*at_ns))?;
            (age(nearest.0) as f64 <= HEADING_AGE_S * SECOND_NS).then_some(*nearest)
        });
        let (at_ns, measured) = match measured {
            Some(measured) => measured,
            None => (time_ns, self.course_at(time_ns)?),
        };
        let rate = value_at(&self.rates, time_ns).unwrap_or(0.0);
        let seconds = (time_ns - at_ns) as f64 / SECOND_NS;
        Some(YawMeasurement {
            yaw: Yaw::new(measured.yaw.radians() + rate * seconds),
            ..measured
        })
    }

    /// The course over ground, from the receiver or from the fixes before and after.
    fn course_at(&self, time_ns: i64) -> Option<YawMeasurement> {
        if value_at(&self.speeds, time_ns).is_some_and(|speed| speed < 0.5) {
            return None;
        }
        let after = self.fixes.partition_point(|fix| fix.time_ns < time_ns);
        let first = after.saturating_sub(1);
        let around = &self.fixes[first..self.fixes.len().min(first + 2)];
        let nearest = around
            .iter()
            .min_by_key(|fix| (fix.time_ns - time_ns).abs())?;
        let fast = nearest
            .speed_mps
            .is_some_and(|speed| speed >= COURSE_SPEED_MPS);
        if let Some(track_deg) = nearest.track_deg.filter(|_| fast) {
            return Some(YawMeasurement::from_heading_deg(
                track_deg,
                COURSE_SIGMA_DEG,
            ));
        }
        let (first, last) = (around.first()?, around.last()?);
        let seconds = (last.time_ns - first.time_ns) as f64 / SECOND_NS;
        let enu = LocalFrame::new(first.position).enu_from_geodetic(last.position);
        let metres = enu.east().hypot(enu.north());
        let near = seconds > 0.0 && seconds <= FIX_GAP_S;
        let known = near && metres / seconds >= COURSE_SPEED_MPS;
        // The error of the difference of two fixes across the way that they are apart.
        let noise = (nearest.covariance_m2[0][0] + nearest.covariance_m2[1][1]).sqrt() / 2.0;
        let sigma_rad = COURSE_SIGMA_DEG.to_radians().hypot(noise / metres);
        known.then(|| YawMeasurement {
            yaw: Yaw::new(enu.north().atan2(enu.east())),
            sigma_rad,
        })
    }

    /// The movement from one time to a later one, in the vehicle's frame at the first; nothing where odometry is
    /// missing in between.
    pub fn step(&self, from_ns: i64, to_ns: i64) -> Option<OdometryStep> {
        let inside = |values: &[(i64, f64)]| -> Vec<i64> {
            let times = values.iter().map(|(time_ns, _)| *time_ns);
            let first = values.partition_point(|(time_ns, _)| *time_ns <= from_ns);
            times
                .skip(first)
                .take_while(|time_ns| *time_ns < to_ns)
                .collect()
        };
        let mut times = inside(&self.speeds);
        times.extend(inside(&self.rates));
        times.extend([from_ns, to_ns]);
        times.sort_unstable();
        times.dedup();
        let mut sum = OdometryStep {
            forward_m: 0.0,
            left_m: 0.0,
            yaw_rad: 0.0,
        };
        for pair in times.windows(2) {
            let middle = i64::midpoint(pair[0], pair[1]);
            let seconds = (pair[1] - pair[0]) as f64 / SECOND_NS;
            let forward_m = value_at(&self.speeds, middle)? * seconds;
            let yaw_rad = value_at(&self.rates, middle)? * seconds;
            // Along the chord of an arc.
            let (left, along) = (0.5 * yaw_rad).sin_cos();
            sum = sum.then(OdometryStep {
                forward_m: forward_m * along,
                left_m: forward_m * left,
                yaw_rad,
            });
        }
        Some(sum)
    }

    /// Metres travelled from one time to a later one, by odometry or else by the fixes.
    pub fn travelled_m(&self, from_ns: i64, to_ns: i64) -> Option<f64> {
        if let Some(step) = self.step(from_ns, to_ns) {
            return Some(step.forward_m.hypot(step.left_m));
        }
        let (from, to) = (self.at(from_ns)?, self.at(to_ns)?);
        let enu = LocalFrame::new(from.position).enu_from_geodetic(to.position);
        Some(enu.east().hypot(enu.north()))
    }
}

/// The value of a series at a time, between the two around it, which must be near.
fn value_at(values: &[(i64, f64)], time_ns: i64) -> Option<f64> {
    let after = values.partition_point(|(at_ns, _)| *at_ns < time_ns);
    let (next_ns, next) = *values.get(after)?;
    if next_ns == time_ns {
        return Some(next);
    }
    let (before_ns, before) = values[after.checked_sub(1)?];
    let gap = (next_ns - before_ns) as f64;
    let share = (time_ns - before_ns) as f64 / gap;
    (gap <= ODOMETRY_GAP_S * SECOND_NS).then_some(before + (next - before) * share)
}

/// Degrees clockwise from north of a yaw, in [0, 360).
pub fn heading_deg(yaw: Yaw) -> f64 {
    yaw.heading().degrees()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossfix_onboard::event::{CovarianceRule, FixDimension, Reception};

    const T0: i64 = 1_700_000_000_000_000_000;

    fn fix(seconds: f64, east_m: f64) -> GnssFix {
        let origin = Geodetic::new(52.0, 4.0, 0.0).unwrap();
        let enu = crossfix_calibration::Enu::new(east_m, 0.0, 0.0);
        GnssFix {
            time_ns: T0 + (seconds * SECOND_NS) as i64,
            position: LocalFrame::new(origin).geodetic_from_enu(enu),
            covariance_m2: [[4.0, 0.0], [0.0, 9.0]],
            height_sigma_m: 9.0,
            covariance_rule: CovarianceRule::Gst,
            speed_mps: None,
            track_deg: None,
            dimension: FixDimension::Three,
            reception: Reception::default(),
        }
    }

    fn odometry(seconds: f64, speed: f64, rate: f64) -> OdometrySample {
        OdometrySample {
            time_ns: T0 + (seconds * SECOND_NS) as i64,
            forward_speed_mps: Some(speed),
            yaw_rate_rps: Some(rate),
            yaw: None,
            speed_sigma_mps: 0.1,
            yaw_rate_sigma_rps: 0.01,
        }
    }

    fn at(seconds: f64) -> i64 {
        T0 + (seconds * SECOND_NS) as i64
    }

    #[test]
    fn a_place_lies_between_its_fixes_and_nowhere_in_a_gap() {
        let fixes = vec![fix(0.0, 0.0), fix(1.0, 10.0), fix(9.0, 90.0)];
        let track = Track::new(fixes, Vec::new(), Vec::new());
        let placed = track.at(at(0.5)).unwrap();
        assert!((track.travelled_m(at(0.0), at(0.5)).unwrap() - 5.0).abs() < 1e-6);
        assert_eq!(placed.covariance_m2, [[4.0, 0.0], [0.0, 9.0]]);
        // East at 10 m/s: the course is the heading, less sure than a measured one.
        let yaw = placed.yaw.unwrap();
        assert!((heading_deg(yaw.yaw) - 90.0).abs() < 1e-6);
        assert!(yaw.sigma_rad > COURSE_SIGMA_DEG.to_radians());
        assert!(track.at(at(4.0)).is_none() && track.at(at(-0.1)).is_none());
        assert!(track.at(at(9.0)).is_some(), "a fix of that very time");
    }

    #[test]
    fn a_place_between_two_fixes_lies_on_the_antimeridian_with_them() {
        let at_longitude = |seconds, longitude_deg| {
            let mut fix = fix(seconds, 0.0);
            fix.position.longitude_deg = longitude_deg;
            fix
        };
        let fixes = vec![at_longitude(0.0, 179.9999), at_longitude(1.0, -179.9997)];
        let track = Track::new(fixes, Vec::new(), Vec::new());
        let placed = track.at(at(0.25)).unwrap();
        assert!(
            (placed.position.longitude_deg.abs() - 180.0).abs() < 1e-9,
            "{placed:?}"
        );
        let placed = track.at(at(0.5)).unwrap();
        assert!(
            (placed.position.longitude_deg + 179.9999).abs() < 1e-9,
            "{placed:?}"
        );
    }

    #[test]
    fn a_vehicle_that_reverses_has_no_course() {
        let fixes = vec![fix(0.0, 0.0), fix(1.0, 5.0), fix(2.0, 10.0)];
        let back = (0..30)
            .map(|i| odometry(f64::from(i) * 0.1, -5.0, 0.0))
            .collect();
        let track = Track::new(fixes, back, Vec::new());
        assert_eq!(track.at(at(1.0)).unwrap().yaw, None);
    }

    #[test]
    fn speed_and_yaw_rate_may_come_from_different_sources() {
        let both = (0..200).map(|i| odometry(f64::from(i) * 0.01, 10.0, 1.0));
        let apart = both.clone().enumerate().map(|(index, mut sample)| {
            if index % 3 == 0 {
                sample.yaw_rate_rps = None;
            } else {
                sample.forward_speed_mps = None;
            }
            sample
        });
        let track = |samples: Vec<OdometrySample>| Track::new(Vec::new(), samples, Vec::new());
        let (both, apart) = (track(both.collect()), track(apart.collect()));
        let [a, b] = [both, apart].map(|track| track.step(at(0.1), at(1.5)).unwrap());
        assert!((a.forward_m - b.forward_m).abs() < 1e-3 && (a.left_m - b.left_m).abs() < 1e-3);
    }

    #[test]
    fn a_quarter_of_a_circle_is_one_step() {
        // 10 m/s at 1 rad/s for a quarter turn: radius 10 m.
        let quarter = std::f64::consts::FRAC_PI_2;
        let samples = (0..200)
            .map(|i| odometry(f64::from(i) * 0.01, 10.0, 1.0))
            .collect();
        let track = Track::new(Vec::new(), samples, Vec::new());
        let step = track.step(at(0.003), at(0.003 + quarter)).unwrap();
        for (got, expected) in [
            (step.forward_m, 10.0),
            (step.left_m, 10.0),
            (step.yaw_rad, quarter),
        ] {
            assert!((got - expected).abs() < 1e-3, "{step:?}");
        }
        assert_eq!(track.step(at(0.5), at(3.0)), None, "odometry ends before");
        assert_eq!(track.step(at(-0.5), at(1.0)), None, "and begins after");
    }
}
