//! Reads images at real-valued places, bilinearly.

use crate::error::{Error, Result};
use crate::tape::Tape;
use crate::tensor::Tensor;

const OP: &str = "grid_sample";

/// What a point reads that is not between four pixel centres.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outside {
    /// Zero as a whole. The last row and column of pixel centres count as outside: with
    /// neighbours ⌊x⌋ and ⌊x⌋ + 1 they have only one. GGCVT's rule.
    Empty,
    /// The bilinear mixture in which the neighbours outside are zero.
    Zeros,
    /// The nearest point of the image.
    Border,
}

/// Samples `input` at the points of `grid`, bilinearly.
///
/// Gradients flow to the image and to the coordinates; on a pixel centre, where the slope jumps,
/// the one towards larger coordinates is taken. A coordinate that is not a number reads 0.
///
/// # Shapes and units
/// `input` `[N, C, H, W]`; `grid` `[N, P, Q, 2]` as (x, y) in pixels, (0, 0) the centre of the
/// top-left pixel; returns `[N, C, P, Q]`.
///
/// # Errors
/// [`Error::Shape`] when the shapes do not fit.
///
/// # Source
/// Spatial Transformer Networks (Jaderberg et al. 2015), equation 5.
pub fn grid_sample(
    tape: &mut Tape,
    input: &Tensor,
    grid: &Tensor,
    outside: Outside,
) -> Result<Tensor> {
    let [n, c, h, w] = input.dims4(OP, "input")?;
    let [samples, p, q, pair] = grid.dims4(OP, "grid")?;
    if samples != n || pair != 2 {
        let expected = format!("[{n}, P, Q, 2]");
        return Err(Error::shape(OP, "grid", expected, grid.shape()));
    }
    let size = Size {
        channels: c,
        height: h,
        width: w,
        points: p * q,
    };
    let data = cpu::forward(&size, outside, input.data(), grid.data());
    let mut output = Tensor::from_parts(data, &[n, c, p, q]);
    let inputs = [input, grid];
    let saved = tape
        .needs_gradient(&inputs)
        .then(|| (input.clone(), grid.clone()));
    tape.record(&mut output, &inputs, move |gradient| {
        let (input, grid) = saved.expect("saved whenever recorded");
        let gradient = gradient.data();
        let to_input = input.requires_gradient().then(|| {
            let data = cpu::input_gradient(&size, outside, grid.data(), gradient);
            Tensor::from_parts(data, input.shape())
        });
        let to_grid = grid.requires_gradient().then(|| {
            let data = cpu::grid_gradient(&size, outside, input.data(), grid.data(), gradient);
            Tensor::from_parts(data, grid.shape())
        });
        Ok(vec![to_input, to_grid])
    });
    Ok(output)
}

struct Size {
    channels: usize,
    height: usize,
    width: usize,
    /// Of one sample's grid.
    points: usize,
}

mod cpu {
    use super::{Outside, Size};
    use crate::buffer;
    use rayon::prelude::*;

    /// The four pixels that a point reads, how much of each, and how that changes with x and y.
    #[derive(Clone, Copy, Default)]
    struct Tap {
        index: [u32; 4],
        weight: [f32; 4],
        slope_x: [f32; 4],
        slope_y: [f32; 4],
    }

