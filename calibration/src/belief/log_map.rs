//! A heatmap in few bytes, to keep those of a whole fleet in memory.

use crate::{Error, Heatmap, Result};

/// Nats below a uniform heatmap at which cells end: an outlier share of a percent hides what lies
/// deeper.
const DEPTH: f32 = 9.0;

/// The logarithm of a heatmap, a byte for each cell, in steps of less than a tenth.
#[derive(Debug, Clone, PartialEq)]
pub struct LogMap {
    side: usize,
    metres_per_cell: f64,
    levels: Vec<u8>,
}

impl LogMap {
    /// Of a network's softmax over `side` × `side` cells, row-major; cells are added up in squares
    /// until there are at most `most_side` along a side.
    ///
    /// # Errors
    /// [`Error::Heatmap`] unless there are `side²` cells, some of them above 0, and at least one
    /// cell along a side.
    pub fn new(
        side: usize,
        metres_per_cell: f64,
        probabilities: &[f32],
        most_side: usize,
    ) -> Result<Self> {
        if side == 0 || most_side == 0 || side * side != probabilities.len() {
            return Err(Error::Heatmap(format!(
                "{} cells for a side of {side}, at most {most_side} wanted",
                probabilities.len()
            )));
        }
        let square = (1..=side)
            .find(|square| side.is_multiple_of(*square) && side / square <= most_side)
            .unwrap_or(side);
        let few = side / square;
        let mut sums = vec![0.0f32; few * few];
        for (row, line) in probabilities.chunks_exact(side).enumerate() {
            let sums = &mut sums[row / square * few..][..few];
            for (sum, cells) in sums.iter_mut().zip(line.chunks_exact(square)) {
                *sum += cells.iter().sum::<f32>();
            }
        }
        let total: f32 = sums.iter().sum();
        if !(total > 0.0 && total.is_finite()) {
            return Err(Error::Heatmap(format!("the cells sum to {total}")));
        }
        let uniform = total / sums.len() as f32;
        let steps = 255.0 / (DEPTH + (sums.len() as f32).ln());
        let level = |sum: &f32| {
            let above = (sum / uniform).max(1e-30).ln() + DEPTH;
            (above * steps).round().clamp(0.0, 255.0) as u8
        };
        Ok(Self {
            side: few,
            metres_per_cell: metres_per_cell * square as f64,
            levels: sums.iter().map(level).collect(),
        })
    }

    /// Of the bytes of [`LogMap::levels`].
    ///
    /// # Errors
    /// [`Error::Heatmap`] unless they are those of a square.
    pub fn from_levels(metres_per_cell: f64, levels: Vec<u8>) -> Result<Self> {
        let side = levels.len().isqrt();
        if side == 0 || side * side != levels.len() {
            let what = format!("{} cells are no square", levels.len());
            return Err(Error::Heatmap(what));
        }
        Ok(Self {
            side,
            metres_per_cell,
            levels,
        })
    }

    /// A byte for each cell, row-major: logarithms of the probabilities.
    pub fn levels(&self) -> &[u8] {
        &self.levels
    }

    /// Cells along a side.
    pub fn side(&self) -> usize {
        self.side
    }

    /// Metres along a cell.
    pub fn metres_per_cell(&self) -> f64 {
        self.metres_per_cell
    }

    /// The heatmap raised to a power and normalised: below 1 it is flatter.
    ///
    /// # Errors
    /// [`Error::Heatmap`] unless the power is positive and finite.
    pub fn tempered(&self, power: f64) -> Result<Heatmap> {
        if !(power > 0.0 && power.is_finite()) {
            return Err(Error::Heatmap(format!(
                "power {power}; need a positive one"
            )));
        }
        let step = (DEPTH + (self.levels.len() as f32).ln()) / 255.0;
        let table: Vec<f32> = (0..=255)
            .map(|level: u8| ((f32::from(level) - 255.0) * step * power as f32).exp())
            .collect();
        let mut cells: Vec<f32> = self
            .levels
            .iter()
            .map(|level| table[usize::from(*level)])
            .collect();
        let total: f32 = cells.iter().sum();
        for cell in &mut cells {
            *cell /= total;
        }
        Heatmap::new(self.side, self.metres_per_cell, cells)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heatmap_survives_a_byte_for_each_cell() {
        let heatmap = Heatmap::gaussian(64, 1.0, [3.3, -7.1], 2.5).unwrap();
        let map = LogMap::new(64, 1.0, heatmap.probabilities(), 64).unwrap();
        let back = map.tempered(1.0).unwrap();
        for (got, expected) in back.probabilities().iter().zip(heatmap.probabilities()) {
            assert!(
                (got - expected).abs() < 0.05 * expected + 1e-7,
                "{got} {expected}"
            );
        }
        let same = LogMap::from_levels(map.metres_per_cell(), map.levels().to_vec()).unwrap();
        assert_eq!(
            same.tempered(1.0).unwrap().probabilities(),
            back.probabilities()
        );
        assert!(LogMap::from_levels(1.0, vec![0; 8]).is_err());
        let flat = map.tempered(0.8).unwrap();
        let expected = heatmap.tempered(0.8).unwrap();
        let ratio = flat.covariance_m2(flat.mean_m())[0][0]
            / expected.covariance_m2(expected.mean_m())[0][0];
        assert!((ratio - 1.0).abs() < 0.1, "{ratio}");
    }

    #[test]
    fn large_heatmaps_are_added_up_in_squares() {
        let heatmap = Heatmap::gaussian(128, 0.25, [2.1, -4.0], 1.5).unwrap();
        let map = LogMap::new(128, 0.25, heatmap.probabilities(), 70).unwrap();
        assert_eq!((map.side(), map.metres_per_cell()), (64, 0.5));
        let mean = map.tempered(1.0).unwrap().mean_m();
        assert!((mean[0] - 2.1).abs() < 0.05 && (mean[1] + 4.0).abs() < 0.05);
    }

    #[test]
    fn what_is_no_heatmap_is_refused() {
        assert!(LogMap::new(4, 1.0, &[0.1; 15], 8).is_err());
        assert!(LogMap::new(2, 1.0, &[0.0; 4], 8).is_err());
        let map = LogMap::new(2, 1.0, &[0.25; 4], 8).unwrap();
        assert!(map.tempered(0.0).is_err());
    }
}
