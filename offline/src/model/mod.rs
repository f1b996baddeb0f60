//! Networks that match a ground image with an aerial one.
//!
//! [`CrossViewModel`] is what training, adaptation and evaluation know; [`Ccvpe`] and [`Ggcvt`] are
//! the networks behind it. Begin with [`description`]; for CCVPE with [`spec`] and [`presets`],
//! then [`ccvpe`]; for GGCVT with [`ggcvt`].

pub mod ccvpe;
pub mod description;
pub mod descriptors;
pub mod ggcvt;
pub(crate) mod layers;
pub mod loss;
pub mod parameters;
pub mod presets;
mod recordable;
pub mod spec;
pub(crate) mod vgg;
pub mod weights;

pub use ccvpe::{Ccvpe, NormalisedInput};
pub use description::{
    GroundCamera, LevelMap, MapSpec, ModelSpec, NetworkKind, NetworkSpec, named, names,
};
pub use descriptors::ViewDescriptors;
pub use ggcvt::{Ggcvt, GgcvtSpec, GroundProjection};
pub use layers::Watch;
pub use parameters::Parameters;
pub use presets::{PRESETS, preset};
pub(crate) use recordable::{LossComponents, PassInputs, Prepared, Recordable};
pub use spec::CcvpeSpec;

use crate::model::loss::{Loss, LossConfig, PoseTarget};
use crossfix_kernels::ops::{self, Augmented, BatchNormMode, Normalisation};
use crossfix_kernels::{Device, Pixels, Tape, Tensor};
use rand_chacha::ChaCha8Rng;
use std::any::Any;

/// Mean of RGB in [0, 1] that inputs are normalised with (`ImageNet`).
pub const PIXEL_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// Standard deviation of RGB in [0, 1] that inputs are normalised with (`ImageNet`).
pub const PIXEL_SIGMA: [f32; 3] = [0.229, 0.224, 0.225];

/// Why a network cannot be built, loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The table does not describe a network.
    #[error("the network table cannot be built: {0}")]
    Spec(String),
    /// A weights file is damaged, or belongs to another network.
    #[error("{path}: {what}")]
    Weights {
        /// The file.
        path: String,
        /// What is wrong and what to do.
        what: String,
    },
    /// The images don't fit the network.
    #[error("{0}")]
    Input(String),
    /// An operation refused its input.
    #[error(transparent)]
    Kernel(#[from] crossfix_kernels::Error),
}

/// A batch of image pairs in 8 bits.
#[derive(Debug, Clone)]
pub struct Input {
    /// `[N, 3, rows, columns]`.
    pub ground: Pixels,
    /// `[N, 3, side, side]`, north up.
    pub aerial: Pixels,
    /// How the ground images and the aerial ones are changed before they are normalised, `[N, 6]`
    /// each, as [`ops::Augment::tensor`] makes them; `None` for images as they are.
    pub augment: Option<[Tensor; 2]>,
    /// For networks that see part of the circle: the bin, clockwise from the one that begins at
    /// south (azimuth -180°), on which each ground image's left edge lies. Empty otherwise.
    pub ground_left_bin: Vec<usize>,
    /// For networks that lay the ground image on the ground: how each was taken. Others read none.
    pub projections: Vec<GroundProjection>,
}

impl Input {
    /// Samples in the batch.
    pub fn len(&self) -> usize {
        self.ground.shape()[0]
    }

    /// Whether the batch is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn check(&self, spec: &CcvpeSpec) -> Result<(), ModelError> {
        let ground = [self.len(), 3, spec.ground_rows, spec.ground_columns];
        let aerial = [self.len(), 3, spec.aerial_px, spec.aerial_px];
        self.ground
            .expect_shape("forward", "ground images", ground)?;
        self.aerial
            .expect_shape("forward", "aerial images", aerial)?;
        check_left_bins(spec, &self.ground_left_bin, self.len())
    }

    /// Ground and aerial images as a network reads them, on `device`; `wraps` as in [`normalise`].
    fn normalised(
        &self,
        device: &Device,
        how: &Normalisation,
        wraps: bool,
    ) -> Result<[Tensor; 2], crossfix_kernels::Error> {
        let images = [self.ground.to(device)?, self.aerial.to(device)?];
        let augment = match &self.augment {
            None => None,
            Some([ground, aerial]) => Some([ground.to(device)?, aerial.to(device)?]),
        };
        normalise(&images, augment.as_ref(), how, wraps)
    }
}

