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
mod navigator;
mod state;
#[cfg(test)]
mod synthetic;
mod visual;

use crossfix_calibration::belief::BeliefEstimate;
use crossfix_calibration::{Enu, Geodetic, Heatmap, LocalFrame};
use nalgebra::{Matrix2, Vector2};

pub use config::FusionConfig;
use history::{History, TrackPoint};
use jump::{JumpGuard, Place, Verdict};
use navigator::{Motion, Navigator};
use state::Health;
use visual::VisualBelief;

use crate::event::{
    CrossViewFix, Estimate, EstimateKind, GnssFix, OdometrySample, yaw_rad_from_heading_deg,
};

/// Longest step of the dead reckoning, seconds.
const LONGEST_STEP_S: f64 = 0.1;
/// The local frame gets a new origin when the vehicle is this far from it.
const FRAME_RADIUS_M: f64 = 10_000.0;
/// Below this speed the course over ground is noise.
const SLOWEST_COURSE_MPS: f64 = 2.0;
/// 1-sigma of a speed that a receiver tells, m/s.
const TOLD_SPEED_SIGMA_MPS: f64 = 0.7;
/// 1-sigma of the speed of a vehicle whose receiver tells none, m/s.
const UNTOLD_SPEED_SIGMA_MPS: f64 = 15.0;
/// Speed that a vehicle may have when nothing tells, 1-sigma, m/s.
const BLIND_SPEED_MPS: f64 = 10.0;
/// Fixes in a row that contradict everything known, and agree with each other, before they win.
const CONTRADICTIONS: usize = 8;
/// Seconds that pass between absolute headings that count; those in between repeat them.
const HEADING_SPACING_S: f64 = 1.0;
/// Headings err alike for about this many of them, so each counts for less.
const HEADING_REPETITION: f64 = 10.0;

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
    /// Radians counter-clockwise from east.
    pub yaw_rad: f64,
    /// 1-sigma error of `yaw_rad`, radians.
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
    gnss_motion: Option<(i64, Motion, Option<f64>)>,
    last_fix: Option<(i64, Geodetic)>,
    heading_ns: i64,
    reset_count: u32,
    /// Where the measurements had left things before ticks led on from there.
    measured: Option<Measured>,
}

/// What a tick changes. The next measurement starts from here, so that ticks are only looks ahead and
/// the estimates after a measurement do not depend on when anybody looked.
#[derive(Debug, Clone)]
struct Measured {
    now_ns: i64,
    frame: LocalFrame,
    navigator: Navigator,
    history: History,
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
            measured: None,
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

    /// Looks ahead to `time_ns` by dead reckoning; earlier times change nothing. The next measurement
    /// is taken in as if there had been no look.
    pub fn look_ahead(&mut self, time_ns: i64) {
        if time_ns <= self.now_ns {
            return;
        }
        if let (None, Some(started)) = (&self.measured, &self.started) {
            self.measured = Some(Measured {
                now_ns: self.now_ns,
                frame: started.frame.clone(),
                navigator: started.navigator.clone(),
                history: started.history.clone(),
            });
        }
        self.advance(time_ns);
    }

    /// A frame is from `time_ns`: dead-reckons to there for good; earlier times change nothing.
    pub fn reach(&mut self, time_ns: i64) {
        self.measure(|fusion| fusion.advance(time_ns));
    }

    /// Takes a measurement in from where the measurements had left things, and then looks as far
    /// ahead as before.
    fn measure<T>(&mut self, take_in: impl FnOnce(&mut Self) -> T) -> T {
        let ahead_ns = self.now_ns;
        if let (Some(measured), Some(started)) = (self.measured.take(), &mut self.started) {
            self.now_ns = measured.now_ns;
            started.frame = measured.frame;
            started.navigator = measured.navigator;
            started.history = measured.history;
        }
        let result = take_in(self);
        self.look_ahead(ahead_ns);
        result
    }

    fn advance(&mut self, time_ns: i64) {
        if self.now_ns == i64::MIN || self.started.is_none() {
            self.now_ns = self.now_ns.max(time_ns);
            return;
        }
        while self.now_ns < time_ns {
            let step_ns = (time_ns - self.now_ns).min((LONGEST_STEP_S * 1e9) as i64);
            let motion = self.motion(self.now_ns + step_ns);
            self.step(step_ns, motion);
        }
    }

