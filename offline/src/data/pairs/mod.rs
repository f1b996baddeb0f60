//! The pairs dataset on disk: `dataset.toml`, `pairs.jsonl`, images, tiles; `truth.jsonl` apart.
//!
//! ```text
//! dataset.toml   what it is: area, camera, tile set, conventions, licence, provenance
//! pairs.jsonl    one PairRow a line, in the order of each drive
//! truth.jsonl    one TruthRow a line, optional; only [`truth::Truth`] opens it
//! images/        what the rows' `image` names, JPEG or PNG
//! tiles.pmtiles  the aerial tiles, with tiles.toml beside them
//! ```
//!
//! [`Pairs`] is its text, [`PairsImages`] the same opened for a network.

pub mod headings;
mod images;
mod lines;
mod tile_pool;
pub mod truth;
pub mod write;

pub(crate) use images::place;
pub use images::{PairsImages, Preparation};
pub(crate) use tile_pool::TilePool;

use super::error::DatasetError;
use super::picture;
use super::problems::Problems;
use super::sample::OdometryStep;
use crossfix_calibration::{Camera, Geodetic};
use lines::{each_line, read_lines, read_small};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::path::{Component, Path, PathBuf};

/// The only heading convention we read; stated so that nobody has to guess.
pub const HEADING_CONVENTION: &str = "degrees clockwise from true north";
/// The format's name in `dataset.toml`.
pub const FORMAT: &str = "crossfix-pairs";
/// The version of the format that we read and write.
pub const FORMAT_VERSION: u32 = 1;
/// Largest `dataset.toml`.
const MOST_TOML_BYTES: u64 = 1 << 20;

/// `dataset.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetManifest {
    /// `crossfix-pairs`.
    pub format: String,
    /// 1.
    pub version: u32,
    /// Where this is, in words.
    pub area: String,
    /// What may be done with the images, as an SPDX expression or in words.
    pub licence: String,
    /// Who made it, how and when.
    pub provenance: String,
    /// What `heading_deg` means; only [`HEADING_CONVENTION`] is read.
    pub heading_convention: String,
    /// Tile set, relative to this file. Its manifest gives the metres per pixel.
    pub tiles: PathBuf,
    /// The camera that took the pictures, with its mount.
    pub camera: Camera,
}

/// A line of `pairs.jsonl`: what a vehicle knows about one picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairRow {
    /// Unique in the dataset.
    pub id: String,
    /// The drive; rows of a drive are in the order of time.
    pub drive: String,
    /// Nanoseconds UTC.
    pub time_ns: i64,
    /// Picture, relative to the dataset's folder.
    pub image: String,
    /// Coarse position, WGS 84.
    pub latitude_deg: f64,
    /// Coarse position, WGS 84.
    pub longitude_deg: f64,
    /// Covariance of the coarse position, east and north.
    pub covariance_m2: [[f64; 2]; 2],
    /// Heading of the vehicle, degrees clockwise from true north.
    pub heading_deg: f64,
    /// Its standard deviation.
    pub heading_sigma_deg: f64,
    /// Movement since the drive's row before; `None` at its first, and where odometry is missing.
    pub odometry: Option<OdometryStep>,
}

/// A dataset whose text was read and checked; [`PairsImages`] reads its pictures and tiles. Holds no truth
/// and does not look for any.
#[derive(Debug, Clone)]
pub struct Pairs {
    /// Its folder.
    pub folder: PathBuf,
    /// Its `dataset.toml`.
    pub manifest: DatasetManifest,
    /// Its `pairs.jsonl`.
    pub rows: Vec<PairRow>,
}

impl DatasetManifest {
    /// Reads and checks `dataset.toml` of the dataset in `folder`.
    ///
    /// # Errors
    /// [`DatasetError`] with the file and the fix.
    pub fn read(folder: &Path) -> Result<Self, DatasetError> {
        let path = folder.join("dataset.toml");
        let fix = "give the folder that holds dataset.toml";
        let text = read_small(&path, MOST_TOML_BYTES, fix)?;
        let wrong = |what: String| DatasetError::Manifest {
            path: path.display().to_string(),
            what,
        };
        let manifest: Self = toml::from_str(&text)
            .map_err(|error| wrong(format!("{error}; GUIDE.md describes the file")))?;
        check_manifest(&manifest).map_err(wrong)?;
        Ok(manifest)
    }
}

