//! The data against a network: camera, scale; and the network's own opinion, where it has one, on whether
//! headings, pictures or tiles mean something else than they say.

use super::report::Asked;
use super::{Report, Rows};
use crate::data::pairs::{DatasetManifest, PairRow};
use crate::data::pose::{offset_from_cell, strip_spec};
use crate::data::{Pairs, PairsImages, Preparation};
use crate::model::{CrossViewModel, ModelSpec};
use crate::predict::predict_with;
use crate::run::Interrupt;
use crossfix_calibration::mercator::ground_resolution;
use crossfix_calibration::{Camera, StripRemap};
use crossfix_onboard::tiles::TileManifest;
use std::collections::BTreeMap;
use std::path::Path;

/// Tiles may be this much coarser than the network's aerial images.
const COARSER: f64 = 1.6;
/// Share of the network's ground image that a camera must see.
const LEAST_SEEN: f64 = 0.6;
/// Pairs that a small network, and a large one, are asked about.
const ASKED: [usize; 2] = [48, 12];
/// Of fewer pairs a network has no opinion.
const LEAST_ASKED: usize = 8;
/// Another reading fits when the mean of what it gains is this many of its standard errors.
const CONFIDENT: f64 = 4.0;
/// And when it gains this much in the logarithm of the probability of the coarse position.
const GAINS: f64 = 0.25;

/// Whether camera and tiles fit a network.
pub(super) fn fits(
    spec: &ModelSpec,
    manifest: &DatasetManifest,
    tiles: Option<&TileManifest>,
    rows: &Rows,
    report: &mut Report,
) {
    let strip = strip_spec(spec, 0.0);
    if let Ok(remap) = StripRemap::new(&manifest.camera, &strip, 0.0) {
        let seen = remap.seen_fraction();
        if seen < LEAST_SEEN {
            let what = format!(
                "camera: it sees {:.0} % of what the network {} looks at; the rest would be black",
                100.0 * seen,
                spec.preset
            );
            let remedy =
                "take a network for such a camera, or correct its view and mount in dataset.toml";
            let said = report.found.iter().any(|found| found.check == "camera");
            if !said {
                report.problem("camera", ("dataset.toml", None), what, remedy);
            }
        }
    }
    let (Some(tiles), Some((_, row))) = (tiles, rows.rows.first()) else {
        return;
    };
    let metres = ground_resolution(row.latitude_deg, tiles.zoom, tiles.tile_px);
    let ratio = metres / spec.metres_per_pixel;
    if ratio > COARSER {
        let what = format!(
            "tiles show {metres:.2} m a pixel, and {} was trained at {:.2}",
            spec.preset, spec.metres_per_pixel
        );
        let remedy = "take finer tiles (a higher zoom), or a network for coarse ones";
        report.problem("tiles-scale", ("dataset.toml", None), what, remedy);
    }
}

/// Drives are held against one another when there are so many, by so many rows of each.
const LEAST_DRIVES: usize = 4;
const ASKED_A_DRIVE: usize = 24;
/// The mean of a shorter drive is noise: of right drives of 8 rows 43 of 661 were found wrong, of 24 rows 4 of 183, of
/// 46 rows none of 95.
const LEAST_A_DRIVE: usize = 40;
/// Coarse positions that are known less well fill the patch, and no network gains anything, metres.
const MOST_SIGMA_M: f64 = 12.0;
/// Receivers that are right are off by so much for a whole drive, whatever they state, metres.
const LASTING_M: f64 = 15.0;
/// A network knows an area where its usual drive gains so much in the logarithm of the probability of coarse
/// positions; on a drive that gains less than the second it finds nothing. On 48 right drives of four simulated
/// cities it gained 0.29 to 0.9, on drives moved by 25 and 60 m -0.79 to 0.05.
const FINDS: f64 = 0.5;
const NOTHING: f64 = 0.1;

/// Another reading of the same data.
struct Reading {
    check: &'static str,
    words: &'static str,
    remedy: &'static str,
    heading: fn(f64) -> f64,
    /// Turns the camera's picture by half a circle.
    upside_down: bool,
    /// The tiles' metres per pixel, times the stated ones.
    scale: f64,
}

fn plain(heading_deg: f64) -> f64 {
    heading_deg
}

fn enu(heading_deg: f64) -> f64 {
    90.0 - heading_deg
}

fn counter(heading_deg: f64) -> f64 {
    -heading_deg
}

fn back(heading_deg: f64) -> f64 {
    heading_deg + 180.0
}

const HEADING: &str = "write heading_deg in degrees clockwise from true north, of the vehicle";

