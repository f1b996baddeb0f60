//! What a training step or a measurement reads: images with the pose that they show.
//!
//! [`Examples`] are drawn anew each time (a transform, a turn), which is cheap, and then read, which is
//! not. [`Labelled`] makes them of any [`Dataset`] and labels for its samples.

use super::augment::{Augmentation, Transform};
use super::error::DatasetError;
use super::sample::{Dataset, Pair};
use crate::model::loss::PoseTarget;
use crate::model::{GroundProjection, ModelError, ModelSpec};
use crate::run::sha256_json;
use crossfix_kernels::ops::Augment;
use rand_chacha::ChaCha8Rng;

/// What an example shows, known once it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// The label, as the loss takes it.
    pub target: PoseTarget,
    /// Bin of the ground image's left edge, for networks that see part of the circle.
    pub left_bin: usize,
    /// Metres that one heatmap cell covers.
    pub metres_per_cell: f64,
    /// How the ground image was taken, for networks that lay it on the ground.
    pub projection: GroundProjection,
    /// The camera's heatmap (column, row), cell centres at +0.5, before any rounding of labels.
    pub camera_cell: [f64; 2],
    /// What is still to be done to the ground image and to the aerial one, where the network runs.
    pub augment: [Augment; 2],
}

/// Reads a drawn example: writes the ground image `[3, rows, columns]` and the aerial image
/// `[3, side, side]`.
pub type ReadExample<'a> =
    Box<dyn FnOnce(&mut [u8], &mut [u8]) -> Result<Example, DatasetError> + Send + 'a>;

/// Images with labels, for training and measuring.
pub trait Examples: Sync {
    /// Examples.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Examples that each epoch visits, the first of all; those after the last visit as many as it.
    fn epochs(&self) -> Vec<usize> {
        vec![self.len()]
    }

    /// Draws how example `index` is transformed this time. Cheap: images are read by what it returns.
    fn draw<'a>(&'a self, index: usize, rng: &mut ChaCha8Rng) -> ReadExample<'a>;

    /// What fixes the examples, for the fingerprint of a run: each one's name and label.
    fn identity(&self) -> Vec<(String, [f64; 4])>;

    /// Says whether the examples fit a network.
    ///
    /// # Errors
    /// [`ModelError::Input`] naming what does not.
    fn check(&self, spec: &ModelSpec) -> Result<(), ModelError>;
}

/// Samples of a dataset with labels from elsewhere, each time transformed at random.
pub struct Labelled<'a> {
    /// Where the images are.
    pub dataset: &'a dyn Dataset,
    /// Samples chosen, and their labels.
    pub labels: &'a [(usize, PoseTarget)],
    /// Of the labels, the first so many are visited in each epoch, and in later ones as many as in the last; empty
    /// for all of them.
    pub epochs: &'a [usize],
    /// The transforms drawn.
    pub augmentation: &'a Augmentation,
    /// The network.
    pub spec: &'a ModelSpec,
}

impl Examples for Labelled<'_> {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn epochs(&self) -> Vec<usize> {
        match self.epochs {
            [] => vec![self.len()],
            epochs => epochs.to_vec(),
        }
    }

    fn draw<'a>(&'a self, index: usize, rng: &mut ChaCha8Rng) -> ReadExample<'a> {
        let (index, target) = self.labels[index].clone();
        let spec = self.spec;
        let draws = self.augmentation.draw(rng);
        Box::new(move |ground, aerial| {
            let pair = self.dataset.pair(index)?;
            pair.check(spec).map_err(|error| DatasetError::Pair {
                id: pair.sample.id.clone(),
                what: error.to_string(),
            })?;
            let side = pair.aerial.width;
            let transform = Transform::new(&draws, self.augmentation, spec, side, &target);
            Ok(write(&pair, &target, &transform, spec, ground, aerial))
        })
    }

    fn identity(&self) -> Vec<(String, [f64; 4])> {
        let label = |(index, target): &(usize, PoseTarget)| {
            let PoseTarget {
                column,
                row,
                residual_rad,
                weight,
                ref map,
            } = *target;
            let mut id = self.dataset.sample(*index).id.clone();
            if let Some(map) = map {
                id += &format!(" map {}", sha256_json(&map.as_ref()));
            }
            (id, [column, row, residual_rad, weight])
        };
        let epochs =
            (!self.epochs.is_empty()).then(|| (format!("epochs {:?}", self.epochs), [0.0; 4]));
        self.labels.iter().map(label).chain(epochs).collect()
    }

    fn check(&self, _: &ModelSpec) -> Result<(), ModelError> {
        Ok(()) // Each pair is checked when it is read.
    }
}

fn write(
    pair: &Pair,
    target: &PoseTarget,
    transform: &Transform,
    spec: &ModelSpec,
    ground: &mut [u8],
    aerial: &mut [u8],
) -> Example {
    transform.ground(&pair.ground, ground);
    transform.aerial(&pair.aerial, spec, aerial);
    let target = transform.pose(target, spec);
    Example {
        left_bin: transform.left_bin(pair.sample.left_bin, spec),
        metres_per_cell: spec.metres_per_cell(),
        projection: spec.label_projection(pair.sample.projection, target.residual_rad),
        camera_cell: [target.column, target.row],
        target,
        augment: transform.augment(spec),
    }
}
