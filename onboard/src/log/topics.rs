//! Which topics of a log are used: those named in the config, or else found by their types.

use std::collections::HashMap;
use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::decode::{Decoder, Kind};
use super::{Message, topic};
use crate::config::Checker;

/// Topics listed in a message; more are only counted.
const MOST_LISTED: usize = 24;
/// Parts of the names of topics that are not taken unless they are named: results of this program and
/// true positions, results of other filters (they contain what this program computes), pictures that show
/// no colours, and odometry made of fixes.
const NOT_RAW: [&str; 2] = ["/crossfix/", "truth"];
const NOT_A_RECEIVER: [&str; 2] = ["filtered", "fused"];
const NOT_COLOUR: [&str; 4] = ["depth", "disparity", "mask", "segment"];
const NOT_ODOMETRY: [&str; 3] = ["gps", "gnss", "global"];

/// The topics of recorded drives. What is not named is found by its type: see GUIDE.md, "Recorded drives".
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TopicsConfig {
    /// Fixes: one topic, or a list with one for each receiver; `[]` for none. Default: found by type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gnss: Option<TopicNames>,
    /// Pictures; with a rig a list with one for each camera; `[]` for none. Default: found by type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub camera: Option<TopicNames>,
    /// Speed and yaw rate; `[]` for none. Default: found by type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub odometry: Option<TopicNames>,
    /// Speed alone, in place of that of `odometry`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed: Option<TopicNames>,
    /// Yaw rate alone, in place of that of `odometry`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub yaw_rate: Option<TopicNames>,
}

impl TopicsConfig {
    /// Reports what cannot be right.
    pub fn check(&self, check: &mut Checker) {
        for (field, names) in self.fields() {
            let Some(TopicNames(names)) = names else {
                continue;
            };
            if names.iter().any(String::is_empty) {
                check.problem(
                    field,
                    "has an empty name; name a topic, such as \"/fix\", or write [] for none",
                );
            }
            if !matches!(field, "gnss" | "camera") && names.len() > 1 {
                check.problem(
                    field,
                    format!("names {} topics; name the one to use", names.len()),
                );
            }
        }
    }

    /// Reports more than one camera, where there is no rig to stitch them.
    pub fn check_one_camera(&self, check: &mut Checker) {
        if let Some(TopicNames(names)) = &self.camera
            && names.len() > 1
        {
            check.problem(
                "camera",
                format!(
                    "names {} topics; name the one to use, or describe the cameras in [rig]",
                    names.len()
                ),
            );
        }
    }

    fn fields(&self) -> [(&'static str, Option<&TopicNames>); 5] {
        [
            ("gnss", self.gnss.as_ref()),
            ("camera", self.camera.as_ref()),
            ("odometry", self.odometry.as_ref()),
            ("speed", self.speed.as_ref()),
            ("yaw_rate", self.yaw_rate.as_ref()),
        ]
    }
}

/// The name of a topic, or a list of names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct TopicNames(pub Vec<String>);

impl<'de> Deserialize<'de> for TopicNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore;

        impl<'de> Visitor<'de> for OneOrMore {
            type Value = TopicNames;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a topic, or a list of names")
            }

            fn visit_str<E>(self, name: &str) -> Result<TopicNames, E> {
                Ok(TopicNames(vec![name.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<TopicNames, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = seq.next_element()? {
                    names.push(name);
                }
                Ok(TopicNames(names))
            }
        }

        deserializer.deserialize_any(OneOrMore)
    }
}

/// A channel of a log, as it declares it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Channel {
    /// Its topic.
    pub topic: String,
    /// Name of its type; empty when it has none.
    pub schema: String,
    /// How its messages are encoded.
    pub encoding: String,
}

impl Channel {
    /// Bytes of its names.
    pub(super) fn name_bytes(&self) -> usize {
        self.topic.len() + self.schema.len() + self.encoding.len()
    }

