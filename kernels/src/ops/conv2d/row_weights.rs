//! The gradient of the weight where what a row of the output sees of the image stays in the first-level
//! cache: for each output and tap the product of rows as they lie, two or so at a time.
//!
//! Every sum keeps 16 lanes over some rows, whatever the vectors' width, so the results do not
//! depend on it.

#![allow(
    clippy::needless_range_loop,
    reason = "iterators over arrays of vectors are not always inlined, and then compiled for a smaller machine"
)]

use super::geometry::Geometry;
use super::lines::Lines;
use super::rows;
use super::turn;
use super::vector::{Tail, load, prefetch_far, store, unrolled};
use super::window::Window;
use crate::buffer;
use crate::math::{LANES, add_assign};
use crate::scratch;
use crate::simd;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Pixels whose products are summed up in lanes: enough to repay adding those, and so few that
/// nothing is lost in large sums.
const TOGETHER: usize = 8 * 1024;
/// Pixels of the rows that meet together.
const BAND: usize = 512;
/// Taps that repay fetching their sums for every few rows: of three channels.
const FEW_TAPS: usize = 27;
/// Pixels in a row of the output that do.
const LONG: usize = 128;
/// Outputs of a tile.
const OUTPUTS: usize = 3;
/// Taps of the largest tile.
const TAPS: usize = 9;

/// Whether this is the better way for this convolution.
pub(super) fn fits(g: &Geometry) -> bool {
    let near = || Window::room(g, &Lines::new(g), 1) <= rows::NEAR;
    rows::fits(g) && g.group_taps() <= FEW_TAPS && g.output_width >= LONG && near()
}

pub(super) fn weight_gradient(g: &Geometry, input: &[f32], gradient: &[f32]) -> Vec<f32> {
    let (taps, pixels) = (g.group_taps(), g.output_pixels());
    let weights = g.outputs * taps;
    let order: Vec<usize> = (0..taps.next_multiple_of(TAPS))
        .map(|tap| tap.min(taps - 1))
        .collect();
    let lines = Lines::new(g);
    let band = (BAND / g.output_width).clamp(1, g.output_height);
    let tasks = rayon::current_num_threads().div_ceil(g.batch);
    let split = g.outputs.div_ceil(tasks).next_multiple_of(OUTPUTS);
    let mut parts = buffer::zeros(g.batch * weights);
    parts
        .par_chunks_exact_mut(weights)
        .zip(input.par_chunks_exact(g.channels * g.pixels()))
        .zip(gradient.par_chunks_exact(g.outputs * pixels))
        .for_each(|((part, image), gradient)| {
            part.par_chunks_mut(split * taps)
                .zip(gradient.par_chunks(split * pixels))
                .for_each(|(found, gradient)| {
                    let outputs = gradient.len() / pixels;
                    let tiles = outputs.div_ceil(OUTPUTS) * taps.div_ceil(TAPS);
                    let sums = tiles * OUTPUTS * TAPS * LANES;
                    scratch::with([Window::room(g, &lines, band), sums], |[memory, sums]| {
                        sums.fill(0.0);
                        simd::dispatch(Product {
                            g,
                            window: Window::new(g, &lines, band, &order, image, memory),
                            gradient,
                            outputs,
                            band,
                            sums: sums.as_chunks_mut().0,
                            found,
                        });
                    });
                });
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

/// Adds Σ over rows and columns of gradient · image shifted by the tap, for each output and tap, to
/// `found`.
struct Product<'a> {
    g: &'a Geometry,
    window: Window<'a>,
    gradient: &'a [f32],
    outputs: usize,
    /// Rows that meet together.
    band: usize,
    /// The lanes of each sum, zero: tile by tile, [output, tap] of each.
    sums: &'a mut [[f32; LANES]],
    found: &'a mut [f32],
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            // As many sums as there are registers for.
            8 => self.rows::<S, 3>(simd),
            _ => self.rows::<S, TAPS>(simd),
        }
    }
}

