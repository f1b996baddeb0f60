//! The `ros2` source and the `ros2` sink of the config.

use crossfix_calibration::Geodetic;
use serde::{Deserialize, Serialize};

use super::read::Ros2Reader;
use super::write::Ros2Writer;
use crate::clocks::ClockRule;
use crate::config::Checker;
use crate::event::EstimateKind;
use crate::peer::{Playback, check_latency, check_sigmas};
use crate::port::{Connection, Interests, Peer, PeerError};

/// The largest domain whose ports exist (DDSI-RTPS 9.6.1).
const LARGEST_DOMAIN: f64 = 232.0;

/// Topics of ROS 2 to listen to; name those that there are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ros2SourceConfig {
    /// Name in logs and states, and of the camera. Default "ros2".
    pub name: String,
    /// DDS domain. Default: `ROS_DOMAIN_ID` of the environment, or 0.
    pub domain_id: Option<u16>,
    /// `sensor_msgs/NavSatFix`, such as "/gnss/fix". Default: none.
    pub fix: Option<String>,
    /// `nav_msgs/Odometry`: its twist is used, its pose is not. Default: none.
    pub odometry: Option<String>,
    /// `geometry_msgs/TwistStamped` of the vehicle. Default: none.
    pub twist: Option<String>,
    /// `sensor_msgs/Imu`, z up: its yaw rate takes the place of the other topics'. Default: none.
    pub imu: Option<String>,
    /// `sensor_msgs/CompressedImage` with JPEG or PNG. Default: none.
    pub image: Option<String>,
    /// 1-sigma per axis of a fix of unknown covariance, metres. Default 10.
    pub default_sigma_m: f64,
    /// Smallest 1-sigma per axis that is used, metres. Default 0.3.
    pub floor_sigma_m: f64,
    /// Longest time from the moment of a measurement until it arrives here, seconds. Default by kind: 1,
    /// odometry 0.5.
    pub latency_s: Option<f64>,
    /// What to do when the clock behind the stamps is off by a constant: "refuse" what it delivers, or
    /// "correct" the stamps. Default "refuse".
    pub clock: ClockRule,
}

impl Default for Ros2SourceConfig {
    fn default() -> Self {
        Self {
            name: "ros2".into(),
            domain_id: None,
            fix: None,
            odometry: None,
            twist: None,
            imu: None,
            image: None,
            default_sigma_m: 10.0,
            floor_sigma_m: 0.3,
            latency_s: None,
            clock: ClockRule::Refuse,
        }
    }
}

impl Ros2SourceConfig {
    fn topics(&self) -> [(&'static str, Option<&String>); 5] {
        [
            ("fix", self.fix.as_ref()),
            ("odometry", self.odometry.as_ref()),
            ("twist", self.twist.as_ref()),
            ("imu", self.imu.as_ref()),
            ("image", self.image.as_ref()),
        ]
    }
}

impl Peer for Ros2SourceConfig {
    fn name(&self) -> &str {
        &self.name
    }

    fn clock(&self) -> (Option<f64>, ClockRule) {
        (self.latency_s, self.clock)
    }

    fn open(&self, _playback: &Playback) -> Result<Connection, PeerError> {
        Ros2Reader::open(self).map(Connection::reader)
    }

    fn check(&self, check: &mut Checker) {
        check_latency(self.latency_s, check);
        check_sigmas(self.default_sigma_m, self.floor_sigma_m, check);
        check_domain(self.domain_id, check);
        let topics = self.topics();
        if topics.iter().all(|(_, topic)| topic.is_none()) {
            check.problem(
                "",
                "ros2 listens to nothing; name a topic, such as fix = \"/gnss/fix\"",
            );
        }
        for (field, topic) in topics {
            check_topic(field, topic.map(String::as_str), check);
        }
        if self.odometry.is_some() && self.twist.is_some() {
            check.problem(
                "twist",
                "and odometry both give the speed; name one of them",
            );
        }
    }
}

/// Positions as topics of ROS 2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ros2SinkConfig {
    /// DDS domain. Default: `ROS_DOMAIN_ID` of the environment, or 0.
    pub domain_id: Option<u16>,
    /// Namespace of the topics `fix`, `pose` and `odometry`. Default "/crossfix".
    pub namespace: String,
    /// Which estimates. Default "fused".
    pub estimate: EstimateKind,
    /// Frame of pose and odometry: east, north, up at `origin`. Default "map".
    pub map_frame: String,
    /// Frame of the vehicle, whose place is that of the receiver's antenna. Default "base_link".
    pub vehicle_frame: String,
    /// Where the origin of `map_frame` is. Default: the first position.
    pub origin: Option<Origin>,
}

/// A place, WGS 84.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// Degrees.
    pub latitude_deg: f64,
    /// Degrees.
    pub longitude_deg: f64,
    /// Above the ellipsoid, metres.
    pub height_m: f64,
}

impl Origin {
    /// The same, if it is on Earth.
    pub fn place(self) -> Result<Geodetic, String> {
        Geodetic::new(self.latitude_deg, self.longitude_deg, self.height_m)
            .map_err(|error| error.to_string())
    }
}

impl Default for Ros2SinkConfig {
    fn default() -> Self {
        Self {
            domain_id: None,
            namespace: "/crossfix".into(),
            estimate: EstimateKind::Fused,
            map_frame: "map".into(),
            vehicle_frame: "base_link".into(),
            origin: None,
        }
    }
}

impl Peer for Ros2SinkConfig {
    fn name(&self) -> &'static str {
        "ros2"
    }

    fn wants(&self) -> Interests {
        Interests::ESTIMATES | Interests::FIXES | Interests::HEALTH
    }

    fn open(&self, _playback: &Playback) -> Result<Connection, PeerError> {
        Ros2Writer::open(self).map(Connection::writer)
    }

    fn check(&self, check: &mut Checker) {
        check_domain(self.domain_id, check);
        check_topic("namespace", Some(&self.namespace), check);
        if let Some(Err(problem)) = self.origin.map(Origin::place) {
            check.problem("origin", problem);
        }
    }
}

fn check_domain(domain_id: Option<u16>, check: &mut Checker) {
    let domain = f64::from(domain_id.unwrap_or(0));
    check.range("domain_id", domain, 0.0, LARGEST_DOMAIN);
}

/// Wants `/a/b`: parts of letters, digits and `_` that do not begin with a digit.
fn check_topic(field: &str, topic: Option<&str>, check: &mut Checker) {
    let good_part = |part: &str| {
        !part.is_empty()
            && !part.starts_with(|first: char| first.is_ascii_digit())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    if let Some(topic) = topic
        && !topic
            .strip_prefix('/')
            .is_some_and(|rest| rest.split('/').all(good_part))
    {
        check.problem(
            field,
            format!("{topic:?} is no name of ROS; write it from the root, such as \"/gnss/fix\""),
        );
    }
}
