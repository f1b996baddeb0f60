//! One model, one area, one table.

mod published;
mod temperature;
pub mod tsne;
pub mod views;

pub use published::{PublishedEvaluation, evaluate_published};
pub use temperature::{heatmap_fit, temperature, with_truth};
pub use views::{ViewAgreement, Views, placed_samples, view_descriptors};

use crate::data::pairs::truth::{Truth, true_pose};
use crate::data::pose::wrap_rad;
use crate::data::sample::Dataset;
use crate::metrics::{PositionError, Summary, YawSummary};
use crate::model::CrossViewModel;
use crate::predict::{PairPrediction, PredictError, predict};
use crate::run::Interrupt;
use serde::{Deserialize, Serialize};

/// What `crossfix evaluate` measures.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Mode of the heatmap.
    pub unmasked: Summary,
    /// Mode of the heatmap within the 99 % ellipse of the coarse position.
    pub masked: Summary,
    /// Mode of each matching level, coarsest first.
    pub levels: Vec<Summary>,
    /// Yaw at the mode, if the network predicts it.
    pub yaw: Option<YawSummary>,
    /// Yaw at which the mode matches best, if the network searches all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched_yaw: Option<YawSummary>,
    /// Guessing the patch centre.
    pub guess_centre: Summary,
    /// Taking the coarse position.
    pub coarse: Summary,
    /// Share of modes outside the coarse position's 99 % ellipse.
    pub outside_prior: f64,
    /// Pairs left out: without truth, or with the truth outside the patch.
    pub left_out: usize,
}

impl Evaluation {
    /// Refuses one that measured nothing: its errors of 0 m would pass for good ones.
    ///
    /// # Errors
    /// What is missing, and where to look.
    pub fn check(&self) -> Result<(), String> {
        if self.unmasked.count > 0 {
            return Ok(());
        }
        Err(format!(
            "none of the {} pairs has a true position within its aerial image; is truth.jsonl of this dataset?",
            self.left_out
        ))
    }
}

/// Runs a network over a dataset and compares its predictions with the truth.
///
/// # Errors
/// As [`predict`].
pub fn evaluate(
    model: &mut dyn CrossViewModel,
    dataset: &dyn Dataset,
    truth: &Truth,
    keep_heatmaps: bool,
    interrupt: &Interrupt,
) -> Result<(Evaluation, Vec<PairPrediction>), PredictError> {
    let predictions = predict(model, dataset, keep_heatmaps, interrupt)?;
    let evaluation = compare(dataset, &predictions, truth);
    Ok((evaluation, predictions))
}

/// Compares predictions, one for each sample of a dataset, with the truth.
pub fn compare(dataset: &dyn Dataset, predictions: &[PairPrediction], truth: &Truth) -> Evaluation {
    let mut errors = Errors::default();
    let mut left_out = 0;
    for (index, prediction) in predictions.iter().enumerate() {
        let sample = dataset.sample(index);
        let Some(pose) = true_pose(sample, truth) else {
            left_out += 1;
            continue;
        };
        let error = |estimate_m| PositionError::new(estimate_m, pose.offset_m, pose.yaw_rad);
        errors.unmasked.push(error(prediction.mode_m));
        errors.masked.push(error(prediction.masked_mode_m));
        errors.centre.push(error([0.0, 0.0]));
        errors.coarse.push(error(sample.coarse_offset_m));
        errors.outside += usize::from(prediction.mode_m != prediction.masked_mode_m);
        errors
            .levels
            .resize(prediction.level_modes_m.len(), Vec::new());
        for (level, mode) in errors.levels.iter_mut().zip(&prediction.level_modes_m) {
            level.push(error(*mode));
        }
        if let Some(residual) = prediction.residual_rad {
            errors.yaw.push(wrap_rad(residual - pose.residual_rad));
            errors.given_yaw.push(pose.residual_rad);
        }
        if let Some(residual) = prediction.matched_residual_rad {
            errors
                .matched_yaw
                .push(wrap_rad(residual - pose.residual_rad));
        }
    }
    let yaw = !errors.yaw.is_empty();
    Evaluation {
        unmasked: Summary::of(&errors.unmasked),
        masked: Summary::of(&errors.masked),
        levels: errors
            .levels
            .iter()
            .map(|level| Summary::of(level))
            .collect(),
        yaw: yaw.then(|| YawSummary::of(&errors.yaw, &errors.given_yaw)),
        matched_yaw: (!errors.matched_yaw.is_empty())
            .then(|| YawSummary::of(&errors.matched_yaw, &errors.given_yaw)),
        guess_centre: Summary::of(&errors.centre),
        coarse: Summary::of(&errors.coarse),
        outside_prior: errors.outside as f64 / errors.unmasked.len().max(1) as f64,
        left_out,
    }
}

#[derive(Default)]
struct Errors {
    unmasked: Vec<PositionError>,
    masked: Vec<PositionError>,
    levels: Vec<Vec<PositionError>>,
    centre: Vec<PositionError>,
    coarse: Vec<PositionError>,
    yaw: Vec<f64>,
    given_yaw: Vec<f64>,
    matched_yaw: Vec<f64>,
    outside: usize,
}

