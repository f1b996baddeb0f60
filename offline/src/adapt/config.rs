//! The settings of an adaptation.

use super::AdaptError;
use crate::data::Augmentation;
use crate::loss::LossConfig;
use crate::model::ModelSpec;
use crate::train::{BatchNormKind, DecayKind, FitConfig};
use serde::{Deserialize, Serialize};

/// Everything that fixes an adaptation but its teacher and data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdaptConfig {
    /// Coarsest levels that are supervised (K'); the rest follows through shared weights.
    pub levels: usize,
    /// Supervise every level and the heatmap instead.
    pub all_levels: bool,
    /// Share of labels kept (T), those with the smallest distance.
    pub keep: f64,
    /// Passes over the pairs.
    pub epochs: f64,
    /// Samples in a step.
    pub batch: usize,
    /// Adam's learning rate.
    pub learning_rate: f64,
    /// How it falls.
    pub decay: DecayKind,
    /// Whose statistics normalise.
    pub batch_norm: BatchNormKind,
    /// The views drawn. The angle of a heading jitter is known, so its label stays exact.
    pub augmentation: Augmentation,
    /// Sigma of the pseudo ground truth, metres.
    pub sigma_m: f64,
    /// Where the labels' orientation comes from.
    pub heading_labels: HeadingLabels,
    /// Take the teacher's mode within the coarse position's 99 % ellipse.
    pub labels_within_prior: bool,
    /// Whether the first level's InfoNCE runs over all orientation bins or over those searched.
    pub all_bins_at_first_level: bool,
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

impl Default for AdaptConfig {
    /// The recipe `paper` for compact networks. The published setting has a constant learning
    /// rate and batch norm in training mode; at this size a falling rate and frozen batch norm
    /// are far steadier.
    fn default() -> Self {
        Self {
            levels: 2,
            all_levels: false,
            keep: 0.8,
            epochs: 2.5,
            batch: 8,
            learning_rate: 1e-4,
            decay: DecayKind::LinearToZero,
            batch_norm: BatchNormKind::Frozen,
            augmentation: Augmentation::none(),
            sigma_m: 1.0,
            heading_labels: HeadingLabels::Given,
            labels_within_prior: false,
            all_bins_at_first_level: true,
        }
    }
}

impl AdaptConfig {
    /// The training that both students go through.
    pub fn fit(&self, spec: &ModelSpec) -> FitConfig {
        let levels = self.levels.min(spec.levels.len());
        FitConfig {
            batch: self.batch,
            epochs: self.epochs,
            steps: None,
            learning_rate: self.learning_rate,
            decay: self.decay,
            fresh_moments: false,
            warm_up_steps: 0,
            clip_norm: None,
            batch_norm: self.batch_norm,
            batch_norm_momentum: 0.01,
            drop_connect: self.batch_norm == BatchNormKind::Train,
            augmentation: self.augmentation.clone(),
            loss: LossConfig {
                info_nce: 1.0,
                heatmap: if self.all_levels { 1.0 } else { 0.0 },
                orientation: 0.0,
                levels: (!self.all_levels).then_some(levels),
                // Every cell with a positive label counts.
                threshold: 0.0,
                sigma_m: self.sigma_m,
                all_bins_at_first_level: self.all_bins_at_first_level,
                ..LossConfig::default()
            },
            checkpoint_every: 500,
        }
    }

    pub(super) fn check(&self) -> Result<(), AdaptError> {
        if !(self.keep > 0.0 && self.keep <= 1.0) {
            let keep = self.keep;
            return Err(AdaptError::Settings(format!(
                "keep is {keep}; it must be above 0 and at most 1"
            )));
        }
        if self.levels == 0 {
            return Err(AdaptError::Settings("levels must be at least 1".into()));
        }
        Ok(())
    }
}
