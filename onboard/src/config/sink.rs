//! `[[sink]]` tables: where estimates go.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Checker;
use crate::event::EstimateKind;

/// One `[[sink]]`, chosen by `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SinkConfig {
    /// A server that speaks gpsd's JSON.
    GpsdServer(GpsdServerConfig),
    /// A server that sends NMEA 0183 sentences to whoever connects.
    NmeaTcp(NmeaTcpConfig),
    /// An MCAP log of estimates.
    Mcap(McapSinkConfig),
    /// One JSON object per estimate on standard output.
    Jsonl(JsonlSinkConfig),
}

/// A server that speaks gpsd's JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GpsdServerConfig {
    /// Where to listen, host:port. Default "127.0.0.1:2948" (2947 is gpsd's own).
    pub listen: String,
    /// Which estimates to serve. Default "fused".
    pub estimate: EstimateKind,
    /// Lines that may wait for one client; then the oldest are dropped. Default 64.
    pub client_queue: usize,
    /// Clients at a time; more are turned away. Default 16.
    pub max_clients: usize,
}

impl Default for GpsdServerConfig {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:2948".into(),
            estimate: EstimateKind::Fused,
            client_queue: 64,
            max_clients: 16,
        }
    }
}

/// A server that sends NMEA 0183 sentences.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NmeaTcpConfig {
    /// Where to listen, host:port. Default "127.0.0.1:10110".
    pub listen: String,
    /// Which estimates to send. Default "fused".
    pub estimate: EstimateKind,
    /// Epochs that may wait for one client; then the oldest are dropped. Default 64.
    pub client_queue: usize,
    /// Clients at a time; more are turned away. Default 16.
    pub max_clients: usize,
}

impl Default for NmeaTcpConfig {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:10110".into(),
            estimate: EstimateKind::Fused,
            client_queue: 64,
            max_clients: 16,
        }
    }
}

/// An MCAP log of estimates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct McapSinkConfig {
    /// The file to write; an existing one is never overwritten, a number is added to the name.
    pub path: PathBuf,
    /// Time after which what was written is on the disk, seconds. Default 5.
    pub flush_s: f64,
}

impl Default for McapSinkConfig {
    fn default() -> Self {
        Self {
            path: PathBuf::new(),
            flush_s: 5.0,
        }
    }
}

/// One JSON object per estimate on standard output.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JsonlSinkConfig {}

impl SinkConfig {
    pub(super) fn paths_mut(&mut self) -> Vec<&mut PathBuf> {
        match self {
            SinkConfig::Mcap(config) => vec![&mut config.path],
            SinkConfig::GpsdServer(_) | SinkConfig::NmeaTcp(_) | SinkConfig::Jsonl(_) => vec![],
        }
    }

    pub(super) fn check(&self, check: &mut Checker) {
        match self {
            SinkConfig::GpsdServer(GpsdServerConfig {
                listen,
                client_queue,
                max_clients,
                ..
            })
            | SinkConfig::NmeaTcp(NmeaTcpConfig {
                listen,
                client_queue,
                max_clients,
                ..
            }) => {
                check.address("listen", listen);
                check.range("client_queue", *client_queue as f64, 1.0, 1e5);
                check.range("max_clients", *max_clients as f64, 1.0, 1e4);
            }
            SinkConfig::Mcap(config) => {
                check.range("flush_s", config.flush_s, 0.1, 3600.0);
                match config.path.parent() {
                    _ if config.path.as_os_str().is_empty() => {
                        check.problem("path", "is missing; name the file to write")
                    }
                    Some(folder) if !folder.as_os_str().is_empty() => check.exists("path", folder),
                    _ => {}
                }
            }
            SinkConfig::Jsonl(_) => {}
        }
    }
}
