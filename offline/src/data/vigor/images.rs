//! VIGOR's images as networks see them, with the published rolls, offsets and rounding.

use super::{Vigor, VigorFolder, VigorSplit};
use crate::data::cache::Pictures;
use crate::data::error::DatasetError;
use crate::data::examples::{Example, Examples, ReadExample};
use crate::data::planes::write_planes;
use crate::data::problems::Problems;
use crate::data::resample::round_half_even;
use crate::data::sample::{Dataset, Pair, Sample};
use crate::model::loss::PoseTarget;
use crate::model::{GroundCamera, GroundProjection, MapSpec, ModelError, ModelSpec, NetworkKind};
use crossfix_calibration::RgbImage;
use crossfix_kernels::ops::Augment;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::path::PathBuf;
use std::sync::Arc;

/// How panoramas are turned.
#[derive(Debug, Clone, PartialEq)]
pub enum Headings {
    /// Drawn each time, up to this many degrees either way; 180 and more: from the whole circle.
    /// 0 leaves north in the centre.
    Within(f64),
    /// Degrees for each panorama of the list: the fixed turns of a published evaluation.
    Fixed(Vec<f64>),
}

/// Sizes of the images that a network eats.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Sizes {
    rows: usize,
    /// Columns of the whole circle, and how many of them, from the left, are kept.
    columns: [usize; 2],
    aerial_px: usize,
    heatmap: MapSpec,
    /// The published loader's labels that the network goes with.
    labels: NetworkKind,
}

impl Sizes {
    fn of(spec: &ModelSpec) -> Self {
        let whole = if spec.camera == GroundCamera::Panorama {
            spec.ground_columns
        } else {
            2 * spec.ground_rows
        };
        Self {
            rows: spec.ground_rows,
            columns: [whole, spec.ground_columns],
            aerial_px: spec.aerial_px,
            heatmap: spec.heatmap,
            labels: spec.kind,
        }
    }

    fn panorama(&self) -> [usize; 2] {
        [self.columns[0], self.rows]
    }

    fn check(spec: &ModelSpec) -> Result<(), ModelError> {
        let cameras = [GroundCamera::Panorama, GroundCamera::CutPanorama];
        if cameras.contains(&spec.camera) {
            return Ok(());
        }
        Err(ModelError::Input(format!(
            "{} does not eat north-centred panoramas; take a ccvpe-vigor preset or ggcvt-vigor for VIGOR",
            spec.preset
        )))
    }
}

/// Panoramas of a split with their labels, for training and measuring.
pub struct VigorSamples<'a> {
    vigor: &'a Vigor,
    indices: Vec<usize>,
    headings: Headings,
    /// Draw among the positive and the semi-positive tiles that hold the camera.
    pub semi_positives: bool,
    /// Take a black panorama where one cannot be read, as the published loader does.
    pub black_where_unreadable: bool,
    /// Reads the pictures.
    pub pictures: Pictures,
    sizes: Sizes,
}

impl<'a> VigorSamples<'a> {
    /// These panoramas of `vigor`, for a network; positive tiles only.
    ///
    /// # Errors
    /// When the network does not eat panoramas, or fixed headings are of another list.
    pub fn new(
        vigor: &'a Vigor,
        indices: Vec<usize>,
        headings: Headings,
        spec: &ModelSpec,
    ) -> Result<Self, ModelError> {
        Sizes::check(spec)?;
        if let Headings::Fixed(degrees) = &headings
            && degrees.len() != vigor.rows.len()
        {
            return Err(ModelError::Input(format!(
                "{} fixed orientations for {} panoramas; the file belongs to another split",
                degrees.len(),
                vigor.rows.len()
            )));
        }
        Ok(Self {
            vigor,
            indices,
            headings,
            semi_positives: false,
            black_where_unreadable: false,
            pictures: Pictures::default(),
            sizes: Sizes::of(spec),
        })
    }

    /// The turn of a panorama, as a share of the circle: content moves right, the angle grows.
    fn draw_turn(&self, index: usize, rng: &mut ChaCha8Rng) -> f64 {
        match &self.headings {
            Headings::Fixed(degrees) => degrees[index] / 360.0,
            Headings::Within(most) if *most >= 180.0 => rng.random_range(0.0..1.0),
            Headings::Within(most) => rng.random_range(-1.0..=1.0) * most / 360.0,
        }
    }

