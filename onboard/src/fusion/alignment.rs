//! The first heading where nothing measures one: the way by odometry is turned onto the way by fixes.
//!
//! Many receivers tell no course (ROS's `NavSatFix` has none), and odometry begins with any direction. The
//! rotation that lays one way onto the other is the two-dimensional case of the orthogonal Procrustes
//! problem: `atan2` of the sums of cross and dot products about the means.

use std::collections::VecDeque;

use super::navigator::Motion;

/// How long the way is kept, nanoseconds: fixes may be this late.
const KEEP_NS: i64 = 3_000_000_000;
/// Fixes that are compared; older ones are forgotten, because a gyro drifts.
const MOST_FIXES: usize = 90;
/// A heading is taken when it is this good, radians.
const GOOD_SIGMA_RAD: f64 = 0.17;
/// It is not believed to be better, radians.
const FLOOR_SIGMA_RAD: f64 = 0.03;
/// Way by fixes over way by odometry, when both are of one drive.
const SCALES: std::ops::Range<f64> = 0.7..1.4;

/// Both ways so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Alignment {
    /// By odometry, in a frame of any direction: time and place in metres.
    way: VecDeque<(i64, [f64; 2])>,
    /// Places of fixes, east and north, and those of the way at the same times, metres.
    pairs: VecDeque<([f64; 2], [f64; 2])>,
}

impl Alignment {
    /// The vehicle moved for `dt_s` until `time_ns`, in the middle with this yaw.
    pub(super) fn step(&mut self, time_ns: i64, dt_s: f64, motion: Motion, yaw_rad: f64) {
        if !motion.lasting_speed || !motion.lasting_yaw_rate {
            *self = Self::default();
            return;
        }
        let (sine, cosine) = yaw_rad.sin_cos();
        let forward_m = motion.speed_mps * dt_s;
        let [x, y] = self.way.back().map_or([0.0, 0.0], |(_, place)| *place);
        let place = [x + forward_m * cosine, y + forward_m * sine];
        self.way.push_back((time_ns, place));
        while let Some((old_ns, _)) = self.way.front()
            && *old_ns < time_ns - KEEP_NS
        {
            self.way.pop_front();
        }
    }

    /// A fix, east and north in metres, with its 1-sigma error. Returns by how much the way has to be
    /// turned, and the 1-sigma error of that, once the way is long enough to tell.
    pub(super) fn fix(
        &mut self,
        time_ns: i64,
        fix_m: [f64; 2],
        sigma_m: f64,
    ) -> Option<(f64, f64)> {
        let way_m = self.at(time_ns)?;
        self.pairs.push_back((fix_m, way_m));
        if self.pairs.len() > MOST_FIXES {
            self.pairs.pop_front();
        }
        let count = self.pairs.len() as f64;
        let mut mean = ([0.0; 2], [0.0; 2]);
        for (fix, way) in &self.pairs {
            for axis in 0..2 {
                mean.0[axis] += fix[axis] / count;
                mean.1[axis] += way[axis] / count;
            }
        }
        let (mut dot, mut cross, mut square, mut radius_m) = (0.0, 0.0, 0.0, 0.0_f64);
        for (fix, way) in &self.pairs {
            let (e, n) = (fix[0] - mean.0[0], fix[1] - mean.0[1]);
            let (x, y) = (way[0] - mean.1[0], way[1] - mean.1[1]);
            dot += x * e + y * n;
            cross += x * n - y * e;
            square += x * x + y * y;
            radius_m = radius_m.max(x.hypot(y));
        }
        // The errors of fixes last, so they count as if there were one at each end.
        let sigma_rad = (sigma_m / (2.0_f64.sqrt() * radius_m)).max(FLOOR_SIGMA_RAD);
        let scale = dot.hypot(cross) / square;
        (sigma_rad <= GOOD_SIGMA_RAD && SCALES.contains(&scale))
            .then(|| (cross.atan2(dot), sigma_rad))
    }

