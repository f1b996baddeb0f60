//! The `mcap` source and the `mcap` sink of the config.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::read::McapReader;
use super::write::McapWriter;
use crate::clocks::ClockRule;
use crate::config::Checker;
use crate::log::TopicsConfig;
use crate::peer::{Playback, check_latency};
use crate::port::{Connection, Interests, Peer, PeerError};

/// A recorded drive, played at its own speed by `crossfixd run`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct McapSourceConfig {
    /// Name in logs and states. Default "mcap".
    pub name: String,
    /// The MCAP file, or the folder of a ROS 2 bag.
    pub path: PathBuf,
    /// Which of its topics are used. Default: those of `[topics]`, and what these do not name is found by
    /// type.
    pub topics: Option<TopicsConfig>,
    /// Take its GNSS fixes. Default true.
    pub gnss: bool,
    /// Take its camera frames. Default true.
    pub camera: bool,
    /// Take its odometry. Default true.
    pub odometry: bool,
    /// Longest time from the moment of a measurement until it arrives here, seconds; stamps that do not fit
    /// it are not used. Default by kind: 1, odometry 0.5.
    pub latency_s: Option<f64>,
    /// What to do when the clock behind the stamps is off by a constant: "refuse" what it delivers, or
    /// "correct" the stamps. Default "refuse".
    pub clock: ClockRule,
}

impl Default for McapSourceConfig {
    fn default() -> Self {
        Self {
            name: "mcap".into(),
            path: PathBuf::new(),
            topics: None,
            gnss: true,
            camera: true,
            odometry: true,
            latency_s: None,
            clock: ClockRule::Refuse,
        }
    }
}

impl Peer for McapSourceConfig {
    fn name(&self) -> &str {
        &self.name
    }

    fn clock(&self) -> (Option<f64>, ClockRule) {
        (self.latency_s, self.clock)
    }

    fn open(&self, playback: &Playback) -> Result<Connection, PeerError> {
        McapReader::open(self, playback.clone()).map(Connection::reader)
    }

    fn check(&self, check: &mut Checker) {
        check_latency(self.latency_s, check);
        check.exists("path", &self.path);
        if let Some(topics) = &self.topics {
            topics.check(check);
        }
    }

    fn paths_mut(&mut self) -> Vec<&mut PathBuf> {
        vec![&mut self.path]
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

impl Peer for McapSinkConfig {
    fn name(&self) -> &'static str {
        "mcap"
    }

    fn wants(&self) -> Interests {
        Interests::ESTIMATES | Interests::SHADOW
    }

    fn open(&self, _playback: &Playback) -> Result<Connection, PeerError> {
        McapWriter::open(self).map(Connection::writer)
    }

    fn check_machine(&self, check: &mut Checker) {
        if let Some(folder) = self.path.parent() {
            check.writable("path", folder);
        }
    }

    fn check(&self, check: &mut Checker) {
        check.range("flush_s", self.flush_s, 0.1, 3600.0);
        match self.path.parent() {
            _ if self.path.as_os_str().is_empty() => {
                check.problem("path", "is missing; name the file to write");
            }
            Some(folder) if !folder.as_os_str().is_empty() => check.exists("path", folder),
            _ => {}
        }
    }

    fn paths_mut(&mut self) -> Vec<&mut PathBuf> {
        vec![&mut self.path]
    }
}
