//! A node of ROS 2, and its topics.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use ros2_client::dds::rustdds::DomainParticipantBuilder;
use ros2_client::qos::{Durability, History, WhenFull};
use ros2_client::{
    Context, MessageTypeName, Name, Node, NodeName, NodeOptions, Publisher, QosProfile,
    Subscription,
};
use serde::Serialize;

use crate::port::PeerError;

/// Messages of a topic that wait to be sent or read.
pub const DEPTH: usize = 10;
/// Raw pictures have some megabytes, and old ones are of no use.
pub const PICTURE_DEPTH: usize = 2;

/// Where nodes meet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Domain {
    /// Number; without one that of the environment counts.
    pub id: Option<u16>,
    /// Addresses of the interfaces to use; when empty, those that the environment says.
    pub interfaces: Vec<IpAddr>,
}

/// A node. Those of one domain share a participant, which takes ports, threads and memory, for as long as
/// one of them lives.
pub struct OurNode {
    node: Node,
    context: Arc<Context>,
}

/// A participant of this process: its domain, its interfaces, and its context while a node has it.
type Joined = (u16, Vec<IpAddr>, Weak<Context>);

static CONTEXTS: Mutex<Vec<Joined>> = Mutex::new(Vec::new());

impl OurNode {
    /// Joins the domain under this name.
    pub fn join(domain: &Domain, namespace: &str, name: &str) -> Result<Self, PeerError> {
        let environment = |name: &str| std::env::var(name).ok();
        let id = domain_id(domain, environment).map_err(PeerError::Protocol)?;
        let context = context(id, interfaces(domain, environment))?;
        let node_name = NodeName::new(namespace, name).map_err(|error| failed(name, &error))?;
        let options = NodeOptions::new()
            .enable_rosout(false)
            .start_parameter_services(false);
        let node = context
            .new_node(node_name, options)
            .map_err(|error| failed(name, &error))?;
        Ok(Self { node, context })
    }

    /// A topic that we write: reliable and volatile, so that readers of every usual kind get it.
    pub fn publisher<M: Serialize>(
        &mut self,
        topic: &str,
        message: (&str, &str),
    ) -> Result<Publisher<M>, PeerError> {
        // When a reader is too slow, messages are dropped; writing does not wait.
        let qos = qos(DEPTH).reliability_reliable(WhenFull::Fail);
        let message = MessageTypeName::new(message.0, message.1);
        let created = self
            .node
            .create_topic(&topic_name(topic)?, message, &qos)
            .and_then(|made| self.node.create_publisher(&made, None));
        created.map_err(|error| failed(topic, &error))
    }

    /// A topic that we read: best effort and volatile, which writers of every kind serve.
    pub fn subscription<M: 'static>(
        &mut self,
        topic: &str,
        message: (&str, &str),
        depth: usize,
    ) -> Result<Subscription<M>, PeerError> {
        let qos = qos(depth).reliability_best_effort();
        let message = MessageTypeName::new(message.0, message.1);
        let created = self
            .node
            .create_topic(&topic_name(topic)?, message, &qos)
            .and_then(|made| self.node.create_subscription(&made, None));
        created.map_err(|error| failed(topic, &error))
    }

    /// Topics that others write, by their DDS names, and the DDS names of their types.
    pub fn written(&self) -> Vec<(String, String)> {
        let writers = self.context.domain_participant().discovered_writers();
        let named = writers.into_iter().map(|writer| {
            let data = writer.publication_topic_data;
            (data.topic_name, data.type_name)
        });
        named.collect()
    }
}

/// The context of this process in a domain.
fn context(id: u16, interfaces: Vec<IpAddr>) -> Result<Arc<Context>, PeerError> {
    let mut contexts = CONTEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    contexts.retain(|(.., context)| context.strong_count() > 0);
    let same = |joined: &&Joined| joined.0 == id && joined.1 == interfaces;
    if let Some(context) = contexts
        .iter()
        .find(same)
        .and_then(|joined| joined.2.upgrade())
    {
        return Ok(context);
    }
    for address in &interfaces {
        // It would join without them, and never look again.
        find_interface(*address).map_err(PeerError::Protocol)?;
    }
    let mut builder = DomainParticipantBuilder::new(id);
    if !interfaces.is_empty() {
        builder = builder.with_only_networks(interfaces.clone());
    }
    let joining = || format!("joining domain {id}");
    let participant = builder.build().map_err(|error| failed(joining(), &error))?;
    let context =
        Context::from_domain_participant(participant).map_err(|error| failed(joining(), &error))?;
    let context = Arc::new(context);
    contexts.push((id, interfaces, Arc::downgrade(&context)));
    Ok(context)
}

