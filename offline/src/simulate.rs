//! `crossfix simulate`: an area of the simulated city as a pairs dataset, and its drives as logs.

mod drive_log;

pub use drive_log::write_drive_log;

use crate::city::detail::{Detail, PanoramaSize};
use crate::city::drive::Instruments;
use crate::city::frames::{CameraKind, Frame, Headings, plan_drive, random_frame};
use crate::city::gnss::Reception;
use crate::city::style::Gap;
use crate::city::{Area, AreaConfig, AreaName, Part, build_area, front, tiles};
use crate::data::OdometryStep;
use crate::data::pairs::truth::TruthRow;
use crate::data::pairs::write::{PairsWriter, WriteError, in_file, jpeg, write_file};
use crate::data::pairs::{DatasetManifest, FORMAT, FORMAT_VERSION, HEADING_CONVENTION, PairRow};
use crate::storage::{Files, Paths, Role};
use crossfix_calibration::{Camera, Equirectangular, Mount, Pinhole, TileId, mercator};
use crossfix_onboard::log::LogError;
use crossfix_onboard::tiles::TileManifest;
use indicatif::ProgressBar;
use rayon::prelude::*;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

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
    /// What the vehicle knows of its heading.
    pub headings: Headings,
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
    /// Options that exclude each other.
    #[error("{0}")]
    Options(&'static str),
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
    /// What vehicles know of their heading.
    #[arg(long, value_enum, default_value = "measured")]
    pub headings: Headings,
    /// Size of the panoramas, `ROWSxCOLUMNS`, their pixels square: 48x256 for `compact`; 320x640, the
    /// whole sphere, for `ccvpe-vigor`. Otherwise the upper edge is 28° above the horizon. Above
    /// 256 columns the town has finer cells (0.125 m).
    #[arg(long, default_value = "48x256", value_name = "ROWSxCOLUMNS")]
    pub panorama: PanoramaSize,
    /// Zoom of the aerial tiles: 18 is 0.37 m a pixel, 19 0.18 m, 20 0.09 m. Above 18 the town has
    /// finer cells (0.125 m).
    #[arg(long, default_value_t = tiles::ZOOM, value_parser = clap::value_parser!(u8).range(16..=20))]
    pub zoom: u8,
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

impl Files for SimulateArgs {
    fn paths(&mut self) -> Paths<'_> {
        vec![(Role::Folder, &mut self.out)]
    }
}