const READINGS: [Reading; 6] = [
    Reading {
        check: "heading",
        words: "headings that count counter-clockwise from east (ENU)",
        remedy: HEADING,
        heading: enu,
        upside_down: false,
        scale: 1.0,
    },
    Reading {
        check: "heading",
        words: "headings that count counter-clockwise from north",
        remedy: HEADING,
        heading: counter,
        upside_down: false,
        scale: 1.0,
    },
    Reading {
        check: "heading",
        words: "headings turned by half a circle",
        remedy: HEADING,
        heading: back,
        upside_down: false,
        scale: 1.0,
    },
    Reading {
        check: "picture-upside-down",
        words: "pictures that are upside down",
        remedy: "turn the pictures, or write their EXIF orientation, or roll_right_deg = 180 in the camera's mount",
        heading: plain,
        upside_down: true,
        scale: 1.0,
    },
    Reading {
        check: "tiles-scale",
        words: "tiles that show twice as many metres a pixel as stated",
        remedy: "correct zoom and tile_px in the tiles' description, and name tiles by their own zoom",
        heading: plain,
        upside_down: false,
        scale: 0.5,
    },
    Reading {
        check: "tiles-scale",
        words: "tiles that show half as many metres a pixel as stated",
        remedy: "correct zoom and tile_px in the tiles' description, and name tiles by their own zoom",
        heading: plain,
        upside_down: false,
        scale: 2.0,
    },
];

/// Asks a network whether other readings of the data put the coarse positions where it finds them.
///
/// For each pair: the logarithm of the sum over the heatmap times the Gaussian of the coarse position. A
/// network that finds nothing here gives all readings the same, and then nothing is said.
pub(super) fn ask(
    model: &mut dyn CrossViewModel,
    rows: &mut Rows,
    interrupt: &Interrupt,
    report: &mut Report,
) -> anyhow::Result<()> {
    let spec = model.describe().clone();
    let asked = ASKED[usize::from(spec.aerial_px >= 256)];
    let chosen: Vec<PairRow> = rows
        .spread(Some(asked))
        .into_iter()
        .map(|row| rows.rows[row].1.clone())
        .collect();
    let Some(manifest) = rows
        .manifest
        .clone()
        .filter(|_| chosen.len() >= LEAST_ASKED)
    else {
        return Ok(());
    };
    let mut support = |reading: Option<&Reading>| {
        support(
            model,
            rows.folder,
            &manifest,
            &chosen,
            reading,
            0.0,
            interrupt,
        )
    };
    let stated = support(None)?;
    let mut best: Option<(f64, f64, &Reading)> = None;
    for reading in &READINGS {
        let headings = reading.check == "heading";
        let unknown = |row: &PairRow| row.heading_sigma_deg >= 90.0;
        if headings && (spec.finds_heading() || chosen.iter().all(unknown)) {
            continue;
        }
        let Ok(other) = support(Some(reading)) else {
            // Another scale may need tiles that are not there.
            continue;
        };
        let gains: Vec<f64> = other.iter().zip(&stated).map(|(a, b)| a - b).collect();
        let count = gains.len() as f64;
        let mean = gains.iter().sum::<f64>() / count;
        let variance = gains.iter().map(|gain| (gain - mean).powi(2)).sum::<f64>() / (count - 1.0);
        let errors = mean / (variance / count).sqrt().max(1e-9);
        report.asked.push(Asked {
            reading: reading.words,
            gain: mean,
            standard_errors: errors,
        });
        if mean > GAINS && errors > CONFIDENT && best.is_none_or(|(least, ..)| mean > least) {
            best = Some((mean, errors, reading));
        }
    }
    if let Some((gain, errors, reading)) = best {
        let what = format!(
            "{} finds the coarse positions of {} pairs better with {}: {gain:.2} in the log of their probability, {errors:.0} standard errors",
            spec.preset,
            chosen.len(),
            reading.words
        );
        report.problem(reading.check, ("pairs.jsonl", None), what, reading.remedy);
        return Ok(());
    }
    drives(model, rows, &manifest, interrupt, report)
}

