//! Where the vehicle is, from everything: GNSS, odometry and heatmaps in, estimates out.
//!
//! Two filters that share nothing but the odometry, and their product:
//!
//! - `navigator`: a Kalman filter over GNSS and odometry. The slow part of the receiver's error is a
//!   state, so fixes that repeat each other are not counted again.
//! - `visual`: a grid belief over heatmaps and odometry, which GNSS never touches. It is the
//!   `visual_only` output.
//! - The `fused` output is the visual belief times the navigator's position, made anew each time, so
//!   neither is ever fed back into the other. Without heatmaps it is the navigator alone, to full
//!   precision.
//!
//! Everything is in order of the measurements' own times; nothing here asks for the clock.

mod alignment;
mod config;
mod consistency;
mod continuity;
mod direction;
mod filter;
mod history;
mod jump;
mod motion;
mod navigator;
mod output;
mod predict;
mod rewind;
mod state;
#[cfg(test)]
mod synthetic;
#[cfg(test)]
mod tests_support;
mod update;
mod visual;

use std::sync::Arc;

use crossfix_calibration::{Enu, Geodetic, Heatmap, LocalFrame, Yaw};
use nalgebra::Matrix2;

pub use config::FusionConfig;
use consistency::Gates;
pub use consistency::{SourceVerdict, Trust};
use filter::Filter;
use rewind::{Measurement, Memory};

use crate::event::{CrossViewFix, Estimate, GnssFix, OdometrySample};

/// Between fixes nearer to each other than this the motion is held, nanoseconds.
const SHORTEST_INTERVAL_NS: i64 = 450_000_000;
/// The visual belief is given up when the pictures turn out to be of another time by more than this, nanoseconds.
const FORGETTING_DELAY_NS: i64 = 250_000_000;
/// Degrees of freedom of a receiver's errors.
const RECEIVER_DEGREES_OF_FREEDOM: f64 = 8.0;
/// Below this speed the course over ground is noise.
const SLOWEST_COURSE_MPS: f64 = 2.0;
/// Why a measurement was not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unused {
    /// Not a number, or an impossible one.
    #[error("it carries numbers that cannot be")]
    Invalid,
    /// The fix that came before it, once more.
    #[error("it repeats the fix before it")]
    Repeated,
    /// Older than the memory of the track.
    #[error("it is older than the track's memory")]
    TooLate,
    /// There is no position to start from yet.
    #[error("there is no GNSS fix to start from yet")]
    NotStarted,
    /// There is no yaw yet, so the camera's picture cannot be aligned.
    #[error("there is no heading yet")]
    NoHeading,
    /// The place is known too badly: the vehicle may be outside of what the belief's window holds.
    #[error("the place is known too badly for the window of the belief")]
    NotInWindow,
    /// It contradicts what the other sources say.
    #[error("it contradicts the other sources")]
    Contradicts,
    /// The vehicle has hardly moved since the last heatmap.
    #[error("the vehicle has hardly moved since the last frame that counted")]
    TooNear,
}

/// The best guess of where the vehicle was at one moment, for aligning a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pose {
    /// Place, at the height of the last fix.
    pub position: Geodetic,
    /// Which way the vehicle pointed.
    pub yaw: Yaw,
    /// 1-sigma error of `yaw`, radians.
    pub yaw_sigma_rad: f64,
    /// 1-sigma covariance of `position` in east and north, m².
    pub covariance_m2: [[f64; 2]; 2],
}

/// The fusion of one drive: the filter, and the memory that lets it take a measurement back.
#[derive(Debug, Clone)]
pub struct Fusion {
    filter: Filter,
    memory: Memory,
    gates: Gates,
    /// Discontinuities of the output beside those that the filter counts.
    resets: u32,
    /// Whether the config says how many heatmaps mean nothing, so that no student's card does.
    sets_outlier_share: bool,
}

impl Fusion {
    /// Before any measurement. `georef_sigma_m` is the error of the aerial imagery itself.
    pub fn new(config: FusionConfig, georef_sigma_m: f64) -> Self {
        Self {
            gates: Gates::new(config.picture_delay_s),
            sets_outlier_share: config.visual_outlier_share.is_some(),
            filter: Filter::new(config, georef_sigma_m),
            memory: Memory::default(),
            resets: 0,
        }
    }

    /// The parameters in use.
    pub fn config(&self) -> &FusionConfig {
        &self.filter.config
    }

    /// Believes heatmaps as the student's card says from now on (`None`: it says nothing), unless the config says
    /// how many mean nothing.
    pub fn set_student_outlier_share(&mut self, share: Option<f64>) {
        if !self.sets_outlier_share {
            self.filter.config.visual_outlier_share = share;
        }
    }

    /// Time of the state, nanoseconds UTC.
    pub fn now_ns(&self) -> Option<i64> {
        (self.filter.now_ns != i64::MIN).then_some(self.filter.now_ns)
    }

