//! Pseudo ground truth: where a labeller says the camera is, and how much that counts.

use super::consensus::Consensus;
use super::headings::{UNKNOWN_RAD, direction, predict_near, searches_all};
use super::views;
use crate::data::{Dataset, Sample};
use crate::model::loss::PoseTarget;
use crate::model::{CrossViewModel, ModelSpec};
use crate::predict::{PairPrediction, PredictError, from_heatmap, times_prior};
use crate::run::Interrupt;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Where labels come from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Labeller {
    /// The mode of the teacher's heatmap; the rest of the heatmap is thrown away.
    TeacherMode(TeacherMode),
    /// The teacher's heatmap itself, scaled to a maximum of 1: the paper's baseline without modes. Keeps
    /// a heatmap of each pair in memory.
    TeacherHeatmap(TeacherMode),
    /// Where the frames of a drive agree that the vehicle was, by the teacher's heatmaps, odometry and
    /// coarse positions.
    Consensus(Consensus),
    /// True positions, which only [`super::oracle`] can read: the upper bound.
    GroundTruth(TruePositions),
}

impl Labeller {
    /// Whether it cannot label without true positions.
    pub fn needs_truth(&self) -> bool {
        matches!(self, Self::GroundTruth(_))
    }

    /// How a heatmap's mode is taken: also that of an auxiliary student.
    pub fn mode(&self) -> TeacherMode {
        match self {
            Self::TeacherMode(mode) | Self::TeacherHeatmap(mode) => *mode,
            Self::Consensus(_) | Self::GroundTruth(_) => TeacherMode::default(),
        }
    }
}

/// True positions as labels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TruePositions {
    /// Each label is displaced east and north by independent errors, uniform within plus and minus this
    /// many metres.
    #[serde(default)]
    pub noise_m: f64,
}

/// How the teacher's heatmap becomes a label: the centre of its largest cell, as published.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherMode {
    /// What the coarse position does before the mode is taken.
    pub prior: CoarsePrior,
    /// Where the labels' orientation comes from.
    pub heading: HeadingLabels,
    /// Views of each pair whose heatmaps are averaged, 1 or 4: the aerial image turned by quarters, the panorama rolled
    /// with it. For networks that see the whole circle near a given heading.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub views: usize,
    /// Labels that are whole heatmaps are these to the power of one over this, so that below 1 they are sharper. Modes are
    /// the same at any.
    #[serde(default = "unchanged", skip_serializing_if = "is_unchanged")]
    pub temperature: f64,
}

impl Default for TeacherMode {
    /// As published.
    fn default() -> Self {
        Self {
            prior: CoarsePrior::Ignored,
            heading: HeadingLabels::Given,
            views: 1,
            temperature: 1.0,
        }
    }
}

fn unchanged() -> f64 {
    1.0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_unchanged(temperature: &f64) -> bool {
    temperature.to_bits() == 1.0f64.to_bits()
}

fn one() -> usize {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_one(views: &usize) -> bool {
    *views == 1
}

/// What a pair's coarse position does to a heatmap before its mode is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CoarsePrior {
    /// Nothing, as published.
    Ignored,
    /// Cells outside its 99 % ellipse don't count.
    Ellipse,
    /// Cells are multiplied with its Gaussian.
    Multiplied,
}

/// Where the labels' orientation comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadingLabels {
    /// The heading that came with the pair is right; of pairs that have none a network that searches all takes the
    /// one at which its mode matches best.
    Given,
    /// The teacher's orientation at its mode.
    Teacher,
}

/// The label of one pair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PseudoLabel {
    /// The pair.
    pub id: String,
    /// Heatmap column, cell centres at +0.5.
    pub column: f64,
    /// Heatmap row, cell centres at +0.5.
    pub row: f64,
    /// Metres east and north of the patch centre.
    pub offset_m: [f64; 2],
    /// Yaw residual, radians counter-clockwise ([`PoseTarget::residual_rad`]).
    pub residual_rad: f64,
    /// The teacher's mode between cells, metres east and north of the patch centre: what the filter
    /// measures distances from.
    pub peak_m: [f64; 2],
    /// Probability of the heatmap's largest cell; 0 where no heatmap made the label.
    pub peak: f64,
    /// Entropy of the heatmap, nats; 0 where no heatmap made the label.
    pub entropy: f64,
    /// Probability that the label is right within a metre or two, by the drive's evidence; 1 where
    /// nothing tells.
    pub support: f64,
    /// Weight in the loss, 0 for a label that is not learned.
    pub weight: f64,
    /// The whole heatmap, its maximum 1, where that is what is learned.
    #[serde(skip)]
    pub map: Option<Arc<[f32]>>,
}

impl PseudoLabel {
    /// What a student learns from it.
    pub fn target(&self) -> PoseTarget {
        PoseTarget {
            column: self.column,
            row: self.row,
            residual_rad: self.residual_rad,
            weight: self.weight,
            map: self.map.clone(),
        }
    }

    /// Metres between the teacher's mode and that of another model's prediction of the same pair, both
    /// taken between cells and in the same way ([`predict_modes`]). Whole cells would make most distances
    /// 0 or 1 cell, and a filter would cut among equal ones.
    pub fn distance_m(&self, prediction: &PairPrediction, prior: CoarsePrior) -> f64 {
        let [east, north] = Mode::of(prediction, prior).peak_m;
        (east - self.peak_m[0]).hypot(north - self.peak_m[1])
    }

