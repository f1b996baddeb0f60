//! JSON messages: Foxglove's, and our own.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use crossfix_calibration::Camera;
use serde::Deserialize;

use super::Recorded;
use super::fix::ForeignFix;
use super::motion::{Measured, sample_of_twist};
use super::picture::{RawPicture, encoded_frame, raw_frame};
use crate::log::Message;
use crate::log::message::{LocationFix, Odometry as OwnOdometry, Timestamp};

#[derive(Deserialize)]
struct Vector3 {
    #[serde(default)]
    x: Option<f64>,
    #[serde(default)]
    y: Option<f64>,
    #[serde(default)]
    z: Option<f64>,
}

/// `foxglove.LocationFix` as others write it: what is not a number is `null`.
#[derive(Deserialize)]
struct ForeignLocationFix {
    #[serde(default)]
    timestamp: Timestamp,
    latitude: Option<f64>,
    longitude: Option<f64>,
    #[serde(default)]
    altitude: Option<f64>,
    #[serde(default)]
    position_covariance: Vec<Option<f64>>,
    #[serde(default)]
    position_covariance_type: u8,
    #[serde(default)]
    velocity: Option<Vector3>,
}

/// Which of the two a fix is: only ours says where its covariance came from, or carries an estimate.
#[derive(Deserialize)]
struct Marks {
    #[serde(default)]
    covariance_rule: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    estimate: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct CompressedImage<'a> {
    #[serde(default)]
    timestamp: Timestamp,
    #[serde(default)]
    frame_id: String,
    #[serde(borrow)]
    data: std::borrow::Cow<'a, str>,
    #[serde(default)]
    format: String,
}

#[derive(Deserialize)]
struct RawImage<'a> {
    #[serde(default)]
    timestamp: Timestamp,
    #[serde(default)]
    frame_id: String,
    width: u32,
    height: u32,
    encoding: String,
    #[serde(default)]
    step: u32,
    #[serde(borrow)]
    data: std::borrow::Cow<'a, str>,
}

#[derive(Deserialize)]
struct Odometry {
    #[serde(default)]
    timestamp: Timestamp,
    #[serde(default)]
    body_frame_id: String,
    #[serde(default)]
    linear_velocity: Option<Vector3>,
    #[serde(default)]
    angular_velocity: Option<Vector3>,
    #[serde(default)]
    velocity_covariance: Vec<Option<f64>>,
}

pub fn own_odometry(data: &[u8], _: Recorded<'_>) -> Result<Message, String> {
    let sample = json::<OwnOdometry>(data)?.into_sample()?;
    Ok(Message::Odometry(sample))
}

pub fn own_camera(data: &[u8], _: Recorded<'_>) -> Result<Message, String> {
    json::<Camera>(data).map(Message::Calibration)
}

pub fn location_fix(data: &[u8], recorded: Recorded<'_>) -> Result<Message, String> {
    let marks: Marks = json(data)?;
    if marks.estimate.is_some() {
        let estimate = json::<LocationFix>(data)?.into_estimate()?;
        return Ok(Message::Estimate(estimate));
    }
    if marks.covariance_rule.is_some() {
        let fix = json::<LocationFix>(data)?.into_gnss()?;
        return Ok(Message::Gnss(fix));
    }
    let fix: ForeignLocationFix = json(data)?;
    let covariance: Vec<f64> = numbers(&fix.position_covariance);
    let foreign = ForeignFix {
        time_ns: fix.timestamp.ns_or(recorded.log_time_ns)?,
        latitude_deg: number(fix.latitude),
        longitude_deg: number(fix.longitude),
        altitude_m: number(fix.altitude),
        covariance: &covariance,
        covariance_type: fix.position_covariance_type,
        velocity_mps: fix
            .velocity
            .map(|velocity| [number(velocity.x), number(velocity.y)]),
    };
    foreign.into_fix().map(Message::Gnss)
}

pub fn compressed_image(data: &[u8], recorded: Recorded<'_>) -> Result<Message, String> {
    let image: CompressedImage = json(data)?;
    let time_ns = image.timestamp.ns_or(recorded.log_time_ns)?;
    let bytes = bytes(&image.data)?;
    let camera = recorded.camera(&image.frame_id);
    encoded_frame(time_ns, camera, &image.format, &bytes).map(Message::Frame)
}

pub fn raw_image(data: &[u8], recorded: Recorded<'_>) -> Result<Message, String> {
    let image: RawImage = json(data)?;
    let time_ns = image.timestamp.ns_or(recorded.log_time_ns)?;
    let raw = RawPicture {
        width: image.width,
        height: image.height,
        step: image.step,
        encoding: &image.encoding,
        data: &bytes(&image.data)?,
    };
    raw_frame(time_ns, recorded.camera(&image.frame_id), &raw).map(Message::Frame)
}

pub fn odometry(data: &[u8], recorded: Recorded<'_>) -> Result<Message, String> {
    let odometry: Odometry = json(data)?;
    let measured = |value: Option<f64>, axis: usize| Measured {
        value: number(value),
        variance: number(
            odometry
                .velocity_covariance
                .get(7 * axis)
                .copied()
                .flatten(),
        ),
    };
    let sample = sample_of_twist(
        odometry.timestamp.ns_or(recorded.log_time_ns)?,
        &odometry.body_frame_id,
        measured(odometry.linear_velocity.as_ref().and_then(|v| v.x), 0),
        measured(odometry.angular_velocity.as_ref().and_then(|v| v.z), 5),
    );
    sample.map(Message::Odometry)
}

fn json<'a, T: Deserialize<'a>>(data: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(data).map_err(|error| error.to_string())
}

fn number(value: Option<f64>) -> f64 {
    value.unwrap_or(f64::NAN)
}

fn numbers(values: &[Option<f64>]) -> Vec<f64> {
    values.iter().copied().map(number).collect()
}

fn bytes(text: &str) -> Result<Vec<u8>, String> {
    BASE64
        .decode(text)
        .map_err(|error| format!("data is not base64: {error}"))
}
