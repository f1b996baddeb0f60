//! The past in the light of what came later: forward–backward smoothing over a drive.

use super::GridBelief;
use super::grid::SCALE;
use super::math::for_each_cpu;
use crate::{Heatmap, Result};

/// One measurement at one step.
#[derive(Debug, Clone, Copy)]
pub enum Evidence<'a> {
    /// As [`GridBelief::update_heatmap`].
    Heatmap {
        /// The network's answer.
        heatmap: &'a Heatmap,
        /// `[east, north]` of its patch centre.
        centre_m: [f64; 2],
        /// Power on the likelihood.
        exponent: f64,
        /// Share of answers that mean nothing.
        outlier: f64,
    },
    /// As [`GridBelief::update_gnss`].
    Gnss {
        /// `[east, north]` of the fix.
        position_m: [f64; 2],
        /// Its covariance.
        covariance_m2: [[f64; 2]; 2],
        /// Of the Student-t.
        degrees_of_freedom: f64,
    },
}

/// One step of a drive: where its window lies, and the motion that led there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// `[east, north]` that the window's centre comes within half a cell of. The window should hold
    /// every place where the vehicle may be.
    pub centre_m: [f64; 2],
    /// `[east, north]` since the step before (for the first: since the starting belief).
    pub motion_m: [f64; 2],
    /// Standard deviation of that motion along each axis.
    pub motion_sigma_m: f64,
    /// Share of the steps after which the vehicle may be anywhere in the window: what motion and
    /// measurements contradict does not become impossible.
    pub lost: f64,
}

impl GridBelief {
    /// Applies one measurement; returns the log of its evidence.
    ///
    /// # Errors
    /// As the update it stands for.
    pub fn update(&mut self, evidence: &Evidence) -> Result<f64> {
        match *evidence {
            Evidence::Heatmap {
                heatmap,
                centre_m,
                exponent,
                outlier,
            } => self.update_heatmap(heatmap, centre_m, exponent, outlier),
            Evidence::Gnss {
                position_m,
                covariance_m2,
                degrees_of_freedom,
            } => self.update_gnss(position_m, covariance_m2, degrees_of_freedom),
        }
    }

    /// Multiplies each cell with a likelihood, on any scale below 10¹⁵.
    ///
    /// # Panics
    /// When there are not as many likelihoods as cells.
    pub fn multiply(&mut self, likelihoods: &[f32]) {
        assert_eq!(
            likelihoods.len(),
            self.p.len(),
            "one likelihood for each cell"
        );
        product(&mut self.p, likelihoods);
        self.normalise();
    }

    /// Moves the window by whole cells to within half a cell of a place, whatever is left behind.
    fn slide_to(&mut self, centre_m: [f64; 2]) {
        let off = [0, 1]
            .map(|axis| ((centre_m[axis] - self.centre_m[axis]) / self.metres_per_cell).round());
        let limit = self.cells as f64;
        let [right, up] = off.map(|cells| cells.clamp(-limit, limit) as isize);
        let before_m = self.centre_m;
        self.slide(right, up);
        self.centre_m = [0, 1].map(|axis| before_m[axis] + off[axis] * self.metres_per_cell);
        self.normalise();
    }
}

for_each_cpu! {
    /// `p *= SCALE · factor`, cell by cell.
    fn product(p: &mut [f32], factors: &[f32]) {
        for (p, factor) in p.iter_mut().zip(factors) {
            *p *= factor * SCALE;
        }
    }
}

