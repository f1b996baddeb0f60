//! VIGOR: street panoramas of four American cities, and the aerial tiles they lie in.
//!
//! ```text
//! ROOT/<City>/panorama/<id>,<lat>,<lon>,.jpg         equirectangular, north in the centre column
//! ROOT/<City>/satellite/satellite_<lat>_<lon>.png    640 × 640, north up
//! ROOT/<labels>/<City>/satellite_list.txt            one tile a line
//! ROOT/<labels>/<City>/<split><suffix>.txt           one panorama a line, with four tiles
//! ```
//!
//! [`Vigor`] knows where the cameras are; [`VigorImages`], which adaptation takes, does not.
//!
//! Source: Zhu, Yang, Chen, *VIGOR* (CVPR 2021); labels as corrected with *`SliceMatch`* (Lentsch
//! et al., CVPR 2023). The original labels used a wrong ground resolution.

mod images;
pub mod labels;
pub mod split;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::copy_of;

pub use images::{Headings, VigorImages, VigorSamples, published_cell, published_sigma_cells};
pub use labels::Offset;
pub use split::VigorSplit;

use super::picture;
use super::problems::Problems;
use super::text::{lines, plain_name};
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// Side of an aerial tile, pixels.
pub const TILE_PX: usize = 640;

/// A city of the dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum City {
    /// New York.
    NewYork,
    /// Seattle.
    Seattle,
    /// San Francisco.
    SanFrancisco,
    /// Chicago.
    Chicago,
}

impl City {
    /// Its folder.
    pub fn folder(self) -> &'static str {
        match self {
            Self::NewYork => "NewYork",
            Self::Seattle => "Seattle",
            Self::SanFrancisco => "SanFrancisco",
            Self::Chicago => "Chicago",
        }
    }

    /// Metres that one pixel of a 640-pixel tile covers.
    pub fn metres_per_tile_pixel(self) -> f64 {
        match self {
            Self::NewYork => 0.113_248,
            Self::Seattle => 0.100_817,
            Self::SanFrancisco => 0.118_141,
            Self::Chicago => 0.111_262,
        }
    }
}

/// Where the dataset lies, and how its label files are called in this copy of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VigorFolder {
    /// Holds the cities and the label folder.
    pub root: PathBuf,
    /// The label folder.
    pub labels: String,
    /// What stands behind a split's name and before `.txt`.
    pub suffix: String,
}

impl VigorFolder {
    /// The names that the corrected labels are distributed with.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.into(),
            labels: "splits__corrected".into(),
            suffix: "__corrected".into(),
        }
    }

    fn tiles(&self, city: City) -> PathBuf {
        self.labels_of(city).join("satellite_list.txt")
    }

    fn labels_of(&self, city: City) -> PathBuf {
        self.root.join(&self.labels).join(city.folder())
    }
}

/// A panorama, and the four tiles it lies in with its place in each.
#[derive(Debug, Clone, PartialEq)]
pub struct VigorRow {
    /// The city.
    pub city: City,
    /// Name of the panorama's file.
    pub panorama: String,
    /// Index among [`Vigor::tiles`] and place of the camera; the positive tile first, then the
    /// semi-positive ones.
    pub tiles: [(usize, Offset); 4],
}

/// One split with its labels: where every camera is.
#[derive(Debug, Clone)]
pub struct Vigor {
    /// Where it lies.
    pub folder: VigorFolder,
    /// All tiles of the split's cities, in the order of the cities and their lists.
    pub tiles: Vec<(City, String)>,
    /// The panoramas, in the order of the cities and their label files.
    pub rows: Vec<VigorRow>,
}

impl Vigor {
    /// Reads the labels of a split and looks that every file is there.
    ///
    /// # Errors
    /// All [`Problems`] at once: missing files, hostile or inconsistent lines.
    pub fn open(folder: &VigorFolder, split: VigorSplit) -> Result<Self, Problems> {
        let mut problems = Problems::of(folder.root.display());
        let mut vigor = Self {
            folder: folder.clone(),
            tiles: Vec::new(),
            rows: Vec::new(),
        };
        if [&folder.labels, &folder.suffix]
            .iter()
            .any(|name| name.contains(['/', '\\']) || name.contains(".."))
        {
            problems.push("the label folder and suffix are names, not paths");
            return Err(problems);
        }
        for &city in split.cities() {
            let first_tile = vigor.tiles.len();
            match lines(&folder.tiles(city)) {
                Ok(names) => vigor.read_tiles(city, names, &mut problems),
                Err(what) => problems.push(format!(
                    "{what}; the corrected labels have this file for every city (see --labels)"
                )),
            }
            let path =
                folder
                    .labels_of(city)
                    .join(format!("{}{}.txt", split.file(), folder.suffix));
            match lines(&path) {
                Ok(lines) => vigor.read_rows(city, first_tile, &path, &lines, &mut problems),
                Err(what) => problems.push(format!(
                    "{what}; if your copy names its label files otherwise, say --labels and --label-suffix"
                )),
            }
        }
        vigor.look_for_files(split, &mut problems);
        if vigor.rows.is_empty() && problems.list.is_empty() {
            problems.push("no panorama in the label files");
        }
        problems.or(vigor)
    }

    fn read_tiles(&mut self, city: City, names: Vec<String>, problems: &mut Problems) {
        let path = self.folder.tiles(city);
        for (line, name) in names.into_iter().enumerate() {
            let say = |what: String| format!("{}, line {}: {what}", path.display(), line + 1);
            if let Err(what) = plain_name(&name, ".png") {
                problems.push(say(format!("{what}; take the published list")));
            }
            // A bad name keeps its place, so that later ones keep their index.
            self.tiles.push((city, name));
        }
    }