    /// Draws among the four tiles until one holds the camera; the positive one always does.
    pub(super) fn draw_tile(&self, index: usize, mut draw: impl FnMut() -> usize) -> usize {
        if !self.semi_positives {
            return 0;
        }
        loop {
            let place = draw();
            if self.vigor.rows[index].tiles[place].1.inside() {
                return place;
            }
        }
    }

    /// Reads panorama `index` turned by `turn` of the circle, and its tile number `place`.
    pub(super) fn read(
        &self,
        index: usize,
        turn: f64,
        place: usize,
        ground: &mut [u8],
        aerial: &mut [u8],
    ) -> Result<Example, DatasetError> {
        let row = &self.vigor.rows[index];
        let wrong = |what: String| DatasetError::Pair {
            id: row.panorama.clone(),
            what,
        };
        let panorama = match self.pictures.read(
            &self.vigor.panorama_path(index),
            Some(self.sizes.panorama()),
        ) {
            Err(_) if self.black_where_unreadable => {
                RgbImage::black(self.sizes.columns[0], self.sizes.rows)
            }
            other => other.map_err(wrong)?,
        };
        let [whole, kept] = self.sizes.columns;
        let roll = round_half_even(turn * whole as f64) as i32;
        // The network's first pass can roll what is there, and of a cut panorama not all is.
        let (here, there) = if kept == whole { (0, roll) } else { (roll, 0) };
        write_planes(&panorama, i64::from(here), kept, ground);
        let (tile, offset) = row.tiles[place];
        let side = self.sizes.aerial_px;
        let tile = self.vigor.tile_path(tile);
        let tile = self.pictures.read(&tile, Some([side; 2])).map_err(wrong)?;
        write_planes(&tile, 0, side, aerial);
        let [south, west] = offset.rounded(side);
        let heatmap = self.sizes.heatmap;
        let cell = |offset_px: f64| match self.sizes.labels {
            NetworkKind::Ccvpe => published_cell(offset_px, side, heatmap.side),
            NetworkKind::Ggcvt => heatmap.side as f64 / 2.0 + offset_px / heatmap.cell_px,
        };
        let tile_m = row.city.metres_per_tile_pixel() * super::TILE_PX as f64;
        let beside_px = (side as f64 - heatmap.side as f64 * heatmap.cell_px) / 2.0;
        let residual_rad = (360.0 * turn).to_radians();
        let rolled = Augment {
            roll: there,
            ..Augment::default()
        };
        Ok(Example {
            target: PoseTarget {
                column: cell(-west),
                row: cell(south),
                residual_rad,
                weight: 1.0,
                map: None,
            },
            left_bin: 0,
            metres_per_cell: tile_m / (side as f64 / heatmap.cell_px),
            projection: GroundProjection::Panorama {
                metres_per_pixel: tile_m / side as f64,
                turn_rad: residual_rad,
            },
            camera_cell: offset
                .place(side)
                .map(|px| (px - beside_px) / heatmap.cell_px),
            augment: [rolled, Augment::default()],
        })
    }
}

/// Heatmap coordinate (cell centres at +0.5) of the published ground truth for a camera `offset`
/// pixels right of or below the centre of an image with `side` pixels.
///
/// The published maps are drawn on `side` equally spaced samples of an interval of length `side`,
/// so one cell is `side / (side - 1)` pixels; with a heatmap of another side there is nothing
/// published to follow, and cells are cells.
pub fn published_cell(offset: f64, side: usize, heatmap_side: usize) -> f64 {
    let place = side as f64 / 2.0 + offset;
    if side == heatmap_side {
        place * (side as f64 - 1.0) / side as f64 + 0.5
    } else {
        place * heatmap_side as f64 / side as f64
    }
}

/// Sigma in cells of the published ground truth with `sigma_px` pixels, on the same grid.
pub fn published_sigma_cells(sigma_px: f64, side: usize) -> f64 {
    sigma_px * (side as f64 - 1.0) / side as f64
}

