//! gpsd's JSON protocol: the client of a gpsd server, and a server that gpsd's clients can use.

mod config;
mod device;
mod json;
mod read;
mod report;
mod write;

pub use self::config::{EphConfidence, EpxConfidence, GpsdConfig, GpsdServerConfig};
pub use self::report::GpsdReports;
