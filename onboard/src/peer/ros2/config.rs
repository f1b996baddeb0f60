//! The `ros2` source of the config.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::node::{Domain, LARGEST_DOMAIN, domain_id, find_interface};
use super::read::Ros2Reader;
use super::sink_config::Ros2SinkConfig;
use crate::clocks::ClockRule;
use crate::config::Checker;
use crate::log::RosType;
use crate::peer::{Playback, check_latency};
use crate::port::{Connection, Peer, PeerError};

/// Topics of ROS 2 to listen to; name those that there are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ros2SourceConfig {
    /// Name in logs and states, and of the camera; the node is called crossfixd_NAME. Default "ros2".
    pub name: String,
    /// DDS domain. Default: `ROS_DOMAIN_ID` of the environment, or 0.
    pub domain_id: Option<u16>,
    /// Addresses of the interfaces to use, such as `["127.0.0.1"]`. Default: all, or the loopback if the
    /// environment says `ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST` or `ROS_LOCALHOST_ONLY=1`.
    pub interfaces: Vec<IpAddr>,
    /// `sensor_msgs/NavSatFix`, such as "/gnss/fix". Default: none.
    pub fix: Option<String>,
    /// `nav_msgs/Odometry`: its twist is used, its pose is not. Default: none.
    pub odometry: Option<String>,
    /// `geometry_msgs/TwistStamped` of the vehicle. Default: none.
    pub twist: Option<String>,
    /// `geometry_msgs/TwistWithCovarianceStamped` of the vehicle. Default: none.
    pub twist_with_covariance: Option<String>,
    /// `autoware_vehicle_msgs/VelocityReport`. Default: none.
    pub velocity_report: Option<String>,
    /// `sensor_msgs/Imu`, mounted upright: its yaw rate takes the place of the other topics'. Default: none.
    pub imu: Option<String>,
    /// `sensor_msgs/CompressedImage` with JPEG or PNG. Default: none.
    pub compressed_image: Option<String>,
    /// `sensor_msgs/Image`. Default: none.
    pub image: Option<String>,
    /// 1-sigma per axis of a fix of unknown covariance, metres. Default 10.
    pub default_sigma_m: f64,
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
            interfaces: Vec::new(),
            fix: None,
            odometry: None,
            twist: None,
            twist_with_covariance: None,
            velocity_report: None,
            imu: None,
            compressed_image: None,
            image: None,
            default_sigma_m: 10.0,
            latency_s: None,
            clock: ClockRule::Refuse,
        }
    }
}

impl Ros2SourceConfig {
    /// Where it listens.
    pub fn domain(&self) -> Domain {
        Domain {
            id: self.domain_id,
            interfaces: self.interfaces.clone(),
        }
    }

    /// The topics that are named, with their types and fields.
    pub fn topics(&self) -> impl Iterator<Item = (&'static str, RosType, &str)> {
        let fields = [
            ("fix", RosType::NavSatFix, &self.fix),
            ("odometry", RosType::Odometry, &self.odometry),
            ("twist", RosType::TwistStamped, &self.twist),
            (
                "twist_with_covariance",
                RosType::TwistWithCovarianceStamped,
                &self.twist_with_covariance,
            ),
            (
                "velocity_report",
                RosType::VelocityReport,
                &self.velocity_report,
            ),
            ("imu", RosType::Imu, &self.imu),
            (
                "compressed_image",
                RosType::CompressedImage,
                &self.compressed_image,
            ),
            ("image", RosType::Image, &self.image),
        ];
        fields
            .into_iter()
            .filter_map(|(field, ros_type, topic)| Some((field, ros_type, topic.as_deref()?)))
    }

    /// Reports topics that a sink of ours writes: the filter would take its own result for a measurement.
    pub fn check_against(&self, sink: &Ros2SinkConfig, check: &mut Checker) {
        let own = sink.topics();
        // As they will join: what is not written is that of the environment, or 0.
        let id = |domain: &Domain| domain_id(domain, |name| std::env::var(name).ok());
        let is_one_domain = id(&self.domain()) == id(&sink.domain());
        for (field, _, topic) in self.topics() {
            if is_one_domain && own.iter().any(|own| own == topic) {
                check.problem(
                    field,
                    format!("is {topic:?}, which the sink ros2 writes; name the topic of a sensor"),
                );
            }
        }
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
        check.range("default_sigma_m", self.default_sigma_m, 0.3, 1e4);
        check_domain(&self.domain(), check);
        if self.topics().next().is_none() {
            check.problem(
                "",
                "ros2 listens to nothing; name a topic, such as fix = \"/gnss/fix\"",
            );
        }
        let (mut speeds, mut pictures) = (Vec::new(), Vec::new());
        for (field, ros_type, topic) in self.topics() {
            check_topic(field, topic, check);
            match ros_type {
                RosType::NavSatFix | RosType::Imu => {}
                RosType::CompressedImage | RosType::Image => pictures.push(field),
                _ => speeds.push(field),
            }
        }
        for fields in [speeds, pictures] {
            if let [_, second, ..] = fields[..] {
                check.problem(
                    second,
                    format!("and {} deliver the same; name one of them", fields[0]),
                );
            }
        }
    }

