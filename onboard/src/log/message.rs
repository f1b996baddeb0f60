//! The JSON bodies of log messages, and the way to and from events.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use crossfix_calibration::Geodetic;
use serde::{Deserialize, Serialize};

use super::decode::{DEFAULT_SPEED_SIGMA_MPS, DEFAULT_YAW_RATE_SIGMA_RPS, png_of_pnm};
use crate::event::{
    CameraFrame, CovarianceRule, Estimate, EstimateKind, FixDimension, GnssFix, HEIGHTS_M,
    OdometrySample, Reception, State, YawMeasurement,
};
use crate::shadow::Comparison;

/// Foxglove's time: whole seconds and the nanoseconds after them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timestamp {
    sec: i64,
    nsec: u32,
}

impl Timestamp {
    pub fn new(sec: i64, nsec: u32) -> Self {
        Self { sec, nsec }
    }

    /// The time, or `otherwise_ns` where it is 0: nobody set it.
    pub fn ns_or(self, otherwise_ns: i64) -> Result<i64, String> {
        if self == Self::default() {
            return Ok(otherwise_ns);
        }
        self.ns()
    }

    pub fn from_ns(time_ns: i64) -> Self {
        Self {
            sec: time_ns.div_euclid(1_000_000_000),
            nsec: time_ns.rem_euclid(1_000_000_000) as u32,
        }
    }

    pub fn ns(self) -> Result<i64, String> {
        if self.nsec >= 1_000_000_000 {
            return Err(format!(
                "timestamp.nsec is {}; it counts less than a second",
                self.nsec
            ));
        }
        self.sec
            .checked_mul(1_000_000_000)
            .and_then(|ns| ns.checked_add(i64::from(self.nsec)))
            .ok_or_else(|| {
                format!(
                    "timestamp.sec is {}; that is beyond the year 2262",
                    self.sec
                )
            })
    }
}

/// `foxglove.LocationFix` with what we add to it.
#[derive(Debug, Serialize, Deserialize)]
pub struct LocationFix {
    timestamp: Timestamp,
    #[serde(default)]
    frame_id: String,
    latitude: f64,
    longitude: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    altitude: Option<f64>,
    position_covariance: [f64; 9],
    #[serde(default)]
    position_covariance_type: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    speed_mps: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    track_deg: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    covariance_rule: Option<CovarianceRule>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dimension: Option<FixDimension>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    estimate: Option<StateMessage>,
}

/// `foxglove.LocationFix`: 3-D covariance approximately known, its diagonal known, all of it known.
const COVARIANCE_KNOWN: u8 = 3;

/// `crossfix.Shadow`.
#[derive(Debug, Clone, Serialize)]
pub struct ShadowMessage {
    timestamp: Timestamp,
    camera: String,
    modes_apart_m: f64,
    running_mode_off_m: f64,
    shadow_mode_off_m: f64,
    running_log_likelihood: f64,
    shadow_log_likelihood: f64,
}

/// `crossfix.State`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StateMessage {
    timestamp: Timestamp,
    kind: EstimateKind,
    state: State,
    reason: String,
    heading_deg: Option<f64>,
    heading_sigma_deg: Option<f64>,
    speed_mps: Option<f64>,
    mode_count: usize,
    protection_radius_m: Option<f64>,
    reset_count: u32,
}

/// `foxglove.CompressedImage`.
#[derive(Debug, Serialize)]
pub struct CompressedImage {
    timestamp: Timestamp,
    frame_id: String,
    data: String,
    format: &'static str,
}

/// `crossfix.Odometry`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Odometry {
    timestamp: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    forward_speed_mps: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    yaw_rate_rps: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    heading_deg: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    heading_sigma_deg: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    speed_sigma_mps: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    yaw_rate_sigma_rps: Option<f64>,
}

/// What is assumed of a heading that states no error.
const DEFAULT_HEADING_SIGMA_DEG: f64 = 5.0;

impl LocationFix {
    pub fn from_gnss(fix: &GnssFix) -> Self {
        Self {
            timestamp: Timestamp::from_ns(fix.time_ns),
            frame_id: "gnss".into(),
            latitude: fix.position.latitude_deg,
            longitude: fix.position.longitude_deg,
            altitude: Some(fix.position.height_m),
            position_covariance: covariance9(fix.covariance_m2, fix.height_sigma_m),
            position_covariance_type: COVARIANCE_KNOWN,
            speed_mps: fix.speed_mps,
            track_deg: fix.track_deg,
            covariance_rule: Some(fix.covariance_rule),
            dimension: Some(fix.dimension),
            estimate: None,
        }
    }

