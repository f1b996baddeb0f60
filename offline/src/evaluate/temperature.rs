//! The softmax temperature at which heatmaps mean what they say, where positions are known; with the share of
//! heatmaps that mean nothing, and without.

use crate::data::Dataset;
use crate::data::pairs::truth::{Truth, true_pose};
use crate::data::pose::cell_from_offset;
use crate::model::ModelSpec;
use crate::predict::PairPrediction;
use crate::recipe::heatmap_fit::{FittedBy, HeatmapFit};
use crossfix_calibration::uncertainty::{MixtureSample, fit_temperature};

/// Fits the temperature by likelihood to predictions that kept their heatmaps: networks are trained
/// towards a Gaussian of a metre, wider than their errors. `None` where no sample has its truth
/// inside its heatmap.
pub fn temperature(
    dataset: &dyn Dataset,
    predictions: &[PairPrediction],
    truth: &Truth,
    spec: &ModelSpec,
) -> Option<f64> {
    let samples = with_truth(dataset, predictions, truth, spec);
    let samples = samples
        .iter()
        .map(|sample| (sample.logits.as_slice(), sample.truth[0].0));
    Some(fit_temperature(samples).ok()?.temperature)
}

/// As [`temperature`], together with the share of heatmaps that mean nothing.
pub fn heatmap_fit(
    dataset: &dyn Dataset,
    predictions: &[PairPrediction],
    truth: &Truth,
    spec: &ModelSpec,
) -> Option<HeatmapFit> {
    let samples = with_truth(dataset, predictions, truth, spec);
    HeatmapFit::of(FittedBy::Truth, spec.heatmap_side(), &samples).ok()
}

/// Heatmaps with the cells of their true positions, of predictions that kept theirs and have the truth inside.
pub fn with_truth(
    dataset: &dyn Dataset,
    predictions: &[PairPrediction],
    truth: &Truth,
    spec: &ModelSpec,
) -> Vec<MixtureSample> {
    let side = spec.heatmap_side();
    let cell = |at: f64| (at >= 0.0 && at < side as f64).then_some(at as usize);
    let samples = dataset.samples().zip(predictions);
    let samples = samples.filter_map(|(sample, prediction)| {
        let [column, row] = cell_from_offset(true_pose(sample, truth)?.offset_m, spec);
        let (column, row) = (cell(column)?, cell(row)?);
        let probabilities = prediction.heatmap.as_ref()?.iter();
        let logs = probabilities.map(|p| p.max(f32::MIN_POSITIVE).ln());
        Some(MixtureSample {
            logits: logs.collect(),
            truth: vec![(row * side + column, 1.0)],
        })
    });
    samples.collect()
}
