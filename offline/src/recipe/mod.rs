//! Adaptation to a new area without true positions. A recipe is a value: who labels the pairs,
//! which labels are kept, and how a student learns them.
//!
//! Of the recipe `paper`: the teacher labels every pair by the mode of its heatmap; an auxiliary
//! student learns all labels; labels that it disagrees with are dropped; the student, again from
//! the teacher's weights, learns the rest. Of the recipe `consensus`: the frames of a drive agree on
//! where the vehicle was ([`consensus`]), and a student learns that. A [`gate`] refuses what does not
//! fit and students that are no better than their teacher. Nothing here can be given a true position, except
//! [`oracle`], which measures what true positions would buy.
//!
//! Source: Adapting Fine-Grained Cross-View Localization to Areas without Fine Ground Truth
//! (Xia, Shi, Li, Kooij 2024).

pub mod ablations;
pub mod consensus;
pub mod defaults;
pub mod filter;
pub mod gate;
pub mod headings;
pub mod heatmap_fit;
pub mod labels;
mod learn;
pub mod oracle;
pub mod pupil;
#[cfg(test)]
mod tests;
mod views;

pub use consensus::{Consensus, Evidence};
pub use filter::{Filter, closeness, keep_closest};
pub use gate::{Gate, Verdict};
pub use heatmap_fit::{FittedBy, HeatmapFit};
pub use labels::{
    CoarsePrior, HeadingLabels, Labeller, PseudoLabel, TeacherMode, TruePositions, predict_modes,
};
use learn::learn;
pub use pupil::Pupil;

