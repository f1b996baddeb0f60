//! What each network is trained and adapted with, in one table: the published settings for
//! published networks, steadier ones for compact networks.
//!
//! Source: `CCVPE` (Xia, Booij, Kooij 2023), `GGCVT` (Shi et al. 2023), and Adapting Fine-Grained
//! Cross-View Localization (Xia, Shi, Li, Kooij 2024) for the published rows. The compact rows were
//! chosen on validation areas of the simulated city.

use super::{
    CoarsePrior, Consensus, Filter, Gate, HeadingLabels, Labeller, Recipe, TeacherMode,
    TruePositions,
};
use crate::data::Augmentation;
use crate::data::vigor::published_sigma_cells;
use crate::model::loss::LossConfig;
use crate::model::{GroundCamera, ModelSpec, NetworkKind};
use crate::train::{BatchNormKind, DecayKind, FitConfig};

/// Aerial images narrower than this, in pixels, belong to compact networks.
const PUBLISHED_AERIAL_PX: usize = 256;
/// Sigma of the Gaussian around a label, pixels of an aerial image 512 pixels wide.
const SIGMA_PX: f64 = 4.0;

/// What a row of the table is chosen by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Network {
    CcvpeCompact,
    /// One that searches all headings, or many.
    CcvpeCompactTurned,
    /// A whole circle, which can be rolled to any heading.
    CcvpePanorama,
    /// Part of a circle.
    CcvpePart,
    GgcvtCompact,
    GgcvtPanorama,
    GgcvtPinholeKnownHeading,
    GgcvtPinhole,
}

/// How wide the Gaussian around a label is.
#[derive(Debug, Clone, Copy)]
enum Sigma {
    Metres(f64),
    /// Pixels of the network's aerial image.
    AerialPixels(f64),
    /// Pixels of the published map, whose samples lie a little more than a pixel apart.
    PublishedMap(f64),
}

/// One network's settings.
struct Row {
    network: Network,
    supervised: Supervised,
    paper: Paper,
}

/// Training on true positions.
struct Supervised {
    batch: usize,
    epochs: f64,
    learning_rate: f64,
    decay: DecayKind,
    fresh_moments: bool,
    warm_up_steps: u64,
    batch_norm_momentum: f32,
    augmentation: Augmentation,
    info_nce: f32,
    triplet: f32,
    heatmap: f32,
    orientation: f32,
    sigma: Sigma,
}

/// The recipe `paper`.
struct Paper {
    levels: usize,
    keep: f64,
    batch: usize,
    epochs: f64,
    decay: DecayKind,
    batch_norm: BatchNormKind,
    heading_jitter_deg: f64,
    sigma: Sigma,
    /// Whether labels carry the heading that the teacher found.
    teacher_heading: bool,
}

const COMPACT_VIEWS: Augmentation = Augmentation {
    symmetries: true,
    heading_jitter_deg: 6.0,
    colour: 0.0,
    crop_jitter_m: 16.0,
    field_of_view_deg: 360.0,
};

/// Augmentation that only turns the ground image.
const fn turned(heading_jitter_deg: f64) -> Augmentation {
    Augmentation {
        symmetries: false,
        heading_jitter_deg,
        colour: 0.0,
        crop_jitter_m: 0.0,
        field_of_view_deg: 360.0,
    }
}

const COMPACT_SUPERVISED: Supervised = Supervised {
    batch: 8,
    epochs: 4.0,
    learning_rate: 2e-3,
    decay: DecayKind::Cosine,
    fresh_moments: false,
    warm_up_steps: 50,
    batch_norm_momentum: 0.02,
    augmentation: COMPACT_VIEWS,
    info_nce: 1.0,
    triplet: 0.0,
    heatmap: 1.0,
    orientation: 0.1,
    sigma: Sigma::Metres(1.0),
};

const COMPACT_PAPER: Paper = Paper {
    levels: 2,
    keep: 0.8,
    batch: 8,
    epochs: 2.5,
    decay: DecayKind::LinearToZero,
    batch_norm: BatchNormKind::Frozen,
    heading_jitter_deg: 0.0,
    sigma: Sigma::Metres(1.0),
    teacher_heading: false,
};

