//! The `record` sink of the config.

use std::path::PathBuf;

use crossfix_calibration::Camera;
use serde::{Deserialize, Serialize};

use super::private::Zone;
use super::write::Recorder;
use crate::config::{Checker, Config};
use crate::peer::Playback;
use crate::port::{Connection, Interests, Peer, PeerError};

/// A recording of drives for a later adaptation: MCAP files in a folder of their own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecordSinkConfig {
    /// The folder of the recordings; it is made when it is missing. Of the files in it only those named
    /// `crossfix-NUMBER-TIME.mcap` are ever removed.
    pub folder: PathBuf,
    /// Name of the vehicle, written into each file. Default: none.
    pub vehicle: String,
    /// Travelled way between the frames that are kept, of each camera, metres. Default 5.
    pub frame_every_m: f64,
    /// A frame whose match lies farther than this from the receiver's latest fix is kept as well, metres.
    /// Default 8.
    pub disagreement_m: f64,
    /// Travelled way between frames that are kept for that, metres. Default 1.
    pub disagreement_every_m: f64,
    /// After the vehicle stood for this long one message of each topic is kept in 10 s, seconds.
    /// Default 30.
    pub standing_s: f64,
    /// Size at which the next file begins, MB. Default 256.
    pub file_mb: u64,
    /// Size of all files together; the oldest are removed, MB. Default 8192.
    pub total_mb: u64,
    /// The recording stops while less than this is free on the disk, MB. Default 512.
    pub min_free_mb: u64,
    /// Time after which what was recorded is on the disk, seconds. Default 5.
    pub flush_s: f64,
    /// Places without frames. Default: none.
    pub zones: Vec<Zone>,
    /// Positions are rounded to a grid of this step, metres; 0 leaves them as they are. Default 0.
    pub round_position_m: f64,
    /// Files are removed after so many days; 0 keeps them. Default 0.
    pub retention_days: f64,
    /// Model and mount of the camera, from `[camera]`.
    #[serde(skip)]
    pub(super) camera: Option<Camera>,
}

impl Default for RecordSinkConfig {
    fn default() -> Self {
        Self {
            folder: PathBuf::new(),
            vehicle: String::new(),
            frame_every_m: 5.0,
            disagreement_m: 8.0,
            disagreement_every_m: 1.0,
            standing_s: 30.0,
            file_mb: 256,
            total_mb: 8192,
            min_free_mb: 512,
            flush_s: 5.0,
            zones: Vec::new(),
            round_position_m: 0.0,
            retention_days: 0.0,
            camera: None,
        }
    }
}

impl Peer for RecordSinkConfig {
    fn name(&self) -> &'static str {
        "record"
    }

    fn wants(&self) -> Interests {
        Interests::ALL
    }

    fn set_up(&mut self, config: &Config) {
        self.camera.clone_from(&config.camera);
    }

    fn open(&self, _playback: &Playback) -> Result<Connection, PeerError> {
        Recorder::open(self).map(Connection::writer)
    }

    fn check(&self, check: &mut Checker) {
        if self.folder.as_os_str().is_empty() {
            check.problem(
                "folder",
                "is missing; name a folder for the recordings, such as \"/var/lib/crossfix/recordings\"",
            );
        }
        check.range("frame_every_m", self.frame_every_m, 0.1, 1e4);
        check.range("disagreement_m", self.disagreement_m, 0.1, 1e4);
        check.range("disagreement_every_m", self.disagreement_every_m, 0.1, 1e4);
        check.range("standing_s", self.standing_s, 1.0, 1e6);
        check.range("file_mb", self.file_mb as f64, 1.0, 65_536.0);
        let least_total = 2.0 * self.file_mb as f64;
        check.range("total_mb", self.total_mb as f64, least_total, 1e9);
        check.range("min_free_mb", self.min_free_mb as f64, 0.0, 1e9);
        check.range("flush_s", self.flush_s, 0.1, 600.0);
        check.range("round_position_m", self.round_position_m, 0.0, 1e5);
        check.range("retention_days", self.retention_days, 0.0, 36_500.0);
        for (index, zone) in self.zones.iter().enumerate() {
            if let Err(problem) = zone.check() {
                check.problem(&format!("zones[{index}]"), problem);
            }
        }
    }

    fn check_machine(&self, check: &mut Checker) {
        let exists = self.folder.ancestors().find(|folder| folder.exists());
        if let Some(folder) = exists {
            check.writable("folder", folder);
        }
    }

    fn paths_mut(&mut self) -> Vec<&mut PathBuf> {
        vec![&mut self.folder]
    }
}
