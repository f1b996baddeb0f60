//! The pairs dataset on disk: `dataset.toml`, `pairs.jsonl`, images, tiles; `truth.jsonl` apart.
//!
//! ```text
//! dataset.toml   what it is: area, camera, tile set, conventions, licence, provenance
//! pairs.jsonl    one PairRow a line, in the order of each drive
//! truth.jsonl    one TruthRow a line, optional; only truth() opens it
//! images/        what the rows' `image` names, JPEG or PNG
//! tiles.pmtiles  the aerial tiles, with tiles.toml beside them
//! ```

use crossfix_calibration::{Camera, Geodetic};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Read};
use std::path::{Component, Path, PathBuf};

/// The only heading convention we read; stated so that nobody has to guess.
pub const HEADING_CONVENTION: &str = "degrees clockwise from true north";
/// The format's name in `dataset.toml`.
pub const FORMAT: &str = "crossfix-pairs";
/// The version of the format that we read and write.
pub const FORMAT_VERSION: u32 = 1;
/// Longest line of a `.jsonl` file.
const MOST_LINE_BYTES: u64 = 64 << 10;
/// Largest `dataset.toml`.
const MOST_TOML_BYTES: u64 = 1 << 20;
/// Most pairs in one dataset.
const MOST_PAIRS: usize = 5_000_000;

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

/// Movement since the row before, in the vehicle's frame at that row.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OdometryStep {
    /// Metres forward.
    pub forward_m: f64,
    /// Metres to the left.
    pub left_m: f64,
    /// Turn, radians counter-clockwise.
    pub yaw_rad: f64,
}

/// A line of `truth.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TruthRow {
    /// The pair's id.
    pub id: String,
    /// True position, WGS 84.
    pub latitude_deg: f64,
    /// True position, WGS 84.
    pub longitude_deg: f64,
    /// True heading, degrees clockwise from true north.
    pub heading_deg: f64,
}

/// Why a dataset is refused.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// A file cannot be opened or read.
    #[error("{path}: {error}; {fix}")]
    Read {
        /// The file.
        path: String,
        /// The operating system's reason.
        error: std::io::Error,
        /// What to do.
        fix: &'static str,
    },
    /// `dataset.toml` says something else than it must.
    #[error("{path}: {what}")]
    Manifest {
        /// The file.
        path: String,
        /// What is wrong, and the fix.
        what: String,
    },
    /// A line is wrong.
    #[error("{path}, line {line}: {what}")]
    Line {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong, and the fix.
        what: String,
    },
    /// A picture or a tile cannot be used.
    #[error("pair {id}: {what}")]
    Pair {
        /// The pair.
        id: String,
        /// What is wrong, and the fix.
        what: String,
    },
}

/// A dataset whose text was read and checked; pictures and tiles are read by
/// [`super::prepare`]. Holds no truth and does not look for any.
#[derive(Debug, Clone)]
pub struct PairsDataset {
    /// Its folder.
    pub folder: PathBuf,
    /// Its `dataset.toml`.
    pub manifest: DatasetManifest,
    /// Its `pairs.jsonl`.
    pub rows: Vec<PairRow>,
}

/// True positions by pair, read from `truth.jsonl`. Supervised training, evaluation and the
/// `oracle` recipe take one; no other part of adaptation can.
#[derive(Debug, Clone, Default)]
pub struct Truth {
    rows: HashMap<String, TruthRow>,
}

impl PairsDataset {
    /// Reads `dataset.toml` and `pairs.jsonl` and checks every line.
    ///
    /// # Errors
    /// [`DatasetError`] with the file, the line and the fix.
    pub fn open(folder: &Path) -> Result<Self, DatasetError> {
        let path = folder.join("dataset.toml");
        let fix = "give --data the folder that holds dataset.toml";
        let text = read_small(&path, MOST_TOML_BYTES, fix)?;
        let wrong = |what: String| DatasetError::Manifest {
            path: path.display().to_string(),
            what,
        };
        let manifest: DatasetManifest = toml::from_str(&text)
            .map_err(|error| wrong(format!("{error}; see the dataset page of the README")))?;
        check_manifest(&manifest).map_err(wrong)?;
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

    /// Keeps only the rows that `keep` wants.
    pub fn retain(&mut self, keep: impl FnMut(&PairRow) -> bool) {
        self.rows.retain(keep);
    }
}

impl Truth {
    /// Reads `truth.jsonl` of the dataset in `folder`.
    ///
    /// # Errors
    /// [`DatasetError`] with the line and the fix.
    pub fn open(folder: &Path) -> Result<Self, DatasetError> {
        let rows: Vec<TruthRow> =
            read_lines(&folder.join("truth.jsonl"), check_truth, |row| &row.id)?;
        let rows = rows.into_iter().map(|row| (row.id.clone(), row)).collect();
        Ok(Self { rows })
    }

