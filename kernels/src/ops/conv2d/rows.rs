//! Convolution row by row, where few taps make a sum: of the padded image only the rows that one row
//! of the output sees exist, in the first-level cache or not far from it. A tile reads them in place,
//! and asks meanwhile for what the next row sees and for the lines of the output that are written
//! next: with so few products to a pixel, waiting for memory would take as long as multiplying.
//!
//! Every sum runs over its taps in order with one fused multiply-add each, so the results do not
//! depend on the width of the vectors, nor on how outputs are grouped.

#![allow(
    clippy::needless_range_loop,
    reason = "iterators over arrays of vectors are not always inlined, and then compiled for a smaller machine"
)]

use super::geometry::Geometry;
use super::lines::Lines;
use super::vector::{Tail, load, prefetch, store, unrolled};
use super::window::Window;
use crate::math::LANES;
use crate::scratch;
use crate::simd;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Taps of a sum, at most: beyond that, panels of an image copied once are the better way.
const MOST_TAPS: usize = 192;
/// Outputs that fill half of the largest tile: below that, smaller ones are the better way.
const FEW_OUTPUTS: usize = OUTPUTS / 2;
/// Pixels in a row of the output for which this is the better way.
const LONG: usize = 64;
/// Elements of the rows that one row of the output sees: they stay in the second-level cache.
const MOST_SEEN: usize = 64 * 1024;
/// Elements of those, with what fills them up, that stay in the first-level cache.
pub(super) const NEAR: usize = 8 * 1024;
/// Outputs of the largest tile, and those that are worth handing to another thread.
const OUTPUTS: usize = 8;
/// Tiles between asking for a line of the output and writing it.
const DISTANCE: usize = 2;

/// Whether this is the better way for this convolution.
pub(super) fn fits(g: &Geometry) -> bool {
    let seen = g.channels * g.kernel_height * g.row_step();
    g.groups == 1
        && !g.is_pointwise()
        && matches!(g.stride, 1 | 2)
        && g.group_taps() <= MOST_TAPS
        && g.outputs >= FEW_OUTPUTS
        && g.output_width >= LONG
        && seen <= MOST_SEEN
}

/// Writes the convolution of every image. `copy(output, terms)` fills in the weights of one output,
/// which meet the kernel's taps in the order of `tap(place)`.
pub(super) fn convolve_all(
    g: &Geometry,
    input: &[f32],
    copy: &(impl Fn(usize, &mut [f32]) + Sync),
    tap: impl Fn(usize) -> usize,
    bias: Option<&[f32]>,
    output: &mut [f32],
) {
    let (pixels, taps) = (g.output_pixels(), g.group_taps());
    let order: Vec<usize> = (0..taps).map(tap).collect();
    let lines = Lines::new(g);
    let tasks = rayon::current_num_threads().div_ceil(g.batch);
    let split = g.outputs.div_ceil(tasks).next_multiple_of(OUTPUTS);
    output
        .par_chunks_exact_mut(g.outputs * pixels)
        .zip(input.par_chunks_exact(g.channels * g.pixels()))
        .for_each(|(output, image)| {
            let parts = output.par_chunks_mut(split * pixels).enumerate();
            parts.for_each(|(index, output)| {
                let (first, outputs) = (index * split, output.len() / pixels);
                // A tile reads beyond the last output.
                let step = outputs + OUTPUTS;
                let lengths = [Window::room(g, &lines, 1), (1 + taps) * step, taps];
                scratch::with(lengths, |[memory, factors, terms]| {
                    factors.fill(0.0);
                    let (starts, factors) = factors.split_at_mut(step);
                    if let Some(bias) = bias {
                        starts[..outputs].copy_from_slice(&bias[first..first + outputs]);
                    }
                    for index in 0..outputs {
                        copy(first + index, terms);
                        for (factors, term) in factors.chunks_exact_mut(step).zip(&*terms) {
                            factors[index] = *term;
                        }
                    }
                    simd::dispatch(Rows {
                        g,
                        window: Window::new(g, &lines, 1, &order, image, memory),
                        starts,
                        factors,
                        outputs,
                        output,
                    });
                });
            });
        });
}

/// The convolution of one image, for some outputs.
struct Rows<'a> {
    g: &'a Geometry,
    window: Window<'a>,
    /// What the sums of each output begin with.
    starts: &'a [f32],
    /// [tap, output], as many as `starts` has.
    factors: &'a [f32],
    outputs: usize,
    output: &'a mut [f32],
}

impl WithSimd for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            // What is near may be loaded often, and is written in longer runs then.
            16 if self.window.memory().len() <= NEAR => self.rows::<S, 4, 4>(simd),
            16 => self.rows::<S, OUTPUTS, 2>(simd),
            8 => self.rows::<S, 6, 2>(simd),
            _ => self.rows::<S, 4, 4>(simd),
        }
    }
}

