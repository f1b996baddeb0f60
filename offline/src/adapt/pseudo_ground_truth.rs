//! Labels by mode: where the teacher's heatmap peaks, the rest of it thrown away.

use super::config::{AdaptConfig, HeadingLabels};
use crate::data::PairSource;
use crate::loss::PoseTarget;
use crate::model::{CrossViewModel, ModelError};
use crate::predict::{PairPrediction, predict_source};
use serde::{Deserialize, Serialize};

/// The teacher's word on one pair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Label {
    /// The pair.
    pub id: String,
    /// Heatmap column of the mode, at the cell's centre.
    pub column: f64,
    /// Heatmap row of the mode, at the cell's centre.
    pub row: f64,
    /// Metres east and north of the patch centre.
    pub offset_m: [f64; 2],
    /// Yaw residual that the label claims.
    pub residual_rad: f64,
    /// Probability of the largest cell.
    pub peak: f64,
    /// Entropy of the heatmap, nats.
    pub entropy: f64,
}

impl Label {
    /// What a student learns from it.
    pub fn target(&self) -> PoseTarget {
        PoseTarget {
            column: self.column,
            row: self.row,
            residual_rad: self.residual_rad,
            weight: 1.0,
        }
    }

    /// Metres between the label and what another network says.
    pub fn distance_m(&self, prediction: &PairPrediction, within_prior: bool) -> f64 {
        let [east, north] = mode(prediction, within_prior).1;
        (east - self.offset_m[0]).hypot(north - self.offset_m[1])
    }
}

/// Labels `pairs` with the teacher in evaluation mode.
///
/// # Errors
/// [`ModelError`] when a pair does not fit the teacher.
pub fn label(
    teacher: &mut dyn CrossViewModel,
    pairs: &dyn PairSource,
    config: &AdaptConfig,
) -> Result<Vec<Label>, ModelError> {
    let predictions = predict_source(teacher, pairs)?;
    let bin_rad = teacher.describe().bin_rad();
    let found = teacher.describe().finds_heading();
    let prior = teacher.describe().orientation_prior;
    let prior = prior.filter(|_| !found);
    // An angle beyond the prior has no bin to learn; the nearest inside has.
    let widest_rad = prior.map_or(f64::INFINITY, |n| n.max(1) as f64 * bin_rad);
    let labels = predictions.iter().enumerate().map(|(index, prediction)| {
        let (cell, offset_m, residual) = mode(prediction, config.labels_within_prior);
        Label {
            id: pairs.id(index),
            column: cell[0] as f64 + 0.5,
            row: cell[1] as f64 + 0.5,
            offset_m,
            residual_rad: match config.heading_labels {
                HeadingLabels::Given => pairs.given_residual_rad(index),
                HeadingLabels::Teacher => residual.unwrap_or(0.0).clamp(-widest_rad, widest_rad),
            },
            peak: prediction.peak,
            entropy: prediction.entropy,
        }
    });
    Ok(labels.collect())
}

/// Cell, offset in metres and yaw residual of the mode that counts.
fn mode(prediction: &PairPrediction, within_prior: bool) -> ([usize; 2], [f64; 2], Option<f64>) {
    if within_prior {
        (
            prediction.masked_mode_cell,
            prediction.masked_mode_m,
            prediction.masked_residual_rad,
        )
    } else {
        (
            prediction.mode_cell,
            prediction.mode_m,
            prediction.residual_rad,
        )
    }
}
