//! The past in the light of what came later: forward–backward smoothing over a drive.

use super::GridBelief;
use super::grid::SCALE;
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

/// One step of a drive: the motion that led here, and what was measured here.
#[derive(Debug, Clone)]
pub struct Step<'a> {
    /// `[east, north]` since the step before (for the first: since the starting belief).
    pub motion_m: [f64; 2],
    /// Standard deviation of that motion along each axis.
    pub motion_sigma_m: f64,
    /// Measurements; none is fine.
    pub evidence: Vec<Evidence<'a>>,
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

    /// Slides the window to the belief's mean when that is more than a quarter of a side off-centre.
    ///
    /// # Errors
    /// As [`Self::recentre`].
    pub fn follow(&mut self) -> Result<()> {
        let mean_m = self.estimate().mean_m;
        let limit_m = self.cells as f64 * self.metres_per_cell / 4.0;
        let off = |axis: usize| (mean_m[axis] - self.centre_m[axis]).abs() > limit_m;
        if off(0) || off(1) {
            self.recentre(mean_m)?;
        }
        Ok(())
    }
}

/// The belief at every step given all measurements of the drive, before and after it.
///
/// Windows follow the forward pass, so an odometry that drifts does not run out of its window; both
/// passes share the windows, so nothing is interpolated.
///
/// # Errors
/// [`crate::Error::Belief`] for a motion or measurement that cannot be.
///
/// # Source
/// Rabiner, "A tutorial on hidden Markov models", 1989, equations 19 to 27.
pub fn smooth(start: &GridBelief, steps: &[Step]) -> Result<Vec<GridBelief>> {
    let mut beliefs = Vec::with_capacity(steps.len());
    let mut belief = start.clone();
    for step in steps {
        belief.predict(step.motion_m, step.motion_sigma_m)?;
        belief.follow()?;
        for evidence in &step.evidence {
            belief.update(evidence)?;
        }
        beliefs.push(belief.clone());
    }
    let Some(last) = beliefs.last() else {
        return Ok(beliefs);
    };
    // What the steps after this one say, on this step's window; of the last one: nothing.
    let mut future = GridBelief::new(last.centre_m, last.cells, last.metres_per_cell)?;
    for index in (1..steps.len()).rev() {
        for evidence in &steps[index].evidence {
            future.update(evidence)?;
        }
        future.blur(steps[index].motion_sigma_m);
        let before = &mut beliefs[index - 1];
        // Undo the motion and the slide: to the step before, up to whole cells, where it then is exactly.
        let motion_m = steps[index].motion_m;
        let cells_off = |axis: usize| {
            let centre_m = future.centre_m[axis] - motion_m[axis];
            ((before.centre_m[axis] - centre_m) / before.metres_per_cell).round() as isize
        };
        let (right, up) = (cells_off(0), cells_off(1));
        future.slide(right, up);
        future.centre_m = before.centre_m;
        future.normalise();
        for (b, f) in before.p.iter_mut().zip(&future.p) {
            *b *= f * SCALE;
        }
        before.normalise();
    }
    Ok(beliefs)
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

    /// Sums over every path through a 5 × 5 grid.
    fn brute_force(start: &GridBelief, steps: &[Step]) -> Vec<Vec<f64>> {
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
        let heatmap = Heatmap::gaussian(6, 1.0, [0.5, -0.5], 1.0).unwrap();
        let steps = [
            Step {
                motion_m: [0.37, 0.0],
                motion_sigma_m: 0.5,
                evidence: vec![gnss([1.2, 0.1], 1.0)],
            },
            Step {
                motion_m: [1.25, -0.6],
                motion_sigma_m: 0.9,
                evidence: vec![],
            },
            Step {
                motion_m: [0.9, 0.45],
                motion_sigma_m: 0.3,
                evidence: vec![
                    Evidence::Heatmap {
                        heatmap: &heatmap,
                        centre_m: [2.2, -0.3],
                        exponent: 0.8,
                        outlier: 0.1,
                    },
                    gnss([3.0, -1.0], 2.0),
                ],
            },
        ];
        let smoothed = smooth(&start, &steps).unwrap();
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
        let steps: Vec<Step> = (0..60)
            .map(|i| Step {
                motion_m: [1.0, 0.1],
                motion_sigma_m: 0.4,
                evidence: vec![gnss([1.25 * f64::from(i + 1), 0.1 * f64::from(i + 1)], 0.8)],
            })
            .collect();
        let narrow = smooth(&GridBelief::new([0.0, 0.0], 32, 0.5).unwrap(), &steps).unwrap();
        let wide = smooth(&GridBelief::new([0.0, 0.0], 128, 0.5).unwrap(), &steps).unwrap();
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
        let doubt = Heatmap::new(32, 1.0, two).unwrap();
        let start = GridBelief::new([0.0, 0.0], 64, 0.5).unwrap();
        let steps = [
            Step {
                motion_m: [0.0, 0.0],
                motion_sigma_m: 0.0,
                evidence: vec![Evidence::Heatmap {
                    heatmap: &doubt,
                    centre_m: [0.0, 0.0],
                    exponent: 1.0,
                    outlier: 0.01,
                }],
            },
            Step {
                motion_m: [0.0, 3.0],
                motion_sigma_m: 0.2,
                evidence: vec![gnss([7.0, 2.5], 1.0)],
            },
        ];
        let mut forward = start.clone();
        forward.update(&steps[0].evidence[0]).unwrap();
        assert_eq!(forward.estimate().mode_count, 2);
        let first = smooth(&start, &steps).unwrap()[0].estimate();
        assert_eq!(first.mode_count, 1);
        assert!((first.mean_m[0] - 7.5).abs() < 0.3, "{first:?}");
    }

    #[test]
    fn an_empty_drive_is_empty_and_a_broken_one_is_refused() {
        let start = GridBelief::new([0.0, 0.0], 16, 0.5).unwrap();
        assert!(smooth(&start, &[]).unwrap().is_empty());
        assert!(
            smooth(
                &start,
                &[Step {
                    motion_m: [f64::NAN, 0.0],
                    motion_sigma_m: 0.1,
                    evidence: vec![]
                }]
            )
            .is_err()
        );
    }
}
