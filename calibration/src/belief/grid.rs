//! The grid itself: where its cells are, and sliding the window.

use super::math::{exp, for_each_cpu, largest, ln, scale_to_at_least, sum};
use crate::{Error, Result};

/// Probability below which a cell does not sink, so that any hypothesis can come back: nothing we
/// measure tells 10⁻²⁶ from zero. It is e⁻⁶⁰.
pub(super) const FLOOR: f32 = 8.756_511e-27;

/// What a likelihood is multiplied with before it meets the cells. Cells span 26 of the 76 decades
/// that single precision has; this puts their product with a likelihood of 10⁻²⁰ to 10⁷, or with
/// other cells, amid the rest.
pub(super) const SCALE: f32 = (1u128 << 64) as f32;

/// Probabilities over `cells` × `cells` square cells, row-major, row 0 in the north; they sum to 1.
#[derive(Debug, Clone, PartialEq)]
pub struct GridBelief {
    pub(super) centre_m: [f64; 2],
    pub(super) cells: usize,
    pub(super) metres_per_cell: f64,
    pub(super) p: Vec<f32>,
}

impl GridBelief {
    /// No idea: every cell of a window about `centre_m` (`[east, north]`) is as likely.
    ///
    /// # Errors
    /// [`Error::Belief`] for numbers that make no grid.
    pub fn new(centre_m: [f64; 2], cells: usize, metres_per_cell: f64) -> Result<Self> {
        check_point("window centre", centre_m)?;
        if !(3..=4096).contains(&cells) {
            return Err(Error::Belief(format!(
                "{cells} cells a side; need 3 to 4096"
            )));
        }
        if !(metres_per_cell > 0.0 && metres_per_cell.is_finite()) {
            return Err(Error::Belief(format!(
                "{metres_per_cell} metres per cell; need a positive number"
            )));
        }
        let count = cells * cells;
        Ok(Self {
            centre_m,
            cells,
            metres_per_cell,
            p: vec![1.0 / count as f32; count],
        })
    }

    /// `[east, north]` of the window's centre.
    pub fn centre(&self) -> [f64; 2] {
        self.centre_m
    }

    /// Cells along one side.
    pub fn cells(&self) -> usize {
        self.cells
    }

    /// Metres along one cell.
    pub fn metres_per_cell(&self) -> f64 {
        self.metres_per_cell
    }

    /// Row-major probabilities, row 0 in the north.
    pub fn probabilities(&self) -> &[f32] {
        &self.p
    }

    /// Row-major logarithms of the probabilities, row 0 in the north.
    pub fn log_probabilities(&self) -> Vec<f32> {
        self.p.iter().map(|p| ln(*p)).collect()
    }

    /// `[east, north]` of the centre of the cell `[col, row]`.
    pub fn cell_centre(&self, cell: [usize; 2]) -> [f64; 2] {
        [self.east(cell[0]), self.north(cell[1])]
    }

    /// The cell `[col, row]` over a point, `None` outside the window.
    pub fn cell_at(&self, point_m: [f64; 2]) -> Option<[usize; 2]> {
        let half = self.cells as f64 / 2.0;
        let col = ((point_m[0] - self.centre_m[0]) / self.metres_per_cell + half).floor();
        let row = (half - (point_m[1] - self.centre_m[1]) / self.metres_per_cell).floor();
        let inside = |v: f64| v >= 0.0 && v < self.cells as f64;
        (inside(col) && inside(row)).then_some([col as usize, row as usize])
    }

    /// Mass within a distance of a point: how well the belief supports it.
    pub fn mass_within(&self, point_m: [f64; 2], radius_m: f64) -> f64 {
        let mut mass = 0.0;
        for (row, line) in self.p.chunks_exact(self.cells).enumerate() {
            let north = self.north(row) - point_m[1];
            if north.abs() > radius_m {
                continue;
            }
            for (col, p) in line.iter().enumerate() {
                if (self.east(col) - point_m[0]).hypot(north) <= radius_m {
                    mass += f64::from(*p);
                }
            }
        }
        mass
    }

    /// Slides the window, by whole cells so that no mass moves or blurs, until its centre is within
    /// half a cell of `target_m`. Cells that come in start with (next to) nothing.
    ///
    /// Returns the share of the mass that fell off the edge.
    ///
    /// # Errors
    /// [`Error::Belief`] when the target is not finite, or the window would leave nearly all mass
    /// behind; the belief is then unchanged.
    pub fn recentre(&mut self, target_m: [f64; 2]) -> Result<f64> {
        check_point("window centre", target_m)?;
        let cells_off =
            |axis: usize| ((target_m[axis] - self.centre_m[axis]) / self.metres_per_cell).round();
        let (right, up) = (cells_off(0), cells_off(1));
        let limit = self.cells as f64;
        let mut moved = self.clone();
        if right.abs() < limit && up.abs() < limit {
            moved.slide(right as isize, up as isize);
        } else {
            moved.p.fill(0.0);
        }
        let kept = sum(&moved.p);
        if kept < 1e-9 {
            return Err(Error::Belief(format!(
                "moving the window from {:?} to {target_m:?} would leave the belief behind; start a new one",
                self.centre_m
            )));
        }
        moved.normalise();
        *self = moved;
        Ok((1.0 - kept).max(0.0))
    }

