//! Labels that the frames of a drive agree on: the teacher's heatmaps, odometry and coarse positions,
//! smoothed over the drive on a grid ([`crossfix_calibration::track`]). No truth.
//!
//! Every drive is smoothed alone; what its odometry and headings had wrong is found from its places
//! and taken out for the next pass, and so is what the coarse positions of all drives have in common,
//! the offset of the tile set. A prior for streets where other drives went was tried and moved no label.
//! Frames of no drive are labelled by heatmap and coarse position alone.

use super::headings::{HeadingEvidence, head_by_network, predict_near, searches_all};
use super::{Found, PseudoLabel};
use crate::data::Dataset;
use crate::data::pose::{cell_from_offset, wrap_rad};
use crate::model::{CrossViewModel, ModelError, ModelSpec};
use crate::predict::{PairPrediction, PredictError};
use crate::run::Interrupt;
use crate::shard::Answer;
use crossfix_calibration::track::{
    Drift, Frame, INDEPENDENT_ROUGHNESS, Offset, Place, TrackModel, drift, drive_bias,
    gnss_weights, places, roughness, tile_offset,
};
use crossfix_calibration::{LocalFrame, LogMap};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Heatmaps are kept with at most this many cells along a side.
const MOST_CELLS: usize = 72;
/// Coarse positions with a larger variance say nothing, m².
const NO_COARSE_M2: f64 = 1e5;
/// Sigma of odometry's scale before a drive is looked at.
const SCALE_SIGMA: f64 = 0.02;
/// Least sigma of a drive's heading offset, radians.
const LEAST_YAW_SIGMA_RAD: f64 = 0.02;
/// A teacher's mode this near to the place that its drive agrees on is right, metres.
const AGREES_M: f64 = 3.0;

/// How the frames of a drive come to agree.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Consensus {
    /// Times that drives are smoothed, each time with the errors found before taken out.
    pub passes: usize,
    /// How evidence is believed.
    pub track: TrackModel,
}

impl Default for Consensus {
    fn default() -> Self {
        Self {
            passes: 2,
            track: TrackModel::default(),
        }
    }
}

/// What labels rest on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Samples.
    pub frames: usize,
    /// Those that odometry joins to the frame before.
    pub by_odometry: usize,
    /// Those joined to the frame before by the difference of their coarse positions alone.
    pub by_coarse: usize,
    /// Those with a coarse position that says something.
    pub with_coarse: usize,
    /// Whether coarse positions err anew for each frame, so that their differences say nothing.
    pub coarse_is_independent: bool,
    /// How far from its coarse positions the tile set shows the ground, metres east and north: a set that is moved
    /// by minus this agrees with them.
    pub tile_offset_m: [f64; 2],
    /// Its standard deviation along each axis.
    pub tile_offset_sigma_m: f64,
    /// Mean support of the labels.
    pub support: f64,
    /// Share of frames of drives at which the teacher's own mode is within 3 m of the label.
    pub agreement: f64,
    /// Root mean square of coarse position minus label over its stated sigma, along each axis.
    pub coarse_error_in_sigmas: f64,
    /// Where headings came from that were not known; none where all were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headings: Option<HeadingEvidence>,
    /// Each drive.
    pub drives: Vec<DriveEvidence>,
}

/// What was found of one drive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DriveEvidence {
    /// Its name.
    pub name: String,
    /// Its frames.
    pub frames: usize,
    /// Mean support of its labels.
    pub support: f64,
    /// Share of its frames at which the teacher's mode is within 3 m of the label.
    pub agreement: f64,
    /// Mean of coarse position minus label, metres east and north; none without coarse positions.
    pub coarse_bias_m: Option<[f64; 2]>,
    /// Odometry's distances are too short by this share.
    pub odometry_scale: f64,
    /// Headings are too far clockwise by this, degrees.
    pub heading_offset_deg: f64,
}

impl Evidence {
    /// Whether most frames have no neighbour that tells where they are.
    pub fn stands_alone(&self) -> bool {
        2 * (self.by_odometry + self.by_coarse) < self.frames
    }

    /// In a line or two.
    pub fn describe(&self) -> String {
        let coarse = match (self.with_coarse, self.coarse_is_independent) {
            (0, _) => "no coarse positions".to_string(),
            (n, true) => format!("coarse positions of {n} that err anew for each frame"),
            (n, false) => format!("coarse positions of {n} whose error lasts"),
        };
        let joined = match (self.by_odometry, self.by_coarse) {
            (0, 0) => "no frame follows another".to_string(),
            (odometry, by_coarse) => format!(
                "{odometry} joined to the frame before by odometry, {by_coarse} by coarse positions alone"
            ),
        };
        let mut text = format!(
            "evidence: {} frames, {} drives; {joined}; {coarse}",
            self.frames,
            self.drives.len()
        );
        if let Some(headings) = &self.headings {
            text += &format!("; {}", headings.describe());
        }
        if self.stands_alone() {
            text += "; most frames stand alone, so labels are filtered and learned as in `paper`";
        } else {
            let [east, north] = self.tile_offset_m;
            text += &format!(
                "; support {:.2}, the teacher agrees at {:.0} %; tiles off by {east:+.1}, {north:+.1} m (± {:.1})",
                self.support,
                100.0 * self.agreement,
                self.tile_offset_sigma_m
            );
        }
        text
    }
}