/// All rows of a dataset that are right, with their lines, from 1; `wrong` gets the line of each other row, and
/// what is wrong with it.
pub(crate) fn every_row(
    folder: &Path,
    mut wrong: impl FnMut(usize, String),
) -> Result<Vec<(usize, PairRow)>, DatasetError> {
    let wrong = |line, what| {
        wrong(line, what);
        ControlFlow::Continue(())
    };
    each_line(&folder.join("pairs.jsonl"), check_row, |row| &row.id, wrong)
}

impl Pairs {
    /// Reads `dataset.toml` and `pairs.jsonl` and checks every line.
    ///
    /// # Errors
    /// [`DatasetError`] with the file, the line and the fix.
    pub fn open(folder: &Path) -> Result<Self, DatasetError> {
        let manifest = DatasetManifest::read(folder)?;
        let rows: Vec<PairRow> = read_lines(&folder.join("pairs.jsonl"), check_row, |row| &row.id)?;
        check_drives(&folder.join("pairs.jsonl"), &rows)?;
        Ok(Self {
            folder: folder.into(),
            manifest,
            rows,
        })
    }

    /// The tile set's path.
    pub fn tiles(&self) -> PathBuf {
        self.folder.join(&self.manifest.tiles)
    }

    /// Keeps only the rows that `keep` wants. Odometry then counts from the row that was kept before.
    pub fn retain(&mut self, mut keep: impl FnMut(&PairRow) -> bool) {
        // Movement over the rows of a drive that were dropped since the last that was kept.
        let mut dropped: HashMap<String, Option<OdometryStep>> = HashMap::new();
        self.rows.retain_mut(|row| {
            if let Some(before) = dropped.remove(&row.drive) {
                let both = before.zip(row.odometry);
                row.odometry = both.map(|(before, step)| before.then(step));
            }
            let kept = keep(row);
            if !kept {
                dropped.insert(row.drive.clone(), row.odometry);
            }
            kept
        });
    }

    /// Reads the header of every picture, on all cores.
    ///
    /// # Errors
    /// All pictures that cannot be read or have another size than the camera's.
    pub fn check_pictures(&self) -> Result<(), Problems> {
        let expected = self.manifest.camera.image_size();
        let check = |row: &PairRow| {
            let path = self.folder.join(&row.image);
            let size = picture::size(&path)?;
            if size == expected {
                return Ok(());
            }
            Err(other_size(&path, size, expected))
        };
        let found: Vec<Result<(), String>> = self.rows.par_iter().map(check).collect();
        let mut problems = Problems::of(self.folder.display());
        for (row, found) in self.rows.iter().zip(found) {
            if let Err(what) = found {
                problems.push(format!("pair {}: {what}", row.id));
            }
        }
        problems.or(())
    }
}

pub(crate) fn other_size(path: &Path, [width, height]: [usize; 2], expected: [usize; 2]) -> String {
    format!(
        "{}: {width}×{height} pixels, and the camera in dataset.toml makes {}×{}; give each camera its own dataset",
        path.display(),
        expected[0],
        expected[1]
    )
}

fn check_manifest(manifest: &DatasetManifest) -> Result<(), String> {
    let text = |name: &str, value: &str| match value.trim() {
        "" => Err(format!("{name} is empty; say it in words")),
        _ => Ok(()),
    };
    if manifest.format != FORMAT || manifest.version != FORMAT_VERSION {
        return Err(format!(
            "format {:?} version {}; this program reads {FORMAT:?} version {FORMAT_VERSION}",
            manifest.format, manifest.version
        ));
    }
    text("area", &manifest.area)?;
    text("licence", &manifest.licence)?;
    text("provenance", &manifest.provenance)?;
    if manifest.heading_convention != HEADING_CONVENTION {
        return Err(format!(
            "heading_convention is {:?}; convert heading_deg and write {HEADING_CONVENTION:?}",
            manifest.heading_convention
        ));
    }
    inside_folder(&manifest.tiles).map_err(|what| format!("tiles {what}"))?;
    manifest
        .camera
        .check()
        .map_err(|error| format!("camera: {error}"))
}