    /// The truth of one pair.
    pub fn get(&self, id: &str) -> Option<&TruthRow> {
        self.rows.get(id)
    }

    /// Pairs whose truth is known.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether no truth is known.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
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

fn check_truth(row: &TruthRow) -> Result<(), String> {
    check_position(row.latitude_deg, row.longitude_deg)?;
    check_heading(row.heading_deg)
}

fn check_position(latitude_deg: f64, longitude_deg: f64) -> Result<(), String> {
    Geodetic::new(latitude_deg, longitude_deg, 0.0)
        .map(drop)
        .map_err(|error| error.to_string())
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

fn read_small(path: &Path, most: u64, fix: &'static str) -> Result<String, DatasetError> {
    let read = |path: &Path| {
        let mut text = String::new();
        std::fs::File::open(path)?
            .take(most + 1)
            .read_to_string(&mut text)?;
        if text.len() as u64 > most {
            return Err(std::io::Error::other(format!("more than {most} bytes")));
        }
        Ok(text)
    };
    read(path).map_err(|error| DatasetError::Read {
        path: path.display().to_string(),
        error,
        fix,
    })
}

/// Reads a JSON-lines file whose ids are unique, checking each line.
fn read_lines<T: DeserializeOwned>(
    path: &Path,
    check: impl Fn(&T) -> Result<(), String>,
    id: impl Fn(&T) -> &String,
) -> Result<Vec<T>, DatasetError> {
    let unreadable = |error| DatasetError::Read {
        path: path.display().to_string(),
        error,
        fix: "a pairs dataset has this file beside dataset.toml",
    };
    let mut reader = BufReader::new(std::fs::File::open(path).map_err(unreadable)?);
    let mut rows = Vec::new();
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut bytes = Vec::new();
    for line in 1.. {
        let wrong = |what: String| DatasetError::Line {
            path: path.display().to_string(),
            line,
            what,
        };
        bytes.clear();
        let read = (&mut reader)
            .take(MOST_LINE_BYTES + 1)
            .read_until(b'\n', &mut bytes)
            .map_err(unreadable)?;
        if read == 0 {
            break;
        }
        if read as u64 > MOST_LINE_BYTES {
            return Err(wrong(format!(
                "longer than {MOST_LINE_BYTES} bytes; one row is one line"
            )));
        }
        if rows.len() >= MOST_PAIRS {
            return Err(wrong(format!(
                "more than {MOST_PAIRS} rows; split the dataset"
            )));
        }
        let text = std::str::from_utf8(&bytes)
            .map_err(|error| wrong(format!("{error}; write UTF-8")))?
            .trim();
        if text.is_empty() {
            return Err(wrong("an empty line; remove it".into()));
        }
        let row: T = serde_json::from_str(text).map_err(|error| {
            let whole = bytes.ends_with(b"\n");
            let cut = if whole {
                ""
            } else {
                "; the file ends inside the line: it was cut short, copy it again"
            };
            wrong(format!("{error}{cut}"))
        })?;
        check(&row).map_err(wrong)?;
        if let Some(before) = seen.insert(id(&row).clone(), line) {
            return Err(wrong(format!(
                "id {:?} is also on line {before}; make ids unique",
                id(&row)
            )));
        }
        rows.push(row);
    }
    if rows.is_empty() {
        return Err(DatasetError::Line {
            path: path.display().to_string(),
            line: 1,
            what: "no row; the dataset is empty".into(),
        });
    }
    Ok(rows)
}

#[cfg(test)]
mod tests;
