//! The filter itself: what is known after the measurements taken in so far, and who is believed.

use std::sync::Arc;

use crossfix_calibration::{Geodetic, LocalFrame, Yaw};

use nalgebra::Matrix2;

use crate::event::{CrossViewFix, GnssFix};

use super::alignment::Alignment;
use super::config::FusionConfig;
use super::consistency::{Exclusions, HeatmapGate, Point, Receivers, SourceVerdict};
use super::continuity::Continuity;
use super::direction::Direction;
use super::history::History;
use super::jump::{JumpGuard, Place};
use super::motion::{GnssMotion, Owed, Reported};
use super::navigator::Navigator;
use super::predict::Checkpoint;
use super::rewind::Measurement;
use super::visual::VisualBelief;
use super::{Unused, plane_from_geodetic, seconds};

/// A mode is clear when most of a heatmap lies within this distance, metres.
const CLEAR_MODE_M: f64 = 3.0;

/// The velocity at a picture is that of the track over this time before it, nanoseconds.
const VELOCITY_NS: i64 = 200_000_000;

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
    /// Time of the newest speed of the odometry, believed or not.
    pub(super) odometry_ns: i64,
    /// The newest speed of the odometry that was believed.
    pub(super) speed: Option<Reported>,
    /// The newest yaw rate of the odometry that was believed.
    pub(super) yaw_rate: Option<Reported>,
    /// What dead reckoning still has to make up for.
    pub(super) owed: Owed,
    pub(super) gnss_motion: Option<GnssMotion>,
    /// Forwards or backwards, by the receiver's courses.
    pub(super) direction: Direction,
    /// Time of the fix before the newest.
    pub(super) gnss_motion_before_ns: i64,
    /// The fix to come, while the way to it is gone again.
    pub(super) gnss_next: Option<GnssMotion>,
    /// How late pictures are against their stamps, nanoseconds.
    pub(super) picture_delay_ns: i64,
    /// Who is not believed, and when.
    pub(super) excluded: Exclusions,
    pub(super) last_fix: Option<(i64, Geodetic)>,
    pub(super) heading_ns: i64,
    /// Since when the vehicle has stood, and when the gyro's bias was last learned from that.
    pub(super) still_ns: Option<i64>,
    pub(super) bias_learned_ns: i64,
    /// The last speed that a receiver told, and when, m/s; also one that is not believed.
    pub(super) receiver_speed: Option<(i64, f64)>,
    /// When the vehicle was last found to be somewhere else altogether.
    pub(super) relocated_ns: i64,
    pub(super) reset_count: u32,
    /// Where the measurements had left things before ticks led on from there.
    pub(super) checkpoint: Option<Checkpoint>,
}

/// Everything that exists once there was a fix.
#[derive(Debug, Clone)]
pub(super) struct Started {
    pub(super) frame: LocalFrame,
    pub(super) height_m: Option<f64>,
    pub(super) navigator: Navigator,
    pub(super) history: History,
    /// For the first heading, until there is one.
    pub(super) alignment: Alignment,
    pub(super) visual: Option<VisualBelief>,
    pub(super) heatmaps: HeatmapGate,
    pub(super) guard: JumpGuard,
    pub(super) gnss_ns: i64,
    pub(super) receivers: Receivers,
    /// The last fix was a surprise.
    pub(super) surprised: bool,
    pub(super) last_visual: Option<(i64, f64)>,
    pub(super) fused: Published,
    pub(super) continuity: Continuity,
    pub(super) visual_only: Option<Published>,
    /// Heatmaps that `visual_only` contains.
    pub(super) visual_only_updates: u64,
}

