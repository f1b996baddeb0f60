//! The gradient of the weight where rows of the output are long: for each output and tap the
//! product of two planes, as they lie, a few rows at a time. Nothing is turned around.
//!
//! Every sum keeps 16 lanes over some rows, whatever the vectors' width, so the results do not
//! depend on it.

#![allow(
    clippy::needless_range_loop,
    reason = "iterators over arrays of vectors are not always inlined, and then compiled for a smaller machine"
)]

use super::geometry::Geometry;
use super::vector::{Tail, load};
use crate::buffer;
use crate::math::{LANES, add_assign};
use crate::scratch;
use crate::simd;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Pixels of a plane whose products are summed up in lanes: enough to repay adding those, and so
/// few that four rows of gradients stay in the first-level cache.
const BAND: usize = 1024;
/// Pixels in a row of the output for which this is the better way.
const LONG: usize = 64;
/// Weights that do not repay turning the image around.
const FEW_WEIGHTS: usize = 4096;
/// Elements of the image that a band sees, which have to stay in the second-level cache.
const MOST: usize = 320 * 1024;
/// Outputs that are worth handing to another thread.
const ROWS: usize = 4;
/// Outputs times taps of a tile, at most.
const TILE: usize = 24;

/// Whether this is the better way for this convolution.
pub(super) fn fits(g: &Geometry) -> bool {
    g.groups == 1
        && g.output_width >= LONG
        && g.outputs * g.group_taps() <= FEW_WEIGHTS
        && g.channels * Band::new(g, 0).plane_step <= MOST
}

pub(super) fn weight_gradient(g: &Geometry, input: &[f32], gradient: &[f32]) -> Vec<f32> {
    let (taps, pixels) = (g.group_taps(), g.output_pixels());
    let weights = g.outputs * taps;
    let tasks = rayon::current_num_threads().div_ceil(g.batch);
    let split = g.outputs.div_ceil(tasks).next_multiple_of(ROWS);
    let mut parts = buffer::zeros(g.batch * weights);
    parts
        .par_chunks_exact_mut(weights)
        .zip(input.par_chunks_exact(g.channels * g.pixels()))
        .zip(gradient.par_chunks_exact(g.outputs * pixels))
        .for_each(|((part, image), gradient)| {
            part.par_chunks_mut(split * taps)
                .zip(gradient.par_chunks(split * pixels))
                .for_each(|(part, gradient)| add(g, image, gradient, part));
        });
    if g.batch == 1 {
        return parts;
    }
    let mut found = buffer::zeros(weights);
    for part in parts.chunks_exact(weights) {
        add_assign(&mut found, part);
    }
    buffer::recycle(parts);
    found
}

/// Adds the gradient of one sample, for as many outputs as `gradient` has, to `found`
/// [output, channel, kernel row, kernel column].
fn add(g: &Geometry, image: &[f32], gradient: &[f32], found: &mut [f32]) {
    let rows = Band::new(g, 0).rows;
    let room = Band::new(g, 0).plane_step * g.channels;
    scratch::with([room], |[padded]| {
        for first in (0..g.output_height).step_by(rows) {
            let band = Band::new(g, first);
            let padded = &mut padded[..band.plane_step * g.channels];
            g.pad_rows(image, first * g.stride, band.plane_step, padded);
            let mut taps = vec![0; g.group_taps()];
            g.tap_offsets_from(0, band.plane_step, &mut taps);
            simd::arch().dispatch(Product {
                width: g.output_width,
                rows: band.rows,
                row_step: g.stride * g.row_step(),
                image: padded,
                taps: &taps,
                gradient: &gradient[first * g.output_width..],
                pixels: g.output_pixels(),
                found: &mut *found,
            });
        }
    });
}

/// Some rows of the output.
struct Band {
    rows: usize,
    /// Elements of the padded image's rows that they see, for each channel.
    plane_step: usize,
}

impl Band {
    /// From row `first`.
    fn new(g: &Geometry, first: usize) -> Self {
        let rows = (BAND / g.output_width).clamp(1, g.output_height - first);
        let seen = (rows - 1) * g.stride + g.kernel_height;
        Self {
            rows,
            plane_step: seen * g.row_step(),
        }
    }
}

