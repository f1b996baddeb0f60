//! The upper bound: fine-tuning on true positions, with the supervised loss at every level.

use super::AdaptError;
use super::config::AdaptConfig;
use crate::data::{Example, Pair, Truth, true_pose};
use crate::loss::LossConfig;
use crate::model::{CrossViewModel, ModelSpec};
use crate::run::{Interrupt, RunFolder};
use crate::train::{FitConfig, Fitted, fit};

/// Fine-tunes `teacher` on the true positions of `pairs`, with the budget of `config`.
/// Pairs without truth, or with the truth outside their patch, are left out.
///
/// # Errors
/// [`AdaptError`]; what was done until then is in `folder`.
#[expect(
    clippy::too_many_arguments,
    reason = "a run has that many independent parts"
)]
pub fn fine_tune(
    teacher: &dyn CrossViewModel,
    pairs: &[Pair],
    truth: &Truth,
    config: &AdaptConfig,
    seed: u64,
    folder: Option<&RunFolder>,
    resume: bool,
    interrupt: &Interrupt,
) -> Result<(Box<dyn CrossViewModel>, Fitted), AdaptError> {
    config.check()?;
    let examples = supervised_examples(teacher.describe(), pairs, truth);
    let mut student = teacher.boxed_clone();
    let settings = FitConfig {
        loss: LossConfig {
            sigma_m: config.sigma_m,
            all_bins_at_first_level: config.all_bins_at_first_level,
            ..teacher.supervised().loss
        },
        ..config.fit(teacher.describe())
    };
    let fitted = fit(
        "oracle",
        student.as_mut(),
        &examples,
        &settings,
        seed,
        folder,
        resume,
        interrupt,
    )?;
    if fitted.interrupted {
        return Err(AdaptError::Interrupted("oracle"));
    }
    Ok((student, fitted))
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
