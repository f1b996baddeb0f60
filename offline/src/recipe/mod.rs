//! Adaptation to a new area without true positions. A recipe is a value: who labels the pairs,
//! which labels are kept, and how a student learns them.
//!
//! Of the recipe `paper`: the teacher labels every pair by the mode of its heatmap; an auxiliary
//! student learns all labels; labels that it disagrees with are dropped; the student, again from
//! the teacher's weights, learns the rest. Nothing here can be given a true position, except
//! [`oracle`], which measures what true positions would buy.
//!
//! Source: Adapting Fine-Grained Cross-View Localization to Areas without Fine Ground Truth
//! (Xia, Shi, Li, Kooij 2024).

pub mod ablations;
pub mod defaults;
pub mod filter;
pub mod labels;
pub mod oracle;
#[cfg(test)]
mod tests;

pub use filter::{Filter, keep_closest};
pub use labels::{HeadingLabels, Labeller, PseudoLabel, TeacherMode};

use crate::data::{Dataset, Labelled};
use crate::model::loss::PoseTarget;
use crate::model::weights::write_whole;
use crate::model::{CrossViewModel, ModelError};
use crate::predict::{PairPrediction, PredictError, predict};
use crate::run::{RunContext, RunFolder};
use crate::train::{FitConfig, Fitted, TrainError, fit};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Everything that fixes an adaptation but its teacher and data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Where labels come from.
    pub labeller: Labeller,
    /// Which labels are learned.
    pub filter: Filter,
    /// The training that auxiliary student and student go through.
    pub fit: FitConfig,
    /// Times that labelling and learning are done, each time with the student before as teacher.
    pub rounds: usize,
}

/// Why adaptation stopped.
#[derive(Debug, thiserror::Error)]
pub enum AdaptError {
    /// Training or a file of the run.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The network.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A recipe that cannot be followed.
    #[error("{0}")]
    Settings(String),
    /// Asked to stop; everything done is saved.
    #[error("stopped on request in the {0}; the same command with --resume goes on")]
    Interrupted(&'static str),
}

impl From<PredictError> for AdaptError {
    fn from(error: PredictError) -> Self {
        match error {
            PredictError::Model(error) => Self::Model(error),
            PredictError::Data(error) => Self::Train(TrainError::Data(error)),
            PredictError::Interrupted => Self::Interrupted("labelling"),
        }
    }
}

/// What adaptation leaves.
pub struct Adapted {
    /// The label of each pair, in the pairs' order; those not learned have weight 0.
    pub labels: Vec<PseudoLabel>,
    /// The auxiliary student, where the recipe filters with one.
    pub auxiliary: Option<Auxiliary>,
    /// The result.
    pub student: Box<dyn CrossViewModel>,
    /// How its training went.
    pub fit: Fitted,
}

/// The student that learned every label, and its predictions.
pub struct Auxiliary {
    /// The network.
    pub model: Box<dyn CrossViewModel>,
    /// Its predictions, in the pairs' order.
    pub predictions: Vec<PairPrediction>,
    /// Metres between label and its own mode, in the pairs' order.
    pub distances_m: Vec<f64>,
    /// How its training went.
    pub fit: Fitted,
}

impl Recipe {
    /// Refuses a recipe that cannot be followed.
    ///
    /// # Errors
    /// [`AdaptError::Settings`] naming the setting and its range.
    pub fn check(&self) -> Result<(), AdaptError> {
        let wrong = |what: String| Err(AdaptError::Settings(what));
        if let Filter::AuxiliaryStudent { keep } = self.filter
            && !(keep > 0.0 && keep <= 1.0)
        {
            return wrong(format!(
                "filter.keep is {keep}; it must be above 0 and at most 1"
            ));
        }
        if !(1..=20).contains(&self.rounds) {
            return wrong(format!("rounds is {}; it must be 1 to 20", self.rounds));
        }
        if self.labeller == Labeller::GroundTruth && self.filter != Filter::KeepAll {
            return wrong("true positions need no filter; set filter.kind to \"keep_all\"".into());
        }
        Ok(self.fit.check()?)
    }
}

impl Adapted {
    /// Share of labels learned.
    pub fn kept_fraction(&self) -> f64 {
        let kept = self.labels.iter().filter(|label| label.is_kept()).count();
        kept as f64 / self.labels.len().max(1) as f64
    }

    /// Seconds spent in training steps.
    pub fn training_seconds(&self) -> f64 {
        let auxiliary = self.auxiliary.as_ref();
        self.fit.seconds + auxiliary.map_or(0.0, |auxiliary| auxiliary.fit.seconds)
    }