    /// Takes in speed, yaw rate and perhaps heading.
    ///
    /// # Errors
    /// [`Unused`] when it was not usable.
    pub fn on_odometry(&mut self, sample: &OdometrySample) -> Result<(), Unused> {
        self.measure(|fusion| fusion.take_odometry(sample))
    }

    fn take_odometry(&mut self, sample: &OdometrySample) -> Result<(), Unused> {
        let numbers = [
            sample.forward_speed_mps,
            sample.yaw_rate_rps,
            sample.speed_sigma_mps,
            sample.yaw_rate_sigma_rps,
        ];
        let sane = numbers.iter().all(|v| v.is_finite())
            && sample.forward_speed_mps.abs() < 150.0
            && sample.yaw_rate_rps.abs() < 10.0;
        if !sane {
            return Err(Unused::Invalid);
        }
        let motion = Motion {
            speed_mps: sample.forward_speed_mps,
            yaw_rate_rps: sample.yaw_rate_rps,
            speed_sigma_mps: sample.speed_sigma_mps.clamp(0.0, 50.0),
            yaw_rate_sigma_rps: sample.yaw_rate_sigma_rps.clamp(0.0, 1.0),
            lasting: true,
        };
        // Between two samples the motion was between them too.
        if let (Some((time_ns, before)), true) = (self.odometry, sample.time_ns > self.now_ns)
            && sample.time_ns - time_ns <= seconds(self.config.odometry_timeout_s)
            && time_ns <= self.now_ns
        {
            let half = |a: f64, b: f64| 0.5 * (a + b);
            let middle = Motion {
                speed_mps: half(before.speed_mps, motion.speed_mps),
                yaw_rate_rps: half(before.yaw_rate_rps, motion.yaw_rate_rps),
                ..motion
            };
            self.odometry = Some((sample.time_ns, middle));
        }
        self.advance(sample.time_ns);
        if self
            .odometry
            .is_none_or(|(time_ns, _)| time_ns <= sample.time_ns)
        {
            self.odometry = Some((sample.time_ns, motion));
        }
        if let Some(heading) = sample.heading
            && heading.yaw_rad.is_finite()
            && heading.sigma_rad > 0.0
            && sample.time_ns >= self.heading_ns.saturating_add(seconds(HEADING_SPACING_S))
            && let Some(started) = &mut self.started
            && let Some(then) = started.history.at(sample.time_ns)
        {
            self.heading_ns = sample.time_ns;
            let first = !started.navigator.yaw_known();
            let repetition = if first {
                1.0
            } else {
                HEADING_REPETITION.sqrt()
            };
            let sigma_rad = heading.sigma_rad.clamp(0.005, 1.5) * repetition;
            started
                .navigator
                .update_yaw(heading.yaw_rad, then.yaw_rad, sigma_rad);
            self.remember();
        }
        Ok(())
    }

    /// Takes in a GNSS fix.
    ///
    /// # Errors
    /// [`Unused`] when it was not usable.
    pub fn on_gnss(&mut self, fix: &GnssFix) -> Result<(), Unused> {
        self.measure(|fusion| fusion.take_gnss(fix))
    }

