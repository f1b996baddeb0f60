//! The gradient of the weight of a 1 × 1 convolution of large planes: the product of each plane of
//! the image with each of the gradient. What there is less of is copied, a band of pixels ahead; what
//! there is more of is read as it lies, a few planes at a time, so that they do not push each other
//! out of the cache.
//!
//! Every sum keeps 16 lanes over all pixels, whatever the vectors' width, so the results do not
//! depend on it. Samples are added in their order.

#![allow(
    clippy::manual_memcpy,
    clippy::needless_range_loop,
    reason = "iterators over arrays of vectors are not always inlined, and then compiled for a smaller machine"
)]

use super::geometry::Geometry;
use super::turn;
use super::vector::{load, pin, prefetch_far, store, unrolled};
use crate::buffer;
use crate::math::{LANES, add_assign};
use crate::scratch;
use crate::simd;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::ops::Range;

/// Vectors of a band: six planes of so many fill half of the first-level cache.
const BAND: usize = 64;
/// From one copied plane to the next: an odd number of lines, which spreads them over the cache.
const STEP: usize = (BAND + 1) * LANES;
/// Sums of planes beyond the last of each kind, at most, that fill up tiles.
const SPARE: usize = 5;
/// Planes worth handing to another thread.
const ROWS: usize = 6;
/// Pixels of a plane for which this is the better way.
const LARGE_PLANE: usize = 4096;
/// Sums beyond this many the library adds as fast.
const MOST_WEIGHTS: usize = 4096;

/// Whether this is the better way for this convolution.
pub(super) fn fits(g: &Geometry) -> bool {
    // Fewer planes than that would be read for too few products.
    let few = g.outputs.min(g.channels) >= LANES / 2 && g.outputs * g.channels <= MOST_WEIGHTS;
    let large = g.is_pointwise() && g.groups == 1 && g.pixels() >= LARGE_PLANE;
    few && large
}

pub(super) fn weight_gradient(g: &Geometry, input: &[f32], gradient: &[f32]) -> Vec<f32> {
    let turned = g.channels > g.outputs;
    let (many, few) = if turned {
        (input, gradient)
    } else {
        (gradient, input)
    };
    let pixels = g.pixels();
    let planes = [g.outputs, g.channels];
    let (rows, columns) = (planes[0].max(planes[1]), planes[0].min(planes[1]));
    let tasks = rayon::current_num_threads().div_ceil(g.batch);
    let split = rows.div_ceil(tasks).next_multiple_of(ROWS);
    let mut parts = buffer::any(g.batch * rows * columns);
    parts
        .par_chunks_exact_mut(rows * columns)
        .zip(many.par_chunks_exact(rows * pixels))
        .zip(few.par_chunks_exact(columns * pixels))
        .for_each(|((part, many), few)| {
            part.par_chunks_mut(split * columns)
                .zip(many.par_chunks(split * pixels))
                .for_each(|(part, many)| one(pixels, many, few, part));
        });
    let mut found = buffer::any(rows * columns);
    let (first, others) = parts.split_at_mut(rows * columns);
    for part in others.chunks_exact(rows * columns) {
        add_assign(first, part);
    }
    for (row, sums) in first.chunks_exact(columns).enumerate() {
        if turned {
            for (value, sum) in found[row..].iter_mut().step_by(rows).zip(sums) {
                *value = *sum;
            }
        } else {
            found[row * columns..][..columns].copy_from_slice(sums);
        }
    }
    buffer::recycle(parts);
    found
}

