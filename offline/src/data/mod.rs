//! Pairs of ground and aerial images, and how they become batches.
//!
//! [`Pair`] carries no truth. True positions are in [`Truth`], read by another function from
//! another file; adaptation is never given one.
//!
//! The published datasets are [`vigor`] and [`kitti`]; [`samples`] is how training and measuring
//! read either, [`ahead`] how that is done before it is needed.

pub mod ahead;
pub mod augment;
pub mod cache;
#[cfg(test)]
mod golden;
pub mod kitti;
pub mod loader;
pub mod npy;
pub mod numpy;
pub mod pairs;
pub mod picture;
pub mod planes;
pub mod pose;
pub mod problems;
pub mod resample;
pub mod samples;
mod text;
pub mod vigor;
pub mod write;

pub use augment::{Augmentation, View};
pub use cache::Pictures;
pub use loader::{Preparation, prepare};
pub use pairs::{DatasetError, PairsDataset, Truth};
pub use pose::{TruePose, true_pose};
pub use problems::Problems;
pub use samples::{Labelled, PairSource, Samples, Seen, Shown};

use crate::loss::PoseTarget;
use crate::model::{GroundView, Input, ModelError, ModelSpec};
use crossfix_calibration::{Geodetic, RgbImage};
use crossfix_kernels::Pixels;
use rayon::prelude::*;

/// A ground image and its aerial image, ready for a network.
#[derive(Debug, Clone)]
pub struct Pair {
    /// Unique in its dataset.
    pub id: String,
    /// The drive it was recorded on.
    pub drive: String,
    /// When, nanoseconds UTC.
    pub time_ns: i64,
    /// North-aligned strip of the camera picture.
    pub ground: RgbImage,
    /// Bin of the strip's left edge, for networks that see part of the circle.
    pub left_bin: usize,
    /// Aerial image, north up; may be larger than the network's, for cutting elsewhere.
    pub aerial: RgbImage,
    /// Centre of the aerial image.
    pub centre: Geodetic,
    /// The coarse position, metres east and north of `centre`.
    pub coarse_offset_m: [f64; 2],
    /// Covariance of the coarse position, east and north.
    pub coarse_covariance_m2: [[f64; 2]; 2],
    /// Yaw that the strip was aligned with, radians counter-clockwise from east.
    pub yaw_rad: f64,
    /// How the ground image was taken, for networks that lay it on the ground.
    pub view: GroundView,
}

/// A pair and where its label says the camera is.
#[derive(Debug, Clone, Copy)]
pub struct Example<'a> {
    /// The images.
    pub pair: &'a Pair,
    /// The label: truth, or pseudo ground truth.
    pub target: PoseTarget,
}

/// Pairs as they are, for inference.
///
/// # Errors
/// [`ModelError::Input`] when an image has another size than the network's.
pub fn plain_batch(pairs: &[&Pair], spec: &ModelSpec) -> Result<Input, ModelError> {
    for pair in pairs {
        check_size(pair, spec)?;
    }
    let n = pairs.len();
    let ground_len = 3 * spec.ground_rows * spec.ground_columns;
    let aerial_len = 3 * spec.aerial_px * spec.aerial_px;
    let mut ground = vec![0; n * ground_len];
    let mut aerial = vec![0; n * aerial_len];
    let plain = View::default();
    ground
        .par_chunks_mut(ground_len)
        .zip(aerial.par_chunks_mut(aerial_len))
        .zip(pairs)
        .for_each(|((ground, aerial), pair)| {
            plain.ground(&pair.ground, ground);
            plain.aerial(&pair.aerial, spec, aerial);
        });
    let left_bins = pairs.iter().map(|pair| plain.left_bin(pair.left_bin, spec));
    Ok(Input {
        ground: Pixels::new(ground, [n, 3, spec.ground_rows, spec.ground_columns])?,
        aerial: Pixels::new(aerial, [n, 3, spec.aerial_px, spec.aerial_px])?,
        augment: None,
        ground_left_bin: if spec.ground_left_bin() {
            left_bins.collect()
        } else {
            Vec::new()
        },
        views: pairs
            .iter()
            .map(|pair| spec.measured_view(pair.view))
            .collect(),
    })
}

fn check_size(pair: &Pair, spec: &ModelSpec) -> Result<(), ModelError> {
    let (ground, aerial) = (&pair.ground, &pair.aerial);
    let fits = ground.width == spec.ground_columns
        && ground.height == spec.ground_rows
        && ground.data.len() == ground.width * ground.height * 3
        && aerial.width == aerial.height
        && aerial.width >= spec.aerial_px
        && (aerial.width - spec.aerial_px).is_multiple_of(2)
        && aerial.data.len() == aerial.width * aerial.height * 3;
    if fits {
        return Ok(());
    }
    Err(ModelError::Input(format!(
        "pair {}: ground {}×{} and aerial {}×{} do not fit {:?} ({}×{}, at least {side}×{side})",
        pair.id,
        ground.width,
        ground.height,
        aerial.width,
        aerial.height,
        spec.preset,
        spec.ground_columns,
        spec.ground_rows,
        side = spec.aerial_px,
    )))
}