impl Filter {
    /// Before any measurement. `georef_sigma_m` is the error of the aerial imagery itself.
    pub(super) fn new(config: FusionConfig, georef_sigma_m: f64) -> Self {
        Self {
            picture_delay_ns: seconds(config.picture_delay_s),
            config,
            georef_sigma_m,
            now_ns: i64::MIN,
            started: None,
            odometry_ns: i64::MIN,
            speed: None,
            yaw_rate: None,
            owed: Owed::default(),
            gnss_motion: None,
            direction: Direction::default(),
            gnss_motion_before_ns: i64::MIN,
            gnss_next: None,
            excluded: Exclusions::default(),
            last_fix: None,
            heading_ns: i64::MIN,
            still_ns: None,
            bias_learned_ns: i64::MIN,
            receiver_speed: None,
            relocated_ns: i64::MIN,
            reset_count: 0,
            checkpoint: None,
        }
    }

    /// Takes in a measurement, in the order of arrival.
    pub(super) fn take(&mut self, measurement: &Measurement) -> Result<(), Unused> {
        match measurement {
            Measurement::Gnss(source, fix) => self.take_gnss(source, fix),
            Measurement::Odometry(sample) => self.take_odometry(sample),
            Measurement::Visual(fix) => self.take_visual(fix),
            Measurement::Reach(time_ns) => {
                self.advance(*time_ns);
                Ok(())
            }
        }
    }

    /// How far the published place is from that of another state of the same time, metres.
    pub(super) fn moved_from(&self, other: &Self) -> f64 {
        let place = |filter: &Self| {
            let started = filter.started.as_ref()?;
            let (track_m, offset_m) = (started.navigator.track_m(), started.fused.place.offset_m);
            Some((
                started.frame.origin(),
                [track_m[0] + offset_m[0], track_m[1] + offset_m[1]],
            ))
        };
        match (place(self), place(other)) {
            (Some((origin, a)), Some((other_origin, b))) if origin == other_origin => {
                (a[0] - b[0]).hypot(a[1] - b[1])
            }
            (None, None) => 0.0,
            _ => f64::INFINITY,
        }
    }

    /// What the checks that look at the filter found.
    pub(super) fn verdicts(&self) -> Vec<SourceVerdict> {
        self.started.as_ref().map_or(Vec::new(), |started| {
            let mut verdicts = started.receivers.verdicts();
            verdicts.push(started.heatmaps.gate.verdict());
            verdicts
        })
    }

    /// Whether a fix of this receiver may judge the odometry although its position contradicts.
    pub(super) fn may_judge(&self, source: &Arc<str>) -> bool {
        self.started.as_ref().is_some_and(|started| {
            let disputed_ns = started.receivers.disputed_since_ns(self.now_ns);
            let agree = started.heatmaps.supports_against(disputed_ns, self.now_ns);
            started.receivers.may_judge(source, agree)
        })
    }

    /// Where a heatmap with one clear mode lies beside the track.
    pub(super) fn point(&self, fix: &CrossViewFix) -> Option<Point> {
        let started = self.started.as_ref()?;
        let time_ns = fix.time_ns - self.picture_delay_ns;
        let then = started.history.at(time_ns)?;
        let mode = fix.heatmap.mode().offset_m;
        let side = fix.heatmap.side();
        let near: f32 = (0..side * side)
            .filter(|index| {
                let at = fix.heatmap.offset_m([index % side, index / side]);
                (at[0] - mode[0]).hypot(at[1] - mode[1]) < CLEAR_MODE_M
            })
            .map(|index| fix.heatmap.probabilities()[index])
            .sum();
        let centre_m = plane_from_geodetic(&started.frame, fix.centre);
        let (sine, cosine) = then.yaw.radians().sin_cos();
        // The velocity at the picture, not that of now: the vehicle may have braked since.
        let before = started.history.at(time_ns - VELOCITY_NS)?;
        let passed_s = VELOCITY_NS as f64 * 1e-9;
        let is_known = self.motion(self.now_ns).lasting_speed;
        (near > 0.5 && is_known).then(|| Point {
            offset_m: [0, 1].map(|axis| centre_m[axis] + mode[axis] - then.track_m[axis]),
            direction: [cosine, sine],
            velocity_mps: [0, 1].map(|axis| (then.track_m[axis] - before.track_m[axis]) / passed_s),
            driven_m: then.driven_m,
            time_ns,
        })
    }

