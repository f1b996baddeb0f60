//! Networks that search all headings, on pairs whose heading is known or was found along their drives: labels
//! come from a search near it, as those of the adaptation paper do, and what was not found is asked of the network.

use super::consensus::Chain;
use crate::data::{Dataset, Sample, Subset};
use crate::model::{CrossViewModel, ModelSpec};
use crate::predict::{PairPrediction, PredictError, predict_with};
use crate::run::Interrupt;
use crossfix_calibration::track::{FoundYaw, Waypoint, yaws_by_directions};
use serde::{Deserialize, Serialize};

/// Headings with a sigma above this, radians, are not known.
pub(crate) const UNKNOWN_RAD: f64 = 1.0;
/// Headings with a sigma below so many bins are searched near: with one bin to each side, twice the sigma.
const NEAR_BINS: f64 = 0.5;
/// What the direction of one network's answer is worth, radians: most are right to a few degrees, and those of a
/// street repeat each other's errors.
const ANSWER_SIGMA_RAD: f64 = 0.35;

/// Where the headings of frames came from that nobody knew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct HeadingEvidence {
    /// Frames without a heading, or with one whose sigma is above 15°.
    pub unknown: usize,
    /// Those that odometry and coarse positions told.
    pub by_course: usize,
    /// 95 % of these have at most this sigma, degrees.
    pub sigma_p95_deg: f64,
    /// Those that the network's own directions told, along odometry or alone.
    pub by_network: usize,
}

impl HeadingEvidence {
    /// In a line.
    pub(super) fn describe(&self) -> String {
        let left = self
            .unknown
            .saturating_sub(self.by_course + self.by_network);
        format!(
            "headings of {} frames not known: {} by odometry and coarse positions (95 % to {:.1}° or better), {} by the network, {left} not found",
            self.unknown, self.by_course, self.sigma_p95_deg, self.by_network
        )
    }
}

/// Whether a network searches every heading and says which it is.
pub(crate) fn searches_all(spec: &ModelSpec) -> bool {
    spec.orientation_prior.is_none() && !spec.finds_heading()
}

/// The yaw residual that a network which searches all answers with: that of the best match, which is surer than the
/// orientation field of a compact network.
pub(super) fn direction(prediction: &PairPrediction) -> Option<f64> {
    prediction.matched_residual_rad.or(prediction.residual_rad)
}

/// As [`predict_with`]; a network that searches all headings searches one bin to each side of those that are
/// known, but not of those that a published protocol takes as exact, which it turns by angles of its own.
pub(crate) fn predict_near<T: Send>(
    model: &mut dyn CrossViewModel,
    pairs: &dyn Dataset,
    interrupt: &Interrupt,
    keep: impl Fn(&Sample, PairPrediction, &[f32]) -> Result<T, PredictError> + Sync,
) -> Result<Vec<T>, PredictError> {
    let spec = model.describe().clone();
    let near = searches_all(&spec)
        .then(|| model.searching_near(1))
        .flatten();
    let Some(mut near) = near else {
        return predict_with(model, pairs, interrupt, keep);
    };
    let is_known = |index: &usize| {
        let sigma_rad = pairs.sample(*index).yaw_sigma_rad;
        sigma_rad > 0.0 && sigma_rad <= NEAR_BINS * spec.bin_rad()
    };
    let (known, unknown): (Vec<usize>, Vec<usize>) = (0..pairs.len()).partition(is_known);
    let mut all: Vec<Option<T>> = (0..pairs.len()).map(|_| None).collect();
    for (model, samples) in [(near.as_mut(), &known), (model, &unknown)] {
        if samples.is_empty() {
            continue;
        }
        let part = Subset {
            dataset: pairs,
            samples,
        };
        let found = predict_with(model, &part, interrupt, &keep)?;
        for (index, found) in samples.iter().zip(found) {
            all[*index] = Some(found);
        }
    }
    Ok(all.into_iter().flatten().collect())
}

