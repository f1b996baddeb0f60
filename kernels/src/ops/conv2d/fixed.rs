//! Depthwise kernels of 3 × 3 and 5 × 5, steps of 1 and 2, in vector registers: a tile of output
//! rows and columns at a time, so that a vector of the image, once loaded, meets every row of the
//! kernel.
//!
//! Every sum of a convolution runs over the kernel's columns, and within a column over its rows,
//! one fused multiply-add each. So the results depend neither on the vectors' width nor on the tiles.

#![allow(
    clippy::needless_range_loop,
    reason = "iterators over arrays of vectors are not always inlined, and then compiled for a smaller machine"
)]

use super::bands::{Ahead, Bands, Plane};
use super::lines::Lines;
use super::vector::{Tail, load, pin, prefetch, store, unrolled};
use crate::math::LANES;
use crate::simd;
use pulp::{Simd, WithSimd};

/// Writes the convolution of each of `images` with its own weight [kernel, kernel] and bias to
/// `output`. `lines` has [`Plane::room`].
pub(super) fn convolve<'a>(
    plane: Plane,
    images: &[f32],
    weights: impl Fn(usize) -> (&'a [f32], f32),
    lines: &mut [f32],
    output: &mut [f32],
) {
    simd::dispatch(Convolve {
        plane,
        images,
        weights,
        lines,
        output,
    });
}

struct Convolve<'a, W> {
    plane: Plane<'a>,
    images: &'a [f32],
    weights: W,
    lines: &'a mut [f32],
    output: &'a mut [f32],
}

impl<'a, W: Fn(usize) -> (&'a [f32], f32)> WithSimd for Convolve<'_, W> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        match (self.plane.kernel, self.plane.stride) {
            (3, 1) => self.planes::<S, 3, 1>(simd),
            (3, 2) => self.planes::<S, 3, 2>(simd),
            (5, 1) => self.planes::<S, 5, 1>(simd),
            (5, 2) => self.planes::<S, 5, 2>(simd),
            other => unreachable!("no depthwise loop for kernel and stride {other:?}"),
        }
    }
}

impl<'a, W: Fn(usize) -> (&'a [f32], f32)> Convolve<'_, W> {
    #[inline(always)]
    fn planes<S: Simd, const K: usize, const STRIDE: usize>(&mut self, simd: S) {
        let plane = self.plane;
        let mut bands = Bands::new(plane, self.images, self.lines);
        while let Some(place) = bands.next(simd) {
            let (weight, bias) = (self.weights)(place.plane);
            let rows = plane.rows(place);
            let from = (place.plane * plane.height + place.first) * plane.width;
            let band = Band {
                form: plane.lines,
                lines: bands.lines(),
                weight,
                bias,
                width: plane.width,
                rows,
                ahead: plane.ahead(self.images, place),
                output: &mut self.output[from..from + rows * plane.width],
            };
            band.tiles::<S, K, STRIDE>(simd);
        }
    }
}

/// Some rows of one plane.
struct Band<'a> {
    form: &'a Lines<'a>,
    lines: &'a [f32],
    weight: &'a [f32],
    bias: f32,
    width: usize,
    rows: usize,
    output: &'a mut [f32],
    /// Of the images.
    ahead: Ahead<'a>,
}