    /// Moves the label to another place of the heatmap.
    pub(super) fn move_to(&mut self, prediction: &PairPrediction, prior: CoarsePrior) {
        let mode = Mode::of(prediction, prior);
        self.column = mode.cell[0] as f64 + 0.5;
        self.row = mode.cell[1] as f64 + 0.5;
        self.offset_m = mode.offset_m;
        self.peak_m = mode.peak_m;
        self.peak = prediction.peak;
        self.entropy = prediction.entropy;
    }

    /// Whether a student learns it.
    pub fn is_kept(&self) -> bool {
        self.weight > 0.0
    }
}

/// Predictions of pairs whose masked mode is the one that `mode.prior` leads to, in as many views; each with its heatmap where
/// that is asked for.
///
/// # Errors
/// As [`predict`](crate::predict::predict), and where the network cannot be asked in several views.
pub fn predict_modes(
    model: &mut dyn CrossViewModel,
    pairs: &dyn Dataset,
    mode: TeacherMode,
    keep_heatmaps: bool,
    interrupt: &Interrupt,
) -> Result<Vec<PairPrediction>, PredictError> {
    let spec = model.describe().clone();
    views::check(mode.views, &spec)?;
    let keep = |sample: &Sample, mut prediction: PairPrediction, heatmap: &[f32]| {
        if mode.prior == CoarsePrior::Multiplied {
            let posterior = times_prior(heatmap, sample, &spec);
            let found = from_heatmap(&posterior, |_| None, sample, &spec, false);
            prediction.masked_mode_m = found.mode_m;
            prediction.masked_mode_cell = found.mode_cell;
            prediction.masked_peak_m = found.peak_m;
            prediction.masked_residual_rad = None;
        }
        prediction.heatmap = keep_heatmaps.then(|| heatmap.to_vec());
        Ok(prediction)
    };
    if mode.views > 1 {
        return views::predict_turned(model, pairs, mode.views, interrupt, keep);
    }
    predict_near(model, pairs, interrupt, keep)
}

impl TeacherMode {
    /// Labels `pairs` with the teacher in evaluation mode, each with weight 1; with `whole`, by its
    /// heatmap instead of the mode.
    ///
    /// # Errors
    /// [`PredictError`] when a pair cannot be read or does not fit the teacher, or on request.
    pub fn label(
        &self,
        teacher: &mut dyn CrossViewModel,
        pairs: &dyn Dataset,
        whole: bool,
        interrupt: &Interrupt,
    ) -> Result<Vec<PseudoLabel>, PredictError> {
        let predictions = predict_modes(teacher, pairs, *self, whole, interrupt)?;
        Ok(self.label_by(teacher.describe(), pairs, &predictions))
    }

    /// As [`TeacherMode::label`], by what the teacher predicted for each of `pairs`
    /// ([`predict_modes`]).
    pub fn label_by(
        &self,
        spec: &ModelSpec,
        pairs: &dyn Dataset,
        predictions: &[PairPrediction],
    ) -> Vec<PseudoLabel> {
        let prior = spec.orientation_prior.filter(|_| !spec.finds_heading());
        // An angle beyond the prior has no bin to learn; the nearest inside has.
        let widest_rad = prior.map_or(f64::INFINITY, |n| n.max(1) as f64 * spec.bin_rad());
        let labels = predictions.iter().enumerate().map(|(index, prediction)| {
            let mode = Mode::of(prediction, self.prior);
            PseudoLabel {
                id: pairs.sample(index).id.clone(),
                column: mode.cell[0] as f64 + 0.5,
                row: mode.cell[1] as f64 + 0.5,
                offset_m: mode.offset_m,
                residual_rad: {
                    let sample = pairs.sample(index);
                    let is_unknown = sample.yaw_sigma_rad > UNKNOWN_RAD && searches_all(spec);
                    let inside =
                        |found: Option<f64>| found.unwrap_or(0.0).clamp(-widest_rad, widest_rad);
                    match self.heading {
                        HeadingLabels::Given if !is_unknown => sample.heading_residual_rad,
                        HeadingLabels::Given => inside(direction(prediction)),
                        HeadingLabels::Teacher => inside(mode.residual_rad),
                    }
                },
                peak_m: mode.peak_m,
                peak: prediction.peak,
                entropy: prediction.entropy,
                support: 1.0,
                weight: 1.0,
                map: (prediction.heatmap.as_deref())
                    .map(|heatmap| scaled_to_one(heatmap, self.temperature)),
            }
        });
        labels.collect()
    }
}

fn scaled_to_one(heatmap: &[f32], temperature: f64) -> Arc<[f32]> {
    let largest = heatmap.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
    let scaled = heatmap.iter().map(|value| value / largest);
    if is_unchanged(&temperature) {
        return scaled.collect();
    }
    let power = (1.0 / temperature) as f32;
    scaled.map(|value| value.powf(power)).collect()
}

/// The place of a heatmap that a label is taken from.
struct Mode {
    /// Heatmap (column, row).
    cell: [usize; 2],
    offset_m: [f64; 2],
    /// Between cells.
    peak_m: [f64; 2],
    residual_rad: Option<f64>,
}

impl Mode {
    fn of(prediction: &PairPrediction, prior: CoarsePrior) -> Self {
        match prior {
            CoarsePrior::Ignored => Self {
                cell: prediction.mode_cell,
                offset_m: prediction.mode_m,
                peak_m: prediction.peak_m,
                residual_rad: prediction.residual_rad,
            },
            CoarsePrior::Ellipse | CoarsePrior::Multiplied => Self {
                cell: prediction.masked_mode_cell,
                offset_m: prediction.masked_mode_m,
                peak_m: prediction.masked_peak_m,
                residual_rad: prediction.masked_residual_rad,
            },
        }
    }
}