impl Product<'_> {
    /// In tiles of T taps.
    #[inline(always)]
    fn rows<S: Simd, const T: usize>(mut self, simd: S) {
        const R: usize = OUTPUTS;
        let g = self.g;
        let (count, width, pixels) = (g.group_taps(), g.output_width, g.output_pixels());
        let tap_tiles = count.div_ceil(T);
        let tiles = self.outputs.div_ceil(R) * tap_tiles;
        // Beyond the last output or tap, it is repeated; those sums are dropped in the end.
        let stored = count.next_multiple_of(TAPS);
        let mut places = vec![0; self.band * stored];
        assert!(
            self.outputs * pixels <= self.gradient.len(),
            "all gradients"
        );
        let mut unsettled = 0;
        for y in (0..g.output_height).step_by(self.band) {
            let band = y..g.output_height.min(y + self.band);
            self.window.move_to(simd, band.clone(), &mut places);
            let mut ahead = self.window.ahead(self.band, tiles);
            for index in 0..tiles {
                ahead.ask();
                let (output, tap) = (index / tap_tiles * R, index % tap_tiles);
                let mut rows = [0; R];
                for r in 0..R {
                    rows[r] = (output + r).min(self.outputs - 1) * pixels + y * width;
                }
                // Rows of the outputs that come next, where there are some.
                let next = if output + R < self.outputs {
                    rows[tap % R] + R * pixels
                } else {
                    tap % R * pixels + band.end * width
                };
                let next = if tap < R { next } else { rows[0] };
                // SAFETY: rows of the gradient, which has all of its outputs; places of the window.
                unsafe {
                    for part in (0..LANES).step_by(S::F32_LANES) {
                        let places = places.chunks_exact(stored).take(band.len());
                        let places = places.map(|p| p[tap * T..].first_chunk().expect("tile"));
                        self.tile::<S, R, T>(simd, &rows, places, next, index * R * T, part);
                    }
                }
            }
            unsettled += band.len() * width;
            if unsettled >= TOGETHER || band.end == g.output_height {
                self.settle::<S, R, T>(tap_tiles);
                unsettled = 0;
            }
        }
    }

    /// Adds the lanes of all sums, which are zero then.
    #[inline(always)]
    fn settle<S: Simd, const R: usize, const T: usize>(&mut self, tap_tiles: usize) {
        let count = self.g.group_taps();
        for (index, sums) in self.sums.chunks_exact_mut(R * T).enumerate() {
            let (output, tap) = (index / tap_tiles * R, index % tap_tiles * T);
            if output >= self.outputs {
                break;
            }
            for (first, lanes) in (0..).step_by(LANES).zip(sums.chunks_mut(LANES)) {
                let totals = turn::totals::<S>(lanes);
                for (at, total) in (first..R * T).zip(totals) {
                    let (output, tap) = (output + at / T, tap + at % T);
                    if output < self.outputs && tap < count {
                        self.found[output * count + tap] += total;
                    }
                }
                lanes.fill([0.0; LANES]);
            }
        }
    }

    /// Adds the products of some rows to the lanes from `part` of the sums from `first`, and asks for as
    /// many rows of the gradient at `next`.
    ///
    /// # Safety
    /// As many rows of the gradient as `places` has items begin at each of `rows`, and what a row sees
    /// at each place.
    #[inline(always)]
    unsafe fn tile<'p, S: Simd, const R: usize, const T: usize>(
        &mut self,
        simd: S,
        rows: &[usize; R],
        places: impl Iterator<Item = &'p [usize; T]>,
        mut next: usize,
        first: usize,
        part: usize,
    ) {
        let width = self.g.output_width;
        let whole = width - width % LANES;
        let image = self.window.memory();
        let lanes = &mut self.sums[first..][..R * T];
        let mut sums = [[simd.splat_f32s(0.0); R]; T];
        unrolled!(t in T => {
            for r in 0..R {
                // SAFETY: a vector from `part` ends within the 16 lanes.
                sums[t][r] = unsafe { load::<S>(&lanes[r * T + t], part) };
            }
        });
        for (y, places) in places.enumerate() {
            for x in (part..whole + part).step_by(LANES) {
                prefetch_far(self.gradient, next + x);
                let mut factors = [simd.splat_f32s(0.0); R];
                for r in 0..R {
                    // SAFETY: a vector that ends within a row.
                    factors[r] = unsafe { load::<S>(self.gradient, rows[r] + y * width + x) };
                }
                unrolled!(t in T => {
                    // SAFETY: a vector that ends within what a row sees.
                    let value = unsafe { load::<S>(image, places[t] + x) };
                    for r in 0..R {
                        sums[t][r] = simd.mul_add_f32s(factors[r], value, sums[t][r]);
                    }
                });
            }
            let x = (whole + part).min(width);
            if x < width {
                let tail = Tail::new(simd, width - x);
                let mut factors = [simd.splat_f32s(0.0); R];
                for r in 0..R {
                    // SAFETY: the rest of a row, or a vector of it.
                    factors[r] = unsafe { tail.load(simd, self.gradient, rows[r] + y * width + x) };
                }
                unrolled!(t in T => {
                    // SAFETY: the same of what the row sees.
                    let value = unsafe { tail.load(simd, image, places[t] + x) };
                    for r in 0..R {
                        sums[t][r] = simd.mul_add_f32s(factors[r], value, sums[t][r]);
                    }
                });
            }
            next += width;
        }
        unrolled!(t in T => {
            for r in 0..R {
                // SAFETY: as above.
                unsafe { store::<S>(&mut lanes[r * T + t], part, sums[t][r]) };
            }
        });
    }
}
