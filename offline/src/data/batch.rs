//! Batches: many examples or pairs as one input of a network, made ahead of who needs them.

use super::augment::Transform;
use super::error::DatasetError;
use super::examples::{Example, ReadExample};
use super::loader::{Ahead, Workers, ahead};
use super::sample::Pair;
use crate::model::{Input, ModelError, ModelSpec};
use crate::run::Interrupt;
use crossfix_kernels::ops::Augment;
use crossfix_kernels::{Pixels, Tensor};
use std::borrow::Borrow;
use std::ops::Range;

/// A network's input and what it shows.
#[derive(Debug)]
pub struct Batch {
    /// The images.
    pub input: Input,
    /// What each example shows.
    pub examples: Vec<Example>,
}

/// Why a batch cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// An example cannot be read.
    #[error(transparent)]
    Data(#[from] DatasetError),
    /// The images are not as many bytes as the network's.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// Makes batches ahead of `consume`, in order; `draw` draws the examples of a batch by its number.
/// When `interrupt` was asked for, batches end early.
pub fn batches_ahead<'a, R>(
    numbers: Range<u64>,
    workers: Workers,
    interrupt: &Interrupt,
    spec: &ModelSpec,
    draw: impl Fn(u64) -> Vec<ReadExample<'a>> + Sync,
    consume: impl FnOnce(&mut Ahead<Result<Batch, BatchError>>) -> R,
) -> R {
    let make = |number| read_batch(draw(number), spec);
    ahead(numbers, workers, interrupt, make, consume)
}

/// Reads drawn examples into one batch, one after the other.
///
/// # Errors
/// The first example's that cannot be read.
pub fn read_batch(drawn: Vec<ReadExample>, spec: &ModelSpec) -> Result<Batch, BatchError> {
    let count = drawn.len();
    let mut planes = Planes::new(count, spec);
    let examples = planes
        .each()
        .zip(drawn)
        .map(|([ground, aerial], read)| read(ground, aerial))
        .collect::<Result<Vec<Example>, _>>()?;
    let augment = [0, 1].map(|image| {
        let augment = examples.iter().map(|example| example.augment[image]);
        Augment::tensor(&augment.collect::<Vec<Augment>>())
    });
    let input = planes.input(
        examples.iter().map(|example| example.left_bin),
        Some(augment),
    )?;
    let input = Input {
        projections: examples.iter().map(|example| example.projection).collect(),
        ..input
    };
    Ok(Batch { input, examples })
}

/// Pairs as they are, for inference.
///
/// # Errors
/// [`ModelError::Input`] when an image has another size than the network's.
pub fn plain_batch<P: Borrow<Pair>>(pairs: &[P], spec: &ModelSpec) -> Result<Input, ModelError> {
    for pair in pairs {
        pair.borrow().check(spec)?;
    }
    let plain = Transform::default();
    let mut planes = Planes::new(pairs.len(), spec);
    for ([ground, aerial], pair) in planes.each().zip(pairs) {
        plain.ground(&pair.borrow().ground, ground);
        plain.aerial(&pair.borrow().aerial, spec, aerial);
    }
    let samples = pairs.iter().map(|pair| &pair.borrow().sample);
    let input = planes.input(samples.clone().map(|sample| sample.left_bin), None)?;
    Ok(Input {
        projections: samples
            .map(|sample| spec.evaluation_projection(sample.projection))
            .collect(),
        ..input
    })
}

/// Pairs, each in a view of its own, for inference.
///
/// # Errors
/// As [`plain_batch`].
pub(crate) fn batch_in_views<P: Borrow<Pair>>(
    pairs: &[(P, Transform)],
    spec: &ModelSpec,
) -> Result<Input, ModelError> {
    let mut planes = Planes::new(pairs.len(), spec);
    for ([ground, aerial], (pair, view)) in planes.each().zip(pairs) {
        let pair = pair.borrow();
        pair.check(spec)?;
        view.ground(&pair.ground, ground);
        view.aerial(&pair.aerial, spec, aerial);
    }
    let augment = [0, 1].map(|image| {
        let augment = pairs.iter().map(|(_, view)| view.augment(spec)[image]);
        Augment::tensor(&augment.collect::<Vec<Augment>>())
    });
    let samples = pairs
        .iter()
        .map(|(pair, view)| (&pair.borrow().sample, view));
    let left_bins = samples
        .clone()
        .map(|(sample, view)| view.left_bin(sample.left_bin, spec));
    let input = planes.input(left_bins, Some(augment))?;
    Ok(Input {
        projections: samples
            .map(|(sample, _)| spec.evaluation_projection(sample.projection))
            .collect(),
        ..input
    })
}

/// The bytes of a batch's images in the making.
struct Planes<'a> {
    spec: &'a ModelSpec,
    count: usize,
    ground: Vec<u8>,
    aerial: Vec<u8>,
}

impl<'a> Planes<'a> {
    fn new(count: usize, spec: &'a ModelSpec) -> Self {
        Self {
            spec,
            count,
            ground: vec![0; count * 3 * spec.ground_rows * spec.ground_columns],
            aerial: vec![0; count * 3 * spec.aerial_px * spec.aerial_px],
        }
    }

    /// Ground `[3, rows, columns]` and aerial `[3, side, side]` of each sample.
    fn each(&mut self) -> impl Iterator<Item = [&mut [u8]; 2]> {
        let length = |all: usize| (all / self.count.max(1)).max(1);
        let (ground, aerial) = (length(self.ground.len()), length(self.aerial.len()));
        let aerial = self.aerial.chunks_exact_mut(aerial);
        let both = self.ground.chunks_exact_mut(ground).zip(aerial);
        both.map(|(ground, aerial)| [ground, aerial])
    }

    fn input(
        self,
        left_bins: impl Iterator<Item = usize>,
        augment: Option<[Tensor; 2]>,
    ) -> Result<Input, ModelError> {
        let (spec, n) = (self.spec, self.count);
        let ground = [n, 3, spec.ground_rows, spec.ground_columns];
        Ok(Input {
            ground: Pixels::new(self.ground, ground)?,
            aerial: Pixels::new(self.aerial, [n, 3, spec.aerial_px, spec.aerial_px])?,
            augment,
            ground_left_bin: if spec.ground_left_bin() {
                left_bins.collect()
            } else {
                Vec::new()
            },
            projections: Vec::new(),
        })
    }
}