impl Band<'_> {
    #[inline(always)]
    fn tiles<S: Simd, const K: usize, const STRIDE: usize>(mut self, simd: S) {
        // As many sums as leave registers for the rest: the match is decided at compile time,
        // but for the sizes. Tall tiles load least.
        match (S::F32_LANES, STRIDE, self.width, self.rows) {
            (16, 1, ..17, 16..) => self.columns::<S, K, STRIDE, 16, 1>(simd),
            (16, _, 49.., 8..) if K == 5 => self.columns::<S, K, STRIDE, 8, 2>(simd),
            (16, _, 49.., 4..) => self.columns::<S, K, STRIDE, 4, 4>(simd),
            (16, _, 17.., 8..) => self.columns::<S, K, STRIDE, 8, 2>(simd),
            (16, _, 17.., 4..) => self.columns::<S, K, STRIDE, 4, 2>(simd),
            (16, _, _, 8..) | (8, _, _, 8..) => self.columns::<S, K, STRIDE, 8, 1>(simd),
            (16, _, _, 4..) | (8, _, _, 4..) => self.columns::<S, K, STRIDE, 4, 1>(simd),
            (4, _, 5.., 8..) => self.columns::<S, K, STRIDE, 8, 2>(simd),
            (_, _, _, 4..) => self.columns::<S, K, STRIDE, 4, 2>(simd),
            _ => self.columns::<S, K, STRIDE, 1, 1>(simd),
        }
    }

    #[inline(always)]
    fn columns<S: Simd, const K: usize, const STRIDE: usize, const R: usize, const N: usize>(
        &mut self,
        simd: S,
    ) {
        let (width, rows) = (self.width, self.rows);
        // Rows that do not fill a tile are covered by one that overlaps its neighbour.
        for y in (0..rows).step_by(R).map(|y| y.min(rows - R)) {
            for x in (0..width).step_by(N * S::F32_LANES) {
                // With a stride of 2 so much is read that it would push out what is in use.
                if STRIDE == 1 {
                    self.ahead.ask(R * N * S::F32_LANES);
                }
                // The output's lines too where so few products meet a pixel that memory binds.
                if (K == 3 || STRIDE == 2) && x.is_multiple_of(LANES) {
                    for r in 0..R {
                        for line in (0..N * S::F32_LANES).step_by(LANES) {
                            prefetch(self.output, (y + R + r) * width + x + line);
                        }
                    }
                }
                self.tile::<S, K, STRIDE, R, N>(simd, y, x);
            }
        }
    }

    /// Writes the outputs from row `y` and column `x`, as far as there are columns.
    #[inline(always)]
    fn tile<S: Simd, const K: usize, const STRIDE: usize, const R: usize, const N: usize>(
        &mut self,
        simd: S,
        y: usize,
        x: usize,
    ) {
        let (pitch, width) = (self.form.pitch, self.width);
        let rows = (R - 1) * STRIDE + K;
        let lines = &self.lines[y * STRIDE * pitch..][..rows * pitch];
        let weight = &self.weight[..K * K];
        let mut sums = [[simd.splat_f32s(self.bias); N]; R];
        for kx in 0..K {
            let at = self.form.column(kx) + x;
            assert!(at + N * S::F32_LANES <= pitch, "a tile within its lines");
            let mut factors = [simd.splat_f32s(0.0); K];
            for ky in 0..K {
                factors[ky] = simd.splat_f32s(weight[ky * K + kx]);
            }
            unrolled!(j in rows => {
                for n in 0..N {
                    // SAFETY: row j < rows of `lines`, and in it N vectors from `at`, which end
                    // before the row does: asserted above.
                    let value = unsafe { load::<S>(lines, j * pitch + at + n * S::F32_LANES) };
                    for ky in 0..K {
                        if j >= ky && (j - ky) % STRIDE == 0 && (j - ky) / STRIDE < R {
                            let sum = &mut sums[(j - ky) / STRIDE][n];
                            *sum = simd.mul_add_f32s(factors[ky], value, *sum);
                        }
                    }
                }
                for n in 0..N {
                    for ky in 0..K {
                        if j >= ky && (j - ky) % STRIDE == 0 && (j - ky) / STRIDE < R {
                            pin::<S>(&mut sums[(j - ky) / STRIDE][n]);
                        }
                    }
                }
            });
        }
        let output = &mut self.output[y * width..(y + R) * width];
        if x + N * S::F32_LANES <= width {
            unrolled!(r in R => {
                for n in 0..N {
                    // SAFETY: row r < R of `output`, and N vectors from x end within its width.
                    unsafe { store::<S>(output, r * width + x + n * S::F32_LANES, sums[r][n]) }
                }
            });
            return;
        }
        for n in 0..N {
            let x = (x + n * S::F32_LANES).min(width);
            let tail = Tail::new(simd, width - x);
            unrolled!(r in R => {
                // SAFETY: row r < R of `output`, and the lanes from x end within its width.
                unsafe { tail.store(simd, output, r * width + x, sums[r][n]) }
            });
        }
    }
}
