//! ROS 2 messages in CDR, as their definitions in `common_interfaces` lay them out.

use byteorder::{BigEndian, LittleEndian};
use cdr_encoding::from_bytes;
use serde::Deserialize;

use super::Recorded;
use super::fix::ForeignFix;
use super::motion::{Measured, sample_of_imu, sample_of_twist};
use super::picture::{RawPicture, encoded_frame, raw_frame};
use crate::log::Message;
use crate::log::message::Timestamp;

/// `NavSatStatus`: no fix, and not set yet.
const NO_FIX: [i8; 2] = [-1, -2];

#[derive(Deserialize)]
struct Time {
    sec: i32,
    nanosec: u32,
}

#[derive(Deserialize)]
struct Header {
    stamp: Time,
    frame_id: String,
}

#[derive(Deserialize)]
struct NavSatStatus {
    status: i8,
    #[expect(dead_code, reason = "part of the layout")]
    service: u16,
}

#[derive(Deserialize)]
struct NavSatFix {
    header: Header,
    status: NavSatStatus,
    latitude: f64,
    longitude: f64,
    altitude: f64,
    position_covariance: [f64; 9],
    position_covariance_type: u8,
}

/// `foxglove_msgs/LocationFix`, up to what is of use here.
#[derive(Deserialize)]
struct LocationFix {
    stamp: Time,
    #[expect(dead_code, reason = "part of the layout")]
    frame_id: String,
    latitude: f64,
    longitude: f64,
    altitude: f64,
    position_covariance: [f64; 9],
    position_covariance_type: u8,
}

#[derive(Deserialize)]
struct CompressedImage<'a> {
    header: Header,
    format: String,
    data: &'a [u8],
}

/// `foxglove_msgs/CompressedImage`.
#[derive(Deserialize)]
struct FoxgloveCompressedImage<'a> {
    stamp: Time,
    frame_id: String,
    data: &'a [u8],
    format: String,
}

#[derive(Deserialize)]
struct Image<'a> {
    header: Header,
    height: u32,
    width: u32,
    encoding: String,
    #[expect(
        dead_code,
        reason = "part of the layout; pixels of one byte have no order"
    )]
    is_bigendian: u8,
    step: u32,
    data: &'a [u8],
}

#[derive(Deserialize)]
struct Vector3 {
    x: f64,
    #[expect(dead_code, reason = "part of the layout")]
    y: f64,
    z: f64,
}

#[derive(Deserialize)]
struct Twist {
    linear: Vector3,
    angular: Vector3,
}

/// Row-major; x, y, z, and the rotations about them.
type Covariance6 = [[f64; 6]; 6];

#[derive(Deserialize)]
struct TwistWithCovariance {
    twist: Twist,
    covariance: Covariance6,
}

#[derive(Deserialize)]
struct Odometry {
    header: Header,
    child_frame_id: String,
    /// Position, quaternion, covariance: of a frame that drifts, so none of it is used.
    #[expect(dead_code, reason = "part of the layout")]
    pose: ([f64; 7], Covariance6),
    twist: TwistWithCovariance,
}

#[derive(Deserialize)]
struct TwistStamped {
    header: Header,
    twist: Twist,
}

#[derive(Deserialize)]
struct TwistWithCovarianceStamped {
    header: Header,
    twist: TwistWithCovariance,
}

/// `autoware_vehicle_msgs/VelocityReport`.
#[derive(Deserialize)]
struct VelocityReport {
    header: Header,
    longitudinal_velocity: f32,
    #[expect(dead_code, reason = "part of the layout")]
    lateral_velocity: f32,
    heading_rate: f32,
}

#[derive(Deserialize)]
struct Imu {
    header: Header,
    #[expect(dead_code, reason = "part of the layout")]
    orientation: ([f64; 4], [f64; 9]),
    angular_velocity: Vector3,
    angular_velocity_covariance: [f64; 9],
}

pub fn nav_sat_fix(data: &[u8], recorded: Recorded<'_>) -> Result<Message, String> {
    let fix: NavSatFix = cdr(data)?;
    if NO_FIX.contains(&fix.status.status) {
        return Ok(Message::Nothing("the receiver has no fix"));
    }
    foreign_fix(&fix.header.stamp, recorded, |time_ns| ForeignFix {
        time_ns,
        latitude_deg: fix.latitude,
        longitude_deg: fix.longitude,
        altitude_m: fix.altitude,
        covariance: &fix.position_covariance,
        covariance_type: fix.position_covariance_type,
        velocity_mps: None,
    })
}

pub fn location_fix(data: &[u8], recorded: Recorded<'_>) -> Result<Message, String> {
    let fix: LocationFix = cdr(data)?;
    foreign_fix(&fix.stamp, recorded, |time_ns| ForeignFix {
        time_ns,
        latitude_deg: fix.latitude,
        longitude_deg: fix.longitude,
        altitude_m: fix.altitude,
        covariance: &fix.position_covariance,
        covariance_type: fix.position_covariance_type,
        velocity_mps: None,
    })
}

fn foreign_fix<'a>(
    stamp: &Time,
    recorded: Recorded<'_>,
    fix: impl FnOnce(i64) -> ForeignFix<'a>,
) -> Result<Message, String> {
    Ok(Message::Gnss(fix(time_ns(stamp, recorded)?).into_fix()?))
}