    /// Forgets everything but the parameters: the clock was set, or the log starts over.
    pub fn restart(&mut self) {
        self.filter.restart();
        self.memory = Memory::default();
        self.gates = Gates::new(self.filter.config.picture_delay_s);
    }

    /// Takes in a fix of the receiver with this name.
    ///
    /// # Errors
    /// [`Unused`] when it was not usable.
    pub fn on_gnss(&mut self, source: &Arc<str>, fix: &GnssFix) -> Result<(), Unused> {
        self.measure(Measurement::Gnss(source.clone(), fix.clone()))
    }

    /// Takes in speed, yaw rate and perhaps heading.
    ///
    /// # Errors
    /// [`Unused`] when it was not usable.
    pub fn on_odometry(&mut self, sample: &OdometrySample) -> Result<(), Unused> {
        self.measure(Measurement::Odometry(*sample))
    }

    /// Updates with the match of a frame and an aerial patch.
    ///
    /// # Errors
    /// [`Unused`] when it was not usable.
    pub fn on_visual(&mut self, fix: &CrossViewFix) -> Result<(), Unused> {
        self.measure(Measurement::Visual(Arc::new(fix.clone())))
    }

    /// A frame is from `time_ns`: dead-reckons to there for good; earlier times change nothing.
    pub fn reach(&mut self, time_ns: i64) {
        // An early picture shows what is after its stamp; beyond the newest odometry nothing is known.
        let early_ns = (-self.filter.picture_delay_ns).max(0);
        let shown_ns = time_ns.saturating_add(early_ns);
        let reach_ns = shown_ns.min(time_ns.max(self.filter.odometry_ns));
        let _ = self.measure(Measurement::Reach(reach_ns));
    }

    /// Looks ahead to `time_ns` by dead reckoning; earlier times change nothing. The next measurement
    /// is taken in as if there had been no look.
    pub fn look_ahead(&mut self, time_ns: i64) {
        self.filter.look_ahead(time_ns);
    }

    /// Pictures or odometry may be stamped in another way now: what was learned of their times is void.
    pub fn doubt_picture_times(&mut self) {
        self.gates.pictures.doubt();
    }

    /// Whether a frame of this time would be used.
    ///
    /// # Errors
    /// [`Unused`] with the reason.
    pub fn wants_frame(&self, time_ns: i64) -> Result<Pose, Unused> {
        let confirmed = self.gates.confirms_motion(self.filter.now_ns);
        self.filter.wants_frame(time_ns, confirmed)
    }

    /// Where the vehicle is now: `fused` first, then `visual_only` once there was a heatmap. Before
    /// the first fix there is nothing. `missing` is what the caller lacks, as a sentence.
    pub fn estimates(&self, missing: Option<&str>) -> Vec<Estimate> {
        self.estimates_warned(missing, Vec::new())
    }

    /// The same with what receivers warn of, as sentences: the state is not `ok` then.
    pub fn estimates_warned(&self, missing: Option<&str>, warnings: Vec<String>) -> Vec<Estimate> {
        let mut problems = self.gates.problems(self.filter.now_ns);
        problems.extend(warnings);
        let pictures = &self.gates.pictures;
        let speed_mps = self.filter.motion(self.filter.now_ns).speed_mps;
        let delayed_m = pictures.possible_m(speed_mps, self.filter.config.sync_bound_s);
        let is_confirmed = self.gates.confirms_motion(self.filter.now_ns);
        let mut estimates = self
            .filter
            .estimates(missing, &problems, delayed_m, is_confirmed);
        for estimate in &mut estimates {
            estimate.reset_count = estimate.reset_count.wrapping_add(self.resets);
        }
        estimates
    }

    /// What the checks between the sources found.
    pub fn verdicts(&self) -> Vec<SourceVerdict> {
        let mut verdicts = self.gates.verdicts();
        verdicts.extend(self.filter.verdicts());
        verdicts
    }