    fn take_gnss(&mut self, fix: &GnssFix) -> Result<(), Unused> {
        let covariance = self.believed_covariance(fix).ok_or(Unused::Invalid)?;
        if fix.position.check().is_err() {
            return Err(Unused::Invalid);
        }
        if self.last_fix == Some((fix.time_ns, fix.position)) {
            return Err(Unused::Repeated);
        }
        if let Some(started) = &self.started
            && fix.time_ns < self.now_ns
            && started.history.at(fix.time_ns).is_none()
        {
            return Err(Unused::TooLate);
        }
        let silence_ns = self
            .gnss_motion
            .map_or(0, |(at_ns, ..)| fix.time_ns.saturating_sub(at_ns));
        if silence_ns > seconds(self.config.gnss_timeout_s) {
            // What the receiver says now tells nothing about the way through a long gap.
            self.advance(fix.time_ns);
        }
        self.last_fix = Some((fix.time_ns, fix.position));
        let since = self.note_gnss_motion(fix);
        let from_now_on = self.gnss_motion;
        if let (Some(since), Some((_, motion, _))) = (since, &mut self.gnss_motion) {
            *motion = since;
        }
        self.advance(fix.time_ns);
        self.gnss_motion = from_now_on;
        if self.started.is_none() {
            self.start(fix, covariance);
        }
        let config = &self.config;
        let Some(started) = &mut self.started else {
            return Err(Unused::NotStarted);
        };
        let Some(then) = started.history.at(fix.time_ns) else {
            return Err(Unused::TooLate);
        };
        let fix_m = plane_from_geodetic(&started.frame, fix.position);
        if fix.dimension == crate::event::FixDimension::Three {
            started.height_m = fix.position.height_m;
        }
        let first = started.gnss_ns == i64::MIN;
        if !first {
            let contradicts =
                started
                    .navigator
                    .update_position(fix_m, covariance, then.track_m, config);
            let offset_m = [fix_m[0] - then.track_m[0], fix_m[1] - then.track_m[1]];
            let tolerance_m = 3.0 * covariance.trace().sqrt() + config.jump_m;
            let repeats = started.contradictions.last().is_none_or(|last| {
                (last[0] - offset_m[0]).hypot(last[1] - offset_m[1]) < tolerance_m
            });
            if !contradicts || !repeats {
                started.contradictions.clear();
            }
            if contradicts {
                started.contradictions.push(offset_m);
            }
            if started.contradictions.len() >= CONTRADICTIONS
                && !visual_is_fresh(started, self.now_ns, config)
            {
                let now_m = [0, 1].map(|axis| offset_m[axis] + started.navigator.track_m()[axis]);
                started.navigator.relocate(now_m, covariance, config);
                started.contradictions.clear();
                started.visual = None;
                started.visual_only = None;
                started.visual_only_updates = 0;
                self.reset_count = self.reset_count.wrapping_add(1);
            }
        }
        started.gnss_ns = started.gnss_ns.max(fix.time_ns);
        self.use_course(fix, then);
        self.remember();
        self.refresh();
        Ok(())
    }

    /// Takes in what a frame and an aerial patch said together.
    ///
    /// # Errors
    /// [`Unused`] when it was not usable.
    pub fn on_visual(&mut self, fix: &CrossViewFix) -> Result<(), Unused> {
        self.measure(|fusion| fusion.take_visual(fix))
    }

    fn take_visual(&mut self, fix: &CrossViewFix) -> Result<(), Unused> {
        self.advance(fix.time_ns);
        let (config, now_ns) = (&self.config, self.now_ns);
        let Some(started) = &mut self.started else {
            return Err(Unused::NotStarted);
        };
        let Some(then) = started.history.at(fix.time_ns) else {
            return Err(Unused::TooLate);
        };
        let centre_m = plane_from_geodetic(&started.frame, fix.centre);
        let centre_m = [centre_m[0] - then.track_m[0], centre_m[1] - then.track_m[1]];
        let track_variance_m2 = started.navigator.track_variance_m2;
        if started.visual.is_none() {
            started.visual =
                VisualBelief::new(started.fused.place.offset_m, track_variance_m2, config).ok();
        }
        let Some(visual) = &mut started.visual else {
            return Err(Unused::Invalid);
        };
        if visual
            .update(&fix.heatmap, centre_m, track_variance_m2, config)
            .is_err()
        {
            return Err(Unused::Invalid);
        }
        started.last_visual = Some((fix.time_ns.min(now_ns), then.driven_m));
        self.refresh();
        self.use_visual_yaw(fix, centre_m, then);
        Ok(())
    }