    impl Tap {
        fn new(size: &Size, outside: Outside, x: f32, y: f32) -> Self {
            let ([x, stuck_x], [y, stuck_y]) = match outside {
                Outside::Border => (clamp(x, size.width), clamp(y, size.height)),
                Outside::Empty | Outside::Zeros => ([x, 1.0], [y, 1.0]),
            };
            let (left, top) = (x.floor(), y.floor());
            let (right_share, low_share) = (x - left, y - top);
            let inside = |at: f32, length: usize| at >= 0.0 && at < length as f32;
            // Far points, infinities and NaN end here; what remains fits an i32.
            let near = inside(left + 1.0, size.width + 1) && inside(top + 1.0, size.height + 1);
            let whole = inside(left + 1.0, size.width)
                && left >= 0.0
                && inside(top + 1.0, size.height)
                && top >= 0.0;
            if !near || (outside == Outside::Empty && !whole) {
                return Self::default();
            }
            let mut tap = Self::default();
            for corner in 0..4 {
                let (right, low) = (corner % 2, corner / 2);
                let column = left as i32 + right;
                let row = top as i32 + low;
                if !inside(column as f32, size.width) || !inside(row as f32, size.height) {
                    continue; // weight 0 on pixel 0
                }
                let (across, dx) = share(right, right_share);
                let (down, dy) = share(low, low_share);
                let k = corner as usize;
                tap.index[k] = (row as usize * size.width + column as usize) as u32;
                tap.weight[k] = across * down;
                tap.slope_x[k] = dx * down * stuck_x;
                tap.slope_y[k] = dy * across * stuck_y;
            }
            tap
        }

        fn read(&self, plane: &[f32], factors: &[f32; 4]) -> f32 {
            let terms = self.index.iter().zip(factors);
            terms.map(|(index, f)| f * plane[*index as usize]).sum()
        }
    }

    /// Weight of the near or far neighbour, and its slope.
    fn share(far: i32, fraction: f32) -> (f32, f32) {
        if far == 1 {
            (fraction, 1.0)
        } else {
            (1.0 - fraction, -1.0)
        }
    }

    /// The nearest coordinate inside, and whether moving the point moves it.
    fn clamp(at: f32, length: usize) -> [f32; 2] {
        let last = (length - 1) as f32;
        if at < 0.0 {
            [0.0, 0.0]
        } else if at > last {
            [last, 0.0]
        } else {
            [at, 1.0]
        }
    }

    fn taps(size: &Size, outside: Outside, grid: &[f32]) -> Vec<Tap> {
        let points = grid.par_chunks_exact(2).with_min_len(1024);
        points
            .map(|xy| Tap::new(size, outside, xy[0], xy[1]))
            .collect()
    }

    pub fn forward(size: &Size, outside: Outside, input: &[f32], grid: &[f32]) -> Vec<f32> {
        let batch = grid.len() / (2 * size.points);
        let mut output = buffer::any(batch * size.channels * size.points);
        let samples = output
            .chunks_exact_mut(size.channels * size.points)
            .zip(input.chunks_exact(size.channels * size.height * size.width))
            .zip(grid.chunks_exact(2 * size.points));
        for ((output, input), grid) in samples {
            let taps = taps(size, outside, grid);
            output
                .par_chunks_exact_mut(size.points)
                .zip(input.par_chunks_exact(size.height * size.width))
                .for_each(|(output, plane)| {
                    for (y, tap) in output.iter_mut().zip(&taps) {
                        *y = tap.read(plane, &tap.weight);
                    }
                });
        }
        output
    }

    /// One plane at a time, so that no two threads add to one pixel.
    pub fn input_gradient(
        size: &Size,
        outside: Outside,
        grid: &[f32],
        gradient: &[f32],
    ) -> Vec<f32> {
        let batch = grid.len() / (2 * size.points);
        let pixels = size.height * size.width;
        let mut result = buffer::zeros(batch * size.channels * pixels);
        let samples = result
            .chunks_exact_mut(size.channels * pixels)
            .zip(gradient.chunks_exact(size.channels * size.points))
            .zip(grid.chunks_exact(2 * size.points));
        for ((result, gradient), grid) in samples {
            let taps = taps(size, outside, grid);
            result
                .par_chunks_exact_mut(pixels)
                .zip(gradient.par_chunks_exact(size.points))
                .for_each(|(plane, gradient)| {
                    for (g, tap) in gradient.iter().zip(&taps) {
                        for (index, weight) in tap.index.iter().zip(tap.weight) {
                            plane[*index as usize] += g * weight;
                        }
                    }
                });
        }
        result
    }

