//! Fixes and heatmaps, each at its own time.

use std::sync::Arc;

use crossfix_calibration::{Geodetic, Heading, LocalFrame};
use nalgebra::{Matrix2, Vector2};

use super::alignment::Alignment;
use super::consistency::{Comparison, HeatmapGate, Receivers, Sighting, Verdict};
use super::continuity::Continuity;
use super::filter::{Filter, Published, Started, visual_is_fresh};
use super::history::{History, TrackPoint};
use super::jump::{JumpGuard, Place};
use super::motion::GnssMotion;
use super::navigator::Navigator;
use super::visual::{GIVEN_UP_SIGMA_M, VisualBelief};
use super::{
    Pose, SLOWEST_COURSE_MPS, Unused, geodetic_from_plane, largest_sigma, plane_from_geodetic,
    receiver_radius, seconds,
};
use crate::event::{CrossViewFix, GnssFix};

/// Time between frames while nobody confirms the odometry, nanoseconds.
const UNCONFIRMED_SPACING_NS: i64 = 1_500_000_000;
/// Yaws from the network err alike for about this many frames, so each counts for less.
const VISUAL_YAW_REPETITION: f64 = 6.25;
/// A larger step than this sets up a new local frame, metres.
const LARGEST_STEP_M: f64 = 5_000.0;