fn check_left_bins(spec: &CcvpeSpec, bins: &[usize], samples: usize) -> Result<(), ModelError> {
    let needed = if spec.ground_left_bin { samples } else { 0 };
    if bins.len() == needed {
        return Ok(());
    }
    Err(ModelError::Input(format!(
        "{}: {} left bins for {samples} samples, {needed} needed",
        spec.preset,
        bins.len(),
    )))
}

/// How much of the network runs. What later parts alone need is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// The score stacks of this many coarsest levels.
    Levels(usize),
    /// All levels and the heatmap.
    Location,
    /// All levels, the heatmap and the orientation field.
    Everything,
}

/// Which samples of a batch a pass has when other processes have the rest: how many lie before its own
/// and how many behind. What is drawn for a sample does not depend on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// Samples of processes before this one.
    pub before: usize,
    /// Samples of processes behind this one.
    pub behind: usize,
}

impl Share {
    /// Draws for every sample of the batch; returns what was drawn for the `samples` of this share.
    pub(crate) fn draw<T>(self, samples: usize, mut draw: impl FnMut() -> T) -> Vec<T> {
        let all = (0..self.before + samples + self.behind).map(|_| draw());
        let mut all: Vec<T> = all.collect();
        all.truncate(self.before + samples);
        all.split_off(self.before)
    }
}

/// How a forward pass runs.
pub struct ForwardOptions<'a> {
    /// Batch statistics, or the running ones.
    pub batch_norm: BatchNormMode,
    /// Draws for stochastic depth, in training of networks that have it.
    pub drop_connect: Option<&'a mut ChaCha8Rng>,
    /// Which samples of the batch these are.
    pub share: Share,
    /// How much runs.
    pub extent: Extent,
}

impl ForwardOptions<'_> {
    /// Running statistics, no stochastic depth.
    pub fn evaluation(extent: Extent) -> Self {
        Self {
            batch_norm: BatchNormMode::Frozen,
            drop_connect: None,
            share: Share::default(),
            extent,
        }
    }
}

/// A network's outputs for a batch.
#[derive(Debug, Clone)]
pub struct Prediction {
    /// Score stacks `[N, channels, side, side]`, coarsest first, higher is better; what they cover
    /// is in [`ModelSpec::levels`].
    pub levels: Vec<Tensor>,
    /// Heatmap logits `[N, side * side]`, row-major, row 0 north.
    pub logits: Option<Tensor>,
    /// Unit vectors `[N, 2, side, side]`: cosine and sine of the yaw residual, true yaw minus the
    /// yaw the ground image was aligned with, counter-clockwise positive.
    pub orientation: Option<Tensor>,
    /// The vectors `[N, 2, side, side]` that the orientation is the direction of, where a network has
    /// them: one that is all but zero points anywhere.
    pub orientation_vectors: Option<Tensor>,
    /// Normalised poses `[N, 3]` after each step of a pose optimiser, in networks that have one.
    pub poses: Vec<Tensor>,
}

impl Prediction {
    /// The same on the host, to be read.
    ///
    /// # Errors
    /// [`ModelError::Kernel`] when the device failed.
    pub fn to_host(&self) -> Result<Self, ModelError> {
        let host = |tensor: &Tensor| tensor.to(&Device::Cpu);
        Ok(Self {
            levels: self.levels.iter().map(host).collect::<Result<_, _>>()?,
            logits: self.logits.as_ref().map(host).transpose()?,
            orientation: self.orientation.as_ref().map(host).transpose()?,
            orientation_vectors: self.orientation_vectors.as_ref().map(host).transpose()?,
            poses: self.poses.iter().map(host).collect::<Result<_, _>>()?,
        })
    }

