//! A node of ROS 2, and its topics.

use ros2_client::qos::{Durability, History, Liveliness, WhenFull};
use ros2_client::{
    Context, ContextOptions, MessageTypeName, Name, Node, NodeName, NodeOptions, Publisher,
    QosProfile, Subscription,
};
use serde::Serialize;

use crate::port::PeerError;

/// Messages of a topic that wait for a subscriber.
const DEPTH: usize = 10;

/// A node, whose context lives as long.
pub struct OurNode {
    node: Node,
    _context: Context,
}

impl OurNode {
    /// Joins a domain under this name.
    pub fn join(domain_id: Option<u16>, name: &str) -> Result<Self, PeerError> {
        let domain_id = match domain_id {
            Some(domain_id) => domain_id,
            None => domain_of_environment()?,
        };
        let options = ContextOptions::new().domain_id(domain_id);
        let context = Context::with_options(options)
            .map_err(|error| protocol(format!("joining domain {domain_id}"), error))?;
        let node_name = NodeName::new("/", name).map_err(|error| protocol(name, error))?;
        let options = NodeOptions::new().enable_rosout(false);
        let node = context
            .new_node(node_name, options)
            .map_err(|error| protocol(name, error))?;
        Ok(Self {
            node,
            _context: context,
        })
    }

    /// A topic that we write: reliable, so that readers of both kinds get it.
    pub fn publisher<M: Serialize>(
        &mut self,
        topic: &str,
        message: (&str, &str),
    ) -> Result<Publisher<M>, PeerError> {
        let qos = QosProfile::publisher_default()
            .reliability_reliable(WhenFull::Fail)
            .durability(Durability::Volatile)
            .liveliness(Liveliness::Automatic)
            .history(History::KeepLast { depth: DEPTH });
        let name = topic_name(topic)?;
        let message = MessageTypeName::new(message.0, message.1);
        let created = self
            .node
            .create_topic(&name, message, &qos)
            .and_then(|made| self.node.create_publisher(&made, None));
        created.map_err(|error| protocol(topic, error))
    }

    /// A topic that we read: best effort, which writers of both kinds serve.
    pub fn subscription<M: 'static>(
        &mut self,
        topic: &str,
        message: (&str, &str),
    ) -> Result<Subscription<M>, PeerError> {
        let qos = QosProfile::publisher_default()
            .reliability_best_effort()
            .durability(Durability::Volatile)
            .history(History::KeepLast { depth: DEPTH });
        let name = topic_name(topic)?;
        let message = MessageTypeName::new(message.0, message.1);
        let created = self
            .node
            .create_topic(&name, message, &qos)
            .and_then(|made| self.node.create_subscription(&made, None));
        created.map_err(|error| protocol(topic, error))
    }
}

fn domain_of_environment() -> Result<u16, PeerError> {
    let text = std::env::var("ROS_DOMAIN_ID").unwrap_or_default();
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|_| {
        PeerError::Protocol(format!(
            "ROS_DOMAIN_ID is {text:?}, which is no number; correct it or set domain_id"
        ))
    })
}

fn topic_name(topic: &str) -> Result<Name, PeerError> {
    let (namespace, base) = topic.rsplit_once('/').unwrap_or(("", topic));
    let namespace = if namespace.is_empty() { "/" } else { namespace };
    Name::new(namespace, base).map_err(|error| protocol(topic, error))
}

fn protocol(what: impl std::fmt::Display, error: impl std::fmt::Debug) -> PeerError {
    PeerError::Protocol(format!("ROS 2: {what}: {error:?}"))
}