    /// The same from a source of this name.
    pub fn named(mut self, source: &str) -> Self {
        source.clone_into(&mut self.frame_id);
        self
    }

    pub fn into_gnss(self) -> Result<GnssFix, String> {
        let [ee, en, _, ne, nn, _, _, _, uu] = self.position_covariance;
        Ok(GnssFix {
            time_ns: self.timestamp.ns()?,
            position: self.position()?,
            covariance_m2: checked_covariance([[ee, en], [ne, nn]])?,
            height_sigma_m: if uu.is_finite() && uu > 0.0 {
                uu.sqrt()
            } else {
                f64::from(u16::MAX)
            },
            covariance_rule: self.covariance_rule.unwrap_or(CovarianceRule::Recorded),
            speed_mps: self.speed_mps.filter(|speed| speed.is_finite()),
            track_deg: self.track_deg.filter(|track| track.is_finite()),
            dimension: self.dimension.unwrap_or(FixDimension::Three),
            reception: Reception::default(),
        })
    }

    pub fn from_estimate(estimate: &Estimate) -> Self {
        Self {
            timestamp: Timestamp::from_ns(estimate.time_ns),
            frame_id: "crossfix".into(),
            latitude: estimate.position.latitude_deg,
            longitude: estimate.position.longitude_deg,
            altitude: estimate.height_m,
            position_covariance: covariance9(estimate.covariance_m2, 0.0),
            position_covariance_type: COVARIANCE_KNOWN,
            speed_mps: None,
            track_deg: None,
            covariance_rule: None,
            dimension: None,
            estimate: Some(StateMessage::from_estimate(estimate)),
        }
    }

    pub fn into_estimate(self) -> Result<Estimate, String> {
        let position = self.position()?;
        let [ee, en, _, ne, nn, ..] = self.position_covariance;
        let state = self
            .estimate
            .ok_or("the field `estimate` is missing; crossfixd did not write this")?;
        let measured = YawMeasurement::from_heading_deg(
            state.heading_deg.unwrap_or(0.0),
            state.heading_sigma_deg.unwrap_or(180.0),
        );
        Ok(Estimate {
            time_ns: self.timestamp.ns()?,
            position,
            covariance_m2: checked_covariance([[ee, en], [ne, nn]])?,
            height_m: self.altitude,
            yaw: measured.yaw,
            yaw_sigma_rad: measured.sigma_rad,
            speed_mps: state.speed_mps.unwrap_or(0.0),
            mode_count: state.mode_count,
            protection_radius_m: state.protection_radius_m.unwrap_or(f64::INFINITY),
            state: state.state,
            reset_count: state.reset_count,
            kind: state.kind,
            reason: state.reason,
        })
    }

    fn position(&self) -> Result<Geodetic, String> {
        let height_m = self
            .altitude
            .filter(|height_m| HEIGHTS_M.contains(height_m));
        Geodetic::new(self.latitude, self.longitude, height_m.unwrap_or(0.0))
            .map_err(|error| error.to_string())
    }
}

impl StateMessage {
    pub fn from_estimate(estimate: &Estimate) -> Self {
        Self {
            timestamp: Timestamp::from_ns(estimate.time_ns),
            kind: estimate.kind,
            state: estimate.state,
            reason: estimate.reason.clone(),
            heading_deg: finite(estimate.yaw.heading().degrees()),
            heading_sigma_deg: finite(estimate.yaw_sigma_rad.to_degrees()),
            speed_mps: finite(estimate.speed_mps),
            mode_count: estimate.mode_count,
            protection_radius_m: finite(estimate.protection_radius_m),
            reset_count: estimate.reset_count,
        }
    }
}

impl ShadowMessage {
    pub fn from_comparison(comparison: &Comparison) -> Self {
        Self {
            timestamp: Timestamp::from_ns(comparison.time_ns),
            camera: comparison.camera.clone(),
            modes_apart_m: comparison.modes_apart_m,
            running_mode_off_m: comparison.running.mode_off_m,
            shadow_mode_off_m: comparison.shadow.mode_off_m,
            running_log_likelihood: comparison.running.log_likelihood,
            shadow_log_likelihood: comparison.shadow.log_likelihood,
        }
    }
}