/// The paper's schedule is a constant learning rate, and batch norm in training mode; compact
/// networks are far steadier with a falling rate and frozen batch norm.
const TABLE: [Row; 8] = [
    Row {
        network: Network::CcvpeCompact,
        supervised: COMPACT_SUPERVISED,
        paper: COMPACT_PAPER,
    },
    Row {
        network: Network::CcvpeCompactTurned,
        supervised: Supervised {
            augmentation: Augmentation {
                heading_jitter_deg: 180.0,
                ..COMPACT_VIEWS
            },
            ..COMPACT_SUPERVISED
        },
        paper: Paper {
            // As published: labels of a known heading, learned under a random turn that is known.
            heading_jitter_deg: 180.0,
            ..COMPACT_PAPER
        },
    },
    Row {
        network: Network::CcvpePanorama,
        supervised: Supervised {
            batch: 8,
            epochs: 15.0,
            learning_rate: 1e-4,
            decay: DecayKind::Constant,
            fresh_moments: false,
            warm_up_steps: 0,
            batch_norm_momentum: 0.01,
            augmentation: turned(180.0),
            info_nce: 1e4,
            triplet: 0.0,
            heatmap: 1.0,
            orientation: 10.0,
            sigma: Sigma::PublishedMap(SIGMA_PX),
        },
        paper: Paper {
            levels: 2,
            keep: 0.8,
            batch: 8,
            epochs: 3.0,
            decay: DecayKind::Constant,
            batch_norm: BatchNormKind::Train,
            heading_jitter_deg: 180.0,
            sigma: Sigma::AerialPixels(SIGMA_PX),
            teacher_heading: false,
        },
    },
    Row {
        network: Network::CcvpePart,
        supervised: Supervised {
            batch: 8,
            epochs: 6.0,
            learning_rate: 1e-4,
            decay: DecayKind::Constant,
            fresh_moments: false,
            warm_up_steps: 0,
            batch_norm_momentum: 0.01,
            augmentation: turned(0.0),
            info_nce: 1e4,
            triplet: 0.0,
            heatmap: 1.0,
            orientation: 10.0,
            sigma: Sigma::PublishedMap(SIGMA_PX),
        },
        paper: Paper {
            levels: 2,
            keep: 0.8,
            batch: 8,
            epochs: 5.0,
            decay: DecayKind::Constant,
            batch_norm: BatchNormKind::Train,
            heading_jitter_deg: 0.0,
            sigma: Sigma::AerialPixels(SIGMA_PX),
            teacher_heading: false,
        },
    },
    Row {
        network: Network::GgcvtCompact,
        supervised: Supervised {
            batch: 8,
            epochs: 4.0,
            learning_rate: 3e-3,
            decay: DecayKind::Cosine,
            fresh_moments: false,
            warm_up_steps: 50,
            batch_norm_momentum: 0.02,
            augmentation: COMPACT_VIEWS,
            info_nce: 0.0,
            triplet: 1.0,
            heatmap: 0.0,
            orientation: 0.0,
            sigma: Sigma::Metres(1.0),
        },
        paper: Paper {
            levels: 3,
            keep: 0.7,
            batch: 4,
            epochs: 2.5,
            decay: DecayKind::LinearToZero,
            batch_norm: BatchNormKind::Frozen,
            heading_jitter_deg: 0.0,
            sigma: Sigma::Metres(1.0),
            teacher_heading: false,
        },
    },
    Row {
        network: Network::GgcvtPanorama,
        supervised: Supervised {
            batch: 8,
            epochs: 20.0,
            learning_rate: 1e-4,
            decay: DecayKind::Constant,
            fresh_moments: true,
            warm_up_steps: 0,
            batch_norm_momentum: 0.02,
            augmentation: turned(0.0),
            info_nce: 0.0,
            triplet: 1.0,
            heatmap: 0.0,
            orientation: 0.0,
            sigma: Sigma::Metres(1.0),
        },
        paper: GGCVT_PAPER,
    },
    Row {
        network: Network::GgcvtPinholeKnownHeading,
        supervised: Supervised {
            batch: 1,
            epochs: 5.0,
            learning_rate: 1e-4,
            decay: DecayKind::HundredthEachEpoch,
            fresh_moments: true,
            warm_up_steps: 0,
            batch_norm_momentum: 0.02,
            augmentation: turned(0.0),
            info_nce: 0.0,
            triplet: 1.0,
            heatmap: 0.0,
            orientation: 0.0,
            sigma: Sigma::Metres(1.0),
        },
        paper: GGCVT_PAPER,
    },
    Row {
        network: Network::GgcvtPinhole,
        supervised: Supervised {
            batch: 3,
            epochs: 5.0,
            learning_rate: 1e-4,
            decay: DecayKind::TenthAfterFirstEpoch,
            fresh_moments: true,
            warm_up_steps: 0,
            batch_norm_momentum: 0.02,
            augmentation: turned(0.0),
            info_nce: 0.0,
            triplet: 1.0,
            heatmap: 0.0,
            orientation: 0.0,
            sigma: Sigma::Metres(1.0),
        },
        paper: Paper {
            // The student is driven with the heading that it finds, not with the given one.
            teacher_heading: true,
            ..GGCVT_PAPER
        },
    },
];

