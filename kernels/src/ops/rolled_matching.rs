//! Cosine similarity of a ground descriptor with every aerial cell, for every orientation: the
//! heart of CCVPE. Turning the camera by one step rolls the descriptor by a fixed number of
//! channels, so all orientations come from one descriptor.

use crate::buffer::{self, Buffer};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::gemm::{Strides, gemm};
use crate::tape::Tape;
use crate::tensor::Tensor;
use rayon::prelude::*;

pub(crate) mod on_cuda;

const OP: &str = "rolled_matching";

/// The cosine similarity of `ground` with a rolled window of the channels of `aerial`:
///
/// `output[r, y, x] = sum over j < n of ground[j] * window_r[j] / (|ground| * |window_r|)` with
/// `window_r[j] = aerial[(j + window_offset + shifts[r]) mod C, y, x]`.
///
/// A shift counts channels and may be negative. `window_offset` is 0 for a panorama and for
/// CCVPE's limited field of view; its Oxford variant takes the centre slice, `(C - n) / 2`.
/// Where a norm is zero (or so small that its square is zero in f32) the score is 0 and no
/// gradient flows. The published network has no such guard and would give NaN there; everywhere
/// else the two agree.
///
/// # Shapes
/// `aerial` `[N, C, H, W]`, `ground` `[N, n]` with `n <= C`, R shifts; returns `[N, R, H, W]`.
///
/// # Errors
/// [`Error::Shape`] when `aerial` has not four axes, the batch sizes differ or the descriptor is
/// empty or longer than C; [`Error::Argument`] when there are no shifts.
///
/// # Source
/// Convolutional Cross-View Pose Estimation (Xia et al. 2023), the rolling and matching module.
pub fn rolled_matching(
    tape: &mut Tape,
    aerial: &Tensor,
    ground: &Tensor,
    shifts: &[isize],
    window_offset: usize,
) -> Result<Tensor> {
    let plan = Plan::new(aerial, ground, shifts, window_offset)?;
    match Device::common(OP, &[aerial, ground])? {
        Device::Cpu => on_cpu(tape, aerial, ground, plan),
        Device::Cuda(cuda) => on_cuda::matching(tape, &cuda, aerial, ground, plan),
    }
}

fn on_cpu(tape: &mut Tape, aerial: &Tensor, ground: &Tensor, plan: Plan) -> Result<Tensor> {
    let [n, _, h, w] = aerial.dims4(OP, "aerial")?;
    let orientations = plan.starts.len();
    let mut scores = buffer::any(n * orientations * plan.pixels);
    let mut inverse_norms = Buffer::new(buffer::zeros(n * plan.windows.len() * plan.pixels));
    scores
        .par_chunks_mut((orientations * plan.pixels).max(1))
        .zip(inverse_norms.par_chunks_mut((plan.windows.len() * plan.pixels).max(1)))
        .zip(
            aerial
                .data()
                .par_chunks((plan.channels * plan.pixels).max(1)),
        )
        .zip(ground.data().par_chunks(plan.length))
        .for_each(|(((scores, inverse_norms), aerial), ground)| {
            plan.forward(scores, inverse_norms, aerial, ground);
        });
    let mut output = Tensor::from_parts(scores, &[n, orientations, h, w]);
    let saved = tape
        .needs_gradient(&[aerial, ground])
        .then(|| (aerial.clone(), ground.clone(), output.clone()));
    tape.record(&mut output, &[aerial, ground], move |gradient| {
        let (aerial, ground, scores) = saved.expect("saved whenever recorded");
        let mut aerial_gradient = buffer::zeros(aerial.len());
        let mut ground_gradient = buffer::zeros(ground.len());
        let pixels = plan.pixels;
        aerial_gradient
            .par_chunks_mut((plan.channels * pixels).max(1))
            .zip(ground_gradient.par_chunks_mut(plan.length))
            .zip(aerial.data().par_chunks((plan.channels * pixels).max(1)))
            .zip(ground.data().par_chunks(plan.length))
            .zip(scores.data().par_chunks((orientations * pixels).max(1)))
            .zip(gradient.data().par_chunks((orientations * pixels).max(1)))
            .zip(inverse_norms.par_chunks((plan.windows.len() * pixels).max(1)))
            .for_each(
                |((((((to_aerial, to_ground), aerial), ground), scores), gradient), norms)| {
                    let saved = SavedSample {
                        aerial,
                        ground,
                        scores,
                        gradient,
                        inverse_norms: norms,
                    };
                    plan.backward(to_aerial, to_ground, &saved);
                },
            );
        Ok(vec![
            Some(Tensor::from_parts(aerial_gradient, aerial.shape())),
            Some(Tensor::from_parts(ground_gradient, ground.shape())),
        ])
    });
    Ok(output)
}

