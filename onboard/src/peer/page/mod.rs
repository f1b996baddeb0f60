//! The live page: a read-only view of what the daemon knows now, for a browser in the vehicle.

mod config;
mod document;
mod history;
mod pictures;
mod write;

pub use self::config::PageConfig;
