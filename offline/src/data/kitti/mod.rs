//! KITTI with aerial maps: front-camera frames, each with an aerial image centred on the vehicle.
//!
//! ```text
//! ROOT/satmap/<day>/<drive>/<frame>.png                   north up, centred on the GNSS antenna
//! ROOT/raw_data/<day>/<drive>/image_02/data/<frame>.png   left colour camera
//! ROOT/raw_data/<day>/<drive>/oxts/data/<frame>.txt       sixth number: yaw, counter-clockwise from east
//! ROOT/raw_data/<day>/calib_cam_to_cam.txt                camera matrix, for GGCVT
//! LISTS/{train,test1,test2}_files.txt                     frames; test lists with shifts and turn
//! ```
//!
//! The vehicle is always at the map's centre, so each sample moves and turns the map by a known
//! amount: drawn in training, from the list in the tests.
//!
//! Source: Geiger, Lenz, Stiller, Urtasun, *Vision meets Robotics* (2013); aerial maps, lists and
//! the sampling of Shi and Li, *Beyond Cross-view Image Retrieval* (CVPR 2022).

pub mod files;
mod images;
pub mod patch;
#[cfg(test)]
mod tests;

pub use files::{CameraMatrix, FrameName, Listed};
pub use images::{KittiImages, KittiSamples};
pub use patch::Placement;

use super::picture;
use super::problems::Problems;
use super::text::lines;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Metres that one pixel of an aerial map covers: Web Mercator, zoom 18, scale 2, at 49.015° north.
pub const METRES_PER_PIXEL: f64 = 0.195_828_508_652_998_33;
/// Largest shift of a sample along either axis.
pub const SHIFT_RANGE_M: f64 = 20.0;

/// A published list of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KittiSplit {
    /// Training: shift and turn are drawn.
    Train,
    /// Test in the area of the training.
    Test1,
    /// Test in another area.
    Test2,
}

impl KittiSplit {
    /// Name of its list file.
    pub fn file(self) -> &'static str {
        match self {
            Self::Train => "train_files.txt",
            Self::Test1 => "test1_files.txt",
            Self::Test2 => "test2_files.txt",
        }
    }

    /// Frames in the published list.
    pub fn published_count(self) -> usize {
        match self {
            Self::Train => 19_655,
            Self::Test1 => 3_773,
            Self::Test2 => 7_542,
        }
    }
}

/// Where the dataset lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KittiFolder {
    /// Holds `satmap` and `raw_data`.
    pub root: PathBuf,
    /// Holds the list files.
    pub lists: PathBuf,
}

impl KittiFolder {
    /// List files in `ROOT/lists`.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.into(),
            lists: root.join("lists"),
        }
    }
}

/// A frame, with what its list says and where the vehicle looked.
#[derive(Debug, Clone, PartialEq)]
pub struct KittiRow {
    /// Day, drive and number.
    pub name: FrameName,
    /// Shift and turn, in test lists.
    pub listed: Option<Listed>,
    /// Radians counter-clockwise from east, from the inertial unit.
    pub yaw_rad: f64,
}

/// One list, with everything that is text.
#[derive(Debug, Clone)]
pub struct Kitti {
    /// Where it lies.
    pub folder: KittiFolder,
    /// The frames, in the list's order.
    pub rows: Vec<KittiRow>,
    /// Camera matrices by day, where calibration files were found.
    pub cameras: BTreeMap<String, CameraMatrix>,
}

