//! Where between the cells a map is largest.

/// The largest place of a map near its cell `cell` (`[column, row]`), in cells from the top-left
/// corner (cell centres at +0.5): along each axis the top of the parabola through the logarithms of
/// the cell and its two neighbours, which is exact for a Gaussian. It stays within the cell.
///
/// A cell at the border, or one that is no peak along an axis, keeps its centre along that axis.
///
/// # Shapes and units
/// `values` row-major, `side` × `side`, probabilities or densities, not negative.
pub fn refine_peak(values: &[f32], side: usize, cell: [usize; 2]) -> [f64; 2] {
    let at = cell[1] * side + cell[0];
    // A neighbour of no probability would be infinitely far below.
    let log = |index: usize| f64::from(values[index].max(1e-30)).ln();
    let along = |place: usize, stride: usize| {
        if place == 0 || place + 1 >= side {
            return 0.0;
        }
        let (before, top, after) = (log(at - stride), log(at), log(at + stride));
        let bend = before - 2.0 * top + after;
        if bend < 0.0 && before <= top && after <= top {
            ((before - after) / (2.0 * bend)).clamp(-0.5, 0.5)
        } else {
            0.0
        }
    };
    [
        cell[0] as f64 + 0.5 + along(cell[0], 1),
        cell[1] as f64 + 0.5 + along(cell[1], side),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Heatmap;

    #[test]
    fn the_peak_of_a_gaussian_is_found_between_cells() {
        for offset_m in [[0.0, 0.0], [0.31, -0.77], [-3.2, 5.49]] {
            let map = Heatmap::gaussian(32, 0.5, offset_m, 0.8).unwrap();
            let cell = map.mode().cell;
            let [column, row] = refine_peak(map.probabilities(), 32, cell);
            let found_m = [(column - 16.0) * 0.5, (16.0 - row) * 0.5];
            for axis in 0..2 {
                assert!(
                    (found_m[axis] - offset_m[axis]).abs() < 1e-3,
                    "{found_m:?} {offset_m:?}"
                );
            }
        }
    }

    #[test]
    fn borders_plateaus_and_lone_cells_keep_their_centre() {
        assert_eq!(refine_peak(&[0.25; 4], 2, [0, 1]), [0.5, 1.5]);
        assert_eq!(refine_peak(&[1.0; 9], 3, [1, 1]), [1.5, 1.5]);
        let mut lone = [0.0; 9];
        lone[4] = 1.0;
        assert_eq!(refine_peak(&lone, 3, [1, 1]), [1.5, 1.5]);
    }
}
