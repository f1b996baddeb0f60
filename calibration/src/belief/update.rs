//! Measurements: a heatmap, a GNSS fix, or any log-likelihood.

use super::GridBelief;
use super::grid::{SCALE, check_point};
use super::math::{exp, for_each_cpu, ln};
use crate::{Error, Heatmap, Result};

impl GridBelief {
    /// A network saw this heatmap about `heatmap_centre_m` (`[east, north]` of its patch centre).
    ///
    /// With `p` the heatmap's probability relative to a uniform one, a cell's likelihood is
    /// `((1 − outlier) p + outlier)^exponent`: `outlier` is the share of answers that mean nothing
    /// (and all that is known outside the patch), `exponent` at most 1 where answers repeat each
    /// other's errors.
    ///
    /// Returns the log of the evidence: above 0 when the heatmap agrees with the belief better than
    /// a uniform one would.
    ///
    /// # Errors
    /// [`Error::Belief`] unless `outlier` is in 0..=1 and `exponent` finite and not negative; nothing
    /// changes then.
    pub fn update_heatmap(
        &mut self,
        heatmap: &Heatmap,
        heatmap_centre_m: [f64; 2],
        exponent: f64,
        outlier: f64,
    ) -> Result<f64> {
        check_point("heatmap centre", heatmap_centre_m)?;
        if !(0.0..=1.0).contains(&outlier) || !(0.0..1e6).contains(&exponent) {
            return Err(Error::Belief(format!(
                "outlier share {outlier} and exponent {exponent}; need 0..=1 and not negative"
            )));
        }
        let side = heatmap.side();
        let half = side as f64 / 2.0;
        let mpc = heatmap.metres_per_cell();
        // Heatmap cell coordinates (centres at whole numbers) of this grid's columns and rows, split
        // into the left/upper neighbour (0 is a border of zeros) and the share of the other one.
        let split = |x: f64| {
            let x = (x + 1.0).clamp(0.0, side as f64 + 1.0 - 1e-9);
            (x as usize, x.fract() as f32)
        };
        let columns: Vec<(usize, f32)> = (0..self.cells)
            .map(|col| split((self.east(col) - heatmap_centre_m[0]) / mpc + half - 0.5))
            .collect();
        let rows: Vec<(usize, f32)> = (0..self.cells)
            .map(|row| split(half - 0.5 - (self.north(row) - heatmap_centre_m[1]) / mpc))
            .collect();
        // Each row of the heatmap at this grid's columns, between two rows of zeros.
        let inlier = ((1.0 - outlier) * (side * side) as f64) as f32;
        let outlier = outlier.max(1e-20) as f32;
        let mut lines = vec![0.0f32; (side + 2) * self.cells];
        let mut bordered = vec![0.0f32; side + 2];
        for (line, from) in lines[self.cells..]
            .chunks_exact_mut(self.cells)
            .zip(heatmap.probabilities().chunks_exact(side))
        {
            bordered[1..=side].copy_from_slice(from);
            for (to, &(left, share)) in line.iter_mut().zip(&columns) {
                *to = inlier * (bordered[left] * (1.0 - share) + bordered[left + 1] * share);
            }
        }
        let mut likelihoods = vec![0.0f32; self.p.len()];
        for (line, &(above, share)) in likelihoods.chunks_exact_mut(self.cells).zip(&rows) {
            let (upper, below) = lines[above * self.cells..].split_at(self.cells);
            blend(line, upper, &below[..self.cells], share, outlier);
        }
        if (exponent - 1.0).abs() > 0.0 {
            let mut logs = likelihoods;
            powers(&mut logs, &self.p, exponent as f32);
            return Ok(self.set_logs(&logs));
        }
        multiply(&mut self.p, &likelihoods, SCALE);
        Ok(self.normalise() - f64::from(SCALE).ln())
    }