/// Which channels meet which descriptor entries; the same for all samples.
struct Plan {
    channels: usize,
    /// Length of the descriptor and of the window.
    length: usize,
    pixels: usize,
    /// First channel of the window of each orientation.
    starts: Vec<usize>,
    /// First channels of the windows whose norms differ: one when the window is the whole vector.
    windows: Vec<usize>,
    /// Index into `windows` for each orientation.
    window_of: Vec<usize>,
    /// `[windows, C]`, 1 inside the window; empty when the window is the whole vector.
    masks: Vec<f32>,
}

/// What the backward pass of one sample reads.
struct SavedSample<'a> {
    aerial: &'a [f32],
    ground: &'a [f32],
    scores: &'a [f32],
    gradient: &'a [f32],
    inverse_norms: &'a [f32],
}

impl Plan {
    fn new(aerial: &Tensor, ground: &Tensor, shifts: &[isize], offset: usize) -> Result<Self> {
        let [n, channels, h, w] = aerial.dims4(OP, "aerial")?;
        let [samples, length] = ground.dims2(OP, "ground")?;
        if samples != n || length == 0 || length > channels {
            return Err(Error::shape(
                OP,
                "ground, one descriptor for each aerial sample and not longer than its channels",
                format!("[{n}, 1..={channels}] for aerial {:?}", aerial.shape()),
                ground.shape(),
            ));
        }
        if shifts.is_empty() {
            return Err(Error::argument(OP, "no shift is given"));
        }
        let whole = length == channels;
        let start = |shift: &isize| {
            (shift.rem_euclid(channels as isize) as usize + offset % channels) % channels
        };
        let starts: Vec<usize> = shifts.iter().map(start).collect();
        let mut windows: Vec<usize> = Vec::new();
        let mut window_of = Vec::new();
        for start in &starts {
            let start = if whole { 0 } else { *start };
            let known = windows.iter().position(|window| *window == start);
            window_of.push(known.unwrap_or(windows.len()));
            if known.is_none() {
                windows.push(start);
            }
        }
        let mut masks = vec![0.0; if whole { 0 } else { windows.len() * channels }];
        for (mask, start) in masks.chunks_exact_mut(channels).zip(&windows) {
            for j in 0..length {
                mask[(start + j) % channels] = 1.0;
            }
        }
        Ok(Self {
            channels,
            length,
            pixels: h * w,
            starts,
            windows,
            window_of,
            masks,
        })
    }

