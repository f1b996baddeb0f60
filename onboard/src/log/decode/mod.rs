//! What the messages of a log mean, by the name of their schema and their encoding.
//!
//! Read are ROS 2's messages (CDR), Foxglove's (Protocol Buffers, JSON, and as ROS 2 messages) and our own
//! (JSON). All of them become the same few types: what a fix, a motion or a picture of others says in our
//! terms is written down once, in [`fix`], [`motion`] and [`picture`].

mod fix;
mod json;
mod motion;
mod picture;
mod protobuf;
mod ros;
#[cfg(feature = "ros2")]
mod ros_live;
pub mod ros_message;

pub use self::motion::{DEFAULT_SPEED_SIGMA_MPS, DEFAULT_YAW_RATE_SIGMA_RPS};
pub use self::picture::{RawPicture, png_of_pnm, rgb_of_yuv};
#[cfg(feature = "ros2")]
pub use self::ros_live::{RosSeed, RosType};
use super::Message;

/// What a topic delivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Positions of a receiver.
    Fix,
    /// Pictures.
    Picture,
    /// Speed and yaw rate.
    Motion,
    /// A yaw rate alone.
    YawRate,
    /// A camera's model and mount.
    Calibration,
}

/// Where a message comes from and when it was recorded.
#[derive(Debug, Clone, Copy)]
pub struct Recorded<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Nanoseconds on the recorder's clock.
    pub log_time_ns: i64,
}

impl<'a> Recorded<'a> {
    /// The name of a camera: that of its frame, or else of the topic.
    fn camera(self, frame: &'a str) -> &'a str {
        if frame.is_empty() { self.topic } else { frame }
    }
}

type Decode = fn(&[u8], Recorded<'_>) -> Result<Message, String>;

/// Turns the messages of one type and encoding into ours.
#[derive(Debug, Clone, Copy)]
pub struct Decoder {
    encoding: &'static str,
    name: &'static str,
    /// What the messages are.
    pub kind: Kind,
    decode: Decode,
}

/// Every type that is read. Of several that deliver the same, the earlier one is preferred.
const DECODERS: [Decoder; 20] = [
    decoder(
        "json",
        "crossfix.Odometry",
        Kind::Motion,
        json::own_odometry,
    ),
    decoder(
        "json",
        "crossfix.Camera",
        Kind::Calibration,
        json::own_camera,
    ),
    decoder(
        "json",
        "foxglove.LocationFix",
        Kind::Fix,
        json::location_fix,
    ),
    decoder(
        "json",
        "foxglove.CompressedImage",
        Kind::Picture,
        json::compressed_image,
    ),
    decoder("json", "foxglove.RawImage", Kind::Picture, json::raw_image),
    decoder("json", "foxglove.Odometry", Kind::Motion, json::odometry),
    decoder(
        "protobuf",
        "foxglove.LocationFix",
        Kind::Fix,
        protobuf::location_fix,
    ),
    decoder(
        "protobuf",
        "foxglove.CompressedImage",
        Kind::Picture,
        protobuf::compressed_image,
    ),
    decoder(
        "protobuf",
        "foxglove.RawImage",
        Kind::Picture,
        protobuf::raw_image,
    ),
    decoder(
        "protobuf",
        "foxglove.Odometry",
        Kind::Motion,
        protobuf::odometry,
    ),
    decoder("cdr", "sensor_msgs.NavSatFix", Kind::Fix, ros::nav_sat_fix),
    decoder(
        "cdr",
        "foxglove_msgs.LocationFix",
        Kind::Fix,
        ros::location_fix,
    ),
    decoder(
        "cdr",
        "sensor_msgs.CompressedImage",
        Kind::Picture,
        ros::compressed_image,
    ),
    decoder(
        "cdr",
        "foxglove_msgs.CompressedImage",
        Kind::Picture,
        ros::foxglove_compressed_image,
    ),
    decoder("cdr", "sensor_msgs.Image", Kind::Picture, ros::image),
    decoder("cdr", "nav_msgs.Odometry", Kind::Motion, ros::odometry),
    decoder(
        "cdr",
        "geometry_msgs.TwistWithCovarianceStamped",
        Kind::Motion,
        ros::twist_with_covariance,
    ),
    decoder(
        "cdr",
        "autoware_vehicle_msgs.VelocityReport",
        Kind::Motion,
        ros::velocity_report,
    ),
    decoder("cdr", "sensor_msgs.Imu", Kind::YawRate, ros::imu),
    // After the IMU: a twist without covariance often has no yaw rate in it.
    decoder(
        "cdr",
        "geometry_msgs.TwistStamped",
        Kind::Motion,
        ros::twist,
    ),
];

const fn decoder(
    encoding: &'static str,
    name: &'static str,
    kind: Kind,
    decode: Decode,
) -> Decoder {
    Decoder {
        encoding,
        name,
        kind,
        decode,
    }
}

impl Decoder {
    /// For messages of this schema in this encoding; none when they are not read here.
    pub fn of(schema: &str, encoding: &str) -> Option<Self> {
        let name = plain_name(schema);
        DECODERS
            .into_iter()
            .find(|decoder| decoder.encoding == encoding && decoder.name == name)
    }

    /// The encodings in which a type would be read; empty for types that are of no use here.
    pub fn encodings_of(schema: &str) -> Vec<&'static str> {
        let name = plain_name(schema);
        let kinds = DECODERS.iter().filter(|decoder| decoder.name == name);
        kinds.map(|decoder| decoder.encoding).collect()
    }

    /// Its place among those that deliver the same: the smaller, the better.
    pub fn rank(&self) -> usize {
        let same = |other: &Decoder| other.encoding == self.encoding && other.name == self.name;
        DECODERS.iter().position(same).unwrap_or(DECODERS.len())
    }

    /// The message in our terms.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn decode(&self, data: &[u8], recorded: Recorded<'_>) -> Result<Message, String> {
        (self.decode)(data, recorded)
    }
}

/// `package.Type`, however a recorder writes it: `sensor_msgs/msg/NavSatFix` (ROS 2), `sensor_msgs/NavSatFix`
/// (ROS 1), `sensor_msgs::msg::dds_::NavSatFix_` (DDS), `foxglove.LocationFix` (Protocol Buffers).
fn plain_name(schema: &str) -> String {
    let parts: Vec<&str> = schema
        .split(['/', '.', ':'])
        .filter(|part| !matches!(*part, "" | "msg" | "dds_"))
        .map(|part| part.trim_end_matches('_'))
        .collect();
    parts.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_known_under_each_of_its_names() {
        for name in [
            "sensor_msgs/msg/NavSatFix",
            "sensor_msgs/NavSatFix",
            "sensor_msgs::msg::dds_::NavSatFix_",
        ] {
            assert_eq!(Decoder::of(name, "cdr").unwrap().kind, Kind::Fix, "{name}");
        }
        assert!(Decoder::of("foxglove.LocationFix", "flatbuffer").is_none());
        assert_eq!(
            Decoder::encodings_of("foxglove.LocationFix"),
            ["json", "protobuf"]
        );
        assert!(Decoder::encodings_of("sensor_msgs/msg/PointCloud2").is_empty());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_a_decoder_panic(data in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400)) {
            let recorded = Recorded { topic: "/x", log_time_ns: 1 };
            for decoder in DECODERS {
                let _ = decoder.decode(&data, recorded);
                // As a ROS 2 message that goes on with these bytes.
                let little_endian = [&[0, 1, 0, 0], &data[..]].concat();
                let _ = decoder.decode(&little_endian, recorded);
            }
        }
    }
}