    pub fn grid_gradient(
        size: &Size,
        outside: Outside,
        input: &[f32],
        grid: &[f32],
        gradient: &[f32],
    ) -> Vec<f32> {
        let pixels = size.height * size.width;
        let mut result = buffer::any(grid.len());
        let samples = result
            .chunks_exact_mut(2 * size.points)
            .zip(input.chunks_exact(size.channels * pixels))
            .zip(gradient.chunks_exact(size.channels * size.points))
            .zip(grid.chunks_exact(2 * size.points));
        for (((result, input), gradient), grid) in samples {
            let taps = taps(size, outside, grid);
            result
                .par_chunks_exact_mut(2)
                .zip(&taps)
                .enumerate()
                .with_min_len(256)
                .for_each(|(point, (result, tap))| {
                    let (mut x, mut y) = (0.0f64, 0.0f64);
                    for (channel, plane) in input.chunks_exact(pixels).enumerate() {
                        let g = f64::from(gradient[channel * size.points + point]);
                        x += g * f64::from(tap.read(plane, &tap.slope_x));
                        y += g * f64::from(tap.read(plane, &tap.slope_y));
                    }
                    result.copy_from_slice(&[x as f32, y as f32]);
                });
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradient, noise};

    fn points(xy: &[f32]) -> Tensor {
        Tensor::new(xy.to_vec(), &[1, 1, xy.len() / 2, 2]).unwrap()
    }

    fn square() -> Tensor {
        Tensor::new(vec![1.0, 2.0, 3.0, 5.0], &[1, 1, 2, 2]).unwrap()
    }

    #[test]
    fn points_between_pixels_are_mixed() {
        let grid = points(&[0.0, 0.0, 0.5, 0.0, 0.25, 0.5]);
        for outside in [Outside::Empty, Outside::Zeros, Outside::Border] {
            let y = grid_sample(&mut Tape::inference(), &square(), &grid, outside).unwrap();
            // 0.5 (1 + 0.25 (2 - 1)) + 0.5 (3 + 0.25 (5 - 3))
            assert_eq!(y.data(), [1.0, 1.5, 2.375], "{outside:?}");
        }
    }

    #[test]
    fn points_outside_follow_the_rule() {
        let grid = points(&[-0.5, 0.0, 1.0, 0.0, 0.0, 1.75, 9e9, 0.0, f32::NAN, 0.0]);
        let cases = [
            (Outside::Empty, [0.0, 0.0, 0.0, 0.0, 0.0]),
            (Outside::Zeros, [0.5, 2.0, 0.75, 0.0, 0.0]),
            (Outside::Border, [1.0, 2.0, 3.0, 2.0, 0.0]),
        ];
        for (outside, expected) in cases {
            let y = grid_sample(&mut Tape::inference(), &square(), &grid, outside).unwrap();
            assert_close(y.data(), &expected, 1e-7);
        }
    }

    #[test]
    fn gradient_matches_finite_differences() {
        // Centres of cells and beyond the edge, so that no step crosses a kink.
        let coordinates = [0.4, 1.6, 2.3, 0.5, 0.6, 0.5, -0.4, 1.5, 2.6, 9.0, 1.5, 2.4];
        let grid = Tensor::new(coordinates.to_vec(), &[1, 2, 3, 2]).unwrap();
        for outside in [Outside::Empty, Outside::Zeros, Outside::Border] {
            let inputs = [noise(&[1, 3, 3, 4], 1), grid.clone()];
            check_gradient(&inputs, 3e-3, |tape, x| {
                grid_sample(tape, &x[0], &x[1], outside)
            });
        }
    }

    #[test]
    fn grids_of_another_batch_or_without_pairs_are_refused() {
        let mut tape = Tape::inference();
        let x = noise(&[2, 1, 3, 3], 1);
        let wrong = [[1, 2, 2, 2], [2, 2, 2, 3]];
        for shape in wrong {
            let grid = Tensor::zeros(&shape);
            assert!(grid_sample(&mut tape, &x, &grid, Outside::Empty).is_err());
        }
    }
}
