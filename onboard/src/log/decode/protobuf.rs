//! Foxglove's messages in Protocol Buffers, with the field numbers of its published schemas.

use prost::Message as _;

use super::Recorded;
use super::fix::ForeignFix;
use super::motion::{Measured, sample_of_twist};
use super::picture::{RawPicture, encoded_frame, raw_frame};
use crate::log::Message;
use crate::log::message::Timestamp;

/// `google.protobuf.Timestamp`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Time {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Vector3 {
    #[prost(double, tag = "1")]
    x: f64,
    #[prost(double, tag = "2")]
    y: f64,
    #[prost(double, tag = "3")]
    z: f64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LocationFix {
    #[prost(double, tag = "1")]
    latitude: f64,
    #[prost(double, tag = "2")]
    longitude: f64,
    #[prost(double, tag = "3")]
    altitude: f64,
    #[prost(double, repeated, tag = "4")]
    position_covariance: Vec<f64>,
    #[prost(int32, tag = "5")]
    position_covariance_type: i32,
    #[prost(message, optional, tag = "6")]
    timestamp: Option<Time>,
    #[prost(message, optional, tag = "11")]
    velocity: Option<Vector3>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CompressedImage {
    #[prost(message, optional, tag = "1")]
    timestamp: Option<Time>,
    #[prost(bytes = "vec", tag = "2")]
    data: Vec<u8>,
    #[prost(string, tag = "3")]
    format: String,
    #[prost(string, tag = "4")]
    frame_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RawImage {
    #[prost(message, optional, tag = "1")]
    timestamp: Option<Time>,
    #[prost(fixed32, tag = "2")]
    width: u32,
    #[prost(fixed32, tag = "3")]
    height: u32,
    #[prost(string, tag = "4")]
    encoding: String,
    #[prost(fixed32, tag = "5")]
    step: u32,
    #[prost(bytes = "vec", tag = "6")]
    data: Vec<u8>,
    #[prost(string, tag = "7")]
    frame_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Odometry {
    #[prost(message, optional, tag = "1")]
    timestamp: Option<Time>,
    #[prost(string, tag = "3")]
    body_frame_id: String,
    #[prost(message, optional, tag = "5")]
    linear_velocity: Option<Vector3>,
    #[prost(message, optional, tag = "6")]
    angular_velocity: Option<Vector3>,
    #[prost(double, repeated, tag = "8")]
    velocity_covariance: Vec<f64>,
}

pub fn location_fix(data: &[u8], recorded: Recorded<'_>) -> Result<Message, String> {
    let fix = LocationFix::decode(data).map_err(|error| error.to_string())?;
    let foreign = ForeignFix {
        time_ns: time_ns(fix.timestamp, recorded)?,
        latitude_deg: fix.latitude,
        longitude_deg: fix.longitude,
        altitude_m: fix.altitude,
        covariance: &fix.position_covariance,
        covariance_type: u8::try_from(fix.position_covariance_type).unwrap_or(0),
        velocity_mps: fix.velocity.map(|velocity| [velocity.x, velocity.y]),
    };
    foreign.into_fix().map(Message::Gnss)
}

pub fn compressed_image(data: &[u8], recorded: Recorded<'_>) -> Result<Message, String> {
    let image = CompressedImage::decode(data).map_err(|error| error.to_string())?;
    let time_ns = time_ns(image.timestamp, recorded)?;
    let camera = recorded.camera(&image.frame_id);
    encoded_frame(time_ns, camera, &image.format, &image.data).map(Message::Frame)
}

pub fn raw_image(data: &[u8], recorded: Recorded<'_>) -> Result<Message, String> {
    let image = RawImage::decode(data).map_err(|error| error.to_string())?;
    let raw = RawPicture {
        width: image.width,
        height: image.height,
        step: image.step,
        encoding: &image.encoding,
        data: &image.data,
    };
    let time_ns = time_ns(image.timestamp, recorded)?;
    raw_frame(time_ns, recorded.camera(&image.frame_id), &raw).map(Message::Frame)
}

pub fn odometry(data: &[u8], recorded: Recorded<'_>) -> Result<Message, String> {
    let odometry = Odometry::decode(data).map_err(|error| error.to_string())?;
    // A part that is not there is not measured.
    let measured = |vector: Option<f64>, axis: usize| Measured {
        value: vector.unwrap_or(f64::NAN),
        variance: odometry
            .velocity_covariance
            .get(7 * axis)
            .copied()
            .unwrap_or(f64::NAN),
    };
    let sample = sample_of_twist(
        time_ns(odometry.timestamp, recorded)?,
        &odometry.body_frame_id,
        measured(odometry.linear_velocity.map(|velocity| velocity.x), 0),
        measured(odometry.angular_velocity.map(|velocity| velocity.z), 5),
    );
    sample.map(Message::Odometry)
}

fn time_ns(time: Option<Time>, recorded: Recorded<'_>) -> Result<i64, String> {
    let time = time.unwrap_or_default();
    let nanos = u32::try_from(time.nanos).map_err(|_| "timestamp.nanos is negative")?;
    Timestamp::new(time.seconds, nanos).ns_or(recorded.log_time_ns)
}