    /// Whether a frame of this time would be used.
    ///
    /// # Errors
    /// [`Unused`] saying why not.
    pub fn wants_frame(&self, time_ns: i64) -> Result<Pose, Unused> {
        let started = self.started.as_ref().ok_or(Unused::NotStarted)?;
        if !started.navigator.yaw_known() {
            return Err(Unused::NoHeading);
        }
        let then = started.history.at(time_ns).ok_or(Unused::TooLate)?;
        if let Some((_, driven_m)) = started.last_visual
            && (then.driven_m - driven_m).abs() < self.config.visual_spacing_m
        {
            return Err(Unused::TooNear);
        }
        let offset_m = started.fused.place.offset_m;
        let place = [then.track_m[0] + offset_m[0], then.track_m[1] + offset_m[1]];
        Ok(Pose {
            position: geodetic_from_plane(&started.frame, place, started.height_m)
                .ok_or(Unused::Invalid)?,
            yaw_rad: then.yaw_rad,
            yaw_sigma_rad: started.navigator.yaw_sigma_rad(),
        })
    }

    /// Where the vehicle is now: `fused` first, then `visual_only` once there was a heatmap. Before
    /// the first fix there is nothing. `missing` says what the caller knows to be missing.
    pub fn estimates(&self, missing: Option<&str>) -> Vec<Estimate> {
        let Some(started) = &self.started else {
            return Vec::new();
        };
        let health = self.health(started, missing);
        let mut estimates = Vec::new();
        let outputs = [
            (EstimateKind::Fused, Some(started.fused)),
            (EstimateKind::VisualOnly, started.visual_only),
        ];
        for (kind, published) in outputs {
            let Some(published) = published else { continue };
            estimates.extend(self.estimate(started, kind, published, &health));
        }
        estimates
    }

    fn estimate(
        &self,
        started: &Started,
        kind: EstimateKind,
        published: Published,
        health: &Health,
    ) -> Option<Estimate> {
        let (config, navigator) = (&self.config, &started.navigator);
        let offset_m = published.place.offset_m;
        let track_m = navigator.track_m();
        let place = [track_m[0] + offset_m[0], track_m[1] + offset_m[1]];
        let speed_mps = self.motion(self.now_ns).speed_mps * navigator.speed_scale();
        let (sine, cosine) = navigator.yaw_rad().sin_cos();
        let mut extra = Matrix2::identity()
            * ((navigator.track_variance_m2 - published.track_variance_m2).max(0.0)
                + config.position_floor_m.powi(2));
        if started.visual.is_some() {
            extra += Matrix2::identity() * self.georef_sigma_m.powi(2);
        }
        let along = Vector2::new(cosine, sine) * (speed_mps * config.sync_sigma_s);
        extra += along * along.transpose();
        let covariance = published.place.covariance_m2 + extra;
        // The bound of two independent errors, each within its own radius, summed in squares.
        let radius_m = (published.radius_m.powi(2)
            - 2.0 * config.protection_risk.ln() * extra.trace() / 2.0)
            .sqrt();
        let (state, reason) = health.judge(
            kind,
            largest_sigma(&covariance),
            published.mode_count,
            config,
        );
        Some(Estimate {
            time_ns: self.now_ns,
            position: geodetic_from_plane(&started.frame, place, started.height_m)?,
            covariance_m2: [
                [covariance[(0, 0)], covariance[(0, 1)]],
                [covariance[(1, 0)], covariance[(1, 1)]],
            ],
            height_m: started.height_m,
            yaw_rad: navigator.yaw_rad(),
            yaw_sigma_rad: navigator.yaw_sigma_rad(),
            speed_mps,
            mode_count: published.mode_count,
            protection_radius_m: radius_m,
            state,
            reset_count: self.reset_count,
            kind,
            reason,
        })
    }

    fn health(&self, started: &Started, missing: Option<&str>) -> Health {
        let fresh = |time_ns: i64, timeout_s: f64| {
            self.now_ns.saturating_sub(time_ns) <= seconds(timeout_s)
        };
        Health {
            gnss: fresh(started.gnss_ns, self.config.gnss_timeout_s),
            odometry: self
                .odometry
                .is_some_and(|(time_ns, _)| fresh(time_ns, self.config.odometry_timeout_s)),
            heading: started.navigator.yaw_known(),
            visual: visual_is_fresh(started, self.now_ns, &self.config),
            missing: missing.map(str::to_owned),
        }
    }