/// A drive, and what was found of it.
pub(crate) struct Chain {
    /// Empty where a sample stands alone.
    pub(crate) name: String,
    /// In the order of time.
    pub(crate) samples: Vec<usize>,
    frame: LocalFrame,
    /// What was known at each sample.
    pub(crate) frames: Vec<Frame>,
    /// What was wrong all along.
    pub(crate) drift: Drift,
    /// The place of each sample.
    pub(crate) places: Vec<Place>,
}

impl Consensus {
    /// Refuses settings without meaning.
    ///
    /// # Errors
    /// The setting and its range.
    pub fn check(&self) -> Result<(), String> {
        let track = &self.track;
        let rules = [
            ((1..=10).contains(&self.passes), "passes must be 1 to 10"),
            (
                track.heatmap_power > 0.0 && track.heatmap_power <= 4.0,
                "track.heatmap_power must be above 0 and at most 4",
            ),
            (
                track.outlier > 0.0 && track.outlier < 1.0 && track.gnss_outlier < 1.0,
                "track.outlier and track.gnss_outlier must be shares below 1, the first above 0",
            ),
            (
                track.cell_m >= 0.1 && track.cell_m <= 10.0,
                "track.cell_m must be 0.1 to 10",
            ),
            (
                track.gnss_inflation > 0.0 && track.gnss_memory_s > 0.0,
                "track.gnss_inflation and track.gnss_memory_s must be above 0",
            ),
            (
                (0.0..=1.0).contains(&track.lost),
                "track.lost must be 0 to 1",
            ),
        ];
        match rules.iter().find(|(good, _)| !good) {
            None => Ok(()),
            Some((_, rule)) => Err(format!("labeller.{rule}")),
        }
    }

    /// Labels `pairs`, the teacher in evaluation mode. Memory beside the network's: some 5 kB a frame.
    ///
    /// # Errors
    /// [`PredictError`] when a pair cannot be read or does not fit the teacher, or on request.
    pub fn label(
        &self,
        teacher: &mut dyn CrossViewModel,
        pairs: &dyn Dataset,
        interrupt: &Interrupt,
    ) -> Result<Found, PredictError> {
        let spec = teacher.describe().clone();
        let answers = answers(teacher, pairs, interrupt)?;
        Ok(self.label_by(&spec, pairs, answers)?)
    }

    /// As [`Consensus::label`], by what the teacher answered for each of `pairs` ([`answers`]).
    ///
    /// # Errors
    /// [`ModelError::Input`] when the answers are not those of the pairs.
    pub fn label_by(
        &self,
        spec: &ModelSpec,
        pairs: &dyn Dataset,
        answers: Vec<Answer>,
    ) -> Result<Found, ModelError> {
        if answers.len() != pairs.len() || answers.iter().any(|answer| answer.map.is_none()) {
            let what = "these are not the answers that drives agree by";
            return Err(ModelError::Input(what.into()));
        }
        let settled = self.agree(spec, pairs, answers).map_err(unfit)?;
        let mut labels: Vec<Option<PseudoLabel>> = vec![None; pairs.len()];
        for chain in &settled.chains {
            for (at, index) in chain.samples.iter().enumerate() {
                let prediction = &settled.predictions[*index];
                labels[*index] = Some(label(spec, pairs, chain, at, prediction));
            }
        }
        Ok(Found {
            labels: labels.into_iter().flatten().collect(),
            evidence: Some(settled.evidence()),
        })
    }

    /// Runs the network over all samples and finds the places of each drive.
    ///
    /// # Errors
    /// As [`Consensus::label`].
    pub(crate) fn settle(
        &self,
        teacher: &mut dyn CrossViewModel,
        pairs: &dyn Dataset,
        interrupt: &Interrupt,
    ) -> Result<Settled, PredictError> {
        let spec = teacher.describe().clone();
        let answers = answers(teacher, pairs, interrupt)?;
        Ok(self.agree(&spec, pairs, answers).map_err(unfit)?)
    }

