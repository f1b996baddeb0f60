//! Topics of ROS 2, without an installed ROS: fixes, motion and pictures in, positions and diagnostics out.

mod config;
mod convert;
mod message;
mod node;
mod read;
mod sink_config;
mod thin;
mod write;

pub use self::config::Ros2SourceConfig;
pub use self::sink_config::{Origin, Ros2SinkConfig};