impl Kitti {
    /// Reads a list and the yaw of each frame, and looks that the pictures are there.
    ///
    /// # Errors
    /// All [`Problems`] at once: missing files, hostile or inconsistent lines.
    pub fn open(folder: &KittiFolder, split: KittiSplit) -> Result<Self, Problems> {
        let mut problems = Problems::of(folder.root.display());
        let path = folder.lists.join(split.file());
        let lines = match lines(&path) {
            Ok(lines) => lines,
            Err(what) => {
                problems.push(format!(
                    "{what}; copy the published lists there, or say --lists"
                ));
                return Err(problems);
            }
        };
        let mut rows = Vec::with_capacity(lines.len());
        for (index, line) in lines.iter().enumerate() {
            let mut say = |what: String| {
                problems.push(format!("{}, line {}: {what}", path.display(), index + 1));
            };
            match files::parse_line(line, split != KittiSplit::Train) {
                Ok((name, listed)) => rows.push(KittiRow {
                    name,
                    listed,
                    yaw_rad: 0.0,
                }),
                Err(what) => say(format!("{what}; take the published list again")),
            }
        }
        let found: Vec<Result<f64, Vec<String>>> = rows
            .par_iter()
            .map(|row| look_at(&folder.root, &row.name))
            .collect();
        for (row, found) in rows.iter_mut().zip(found) {
            match found {
                Ok(yaw_rad) => row.yaw_rad = yaw_rad,
                Err(whats) => whats.into_iter().for_each(|what| problems.push(what)),
            }
        }
        if rows.is_empty() && problems.list.is_empty() {
            problems.push(format!("{}: no frame", path.display()));
        }
        let mut cameras = BTreeMap::new();
        let days: BTreeSet<&String> = rows.iter().map(|row| &row.name.day).collect();
        for day in days {
            let path = folder.root.join("raw_data").join(day);
            let path = path.join("calib_cam_to_cam.txt");
            if !path.exists() {
                continue; // Only GGCVT needs it, and asks.
            }
            match files::read_camera(&path) {
                Ok(camera) => drop(cameras.insert(day.clone(), camera)),
                Err(what) => problems.push(format!("{what}; unpack the day's calibration again")),
            }
        }
        problems.or(Self {
            folder: folder.clone(),
            rows,
            cameras,
        })
    }

    /// Reads the header of every picture of the list, on all cores.
    ///
    /// # Errors
    /// All pictures that cannot be read or are no camera frame or square map.
    pub fn check_pictures(&self) -> Result<(), Problems> {
        let check = |index: usize| {
            let (map, frame) = (self.map_path(index), self.frame_path(index));
            let map_size = picture::size(&map).map(|[width, height]| {
                (width != height || width < 512).then(|| {
                    format!(
                        "{}: {width}×{height}; aerial maps are square and at least 512 pixels",
                        map.display()
                    )
                })
            });
            // Rectified frames differ by a few pixels from day to day.
            let frame_size = picture::size(&frame).map(|[width, height]| {
                let close = (1200..=1300).contains(&width) && (360..=390).contains(&height);
                (!close).then(|| {
                    format!(
                        "{}: {width}×{height}; rectified colour frames are about 1242×375",
                        frame.display()
                    )
                })
            });
            [map_size, frame_size].map(|found| found.unwrap_or_else(Some))
        };
        let found: Vec<[Option<String>; 2]> =
            (0..self.rows.len()).into_par_iter().map(check).collect();
        let mut problems = Problems::of(self.folder.root.display());
        for what in found.into_iter().flatten().flatten() {
            problems.push(what);
        }
        problems.or(())
    }

    /// The pictures of the list: aerial maps and camera frames.
    pub fn pictures(&self) -> Vec<PathBuf> {
        let both = |index| [self.map_path(index), self.frame_path(index)];
        (0..self.rows.len()).flat_map(both).collect()
    }

    /// File of a frame's aerial map.
    pub fn map_path(&self, index: usize) -> PathBuf {
        map_path(&self.folder.root, &self.rows[index].name)
    }

    /// File of a camera frame.
    pub fn frame_path(&self, index: usize) -> PathBuf {
        frame_path(&self.folder.root, &self.rows[index].name)
    }
}

fn map_path(root: &Path, name: &FrameName) -> PathBuf {
    let folder = root.join("satmap").join(&name.day).join(&name.drive);
    folder.join(format!("{}.png", name.frame))
}

fn drive_path(root: &Path, name: &FrameName) -> PathBuf {
    root.join("raw_data").join(&name.day).join(&name.drive)
}

fn frame_path(root: &Path, name: &FrameName) -> PathBuf {
    let folder = drive_path(root, name).join("image_02").join("data");
    folder.join(format!("{}.png", name.frame))
}

/// The yaw of a frame, or everything that is missing of it.
fn look_at(root: &Path, name: &FrameName) -> Result<f64, Vec<String>> {
    let mut whats = Vec::new();
    for (path, archive) in [
        (map_path(root, name), "the aerial maps"),
        (frame_path(root, name), "the drive (synced+rectified)"),
    ] {
        if !path.is_file() {
            whats.push(format!(
                "{} is missing; unpack {archive} again",
                path.display()
            ));
        }
    }
    let folder = drive_path(root, name).join("oxts").join("data");
    let yaw = files::read_yaw(&folder.join(format!("{}.txt", name.frame)));
    match yaw {
        Ok(yaw_rad) if whats.is_empty() => Ok(yaw_rad),
        Ok(_) => Err(whats),
        Err(what) => {
            whats.push(format!("{what}; unpack the drive (synced+rectified) again"));
            Err(whats)
        }
    }
}