    fn agree(
        &self,
        spec: &ModelSpec,
        pairs: &dyn Dataset,
        answers: Vec<Answer>,
    ) -> crossfix_calibration::Result<Settled> {
        let (mut chains, predictions) = chains(pairs, answers);
        let mut headings = pairs.found_headings().map(|found| HeadingEvidence {
            unknown: found.wide,
            by_course: found.found,
            sigma_p95_deg: found.sigma_p95_deg,
            by_network: 0,
        });
        if searches_all(spec) {
            let by_network = chains.iter_mut();
            let by_network = by_network.map(|chain| head_by_network(chain, pairs, &predictions));
            let by_network = by_network.sum();
            if by_network > 0 {
                headings.get_or_insert_default().by_network = by_network;
            }
        }
        let all = chains.iter().filter(|chain| chain.samples.len() > 2);
        let rough = roughness(all.map(|chain| chain.frames.as_slice()));
        let coarse_is_independent = rough.is_some_and(|rough| rough > INDEPENDENT_ROUGHNESS);
        let mut model = self.track;
        if coarse_is_independent {
            model.gnss_memory_s = 1e-6;
        }
        let mut tiles = tile_offset(&[]);
        for pass in 0..self.passes {
            chains.par_iter_mut().try_for_each(|chain| {
                if pass > 0 {
                    let yaw_sigma = mean(chain.frames.iter().map(|frame| frame.yaw_sigma_rad));
                    let yaw_sigma = yaw_sigma.clamp(LEAST_YAW_SIGMA_RAD, 1.0);
                    chain.drift = drift(&chain.frames, &chain.places, SCALE_SIGMA, yaw_sigma);
                    chain.drift.offset_m = tiles.mean_m;
                }
                chain.places = places(&chain.frames, &model, &chain.drift, |_, _| Ok(()))?;
                Ok::<_, crossfix_calibration::Error>(())
            })?;
            let biases: Vec<Offset> = chains
                .iter()
                .filter_map(|chain| drive_bias(&chain.frames, &chain.places, &model))
                .collect();
            tiles = tile_offset(&biases);
        }
        Ok(Settled {
            chains,
            predictions,
            model,
            tiles,
            coarse_is_independent,
            headings,
        })
    }
}

fn unfit(error: crossfix_calibration::Error) -> ModelError {
    ModelError::Input(error.to_string())
}

/// What drives agree by: the network's prediction for each sample, and its heatmap in few bytes.
///
/// # Errors
/// As [`Consensus::label`].
pub fn answers(
    teacher: &mut dyn CrossViewModel,
    pairs: &dyn Dataset,
    interrupt: &Interrupt,
) -> Result<Vec<Answer>, PredictError> {
    let spec = teacher.describe().clone();
    predict_near(teacher, pairs, interrupt, |_, prediction, heatmap| {
        let (side, cell_m) = (spec.heatmap_side(), spec.metres_per_cell());
        let map = LogMap::new(side, cell_m, heatmap, MOST_CELLS).map_err(unfit)?;
        let map = Some(map);
        Ok(Answer { prediction, map })
    })
}

/// All drives with the places of their frames.
pub(crate) struct Settled {
    /// The drives, and samples that stand alone as drives of one.
    pub(crate) chains: Vec<Chain>,
    /// Of the network, in the samples' order.
    pub(crate) predictions: Vec<PairPrediction>,
    /// As it was used.
    pub(crate) model: TrackModel,
    /// Coarse positions minus places on the tiles, which all drives have in common.
    pub(crate) tiles: Offset,
    coarse_is_independent: bool,
    headings: Option<HeadingEvidence>,
}

impl Settled {
    /// What the places rest on.
    pub(crate) fn evidence(&self) -> Evidence {
        Evidence {
            coarse_is_independent: self.coarse_is_independent,
            headings: self.headings,
            tile_offset_m: self.tiles.mean_m.map(|metres| -metres),
            tile_offset_sigma_m: self.tiles.sigma_m,
            ..evidence(&self.chains, &self.predictions, &self.model)
        }
    }
}

