//! What GGCVT learns from, and how a place is read from its distance maps.
//!
//! Three centres are in play, all published: a template cut at cell o fits at index o when the
//! camera is in the middle; training puts the middle at (n − 1) / 2; reading at test puts it at
//! (n + 1) / 2 (panorama) or n / 2 (pinhole). [`Centre`] names the choice.

use super::spec::{GgcvtCamera, GgcvtSpec};
use super::{GgcvtPrediction, ModelError};
use crossfix_kernels::{Device, Error, Result as KernelResult, Tape, Tensor, ops};

/// Slope of the soft margin.
const SLOPE: f32 = 10.0;

/// Which index of a distance map means no offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Centre {
    /// (n − 1) / 2: what training teaches. Unbiased for networks trained here and there.
    Trained,
    /// What the published test programs read: (n + 1) / 2 for a panorama, n / 2 for a pinhole
    /// camera. Half a cell or a cell off, so that its errors compare with published ones.
    Published,
}

impl Centre {
    /// Its index in a map of `places`.
    pub fn index(self, camera: GgcvtCamera, places: usize) -> f64 {
        let places = places as f64;
        match (self, camera) {
            (Self::Trained, _) => (places - 1.0) / 2.0,
            (Self::Published, GgcvtCamera::Panorama { .. }) => f64::midpoint(places, 1.0),
            (Self::Published, GgcvtCamera::Pinhole { .. }) => places / 2.0,
        }
    }
}

/// [row, column] of the cell that training calls the true place.
///
/// `offset_cells` is the camera's place as [down, right] from the middle, in cells of the level.
/// Places beyond the map end on its edge.
pub fn true_cell(places: usize, offset_cells: [f64; 2]) -> [usize; 2] {
    offset_cells.map(|offset| {
        let index = (places as f64 / 2.0 - 0.5 + offset).round_ties_even();
        index.clamp(0.0, places as f64 - 1.0) as usize
    })
}

/// The place of each sample with the smallest distance at the finest level computed, the first in
/// row-major order: [row, column]. Waits for a device to have computed them.
///
/// # Errors
/// The device's own.
pub fn best_cells(distances: &Tensor) -> KernelResult<Vec<[usize; 2]>> {
    let columns = distances.shape().last().copied().unwrap_or(1).max(1);
    let cells: usize = distances.shape().iter().skip(1).product();
    let values = distances.to_vec()?;
    let samples = values.chunks_exact(cells.max(1));
    let best = samples.map(|sample| {
        let mut best = 0;
        for (index, distance) in sample.iter().enumerate() {
            if *distance < sample[best] {
                best = index;
            }
        }
        [best / columns, best % columns]
    });
    Ok(best.collect())
}

/// The triplet loss of each level computed.
///
/// `offsets` are the camera's places as shares of the aerial side from its middle, [down, right].
///
/// # Errors
/// [`ModelError::Kernel`] when the prediction belongs to another batch.
pub fn triplets(
    tape: &mut Tape,
    spec: &GgcvtSpec,
    prediction: &GgcvtPrediction,
    offsets: &[[f64; 2]],
) -> Result<Vec<Tensor>, ModelError> {
    let device = prediction.distances.first().map(Tensor::device);
    let places = true_places(spec, offsets)?.into_iter();
    let places = places.map(|places| places.to(device.as_ref().unwrap_or(&Device::Cpu)));
    let places = places.collect::<KernelResult<Vec<_>>>()?;
    Ok(triplets_at(tape, prediction, &places)?)
}

/// The cells that training calls true, for each level `[N]`, on the host: what [`triplets_at`]
/// takes.
pub(super) fn true_places(spec: &GgcvtSpec, offsets: &[[f64; 2]]) -> KernelResult<Vec<Tensor>> {
    let levels = spec.sides().into_iter().zip(spec.places());
    let levels = levels.map(|(side, places)| {
        let cell = |offset: &[f64; 2]| true_cell(places, offset.map(|share| share * side as f64));
        let cells: Vec<[usize; 2]> = offsets.iter().map(cell).collect();
        ops::place_numbers(&cells, [places; 2])
    });
    levels.collect()
}

