//! A network's output: probability over the cells of a patch, and what it means in metres.
//!
//! Cells lie over the patch like its pixels do: row-major, row 0 in the north, `[0, 0]` the top-left
//! corner. Offsets are `[east, north]` metres from the patch centre.

use crate::{Error, Result};

/// Probability over `side` × `side` square cells; sums to 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Heatmap {
    side: usize,
    metres_per_cell: f64,
    probabilities: Vec<f32>,
}

/// A square of a heatmap's cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// `[col, row]` of its first cell.
    pub corner: [usize; 2],
    /// Cells along each side.
    pub side: usize,
}

impl Part {
    /// The cells of each of its rows in a heatmap of this side, from the north.
    pub fn rows(self, heatmap_side: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
        let [col, row] = self.corner;
        (row..row + self.side).map(move |row| {
            let start = row * heatmap_side + col;
            start..start + self.side
        })
    }
}

/// The most probable cell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mode {
    /// `[col, row]`.
    pub cell: [usize; 2],
    /// `[east, north]` metres of the cell's centre from the patch centre.
    pub offset_m: [f64; 2],
    /// Probability of the cell.
    pub probability: f32,
}

impl Heatmap {
    /// A heatmap from a network's softmax. A sum within 1 % of 1 is taken as rounding error and normalised.
    ///
    /// # Errors
    /// [`Error::Heatmap`] unless there are `side²` finite, non-negative numbers that sum to about 1.
    pub fn new(side: usize, metres_per_cell: f64, probabilities: Vec<f32>) -> Result<Self> {
        check_shape(side, metres_per_cell, probabilities.len())?;
        if let Some(at) = probabilities
            .iter()
            .position(|p| !(p.is_finite() && *p >= 0.0))
        {
            return Err(Error::Heatmap(format!(
                "cell {at} holds {}; need finite and not negative",
                probabilities[at]
            )));
        }
        let sum: f64 = probabilities.iter().map(|&p| f64::from(p)).sum();
        if (sum - 1.0).abs() > 0.01 {
            return Err(Error::Heatmap(format!(
                "the cells sum to {sum}, not to 1; is this the output before softmax?"
            )));
        }
        Ok(Self {
            side,
            metres_per_cell,
            probabilities,
        }
        .normalised(sum))
    }

    /// A heatmap of which only a part is known: `within`, the probability over its cells if the vehicle is
    /// there. A cell outside is as probable as the median one inside, so that a part in which all places are
    /// alike says nothing.
    ///
    /// # Errors
    /// [`Error::Heatmap`] as [`Self::new`], and when the part is not inside.
    pub fn of_part(side: usize, metres_per_cell: f64, part: Part, within: &[f32]) -> Result<Self> {
        let fits = |from: usize| from.checked_add(part.side).is_some_and(|to| to <= side);
        if part.side == 0 || !part.corner.iter().all(|from| fits(*from)) {
            return Err(Error::Heatmap(format!(
                "{part:?} is not inside {side} × {side} cells"
            )));
        }
        let within = Self::new(part.side, metres_per_cell, within.to_vec())?.probabilities;
        check_shape(side, metres_per_cell, side * side)?;
        let mut sorted = within.clone();
        let (_, median, _) = sorted.select_nth_unstable_by(within.len() / 2, f32::total_cmp);
        let median = f64::from(*median);
        let sum = 1.0 + median * (side * side - within.len()) as f64;
        let mut probabilities = vec![(median / sum) as f32; side * side];
        for (to, from) in part.rows(side).zip(within.chunks_exact(part.side)) {
            for (to, from) in probabilities[to].iter_mut().zip(from) {
                *to = (f64::from(*from) / sum) as f32;
            }
        }
        Self::new(side, metres_per_cell, probabilities)
    }

    /// The softmax of `logits / temperature`.
    ///
    /// # Errors
    /// [`Error::Heatmap`] unless there are `side²` finite logits and a positive temperature.
    pub fn from_logits(
        side: usize,
        metres_per_cell: f64,
        logits: &[f32],
        temperature: f64,
    ) -> Result<Self> {
        check_shape(side, metres_per_cell, logits.len())?;
        if !(temperature > 0.0 && temperature.is_finite()) {
            return Err(Error::Heatmap(format!(
                "temperature is {temperature}; need a positive number"
            )));
        }
        if let Some(at) = logits.iter().position(|z| !z.is_finite()) {
            return Err(Error::Heatmap(format!("logit {at} is {}", logits[at])));
        }
        let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weights = logits
            .iter()
            .map(|&z| (f64::from(z - top) / temperature).exp() as f32)
            .collect();
        Self {
            side,
            metres_per_cell,
            probabilities: weights,
        }
        .renormalised()
    }

