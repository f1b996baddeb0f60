//! Which labels are learned: outliers of the teacher shown by an auxiliary student.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Which labels a student learns.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Filter {
    /// All of them.
    KeepAll,
    /// An auxiliary student learns all labels first; those are kept whose mode is nearest to its
    /// own.
    AuxiliaryStudent {
        /// Share of labels kept (T of the paper), above 0 and at most 1.
        keep: f64,
        /// Share of labels that the student's first epoch learns, above 0 and at most 1. It goes along a line, epoch by epoch,
        /// to `keep` in the last epoch; always the nearest labels. None is `keep` in all epochs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        keep_first: Option<f64>,
    },
    /// An auxiliary student learns all labels first, and none is dropped for being among the furthest from it:
    /// each has the weight [`closeness`] of the distance between its mode and the auxiliary student's.
    WeighByAuxiliaryStudent {
        /// Distance at which a label has a weight of 0.61, metres.
        sigma_m: f64,
    },
    /// The share of labels whose heatmap had the lowest entropy; no auxiliary student.
    LowestEntropy {
        /// Share of labels kept, above 0 and at most 1.
        keep: f64,
    },
    /// No filter: an auxiliary student learns all labels first, and each label moves to the mode of the
    /// product of its heatmap with the teacher's. Our reading of the paper's baseline of fused pseudo labels.
    FuseWithAuxiliary,
    /// Labels that their drive supports, weighed by it. Where frames stand alone there is no such
    /// support, and an auxiliary student filters them.
    Support {
        /// Least support of a label that is learned.
        least: f64,
        /// Share kept of labels of frames that stand alone.
        keep_alone: f64,
    },
}

/// Labels of a lower weight are not learned: a batch of nothing else would have nothing to learn from.
const LEAST_WEIGHT: f64 = 0.01;

/// The weight of a label whose mode and the auxiliary student's are so many metres apart, exp(-d² / 2σ²); 0 where that is
/// below a hundredth, beyond three sigmas. Not divided by the mean of all weights: a loss is the weighted mean over
/// its batch, which a common factor does not change.
pub fn closeness(distance_m: f64, sigma_m: f64) -> f64 {
    let weight = (-0.5 * (distance_m / sigma_m).powi(2)).exp();
    if weight >= LEAST_WEIGHT { weight } else { 0.0 }
}

/// Of `labels` the number that each of so many epochs learns, its share going along a line from `first` to `last`.
pub fn epochs_of(labels: usize, epochs: f64, first: f64, last: f64) -> Vec<usize> {
    let count = (epochs.ceil() as usize).max(1);
    let share = |epoch: usize| match count {
        1 => first,
        _ => first + (last - first) * epoch as f64 / (count - 1) as f64,
    };
    let learned = |epoch| (share(epoch) * labels as f64 - 1e-9).ceil() as usize;
    (0..count)
        .map(|epoch| learned(epoch).clamp(1, labels.max(1)))
        .collect()
}

/// The places of `distances_m` from the smallest to the largest; equal ones as a shuffle by `seed` puts them.
pub(super) fn nearest_first(distances_m: &[f64], seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..distances_m.len()).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    // A stable sort leaves equal ones in the shuffled order.
    order.sort_by(|a, b| distances_m[*a].total_cmp(&distances_m[*b]));
    order
}

/// Whether each label is kept: the ⌈`share` · n⌉ smallest distances. Of equal ones, those that a
/// shuffle by `seed` puts first: the order of a dataset's drives decides nothing.
pub fn keep_closest(distances_m: &[f64], share: f64, seed: u64) -> Vec<bool> {
    // The product may lie a rounding error above a whole number.
    let wanted = (share * distances_m.len() as f64 - 1e-9).ceil().max(0.0) as usize;
    let order = nearest_first(distances_m, seed);
    let mut kept = vec![false; distances_m.len()];
    for index in order.into_iter().take(wanted) {
        kept[index] = true;
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_distances_are_kept_rounded_up() {
        let kept = keep_closest(&[5.0, 1.0, 3.0, 2.0], 0.6, 0);
        assert_eq!(kept, [false, true, true, true]);
    }

    #[test]
    fn ties_are_cut_by_the_seed_and_not_by_place() {
        let distances: Vec<f64> = (0..1000).map(|index| f64::from(index % 2)).collect();
        let kept = keep_closest(&distances, 0.75, 7);
        assert_eq!(kept.iter().filter(|kept| **kept).count(), 750);
        // All zeros, and of the ones as many from the first half as from the second, give or take.
        assert!(kept.iter().step_by(2).all(|kept| *kept));
        let first_half = kept[..500].iter().filter(|kept| **kept).count();
        assert!((345..=405).contains(&first_half), "{first_half}");
        assert_eq!(kept, keep_closest(&distances, 0.75, 7));
        assert_ne!(kept, keep_closest(&distances, 0.75, 8));
    }

    #[test]
    fn a_label_weighs_less_the_further_its_mode_is_from_the_auxiliary_students() {
        assert_eq!(closeness(0.0, 3.0), 1.0);
        assert!((closeness(3.0, 3.0) - 0.606_530_66).abs() < 1e-8);
        assert!((closeness(6.0, 2.0) - 0.011_108_997).abs() < 1e-8);
        assert_eq!(closeness(6.1, 2.0), 0.0);
        assert_eq!(closeness(f64::NAN, 2.0), 0.0);
    }

    #[test]
    fn the_share_of_an_epoch_goes_along_a_line() {
        assert_eq!(epochs_of(100, 2.5, 1.0, 0.8), [100, 90, 80]);
        assert_eq!(epochs_of(10, 3.0, 0.5, 1.0), [5, 8, 10]);
        assert_eq!(epochs_of(10, 0.5, 1.0, 0.8), [10]);
    }

    #[test]
    fn a_share_of_one_keeps_all() {
        assert_eq!(keep_closest(&[f64::NAN, 1.0], 1.0, 0), [true, true]);
    }
}