    /// Takes a measurement in from where the measurements had left things, and then looks as far
    /// ahead as before.
    fn measure(&mut self, mut measurement: Measurement) -> Result<(), Unused> {
        let ahead_ns = self.filter.now_ns;
        self.filter.come_back();
        if let Measurement::Gnss(source, fix) = &mut measurement {
            self.filter.note_receiver_speed(fix);
            *fix = self.gates.judge_receiver(source, fix, &self.filter);
            self.filter.excluded.clone_from(&self.gates.excluded);
        }
        let sample = match &measurement {
            Measurement::Odometry(sample) => Some(*sample),
            _ => None,
        };
        let fix = match &measurement {
            Measurement::Gnss(source, fix) => Some((source.clone(), fix.clone())),
            _ => None,
        };
        let heatmap = match &measurement {
            Measurement::Visual(fix) => Some(fix.clone()),
            _ => None,
        };
        if let Some(sample) = &sample {
            let back_ns = self.gates.judge_odometry(sample, &self.filter);
            self.believe(back_ns);
        }
        let result = self.filter.take(&measurement);
        self.memory.note(measurement, &self.filter);
        if let Some((source, fix)) = &fix
            && (result.is_ok()
                || result == Err(Unused::Contradicts) && self.filter.may_judge(source))
        {
            let back_ns = self.gates.judge_by_fix(fix, &self.filter);
            // The way from the fix before is known only now.
            let last_ns = self.filter.gnss_motion_before_ns;
            let follows = self.filter.follows_gnss_motion()
                && fix.time_ns.saturating_sub(last_ns) > SHORTEST_INTERVAL_NS
                && fix.speed_mps.is_some()
                && result.is_ok();
            self.believe(back_ns.or(follows.then_some(last_ns)));
        }
        if let (Some(heatmap), Ok(())) = (&heatmap, result)
            && let Some(point) = self.filter.point(heatmap)
            && self.gates.pictures.note(point)
        {
            self.believe(Some(i64::MIN));
        }
        self.filter.look_ahead(ahead_ns);
        result
    }

    /// Takes over who is believed; from a time in the past on where it says so.
    fn believe(&mut self, back_ns: Option<i64>) {
        self.filter.excluded.clone_from(&self.gates.excluded);
        let Some(back_ns) = back_ns else { return };
        let Some((state, since)) = self.memory.rewind(back_ns) else {
            return;
        };
        let before = std::mem::replace(&mut self.filter, state);
        self.filter.excluded.clone_from(&self.gates.excluded);
        let delay_ns = self.gates.pictures.delay_ns;
        let before_ns = std::mem::replace(&mut self.filter.picture_delay_ns, delay_ns);
        if (delay_ns - before_ns).abs() > FORGETTING_DELAY_NS
            && let Some(started) = &mut self.filter.started
        {
            started.forget_visual();
        }
        self.gates.pictures.forget();
        for at in 0..since.len() {
            if self.filter.gnss_next.is_none() {
                let next = since[at..].iter().find_map(Measurement::fix);
                self.filter.expect_fix(next);
            }
            let _ = self.filter.take(&since[at]);
            self.memory.note(since[at].clone(), &self.filter);
        }
        self.filter.gnss_next = None;
        let jumped = self.filter.moved_from(&before) > self.filter.config.jump_m;
        let counted = before.reset_count.wrapping_sub(self.filter.reset_count);
        self.resets = self
            .resets
            .wrapping_add(if counted < u32::MAX / 2 { counted } else { 0 })
            .wrapping_add(u32::from(jumped));
    }
}

/// East and north of a place in the frame's tangent plane; the height plays no part.
fn plane_from_geodetic(frame: &LocalFrame, place: Geodetic) -> [f64; 2] {
    let point = frame.enu_from_geodetic(Geodetic {
        height_m: 0.0,
        ..place
    });
    [point.east(), point.north()]
}

/// The place over a point of the plane; nothing when the point is no number.
fn geodetic_from_plane(frame: &LocalFrame, point_m: [f64; 2], height_m: f64) -> Option<Geodetic> {
    // The ground falls away from the tangent plane; 6371 km is exact enough for a centimetre at 10 km.
    let down_m = (point_m[0].powi(2) + point_m[1].powi(2)) / (2.0 * 6_371_000.0);
    let place = frame.geodetic_from_enu(Enu::new(point_m[0], point_m[1], -down_m));
    Geodetic::new(place.latitude_deg, place.longitude_deg, height_m).ok()
}

fn largest_sigma(covariance: &Matrix2<f64>) -> f64 {
    let half_trace = covariance.trace() / 2.0;
    let half_difference = (half_trace.powi(2) - covariance.determinant())
        .max(0.0)
        .sqrt();
    (half_trace + half_difference).max(0.0).sqrt()
}

/// Radius that leaves at most `risk` outside of a receiver's position, along the longer axis. Errors
/// among houses have heavier tails than a Gaussian: Student's t in two dimensions, whose risk beyond
/// `r` is `(1 + r² / (ν σ²))^(-ν / 2)`.
fn receiver_radius(covariance: &Matrix2<f64>, risk: f64) -> f64 {
    let nu = RECEIVER_DEGREES_OF_FREEDOM;
    largest_sigma(covariance) * (nu * (risk.powf(-2.0 / nu) - 1.0)).sqrt()
}

fn seconds(seconds: f64) -> i64 {
    (seconds * 1e9) as i64
}

/// The heatmap as the fusion would take it, for tools that evaluate without a daemon.
pub fn cross_view_fix(time_ns: i64, centre: Geodetic, heatmap: Heatmap) -> CrossViewFix {
    CrossViewFix {
        time_ns,
        centre,
        heatmap,
        yaw: None,
        yaw_sigma_rad: 0.0,
    }
}
