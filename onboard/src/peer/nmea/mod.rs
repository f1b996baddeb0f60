//! NMEA 0183: receivers on a serial port, over TCP or in a file, and positions for plotters.

mod config;
mod epoch;
mod format;
mod parse;
mod quality;
mod read;
mod sentence;
#[cfg(test)]
mod tests;
mod write;

pub use self::config::{NmeaConfig, NmeaSinkConfig, NmeaTcpConfig};
pub(super) use self::format::sentences;
pub use self::parse::NmeaSentences;
