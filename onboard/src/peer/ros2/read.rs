//! Messages of topics as events.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ros2_client::{MessageTypeName, ReadError, Subscription};
use tracing::warn;

use super::Ros2SourceConfig;
use super::node::{DEPTH, OurNode, PICTURE_DEPTH};
use super::thin::Thinner;
use crate::event::{CovarianceRule, Event};
use crate::log::{Message, Recorded, RosSeed, RosType};
use crate::peer::covariance::diagonal;
use crate::port::{PeerError, READ_PATIENCE, Reader};
use crate::utc;

/// How often the topics are looked at.
const POLL: Duration = Duration::from_millis(5);
/// How often it is looked who writes the topics.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Messages taken of a topic at a time.
const MOST_AT_A_TIME: usize = 64;

/// Listens to topics.
pub struct Ros2Reader {
    config: Ros2SourceConfig,
    topics: Vec<Topic>,
    thinner: Thinner,
    waiting: VecDeque<Event>,
    remark: Option<String>,
    looked: Option<Instant>,
    node: OurNode,
}

/// A topic, and what could not be read of it.
struct Topic {
    name: String,
    ros_type: RosType,
    subscription: Subscription<Result<Message, String>>,
    unreadable: Option<(u64, String)>, // how many, and what was wrong with the first
}

impl Ros2Reader {
    /// Joins the domain.
    pub fn open(config: &Ros2SourceConfig) -> Result<Self, PeerError> {
        let letter = |letter: char| {
            if letter.is_ascii_alphanumeric() {
                letter
            } else {
                '_'
            }
        };
        let name: String = config.name.chars().map(letter).collect();
        let mut node = OurNode::join(&config.domain(), "/", &format!("crossfixd_{name}"))?;
        let mut topics = Vec::new();
        for (_, ros_type, name) in config.topics() {
            let depth = match ros_type {
                RosType::CompressedImage | RosType::Image => PICTURE_DEPTH,
                _ => DEPTH,
            };
            topics.push(Topic {
                name: name.to_owned(),
                ros_type,
                subscription: node.subscription(name, ros_type.name(), depth)?,
                unreadable: None,
            });
        }
        Ok(Self {
            config: config.clone(),
            topics,
            thinner: Thinner::default(),
            waiting: VecDeque::new(),
            remark: None,
            looked: None,
            node,
        })
    }

    fn take(&mut self) {
        let Self {
            config,
            topics,
            thinner,
            waiting,
            ..
        } = self;
        for topic in topics {
            for message in topic.take(&config.name) {
                waiting.extend(event(message, topic.ros_type, config, thinner));
            }
        }
    }

    /// Finds out which topics nobody writes, or not as their type.
    fn look(&mut self) {
        if self
            .looked
            .is_some_and(|looked| looked.elapsed() < LOOK_EVERY)
        {
            return;
        }
        self.looked = Some(Instant::now());
        let written = self.node.written();
        let remarks = self.topics.iter().filter_map(|topic| {
            let (count, first) = match unwritten(&topic.name, topic.ros_type, &written) {
                Some(remark) => return Some(remark),
                None => topic.unreadable.as_ref()?,
            };
            let name = &topic.name;
            Some(format!(
                "{count} messages on {name} are left out (the first: {first})"
            ))
        });
        let remark = remarks.collect::<Vec<_>>().join("; ");
        self.remark = Some(remark).filter(|remark| !remark.is_empty());
    }
}

impl Reader for Ros2Reader {
    fn next(&mut self) -> Result<Option<Event>, PeerError> {
        let started = Instant::now();
        self.look();
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Ok(Some(event));
            }
            self.take();
            if self.waiting.is_empty() {
                if started.elapsed() > READ_PATIENCE {
                    return Ok(None);
                }
                std::thread::sleep(POLL);
            }
        }
    }

    fn remark(&self) -> Option<&str> {
        self.remark.as_deref()
    }
}

impl Topic {
    /// The messages that came.
    fn take(&mut self, source: &str) -> Vec<Message> {
        let mut messages = Vec::new();
        for _ in 0..MOST_AT_A_TIME {
            let seed = RosSeed {
                ros_type: self.ros_type,
                recorded: Recorded {
                    topic: &self.name,
                    log_time_ns: utc::now_ns(),
                },
            };
            match take_seeded(&self.subscription, seed) {
                None => break,
                Some(Ok(message)) => messages.push(message),
                Some(Err(reason)) => self.leave_out(source, reason),
            }
        }
        messages
    }

    fn leave_out(&mut self, source: &str, reason: String) {
        if let Some((count, _)) = &mut self.unreadable {
            *count += 1;
            return;
        }
        let topic = self.name.as_str();
        warn!(
            source,
            topic, reason, "a message is left out; more of this topic are only counted"
        );
        self.unreadable = Some((1, reason));
    }
}

/// The next message, or why it cannot be read; none when there is none.
fn take_seeded(
    subscription: &Subscription<Result<Message, String>>,
    seed: RosSeed<'_>,
) -> Option<Result<Message, String>> {
    match subscription.take_seed(seed) {
        Ok(None) => None,
        Ok(Some((read, _))) => Some(read),
        // The message is consumed; the next call returns the one after it.
        Err(ReadError::Deserialization { reason }) => {
            // The rest of the text is the topic and its type.
            let reason = reason.split(", Topic =").next().unwrap_or_default();
            let reason = reason.trim_end_matches([',', ' ']);
            Some(Err(format!("it is not what its type says: {reason}")))
        }
        Err(error) => Some(Err(error.to_string())),
    }
}

