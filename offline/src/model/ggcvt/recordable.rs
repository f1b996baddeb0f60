//! What a training step of GGCVT takes, as tensors.

use super::adaptation::{
    LabelLoss, LabelProfiles, label_profiles, label_targets, multiplied, replace_by_maps,
};
use super::cross_view::{UNIT, true_poses};
use super::loss::true_places;
use super::projection::CameraGeometry;
use super::{Ggcvt, PassInputs};
use crate::model::loss::{LossConfig, LossTerms, PoseTarget, check_separable, check_weights};
use crate::model::recordable::{self, LossComponents, Prepared, Recordable};
use crate::model::{CrossViewModel, Extent, Input, ModelError, Share, normalise};
use crossfix_kernels::ops::BatchNormMode;
use crossfix_kernels::{Device, Result as KernelResult, Tape, Tensor};
use rand::RngCore;
use rand_chacha::ChaCha8Rng;

/// What the distances and poses of a batch should have been, as tensors beside them.
#[derive(Debug, Clone)]
pub(super) struct Targets {
    /// Of each level whose `InfoNCE` is weighed, `[N, places²]`.
    pub labels: Vec<Tensor>,
    /// True places of each level, `[N]`, where triplets are weighed.
    pub places: Vec<Tensor>,
    /// True poses `[N, 3]`, where the poses' errors are weighed.
    pub poses: Option<Tensor>,
}

/// The same with the labels as what they are products of; a recorded step takes them as inputs.
#[derive(Debug, Clone)]
struct Profiles {
    labels: Vec<LabelProfiles>,
    places: Vec<Tensor>,
    poses: Option<Tensor>,
}

/// What a training step takes besides the network's numbers and the images.
#[derive(Debug, Clone)]
pub(crate) struct FamilyInputs {
    geometry: CameraGeometry,
    profiles: Profiles,
}

impl Profiles {
    fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let labels = self.labels.iter().flatten();
        labels.chain(&self.places).chain(&self.poses)
    }

    fn like(&self, next: &mut impl FnMut() -> Tensor) -> Self {
        let labels = self.labels.iter().map(|_| [next(), next(), next()]);
        Self {
            labels: labels.collect(),
            places: self.places.iter().map(|_| next()).collect(),
            poses: self.poses.as_ref().map(|_| next()),
        }
    }

    /// Multiplied out where they lie.
    fn targets(&self) -> KernelResult<Targets> {
        let labels = self.labels.iter().map(multiplied);
        Ok(Targets {
            labels: labels.collect::<KernelResult<_>>()?,
            places: self.places.clone(),
            poses: self.poses.clone(),
        })
    }
}

impl FamilyInputs {
    /// Which values the loss consists of.
    pub fn components(&self) -> LossComponents {
        LossComponents {
            info_nce: self.profiles.labels.len(),
            triplet: !self.profiles.places.is_empty(),
            ..LossComponents::default()
        }
    }

    /// All tensors, in an order that [`FamilyInputs::like`] knows.
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.geometry
            .tensors()
            .into_iter()
            .chain(self.profiles.tensors())
    }

    /// The same from other tensors, in the order of [`FamilyInputs::tensors`].
    ///
    /// # Panics
    /// When there are too few.
    pub fn like(&self, tensors: &mut impl Iterator<Item = Tensor>) -> Self {
        let mut next = || tensors.next().expect("as many tensors as a step takes");
        Self {
            geometry: self.geometry.like(&mut next),
            profiles: self.profiles.like(&mut next),
        }
    }
}

fn weights(targets: &[PoseTarget]) -> Vec<f32> {
    targets.iter().map(|target| target.weight as f32).collect()
}

impl Ggcvt {
    /// [down, right] of the cameras from the aerial image's middle, pixels.
    fn offsets_px(&self, targets: &[PoseTarget]) -> Vec<[f64; 2]> {
        let pixels = |cell| self.description.px_from_cell(cell);
        let offset = |target: &PoseTarget| [target.row, target.column].map(pixels);
        targets.iter().map(offset).collect()
    }

    pub(super) fn label_loss(&self, config: &LossConfig) -> LabelLoss {
        LabelLoss {
            temperature: config.temperature,
            sigma_px: config.sigma_m / self.spec.metres_per_pixel(),
            threshold: config.threshold,
            levels: config.levels.unwrap_or(3),
        }
    }

