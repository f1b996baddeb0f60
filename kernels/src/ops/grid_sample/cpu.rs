//! The definition: taps for all points of a sample, then plane by plane.

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
pub fn input_gradient(size: &Size, outside: Outside, grid: &[f32], gradient: &[f32]) -> Vec<f32> {
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
