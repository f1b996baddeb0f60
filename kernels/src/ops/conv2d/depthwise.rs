//! Depthwise convolution on the CPU: each output channel reads the input channel with its index, so
//! there is no matrix product. Each thread takes some planes (one channel of one sample); within a
//! plane, register tiles of output pixels or of kernel taps read a padded copy of the input.
//!
//! Every output is a sum over the taps in order, with one fused multiply-add each. Every weight
//! gradient is kept in 16 partial sums (columns 16 apart share one) whatever the vector width. Sums
//! over samples are added in sample order. So results depend neither on the vector width nor on the
//! number of threads.

#![allow(
    clippy::needless_range_loop,
    reason = "iterators over arrays of vectors are not always inlined, and then compiled for a narrower instruction set"
)]

use super::geometry::Geometry;
use super::vector::{Tail, load, store};
use crate::buffer;
use crate::math::{LANES, add_assign, for_each_cpu, sum_lanes};
use crate::scratch;
use crate::simd;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Elements of a band of padded rows: half of the L1 data cache.
const BAND: usize = 4 * 1024;
/// Output rows of the tallest register tile.
const TILE_ROWS: usize = 8;
/// Taps whose gradients are summed in registers at the same time.
const TILE_TAPS: usize = 5;

/// Whether each output channel reads exactly the input channel with its index.
pub(super) fn fits(g: &Geometry) -> bool {
    g.groups == g.channels && g.groups == g.outputs
}

/// The convolution: `[N, C, output height, output width]`.
pub(super) fn forward(
    g: &Geometry,
    input: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let (pixels, kernel) = (g.output_pixels(), g.kernel_height * g.kernel_width);
    let mut output = buffer::any(g.batch * g.outputs * pixels);
    let bands = Bands::new(g);
    let planes_per_task = planes_per_task(g);
    output
        .par_chunks_mut(planes_per_task * pixels)
        .zip(input.par_chunks(planes_per_task * g.pixels()))
        .enumerate()
        .for_each(|(task, (output, input))| {
            scratch::with([bands.len()], |[padded]| {
                let planes = output.chunks_exact_mut(pixels);
                let planes = planes.zip(input.chunks_exact(g.pixels()));
                for (plane, (output, image)) in (task * planes_per_task..).zip(planes) {
                    let channel = channel(g, plane);
                    for first in (0..g.output_height).step_by(bands.rows) {
                        bands.pad(image, first, padded);
                        let rows = bands.rows.min(g.output_height - first);
                        let begin = first * g.output_width;
                        simd::dispatch(Convolve {
                            g,
                            padded,
                            taps: &bands.taps,
                            weight: &weight[channel * kernel..][..kernel],
                            bias: bias.map_or(0.0, |bias| bias[channel]),
                            rows,
                            output: &mut output[begin..begin + rows * g.output_width],
                        });
                    }
                }
            });
        });
    output
}

/// The gradient of the input: the convolution of the gradient with the reversed kernel where the
/// transpose is a convolution, else a scatter.
pub(super) fn input_gradient(g: &Geometry, weight: &[f32], gradient: &[f32]) -> Vec<f32> {
    let kernel = g.kernel_height * g.kernel_width;
    if let Some(transposed) = g.transposed() {
        let mut reversed = buffer::any(weight.len());
        let kernels = reversed.chunks_exact_mut(kernel);
        for (reversed, weight) in kernels.zip(weight.chunks_exact(kernel)) {
            reversed.copy_from_slice(weight);
            reversed.reverse();
        }
        let found = forward(&transposed, gradient, &reversed, None);
        buffer::recycle(reversed);
        return found;
    }
    let mut found = buffer::any(g.batch * g.channels * g.pixels());
    let planes_per_task = planes_per_task(g);
    let taps = g.tap_offsets();
    found
        .par_chunks_mut(planes_per_task * g.pixels())
        .zip(gradient.par_chunks(planes_per_task * g.output_pixels()))
        .enumerate()
        .for_each(|(task, (found, gradient))| {
            let planes = found.chunks_exact_mut(g.pixels());
            let planes = planes.zip(gradient.chunks_exact(g.output_pixels()));
            for (plane, (found, gradient)) in (task * planes_per_task..).zip(planes) {
                let weight = &weight[channel(g, plane) * kernel..][..kernel];
                scratch::with([g.plane_step()], |[padded]| {
                    padded.fill(0.0);
                    scatter(g, gradient, padded, weight, &taps);
                    found.fill(0.0);
                    g.fold(padded, found);
                });
            }
        });
    found
}

