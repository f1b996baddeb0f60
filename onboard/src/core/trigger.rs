//! Which frames are matched: all that would be used, or those alone that the position needs; and with which
//! part of the patch.

use crossfix_calibration::LocalFrame;

use crate::config::MatchingConfig;
use crate::fusion::{FusionConfig, Pose};

/// Share of the fusion's timeout, after which the camera no longer contributes, that frames may be skipped.
const SHARE_OF_TIMEOUT: f64 = 0.7;

/// Decides from the predicted uncertainty whether a frame is matched.
#[derive(Debug)]
pub(super) struct MatchTrigger {
    config: MatchingConfig,
    longest_gap_ns: i64,
    /// The latest frame that was matched: its time, and what was driven since, metres.
    last: Option<(i64, f64)>,
    /// Pose of the latest frame, matched or not.
    pose: Option<Pose>,
    /// Frames matched in a row with a part of the patch.
    windowed: u32,
}

impl MatchTrigger {
    pub(super) fn new(config: MatchingConfig, fusion: &FusionConfig) -> Self {
        Self {
            config,
            longest_gap_ns: (SHARE_OF_TIMEOUT * fusion.visual_timeout_s * 1e9) as i64,
            last: None,
            pose: None,
            windowed: 0,
        }
    }

    /// Whether to match a frame of this time for a vehicle that is predicted to be there. `is_ok`: the
    /// sources agree, as far as is known; where they don't, every frame is needed.
    pub(super) fn fires(&mut self, time_ns: i64, pose: &Pose, is_ok: bool) -> bool {
        if self.config.predicted_sigma_m <= 0.0 {
            return true;
        }
        let before = self.pose.replace(*pose);
        let Some((last_ns, driven_m)) = &mut self.last else {
            return true;
        };
        *driven_m += before.map_or(0.0, |before| {
            let moved = LocalFrame::new(before.position).enu_from_geodetic(pose.position);
            moved.east().hypot(moved.north())
        });
        !is_ok
            || largest_sigma_m(pose.covariance_m2) >= self.config.predicted_sigma_m
            || *driven_m >= self.config.longest_gap_m
            || (time_ns - *last_ns).abs() >= self.longest_gap_ns
    }

    /// The radius around the vehicle, in metres, that is enough to match the next frame with; none for the
    /// whole patch. `radius_m`: the protection radius, where the sources agree.
    pub(super) fn radius_m(&self, radius_m: Option<f64>) -> Option<f64> {
        radius_m.filter(|_| self.windowed + 1 < self.config.whole_every)
    }

    /// A frame was matched, with a part of the patch or the whole.
    pub(super) fn note_extent(&mut self, windowed: bool) {
        self.windowed = if windowed { self.windowed + 1 } else { 0 };
    }

    /// Whether the latest frame was matched with the whole patch.
    pub(super) fn saw_whole(&self) -> bool {
        self.windowed == 0
    }

    /// A frame of this time was matched and used.
    pub(super) fn note_match(&mut self, time_ns: i64) {
        self.last = Some((time_ns, 0.0));
    }
}

/// Along the worst axis.
fn largest_sigma_m([[ee, en], [_, nn]]: [[f64; 2]; 2]) -> f64 {
    let (middle, half) = (0.5 * (ee + nn), 0.5 * (ee - nn));
    (middle + half.hypot(en)).max(0.0).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossfix_calibration::{Geodetic, Yaw};

    fn pose(north_m: f64, sigma_m: f64) -> Pose {
        Pose {
            position: Geodetic::new(52.0 + north_m / 111_267.0, 4.0, 0.0).unwrap(),
            yaw: Yaw::new(0.0),
            yaw_sigma_rad: 0.01,
            covariance_m2: [[0.01, 0.0], [0.0, sigma_m * sigma_m]],
        }
    }

    fn trigger(predicted_sigma_m: f64) -> MatchTrigger {
        let config = MatchingConfig {
            predicted_sigma_m,
            longest_gap_m: 30.0,
            whole_every: 3,
        };
        MatchTrigger::new(config, &FusionConfig::default())
    }

    #[test]
    fn every_frame_is_matched_unless_something_else_is_said() {
        let mut trigger = trigger(0.0);
        trigger.note_match(0);
        assert!(trigger.fires(1, &pose(0.0, 0.1), true));
    }

    #[test]
    fn a_frame_is_matched_when_the_error_grew_the_way_got_long_or_sources_disagree() {
        let mut trigger = trigger(0.8);
        assert!(trigger.fires(0, &pose(0.0, 0.3), true), "the first one");
        trigger.note_match(0);
        assert!(!trigger.fires(1, &pose(5.0, 0.7), true));
        assert!(trigger.fires(2, &pose(10.0, 0.9), true));
        assert!(trigger.fires(3, &pose(12.0, 0.3), false));
        // One that could not be used leaves the next one wanted, and a way there and back is a way.
        assert!(!trigger.fires(4, &pose(0.0, 0.3), true));
        assert!(trigger.fires(5, &pose(10.0, 0.3), true));
        trigger.note_match(5);
        assert!(!trigger.fires(6, &pose(12.0, 0.3), true));
        assert!(trigger.fires(7_000_000_100, &pose(12.0, 0.3), true));
    }

    #[test]
    fn one_frame_in_three_is_matched_with_the_whole_patch_and_all_while_sources_disagree() {
        let mut trigger = trigger(0.0);
        let mut extents = Vec::new();
        for at in 0..9 {
            let radius_m = trigger.radius_m((at != 4).then_some(6.0));
            trigger.note_extent(radius_m.is_some());
            extents.push(radius_m);
        }
        let (whole, part) = (None, Some(6.0));
        assert_eq!(
            extents,
            [part, part, whole, part, whole, part, part, whole, part]
        );
    }

    #[test]
    fn the_worst_axis_counts() {
        assert!((largest_sigma_m([[4.0, 0.0], [0.0, 9.0]]) - 3.0).abs() < 1e-12);
        assert!((largest_sigma_m([[5.0, 4.0], [4.0, 5.0]]) - 3.0).abs() < 1e-12);
    }
}