/// The drives in local metres, and every sample that stands alone as one of its own.
fn chains(pairs: &dyn Dataset, answers: Vec<Answer>) -> (Vec<Chain>, Vec<PairPrediction>) {
    let mut maps = Vec::with_capacity(answers.len());
    let mut predictions = Vec::with_capacity(answers.len());
    for answer in answers {
        maps.push(answer.map);
        predictions.push(answer.prediction);
    }
    let mut groups: Vec<(String, Vec<usize>)> = pairs
        .drives()
        .into_iter()
        .map(|drive| (drive.name, drive.samples))
        .collect();
    let alone = (0..pairs.len()).filter(|index| pairs.sample(*index).drive.is_empty());
    groups.extend(alone.map(|index| (String::new(), vec![index])));
    let chain = |(name, samples): (String, Vec<usize>)| {
        let first = pairs.sample(samples[0]);
        let frame = LocalFrame::new(first.centre);
        let begin_ns = first.time_ns;
        let one = |index: &usize| {
            let sample = pairs.sample(*index);
            Frame {
                time_s: (sample.time_ns - begin_ns) as f64 * 1e-9,
                patch_m: frame.enu_from_geodetic(sample.centre).horizontal(),
                answer: maps[*index].take().expect("a sample is in one drive"),
                coarse_m: sample.coarse_in(&frame),
                coarse_covariance_m2: sample.coarse_covariance_m2,
                yaw_rad: sample.yaw_rad,
                yaw_sigma_rad: sample.yaw_sigma_rad,
                odometry: sample
                    .odometry
                    .map(|step| [step.forward_m, step.left_m, step.yaw_rad]),
            }
        };
        let frames = samples.iter().map(one).collect();
        Chain {
            name,
            samples,
            frame,
            frames,
            drift: Drift::default(),
            places: Vec::new(),
        }
    };
    let chains = groups.into_iter().map(chain).collect();
    (chains, predictions)
}

fn label(
    spec: &ModelSpec,
    pairs: &dyn Dataset,
    chain: &Chain,
    at: usize,
    prediction: &PairPrediction,
) -> PseudoLabel {
    let (sample, place) = (pairs.sample(chain.samples[at]), &chain.places[at]);
    let patch_m = chain.frame.enu_from_geodetic(sample.centre).horizontal();
    let offset_m = [0, 1].map(|axis| place.mode_m[axis] - patch_m[axis]);
    let [column, row] = cell_from_offset(offset_m, spec);
    // Turns tell more of the yaw than one heading does; without turns the heading stands.
    let turns = chain
        .frames
        .iter()
        .skip(1)
        .any(|frame| frame.odometry.is_some());
    let yaw_rad = if turns {
        place.yaw_rad
    } else {
        chain.frames[at].yaw_rad
    };
    PseudoLabel {
        id: sample.id.clone(),
        column,
        row,
        offset_m,
        residual_rad: wrap_rad(sample.heading_residual_rad + yaw_rad - sample.yaw_rad),
        peak_m: prediction.peak_m,
        peak: prediction.peak,
        entropy: prediction.entropy,
        support: place.support,
        weight: 1.0,
        map: None,
    }
}

fn evidence(chains: &[Chain], predictions: &[PairPrediction], model: &TrackModel) -> Evidence {
    let mut evidence = Evidence {
        frames: predictions.len(),
        ..Evidence::default()
    };
    let (mut support, mut agreed, mut squares) = (Vec::new(), Vec::new(), Vec::new());
    for chain in chains {
        let gnss = gnss_weights(&chain.frames, model);
        let has_coarse = |frame: &Frame| {
            let [[ee, _], [_, nn]] = frame.coarse_covariance_m2;
            ee.max(nn) < NO_COARSE_M2
        };
        let (mut mine, mut mine_agreed) = (Vec::new(), Vec::new());
        for (at, (frame, place)) in chain.frames.iter().zip(&chain.places).enumerate() {
            let coarse = has_coarse(frame);
            evidence.with_coarse += usize::from(coarse);
            if at > 0 && frame.odometry.is_some() {
                evidence.by_odometry += 1;
            } else if coarse && gnss.step_sigma_m[at].is_finite() {
                evidence.by_coarse += 1;
            }
            if coarse {
                let [[ee, _], [_, nn]] = frame.coarse_covariance_m2;
                let off = [0, 1].map(|axis| frame.coarse_m[axis] - place.mode_m[axis]);
                squares.push(off[0].powi(2) / ee);
                squares.push(off[1].powi(2) / nn);
            }
            let prediction = &predictions[chain.samples[at]];
            let off = [0, 1]
                .map(|axis| frame.patch_m[axis] + prediction.peak_m[axis] - place.mode_m[axis]);
            mine.push(place.support);
            mine_agreed.push(f64::from(u8::from(off[0].hypot(off[1]) < AGREES_M)));
        }
        support.extend(&mine);
        if chain.samples.len() > 1 {
            agreed.extend(&mine_agreed);
        }
        if !chain.name.is_empty() {
            let bias = drive_bias(&chain.frames, &chain.places, model);
            evidence.drives.push(DriveEvidence {
                name: chain.name.clone(),
                frames: chain.frames.len(),
                support: mean(mine),
                agreement: mean(mine_agreed),
                coarse_bias_m: bias.map(|bias| bias.mean_m),
                odometry_scale: chain.drift.scale,
                heading_offset_deg: chain.drift.yaw_rad.to_degrees(),
            });
        }
    }
    evidence.support = mean(support);
    evidence.agreement = mean(agreed);
    evidence.coarse_error_in_sigmas = mean(squares).sqrt();
    evidence
}

fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.into_iter().collect();
    crate::metrics::mean(&values)
}