/// For each row, the logarithm of the probability of its coarse position by the network's heatmap over that by a
/// flat one, the rows read as they are or otherwise.
fn support(
    model: &mut dyn CrossViewModel,
    folder: &Path,
    manifest: &DatasetManifest,
    rows: &[PairRow],
    reading: Option<&Reading>,
    least_sigma_m: f64,
    interrupt: &Interrupt,
) -> anyhow::Result<Vec<f64>> {
    let spec = model.describe().clone();
    let mut pairs = Pairs {
        folder: folder.into(),
        manifest: manifest.clone(),
        rows: rows.to_vec(),
    };
    let mut seen = model.describe().clone();
    if let Some(reading) = reading {
        for row in &mut pairs.rows {
            row.heading_deg = (reading.heading)(row.heading_deg).rem_euclid(360.0);
        }
        if reading.upside_down {
            turn(&mut pairs.manifest.camera);
        }
        seen.metres_per_pixel *= reading.scale;
    }
    let images = PairsImages::open(pairs, &seen, Preparation::default())?;
    let scale = reading.map_or(1.0, |reading| reading.scale);
    Ok(predict_with(
        model,
        &images,
        interrupt,
        |sample, _, heatmap| {
            let side = spec.heatmap_side();
            // Where tiles show more metres, so does a cell.
            let stated = 1.0 / scale;
            let [coarse_east, coarse_north] = sample.coarse_offset_m.map(|m| m * stated);
            let [[ee, en], [_, nn]] = sample.coarse_covariance_m2;
            let [ee, nn] = [ee, nn].map(|value| value.max(least_sigma_m * least_sigma_m));
            let [ee, en, nn] = [ee, en, nn].map(|value| value * stated * stated);
            let determinant = ee * nn - en * en;
            let mut total = 0.0;
            for (cell, probability) in heatmap.iter().enumerate() {
                let place = [cell % side, cell / side].map(|cell| cell as f64 + 0.5);
                let [east, north] = offset_from_cell(place, &spec);
                let [east, north] = [east - coarse_east, north - coarse_north];
                let squared =
                    (nn * east * east - 2.0 * en * east * north + ee * north * north) / determinant;
                total += f64::from(*probability) * (-0.5 * squared).exp();
            }
            // Against a heatmap that is flat over the patch, so that scales compare.
            let area = std::f64::consts::TAU * determinant.sqrt();
            let flat = (area / (side as f64 * spec.metres_per_cell()).powi(2)).min(1.0);
            Ok((total.max(1e-6) / flat).ln())
        },
    )?)
}

/// Drives in which a network finds nothing where the coarse positions are, while it does in the others: coarse
/// positions that are off by more than they say, another camera or mount, pictures of another time.
fn drives(
    model: &mut dyn CrossViewModel,
    rows: &Rows,
    manifest: &DatasetManifest,
    interrupt: &Interrupt,
    report: &mut Report,
) -> anyhow::Result<()> {
    let spec = model.describe();
    let finds_heading = spec.finds_heading() || spec.orientation_prior.is_none();
    let mut by_drive: BTreeMap<&str, Vec<&PairRow>> = BTreeMap::new();
    for (_, row) in &rows.rows {
        let [[ee, _], [_, nn]] = row.covariance_m2;
        let is_placed = f64::midpoint(ee, nn) <= MOST_SIGMA_M * MOST_SIGMA_M;
        let is_turned = finds_heading || row.heading_sigma_deg < 90.0;
        if !row.drive.is_empty() && is_placed && is_turned {
            by_drive.entry(&row.drive).or_default().push(row);
        }
    }
    by_drive.retain(|_, rows| rows.len() >= LEAST_A_DRIVE);
    if by_drive.len() < LEAST_DRIVES {
        return Ok(());
    }
    let (mut chosen, mut ends) = (Vec::new(), Vec::new());
    for rows in by_drive.values() {
        let step = rows.len().div_ceil(ASKED_A_DRIVE).max(1);
        chosen.extend(rows.iter().step_by(step).map(|row| (*row).clone()));
        ends.push(chosen.len());
    }
    let found = support(
        model,
        rows.folder,
        manifest,
        &chosen,
        None,
        LASTING_M,
        interrupt,
    )?;
    let mut from = 0;
    let drives: Vec<f64> = ends
        .iter()
        .map(|end| {
            let mine = &found[from..*end];
            from = *end;
            mine.iter().sum::<f64>() / mine.len() as f64
        })
        .collect();
    let mut sorted = drives.clone();
    sorted.sort_by(f64::total_cmp);
    let usual = sorted[sorted.len() / 2];
    for (name, drive) in by_drive.keys().zip(drives) {
        if usual > FINDS && drive < NOTHING {
            let what = format!(
                "drive {name:?}: the network finds the coarse positions no better than by chance ({drive:+.2} in the log of their probability; {usual:+.2} in the median of the drives)"
            );
            let remedy =
                "look at that vehicle's receiver, camera and mount, and leave the drive's rows out";
            report.problem("drive", ("pairs.jsonl", None), what, remedy);
        }
    }
    Ok(())
}

/// The same camera with its picture turned by half a circle.
fn turn(camera: &mut Camera) {
    match camera {
        Camera::Equirectangular(lens) => {
            lens.mount.roll_right_deg += 180.0;
            (lens.top_elevation_deg, lens.bottom_elevation_deg) =
                (-lens.bottom_elevation_deg, -lens.top_elevation_deg);
        }
        Camera::Pinhole(lens) => lens.mount.roll_right_deg += 180.0,
        Camera::Fisheye(lens) => lens.mount.roll_right_deg += 180.0,
    }
}
