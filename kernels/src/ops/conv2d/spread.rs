//! The input gradient of a depthwise convolution with a step of 2. Every second pixel of the
//! padded image meets every second tap, so it is four convolutions of the gradient, one for each
//! remainder of row and column, without a multiplication by zero.
//!
//! Every sum runs over the kernel's columns, and within a column over its rows.

#![allow(
    clippy::needless_range_loop,
    reason = "iterators over arrays of vectors are not always inlined, and then compiled for a smaller machine"
)]

use super::Pad;
use super::geometry::Geometry;
use super::vector::{load, store, unrolled};
use crate::math::LANES;
use crate::simd;
use pulp::{Simd, WithSimd};

/// Rows of a tile, for each remainder of the column.
const ROWS: usize = 8;

/// How the working memory is laid out.
#[derive(Clone, Copy)]
pub(super) struct Spread<'a> {
    g: &'a Geometry,
    /// Zeros to the left of the gradient and above it.
    margin: usize,
    /// From one row of the gradient to the next.
    pitch: usize,
    /// Rows of it, with the zeros.
    rows: usize,
    /// Vectors of 16 that half of a padded row takes.
    half: usize,
}

impl<'a> Spread<'a> {
    pub fn new(g: &'a Geometry) -> Self {
        let margin = (g.kernel_width - 1) / 2;
        let half = g.padded_width().div_ceil(2).next_multiple_of(LANES);
        Self {
            g,
            margin,
            pitch: (margin + half.max(g.output_width)).next_multiple_of(LANES),
            rows: margin + g.padded_height().div_ceil(2).next_multiple_of(ROWS),
            half,
        }
    }

    /// Whether there is a loop for this size.
    pub fn fits(g: &Geometry) -> bool {
        let kernel = [g.kernel_height, g.kernel_width];
        g.stride == 2 && (kernel == [3, 3] || kernel == [5, 5])
    }

    /// Lengths of the working memory.
    pub fn room(&self) -> [usize; 3] {
        let line = (2 * self.half).max(self.g.padded_width());
        [self.rows * self.pitch, 2 * ROWS * self.half, line]
    }

    /// Writes the input gradient of each plane with its own weight to `found`.
    pub fn input_gradient<'w>(
        self,
        gradients: &[f32],
        weights: impl Fn(usize) -> &'w [f32],
        memory: [&mut [f32]; 3],
        found: &mut [f32],
    ) {
        simd::arch().dispatch(Planes {
            spread: self,
            gradients,
            weights,
            memory,
            found,
        });
    }
}

struct Planes<'a, W> {
    spread: Spread<'a>,
    gradients: &'a [f32],
    weights: W,
    memory: [&'a mut [f32]; 3],
    found: &'a mut [f32],
}

impl<'w, W: Fn(usize) -> &'w [f32]> WithSimd for Planes<'_, W> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        match self.spread.g.kernel_height {
            3 => self.planes::<S, 3>(simd),
            5 => self.planes::<S, 5>(simd),
            other => unreachable!("no depthwise loop for kernel {other}"),
        }
    }
}

impl<'w, W: Fn(usize) -> &'w [f32]> Planes<'_, W> {
    #[inline(always)]
    fn planes<S: Simd, const K: usize>(&mut self, simd: S) {
        let Spread {
            g, margin, pitch, ..
        } = self.spread;
        let [spread, halves, line] = &mut self.memory;
        spread.fill(0.0);
        let gradients = self.gradients.chunks_exact(g.output_pixels());
        let found = self.found.chunks_exact_mut(g.pixels());
        for (index, (gradient, found)) in gradients.zip(found).enumerate() {
            let weight = (self.weights)(index);
            let rows = gradient.chunks_exact(g.output_width);
            for (line, row) in spread[margin * pitch..].chunks_exact_mut(pitch).zip(rows) {
                for (place, value) in line[margin..].iter_mut().zip(row) {
                    *place = *value;
                }
            }
            let band = Band {
                spread: self.spread,
                gradient: &*spread,
                weight,
            };
            if !self.spread.assigns() {
                found.fill(0.0);
            }
            for first in (0..g.padded_height().div_ceil(2)).step_by(ROWS) {
                band.rows::<S, K, 0>(simd, first, halves);
                self.spread.put(halves, 2 * first, line, found);
                band.rows::<S, K, 1>(simd, first, halves);
                self.spread.put(halves, 2 * first + 1, line, found);
            }
        }
    }
}

