//! The last seconds of the dead-reckoned track, for measurements that arrive late.

use std::collections::VecDeque;

use crossfix_calibration::Yaw;

/// Where the track was at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TrackPoint {
    pub(crate) time_ns: i64,
    pub(crate) track_m: [f64; 2],
    pub(crate) yaw: Yaw,
    pub(crate) driven_m: f64,
    pub(crate) yaw_rate_rps: f64,
}

/// A short, time-ordered memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    points: VecDeque<TrackPoint>,
}

impl History {
    /// Adds the newest point, in place of one of the same time, and forgets what is older than
    /// `keep_ns`.
    pub(crate) fn push(&mut self, point: TrackPoint, keep_ns: i64) {
        self.points
            .pop_back_if(|last| last.time_ns >= point.time_ns);
        self.points.push_back(point);
        while self
            .points
            .front()
            .is_some_and(|old| old.time_ns < point.time_ns - keep_ns)
        {
            self.points.pop_front();
        }
    }

    /// The track at `time_ns`, between the two points around it; nothing outside the memory.
    pub(crate) fn at(&self, time_ns: i64) -> Option<TrackPoint> {
        let after = self.points.partition_point(|point| point.time_ns < time_ns);
        let later = *self.points.get(after)?;
        if later.time_ns == time_ns {
            return Some(later);
        }
        let earlier = *self.points.get(after.checked_sub(1)?)?;
        let share = (time_ns - earlier.time_ns) as f64 / (later.time_ns - earlier.time_ns) as f64;
        let between = |from: f64, to: f64| from + share * (to - from);
        Some(TrackPoint {
            time_ns,
            track_m: [0, 1].map(|axis| between(earlier.track_m[axis], later.track_m[axis])),
            yaw: earlier
                .yaw
                .turned(share * later.yaw.difference_rad(earlier.yaw)),
            driven_m: between(earlier.driven_m, later.driven_m),
            yaw_rate_rps: between(earlier.yaw_rate_rps, later.yaw_rate_rps),
        })
    }

    /// Moves everything by `shift_m`: the local frame got another origin.
    pub(crate) fn shift(&mut self, shift_m: [f64; 2]) {
        for point in &mut self.points {
            point.track_m[0] += shift_m[0];
            point.track_m[1] += shift_m[1];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(time_ns: i64, east: f64, yaw_rad: f64) -> TrackPoint {
        TrackPoint {
            time_ns,
            track_m: [east, 0.0],
            yaw: Yaw::new(yaw_rad),
            driven_m: east,
            yaw_rate_rps: 0.0,
        }
    }

    #[test]
    fn between_two_points_the_track_is_straight_and_the_yaw_turns_the_short_way() {
        let mut history = History::default();
        history.push(point(0, 0.0, 3.1), 1000);
        history.push(point(100, 10.0, -3.1), 1000);
        let middle = history.at(50).unwrap();
        assert!((middle.track_m[0] - 5.0).abs() < 1e-12);
        assert!(middle.yaw.radians().abs() > 3.1);
    }

    #[test]
    fn outside_the_memory_there_is_nothing() {
        let mut history = History::default();
        assert_eq!(history.at(0), None);
        for time_ns in (0..=5000).step_by(100) {
            history.push(point(time_ns, time_ns as f64, 0.0), 2000);
        }
        assert_eq!(history.at(2999), None);
        assert!(history.at(3000).is_some() && history.at(5000).is_some());
        assert_eq!(history.at(5001), None);
    }
}
