//! What to publish: the mean, how far off it may be, and whether there is one answer or several.

use super::GridBelief;
use super::math::largest;

/// Share of the mass in the highest-density region whose islands count as modes.
const REGION: f64 = 0.9;
/// Share of that region below which an island is not a mode.
const SMALLEST_MODE: f64 = 0.05;

/// A belief in a few numbers; positions are `[east, north]` metres.
#[derive(Debug, Clone, PartialEq)]
pub struct BeliefEstimate {
    /// Mean of the whole posterior: what to publish.
    pub mean_m: [f64; 2],
    /// Covariance of the whole posterior about the published mean, each cell spread over its square.
    pub covariance_m2: [[f64; 2]; 2],
    /// The peak of the heaviest mode, refined below a cell.
    pub mode_m: [f64; 2],
    /// Separate places that the vehicle may be at: islands of the smallest region with 90 % of the
    /// mass that hold at least 5 % of it each.
    pub mode_count: usize,
    /// Share of that region's mass on the heaviest island; 1 when there is one.
    pub best_mode_mass: f64,
    /// Mass per ring about the mean, rings half a cell wide.
    rings: Rings,
    metres_per_cell: f64,
}

/// Prints as one word: estimates end up in logs.
#[derive(Clone, PartialEq)]
struct Rings(Vec<f64>);

impl std::fmt::Debug for Rings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rings({})", self.0.len())
    }
}

impl BeliefEstimate {
    /// Radius about the published mean outside which the vehicle is with at most this probability,
    /// rounded up by less than one cell and a half. It speaks of the window only: mass that [`GridBelief::predict`]
    /// reported lost is not in it.
    pub fn protection_radius(&self, risk: f64) -> f64 {
        let mut beyond = 0.0;
        for (ring, mass) in self.rings.0.iter().enumerate().rev() {
            beyond += mass;
            if beyond > risk {
                // The ring's outer edge holds cell centres; their corners reach half a diagonal further.
                return self.metres_per_cell
                    * (0.5 * (ring + 1) as f64 + std::f64::consts::FRAC_1_SQRT_2);
            }
        }
        0.0
    }
}

impl GridBelief {
    /// The belief in a few numbers.
    pub fn estimate(&self) -> BeliefEstimate {
        let probabilities = self.probabilities();
        let (mean_m, covariance_m2) = self.moments(&probabilities);
        let (mode_m, mode_count, best_mode_mass) = self.modes(&probabilities);
        BeliefEstimate {
            mean_m,
            covariance_m2,
            mode_m,
            mode_count,
            best_mode_mass,
            rings: self.rings(&probabilities, mean_m),
            metres_per_cell: self.metres_per_cell,
        }
    }

    fn moments(&self, probabilities: &[f32]) -> ([f64; 2], [[f64; 2]; 2]) {
        let cells = self.cells;
        // Sums per row first: moments about the window's centre, in cells.
        let half = (cells as f64 - 1.0) / 2.0;
        let (mut mass, mut e, mut n, mut ee, mut en, mut nn) = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
        for (row, line) in probabilities.chunks_exact(cells).enumerate() {
            let north = half - row as f64;
            let (mut s0, mut s1, mut s2) = (0.0, 0.0, 0.0);
            for (col, &p) in line.iter().enumerate() {
                let (p, east) = (f64::from(p), col as f64 - half);
                s0 += p;
                s1 += p * east;
                s2 += p * east * east;
            }
            mass += s0;
            e += s1;
            ee += s2;
            n += s0 * north;
            nn += s0 * north * north;
            en += s1 * north;
        }
        let (e, n) = (e / mass, n / mass);
        let area = self.metres_per_cell * self.metres_per_cell;
        let spread = |second: f64, product: f64, within: f64| {
            ((second / mass - product).max(0.0) + within) * area
        };
        let covariance = (en / mass - e * n) * area;
        let mean = [
            self.centre_m[0] + e * self.metres_per_cell,
            self.centre_m[1] + n * self.metres_per_cell,
        ];
        (
            mean,
            [
                [spread(ee, e * e, 1.0 / 12.0), covariance],
                [covariance, spread(nn, n * n, 1.0 / 12.0)],
            ],
        )
    }