impl Spread<'_> {
    /// Whether every row of the image is shown exactly once, and none is left out.
    #[inline(always)]
    fn assigns(&self) -> bool {
        self.g.pads()[0] == Pad::Zero
    }

    /// Takes every second row of the padded image, from `first_row`, to the rows of the image
    /// that they show.
    #[inline(always)]
    fn put(&self, halves: &[f32], first_row: usize, line: &mut [f32], found: &mut [f32]) {
        let g = self.g;
        let sources = g.rows().iter().skip(first_row).step_by(2);
        for (halves, source) in halves.chunks_exact(2 * self.half).zip(sources) {
            let Some(source) = source else { continue };
            let (even, odd) = halves.split_at(self.half);
            let pairs = line.as_chunks_mut::<2>().0.iter_mut();
            for (pair, (even, odd)) in pairs.zip(even.iter().zip(odd)) {
                *pair = [*even, *odd];
            }
            for (column, source) in g.fringe() {
                if let Some(source) = source {
                    line[g.left() + source] += line[*column];
                }
            }
            let row = &mut found[source * g.width..][..g.width];
            let line = &line[g.left()..][..g.width];
            if self.assigns() {
                row.copy_from_slice(line);
            } else {
                for (sum, value) in row.iter_mut().zip(line) {
                    *sum += value;
                }
            }
        }
    }
}

/// One plane, its gradient among zeros.
struct Band<'a> {
    spread: Spread<'a>,
    gradient: &'a [f32],
    weight: &'a [f32],
}

impl Band<'_> {
    /// The rows 2 · (first + r) + `PHASE` of the padded image, for [`ROWS`] of r: even columns,
    /// then odd ones.
    #[inline(always)]
    fn rows<S: Simd, const K: usize, const PHASE: usize>(
        &self,
        simd: S,
        first: usize,
        halves: &mut [f32],
    ) {
        for x in (0..self.spread.half).step_by(S::F32_LANES) {
            self.tile::<S, K, PHASE>(simd, first, x, halves);
        }
    }

    #[inline(always)]
    fn tile<S: Simd, const K: usize, const PHASE: usize>(
        &self,
        simd: S,
        first: usize,
        x: usize,
        halves: &mut [f32],
    ) {
        let Spread {
            margin,
            pitch,
            half,
            ..
        } = self.spread;
        // Rows of the kernel that this remainder meets.
        let taps = (K + 1 - PHASE) / 2;
        let before = taps - 1;
        let gradient = &self.gradient[(first + margin - before) * pitch..];
        let gradient = &gradient[..(ROWS + before) * pitch];
        let weight = &self.weight[..K * K];
        assert!(x + margin + S::F32_LANES <= pitch, "a tile within its rows");
        let mut even = [simd.splat_f32s(0.0); ROWS];
        let mut odd = even;
        for kx in (0..K).step_by(2) {
            let at = x + margin - kx / 2;
            let mut factors = [[simd.splat_f32s(0.0); K]; 2];
            for p in 0..taps {
                let row = &weight[(PHASE + 2 * p) * K..][..K];
                factors[0][p] = simd.splat_f32s(row[kx]);
                if kx + 1 < K {
                    factors[1][p] = simd.splat_f32s(row[kx + 1]);
                }
            }
            unrolled!(j in (ROWS + before) => {
                // SAFETY: row j < ROWS + before of `gradient`, and in it a vector from `at`,
                // which ends before the row does: asserted above.
                let value = unsafe { load::<S>(gradient, j * pitch + at) };
                for p in (0..taps).rev() {
                    // Row `first + r` minus p lies at r - p + before.
                    if j + p >= before && j + p - before < ROWS {
                        let r = j + p - before;
                        even[r] = simd.mul_add_f32s(factors[0][p], value, even[r]);
                        if kx + 1 < K {
                            odd[r] = simd.mul_add_f32s(factors[1][p], value, odd[r]);
                        }
                    }
                }
            });
        }
        let halves = &mut halves[..2 * ROWS * half];
        assert!(x + S::F32_LANES <= half, "a vector within half a row");
        unrolled!(r in ROWS => {
            // SAFETY: row r < ROWS of `halves`, and a vector from x ends within half of it:
            // asserted above.
            unsafe {
                store::<S>(halves, 2 * r * half + x, even[r]);
                store::<S>(halves, (2 * r + 1) * half + x, odd[r]);
            }
        });
    }
}
