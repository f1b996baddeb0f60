//! The learning inside an adaptation: labels are filtered, by an auxiliary student where the recipe asks one, and a
//! student learns what is left.

use super::filter::{epochs_of, nearest_first};
use super::{
    AdaptError, Adapted, Auxiliary, CoarsePrior, Evidence, Filter, Found, PseudoLabel, Pupil,
    Recipe, Shared, Verdict, closeness, defaults, keep_closest, predict_modes,
};
use crate::data::{Dataset, Labelled};
use crate::model::loss::PoseTarget;
use crate::model::{CrossViewModel, ModelSpec};
use crate::predict::{PairPrediction, from_heatmap};
use crate::run::{RunContext, RunFolder, sha256_json};
use crate::train::{FitConfig, Fitted, TrainError, fit};
use serde_json::json;

/// The share of labels that an auxiliary student shall keep, where one filters.
fn auxiliary_keeps(recipe: &Recipe, found: &Found) -> Option<f64> {
    match recipe.filter {
        Filter::KeepAll | Filter::LowestEntropy { .. } => None,
        Filter::AuxiliaryStudent { keep, keep_first } => {
            Some(keep_first.map_or(keep, |first| first.max(keep)))
        }
        Filter::FuseWithAuxiliary | Filter::WeighByAuxiliaryStudent { .. } => Some(1.0),
        Filter::Support { keep_alone, .. } => {
            let alone = found.evidence.as_ref().is_none_or(Evidence::stands_alone);
            alone.then_some(keep_alone)
        }
    }
}

/// Filters labels and trains the student called `name` on what is left: `pupil`, or a copy of the teacher.
#[expect(
    clippy::too_many_arguments,
    reason = "what is learned, from what, and by whom"
)]
pub(super) fn learn(
    name: &'static str,
    teacher: &dyn CrossViewModel,
    pairs: &dyn Dataset,
    pupil: Option<Pupil>,
    found: Found,
    recipe: &Recipe,
    run: &RunContext,
    shared: &mut Shared,
) -> Result<Adapted, AdaptError> {
    let keep = auxiliary_keeps(recipe, &found);
    let Found {
        mut labels,
        evidence,
    } = found;
    if let (Filter::Support { least, .. }, None) = (recipe.filter, keep) {
        for label in &mut labels {
            let supported = label.support >= least && label.weight > 0.0;
            label.weight = if supported { label.support } else { 0.0 };
        }
        let highest = labels.iter().map(|label| label.support).fold(0.0, f64::max);
        if !labels.iter().any(PseudoLabel::is_kept) {
            return Err(AdaptError::Settings(format!(
                "no label has a support of {least} (the highest has {highest:.2}): the teacher finds too little here; lower filter.least to learn what there is"
            )));
        }
    }
    if let Filter::LowestEntropy { keep } = recipe.filter {
        let entropies: Vec<f64> = labels.iter().map(|label| label.entropy).collect();
        keep_share(&mut labels, &entropies, keep, run.seed);
    }
    let one = 1.0f64.to_bits();
    let weighs = |label: &PseudoLabel| label.is_kept() && label.weight.to_bits() != one;
    let mut config = recipe.fit.clone();
    if let (Filter::Support { .. }, Some(_)) = (recipe.filter, keep) {
        // Labels of frames that stand alone are as noisy as the paper's, and learned as gently.
        config = as_in_paper(config, teacher.describe());
    }
    config.loss.weighted |= labels.iter().any(weighs);
    let mut auxiliary = None;
    if let Some(keep) = keep {
        // It learns every label; where it ends far from one, the label is taken for an outlier.
        let mode = recipe.labeller.mode();
        let fuses = recipe.filter == Filter::FuseWithAuxiliary;
        // The labels carry the teacher in the last bit of their peaks: another round has another one.
        let same = sha256_json(&(recipe.labeller, &config, run.seed, fuses, &labels));
        let learned = match shared.auxiliary.take() {
            Some((key, learned)) if key == same => learned,
            _ => {
                let copy = Pupil {
                    model: teacher,
                    pairs,
                };
                let (mut model, fit) = train("auxiliary", copy, &labels, None, &config, run)?;
                let predictions = predict_modes(model.as_mut(), pairs, mode, fuses, run.interrupt)?;
                let both = labels.iter().zip(&predictions);
                let distances_m = both.map(|(label, found)| label.distance_m(found, mode.prior));
                Auxiliary {
                    distances_m: distances_m.collect(),
                    model,
                    predictions,
                    fit,
                }
            }
        };
        if fuses {
            let mut teacher = teacher.boxed_clone();
            let of_teacher = predict_modes(teacher.as_mut(), pairs, mode, true, run.interrupt)?;
            fuse(
                &mut labels,
                [&of_teacher, &learned.predictions],
                pairs,
                teacher.describe(),
            );
        } else if let Filter::WeighByAuxiliaryStudent { sigma_m } = recipe.filter {
            for (label, distance_m) in labels.iter_mut().zip(&learned.distances_m) {
                label.weight *= closeness(*distance_m, sigma_m);
            }
            if !labels.iter().any(PseudoLabel::is_kept) {
                return Err(AdaptError::Settings(format!(
                    "no label is within three times filter.sigma_m of the auxiliary student's mode ({sigma_m} m); raise it"
                )));
            }
            config.loss.weighted |= labels.iter().any(weighs);
        } else {
            keep_share(&mut labels, &learned.distances_m, keep, run.seed);
        }
        shared.auxiliary = Some((same, learned.clone()));
        auxiliary = Some(learned);
    }
    let by_epoch = match (recipe.filter, &auxiliary) {
        (
            Filter::AuxiliaryStudent {
                keep,
                keep_first: Some(first),
            },
            Some(auxiliary),
        ) => {
            // Shares of the labels that are kept in any epoch.
            let most = first.max(keep);
            Some(ByEpoch {
                order: nearest_first(&auxiliary.distances_m, run.seed),
                shares: [first / most, keep / most],
            })
        }
        _ => None,
    };
    if let Some(folder) = run.folder {
        write_labels(folder, name, &labels, auxiliary.as_ref())?;
    }
    let (student, fit) = match pupil {
        None => {
            let copy = Pupil {
                model: teacher,
                pairs,
            };
            train(name, copy, &labels, by_epoch.as_ref(), &config, run)?
        }
        Some(pupil) => {
            let mut own = recipe.student.clone().unwrap_or_else(|| config.clone());
            own.loss.weighted |= labels.iter().any(weighs);
            let carried = pupil.labels(pairs, &labels);
            let is_lost = |(before, after): &(&PseudoLabel, &PseudoLabel)| {
                before.is_kept() && !after.is_kept()
            };
            let lost = labels.iter().zip(&carried).filter(is_lost).count();
            if lost > 0 {
                crate::note!("{lost} labels lie outside the student's heatmap and are not learned");
            }
            train(name, pupil, &carried, by_epoch.as_ref(), &own, run)?
        }
    };
    Ok(Adapted {
        labels,
        evidence,
        verdict: Verdict::default(),
        auxiliary,
        student,
        fit,
        heatmaps: None,
    })
}

