//! Samples that are read when they are needed, and the batches made of them ahead of training.
//!
//! [`PairSource`] gives pairs without truth, from memory or from disk; [`Samples`] gives what a
//! training step or a measurement sees: images and the pose that they show.

use super::ahead::{Ahead, Workers, ahead};
use super::{DatasetError, Example, Pair, View, augment::Augmentation, check_size};
use crate::loss::PoseTarget;
use crate::model::{GroundView, Input, ModelError, ModelSpec};
use crossfix_kernels::Pixels;
use crossfix_kernels::ops::Augment;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::ops::Range;

/// Pairs without truth, each read when it is asked for.
pub trait PairSource: Sync {
    /// Pairs.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pair's name.
    fn id(&self, index: usize) -> String;

    /// The pair, its images decoded.
    ///
    /// # Errors
    /// [`DatasetError`] naming the pair and the fix.
    fn pair(&self, index: usize) -> Result<Cow<'_, Pair>, DatasetError>;

    /// The angle that the ground image shows when the heading that came with it is right, in
    /// the network's convention ([`PoseTarget::residual_rad`]).
    fn given_residual_rad(&self, _index: usize) -> f64 {
        0.0
    }
}

impl PairSource for Vec<Pair> {
    fn len(&self) -> usize {
        self.as_slice().len()
    }

    fn id(&self, index: usize) -> String {
        self[index].id.clone()
    }

    fn pair(&self, index: usize) -> Result<Cow<'_, Pair>, DatasetError> {
        Ok(Cow::Borrowed(&self[index]))
    }
}

/// What a sample shows, known once it was drawn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Shown {
    /// The pose, as the loss takes it.
    pub target: PoseTarget,
    /// Bin of the ground image's left edge, for networks that see part of the circle.
    pub left_bin: usize,
    /// Metres that one heatmap cell covers.
    pub metres_per_cell: f64,
    /// How the ground image was taken, for networks that lay it on the ground.
    pub view: GroundView,
    /// The camera, heatmap (column, row), cell centres at +0.5, before any rounding of labels.
    pub camera: [f64; 2],
}

/// A sample that was read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen {
    /// What it shows, its images changed as below.
    pub shown: Shown,
    /// What is still to be done to the ground image and to the aerial one, where the network runs.
    pub augment: [Augment; 2],
}

/// Reads a drawn sample: writes the ground image `[3, rows, columns]` and the aerial image
/// `[3, side, side]`.
pub type Job<'a> = Box<dyn FnOnce(&mut [u8], &mut [u8]) -> Result<Seen, DatasetError> + Send + 'a>;

/// What training and measuring see.
pub trait Samples: Sync {
    /// Samples.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Draws how sample `index` is seen this time. Cheap: the reading is in the job.
    fn draw<'a>(&'a self, index: usize, rng: &mut ChaCha8Rng) -> Job<'a>;

    /// What fixes the samples, for the fingerprint of a run: each one's name and label.
    fn identity(&self) -> Vec<(String, [f64; 3])>;

    /// Says whether the samples fit a network.
    ///
    /// # Errors
    /// [`ModelError::Input`] naming what does not.
    fn check(&self, spec: &ModelSpec) -> Result<(), ModelError>;
}

/// Examples in memory, seen through random views.
pub struct InMemory<'a> {
    /// The examples.
    pub examples: &'a [Example<'a>],
    /// The views.
    pub augmentation: &'a Augmentation,
    /// The network.
    pub spec: &'a ModelSpec,
}

impl Samples for InMemory<'_> {
    fn len(&self) -> usize {
        self.examples.len()
    }

    fn draw<'a>(&'a self, index: usize, rng: &mut ChaCha8Rng) -> Job<'a> {
        let Example { pair, target } = self.examples[index];
        let spec = self.spec;
        let view = View::draw(rng, self.augmentation, spec, pair.aerial.width, &target);
        Box::new(move |ground, aerial| Ok(see(pair, &target, &view, spec, ground, aerial)))
    }

    fn identity(&self) -> Vec<(String, [f64; 3])> {
        let examples = self.examples.iter();
        examples
            .map(|example| (example.pair.id.clone(), numbers(&example.target)))
            .collect()
    }

    fn check(&self, spec: &ModelSpec) -> Result<(), ModelError> {
        self.examples
            .iter()
            .try_for_each(|example| check_size(example.pair, spec))
    }
}

/// Labels given to pairs of a source, seen through random views. The source's aerial images have
/// the network's size.
pub struct Labelled<'a> {
    /// Where the pairs are.
    pub source: &'a dyn PairSource,
    /// Pairs chosen, and their labels.
    pub labels: &'a [(usize, PoseTarget)],
    /// The views.
    pub augmentation: &'a Augmentation,
    /// The network.
    pub spec: &'a ModelSpec,
}