    /// Moves the window by whole cells; what comes in is impossible until normalised.
    pub(super) fn slide(&mut self, right: isize, up: isize) {
        if right == 0 && up == 0 {
            return;
        }
        let cells = self.cells as isize;
        let mut p = vec![0.0; self.p.len()];
        let (from, to) = ((-right).max(0), (cells - right).min(cells));
        for row in 0..cells {
            // Going up (north) by `up` cells brings what was `up` rows further up down here.
            let source = row - up;
            if (0..cells).contains(&source) && from < to {
                let width = (to - from) as usize;
                let target = (row * cells + from) as usize;
                let origin = (source * cells + from + right) as usize;
                p[target..target + width].copy_from_slice(&self.p[origin..origin + width]);
            }
        }
        self.p = p;
        self.centre_m[0] += right as f64 * self.metres_per_cell;
        self.centre_m[1] += up as f64 * self.metres_per_cell;
    }

    /// Makes the cells sum to 1 and lifts them to the floor; returns the log of the sum before.
    /// All-impossible input becomes uniform.
    pub(super) fn normalise(&mut self) -> f64 {
        let mass = sum(&self.p);
        if mass <= 0.0 {
            let uniform = 1.0 / self.p.len() as f32;
            self.p.fill(uniform);
            return f64::NEG_INFINITY;
        }
        scale_to_at_least(&mut self.p, (1.0 / mass) as f32, FLOOR);
        mass.ln()
    }

    /// The same from unnormalised log-probabilities, none of them NaN or plus infinity.
    pub(super) fn set_logs(&mut self, logs: &[f32]) -> f64 {
        let top = largest(logs);
        if !top.is_finite() {
            self.p.fill(0.0);
            return self.normalise();
        }
        exponentials(&mut self.p, logs, top);
        f64::from(top) + self.normalise()
    }

    pub(super) fn east(&self, col: usize) -> f64 {
        self.centre_m[0] + (col as f64 + 0.5 - self.cells as f64 / 2.0) * self.metres_per_cell
    }

    pub(super) fn north(&self, row: usize) -> f64 {
        self.centre_m[1] + (self.cells as f64 / 2.0 - row as f64 - 0.5) * self.metres_per_cell
    }
}

for_each_cpu! {
    /// Logarithms to numbers, the one of `top` to 1.
    fn exponentials(p: &mut [f32], logs: &[f32], top: f32) {
        for (p, l) in p.iter_mut().zip(logs) {
            *p = exp(l - top);
        }
    }
}

pub(super) fn check_point(what: &str, point_m: [f64; 2]) -> Result<()> {
    // Beyond the Earth's own size a local frame means nothing, and cells would lose their bits.
    if point_m.iter().all(|v| v.abs() < 1e7) {
        Ok(())
    } else {
        Err(Error::Belief(format!(
            "{what} is {point_m:?} m; need finite local metres"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recentring_keeps_every_cell_where_it_was() {
        let mut belief = GridBelief::new([10.0, -5.0], 32, 0.5).unwrap();
        belief
            .update_gnss([11.3, -4.2], [[1.0, 0.3], [0.3, 0.5]], 4.0)
            .unwrap();
        let before = belief.clone();
        let lost = belief.recentre([11.2, -4.1]).unwrap();
        assert_eq!(belief.centre(), [11.0, -4.0]);
        assert!(lost < 0.02, "{lost}");
        for row in 0..32 {
            for col in 0..32 {
                let Some([c, r]) = before.cell_at(belief.cell_centre([col, row])) else {
                    continue;
                };
                let (now, then) = (ln(belief.p[row * 32 + col]), ln(before.p[r * 32 + c]));
                assert!(
                    (now - then - (1.0 - lost as f32).ln().abs()).abs() < 1e-4,
                    "{now} {then}"
                );
            }
        }
    }

    #[test]
    fn a_window_cannot_leave_its_belief_behind() {
        let mut belief = GridBelief::new([0.0, 0.0], 32, 0.5).unwrap();
        let before = belief.clone();
        assert!(
            belief
                .recentre([1000.0, 0.0])
                .unwrap_err()
                .to_string()
                .contains("start a new one")
        );
        assert!(belief.recentre([f64::NAN, 0.0]).is_err());
        assert_eq!(belief, before);
    }

    #[test]
    fn cells_and_points_agree() {
        let belief = GridBelief::new([3.0, 4.0], 5, 2.0).unwrap();
        assert_eq!(belief.cell_centre([2, 2]), [3.0, 4.0]);
        assert_eq!(belief.cell_centre([0, 0]), [-1.0, 8.0]);
        assert_eq!(belief.cell_at([-1.9, 8.9]), Some([0, 0]));
        assert_eq!(belief.cell_at([-2.1, 8.9]), None);
        assert!((belief.mass_within([3.0, 4.0], 2.1) - 5.0 / 25.0).abs() < 1e-6);
    }

    #[test]
    fn grids_that_cannot_be_are_refused() {
        assert!(GridBelief::new([0.0, f64::INFINITY], 8, 1.0).is_err());
        assert!(
            GridBelief::new([0.0; 2], 2, 1.0).is_err()
                && GridBelief::new([0.0; 2], usize::MAX, 1.0).is_err()
        );
        assert!(
            GridBelief::new([0.0; 2], 8, 0.0).is_err()
                && GridBelief::new([0.0; 2], 8, f64::NAN).is_err()
        );
    }
}