impl Filter {
    /// Takes in a GNSS fix.
    ///
    /// # Errors
    /// [`Unused`] when it was not usable.
    pub(super) fn take_gnss(&mut self, source: &Arc<str>, fix: &GnssFix) -> Result<(), Unused> {
        let covariance = self.believed_covariance(fix).ok_or(Unused::Invalid)?;
        if fix.position.check().is_err() || is_null_island(fix) {
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
        let stuck = self.is_stuck(fix);
        self.last_fix = Some((fix.time_ns, fix.position));
        if stuck {
            if let Some(started) = &mut self.started {
                started.receivers.repeats(source);
            }
            return Err(Unused::Repeated);
        }
        let believed = self
            .started
            .as_ref()
            .is_none_or(|started| started.receivers.believes(source));
        if believed {
            self.take_gnss_motion(fix);
        }
        self.gnss_next = None;
        self.advance(fix.time_ns);
        if self.started.is_none() {
            self.start(fix, covariance);
        }
        match self.judge_fix(source, fix, covariance)? {
            (Verdict::Use, then) => self.use_fix(fix, covariance, then),
            (Verdict::Relocate, then) => {
                self.relocate(fix, covariance, then);
                Ok(())
            }
            (Verdict::Hold, _) => {
                self.refresh();
                Err(Unused::Contradicts)
            }
        }
    }

    /// Whether the receiver repeats its position although something moves.
    fn is_stuck(&self, fix: &GnssFix) -> bool {
        let same = self.last_fix.is_some_and(|(_, position)| {
            position.latitude_deg.to_bits() == fix.position.latitude_deg.to_bits()
                && position.longitude_deg.to_bits() == fix.position.longitude_deg.to_bits()
        });
        let odometer_mps = self
            .speed
            .filter(|_| self.odometry_ns != i64::MIN)
            .map_or(0.0, |speed| speed.value.abs());
        same && (odometer_mps > 1.5 || fix.speed_mps.is_some_and(|mps| mps > 1.5))
    }

    /// What the receiver says of its motion, for the way to this fix and from it on.
    fn take_gnss_motion(&mut self, fix: &GnssFix) {
        if self
            .gnss_motion
            .is_some_and(|before| before.time_ns >= fix.time_ns)
        {
            return;
        }
        let motion = GnssMotion::new(fix, self.gnss_motion.as_ref());
        let heading = self.started.as_ref().map(|started| &started.navigator);
        let heading = heading.filter(|navigator| navigator.yaw_known());
        let heading = heading.map(|navigator| (navigator.yaw(), navigator.yaw_sigma_rad()));
        self.direction
            .follow(self.gnss_motion.as_ref(), &motion, heading);
        let before_ns = self.gnss_motion.map(|before| before.time_ns);
        // Through a long gap it tells nothing about the way.
        let gap_ns = before_ns.map_or(0, |before_ns| fix.time_ns.saturating_sub(before_ns));
        self.gnss_next = Some(motion).filter(|_| gap_ns <= seconds(self.config.gnss_timeout_s));
        self.advance(fix.time_ns);
        self.gnss_motion_before_ns = before_ns.unwrap_or(i64::MIN);
        self.gnss_motion = Some(motion);
    }

    /// Compares a fix with the place known without it.
    fn judge_fix(
        &mut self,
        source: &Arc<str>,
        fix: &GnssFix,
        covariance: Matrix2<f64>,
    ) -> Result<(Verdict, TrackPoint), Unused> {
        let odometry_is_believed = self.motion(self.now_ns).lasting_speed;
        let (config, now_ns, odometry_ns) = (&self.config, self.now_ns, self.odometry_ns);
        let Some(started) = &mut self.started else {
            return Err(Unused::NotStarted);
        };
        let Some(then) = started.history.at(fix.time_ns) else {
            return Err(Unused::TooLate);
        };
        let fix_m = plane_from_geodetic(&started.frame, fix.position);
        let known = started.known_place();
        let offset_m = [fix_m[0] - then.track_m[0], fix_m[1] - then.track_m[1]];
        let seen = Comparison {
            time_ns: fix.time_ns,
            residual_m: Vector2::from(offset_m) - Vector2::from(known.offset_m),
            known_m2: known.covariance_m2,
            stated_m2: covariance,
            offset_m,
            driven_m: then.driven_m,
            heatmaps_agree: started
                .heatmaps
                .agreed_since(started.receivers.disputed_since_ns(now_ns))
                && (started.heatmaps.supports_at(now_ns)
                    || started.heatmaps.supports()
                        && visual_is_fresh(started, now_ns, odometry_ns, config)
                        && odometry_is_believed),
            known_is_doubtful: !odometry_is_believed || started.heatmaps.contradicts(),
        };
        if started.gnss_ns == i64::MIN {
            return Ok((Verdict::Use, then));
        }
        Ok((started.receivers.judge(source, &seen, config.jump_m), then))
    }

    /// Takes in a fix that may be believed.
    fn use_fix(
        &mut self,
        fix: &GnssFix,
        covariance: Matrix2<f64>,
        then: TrackPoint,
    ) -> Result<(), Unused> {
        let config = &self.config;
        let Some(started) = &mut self.started else {
            return Err(Unused::NotStarted);
        };
        let fix_m = plane_from_geodetic(&started.frame, fix.position);
        if fix.dimension == crate::event::FixDimension::Three {
            started.height_m = Some(fix.position.height_m);
        }
        let first = started.gnss_ns == i64::MIN;
        started.gnss_ns = started.gnss_ns.max(fix.time_ns);
        if !first {
            let surprises = started
                .navigator
                .is_surprised(fix_m, covariance, then.track_m, config);
            // One spike is not believed; what the next fix repeats is.
            let confirmed = started.surprised;
            started.surprised = surprises;
            if !surprises || confirmed {
                started
                    .navigator
                    .update_position(fix_m, covariance, then.track_m, config);
            }
        }
        if fix.track_deg.is_none() {
            self.align(fix);
        }
        self.use_course(fix, then);
        self.remember();
        self.refresh();
        Ok(())
    }

    /// The vehicle is where the receiver says.
    fn relocate(&mut self, fix: &GnssFix, covariance: Matrix2<f64>, then: TrackPoint) {
        let (config, now_ns) = (&self.config, self.now_ns);
        let Some(started) = &mut self.started else {
            return;
        };
        let fix_m = plane_from_geodetic(&started.frame, fix.position);
        self.reset_count = self.reset_count.wrapping_add(1);
        self.relocated_ns = now_ns;
        tracing::warn!("the vehicle was relocated");
        let track_m = started.navigator.track_m();
        if (fix_m[0] - track_m[0]).hypot(fix_m[1] - track_m[1]) > LARGEST_STEP_M {
            let receivers = std::mem::take(&mut started.receivers);
            self.start(fix, covariance);
            if let Some(started) = &mut self.started {
                started.receivers = receivers;
                started.gnss_ns = fix.time_ns;
            }
        } else {
            let moved_m = [0, 1].map(|axis| fix_m[axis] - then.track_m[axis] + track_m[axis]);
            started.navigator.relocate(moved_m, covariance, config);
            started.gnss_ns = started.gnss_ns.max(fix.time_ns);
            started.surprised = false;
            started.forget_visual();
            started.guard = JumpGuard::default();
        }
        self.remember();
        self.refresh();
    }

    /// Updates with the match of a frame and an aerial patch.
    ///
    /// # Errors
    /// [`Unused`] when it was not usable.
    pub(super) fn take_visual(&mut self, fix: &CrossViewFix) -> Result<(), Unused> {
        let time_ns = fix.time_ns - self.picture_delay_ns;
        self.advance(time_ns);
        let (config, now_ns) = (&self.config, self.now_ns);
        let Some(started) = &mut self.started else {
            return Err(Unused::NotStarted);
        };
        let Some(then) = started.history.at(time_ns) else {
            return Err(Unused::TooLate);
        };
        let centre_m = plane_from_geodetic(&started.frame, fix.centre);
        let centre_m = [centre_m[0] - then.track_m[0], centre_m[1] - then.track_m[1]];
        let track_variance_m2 = started.navigator.track_variance_m2;
        let known = started.known_place();
        if let Some(visual) = &started.visual
            && largest_sigma(&visual.place(track_variance_m2).covariance_m2) > GIVEN_UP_SIGMA_M
            && started.heatmaps.is_established()
        {
            started.forget_visual();
        }
        // A receiver that is heard keeps the window around the vehicle, however large the error that it states.
        let gnss_is_fresh =
            now_ns.saturating_sub(started.gnss_ns) <= seconds(config.gnss_timeout_s);
        if started.visual.is_none() {
            if !gnss_is_fresh && !VisualBelief::can_hold(&known.covariance_m2, config) {
                return Err(Unused::NotInWindow);
            }
            started.visual = VisualBelief::new(known.offset_m, track_variance_m2, config).ok();
        }
        let Some(visual) = &mut started.visual else {
            return Err(Unused::Invalid);
        };
        let sighting = Sighting {
            heatmap: &fix.heatmap,
            centre_m,
            known,
            former: started.continuity.former(track_variance_m2),
            gnss: gnss_is_fresh.then(|| Place {
                offset_m: started.navigator.offset_m(),
                covariance_m2: started.navigator.position_covariance_m2(),
            }),
            time_ns: time_ns.min(now_ns),
            driven_m: then.driven_m,
            track_variance_m2,
            is_near: started
                .last_visual
                .is_some_and(|(_, at_m)| (then.driven_m - at_m).abs() < config.visual_spacing_m),
        };
        match started.heatmaps.take(&sighting, visual, config) {
            Ok(false) => {}
            Ok(true) => {
                let place = visual.place(track_variance_m2);
                let continuity = &mut started.continuity;
                continuity.jump(now_ns, &place, track_variance_m2, true);
                started.guard = JumpGuard::default();
                self.reset_count = self.reset_count.wrapping_add(1);
            }
            Err(_) => return Err(Unused::Invalid),
        }
        started.last_visual = Some((time_ns.min(now_ns), then.driven_m));
        if started
            .heatmaps
            .agreed
            .is_some_and(|(_, at_m)| at_m >= then.driven_m)
        {
            started.navigator.unanchored_m = 0.0;
        }
        self.refresh();
        self.use_visual_yaw(fix, centre_m, then);
        Ok(())
    }

    /// Whether a frame of this time would be used.
    ///
    /// # Errors
    /// [`Unused`] with the reason.
    pub(super) fn wants_frame(&self, time_ns: i64, confirmed: bool) -> Result<Pose, Unused> {
        let started = self.started.as_ref().ok_or(Unused::NotStarted)?;
        if !started.navigator.yaw_known() {
            return Err(Unused::NoHeading);
        }
        let time_ns = time_ns - self.picture_delay_ns;
        let then = started.history.at(time_ns).ok_or(Unused::TooLate)?;
        // Odometry that nobody confirms may stand still while the vehicle moves.
        if let Some((last_ns, driven_m)) = started.last_visual
            && (then.driven_m - driven_m).abs() < self.config.visual_spacing_m
            && (confirmed || time_ns.saturating_sub(last_ns) < UNCONFIRMED_SPACING_NS)
        {
            return Err(Unused::TooNear);
        }
        let known = started.known_place();
        let (offset_m, covariance) = (known.offset_m, known.covariance_m2);
        let place = [then.track_m[0] + offset_m[0], then.track_m[1] + offset_m[1]];
        Ok(Pose {
            position: geodetic_from_plane(&started.frame, place, started.height_m.unwrap_or(0.0))
                .ok_or(Unused::Invalid)?,
            yaw: then.yaw,
            yaw_sigma_rad: started.navigator.yaw_sigma_rad(),
            covariance_m2: [
                [covariance[(0, 0)], covariance[(0, 1)]],
                [covariance[(1, 0)], covariance[(1, 1)]],
            ],
        })
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
            radius_m: receiver_radius(&covariance, self.config.protection_risk),
            track_variance_m2: 0.0,
        };
        self.started = Some(Started {
            frame,
            height_m: (fix.dimension == crate::event::FixDimension::Three)
                .then_some(fix.position.height_m),
            navigator,
            history: History::default(),
            alignment: Alignment::default(),
            visual: None,
            heatmaps: HeatmapGate::new(),
            guard: JumpGuard::default(),
            gnss_ns: i64::MIN,
            receivers: Receivers::default(),
            surprised: false,
            last_visual: None,
            fused,
            continuity: Continuity::new(self.config.protection_risk),
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

    /// Compares the receiver's speed and course with the odometry's.
    fn use_course(&mut self, fix: &GnssFix, then: TrackPoint) {
        let motion = self.motion(self.now_ns);
        let odometer_mps = motion.lasting_speed.then_some(motion.speed_mps);
        let Some(started) = &mut self.started else {
            return;
        };
        let Some(speed_mps) = fix.speed_mps.filter(|v| v.is_finite()) else {
            return;
        };
        if let Some(track_deg) = fix.track_deg.filter(|v| v.is_finite())
            && speed_mps > SLOWEST_COURSE_MPS
        {
            let reversing = self.direction.is_reversing();
            let backwards = odometer_mps.map_or(reversing, |mps| mps < -0.5);
            let reversal_rad = if backwards { std::f64::consts::PI } else { 0.0 };
            // A receiver's course lags behind in a turn by a good part of its filter.
            let lag_rad = 0.3 * then.yaw_rate_rps.abs();
            let sigma_rad = (0.3f64 / speed_mps).hypot(0.02).hypot(lag_rad);
            started.navigator.update_yaw(
                Heading::from_degrees(track_deg).yaw().turned(reversal_rad),
                then.yaw,
                sigma_rad,
            );
        }
        if let Some(odometer_mps) = odometer_mps
            && odometer_mps > 5.0
            && speed_mps > 5.0
            && fix.time_ns == self.now_ns
        {
            let sigma = 0.5 / odometer_mps;
            started
                .navigator
                .update_scale(speed_mps / odometer_mps - 1.0, sigma);
        }
    }

    /// A fix without course: the first heading comes from the way between such fixes.
    fn align(&mut self, fix: &GnssFix) {
        let Some(started) = &mut self.started else {
            return;
        };
        if started.navigator.yaw_known() {
            return;
        }
        let fix_m = plane_from_geodetic(&started.frame, fix.position);
        let [[ee, _], [_, nn]] = fix.covariance_m2;
        let sigma_m = (0.5 * (ee + nn)).sqrt();
        if let Some((turn_rad, sigma_rad)) = started.alignment.fix(fix.time_ns, fix_m, sigma_m) {
            let yaw = started.navigator.yaw();
            started
                .navigator
                .update_yaw(yaw.turned(turn_rad), yaw, sigma_rad);
            started.alignment = Alignment::default();
        }
    }

    /// The network's yaw, if its heatmap's mode is where the vehicle turned out to be.
    fn use_visual_yaw(&mut self, fix: &CrossViewFix, centre_m: [f64; 2], then: TrackPoint) {
        // Without a gyro the yaws have to carry the turns.
        let repetition = if self.motion(self.now_ns).lasting_yaw_rate {
            VISUAL_YAW_REPETITION
        } else {
            1.0
        };
        let sigma_rad = fix.yaw_sigma_rad * repetition.sqrt();
        let Some(yaw) = fix.yaw.filter(|v| v.is_finite() && sigma_rad > 0.0) else {
            return;
        };
        let Some(started) = &mut self.started else {
            return;
        };
        let mode = fix.heatmap.mode().offset_m;
        let place = started.fused.place.offset_m;
        let away_m = (centre_m[0] + mode[0] - place[0]).hypot(centre_m[1] + mode[1] - place[1]);
        if away_m < 3.0 {
            started.navigator.update_yaw(yaw, then.yaw, sigma_rad);
            self.remember();
        }
    }
}

/// A position of exactly 0, 0 is what receivers say that have none.
pub(super) fn is_null_island(fix: &GnssFix) -> bool {
    fix.position.latitude_deg.abs() < 1e-6 && fix.position.longitude_deg.abs() < 1e-6
}