    fn start(&mut self, fix: &GnssFix, covariance: Matrix2<f64>) {
        let frame = LocalFrame::new(Geodetic {
            height_m: 0.0,
            ..fix.position
        });
        let navigator = Navigator::new([0.0, 0.0], covariance, &self.config);
        let place = Place {
            offset_m: [0.0, 0.0],
            covariance_m2: covariance,
        };
        let fused = Published {
            place,
            mode_count: 1,
            radius_m: gaussian_radius(&covariance, self.config.protection_risk),
            track_variance_m2: 0.0,
        };
        self.started = Some(Started {
            frame,
            height_m: fix.position.height_m,
            navigator,
            history: History::default(),
            visual: None,
            guard: JumpGuard::default(),
            gnss_ns: i64::MIN,
            contradictions: Vec::new(),
            last_visual: None,
            fused,
            visual_only: None,
            visual_only_updates: 0,
        });
        self.remember();
    }

    /// The stated covariance, with the floor and the factor of the config; nothing when it is none.
    fn believed_covariance(&self, fix: &GnssFix) -> Option<Matrix2<f64>> {
        let [[ee, en], [ne, nn]] = fix.covariance_m2;
        if ![ee, en, ne, nn].iter().all(|v| v.is_finite())
            || ee < 0.0
            || nn < 0.0
            || ee.max(nn) > 1e8
        {
            return None;
        }
        let factor = self.config.gnss_sigma_factor.powi(2);
        let floor = self.config.gnss_sigma_floor_m.powi(2);
        let (ee, nn) = ((ee * factor).max(floor), (nn * factor).max(floor));
        // An impossible correlation is a rounding error or a lie; the variances still mean something.
        let limit = 0.99 * (ee * nn).sqrt();
        let en = (0.5 * (en + ne) * factor).clamp(-limit, limit);
        Some(Matrix2::new(ee, en, en, nn))
    }

    /// Speed and turn rate from the receiver, for when there is no odometry. Gives the motion since
    /// the fix before, where both told it.
    fn note_gnss_motion(&mut self, fix: &GnssFix) -> Option<Motion> {
        let before = self.gnss_motion;
        if before.is_some_and(|(time_ns, ..)| fix.time_ns <= time_ns) {
            return None;
        }
        let speed = fix
            .speed_mps
            .filter(|v| v.is_finite() && (0.0..150.0).contains(v));
        let course = fix
            .track_deg
            .filter(|v| v.is_finite() && speed.is_some_and(|s| s > SLOWEST_COURSE_MPS))
            .map(yaw_rad_from_heading_deg);
        let yaw_rate_rps = match (before, course) {
            (Some((time_ns, _, Some(before))), Some(now))
                if fix.time_ns > time_ns && fix.time_ns - time_ns < seconds(2.5) =>
            {
                let dt_s = (fix.time_ns - time_ns) as f64 * 1e-9;
                (crate::event::wrap_rad(now - before) / dt_s).clamp(-1.0, 1.0)
            }
            _ => 0.0,
        };
        let motion = match speed {
            Some(speed_mps) => Motion {
                speed_mps,
                yaw_rate_rps,
                speed_sigma_mps: TOLD_SPEED_SIGMA_MPS,
                yaw_rate_sigma_rps: 0.15,
                lasting: false,
            },
            // Anything a road vehicle does: the fixes themselves have to say.
            None => Motion {
                speed_mps: 0.0,
                yaw_rate_rps: 0.0,
                speed_sigma_mps: UNTOLD_SPEED_SIGMA_MPS,
                yaw_rate_sigma_rps: 0.3,
                lasting: false,
            },
        };
        self.gnss_motion = Some((fix.time_ns, motion, course));
        let (time_ns, before, _) = before?;
        let told = |motion: &Motion| motion.speed_sigma_mps < UNTOLD_SPEED_SIGMA_MPS;
        let near = fix.time_ns - time_ns <= seconds(self.config.gnss_timeout_s);
        (near && told(&before) && told(&motion)).then_some(Motion {
            speed_mps: 0.5 * (before.speed_mps + motion.speed_mps),
            ..motion
        })
    }

