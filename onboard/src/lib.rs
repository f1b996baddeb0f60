//! `crossfixd`: coarse GNSS, camera, odometry and aerial tiles in, refined positions out.
//!
//! A source turns bytes into [`event::Event`]s on its own thread. One core thread aligns, matches and
//! fuses them into [`event::Estimate`]s, knowing neither clock nor socket, so a recorded drive replays
//! to the same bytes at any speed. A sink turns estimates back into bytes on a thread of its own.
//! [`pipeline`] owns the threads, the bounded channels and the clock.
#![forbid(unsafe_code)]

pub mod card;
pub mod config;
pub mod core;
pub mod event;
pub mod fusion;
pub mod image_decode;
pub mod log;
mod lru;
pub mod matcher;
pub mod pipeline;
pub mod sink;
pub mod source;
pub mod status;
pub mod tiles;
mod utc;

/// How the names of our own output devices begin; sources never read those back.
pub const OUTPUT_DEVICE_PREFIX: &str = "crossfix://";
