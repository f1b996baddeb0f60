//! The upper bound: what adaptation would reach with true positions. The only part of adaptation
//! that can name [`Truth`].

use super::{AdaptError, Adapted, Found, Labeller, PseudoLabel, Recipe, learn};
use crate::data::Dataset;
use crate::data::pairs::truth::{Truth, true_pose};
use crate::model::{CrossViewModel, ModelSpec};
use crate::run::RunContext;

/// Fine-tunes `teacher` on the true positions of `pairs`. Pairs without truth, or with the truth
/// outside their aerial image, get a label of weight 0.
///
/// # Errors
/// [`AdaptError`]; what was done until then is in the run's folder.
pub fn adapt(
    teacher: &dyn CrossViewModel,
    pairs: &dyn Dataset,
    truth: &Truth,
    recipe: &Recipe,
    run: &RunContext,
) -> Result<Adapted, AdaptError> {
    recipe.check()?;
    if recipe.labeller != Labeller::GroundTruth {
        return Err(AdaptError::Settings(
            "this recipe labels without truth; adapt with it without --truth".into(),
        ));
    }
    let labels = true_labels(teacher.describe(), pairs, truth);
    learn("oracle", teacher, pairs, Found::of(labels), recipe, run)
}

/// True positions as labels, in the pairs' order.
pub fn true_labels(spec: &ModelSpec, pairs: &dyn Dataset, truth: &Truth) -> Vec<PseudoLabel> {
    let side = spec.heatmap_side() as f64;
    let inside = |cell: f64| cell > 0.5 && cell < side - 0.5;
    let label = |index: usize| {
        let sample = pairs.sample(index);
        let pose = true_pose(sample, truth);
        let target = pose.as_ref().map(|pose| pose.target(spec));
        let found = target.filter(|target| inside(target.column) && inside(target.row));
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
        }
    };
    (0..pairs.len()).map(label).collect()
}
