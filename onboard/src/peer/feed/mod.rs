//! Odometry that another program sends, as JSON lines over UDP or a Unix socket. GUIDE.md, "Odometry from
//! your own program", has the format; [`line`] reads it.

mod config;
mod line;
mod read;

pub use self::config::{FeedConfig, Stamps};
