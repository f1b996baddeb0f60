//! Where the vehicle is, from everything: GNSS, odometry and heatmaps in, estimates out.
//!
//! Two filters that share nothing but the odometry, and their product:
//!
//! - [`navigator`]: a Kalman filter over GNSS and odometry. The slow part of the receiver's error is a
//!   state, so fixes that repeat each other are not counted again.
//! - [`visual`]: a grid belief over heatmaps and odometry, which GNSS never touches. It is the
//!   `visual_only` output.
//! - The `fused` output is the visual belief times the navigator's position, made anew each time, so
//!   neither is ever fed back into the other. Without heatmaps it is the navigator alone, to full
//!   precision.
//!
//! Everything is in order of the measurements' own times; nothing here asks for the clock.

mod config;
mod history;
mod jump;
mod motion;
mod navigator;
mod output;
mod predict;
mod state;
#[cfg(test)]
mod synthetic;
mod update;
mod visual;

use crossfix_calibration::{Enu, Geodetic, Heatmap, LocalFrame, Yaw};
use nalgebra::Matrix2;

pub use config::FusionConfig;
use history::History;
use jump::{JumpGuard, Place};
use navigator::{Motion, Navigator};
use predict::Checkpoint;
use visual::VisualBelief;

use crate::event::CrossViewFix;

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
}

/// What was last worked out, valid until the next measurement; it only widens with the track.
#[derive(Debug, Clone, Copy)]
struct Published {
    place: Place,
    mode_count: usize,
    radius_m: f64,
    track_variance_m2: f64,
}

/// The fusion of one drive.
#[derive(Debug, Clone)]
pub struct Fusion {
    config: FusionConfig,
    georef_sigma_m: f64,
    now_ns: i64,
    started: Option<Started>,
    odometry: Option<(i64, Motion)>,
    gnss_motion: Option<(i64, Motion, Option<Yaw>)>,
    last_fix: Option<(i64, Geodetic)>,
    heading_ns: i64,
    reset_count: u32,
    /// Where the measurements had left things before ticks led on from there.
    checkpoint: Option<Checkpoint>,
}

/// Everything that exists once there was a fix.
#[derive(Debug, Clone)]
struct Started {
    frame: LocalFrame,
    height_m: f64,
    navigator: Navigator,
    history: History,
    visual: Option<VisualBelief>,
    guard: JumpGuard,
    gnss_ns: i64,
    contradictions: Vec<[f64; 2]>,
    last_visual: Option<(i64, f64)>,
    fused: Published,
    visual_only: Option<Published>,
    /// Heatmaps that `visual_only` contains.
    visual_only_updates: u64,
}

impl Fusion {
    /// Knows nothing yet. `georef_sigma_m` is the error of the aerial imagery itself.
    pub fn new(config: FusionConfig, georef_sigma_m: f64) -> Self {
        Self {
            config,
            georef_sigma_m,
            now_ns: i64::MIN,
            started: None,
            odometry: None,
            gnss_motion: None,
            last_fix: None,
            heading_ns: i64::MIN,
            reset_count: 0,
            checkpoint: None,
        }
    }

    /// The parameters in use.
    pub fn config(&self) -> &FusionConfig {
        &self.config
    }

    /// Latest time heard of, nanoseconds UTC.
    pub fn now_ns(&self) -> Option<i64> {
        (self.now_ns != i64::MIN).then_some(self.now_ns)
    }

    /// Forgets everything but the parameters: the clock was set, or the log starts over.
    pub fn restart(&mut self) {
        let reset_count = self.reset_count.wrapping_add(1);
        *self = Self {
            reset_count,
            ..Self::new(self.config.clone(), self.georef_sigma_m)
        };
    }
}

fn visual_is_fresh(started: &Started, now_ns: i64, config: &FusionConfig) -> bool {
    let Some((time_ns, at_m)) = started.last_visual else {
        return false;
    };
    let since_m = started.navigator.driven_m - at_m;
    started.visual.is_some()
        && since_m <= config.visual_timeout_m
        && (now_ns - time_ns <= seconds(config.visual_timeout_s)
            || since_m < 2.0 * config.visual_spacing_m)
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

/// Radius of a Gaussian that leaves at most `risk` outside: Rayleigh's, along the longer axis.
fn gaussian_radius(covariance: &Matrix2<f64>, risk: f64) -> f64 {
    largest_sigma(covariance) * (-2.0 * risk.ln()).sqrt()
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
