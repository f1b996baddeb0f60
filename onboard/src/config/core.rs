//! What the core works with: tiles, model, and which frames it matches.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Checker;
use crate::matcher::DEFAULT_MEMORY_MB;

/// A set of aerial tiles.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TilesConfig {
    /// The `PMTiles` archive, or the folder with `zoom/x/y.jpg|png` (y grows southward); its manifest
    /// `tiles.toml` says the rest.
    pub path: PathBuf,
    /// SHA-256 of the archive in hex; it is refused when it differs, and reading it takes a second for
    /// every GB or so at the start. Default: not checked.
    #[serde(default)]
    pub sha256: Option<String>,
    /// As in `[model]`, of the archive.
    #[serde(default)]
    pub minisign: Option<String>,
}

impl TilesConfig {
    pub(super) fn check(&self, check: &mut Checker) {
        check.exists("path", &self.path);
        check.sha256("sha256", self.sha256.as_deref());
        check.minisign("minisign", self.minisign.as_deref());
        if (self.sha256.is_some() || self.minisign.is_some()) && self.path.is_dir() {
            check.problem(
                "sha256",
                "is that of a file, and path is a folder; pack the tiles into one archive",
            );
        }
    }
}

/// Which frames are matched with the aerial tiles.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MatchingConfig {
    /// A frame is matched when the position's predicted 1-sigma error, along its worst axis, is at least
    /// this, metres. Whatever it is, frames are matched while the state is not `ok`, and before
    /// `fusion.visual_timeout_s` is over. Default 0: every frame is matched.
    pub predicted_sigma_m: f64,
    /// With `predicted_sigma_m`: a frame is also matched when the vehicle drove this far since the last
    /// one, metres. Default 30.
    pub longest_gap_m: f64,
    /// Of the frames matched while the state is `ok`, one in this many is compared with the whole patch, the
    /// others with the window of the student around the vehicle, if it has one that holds the protection
    /// radius. A window never says that the vehicle is elsewhere. Default 1: all with the whole.
    pub whole_every: u32,
}

impl Default for MatchingConfig {
    fn default() -> Self {
        Self {
            predicted_sigma_m: 0.0,
            longest_gap_m: 30.0,
            whole_every: 1,
        }
    }
}

impl MatchingConfig {
    pub(super) fn check(&self, check: &mut Checker, visual_timeout_m: f64) {
        check.range("predicted_sigma_m", self.predicted_sigma_m, 0.0, 100.0);
        check.range("longest_gap_m", self.longest_gap_m, 0.0, 1e4);
        check.range("whole_every", f64::from(self.whole_every), 1.0, 1e3);
        if self.predicted_sigma_m > 0.0 && self.longest_gap_m >= visual_timeout_m {
            check.problem(
                "longest_gap_m",
                format!(
                    "is {}, and after fusion.visual_timeout_m = {visual_timeout_m} without a match the state is \
                     no longer ok; make it smaller, or visual_timeout_m larger",
                    self.longest_gap_m
                ),
            );
        }
    }
}

/// The exported student.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// The ONNX file.
    pub path: PathBuf,
    /// Its SHA-256 in hex; the file is refused when it differs. Default: not checked.
    #[serde(default)]
    pub sha256: Option<String>,
    /// Public key of minisign (the line that begins with RW): the file is used only with a signature by it in
    /// `FILE.minisig` beside it. Default: not checked.
    #[serde(default)]
    pub minisign: Option<String>,
    /// Most memory that the weights and intermediate results of each of its parts may need (of the aerial image, of the
    /// rest, and of a window), MB; a student that needs more is refused. Default 4096.
    #[serde(default = "default_memory_mb")]
    pub memory_mb: u64,
}

fn default_memory_mb() -> u64 {
    DEFAULT_MEMORY_MB
}

impl ModelConfig {
    pub(super) fn check(&self, check: &mut Checker) {
        check.exists("path", &self.path);
        check.range("memory_mb", self.memory_mb as f64, 1.0, 1e6);
        check.sha256("sha256", self.sha256.as_deref());
        check.minisign("minisign", self.minisign.as_deref());
    }
}