    /// Heatmaps `[N, side * side]`: softmax of the logits.
    ///
    /// # Errors
    /// [`ModelError::Input`] when the pass stopped before the logits.
    pub fn heatmaps(&self) -> Result<Tensor, ModelError> {
        let logits = self
            .logits
            .as_ref()
            .ok_or_else(|| ModelError::Input("the pass ended before the heatmap".into()))?;
        Ok(ops::softmax(&mut Tape::inference(), logits)?)
    }
}

/// A network that matches ground and aerial images, as training and adaptation see it.
pub trait CrossViewModel: Send + Any {
    /// What it is to those outside.
    fn describe(&self) -> &ModelSpec;

    /// Its whole table.
    fn table(&self) -> NetworkSpec;

    /// Its numbers.
    fn parameters(&self) -> &Parameters;

    /// Its numbers, to change.
    fn parameters_mut(&mut self) -> &mut Parameters;

    /// Runs a batch.
    ///
    /// # Errors
    /// [`ModelError::Input`] or [`ModelError::Kernel`] when the images don't fit.
    fn forward(
        &mut self,
        tape: &mut Tape,
        input: &Input,
        options: ForwardOptions,
    ) -> Result<Prediction, ModelError>;

    /// The loss of a prediction for a batch whose poses are `targets`.
    ///
    /// # Errors
    /// [`ModelError`] when the prediction lacks a part that `config` weighs, or shapes disagree.
    fn loss(
        &self,
        tape: &mut Tape,
        prediction: &Prediction,
        targets: &[PoseTarget],
        config: &LossConfig,
    ) -> Result<Loss, ModelError>;

    /// A copy with its own numbers.
    fn boxed_clone(&self) -> Box<dyn CrossViewModel>;

    /// What the network compares first, at a place of each pair in metres east and north of the aerial image's
    /// middle: for pictures of how well the two views agree. `None` for networks that have no such descriptors.
    ///
    /// # Errors
    /// [`ModelError::Input`] or [`ModelError::Kernel`] when the images don't fit.
    fn view_descriptors(
        &mut self,
        _input: &Input,
        _places_m: &[[f64; 2]],
    ) -> Result<Option<Vec<ViewDescriptors>>, ModelError> {
        Ok(None)
    }

    /// A copy that searches `bins` orientation bins on each side of the given heading, of networks whose numbers do
    /// not depend on how far they search.
    fn searching_near(&self, _bins: usize) -> Option<Box<dyn CrossViewModel>> {
        None
    }

    /// The same network for steps that are recorded on a device, where it can do that.
    #[doc(hidden)]
    #[expect(private_interfaces, reason = "for the training loop alone")]
    fn recordable(&mut self) -> Option<&mut dyn Recordable> {
        None
    }
}

/// What the encoders' first layers expect.
const NORMALISATION: Normalisation = Normalisation {
    mean: PIXEL_MEAN,
    sigma: PIXEL_SIGMA,
    bf16: false,
};

/// Ground and aerial images, augmented and normalised where they lie. `wraps` says that a ground
/// image goes round the whole circle: what is rolled out of it on one side comes in on the other.
fn normalise(
    [ground, aerial]: &[Pixels; 2],
    augment: Option<&[Tensor; 2]>,
    how: &Normalisation,
    wraps: bool,
) -> Result<[Tensor; 2], crossfix_kernels::Error> {
    let augmented = |index: usize| {
        augment.map(|samples| Augmented {
            samples: &samples[index],
            wraps,
        })
    };
    Ok([
        ops::normalise_images(ground, how, augmented(0))?,
        ops::normalise_images(aerial, how, augmented(1))?,
    ])
}

/// Scale and offset that normalise channel `channel` of 0..255 pixels.
pub fn pixel_affine(channel: usize) -> (f32, f32) {
    NORMALISATION.affine(channel % 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_draw_what_the_whole_batch_draws() {
        let drawn = |before, samples, behind| {
            let mut next = 0;
            Share { before, behind }.draw(samples, || {
                next += 1;
                next
            })
        };
        assert_eq!(drawn(0, 6, 0), [1, 2, 3, 4, 5, 6]);
        assert_eq!(drawn(0, 2, 4), [1, 2]);
        assert_eq!(drawn(2, 2, 2), [3, 4]);
        assert_eq!(drawn(4, 2, 0), [5, 6]);
    }
}