/// The gradient of the weight: `[C, 1, kernel height, kernel width]`.
pub(super) fn weight_gradient(g: &Geometry, input: &[f32], gradient: &[f32]) -> Vec<f32> {
    let (pixels, kernel) = (g.output_pixels(), g.kernel_height * g.kernel_width);
    let mut parts = buffer::any(g.batch * g.outputs * kernel);
    let bands = Bands::new(g);
    let planes_per_task = planes_per_task(g);
    parts
        .par_chunks_mut(planes_per_task * kernel)
        .zip(input.par_chunks(planes_per_task * g.pixels()))
        .zip(gradient.par_chunks(planes_per_task * pixels))
        .for_each(|((parts, input), gradient)| {
            scratch::with([bands.len(), kernel * LANES], |[padded, sums]| {
                let sums = sums.as_chunks_mut().0;
                let planes = input.chunks_exact(g.pixels());
                let planes = planes.zip(gradient.chunks_exact(pixels));
                for (part, (image, gradient)) in parts.chunks_exact_mut(kernel).zip(planes) {
                    sums.fill([0.0; LANES]);
                    for first in (0..g.output_height).step_by(bands.rows) {
                        bands.pad(image, first, padded);
                        let rows = bands.rows.min(g.output_height - first);
                        simd::dispatch(WeightGradient {
                            g,
                            padded,
                            taps: &bands.taps,
                            gradient: &gradient[first * g.output_width..][..rows * g.output_width],
                            rows,
                            sums,
                        });
                    }
                    for (value, lanes) in part.iter_mut().zip(&*sums) {
                        *value = sum_lanes(*lanes);
                    }
                }
            });
        });
    if g.batch == 1 {
        return parts;
    }
    let mut found = buffer::zeros(g.outputs * kernel);
    for part in parts.chunks_exact(found.len()) {
        add_assign(&mut found, part);
    }
    buffer::recycle(parts);
    found
}

/// The channel of a plane, counted from the first sample's first. The division would show where
/// planes are small, so it is skipped within the first sample.
#[inline(always)]
fn channel(g: &Geometry, plane: usize) -> usize {
    if plane < g.channels {
        plane
    } else {
        plane % g.channels
    }
}

/// Planes that make one task for a thread.
fn planes_per_task(g: &Geometry) -> usize {
    (32 * 1024 / g.pixels()).max(1)
}

/// Output rows whose padded input rows are in the L1 cache at the same time.
struct Bands<'a> {
    g: &'a Geometry,
    /// Output rows of a band; the last band of a plane may have fewer.
    rows: usize,
    /// Elements of the padded input rows that a band reads.
    plane_step: usize,
    /// Offset of each tap from the first output pixel.
    taps: Vec<usize>,
}

impl<'a> Bands<'a> {
    fn new(g: &'a Geometry) -> Self {
        let rows = (BAND / g.row_step()).saturating_sub(g.kernel_height) / g.stride;
        let rows = rows - rows % TILE_ROWS;
        let rows = rows.clamp(TILE_ROWS.min(g.output_height), g.output_height);
        let plane_step = ((rows - 1) * g.stride + g.kernel_height) * g.row_step();
        let mut taps = vec![0; g.kernel_height * g.kernel_width];
        g.tap_offsets_from(0, plane_step, &mut taps);
        Self {
            g,
            rows,
            plane_step,
            taps,
        }
    }

    /// Elements of working memory: a vector that begins in the last row may end beyond it.
    fn len(&self) -> usize {
        self.plane_step + LANES
    }

    /// Writes the padded rows that the output rows from `first_row` read.
    fn pad(&self, image: &[f32], first_row: usize, padded: &mut [f32]) {
        let first = first_row * self.g.stride;
        let padded = &mut padded[..self.plane_step];
        self.g.pad_rows(image, first, self.plane_step, padded);
    }
}

/// Panics unless vectors of up to [`LANES`] lanes may be read at every tap of every output pixel.
#[inline(always)]
fn assert_taps_inside(g: &Geometry, padded: &[f32], taps: &[usize], rows: usize) {
    let farthest = taps.iter().max().copied().unwrap_or(0);
    let last_row = (rows - 1) * g.stride * g.row_step();
    let last = last_row + g.output_width + LANES - 1;
    assert!(farthest + last <= padded.len(), "taps within padded rows");
}

/// Writes `rows` output rows of one plane.
struct Convolve<'a> {
    g: &'a Geometry,
    padded: &'a [f32],
    taps: &'a [usize],
    weight: &'a [f32],
    bias: f32,
    rows: usize,
    output: &'a mut [f32],
}

impl WithSimd for Convolve<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        match self.rows {
            TILE_ROWS.. => self.tiles::<S, TILE_ROWS>(simd),
            4.. => self.tiles::<S, 4>(simd),
            _ => self.tiles::<S, 1>(simd),
        }
    }
}

