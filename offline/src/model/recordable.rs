//! Training steps that a device records once and replays: all that differs from step to step is a
//! tensor among the step's inputs, of the same shape every time.

use super::{Ccvpe, CrossViewModel, Input, ModelError, NORMALISATION, Share, ggcvt, normalise};
use crate::model::loss::{LossConfig, LossTerms, PoseTarget, Profiles, loss_terms};
use crossfix_kernels::ops::BatchNormMode;
use crossfix_kernels::{Device, Pixels, Result as KernelResult, Tape, Tensor};
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
        loss: &LossConfig,
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
        loss: &LossConfig,
        batch_norm: BatchNormMode,
    ) -> Result<LossTerms, ModelError>;
}

/// What a pass of CCVPE takes besides its numbers and the images.
#[derive(Debug, Clone)]
pub(crate) struct PassInputs {
    /// Factors of stochastic depth, `[N]` for each block that drops; `None` drops nothing.
    pub drop_connect: Option<Vec<Tensor>>,
    /// For networks that see part of the circle: the score channels that each sample reads, for
    /// each level. Empty otherwise.
    pub channel_lists: Vec<Tensor>,
}

impl PassInputs {
    /// All tensors, in an order that [`PassInputs::like`] knows.
    fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let factors = self.drop_connect.iter().flatten();
        factors.chain(&self.channel_lists)
    }

    /// The same from other tensors, in the order of [`PassInputs::tensors`].
    fn like(&self, tensors: &mut impl Iterator<Item = Tensor>) -> Self {
        let mut next = || tensors.next().expect("as many tensors as a pass takes");
        Self {
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
pub(crate) struct Prepared {
    /// Ground and aerial images.
    pub images: [Pixels; 2],
    /// How each of them is changed, as in [`Input::augment`].
    pub augment: Option<[Tensor; 2]>,
    pub family: FamilyInputs,
}

/// What a training step takes besides the network's numbers and the images.
#[derive(Debug, Clone)]
pub(crate) enum FamilyInputs {
    Ccvpe {
        pass_inputs: PassInputs,
        profiles: Profiles,
    },
    Ggcvt(ggcvt::FamilyInputs),
}

/// Which values a loss consists of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LossComponents {
    /// Levels whose `InfoNCE` is in it.
    pub info_nce: usize,
    pub triplet: bool,
    pub heatmap: bool,
    pub orientation: bool,
}

impl LossComponents {
    /// How many.
    pub fn count(self) -> usize {
        let others = [self.triplet, self.heatmap, self.orientation];
        self.info_nce + others.into_iter().filter(|has| *has).count()
    }
}

impl Prepared {
    /// Which values the loss consists of.
    pub fn components(&self) -> LossComponents {
        match &self.family {
            FamilyInputs::Ccvpe { profiles, .. } => profiles.components(),
            FamilyInputs::Ggcvt(family) => family.components(),
        }
    }

    /// All tensors, in an order that [`Prepared::like`] knows.
    pub fn tensors(&self) -> Vec<&Tensor> {
        let mut all: Vec<&Tensor> = self.augment.iter().flatten().collect();
        match &self.family {
            FamilyInputs::Ccvpe {
                pass_inputs,
                profiles,
            } => {
                all.extend(pass_inputs.tensors().chain(profiles.tensors()));
            }
            FamilyInputs::Ggcvt(family) => all.extend(family.tensors()),
        }
        all
    }

    /// All images, in an order that [`Prepared::like`] knows.
    pub fn images(&self) -> &[Pixels] {
        &self.images
    }

    /// The same from other tensors and images, in the order of [`Prepared::tensors`] and
    /// [`Prepared::images`].
    ///
    /// # Panics
    /// When there are too few.
    pub fn like(&self, tensors: &mut impl Iterator<Item = Tensor>, images: &[Pixels]) -> Self {
        let mut next = || tensors.next().expect("as many tensors as a step takes");
        let augment = self.augment.as_ref().map(|_| [next(), next()]);
        let family = match &self.family {
            FamilyInputs::Ccvpe {
                pass_inputs,
                profiles,
            } => FamilyInputs::Ccvpe {
                pass_inputs: pass_inputs.like(tensors),
                profiles: profiles.like(tensors),
            },
            FamilyInputs::Ggcvt(family) => FamilyInputs::Ggcvt(family.like(tensors)),
        };
        Self {
            images: [images[0].clone(), images[1].clone()],
            augment,
            family,
        }
    }

    /// The same on a device.
    pub fn to(&self, device: &Device) -> KernelResult<Self> {
        let tensors = self.tensors().into_iter().map(|tensor| tensor.to(device));
        let tensors = tensors.collect::<KernelResult<Vec<_>>>()?;
        let [ground, aerial] = &self.images;
        let images = [ground.to(device)?, aerial.to(device)?];
        Ok(self.like(&mut tensors.into_iter(), &images))
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
        loss: &LossConfig,
        drop_connect: Option<&mut ChaCha8Rng>,
    ) -> Result<Prepared, ModelError> {
        input.check(self.spec())?;
        let pass_inputs = self.pass_inputs(
            input.len(),
            &input.ground_left_bin,
            drop_connect,
            Share::default(),
        )?;
        let profiles = Profiles::new(self.spec(), targets, loss)?;
        Ok(Prepared {
            images: [input.ground.clone(), input.aerial.clone()],
            augment: input.augment.clone(),
            family: FamilyInputs::Ccvpe {
                pass_inputs,
                profiles,
            },
        })
    }

    fn step_loss(
        &mut self,
        tape: &mut Tape,
        prepared: &Prepared,
        loss: &LossConfig,
        batch_norm: BatchNormMode,
    ) -> Result<LossTerms, ModelError> {
        let FamilyInputs::Ccvpe {
            pass_inputs,
            profiles,
        } = &prepared.family
        else {
            return Err(other_network());
        };
        let spec = self.spec().clone();
        let augment = prepared.augment.as_ref();
        let wraps = !spec.ground_left_bin;
        let images = normalise(&prepared.images, augment, &NORMALISATION, wraps)?;
        let extent = loss.extent(self.describe());
        let prediction = self.pass(tape, &images, pass_inputs, batch_norm, extent, None)?;
        let targets = profiles.targets()?;
        loss_terms(tape, &spec, &prediction, &targets, loss)
    }
}