/// A relative path that stays below the dataset's folder.
fn inside_folder(path: &Path) -> Result<(), String> {
    let plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    if path.as_os_str().is_empty() || !path.components().all(plain) {
        return Err(format!(
            "{:?} is not a path below the dataset's folder; copy the file there and name it relative to dataset.toml",
            path.display().to_string()
        ));
    }
    Ok(())
}

fn check_row(row: &PairRow) -> Result<(), String> {
    if row.id.is_empty() || row.drive.is_empty() {
        return Err("id and drive must not be empty".into());
    }
    inside_folder(Path::new(&row.image)).map_err(|what| format!("image {what}"))?;
    check_position(row.latitude_deg, row.longitude_deg)?;
    check_heading(row.heading_deg)?;
    if !(row.heading_sigma_deg > 0.0 && row.heading_sigma_deg <= 180.0) {
        return Err(format!(
            "heading_sigma_deg is {}; it must be above 0 and at most 180 (180 for unknown)",
            row.heading_sigma_deg
        ));
    }
    let [[ee, en], [ne, nn]] = row.covariance_m2;
    let finite = [ee, en, ne, nn].iter().all(|value| value.is_finite());
    let symmetric = (en - ne).abs() <= 1e-6 * (ee.abs() + nn.abs());
    if !(finite && symmetric && ee > 0.0 && nn > 0.0 && ee * nn > en * ne && ee.max(nn) < 1e8) {
        return Err(format!(
            "covariance_m2 {:?} is not a positive definite [[east, cross], [cross, north]] in m²",
            row.covariance_m2
        ));
    }
    if let Some(step) = row.odometry {
        let sizes = [step.forward_m, step.left_m, step.yaw_rad];
        if !sizes
            .iter()
            .all(|value| value.is_finite() && value.abs() < 1e5)
        {
            return Err(
                "odometry is not finite or beyond 100 km; write null where it is unknown".into(),
            );
        }
    }
    Ok(())
}

fn check_position(latitude_deg: f64, longitude_deg: f64) -> Result<(), String> {
    Geodetic::new(latitude_deg, longitude_deg, 0.0).map_err(|error| {
        let [latitude, longitude] = [latitude_deg.abs(), longitude_deg.abs()];
        let hint = if latitude <= 180.0 && longitude <= 90.0 {
            "; are latitude and longitude exchanged?"
        } else if latitude.max(longitude) > 1e6 {
            "; it fits as degrees times 10,000,000: divide"
        } else if latitude <= 9000.0 && longitude <= 18_000.0 {
            "; it fits as degrees and minutes (ddmm.mmmm), as NMEA writes them: write degrees"
        } else {
            ""
        };
        format!("{error}{hint}")
    })?;
    if latitude_deg == 0.0 && longitude_deg == 0.0 {
        return Err(
            "position 0, 0 is what a receiver without a fix writes; leave the row out".into(),
        );
    }
    Ok(())
}

fn check_heading(heading_deg: f64) -> Result<(), String> {
    if (-360.0..=360.0).contains(&heading_deg) {
        Ok(())
    } else {
        Err(format!(
            "heading_deg is {heading_deg}; it must be -360 to 360 {HEADING_CONVENTION}"
        ))
    }
}

/// Rows of a drive must be in the order of time: odometry counts from the row before.
fn check_drives(path: &Path, rows: &[PairRow]) -> Result<(), DatasetError> {
    let mut last: BTreeMap<&str, i64> = BTreeMap::new();
    for (index, row) in rows.iter().enumerate() {
        if let Some(before) = last
            .insert(&row.drive, row.time_ns)
            .filter(|t| *t >= row.time_ns)
        {
            return Err(DatasetError::Line {
                path: path.display().to_string(),
                line: index + 1,
                what: format!(
                    "time_ns {} is not after {before} of the row before in drive {:?}; sort each drive by time",
                    row.time_ns, row.drive
                ),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