    /// The motion to hold at `time_ns`: odometry, else the receiver's, else anything.
    fn motion(&self, time_ns: i64) -> Motion {
        if let Some((at_ns, motion)) = self.odometry
            && time_ns - at_ns <= seconds(self.config.odometry_timeout_s)
        {
            return motion;
        }
        if let Some((at_ns, motion, _)) = self.gnss_motion
            && time_ns - at_ns <= seconds(self.config.gnss_timeout_s)
        {
            return motion;
        }
        let heard_ns = self.odometry.map(|(at_ns, _)| at_ns);
        let heard_ns = heard_ns.max(self.gnss_motion.map(|(at_ns, ..)| at_ns));
        let blind_s = (time_ns - heard_ns.unwrap_or(time_ns)).max(0) as f64 * 1e-9;
        // An unknown but lasting speed puts the vehicle `BLIND_SPEED_MPS · t` away, not `√t`; this is
        // the noise per second whose sum is that square.
        Motion {
            speed_mps: 0.0,
            yaw_rate_rps: 0.0,
            speed_sigma_mps: BLIND_SPEED_MPS * (2.0 * blind_s).sqrt().max(1.0),
            yaw_rate_sigma_rps: 0.3,
            lasting: false,
        }
    }

    fn step(&mut self, step_ns: i64, motion: Motion) {
        let config = &self.config;
        self.now_ns += step_ns;
        if let Some(started) = &mut self.started {
            started
                .navigator
                .predict(step_ns as f64 * 1e-9, motion, config);
            let track_m = started.navigator.track_m();
            if track_m[0].hypot(track_m[1]) > FRAME_RADIUS_M {
                started.move_frame();
            }
        }
        self.remember();
    }

    /// Writes the track at `now_ns` into the history, replacing what was there for this moment.
    fn remember(&mut self) {
        let yaw_rate_rps = self.motion(self.now_ns).yaw_rate_rps;
        let (now_ns, keep_ns) = (self.now_ns, seconds(self.config.history_s));
        if let Some(started) = &mut self.started {
            let point = TrackPoint {
                time_ns: now_ns,
                track_m: started.navigator.track_m(),
                yaw_rad: started.navigator.yaw_rad(),
                driven_m: started.navigator.driven_m,
                yaw_rate_rps,
            };
            started.history.push(point, keep_ns);
        }
    }

    /// The receiver's speed and course against the odometry's.
    fn use_course(&mut self, fix: &GnssFix, then: TrackPoint) {
        let odometry = self.odometry.filter(|(time_ns, _)| {
            self.now_ns - time_ns <= seconds(self.config.odometry_timeout_s)
        });
        let Some(started) = &mut self.started else {
            return;
        };
        let Some(speed_mps) = fix.speed_mps.filter(|v| v.is_finite()) else {
            return;
        };
        if let Some(track_deg) = fix.track_deg.filter(|v| v.is_finite())
            && speed_mps > SLOWEST_COURSE_MPS
        {
            let backwards = odometry.is_some_and(|(_, motion)| motion.speed_mps < -0.5);
            let turn = if backwards { std::f64::consts::PI } else { 0.0 };
            // A receiver's course lags behind in a turn by a good part of its filter.
            let lag_rad = 0.3 * then.yaw_rate_rps.abs();
            let sigma_rad = (0.3f64 / speed_mps).hypot(0.02).hypot(lag_rad);
            started.navigator.update_yaw(
                yaw_rad_from_heading_deg(track_deg) + turn,
                then.yaw_rad,
                sigma_rad,
            );
        }
        if let Some((_, motion)) = odometry
            && motion.speed_mps > 5.0
            && speed_mps > 5.0
            && fix.time_ns == self.now_ns
        {
            let sigma = 0.5 / motion.speed_mps;
            started
                .navigator
                .update_scale(speed_mps / motion.speed_mps - 1.0, sigma);
        }
    }

