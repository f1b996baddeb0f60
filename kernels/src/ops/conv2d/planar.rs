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
use super::turn;
use super::vector::{Tail, load, prefetch_far};
use super::weights;
use crate::buffer;
use crate::math::{LANES, add_assign};
use crate::scratch;
use crate::simd;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::ops::Range;

/// Pixels of a plane whose products are summed up in lanes: enough to repay adding those, and so
/// few that four rows of gradients stay in the first-level cache.
const TOGETHER: usize = 1024;
/// Elements of a band of image and gradient, two of which stay in the second-level cache.
const BAND: usize = 100 * 1024;
/// Pixels in a row of the output for which this is the better way.
const LONG: usize = 64;
/// Weights that do not repay turning the image around.
const FEW_WEIGHTS: usize = 4096;
/// Taps for which gradients are read too few times to repay a copy.
const FEW_TAPS: usize = 64;
/// Outputs that are worth handing to another thread.
const ROWS: usize = 4;
/// Whether this is the better way for this convolution.
pub(super) fn fits(g: &Geometry) -> bool {
    let few = g.groups == 1 && g.outputs * g.group_taps() <= FEW_WEIGHTS;
    few && g.output_width >= LONG && !(g.is_pointwise() && weights::fits(g))
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
    let bands = Bands::new(g, image, gradient);
    let mut taps = vec![0; g.group_taps()];
    g.tap_offsets_from(0, bands.plane_step, &mut taps);
    scratch::with(
        bands.room(),
        |[image_here, gradient_here, image_next, gradient_next]| {
            let (mut here, mut next) = ((image_here, gradient_here), (image_next, gradient_next));
            for plane in 0..bands.planes() {
                bands.copy(0, plane, &mut here);
            }
            for first in (0..g.output_height).step_by(bands.rows) {
                let rows = bands.rows.min(g.output_height - first);
                let after = first + rows;
                let planes = if after < g.output_height {
                    bands.planes()
                } else {
                    0
                };
                simd::dispatch(Product {
                    bands: &bands,
                    rows,
                    image: here.0,
                    taps: &taps,
                    gradient: if bands.compact {
                        &*here.1
                    } else {
                        &gradient[first * g.output_width..]
                    },
                    pixels: bands.gradient_step(),
                    found: &mut *found,
                    after,
                    planes,
                    next: &mut next,
                });
                (here, next) = (next, here);
            }
        },
    );
}

/// Bands of rows of the output, and copies of what they see: compact, so that planes do not drive each
/// other from the cache, and from the start of a cache line.
struct Bands<'a> {
    g: &'a Geometry,
    image: &'a [f32],
    gradient: &'a [f32],
    outputs: usize,
    /// Whether gradients are copied too: not where they are read a few times only.
    compact: bool,
    /// Outputs whose gradients are.
    copied: usize,
    rows: usize,
    /// Rows whose products are summed up in lanes.
    together: usize,
    /// From one channel of the padded image to the next.
    plane_step: usize,
}

/// Planes of the image and of the gradient.
type Planes<'a> = (&'a mut [f32], &'a mut [f32]);

impl<'a> Bands<'a> {
    fn new(g: &'a Geometry, image: &'a [f32], gradient: &'a [f32]) -> Self {
        // The same for all threads.
        let compact = g.group_taps() > FEW_TAPS;
        let outputs = if compact { g.outputs } else { 0 };
        let row = g.channels * g.stride * g.row_step() + outputs * g.output_width;
        let together = (TOGETHER / g.output_width).max(1);
        let together = together.min(g.output_height);
        let rows = (BAND / row).clamp(together, g.output_height);
        let rows = rows - rows % together;
        let plane_step = ((rows - 1) * g.stride + g.kernel_height) * g.row_step();
        Self {
            g,
            image,
            gradient,
            outputs: gradient.len() / g.output_pixels(),
            compact,
            copied: if compact {
                gradient.len() / g.output_pixels()
            } else {
                0
            },
            rows,
            together,
            plane_step,
        }
    }

    fn planes(&self) -> usize {
        self.copied + self.g.channels
    }

    /// Lengths of two copies.
    fn room(&self) -> [usize; 4] {
        let image = self.g.channels * self.plane_step;
        let gradient = if self.compact {
            self.outputs * self.gradient_step()
        } else {
            0
        };
        [image, gradient, image, gradient]
    }

    /// From one output of the gradient to the next.
    fn gradient_step(&self) -> usize {
        if self.compact {
            self.rows * self.g.output_width
        } else {
            self.g.output_pixels()
        }
    }

    /// Copies one plane of the band from row `first`.
    fn copy(&self, first: usize, plane: usize, to: &mut Planes) {
        let g = self.g;
        match plane.checked_sub(self.copied) {
            None => {
                let length = self.rows * g.output_width;
                let from = &self.gradient[plane * g.output_pixels()..][..g.output_pixels()];
                let from = &from[first * g.output_width..];
                let there = length.min(from.len());
                to.1[plane * length..][..there].copy_from_slice(&from[..there]);
            }
            Some(channel) => {
                let from = &self.image[channel * g.pixels()..][..g.pixels()];
                let to = &mut to.0[channel * self.plane_step..][..self.plane_step];
                g.pad_rows(from, first * g.stride, self.plane_step, to);
            }
        }
    }

