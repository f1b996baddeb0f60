//! `crossfix simulate`: an area of the simulated city as a pairs dataset, and its drives as logs.

mod drive_log;

pub use drive_log::write_drive_log;

use crate::city::drive::Instruments;
use crate::city::frames::{CameraKind, Frame, plan_drive, random_frames};
use crate::city::gnss::Reception;
use crate::city::style::Gap;
use crate::city::{Area, AreaConfig, AreaName, Part, build_area, front, panorama, tiles};
use crate::dataset::pairs::{
    DatasetManifest, FORMAT, FORMAT_VERSION, HEADING_CONVENTION, OdometryStep, PairRow, TruthRow,
};
use crate::dataset::write::{PairsWriter, WriteError, in_file, jpeg, write_file};
use crossfix_calibration::{Camera, Equirectangular, Mount, Pinhole, TileId, mercator};
use crossfix_onboard::log::LogError;
use crossfix_onboard::tiles::TileManifest;
use indicatif::ProgressBar;
use rayon::prelude::*;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Words that accompany simulated imagery.
const ATTRIBUTION: &str = "simulated by crossfix";
const LICENCE: &str = "CC0-1.0";
const CAPTURE_DATE: &str = "2025-07-14";

/// What to write.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Contents {
    /// Frames at random places, each with its own coarse offset: for training a teacher.
    Random {
        /// Frames in all.
        pairs: usize,
    },
    /// Frames along drives, with satellite fixes and odometry.
    Drives {
        /// Drives in all.
        drives: usize,
        /// Length of a drive, m.
        length_m: f64,
        /// Travel between frames, m.
        spacing_m: f64,
        /// How many of the drives are also written as logs under `logs/`.
        logs: usize,
    },
}

/// Which districts, and what of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairsPlan {
    /// Which part of the area.
    pub part: Part,
    /// Districts to share the frames or drives.
    pub districts: usize,
    /// Random frames or drives.
    pub contents: Contents,
    /// The camera on the vehicle.
    pub camera: CameraKind,
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Written {
    /// Rows of `pairs.jsonl`.
    pub pairs: usize,
    /// Aerial tiles.
    pub tiles: usize,
    /// Drive logs.
    pub logs: Vec<PathBuf>,
}

/// Why a simulation stopped.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// The dataset cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A drive log cannot be written.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The plan asks for nothing.
    #[error("{0} is 0; ask for at least 1")]
    Nothing(&'static str),
}

/// Command line of `crossfix simulate`.
#[derive(Clone, Debug, clap::Args)]
pub struct SimulateArgs {
    /// Which town to simulate.
    #[arg(long, value_enum, default_value = "target")]
    pub area: AreaName,
    /// Which of its parts; parts share no district.
    #[arg(long, value_enum, default_value = "adapt")]
    pub part: Part,
    /// Seed of the world; the same seed gives the same files.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// New folder to write to.
    #[arg(long)]
    pub out: PathBuf,
    /// Districts of 600 m × 600 m.
    #[arg(long, default_value_t = 4)]
    pub districts: usize,
    /// What to write.
    #[arg(long, value_enum, default_value = "drives")]
    pub kind: Kind,
    /// Frames in all (`--kind pairs`).
    #[arg(long, default_value_t = 1000)]
    pub pairs: usize,
    /// Drives in all (`--kind drives`).
    #[arg(long, default_value_t = 8)]
    pub drives: usize,
    /// Length of a drive, m.
    #[arg(long, default_value_t = 450.0)]
    pub drive_length_m: f64,
    /// Travel between the frames of a drive, m.
    #[arg(long, default_value_t = 4.5)]
    pub spacing_m: f64,
    /// Drives that are also written as MCAP logs [default: all]
    #[arg(long)]
    pub logs: Option<usize>,
    /// A forward camera instead of a panorama.
    #[arg(long)]
    pub front: bool,
    /// Target's distance from the source in shapes and sizes, 0 to 1.
    #[arg(long, default_value_t = Gap::default().geometry)]
    pub gap_geometry: f32,
    /// Target's distance in colours and light, 0 to 1.
    #[arg(long, default_value_t = Gap::default().palette)]
    pub gap_palette: f32,
    /// Target's distance in sensors, 0 to 1.
    #[arg(long, default_value_t = Gap::default().sensor)]
    pub gap_sensor: f32,
    /// Keep the source's road marking in the target.
    #[arg(long)]
    pub same_marking: bool,
}

