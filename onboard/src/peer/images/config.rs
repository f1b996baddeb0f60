//! The `images` source of the config.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::read::ImagesReader;
use crate::clocks::ClockRule;
use crate::config::Checker;
use crate::peer::{Playback, check_latency};
use crate::port::{Connection, Peer, PeerError};

/// A folder of JPEG or PNG pictures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImagesConfig {
    /// Name in logs and states, and of the camera. Default "images".
    pub name: String,
    /// The folder. A picture is named by its time in nanoseconds UTC, such as
    /// `1700000000123456789.jpg`, unless `index` says otherwise.
    pub folder: PathBuf,
    /// CSV file with lines `time_ns,file`, the file relative to the folder. Default: none.
    pub index: Option<PathBuf>,
    /// Whether the pictures are a recording or arrive now. Default "watch".
    pub mode: ImagesMode,
    /// Longest time from the moment of exposure until it arrives here, seconds; stamps that do not fit
    /// it are not used. Default 1.
    pub latency_s: Option<f64>,
    /// What to do when the clock behind the stamps is off by a constant: "refuse" what it delivers, or
    /// "correct" the stamps. Default "refuse".
    pub clock: ClockRule,
}

impl Default for ImagesConfig {
    fn default() -> Self {
        Self {
            name: "images".into(),
            folder: PathBuf::new(),
            index: None,
            mode: ImagesMode::Watch,
            latency_s: None,
            clock: ClockRule::Refuse,
        }
    }
}

/// When pictures of a folder are delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImagesMode {
    /// As they appear; those already there at the start are passed over.
    Watch,
    /// At the times they were taken, together with the other recorded sources.
    Paced,
}

impl Peer for ImagesConfig {
    fn name(&self) -> &str {
        &self.name
    }

    fn clock(&self) -> (Option<f64>, ClockRule) {
        (self.latency_s, self.clock)
    }

    fn open(&self, playback: &Playback) -> Result<Connection, PeerError> {
        ImagesReader::open(self, playback.clone()).map(Connection::reader)
    }

    fn check_machine(&self, check: &mut Checker) {
        if self.folder.exists()
            && let Err(error) = std::fs::read_dir(&self.folder)
        {
            let message = format!("\"{}\" cannot be listed: {error}", self.folder.display());
            check.machine("folder", message);
        }
    }

    fn check(&self, check: &mut Checker) {
        check_latency(self.latency_s, check);
        check.exists("folder", &self.folder);
        if let Some(index) = &self.index {
            check.exists("index", index);
            if self.mode == ImagesMode::Watch {
                check.problem("index", "only goes with mode = \"paced\"");
            }
        }
    }

    fn paths_mut(&mut self) -> Vec<&mut PathBuf> {
        std::iter::once(&mut self.folder)
            .chain(&mut self.index)
            .collect()
    }
}
