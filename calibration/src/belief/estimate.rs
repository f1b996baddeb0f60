//! What to publish: the mean, how far off it may be, and whether there is one answer or several.

use super::GridBelief;
use super::math::{for_each_cpu, largest, ln, sum};

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

/// Cells of the region that touch each other.
#[derive(Debug)]
struct Island {
    mass: f64,
    /// Index of its most probable cell, the first one if several are.
    peak: usize,
    /// Index of the island that this one turned out to be part of, or its own.
    merged_into: usize,
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
        let (mean_m, covariance_m2) = self.moments();
        let (mode_m, mode_count, best_mode_mass) = self.modes();
        BeliefEstimate {
            mean_m,
            covariance_m2,
            mode_m,
            mode_count,
            best_mode_mass,
            rings: self.rings(mean_m),
            metres_per_cell: self.metres_per_cell,
        }
    }

    /// Mean `[east, north]` and covariance about it, m², each cell spread over its square.
    pub fn moments(&self) -> ([f64; 2], [[f64; 2]; 2]) {
        let cells = self.cells;
        // Sums down the columns first: moments about the window's centre, in cells.
        let half = (cells as f64 - 1.0) / 2.0;
        let mut columns = [0; 3].map(|_| vec![0.0f64; cells]);
        for (row, line) in self.p.chunks_exact(cells).enumerate() {
            add_moments(&mut columns, line, half - row as f64);
        }
        let (mut mass, mut e, mut n, mut ee, mut en, mut nn) = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
        let [s0, s1, s2] = &columns;
        for (col, ((s0, s1), s2)) in s0.iter().zip(s1).zip(s2).enumerate() {
            let east = col as f64 - half;
            mass += s0;
            e += s0 * east;
            ee += s0 * east * east;
            n += s1;
            en += s1 * east;
            nn += s2;
        }
        let (e, n) = (e / mass, n / mass);
        let area = self.metres_per_cell * self.metres_per_cell;
        let variance = |second: f64, product: f64, within: f64| {
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
                [variance(ee, e * e, 1.0 / 12.0), covariance],
                [covariance, variance(nn, n * n, 1.0 / 12.0)],
            ],
        )
    }

    fn rings(&self, mean_m: [f64; 2]) -> Rings {
        let per_m = 2.0 / self.metres_per_cell;
        // Neighbours often share a ring, so each of four takes its own sums and waits for none.
        let mut rings = vec![[0.0f64; 4]; 3 * self.cells + 2];
        let last = rings.len() - 1;
        let squared = |offset_m: f64| ((offset_m * per_m) * (offset_m * per_m)) as f32;
        let easts: Vec<f32> = (0..self.cells)
            .map(|col| squared(self.east(col) - mean_m[0]))
            .collect();
        let mut radii = vec![0; self.cells];
        for (row, line) in self.p.chunks_exact(self.cells).enumerate() {
            rings_of_row(
                &mut radii,
                &easts,
                squared(self.north(row) - mean_m[1]),
                last,
            );
            for (col, (radius, &p)) in radii.iter().zip(line).enumerate() {
                rings[*radius as usize][col % 4] += f64::from(p);
            }
        }
        Rings(rings.iter().map(|sums| sums.iter().sum()).collect())
    }

    /// The heaviest island's peak, how many islands count, and the heaviest one's share.
    fn modes(&self) -> ([f64; 2], usize, f64) {
        let threshold = self.region_threshold();
        let islands = self.islands(threshold);
        let total: f64 = islands.iter().map(|island| island.mass).sum();
        let (best, peak) = islands.iter().fold((0.0, 0), |best, island| {
            if island.mass > best.0 {
                (island.mass, island.peak)
            } else {
                best
            }
        });
        let count = islands
            .iter()
            .filter(|island| island.mass >= SMALLEST_MODE * total)
            .count();
        (
            self.refined_peak(peak),
            count.max(1),
            if total > 0.0 { best / total } else { 1.0 },
        )
    }

    /// The islands of cells of at least this probability; cells that touch, even at a corner, are one
    /// island. Those that were merged into another one have no mass.
    fn islands(&self, threshold: f32) -> Vec<Island> {
        let cells = self.cells;
        let mut islands: Vec<Island> = Vec::new();
        // Each row's runs of neighbouring cells, as (first column, last column, island).
        let (mut above, mut runs) = (Vec::new(), Vec::<(usize, usize, usize)>::new());
        for (row, line) in self.p.chunks_exact(cells).enumerate() {
            std::mem::swap(&mut above, &mut runs);
            runs.clear();
            if largest(line) < threshold {
                continue;
            }
            let mut col = 0;
            while col < cells {
                if line[col] < threshold {
                    col += 1;
                    continue;
                }
                let (first, id) = (col, islands.len());
                let mut run = Island {
                    mass: 0.0,
                    peak: row * cells + first,
                    merged_into: id,
                };
                while col < cells && line[col] >= threshold {
                    run.mass += f64::from(line[col]);
                    if line[col] > self.p[run.peak] {
                        run.peak = row * cells + col;
                    }
                    col += 1;
                }
                islands.push(run);
                runs.push((first, col - 1, id));
                let touches =
                    |&&(from, to, _): &&(usize, usize, usize)| from <= col && to + 1 >= first;
                for &(_, _, other) in above.iter().filter(touches) {
                    self.merge(&mut islands, other, id);
                }
            }
        }
        islands
    }

    /// Makes the islands that two runs belong to one, the older one.
    fn merge(&self, islands: &mut [Island], one: usize, other: usize) {
        let root = |mut at: usize| {
            while islands[at].merged_into != at {
                at = islands[at].merged_into;
            }
            at
        };
        let (one, other) = (root(one), root(other));
        let (kept, gone) = (one.min(other), one.max(other));
        if kept == gone {
            return;
        }
        islands[kept].mass += islands[gone].mass;
        islands[gone].mass = 0.0;
        islands[gone].merged_into = kept;
        if self.p[islands[gone].peak] > self.p[islands[kept].peak] {
            islands[kept].peak = islands[gone].peak;
        }
    }

    /// Probability above which cells hold [`REGION`] of the mass, to a tenth of a neper.
    fn region_threshold(&self) -> f32 {
        let (top, total) = (largest(&self.p), sum(&self.p));
        // Cells below this hold less than the rest even all together, so they need no counting.
        let least = ((1.0 - REGION) * total / self.p.len() as f64) as f32;
        let mut bins = [0.0f64; 256];
        let mut logs = vec![0.0; self.cells];
        for line in self.p.chunks_exact(self.cells) {
            if largest(line) < least {
                continue;
            }
            bins_of_row(&mut logs, line, ln(top));
            for (&bin, &p) in logs.iter().zip(line) {
                if p >= least {
                    bins[(bin as usize).min(255)] += f64::from(p);
                }
            }
        }
        let mut mass = 0.0;
        for (bin, m) in bins.iter().enumerate() {
            mass += m;
            if mass >= REGION * total {
                return top * (-(bin as f32 + 1.0) / 10.0).exp();
            }
        }
        0.0
    }

    /// The top of the paraboloid through a peak's neighbours in log-probability: one Newton step.
    fn refined_peak(&self, peak: usize) -> [f64; 2] {
        let (col, row) = (peak % self.cells, peak / self.cells);
        let centre = self.cell_centre([col, row]);
        if col == 0 || row == 0 || col + 1 == self.cells || row + 1 == self.cells {
            return centre;
        }
        let at = |right: isize, down: isize| {
            f64::from(ln(
                self.p[peak.wrapping_add_signed(right + down * self.cells as isize)]
            ))
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

for_each_cpu! {
    /// Adds a row's mass, times each power of `north`, to its columns.
    fn add_moments(columns: &mut [Vec<f64>; 3], line: &[f32], north: f64) {
        let [s0, s1, s2] = columns;
        for (((s0, s1), s2), &p) in s0.iter_mut().zip(s1).zip(s2).zip(line) {
            let p = f64::from(p);
            *s0 += p;
            *s1 += p * north;
            *s2 += p * north * north;
        }
    }
}

for_each_cpu! {
    /// The ring of each cell of a row.
    fn rings_of_row(rings: &mut [i32], easts: &[f32], north: f32, last: usize) {
        for (ring, east) in rings.iter_mut().zip(easts) {
            *ring = ((east + north).sqrt() as i32).min(last as i32);
        }
    }
}

for_each_cpu! {
    /// Tenths of a neper that each cell of a row lies below the top.
    fn bins_of_row(bins: &mut [f32], line: &[f32], top: f32) {
        for (bin, &p) in bins.iter_mut().zip(line) {
            *bin = (top - ln(p)) * 10.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    proptest! {
        /// Against a flood from every cell.
        #[test]
        fn islands_are_what_a_flood_reaches(cells in prop::collection::vec(0u8..3, 12 * 12)) {
            let mut belief = GridBelief::new([0.0, 0.0], 12, 1.0).unwrap();
            for (p, (at, cell)) in belief.p.iter_mut().zip(cells.iter().enumerate()) {
                *p = if *cell == 0 { 1.0 } else { 2.0 + at as f32 * 7.0 % 5.0 };
            }
            let mut found: Vec<(f64, f32)> = belief
                .islands(2.0)
                .iter()
                .filter(|island| island.mass > 0.0)
                .map(|island| (island.mass, belief.p[island.peak]))
                .collect();
            let mut expected = Vec::new();
            let mut seen: Vec<bool> = belief.p.iter().map(|p| *p < 2.0).collect();
            for start in 0..seen.len() {
                let mut stack = vec![start];
                let (mut mass, mut peak) = (0.0, 0.0f32);
                while let Some(at) = stack.pop() {
                    if std::mem::replace(&mut seen[at], true) {
                        continue;
                    }
                    mass += f64::from(belief.p[at]);
                    peak = peak.max(belief.p[at]);
                    let near = |a: usize, b: usize| a.abs_diff(b) <= 1;
                    stack.extend((0..seen.len()).filter(|to| {
                        near(to / 12, at / 12) && near(to % 12, at % 12)
                    }));
                }
                if mass > 0.0 {
                    expected.push((mass, peak));
                }
            }
            found.sort_by(|a, b| a.partial_cmp(b).unwrap());
            expected.sort_by(|a, b| a.partial_cmp(b).unwrap());
            prop_assert_eq!(found, expected);
        }
    }
}
