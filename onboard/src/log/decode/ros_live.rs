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
