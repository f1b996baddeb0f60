//! Predictions of a network for pairs, in metres. Knows no truth.

use crate::data::batch::{BatchError, plain_batch};
use crate::data::error::DatasetError;
use crate::data::loader::{Workers, ahead};
use crate::data::pose::{offset_from_cell, wrap_rad};
use crate::data::sample::{Dataset, Sample};
use crate::model::{
    CrossViewModel, Extent, ForwardOptions, GroundCamera, Input, LevelMap, ModelError, ModelSpec,
    Prediction,
};
use crate::progress;
use crate::run::Interrupt;
use crossfix_calibration::refine_peak;
use crossfix_kernels::{Tape, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Squared Mahalanobis distance that holds 99 % of a two-dimensional Gaussian.
pub const PRIOR_MAHALANOBIS_SQUARED: f64 = 9.210_340_371_976_184;

/// The prediction for one pair; offsets are metres east and north of the patch centre.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairPrediction {
    /// Mode of the heatmap: the centre of its largest cell, first in row-major order.
    pub mode_m: [f64; 2],
    /// Heatmap cell (column, row) of the mode.
    pub mode_cell: [usize; 2],
    /// Mode of the heatmap within the 99 % ellipse of the coarse position; the mode itself when
    /// the ellipse misses the patch.
    pub masked_mode_m: [f64; 2],
    /// Heatmap cell (column, row) of the masked mode.
    pub masked_mode_cell: [usize; 2],
    /// The mode between cells: the top of a parabola through the logarithms of its cell and their
    /// neighbours.
    pub peak_m: [f64; 2],
    /// The masked mode between cells.
    pub masked_peak_m: [f64; 2],
    /// Probability of the largest cell.
    pub peak: f64,
    /// Entropy of the heatmap, nats.
    pub entropy: f64,
    /// Mode of each matching level, coarsest first, over the searched orientations.
    pub level_modes_m: Vec<[f64; 2]>,
    /// Yaw residual at the mode, radians counter-clockwise.
    pub residual_rad: Option<f64>,
    /// Yaw residual at the masked mode.
    pub masked_residual_rad: Option<f64>,
    /// Yaw residual at which the mode's place matches best, of panorama networks that search all orientations: the
    /// bin with the largest sum over all levels' scores there, between bins by a parabola. Weights alone tell it; it is
    /// not in an exported graph.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched_residual_rad: Option<f64>,
    /// The heatmap, row-major, where it was asked for.
    #[serde(skip)]
    pub heatmap: Option<Vec<f32>>,
}