    /// Yaw of the track at this time.
    pub(super) fn yaw_at(&self, time_ns: i64) -> Option<Yaw> {
        let started = self.started.as_ref()?;
        Some(started.history.at(time_ns)?.yaw).filter(|_| started.navigator.yaw_known())
    }

    /// Whether heatmaps of the last seconds agree with what is published.
    pub(super) fn heatmaps_support(&self) -> bool {
        self.started
            .as_ref()
            .is_some_and(|started| started.heatmaps.supports_at(self.now_ns))
    }

    /// Notes what a receiver says of its speed.
    pub(super) fn note_receiver_speed(&mut self, fix: &GnssFix) {
        if let Some(mps) = fix.speed_mps.filter(|mps| mps.is_finite()) {
            let before_ns = self.receiver_speed.map_or(i64::MIN, |(told_ns, _)| told_ns);
            if fix.time_ns >= before_ns {
                self.receiver_speed = Some((fix.time_ns, mps));
            }
        }
    }

    /// What is known of the gyro's bias, rad/s.
    pub(super) fn gyro_bias_rps(&self) -> f64 {
        let started = self.started.as_ref();
        started.map_or(0.0, |started| started.navigator.gyro_bias_rps())
    }

    /// The odometry's speed, while it is believed.
    pub(super) fn odometer_mps(&self) -> Option<f64> {
        let motion = self.motion(self.now_ns);
        motion.lasting_speed.then_some(motion.speed_mps)
    }

    /// Whether the vehicle moves backwards, by the speed that is believed.
    pub(super) fn is_reversing(&self) -> bool {
        self.motion(self.now_ns).speed_mps < -0.5
    }

    /// The next fix is known: the motion up to it lies between what it says and what the last said.
    pub(super) fn expect_fix(&mut self, fix: Option<&GnssFix>) {
        let timeout_ns = seconds(self.config.gnss_timeout_s);
        self.gnss_next = fix.and_then(|fix| {
            let before = self.gnss_motion.as_ref()?;
            let gap_ns = fix.time_ns.saturating_sub(before.time_ns);
            (gap_ns > 0 && gap_ns <= timeout_ns).then(|| GnssMotion::new(fix, Some(before)))
        });
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

impl Started {
    /// Gives the visual belief up.
    pub(super) fn forget_visual(&mut self) {
        self.visual = None;
        self.visual_only = None;
        self.visual_only_updates = 0;
        self.heatmaps.forget();
        self.continuity.forget();
    }

    /// The published place, widened by the way since it was worked out.
    pub(super) fn known_place(&self) -> Place {
        let behind_m2 = self.navigator.track_variance_m2 - self.fused.track_variance_m2;
        Place {
            offset_m: self.fused.place.offset_m,
            covariance_m2: self.fused.place.covariance_m2
                + Matrix2::identity() * behind_m2.max(0.0),
        }
    }
}

/// Whether a heatmap agreed with the track lately. Without odometry the way since is a guess, so it must
/// have been as lately as a fix.
pub(super) fn visual_is_fresh(
    started: &Started,
    now_ns: i64,
    odometry_ns: i64,
    config: &FusionConfig,
) -> bool {
    let Some((time_ns, at_m)) = started.heatmaps.agreed else {
        return false;
    };
    if now_ns.saturating_sub(odometry_ns) > seconds(config.odometry_timeout_s)
        && now_ns.saturating_sub(time_ns) > seconds(config.gnss_timeout_s)
    {
        return false;
    }
    let since_m = started.navigator.driven_m - at_m;
    started.visual.is_some()
        && since_m <= config.visual_timeout_m
        && (now_ns - time_ns <= seconds(config.visual_timeout_s)
            || since_m < 2.0 * config.visual_spacing_m)
}
