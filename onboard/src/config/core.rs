//! What the core works with: odometry fallback, tiles and model.

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
        Self {
            from_gnss: true,
            other_timeout_s: 1.0,
            gnss_speed_sigma_mps: 0.3,
            min_course_speed_mps: 1.5,
        }
    }
}

impl OdometryConfig {
    pub(super) fn check(&self, check: &mut Checker) {
        check.range("other_timeout_s", self.other_timeout_s, 0.0, 3600.0);
        check.range(
            "gnss_speed_sigma_mps",
            self.gnss_speed_sigma_mps,
            0.001,
            100.0,
        );
        check.range(
            "min_course_speed_mps",
            self.min_course_speed_mps,
            0.0,
            100.0,
        );
    }
}

/// A set of aerial tiles.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TilesConfig {
    /// The PMTiles archive, or the folder with `zoom/x/y.jpg|png` (y grows southward); its manifest
    /// `tiles.toml` says the rest.
    pub path: PathBuf,
}

impl TilesConfig {
    pub(super) fn check(&self, check: &mut Checker) {
        check.exists("path", &self.path);
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
            check.problem(
                "sha256",
                "is not 64 hexadecimal digits; run sha256sum on the file",
            );
        }
    }
}