    /// What turns its messages into ours. Logs without types are read by the names of our own topics.
    pub fn decoder(&self) -> Option<Decoder> {
        let schema = match (self.schema.as_str(), self.topic.as_str()) {
            ("", topic::GNSS | topic::FUSED | topic::VISUAL_ONLY) => "foxglove.LocationFix",
            ("", topic::IMAGE) => "foxglove.CompressedImage",
            ("", topic::ODOMETRY) => "crossfix.Odometry",
            ("", topic::CALIBRATION) => "crossfix.Camera",
            (schema, _) => schema,
        };
        Decoder::of(schema, &self.encoding)
    }

    fn named(&self, words: &[&str]) -> bool {
        let name = self.topic.to_ascii_lowercase();
        words.iter().any(|word| name.contains(word))
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let schema = match self.schema.as_str() {
            "" => "no type",
            schema => schema,
        };
        write!(f, "{} ({schema}, {})", self.topic, self.encoding)
    }
}

/// What of a topic is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Use {
    fix: bool,
    picture: bool,
    speed: bool,
    yaw_rate: bool,
}

impl Use {
    /// The message with what is used of it.
    pub fn of(self, message: Message) -> Message {
        let Message::Odometry(mut sample) = message else {
            return message;
        };
        if !self.speed {
            sample.forward_speed_mps = None;
        }
        if !self.yaw_rate {
            sample.yaw_rate_rps = None;
        }
        if sample.forward_speed_mps.is_none() && sample.yaw_rate_rps.is_none() {
            return Message::Nothing("it measures neither speed nor yaw rate");
        }
        Message::Odometry(sample)
    }
}

/// The topics that are used, and what the owner of the log should know of that choice.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    uses: HashMap<String, Use>,
    /// Each a sentence.
    pub remarks: Vec<String>,
}