    /// The network's yaw, if its heatmap's mode is where the vehicle turned out to be.
    fn use_visual_yaw(&mut self, fix: &CrossViewFix, centre_m: [f64; 2], then: TrackPoint) {
        let sigma_rad = fix.yaw_sigma_rad;
        let Some(yaw_rad) = fix.yaw_rad.filter(|v| v.is_finite() && sigma_rad > 0.0) else {
            return;
        };
        let Some(started) = &mut self.started else {
            return;
        };
        let mode = fix.heatmap.mode().offset_m;
        let place = started.fused.place.offset_m;
        let away_m = (centre_m[0] + mode[0] - place[0]).hypot(centre_m[1] + mode[1] - place[1]);
        if away_m < 3.0 {
            started
                .navigator
                .update_yaw(yaw_rad, then.yaw_rad, sigma_rad);
            self.remember();
        }
    }

    /// Works out what to publish, after a measurement.
    fn refresh(&mut self) {
        let (config, now_ns) = (&self.config, self.now_ns);
        let Some(started) = &mut self.started else {
            return;
        };
        let navigator = &started.navigator;
        let track_variance_m2 = navigator.track_variance_m2;
        let (offset_m, covariance_m2) = (navigator.offset_m(), navigator.position_covariance_m2());
        let driven_m = navigator.driven_m;
        // After a long way without heatmaps the belief says nothing that the receiver does not.
        if started
            .last_visual
            .is_some_and(|(_, at_m)| driven_m - at_m > 4.0 * config.visual_timeout_m)
        {
            started.visual = None;
            started.visual_only = None;
            started.visual_only_updates = 0;
        }
        let risk = config.protection_risk;
        let product = started.visual.as_mut().and_then(|visual| {
            let (product, behind_m2) = visual
                .with_gnss(offset_m, covariance_m2, track_variance_m2, config)
                .ok()?;
            if visual.updates != started.visual_only_updates {
                let (alone, alone_behind_m2) = visual.estimate(track_variance_m2);
                started.visual_only =
                    Some(published(&alone, track_variance_m2 - alone_behind_m2, risk));
                started.visual_only_updates = visual.updates;
            }
            Some(published(&product, track_variance_m2 - behind_m2, risk))
        });
        let mut fused = product.unwrap_or_else(|| Published {
            place: Place {
                offset_m,
                covariance_m2,
            },
            mode_count: 1,
            radius_m: gaussian_radius(&covariance_m2, risk),
            track_variance_m2,
        });
        if started.visual.is_some() {
            let (place, verdict) =
                started
                    .guard
                    .propose(fused.place, config.jump_m, config.jump_confirmations);
            match verdict {
                Verdict::Smooth => {}
                Verdict::Held => {
                    let step = Vector2::from(place.offset_m) - Vector2::from(fused.place.offset_m);
                    fused.radius_m += step.norm();
                    fused.mode_count = fused.mode_count.max(2);
                }
                Verdict::Jumped => self.reset_count = self.reset_count.wrapping_add(1),
            }
            fused.place = place;
            if let Some(visual) = &mut started.visual
                && visual.follow(fused.place.offset_m, config).is_err()
            {
                tracing::debug!(now_ns, "the visual belief's window could not follow");
            }
        } else {
            started.guard = JumpGuard::default();
        }
        started.fused = fused;
    }
}

impl Started {
    /// Puts the origin of the local frame under the vehicle.
    fn move_frame(&mut self) {
        let track_m = self.navigator.track_m();
        let Some(under) = geodetic_from_plane(&self.frame, track_m, 0.0) else {
            return;
        };
        self.frame = LocalFrame::new(under);
        let shift_m = [-track_m[0], -track_m[1]];
        self.navigator.shift(shift_m);
        self.history.shift(shift_m);
    }
}

fn published(estimate: &BeliefEstimate, track_variance_m2: f64, risk: f64) -> Published {
    let [[ee, en], [ne, nn]] = estimate.covariance_m2;
    Published {
        place: Place {
            offset_m: estimate.mean_m,
            covariance_m2: Matrix2::new(ee, en, ne, nn),
        },
        mode_count: estimate.mode_count,
        radius_m: estimate.protection_radius(risk),
        track_variance_m2,
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
    let spread = (half_trace.powi(2) - covariance.determinant())
        .max(0.0)
        .sqrt();
    (half_trace + spread).max(0.0).sqrt()
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
        yaw_rad: None,
        yaw_sigma_rad: 0.0,
    }
}
