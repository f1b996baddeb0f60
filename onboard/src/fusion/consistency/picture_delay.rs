//! Whether pictures are later (or earlier) than their stamps say: then heatmaps lie behind the track
//! by the speed times the delay, and shift against it in each turn and at each change of speed.
//!
//! Over the last frames, the heatmaps' places minus the track are fitted as `c − τ v`: `c` is where
//! the track lies, `v` the velocity at each frame, τ the delay.

use std::collections::VecDeque;

use super::gate::{Gate, Trust};

/// Frames that are fitted, and the fewest.
const FRAMES: usize = 20;
const FEWEST: usize = 12;
/// Metres after which a frame is forgotten: dead reckoning drifts.
const LONGEST_WAY_M: f64 = 250.0;
/// Least sum of squared differences of the velocities that tells anything, (m/s)².
const LEAST_SPREAD: f64 = 150.0;
/// A place this far from the fit is an outlier, metres.
const OUTLIER_M: f64 = 3.0;
/// Largest scatter about the fit, metres.
const LARGEST_SCATTER_M: f64 = 1.0;
/// A delay from here on matters, seconds, and from here on it cannot be taken into account.
const LEAST_DELAY_S: f64 = 0.3;
const MOST_DELAY_S: f64 = 1.6;
/// Fits in a row that have to say so.
const CONFIRMATIONS: u32 = 4;
/// It has to be this many sigma from zero.
const SIGMAS: f64 = 6.0;

/// A heatmap beside the track.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Point {
    /// The heatmap's mode minus the track, metres.
    pub(crate) offset_m: [f64; 2],
    /// East and north, m/s.
    pub(crate) velocity_mps: [f64; 2],
    pub(crate) driven_m: f64,
    pub(crate) time_ns: i64,
}

/// The check of the pictures' times.
#[derive(Debug, Clone)]
pub(crate) struct PictureDelay {
    pub(crate) gate: Gate,
    points: VecDeque<Point>,
    /// The delay that is taken into account, nanoseconds.
    pub(crate) delay_ns: i64,
}

impl PictureDelay {
    pub(crate) fn new() -> Self {
        Self {
            gate: Gate::new("pictures_vs_motion", "camera"),
            points: VecDeque::new(),
            delay_ns: 0,
        }
    }

    /// A heatmap with one clear mode comes. Returns whether the delay changes.
    pub(crate) fn note(&mut self, point: Point) -> bool {
        if self
            .points
            .back()
            .is_some_and(|last| point.time_ns <= last.time_ns || point.driven_m < last.driven_m)
        {
            self.points.clear();
        }
        self.points.push_back(point);
        while self.points.len() > FRAMES
            || self
                .points
                .front()
                .is_some_and(|old| old.driven_m < point.driven_m - LONGEST_WAY_M)
        {
            self.points.pop_front();
        }
        let Some((delay_s, sigma_s)) = self.fit() else {
            return false;
        };
        let total_s = self.delay_ns as f64 * 1e-9 + delay_s;
        if delay_s.abs() > LEAST_DELAY_S && delay_s.abs() > SIGMAS * sigma_s {
            let late = if total_s > 0.0 { "late" } else { "early" };
            let words = format!("the pictures are {late} by about {:.1} s", total_s.abs());
            self.gate
                .contradict(u32::MAX, "the heatmaps lag or lead the motion");
            if self.gate.bad_run >= CONFIRMATIONS && (0.0..MOST_DELAY_S).contains(&total_s.abs()) {
                self.gate.exclude(words);
                self.gate.bad_run = 0;
                // Where the track will be after an early picture nobody knows yet: it is used at its stamp.
                let before_ns = self.delay_ns;
                self.delay_ns = (total_s.max(0.0) * 1e9) as i64;
                self.points.clear();
                return self.delay_ns != before_ns;
            }
        } else if sigma_s < 0.5 * LEAST_DELAY_S {
            if self.delay_ns == 0 {
                self.gate.agree(point.time_ns, 2);
            } else if total_s.abs() < LEAST_DELAY_S {
                self.gate.trust = Trust::Unchecked;
                self.delay_ns = 0;
                self.points.clear();
                return true;
            }
        }
        false
    }