    /// A Gaussian about an offset from the centre, cut off at the edges; for tests and for priors as heatmaps.
    ///
    /// # Errors
    /// [`Error::Heatmap`] when nothing of it falls on the cells.
    pub fn gaussian(
        side: usize,
        metres_per_cell: f64,
        offset_m: [f64; 2],
        sigma_m: f64,
    ) -> Result<Self> {
        check_shape(side, metres_per_cell, side * side)?;
        let flat = Self {
            side,
            metres_per_cell,
            probabilities: vec![1.0; side * side],
        };
        flat.masked_to(|[east, north]| {
            let d2 = (east - offset_m[0]).powi(2) + (north - offset_m[1]).powi(2);
            (-0.5 * d2 / (sigma_m * sigma_m)).exp() as f32
        })
    }

    /// Cells along one side.
    pub fn side(&self) -> usize {
        self.side
    }

    /// Metres along one cell.
    pub fn metres_per_cell(&self) -> f64 {
        self.metres_per_cell
    }

    /// Row-major probabilities, row 0 in the north.
    pub fn probabilities(&self) -> &[f32] {
        &self.probabilities
    }

    /// `[east, north]` metres of a cell's centre `[col, row]` from the patch centre.
    pub fn offset_m(&self, cell: [usize; 2]) -> [f64; 2] {
        let half = self.side as f64 / 2.0;
        [
            (cell[0] as f64 + 0.5 - half) * self.metres_per_cell,
            (half - cell[1] as f64 - 0.5) * self.metres_per_cell,
        ]
    }

    /// The cell `[col, row]` over an offset, `None` outside.
    pub fn cell_at(&self, offset_m: [f64; 2]) -> Option<[usize; 2]> {
        let half = self.side as f64 / 2.0;
        let col = (offset_m[0] / self.metres_per_cell + half).floor();
        let row = (half - offset_m[1] / self.metres_per_cell).floor();
        let inside = |v: f64| v >= 0.0 && v < self.side as f64;
        (inside(col) && inside(row)).then_some([col as usize, row as usize])
    }

    /// The most probable cell, the first one in reading order if several are.
    pub fn mode(&self) -> Mode {
        let mut best = 0;
        for (at, p) in self.probabilities.iter().enumerate() {
            if *p > self.probabilities[best] {
                best = at;
            }
        }
        let cell = [best % self.side, best / self.side];
        Mode {
            cell,
            offset_m: self.offset_m(cell),
            probability: self.probabilities[best],
        }
    }

    /// `[east, north]` of the mean, in metres from the patch centre.
    pub fn mean_m(&self) -> [f64; 2] {
        let mut mean = [0.0; 2];
        self.for_each_cell(|offset, p| {
            mean[0] += p * offset[0];
            mean[1] += p * offset[1];
        });
        mean
    }

    /// Second moment about a point in m²: the covariance when the point is the mean, the expected
    /// squared error of publishing `about` otherwise. Each cell counts as spread over its square
    /// (plus `metres_per_cell² / 12`), so the matrix is always positive definite.
    pub fn covariance_m2(&self, about: [f64; 2]) -> [[f64; 2]; 2] {
        let within = self.metres_per_cell * self.metres_per_cell / 12.0;
        let mut m = [[within, 0.0], [0.0, within]];
        self.for_each_cell(|offset, p| {
            let (e, n) = (offset[0] - about[0], offset[1] - about[1]);
            m[0][0] += p * e * e;
            m[0][1] += p * e * n;
            m[1][1] += p * n * n;
        });
        m[1][0] = m[0][1];
        m
    }

    /// Entropy in nats: 0 when one cell has all the mass, `ln(side²)` when all are equal.
    pub fn entropy(&self) -> f64 {
        self.probabilities
            .iter()
            .map(|&p| f64::from(p))
            .filter(|p| *p > 0.0)
            .map(|p| -p * p.ln())
            .sum()
    }

    /// The heatmap times a weight per offset (a prior, or 0 and 1 for a mask), normalised again.
    ///
    /// # Errors
    /// [`Error::Heatmap`] when a weight is negative or not finite, or nothing is left.
    pub fn masked_to(&self, mut weight: impl FnMut([f64; 2]) -> f32) -> Result<Self> {
        let mut out = self.clone();
        for (at, p) in out.probabilities.iter_mut().enumerate() {
            let offset = self.offset_m([at % self.side, at / self.side]);
            let w = weight(offset);
            if !(w.is_finite() && w >= 0.0) {
                return Err(Error::Heatmap(format!(
                    "the mask weighs {offset:?} m with {w}; need finite and not negative"
                )));
            }
            *p *= w;
        }
        out.renormalised()
    }