/// Gives `each` the belief at every step given all measurements of the drive, those after it as well
/// as those before; the last step comes first.
///
/// `evidence` weighs a belief with the measurements of a step; it is asked twice for each, on the
/// same window. The beliefs of all steps are held until the end: cut long drives into pieces.
///
/// # Errors
/// [`crate::Error::Belief`] for a motion that cannot be, and what `evidence` returns.
///
/// # Source
/// Rabiner, "A tutorial on hidden Markov models", 1989, equations 19 to 27.
pub fn smooth(
    start: &GridBelief,
    steps: &[Step],
    mut evidence: impl FnMut(usize, &mut GridBelief) -> Result<()>,
    mut each: impl FnMut(usize, &GridBelief),
) -> Result<()> {
    let mut beliefs: Vec<GridBelief> = Vec::with_capacity(steps.len());
    let mut belief = start.clone();
    for (index, step) in steps.iter().enumerate() {
        belief.predict(step.motion_m, step.motion_sigma_m)?;
        belief.slide_to(step.centre_m);
        belief.mix_uniform(step.lost)?;
        evidence(index, &mut belief)?;
        beliefs.push(belief.clone());
    }
    let Some(mut belief) = beliefs.pop() else {
        return Ok(());
    };
    // What the steps after this one say, on this step's window; of the last one: nothing.
    let mut future = GridBelief::new(belief.centre_m, belief.cells, belief.metres_per_cell)?;
    each(steps.len() - 1, &belief);
    for index in (1..steps.len()).rev() {
        let step = &steps[index];
        evidence(index, &mut future)?;
        future.mix_uniform(step.lost)?;
        // The windows of neighbours are whole cells apart once the motion is undone.
        let Some(before) = beliefs.pop() else { break };
        belief = before;
        future.centre_m = [0, 1].map(|axis| future.centre_m[axis] - step.motion_m[axis]);
        future.slide_to(belief.centre_m);
        future.centre_m = belief.centre_m;
        future.blur(step.motion_sigma_m);
        belief.multiply(&future.p);
        each(index - 1, &belief);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::predict::kernel;
    use super::*;

    fn gnss(position_m: [f64; 2], sigma_m: f64) -> Evidence<'static> {
        let v = sigma_m * sigma_m;
        Evidence::Gnss {
            position_m,
            covariance_m2: [[v, 0.2 * v], [0.2 * v, v]],
            degrees_of_freedom: 4.0,
        }
    }

    /// A step with its measurements.
    struct Measured {
        motion_m: [f64; 2],
        motion_sigma_m: f64,
        evidence: Vec<Evidence<'static>>,
    }

    /// All beliefs in order; windows follow the motion, and `windows_m` where they are given.
    fn smoothed(
        start: &GridBelief,
        steps: &[Measured],
        windows_m: Option<&[[f64; 2]]>,
    ) -> Result<Vec<GridBelief>> {
        let mut centre_m = start.centre_m;
        let plan: Vec<Step> = steps
            .iter()
            .enumerate()
            .map(|(index, step)| {
                centre_m = [0, 1].map(|axis| centre_m[axis] + step.motion_m[axis]);
                Step {
                    centre_m: windows_m.map_or(centre_m, |windows| windows[index]),
                    motion_m: step.motion_m,
                    motion_sigma_m: step.motion_sigma_m,
                    lost: 0.0,
                }
            })
            .collect();
        let apply = |index: usize, belief: &mut GridBelief| {
            for evidence in &steps[index].evidence {
                belief.update(evidence)?;
            }
            Ok(())
        };
        let mut beliefs = Vec::new();
        smooth(start, &plan, apply, |index, belief| {
            assert_eq!(index + beliefs.len() + 1, steps.len());
            beliefs.push(belief.clone());
        })?;
        beliefs.reverse();
        Ok(beliefs)
    }

    /// Sums over every path through a 5 × 5 grid.
    fn brute_force(start: &GridBelief, steps: &[Measured]) -> Vec<Vec<f64>> {
        let side = start.cells;
        let cells = side * side;
        let mut centre = start.centre_m;
        // likelihood[step][cell] and weight of moving by (dx, dy) cells at a step.
        let mut likelihoods = Vec::new();
        let mut kernels = Vec::new();
        for step in steps {
            centre = [centre[0] + step.motion_m[0], centre[1] + step.motion_m[1]];
            let grid = GridBelief::new(centre, side, start.metres_per_cell).unwrap();
            likelihoods.push(
                (0..cells)
                    .map(|at| {
                        let [e, n] = grid.cell_centre([at % side, at / side]);
                        step.evidence
                            .iter()
                            .map(|evidence| match *evidence {
                                Evidence::Gnss {
                                    position_m,
                                    covariance_m2: [[ee, en], [_, nn]],
                                    degrees_of_freedom: nu,
                                } => {
                                    let (x, y) = (e - position_m[0], n - position_m[1]);
                                    let d2 = (nn * x * x - 2.0 * en * x * y + ee * y * y)
                                        / (ee * nn - en * en);
                                    (1.0 + d2 / nu).powf(-0.5 * (nu + 2.0))
                                }
                                Evidence::Heatmap {
                                    heatmap,
                                    centre_m,
                                    exponent,
                                    outlier,
                                } => {
                                    let p = heatmap.sample(e - centre_m[0], n - centre_m[1])
                                        * (heatmap.side() * heatmap.side()) as f64;
                                    ((1.0 - outlier) * p + outlier).powf(exponent)
                                }
                            })
                            .product::<f64>()
                    })
                    .collect::<Vec<f64>>(),
            );
            kernels.push(kernel(step.motion_sigma_m / start.metres_per_cell, side));
        }
        let transition = |step: usize, from: usize, to: usize| {
            let k = &kernels[step];
            let radius = (k.len() / 2) as isize;
            let tap = |a: usize, b: usize| {
                let d = b as isize - a as isize + radius;
                if (0..k.len() as isize).contains(&d) {
                    f64::from(k[d as usize])
                } else {
                    0.0
                }
            };
            tap(from % side, to % side) * tap(from / side, to / side)
        };
        let mut sums = vec![vec![0.0; cells]; steps.len()];
        let mut path = vec![0usize; steps.len() + 1];
        'paths: loop {
            let mut weight = f64::from(start.p[path[0]]);
            for step in 0..steps.len() {
                weight *= transition(step, path[step], path[step + 1])
                    * likelihoods[step][path[step + 1]];
            }
            for step in 0..steps.len() {
                sums[step][path[step + 1]] += weight;
            }
            for place in &mut path {
                *place += 1;
                if *place < cells {
                    continue 'paths;
                }
                *place = 0;
            }
            break;
        }
        for line in &mut sums {
            let total: f64 = line.iter().sum();
            for v in line.iter_mut() {
                *v /= total;
            }
        }
        sums
    }

    #[test]
    fn smoothing_agrees_with_the_sum_over_all_paths() {
        let mut start = GridBelief::new([0.3, -0.2], 5, 1.0).unwrap();
        start.update(&gnss([0.0, 0.5], 1.5)).unwrap();
        let heatmap = Box::leak(Box::new(
            Heatmap::gaussian(6, 1.0, [0.5, -0.5], 1.0).unwrap(),
        ));
        let steps = [
            Measured {
                motion_m: [0.37, 0.0],
                motion_sigma_m: 0.5,
                evidence: vec![gnss([1.2, 0.1], 1.0)],
            },
            Measured {
                motion_m: [1.25, -0.6],
                motion_sigma_m: 0.9,
                evidence: vec![],
            },
            Measured {
                motion_m: [0.9, 0.45],
                motion_sigma_m: 0.3,
                evidence: vec![
                    Evidence::Heatmap {
                        heatmap,
                        centre_m: [2.2, -0.3],
                        exponent: 0.8,
                        outlier: 0.1,
                    },
                    gnss([3.0, -1.0], 2.0),
                ],
            },
        ];
        let smoothed = smoothed(&start, &steps, None).unwrap();
        for (step, (got, expected)) in smoothed.iter().zip(brute_force(&start, &steps)).enumerate()
        {
            for (cell, (g, e)) in got.probabilities().iter().zip(expected).enumerate() {
                assert!(
                    (f64::from(*g) - e).abs() < 1e-5,
                    "step {step}, cell {cell}: {g}, brute force {e}"
                );
            }
        }
    }

    #[test]
    fn a_drifting_drive_slides_its_windows_and_agrees_with_a_wide_one() {
        // Odometry says 1 m a step, the truth is 1.25 m: 15 m apart after 60 steps, the window reaches 8 m.
        let steps: Vec<Measured> = (0..60)
            .map(|i| Measured {
                motion_m: [1.0, 0.1],
                motion_sigma_m: 0.4,
                evidence: vec![gnss([1.25 * f64::from(i + 1), 0.1 * f64::from(i + 1)], 0.8)],
            })
            .collect();
        let windows_m: Vec<[f64; 2]> = (1..=60)
            .map(|i| [1.25 * f64::from(i), 0.1 * f64::from(i)])
            .collect();
        let narrow = GridBelief::new([0.0, 0.0], 32, 0.5).unwrap();
        let narrow = smoothed(&narrow, &steps, Some(&windows_m)).unwrap();
        let wide = GridBelief::new([0.0, 0.0], 128, 0.5).unwrap();
        let wide = smoothed(&wide, &steps, None).unwrap();
        for (i, (a, b)) in narrow.iter().zip(&wide).enumerate() {
            let (a, b) = (a.estimate(), b.estimate());
            assert!(
                (a.mean_m[0] - b.mean_m[0]).abs() < 0.02
                    && (a.mean_m[1] - b.mean_m[1]).abs() < 0.02,
                "{i}: {a:?} {b:?}"
            );
            assert!(
                (a.covariance_m2[0][0] / b.covariance_m2[0][0] - 1.0).abs() < 0.05,
                "{i}"
            );
        }
    }

    #[test]
    fn later_evidence_settles_an_earlier_doubt() {
        let mut two = vec![0.0f32; 32 * 32];
        two[16 * 32 + 8] = 0.5; // 7.5 m west
        two[16 * 32 + 23] = 0.5; // 7.5 m east
        let doubt: &Heatmap = Box::leak(Box::new(Heatmap::new(32, 1.0, two).unwrap()));
        let start = GridBelief::new([0.0, 0.0], 64, 0.5).unwrap();
        let steps = [
            Measured {
                motion_m: [0.0, 0.0],
                motion_sigma_m: 0.0,
                evidence: vec![Evidence::Heatmap {
                    heatmap: doubt,
                    centre_m: [0.0, 0.0],
                    exponent: 1.0,
                    outlier: 0.01,
                }],
            },
            Measured {
                motion_m: [0.0, 3.0],
                motion_sigma_m: 0.2,
                evidence: vec![gnss([7.0, 2.5], 1.0)],
            },
        ];
        let mut forward = start.clone();
        forward.update(&steps[0].evidence[0]).unwrap();
        assert_eq!(forward.estimate().mode_count, 2);
        let first = smoothed(&start, &steps, None).unwrap()[0].estimate();
        assert_eq!(first.mode_count, 1);
        assert!((first.mean_m[0] - 7.5).abs() < 0.3, "{first:?}");
    }

    #[test]
    fn an_empty_drive_is_empty_and_a_broken_one_is_refused() {
        let start = GridBelief::new([0.0, 0.0], 16, 0.5).unwrap();
        assert!(smoothed(&start, &[], None).unwrap().is_empty());
        assert!(
            smoothed(
                &start,
                &[Measured {
                    motion_m: [f64::NAN, 0.0],
                    motion_sigma_m: 0.1,
                    evidence: vec![]
                }],
                None
            )
            .is_err()
        );
    }
}