impl CompressedImage {
    pub fn from_frame(frame: &CameraFrame) -> Self {
        // Raw pixels are for this program only.
        let png = png_of_pnm(&frame.image);
        let image = png.as_deref().unwrap_or(&frame.image);
        let is_png = image.starts_with(b"\x89PNG");
        Self {
            timestamp: Timestamp::from_ns(frame.time_ns),
            frame_id: frame.camera.clone(),
            data: BASE64.encode(image),
            format: if is_png { "png" } else { "jpeg" },
        }
    }
}

impl Odometry {
    pub fn from_sample(sample: &OdometrySample) -> Self {
        Self {
            timestamp: Timestamp::from_ns(sample.time_ns),
            forward_speed_mps: sample.forward_speed_mps,
            yaw_rate_rps: sample.yaw_rate_rps,
            heading_deg: sample.yaw.map(|measured| measured.yaw.heading().degrees()),
            heading_sigma_deg: sample.yaw.map(|measured| measured.sigma_rad.to_degrees()),
            speed_sigma_mps: Some(sample.speed_sigma_mps),
            yaw_rate_sigma_rps: Some(sample.yaw_rate_sigma_rps),
        }
    }

    pub fn into_sample(self) -> Result<OdometrySample, String> {
        let sample = OdometrySample {
            time_ns: self.timestamp.ns()?,
            forward_speed_mps: self.forward_speed_mps,
            yaw_rate_rps: self.yaw_rate_rps,
            yaw: self.heading_deg.map(|heading_deg| {
                YawMeasurement::from_heading_deg(
                    heading_deg,
                    self.heading_sigma_deg.unwrap_or(DEFAULT_HEADING_SIGMA_DEG),
                )
            }),
            speed_sigma_mps: self.speed_sigma_mps.unwrap_or(DEFAULT_SPEED_SIGMA_MPS),
            yaw_rate_sigma_rps: self
                .yaw_rate_sigma_rps
                .unwrap_or(DEFAULT_YAW_RATE_SIGMA_RPS),
        };
        let sigmas = [
            sample.speed_sigma_mps,
            sample.yaw_rate_sigma_rps,
            sample.yaw.map_or(0.0, |measured| measured.sigma_rad),
        ];
        if sigmas.iter().any(|sigma| *sigma < 0.0) {
            return Err("a sigma is negative; a standard deviation is not".into());
        }
        let (speed_mps, rate_rps) = (
            sample.forward_speed_mps.unwrap_or(0.0),
            sample.yaw_rate_rps.unwrap_or(0.0),
        );
        if speed_mps.abs() > 1e3 || rate_rps.abs() > 1e2 {
            return Err(format!(
                "forward_speed_mps {speed_mps} or yaw_rate_rps {rate_rps} is no vehicle's; check the units"
            ));
        }
        Ok(sample)
    }
}

/// Row-major east, north, up, m².
fn covariance9([[ee, en], [ne, nn]]: [[f64; 2]; 2], height_sigma_m: f64) -> [f64; 9] {
    [
        ee,
        en,
        0.0,
        ne,
        nn,
        0.0,
        0.0,
        0.0,
        height_sigma_m * height_sigma_m,
    ]
}

fn checked_covariance(covariance_m2: [[f64; 2]; 2]) -> Result<[[f64; 2]; 2], String> {
    let [[ee, en], [ne, nn]] = covariance_m2;
    let symmetric = (en - ne).abs() <= 1e-9 * (ee + nn).abs();
    if !(ee.is_finite()
        && nn.is_finite()
        && ee > 0.0
        && nn > 0.0
        && symmetric
        && ee * nn - en * ne > 0.0)
    {
        return Err(format!(
            "position_covariance [[{ee}, {en}], [{ne}, {nn}]] is not symmetric and positive; write variances in m²"
        ));
    }
    Ok(covariance_m2)
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn timestamps_survive_the_way_there_and_back(time_ns in any::<i64>()) {
            prop_assert_eq!(Timestamp::from_ns(time_ns).ns().ok(), Some(time_ns));
        }
    }

    #[test]
    fn a_covariance_that_is_none_is_refused() {
        for covariance in [
            [[1.0, 2.0], [2.0, 1.0]],
            [[0.0, 0.0], [0.0, 1.0]],
            [[1.0, 0.5], [-0.5, 1.0]],
            [[f64::NAN; 2]; 2],
        ] {
            assert!(checked_covariance(covariance).is_err(), "{covariance:?}");
        }
    }
}