    fn forward(&self, scores: &mut [f32], inverse: &mut [f32], aerial: &[f32], ground: &[f32]) {
        let (pixels, channels) = (self.pixels, self.channels);
        if self.is_whole() {
            for row in aerial.chunks_exact(pixels) {
                for (sum, x) in inverse.iter_mut().zip(row) {
                    *sum += x * x;
                }
            }
        } else {
            let squares: Vec<f32> = aerial.iter().map(|x| x * x).collect();
            gemm(
                [self.windows.len(), pixels, channels],
                inverse,
                false,
                (&self.masks, Strides::row_major(channels)),
                (&squares, Strides::row_major(pixels)),
            );
        }
        for value in inverse.iter_mut() {
            *value = inverse_root(*value);
        }
        gemm(
            [self.starts.len(), pixels, channels],
            scores,
            false,
            (&self.rolled(ground), Strides::row_major(channels)),
            (aerial, Strides::row_major(pixels)),
        );
        let inverse_ground = inverse_norm(ground);
        for (scores, window) in scores.chunks_exact_mut(pixels).zip(&self.window_of) {
            let inverse = &inverse[window * pixels..][..pixels];
            for (score, inverse) in scores.iter_mut().zip(inverse) {
                *score *= inverse_ground * inverse;
            }
        }
    }

    /// With u the incoming gradient, s the score, a the window and g the descriptor:
    /// `ds/da = g / (|g| |a|) - s a / |a|^2` and the same with a and g exchanged.
    fn backward(&self, to_aerial: &mut [f32], to_ground: &mut [f32], saved: &SavedSample) {
        let (pixels, channels) = (self.pixels, self.channels);
        let orientations = self.starts.len();
        let inverse_ground = inverse_norm(saved.ground);
        let mut scaled = Buffer::new(buffer::any(orientations * pixels)); // u / (|g| |a|)
        let mut pull = Buffer::new(buffer::zeros(self.windows.len() * pixels)); // sum of u s / |a|^2
        let mut score_sum = 0.0f64; // sum of u s, for the ground norm
        for (r, scaled) in scaled.chunks_exact_mut(pixels).enumerate() {
            let window = self.window_of[r] * pixels..(self.window_of[r] + 1) * pixels;
            let inverse = &saved.inverse_norms[window.clone()];
            let pull = &mut pull[window];
            let u = &saved.gradient[r * pixels..][..pixels];
            let s = &saved.scores[r * pixels..][..pixels];
            for p in 0..pixels {
                let us = u[p] * s[p];
                score_sum += f64::from(us);
                scaled[p] = u[p] * inverse[p] * inverse_ground;
                pull[p] += us * inverse[p] * inverse[p];
            }
        }

        let rolled = self.rolled(saved.ground);
        gemm(
            [channels, pixels, orientations],
            to_aerial,
            false,
            (&rolled, Strides::transposed(channels)),
            (&scaled, Strides::row_major(pixels)),
        );
        let mut spread = Vec::new();
        if !self.is_whole() {
            spread.resize(channels * pixels, 0.0);
            gemm(
                [channels, pixels, self.windows.len()],
                &mut spread,
                false,
                (&self.masks, Strides::transposed(channels)),
                (&pull, Strides::row_major(pixels)),
            );
        }
        let rows = to_aerial.chunks_exact_mut(pixels);
        for (channel, (to_aerial, x)) in rows.zip(saved.aerial.chunks_exact(pixels)).enumerate() {
            let pull = if self.is_whole() {
                &pull[..]
            } else {
                &spread[channel * pixels..][..pixels]
            };
            for ((to_aerial, x), pull) in to_aerial.iter_mut().zip(x).zip(pull) {
                *to_aerial -= pull * x;
            }
        }

        let mut products = Buffer::new(buffer::any(orientations * channels));
        gemm(
            [orientations, channels, pixels],
            &mut products,
            false,
            (&scaled, Strides::row_major(pixels)),
            (saved.aerial, Strides::transposed(pixels)),
        );
        let pull = score_sum * f64::from(inverse_ground).powi(2);
        for (j, (to_ground, g)) in to_ground.iter_mut().zip(saved.ground).enumerate() {
            let rows = products.chunks_exact(channels).zip(&self.starts);
            let sum: f64 = rows
                .map(|(row, start)| f64::from(row[(start + j) % channels]))
                .sum();
            *to_ground = (sum - pull * f64::from(*g)) as f32;
        }
    }