/// What a message says as an event; none when nothing of it is used.
fn event(
    message: Message,
    ros_type: RosType,
    config: &Ros2SourceConfig,
    thinner: &mut Thinner,
) -> Option<Event> {
    match message.into_event()? {
        Event::Gnss(mut fix) => {
            if fix.covariance_rule == CovarianceRule::Default {
                fix.covariance_m2 = diagonal(config.default_sigma_m, config.default_sigma_m);
            }
            Some(Event::Gnss(fix))
        }
        Event::Odometry(mut sample) => {
            if config.imu.is_some() && ros_type != RosType::Imu {
                sample.yaw_rate_rps = None;
            }
            thinner.due(sample).map(Event::Odometry)
        }
        Event::Frame(mut frame) => {
            frame.camera.clone_from(&config.name);
            Some(Event::Frame(frame))
        }
        Event::SourceState { .. } => None,
    }
}

/// Why nothing can come of a topic: nobody writes it, or only as another type. `written` are the topics that
/// others write, by their DDS names, with the DDS names of their types.
fn unwritten(topic: &str, ros_type: RosType, written: &[(String, String)]) -> Option<String> {
    let (package, name) = ros_type.name();
    let wanted = MessageTypeName::new(package, name).dds_msg_type();
    let dds_topic = format!("rt{topic}");
    let mut types = written
        .iter()
        .filter(|(name, _)| *name == dds_topic)
        .map(|(_, dds_type)| dds_type.as_str());
    match types.next() {
        None => Some(format!("nobody publishes {topic} ({package}/{name})")),
        Some(first) if first != wanted && !types.any(|dds_type| dds_type == wanted) => {
            let found = first.replace("::msg::dds_::", "/");
            let found = found.trim_end_matches('_');
            Some(format!(
                "{topic} is published as {found}, and {package}/{name} is read"
            ))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{CameraFrame, OdometrySample};
    use crate::peer::testing;

    fn events(config: &Ros2SourceConfig, messages: Vec<(RosType, Message)>) -> Vec<Event> {
        let mut thinner = Thinner::default();
        let messages = messages.into_iter();
        messages
            .filter_map(|(ros_type, message)| event(message, ros_type, config, &mut thinner))
            .collect()
    }

    fn sample(speed_mps: Option<f64>) -> Message {
        Message::Odometry(OdometrySample {
            time_ns: 0,
            forward_speed_mps: speed_mps,
            yaw_rate_rps: Some(0.5),
            yaw: None,
            speed_sigma_mps: 0.2,
            yaw_rate_sigma_rps: 0.01,
        })
    }

    #[test]
    fn the_yaw_rate_is_the_imus_when_there_is_one() {
        let mut config = Ros2SourceConfig::default();
        let messages = || {
            vec![
                (RosType::TwistStamped, sample(Some(7.0))),
                (RosType::Imu, sample(None)),
            ]
        };
        let parts = |events: Vec<Event>| -> Vec<_> {
            let parts = events.into_iter().filter_map(|event| match event {
                Event::Odometry(sample) => Some((sample.forward_speed_mps, sample.yaw_rate_rps)),
                _ => None,
            });
            parts.collect()
        };
        config.imu = Some("/imu/data".into());
        let apart = [(Some(7.0), None), (None, Some(0.5))];
        assert_eq!(parts(events(&config, messages())), apart);
        config.imu = None;
        let twist = parts(events(&config, messages()));
        assert_eq!(twist[0], (Some(7.0), Some(0.5)));
    }

    #[test]
    fn a_fix_of_unknown_covariance_has_that_of_the_config_and_a_frame_its_camera() {
        let config = Ros2SourceConfig {
            name: "front".into(),
            default_sigma_m: 4.0,
            ..Ros2SourceConfig::default()
        };
        let stated = testing::fix(1);
        let mut unknown = stated.clone();
        unknown.covariance_rule = CovarianceRule::Default;
        let frame = CameraFrame {
            time_ns: 1,
            image: [][..].into(),
            camera: "camera_optical_frame".into(),
        };
        let found = events(
            &config,
            vec![
                (RosType::NavSatFix, Message::Gnss(stated.clone())),
                (RosType::NavSatFix, Message::Gnss(unknown)),
                (
                    RosType::NavSatFix,
                    Message::Nothing("the receiver has no fix"),
                ),
                (RosType::Image, Message::Frame(frame)),
            ],
        );
        let [Event::Gnss(first), Event::Gnss(second), Event::Frame(frame)] = &found[..] else {
            panic!("{found:?}")
        };
        assert_eq!(first.covariance_m2, stated.covariance_m2);
        assert_eq!(second.covariance_m2, [[16.0, 0.0], [0.0, 16.0]]);
        assert_eq!(frame.camera, "front");
    }

    #[test]
    fn a_topic_that_nobody_writes_or_as_another_type_is_named() {
        let written = |types: &[&str]| -> Vec<(String, String)> {
            let named = types.iter();
            named
                .map(|name| ("rt/gnss/fix".to_owned(), (*name).to_owned()))
                .collect()
        };
        let remark =
            |written: &[(String, String)]| unwritten("/gnss/fix", RosType::NavSatFix, written);
        let (fix, text) = (
            "sensor_msgs::msg::dds_::NavSatFix_",
            "std_msgs::msg::dds_::String_",
        );
        assert_eq!(remark(&written(&[fix])), None);
        assert_eq!(remark(&written(&[text, fix])), None);
        let nobody = remark(&[]).unwrap();
        assert_eq!(nobody, "nobody publishes /gnss/fix (sensor_msgs/NavSatFix)");
        let wrong = remark(&written(&[text])).unwrap();
        assert!(wrong.contains("as std_msgs/String,"), "{wrong}");
        let other = [("rt/gnss/fix2".to_owned(), fix.to_owned())];
        assert_eq!(remark(&other).unwrap(), nobody);
    }
}
