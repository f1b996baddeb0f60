//! ROS 2 messages in CDR, as their definitions in `common_interfaces` lay them out.

use byteorder::{BigEndian, LittleEndian};
use cdr_encoding::from_bytes;
use serde::Deserialize;

use super::Recorded;
use super::fix::ForeignFix;
use super::motion::{Measured, sample_of_imu, sample_of_twist};
use super::picture::{RawPicture, encoded_frame, raw_frame};
use super::ros_message::{
    Covariance6, Header, NavSatFix, Odometry, Time, Twist, TwistWithCovariance, Vector3,
};
use crate::log::Message;
use crate::log::message::Timestamp;

/// `NavSatStatus`: no fix, and not set yet.
const NO_FIX: [i8; 2] = [-1, -2];

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
pub(super) struct CompressedImage<'a> {
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
pub(super) struct Image<'a> {
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
pub(super) struct TwistStamped {
    header: Header,
    twist: Twist,
}

#[derive(Deserialize)]
pub(super) struct TwistWithCovarianceStamped {
    header: Header,
    twist: TwistWithCovariance,
}

/// `autoware_vehicle_msgs/VelocityReport`.
#[derive(Deserialize)]
pub(super) struct VelocityReport {
    header: Header,
    longitudinal_velocity: f32,
    #[expect(dead_code, reason = "part of the layout")]
    lateral_velocity: f32,
    heading_rate: f32,
}

#[derive(Deserialize)]
pub(super) struct Imu {
    header: Header,
    #[expect(dead_code, reason = "part of the layout")]
    orientation: ([f64; 4], [f64; 9]),
    angular_velocity: Vector3,
    angular_velocity_covariance: [f64; 9],
}

/// What a message says in our terms.
pub(super) trait Meaning<'a>: Deserialize<'a> {
    /// # Errors
    /// What is wrong with it, in words.
    fn meaning(self, recorded: Recorded<'_>) -> Result<Message, String>;
}

pub fn nav_sat_fix(data: &[u8], recorded: Recorded<'_>) -> Result<Message, String> {
    cdr::<NavSatFix>(data)?.meaning(recorded)
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

pub fn compressed_image(data: &[u8], recorded: Recorded<'_>) -> Result<Message, String> {
    cdr::<CompressedImage>(data)?.meaning(recorded)
}

pub fn foxglove_compressed_image(data: &[u8], recorded: Recorded<'_>) -> Result<Message, String> {
    let image: FoxgloveCompressedImage = cdr(data)?;
    let time_ns = time_ns(&image.stamp, recorded)?;
    let camera = recorded.camera(&image.frame_id);
    encoded_frame(time_ns, camera, &image.format, image.data).map(Message::Frame)
}

pub fn image(data: &[u8], recorded: Recorded<'_>) -> Result<Message, String> {
    cdr::<Image>(data)?.meaning(recorded)
}

pub fn odometry(data: &[u8], recorded: Recorded<'_>) -> Result<Message, String> {
    cdr::<Odometry>(data)?.meaning(recorded)
}

pub fn twist_with_covariance(data: &[u8], recorded: Recorded<'_>) -> Result<Message, String> {
    cdr::<TwistWithCovarianceStamped>(data)?.meaning(recorded)
}

pub fn twist(data: &[u8], recorded: Recorded<'_>) -> Result<Message, String> {
    cdr::<TwistStamped>(data)?.meaning(recorded)
}

pub fn velocity_report(data: &[u8], recorded: Recorded<'_>) -> Result<Message, String> {
    cdr::<VelocityReport>(data)?.meaning(recorded)
}

pub fn imu(data: &[u8], recorded: Recorded<'_>) -> Result<Message, String> {
    cdr::<Imu>(data)?.meaning(recorded)
}

impl Meaning<'_> for NavSatFix {
    fn meaning(self, recorded: Recorded<'_>) -> Result<Message, String> {
        if NO_FIX.contains(&self.status.status) {
            return Ok(Message::Nothing("the receiver has no fix"));
        }
        foreign_fix(&self.header.stamp, recorded, |time_ns| ForeignFix {
            time_ns,
            latitude_deg: self.latitude,
            longitude_deg: self.longitude,
            altitude_m: self.altitude,
            covariance: &self.position_covariance,
            covariance_type: self.position_covariance_type,
            velocity_mps: None,
        })
    }
}

impl<'a> Meaning<'a> for CompressedImage<'a> {
    fn meaning(self, recorded: Recorded<'_>) -> Result<Message, String> {
        let time_ns = time_ns(&self.header.stamp, recorded)?;
        let camera = recorded.camera(&self.header.frame_id);
        encoded_frame(time_ns, camera, &self.format, self.data).map(Message::Frame)
    }
}

