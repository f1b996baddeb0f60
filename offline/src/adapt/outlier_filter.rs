//! Keeps the labels on which teacher and auxiliary student agree best.

/// Who was kept, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Filtered {
    /// Metres between the teacher's mode and the auxiliary student's, by pair.
    pub distances_m: Vec<f64>,
    /// Whether the label was kept, by pair.
    pub kept: Vec<bool>,
}

impl Filtered {
    /// Share of labels kept.
    pub fn kept_fraction(&self) -> f64 {
        let kept = self.kept.iter().filter(|kept| **kept).count();
        kept as f64 / self.kept.len().max(1) as f64
    }
}

/// Keeps the ⌈`share` · n⌉ smallest distances; of equal ones, those that come first.
pub fn keep_closest(distances_m: Vec<f64>, share: f64) -> Filtered {
    // The product may lie a rounding error above a whole number.
    let wanted = (share * distances_m.len() as f64 - 1e-9).ceil().max(0.0) as usize;
    let mut order: Vec<usize> = (0..distances_m.len()).collect();
    order.sort_by(|a, b| distances_m[*a].total_cmp(&distances_m[*b]).then(a.cmp(b)));
    let mut kept = vec![false; distances_m.len()];
    for index in order.into_iter().take(wanted) {
        kept[index] = true;
    }
    Filtered { distances_m, kept }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_distances_are_kept_rounded_up() {
        let filtered = keep_closest(vec![5.0, 1.0, 3.0, 2.0], 0.6);
        assert_eq!(filtered.kept, [false, true, true, true]);
        assert!((filtered.kept_fraction() - 0.75).abs() < 1e-12);
    }

    #[test]
    fn ties_go_to_the_first() {
        let filtered = keep_closest(vec![1.0; 5], 0.4);
        assert_eq!(filtered.kept, [true, true, false, false, false]);
    }

    #[test]
    fn a_share_of_one_keeps_all() {
        let filtered = keep_closest(vec![f64::NAN, 1.0], 1.0);
        assert_eq!(filtered.kept, [true, true]);
    }
}
