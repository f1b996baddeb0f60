//! The `ros2` sink of the config.

use std::net::IpAddr;

use crossfix_calibration::Geodetic;
use serde::{Deserialize, Serialize};

use super::config::{check_domain, check_environment, check_topic};
use super::node::{Domain, domain_id};
use super::write::Ros2Writer;
use crate::config::Checker;
use crate::event::EstimateKind;
use crate::peer::Playback;
use crate::port::{Connection, Interests, Peer, PeerError};

/// Positions as topics of ROS 2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ros2SinkConfig {
    /// DDS domain. Default: `ROS_DOMAIN_ID` of the environment, or 0.
    pub domain_id: Option<u16>,
    /// As of the source `ros2`.
    pub interfaces: Vec<IpAddr>,
    /// Namespace of the node `crossfixd` and of the topics `fix`, `pose` and `odometry`. Default "/crossfix".
    pub namespace: String,
    /// Which estimates. Default "fused".
    pub estimate: EstimateKind,
    /// Positions a second at most. Default 20.
    pub rate_hz: f64,
    /// Frame of pose and odometry: east, north, up at `origin`. Default "map".
    pub map_frame: String,
    /// Frame of the vehicle, whose place is that of the receiver's antenna. Default "base_link".
    pub vehicle_frame: String,
    /// Where the origin of `map_frame` is. Default: the first position.
    pub origin: Option<Origin>,
    /// Whether the transform from `map_frame` to `vehicle_frame` goes out on /tf: only where nothing else
    /// places `vehicle_frame`. Default false.
    pub tf: bool,
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
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn place(self) -> Result<Geodetic, String> {
        Geodetic::new(self.latitude_deg, self.longitude_deg, self.height_m)
            .map_err(|error| error.to_string())
    }
}

impl Default for Ros2SinkConfig {
    fn default() -> Self {
        Self {
            domain_id: None,
            interfaces: Vec::new(),
            namespace: "/crossfix".into(),
            estimate: EstimateKind::Fused,
            rate_hz: 20.0,
            map_frame: "map".into(),
            vehicle_frame: "base_link".into(),
            origin: None,
            tf: false,
        }
    }
}

impl Ros2SinkConfig {
    /// Where it writes.
    pub fn domain(&self) -> Domain {
        Domain {
            id: self.domain_id,
            interfaces: self.interfaces.clone(),
        }
    }

    /// Topics of fix, pose and odometry.
    pub fn topics(&self) -> [String; 3] {
        ["fix", "pose", "odometry"].map(|name| format!("{}/{name}", self.namespace))
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

    fn exclusive(&self) -> Vec<String> {
        let id = domain_id(&self.domain(), |name| std::env::var(name).ok());
        let domain = format!(" in domain {}", id.unwrap_or(0));
        let namespace = format!("the ROS 2 namespace {}{domain}", self.namespace);
        let frame = format!(
            "the place of the frame {} on /tf{domain}",
            self.vehicle_frame
        );
        std::iter::once(namespace)
            .chain(self.tf.then_some(frame))
            .collect()
    }

    fn check(&self, check: &mut Checker) {
        check_domain(&self.domain(), check);
        check_topic("namespace", &self.namespace, check);
        check.range("rate_hz", self.rate_hz, 0.1, 100.0);
        for (field, frame) in [
            ("map_frame", &self.map_frame),
            ("vehicle_frame", &self.vehicle_frame),
        ] {
            if frame.is_empty() || frame.starts_with('/') {
                let example = "such as \"base_link\", without a leading slash";
                check.problem(field, format!("is {frame:?}; name a frame, {example}"));
            }
        }
        if self.map_frame == self.vehicle_frame {
            check.problem("vehicle_frame", "is map_frame; they are two frames");
        }
        if let Some(Err(problem)) = self.origin.map(Origin::place) {
            check.problem("origin", problem);
        }
    }

    fn check_machine(&self, check: &mut Checker) {
        check_environment(&self.domain(), check);
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn what_is_wrong_is_named_with_its_field() {
        for (text, field) in [
            ("", None),
            (
                "origin = { latitude_deg = 52.0, longitude_deg = 4.0, height_m = 45.0 }",
                None,
            ),
            (
                "origin = { latitude_deg = 97.0, longitude_deg = 4.0, height_m = 45.0 }",
                Some("origin"),
            ),
            ("namespace = \"crossfix\"", Some("namespace")),
            ("map_frame = \"/map\"", Some("map_frame")),
            ("vehicle_frame = \"\"", Some("vehicle_frame")),
            ("vehicle_frame = \"map\"", Some("vehicle_frame")),
            ("rate_hz = 0.0", Some("rate_hz")),
            ("domain_id = 300", Some("domain_id")),
        ] {
            let text = format!("[[sink]]\nkind = \"ros2\"\n{text}");
            let problems = Config::parse(&text).unwrap().check();
            let fields: Vec<_> = problems
                .iter()
                .map(|problem| problem.field.as_str())
                .collect();
            let expected: Vec<_> = field
                .map(|field| format!("sink[0].{field}"))
                .into_iter()
                .collect();
            assert_eq!(fields, expected, "{text}");
        }
    }

    #[test]
    fn two_sinks_have_namespaces_of_their_own_and_one_of_them_has_the_frame() {
        let problems = |second: &str| -> Vec<String> {
            let first = "[[sink]]\nkind = \"ros2\"\ntf = true\n";
            let text =
                format!("{first}[[sink]]\nkind = \"ros2\"\nestimate = \"visual_only\"\n{second}");
            let problems = Config::parse(&text).unwrap().check();
            problems.iter().map(ToString::to_string).collect()
        };
        assert!(problems("namespace = \"/visual\"").is_empty());
        assert!(problems("domain_id = 7\ntf = true").is_empty());
        let found = problems("tf = true");
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("/crossfix") && found[1].contains("base_link"));
    }
}