    /// A receiver says `position_m` (`[east, north]`) with this covariance.
    ///
    /// The likelihood is a bivariate Student-t whose scale matrix is the stated covariance: Gaussian
    /// in its core, but a fix that lies far off costs only as the logarithm of its distance, so
    /// multipath cannot drag the belief away against better evidence. Few `degrees_of_freedom` (3 to
    /// 5) mean heavy tails; infinity is the Gaussian.
    ///
    /// A fix sharper than half a cell is widened to that: the grid cannot hold more.
    ///
    /// Returns the log of the evidence as a density per m².
    ///
    /// # Errors
    /// [`Error::Belief`] unless the covariance is symmetric and positive definite and the degrees of
    /// freedom positive; nothing changes then.
    pub fn update_gnss(
        &mut self,
        position_m: [f64; 2],
        covariance_m2: [[f64; 2]; 2],
        degrees_of_freedom: f64,
    ) -> Result<f64> {
        check_point("fix", position_m)?;
        positive_determinant(covariance_m2)?;
        let [[ee, en], [_, nn]] = covariance_m2;
        if degrees_of_freedom.is_nan() || degrees_of_freedom <= 0.0 {
            return Err(Error::Belief(format!(
                "{degrees_of_freedom} degrees of freedom; need a positive number"
            )));
        }
        let nu = degrees_of_freedom;
        let lift = (0.25 * self.metres_per_cell * self.metres_per_cell - ee.min(nn)).max(0.0);
        let (ee, nn) = (ee + lift, nn + lift);
        let determinant = ee * nn - en * en;
        // Γ(ν/2 + 1) / (Γ(ν/2) ν π √|Σ|) is 1 / (2π √|Σ|) for every ν, the Gaussian's constant too.
        let constant = -(std::f64::consts::TAU * determinant.sqrt()).ln();
        self.update_with(|[east, north]| {
            let (e, n) = (east - position_m[0], north - position_m[1]);
            let squared = (nn * e * e - 2.0 * en * e * n + ee * n * n) / determinant;
            let tail = if nu > 1e6 {
                -0.5 * squared
            } else {
                -0.5 * (nu + 2.0) * f64::from(((1.0 + squared / nu) as f32).ln())
            };
            constant + tail
        })
    }

    /// A filter says `position_m` (`[east, north]`) with this covariance, and is wrong altogether in a
    /// share `outlier` of the cases.
    ///
    /// The likelihood is `(1 − outlier) N(position, covariance) + outlier / window area`.
    ///
    /// Returns the log of the evidence as a density per m².
    ///
    /// # Errors
    /// [`Error::Belief`] unless the covariance is symmetric and positive definite and `outlier` in
    /// 0..=1; nothing changes then.
    pub fn update_gaussian(
        &mut self,
        position_m: [f64; 2],
        covariance_m2: [[f64; 2]; 2],
        outlier: f64,
    ) -> Result<f64> {
        check_point("position", position_m)?;
        let determinant = positive_determinant(covariance_m2)?;
        if !(0.0..=1.0).contains(&outlier) {
            return Err(Error::Belief(format!(
                "outlier share {outlier}; need 0..=1"
            )));
        }
        let [[ee, en], [_, nn]] = covariance_m2;
        // ½ (e n) Σ⁻¹ (e n)ᵗ, term by term.
        let [by_ee, by_en, by_nn] = [nn, -2.0 * en, ee].map(|v| 0.5 * v / determinant);
        let peak = (1.0 - outlier) / (std::f64::consts::TAU * determinant.sqrt());
        let floor = outlier * (self.cells as f64 * self.metres_per_cell).powi(-2);
        // A peak above 1 is brought down to it, or its product with the scale might overflow.
        let scale = f64::from(SCALE) / peak.max(1.0);
        let (peak, floor) = ((peak * scale) as f32, (floor.max(1e-30) * scale) as f32);
        let easts: Vec<f32> = (0..self.cells)
            .map(|col| (self.east(col) - position_m[0]) as f32)
            .collect();
        let norths: Vec<f64> = (0..self.cells)
            .map(|row| self.north(row) - position_m[1])
            .collect();
        for (line, n) in self.p.chunks_exact_mut(self.cells).zip(norths) {
            let quadratic = [by_ee, by_en * n, by_nn * n * n].map(|v| v as f32);
            multiply_gaussian(line, &easts, quadratic, peak, floor);
        }
        Ok(self.normalise() - scale.ln())
    }