impl Evaluation {
    /// The table that people read.
    pub fn table(&self) -> String {
        let mut rows = vec![
            ("guess the centre".to_string(), &self.guess_centre),
            ("coarse position".into(), &self.coarse),
            ("heatmap".into(), &self.unmasked),
            ("heatmap in prior".into(), &self.masked),
        ];
        for (k, level) in self.levels.iter().enumerate() {
            rows.push((format!("level {}", k + 1), level));
        }
        let mut text = format!(
            "{:<17} {:>6} {:>7} {:>7} {:>7} {:>7} {:>7} {:>6} {:>6}\n",
            "metres", "count", "mean", "median", "p90", "along", "across", "<1 m", "<5 m"
        );
        for (name, s) in rows {
            text += &format!(
                "{name:<17} {:>6} {:>7.2} {:>7.2} {:>7.2} {:>7.2} {:>7.2} {:>5.0}% {:>5.0}%\n",
                s.count,
                s.mean_m,
                s.median_m,
                s.p90_m,
                s.along_mean_m,
                s.across_mean_m,
                s.recall_1m * 100.0,
                s.recall_5m * 100.0,
            );
        }
        if let Some(yaw) = &self.yaw {
            text += &format!(
                "yaw: mean {:.2}°, median {:.2}°; the heading given: mean {:.2}°\n",
                yaw.mean_deg, yaw.median_deg, yaw.given_mean_deg
            );
        }
        if let Some(yaw) = &self.matched_yaw {
            text += &format!(
                "yaw of the best match: mean {:.2}°, median {:.2}°\n",
                yaw.mean_deg, yaw.median_deg
            );
        }
        text += &format!(
            "{:.1} % of the modes lie outside the prior",
            self.outside_prior * 100.0
        );
        if self.left_out > 0 {
            text += &format!("; {} pairs without truth were left out", self.left_out);
        }
        text + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::pairs::truth::TruthRow;
    use crate::data::{Pair, Sample};
    use crate::model::named;
    use crate::predict::from_heatmap;
    use crate::train::tests::noise_pairs;
    use crossfix_calibration::{Enu, LocalFrame};

    #[test]
    fn errors_are_measured_in_metres_along_and_across_the_road() {
        let (pair, _) = noise_pairs(1, "compact").remove(0);
        // The camera 10 m east and 5 m north of the centre, heading east.
        let place = LocalFrame::new(pair.sample.centre).geodetic_from_enu(Enu::new(10.0, 5.0, 0.0));
        let row = TruthRow {
            id: pair.sample.id.clone(),
            latitude_deg: place.latitude_deg,
            longitude_deg: place.longitude_deg,
            heading_deg: 90.0,
        };
        let folder = tempfile::tempdir().unwrap();
        let text = serde_json::to_string(&row).unwrap();
        std::fs::write(folder.path().join("truth.jsonl"), text).unwrap();
        let truth = Truth::open(folder.path()).unwrap();

        // The heatmap peaks 3.5 m further east and 4.5 m further north, its second peak on the spot.
        let spec = named("compact").unwrap().describe();
        let mut heatmap = vec![0.0; 64 * 64];
        heatmap[(32 - 10) * 64 + 32 + 13] = 0.6;
        heatmap[(32 - 6) * 64 + 32 + 9] = 0.4;
        let prediction = from_heatmap(&heatmap, |_| Some(0.1), &pair.sample, &spec, false);
        let measured = compare(&vec![pair.clone()], &[prediction], &truth);
        assert!((measured.unmasked.along_mean_m - 3.5).abs() < 1e-3);
        assert!((measured.unmasked.across_mean_m - 4.5).abs() < 1e-3);
        assert!((measured.guess_centre.mean_m - 125f64.sqrt()).abs() < 1e-3);
        assert!((measured.yaw.unwrap().mean_deg - 0.1f64.to_degrees()).abs() < 1e-9);
        assert!(measured.table().contains("heatmap in prior"));

        // A tight prior around the centre leaves no peak but the nearer one.
        let sample = Sample {
            coarse_offset_m: [8.0, 4.0],
            coarse_covariance_m2: [[1.0, 0.0], [0.0, 1.0]],
            ..pair.sample
        };
        let pair = Pair { sample, ..pair };
        let prediction = from_heatmap(&heatmap, |_| None, &pair.sample, &spec, false);
        let measured = compare(&vec![pair.clone()], &[prediction], &truth);
        assert!(measured.masked.mean_m < 0.8);
        assert!((measured.outside_prior - 1.0).abs() < 1e-12);
        measured.check().unwrap();
        // Truth of another dataset measures nothing, and says so.
        let mut other = pair.clone();
        other.sample.id = "another".into();
        let prediction = from_heatmap(&heatmap, |_| None, &other.sample, &spec, false);
        let measured = compare(&vec![other], &[prediction], &truth);
        assert!(
            measured
                .check()
                .unwrap_err()
                .contains("none of the 1 pairs")
        );
    }
}
