//! Messages to an autopilot: MAVLink 2 over UDP or a serial port.

mod config;
mod message;
mod write;

pub use self::config::{MavlinkConfig, MessageKind};