/// All three levels, 70 % of the labels, batches of four.
const GGCVT_PAPER: Paper = Paper {
    levels: 3,
    keep: 0.7,
    batch: 4,
    epochs: 5.0,
    decay: DecayKind::Constant,
    batch_norm: BatchNormKind::Frozen,
    heading_jitter_deg: 0.0,
    sigma: Sigma::AerialPixels(SIGMA_PX),
    teacher_heading: false,
};

impl Network {
    fn of(spec: &ModelSpec) -> Self {
        let compact = spec.aerial_px < PUBLISHED_AERIAL_PX;
        match (spec.kind, spec.camera) {
            (NetworkKind::Ccvpe, GroundCamera::Panorama)
                if compact && spec.orientation_prior != Some(0) =>
            {
                Self::CcvpeCompactTurned
            }
            (NetworkKind::Ccvpe, _) if compact => Self::CcvpeCompact,
            (NetworkKind::Ggcvt, _) if compact => Self::GgcvtCompact,
            (NetworkKind::Ccvpe, GroundCamera::Panorama) => Self::CcvpePanorama,
            (NetworkKind::Ccvpe, _) => Self::CcvpePart,
            (NetworkKind::Ggcvt, GroundCamera::CalibratedPinhole { finds_heading, .. }) => {
                if finds_heading {
                    Self::GgcvtPinhole
                } else {
                    Self::GgcvtPinholeKnownHeading
                }
            }
            (NetworkKind::Ggcvt, _) => Self::GgcvtPanorama,
        }
    }
}

impl Sigma {
    fn metres(self, spec: &ModelSpec) -> f64 {
        match self {
            Self::Metres(metres) => metres,
            Self::AerialPixels(pixels) => pixels * spec.metres_per_pixel,
            Self::PublishedMap(pixels) => {
                published_sigma_cells(pixels, spec.heatmap_side()) * spec.metres_per_cell()
            }
        }
    }
}

fn row(spec: &ModelSpec) -> &'static Row {
    let network = Network::of(spec);
    let row = TABLE.iter().find(|row| row.network == network);
    row.expect("the table has a row for every kind of network")
}

/// How far ground images are turned at random: no further than the network searches.
fn within_search(heading_jitter_deg: f64, spec: &ModelSpec) -> f64 {
    let whole = heading_jitter_deg >= 180.0;
    let searched = spec.orientation_prior.filter(|_| whole);
    searched.map_or(heading_jitter_deg, |bins| {
        heading_jitter_deg.min((bins as f64 * spec.bin_rad()).to_degrees())
    })
}

/// Training on true positions, as the network was published with, or steadier for compact ones.
pub fn supervised(spec: &ModelSpec) -> FitConfig {
    let row = &row(spec).supervised;
    FitConfig {
        batch: row.batch,
        epochs: row.epochs,
        steps: None,
        learning_rate: row.learning_rate,
        decay: row.decay,
        fresh_moments: row.fresh_moments,
        warm_up_steps: row.warm_up_steps,
        clip_norm: None,
        batch_norm: BatchNormKind::Train,
        batch_norm_momentum: row.batch_norm_momentum,
        drop_connect: true,
        augmentation: Augmentation {
            heading_jitter_deg: within_search(row.augmentation.heading_jitter_deg, spec),
            ..row.augmentation.clone()
        },
        loss: LossConfig {
            info_nce: row.info_nce,
            triplet: row.triplet,
            heatmap: row.heatmap,
            orientation: row.orientation,
            sigma_m: row.sigma.metres(spec),
            ..LossConfig::default()
        },
        ..FitConfig::default()
    }
}