    /// The descriptor as each orientation sees it, `[R, C]`: zero outside the window. The scores
    /// of all orientations are then one matrix product with the aerial sample.
    fn rolled(&self, ground: &[f32]) -> Buffer {
        let mut rolled = Buffer::new(buffer::zeros(self.starts.len() * self.channels));
        for (row, start) in rolled.chunks_exact_mut(self.channels).zip(&self.starts) {
            for (j, g) in ground.iter().enumerate() {
                row[(start + j) % self.channels] = *g;
            }
        }
        rolled
    }

    fn is_whole(&self) -> bool {
        self.length == self.channels
    }
}

/// 1 / sqrt(x), and 0 for 0: this is the guard for zero norms.
fn inverse_root(squared: f32) -> f32 {
    if squared == 0.0 {
        0.0
    } else {
        1.0 / squared.sqrt()
    }
}

fn inverse_norm(vector: &[f32]) -> f32 {
    let squared: f64 = vector.iter().map(|x| f64::from(*x).powi(2)).sum();
    inverse_root(squared as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradient, noise};

    /// The definition, word for word, in f64.
    fn definition(
        aerial: &Tensor,
        ground: &Tensor,
        shifts: &[isize],
        window_offset: usize,
    ) -> Vec<f32> {
        let [n, c, h, w] = aerial.dims4(OP, "aerial").unwrap();
        let length = ground.shape()[1];
        let mut scores = Vec::new();
        for sample in 0..n {
            let g = &ground.data()[sample * length..][..length];
            for shift in shifts {
                for pixel in 0..h * w {
                    let (mut product, mut g2, mut x2) = (0.0, 0.0, 0.0);
                    for (j, g) in g.iter().enumerate() {
                        let channel =
                            (j as isize + window_offset as isize + shift).rem_euclid(c as isize);
                        let x = aerial.data()[(sample * c + channel as usize) * h * w + pixel];
                        product += f64::from(*g) * f64::from(x);
                        g2 += f64::from(*g).powi(2);
                        x2 += f64::from(x).powi(2);
                    }
                    scores.push((product / (g2.sqrt() * x2.sqrt())) as f32);
                }
            }
        }
        scores
    }

    #[test]
    fn a_descriptor_matches_itself_at_the_shift_that_turned_it() {
        // One cell, four channels holding (1, 2, 2, 4); the descriptor is that rolled by one:
        // entry j is channel j + 1. Norm 5.
        let aerial = Tensor::new(vec![1.0, 2.0, 2.0, 4.0], &[1, 4, 1, 1]).unwrap();
        let ground = Tensor::new(vec![2.0, 2.0, 4.0, 1.0], &[1, 4]).unwrap();
        let shifts = [0, 1, 2, 3, -3];
        let y = rolled_matching(&mut Tape::inference(), &aerial, &ground, &shifts, 0).unwrap();
        // 2+4+8+4, 25, 4+8+4+2, 8+2+8+2, and -3 is 1 again
        assert_close(
            y.data(),
            &[18.0 / 25.0, 1.0, 18.0 / 25.0, 20.0 / 25.0, 1.0],
            1e-6,
        );
    }

    #[test]
    fn matches_the_definition_for_whole_and_partial_windows() {
        for (c, length, offset) in [(16, 16, 0), (16, 8, 0), (16, 6, 5), (13, 7, 40)] {
            let aerial = noise(&[2, c, 3, 7], 1);
            let ground = noise(&[2, length], 2);
            let shifts = [-20, -4, 0, 4, 8, 12, 17];
            let y =
                rolled_matching(&mut Tape::inference(), &aerial, &ground, &shifts, offset).unwrap();
            assert_eq!(y.shape(), [2, 7, 3, 7]);
            assert_close(
                y.data(),
                &definition(&aerial, &ground, &shifts, offset),
                1e-6,
            );
        }
    }

    #[test]
    fn gradient_matches_finite_differences() {
        for (length, offset) in [(8, 0), (5, 0), (4, 2)] {
            let inputs = [noise(&[2, 8, 2, 3], 1), noise(&[2, length], 2)];
            check_gradient(&inputs, 3e-3, |tape, x| {
                rolled_matching(tape, &x[0], &x[1], &[-2, 0, 2, 5], offset)
            });
        }
    }

    #[test]
    fn zero_norms_give_zero_scores_and_no_gradient() {
        // The first cell is zero; the second sample's descriptor is zero.
        let aerial = Tensor::new(vec![0.0, 1.0, 0.0, 2.0, 1.0, 1.0, 1.0, 1.0], &[2, 2, 1, 2]);
        let aerial = aerial.unwrap().with_gradient();
        let ground = Tensor::new(vec![1.0, 1.0, 0.0, 0.0], &[2, 2])
            .unwrap()
            .with_gradient();
        let mut tape = Tape::training();
        let y = rolled_matching(&mut tape, &aerial, &ground, &[0, 1], 0).unwrap();
        let score = 3.0 / 10.0f32.sqrt();
        let zero = 0.0;
        assert_close(
            y.data(),
            &[zero, score, zero, score, zero, zero, zero, zero],
            1e-6,
        );
        let gradients = tape
            .backward_from(&y, Tensor::full(y.shape(), 1.0))
            .unwrap();
        let to_aerial = gradients.get(&aerial).unwrap().data();
        assert_eq!([to_aerial[0], to_aerial[2]], [0.0, 0.0]);
        assert_eq!(to_aerial[4..], [0.0; 4]);
        assert_eq!(gradients.get(&ground).unwrap().data()[2..], [0.0; 2]);
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let aerial = Tensor::zeros(&[2, 8, 3, 3]);
        let tape = &mut Tape::inference();
        let mut refuse = |ground: &[usize]| {
            rolled_matching(tape, &aerial, &Tensor::zeros(ground), &[0], 0)
                .unwrap_err()
                .to_string()
        };
        let message = refuse(&[2, 9]);
        assert!(
            message.contains("rolled_matching")
                && message.contains("[2, 8, 3, 3]")
                && message.contains("[2, 9]"),
            "{message}"
        );
        refuse(&[1, 8]);
        refuse(&[2, 0]);
        let ground = Tensor::zeros(&[2, 8]);
        assert!(rolled_matching(tape, &aerial, &ground, &[], 0).is_err());
    }

    #[test]
    fn rolling_the_aerial_channels_moves_the_scores_by_one_orientation() {
        let aerial = noise(&[1, 12, 2, 2], 1);
        let ground = noise(&[1, 7], 2);
        let mut rolled = aerial.data().to_vec();
        rolled.rotate_left(3 * 4); // three channels of 2 x 2 cells
        let rolled = Tensor::new(rolled, aerial.shape()).unwrap();
        let tape = &mut Tape::inference();
        let ahead = rolled_matching(tape, &aerial, &ground, &[3, 6, 9, 12], 0).unwrap();
        let here = rolled_matching(tape, &rolled, &ground, &[0, 3, 6, 9], 0).unwrap();
        assert_close(here.data(), ahead.data(), 1e-6);
    }

    #[test]
    fn results_do_not_depend_on_the_number_of_threads() {
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            pool.build().unwrap().install(|| {
                let aerial = noise(&[3, 32, 9, 9], 1).with_gradient();
                let ground = noise(&[3, 20], 2).with_gradient();
                let mut tape = Tape::training();
                let y = rolled_matching(&mut tape, &aerial, &ground, &[-4, 0, 4, 8], 3).unwrap();
                let gradients = tape.backward_from(&y, noise(y.shape(), 3)).unwrap();
                [&aerial, &ground].map(|leaf| gradients.get(leaf).unwrap().data().to_vec())
            })
        };
        assert_eq!(run(1), run(4));
    }
}
