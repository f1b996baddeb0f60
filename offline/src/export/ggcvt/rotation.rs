//! The recurrent pose optimiser, all its steps one after the other.

use super::super::graph::Value;
use super::Translation;
use super::projection::Pinhole;
use crate::model::ggcvt::rotation::{self, FARTHEST, Refiner, RotationOptimiser};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tract_onnx::pb::tensor_proto::DataType;

/// What the optimiser compares, coarsest first.
pub(super) struct Views<'a> {
    /// Ground features, unit length.
    pub ground: [&'a Value; 3],
    /// Aerial features, rectified.
    pub aerial: [&'a Value; 3],
}

impl Translation<'_> {
    /// The pose `[1, 3]` after `iterations` rounds.
    pub fn found_pose(
        &mut self,
        optimiser: &RotationOptimiser,
        pinhole: &Pinhole,
        views: &Views,
        iterations: usize,
    ) -> Value {
        let mut pose = self.graph.floats("first_pose", &[1, 3], &[0.0; 3]);
        let mut runaways = Runaways::new(3 * iterations);
        for _ in 0..iterations {
            for (level, refiner) in optimiser.levels.iter().enumerate() {
                let (look, _) = self.pinhole_look(level, pinhole, &pose);
                let seen = self.seen(views.ground[level], &look);
                let seen = self.image(&seen, look.maps.side);
                let seen = self.unit(&seen, rotation::EPSILON);
                let difference = self.graph.combine("Sub", &seen, views.aerial[level]);
                let correction = self.correction(refiner, &difference);
                pose = self.graph.combine("Add", &pose, &correction);
                pose = runaways.replaced(self, &pose);
            }
        }
        pose
    }

    fn correction(&mut self, refiner: &Refiner, difference: &Value) -> Value {
        let x = self.conv(&refiner.embedding.conv, difference);
        let (width, side, window) = (x.shape[1], x.shape[2], refiner.block.window);
        let windows = side / window;
        let x = self
            .graph
            .reshape(&x, &[width, windows, window, windows, window]);
        let x = self.graph.transpose(&x, &[1, 3, 2, 4, 0]);
        let x = self.graph.reshape(&x, &[side * side, width]);
        let x = self.norm(&refiner.embedding.norm, &x);
        let x = self.window_block(&refiner.block, &x, None);
        let x = self.norm(&refiner.norm, &x);
        let mean = self.graph.reduce("ReduceMean", &x, 0);
        let [weight, bias] = refiner.head;
        self.linear(
            &super::attention::whole(weight, Some(bias)),
            None,
            1.0,
            &mean,
        )
    }
}

/// Shifts that leave the range get the numbers that an evaluation draws, in its order.
struct Runaways {
    draws: std::vec::IntoIter<f32>,
}

impl Runaways {
    fn new(steps: usize) -> Self {
        // Evaluations draw with seed 0.
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let draws: Vec<f32> = (0..2 * steps).map(|_| rotation::draw(&mut rng)).collect();
        Self {
            draws: draws.into_iter(),
        }
    }

    /// `pose` with its two shifts in range.
    fn replaced(&mut self, translation: &mut Translation, pose: &Value) -> Value {
        let (one, farthest) = (translation.number(1.0), translation.number(FARTHEST));
        let graph = &mut translation.graph;
        let mut parts = Vec::with_capacity(3);
        for at in 0..2 {
            let draw = self.draws.next().expect("two draws for each step");
            let shift = graph.slice(pose, 1, at, at + 1);
            let far = graph.map("Abs", &shift);
            let far = graph.combine("GreaterOrEqual", &far, &farthest);
            let far = graph.cast(&far, DataType::Float);
            let near = graph.combine("Sub", &one, &far);
            let draw = graph.floats(&format!("draw_{draw}"), &[1], &[draw]);
            let draw = graph.combine("Mul", &far, &draw);
            let kept = graph.combine("Mul", &near, &shift);
            parts.push(graph.combine("Add", &kept, &draw));
        }
        let heading = graph.slice(pose, 1, 2, 3);
        graph.concat(1, &[&parts[0], &parts[1], &heading])
    }
}
