//! Which frames are kept: one after so many metres, and those whose match and the receiver disagree.

use std::collections::BTreeMap;
use std::sync::Arc;

use crossfix_calibration::{Enu, LocalFrame};

use super::RecordSinkConfig;
use crate::event::{CameraFrame, Estimate, EstimateKind, GnssFix, Match, State};

/// A slower vehicle stands; speeds of standing vehicles are noise, m/s.
const STANDS_BELOW_MPS: f64 = 0.3;
/// Longest time between two estimates that the way is counted over, nanoseconds.
const LONGEST_STEP_NS: i64 = 1_000_000_000;
/// A match that is this many sigmas from the fix disagrees.
const DISAGREES_AT_SIGMAS: f64 = 3.0;
/// A position, or a fix, older than this says nothing of a frame, nanoseconds.
const OLD_NS: i64 = 3_000_000_000;
/// Frames may have been taken this long before they arrive, seconds.
const FRAME_LATENCY_S: f64 = 1.0;

/// Why a frame is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It is far enough from the one before.
    Distance,
    /// Its match is not where the receiver says.
    Disagreement,
}

/// A frame that is kept.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// The frame.
    pub frame: CameraFrame,
    /// When it arrived, on the clock of the arrivals.
    pub arrived_ns: i64,
    /// Why.
    pub reason: Reason,
    /// Way since the frame of its camera that was kept before, metres.
    pub travelled_m: Option<f64>,
    /// Its match against the receiver's fix, if it was matched: metres, and in their common sigma.
    pub disagreement: Option<[f64; 2]>,
}

/// Knows the way so far, and the latest frame of each camera until its match came.
pub struct Chooser {
    config: RecordSinkConfig,
    travelled_m: f64,
    moved_ns: Option<i64>,
    latest: Option<Arc<Estimate>>,
    /// Arrivals of the latest event, and of the one that the latest estimate came after.
    arrived_ns: i64,
    latest_arrived_ns: i64,
    fix: Option<GnssFix>,
    cameras: BTreeMap<String, OneCamera>,
}

#[derive(Default)]
struct OneCamera {
    kept_at_m: Option<f64>,
    waiting: Option<Waiting>,
}

/// A frame that is not decided on yet.
struct Waiting {
    frame: CameraFrame,
    arrived_ns: i64,
    by_distance: bool,
}

impl Chooser {
    /// Before the drive.
    pub fn new(config: &RecordSinkConfig) -> Self {
        Self {
            config: config.clone(),
            travelled_m: 0.0,
            moved_ns: None,
            latest: None,
            arrived_ns: i64::MIN,
            latest_arrived_ns: i64::MIN,
            fix: None,
            cameras: BTreeMap::new(),
        }
    }

    /// Whether the vehicle has stood for so long that little is kept.
    pub fn stands(&self) -> bool {
        let standing_ns = (self.config.standing_s * 1e9) as i64;
        self.latest
            .as_ref()
            .zip(self.moved_ns)
            .is_some_and(|(latest, moved_ns)| latest.time_ns.saturating_sub(moved_ns) > standing_ns)
    }

    /// Takes in where the vehicle is.
    pub fn note_estimate(&mut self, estimate: &Arc<Estimate>) {
        if estimate.kind != EstimateKind::Fused {
            return;
        }
        let before_ns = self.latest.as_ref().map_or(estimate.time_ns, |e| e.time_ns);
        let step_ns = estimate.time_ns.saturating_sub(before_ns);
        let moves = estimate.speed_mps.abs() > STANDS_BELOW_MPS;
        if moves && (0..=LONGEST_STEP_NS).contains(&step_ns) && estimate.state != State::Lost {
            self.travelled_m += estimate.speed_mps.abs() * step_ns as f64 * 1e-9;
        }
        // A clock that was set starts over.
        if moves || !(0..=10 * LONGEST_STEP_NS).contains(&step_ns) || self.moved_ns.is_none() {
            self.moved_ns = Some(estimate.time_ns);
        }
        self.latest = Some(estimate.clone());
        self.latest_arrived_ns = self.arrived_ns;
    }

    /// An event arrived, of whatever kind. Frames are compared with estimates by arrivals, since their
    /// stamps may be off.
    pub fn note_arrival(&mut self, arrived_ns: i64) {
        self.arrived_ns = arrived_ns;
    }

    /// Takes in what a receiver says.
    pub fn note_fix(&mut self, fix: &GnssFix) {
        self.fix = Some(fix.clone());
    }

