//! KITTI's images as networks see them, with the published draws and rounding.

use super::patch::Placement;
use super::{Kitti, KittiFolder, KittiSplit, METRES_PER_PIXEL};
use crate::data::cache::Pictures;
use crate::data::error::DatasetError;
use crate::data::examples::{Example, Examples, ReadExample};
use crate::data::planes::write_planes;
use crate::data::problems::Problems;
use crate::data::sample::{Dataset, Pair, Sample};
use crate::data::vigor::published_cell;
use crate::model::loss::PoseTarget;
use crate::model::{GroundCamera, GroundProjection, MapSpec, ModelError, ModelSpec};
use crossfix_calibration::RgbImage;
use crossfix_kernels::ops::Augment;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;

/// Sizes of the images that a network eats.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Sizes {
    rows: usize,
    columns: usize,
    aerial_px: usize,
    heatmap: MapSpec,
    /// Whether the network wants the camera matrix and, beside it, labels that are not truncated.
    calibrated: bool,
}

impl Sizes {
    fn of(spec: &ModelSpec) -> Self {
        Self {
            rows: spec.ground_rows,
            columns: spec.ground_columns,
            aerial_px: spec.aerial_px,
            heatmap: spec.heatmap,
            calibrated: matches!(spec.camera, GroundCamera::CalibratedPinhole { .. }),
        }
    }

    /// The network must eat frames and aerial images at the maps' own resolution.
    fn check(spec: &ModelSpec) -> Result<(), ModelError> {
        let resolution = (spec.metres_per_pixel / METRES_PER_PIXEL - 1.0).abs() < 1e-3;
        let pinhole = matches!(
            spec.camera,
            GroundCamera::Pinhole | GroundCamera::CalibratedPinhole { .. }
        );
        if pinhole && resolution {
            return Ok(());
        }
        Err(ModelError::Input(format!(
            "{} does not eat KITTI's frames and maps; take ccvpe-kitti or a ggcvt-kitti preset",
            spec.preset
        )))
    }
}

/// Frames of a list with their true places, for training and measuring.
pub struct KittiSamples<'a> {
    kitti: &'a Kitti,
    indices: Vec<usize>,
    /// Largest turn either way, degrees: 180 for unknown orientation.
    pub rotation_range_deg: f64,
    /// Reads the pictures.
    pub pictures: Pictures,
    sizes: Sizes,
}

impl<'a> KittiSamples<'a> {
    /// These frames of a list, for a network.
    ///
    /// # Errors
    /// When the network does not eat KITTI's images.
    pub fn new(
        kitti: &'a Kitti,
        indices: Vec<usize>,
        rotation_range_deg: f64,
        spec: &ModelSpec,
    ) -> Result<Self, ModelError> {
        Sizes::check(spec)?;
        Ok(Self {
            kitti,
            indices,
            rotation_range_deg,
            pictures: Pictures::default(),
            sizes: Sizes::of(spec),
        })
    }

    /// From three numbers in [-1, 1]: shift along the heading, shift to its left, turn.
    pub(super) fn placement(&self, index: usize, draw: impl FnMut() -> f64) -> Placement {
        placement(self.kitti, index, self.rotation_range_deg, draw)
    }

    pub(super) fn read(
        &self,
        index: usize,
        placement: Placement,
        ground: &mut [u8],
        aerial: &mut [u8],
    ) -> Result<Example, DatasetError> {
        let [frame, patch] = read_images(self.kitti, index, placement, self.sizes, &self.pictures)?;
        write_planes(&frame, 0, self.sizes.columns, ground);
        let side = self.sizes.aerial_px;
        write_planes(&patch, 0, side, aerial);
        let heatmap = self.sizes.heatmap;
        let place = |offset: f64| heatmap.side as f64 / 2.0 - offset / heatmap.cell_px;
        let camera = placement.centre_from_camera_px().map(place);
        let [column, row] = if self.sizes.calibrated {
            camera
        } else {
            let offset = placement.published_offset_px();
            offset.map(|offset| published_cell(-offset, side, heatmap.side))
        };
        Ok(Example {
            target: PoseTarget {
                column,
                row,
                residual_rad: placement.heading_deg().to_radians(),
                weight: 1.0,
                map: None,
            },
            left_bin: 0,
            metres_per_cell: METRES_PER_PIXEL * heatmap.cell_px,
            projection: projection(self.kitti, index, placement, self.sizes)?,
            camera_cell: camera,
            augment: [Augment::default(); 2],
        })
    }
}

/// A listed frame lies as its list says (the list's shifts point the other way); others as drawn.
fn placement(
    kitti: &Kitti,
    index: usize,
    rotation_range_deg: f64,
    mut draw: impl FnMut() -> f64,
) -> Placement {
    let [forward, left, turn] = match kitti.rows[index].listed {
        Some(listed) => [-listed.shift_x, -listed.shift_y, listed.theta],
        None => [draw(), draw(), draw()],
    };
    Placement {
        forward,
        left,
        turn,
        turn_deg: turn * rotation_range_deg,
    }
}

