//! The recurrent pose optimiser: projects the ground features with the pose so far, compares them
//! with the aerial ones, corrects the pose; level by level, round by round.

use super::super::layers::Pass;
use super::super::parameters::{Builder, ParameterId};
use super::attention::{Embedding, Linear, Norm, WindowBlock};
use super::projection::Pinholes;
use super::spec::GgcvtSpec;
use crossfix_kernels::ops::{self, Outside, Plane};
use crossfix_kernels::{Result, Tensor};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// Guards the division by the length of projected features; larger than elsewhere, as published.
pub(crate) const EPSILON: f32 = 1e-6;
/// A shift that leaves ± this is drawn anew from ± 1.
pub(crate) const FARTHEST: f32 = 2.0;

/// Reads a pose correction from the difference of two feature maps.
#[derive(Debug, Clone)]
pub(crate) struct Refiner {
    pub embedding: Embedding,
    pub block: WindowBlock,
    pub norm: Norm,
    /// Weight and bias.
    pub head: [ParameterId; 2],
}

/// One refiner for each level.
#[derive(Debug, Clone)]
pub(crate) struct RotationOptimiser {
    pub levels: Vec<Refiner>,
}

/// What the optimiser compares: features, and how the camera sees at each level.
pub(super) struct Views<'a> {
    /// Of the ground image, unit length, coarsest first.
    pub ground: &'a [Tensor],
    /// Of the aerial image, rectified.
    pub aerial: &'a [Tensor],
    pub planes: &'a [Plane],
    pub pinholes: &'a Pinholes,
}

impl RotationOptimiser {
    pub fn new(builder: &mut Builder, spec: &GgcvtSpec) -> Self {
        let levels = [4, 2, 1].iter().zip(spec.channels());
        let levels = levels.map(|(number, channels)| {
            let name = format!("TransRefine.level_{number}");
            let patch = format!("{name}.patch_embed");
            let head = Linear::new(builder, &format!("{name}.head"), [spec.embedding, 3], true);
            Refiner {
                embedding: Embedding::new(builder, &patch, [channels, spec.embedding], 4),
                block: WindowBlock::new(builder, &format!("{name}.layers.0.blocks.0"), spec, true),
                norm: Norm::new(builder, &format!("{name}.norm"), spec.embedding),
                head: [head.weight, head.bias.unwrap_or(head.weight)],
            }
        });
        Self {
            levels: levels.collect(),
        }
    }

    /// The pose after each level of each round, `[N, 3]`: normalised shift along the view, shift
    /// across it, heading. Shifts that run away are replaced; they carry no gradient on.
    pub(super) fn forward(&self, pass: &mut Pass, views: &Views) -> Result<Vec<Tensor>> {
        let pinholes = views.pinholes;
        let device = views.ground[0].device();
        let mut pose = device.full(pinholes.reach.shape(), 0.0)?;
        let mut poses = Vec::with_capacity(pinholes.draws.len());
        for (step, draws) in pinholes.draws.iter().enumerate() {
            let (iteration, level) = (step / self.levels.len(), step % self.levels.len());
            let plane = &views.planes[level];
            let grid = ops::plane_grid(pass.tape, &pose, &pinholes.cameras, plane)?;
            let seen = ops::grid_sample(pass.tape, &views.ground[level], &grid, Outside::Empty)?;
            if let Some(watch) = &mut pass.watch {
                watch(&format!("rotation.{iteration}.{level}.projected"), &seen);
            }
            let seen = ops::sample_normalise(pass.tape, &seen, EPSILON)?;
            let aerial = ops::scale(pass.tape, &views.aerial[level], -1.0)?;
            let difference = ops::add(pass.tape, &seen, &aerial)?;
            let correction = self.levels[level].forward(pass, &difference)?;
            pose = ops::add(pass.tape, &pose, &correction)?;
            pose = ops::replace_beyond(pass.tape, &pose, &pinholes.reach, draws)?;
            poses.push(pose.clone());
        }
        Ok(poses)
    }
}

impl Refiner {
    fn forward(&self, pass: &mut Pass, difference: &Tensor) -> Result<Tensor> {
        let tokens = self.embedding.forward(pass, difference)?;
        let tokens = self.block.forward(pass, &tokens, None)?;
        let tokens = self.norm.forward(pass, &tokens)?;
        let mean = ops::global_mean_pool(pass.tape, &tokens)?;
        let [weight, bias] = self.head.map(|id| pass.parameters.value(id));
        ops::linear(pass.tape, &mean, weight, bias)
    }
}

/// A shift for one that ran away.
pub(crate) fn draw(rng: &mut ChaCha8Rng) -> f32 {
    rng.random_range(-1.0..1.0)
}
