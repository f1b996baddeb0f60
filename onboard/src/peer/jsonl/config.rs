//! The `jsonl` sink of the config.

use serde::{Deserialize, Serialize};

use super::write::JsonlWriter;
use crate::peer::Playback;
use crate::port::{Connection, Interests, Peer, PeerError};

/// One JSON object per estimate on standard output, and one per frame that a student in shadow mode looked
/// at, of kind "shadow".
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JsonlSinkConfig {}

impl Peer for JsonlSinkConfig {
    fn name(&self) -> &'static str {
        "jsonl"
    }

    fn wants(&self) -> Interests {
        Interests::ESTIMATES | Interests::SHADOW
    }

    fn open(&self, _playback: &Playback) -> Result<Connection, PeerError> {
        Ok(Connection::writer(JsonlWriter))
    }
}
