//! Topics of ROS 2, without an installed ROS: fixes, motion and pictures in, positions and diagnostics out.

mod config;
mod message;
mod node;
mod read;
mod write;

pub use self::config::{Origin, Ros2SinkConfig, Ros2SourceConfig};
