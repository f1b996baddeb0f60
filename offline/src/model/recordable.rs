//! Training steps that a device records once and replays: all that differs from step to step is a
//! tensor among the step's inputs, of the same shape every time.

use super::{Ccvpe, CrossViewModel, Input, ModelError, ggcvt, normalise};
use crate::loss::{LossTerms, PoseTarget, Profiles, loss_terms};
use crate::train::FitConfig;
use crossfix_kernels::{Device, Result as KernelResult, Tape, Tensor};
use rand_chacha::ChaCha8Rng;

/// A network whose training step takes all that differs from batch to batch as tensors.
pub(crate) trait Recordable: CrossViewModel {
    /// Draws and computes on the host what a step takes, the same numbers that a step by
    /// [`CrossViewModel::forward`] would draw.
    ///
    /// # Errors
    /// [`ModelError::Input`] or [`ModelError::Kernel`] when the batch doesn't fit.
    fn prepare(
        &self,
        input: &Input,
        targets: &[PoseTarget],
        config: &FitConfig,
        drop_connect: Option<&mut ChaCha8Rng>,
    ) -> Result<Prepared, ModelError>;

    /// Forward pass and loss on what [`Recordable::prepare`] made, moved to where the parameters
    /// are. Reads no value.
    ///
    /// # Errors
    /// [`ModelError::Kernel`] when the device fails, [`ModelError::Input`] when `prepared` is another
    /// network's or the loss weighs what the network lacks.
    fn step_loss(
        &mut self,
        tape: &mut Tape,
        prepared: &Prepared,
        config: &FitConfig,
    ) -> Result<LossTerms, ModelError>;
}

/// What a pass of CCVPE takes besides its numbers.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    /// `[N, 3, rows, columns]`: normalised for a pass, values 0 to 255 among a step's inputs.
    pub ground: Tensor,
    /// `[N, 3, side, side]`, as the ground images.
    pub aerial: Tensor,
    /// Factors of stochastic depth, `[N]` for each block that drops; `None` drops nothing.
    pub drop_connect: Option<Vec<Tensor>>,
    /// For networks that see part of the circle: the score channels that each sample reads, for
    /// each level. Empty otherwise.
    pub channel_lists: Vec<Tensor>,
}

impl Given {
    /// All tensors, in an order that [`Given::like`] knows.
    fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let images = [&self.ground, &self.aerial].into_iter();
        let factors = self.drop_connect.iter().flatten();
        images.chain(factors).chain(&self.channel_lists)
    }

    /// The same from other tensors, in the order of [`Given::tensors`].
    fn like(&self, tensors: &mut impl Iterator<Item = Tensor>) -> Self {
        let mut next = || tensors.next().expect("as many tensors as a pass takes");
        Self {
            ground: next(),
            aerial: next(),
            drop_connect: self
                .drop_connect
                .as_ref()
                .map(|factors| factors.iter().map(|_| next()).collect()),
            channel_lists: self.channel_lists.iter().map(|_| next()).collect(),
        }
    }

    /// The same on a device.
    pub fn to(&self, device: &Device) -> KernelResult<Self> {
        let moved = self.tensors().map(|tensor| tensor.to(device));
        let moved = moved.collect::<KernelResult<Vec<_>>>()?;
        Ok(self.like(&mut moved.into_iter()))
    }
}

/// What a training step takes besides the network's numbers.
#[derive(Debug, Clone)]
pub(crate) enum Prepared {
    Ccvpe { given: Given, profiles: Profiles },
    Ggcvt(ggcvt::Prepared),
}

/// Which values a loss consists of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Levels whose `InfoNCE` is in it.
    pub info_nce: usize,
    pub triplet: bool,
    pub heatmap: bool,
    pub orientation: bool,
}

impl Told {
    /// How many.
    pub fn count(self) -> usize {
        let others = [self.triplet, self.heatmap, self.orientation];
        self.info_nce + others.into_iter().filter(|has| *has).count()
    }
}

impl Prepared {
    /// Which values the loss consists of.
    pub fn told(&self) -> Told {
        match self {
            Self::Ccvpe { profiles, .. } => profiles.told(),
            Self::Ggcvt(prepared) => prepared.told(),
        }
    }

    /// All tensors, in an order that [`Prepared::like`] knows.
    pub fn tensors(&self) -> Vec<&Tensor> {
        match self {
            Self::Ccvpe { given, profiles } => given.tensors().chain(profiles.tensors()).collect(),
            Self::Ggcvt(prepared) => prepared.tensors().collect(),
        }
    }

    /// The same from other tensors, in the order of [`Prepared::tensors`].
    ///
    /// # Panics
    /// When there are too few.
    pub fn like(&self, tensors: &mut impl Iterator<Item = Tensor>) -> Self {
        match self {
            Self::Ccvpe { given, profiles } => Self::Ccvpe {
                given: given.like(tensors),
                profiles: profiles.like(tensors),
            },
            Self::Ggcvt(prepared) => Self::Ggcvt(prepared.like(tensors)),
        }
    }
}

/// What was prepared is another network's.
pub(super) fn other_network() -> ModelError {
    ModelError::Input("a step that another network prepared".into())
}

impl Recordable for Ccvpe {
    fn prepare(
        &self,
        input: &Input,
        targets: &[PoseTarget],
        config: &FitConfig,
        drop_connect: Option<&mut ChaCha8Rng>,
    ) -> Result<Prepared, ModelError> {
        input.check(self.spec())?;
        Ok(Prepared::Ccvpe {
            given: self.given(input, drop_connect)?,
            profiles: Profiles::new(self.spec(), targets, &config.loss)?,
        })
    }

    fn step_loss(
        &mut self,
        tape: &mut Tape,
        prepared: &Prepared,
        config: &FitConfig,
    ) -> Result<LossTerms, ModelError> {
        let Prepared::Ccvpe { given, profiles } = prepared else {
            return Err(other_network());
        };
        let spec = self.spec().clone();
        let batch_norm = config.batch_norm_mode();
        let given = Given {
            ground: normalise(&given.ground)?,
            aerial: normalise(&given.aerial)?,
            ..given.clone()
        };
        let extent = config.extent(self.describe());
        let prediction = self.pass(tape, &given, batch_norm, extent, None)?;
        let targets = profiles.targets()?;
        loss_terms(tape, &spec, &prediction, &targets, &config.loss)
    }
}
