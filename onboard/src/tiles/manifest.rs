//! `tiles.toml`: the description of a tile set, without which no metres can be computed from it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::TileError;

/// Largest manifest that is read, in bytes.
const LARGEST_MANIFEST: u64 = 64 * 1024;

/// The description of a tile set.
///
/// Every field is required except `source`: imagery without a resolution, an error, an age and a
/// licence cannot be used honestly.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TileManifest {
    /// Web Mercator zoom of the tiles.
    pub zoom: u8,
    /// Side of one tile in pixels.
    pub tile_px: usize,
    /// Nominal ground resolution at the middle of the area. Positions never use it: they come from
    /// exact inverse Mercator; it is checked against `zoom` so that a mix-up is noticed.
    pub metres_per_pixel: f64,
    /// 1-sigma error of the imagery's own georeference, metres; added to every covariance.
    pub georef_sigma_m: f64,
    /// Day of the flight, `YYYY-MM-DD` (or `YYYY-MM` or `YYYY`).
    pub capture_date: String,
    /// Attribution that must accompany the imagery.
    pub attribution: String,
    /// Licence of the imagery, as an SPDX expression or its name.
    pub licence: String,
    /// Where it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

impl TileManifest {
    /// Where the manifest of the tile set at `path` is looked for: `tiles.toml` in a folder; beside
    /// an archive the same name with `.toml`, then `tiles.toml`.
    pub fn candidates(path: &Path) -> Vec<PathBuf> {
        if path.is_dir() {
            return vec![path.join("tiles.toml")];
        }
        let mut candidates = vec![
            path.with_extension("toml"),
            path.with_file_name("tiles.toml"),
        ];
        candidates.dedup();
        candidates
    }

    /// Reads and checks the manifest that belongs to the tile set at `path`.
    ///
    /// # Errors
    /// [`TileError::Manifest`] when there is none, or it is not one.
    pub fn of(path: &Path) -> Result<Self, TileError> {
        let candidates = Self::candidates(path);
        let Some(file) = candidates.iter().find(|candidate| candidate.is_file()) else {
            return Err(TileError::Manifest {
                path: candidates[0].clone(),
                problem: "is missing; it needs zoom, tile_px, metres_per_pixel, georef_sigma_m, \
                          capture_date, attribution and licence"
                    .into(),
            });
        };
        let fail = |problem: String| TileError::Manifest {
            path: file.clone(),
            problem,
        };
        let text = crate::transport::file::read_text(file, LARGEST_MANIFEST)
            .map_err(|e| fail(e.to_string()))?;
        let manifest: Self = toml::from_str(&text).map_err(|e| fail(e.to_string()))?;
        manifest.check().map_err(fail)?;
        Ok(manifest)
    }

    /// Checks ranges and that resolution and zoom agree for some latitude.
    ///
    /// # Errors
    /// A sentence naming the field, its value and what is allowed.
    pub fn check(&self) -> Result<(), String> {
        if self.zoom > 24 {
            return Err(format!("zoom = {} is above 24", self.zoom));
        }
        if !(16..=2048).contains(&self.tile_px) {
            return Err(format!("tile_px = {} is outside 16 to 2048", self.tile_px));
        }
        if !(0.0..=50.0).contains(&self.georef_sigma_m) {
            return Err(format!(
                "georef_sigma_m = {} is outside 0 to 50",
                self.georef_sigma_m
            ));
        }
        let at_equator = std::f64::consts::TAU * 6_378_137.0
            / (self.tile_px as f64 * 2f64.powi(self.zoom.into()));
        if !(self.metres_per_pixel > 0.01 * at_equator
            && self.metres_per_pixel <= 1.001 * at_equator)
        {
            return Err(format!(
                "metres_per_pixel = {} is impossible for zoom {} and {} px tiles, which have {at_equator:.4} \
                 at the equator and less elsewhere",
                self.metres_per_pixel, self.zoom, self.tile_px
            ));
        }
        for (name, text) in [
            ("attribution", &self.attribution),
            ("licence", &self.licence),
        ] {
            if text.trim().is_empty() {
                return Err(format!(
                    "{name} is empty; imagery is used under somebody's terms"
                ));
            }
        }
        if !is_date(&self.capture_date) {
            return Err(format!(
                "capture_date = \"{}\" is not YYYY-MM-DD",
                self.capture_date
            ));
        }
        Ok(())
    }
}

/// `YYYY`, `YYYY-MM` or `YYYY-MM-DD`.
fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let number = |i: usize, digits: usize, low: u32, high: u32| {
        parts.get(i).is_none_or(|part| {
            part.len() == digits && part.parse().is_ok_and(|n: u32| (low..=high).contains(&n))
        })
    };
    parts.len() <= 3 && number(0, 4, 1900, 2200) && number(1, 2, 1, 12) && number(2, 2, 1, 31)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn manifest() -> TileManifest {
        TileManifest {
            zoom: 18,
            tile_px: 256,
            metres_per_pixel: 0.3676,
            georef_sigma_m: 0.2,
            capture_date: "2026-05-04".into(),
            attribution: "simulated".into(),
            licence: "CC0-1.0".into(),
            source: None,
        }
    }

    #[test]
    fn impossible_manifests_are_refused_by_name() {
        assert_eq!(manifest().check(), Ok(()));
        type Break = fn(&mut TileManifest);
        let cases: [(Break, &str); 7] = [
            (|m| m.zoom = 40, "zoom"),
            (|m| m.tile_px = 0, "tile_px"),
            (|m| m.metres_per_pixel = 0.6, "metres_per_pixel"),
            (|m| m.metres_per_pixel = f64::NAN, "metres_per_pixel"),
            (|m| m.georef_sigma_m = -1.0, "georef_sigma_m"),
            (|m| m.licence = String::new(), "licence"),
            (|m| m.capture_date = "last May".into(), "capture_date"),
        ];
        for (spoil, expected) in cases {
            let mut manifest = manifest();
            spoil(&mut manifest);
            let message = manifest.check().unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn a_missing_field_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join("tiles.toml"),
            "zoom = 18\ntile_px = 256\n",
        )
        .unwrap();
        let message = TileManifest::of(folder.path()).unwrap_err().to_string();
        assert!(
            message.contains("metres_per_pixel") && message.contains("tiles.toml"),
            "{message}"
        );
    }
}
