//! u-blox receivers: UBX binary messages, with NMEA 0183 sentences beside them on the same line.

mod config;
mod decode;
mod read;
mod setup;
#[cfg(test)]
mod tests;

pub use self::config::{Configure, UbxConfig};
pub use self::decode::UbxStream;