    /// Takes in a frame; the one before of its camera is decided on, if it was not.
    pub fn note_frame(&mut self, frame: &CameraFrame, arrived_ns: i64) -> Option<Chosen> {
        let before = self.decide(&frame.camera, None);
        if self.stands() || !self.may_keep(arrived_ns) {
            return before;
        }
        let camera = self.cameras.entry(frame.camera.clone()).or_default();
        let way_m = camera.kept_at_m.map(|at_m| self.travelled_m - at_m);
        let at_least = |least_m: f64| way_m.is_none_or(|way_m| way_m >= least_m);
        let by_distance = at_least(self.config.frame_every_m);
        if by_distance || at_least(self.config.disagreement_every_m) {
            camera.waiting = Some(Waiting {
                frame: frame.clone(),
                arrived_ns,
                by_distance,
            });
        }
        before
    }

    /// Takes in a match, which is of the latest frame of its camera.
    pub fn note_match(&mut self, found: &Match) -> Option<Chosen> {
        let disagreement = self.disagreement(found);
        self.decide(&found.camera, disagreement)
    }

    /// The frames that still wait for a match.
    pub fn finish(&mut self) -> Vec<Chosen> {
        let cameras: Vec<String> = self.cameras.keys().cloned().collect();
        let decided = cameras
            .iter()
            .filter_map(|camera| self.decide(camera, None));
        decided.collect()
    }

    fn decide(&mut self, camera: &str, disagreement: Option<[f64; 2]>) -> Option<Chosen> {
        let camera = self.cameras.get_mut(camera)?;
        let waiting = camera.waiting.take()?;
        let disagrees = disagreement.is_some_and(|[metres, sigmas]| {
            metres > self.config.disagreement_m && sigmas > DISAGREES_AT_SIGMAS
        });
        let reason = match (waiting.by_distance, disagrees) {
            (true, _) => Reason::Distance,
            (false, true) => Reason::Disagreement,
            (false, false) => return None,
        };
        let travelled_m = camera.kept_at_m.map(|at_m| self.travelled_m - at_m);
        camera.kept_at_m = Some(self.travelled_m);
        Some(Chosen {
            frame: waiting.frame,
            arrived_ns: waiting.arrived_ns,
            reason,
            travelled_m,
            disagreement,
        })
    }

    /// Whether the vehicle is known to be outside of every zone.
    fn may_keep(&self, arrived_ns: i64) -> bool {
        let Some(latest) = self.latest.as_ref().filter(|e| e.state != State::Lost) else {
            return false;
        };
        let age_ns = arrived_ns.saturating_sub(self.latest_arrived_ns);
        if !(0..=OLD_NS).contains(&age_ns) {
            return false;
        }
        let way_m = latest.speed_mps.abs() * (FRAME_LATENCY_S + age_ns as f64 * 1e-9);
        let within_m = latest.protection_radius_m + way_m;
        let zones = &self.config.zones;
        !zones
            .iter()
            .any(|zone| zone.reaches(latest.position, within_m))
    }

    /// From the best place of the heatmap to the latest fix, moved along to the time of the frame.
    fn disagreement(&self, found: &Match) -> Option<[f64; 2]> {
        let (fix, latest) = (self.fix.as_ref()?, self.latest.as_ref()?);
        let age_ns = found.fix.time_ns.saturating_sub(fix.time_ns);
        if age_ns.saturating_abs() > OLD_NS {
            return None;
        }
        let way_m = latest.speed_mps * age_ns as f64 * 1e-9;
        let (sin, cos) = latest.yaw.radians().sin_cos();
        let frame = LocalFrame::new(found.fix.centre);
        let [east, north] = frame.enu_from_geodetic(fix.position).horizontal();
        let mode_m = found.fix.heatmap.mode().offset_m;
        let off = Enu::new(
            mode_m[0] - east - way_m * cos,
            mode_m[1] - north - way_m * sin,
            0.0,
        );
        let heatmap = found.fix.heatmap.covariance_m2(mode_m);
        let sum = |row: usize, col: usize| heatmap[row][col] + fix.covariance_m2[row][col];
        let (ee, en, nn) = (sum(0, 0), 0.5 * (sum(0, 1) + sum(1, 0)), sum(1, 1));
        let determinant = ee * nn - en * en;
        let [x, y] = off.horizontal();
        let squared = (nn * x * x - 2.0 * en * x * y + ee * y * y) / determinant;
        (determinant > 0.0 && squared.is_finite()).then(|| [x.hypot(y), squared.max(0.0).sqrt()])
    }
}