/// Kinds of dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Random places, each with its own coarse offset.
    Pairs,
    /// Drives, with logs.
    Drives,
}

/// Runs the command.
///
/// # Errors
/// [`SimulateError`] when the plan is empty or the disk refuses.
pub fn run(args: &SimulateArgs, progress: &ProgressBar) -> Result<Written, SimulateError> {
    let gap = Gap {
        geometry: args.gap_geometry,
        palette: args.gap_palette,
        sensor: args.gap_sensor,
        marking: !args.same_marking,
    };
    let area = build_area(AreaConfig {
        area: args.area,
        seed: args.seed,
        gap,
    });
    let contents = match args.kind {
        Kind::Pairs => Contents::Random { pairs: args.pairs },
        Kind::Drives => Contents::Drives {
            drives: args.drives,
            length_m: args.drive_length_m,
            spacing_m: args.spacing_m,
            logs: args.logs.unwrap_or(args.drives),
        },
    };
    let camera = if args.front {
        CameraKind::Front
    } else {
        CameraKind::Panorama
    };
    let plan = PairsPlan {
        part: args.part,
        districts: args.districts,
        contents,
        camera,
    };
    write_pairs(&area, &plan, &args.out, progress)
}

/// Writes one part of an area; `progress` counts districts.
///
/// # Errors
/// [`SimulateError`] when the plan is empty or the disk refuses.
pub fn write_pairs(
    area: &Area,
    plan: &PairsPlan,
    out: &Path,
    progress: &ProgressBar,
) -> Result<Written, SimulateError> {
    if plan.districts == 0 {
        return Err(SimulateError::Nothing("districts"));
    }
    match plan.contents {
        Contents::Random { pairs: 0 } => return Err(SimulateError::Nothing("pairs")),
        Contents::Drives { drives: 0, .. } => return Err(SimulateError::Nothing("drives")),
        _ => {}
    }
    let mut writer = PairsWriter::create(out)?;
    if let Contents::Drives { logs: 1.., .. } = plan.contents {
        let folder = out.join("logs");
        std::fs::create_dir_all(&folder).map_err(in_file(&folder))?;
    }
    progress.set_length(plan.districts as u64);
    let districts = (0..plan.districts)
        .into_par_iter()
        .map(|index| {
            let written = write_district(area, plan, index, out);
            progress.inc(1);
            written
        })
        .collect::<Result<Vec<_>, _>>()?;
    let (mut written, mut all_tiles) = (Written::default(), Vec::new());
    for district in districts {
        for (pair, truth) in &district.rows {
            writer.row(pair, truth)?;
        }
        written.pairs += district.rows.len();
        written.logs.extend(district.logs);
        all_tiles.extend(district.tiles);
    }
    written.tiles = all_tiles.len();
    let latitude_deg = area.frame(plan.part, 0).origin().latitude_deg;
    writer.finish(
        &manifest(area, plan),
        all_tiles,
        &tile_manifest(latitude_deg),
    )?;
    Ok(written)
}

struct WrittenDistrict {
    rows: Vec<(PairRow, TruthRow)>,
    tiles: Vec<(TileId, Vec<u8>)>,
    logs: Vec<PathBuf>,
}

/// Of `total` things, those of one district: as even as it goes, earlier districts one more.
fn share(total: usize, districts: usize, index: usize) -> usize {
    total / districts + usize::from(index < total % districts)
}

fn write_district(
    area: &Area,
    plan: &PairsPlan,
    index: usize,
    out: &Path,
) -> Result<WrittenDistrict, SimulateError> {
    let placed = area.district(plan.part, index);
    let mut logs = Vec::new();
    let frames = match plan.contents {
        Contents::Random { pairs } => {
            random_frames(&placed, share(pairs, plan.districts, index), plan.camera)
        }
        Contents::Drives {
            drives,
            length_m,
            spacing_m,
            logs: most_logs,
        } => {
            let own_logs = share(most_logs, plan.districts, index);
            let mut frames = Vec::new();
            for number in 0..share(drives, plan.districts, index) {
                let (instruments, reception) = (Instruments::default(), Reception::default());
                let drive = plan_drive(&placed, number, length_m, &instruments, &reception);
                frames.extend(drive.frames(&placed, spacing_m, plan.camera));
                if number < own_logs {
                    let path = out.join("logs").join(format!("{}.mcap", drive.name));
                    write_drive_log(&placed, &drive, plan.camera, &path)?;
                    logs.push(path);
                }
            }
            frames
        }
    };
    let rows = frames
        .into_par_iter()
        .map(|frame| {
            let (pair, truth) = rows(&frame);
            let bytes = jpeg(&frame.image, &frame.id)?;
            write_file(&out.join(&pair.image), &bytes)?;
            Ok((pair, truth))
        })
        .collect::<Result<Vec<_>, WriteError>>()?;
    let tiles = tiles::render(&placed)
        .into_par_iter()
        .map(|(id, tile)| Ok((id, jpeg(&tile, "a tile")?)))
        .collect::<Result<Vec<_>, WriteError>>()?;
    Ok(WrittenDistrict { rows, tiles, logs })
}