impl Examples for VigorSamples<'_> {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn draw<'a>(&'a self, index: usize, rng: &mut ChaCha8Rng) -> ReadExample<'a> {
        let index = self.indices[index];
        let turn = self.draw_turn(index, rng);
        let place = self.draw_tile(index, || rng.random_range(0..4));
        Box::new(move |ground, aerial| self.read(index, turn, place, ground, aerial))
    }

    fn identity(&self) -> Vec<(String, [f64; 4])> {
        let name = |index: &usize| {
            let row = &self.vigor.rows[*index];
            let (_, offset) = row.tiles[0];
            let semi = f64::from(u8::from(self.semi_positives));
            (
                row.panorama.clone(),
                [offset.south_px, offset.west_px, semi, 1.0],
            )
        };
        self.indices.iter().map(name).collect()
    }

    fn check(&self, spec: &ModelSpec) -> Result<(), ModelError> {
        if Sizes::of(spec) == self.sizes {
            return Ok(());
        }
        Err(ModelError::Input(format!(
            "the samples were not made for {}",
            spec.preset
        )))
    }
}

/// Panoramas and the tiles they lie in, north in the centre, without the cameras' places: what
/// adaptation may know. Each stands alone: VIGOR has no drives.
pub struct VigorImages {
    samples: Vec<Sample>,
    /// Panorama and tile of each.
    files: Vec<[PathBuf; 2]>,
    /// Reads the pictures.
    pub pictures: Pictures,
    sizes: Sizes,
}

impl VigorImages {
    /// The positive tiles of these panoramas of a split. The label file is read for which tile
    /// belongs to which panorama; the places in it are dropped here.
    ///
    /// # Errors
    /// As [`Vigor::open`], and when the network does not eat panoramas.
    pub fn open(
        folder: &VigorFolder,
        split: VigorSplit,
        choose: impl FnOnce(usize) -> Vec<usize>,
        spec: &ModelSpec,
    ) -> Result<Self, Problems> {
        let vigor = Vigor::open(folder, split)?;
        if let Err(error) = Sizes::check(spec) {
            let mut problems = Problems::of(folder.root.display());
            problems.push(error.to_string());
            return Err(problems);
        }
        let (mut samples, mut files) = (Vec::new(), Vec::new());
        for index in choose(vigor.rows.len()) {
            let row = &vigor.rows[index];
            let tile_m = row.city.metres_per_tile_pixel() * super::TILE_PX as f64;
            let projection = GroundProjection::Panorama {
                metres_per_pixel: tile_m / spec.aerial_px as f64,
                turn_rad: 0.0,
            };
            samples.push(Sample::unplaced(row.panorama.clone(), projection));
            files.push([vigor.panorama_path(index), vigor.tile_path(row.tiles[0].0)]);
        }
        Ok(Self {
            samples,
            files,
            pictures: Pictures::default(),
            sizes: Sizes::of(spec),
        })
    }
}

impl Dataset for VigorImages {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn sample(&self, index: usize) -> &Sample {
        &self.samples[index]
    }

    fn pair(&self, index: usize) -> Result<Arc<Pair>, DatasetError> {
        let sample = self.samples[index].clone();
        let [panorama, tile] = &self.files[index];
        let wrong = |what: String| DatasetError::Pair {
            id: sample.id.clone(),
            what,
        };
        let panorama = self.pictures.read(panorama, Some(self.sizes.panorama()));
        let panorama = panorama.map_err(wrong)?;
        let [_, columns] = self.sizes.columns;
        let ground = if columns == panorama.width {
            panorama
        } else {
            first_columns(&panorama, columns)
        };
        let side = [self.sizes.aerial_px; 2];
        let aerial = self.pictures.read(tile, Some(side)).map_err(wrong)?;
        Ok(Arc::new(Pair {
            sample,
            ground,
            aerial,
        }))
    }
}

fn first_columns(image: &RgbImage, columns: usize) -> RgbImage {
    let rows = image.data.chunks_exact((image.width * 3).max(1));
    RgbImage {
        width: columns,
        height: image.height,
        data: rows.flat_map(|row| &row[..columns * 3]).copied().collect(),
    }
}