    fn rings(&self, probabilities: &[f32], mean_m: [f64; 2]) -> Rings {
        let per_m = 2.0 / self.metres_per_cell;
        let mut rings = vec![0.0; 3 * self.cells + 2];
        let last = rings.len() - 1;
        let squared = |offset_m: f64| ((offset_m * per_m) * (offset_m * per_m)) as f32;
        let easts: Vec<f32> = (0..self.cells)
            .map(|col| squared(self.east(col) - mean_m[0]))
            .collect();
        let mut radii = vec![0.0f32; self.cells];
        for (row, line) in probabilities.chunks_exact(self.cells).enumerate() {
            let north = squared(self.north(row) - mean_m[1]);
            for (radius, east) in radii.iter_mut().zip(&easts) {
                *radius = (east + north).sqrt();
            }
            for (radius, &p) in radii.iter().zip(line) {
                rings[(*radius as usize).min(last)] += f64::from(p);
            }
        }
        Rings(rings)
    }

    /// The heaviest island's peak, how many islands count, and the heaviest one's share.
    fn modes(&self, probabilities: &[f32]) -> ([f64; 2], usize, f64) {
        let threshold = self.region_threshold(probabilities);
        let cells = self.cells;
        let mut seen: Vec<bool> = self.log.iter().map(|l| *l < threshold).collect();
        let mut islands: Vec<(f64, usize)> = Vec::new();
        let mut stack = Vec::new();
        for start in 0..seen.len() {
            if seen[start] {
                continue;
            }
            let (mut mass, mut peak) = (0.0, start);
            seen[start] = true;
            stack.push(start);
            while let Some(at) = stack.pop() {
                mass += f64::from(probabilities[at]);
                if self.log[at] > self.log[peak] {
                    peak = at;
                }
                let (row, col) = (at / cells, at % cells);
                for r in row.saturating_sub(1)..=(row + 1).min(cells - 1) {
                    for c in col.saturating_sub(1)..=(col + 1).min(cells - 1) {
                        let next = r * cells + c;
                        if !seen[next] {
                            seen[next] = true;
                            stack.push(next);
                        }
                    }
                }
            }
            islands.push((mass, peak));
        }
        let total: f64 = islands.iter().map(|i| i.0).sum();
        let (best, peak) = islands
            .iter()
            .copied()
            .fold((0.0, 0), |a, b| if b.0 > a.0 { b } else { a });
        let count = islands
            .iter()
            .filter(|i| i.0 >= SMALLEST_MODE * total)
            .count();
        (
            self.refined_peak(peak),
            count.max(1),
            if total > 0.0 { best / total } else { 1.0 },
        )
    }

    /// Log-probability above which cells hold [`REGION`] of the mass, to a tenth of a neper.
    fn region_threshold(&self, probabilities: &[f32]) -> f32 {
        let top = largest(&self.log);
        let mut bins = [0.0f64; 256];
        for (&l, &p) in self.log.iter().zip(probabilities) {
            bins[(((top - l) * 10.0) as usize).min(255)] += f64::from(p);
        }
        let total: f64 = bins.iter().sum();
        let mut mass = 0.0;
        for (bin, m) in bins.iter().enumerate() {
            mass += m;
            if mass >= REGION * total {
                return top - (bin + 1) as f32 / 10.0;
            }
        }
        f32::NEG_INFINITY
    }

