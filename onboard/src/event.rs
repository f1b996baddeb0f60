//! What sources deliver and what the core makes of it, as types.
//!
//! Directions inside are [`Yaw`]; degrees clockwise from north appear only where a receiver's own
//! figure is kept (`track_deg`). The times of events are UTC nanoseconds of the moment the thing was
//! true; an [`Arrival`] also says when it came, on the clock of this machine.

use std::sync::Arc;

use crossfix_calibration::{Camera, Geodetic, Heading, Heatmap, PatchGeoreference, RgbImage, Yaw};
use serde::{Deserialize, Serialize};

use crate::fusion::Pose;

/// What a source delivers.
#[derive(Debug, Clone)]
pub enum Event {
    /// A position from a GNSS receiver.
    Gnss(GnssFix),
    /// A picture from the camera.
    Frame(CameraFrame),
    /// Speed, yaw rate and perhaps heading.
    Odometry(OdometrySample),
    /// A source came up or went down.
    SourceState {
        /// Name of the source, as in the config file.
        source: String,
        /// Whether it delivers now.
        up: bool,
        /// When it changed, in nanoseconds UTC.
        time_ns: i64,
    },
}

impl Event {
    /// When the event was true, in nanoseconds UTC.
    pub fn time_ns(&self) -> i64 {
        match self {
            Event::Gnss(fix) => fix.time_ns,
            Event::Frame(frame) => frame.time_ns,
            Event::Odometry(sample) => sample.time_ns,
            Event::SourceState { time_ns, .. } => *time_ns,
        }
    }

    /// Corrects when the event was true, in nanoseconds UTC.
    pub fn set_time_ns(&mut self, corrected_ns: i64) {
        match self {
            Event::Gnss(fix) => fix.time_ns = corrected_ns,
            Event::Frame(frame) => frame.time_ns = corrected_ns,
            Event::Odometry(sample) => sample.time_ns = corrected_ns,
            Event::SourceState { time_ns, .. } => *time_ns = corrected_ns,
        }
    }
}

/// An event, with who sent it and when it came.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Name of the source as in the config, or the topic of a log.
    pub source: Arc<str>,
    /// When it came, nanoseconds on this machine's monotonic clock, of any epoch; in a replay the
    /// time at which it was recorded.
    pub arrived_ns: i64,
    /// What came.
    pub event: Event,
}

impl Arrival {
    /// An event of this source that came at this time.
    pub fn new(source: impl Into<Arc<str>>, arrived_ns: i64, event: Event) -> Self {
        Self {
            source: source.into(),
            arrived_ns,
            event,
        }
    }

    /// An event that came at the moment it was true, as in simulations.
    pub fn at_once(source: impl Into<Arc<str>>, event: Event) -> Self {
        let arrived_ns = event.time_ns();
        Self::new(source, arrived_ns, event)
    }
}

/// Heights above the ellipsoid that a vehicle can be at, metres; another one is not known.
pub const HEIGHTS_M: std::ops::Range<f64> = -1e4..1e5;

/// One GNSS epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct GnssFix {
    /// Measurement epoch, nanoseconds UTC.
    pub time_ns: i64,
    /// The receiver's position; the height is above the ellipsoid.
    pub position: Geodetic,
    /// Horizontal 1-sigma covariance in east and north, m².
    pub covariance_m2: [[f64; 2]; 2],
    /// 1-sigma error of the height, metres.
    pub height_sigma_m: f64,
    /// How the receiver's numbers became `covariance_m2`.
    pub covariance_rule: CovarianceRule,
    /// Speed over ground, m/s.
    pub speed_mps: Option<f64>,
    /// Course over ground, degrees clockwise from true north. Not the heading of a parked vehicle.
    pub track_deg: Option<f64>,
    /// Whether the height was solved for.
    pub dimension: FixDimension,
    /// What else the receiver says of its reception; nothing of it is fused.
    pub reception: Reception,
}

/// A receiver's own words about an epoch, carried to those who read our positions.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Reception {
    /// Satellites in the solution.
    pub satellites_used: Option<u32>,
    /// Satellites in view.
    pub satellites_visible: Option<u32>,
    /// Horizontal dilution of precision.
    pub hdop: Option<f64>,
    /// Mean sea level above the ellipsoid at its position, metres.
    pub geoid_m: Option<f64>,
    /// Whether it finds its signals forged.
    pub spoofing: Spoofing,
    /// Whether it finds its signals disturbed.
    pub jamming: Jamming,
}

/// What a receiver says of forged signals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Spoofing {
    /// Nothing.
    #[default]
    NotSaid,
    /// There is none.
    None,
    /// There is; the fix is not used.
    Indicated,
    /// There is, and the config wants the fix all the same.
    Accepted,
}

/// What a receiver says of disturbed signals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Jamming {
    /// Nothing.
    #[default]
    NotSaid,
    /// There is none.
    None,
    /// There is, and it has a fix nevertheless.
    Warning,
    /// There is, and it has no reliable fix.
    Critical,
}

/// Where a covariance came from, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CovarianceRule {
    /// 1-sigma errors from a GST report of the same epoch.
    Gst,
    /// The covariance that a u-blox receiver states (NAV-COV).
    Ubx,
    /// gpsd's `epx` and `epy`.
    EpxEpy,
    /// gpsd's `eph`.
    Eph,
    /// The radial error that a u-blox receiver states (`hAcc` of NAV-PVT).
    UbxAccuracy,
    /// Horizontal dilution of precision times a configured range error.
    Hdop,
    /// The log carried it.
    Recorded,
    /// Nothing was reported; the configured default.
    Default,
}

