//! Estimates as JSON lines on standard output.

mod config;
mod write;

pub use self::config::JsonlSinkConfig;
pub use self::write::estimate_json;
