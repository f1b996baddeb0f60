//! The recurrent pose optimiser: projects the ground features with the pose so far, compares them
//! with the aerial ones, corrects the pose; level by level, round by round.

use super::super::layers::Pass;
use super::super::parameters::{Builder, ParameterId};
use super::attention::{Embedding, Linear, Norm, WindowBlock};
use super::projection::Plane;
use super::spec::GgcvtSpec;
use crossfix_kernels::ops::{self, Outside};
use crossfix_kernels::{Result, Tape, Tensor};
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
    /// Focal lengths and centres at each level, sample by sample.
    pub cameras: &'a [Vec<[f64; 4]>],
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
    /// across it, heading. `rng` replaces shifts that run away; they carry no gradient on.
    pub(super) fn forward(
        &self,
        pass: &mut Pass,
        views: &Views,
        iterations: usize,
        rng: &mut ChaCha8Rng,
    ) -> Result<Vec<Tensor>> {
        let samples = views.cameras[0].len();
        let mut pose = Tensor::zeros(&[samples, 3]).to(&views.ground[0].device())?;
        let mut poses = Vec::new();
        for iteration in 0..iterations {
            for (level, refiner) in self.levels.iter().enumerate() {
                let grid = views.planes[level].grid(pass.tape, &pose, &views.cameras[level])?;
                let seen =
                    ops::grid_sample(pass.tape, &views.ground[level], &grid, Outside::Empty)?;
                if let Some(watch) = &mut pass.watch {
                    watch(&format!("rotation.{iteration}.{level}.projected"), &seen);
                }
                let seen = ops::sample_normalise(pass.tape, &seen, EPSILON)?;
                let aerial = ops::scale(pass.tape, &views.aerial[level], -1.0)?;
                let difference = ops::add(pass.tape, &seen, &aerial)?;
                let correction = refiner.forward(pass, &difference)?;
                pose = ops::add(pass.tape, &pose, &correction)?;
                pose = reset(pass.tape, &pose, rng)?;
                poses.push(pose.clone());
            }
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

/// Draws shifts anew that have left the range; reads the poses, so it waits for a device.
fn reset(tape: &mut Tape, pose: &Tensor, rng: &mut ChaCha8Rng) -> Result<Tensor> {
    let mut values = pose.to_vec()?;
    let mut kept = vec![true; values.len()];
    for (index, value) in values.iter_mut().enumerate() {
        if index % 3 < 2 && value.abs() >= FARTHEST {
            *value = draw(rng);
            kept[index] = false;
        }
    }
    if kept.iter().all(|kept| *kept) {
        return Ok(pose.clone());
    }
    let device = pose.device();
    let mut output = Tensor::new(values, pose.shape())?.to(&device)?;
    tape.record(&mut output, &[pose], move |gradient| {
        let shape = gradient.shape().to_vec();
        let kept = gradient.to_vec()?.into_iter().zip(kept);
        let data = kept.map(|(g, kept)| if kept { g } else { 0.0 });
        let to_pose = Tensor::new(data.collect(), &shape)?;
        Ok(vec![Some(to_pose.to(&device)?)])
    });
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn shifts_that_ran_away_are_drawn_anew_and_headings_are_not() {
        let pose = Tensor::new(vec![0.5, -2.5, 7.0, 1.9, 0.0, -3.0], &[2, 3]).unwrap();
        let pose = pose.with_gradient();
        let mut tape = Tape::training();
        let after = reset(&mut tape, &pose, &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
        let values = after.data();
        assert!(values[1].abs() < 1.0);
        for index in [0, 2, 3, 4, 5] {
            assert_eq!(values[index], pose.data()[index]);
        }
        let gradient = Tensor::full(&[2, 3], 1.0);
        let gradients = tape.backward_from(&after, gradient).unwrap();
        let expected = [1.0, 0.0, 1.0, 1.0, 1.0, 1.0];
        assert_eq!(gradients.get(&pose).unwrap().data(), expected);
    }
}