/// As [`triplets`], at places that lie beside the distances.
pub(super) fn triplets_at(
    tape: &mut Tape,
    prediction: &GgcvtPrediction,
    places: &[Tensor],
) -> KernelResult<Vec<Tensor>> {
    let levels = prediction.distances.iter().zip(places);
    let losses = levels
        .map(|(distances, places)| ops::soft_margin_triplet_at(tape, distances, places, SLOPE));
    losses.collect()
}

/// Sum of the levels.
///
/// # Errors
/// [`ModelError::Input`] without a level.
pub fn sum(tape: &mut Tape, terms: &[Tensor]) -> Result<Tensor, ModelError> {
    let Some((first, rest)) = terms.split_first() else {
        return Err(ModelError::Input("no level to sum a loss over".into()));
    };
    let mut total = first.clone();
    for term in rest {
        total = ops::add(tape, &total, term)?;
    }
    Ok(total)
}

/// Mean distance of the rotation optimiser's poses to the true ones: over samples, summed over
/// the three numbers of a pose, averaged over steps. `truth` may lie anywhere.
///
/// # Shapes
/// `truth` `[N, 3]`, normalised.
///
/// # Errors
/// A shape error without a pose or when the poses belong to another batch, or the device's own.
pub fn pose_error(tape: &mut Tape, poses: &[Tensor], truth: &Tensor) -> KernelResult<Tensor> {
    let [samples, _] = truth.dims2("pose_error", "truth")?;
    let Some((first, rest)) = poses.split_first() else {
        return Err(Error::shape("pose_error", "poses", "at least one", 0));
    };
    let truth = truth.to(&first.device())?;
    let share = (1.0 / (samples * poses.len()) as f64) as f32;
    let mut sum = ops::absolute_error(tape, first, &truth, share)?;
    for pose in rest {
        let error = ops::absolute_error(tape, pose, &truth, share)?;
        sum = ops::add(tape, &sum, &error)?;
    }
    Ok(sum)
}

/// `e^(-r) rotation + e^(-t) place + t + r` with the learnt balance `[t, r]`, all on one device.
///
/// # Source
/// Multi-Task Learning Using Uncertainty to Weigh Losses (Kendall et al. 2018).
///
/// # Errors
/// A shape error when one is not a single number.
pub fn balanced(
    tape: &mut Tape,
    [place, rotation]: [&Tensor; 2],
    [t, r]: [&Tensor; 2],
) -> KernelResult<Tensor> {
    let place = ops::uncertainty_weighted(tape, place, t)?;
    let rotation = ops::uncertainty_weighted(tape, rotation, r)?;
    ops::add(tape, &place, &rotation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossfix_kernels::testing::{assert_close, check_gradient, noise};

    #[test]
    fn the_true_cell_is_rounded_half_to_even() {
        // 40 places: the middle is 19.5; 0 rounds to 20, one cell up to 18 (18.5).
        assert_eq!(true_cell(40, [0.0, -1.0]), [20, 18]);
        assert_eq!(true_cell(155, [0.4, -0.6]), [77, 76]);
        assert_eq!(true_cell(40, [99.0, -99.0]), [39, 0]);
    }

    #[test]
    fn the_first_of_equal_cells_is_best() {
        let map = Tensor::new(vec![2.0, 1.0, 1.0, 3.0, 0.0, 3.0, 0.0, 0.0], &[2, 2, 2]).unwrap();
        assert_eq!(best_cells(&map).unwrap(), [[0, 1], [0, 0]]);
    }

    #[test]
    fn pose_errors_are_averaged_over_steps_and_samples() {
        let truth = Tensor::new(vec![0.0, 1.0, 0.0], &[1, 3]).unwrap();
        let first = Tensor::new(vec![0.5, 1.0, -0.25], &[1, 3]).unwrap();
        let mut tape = Tape::inference();
        let error = pose_error(&mut tape, &[first, truth.clone()], &truth).unwrap();
        assert_close(error.data(), &[0.375], 1e-7);
    }

    #[test]
    fn gradients_match_finite_differences() {
        let truth = Tensor::full(&[2, 3], 3.0);
        check_gradient(&[noise(&[2, 3], 1), noise(&[2, 3], 2)], 2e-3, |tape, x| {
            pose_error(tape, x, &truth)
        });
        let inputs = [1, 2, 3, 4].map(|seed| noise(&[], seed));
        check_gradient(&inputs, 2e-3, |tape, x| {
            balanced(tape, [&x[0], &x[1]], [&x[2], &x[3]])
        });
    }
}