fn qos(depth: usize) -> QosProfile {
    QosProfile::publisher_default()
        .durability(Durability::Volatile)
        .history(History::KeepLast { depth })
}

/// The number of the domain.
///
/// # Errors
/// `ROS_DOMAIN_ID` is none.
pub fn domain_id(
    domain: &Domain,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<u16, String> {
    if let Some(id) = domain.id {
        return Ok(id);
    }
    let text = environment("ROS_DOMAIN_ID").unwrap_or_default();
    match text.trim() {
        "" => Ok(0),
        text => match text.parse() {
            Ok(id) if id <= LARGEST_DOMAIN => Ok(id),
            _ => Err(format!(
                "ROS_DOMAIN_ID is {text:?}, which is no number from 0 to {LARGEST_DOMAIN}; correct it or set \
                 domain_id"
            )),
        },
    }
}

/// The largest domain whose ports exist (DDSI-RTPS 2.5, 9.6.2).
pub const LARGEST_DOMAIN: u16 = 232;

/// Addresses of the interfaces to use; empty for all. The variables are those of ROS 2 itself.
fn interfaces(domain: &Domain, environment: impl Fn(&str) -> Option<String>) -> Vec<IpAddr> {
    let says = |name: &str, value: &str| environment(name).is_some_and(|said| said == value);
    let is_local =
        says("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST") || says("ROS_LOCALHOST_ONLY", "1");
    if domain.interfaces.is_empty() && is_local {
        return vec![Ipv4Addr::LOCALHOST.into()];
    }
    domain.interfaces.clone()
}

/// Wants an interface of this machine with this address.
///
/// # Errors
/// There is none now.
pub fn find_interface(address: IpAddr) -> Result<(), String> {
    // Only an address of this machine can be bound.
    match UdpSocket::bind((address, 0)) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!(
            "no interface has {address} now: {error}; correct it or bring it up"
        )),
    }
}

fn topic_name(topic: &str) -> Result<Name, PeerError> {
    let (namespace, base) = topic.rsplit_once('/').unwrap_or(("", topic));
    let namespace = if namespace.is_empty() { "/" } else { namespace };
    Name::new(namespace, base).map_err(|error| failed(topic, &error))
}

fn failed(what: impl std::fmt::Display, error: &impl std::fmt::Display) -> PeerError {
    PeerError::Protocol(format!("ROS 2: {what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_domain_is_that_of_the_config_then_of_the_environment_then_0() {
        let unset = Domain::default();
        let set = Domain {
            id: Some(7),
            ..Domain::default()
        };
        let says = |value: &'static str| move |_: &str| Some(value.to_owned());
        assert_eq!(domain_id(&unset, |_| None), Ok(0));
        assert_eq!(domain_id(&unset, says("")), Ok(0));
        assert_eq!(domain_id(&unset, says("42")), Ok(42));
        assert_eq!(domain_id(&set, says("42")), Ok(7));
        for wrong in ["-1", "233", "seven", "1.5"] {
            let message = domain_id(&unset, says(wrong)).unwrap_err();
            assert!(message.contains(wrong), "{message}");
        }
    }

    #[test]
    fn the_interfaces_are_those_of_the_config_then_the_loopback_if_ros_says_so() {
        let localhost: IpAddr = Ipv4Addr::LOCALHOST.into();
        let only = |wanted: &'static str, value: &'static str| {
            move |name: &str| (name == wanted).then(|| value.to_owned())
        };
        let unset = Domain::default();
        assert!(interfaces(&unset, |_| None).is_empty());
        assert_eq!(
            interfaces(&unset, only("ROS_LOCALHOST_ONLY", "1")),
            [localhost]
        );
        assert!(interfaces(&unset, only("ROS_LOCALHOST_ONLY", "0")).is_empty());
        let range = "ROS_AUTOMATIC_DISCOVERY_RANGE";
        assert_eq!(interfaces(&unset, only(range, "LOCALHOST")), [localhost]);
        assert!(interfaces(&unset, only(range, "SUBNET")).is_empty());
        let set = Domain {
            interfaces: vec!["10.0.0.5".parse().unwrap()],
            ..Domain::default()
        };
        assert_eq!(interfaces(&set, only(range, "LOCALHOST")), set.interfaces);
    }

    #[test]
    fn without_its_interface_a_node_does_not_join_and_is_tried_again() {
        // Of TEST-NET-3, which no machine has.
        let domain = Domain {
            id: Some(0),
            interfaces: vec!["203.0.113.1".parse().unwrap()],
        };
        let failure = OurNode::join(&domain, "/", "crossfixd_test").err().unwrap();
        assert!(failure.to_string().contains("203.0.113.1"), "{failure}");
        assert_eq!(find_interface(Ipv4Addr::LOCALHOST.into()), Ok(()));
    }
}
