//! The softmax temperature at which heatmaps mean what they say, where positions are known.

use crate::data::Dataset;
use crate::data::pairs::truth::{Truth, true_pose};
use crate::data::pose::cell_from_offset;
use crate::model::ModelSpec;
use crate::predict::PairPrediction;
use crossfix_calibration::uncertainty::fit_temperature;

/// Fits the temperature by likelihood to predictions that kept their heatmaps: networks are trained
/// towards a Gaussian of a metre, wider than their errors. `None` where no sample has its truth
/// inside its heatmap.
pub fn temperature(
    dataset: &dyn Dataset,
    predictions: &[PairPrediction],
    truth: &Truth,
    spec: &ModelSpec,
) -> Option<f64> {
    let side = spec.heatmap_side();
    let cell = |at: f64| (at >= 0.0 && at < side as f64).then_some(at as usize);
    let samples: Vec<(Vec<f32>, usize)> = dataset
        .samples()
        .zip(predictions)
        .filter_map(|(sample, prediction)| {
            let [column, row] = cell_from_offset(true_pose(sample, truth)?.offset_m, spec);
            let (column, row) = (cell(column)?, cell(row)?);
            let probabilities = prediction.heatmap.as_ref()?.iter();
            let logs = probabilities.map(|p| p.max(f32::MIN_POSITIVE).ln());
            Some((logs.collect(), row * side + column))
        })
        .collect();
    let samples = samples.iter().map(|(logs, cell)| (logs.as_slice(), *cell));
    Some(fit_temperature(samples).ok()?.temperature)
}