    /// Training steps of this call.
    pub fn training_steps(&self) -> usize {
        let auxiliary = self.auxiliary.as_ref();
        self.fit.losses.len() + auxiliary.map_or(0, |auxiliary| auxiliary.fit.losses.len())
    }
}

/// Adapts `teacher` to the area of `pairs`, without true positions.
///
/// # Errors
/// [`AdaptError`]; what was done until then is in the run's folder.
pub fn adapt(
    teacher: &dyn CrossViewModel,
    pairs: &dyn Dataset,
    recipe: &Recipe,
    run: &RunContext,
) -> Result<Adapted, AdaptError> {
    recipe.check()?;
    let Labeller::TeacherMode(mode) = recipe.labeller else {
        return Err(AdaptError::Settings(
            "this recipe learns true positions; give them with --truth".into(),
        ));
    };
    let mut teacher = teacher.boxed_clone();
    for round in 1..recipe.rounds {
        let folder = run
            .folder
            .map(|folder| folder.subfolder(&format!("round-{round}")));
        let folder = folder
            .transpose()
            .map_err(|(path, error)| TrainError::Write { path, error })?;
        let run = RunContext {
            folder: folder.as_ref(),
            ..*run
        };
        let labels = mode.label(teacher.as_mut(), pairs, run.interrupt)?;
        teacher = learn("student", teacher.as_ref(), pairs, labels, recipe, &run)?.student;
    }
    let labels = mode.label(teacher.as_mut(), pairs, run.interrupt)?;
    learn("student", teacher.as_ref(), pairs, labels, recipe, run)
}

/// Filters labels and trains the student called `name` on what is left.
fn learn(
    name: &'static str,
    teacher: &dyn CrossViewModel,
    pairs: &dyn Dataset,
    mut labels: Vec<PseudoLabel>,
    recipe: &Recipe,
    run: &RunContext,
) -> Result<Adapted, AdaptError> {
    let train = |name: &'static str, labels: &[PseudoLabel]| {
        let kept = labels
            .iter()
            .enumerate()
            .filter(|(_, label)| label.is_kept());
        let targets: Vec<(usize, PoseTarget)> =
            kept.map(|(index, label)| (index, label.target())).collect();
        let mut student = teacher.boxed_clone();
        let examples = Labelled {
            dataset: pairs,
            labels: &targets,
            augmentation: &recipe.fit.augmentation,
            spec: teacher.describe(),
        };
        let fitted = fit(name, student.as_mut(), &examples, &recipe.fit, run)?;
        if fitted.interrupted {
            return Err(AdaptError::Interrupted(name));
        }
        Ok((student, fitted))
    };
    let mut auxiliary = None;
    if let (Filter::AuxiliaryStudent { keep }, Labeller::TeacherMode(mode)) =
        (recipe.filter, recipe.labeller)
    {
        // It learns every label; where it ends far from one, the label is taken for an outlier.
        let (mut model, fit) = train("auxiliary", &labels)?;
        let predictions = predict(model.as_mut(), pairs, false, run.interrupt)?;
        let both = labels.iter().zip(&predictions);
        let distances_m: Vec<f64> = both
            .map(|(label, prediction)| mode.distance_m(label, prediction))
            .collect();
        for (label, kept) in labels
            .iter_mut()
            .zip(keep_closest(&distances_m, keep, run.seed))
        {
            if !kept {
                label.weight = 0.0;
            }
        }
        auxiliary = Some(Auxiliary {
            model,
            predictions,
            distances_m,
            fit,
        });
    }
    if let Some(folder) = run.folder {
        write_labels(folder, name, &labels, auxiliary.as_ref())?;
    }
    let (student, fit) = train(name, &labels)?;
    Ok(Adapted {
        labels,
        auxiliary,
        student,
        fit,
    })
}

/// One line for each pair: its label, how far the auxiliary student was, whether it was learned.
fn write_labels(
    folder: &RunFolder,
    name: &str,
    labels: &[PseudoLabel],
    auxiliary: Option<&Auxiliary>,
) -> Result<(), TrainError> {
    let mut text = String::new();
    for (index, label) in labels.iter().enumerate() {
        let distance_m = auxiliary.map(|auxiliary| auxiliary.distances_m[index]);
        let line = json!({ "label": label, "distance_m": distance_m, "kept": label.is_kept() });
        text += &line.to_string();
        text.push('\n');
    }
    let file = match name {
        "student" => "labels.jsonl".to_string(),
        other => format!("{other}-labels.jsonl"),
    };
    let path = folder.file(&file);
    write_whole(&path, text.as_bytes()).map_err(|error| TrainError::Write {
        path: path.display().to_string(),
        error,
    })
}