fn rows(frame: &Frame) -> (PairRow, TruthRow) {
    let pair = PairRow {
        id: frame.id.clone(),
        drive: frame.drive.clone(),
        time_ns: frame.time_ns,
        image: format!("images/{}.jpg", frame.id),
        latitude_deg: frame.coarse.latitude_deg,
        longitude_deg: frame.coarse.longitude_deg,
        covariance_m2: frame.covariance_m2,
        heading_deg: frame.heading_deg,
        heading_sigma_deg: frame.heading_sigma_deg,
        odometry: frame
            .odometry
            .map(|[forward_m, left_m, yaw_rad]| OdometryStep {
                forward_m,
                left_m,
                yaw_rad,
            }),
    };
    let truth = TruthRow {
        id: frame.id.clone(),
        latitude_deg: frame.truth.latitude_deg,
        longitude_deg: frame.truth.longitude_deg,
        heading_deg: frame.true_heading_deg,
    };
    (pair, truth)
}

/// The simulated camera as calibration describes it.
pub fn calibration(camera: CameraKind) -> Camera {
    match camera {
        CameraKind::Panorama => Camera::Equirectangular(Equirectangular {
            width: panorama::COLUMNS,
            height: panorama::ROWS,
            top_elevation_deg: panorama::TOP_RAD.to_degrees(),
            bottom_elevation_deg: (panorama::TOP_RAD
                - panorama::ROWS as f64 * panorama::RADIANS_PER_PIXEL)
                .to_degrees(),
            mount: Mount::default(),
        }),
        CameraKind::Front => Camera::Pinhole(Pinhole {
            width: front::COLUMNS,
            height: front::ROWS,
            fx: front::focal_px(),
            fy: front::focal_px(),
            cx: 0.5 * front::COLUMNS as f64,
            cy: front::PRINCIPAL_ROW,
            distortion: None,
            mount: Mount::default(),
        }),
    }
}

fn manifest(area: &Area, plan: &PairsPlan) -> DatasetManifest {
    let AreaConfig {
        area: name,
        seed,
        gap,
    } = area.config();
    DatasetManifest {
        format: FORMAT.into(),
        version: FORMAT_VERSION,
        area: format!("simulated {} area, {} part", name.name(), plan.part.name()),
        licence: LICENCE.into(),
        provenance: format!(
            "crossfix {} simulate, seed {seed}, {} districts, {:?}, gap geometry {} palette {} sensor {} marking {}",
            env!("CARGO_PKG_VERSION"),
            plan.districts,
            plan.contents,
            gap.geometry,
            gap.palette,
            gap.sensor,
            gap.marking,
        ),
        heading_convention: HEADING_CONVENTION.into(),
        tiles: "tiles.pmtiles".into(),
        camera: calibration(plan.camera),
    }
}

fn tile_manifest(latitude_deg: f64) -> TileManifest {
    let metres_per_pixel = mercator::ground_resolution(latitude_deg, tiles::ZOOM, tiles::TILE_PX);
    TileManifest {
        zoom: tiles::ZOOM,
        tile_px: tiles::TILE_PX,
        metres_per_pixel,
        // The painted town lies where the truth has it, to half a pixel either way; 1-sigma of that.
        georef_sigma_m: metres_per_pixel / 12f64.sqrt(),
        capture_date: CAPTURE_DATE.into(),
        attribution: ATTRIBUTION.into(),
        licence: LICENCE.into(),
        source: Some("procedural city of crossfix simulate".into()),
    }
}

#[cfg(test)]
mod tests;
