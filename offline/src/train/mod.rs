//! The supervised loop, and what adaptation shares with it.

mod average;
mod checkpoint;
#[cfg(test)]
mod device_tests;
mod fit;
pub mod measure;
#[cfg(feature = "mpi")]
mod mpi;
mod order;
pub mod parallel;
mod recorded;
#[cfg(test)]
pub(crate) mod tests;

pub use checkpoint::Checkpoint;
pub use fit::{Fitted, fit};
pub use parallel::World;

use crate::data::{Augmentation, DatasetError};
use crate::model::ModelError;
use crate::model::loss::LossConfig;
use crossfix_kernels::ops::BatchNormMode;
use crossfix_kernels::optim::{Decay, LearningRate};
use serde::{Deserialize, Serialize};

/// Why a run stopped.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The network or an operation failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A sample cannot be read.
    #[error(transparent)]
    Data(#[from] DatasetError),
    /// A loss or gradient is NaN or infinite.
    #[error(
        "step {step}: {what} is not finite; the last good state is in {checkpoint}; lower learning_rate, or set clip_norm"
    )]
    NotFinite {
        /// The step.
        step: u64,
        /// What was not finite.
        what: String,
        /// Where the state before it is.
        checkpoint: String,
    },
    /// Several processes that cannot train together, or one of them failed.
    #[error("{0}")]
    Parallel(String),
    /// Nothing to learn from, or settings without meaning.
    #[error("{0}")]
    Settings(String),
    /// A file of the run cannot be written.
    #[error("cannot write {path}: {error}; free space or choose another --out, then --resume")]
    Write {
        /// The file.
        path: String,
        /// The operating system's reason.
        error: std::io::Error,
    },
    /// A checkpoint belongs to another run.
    #[error("{path} cannot be resumed: {what}")]
    Resume {
        /// The checkpoint.
        path: String,
        /// What disagrees.
        what: String,
    },
}

/// Everything that fixes a training run but its data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FitConfig {
    /// Samples in a step.
    pub batch: usize,
    /// Passes over the examples; `steps` wins.
    pub epochs: f64,
    /// Steps, if given.
    pub steps: Option<u64>,
    /// Adam's learning rate.
    pub learning_rate: f64,
    /// How it falls.
    pub decay: DecayKind,
    /// Whether Adam forgets its moments where an epoch begins, as GGCVT was published.
    pub fresh_moments: bool,
    /// Steps over which it first rises.
    pub warm_up_steps: u64,
    /// Gradients longer than this are shortened.
    pub clip_norm: Option<f64>,
    /// Batch statistics in training, or the running ones kept as they are.
    pub batch_norm: BatchNormKind,
    /// Weight of a batch in the running statistics.
    pub batch_norm_momentum: f32,
    /// Stochastic depth, in networks that have it.
    pub drop_connect: bool,
    /// The transforms drawn.
    pub augmentation: Augmentation,
    /// The loss.
    pub loss: LossConfig,
    /// Of the weights that come out, the exponential moving average over all steps: this is the decay with each step. 0 is
    /// off, and the last step's weights come out.
    #[serde(skip_serializing_if = "is_off")]
    pub average: f64,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
}

/// Settings that are off are not written: files and hashes stay as before there were such settings.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_off(value: &f64) -> bool {
    value.to_bits() == 0
}

/// How the learning rate falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecayKind {
    /// It does not.
    Constant,
    /// Along a line to zero.
    LinearToZero,
    /// Along half a cosine to zero.
    Cosine,
    /// To a tenth after the first epoch (GGCVT on KITTI, heading unknown).
    TenthAfterFirstEpoch,
    /// By a hundredth of the first rate with every epoch (GGCVT on KITTI, heading known).
    HundredthEachEpoch,
}

/// The learning rate of each step of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    rate: LearningRate,
    by_epoch: Option<DecayKind>,
    batch: u64,
    examples: u64,
}

impl Schedule {
    /// The rate of step `step` (counted from 0) of `total`.
    pub fn at(&self, step: u64, total: u64) -> f64 {
        let rate = self.rate.at(step, total);
        match self.by_epoch {
            Some(DecayKind::TenthAfterFirstEpoch) if self.epoch(step) > 0 => 0.1 * rate,
            Some(DecayKind::HundredthEachEpoch) => {
                rate * (1.0 - self.epoch(step) as f64 / 100.0).max(0.0)
            }
            _ => rate,
        }
    }

    /// The epoch of a step: that of its first example.
    pub fn epoch(&self, step: u64) -> u64 {
        step * self.batch / self.examples.max(1)
    }

    /// Whether an epoch other than the first begins with this step.
    pub fn epoch_begins(&self, step: u64) -> bool {
        step > 0 && self.epoch(step) != self.epoch(step - 1)
    }
}

/// Whose statistics normalise in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchNormKind {
    /// The batch's.
    Train,
    /// The running ones, unchanged.
    Frozen,
}