pub fn compressed_image(data: &[u8], recorded: Recorded<'_>) -> Result<Message, String> {
    let image: CompressedImage = cdr(data)?;
    let time_ns = time_ns(&image.header.stamp, recorded)?;
    let camera = recorded.camera(&image.header.frame_id);
    encoded_frame(time_ns, camera, &image.format, image.data).map(Message::Frame)
}

pub fn foxglove_compressed_image(data: &[u8], recorded: Recorded<'_>) -> Result<Message, String> {
    let image: FoxgloveCompressedImage = cdr(data)?;
    let time_ns = time_ns(&image.stamp, recorded)?;
    let camera = recorded.camera(&image.frame_id);
    encoded_frame(time_ns, camera, &image.format, image.data).map(Message::Frame)
}

pub fn image(data: &[u8], recorded: Recorded<'_>) -> Result<Message, String> {
    let image: Image = cdr(data)?;
    let time_ns = time_ns(&image.header.stamp, recorded)?;
    let raw = RawPicture {
        width: image.width,
        height: image.height,
        step: image.step,
        encoding: &image.encoding,
        data: image.data,
    };
    raw_frame(time_ns, recorded.camera(&image.header.frame_id), &raw).map(Message::Frame)
}

pub fn odometry(data: &[u8], recorded: Recorded<'_>) -> Result<Message, String> {
    let odometry: Odometry = cdr(data)?;
    twist_message(
        &odometry.header.stamp,
        &odometry.child_frame_id,
        &odometry.twist.twist,
        Some(&odometry.twist.covariance),
        recorded,
    )
}

pub fn twist_with_covariance(data: &[u8], recorded: Recorded<'_>) -> Result<Message, String> {
    let TwistWithCovarianceStamped { header, twist } = cdr(data)?;
    twist_message(
        &header.stamp,
        &header.frame_id,
        &twist.twist,
        Some(&twist.covariance),
        recorded,
    )
}

pub fn twist(data: &[u8], recorded: Recorded<'_>) -> Result<Message, String> {
    let TwistStamped { header, twist } = cdr(data)?;
    twist_message(&header.stamp, &header.frame_id, &twist, None, recorded)
}

pub fn velocity_report(data: &[u8], recorded: Recorded<'_>) -> Result<Message, String> {
    let report: VelocityReport = cdr(data)?;
    let vector = |x: f32, z: f32| Vector3 {
        x: f64::from(x),
        y: 0.0,
        z: f64::from(z),
    };
    let twist = Twist {
        linear: vector(report.longitudinal_velocity, 0.0),
        angular: vector(0.0, report.heading_rate),
    };
    let Header { stamp, frame_id } = &report.header;
    twist_message(stamp, frame_id, &twist, None, recorded)
}

fn twist_message(
    stamp: &Time,
    frame: &str,
    twist: &Twist,
    covariance: Option<&Covariance6>,
    recorded: Recorded<'_>,
) -> Result<Message, String> {
    let measured = |value: f64, axis: usize| Measured {
        value,
        variance: covariance.map_or(f64::NAN, |covariance| covariance[axis][axis]),
    };
    let sample = sample_of_twist(
        time_ns(stamp, recorded)?,
        frame,
        measured(twist.linear.x, 0),
        measured(twist.angular.z, 5),
    );
    sample.map(Message::Odometry)
}

pub fn imu(data: &[u8], recorded: Recorded<'_>) -> Result<Message, String> {
    let imu: Imu = cdr(data)?;
    // "If you have no estimate for one of the data elements, set element 0 of its covariance to -1."
    if imu.angular_velocity_covariance[0] == -1.0 {
        return Ok(Message::Nothing("the IMU measures no angular velocity"));
    }
    let yaw_rate = Measured {
        value: imu.angular_velocity.z,
        variance: imu.angular_velocity_covariance[8],
    };
    let time_ns = time_ns(&imu.header.stamp, recorded)?;
    sample_of_imu(time_ns, &imu.header.frame_id, yaw_rate).map(Message::Odometry)
}

/// The stamp of the message, or when it was recorded if it has none.
fn time_ns(stamp: &Time, recorded: Recorded<'_>) -> Result<i64, String> {
    Timestamp::new(i64::from(stamp.sec), stamp.nanosec).ns_or(recorded.log_time_ns)
}

/// Reads plain CDR, after the four bytes that say how it is laid out (DDSI-RTPS 2.3, 10.2.1.2).
fn cdr<'a, T: Deserialize<'a>>(data: &'a [u8]) -> Result<T, String> {
    let [first, layout, _, _, body @ ..] = data else {
        return Err(format!("has only {} bytes", data.len()));
    };
    let read = match (first, layout) {
        (0, 0) => from_bytes::<T, BigEndian>(body),
        (0, 1) => from_bytes::<T, LittleEndian>(body),
        _ => {
            return Err(format!(
                "its encapsulation is 0x{first:02x}{layout:02x}; plain CDR (0x0000, 0x0001) is read"
            ));
        }
    };
    match read {
        Ok((value, _)) => Ok(value),
        Err(error) => Err(format!("is not what its type says: {error}")),
    }
}