impl Choice {
    /// Of these channels.
    pub fn new(config: &TopicsConfig, channels: &[Channel]) -> Self {
        let mut choice = Self::default();
        let fixes = |kind| kind == Kind::Fix;
        let pictures = |kind| kind == Kind::Picture;
        let speeds = |kind| kind == Kind::Motion;
        let yaw_rates = |kind| matches!(kind, Kind::Motion | Kind::YawRate);
        for topic in choice.choose(channels, ("gnss", config.gnss.as_ref()), fixes) {
            choice.uses.entry(topic).or_default().fix = true;
        }
        for topic in choice.choose(channels, ("camera", config.camera.as_ref()), pictures) {
            choice.uses.entry(topic).or_default().picture = true;
        }
        let named = |own: &'static str, names| match names {
            Some(names) => (own, Some(names)),
            None => ("odometry", config.odometry.as_ref()),
        };
        let speed = named("speed", config.speed.as_ref());
        for topic in choice.choose(channels, speed, speeds) {
            choice.uses.entry(topic).or_default().speed = true;
        }
        let yaw_rate = named("yaw_rate", config.yaw_rate.as_ref());
        for topic in choice.choose(channels, yaw_rate, yaw_rates) {
            choice.uses.entry(topic).or_default().yaw_rate = true;
        }
        choice.remark_unread(channels);
        choice.remarks.dedup();
        choice
    }

    /// What of this topic is used; none of it where it is not chosen.
    pub fn get(&self, topic: &str) -> Option<Use> {
        self.uses.get(topic).copied()
    }

    /// Whether nothing was found to use.
    pub fn is_empty(&self) -> bool {
        self.uses.is_empty()
    }

    /// Topics of receivers, cameras and odometry.
    pub fn topics(&self) -> [Vec<&str>; 3] {
        let named = |wanted: fn(&Use) -> bool| {
            let mut names: Vec<&str> = self
                .uses
                .iter()
                .filter(|(_, used)| wanted(used))
                .map(|(topic, _)| topic.as_str())
                .collect();
            names.sort_unstable();
            names
        };
        [
            named(|used| used.fix),
            named(|used| used.picture),
            named(|used| used.speed || used.yaw_rate),
        ]
    }

    fn choose(
        &mut self,
        channels: &[Channel],
        (field, names): (&str, Option<&TopicNames>),
        wanted: impl Fn(Kind) -> bool,
    ) -> Vec<String> {
        let fits = |channel: &&Channel| channel.decoder().is_some_and(|found| wanted(found.kind));
        let Some(TopicNames(names)) = names else {
            return self.find(field, channels.iter().filter(fits).collect());
        };
        let mut chosen = Vec::new();
        for name in names {
            if channels
                .iter()
                .filter(fits)
                .any(|channel| channel.topic == *name)
            {
                chosen.push(name.clone());
                continue;
            }
            let named: Vec<_> = channels
                .iter()
                .filter(|channel| channel.topic == *name)
                .map(ToString::to_string)
                .collect();
            let fitting: Vec<_> = channels.iter().filter(fits).collect();
            let others = if fitting.is_empty() {
                "the log has no topic for it".to_owned()
            } else {
                format!("it would find it on {}", list(&fitting))
            };
            self.remarks.push(if named.is_empty() {
                format!("topics.{field} names {name}, which is not in the log; {others}")
            } else {
                format!(
                    "topics.{field} names {}, which is not read as that; {others}",
                    named.join(", ")
                )
            });
        }
        chosen
    }

    /// The best of these: our own topic, then by type, then by name.
    fn find(&mut self, field: &str, mut candidates: Vec<&Channel>) -> Vec<String> {
        let shunned: &[&str] = match field {
            "gnss" => &NOT_A_RECEIVER,
            "camera" => &NOT_COLOUR,
            _ => &NOT_ODOMETRY,
        };
        candidates.retain(|channel| !channel.named(&NOT_RAW));
        let (passed_over, mut candidates): (Vec<&Channel>, Vec<&Channel>) = candidates
            .into_iter()
            .partition(|channel| channel.named(shunned));
        candidates.sort_by_key(|channel| {
            let own =
                [topic::GNSS, topic::IMAGE, topic::ODOMETRY].contains(&channel.topic.as_str());
            let by_type = if matches!(field, "gnss" | "camera") {
                0
            } else {
                channel.decoder().map_or(usize::MAX, |found| found.rank())
            };
            (!own, by_type, &channel.topic)
        });
        candidates.dedup_by_key(|channel| &channel.topic);
        let Some((first, others)) = candidates.split_first() else {
            if !passed_over.is_empty() {
                self.remarks.push(format!(
                    "nothing is used as {field}: {} may be made by another filter or be of another kind; \
                     if not, name it in [topics]",
                    list(&passed_over)
                ));
            }
            return Vec::new();
        };
        if !others.is_empty() {
            self.remarks.push(format!(
                "{first} is used as {field}, the first by type and name; not used: {}; name another in \
                 [topics] if that is wrong",
                list(others)
            ));
        }
        vec![first.topic.clone()]
    }

    /// Types that would be read in another encoding.
    fn remark_unread(&mut self, channels: &[Channel]) {
        for channel in channels {
            let encodings = Decoder::encodings_of(&channel.schema);
            if !encodings.is_empty() && !encodings.contains(&channel.encoding.as_str()) {
                self.remarks.push(format!(
                    "{channel} is not read; its type is read in {}",
                    encodings.join(" and ")
                ));
            }
        }
    }
}

