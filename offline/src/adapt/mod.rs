//! Adaptation to a new area without true positions: the recipe, one screen.
//!
//! The teacher labels every pair by the mode of its heatmap; an auxiliary student learns all
//! labels; labels that it disagrees with are dropped; the student, again from the teacher's
//! weights, learns the rest. Nothing here can be given a true position, except [`oracle`], which
//! measures what true positions would buy.
//!
//! Source: Adapting Fine-Grained Cross-View Localization to Areas without Fine Ground Truth
//! (Xia, Shi, Li, Kooij 2024).

pub mod config;
pub mod oracle;
pub mod outlier_filter;
pub mod pseudo_ground_truth;
#[cfg(test)]
mod tests;

pub use config::{AdaptConfig, HeadingLabels};
pub use outlier_filter::{Filtered, keep_closest};
pub use pseudo_ground_truth::{Label, label};

use crate::data::{Labelled, PairSource};
use crate::loss::PoseTarget;
use crate::model::weights::write_whole;
use crate::model::{CrossViewModel, ModelError};
use crate::predict::{PairPrediction, predict_source};
use crate::run::{Interrupt, RunFolder};
use crate::train::{Fitted, TrainError, fit_samples};
use serde_json::json;

/// Why adaptation stopped.
#[derive(Debug, thiserror::Error)]
pub enum AdaptError {
    /// Training or a file of the run.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The network.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Settings without meaning.
    #[error("{0}")]
    Settings(String),
    /// Asked to stop; everything done is saved.
    #[error("stopped on request in the {0}; the same command with --resume goes on")]
    Interrupted(&'static str),
}

/// What adaptation leaves.
pub struct Adapted {
    /// The teacher's label of each pair, in the pairs' order.
    pub labels: Vec<Label>,
    /// What the auxiliary student says, in the pairs' order.
    pub auxiliary_predictions: Vec<PairPrediction>,
    /// Distances between teacher and auxiliary student, and who was kept.
    pub filtered: Filtered,
    /// Trained on all labels.
    pub auxiliary: Box<dyn CrossViewModel>,
    /// Trained on the kept labels: the result.
    pub student: Box<dyn CrossViewModel>,
    /// How the two trainings went: auxiliary, student.
    pub fits: [Fitted; 2],
}

/// Adapts `teacher` to the area of `pairs`.
///
/// # Errors
/// [`AdaptError`]; what was done until then is in `folder`.
pub fn adapt(
    teacher: &dyn CrossViewModel,
    pairs: &dyn PairSource,
    config: &AdaptConfig,
    seed: u64,
    folder: Option<&RunFolder>,
    resume: bool,
    interrupt: &Interrupt,
) -> Result<Adapted, AdaptError> {
    config.check()?;
    // 1. Pseudo ground truth: the teacher's mode, nothing else of its heatmap.
    let labels = label(teacher.boxed_clone().as_mut(), pairs, config)?;
    let targets: Vec<(usize, PoseTarget)> = labels.iter().map(Label::target).enumerate().collect();
    let settings = config.fit(teacher.describe());
    let train = |name: &'static str, targets: &[(usize, PoseTarget)]| {
        let mut student = teacher.boxed_clone();
        let samples = Labelled {
            source: pairs,
            labels: targets,
            augmentation: &settings.augmentation,
            spec: teacher.describe(),
        };
        let fitted = fit_samples(
            name,
            student.as_mut(),
            &samples,
            &settings,
            seed,
            folder,
            resume,
            interrupt,
        )?;
        if fitted.interrupted {
            return Err(AdaptError::Interrupted(name));
        }
        Ok((student, fitted))
    };
    // 2. The auxiliary student learns every label; far from the teacher means wrong.
    let (mut auxiliary, first) = train("auxiliary", &targets)?;
    let auxiliary_predictions = predict_source(auxiliary.as_mut(), pairs)?;
    let distances = labels
        .iter()
        .zip(&auxiliary_predictions)
        .map(|(label, prediction)| label.distance_m(prediction, config.labels_within_prior));
    let filtered = keep_closest(distances.collect(), config.keep);
    if let Some(folder) = folder {
        write_labels(folder, &labels, &filtered)?;
    }
    // 3. The student, from the teacher's weights, learns the teacher's labels that were kept.
    let kept: Vec<(usize, PoseTarget)> = targets
        .iter()
        .zip(&filtered.kept)
        .filter_map(|(target, kept)| kept.then_some(*target))
        .collect();
    let (student, second) = train("student", &kept)?;
    Ok(Adapted {
        labels,
        auxiliary_predictions,
        filtered,
        auxiliary,
        student,
        fits: [first, second],
    })
}

/// One line for each pair: what the teacher said, how far the auxiliary student was, and whether
/// the label was kept.
fn write_labels(
    folder: &RunFolder,
    labels: &[Label],
    filtered: &Filtered,
) -> Result<(), TrainError> {
    let mut text = String::new();
    let filter = filtered.distances_m.iter().zip(&filtered.kept);
    for (label, (distance_m, kept)) in labels.iter().zip(filter) {
        let line = json!({ "label": label, "distance_m": distance_m, "kept": kept });
        text += &line.to_string();
        text.push('\n');
    }
    let path = folder.file("labels.jsonl");
    write_whole(&path, text.as_bytes()).map_err(|error| TrainError::Write {
        path: path.display().to_string(),
        error,
    })
}
