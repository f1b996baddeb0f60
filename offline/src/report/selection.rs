//! Which samples a page shows.

use super::input::PairGroup;

/// Chooses which samples to show: the best gains, the typical, and the worst regressions, about a
/// third of `count` each, no sample twice.
///
/// `errors_m` is (teacher, student) per sample. "Typical" are taken at even distances from the fifth
/// of the samples around the median change, so the choice cannot be flattered. Cards stand three in a row: a `count` of 9 or 18 leaves no
/// gaps. Returns indices with their groups, in the order to show.
pub fn select_pairs(errors_m: &[(f64, f64)], count: usize) -> Vec<(usize, PairGroup)> {
    let mut by_change: Vec<(usize, f64)> = errors_m
        .iter()
        .enumerate()
        .map(|(index, (teacher, student))| (index, student - teacher))
        .filter(|(_, change)| change.is_finite())
        .collect();
    by_change.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
    let total = by_change.len();
    let side = count.min(total) / 3;
    let typical = count.min(total) - 2 * side;
    // The fifth of the samples around the median change, in the order they were recorded: taken
    // at even distances, they are of different drives instead of neighbouring frames.
    let half = (total / 10).max(typical.div_ceil(2));
    let middle = (total / 2).saturating_sub(half).max(side)..(total / 2 + half).min(total - side);
    let mut middle: Vec<usize> = by_change[middle].iter().map(|(index, _)| *index).collect();
    middle.sort_unstable();
    let typical = typical.min(middle.len());
    let middle = (0..typical).map(|i| middle[(2 * i + 1) * middle.len() / (2 * typical)]);
    let best = by_change[..side].iter().map(|p| (p.0, PairGroup::BestGain));
    let worst = by_change[total - side..].iter().rev();
    best.chain(middle.map(|index| (index, PairGroup::Typical)))
        .chain(worst.map(|p| (p.0, PairGroup::WorstRegression)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typical_pairs_are_no_neighbouring_frames_where_most_changes_are_equal() {
        let mut errors = vec![(1.0, 1.0); 300];
        (0..10).for_each(|i| errors[i] = (1.0, f64::from(i as u32)));
        let chosen = select_pairs(&errors, 9);
        let typical: Vec<usize> = chosen
            .iter()
            .filter(|(_, group)| *group == PairGroup::Typical)
            .map(|(index, _)| *index)
            .collect();
        assert!(
            typical.windows(2).all(|pair| pair[1] - pair[0] >= 15),
            "{typical:?}"
        );
    }

    #[test]
    fn selection_is_best_typical_worst_without_repeats() {
        let errors: Vec<_> = (0..90).map(|i| (45.0, f64::from(i))).collect();
        let chosen = select_pairs(&errors, 9);
        let indices: Vec<_> = chosen.iter().map(|c| c.0).collect();
        assert_eq!(indices, [0, 1, 2, 39, 45, 51, 89, 88, 87]);
        for count in 0..7 {
            let mut few: Vec<_> = select_pairs(&errors[..4], count);
            assert_eq!(few.len(), count.min(4));
            few.sort_by_key(|c| c.0);
            few.dedup_by_key(|c| c.0);
            assert_eq!(few.len(), count.min(4));
        }
        assert!(select_pairs(&[(f64::NAN, 1.0)], 3).is_empty());
    }
}
