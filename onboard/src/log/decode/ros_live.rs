//! Messages of ROS 2 as the middleware hands them over: it took the encapsulation off and knows the byte
//! order, so what is left is a serde deserializer.

use serde::de::{Deserialize, DeserializeSeed, Deserializer};

use super::Recorded;
use super::ros::{
    CompressedImage, Image, Imu, Meaning, TwistStamped, TwistWithCovarianceStamped, VelocityReport,
};
use super::ros_message::{NavSatFix, Odometry};
use crate::log::Message;

/// A type of message that is read from topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RosType {
    NavSatFix,
    Odometry,
    TwistStamped,
    TwistWithCovarianceStamped,
    VelocityReport,
    Imu,
    CompressedImage,
    Image,
}

impl RosType {
    /// Its package and name.
    pub fn name(self) -> (&'static str, &'static str) {
        match self {
            Self::NavSatFix => ("sensor_msgs", "NavSatFix"),
            Self::Odometry => ("nav_msgs", "Odometry"),
            Self::TwistStamped => ("geometry_msgs", "TwistStamped"),
            Self::TwistWithCovarianceStamped => ("geometry_msgs", "TwistWithCovarianceStamped"),
            Self::VelocityReport => ("autoware_vehicle_msgs", "VelocityReport"),
            Self::Imu => ("sensor_msgs", "Imu"),
            Self::CompressedImage => ("sensor_msgs", "CompressedImage"),
            Self::Image => ("sensor_msgs", "Image"),
        }
    }
}

/// Reads a message of this type: what it says in our terms, or in words why it says nothing of use.
#[derive(Debug, Clone, Copy)]
pub struct RosSeed<'a> {
    pub ros_type: RosType,
    /// Its topic, and when it came.
    pub recorded: Recorded<'a>,
}

impl<'de> DeserializeSeed<'de> for RosSeed<'_> {
    type Value = Result<Message, String>;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Self::Value, D::Error> {
        let recorded = self.recorded;
        Ok(match self.ros_type {
            RosType::NavSatFix => NavSatFix::deserialize(input)?.meaning(recorded),
            RosType::Odometry => Odometry::deserialize(input)?.meaning(recorded),
            RosType::TwistStamped => TwistStamped::deserialize(input)?.meaning(recorded),
            RosType::TwistWithCovarianceStamped => {
                TwistWithCovarianceStamped::deserialize(input)?.meaning(recorded)
            }
            RosType::VelocityReport => VelocityReport::deserialize(input)?.meaning(recorded),
            RosType::Imu => Imu::deserialize(input)?.meaning(recorded),
            RosType::CompressedImage => CompressedImage::deserialize(input)?.meaning(recorded),
            RosType::Image => Image::deserialize(input)?.meaning(recorded),
        })
    }
}

#[cfg(test)]
mod tests {
    use byteorder::LittleEndian;
    use cdr_encoding::CdrDeserializer;
    use proptest::prelude::*;

    use super::*;

    const ALL: [RosType; 8] = [
        RosType::NavSatFix,
        RosType::Odometry,
        RosType::TwistStamped,
        RosType::TwistWithCovarianceStamped,
        RosType::VelocityReport,
        RosType::Imu,
        RosType::CompressedImage,
        RosType::Image,
    ];

    /// None where the bytes are not of the type.
    fn read(ros_type: RosType, bytes: &[u8]) -> Option<Result<Message, String>> {
        let seed = RosSeed {
            ros_type,
            recorded: Recorded {
                topic: "/x",
                log_time_ns: 1,
            },
        };
        let mut cdr = CdrDeserializer::<LittleEndian>::new(bytes);
        seed.deserialize(&mut cdr).ok()
    }

    #[test]
    fn a_message_that_ends_before_its_time_is_an_error_of_every_type() {
        let mut header = vec![0; 16];
        header[8] = 1; // an empty name of a frame, with its final zero
        for ros_type in ALL {
            assert!(read(ros_type, &[]).is_none(), "{ros_type:?}");
            assert!(read(ros_type, &header).is_none(), "{ros_type:?}");
        }
        // With all of its bytes a fix is one, though at a time that nobody set.
        let whole = [header, vec![0; 112]].concat();
        assert!(matches!(
            read(RosType::NavSatFix, &whole),
            Some(Ok(Message::Gnss(_)))
        ));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..900)) {
            for ros_type in ALL {
                let _ = read(ros_type, &bytes);
            }
        }
    }
}