impl Rows<'_> {
    /// In tiles of R outputs and N vectors.
    #[inline(always)]
    fn rows<S: Simd, const R: usize, const N: usize>(mut self, simd: S) {
        let g = self.g;
        let (width, columns) = (g.output_width, N * S::F32_LANES);
        let tiles = self.outputs.div_ceil(R) * width.div_ceil(columns);
        let mut places = vec![0; self.factors.len() / self.starts.len()];
        assert!(
            places.len() * self.starts.len() <= self.factors.len()
                && self.outputs + R <= self.starts.len() + 1,
            "factors of whole tiles"
        );
        for y in 0..g.output_height {
            self.window.move_to(simd, y..y + 1, &mut places);
            let mut ahead = self.window.ahead(1, tiles);
            for first in (0..self.outputs).step_by(R) {
                let mut x = 0;
                while x < width {
                    ahead.ask();
                    // SAFETY: a tile that begins within the outputs and the width, whose columns
                    // end before the next multiple of 16 does: the window has those. Its factors
                    // exist: asserted above.
                    unsafe {
                        if x + columns <= width {
                            self.tile::<S, R, N>(simd, &places, y, first, x);
                            x += columns;
                        } else {
                            self.tile::<S, R, 1>(simd, &places, y, first, x);
                            x += S::F32_LANES;
                        }
                    }
                }
            }
        }
    }

    /// Writes R outputs from `first` and N vectors of row `y` from column `x`.
    ///
    /// # Safety
    /// `first` is one of the outputs, and R factors from there exist for each tap; N vectors from
    /// `x` exist at each place, and `x` lies in the row.
    #[inline(always)]
    unsafe fn tile<S: Simd, const R: usize, const N: usize>(
        &mut self,
        simd: S,
        places: &[usize],
        y: usize,
        first: usize,
        x: usize,
    ) {
        let (width, pixels) = (self.g.output_width, self.g.output_pixels());
        let columns = N * S::F32_LANES;
        let at = first * pixels + y * width + x;
        let mut sums = [[simd.splat_f32s(0.0); N]; R];
        for r in 0..R {
            sums[r] = [simd.splat_f32s(self.starts[first + r]); N];
        }
        // One line of the output at a time: more at once would keep others from coming.
        let lines = columns.div_ceil(LANES);
        let (mut factors, step) = (first, self.starts.len());
        let (asking, rest) = places.split_at(places.len().min(R * lines));
        for (k, place) in asking.iter().enumerate() {
            let line = k / lines * pixels + k % lines * LANES;
            prefetch(self.output, at + DISTANCE * columns + line);
            // SAFETY: the caller's promise.
            unsafe { self.add::<S, R, N>(simd, factors, place + x, &mut sums) };
            factors += step;
        }
        for place in rest {
            // SAFETY: the caller's promise.
            unsafe { self.add::<S, R, N>(simd, factors, place + x, &mut sums) };
            factors += step;
        }
        let rows = R.min(self.outputs - first);
        if rows == R && x + columns <= width {
            // Spelled out, so that the sums stay in registers.
            let output = &mut self.output[at..][..(R - 1) * pixels + columns];
            unrolled!(r in R => {
                for n in 0..N {
                    // SAFETY: N vectors from r rows further on, r < R: the slice ends with the last.
                    unsafe { store::<S>(output, r * pixels + n * S::F32_LANES, sums[r][n]) };
                }
            });
            return;
        }
        for r in 0..rows {
            let output = &mut self.output[at + r * pixels..][..columns.min(width - x)];
            for n in 0..N {
                let from = (n * S::F32_LANES).min(output.len());
                let tail = Tail::new(simd, output.len() - from);
                // SAFETY: the lanes from there, as far as the slice reaches.
                unsafe { tail.store(simd, output, from, sums[r][n]) };
            }
        }
    }

    /// Adds the products of R factors at `from` and N vectors at `place`.
    ///
    /// # Safety
    /// Both exist.
    #[inline(always)]
    unsafe fn add<S: Simd, const R: usize, const N: usize>(
        &self,
        simd: S,
        from: usize,
        place: usize,
        sums: &mut [[S::f32s; N]; R],
    ) {
        let mut values = [simd.splat_f32s(0.0); N];
        for n in 0..N {
            // SAFETY: the caller's promise.
            values[n] = unsafe { load::<S>(self.window.memory(), place + n * S::F32_LANES) };
        }
        for r in 0..R {
            debug_assert!(from + r < self.factors.len());
            // SAFETY: the caller's promise.
            let factor = simd.splat_f32s(unsafe { *self.factors.get_unchecked(from + r) });
            for n in 0..N {
                sums[r][n] = simd.mul_add_f32s(factor, values[n], sums[r][n]);
            }
        }
    }
}