/// Adds Σ over rows and columns of gradient · image shifted by the tap, for each output and tap.
struct Product<'a> {
    width: usize,
    rows: usize,
    /// From what one row of the output sees to what the next does.
    row_step: usize,
    image: &'a [f32],
    taps: &'a [usize],
    /// From the first pixel of the first output.
    gradient: &'a [f32],
    /// From one output to the next.
    pixels: usize,
    found: &'a mut [f32],
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        match S::F32_LANES {
            16 => self.tiles::<S, 4, 6, 1>(simd),
            8 => self.tiles::<S, 2, 2, 2>(simd),
            4 => self.tiles::<S, 2, 2, 4>(simd),
            _ => self.tiles::<S, 1, 1, 16>(simd),
        }
    }
}

impl Product<'_> {
    /// Tiles of R outputs and T taps; N vectors are 16 lanes.
    #[inline(always)]
    fn tiles<S: Simd, const R: usize, const T: usize, const N: usize>(&mut self, simd: S) {
        let count = self.taps.len();
        let outputs = self.found.len() / count;
        let seen = (self.rows - 1) * self.row_step + self.width;
        let farthest = self.taps.iter().max().copied().unwrap_or(0);
        assert!(farthest + seen <= self.image.len(), "taps within the image");
        let last = (outputs - 1) * self.pixels + self.rows * self.width;
        assert!(last <= self.gradient.len(), "rows within the gradient");
        for output in (0..outputs).step_by(R) {
            for tap in (0..count).step_by(T) {
                // Beyond the last output or tap, repeat it; those sums are dropped below.
                let mut rows = [0; R];
                for r in 0..R {
                    rows[r] = (output + r).min(outputs - 1) * self.pixels;
                }
                let mut places = [0; T];
                for t in 0..T {
                    places[t] = self.taps[(tap + t).min(count - 1)];
                }
                let mut sums = [[0.0; LANES]; TILE];
                self.tile::<S, R, T, N>(simd, &rows, &places, &mut sums);
                for r in 0..R.min(outputs - output) {
                    let found = &mut self.found[(output + r) * count + tap..];
                    for (found, sums) in found
                        .iter_mut()
                        .zip(&sums[r * T..])
                        .take(T.min(count - tap))
                    {
                        *found += total(sums);
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn tile<S: Simd, const R: usize, const T: usize, const N: usize>(
        &self,
        simd: S,
        rows: &[usize; R],
        places: &[usize; T],
        found: &mut [[f32; LANES]; TILE],
    ) {
        let width = self.width;
        let whole = width - width % LANES;
        let mut sums = [[[simd.splat_f32s(0.0); N]; T]; R];
        for y in 0..self.rows {
            let (g, i) = (y * width, y * self.row_step);
            for x in (0..whole).step_by(LANES) {
                for n in 0..N {
                    let x = x + n * S::F32_LANES;
                    let mut factors = [simd.splat_f32s(0.0); R];
                    for r in 0..R {
                        // SAFETY: a vector that ends within row y of an output: the last ends
                        // within `gradient`, as asserted by the caller.
                        factors[r] = unsafe { load::<S>(self.gradient, rows[r] + g + x) };
                    }
                    for t in 0..T {
                        // SAFETY: a vector that ends within what row y sees of a tap: the last
                        // ends within `image`, as asserted by the caller.
                        let value = unsafe { load::<S>(self.image, places[t] + i + x) };
                        for r in 0..R {
                            sums[r][t][n] = simd.mul_add_f32s(factors[r], value, sums[r][t][n]);
                        }
                    }
                }
            }
            if whole == width {
                continue;
            }
            for n in 0..N {
                let x = (whole + n * S::F32_LANES).min(width);
                let tail = Tail::new(simd, width - x);
                let mut factors = [simd.splat_f32s(0.0); R];
                for r in 0..R {
                    // SAFETY: the rest of a row, as above.
                    factors[r] = unsafe { tail.load(simd, self.gradient, rows[r] + g + x) };
                }
                for t in 0..T {
                    // SAFETY: the rest of what a row sees, as above.
                    let value = unsafe { tail.load(simd, self.image, places[t] + i + x) };
                    for r in 0..R {
                        sums[r][t][n] = simd.mul_add_f32s(factors[r], value, sums[r][t][n]);
                    }
                }
            }
        }
        for r in 0..R {
            for t in 0..T {
                S::as_mut_simd_f32s(&mut found[r * T + t])
                    .0
                    .copy_from_slice(&sums[r][t]);
            }
        }
    }
}

/// The sum of 16 lanes.
#[inline(always)]
fn total(lanes: &[f32; LANES]) -> f32 {
    let (low, high) = lanes.split_at(LANES / 2);
    let mut half = [0.0; LANES / 2];
    for i in 0..LANES / 2 {
        half[i] = low[i] + high[i];
    }
    let [a, b, c, d, e, f, g, h] = half;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}