impl Default for FitConfig {
    /// Supervised training of a compact network.
    fn default() -> Self {
        Self {
            batch: 8,
            epochs: 4.0,
            steps: None,
            learning_rate: 2e-3,
            decay: DecayKind::Cosine,
            fresh_moments: false,
            warm_up_steps: 50,
            clip_norm: None,
            batch_norm: BatchNormKind::Train,
            batch_norm_momentum: 0.02,
            drop_connect: true,
            augmentation: Augmentation::default(),
            loss: LossConfig::default(),
            average: 0.0,
            checkpoint_every: 500,
        }
    }
}

impl FitConfig {
    /// Steps of a run over `examples`.
    pub fn total_steps(&self, examples: usize) -> u64 {
        let epoch = examples as f64 / self.batch.max(1) as f64;
        self.steps.unwrap_or((self.epochs * epoch).ceil() as u64)
    }

    /// As [`FitConfig::total_steps`], over so many examples in each epoch, and in later ones as many as in the last.
    pub(crate) fn total_steps_of(&self, epochs: &[usize]) -> u64 {
        let Some((last, before)) = epochs.split_last() else {
            return self.total_steps(0);
        };
        // How much of each epoch is gone through; of one that repeats itself it is the passes over it.
        let share = |index: usize| (self.epochs - index as f64).max(0.0);
        let examples = before.iter().enumerate();
        let examples: f64 = examples
            .map(|(index, n)| share(index).min(1.0) * *n as f64)
            .sum();
        let examples = examples + share(before.len()) * *last as f64;
        let steps = (examples / self.batch.max(1) as f64 - 1e-9).ceil() as u64;
        match before {
            [] => self.total_steps(*last),
            _ => self.steps.unwrap_or(steps),
        }
    }

    /// The schedule of a run over `examples`.
    pub(crate) fn schedule(&self, examples: usize) -> Schedule {
        let (decay, by_epoch) = match self.decay {
            DecayKind::Constant => (Decay::Constant, None),
            DecayKind::LinearToZero => (Decay::LinearToZero, None),
            DecayKind::Cosine => (Decay::Cosine, None),
            kind @ (DecayKind::TenthAfterFirstEpoch | DecayKind::HundredthEachEpoch) => {
                (Decay::Constant, Some(kind))
            }
        };
        Schedule {
            rate: LearningRate {
                base: self.learning_rate,
                warm_up_steps: self.warm_up_steps,
                decay,
            },
            by_epoch,
            batch: self.batch as u64,
            examples: examples as u64,
        }
    }

    /// Whether something happens where an epoch begins.
    pub(crate) fn counts_epochs(&self) -> bool {
        let by_epoch = matches!(
            self.decay,
            DecayKind::TenthAfterFirstEpoch | DecayKind::HundredthEachEpoch
        );
        by_epoch || self.fresh_moments
    }

    /// Whose statistics normalise, as the layers take it.
    pub(crate) fn batch_norm_mode(&self) -> BatchNormMode {
        match self.batch_norm {
            BatchNormKind::Train => BatchNormMode::Train {
                momentum: self.batch_norm_momentum,
            },
            BatchNormKind::Frozen => BatchNormMode::Frozen,
        }
    }

    /// Refuses settings without meaning.
    ///
    /// # Errors
    /// [`TrainError::Settings`] naming the setting and its range.
    pub fn check(&self) -> Result<(), TrainError> {
        let rules = [
            ((1..=4096).contains(&self.batch), "batch must be 1 to 4096"),
            (
                self.epochs.is_finite() && self.epochs > 0.0 && self.epochs < 1e6,
                "epochs must be above 0 and below a million",
            ),
            (
                self.learning_rate.is_finite()
                    && self.learning_rate > 0.0
                    && self.learning_rate < 10.0,
                "learning_rate must be above 0 and below 10",
            ),
            (
                self.clip_norm.is_none_or(|norm| norm > 0.0),
                "clip_norm must be above 0",
            ),
            (
                (0.0..=1.0).contains(&self.batch_norm_momentum),
                "batch_norm_momentum must be 0 to 1",
            ),
            (
                self.loss.temperature > 0.0 && self.loss.sigma_m > 0.0,
                "loss.temperature and loss.sigma_m must be above 0",
            ),
            (
                [
                    self.loss.info_nce,
                    self.loss.triplet,
                    self.loss.heatmap,
                    self.loss.orientation,
                    self.loss.entropy,
                ]
                .iter()
                .all(|weight| *weight >= 0.0),
                "weights of the loss's terms must be 0 or above",
            ),
            (
                self.loss.levels.is_none_or(|levels| levels > 0),
                "loss.levels must be at least 1",
            ),
            (
                (0.0..1.0).contains(&self.average),
                "average must be 0 to below 1",
            ),
            (
                self.augmentation.field_of_view_deg > 0.0
                    && self.augmentation.field_of_view_deg <= 360.0,
                "augmentation.field_of_view_deg must be above 0 and at most 360",
            ),
            (
                self.checkpoint_every > 0,
                "checkpoint_every must be above 0",
            ),
        ];
        match rules.iter().find(|(good, _)| !good) {
            None => Ok(()),
            Some((_, rule)) => Err(TrainError::Settings((*rule).into())),
        }
    }
}