    /// Where a plane of the band from row `first` is copied from, about.
    fn source(&self, first: usize, plane: usize) -> (&'a [f32], usize) {
        let g = self.g;
        match plane.checked_sub(self.copied) {
            None => {
                let at = plane * g.output_pixels() + first * g.output_width;
                (self.gradient, at)
            }
            Some(channel) => {
                // The band before saw the rows above.
                let row = first * g.stride + g.kernel_height - g.stride - g.top();
                (self.image, channel * g.pixels() + row * g.width)
            }
        }
    }
}

/// Adds Σ over rows and columns of gradient · image shifted by the tap, for each output and tap.
struct Product<'a, 'b> {
    bands: &'a Bands<'a>,
    rows: usize,
    image: &'a [f32],
    taps: &'a [usize],
    gradient: &'a [f32],
    /// From one output to the next.
    pixels: usize,
    found: &'a mut [f32],
    /// The first row of the next band, of which so many planes are copied meanwhile.
    after: usize,
    planes: usize,
    next: &'a mut Planes<'b>,
}

impl WithSimd for Product<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        match S::F32_LANES {
            16 => self.tiles::<S, 4, 6, 1>(simd),
            8 => self.tiles::<S, 3, 2, 2>(simd),
            4 => self.tiles::<S, 2, 2, 4>(simd),
            _ => self.tiles::<S, 1, 1, 16>(simd),
        }
    }
}

impl Product<'_, '_> {
    /// Tiles of R outputs and T taps; N vectors are 16 lanes.
    #[inline(always)]
    fn tiles<S: Simd, const R: usize, const T: usize, const N: usize>(&mut self, simd: S) {
        let Bands {
            g,
            together,
            outputs,
            ..
        } = *self.bands;
        let count = self.taps.len();
        let pixels = self.pixels;
        let row_step = g.stride * g.row_step();
        let seen = (self.rows - 1) * row_step + g.output_width;
        let farthest = self.taps.iter().max().copied().unwrap_or(0);
        assert!(farthest + seen <= self.image.len(), "taps within the image");
        let last = (outputs - 1) * pixels + self.rows * g.output_width;
        assert!(last <= self.gradient.len(), "rows within the gradient");
        let tiles = [outputs.div_ceil(R), count.div_ceil(T)];
        let taps_first = self.bands.compact && g.kernel_height * g.kernel_width == 1;
        // Every tile asks for as much of the next band's planes as it takes itself.
        let parts = self.bands.rows.div_ceil(together);
        let mut asked = 0;
        for first in (0..self.rows).step_by(together) {
            let lines = first..self.rows.min(first + together);
            for index in 0..tiles[0] * tiles[1] {
                let [output, tap] = if taps_first {
                    [index % tiles[0] * R, index / tiles[0] * T]
                } else {
                    [index / tiles[1] * R, index % tiles[1] * T]
                };
                // Otherwise for a row of the next outputs, or for nothing new.
                let next = output + R + index % tiles[1] % R;
                let row = if next < outputs { next } else { output };
                let mut ahead = (self.gradient, row * pixels + first * g.output_width);
                if asked < self.planes * parts {
                    let (plane, part) = (asked / parts, asked % parts);
                    if part == 0 && plane > 0 {
                        self.bands.copy(self.after, plane - 1, self.next);
                    }
                    ahead = self.bands.source(self.after, plane);
                    ahead.1 += part * together * g.output_width;
                    asked += 1;
                }
                // Beyond the last output or tap, repeat it; those sums are dropped below.
                let mut rows = [0; R];
                for r in 0..R {
                    rows[r] = (output + r).min(outputs - 1) * pixels;
                }
                let mut places = [0; T];
                for t in 0..T {
                    places[t] = self.taps[(tap + t).min(count - 1)];
                }
                let mut sums = [[[0.0; LANES]; T]; R];
                self.tile::<S, R, T, N>(simd, lines.clone(), ahead, &rows, &places, &mut sums);
                let sums = sums.as_flattened();
                let mut totals = [[0.0; LANES]; 2];
                totals[0] = turn::totals::<S>(&sums[..LANES.min(R * T)]);
                if R * T > LANES {
                    totals[1] = turn::totals::<S>(&sums[LANES..]);
                }
                for r in 0..R.min(outputs - output) {
                    let found = &mut self.found[(output + r) * count + tap..];
                    let totals = totals.as_flattened()[r * T..].iter();
                    for (found, total) in found.iter_mut().zip(totals).take(T.min(count - tap)) {
                        *found += total;
                    }
                }
            }
        }
        for plane in (asked / parts).saturating_sub(1)..self.planes {
            self.bands.copy(self.after, plane, self.next);
        }
    }

    #[inline(always)]
    fn tile<S: Simd, const R: usize, const T: usize, const N: usize>(
        &self,
        simd: S,
        lines: Range<usize>,
        (next, mut ahead): (&[f32], usize),
        rows: &[usize; R],
        places: &[usize; T],
        found: &mut [[[f32; LANES]; T]; R],
    ) {
        let width = self.bands.g.output_width;
        let row_step = self.bands.g.stride * self.bands.g.row_step();
        let whole = width - width % LANES;
        let mut sums = [[[simd.splat_f32s(0.0); N]; T]; R];
        for y in lines {
            let (g, i) = (y * width, y * row_step);
            for x in (0..whole).step_by(LANES) {
                prefetch_far(next, ahead);
                ahead += LANES;
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
                S::as_mut_simd_f32s(&mut found[r][t])
                    .0
                    .copy_from_slice(&sums[r][t]);
            }
        }
    }
}