/// What the receiver solved for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FixDimension {
    /// Latitude and longitude only.
    #[serde(rename = "2d")]
    Two,
    /// Latitude, longitude and height.
    #[serde(rename = "3d")]
    Three,
}

/// One encoded picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CameraFrame {
    /// Middle of the exposure, nanoseconds UTC.
    pub time_ns: i64,
    /// The JPEG, PNG or binary PNM bytes.
    pub image: Arc<[u8]>,
    /// Name of the camera.
    pub camera: String,
}

/// How the vehicle moved at one moment. Speed and yaw rate may come from different sources, each with
/// samples of its own (wheels and gyro, two CAN messages).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OdometrySample {
    /// When it was measured, nanoseconds UTC.
    pub time_ns: i64,
    /// Speed along the vehicle's forward axis, m/s; none where the source does not measure it.
    pub forward_speed_mps: Option<f64>,
    /// Yaw rate, rad/s counter-clockwise; none where the source does not measure it.
    pub yaw_rate_rps: Option<f64>,
    /// Absolute yaw, where an INS, a compass or the GNSS course gives one.
    pub yaw: Option<YawMeasurement>,
    /// 1-sigma error of the speed, m/s.
    pub speed_sigma_mps: f64,
    /// 1-sigma error of the yaw rate, rad/s.
    pub yaw_rate_sigma_rps: f64,
}

/// A measured yaw and its error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct YawMeasurement {
    /// Which way the vehicle points.
    pub yaw: Yaw,
    /// 1-sigma error, radians.
    pub sigma_rad: f64,
}

impl YawMeasurement {
    /// From degrees clockwise from true north, as receivers and logs write it.
    pub fn from_heading_deg(heading_deg: f64, sigma_deg: f64) -> Self {
        Self {
            yaw: Heading::from_degrees(heading_deg).yaw(),
            sigma_rad: sigma_deg.to_radians(),
        }
    }
}

/// The position that a frame matched with an aerial patch gives.
#[derive(Debug, Clone)]
pub struct CrossViewFix {
    /// Time of the frame, nanoseconds UTC.
    pub time_ns: i64,
    /// Centre of the aerial patch.
    pub centre: Geodetic,
    /// Probability over the patch.
    pub heatmap: Heatmap,
    /// Yaw of the vehicle, where the network gave one.
    pub yaw: Option<Yaw>,
    /// 1-sigma error of `yaw`, radians.
    pub yaw_sigma_rad: f64,
}

/// A frame that was matched: the network's output and the patch it is over.
#[derive(Debug, Clone)]
pub struct Match {
    /// The heatmap over the patch, with its time and yaw.
    pub fix: CrossViewFix,
    /// Where the patch lies.
    pub georeference: PatchGeoreference,
    /// The aerial patch, north up.
    pub patch: Arc<RgbImage>,
    /// Name of the camera.
    pub camera: String,
}

/// What a match was made of beside the patch, for whoever makes another one of it.
#[derive(Debug, Clone)]
pub struct Look {
    /// The picture.
    pub frame: CameraFrame,
    /// Where the vehicle was, by everything before this frame.
    pub pose: Pose,
    /// The camera's model and mount.
    pub calibration: Arc<Camera>,
}

/// How reliable the output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Camera, aerial tiles and GNSS all contribute.
    Ok,
    /// Something is missing; the position rests on the rest (often GNSS alone).
    Degraded,
    /// Dead reckoning: no absolute measurement lately.
    Coasting,
    /// No position worth publishing.
    Lost,
}

impl State {
    /// The name used in every output.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Degraded => "degraded",
            State::Coasting => "coasting",
            State::Lost => "lost",
        }
    }
}

/// Which evidence an estimate rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EstimateKind {
    /// Everything, GNSS included.
    Fused,
    /// Camera and odometry only, for stacks that fuse the raw GNSS themselves.
    VisualOnly,
}

/// Where the vehicle is, and how sure the core is of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// When it holds, nanoseconds UTC.
    pub time_ns: i64,
    /// Best position; meaningless while `state` is [`State::Lost`].
    pub position: Geodetic,
    /// 1-sigma covariance in east and north of the whole posterior about `position`, m².
    pub covariance_m2: [[f64; 2]; 2],
    /// Height above the ellipsoid, metres; none until a receiver measured one.
    pub height_m: Option<f64>,
    /// Which way the vehicle points.
    pub yaw: Yaw,
    /// 1-sigma error of the yaw, radians.
    pub yaw_sigma_rad: f64,
    /// Forward speed, m/s.
    pub speed_mps: f64,
    /// Separate modes of the posterior.
    pub mode_count: usize,
    /// Radius that leaves at most the configured risk outside, metres.
    pub protection_radius_m: f64,
    /// How reliable this is.
    pub state: State,
    /// Grows at every discontinuity of the output.
    pub reset_count: u32,
    /// Which evidence it rests on.
    pub kind: EstimateKind,
    /// Why the state is what it is, as a sentence.
    pub reason: String,
}

impl Estimate {
    /// Which way the vehicle moves: where it points, or the opposite when it reverses.
    pub fn course(&self) -> Heading {
        let heading = self.yaw.heading();
        if self.speed_mps < 0.0 {
            heading.reversed()
        } else {
            heading
        }
    }
}