    /// True places and poses, as far as `config` weighs them, on the host.
    fn truth(
        &self,
        targets: &[PoseTarget],
        config: &LossConfig,
    ) -> KernelResult<(Vec<Tensor>, Option<Tensor>)> {
        if config.triplet <= 0.0 {
            return Ok((Vec::new(), None));
        }
        let offsets_px = self.offsets_px(targets);
        let share = |px: f64| px / self.spec.aerial_px as f64;
        let shares: Vec<[f64; 2]> = offsets_px.iter().map(|px| px.map(share)).collect();
        let places = true_places(&self.spec, &shares)?;
        let poses = self.balance.is_some();
        let poses = poses.then(|| true_poses(&self.spec, &offsets_px, targets));
        Ok((places, poses.transpose()?))
    }

    /// What a loss compares with, on `device`.
    pub(super) fn targets(
        &self,
        targets: &[PoseTarget],
        config: &LossConfig,
        device: &Device,
    ) -> Result<Targets, ModelError> {
        let mut labels = if config.info_nce > 0.0 {
            let (offsets_px, labels) = (self.offsets_px(targets), self.label_loss(config));
            label_targets(&self.spec, &offsets_px, &weights(targets), &labels, device)?
        } else {
            Vec::new()
        };
        if targets.iter().any(|target| target.map.is_some()) {
            if *device != Device::Cpu {
                check_separable(targets)?;
            }
            replace_by_maps(&self.spec, &mut labels, targets)?;
        }
        let (places, poses) = self.truth(targets, config)?;
        let places = places.into_iter().map(|places| places.to(device));
        Ok(Targets {
            labels,
            places: places.collect::<KernelResult<_>>()?,
            poses: poses.map(|poses| poses.to(device)).transpose()?,
        })
    }

    /// As [`Ggcvt::targets`], on the host and not multiplied out.
    fn profiles(&self, targets: &[PoseTarget], config: &LossConfig) -> KernelResult<Profiles> {
        let labels = if config.info_nce > 0.0 {
            let labels = self.label_loss(config);
            label_profiles(
                &self.spec,
                &self.offsets_px(targets),
                &weights(targets),
                &labels,
            )?
        } else {
            Vec::new()
        };
        let (places, poses) = self.truth(targets, config)?;
        Ok(Profiles {
            labels,
            places,
            poses,
        })
    }

    /// What the seed of a pass is drawn from.
    pub(super) fn seed(drop_connect: Option<&mut ChaCha8Rng>) -> u64 {
        drop_connect.map_or(0, RngCore::next_u64)
    }
}

impl Recordable for Ggcvt {
    fn prepare(
        &self,
        input: &Input,
        targets: &[PoseTarget],
        loss: &LossConfig,
        drop_connect: Option<&mut ChaCha8Rng>,
    ) -> Result<Prepared, ModelError> {
        check_weights(targets, loss)?;
        check_separable(targets)?;
        let seed = Self::seed(drop_connect);
        let shapes = [input.ground.shape(), input.aerial.shape()];
        let family = FamilyInputs {
            geometry: self.geometry(
                [&shapes[0], &shapes[1]],
                &input.projections,
                (seed, Share::default()),
            )?,
            profiles: self.profiles(targets, loss)?,
        };
        Ok(Prepared {
            images: [input.ground.clone(), input.aerial.clone()],
            augment: input.augment.clone(),
            family: recordable::FamilyInputs::Ggcvt(family),
        })
    }

    fn step_loss(
        &mut self,
        tape: &mut Tape,
        prepared: &Prepared,
        loss: &LossConfig,
        _batch_norm: BatchNormMode,
    ) -> Result<LossTerms, ModelError> {
        let recordable::FamilyInputs::Ggcvt(family) = &prepared.family else {
            return Err(recordable::other_network());
        };
        let augment = prepared.augment.as_ref();
        let wraps = !self.description.ground_left_bin();
        let [ground, aerial] = normalise(&prepared.images, augment, &UNIT, wraps)?;
        let pass_inputs = PassInputs {
            ground,
            aerial,
            geometry: family.geometry.clone(),
        };
        let levels = match loss.extent(self.describe()) {
            Extent::Levels(levels) => Some(levels),
            Extent::Location | Extent::Everything => None,
        };
        let prediction = self.scores(tape, &pass_inputs, levels)?;
        let targets = family.profiles.targets()?;
        self.loss_terms(tape, &prediction, &targets, loss)
    }
}
