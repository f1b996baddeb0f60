//! Align, patch, match, fuse: events in, estimates out.
//!
//! The core opens nothing (the tile store it was given reads tiles) and never asks for the clock, so a
//! recorded drive gives the same bytes at any speed. Nothing that arrives stops it: what cannot be
//! used is counted, and the estimates say what is missing.

pub mod frame_quality;
mod passing;
mod receiver_warnings;
mod rig;
mod trigger;

use std::sync::Arc;

use crossfix_calibration::{Camera, RgbImage};
use serde::Serialize;
use tracing::warn;

use self::frame_quality::FrameQuality;
use self::passing::LONGEST_PAUSE_NS;
use self::receiver_warnings::ReceiverWarnings;
use self::rig::Moment;
pub use self::rig::Rig;
use self::trigger::MatchTrigger;
use crate::card::StudentCard;
use crate::clocks::{ClockConfig, ClockHealth, Clocks, TimeVerdict};
use crate::config::MatchingConfig;
use crate::event::{
    Arrival, CameraFrame, CrossViewFix, Estimate, EstimateKind, Event, Look, Match, State,
};
use crate::fusion::{Fusion, FusionConfig, Pose, SourceVerdict, Unused};
use crate::image_decode::decode_rgb;
use crate::matcher::ground::{self, GroundMapper};
use crate::matcher::{GroundStrip, Inside, MatchTimings, Matcher, ModelFile, match_over};
use crate::tiles::TileStore;

/// Largest camera picture, pixels a side.
const LARGEST_FRAME_PX: usize = 8192;
/// Estimates between measurements come at most this often, nanoseconds (10 Hz, give or take jitter).
const OUTPUT_SPACING_NS: i64 = 95_000_000;
/// No estimate is dead-reckoned this long before a fix is due, nanoseconds: a better one follows.
const BEFORE_FIX_NS: i64 = 25_000_000;
/// Nor this long after it was due, nanoseconds: receivers take their time, and so do busy machines.
const AFTER_FIX_NS: i64 = 95_000_000;
/// A protection radius holds for a frame this long before or after it, nanoseconds.
const RADIUS_HOLDS_NS: i64 = 1_000_000_000;
/// Longest interval between fixes that makes the next one expected, nanoseconds.
const LONGEST_CADENCE_NS: i64 = 2_500_000_000;

/// What became of the events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CoreCounters {
    /// Fixes used.
    pub fixes: u64,
    /// Fixes that were invalid or too late.
    pub fixes_unused: u64,
    /// Odometry samples used.
    pub odometry: u64,
    /// Odometry samples that were invalid.
    pub odometry_unused: u64,
    /// Frames that became heatmaps.
    pub frames: u64,
    /// Frames passed over because the vehicle had hardly moved.
    pub frames_near: u64,
    /// Frames not matched because the position was known well enough without (`[matching]`).
    pub frames_skipped: u64,
    /// Frames that were matched with a part of the patch (`[matching] whole_every`).
    pub frames_windowed: u64,
    /// Frames that were matched without all cameras of the rig (`[rig]`).
    pub frames_partial: u64,
    /// Frames that could not be used: late, corrupt, no tile, no heading.
    pub frames_unused: u64,
    /// Events that were not used because of their stamps.
    pub times_doubted: u64,
    /// Times that everything started over.
    pub restarts: u64,
}