/// Writes the products of one sample: for each plane of `many` those with the planes of `few`.
fn one(pixels: usize, many: &[f32], few: &[f32], found: &mut [f32]) {
    let (rows, columns) = (many.len() / pixels, few.len() / pixels);
    let copy = columns * STEP;
    let sums = (rows + SPARE) * (columns + SPARE) * LANES;
    let lengths = [copy, copy, sums, rows * LANES];
    scratch::with(lengths, |[mut here, mut next, sums, rest]| {
        sums.fill(0.0);
        let sums = sums.as_chunks_mut::<LANES>().0;
        // Planes are read in whole cache lines. Whichever lane a pixel falls to then, the same sums of
        // lanes are added to each other at the end.
        let begin = match many.as_ptr().align_offset(LANES * size_of::<f32>()) {
            offset if offset < LANES => offset,
            _ => 0,
        };
        let vectors = (pixels - begin) / LANES;
        let source = |first: usize| Source {
            few,
            pixels,
            first: begin + first * LANES,
            vectors: BAND.min(vectors - first),
        };
        let mut edge = |sums: &mut [[f32; LANES]], copy: &mut [f32], part: Range<usize>, lane| {
            if part.is_empty() {
                return;
            }
            for (planes, step, copy) in [(many, LANES, &mut *rest), (few, STEP, &mut *copy)] {
                let copies = copy.chunks_exact_mut(step);
                for (copy, plane) in copies.zip(planes.chunks_exact(pixels)) {
                    copy[..LANES].fill(0.0);
                    copy[lane..][..part.len()].copy_from_slice(&plane[part.clone()]);
                }
            }
            simd::dispatch(Product {
                many: rest,
                pixels: LANES,
                first: 0,
                vectors: 1,
                few: copy,
                columns,
                sums,
                source: source(vectors),
                next: &mut [],
            });
        };
        edge(sums, here, 0..begin, LANES - begin);
        source(0).copy(0, here);
        for first in (0..vectors).step_by(BAND) {
            let vectors = BAND.min(vectors - first);
            simd::dispatch(Product {
                many,
                pixels,
                first: begin + first * LANES,
                vectors,
                few: here,
                columns,
                sums: &mut *sums,
                source: source(first + vectors),
                next: &mut *next,
            });
            (here, next) = (next, here);
        }
        edge(sums, here, begin + vectors * LANES..pixels, 0);
        simd::dispatch(Totals {
            sums,
            columns,
            found,
        });
    });
}

struct Totals<'a> {
    sums: &'a [[f32; LANES]],
    columns: usize,
    found: &'a mut [f32],
}

impl WithSimd for Totals<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let rows = self.found.chunks_exact_mut(self.columns);
        for (found, sums) in rows.zip(self.sums.chunks_exact(self.columns + SPARE)) {
            let sums = sums[..self.columns].chunks(LANES);
            for (found, sums) in found.chunks_mut(LANES).zip(sums) {
                let totals = turn::totals::<S>(sums);
                found.copy_from_slice(&totals[..found.len()]);
            }
        }
    }
}

/// A band of the planes that are copied.
#[derive(Clone, Copy)]
struct Source<'a> {
    few: &'a [f32],
    pixels: usize,
    first: usize,
    vectors: usize,
}

impl Source<'_> {
    /// Copies the planes from `plane`.
    fn copy(&self, plane: usize, to: &mut [f32]) {
        let copies = to.chunks_exact_mut(STEP).skip(plane);
        for (copy, plane) in copies.zip(self.few.chunks_exact(self.pixels).skip(plane)) {
            let length = self.vectors * LANES;
            copy[..length].copy_from_slice(&plane[self.first..][..length]);
        }
    }
}

/// Adds the products of one band to the sums of each pair of planes, `columns` of them for each of
/// `many`.
struct Product<'a> {
    many: &'a [f32],
    /// From one of these planes to the next.
    pixels: usize,
    first: usize,
    vectors: usize,
    /// The copy, [`STEP`] apart.
    few: &'a [f32],
    columns: usize,
    sums: &'a mut [[f32; LANES]],
    /// What is copied meanwhile, and where to.
    source: Source<'a>,
    next: &'a mut [f32],
}

impl WithSimd for Product<'_> {
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

