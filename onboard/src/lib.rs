//! `crossfixd`: coarse GNSS, camera, odometry and aerial tiles in, refined positions out.
//!
//! The modules in the order data flows through them:
//!
//! - `transport`: how bytes move: serial ports, TCP, lines.
//! - [`peer`]: one folder for each protocol. A reader turns bytes into events, a writer turns
//!   estimates and other output into bytes.
//! - [`port`]: what peers implement, and the kinds of things they get.
//! - [`event`]: the types of inputs and outputs.
//! - [`core`]: aligns, matches and fuses events into estimates. It knows neither clock nor socket, so a
//!   recorded drive replays to the same bytes at any speed.
//! - [`clocks`]: what time it is, and whose stamps may be believed.
//! - [`tiles`], [`matcher`], [`card`], [`fusion`]: what the core works with.
//! - [`shadow`]: a second student that is compared and never used.
//! - [`pipeline`]: threads, bounded channels and the clock; [`health`]: how all of it is.
//! - [`log`]: drive logs, read and written.
//! - [`cli`]: the command line of the program.
#![forbid(unsafe_code)]

pub mod card;
pub mod cli;
pub mod clocks;
pub mod config;
pub mod core;
pub mod event;
pub mod fusion;
pub mod health;
pub mod image_decode;
pub mod log;
mod lru;
pub mod matcher;
mod panics;
pub mod peer;
pub mod pipeline;
pub mod port;
pub mod shadow;
pub mod status;
pub mod tiles;
mod transport;
mod utc;

pub use panics::panic_is_caught;
pub use transport::file;

/// How the names of our own output devices begin; sources never read those back.
pub const OUTPUT_DEVICE_PREFIX: &str = "crossfix://";