/// The core of the daemon.
pub struct Core {
    fusion: Fusion,
    camera: Option<Arc<Camera>>,
    /// Puts the frames of several cameras together.
    rig: Option<Rig>,
    tiles: Option<TileStore>,
    matcher: Option<Box<dyn Matcher>>,
    /// What keeps the camera from contributing, as a sentence.
    missing: Option<String>,
    clocks: Clocks,
    /// The latest arrival or tick.
    last_arrived_ns: Option<i64>,
    /// The latest output; states and reasons of those still count when everything starts over.
    last: Vec<Estimate>,
    last_output_ns: i64,
    /// Time of the last fix, and since the one before.
    cadence_ns: Option<(i64, i64)>,
    /// [`Clocks::steps`] when it was last looked at.
    clock_steps: u64,
    counters: CoreCounters,
    timings: MatchTimings,
    new_match: Option<Match>,
    new_look: Option<Look>,
    trigger: MatchTrigger,
    quality: FrameQuality,
    warnings: ReceiverWarnings,
    /// Where the student's ground image lies in the camera's pictures.
    mapper: Option<GroundMapper>,
    /// Frames in a row that could not be used.
    unusable_in_a_row: u32,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

impl Core {
    /// A core without any event yet. Without camera, tiles or matcher it goes on with the rest.
    pub fn new(
        config: FusionConfig,
        camera: Option<Camera>,
        tiles: Option<TileStore>,
        matcher: Option<Box<dyn Matcher>>,
    ) -> Self {
        let georef_sigma_m = tiles
            .as_ref()
            .map_or(0.0, |tiles| tiles.manifest().georef_sigma_m);
        let mut core = Self {
            trigger: MatchTrigger::new(MatchingConfig::default(), &config),
            fusion: Fusion::new(config, georef_sigma_m),
            camera: camera.map(Arc::new),
            rig: None,
            tiles,
            matcher,
            missing: None,
            clocks: Clocks::default(),
            last_arrived_ns: None,
            last: Vec::new(),
            last_output_ns: i64::MIN,
            cadence_ns: None,
            clock_steps: 0,
            counters: CoreCounters::default(),
            timings: MatchTimings::default(),
            new_match: None,
            new_look: None,
            quality: FrameQuality::default(),
            warnings: ReceiverWarnings::default(),
            mapper: None,
            unusable_in_a_row: 0,
        };
        core.missing = core.absent();
        core.believe_card();
        core
    }

    /// Judges the clocks of the sources by this from now on.
    pub fn set_clocks(&mut self, config: ClockConfig) {
        self.clocks = Clocks::new(config);
    }

    /// Chooses the frames to match by this from now on.
    pub fn set_matching(&mut self, config: MatchingConfig) {
        if config.whole_every > 1
            && let Some(matcher) = &self.matcher
            && matcher.card().window.is_none()
        {
            warn!(
                "matching.whole_every does nothing: the student has no window (crossfix export --window)"
            );
        }
        self.trigger = MatchTrigger::new(config, self.fusion.config());
    }

    /// Uses another camera calibration from now on; with a rig, that of its panorama stays.
    pub fn set_camera(&mut self, camera: Camera) {
        if self.rig.is_none() {
            self.camera = Some(Arc::new(camera));
            self.missing = self.absent();
        }
    }

    /// Stitches the frames of several cameras from now on.
    pub fn set_rig(&mut self, rig: Rig) {
        self.camera = Some(Arc::new(rig.camera().clone()));
        self.rig = Some(rig);
        self.missing = self.absent();
    }

    /// The file of the student, if it has one.
    pub fn model_file(&self) -> Option<&ModelFile> {
        self.matcher.as_ref()?.file()
    }

    /// Uses another student from now on.
    pub fn set_matcher(&mut self, matcher: Box<dyn Matcher>) {
        self.matcher = Some(matcher);
        self.missing = self.absent();
        self.believe_card();
    }

    /// Takes the share of heatmaps that mean nothing from the student's card, where the config sets none.
    fn believe_card(&mut self) {
        let card = self.matcher.as_ref().map(|matcher| matcher.card());
        let share = card.and_then(StudentCard::outlier_share);
        self.fusion.set_student_outlier_share(share);
    }

    /// What the checks between the sources found.
    pub fn verdicts(&self) -> Vec<SourceVerdict> {
        self.fusion.verdicts()
    }

    /// What became of the events so far.
    pub fn counters(&self) -> CoreCounters {
        self.counters
    }

    /// How long the last match took; for people, nothing depends on it.
    pub fn timings(&self) -> MatchTimings {
        self.timings
    }

    /// The match of the latest event, if it was a frame that was used; each is handed out once.
    pub fn take_match(&mut self) -> Option<Match> {
        self.new_match.take()
    }

    /// What that match was made of, if the whole patch was looked at; each is handed out once.
    pub fn take_look(&mut self) -> Option<Look> {
        self.new_look.take()
    }

    /// The grid of the centres of patches, metres, and the share of heatmaps that mean nothing.
    pub fn patches_and_outliers(&self) -> (f64, f64) {
        let config = self.fusion.config();
        (config.patch_grid_m, config.outlier_share())
    }