    /// The track lies somewhere else now.
    pub(crate) fn forget(&mut self) {
        self.points.clear();
    }

    /// The delay and its 1-sigma error, seconds, without outliers.
    fn fit(&self) -> Option<(f64, f64)> {
        let mut kept: Vec<Point> = self.points.iter().copied().collect();
        for _ in 0..4 {
            let (delay_s, centre, sigma_s, scatter_m) = least_squares(&kept)?;
            let far = |point: &Point| {
                (0..2)
                    .map(|axis| {
                        let fitted = centre[axis] - delay_s * point.velocity_mps[axis];
                        (point.offset_m[axis] - fitted).powi(2)
                    })
                    .sum::<f64>()
                    .sqrt()
            };
            let before = kept.len();
            let limit_m = OUTLIER_M.max(2.5 * scatter_m);
            kept.retain(|point| far(point) <= limit_m);
            if kept.len() == before {
                let enough = kept.len() >= FEWEST && kept.len() * 4 >= self.points.len() * 3;
                return (enough && scatter_m < LARGEST_SCATTER_M).then_some((delay_s, sigma_s));
            }
        }
        None
    }
}

/// Delay, centre, 1-sigma error of the delay, and scatter for each axis.
fn least_squares(points: &[Point]) -> Option<(f64, [f64; 2], f64, f64)> {
    if points.len() < FEWEST {
        return None;
    }
    let count = points.len() as f64;
    let mean = |of: fn(&Point) -> [f64; 2]| {
        [0, 1].map(|axis| points.iter().map(|point| of(point)[axis]).sum::<f64>() / count)
    };
    let offset = mean(|point| point.offset_m);
    let velocity = mean(|point| point.velocity_mps);
    let (mut product, mut spread, mut total) = (0.0, 0.0, 0.0);
    for point in points {
        for axis in 0..2 {
            let o = point.offset_m[axis] - offset[axis];
            let v = point.velocity_mps[axis] - velocity[axis];
            product += o * v;
            spread += v * v;
            total += o * o;
        }
    }
    if spread < LEAST_SPREAD {
        return None;
    }
    let delay_s = -product / spread;
    let rest = (total - product * product / spread).max(0.0);
    let scatter_m = (rest / (2.0 * count - 3.0)).sqrt();
    let centre = [0, 1].map(|axis| offset[axis] + delay_s * velocity[axis]);
    Some((
        delay_s,
        centre,
        scatter_m.max(0.3) / spread.sqrt(),
        scatter_m,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Round a corner, with heatmaps that scatter by half a metre.
    fn points(delay_s: f64) -> impl Iterator<Item = Point> {
        (0..30).map(move |frame: i64| {
            let angle = (frame as f64 * 0.1).min(1.5);
            let velocity_mps = [8.0 * angle.cos(), 8.0 * angle.sin()];
            let scatter = 0.5 * ((frame * 7919 % 13) as f64 / 6.0 - 1.0);
            Point {
                offset_m: [0, 1].map(|axis| 3.0 + scatter - delay_s * velocity_mps[axis]),
                velocity_mps,
                driven_m: frame as f64 * 4.0,
                time_ns: frame * 500_000_000,
            }
        })
    }

    #[test]
    fn a_delay_is_found_and_named() {
        // Less than 0.3 s is not told from what a student errs.
        for delay_s in [0.45, 1.0] {
            let mut check = PictureDelay::new();
            assert!(points(delay_s).any(|point| check.note(point)), "{delay_s}");
            let found_s = check.delay_ns as f64 * 1e-9;
            assert!((found_s - delay_s).abs() < 0.1, "{found_s}");
            assert!(check.gate.problem().is_some());
        }
        // An early one is named, and used at its stamp: the track of its time is not there yet.
        let mut check = PictureDelay::new();
        assert!(!points(-0.45).any(|point| check.note(point)));
        assert_eq!(check.delay_ns, 0);
        assert!(
            check
                .gate
                .problem()
                .is_some_and(|words| words.contains("early by about 0."))
        );
    }

    #[test]
    fn pictures_on_time_are_not_suspected() {
        let mut check = PictureDelay::new();
        assert!(!points(0.0).any(|point| check.note(point)));
        assert_eq!(check.gate.problem(), None);
    }
}
