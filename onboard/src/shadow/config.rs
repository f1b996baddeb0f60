//! `[shadow]` of the config.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::{Checker, ModelConfig};

/// A second student that is compared with the first and never used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShadowConfig {
    /// The ONNX file.
    pub model: PathBuf,
    /// Its SHA-256 in hex; the file is refused when it differs. Default: not checked.
    #[serde(default)]
    pub sha256: Option<String>,
    /// Public key of minisign, as in `[model]`.
    #[serde(default)]
    pub minisign: Option<String>,
    /// Most memory that its weights and intermediate results may need, MB, beside the first student's; both
    /// together must fit into the machine. Default 1024.
    #[serde(default = "default_memory_mb")]
    pub memory_mb: u64,
    /// It looks at every so many frames of those that the first student was used for. Default 5.
    #[serde(default = "default_every")]
    pub every: u64,
}

fn default_memory_mb() -> u64 {
    1024
}

fn default_every() -> u64 {
    5
}

impl ShadowConfig {
    /// The file as that of a first student.
    pub fn as_model(&self) -> ModelConfig {
        ModelConfig {
            path: self.model.clone(),
            sha256: self.sha256.clone(),
            minisign: self.minisign.clone(),
            memory_mb: self.memory_mb,
        }
    }

    /// Reports what cannot be right.
    pub fn check(&self, check: &mut Checker) {
        check.exists("model", &self.model);
        check.range("memory_mb", self.memory_mb as f64, 1.0, 1e6);
        check.range("every", self.every as f64, 1.0, 1e4);
        check.sha256("sha256", self.sha256.as_deref());
        check.minisign("minisign", self.minisign.as_deref());
    }
}
