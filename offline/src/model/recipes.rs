//! What each network is trained and adapted with: the published settings for published networks,
//! steadier ones for compact networks.

use super::{CcvpeSpec, GgcvtSpec, ggcvt::Camera};
use crate::adapt::{AdaptConfig, HeadingLabels};
use crate::data::Augmentation;
use crate::data::vigor::published_sigma_cells;
use crate::loss::LossConfig;
use crate::train::{BatchNormKind, DecayKind, FitConfig};

/// Sigma of the Gaussian around a label, pixels of an aerial image 512 pixels wide.
const SIGMA_PX: f64 = 4.0;

pub(super) fn ccvpe_supervised(spec: &CcvpeSpec) -> FitConfig {
    if spec.preset.starts_with("compact") {
        return FitConfig::default();
    }
    let panorama = spec.ground_wraps;
    // 4 pixels of a map drawn on samples that lie a little more than a pixel apart.
    let sigma_cells = published_sigma_cells(SIGMA_PX, spec.heatmap_side());
    FitConfig {
        epochs: if panorama { 15.0 } else { 6.0 },
        learning_rate: 1e-4,
        decay: DecayKind::Constant,
        warm_up_steps: 0,
        batch_norm_momentum: 0.01,
        augmentation: Augmentation {
            symmetries: false,
            heading_jitter_deg: if panorama { 180.0 } else { 0.0 },
            colour: 0.0,
            crop_jitter_m: 0.0,
        },
        loss: LossConfig {
            info_nce: 1e4,
            heatmap: 1.0,
            orientation: 10.0,
            sigma_m: sigma_cells * spec.metres_per_cell(),
            ..LossConfig::default()
        },
        ..FitConfig::default()
    }
}

pub(super) fn ccvpe_paper(spec: &CcvpeSpec) -> AdaptConfig {
    if spec.preset.starts_with("compact") {
        return AdaptConfig::default();
    }
    // Only a whole circle can be turned.
    let panorama = spec.ground_wraps;
    AdaptConfig {
        epochs: if panorama { 3.0 } else { 5.0 },
        decay: DecayKind::Constant,
        batch_norm: BatchNormKind::Train,
        augmentation: Augmentation {
            heading_jitter_deg: if panorama { 180.0 } else { 0.0 },
            ..Augmentation::none()
        },
        sigma_m: SIGMA_PX * spec.metres_per_pixel,
        ..AdaptConfig::default()
    }
}

/// The loss is the soft-margin triplet at every level (and, for pinhole cameras with unknown
/// heading, the poses' errors).
pub(super) fn ggcvt_supervised(spec: &GgcvtSpec) -> FitConfig {
    let loss = LossConfig {
        info_nce: 0.0,
        triplet: 1.0,
        heatmap: 0.0,
        orientation: 0.0,
        ..LossConfig::default()
    };
    if spec.preset.starts_with("ggcvt-compact") {
        return FitConfig {
            learning_rate: 3e-3,
            loss,
            ..FitConfig::default()
        };
    }
    let (epochs, batch, decay) = match spec.camera {
        Camera::Panorama { .. } => (20.0, 8, DecayKind::Constant),
        Camera::Pinhole { iterations: 0, .. } => (5.0, 1, DecayKind::HundredthEachEpoch),
        Camera::Pinhole { .. } => (5.0, 3, DecayKind::TenthAfterFirstEpoch),
    };
    FitConfig {
        batch,
        epochs,
        learning_rate: 1e-4,
        decay,
        fresh_moments: true,
        warm_up_steps: 0,
        augmentation: Augmentation::none(),
        loss,
        ..FitConfig::default()
    }
}

/// All three levels, 70 % of the labels, batches of four.
pub(super) fn ggcvt_paper(spec: &GgcvtSpec) -> AdaptConfig {
    let paper = AdaptConfig {
        levels: 3,
        keep: 0.7,
        batch: 4,
        ..AdaptConfig::default()
    };
    if spec.preset.starts_with("ggcvt-compact") {
        return paper;
    }
    let finds_heading = spec.describe().finds_heading();
    AdaptConfig {
        epochs: 5.0,
        decay: DecayKind::Constant,
        sigma_m: SIGMA_PX * spec.metres_per_pixel(),
        // What the network will be driven with: the heading that it finds, not the given one.
        heading_labels: if finds_heading {
            HeadingLabels::Teacher
        } else {
            HeadingLabels::Given
        },
        ..paper
    }
}
