//! Drive logs as peers: a recorded drive is a source, a log of estimates a sink. The format itself is
//! [`crate::log`].

mod config;
mod read;
mod write;

pub use self::config::{McapSinkConfig, McapSourceConfig};