    /// The place on the way at this time.
    fn at(&self, time_ns: i64) -> Option<[f64; 2]> {
        let after = self.way.iter().position(|(at_ns, _)| *at_ns >= time_ns)?;
        let (later_ns, later) = self.way[after];
        if later_ns == time_ns {
            return Some(later);
        }
        let (before_ns, before) = *self.way.get(after.checked_sub(1)?)?;
        let share = (time_ns - before_ns) as f64 / (later_ns - before_ns) as f64;
        Some([0, 1].map(|axis| before[axis] + share * (later[axis] - before[axis])))
    }
}

#[cfg(test)]
mod tests {
    use crate::event::GnssFix;
    use crate::fusion::tests_support::{fix, sample};
    use crate::fusion::{Fusion, FusionConfig, Unused};

    /// A vehicle that begins at this yaw and turns to the left by 0.05 rad/s; fixes of this sigma without
    /// course, `late_ms` after their time. Returns its yaw by the fusion and by the truth, when known.
    fn drive(
        start_rad: f64,
        speed_mps: f64,
        sigma_m: f64,
        late_ms: i64,
    ) -> Option<(f64, f64, i64)> {
        let mut fusion = Fusion::new(FusionConfig::default(), 0.0);
        let (mut place, mut yaw) = ([0.0, 0.0], start_rad);
        let mut waiting: Vec<(i64, GnssFix)> = vec![(0, fix(0, place))];
        for tenth in 1..600_i64 {
            let time_ms = tenth * 100;
            let middle = yaw + 0.0025;
            place[0] += 0.1 * speed_mps * middle.cos();
            place[1] += 0.1 * speed_mps * middle.sin();
            yaw += 0.005;
            let mut odometry = sample(tenth, speed_mps, 0.05, 0.0);
            odometry.yaw = None;
            if tenth % 10 == 0 {
                // The receiver's error goes round once in about a minute.
                let error = (tenth as f64 * 0.01).sin_cos();
                let mut measured = fix(
                    tenth / 10,
                    [place[0] + sigma_m * error.0, place[1] + sigma_m * error.1],
                );
                measured.covariance_m2 = [[sigma_m.powi(2), 0.0], [0.0, sigma_m.powi(2)]];
                waiting.push((time_ms + late_ms, measured));
            }
            while waiting.first().is_some_and(|(at_ms, _)| *at_ms <= time_ms) {
                let (_, measured) = waiting.remove(0);
                let _ = fusion.on_gnss(&"gnss".into(), &measured);
            }
            let _ = fusion.on_odometry(&odometry);
            fusion.look_ahead((time_ms + 50) * 1_000_000);
            if fusion.wants_frame(time_ms * 1_000_000) != Err(Unused::NoHeading)
                && let Ok(pose) = fusion.wants_frame(time_ms * 1_000_000)
            {
                return Some((pose.yaw.radians(), yaw, tenth));
            }
        }
        None
    }

    #[test]
    fn fixes_without_course_and_odometry_make_a_heading() {
        for (start_rad, speed_mps, late_ms) in [
            (0.0, 8.0, 0),
            (2.0, 8.0, 0),
            (-2.5, 3.0, 300),
            (1.0, -2.0, 150), // backwards out of a parking space
        ] {
            let (found, truth, tenth) = drive(start_rad, speed_mps, 2.0, late_ms).unwrap();
            let off = (found - truth).sin().atan2((found - truth).cos()).abs();
            assert!(off < 0.25, "{start_rad} at {speed_mps} m/s: {off} rad");
            assert!(tenth < 350, "after {tenth} tenths of a second");
        }
    }

    #[test]
    fn a_vehicle_that_stands_has_no_heading() {
        assert_eq!(drive(1.0, 0.0, 2.0, 0), None);
        assert_eq!(drive(1.0, 0.05, 8.0, 0), None);
    }
}