/// Runs the command.
///
/// # Errors
/// [`SimulateError`] when the plan is empty or the disk refuses.
pub fn run(args: &SimulateArgs, progress: &ProgressBar) -> Result<Written, SimulateError> {
    if args.front && args.panorama != PanoramaSize::DEFAULT {
        return Err(SimulateError::Options(
            "--front takes pictures of 96x128 pixels and no panorama; leave --panorama or --front away",
        ));
    }
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
    })
    .drawn_at(Detail {
        panorama: args.panorama,
        zoom: args.zoom,
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
        headings: args.headings,
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
    let districts = in_lanes(plan.districts, lanes(area), |index| {
        let written = write_district(area, plan, index, out);
        progress.inc(1);
        written
    })?;
    let (mut written, mut all_tiles) = (Written::default(), Vec::new());
    for district in districts {
        for (pair, truth) in &district.rows {
            writer.row(pair, Some(truth))?;
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
        &tile_manifest(latitude_deg, area.detail().zoom),
    )?;
    Ok(written)
}

/// Districts that may be in memory at once: as many as there are cores, as long as their cells are
/// within some four gigabytes.
fn lanes(area: &Area) -> usize {
    const MOST_CELLS: usize = 160 << 20;
    let cells = area.detail().grid().side.pow(2);
    rayon::current_num_threads().clamp(1, (MOST_CELLS / cells).max(1))
}

/// What `make` gives for each number, at most `lanes` of them under way. Each lane is a thread of its
/// own: a worker of the pool that waits for pictures of one district would begin another.
fn in_lanes<T: Send, E: Send>(
    count: usize,
    lanes: usize,
    make: impl Fn(usize) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let next = AtomicUsize::new(0);
    let lane = || {
        let mut made = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return Ok(made);
            }
            match make(index) {
                Ok(item) => made.push((index, item)),
                Err(error) => {
                    // Nobody begins another.
                    next.store(count, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
    };
    let parts = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..lanes.min(count)).map(|_| scope.spawn(lane)).collect();
        let joined = threads.into_iter().map(|thread| {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        joined.collect::<Result<Vec<_>, E>>()
    })?;
    let mut made: Vec<(usize, T)> = parts.into_iter().flatten().collect();
    made.sort_unstable_by_key(|(index, _)| *index);
    Ok(made.into_iter().map(|(_, item)| item).collect())
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
    // Each picture is written as soon as it is drawn, so that few are held.
    let write = |frame: Frame| -> Result<(PairRow, TruthRow), WriteError> {
        let (pair, truth) = rows(&frame);
        let bytes = jpeg(&frame.image, &frame.id)?;
        write_file(&out.join(&pair.image), &bytes)?;
        Ok((pair, truth))
    };
    let rows = match plan.contents {
        Contents::Random { pairs } => (0..share(pairs, plan.districts, index))
            .into_par_iter()
            .map(|number| write(random_frame(&placed, number, plan.camera, plan.headings)))
            .collect::<Result<Vec<_>, _>>()?,
        Contents::Drives {
            drives,
            length_m,
            spacing_m,
            logs: most_logs,
        } => {
            let own_logs = share(most_logs, plan.districts, index);
            let mut rows = Vec::new();
            for number in 0..share(drives, plan.districts, index) {
                let (instruments, reception) = (Instruments::default(), Reception::default());
                let drive = plan_drive(&placed, number, length_m, &instruments, &reception);
                let samples = drive.frame_samples(spacing_m);
                let frame = |number| {
                    let (camera, headings) = (plan.camera, plan.headings);
                    write(drive.frame(&placed, &samples, number, camera, headings))
                };
                let frames = (0..samples.len()).into_par_iter().map(frame);
                rows.extend(frames.collect::<Result<Vec<_>, _>>()?);
                if number < own_logs {
                    let path = out.join("logs").join(format!("{}.mcap", drive.name));
                    write_drive_log(&placed, &drive, plan, &path)?;
                    logs.push(path);
                }
            }
            rows
        }
    };
    let tiles = tiles::render_each(&placed, |id, tile| Ok((id, jpeg(&tile, "a tile")?)))
        .into_iter()
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
pub fn calibration(camera: CameraKind, panorama: PanoramaSize) -> Camera {
    match camera {
        CameraKind::Panorama => Camera::Equirectangular(Equirectangular {
            width: panorama.columns(),
            height: panorama.rows(),
            top_elevation_deg: panorama.top_rad().to_degrees(),
            bottom_elevation_deg: panorama.bottom_rad().to_degrees(),
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
    let detail = area.detail();
    let drawn = if detail == Detail::default() {
        String::new()
    } else {
        let (rows, columns) = (detail.panorama.rows(), detail.panorama.columns());
        format!(", panorama {rows}x{columns}, zoom {}", detail.zoom)
    };
    DatasetManifest {
        format: FORMAT.into(),
        version: FORMAT_VERSION,
        area: format!("simulated {} area, {} part", name.name(), plan.part.name()),
        licence: LICENCE.into(),
        provenance: format!(
            "crossfix {} simulate, seed {seed}, {} districts, {:?}, {}gap geometry {} palette {} sensor {} marking {}",
            env!("CARGO_PKG_VERSION"),
            plan.districts,
            plan.contents,
            match plan.headings {
                Headings::Measured => "",
                Headings::Unknown => "headings unknown, ",
            },
            gap.geometry,
            gap.palette,
            gap.sensor,
            gap.marking,
        ) + &drawn,
        heading_convention: HEADING_CONVENTION.into(),
        tiles: "tiles.pmtiles".into(),
        camera: calibration(plan.camera, area.detail().panorama),
    }
}

fn tile_manifest(latitude_deg: f64, zoom: u8) -> TileManifest {
    let metres_per_pixel = mercator::ground_resolution(latitude_deg, zoom, tiles::TILE_PX);
    TileManifest {
        zoom,
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