    /// What is thought of each source's clock at `arrived_now_ns`.
    pub fn clocks(&self, arrived_now_ns: i64) -> Vec<ClockHealth> {
        self.clocks.health(arrived_now_ns)
    }

    /// Takes in one event. After a fix or a heatmap, and at 10 Hz with odometry, there are estimates.
    pub fn handle(&mut self, mut arrival: Arrival) -> Vec<Estimate> {
        if let Event::SourceState { source, up, .. } = &arrival.event {
            tracing::info!(source = source.as_str(), up, "source changed");
            return Vec::new();
        }
        let set_back = self.clocks.went_back(&arrival);
        let mut estimates = self.note_passing(arrival.arrived_ns, set_back);
        let verdict = self.clocks.judge(&mut arrival);
        let steps = self.clocks.steps();
        if std::mem::replace(&mut self.clock_steps, steps) != steps {
            self.fusion.doubt_picture_times();
        }
        match verdict {
            TimeVerdict::Use => {}
            TimeVerdict::Wait => return estimates,
            TimeVerdict::SetAside => {
                self.counters.times_doubted += 1;
                self.note_set_aside(&arrival);
                return estimates;
            }
            TimeVerdict::StartOver => {
                let reason = format!("the clock of {} was set", arrival.source);
                estimates.extend(self.start_over(&reason, arrival.arrived_ns));
            }
        }
        estimates.extend(self.use_event(arrival));
        estimates
    }

    /// It is `arrived_now_ns` on the clock of the arrivals: dead-reckons to there, so that silence shows
    /// in the estimates. There is nothing before the first fix, and while a fix is due any moment; ask
    /// again a little later.
    pub fn tick(&mut self, arrived_now_ns: i64) -> Vec<Estimate> {
        let estimates = self.note_passing(arrived_now_ns, false);
        if !estimates.is_empty() {
            return estimates;
        }
        let (Some(gnss_ns), Some(time_ns)) = (
            self.clocks.gnss_ns(arrived_now_ns),
            self.clocks.now_ns(arrived_now_ns),
        ) else {
            return Vec::new();
        };
        let Some(reached_ns) = self.fusion.now_ns() else {
            return self.still_lost(time_ns);
        };
        if time_ns <= reached_ns || self.fix_is_due(gnss_ns) {
            return Vec::new();
        }
        if time_ns.saturating_sub(reached_ns) > 2 * LONGEST_PAUSE_NS {
            return self.start_over("the measurements stopped", arrived_now_ns);
        }
        self.fusion.look_ahead(time_ns);
        if self.output_is_due() {
            self.estimates()
        } else {
            Vec::new()
        }
    }

    fn use_event(&mut self, arrival: Arrival) -> Vec<Estimate> {
        let Arrival { source, event, .. } = arrival;
        let due = match event {
            Event::Gnss(fix) if !self.warnings.note(&source, &fix) => {
                self.counters.fixes_unused += 1;
                false
            }
            Event::Gnss(fix) => {
                let used = self.fusion.on_gnss(&source, &fix);
                if used.is_ok() {
                    self.note_cadence(fix.time_ns);
                }
                let changed = used == Err(Unused::Contradicts);
                count(
                    used,
                    &mut self.counters.fixes,
                    &mut self.counters.fixes_unused,
                ) || changed
            }
            Event::Odometry(sample) => {
                let used = self.fusion.on_odometry(&sample);
                count(
                    used,
                    &mut self.counters.odometry,
                    &mut self.counters.odometry_unused,
                ) && self.output_is_due()
            }
            Event::Frame(frame) => match &mut self.rig {
                None => self.frame(&Seen::Frame(frame)),
                Some(rig) => {
                    if let Err(problem) = rig.take(frame) {
                        self.counters.frames_unused += 1;
                        tracing::debug!(problem, "frame not used");
                    }
                    self.moments()
                }
            },
            Event::SourceState { .. } => false,
        };
        if due { self.estimates() } else { Vec::new() }
    }

    /// Matches what the rig has put together; whether there is something to say.
    fn moments(&mut self) -> bool {
        let mut is_due = false;
        while let Some(moment) = self.rig.as_mut().and_then(Rig::next) {
            match moment {
                Ok(moment) => is_due |= self.frame(&Seen::Moment(moment)),
                Err(problem) => {
                    self.counters.frames_unused += 1;
                    tracing::debug!(problem, "moment not used");
                }
            }
        }
        is_due
    }