/// The camera matrix of a frame's day and the turn of its patch as a share of the range, for
/// networks that want them.
fn projection(
    kitti: &Kitti,
    index: usize,
    placement: Placement,
    sizes: Sizes,
) -> Result<GroundProjection, DatasetError> {
    let row = &kitti.rows[index];
    let camera = match kitti.cameras.get(&row.name.day) {
        Some(camera) => {
            let camera = camera.scaled(sizes.columns, sizes.rows);
            let ([fx, fy], [cx, cy]) = (camera.focal_px, camera.centre_px);
            [fx, fy, cx, cy]
        }
        None if !sizes.calibrated => [0.0; 4],
        None => {
            return Err(DatasetError::Pair {
                id: row.name.id(),
                what: format!(
                    "raw_data/{}/calib_cam_to_cam.txt is missing, and this network needs the camera matrix; unpack the day's calibration",
                    row.name.day
                ),
            });
        }
    };
    Ok(GroundProjection::Pinhole {
        camera,
        heading: Some(placement.turn as f32),
    })
}

fn read_images(
    kitti: &Kitti,
    index: usize,
    placement: Placement,
    sizes: Sizes,
    pictures: &Pictures,
) -> Result<[RgbImage; 2], DatasetError> {
    let row = &kitti.rows[index];
    let wrong = |what: String| DatasetError::Pair {
        id: row.name.id(),
        what,
    };
    let size = [sizes.columns, sizes.rows];
    let frame = pictures.read(&kitti.frame_path(index), Some(size));
    let map = pictures.read(&kitti.map_path(index), None).map_err(wrong)?;
    Ok([
        frame.map_err(wrong)?,
        placement.cut(&map, row.yaw_rad, sizes.aerial_px),
    ])
}

impl Examples for KittiSamples<'_> {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn draw<'a>(&'a self, index: usize, rng: &mut ChaCha8Rng) -> ReadExample<'a> {
        let index = self.indices[index];
        let placement = self.placement(index, || rng.random_range(-1.0..=1.0));
        Box::new(move |ground, aerial| self.read(index, placement, ground, aerial))
    }

    fn identity(&self) -> Vec<(String, [f64; 4])> {
        let name = |index: &usize| {
            let row = &self.kitti.rows[*index];
            let listed = row.listed.map_or([0.0; 2], |l| [l.shift_x, l.shift_y]);
            (
                row.name.id(),
                [listed[0], listed[1], self.rotation_range_deg, 1.0],
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

/// Frames of a test list and the patches they lie in, without the cameras' places: what adaptation
/// may know. The heading, which a vehicle measures, is known.
pub struct KittiImages {
    kitti: Kitti,
    samples: Vec<Sample>,
    /// Row and patch of each sample.
    places: Vec<(usize, Placement)>,
    /// Reads the pictures.
    pub pictures: Pictures,
    sizes: Sizes,
}

impl KittiImages {
    /// These frames of a test list. Its shifts cut the patches and are given to nobody.
    ///
    /// # Errors
    /// As [`Kitti::open`]; a training list has no fixed patches and is refused, and so is a frame
    /// without the camera matrix that the network needs.
    pub fn open(
        folder: &KittiFolder,
        split: KittiSplit,
        choose: impl FnOnce(usize) -> Vec<usize>,
        rotation_range_deg: f64,
        spec: &ModelSpec,
    ) -> Result<Self, Problems> {
        let mut problems = Problems::of(folder.root.display());
        if split == KittiSplit::Train {
            problems.push("a training list has no fixed patches; adapt on test1 or test2");
        }
        if let Err(error) = Sizes::check(spec) {
            problems.push(error.to_string());
        }
        problems.or(())?;
        let kitti = Kitti::open(folder, split)?;
        let sizes = Sizes::of(spec);
        let (mut samples, mut places) = (Vec::new(), Vec::new());
        let mut problems = Problems::of(folder.root.display());
        for row in choose(kitti.rows.len()) {
            let placement = placement(&kitti, row, rotation_range_deg, || 0.0);
            match projection(&kitti, row, placement, sizes) {
                Ok(projection) => samples.push(sample(&kitti, row, placement, projection)),
                Err(error) => problems.push(error.to_string()),
            }
            places.push((row, placement));
        }
        problems.or(Self {
            kitti,
            samples,
            places,
            pictures: Pictures::default(),
            sizes,
        })
    }
}

/// Nanoseconds between frames.
const FRAME_NS: i64 = 100_000_000;

fn sample(
    kitti: &Kitti,
    index: usize,
    placement: Placement,
    projection: GroundProjection,
) -> Sample {
    let name = &kitti.rows[index].name;
    Sample {
        drive: format!("{}/{}", name.day, name.drive),
        time_ns: name
            .frame
            .parse::<i64>()
            .unwrap_or(0)
            .saturating_mul(FRAME_NS),
        heading_residual_rad: placement.heading_deg().to_radians(),
        ..Sample::unplaced(name.id(), projection)
    }
}

impl Dataset for KittiImages {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn sample(&self, index: usize) -> &Sample {
        &self.samples[index]
    }

    fn pair(&self, index: usize) -> Result<Arc<Pair>, DatasetError> {
        let (row, placement) = self.places[index];
        let [ground, aerial] =
            read_images(&self.kitti, row, placement, self.sizes, &self.pictures)?;
        Ok(Arc::new(Pair {
            sample: self.samples[index].clone(),
            ground,
            aerial,
        }))
    }
}
