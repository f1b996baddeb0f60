//! The `metrics` sink of the config.

use serde::{Deserialize, Serialize};

use super::write::MetricsServer;
use crate::config::Checker;
use crate::peer::Playback;
use crate::port::{Connection, Interests, Peer, PeerError};

/// `GET /metrics` for Prometheus, and `GET /health`: 200 while there are positions, 503 otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// Where to listen, host:port. Default "127.0.0.1:9464".
    pub listen: String,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:9464".into(),
        }
    }
}

impl Peer for MetricsConfig {
    fn name(&self) -> &'static str {
        "metrics"
    }

    fn wants(&self) -> Interests {
        Interests::HEALTH | Interests::ESTIMATES
    }

    fn open(&self, _playback: &Playback) -> Result<Connection, PeerError> {
        MetricsServer::open(self).map(Connection::writer)
    }

    fn listens(&self) -> Option<&str> {
        Some(&self.listen)
    }

    fn check(&self, check: &mut Checker) {
        check.address("listen", &self.listen);
    }
}
