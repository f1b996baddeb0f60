//! The upper bound: what adaptation would reach with true positions. The only part of adaptation
//! that can name [`Truth`].

use super::{AdaptError, Adapted, Found, Labeller, PseudoLabel, Pupil, Recipe, Shared, learn};
use crate::data::Dataset;
use crate::data::pairs::truth::{Truth, true_pose};
use crate::data::pose::offset_from_cell;
use crate::model::{CrossViewModel, ModelSpec};
use crate::run::RunContext;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Fine-tunes `teacher`, or trains `pupil`, on the true positions of `pairs`. Pairs without truth, or with the truth
/// outside their aerial image, get a label of weight 0.
///
/// # Errors
/// [`AdaptError`]; what was done until then is in the run's folder.
pub fn adapt(
    teacher: &dyn CrossViewModel,
    pairs: &dyn Dataset,
    truth: &Truth,
    pupil: Option<Pupil>,
    recipe: &Recipe,
    run: &RunContext,
) -> Result<Adapted, AdaptError> {
    recipe.check()?;
    if let Some(pupil) = pupil {
        pupil.check(teacher.describe(), pairs, &recipe.labeller)?;
    }
    let Labeller::GroundTruth(positions) = recipe.labeller else {
        return Err(AdaptError::Settings(
            "this recipe labels without truth; adapt with it without --truth".into(),
        ));
    };
    let mut labels = true_labels(teacher.describe(), pairs, truth);
    displace(&mut labels, positions.noise_m, teacher.describe(), run.seed);
    let found = Found::of(labels);
    learn(
        "oracle",
        teacher,
        pairs,
        pupil,
        found,
        recipe,
        run,
        &mut Shared::default(),
    )
}

/// True positions as labels, in the pairs' order.
pub fn true_labels(spec: &ModelSpec, pairs: &dyn Dataset, truth: &Truth) -> Vec<PseudoLabel> {
    let side = spec.heatmap_side() as f64;
    let inside = |cell: f64| cell > 0.5 && cell < side - 0.5;
    let label = |index: usize| {
        let sample = pairs.sample(index);
        let pose = true_pose(sample, truth);
        let target = pose.as_ref().map(|pose| pose.target(spec));
        let found = target
            .as_ref()
            .filter(|target| inside(target.column) && inside(target.row));
        PseudoLabel {
            id: sample.id.clone(),
            column: found.map_or(side / 2.0, |target| target.column),
            row: found.map_or(side / 2.0, |target| target.row),
            offset_m: pose.map_or([0.0; 2], |pose| pose.offset_m),
            residual_rad: found.map_or(0.0, |target| target.residual_rad),
            peak_m: pose.map_or([0.0; 2], |pose| pose.offset_m),
            peak: 0.0,
            entropy: 0.0,
            support: 1.0,
            weight: f64::from(u8::from(found.is_some())),
            map: None,
        }
    };
    (0..pairs.len()).map(label).collect()
}

/// Displaces every label east and north by independent errors, uniform within plus and minus `noise_m`; a
/// label that leaves the aerial image stays at its edge.
fn displace(labels: &mut [PseudoLabel], noise_m: f64, spec: &ModelSpec, seed: u64) {
    if noise_m <= 0.0 {
        return;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let side = spec.heatmap_side() as f64;
    let inside = |cell: f64| cell.clamp(0.5, side - 0.5);
    for label in labels {
        let [east, north] = [(); 2].map(|()| rng.random_range(-noise_m..=noise_m));
        label.column = inside(label.column + east / spec.metres_per_cell());
        label.row = inside(label.row - north / spec.metres_per_cell());
        label.offset_m = offset_from_cell([label.column, label.row], spec);
        label.peak_m = label.offset_m;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::named;

    #[test]
    fn labels_are_displaced_within_the_given_metres_and_by_the_seed() {
        let spec = named("compact").unwrap().describe();
        let label = PseudoLabel {
            id: String::new(),
            column: 32.0,
            row: 32.0,
            offset_m: [0.0; 2],
            residual_rad: 0.0,
            peak_m: [0.0; 2],
            peak: 0.0,
            entropy: 0.0,
            support: 1.0,
            weight: 1.0,
            map: None,
        };
        let displaced = |seed| {
            let mut labels = vec![label.clone(); 2000];
            displace(&mut labels, 2.5, &spec, seed);
            labels
        };
        let labels = displaced(1);
        let furthest = |axis: usize| {
            let all = labels.iter().map(|label| label.offset_m[axis].abs());
            all.fold(0.0, f64::max)
        };
        for axis in 0..2 {
            assert!(furthest(axis) <= 2.5 && furthest(axis) > 2.4);
            let mean = labels.iter().map(|label| label.offset_m[axis]).sum::<f64>() / 2000.0;
            assert!(mean.abs() < 0.15, "{mean}");
        }
        assert_eq!(labels, displaced(1));
        assert_ne!(labels, displaced(2));
    }
}