    /// Any measurement, as the log-likelihood of each cell's centre `[east, north]`.
    ///
    /// Returns the log of the evidence.
    ///
    /// # Errors
    /// [`Error::Belief`] when a log-likelihood is NaN or plus infinity; nothing changes then.
    pub fn update_with(&mut self, mut log_likelihood: impl FnMut([f64; 2]) -> f64) -> Result<f64> {
        let easts: Vec<f64> = (0..self.cells).map(|col| self.east(col)).collect();
        let mut log = self.log_probabilities();
        for (row, line) in log.chunks_exact_mut(self.cells).enumerate() {
            let north = self.north(row);
            for (l, &east) in line.iter_mut().zip(&easts) {
                *l += log_likelihood([east, north]) as f32;
            }
        }
        if let Some(at) = log.iter().position(|l| l.is_nan() || *l == f32::INFINITY) {
            let cell = self.cell_centre([at % self.cells, at / self.cells]);
            return Err(Error::Belief(format!(
                "the log-likelihood at {cell:?} m makes the belief {}",
                log[at]
            )));
        }
        Ok(self.set_logs(&log))
    }
}

for_each_cpu! {
    /// Between two rows, `share` of the lower one, and `outlier` more.
    fn blend(to: &mut [f32], upper: &[f32], lower: &[f32], share: f32, outlier: f32) {
        for ((to, upper), lower) in to.iter_mut().zip(upper).zip(lower) {
            *to = upper * (1.0 - share) + lower * share + outlier;
        }
    }
}

for_each_cpu! {
    /// `p *= factor · likelihood`, cell by cell.
    fn multiply(p: &mut [f32], likelihoods: &[f32], factor: f32) {
        for (p, likelihood) in p.iter_mut().zip(likelihoods) {
            *p *= factor * likelihood;
        }
    }
}

for_each_cpu! {
    /// Likelihoods to the logarithms of `p · likelihood^exponent`.
    fn powers(likelihoods: &mut [f32], p: &[f32], exponent: f32) {
        for (l, p) in likelihoods.iter_mut().zip(p) {
            *l = ln(*p) + exponent * ln(*l);
        }
    }
}

for_each_cpu! {
    /// `p *= peak · exp(-(a e² + b e + c)) + floor` along a row.
    fn multiply_gaussian(p: &mut [f32], easts: &[f32], [a, b, c]: [f32; 3], peak: f32, floor: f32) {
        for (p, &e) in p.iter_mut().zip(easts) {
            *p *= peak * exp(-((a * e + b) * e + c)) + floor;
        }
    }
}