    /// The top of the paraboloid through a peak's neighbours in log-probability: one Newton step.
    fn refined_peak(&self, peak: usize) -> [f64; 2] {
        let (col, row) = (peak % self.cells, peak / self.cells);
        let centre = self.cell_centre([col, row]);
        if col == 0 || row == 0 || col + 1 == self.cells || row + 1 == self.cells {
            return centre;
        }
        let at = |right: isize, down: isize| {
            f64::from(self.log[peak.wrapping_add_signed(right + down * self.cells as isize)])
        };
        let slope = [(at(1, 0) - at(-1, 0)) / 2.0, (at(0, 1) - at(0, -1)) / 2.0];
        let bend = [
            at(1, 0) - 2.0 * at(0, 0) + at(-1, 0),
            at(0, 1) - 2.0 * at(0, 0) + at(0, -1),
        ];
        let twist = (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1)) / 4.0;
        let determinant = bend[0] * bend[1] - twist * twist;
        if bend[0] >= 0.0 || determinant <= 1e-9 {
            return centre; // A ridge or a plateau has no top to find.
        }
        let right = ((twist * slope[1] - bend[1] * slope[0]) / determinant).clamp(-0.5, 0.5);
        let down = ((twist * slope[0] - bend[0] * slope[1]) / determinant).clamp(-0.5, 0.5);
        [
            centre[0] + right * self.metres_per_cell,
            centre[1] - down * self.metres_per_cell,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gaussian(sigma_m: f64) -> GridBelief {
        let mut belief = GridBelief::new([0.0, 0.0], 128, 0.5).unwrap();
        let v = sigma_m * sigma_m;
        belief
            .update_gnss([1.1, -2.3], [[v, 0.4 * v], [0.4 * v, v]], f64::INFINITY)
            .unwrap();
        belief
    }

    #[test]
    fn a_gaussian_is_one_mode_with_its_own_numbers() {
        let estimate = gaussian(2.0).estimate();
        for (got, expected) in [
            (estimate.mean_m[0], 1.1),
            (estimate.mean_m[1], -2.3),
            (estimate.mode_m[0], 1.1),
            (estimate.mode_m[1], -2.3),
            (estimate.covariance_m2[0][0], 4.0 + 0.25 / 12.0),
            (estimate.covariance_m2[0][1], 1.6),
        ] {
            assert!((got - expected).abs() < 0.01, "{estimate:?}");
        }
        assert_eq!((estimate.mode_count, estimate.best_mode_mass), (1, 1.0));
    }

    #[test]
    fn two_places_are_two_modes_and_the_covariance_spans_both() {
        let mut belief = GridBelief::new([0.0, 0.0], 128, 0.5).unwrap();
        belief
            .update_with(|[e, n]| {
                let bump = |x: f64, share: f64| share * (-0.5 * ((e - x).powi(2) + n * n)).exp();
                (bump(-10.0, 0.7) + bump(10.0, 0.3)).ln()
            })
            .unwrap();
        let estimate = belief.estimate();
        assert_eq!(estimate.mode_count, 2);
        assert!(
            (estimate.best_mode_mass - 0.7).abs() < 0.05
                && (estimate.mode_m[0] + 10.0).abs() < 0.01,
            "{estimate:?}"
        );
        assert!((estimate.mean_m[0] + 4.0).abs() < 0.01);
        assert!((estimate.covariance_m2[0][0] - (1.0 + 84.0)).abs() < 0.2);
        // 30 % of the mass is 14 m from the mean.
        assert!(estimate.protection_radius(0.1) > 13.0 && estimate.protection_radius(0.35) < 9.0);
    }

    #[test]
    fn protection_radius_of_a_round_gaussian_is_rayleighs() {
        let mut belief = GridBelief::new([0.0, 0.0], 128, 0.5).unwrap();
        belief
            .update_gnss([0.2, 0.3], [[4.0, 0.0], [0.0, 4.0]], f64::INFINITY)
            .unwrap();
        let estimate = belief.estimate();
        for risk in [0.3, 0.05, 1e-3] {
            let exact = 2.0 * (-2.0 * f64::ln(risk)).sqrt();
            let got = estimate.protection_radius(risk);
            assert!(
                got >= exact && got < exact + 0.75,
                "{risk}: {got}, exact {exact}"
            );
        }
        assert!(estimate.protection_radius(0.0) > 32.0);
    }

    #[test]
    fn no_idea_is_one_mode_as_wide_as_the_window() {
        let estimate = GridBelief::new([5.0, 5.0], 64, 0.5).unwrap().estimate();
        assert_eq!(estimate.mode_count, 1);
        assert!(
            (estimate.covariance_m2[0][0] - 32.0 * 32.0 / 12.0).abs() < 1e-2,
            "{estimate:?}"
        );
    }
}