/// A training by `paper`'s learning rate, loss and augmentation, but for what differs from the defaults of
/// `consensus`: that was asked for.
fn as_in_paper(config: FitConfig, spec: &ModelSpec) -> FitConfig {
    let paper = defaults::paper(spec).fit;
    let default = defaults::consensus(spec).fit;
    let mut changed = Vec::new();
    let mut fit = config.clone();
    if config.learning_rate.to_bits() == default.learning_rate.to_bits() {
        fit.learning_rate = config.learning_rate.min(paper.learning_rate);
        changed.push(format!("learning_rate {}", fit.learning_rate));
    }
    if config.loss == default.loss {
        fit.loss = paper.loss;
        changed.push("loss".into());
    }
    if config.augmentation == default.augmentation {
        fit.augmentation = paper.augmentation;
        changed.push("augmentation".into());
    }
    if !changed.is_empty() {
        crate::note!("of fit, as in `paper`: {}", changed.join(", "));
    }
    fit
}

/// Labels of which each epoch learns another share.
struct ByEpoch {
    /// All labels, the nearest to the auxiliary student first.
    order: Vec<usize>,
    /// Shares of the labels kept, of the first epoch and of the last.
    shares: [f64; 2],
}

/// Trains a copy of a network on the labels that are kept.
fn train(
    name: &'static str,
    pupil: Pupil,
    labels: &[PseudoLabel],
    by_epoch: Option<&ByEpoch>,
    config: &FitConfig,
    run: &RunContext,
) -> Result<(Box<dyn CrossViewModel>, Fitted), AdaptError> {
    let all: Vec<usize> = match by_epoch {
        Some(by_epoch) => by_epoch.order.clone(),
        None => (0..labels.len()).collect(),
    };
    let kept = all.into_iter().filter(|index| labels[*index].is_kept());
    let targets: Vec<(usize, PoseTarget)> =
        kept.map(|index| (index, labels[index].target())).collect();
    let epochs = by_epoch.map_or(Vec::new(), |by_epoch| {
        let [first, last] = by_epoch.shares;
        epochs_of(targets.len(), config.epochs, first, last)
    });
    let mut student = pupil.model.boxed_clone();
    let examples = Labelled {
        dataset: pupil.pairs,
        labels: &targets,
        epochs: &epochs,
        augmentation: &config.augmentation,
        spec: pupil.model.describe(),
    };
    let fitted = fit(name, student.as_mut(), &examples, config, run)?;
    if fitted.interrupted {
        return Err(AdaptError::Interrupted(name));
    }
    Ok((student, fitted))
}

/// Keeps the share of the labels still learned whose values are smallest, and sets the weight of the others to 0.
/// What was held out before takes no part.
fn keep_share(labels: &mut [PseudoLabel], values: &[f64], share: f64, seed: u64) {
    let (learned, of_learned): (Vec<usize>, Vec<f64>) = labels
        .iter()
        .zip(values)
        .enumerate()
        .filter(|(_, (label, _))| label.is_kept())
        .map(|(index, (_, value))| (index, *value))
        .unzip();
    for (index, kept) in learned.iter().zip(keep_closest(&of_learned, share, seed)) {
        if !kept {
            labels[*index].weight = 0.0;
        }
    }
}

/// Moves each label to the mode of the product of two models' heatmaps, as likely in both.
fn fuse(
    labels: &mut [PseudoLabel],
    [teacher, auxiliary]: [&[PairPrediction]; 2],
    pairs: &dyn Dataset,
    spec: &ModelSpec,
) {
    for (index, label) in labels.iter_mut().enumerate() {
        let (Some(ours), Some(theirs)) = (&teacher[index].heatmap, &auxiliary[index].heatmap)
        else {
            continue;
        };
        let product: Vec<f32> = ours.iter().zip(theirs).map(|(a, b)| a * b).collect();
        let sum: f32 = product.iter().sum();
        if sum > 0.0 {
            let product: Vec<f32> = product.iter().map(|value| value / sum).collect();
            let found = from_heatmap(&product, |_| None, pairs.sample(index), spec, false);
            label.move_to(&found, CoarsePrior::Ignored);
        }
    }
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
    folder
        .write(&file, text.as_bytes())
        .map_err(|error| TrainError::Write {
            path: folder.file(&file).display().to_string(),
            error,
        })
}