/// Some channels by name and type.
pub fn list(channels: &[&Channel]) -> String {
    let mut names: Vec<String> = channels
        .iter()
        .take(MOST_LISTED)
        .map(ToString::to_string)
        .collect();
    if channels.len() > MOST_LISTED {
        names.push(format!("and {} more", channels.len() - MOST_LISTED));
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ros(topic: &str, schema: &str) -> Channel {
        Channel {
            topic: topic.into(),
            schema: schema.into(),
            encoding: "cdr".into(),
        }
    }

    fn choice(config: &str, channels: &[Channel]) -> Choice {
        Choice::new(&toml::from_str(config).unwrap(), channels)
    }

    fn vehicle() -> Vec<Channel> {
        vec![
            ros("/tf", "tf2_msgs/msg/TFMessage"),
            ros("/imu/data", "sensor_msgs/msg/Imu"),
            ros("/odom", "nav_msgs/msg/Odometry"),
            ros("/odometry/gps", "nav_msgs/msg/Odometry"),
            ros("/wheels", "geometry_msgs/msg/TwistStamped"),
            ros("/gps/fix", "sensor_msgs/msg/NavSatFix"),
            ros("/gps/filtered", "sensor_msgs/msg/NavSatFix"),
            ros(
                "/camera/image_raw/compressed",
                "sensor_msgs/msg/CompressedImage",
            ),
            ros("/camera/depth/image", "sensor_msgs/msg/Image"),
        ]
    }

    #[test]
    fn topics_are_found_by_type_and_results_of_others_are_not_taken() {
        let found = choice("", &vehicle());
        assert_eq!(
            found.topics(),
            [
                vec!["/gps/fix"],
                vec!["/camera/image_raw/compressed"],
                vec!["/odom"]
            ]
        );
        let remark = found.remarks.join("\n");
        assert!(
            remark.contains("/odom ") && remark.contains("/wheels"),
            "{remark}"
        );
    }

    #[test]
    fn of_several_receivers_the_first_by_name_is_taken_and_that_is_said() {
        let channels = [
            ros("/b/fix", "sensor_msgs/msg/NavSatFix"),
            ros("/a/fix", "sensor_msgs/msg/NavSatFix"),
        ];
        let found = choice("", &channels);
        assert_eq!(found.topics()[0], ["/a/fix"]);
        assert_eq!(found.remarks.len(), 1);
        assert!(found.remarks[0].contains("/b/fix"), "{:?}", found.remarks);
        let both = choice("gnss = [\"/b/fix\", \"/a/fix\"]", &channels);
        assert_eq!(both.topics()[0], ["/a/fix", "/b/fix"]);
        assert!(both.remarks.is_empty());
        assert!(choice("gnss = []", &channels).topics()[0].is_empty());
    }

    #[test]
    fn speed_and_yaw_rate_may_come_from_different_topics() {
        let found = choice("speed = \"/wheels\"\nyaw_rate = \"/imu/data\"", &vehicle());
        assert_eq!(found.topics()[2], ["/imu/data", "/wheels"]);
        let wheels = found.get("/wheels").unwrap();
        assert!(wheels.speed && !wheels.yaw_rate);
        // A twist without covariance often has no yaw rate at all; a gyro has.
        let channels = [
            ros("/wheels", "geometry_msgs/msg/TwistStamped"),
            ros("/imu", "sensor_msgs/msg/Imu"),
        ];
        let found = choice("", &channels);
        assert!(found.get("/wheels").unwrap().speed);
        assert!(found.get("/imu").unwrap().yaw_rate && !found.get("/wheels").unwrap().yaw_rate);
    }

    #[test]
    fn a_name_that_is_not_there_or_of_another_type_is_told_with_what_would_do() {
        for name in ["/fixes", "/tf", "/odom"] {
            let found = choice(&format!("gnss = \"{name}\""), &vehicle());
            assert!(found.topics()[0].is_empty());
            let remark = &found.remarks[0];
            assert!(
                remark.contains(name) && remark.contains("/gps/fix"),
                "{remark}"
            );
        }
    }

    #[test]
    fn a_known_type_in_an_unknown_encoding_is_told_once() {
        let channels = [Channel {
            encoding: "ros1".into(),
            ..ros("/fix", "sensor_msgs/NavSatFix")
        }];
        let found = choice("", &channels);
        assert!(found.is_empty());
        assert_eq!(found.remarks.len(), 1);
        assert!(found.remarks[0].contains("cdr"), "{:?}", found.remarks);
    }

    #[test]
    fn what_is_wrong_in_the_config_is_named() {
        let config: TopicsConfig =
            toml::from_str("camera = [\"/a\", \"/b\"]\ngnss = \"\"").unwrap();
        let mut check = Checker::default();
        config.check(&mut check);
        config.check_one_camera(&mut check);
        let fields: Vec<_> = check.into_problems().into_iter().map(|p| p.field).collect();
        assert_eq!(fields, ["gnss", "camera"]);
        assert!(toml::from_str::<TopicsConfig>("gnss = 3").is_err());
        assert!(toml::from_str::<TopicsConfig>("gps = \"/fix\"").is_err());
    }
}