/// The adaptation paper's method: labels by mode, the coarse levels only, an auxiliary student as
/// outlier filter.
pub fn paper(spec: &ModelSpec) -> Recipe {
    let row = &row(spec).paper;
    Recipe {
        labeller: Labeller::TeacherMode(TeacherMode {
            prior: CoarsePrior::Ignored,
            heading: if row.teacher_heading {
                HeadingLabels::Teacher
            } else {
                HeadingLabels::Given
            },
            ..TeacherMode::default()
        }),
        filter: Filter::AuxiliaryStudent {
            keep: row.keep,
            keep_first: None,
        },
        fit: FitConfig {
            batch: row.batch,
            epochs: row.epochs,
            steps: None,
            learning_rate: 1e-4,
            decay: row.decay,
            fresh_moments: false,
            warm_up_steps: 0,
            clip_norm: None,
            batch_norm: row.batch_norm,
            batch_norm_momentum: 0.01,
            drop_connect: row.batch_norm == BatchNormKind::Train,
            augmentation: turned(within_search(row.heading_jitter_deg, spec)),
            loss: LossConfig {
                info_nce: 1.0,
                heatmap: 0.0,
                orientation: 0.0,
                levels: Some(row.levels.min(spec.levels.len())),
                // Every cell with a positive label counts.
                threshold: 0.0,
                sigma_m: row.sigma.metres(spec),
                ..LossConfig::default()
            },
            ..FitConfig::default()
        },
        rounds: 1,
        gate: Gate::default(),
        student: None,
    }
}

/// Learning rate from labels that are nearly right. Of the modes of a teacher, which are not, networks learn
/// with the paper's. Chosen on validation cities; GGCVT's is the largest that was tried (docs/results.md).
fn good_labels_rate(network: Network) -> Option<f64> {
    match network {
        Network::CcvpeCompact | Network::CcvpeCompactTurned => Some(3e-4),
        Network::GgcvtCompact => Some(3e-3),
        _ => None,
    }
}

/// The training on labels that are right or nearly so: the supervised loss and views, as long as the
/// paper's.
fn good_labels(spec: &ModelSpec) -> FitConfig {
    let (paper, supervised) = (paper(spec).fit, supervised(spec));
    let rate = good_labels_rate(Network::of(spec));
    // At rates of 1e-3 and 3e-3 triplets on true places end further from the truth than the paper's loss on labels that
    // a drive agrees on.
    let loss = loss_on_labels(&supervised, &paper, rate.is_some());
    FitConfig {
        learning_rate: rate.unwrap_or(paper.learning_rate),
        loss,
        // Every view but those that need more tiles.
        augmentation: Augmentation {
            crop_jitter_m: 0.0,
            ..supervised.augmentation
        },
        ..paper
    }
}

/// Passes over the pairs of a student that begins with nothing: an area's drives have a few hundred of them, and
/// teachers are trained on thousands.
const EPOCHS_FROM_NOTHING: f64 = 24.0;

/// The training of a student that begins with nothing on the labels of an area: the supervised one, longer, with
/// every view but those that need more tiles. All levels and the heatmap are learned, whatever a recipe of
/// networks that know them already leaves alone.
pub fn from_nothing(spec: &ModelSpec) -> FitConfig {
    let (supervised, paper) = (supervised(spec), paper(spec).fit);
    // Triplets take no weights.
    let loss = loss_on_labels(&supervised, &paper, true);
    FitConfig {
        epochs: EPOCHS_FROM_NOTHING,
        loss,
        augmentation: Augmentation {
            crop_jitter_m: 0.0,
            ..supervised.augmentation
        },
        ..supervised
    }
}

