//! The upper bound: what adaptation would reach with true positions. The only part of adaptation
//! that can name [`Truth`].

use super::{AdaptError, Adapted, Labeller, PseudoLabel, Recipe, learn};
use crate::data::{Example, Pair, PairSource, Truth, true_pose};
use crate::model::{CrossViewModel, ModelError, ModelSpec};
use crate::run::RunContext;

/// Fine-tunes `teacher` on the true positions of `pairs`. Pairs without truth, or with the truth
/// outside their aerial image, get a label of weight 0.
///
/// # Errors
/// [`AdaptError`]; what was done until then is in the run's folder.
pub fn adapt(
    teacher: &dyn CrossViewModel,
    pairs: &dyn PairSource,
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
    let labels = true_labels(teacher.describe(), pairs, truth)?;
    learn("oracle", teacher, pairs, labels, recipe, run)
}

/// True positions as labels, in the pairs' order.
///
/// # Errors
/// [`ModelError::Input`] when a pair cannot be read.
pub fn true_labels(
    spec: &ModelSpec,
    pairs: &dyn PairSource,
    truth: &Truth,
) -> Result<Vec<PseudoLabel>, ModelError> {
    let side = spec.heatmap_side() as f64;
    let inside = |cell: f64| cell > 0.5 && cell < side - 0.5;
    let label = |index: usize| {
        let read = pairs.pair(index);
        let pair = read.map_err(|error| ModelError::Input(error.to_string()))?;
        let pose = true_pose(&pair, truth);
        let target = pose.as_ref().map(|pose| pose.target(spec));
        let found = target.filter(|target| inside(target.column) && inside(target.row));
        Ok(PseudoLabel {
            id: pairs.id(index),
            column: found.map_or(side / 2.0, |target| target.column),
            row: found.map_or(side / 2.0, |target| target.row),
            offset_m: pose.map_or([0.0; 2], |pose| pose.offset_m),
            residual_rad: found.map_or(0.0, |target| target.residual_rad),
            peak: 0.0,
            entropy: 0.0,
            weight: f64::from(u8::from(found.is_some())),
        })
    };
    (0..pairs.len()).map(label).collect()
}

/// Pairs with their true poses, as far as these lie in the prepared aerial image.
pub fn supervised_examples<'a>(
    spec: &ModelSpec,
    pairs: &'a [Pair],
    truth: &Truth,
) -> Vec<Example<'a>> {
    let side = spec.heatmap_side() as f64;
    let cells_per_pixel = spec.metres_per_pixel / spec.metres_per_cell();
    let examples = pairs.iter().filter_map(|pair| {
        let target = true_pose(pair, truth)?.target(spec);
        let beyond_px = pair.aerial.width.saturating_sub(spec.aerial_px) / 2;
        let margin = beyond_px as f64 * cells_per_pixel;
        let inside = |cell: f64| cell > 0.5 - margin && cell < side - 0.5 + margin;
        (inside(target.column) && inside(target.row)).then_some(Example { pair, target })
    });
    examples.collect()
}