    fn note_cadence(&mut self, fix_ns: i64) {
        let since_ns = self
            .cadence_ns
            .map_or(0, |(last_ns, _)| fix_ns.saturating_sub(last_ns));
        self.cadence_ns = Some((fix_ns, since_ns));
    }

    /// Whether the receiver's rhythm has a fix just about now.
    fn fix_is_due(&self, time_ns: i64) -> bool {
        let Some((last_ns, interval_ns)) = self.cadence_ns else {
            return false;
        };
        let since_ns = time_ns.saturating_sub(last_ns);
        let timeout_ns = (self.fusion.config().gnss_timeout_s * 1e9) as i64;
        if !(1..LONGEST_CADENCE_NS).contains(&interval_ns) || since_ns > timeout_ns {
            return false;
        }
        let before_ns = BEFORE_FIX_NS.min(interval_ns / 4);
        let after_ns = AFTER_FIX_NS.min(interval_ns / 4);
        since_ns > interval_ns / 2
            && (since_ns + before_ns).rem_euclid(interval_ns) < before_ns + after_ns
    }

    fn estimates(&mut self) -> Vec<Estimate> {
        let warnings = self
            .fusion
            .now_ns()
            .map_or_else(Vec::new, |now_ns| self.warnings.sentences(now_ns));
        let estimates = self
            .fusion
            .estimates_warned(self.missing.as_deref(), warnings);
        if estimates.is_empty() {
            let now_ns = self.fusion.now_ns();
            return now_ns.map_or_else(Vec::new, |now_ns| self.still_lost(now_ns));
        }
        self.last_output_ns = self.fusion.now_ns().unwrap_or(i64::MIN);
        self.last.clone_from(&estimates);
        estimates
    }

    fn output_is_due(&self) -> bool {
        let now_ns = self.fusion.now_ns().unwrap_or(i64::MIN);
        now_ns >= self.last_output_ns.saturating_add(OUTPUT_SPACING_NS)
    }

    fn frame(&mut self, seen: &Seen) -> bool {
        let time_ns = seen.time_ns();
        self.fusion.reach(time_ns);
        let wanted = self.fusion.wants_frame(time_ns);
        let ok = self
            .last
            .iter()
            .find(|estimate| estimate.kind == EstimateKind::Fused && estimate.state == State::Ok);
        let is_ok = ok.is_some();
        let fresh =
            ok.filter(|it| time_ns.saturating_sub(it.time_ns).saturating_abs() <= RADIUS_HOLDS_NS);
        let radius_m = fresh.map(|estimate| estimate.protection_radius_m);
        if let Ok(pose) = &wanted
            && !self.trigger.fires(time_ns, pose, is_ok)
        {
            self.counters.frames_skipped += 1;
            return false;
        }
        let result = wanted
            .map_err(|unused| (unused == Unused::TooNear, unused.to_string()))
            .and_then(|pose| {
                let found = self
                    .matched(seen, pose, radius_m)
                    .map_err(|problem| (false, problem))?;
                Ok((pose, found))
            })
            .and_then(|(pose, (found, frame))| {
                self.fusion
                    .on_visual(&found.fix)
                    .map_err(|unused| (false, unused.to_string()))?;
                Ok((pose, found, frame))
            });
        match result {
            Ok((pose, found, frame)) => {
                self.counters.frames += 1;
                self.trigger.note_match(time_ns);
                self.unusable_in_a_row = 0;
                self.missing = None;
                self.new_match = Some(found);
                // A part of the patch cannot be compared with a whole one.
                let calibration = self.camera.clone().filter(|_| self.trigger.saw_whole());
                self.new_look = calibration.map(|calibration| Look {
                    frame,
                    pose,
                    calibration,
                });
                true
            }
            Err((true, _)) => {
                self.counters.frames_near += 1;
                false
            }
            Err((false, problem)) => {
                self.counters.frames_unused += 1;
                tracing::debug!(problem, time_ns, "frame not used");
                self.unusable_in_a_row += 1;
                // One bad frame changes nothing.
                if self.unusable_in_a_row >= 2 {
                    self.missing = Some(problem);
                }
                false
            }
        }
    }