/// The supervised loss with labels as wide as the paper's; instead of triplets, if that is asked for, the paper's loss.
fn loss_on_labels(supervised: &FitConfig, paper: &FitConfig, without_triplets: bool) -> LossConfig {
    if without_triplets && supervised.loss.triplet > 0.0 {
        return by_labels(paper);
    }
    LossConfig {
        sigma_m: paper.loss.sigma_m,
        ..supervised.loss.clone()
    }
}

/// The paper's loss at every level.
fn by_labels(paper: &FitConfig) -> LossConfig {
    LossConfig {
        levels: None,
        ..paper.loss.clone()
    }
}

/// Labels that the frames of a drive agree on, learned at all levels and in the heatmap, weighed by
/// their support. Frames that stand alone are filtered as in [`paper`].
pub fn consensus(spec: &ModelSpec) -> Recipe {
    let paper = paper(spec);
    let keep_alone = match paper.filter {
        Filter::AuxiliaryStudent { keep, .. } => keep,
        _ => 1.0,
    };
    let mut fit = good_labels(spec);
    if fit.loss.triplet > 0.0 {
        // Triplets take no weights; networks that learn by them learn labels as in `paper`.
        fit.loss = by_labels(&paper.fit);
    }
    Recipe {
        labeller: Labeller::Consensus(Consensus::default()),
        filter: Filter::Support {
            least: 0.5,
            keep_alone,
        },
        fit,
        rounds: 1,
        gate: Gate {
            held_out: 0.15,
            ..Gate::default()
        },
        student: None,
    }
}

/// The upper bound: what [`consensus`] would learn from true positions.
pub fn oracle(spec: &ModelSpec) -> Recipe {
    Recipe {
        labeller: Labeller::GroundTruth(TruePositions::default()),
        filter: Filter::KeepAll,
        fit: good_labels(spec),
        rounds: 1,
        gate: Gate::default(),
        student: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{named, names};

    #[test]
    fn every_network_has_the_row_that_its_name_says() {
        for (name, network) in [
            ("compact", Network::CcvpeCompact),
            ("compact-front", Network::CcvpeCompact),
            ("compact-unknown-heading", Network::CcvpeCompactTurned),
            ("compact-prior90", Network::CcvpeCompactTurned),
            ("ccvpe-vigor", Network::CcvpePanorama),
            ("ccvpe-vigor-prior72-reflect", Network::CcvpePanorama),
            ("ccvpe-vigor-fov180", Network::CcvpePart),
            ("ccvpe-kitti", Network::CcvpePart),
            ("ccvpe-oxford", Network::CcvpePart),
            ("ggcvt-compact", Network::GgcvtCompact),
            ("ggcvt-vigor", Network::GgcvtPanorama),
            ("ggcvt-kitti2", Network::GgcvtPinholeKnownHeading),
            ("ggcvt-kitti3", Network::GgcvtPinhole),
        ] {
            assert_eq!(
                Network::of(&named(name).unwrap().describe()),
                network,
                "{name}"
            );
        }
    }

    #[test]
    fn ground_images_are_turned_as_far_as_the_network_searches() {
        for (name, turn_deg, paper_turn_deg) in [
            ("compact", 6.0, 0.0),
            ("compact-unknown-heading", 180.0, 180.0),
            ("compact-prior90", 90.0, 90.0),
            ("ccvpe-vigor", 180.0, 180.0),
            ("ccvpe-vigor-prior72", 72.0, 72.0),
            ("ccvpe-vigor-prior0", 0.0, 0.0),
        ] {
            let spec = named(name).unwrap().describe();
            let turn = |fit: FitConfig| fit.augmentation.heading_jitter_deg;
            assert!((turn(supervised(&spec)) - turn_deg).abs() < 1e-9, "{name}");
            assert!(
                (turn(paper(&spec).fit) - paper_turn_deg).abs() < 1e-9,
                "{name}"
            );
        }
        let spec = named("compact-unknown-heading").unwrap().describe();
        assert_eq!(consensus(&spec).fit.augmentation.heading_jitter_deg, 180.0);
    }

    #[test]
    fn every_default_passes_its_own_check() {
        for name in names().into_iter().filter(|name| !name.contains('<')) {
            let spec = named(name).unwrap().describe();
            supervised(&spec).check().unwrap();
            paper(&spec).check().unwrap();
            consensus(&spec).check().unwrap();
            oracle(&spec).check().unwrap();
        }
    }
}