    /// The heatmap raised to a power and normalised: an exponent below 1 makes it flatter.
    ///
    /// # Errors
    /// [`Error::Heatmap`] unless the exponent is positive and finite.
    pub fn tempered(&self, exponent: f64) -> Result<Self> {
        if !(exponent > 0.0 && exponent.is_finite()) {
            return Err(Error::Heatmap(format!(
                "exponent is {exponent}; need a positive number"
            )));
        }
        let top = self.mode().probability;
        let mut out = self.clone();
        for p in &mut out.probabilities {
            *p = f64::from(*p / top).powf(exponent) as f32;
        }
        out.renormalised()
    }

    /// The belief of a heatmap that means nothing in this share of cases: mixed with a uniform one.
    ///
    /// # Errors
    /// [`Error::Heatmap`] unless the share is within 0 and 1.
    pub fn with_outliers(&self, share: f64) -> Result<Self> {
        if !(0.0..=1.0).contains(&share) {
            return Err(Error::Heatmap(format!(
                "an outlier share of {share}; need 0 to 1"
            )));
        }
        let mut out = self.clone();
        let floor = share / out.probabilities.len() as f64;
        for p in &mut out.probabilities {
            *p = ((1.0 - share) * f64::from(*p) + floor) as f32;
        }
        Ok(out)
    }

    /// Probability per cell at an offset, bilinear between cell centres, fading to zero outside.
    pub fn sample(&self, east_m: f64, north_m: f64) -> f64 {
        let half = self.side as f64 / 2.0;
        let x = east_m / self.metres_per_cell + half - 0.5;
        let y = half - north_m / self.metres_per_cell - 0.5;
        let (x0, y0) = (x.floor(), y.floor());
        let (fx, fy) = (x - x0, y - y0);
        let at = |col: f64, row: f64| {
            let inside = |v: f64| v >= 0.0 && v < self.side as f64;
            if inside(col) && inside(row) {
                f64::from(self.probabilities[row as usize * self.side + col as usize])
            } else {
                0.0
            }
        };
        let upper = at(x0, y0) * (1.0 - fx) + at(x0 + 1.0, y0) * fx;
        let lower = at(x0, y0 + 1.0) * (1.0 - fx) + at(x0 + 1.0, y0 + 1.0) * fx;
        upper * (1.0 - fy) + lower * fy
    }

    fn for_each_cell(&self, mut visit: impl FnMut([f64; 2], f64)) {
        for (row, line) in self.probabilities.chunks_exact(self.side).enumerate() {
            for (col, &p) in line.iter().enumerate() {
                visit(self.offset_m([col, row]), f64::from(p));
            }
        }
    }

    fn renormalised(self) -> Result<Self> {
        let sum: f64 = self.probabilities.iter().map(|&p| f64::from(p)).sum();
        if sum > 0.0 && sum.is_finite() {
            Ok(self.normalised(sum))
        } else {
            Err(Error::Heatmap(format!(
                "nothing is left to normalise (the weights sum to {sum})"
            )))
        }
    }

    fn normalised(mut self, sum: f64) -> Self {
        for p in &mut self.probabilities {
            *p = (f64::from(*p) / sum) as f32;
        }
        self
    }
}