impl Samples for Labelled<'_> {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn draw<'a>(&'a self, index: usize, rng: &mut ChaCha8Rng) -> Job<'a> {
        let (index, target) = self.labels[index];
        let spec = self.spec;
        let view = View::draw(rng, self.augmentation, spec, spec.aerial_px, &target);
        Box::new(move |ground, aerial| {
            let pair = self.source.pair(index)?;
            check_size(&pair, spec).map_err(|error| DatasetError::Pair {
                id: pair.id.clone(),
                what: error.to_string(),
            })?;
            let mut seen = see(&pair, &target, &view, spec, ground, aerial);
            let residual_rad = seen.shown.target.residual_rad;
            seen.shown.view = spec.taught_view(seen.shown.view, residual_rad);
            Ok(seen)
        })
    }

    fn identity(&self) -> Vec<(String, [f64; 3])> {
        let labels = self.labels.iter();
        labels
            .map(|(index, target)| (self.source.id(*index), numbers(target)))
            .collect()
    }

    fn check(&self, _: &ModelSpec) -> Result<(), ModelError> {
        Ok(()) // Each pair is checked when it is read.
    }
}

fn numbers(target: &PoseTarget) -> [f64; 3] {
    [target.column, target.row, target.residual_rad]
}

fn see(
    pair: &Pair,
    target: &PoseTarget,
    view: &View,
    spec: &ModelSpec,
    ground: &mut [u8],
    aerial: &mut [u8],
) -> Seen {
    view.ground(&pair.ground, ground);
    view.aerial(&pair.aerial, spec, aerial);
    let target = view.pose(target, spec);
    let shown = Shown {
        target,
        left_bin: view.left_bin(pair.left_bin, spec),
        metres_per_cell: spec.metres_per_cell(),
        view: pair.view,
        camera: [target.column, target.row],
    };
    Seen {
        shown,
        augment: view.augment(spec),
    }
}

/// A network's input and what it shows.
#[derive(Debug)]
pub struct Batch {
    /// The images.
    pub input: Input,
    /// What each sample shows.
    pub shown: Vec<Shown>,
}

/// Reads jobs into one batch, one after the other.
///
/// # Errors
/// The first job's that fails.
pub fn read_batch(jobs: Vec<Job>, spec: &ModelSpec) -> Result<Batch, BatchError> {
    let count = jobs.len();
    let ground_len = 3 * spec.ground_rows * spec.ground_columns;
    let aerial_len = 3 * spec.aerial_px * spec.aerial_px;
    let mut ground = vec![0; count * ground_len];
    let mut aerial = vec![0; count * aerial_len];
    let seen: Vec<Seen> = ground
        .chunks_exact_mut(ground_len)
        .zip(aerial.chunks_exact_mut(aerial_len))
        .zip(jobs)
        .map(|((ground, aerial), job)| job(ground, aerial))
        .collect::<Result<_, _>>()?;
    let shown: Vec<Shown> = seen.iter().map(|seen| seen.shown).collect();
    let augment = [0, 1].map(|image| {
        let augment: Vec<Augment> = seen.iter().map(|seen| seen.augment[image]).collect();
        Augment::tensor(&augment)
    });
    let ground_left_bin = if spec.ground_left_bin() {
        shown.iter().map(|shown| shown.left_bin).collect()
    } else {
        Vec::new()
    };
    let pixels = |data, shape| Pixels::new(data, shape).map_err(ModelError::from);
    let input = Input {
        ground: pixels(ground, [count, 3, spec.ground_rows, spec.ground_columns])?,
        aerial: pixels(aerial, [count, 3, spec.aerial_px, spec.aerial_px])?,
        augment: Some(augment),
        ground_left_bin,
        views: shown.iter().map(|shown| shown.view).collect(),
    };
    Ok(Batch { input, shown })
}

/// Why a batch cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// A sample cannot be read.
    #[error(transparent)]
    Data(#[from] DatasetError),
    /// The images are not as many bytes as the network's.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl From<BatchError> for ModelError {
    fn from(error: BatchError) -> Self {
        match error {
            BatchError::Data(error) => ModelError::Input(error.to_string()),
            BatchError::Model(error) => error,
        }
    }
}

/// Makes batches ahead of `consume`, in order; `jobs` draws those of a batch by its number.
pub fn batches_ahead<'a, R>(
    numbers: Range<u64>,
    workers: Workers,
    spec: &ModelSpec,
    jobs: impl Fn(u64) -> Vec<Job<'a>> + Sync,
    consume: impl FnOnce(&mut Ahead<Result<Batch, BatchError>>) -> R,
) -> R {
    ahead(
        numbers,
        workers,
        |number| read_batch(jobs(number), spec),
        consume,
    )
}