/// Gives the frames of a drive whose yaw is not known the one that the network's answers have in common along
/// odometry, or each its own. Returns how many got one.
pub(super) fn head_by_network(
    chain: &mut Chain,
    pairs: &dyn Dataset,
    predictions: &[PairPrediction],
) -> usize {
    let is_unknown = |sigma_rad: f64| sigma_rad > UNKNOWN_RAD;
    if !chain
        .frames
        .iter()
        .any(|frame| is_unknown(frame.yaw_sigma_rad))
    {
        return 0;
    }
    let frames = chain.frames.iter().zip(&chain.samples);
    let found: Vec<Option<FoundYaw>> = frames
        .map(|(frame, index)| {
            if !is_unknown(frame.yaw_sigma_rad) {
                return Some(FoundYaw {
                    yaw_rad: frame.yaw_rad,
                    sigma_rad: frame.yaw_sigma_rad,
                });
            }
            let sample = pairs.sample(*index);
            let residual_rad = direction(&predictions[*index])?;
            Some(FoundYaw {
                yaw_rad: sample.yaw_rad + residual_rad - sample.heading_residual_rad,
                sigma_rad: ANSWER_SIGMA_RAD,
            })
        })
        .collect();
    let points: Vec<Waypoint> = chain
        .frames
        .iter()
        .map(|frame| Waypoint {
            time_s: frame.time_s,
            coarse_m: frame.coarse_m,
            coarse_sigma_m: f64::INFINITY,
            odometry: frame.odometry,
        })
        .collect();
    let mut count = 0;
    let yaws = yaws_by_directions(&points, &found);
    for (frame, yaw) in chain.frames.iter_mut().zip(yaws) {
        if let Some(yaw) =
            yaw.filter(|yaw| is_unknown(frame.yaw_sigma_rad) && !is_unknown(yaw.sigma_rad))
        {
            (frame.yaw_rad, frame.yaw_sigma_rad) = (yaw.yaw_rad, yaw.sigma_rad);
            count += 1;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::pose::wrap_rad;
    use crate::data::{OdometryStep, Pair};
    use crate::model::named;
    use crate::predict::{from_heatmap, predict};
    use crate::recipe::{CoarsePrior, Consensus, HeadingLabels, TeacherMode};
    use crate::shard::Answer;
    use crate::train::tests::noise_pairs;
    use crossfix_calibration::{Enu, Heatmap, LocalFrame, LogMap};
    use std::f64::consts::PI;

    const YAW_RAD: f64 = 2.0;

    /// Twelve frames of a drive straight on, 4 m apart, whose heading is not known, and what a network makes of each:
    /// where it is, and its direction, but once that of the other way along the street.
    fn unknown(odometry: bool) -> (Vec<Pair>, Vec<Answer>) {
        let spec = named("compact-unknown-heading").unwrap().describe();
        let mut pairs: Vec<Pair> = noise_pairs(12, "compact")
            .into_iter()
            .map(|(pair, _)| pair)
            .collect();
        let frame = LocalFrame::new(pairs[0].sample.centre);
        let mut answers = Vec::new();
        for (index, pair) in pairs.iter_mut().enumerate() {
            let way = 4.0 * index as f64;
            let sample = &mut pair.sample;
            sample.drive = "drive".into();
            sample.time_ns = index as i64 * 500_000_000;
            let place = Enu::new(way * YAW_RAD.cos(), way * YAW_RAD.sin(), 0.0);
            sample.centre = frame.geodetic_from_enu(place);
            sample.coarse_offset_m = [0.0; 2];
            sample.coarse_covariance_m2 = [[9.0, 0.0], [0.0, 9.0]];
            (sample.yaw_rad, sample.yaw_sigma_rad) = (PI / 2.0, PI);
            sample.odometry = (index > 0 && odometry).then_some(OdometryStep {
                forward_m: 4.0,
                left_m: 0.0,
                yaw_rad: 0.0,
            });
            let turned = if index == 5 { PI } else { 0.0 };
            let residual = wrap_rad(YAW_RAD + turned - PI / 2.0 + 0.02 * (index % 3) as f64);
            let heatmap = Heatmap::gaussian(64, 1.0, [0.0, 0.0], 1.0).unwrap();
            let cells = heatmap.probabilities();
            answers.push(Answer {
                prediction: from_heatmap(cells, |_| Some(residual), sample, &spec, false),
                map: Some(LogMap::new(64, 1.0, cells, 72).unwrap()),
            });
        }
        (pairs, answers)
    }

    #[test]
    fn a_drive_too_short_for_its_course_is_headed_by_the_network_along_odometry() {
        let spec = named("compact-unknown-heading").unwrap().describe();
        let (pairs, answers) = unknown(true);
        let found = Consensus::default()
            .label_by(&spec, &pairs, answers)
            .unwrap();
        for label in &found.labels {
            let off = wrap_rad(label.residual_rad - (YAW_RAD - PI / 2.0)).abs();
            assert!(off < 0.1, "{}: {off}", label.id);
        }
        let evidence = found.evidence.unwrap();
        let headings = evidence.headings.unwrap();
        assert_eq!((headings.by_course, headings.by_network), (0, 12));
        assert!(evidence.describe().contains("12 by the network"));
        // A network that was given a heading cannot tell.
        let known = named("compact").unwrap().describe();
        let (pairs, answers) = unknown(true);
        let found = Consensus::default()
            .label_by(&known, &pairs, answers)
            .unwrap();
        assert!(found.evidence.unwrap().headings.is_none());
    }

    #[test]
    fn frames_without_odometry_and_labels_by_mode_have_the_networks_own_direction() {
        let spec = named("compact-unknown-heading").unwrap().describe();
        let (pairs, answers) = unknown(false);
        let own: Vec<PairPrediction> = answers.iter().map(|a| a.prediction.clone()).collect();
        let found = Consensus::default()
            .label_by(&spec, &pairs, answers)
            .unwrap();
        let mode = TeacherMode {
            prior: CoarsePrior::Multiplied,
            heading: HeadingLabels::Given,
            ..TeacherMode::default()
        };
        let by_mode = mode.label_by(&spec, &pairs, &own);
        for ((label, by_mode), own) in found.labels.iter().zip(&by_mode).zip(&own) {
            let own = own.residual_rad.unwrap();
            assert!(wrap_rad(label.residual_rad - own).abs() < 1e-9);
            assert!(wrap_rad(by_mode.residual_rad - own).abs() < 1e-9);
        }
    }

    #[test]
    fn a_known_heading_is_searched_near_and_others_all_around() {
        let mut model = named("compact-unknown-heading").unwrap().build(3).unwrap();
        let mut near = model.searching_near(1).unwrap();
        assert_eq!(near.describe().orientation_prior, Some(1));
        let (mut pairs, _) = unknown(false);
        pairs.truncate(6);
        for pair in &mut pairs[..3] {
            pair.sample.yaw_sigma_rad = 0.05;
        }
        let never = Interrupt::default();
        let plain = predict(model.as_mut(), &pairs, false, &never).unwrap();
        let narrow = predict(near.as_mut(), &pairs, false, &never).unwrap();
        let keep = |_: &Sample, prediction, _: &[f32]| Ok(prediction);
        let found = predict_near(model.as_mut(), &pairs, &never, keep).unwrap();
        for (index, found) in found.iter().enumerate() {
            let expected = if index < 3 { &narrow } else { &plain };
            assert_eq!(found.entropy, expected[index].entropy, "{index}");
        }
        assert!(plain[0].entropy != narrow[0].entropy);
        assert!(
            named("ggcvt-compact")
                .unwrap()
                .build(3)
                .unwrap()
                .searching_near(1)
                .is_none()
        );
    }
}