    fn read_rows(
        &mut self,
        city: City,
        first_tile: usize,
        path: &Path,
        lines: &[String],
        problems: &mut Problems,
    ) {
        let tiles: HashMap<&str, usize> = self.tiles[first_tile..]
            .iter()
            .enumerate()
            .map(|(index, (_, name))| (name.as_str(), first_tile + index))
            .collect();
        let mut seen: HashMap<&str, usize> = HashMap::new();
        let mut conflicts = |panorama, index: usize| {
            let before = *seen.entry(panorama).or_insert(index);
            (lines[before] != lines[index]).then_some(before + 1)
        };
        for (index, line) in lines.iter().enumerate() {
            let say = |what: &str| format!("{}, line {}: {what}", path.display(), index + 1);
            let label = match labels::parse(line) {
                Ok(label) => label,
                Err(what) => {
                    problems.push(say(&format!("{what}; take the corrected label file again")));
                    continue;
                }
            };
            if let Some(before) = conflicts(label.panorama, index) {
                problems.push(say(&format!(
                    "{} has another label on line {before}; remove the wrong one",
                    label.panorama
                )));
                continue;
            }
            let mut found = [(0, Offset::default()); 4];
            let mut whole = true;
            for (found, (name, offset)) in found.iter_mut().zip(label.tiles) {
                if let Some(index) = tiles.get(name) {
                    *found = (*index, offset);
                } else {
                    whole = false;
                    problems.push(say(&format!(
                        "{name} is not in satellite_list.txt; labels and list must be of one release"
                    )));
                }
            }
            if whole {
                self.rows.push(VigorRow {
                    city,
                    panorama: label.panorama.to_owned(),
                    tiles: found,
                });
            }
        }
    }

    /// Compares the names with what lies in the folders: one listing for each folder.
    fn look_for_files(&self, split: VigorSplit, problems: &mut Problems) {
        let places = self.rows.iter().flat_map(|row| row.tiles);
        let used: HashSet<usize> = places.map(|(tile, _)| tile).collect();
        for &city in split.cities() {
            let tiles = self
                .tiles
                .iter()
                .enumerate()
                .filter_map(|(index, (of, name))| {
                    (*of == city && used.contains(&index)).then_some(name)
                });
            let rows = self.rows.iter().filter(|row| row.city == city);
            let wanted: [(&str, Vec<&String>); 2] = [
                ("panorama", rows.map(|row| &row.panorama).collect()),
                ("satellite", tiles.collect()),
            ];
            for (kind, names) in wanted {
                let path = self.folder.root.join(city.folder()).join(kind);
                let there = match std::fs::read_dir(&path) {
                    Ok(entries) => entries
                        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
                        .collect::<HashSet<_>>(),
                    Err(error) => {
                        problems.push(format!(
                            "{}: {error}; unpack the dataset's archive of {} there",
                            path.display(),
                            city.folder()
                        ));
                        continue;
                    }
                };
                for name in names {
                    if !there.contains(name) {
                        problems.push(format!(
                            "{} is missing; unpack the archive again",
                            path.join(name).display()
                        ));
                    }
                }
            }
        }
    }

    /// Reads the header of every picture of the split, on all cores.
    ///
    /// # Errors
    /// All pictures that cannot be read or have another shape than published.
    pub fn check_pictures(&self) -> Result<(), Problems> {
        let panoramas = (0..self.rows.len()).into_par_iter().map(|index| {
            let path = self.panorama_path(index);
            let [width, height] = picture::size(&path)?;
            if width == 2 * height {
                return Ok(());
            }
            Err(format!(
                "{}: {width}×{height}; a whole panorama is twice as wide as high",
                path.display()
            ))
        });
        let used = self.used_tiles();
        let tiles = used.into_par_iter().map(|tile| {
            let path = self.tile_path(tile);
            let [width, height] = picture::size(&path)?;
            if [width, height] == [TILE_PX; 2] {
                return Ok(());
            }
            Err(format!(
                "{}: {width}×{height}; tiles are {TILE_PX}×{TILE_PX}",
                path.display()
            ))
        });
        let mut problems = Problems::of(self.folder.root.display());
        let found: Vec<Result<(), String>> = panoramas.chain(tiles).collect();
        for what in found.into_iter().filter_map(Result::err) {
            problems.push(what);
        }
        problems.or(())
    }

    /// The pictures of the split: panoramas, then the tiles that they lie in.
    pub fn pictures(&self) -> Vec<PathBuf> {
        let panoramas = (0..self.rows.len()).map(|index| self.panorama_path(index));
        let tiles = self.used_tiles();
        panoramas
            .chain(tiles.into_iter().map(|tile| self.tile_path(tile)))
            .collect()
    }

    fn used_tiles(&self) -> Vec<usize> {
        let tiles = self.rows.iter().flat_map(|row| row.tiles.iter());
        let used: HashSet<usize> = tiles.map(|(tile, _)| *tile).collect();
        let mut used: Vec<usize> = used.into_iter().collect();
        used.sort_unstable();
        used
    }

    /// File of a panorama.
    pub fn panorama_path(&self, index: usize) -> PathBuf {
        let row = &self.rows[index];
        let city = self.folder.root.join(row.city.folder());
        city.join("panorama").join(&row.panorama)
    }

    /// File of a tile.
    pub fn tile_path(&self, tile: usize) -> PathBuf {
        let (city, name) = &self.tiles[tile];
        let city = self.folder.root.join(city.folder());
        city.join("satellite").join(name)
    }
}
