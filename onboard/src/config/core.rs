//! What the core works with: odometry fallback, tiles, model and fusion.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Checker;

/// Odometry made from GNSS speed and course.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OdometryConfig {
    /// Make odometry from GNSS speed and course while no other arrives. Default true.
    pub from_gnss: bool,
    /// Time without other odometry after which GNSS stands in, seconds. Default 1.
    pub other_timeout_s: f64,
    /// 1-sigma error of a GNSS speed, m/s. Default 0.3.
    pub gnss_speed_sigma_mps: f64,
    /// Below this speed the course says nothing about the heading, m/s. Default 1.5.
    pub min_course_speed_mps: f64,
}

impl Default for OdometryConfig {
    fn default() -> Self {
        Self { from_gnss: true, other_timeout_s: 1.0, gnss_speed_sigma_mps: 0.3, min_course_speed_mps: 1.5 }
    }
}

impl OdometryConfig {
    pub(super) fn check(&self, check: &mut Checker) {
        check.range("other_timeout_s", self.other_timeout_s, 0.0, 3600.0);
        check.range("gnss_speed_sigma_mps", self.gnss_speed_sigma_mps, 0.001, 100.0);
        check.range("min_course_speed_mps", self.min_course_speed_mps, 0.0, 100.0);
    }
}

/// A set of aerial tiles.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TilesConfig {
    /// How the tiles are packed.
    pub kind: TilesKind,
    /// The PMTiles file, or the folder with `z/x/y.jpg|png`.
    pub path: PathBuf,
    /// Zoom level to read. Default 18.
    #[serde(default = "TilesConfig::default_zoom")]
    pub zoom: u8,
    /// Width and height of one tile, pixels. Default 256.
    #[serde(default = "TilesConfig::default_tile_px")]
    pub tile_px: usize,
    /// 1-sigma error of where the imagery says it is, metres; overrides the manifest's. Default: the
    /// manifest's (`tiles.toml` beside the tiles), else 1.
    #[serde(default)]
    pub georef_sigma_m: Option<f64>,
    /// Decoded tiles kept in memory, MiB. Default 32.
    #[serde(default = "TilesConfig::default_cache_mib")]
    pub cache_mib: usize,
}

/// How tiles are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TilesKind {
    /// One PMTiles v3 archive.
    Pmtiles,
    /// A folder `z/x/y.jpg|png`, y counted from the north.
    Xyz,
}

impl TilesConfig {
    fn default_zoom() -> u8 {
        18
    }
    fn default_tile_px() -> usize {
        256
    }
    fn default_cache_mib() -> usize {
        32
    }

    pub(super) fn check(&self, check: &mut Checker) {
        check.exists("path", &self.path);
        check.range("zoom", f64::from(self.zoom), 0.0, 24.0);
        if !self.tile_px.is_power_of_two() || !(64..=4096).contains(&self.tile_px) {
            check.problem("tile_px", format!("is {}; tiles are 256 or 512 pixels wide", self.tile_px));
        }
        if let Some(sigma_m) = self.georef_sigma_m {
            check.range("georef_sigma_m", sigma_m, 0.0, 1e3);
        }
        check.range("cache_mib", self.cache_mib as f64, 1.0, 1e6);
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
}

impl ModelConfig {
    pub(super) fn check(&self, check: &mut Checker) {
        check.exists("path", &self.path);
        if let Some(sha256) = &self.sha256
            && (sha256.len() != 64 || !sha256.bytes().all(|byte| byte.is_ascii_hexdigit()))
        {
            check.problem("sha256", "is not 64 hexadecimal digits; run sha256sum on the file");
        }
    }
}

/// The grid belief and its gates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FusionConfig {
    /// Width and height of the belief, cells. Default 192.
    pub cells: usize,
    /// Size of a cell, metres. Default 0.5.
    pub metres_per_cell: f64,
    /// Exponent on a heatmap's log-probability: below one because frames of one scene agree in their
    /// errors too. Default 0.5.
    pub heatmap_exponent: f64,
    /// Probability that a heatmap is plainly wrong. Default 0.1.
    pub heatmap_outlier: f64,
    /// Distance between visual updates, metres: a standing vehicle learns nothing new. Default 1.
    pub min_travel_m: f64,
    /// Degrees of freedom of the Student-t that a GNSS fix is taken as. Default 4.
    pub gnss_degrees_of_freedom: f64,
    /// Correlation time of the GNSS bias, seconds. Default 30.
    pub gnss_correlation_s: f64,
    /// Consistent fixes needed before the output jumps. Default 3.
    pub jump_fixes: usize,
    /// Time without an absolute measurement after which the state is coasting, seconds. Default 3.
    pub coast_after_s: f64,
    /// 1-sigma beyond which the position is lost, metres. Default 30.
    pub lost_sigma_m: f64,
    /// Risk left outside the protection radius. Default 0.001.
    pub integrity_risk: f64,
}

impl Default for FusionConfig {
    fn default() -> Self {
        Self {
            cells: 192,
            metres_per_cell: 0.5,
            heatmap_exponent: 0.5,
            heatmap_outlier: 0.1,
            min_travel_m: 1.0,
            gnss_degrees_of_freedom: 4.0,
            gnss_correlation_s: 30.0,
            jump_fixes: 3,
            coast_after_s: 3.0,
            lost_sigma_m: 30.0,
            integrity_risk: 0.001,
        }
    }
}

impl FusionConfig {
    pub(super) fn check(&self, check: &mut Checker) {
        check.range("cells", self.cells as f64, 16.0, 2048.0);
        check.range("metres_per_cell", self.metres_per_cell, 0.05, 10.0);
        check.range("heatmap_exponent", self.heatmap_exponent, 0.0, 2.0);
        check.range("heatmap_outlier", self.heatmap_outlier, 1e-6, 0.999);
        check.range("min_travel_m", self.min_travel_m, 0.0, 100.0);
        check.range("gnss_degrees_of_freedom", self.gnss_degrees_of_freedom, 1.0, 1e3);
        check.range("gnss_correlation_s", self.gnss_correlation_s, 0.0, 3600.0);
        check.range("jump_fixes", self.jump_fixes as f64, 1.0, 100.0);
        check.range("coast_after_s", self.coast_after_s, 0.1, 3600.0);
        check.range("lost_sigma_m", self.lost_sigma_m, 1.0, 1e5);
        check.range("integrity_risk", self.integrity_risk, 1e-9, 0.5);
    }
}