    fn check_machine(&self, check: &mut Checker) {
        check_environment(&self.domain(), check);
    }
}

/// Wants a domain that has ports.
pub fn check_domain(domain: &Domain, check: &mut Checker) {
    let id = f64::from(domain.id.unwrap_or(0));
    check.range("domain_id", id, 0.0, f64::from(LARGEST_DOMAIN));
}

/// Wants an environment that names a domain, and interfaces that are there.
pub fn check_environment(domain: &Domain, check: &mut Checker) {
    if let Err(problem) = domain_id(domain, |name| std::env::var(name).ok()) {
        check.machine("domain_id", problem);
    }
    for address in &domain.interfaces {
        if let Err(problem) = find_interface(*address) {
            check.machine("interfaces", problem);
        }
    }
}

/// Wants `/a/b`: parts of letters, digits and single `_` that do not begin with a digit.
pub fn check_topic(field: &str, topic: &str, check: &mut Checker) {
    let good_part = |part: &str| {
        !part.is_empty()
            && !part.starts_with(|first: char| first.is_ascii_digit())
            && part
                .chars()
                .all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
            && !part.contains("__")
    };
    let is_good = topic
        .strip_prefix('/')
        .is_some_and(|rest| rest.split('/').all(good_part));
    if !is_good {
        check.problem(
            field,
            format!("{topic:?} is no name of ROS; write it from the root, such as \"/gnss/fix\""),
        );
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn problems(text: &str) -> Vec<String> {
        let problems = Config::parse(text).unwrap().check();
        problems.iter().map(ToString::to_string).collect()
    }

    fn source(text: &str) -> Vec<String> {
        problems(&format!("[[source]]\nkind = \"ros2\"\n{text}"))
    }

    #[test]
    fn what_is_wrong_is_named_with_its_field() {
        assert!(
            source("fix = \"/gnss/fix\"\nodometry = \"/odom\"\nimu = \"/imu/data\"").is_empty()
        );
        assert!(source("imu = \"/imu/data\"").is_empty(), "a gyro alone");
        for (text, field) in [
            ("", ": ros2 listens"),
            ("fix = \"gnss/fix\"", ".fix: "),
            ("fix = \"/gnss//fix\"", ".fix: "),
            ("fix = \"/gnss/2fix\"", ".fix: "),
            ("fix = \"/gnss__fix\"", ".fix: "),
            ("fix = \"/gnss/fix/\"", ".fix: "),
            ("fix = \"/fix\"\ndomain_id = 233", ".domain_id: "),
            (
                "fix = \"/fix\"\ndefault_sigma_m = 0.0",
                ".default_sigma_m: ",
            ),
            ("fix = \"/fix\"\nlatency_s = -1.0", ".latency_s: "),
            ("odometry = \"/a\"\ntwist = \"/b\"", ".twist: and odometry"),
            (
                "image = \"/a\"\ncompressed_image = \"/b\"",
                ".image: and compressed_image",
            ),
        ] {
            let found = source(text);
            let named = format!("source[0]{field}");
            assert!(
                found.len() == 1 && found[0].starts_with(&named),
                "{text}: {found:?}"
            );
        }
    }

    #[test]
    fn our_own_positions_are_no_measurement() {
        let text = "[[sink]]\nkind = \"ros2\"\nnamespace = \"/here\"\n\
                    [[source]]\nkind = \"ros2\"\nfix = \"/here/fix\"\nodometry = \"/here/odometry\"";
        let found = problems(text);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("source[0].fix: ") && found[0].contains("sink"));
        assert!(problems(&text.replace("[[source]]", "domain_id = 7\n[[source]]")).is_empty());
    }
}