    /// The picture, and the frame that it is of.
    fn picture(&mut self, seen: &Seen) -> Result<(RgbImage, CameraFrame), String> {
        match (seen, &mut self.rig) {
            (Seen::Moment(moment), Some(rig)) => {
                let stitched = rig.stitch(moment, LARGEST_FRAME_PX)?;
                self.counters.frames_partial += u64::from(!stitched.is_whole);
                Ok((stitched.picture, stitched.frame))
            }
            (Seen::Moment(_), None) => Err("not set up".to_owned()),
            (Seen::Frame(frame), _) => {
                let picture = decode_rgb(&frame.image, LARGEST_FRAME_PX)
                    .map_err(|e| format!("the frame of camera \"{}\" {e}", frame.camera))?;
                Ok((picture, frame.clone()))
            }
        }
    }

    /// Align, patch, match. The vehicle is within `radius_m` metres of the pose, where that is known.
    fn matched(
        &mut self,
        seen: &Seen,
        pose: Pose,
        radius_m: Option<f64>,
    ) -> Result<(Match, CameraFrame), String> {
        if let Some(absent) = self.absent() {
            return Err(absent);
        }
        let (picture, frame) = self.picture(seen)?;
        let (Some(camera), Some(tiles), Some(matcher)) =
            (&self.camera, &mut self.tiles, &mut self.matcher)
        else {
            return Err("not set up".to_owned());
        };
        let config = self.fusion.config();
        self.quality
            .judge(&picture)
            .map_err(|problem| format!("camera \"{}\": {problem}", frame.camera))?;
        let card = matcher.card();
        let yaw_rad = pose.yaw.radians();
        let (strip, left_azimuth_rad) =
            ground::cut(&mut self.mapper, camera, &card.ground, yaw_rad, &picture)
                .map_err(|e| e.to_string())?;
        let spec = card.aerial.patch_spec();
        let (georeference, patch) = tiles
            .patch(pose.position, spec, config.patch_grid_m)
            .map_err(|e| e.to_string())?;
        let strip = GroundStrip {
            image: &strip,
            left_azimuth_rad,
        };
        let over = (&georeference, &*patch);
        let inside = self.trigger.radius_m(radius_m).map(|radius_m| {
            let offset = georeference.frame().enu_from_geodetic(pose.position);
            Inside {
                offset_m: [offset.east(), offset.north()],
                radius_m,
            }
        });
        let result = match_over(matcher.as_mut(), strip, yaw_rad, over, Some(tiles), inside)?;
        self.trigger.note_extent(result.part.is_some());
        self.counters.frames_windowed += u64::from(result.part.is_some());
        self.timings = result.timings;
        let sigma_rad = config.visual_yaw_sigma_deg.to_radians();
        let fix = CrossViewFix {
            time_ns: frame.time_ns,
            centre: georeference.centre(),
            heatmap: result.heatmap,
            yaw: result
                .yaw_residual_rad
                .filter(|_| sigma_rad > 0.0)
                .map(|residual| pose.yaw.turned(residual)),
            yaw_sigma_rad: sigma_rad,
        };
        let found = Match {
            fix,
            georeference,
            patch,
            camera: frame.camera.clone(),
        };
        Ok((found, frame))
    }

    /// Which part of the camera's path is not set up.
    fn absent(&self) -> Option<String> {
        let absent = if self.matcher.is_none() {
            "no student"
        } else if self.tiles.is_none() {
            "no aerial tiles"
        } else if self.camera.is_none() {
            "no camera calibration"
        } else {
            return None;
        };
        Some(absent.to_owned())
    }
}

/// What is matched: the frame of one camera, or those of a rig's cameras at one moment.
enum Seen {
    Frame(CameraFrame),
    Moment(Moment),
}

impl Seen {
    fn time_ns(&self) -> i64 {
        match self {
            Self::Frame(frame) => frame.time_ns,
            Self::Moment(moment) => moment.time_ns(),
        }
    }
}

fn count(used: Result<(), Unused>, good: &mut u64, bad: &mut u64) -> bool {
    *if used.is_ok() { good } else { bad } += 1;
    used.is_ok()
}

#[cfg(test)]
pub(crate) mod tests;