/// Why a network could not be run over a dataset.
#[derive(Debug, thiserror::Error)]
pub enum PredictError {
    /// The network, or images that do not fit it.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A sample cannot be read.
    #[error(transparent)]
    Data(#[from] DatasetError),
    /// Asked to stop.
    #[error("stopped on request while a network ran over the samples")]
    Interrupted,
}

impl From<BatchError> for PredictError {
    fn from(error: BatchError) -> Self {
        match error {
            BatchError::Data(error) => Self::Data(error),
            BatchError::Model(error) => Self::Model(error),
        }
    }
}

/// Runs a network in evaluation mode over the samples of a dataset, which are read ahead of it.
///
/// # Errors
/// [`PredictError`] when a sample cannot be read or does not fit the network, or on request.
pub fn predict(
    model: &mut dyn CrossViewModel,
    dataset: &dyn Dataset,
    keep_heatmaps: bool,
    interrupt: &Interrupt,
) -> Result<Vec<PairPrediction>, PredictError> {
    predict_with(model, dataset, interrupt, |_, prediction, heatmap| {
        Ok(PairPrediction {
            heatmap: keep_heatmaps.then(|| heatmap.to_vec()),
            ..prediction
        })
    })
}

/// As [`predict`], keeping of each prediction and its heatmap (row-major) what `keep` makes of them.
///
/// # Errors
/// As [`predict`], and what `keep` returns.
pub fn predict_with<T: Send>(
    model: &mut dyn CrossViewModel,
    dataset: &dyn Dataset,
    interrupt: &Interrupt,
    keep: impl Fn(&Sample, PairPrediction, &[f32]) -> Result<T, PredictError> + Sync,
) -> Result<Vec<T>, PredictError> {
    let spec = model.describe().clone();
    let mut all = Vec::with_capacity(dataset.len());
    let read = |indices: Range<usize>| -> Result<_, PredictError> {
        let pairs = indices.clone().map(|index| dataset.pair(index));
        let pairs = pairs.collect::<Result<Vec<_>, _>>()?;
        Ok((plain_batch(&pairs, &spec)?, indices))
    };
    let cells = spec.heatmap_side().pow(2);
    run_ahead(
        "predict",
        model,
        dataset.len(),
        interrupt,
        read,
        |prediction, heatmaps, indices| {
            let of_sample = |(place, index): (usize, usize)| {
                let sample = dataset.sample(index);
                let one = one(&spec, prediction, heatmaps, place, sample);
                keep(sample, one, &heatmaps.data()[place * cells..][..cells])
            };
            let places: Vec<(usize, usize)> = indices.enumerate().collect();
            let kept = places.into_par_iter().map(of_sample);
            all.extend(kept.collect::<Result<Vec<T>, _>>()?);
            Ok(())
        },
    )?;
    Ok(all)
}

/// Runs a network in evaluation mode over `count` samples, batch by batch: `read` makes the input of
/// a range of them ahead of it, with what `each` needs beside the prediction and its heatmaps, both
/// on the host.
pub(crate) fn run_ahead<B: Send>(
    what: &'static str,
    model: &mut dyn CrossViewModel,
    count: usize,
    interrupt: &Interrupt,
    read: impl Fn(Range<usize>) -> Result<(Input, B), PredictError> + Sync,
    mut each: impl FnMut(&Prediction, &Tensor, B) -> Result<(), PredictError>,
) -> Result<(), PredictError> {
    let size = batch_size(model.describe());
    let bar = progress::bar(what, count as u64);
    let numbers = 0..count.div_ceil(size) as u64;
    let make = |number: u64| {
        let first = number as usize * size;
        read(first..count.min(first + size))
    };
    ahead(numbers, Workers::default(), interrupt, make, |batches| {
        for batch in batches {
            let (input, beside) = batch?;
            let options = ForwardOptions::evaluation(Extent::Everything);
            let prediction = model.forward(&mut Tape::inference(), &input, options)?;
            let prediction = prediction.to_host()?;
            let heatmaps = prediction.heatmaps()?;
            each(&prediction, &heatmaps, beside)?;
            bar.inc(input.len() as u64);
        }
        Ok::<_, PredictError>(())
    })?;
    bar.finish_and_clear();
    if interrupt.asked() {
        return Err(PredictError::Interrupted);
    }
    Ok(())
}

/// Samples in an inference batch: fewer of the large networks, whose activations fill memory.
pub fn batch_size(spec: &ModelSpec) -> usize {
    if spec.aerial_px >= 256 { 4 } else { 16 }
}

fn one(
    spec: &ModelSpec,
    prediction: &Prediction,
    heatmaps: &Tensor,
    index: usize,
    sample: &Sample,
) -> PairPrediction {
    let cells = spec.heatmap_side().pow(2);
    let heatmap = &heatmaps.data()[index * cells..(index + 1) * cells];
    let residual_at = |cell: usize| {
        let field = prediction.orientation.as_ref()?.data();
        let field = &field[index * 2 * cells..(index + 1) * 2 * cells];
        Some(f64::from(field[cells + cell]).atan2(f64::from(field[cell])))
    };
    let levels = prediction.levels.iter().zip(&spec.levels);
    let levels = levels.map(|(stack, level)| level_mode(stack, index, level));
    let found = from_heatmap(heatmap, residual_at, sample, spec, false);
    let stacks: Vec<&[f32]> = prediction
        .levels
        .iter()
        .map(|stack| {
            let length = stack.len() / stack.shape()[0].max(1);
            &stack.data()[index * length..][..length]
        })
        .collect();
    PairPrediction {
        level_modes_m: levels.collect(),
        matched_residual_rad: matched_residual(spec, &stacks, found.mode_cell),
        ..found
    }
}

/// The yaw residual whose bin matches best at a heatmap cell (column, row), by the score stacks `[bins, side, side]` of
/// all levels; `None` of networks that do not search every bin. Bins run against the angle
/// ([`orientation_shares`](crate::model::loss::orientation_shares)).
fn matched_residual(spec: &ModelSpec, stacks: &[&[f32]], cell: [usize; 2]) -> Option<f64> {
    if spec.orientation_prior.is_some() || spec.camera != GroundCamera::Panorama {
        return None;
    }
    let bins = spec.orientation_bins;
    let mut sums = vec![0.0f64; bins];
    for (stack, level) in stacks.iter().zip(&spec.levels) {
        let side = level.map.side;
        let [column, row] = cell.map(|at| at * side / spec.heatmap_side());
        for (bin, sum) in sums.iter_mut().enumerate() {
            *sum += f64::from(*stack.get((bin * side + row) * side + column)?);
        }
    }
    let best = (0..bins).max_by(|a, b| sums[*a].total_cmp(&sums[*b]))?;
    let [before, after] = [best + bins - 1, best + 1].map(|bin| sums[bin % bins]);
    let bend = before + after - 2.0 * sums[best];
    let between = if bend < 0.0 {
        (0.5 * (before - after) / bend).clamp(-0.5, 0.5)
    } else {
        0.0
    };
    Some(wrap_rad(-(best as f64 + between) * spec.bin_rad()))
}

/// The prediction that one heatmap amounts to; `residual_at` gives the yaw residual at a cell.
pub fn from_heatmap(
    heatmap: &[f32],
    residual_at: impl Fn(usize) -> Option<f64>,
    sample: &Sample,
    spec: &ModelSpec,
    keep_heatmap: bool,
) -> PairPrediction {
    let side = spec.heatmap_side();
    let place = |cell: usize| [cell % side, cell / side];
    let offset = |cell: usize| offset_from_cell(place(cell).map(|c| c as f64 + 0.5), spec);
    let allowed = |cell: usize| {
        let [east, north] = offset(cell);
        let [coarse_east, coarse_north] = sample.coarse_offset_m;
        within_prior(
            [east - coarse_east, north - coarse_north],
            sample.coarse_covariance_m2,
        )
    };
    let mode = arg_max(heatmap, |_| true).unwrap_or(0);
    let masked = arg_max(heatmap, allowed).unwrap_or(mode);
    let peak = |cell: usize| offset_from_cell(refine_peak(heatmap, side, place(cell)), spec);
    let entropy = heatmap
        .iter()
        .filter(|p| **p > 0.0)
        .map(|p| -f64::from(*p) * f64::from(*p).ln());
    PairPrediction {
        mode_m: offset(mode),
        mode_cell: place(mode),
        masked_mode_m: offset(masked),
        masked_mode_cell: place(masked),
        peak_m: peak(mode),
        masked_peak_m: peak(masked),
        peak: heatmap.get(mode).map_or(0.0, |peak| f64::from(*peak)),
        entropy: entropy.sum(),
        level_modes_m: Vec::new(),
        residual_rad: residual_at(mode),
        masked_residual_rad: residual_at(masked),
        matched_residual_rad: None,
        heatmap: keep_heatmap.then(|| heatmap.to_vec()),
    }
}

/// Whether a place lies within the 99 % ellipse of the coarse position.
pub fn within_prior(offset_m: [f64; 2], covariance_m2: [[f64; 2]; 2]) -> bool {
    let (squared, determinant) = scaled_mahalanobis(offset_m, covariance_m2);
    squared <= PRIOR_MAHALANOBIS_SQUARED * determinant
}

/// The squared Mahalanobis distance times the covariance's determinant, and the determinant.
fn scaled_mahalanobis([east, north]: [f64; 2], covariance_m2: [[f64; 2]; 2]) -> (f64, f64) {
    let [[ee, en], [_, nn]] = covariance_m2;
    let squared = nn * east * east - 2.0 * en * east * north + ee * north * north;
    (squared, ee * nn - en * en)
}

/// A heatmap times the Gaussian of the coarse position, summing to 1; the heatmap itself where the
/// covariance is not positive definite or nothing is left.
pub fn times_prior(heatmap: &[f32], sample: &Sample, spec: &ModelSpec) -> Vec<f32> {
    let side = spec.heatmap_side();
    let [coarse_east, coarse_north] = sample.coarse_offset_m;
    let weight = |cell: usize| {
        let place = [cell % side, cell / side].map(|c| c as f64 + 0.5);
        let [east, north] = offset_from_cell(place, spec);
        let offset_m = [east - coarse_east, north - coarse_north];
        let (squared, determinant) = scaled_mahalanobis(offset_m, sample.coarse_covariance_m2);
        (-0.5 * squared / determinant).exp()
    };
    let product = heatmap.iter().enumerate();
    let product: Vec<f64> = product
        .map(|(cell, p)| f64::from(*p) * weight(cell))
        .collect();
    let sum: f64 = product.iter().sum();
    if !(sum > 0.0 && sum.is_finite()) {
        return heatmap.to_vec();
    }
    product.iter().map(|p| (p / sum) as f32).collect()
}

/// First largest value among those allowed.
pub fn arg_max(values: &[f32], allowed: impl Fn(usize) -> bool) -> Option<usize> {
    let mut best: Option<usize> = None;
    for (index, value) in values.iter().enumerate() {
        if best.is_none_or(|best| *value > values[best]) && allowed(index) {
            best = Some(index);
        }
    }
    best
}

fn level_mode(stack: &Tensor, sample: usize, level: &LevelMap) -> [f64; 2] {
    let [_, channels, grid, _] = <[usize; 4]>::try_from(stack.shape()).unwrap_or([1; 4]);
    let plane = grid * grid;
    let all: Vec<usize> = (0..channels).collect();
    let mut best = (f32::NEG_INFINITY, 0);
    for channel in level.searched.as_ref().unwrap_or(&all) {
        let from = (sample * channels + channel) * plane;
        for (cell, score) in stack.data()[from..from + plane].iter().enumerate() {
            if *score > best.0 {
                best = (*score, cell);
            }
        }
    }
    let (cell_m, half) = (level.map.metres_per_cell, grid as f64 / 2.0);
    let column = (best.1 % grid) as f64 + 0.5;
    let row = (best.1 / grid) as f64 + 0.5;
    [(column - half) * cell_m, (half - row) * cell_m]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MapSpec;

    #[test]
    fn first_of_equal_largest_values_wins() {
        assert_eq!(arg_max(&[0.0, 2.0, 2.0, 1.0], |_| true), Some(1));
        assert_eq!(arg_max(&[0.0, 2.0, 2.0, 1.0], |i| i != 1), Some(2));
        assert_eq!(arg_max(&[1.0], |_| false), None);
    }

    #[test]
    fn the_prior_ellipse_is_three_sigma_wide() {
        let covariance = [[4.0, 0.0], [0.0, 1.0]];
        assert!(within_prior([6.0, 0.0], covariance));
        assert!(!within_prior([0.0, 6.0], covariance));
        assert!(!within_prior([6.2, 0.0], covariance));
    }

    #[test]
    fn the_matched_residual_runs_against_the_bins_and_lies_between_them() {
        let spec = crate::model::named("compact-unknown-heading")
            .unwrap()
            .describe();
        let bins = spec.orientation_bins;
        // Cell (40, 9) of the heatmap; a third of the way from bin 3 to bin 4.
        let stacks: Vec<Vec<f32>> = spec
            .levels
            .iter()
            .map(|level| {
                let side = level.map.side;
                let [column, row] = [40, 9].map(|at| at * side / 64);
                let mut stack = vec![0.5; bins * side * side];
                for bin in 0..bins {
                    let off = bin as f32 - 10.0 / 3.0;
                    stack[(bin * side + row) * side + column] = -0.1 * off * off;
                }
                stack
            })
            .collect();
        let stacks: Vec<&[f32]> = stacks.iter().map(Vec::as_slice).collect();
        let found = matched_residual(&spec, &stacks, [40, 9]).unwrap();
        assert!(
            (found + 10.0 / 3.0 * spec.bin_rad()).abs() < 1e-5,
            "{found}"
        );
        // The label of that angle is in the same bins.
        let shares = crate::model::loss::orientation_shares(found, bins);
        let mut shared = shares.map(|(bin, _)| bin);
        shared.sort_unstable();
        assert_eq!(shared, [3, 4]);
        let known = crate::model::named("compact").unwrap().describe();
        assert!(matched_residual(&known, &stacks, [40, 9]).is_none());
    }

    #[test]
    fn level_modes_are_cell_centres_in_metres() {
        let mut scores = vec![0.0; 2 * 2 * 4];
        scores[8 + 4 + 1] = 1.0; // sample 1, channel 1, row 0, column 1
        let stack = Tensor::new(scores, &[2, 2, 2, 2]).unwrap();
        let level = |searched| LevelMap {
            map: MapSpec {
                side: 2,
                cell_px: 64.0,
                metres_per_cell: 32.0,
            },
            searched,
        };
        assert_eq!(level_mode(&stack, 1, &level(None)), [16.0, 16.0]);
        assert_eq!(level_mode(&stack, 1, &level(Some(vec![0]))), [-16.0, 16.0]);
    }
}