impl Product<'_> {
    /// Tiles of C copied planes and M of the many; N vectors are 16 lanes.
    #[inline(always)]
    fn tiles<S: Simd, const C: usize, const M: usize, const N: usize>(&mut self, simd: S) {
        let step = self.columns + SPARE;
        let rows = self.sums.len() / step - SPARE;
        let length = self.vectors * LANES;
        let last = (rows - 1) * self.pixels + self.first + length;
        assert!(last <= self.many.len(), "vectors of every plane");
        let last = (self.columns - 1) * STEP + length;
        assert!(last <= self.few.len(), "vectors of every copy");
        let tiles = [rows.div_ceil(M), self.columns.div_ceil(C)];
        // Every tile copies a part of a plane for the next band, as many for each plane, and asks for one
        // of the next planes.
        let parts = (tiles[0] * tiles[1] / self.columns).max(1);
        let part = self.source.vectors.div_ceil(parts);
        for index in 0..tiles[0] * tiles[1] {
            let [row, column] = [index / tiles[1] * M, index % tiles[1] * C];
            let (plane, begin) = (index / parts, index % parts * part);
            let copied = if plane < self.columns {
                part.min(self.source.vectors.saturating_sub(begin))
            } else {
                0
            };
            let begin = begin * LANES;
            let from = plane * self.source.pixels + self.source.first + begin;
            let to = plane * STEP + begin;
            // Of the first planes' next band, after the last.
            let (next, ahead) = if row + M < rows {
                (row + M, self.first)
            } else {
                (0, self.first + length)
            };
            let ahead = (next + index % tiles[1]) * self.pixels + ahead;
            // Beyond the last plane, repeat it; those sums are dropped below.
            let mut many = [0; M];
            for m in 0..M {
                many[m] = (row + m).min(rows - 1) * self.pixels + self.first;
            }
            let mut few = [0; C];
            for c in 0..C {
                few[c] = (column + c).min(self.columns - 1) * STEP;
            }
            let mut sums = [[[simd.splat_f32s(0.0); N]; C]; M];
            let kept = &mut self.sums[row * step + column..][..(M - 1) * step + C];
            unrolled!(m in M => {
                for c in 0..C {
                    let kept = S::as_simd_f32s(&kept[m * step + c]).0;
                    for n in 0..N {
                        sums[m][c][n] = kept[n];
                    }
                }
            });
            for vector in 0..self.vectors {
                let at = vector * LANES;
                prefetch_far(self.many, ahead + at);
                if vector < copied {
                    let values = &self.source.few[from + at..][..LANES];
                    let copy = &mut self.next[to + at..][..LANES];
                    for n in 0..N {
                        let lane = n * S::F32_LANES;
                        // SAFETY: a vector of 16 elements.
                        unsafe { store::<S>(copy, lane, load::<S>(values, lane)) };
                    }
                }
                for n in 0..N {
                    let at = at + n * S::F32_LANES;
                    let mut factors = [simd.splat_f32s(0.0); C];
                    for c in 0..C {
                        // SAFETY: a vector of the copy of a plane, as asserted above.
                        factors[c] = unsafe { load::<S>(self.few, few[c] + at) };
                    }
                    unrolled!(m in M => {
                        // SAFETY: a vector of a plane, as asserted above.
                        let value = unsafe { load::<S>(self.many, many[m] + at) };
                        for c in 0..C {
                            sums[m][c][n] = simd.mul_add_f32s(factors[c], value, sums[m][c][n]);
                            pin::<S>(&mut sums[m][c][n]);
                        }
                    });
                }
            }
            unrolled!(m in M => {
                for c in 0..C {
                    let kept = S::as_mut_simd_f32s(&mut kept[m * step + c]).0;
                    for n in 0..N {
                        kept[n] = sums[m][c][n];
                    }
                }
            });
        }
        let done = tiles[0] * tiles[1] / parts;
        self.source.copy(done, self.next);
    }
}
