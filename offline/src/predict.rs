//! What a network says about pairs, in metres. Knows no truth.

use crate::data::ahead::{Workers, ahead};
use crate::data::pose::offset_from_cell;
use crate::data::{Pair, PairSource, plain_batch};
use crate::model::{
    CrossViewModel, Extent, ForwardOptions, Input, LevelMap, ModelError, ModelSpec, Prediction,
};
use crate::progress;
use crossfix_kernels::{Tape, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::borrow::Borrow;

/// Squared Mahalanobis distance that holds 99 % of a two-dimensional Gaussian.
pub const PRIOR_MAHALANOBIS_SQUARED: f64 = 9.210_340_371_976_184;

/// What a network says about one pair; offsets are metres east and north of the patch centre.
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
    /// The heatmap, row-major, where it was asked for.
    #[serde(skip)]
    pub heatmap: Option<Vec<f32>>,
}

/// Runs a network over pairs in evaluation mode.
///
/// # Errors
/// [`ModelError`] when a pair does not fit the network.
pub fn predict(
    model: &mut dyn CrossViewModel,
    pairs: &[&Pair],
    keep_heatmaps: bool,
) -> Result<Vec<PairPrediction>, ModelError> {
    const BATCH: usize = 16;
    let spec = model.describe().clone();
    let batches = pairs.len().div_ceil(BATCH) as u64;
    let read = |number: u64| -> Result<_, ModelError> {
        let first = number as usize * BATCH;
        let pairs = &pairs[first..pairs.len().min(first + BATCH)];
        Ok((pairs, plain_batch(pairs, &spec)?))
    };
    predict_batches(model, pairs.len(), batches, read, keep_heatmaps)
}

/// Runs a network over batches of pairs, which `read` makes ahead of it by their number.
fn predict_batches<P: AsRef<[R]> + Send, R: Borrow<Pair> + Sync>(
    model: &mut dyn CrossViewModel,
    count: usize,
    batches: u64,
    read: impl Fn(u64) -> Result<(P, Input), ModelError> + Sync,
    keep_heatmaps: bool,
) -> Result<Vec<PairPrediction>, ModelError> {
    let spec = model.describe().clone();
    let bar = progress::bar("predict", count as u64);
    let mut all = Vec::with_capacity(count);
    ahead(0..batches, Workers::default(), read, |batches| {
        for batch in batches {
            let (pairs, input) = batch?;
            let pairs = pairs.as_ref();
            let options = ForwardOptions::evaluation(Extent::Everything);
            let prediction = model.forward(&mut Tape::inference(), &input, options)?;
            let prediction = prediction.to_host()?;
            let heatmaps = prediction.heatmaps()?;
            let of_pair = |(index, pair): (usize, &R)| {
                let pair = pair.borrow();
                one(&spec, &prediction, &heatmaps, index, pair, keep_heatmaps)
            };
            all.par_extend(pairs.par_iter().enumerate().map(of_pair));
            bar.inc(pairs.len() as u64);
        }
        Ok::<_, ModelError>(())
    })?;
    bar.finish_and_clear();
    Ok(all)
}

/// Runs a network over the pairs of a source, which are read ahead of it.
///
/// # Errors
/// [`ModelError`] when a pair cannot be read or does not fit the network.
pub fn predict_source(
    model: &mut dyn CrossViewModel,
    source: &dyn PairSource,
) -> Result<Vec<PairPrediction>, ModelError> {
    let spec = model.describe().clone();
    let size = batch_size(&spec);
    let read = |number: u64| -> Result<_, ModelError> {
        let first = number as usize * size;
        let pairs = (first..source.len().min(first + size))
            .map(|index| source.pair(index))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| ModelError::Input(error.to_string()))?;
        let all: Vec<&Pair> = pairs.iter().map(AsRef::as_ref).collect();
        let input = plain_batch(&all, &spec)?;
        Ok((pairs, input))
    };
    let batches = source.len().div_ceil(size) as u64;
    predict_batches(model, source.len(), batches, read, false)
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
    pair: &Pair,
    keep_heatmap: bool,
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
    PairPrediction {
        level_modes_m: levels.collect(),
        ..from_heatmap(heatmap, residual_at, pair, spec, keep_heatmap)
    }
}

/// What one heatmap says; `residual_at` gives the yaw residual at a cell.
pub fn from_heatmap(
    heatmap: &[f32],
    residual_at: impl Fn(usize) -> Option<f64>,
    pair: &Pair,
    spec: &ModelSpec,
    keep_heatmap: bool,
) -> PairPrediction {
    let side = spec.heatmap_side();
    let place = |cell: usize| [cell % side, cell / side];
    let offset = |cell: usize| offset_from_cell(place(cell).map(|c| c as f64 + 0.5), spec);
    let allowed = |cell: usize| {
        let [east, north] = offset(cell);
        let [coarse_east, coarse_north] = pair.coarse_offset_m;
        within_prior(
            [east - coarse_east, north - coarse_north],
            pair.coarse_covariance_m2,
        )
    };
    let mode = arg_max(heatmap, |_| true).unwrap_or(0);
    let masked = arg_max(heatmap, allowed).unwrap_or(mode);
    let entropy = heatmap
        .iter()
        .filter(|p| **p > 0.0)
        .map(|p| -f64::from(*p) * f64::from(*p).ln());
    PairPrediction {
        mode_m: offset(mode),
        mode_cell: place(mode),
        masked_mode_m: offset(masked),
        masked_mode_cell: place(masked),
        peak: heatmap.get(mode).map_or(0.0, |peak| f64::from(*peak)),
        entropy: entropy.sum(),
        level_modes_m: Vec::new(),
        residual_rad: residual_at(mode),
        masked_residual_rad: residual_at(masked),
        heatmap: keep_heatmap.then(|| heatmap.to_vec()),
    }
}

/// Whether a place lies within the 99 % ellipse of the coarse position.
pub fn within_prior([east, north]: [f64; 2], covariance_m2: [[f64; 2]; 2]) -> bool {
    let [[ee, en], [_, nn]] = covariance_m2;
    let determinant = ee * nn - en * en;
    let squared = nn * east * east - 2.0 * en * east * north + ee * north * north;
    squared <= PRIOR_MAHALANOBIS_SQUARED * determinant
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
