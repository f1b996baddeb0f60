//! Pseudo ground truth: where a labeller says the camera is, and how much that counts.

use super::consensus::Consensus;
use crate::data::Dataset;
use crate::model::CrossViewModel;
use crate::model::loss::PoseTarget;
use crate::predict::{PairPrediction, PredictError, predict};
use crate::run::Interrupt;
use serde::{Deserialize, Serialize};

/// Where labels come from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Labeller {
    /// The mode of the teacher's heatmap; the rest of the heatmap is thrown away.
    TeacherMode(TeacherMode),
    /// Where the frames of a drive agree that the vehicle was, by the teacher's heatmaps, odometry and
    /// coarse positions.
    Consensus(Consensus),
    /// True positions, which only [`super::oracle`] can read: the upper bound.
    GroundTruth,
}

/// How the teacher's heatmap becomes a label: the centre of its largest cell, as published.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherMode {
    /// Take the mode within the 99 % ellipse of the coarse position.
    pub within_prior: bool,
    /// Where the labels' orientation comes from.
    pub heading: HeadingLabels,
}

/// Where the labels' orientation comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadingLabels {
    /// The heading that came with the pair is right.
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
}

impl PseudoLabel {
    /// What a student learns from it.
    pub fn target(&self) -> PoseTarget {
        PoseTarget {
            column: self.column,
            row: self.row,
            residual_rad: self.residual_rad,
            weight: self.weight,
        }
    }

    /// Metres between the teacher's mode and that of another model's prediction of the same pair, both
    /// taken between cells. Whole cells would make most distances 0 or 1 cell, and a filter would cut
    /// among equal ones.
    pub fn distance_m(&self, prediction: &PairPrediction, within_prior: bool) -> f64 {
        let [east, north] = if within_prior {
            prediction.masked_peak_m
        } else {
            prediction.peak_m
        };
        (east - self.peak_m[0]).hypot(north - self.peak_m[1])
    }

    /// Whether a student learns it.
    pub fn is_kept(&self) -> bool {
        self.weight > 0.0
    }
}

impl TeacherMode {
    /// Labels `pairs` with the teacher in evaluation mode, each with weight 1.
    ///
    /// # Errors
    /// [`PredictError`] when a pair cannot be read or does not fit the teacher, or on request.
    pub fn label(
        &self,
        teacher: &mut dyn CrossViewModel,
        pairs: &dyn Dataset,
        interrupt: &Interrupt,
    ) -> Result<Vec<PseudoLabel>, PredictError> {
        let predictions = predict(teacher, pairs, false, interrupt)?;
        let spec = teacher.describe();
        let prior = spec.orientation_prior.filter(|_| !spec.finds_heading());
        // An angle beyond the prior has no bin to learn; the nearest inside has.
        let widest_rad = prior.map_or(f64::INFINITY, |n| n.max(1) as f64 * spec.bin_rad());
        let labels = predictions.iter().enumerate().map(|(index, prediction)| {
            let mode = self.mode(prediction);
            PseudoLabel {
                id: pairs.sample(index).id.clone(),
                column: mode.cell[0] as f64 + 0.5,
                row: mode.cell[1] as f64 + 0.5,
                offset_m: mode.offset_m,
                residual_rad: match self.heading {
                    HeadingLabels::Given => pairs.sample(index).heading_residual_rad,
                    HeadingLabels::Teacher => {
                        let found = mode.residual_rad.unwrap_or(0.0);
                        found.clamp(-widest_rad, widest_rad)
                    }
                },
                peak_m: mode.peak_m,
                peak: prediction.peak,
                entropy: prediction.entropy,
                support: 1.0,
                weight: 1.0,
            }
        });
        Ok(labels.collect())
    }

    fn mode(self, prediction: &PairPrediction) -> Mode {
        if self.within_prior {
            Mode {
                cell: prediction.masked_mode_cell,
                offset_m: prediction.masked_mode_m,
                peak_m: prediction.masked_peak_m,
                residual_rad: prediction.masked_residual_rad,
            }
        } else {
            Mode {
                cell: prediction.mode_cell,
                offset_m: prediction.mode_m,
                peak_m: prediction.peak_m,
                residual_rad: prediction.residual_rad,
            }
        }
    }
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