use crate::data::{Dataset, Subset};
use crate::model::{CrossViewModel, ModelError, ModelSpec};
use crate::predict::{PairPrediction, PredictError};
use crate::run::{Interrupt, RunContext};
use crate::shard::Answer;
use crate::train::{FitConfig, Fitted, TrainError};
use serde::{Deserialize, Serialize};

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
    /// When an area, a teacher or a student is refused.
    #[serde(default)]
    pub gate: Gate,
    /// The student's own training where it is another network than its teacher ([`Pupil`]); an auxiliary student
    /// goes through `fit` all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub student: Option<FitConfig>,
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
    /// The gate refused before anything was trained.
    #[error("refused before training:\n{0}\n--force adapts all the same")]
    Refused(Verdict),
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
    /// What the labels rest on, where they were made from drives.
    pub evidence: Option<Evidence>,
    /// What the gate found.
    pub verdict: Verdict,
    /// The auxiliary student, where the recipe filters with one.
    pub auxiliary: Option<Auxiliary>,
    /// The result.
    pub student: Box<dyn CrossViewModel>,
    /// How its training went.
    pub fit: Fitted,
    /// What its heatmaps are worth, where drives tell that it did not learn.
    pub heatmaps: Option<HeatmapFit>,
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
        let (name, keep) = match self.filter {
            Filter::AuxiliaryStudent { keep, .. } | Filter::LowestEntropy { keep } => {
                ("keep", keep)
            }
            Filter::Support { keep_alone, .. } => ("keep_alone", keep_alone),
            Filter::KeepAll
            | Filter::FuseWithAuxiliary
            | Filter::WeighByAuxiliaryStudent { .. } => ("", 1.0),
        };
        if !(keep > 0.0 && keep <= 1.0) {
            return wrong(format!(
                "filter.{name} is {keep}; it must be above 0 and at most 1"
            ));
        }
        if let Filter::AuxiliaryStudent {
            keep_first: Some(first),
            ..
        } = self.filter
        {
            if !(first > 0.0 && first <= 1.0) {
                return wrong(format!(
                    "filter.keep_first is {first}; it must be above 0 and at most 1"
                ));
            }
            // These count epochs of equally many labels.
            let trained = [("fit", Some(&self.fit)), ("student", self.student.as_ref())];
            for (name, fit) in trained {
                if fit.is_some_and(|fit| fit.steps.is_some() || fit.counts_epochs()) {
                    return wrong(format!(
                        "filter.keep_first changes the labels of each epoch; leave {name}.steps away, set {name}.fresh_moments to false and {name}.decay to \"constant\", \"linear_to_zero\" or \"cosine\""
                    ));
                }
            }
        }
        if let Filter::Support { least, .. } = self.filter {
            if !(0.0..1.0).contains(&least) {
                return wrong(format!("filter.least is {least}; it must be 0 to below 1"));
            }
            if !matches!(self.labeller, Labeller::Consensus(_)) {
                return wrong("only labels of kind \"consensus\" have support to filter by".into());
            }
        }
        if let Filter::WeighByAuxiliaryStudent { sigma_m } = self.filter
            && !(sigma_m > 0.0 && sigma_m <= 1000.0)
        {
            return wrong(format!(
                "filter.sigma_m is {sigma_m}; it must be above 0 and at most 1000"
            ));
        }
        if let Labeller::Consensus(consensus) = self.labeller {
            consensus.check().map_err(AdaptError::Settings)?;
        }
        self.gate.check().map_err(AdaptError::Settings)?;
        if !(1..=20).contains(&self.rounds) {
            return wrong(format!("rounds is {}; it must be 1 to 20", self.rounds));
        }
        if let Labeller::GroundTruth(positions) = self.labeller {
            if self.filter != Filter::KeepAll {
                let what = "true positions need no filter; set filter.kind to \"keep_all\"";
                return wrong(what.into());
            }
            if !(0.0..=100.0).contains(&positions.noise_m) {
                let noise_m = positions.noise_m;
                return wrong(format!(
                    "labeller.noise_m is {noise_m}; it must be 0 to 100"
                ));
            }
        }
        if let Labeller::TeacherMode(mode) | Labeller::TeacherHeatmap(mode) = self.labeller
            && mode.prior == CoarsePrior::Multiplied
            && mode.heading == HeadingLabels::Teacher
        {
            let what = "labels of a heatmap multiplied with the coarse position have no heading of the teacher; set labeller.heading to \"given\"";
            return wrong(what.into());
        }
        if let Labeller::TeacherMode(mode) | Labeller::TeacherHeatmap(mode) = self.labeller {
            if ![1, 4].contains(&mode.views) {
                return wrong(format!(
                    "labeller.views is {}; it must be 1 or 4",
                    mode.views
                ));
            }
            let temperature = mode.temperature;
            if !(0.01..=100.0).contains(&temperature) {
                return wrong(format!(
                    "labeller.temperature is {temperature}; it must be 0.01 to 100"
                ));
            }
            if temperature != 1.0 {
                let Labeller::TeacherHeatmap(_) = self.labeller else {
                    let what = "a mode is the same at any labeller.temperature; set it to 1, or labeller.kind to \"teacher_heatmap\"";
                    return wrong(what.into());
                };
            }
            if mode.views > 1 && mode.heading == HeadingLabels::Teacher {
                let what = "the mean of several views' heatmaps has no heading of the teacher; set labeller.heading to \"given\"";
                return wrong(what.into());
            }
        }
        if let Some(student) = &self.student {
            student.check()?;
        }
        if self.filter == Filter::FuseWithAuxiliary {
            let Labeller::TeacherMode(mode) = self.labeller else {
                return wrong("only labels by mode can be fused with an auxiliary student".into());
            };
            if mode.prior != CoarsePrior::Ignored {
                let what =
                    "labels are fused over the whole image; set labeller.prior to \"ignored\"";
                return wrong(what.into());
            }
        }
        if let Labeller::TeacherHeatmap(mode) = self.labeller {
            if mode.prior != CoarsePrior::Ignored {
                let what =
                    "whole heatmaps are learned as they are; set labeller.prior to \"ignored\"";
                return wrong(what.into());
            }
            let trained = [("fit", Some(&self.fit)), ("student", self.student.as_ref())];
            for (name, fit) in trained {
                let moves = fit.map(|fit| &fit.augmentation);
                if moves.is_some_and(|moves| moves.symmetries || moves.crop_jitter_m > 0.0) {
                    return wrong(format!(
                        "whole heatmaps as labels cannot be mirrored or cut elsewhere; set {name}.augmentation.symmetries to false and crop_jitter_m to 0"
                    ));
                }
            }
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

impl Clone for Auxiliary {
    fn clone(&self) -> Self {
        Self {
            model: self.model.boxed_clone(),
            predictions: self.predictions.clone(),
            distances_m: self.distances_m.clone(),
            fit: self.fit.clone(),
        }
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
    adapt_sharing(teacher, pairs, None, recipe, run, &mut Shared::default())
}

/// What was computed before, for an adaptation that would compute the same.
#[derive(Default)]
pub struct Shared {
    /// The auxiliary student of the recipe before, and what it was trained by.
    auxiliary: Option<(String, Auxiliary)>,
    /// The teacher's answers for the first labels.
    answers: Option<Vec<Answer>>,
}

impl Shared {
    /// For one adaptation whose teacher answered already ([`answers`]), for each of its pairs.
    pub fn answered(answers: Vec<Answer>) -> Self {
        Self {
            answers: Some(answers),
            ..Self::default()
        }
    }

    fn answers(
        &mut self,
        recipe: &Recipe,
        teacher: &mut dyn CrossViewModel,
        pairs: &dyn Dataset,
        run: &RunContext,
    ) -> Result<Vec<Answer>, AdaptError> {
        match self.answers.take() {
            Some(answers) if answers.len() == pairs.len() => Ok(answers),
            Some(answers) => Err(AdaptError::Settings(format!(
                "{} answers for {} pairs",
                answers.len(),
                pairs.len()
            ))),
            None => answers(&recipe.labeller, teacher, pairs, run.interrupt),
        }
    }
}

/// As [`adapt`], for several recipes one after another on the same teacher and pairs: an auxiliary student is
/// trained once for all that differ in their filter alone. The result has the same bits. The student is a
/// [`Pupil`] where one is given, and a copy of the teacher otherwise; so are those of the rounds before the last.
///
/// # Errors
/// As [`adapt`].
pub fn adapt_sharing(
    teacher: &dyn CrossViewModel,
    pairs: &dyn Dataset,
    pupil: Option<Pupil>,
    recipe: &Recipe,
    run: &RunContext,
    shared: &mut Shared,
) -> Result<Adapted, AdaptError> {
    recipe.check()?;
    if recipe.labeller.needs_truth() {
        return Err(AdaptError::Settings(
            "this recipe learns true positions; give them with --truth".into(),
        ));
    }
    let mut verdict = gate::input(pairs, teacher.describe(), &recipe.gate);
    if let Some(pupil) = pupil {
        pupil.check(teacher.describe(), pairs, &recipe.labeller)?;
        let of_student = gate::input(pupil.pairs, pupil.model.describe(), &recipe.gate);
        let refused = |finding: &gate::Finding| finding.refuses;
        verdict.extend(of_student.findings.into_iter().filter(refused));
    }
    if verdict.refuses() && recipe.gate.enforce {
        return Err(AdaptError::Refused(verdict));
    }
    let mut teacher = teacher.boxed_clone();
    // Where the teacher that was given puts each pair; those of later rounds are students.
    let mut given_peaks: Option<Vec<[f64; 2]>> = None;
    let judge_teacher = |found: &Found, verdict: &mut Verdict| {
        let Some(evidence) = &found.evidence else {
            return Ok(());
        };
        crate::note!("{}", evidence.describe());
        verdict.extend(gate::teacher(evidence, &recipe.gate));
        if verdict.refuses() && recipe.gate.enforce {
            return Err(AdaptError::Refused(verdict.clone()));
        }
        Ok(())
    };
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
        let answers = shared.answers(recipe, teacher.as_mut(), pairs, &run)?;
        let mut found = label(&recipe.labeller, teacher.describe(), pairs, answers)?;
        judge_teacher(&found, &mut verdict)?;
        given_peaks.get_or_insert_with(|| found.labels.iter().map(|label| label.peak_m).collect());
        // No round learns the drives that the last one is judged on.
        for index in gate::held_out(pairs, &found, &recipe.gate, run.seed) {
            found.labels[index].weight = 0.0;
        }
        teacher = learn(
            "student",
            teacher.as_ref(),
            pairs,
            None,
            found,
            recipe,
            &run,
            shared,
        )?
        .student;
    }
    let answers = shared.answers(recipe, teacher.as_mut(), pairs, run)?;
    let found = label(&recipe.labeller, teacher.describe(), pairs, answers)?;
    judge_teacher(&found, &mut verdict)?;
    let held_out = gate::held_out(pairs, &found, &recipe.gate, run.seed);
    let drives = found.evidence.as_ref();
    if held_out.is_empty()
        && recipe.gate.held_out > 0.0
        && drives.is_some_and(|evidence| !evidence.stands_alone())
    {
        crate::note!(
            "fewer than 3 drives of {} frames or more: none is held back, and the student is not judged without true positions (--test)",
            gate::LEAST_FRAMES
        );
    }
    let mut places = found.labels.clone();
    for (label, peak_m) in places.iter_mut().zip(given_peaks.into_iter().flatten()) {
        label.peak_m = peak_m;
    }
    let mut learned = found;
    for index in &held_out {
        learned.labels[*index].weight = 0.0;
    }
    let mut adapted = learn(
        "student",
        teacher.as_ref(),
        pairs,
        pupil,
        learned,
        recipe,
        run,
        shared,
    )?;
    if !held_out.is_empty() {
        let student = adapted.student.as_mut();
        let (pairs, places) = match pupil {
            Some(pupil) => (pupil.pairs, pupil.labels(pairs, &places)),
            None => (pairs, places),
        };
        let finding = gate::student(student, pairs, &places, &held_out, &recipe.gate, run);
        verdict.extend([finding?]);
    }
    if let (Labeller::Consensus(consensus), Some(evidence)) = (&recipe.labeller, &adapted.evidence)
        && !evidence.stands_alone()
        && !held_out.is_empty()
    {
        let pairs = pupil.map_or(pairs, |pupil| pupil.pairs);
        let part = Subset {
            dataset: pairs,
            samples: &held_out,
        };
        let student = adapted.student.as_mut();
        adapted.heatmaps = heatmap_fit::by_drives(student, &part, consensus, run.interrupt)?;
    }
    adapted.verdict = verdict;
    Ok(adapted)
}

/// Labels, and what they rest on.
#[derive(Debug, Clone)]
pub struct Found {
    /// In the pairs' order.
    pub labels: Vec<PseudoLabel>,
    /// Where drives were used.
    pub evidence: Option<Evidence>,
}

impl Found {
    /// Labels without evidence of drives.
    pub fn of(labels: Vec<PseudoLabel>) -> Self {
        Self {
            labels,
            evidence: None,
        }
    }
}

/// What `teacher` answers for each of `pairs`, as far as a labeller asks.
///
/// # Errors
/// [`AdaptError`] when a pair cannot be read or does not fit the teacher, on request, or where labels are
/// true positions.
pub fn answers(
    labeller: &Labeller,
    teacher: &mut dyn CrossViewModel,
    pairs: &dyn Dataset,
    interrupt: &Interrupt,
) -> Result<Vec<Answer>, AdaptError> {
    Ok(match labeller {
        Labeller::TeacherMode(mode) | Labeller::TeacherHeatmap(mode) => {
            let whole = matches!(labeller, Labeller::TeacherHeatmap(_));
            let predictions = predict_modes(teacher, pairs, *mode, whole, interrupt)?;
            let predictions = predictions.into_iter();
            let answer = |prediction| Answer {
                prediction,
                map: None,
            };
            predictions.map(answer).collect()
        }
        Labeller::Consensus(_) => consensus::answers(teacher, pairs, interrupt)?,
        Labeller::GroundTruth(_) => {
            let what = "labels that are true positions ask no network";
            return Err(AdaptError::Settings(what.into()));
        }
    })
}

/// Labels `pairs` by what the teacher answered for them.
fn label(
    labeller: &Labeller,
    spec: &ModelSpec,
    pairs: &dyn Dataset,
    answers: Vec<Answer>,
) -> Result<Found, AdaptError> {
    Ok(match labeller {
        Labeller::TeacherMode(mode) | Labeller::TeacherHeatmap(mode) => {
            let predictions = answers.into_iter().map(|answer| answer.prediction);
            Found::of(mode.label_by(spec, pairs, &predictions.collect::<Vec<_>>()))
        }
        Labeller::Consensus(consensus) => consensus.label_by(spec, pairs, answers)?,
        Labeller::GroundTruth(_) => {
            return Err(AdaptError::Settings("no truth is given here".into()));
        }
    })
}
