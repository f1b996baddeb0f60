//! The odometry's way against the positions of a receiver that tells no speed.
//!
//! Over half a minute the distance between two fixes is known to some sigma of the receiver, and the odometry's
//! distance between the same moments to a few percent. Only lengths are compared: they do not depend on the heading.

use std::collections::VecDeque;

use crossfix_calibration::{Geodetic, LocalFrame};

use crate::event::GnssFix;

/// Fixes this far apart in time are compared, nanoseconds.
const WAY_NS: std::ops::RangeInclusive<i64> = 25_000_000_000..=32_000_000_000;
/// Fixes further apart than this say nothing about the way between them, nanoseconds.
const LONGEST_GAP_NS: i64 = 5_000_000_000;
/// The distances may differ by this share of the longer one, and by so many sigma of the receiver: its slow error
/// changes by about one in this time.
const SHARE: f64 = 0.12;
const SIGMAS: f64 = 2.5;
/// A receiver among houses that calls itself surer than it is drifts by less than this, metres.
const LEAST_OFF_M: f64 = 20.0;
/// Comparisons in a row until the odometry is accused, and until it is not any more.
const ASTRAY: u32 = 3;
const AGREEMENTS: u32 = 5;
/// A shorter way than this speaks for nobody, metres.
const SHORTEST_M: f64 = 60.0;

/// What the positions say of the odometry's speed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Finding {
    /// It has differed for a while: the odometry's distance over that of the receiver.
    Differs(f64),
    /// It has fitted for a while.
    Fits,
}

#[derive(Debug, Clone, Copy)]
struct Point {
    time_ns: i64,
    position: Geodetic,
    sigma_m: f64,
    led_m: [f64; 2],
}

/// The last half minute of one receiver's fixes.
#[derive(Debug, Clone, Default)]
pub(crate) struct PositionWay {
    points: VecDeque<Point>,
    astray: u32,
    fitting: u32,
}

impl PositionWay {
    /// A fix without a speed comes; `led_m` is where the odometry has led since some time.
    pub(crate) fn note(&mut self, fix: &GnssFix, led_m: [f64; 2]) -> Option<Finding> {
        let [[ee, _], [_, nn]] = fix.covariance_m2;
        let here = Point {
            time_ns: fix.time_ns,
            position: fix.position,
            sigma_m: (0.5 * (ee + nn)).max(0.0).sqrt(),
            led_m,
        };
        if fix.position.check().is_err() || !here.sigma_m.is_finite() {
            return None;
        }
        if let Some(last) = self.points.back() {
            let step_ns = here.time_ns.saturating_sub(last.time_ns);
            if step_ns == 0 {
                return None;
            }
            if !(0..=LONGEST_GAP_NS).contains(&step_ns) {
                *self = Self::default();
            }
        }
        self.points.push_back(here);
        while self
            .points
            .front()
            .is_some_and(|old| here.time_ns - old.time_ns > *WAY_NS.end())
        {
            self.points.pop_front();
        }
        let first = self.points.front()?;
        if here.time_ns - first.time_ns < *WAY_NS.start() {
            return None;
        }
        let went = LocalFrame::new(first.position).enu_from_geodetic(here.position);
        let went_m = went.east().hypot(went.north());
        let led_m = (here.led_m[0] - first.led_m[0]).hypot(here.led_m[1] - first.led_m[1]);
        let longer_m = went_m.max(led_m);
        let allowed_m = SHARE * longer_m + SIGMAS * first.sigma_m.max(here.sigma_m);
        let off_m = (went_m - led_m).abs();
        self.astray = if off_m > allowed_m.max(LEAST_OFF_M) {
            self.astray + 1
        } else {
            0
        };
        let fits = off_m < 0.5 * allowed_m && went_m.min(led_m) > SHORTEST_M;
        self.fitting = if fits { self.fitting + 1 } else { 0 };
        if self.astray >= ASTRAY {
            Some(Finding::Differs(led_m / went_m.max(1.0)))
        } else {
            (self.fitting >= AGREEMENTS).then_some(Finding::Fits)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fusion::tests_support::fix;

    /// A minute at 8 m/s to the east with fixes of this sigma; the odometry reads `scale` from second 20 on.
    fn findings(scale: f64, sigma_m: f64) -> Vec<Option<Finding>> {
        let mut way = PositionWay::default();
        let mut led_m = 0.0;
        let found = |second: i64| {
            led_m += 8.0 * if second < 20 { 1.0 } else { scale };
            // An error that comes and goes within twenty seconds.
            let error_m = 0.7 * sigma_m * (second as f64 * 0.3).sin();
            let mut fix = fix(second, [8.0 * second as f64 + error_m, error_m]);
            fix.covariance_m2 = [[sigma_m.powi(2), 0.0], [0.0, sigma_m.powi(2)]];
            way.note(&fix, [led_m, 0.0])
        };
        (0..90).map(found).collect()
    }

    #[test]
    fn odometry_that_reads_half_is_found_within_half_a_minute() {
        for scale in [0.0, 0.5, 0.6, 1.6, 2.2] {
            let found = findings(scale, 10.0);
            let differs = |finding: &Option<Finding>| matches!(finding, Some(Finding::Differs(_)));
            let at = found.iter().position(differs).unwrap_or(usize::MAX);
            assert!((22..52).contains(&at), "{scale}: {at}");
            let Some(Finding::Differs(ratio)) = found[80] else {
                panic!("{scale}: {:?}", found[80]);
            };
            assert!((ratio - scale).abs() < 0.15, "{ratio}");
        }
    }

    #[test]
    fn a_receiver_that_is_too_sure_of_itself_accuses_nobody_while_the_vehicle_stands() {
        let mut way = PositionWay::default();
        for second in 0..120 {
            let error_m = 8.0 * (second as f64 * 0.1).sin();
            let mut fix = fix(second, [error_m, 0.0]);
            fix.covariance_m2 = [[0.25, 0.0], [0.0, 0.25]];
            assert_eq!(way.note(&fix, [0.0, 0.0]), None);
        }
    }

    #[test]
    fn odometry_that_is_right_or_nearly_so_is_not_accused() {
        for scale in [0.93, 1.0, 1.07] {
            for sigma_m in [0.5, 3.0, 20.0] {
                let found = findings(scale, sigma_m);
                let accused = |found: &Option<Finding>| matches!(found, Some(Finding::Differs(_)));
                assert!(!found.iter().any(accused), "{scale} {sigma_m}");
            }
        }
        assert_eq!(findings(1.0, 3.0)[80], Some(Finding::Fits));
    }
}