impl Convolve<'_> {
    /// Register tiles of `R` rows and one vector of columns.
    #[inline(always)]
    fn tiles<S: Simd, const R: usize>(&mut self, simd: S) {
        let (width, rows) = (self.g.output_width, self.rows);
        let row_step = self.g.stride * self.g.row_step();
        assert_taps_inside(self.g, self.padded, self.taps, rows);
        assert!(
            R <= rows && rows * width <= self.output.len(),
            "output rows"
        );
        // Rows that do not fill a tile are covered by one that overlaps its neighbour.
        for y in (0..rows).step_by(R).map(|y| y.min(rows - R)) {
            for x in (0..width).step_by(S::F32_LANES) {
                let mut sums = [simd.splat_f32s(self.bias); R];
                for (tap, weight) in self.taps.iter().zip(self.weight) {
                    let factor = simd.splat_f32s(*weight);
                    let at = y * row_step + tap + x;
                    for r in 0..R {
                        // SAFETY: row y + r < rows and column x < width at a tap: a whole vector
                        // from there lies in `padded`, asserted above.
                        let value = unsafe { load::<S>(self.padded, at + r * row_step) };
                        sums[r] = simd.mul_add_f32s(factor, value, sums[r]);
                    }
                }
                if x + S::F32_LANES <= width {
                    for r in 0..R {
                        // SAFETY: a vector that ends within row y + r < rows of `output`, whose
                        // length is asserted above.
                        unsafe { store::<S>(self.output, (y + r) * width + x, sums[r]) };
                    }
                } else {
                    let tail = Tail::new(simd, width - x);
                    for r in 0..R {
                        // SAFETY: the lanes from x to the end of row y + r < rows of `output`.
                        unsafe { tail.store(simd, self.output, (y + r) * width + x, sums[r]) };
                    }
                }
            }
        }
    }
}

/// Adds Σ over `rows` of gradient · image at the tap to the partial sums of each tap.
struct WeightGradient<'a> {
    g: &'a Geometry,
    padded: &'a [f32],
    taps: &'a [usize],
    gradient: &'a [f32],
    rows: usize,
    sums: &'a mut [[f32; LANES]],
}

impl WithSimd for WeightGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            16 => self.tiles::<S, 1>(simd),
            8 => self.tiles::<S, 2>(simd),
            4 => self.tiles::<S, 4>(simd),
            _ => self.tiles::<S, LANES>(simd),
        }
    }
}

impl WeightGradient<'_> {
    /// Register tiles of [`TILE_TAPS`] taps; `N` vectors are 16 lanes.
    #[inline(always)]
    fn tiles<S: Simd, const N: usize>(self, simd: S) {
        let width = self.g.output_width;
        let row_step = self.g.stride * self.g.row_step();
        assert_taps_inside(self.g, self.padded, self.taps, self.rows);
        assert!(self.rows * width <= self.gradient.len(), "gradient rows");
        let whole = width - width % LANES;
        let tiles = self.taps.chunks(TILE_TAPS);
        for (taps, found) in tiles.zip(self.sums.chunks_mut(TILE_TAPS)) {
            // Beyond the last tap, it is repeated; those sums are dropped.
            let mut places = [0; TILE_TAPS];
            for t in 0..TILE_TAPS {
                places[t] = taps[t.min(taps.len() - 1)];
            }
            let mut sums = [[simd.splat_f32s(0.0); N]; TILE_TAPS];
            for t in 0..TILE_TAPS.min(found.len()) {
                for n in 0..N {
                    // SAFETY: vector n < N of 16 lanes.
                    sums[t][n] = unsafe { load::<S>(&found[t], n * S::F32_LANES) };
                }
            }
            for y in 0..self.rows {
                let (row, image) = (y * width, y * row_step);
                for x in (0..whole).step_by(LANES) {
                    for n in 0..N {
                        let x = x + n * S::F32_LANES;
                        // SAFETY: a vector that ends within row y < rows of `gradient`, whose
                        // length is asserted above.
                        let factor = unsafe { load::<S>(self.gradient, row + x) };
                        for t in 0..TILE_TAPS {
                            // SAFETY: row y < rows and column x < width at a tap: a vector from
                            // there lies in `padded`, asserted above.
                            let value = unsafe { load::<S>(self.padded, places[t] + image + x) };
                            sums[t][n] = simd.mul_add_f32s(factor, value, sums[t][n]);
                        }
                    }
                }
                if whole == width {
                    continue;
                }
                for n in 0..N {
                    let x = (whole + n * S::F32_LANES).min(width);
                    let tail = Tail::new(simd, width - x);
                    // SAFETY: the lanes from x to the end of row y < rows, as above.
                    let factor = unsafe { tail.load(simd, self.gradient, row + x) };
                    for t in 0..TILE_TAPS {
                        // SAFETY: the same lanes at a tap, as above.
                        let value = unsafe { tail.load(simd, self.padded, places[t] + image + x) };
                        sums[t][n] = simd.mul_add_f32s(factor, value, sums[t][n]);
                    }
                }
            }
            for t in 0..TILE_TAPS.min(found.len()) {
                for n in 0..N {
                    // SAFETY: vector n < N of 16 lanes.
                    unsafe { store::<S>(&mut found[t], n * S::F32_LANES, sums[t][n]) };
                }
            }
        }
    }
}

for_each_cpu! {
    /// The transpose of the convolution: `padded += weight · plane`, shifted by each tap.
    fn scatter(g: &Geometry, plane: &[f32], padded: &mut [f32], weight: &[f32], taps: &[usize]) {
        for (y, row) in plane.chunks_exact(g.output_width).enumerate() {
            let padded = &mut padded[g.pixel_offset(y * g.output_width)..];
            for (weight, tap) in weight.iter().zip(taps) {
                for (sum, value) in padded[*tap..].iter_mut().zip(row) {
                    *sum = weight.mul_add(*value, *sum);
                }
            }
        }
    }
}