impl<'a> Meaning<'a> for Image<'a> {
    fn meaning(self, recorded: Recorded<'_>) -> Result<Message, String> {
        let time_ns = time_ns(&self.header.stamp, recorded)?;
        let raw = RawPicture {
            width: self.width,
            height: self.height,
            step: self.step,
            encoding: &self.encoding,
            data: self.data,
        };
        raw_frame(time_ns, recorded.camera(&self.header.frame_id), &raw).map(Message::Frame)
    }
}

/// The twist alone: the pose is of a frame that drifts, so none of it is used.
impl Meaning<'_> for Odometry {
    fn meaning(self, recorded: Recorded<'_>) -> Result<Message, String> {
        twist_message(
            &self.header.stamp,
            &self.child_frame_id,
            &self.twist.twist,
            Some(&self.twist.covariance),
            recorded,
        )
    }
}

impl Meaning<'_> for TwistWithCovarianceStamped {
    fn meaning(self, recorded: Recorded<'_>) -> Result<Message, String> {
        let Self { header, twist } = self;
        twist_message(
            &header.stamp,
            &header.frame_id,
            &twist.twist,
            Some(&twist.covariance),
            recorded,
        )
    }
}

impl Meaning<'_> for TwistStamped {
    fn meaning(self, recorded: Recorded<'_>) -> Result<Message, String> {
        let Self { header, twist } = self;
        twist_message(&header.stamp, &header.frame_id, &twist, None, recorded)
    }
}

impl Meaning<'_> for VelocityReport {
    fn meaning(self, recorded: Recorded<'_>) -> Result<Message, String> {
        let vector = |x: f32, z: f32| Vector3 {
            x: f64::from(x),
            y: 0.0,
            z: f64::from(z),
        };
        let twist = Twist {
            linear: vector(self.longitudinal_velocity, 0.0),
            angular: vector(0.0, self.heading_rate),
        };
        let Header { stamp, frame_id } = &self.header;
        twist_message(stamp, frame_id, &twist, None, recorded)
    }
}

impl Meaning<'_> for Imu {
    fn meaning(self, recorded: Recorded<'_>) -> Result<Message, String> {
        // "If you have no estimate for one of the data elements, set element 0 of its covariance to -1."
        if self.angular_velocity_covariance[0] == -1.0 {
            return Ok(Message::Nothing("the IMU measures no angular velocity"));
        }
        let yaw_rate = Measured {
            value: self.angular_velocity.z,
            variance: self.angular_velocity_covariance[8],
        };
        let time_ns = time_ns(&self.header.stamp, recorded)?;
        sample_of_imu(time_ns, &self.header.frame_id, yaw_rate).map(Message::Odometry)
    }
}

fn foreign_fix<'a>(
    stamp: &Time,
    recorded: Recorded<'_>,
    fix: impl FnOnce(i64) -> ForeignFix<'a>,
) -> Result<Message, String> {
    Ok(Message::Gnss(fix(time_ns(stamp, recorded)?).into_fix()?))
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