fn check_shape(side: usize, metres_per_cell: f64, cells: usize) -> Result<()> {
    if side == 0 || side > 8192 || side * side != cells {
        return Err(Error::Heatmap(format!(
            "{cells} cells for a side of {side}; need 1 to 8192 and its square"
        )));
    }
    if !(metres_per_cell > 0.0 && metres_per_cell.is_finite()) {
        return Err(Error::Heatmap(format!(
            "{metres_per_cell} metres per cell; need a positive number"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn heatmap(side: usize) -> impl Strategy<Value = Heatmap> {
        (
            prop::collection::vec(-20.0f32..20.0, side * side),
            0.1..4.0f64,
            0.2..5.0f64,
        )
            .prop_map(move |(logits, mpc, t)| Heatmap::from_logits(side, mpc, &logits, t).unwrap())
    }

    #[test]
    fn a_part_tells_places_inside_it_apart_and_nothing_else() {
        let part = Part {
            corner: [1, 2],
            side: 2,
        };
        let flat = Heatmap::of_part(4, 1.0, part, &[0.25; 4]).unwrap();
        assert_eq!(flat.probabilities(), [1.0 / 16.0; 16]);
        let sure = Heatmap::of_part(4, 1.0, part, &[0.0, 1.0, 0.0, 0.0]).unwrap();
        assert_eq!(sure.mode().cell, [2, 2]);
        assert_eq!(sure.mode().probability, 1.0);
        // 12 cells outside like the third of four inside.
        let vague = Heatmap::of_part(4, 1.0, part, &[0.1, 0.6, 0.2, 0.1]).unwrap();
        let row = &vague.probabilities()[2 * 4..3 * 4];
        for (found, expected) in row.iter().zip([0.2, 0.1, 0.6, 0.2]) {
            assert!((found - expected / 3.4).abs() < 1e-6, "{row:?}");
        }
        for (corner, side) in [([3, 0], 2), ([0, 0], 5), ([0, 0], 0), ([usize::MAX, 0], 2)] {
            let part = Part { corner, side };
            let cells = vec![1.0 / (side * side).max(1) as f32; side * side];
            assert!(Heatmap::of_part(4, 1.0, part, &cells).is_err(), "{part:?}");
        }
    }

    #[test]
    fn one_hot_cell_is_mode_and_mean() {
        let mut p = vec![0.0; 16];
        p[4 + 3] = 1.0; // row 1, col 3 of 4: 1.5 cells east, half a cell north.
        let h = Heatmap::new(4, 2.0, p).unwrap();
        assert_eq!(
            h.mode(),
            Mode {
                cell: [3, 1],
                offset_m: [3.0, 1.0],
                probability: 1.0
            }
        );
        assert_eq!(h.mean_m(), [3.0, 1.0]);
        assert_eq!(h.entropy(), 0.0);
        assert_eq!(h.covariance_m2([0.0, 0.0])[0], [9.0 + 4.0 / 12.0, 3.0]);
        assert_eq!(h.cell_at([3.9, 0.1]), Some([3, 1]));
        assert_eq!(h.cell_at([4.1, 0.1]), None);
        assert!((h.sample(2.0, 1.0) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn a_gaussian_has_its_mean_and_sigma() {
        let h = Heatmap::gaussian(64, 1.0, [3.3, -7.1], 2.5).unwrap();
        let mean = h.mean_m();
        assert!(
            (mean[0] - 3.3).abs() < 1e-3 && (mean[1] + 7.1).abs() < 1e-3,
            "{mean:?}"
        );
        let c = h.covariance_m2(mean);
        assert!(
            (c[0][0] - 6.25 - 1.0 / 12.0).abs() < 1e-2 && c[0][1].abs() < 1e-3,
            "{c:?}"
        );
    }

    #[test]
    fn what_is_not_a_heatmap_is_refused() {
        for (side, mpc, p) in [
            (2, 1.0, vec![0.25; 3]),
            (2, 1.0, vec![f32::NAN, 0.5, 0.25, 0.25]),
            (2, 1.0, vec![-0.1, 0.6, 0.25, 0.25]),
            (2, 1.0, vec![1.0; 4]),
            (2, 0.0, vec![0.25; 4]),
            (0, 1.0, vec![]),
            (usize::MAX, 1.0, vec![]),
        ] {
            assert!(
                Heatmap::new(side, mpc, p.clone()).is_err(),
                "{side} {mpc} {p:?}"
            );
        }
        assert!(Heatmap::from_logits(1, 1.0, &[f32::INFINITY], 1.0).is_err());
        assert!(
            Heatmap::new(1, 1.0, vec![1.0])
                .unwrap()
                .masked_to(|_| 0.0)
                .is_err()
        );
    }

    proptest! {
        #[test]
        fn it_sums_to_one_and_its_covariance_is_symmetric_and_positive(h in heatmap(9), e in -50.0..50.0f64, n in -50.0..50.0f64) {
            let sum: f64 = h.probabilities().iter().map(|&p| f64::from(p)).sum();
            prop_assert!((sum - 1.0).abs() < 1e-5);
            let about_mean = h.covariance_m2(h.mean_m());
            let about = h.covariance_m2([e, n]);
            for c in [about_mean, about] {
                prop_assert_eq!(c[0][1], c[1][0]);
                prop_assert!(c[0][0] > 0.0 && c[0][0] * c[1][1] - c[0][1] * c[0][1] > 0.0);
            }
            // Steiner: any other point has a larger spread.
            prop_assert!(about[0][0] >= about_mean[0][0] - 1e-3 && about[1][1] >= about_mean[1][1] - 1e-3);
            prop_assert!(h.entropy() >= -1e-6 && h.entropy() <= 81f64.ln() + 1e-5);
        }

        #[test]
        fn cells_and_offsets_agree(col in 0usize..9, row in 0usize..9) {
            let h = Heatmap::gaussian(9, 1.7, [0.0, 0.0], 3.0).unwrap();
            let [e, n] = h.offset_m([col, row]);
            prop_assert_eq!(h.cell_at([e, n]), Some([col, row]));
            prop_assert!((h.sample(e, n) - f64::from(h.probabilities()[row * 9 + col])).abs() < 1e-7);
        }
    }
}
