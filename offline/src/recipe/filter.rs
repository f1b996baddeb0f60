//! Which labels are learned: outliers of the teacher shown by an auxiliary student.

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
    },
}

/// Whether each label is kept: the ⌈`share` · n⌉ smallest distances; of equal ones, those that
/// come first.
pub fn keep_closest(distances_m: &[f64], share: f64) -> Vec<bool> {
    // The product may lie a rounding error above a whole number.
    let wanted = (share * distances_m.len() as f64 - 1e-9).ceil().max(0.0) as usize;
    let mut order: Vec<usize> = (0..distances_m.len()).collect();
    order.sort_by(|a, b| distances_m[*a].total_cmp(&distances_m[*b]).then(a.cmp(b)));
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
        let kept = keep_closest(&[5.0, 1.0, 3.0, 2.0], 0.6);
        assert_eq!(kept, [false, true, true, true]);
    }

    #[test]
    fn ties_go_to_the_first() {
        assert_eq!(
            keep_closest(&[1.0; 5], 0.4),
            [true, true, false, false, false]
        );
    }

    #[test]
    fn a_share_of_one_keeps_all() {
        assert_eq!(keep_closest(&[f64::NAN, 1.0], 1.0), [true, true]);
    }
}
