//! The filter itself: what is known after the measurements taken in so far, and who is believed.

use crossfix_calibration::{Geodetic, LocalFrame, Yaw};

use super::config::FusionConfig;
use super::history::History;
use super::jump::{JumpGuard, Place};
use super::navigator::{Motion, Navigator};
use super::predict::Checkpoint;
use super::rewind::Measurement;
use super::visual::VisualBelief;
use super::{Unused, seconds};

/// What was last worked out, valid until the next measurement; it only widens with the track.
#[derive(Debug, Clone, Copy)]
pub(super) struct Published {
    pub(super) place: Place,
    pub(super) mode_count: usize,
    pub(super) radius_m: f64,
    pub(super) track_variance_m2: f64,
}

/// The filter of one drive.
#[derive(Debug, Clone)]
pub(super) struct Filter {
    pub(super) config: FusionConfig,
    pub(super) georef_sigma_m: f64,
    pub(super) now_ns: i64,
    pub(super) started: Option<Started>,
    pub(super) odometry: Option<(i64, Motion)>,
    pub(super) gnss_motion: Option<(i64, Motion, Option<Yaw>)>,
    pub(super) last_fix: Option<(i64, Geodetic)>,
    pub(super) heading_ns: i64,
    pub(super) reset_count: u32,
    /// Where the measurements had left things before ticks led on from there.
    pub(super) checkpoint: Option<Checkpoint>,
}

/// Everything that exists once there was a fix.
#[derive(Debug, Clone)]
pub(super) struct Started {
    pub(super) frame: LocalFrame,
    pub(super) height_m: f64,
    pub(super) navigator: Navigator,
    pub(super) history: History,
    pub(super) visual: Option<VisualBelief>,
    pub(super) guard: JumpGuard,
    pub(super) gnss_ns: i64,
    pub(super) contradictions: Vec<[f64; 2]>,
    pub(super) last_visual: Option<(i64, f64)>,
    pub(super) fused: Published,
    pub(super) visual_only: Option<Published>,
    /// Heatmaps that `visual_only` contains.
    pub(super) visual_only_updates: u64,
}

impl Filter {
    /// Before any measurement. `georef_sigma_m` is the error of the aerial imagery itself.
    pub(super) fn new(config: FusionConfig, georef_sigma_m: f64) -> Self {
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

    /// Takes in a measurement, in the order of arrival.
    pub(super) fn take(&mut self, measurement: &Measurement) -> Result<(), Unused> {
        match measurement {
            Measurement::Gnss(fix) => self.take_gnss(fix),
            Measurement::Odometry(sample) => self.take_odometry(sample),
            Measurement::Visual(fix) => self.take_visual(fix),
            Measurement::Reach(time_ns) => {
                self.advance(*time_ns);
                Ok(())
            }
        }
    }

    /// Forgets everything but the parameters: the clock was set, or the log starts over.
    pub(super) fn restart(&mut self) {
        let reset_count = self.reset_count.wrapping_add(1);
        *self = Self {
            reset_count,
            ..Self::new(self.config.clone(), self.georef_sigma_m)
        };
    }
}

pub(super) fn visual_is_fresh(started: &Started, now_ns: i64, config: &FusionConfig) -> bool {
    let Some((time_ns, at_m)) = started.last_visual else {
        return false;
    };
    let since_m = started.navigator.driven_m - at_m;
    started.visual.is_some()
        && since_m <= config.visual_timeout_m
        && (now_ns - time_ns <= seconds(config.visual_timeout_s)
            || since_m < 2.0 * config.visual_spacing_m)
}