/// The determinant of a covariance, or an error for a matrix that is none.
fn positive_determinant(covariance_m2: [[f64; 2]; 2]) -> Result<f64> {
    let [[ee, en], [ne, nn]] = covariance_m2;
    let determinant = ee * nn - en * ne;
    let symmetric = (en - ne).abs() <= 1e-9 * (ee.abs() + nn.abs());
    let good = symmetric
        && ee > 0.0
        && nn > 0.0
        && determinant > 1e-12 * ee * nn
        && determinant.is_finite();
    good.then_some(determinant).ok_or_else(|| {
        Error::Belief(format!(
            "covariance {covariance_m2:?} m²; need symmetric and positive definite"
        ))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::grid::FLOOR;
    use super::*;

    fn flat() -> GridBelief {
        GridBelief::new([100.0, 50.0], 64, 0.5).unwrap()
    }

    #[test]
    fn a_heatmap_lands_where_its_centre_says_sub_cell() {
        for offset in [[0.0, 0.0], [0.13, -0.31], [5.4, 3.21]] {
            let heatmap = Heatmap::gaussian(32, 1.0, [1.0, -2.0], 1.5).unwrap();
            let mut belief = flat();
            let centre = [100.0 + offset[0], 50.0 + offset[1]];
            belief.update_heatmap(&heatmap, centre, 1.0, 1e-9).unwrap();
            let estimate = belief.estimate();
            assert!(
                (estimate.mean_m[0] - centre[0] - 1.0).abs() < 0.01,
                "{offset:?} {:?}",
                estimate.mean_m
            );
            assert!(
                (estimate.mean_m[1] - centre[1] + 2.0).abs() < 0.01,
                "{offset:?} {:?}",
                estimate.mean_m
            );
        }
    }

    #[test]
    fn likelihood_is_the_equation_in_the_docs() {
        let heatmap = Heatmap::gaussian(32, 1.0, [3.0, 4.0], 2.0).unwrap();
        let (exponent, outlier) = (0.7, 0.05);
        let mut belief = GridBelief::new([2.3, 1.1], 96, 0.5).unwrap();
        belief
            .update_heatmap(&heatmap, [0.2, -0.4], exponent, outlier)
            .unwrap();
        let mut expected = GridBelief::new([2.3, 1.1], 96, 0.5).unwrap();
        expected
            .update_with(|[e, n]| {
                let p = heatmap.sample(e - 0.2, n + 0.4) * 1024.0;
                exponent * ((1.0 - outlier) * p + outlier).ln()
            })
            .unwrap();
        for (got, expected) in belief
            .log_probabilities()
            .iter()
            .zip(&expected.log_probabilities())
        {
            assert!((got - expected).abs() < 1e-4, "{got} {expected}");
        }
    }

    #[test]
    fn a_gaussian_is_the_equation_in_the_docs() {
        let (position, covariance, outlier) = ([103.2, 46.1], [[4.0, -1.5], [-1.5, 2.0]], 0.03);
        let mut belief = flat();
        let evidence = belief
            .update_gaussian(position, covariance, outlier)
            .unwrap();
        let mut expected = flat();
        let expected_evidence = expected
            .update_with(|[e, n]| {
                let (e, n) = (e - position[0], n - position[1]);
                let determinant = 4.0 * 2.0 - 1.5 * 1.5;
                let squared = (2.0 * e * e + 3.0 * e * n + 4.0 * n * n) / determinant;
                let peak = 1.0 / (std::f64::consts::TAU * f64::sqrt(determinant));
                ((1.0 - outlier) * peak * (-0.5 * squared).exp() + outlier / 1024.0).ln()
            })
            .unwrap();
        assert!((evidence - expected_evidence).abs() < 1e-5);
        for (got, expected) in belief
            .log_probabilities()
            .iter()
            .zip(&expected.log_probabilities())
        {
            assert!((got - expected).abs() < 1e-4, "{got} {expected}");
        }
    }

    #[test]
    fn an_outlier_heatmap_cannot_erase_the_belief() {
        let mut belief = flat();
        belief
            .update_gnss([100.0, 50.0], [[1.0, 0.0], [0.0, 1.0]], f64::INFINITY)
            .unwrap();
        let wrong = Heatmap::gaussian(32, 1.0, [12.0, 0.0], 0.5).unwrap();
        let evidence = belief
            .update_heatmap(&wrong, [100.0, 50.0], 1.0, 0.2)
            .unwrap();
        let estimate = belief.estimate();
        assert!(estimate.mean_m[0] < 100.1, "{estimate:?}");
        assert!((evidence - 0.2f64.ln()).abs() < 0.05, "{evidence}");
    }

    #[test]
    fn exponent_zero_changes_nothing() {
        let mut belief = flat();
        let heatmap = Heatmap::gaussian(32, 1.0, [1.0, 0.0], 2.0).unwrap();
        belief
            .update_heatmap(&heatmap, [100.0, 50.0], 0.0, 0.1)
            .unwrap();
        assert!(belief.p.iter().all(|p| (p * 4096.0 - 1.0).abs() < 1e-5));
    }

    #[test]
    fn a_far_fix_pulls_less_with_heavy_tails() {
        let shift = |nu: f64| {
            let mut belief = flat();
            belief
                .update_gnss([100.0, 50.0], [[1.0, 0.0], [0.0, 1.0]], f64::INFINITY)
                .unwrap();
            belief
                .update_gnss([108.0, 50.0], [[1.0, 0.0], [0.0, 1.0]], nu)
                .unwrap();
            belief.estimate().mean_m[0] - 100.0
        };
        assert!((shift(f64::INFINITY) - 4.0).abs() < 0.05);
        assert!((shift(1e5) - 4.0).abs() < 0.1);
        assert!(shift(3.0) < 1.0, "{}", shift(3.0));
    }

    #[test]
    fn evidence_of_a_fix_is_its_predictive_density() {
        let mut belief = flat();
        belief
            .update_gnss([100.0, 50.0], [[2.0, 0.0], [0.0, 2.0]], f64::INFINITY)
            .unwrap();
        let evidence = belief
            .update_gnss([101.0, 50.0], [[1.0, 0.0], [0.0, 1.0]], f64::INFINITY)
            .unwrap();
        let expected = -(std::f64::consts::TAU * 3.0).ln() - 0.5 / 3.0;
        assert!((evidence - expected).abs() < 1e-3, "{evidence} {expected}");
    }

    #[test]
    fn a_centimetre_fix_lands_between_the_cells_it_names() {
        let mut belief = flat();
        let v = 1e-4;
        let evidence = belief
            .update_gnss([100.13, 50.2], [[v, 0.0], [0.0, v]], 4.0)
            .unwrap();
        let estimate = belief.estimate();
        assert!(
            (estimate.mean_m[0] - 100.13).abs() < 0.06 && (estimate.mean_m[1] - 50.2).abs() < 0.06,
            "{estimate:?}"
        );
        // A flat belief of 32 m a side predicts any fix with 1/1024 per m².
        assert!((evidence + 1024f64.ln()).abs() < 0.2, "{evidence}");
    }

    #[test]
    fn impossible_measurements_change_nothing() {
        let mut belief = flat();
        let before = belief.clone();
        for covariance in [
            [[0.0, 0.0], [0.0, 1.0]],
            [[1.0, 2.0], [2.0, 1.0]],
            [[1.0, 0.5], [-0.5, 1.0]],
            [[f64::NAN, 0.0], [0.0, 1.0]],
        ] {
            assert!(
                belief.update_gnss([100.0, 50.0], covariance, 4.0).is_err(),
                "{covariance:?}"
            );
        }
        assert!(
            belief
                .update_gnss([f64::NAN, 0.0], [[1.0, 0.0], [0.0, 1.0]], 4.0)
                .is_err()
        );
        assert!(
            belief
                .update_gnss([0.0, 0.0], [[1.0, 0.0], [0.0, 1.0]], 0.0)
                .is_err()
        );
        for (covariance, outlier) in [
            ([[1.0, 2.0], [2.0, 1.0]], 0.1),
            ([[1.0, 0.0], [0.0, 1.0]], -0.1),
            ([[1.0, 0.0], [0.0, 1.0]], f64::NAN),
        ] {
            assert!(
                belief
                    .update_gaussian([0.0, 0.0], covariance, outlier)
                    .is_err()
            );
        }
        let heatmap = Heatmap::gaussian(8, 1.0, [0.0, 0.0], 2.0).unwrap();
        assert!(
            belief
                .update_heatmap(&heatmap, [0.0, 0.0], 1.0, 1.1)
                .is_err()
        );
        assert!(
            belief
                .update_heatmap(&heatmap, [0.0, 0.0], f64::NAN, 0.1)
                .is_err()
        );
        assert!(belief.update_with(|_| f64::NAN).is_err());
        assert_eq!(belief, before);
    }

    #[test]
    fn measurements_far_outside_the_window_leave_a_belief() {
        let mut belief = flat();
        let heatmap = Heatmap::gaussian(32, 1.0, [0.0, 0.0], 1.0).unwrap();
        belief
            .update_heatmap(&heatmap, [9000.0, 0.0], 1.0, 0.0)
            .unwrap();
        belief
            .update_gnss([1e6, 0.0], [[1.0, 0.0], [0.0, 1.0]], f64::INFINITY)
            .unwrap();
        belief.update_with(|_| f64::NEG_INFINITY).unwrap();
        assert!(belief.p.iter().all(|p| (FLOOR..=1.0).contains(p)));
    }

    /// Many contradicting measurements, with outlier shares near zero, against logarithms in double
    /// precision.
    #[test]
    fn products_keep_their_digits_across_thirty_decades() {
        let mut belief = GridBelief::new([0.0, 0.0], 48, 0.5).unwrap();
        let mut logs = vec![-f64::ln(48.0 * 48.0); 48 * 48];
        let floor = f64::from(FLOOR).ln();
        for step in 0..24 {
            let [e, n] = [(step * 5 % 7) as f64 - 3.0, (step * 3 % 5) as f64 - 2.0];
            let variance = 0.5 + f64::from(step % 3);
            let heatmap = Heatmap::gaussian(24, 1.0, [e, n], 0.7 + variance).unwrap();
            let outlier = if step % 2 == 0 { 1e-15 } else { 1e-3 };
            belief
                .update_heatmap(&heatmap, [0.0, 0.0], 1.0, outlier)
                .unwrap();
            belief
                .update_gaussian([n, e], [[variance, 0.1], [0.1, 2.0]], outlier)
                .unwrap();
            let determinant = 2.0 * variance - 0.01;
            let peak = (1.0 - outlier) / (std::f64::consts::TAU * determinant.sqrt());
            for likelihoods in [true, false] {
                for (at, log) in logs.iter_mut().enumerate() {
                    let [east, north] = belief.cell_centre([at % 48, at / 48]);
                    let likelihood = if likelihoods {
                        (1.0 - outlier) * heatmap.sample(east, north) * 576.0 + outlier
                    } else {
                        let (e, n) = (east - n, north - e);
                        let squared = 2.0 * e * e - 0.2 * e * n + variance * n * n;
                        peak * (-0.5 * squared / determinant).exp() + outlier / 576.0
                    };
                    *log += likelihood.ln();
                }
                let top = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = logs.iter().map(|log| (log - top).exp()).sum();
                for log in &mut logs {
                    *log = (*log - top - sum.ln()).max(floor);
                }
            }
            for (at, (p, log)) in belief.p.iter().zip(&logs).enumerate() {
                let difference = f64::from(*p).ln() - log;
                assert!(
                    difference.abs() < 1e-3,
                    "step {step}, cell {at}: {difference}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn every_update_leaves_a_probability(e in 60.0..140.0f64, n in 20.0..80.0f64, sigma in 0.05..50.0f64, r in -0.95..0.95f64,
                                             nu in 0.5..30.0f64, exponent in 0.0..3.0f64, outlier in 0.0..1.0f64) {
            let mut belief = flat();
            belief.update_gnss([e, n], [[sigma * sigma, r * sigma], [r * sigma, 1.0]], nu).unwrap();
            let heatmap = Heatmap::gaussian(16, 2.0, [1.0, 3.0], 2.0 + sigma).unwrap();
            belief.update_heatmap(&heatmap, [n, e], exponent, outlier).unwrap();
            let mass: f64 = belief.probabilities().iter().map(|&p| f64::from(p)).sum();
            prop_assert!((mass - 1.0).abs() < 1e-4);
            let c = belief.estimate().covariance_m2;
            prop_assert!(c[0][1] == c[1][0] && c[0][0] > 0.0 && c[0][0] * c[1][1] > c[0][1] * c[0][1]);
        }
    }
}
