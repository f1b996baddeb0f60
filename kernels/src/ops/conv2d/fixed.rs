//! Depthwise kernels of 3 × 3 and 5 × 5, steps of 1 and 2, in vector registers: a tile of output
//! rows and columns at a time, so that a vector of the image, once loaded, meets every row of the
//! kernel.
//!
//! Every sum of a convolution runs over the kernel's columns, and within a column over its rows,
//! one fused multiply-add each; sums over an image keep 16 lanes whatever the vectors' width. So
//! the results do not depend on it, nor on the tiles.

#![allow(
    clippy::needless_range_loop,
    reason = "iterators over arrays of vectors are not always inlined, and then compiled for a smaller machine"
)]

use super::geometry::Geometry;
use super::lines::Lines;
use super::vector::{Tail, load, pin, prefetch, store, unrolled};
use crate::math::LANES;
use crate::simd;
use pulp::{Simd, WithSimd};

/// Planes of one kernel size, height and width.
#[derive(Clone, Copy)]
pub(super) struct Plane<'a> {
    kernel: usize,
    stride: usize,
    /// Of the output.
    height: usize,
    width: usize,
    /// Elements of an image, and of its rows.
    pixels: usize,
    image_width: usize,
    lines: &'a Lines<'a>,
    /// Output rows whose lines exist together.
    band: usize,
    /// Elements of an image from one band to the next.
    band_pixels: usize,
}

/// A band of one of the planes: its number, and its first row of the output.
#[derive(Clone, Copy, Default)]
struct Place {
    plane: usize,
    first: usize,
}

impl<'a> Plane<'a> {
    pub fn new(g: &Geometry, lines: &'a Lines<'a>) -> Self {
        let band = lines.band(16);
        Self {
            kernel: g.kernel_height,
            stride: g.stride,
            height: g.output_height,
            width: g.output_width,
            pixels: g.pixels(),
            image_width: g.width,
            lines,
            band,
            band_pixels: (band * g.stride * g.width).min(g.pixels()),
        }
    }

    /// Elements of working memory for [`convolve`] and [`weight_gradient`]: the lines of two
    /// bands, and one of zeros.
    pub fn room(&self) -> usize {
        2 * self.band_room() + self.lines.pitch
    }

    /// Elements that the lines of one band take.
    fn band_room(&self) -> usize {
        self.lines.count(self.band) * self.lines.pitch
    }

    /// The place after `place`.
    #[inline(always)]
    fn after(&self, place: Place) -> Place {
        let first = place.first + self.band;
        if first < self.height {
            Place { first, ..place }
        } else {
            Place {
                plane: place.plane + 1,
                first: 0,
            }
        }
    }

    /// The output rows of a band.
    #[inline(always)]
    fn rows(&self, place: Place) -> usize {
        self.band.min(self.height - place.first)
    }

    /// Writes the lines of a band. Not a closure: one that is called twice is not inlined, and then
    /// copies vectors that its machine does not have.
    #[inline(always)]
    fn fill<S: Simd>(&self, simd: S, images: &[f32], place: Place, lines: &mut [f32]) {
        let form = self.lines;
        let image = &images[place.plane * self.pixels..][..self.pixels];
        let lines = &mut lines[..form.count(self.rows(place)) * form.pitch];
        form.fill(simd, image, place.first * self.stride, lines);
    }
}

/// Writes the convolution of each of `images` with its own weight [kernel, kernel] and bias to
/// `output`. `lines` has [`Plane::room`].
pub(super) fn convolve<'a>(
    plane: Plane,
    images: &[f32],
    weights: impl Fn(usize) -> (&'a [f32], f32),
    lines: &mut [f32],
    output: &mut [f32],
) {
    simd::arch().dispatch(Convolve {
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
        self.lines.fill(0.0);
        let (mut now, mut next) = self.lines.split_at_mut(plane.band_room());
        let count = self.images.len() / plane.pixels;
        let mut place = Place::default();
        // A band's lines are written one band ahead: read at once, they would not be in the cache
        // yet.
        plane.fill(simd, self.images, place, now);
        while place.plane < count {
            let after = plane.after(place);
            if after.plane < count {
                plane.fill(simd, self.images, after, next);
            }
            let (weight, bias) = (self.weights)(place.plane);
            let rows = plane.rows(place);
            let from = (place.plane * plane.height + place.first) * plane.width;
            let band = Band {
                form: plane.lines,
                lines: now,
                weight,
                bias,
                width: plane.width,
                rows,
                images: self.images,
                ahead: place.plane * plane.pixels
                    + place.first * plane.stride * plane.image_width
                    + 2 * plane.band_pixels,
                output: &mut self.output[from..from + rows * plane.width],
            };
            band.tiles::<S, K, STRIDE>(simd);
            std::mem::swap(&mut now, &mut next);
            place = after;
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
    images: &'a [f32],
    /// What the band after the next one will read.
    ahead: usize,
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
                    for line in (0..R * N * S::F32_LANES).step_by(LANES) {
                        prefetch(self.images, self.ahead + line);
                    }
                    self.ahead += R * N * S::F32_LANES;
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

/// Writes, for each of `images` and its gradient, the sums of gradient · image shifted by each
/// tap, to `sums` [plane, kernel, kernel]. `lines` has [`Plane::room`].
pub(super) fn weight_gradient(
    plane: Plane,
    images: &[f32],
    gradients: &[f32],
    lines: &mut [f32],
    sums: &mut [f32],
) {
    simd::arch().dispatch(WeightGradient {
        plane,
        images,
        gradients,
        lines,
        sums,
    });
}

struct WeightGradient<'a> {
    plane: Plane<'a>,
    images: &'a [f32],
    gradients: &'a [f32],
    lines: &'a mut [f32],
    sums: &'a mut [f32],
}

impl WithSimd for WeightGradient<'_> {
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

impl WeightGradient<'_> {
    #[inline(always)]
    fn planes<S: Simd, const K: usize, const STRIDE: usize>(&mut self, simd: S) {
        let plane = self.plane;
        self.lines.fill(0.0);
        let (lines, zeros) = self.lines.split_at_mut(2 * plane.band_room());
        let (mut now, mut next) = lines.split_at_mut(plane.band_room());
        let count = self.images.len() / plane.pixels;
        let mut place = Place::default();
        plane.fill(simd, self.images, place, now);
        let mut sums = [[[0.0; LANES]; K]; K];
        while place.plane < count {
            let after = plane.after(place);
            if after.plane < count {
                plane.fill(simd, self.images, after, next);
            }
            let rows = plane.rows(place);
            let from = (place.plane * plane.height + place.first) * plane.width;
            let taps = Taps {
                form: plane.lines,
                lines: &now[..plane.lines.count(rows) * plane.lines.pitch],
                zeros,
                gradient: &self.gradients[from..from + rows * plane.width],
                width: plane.width,
                rows,
            };
            match S::F32_LANES {
                16 => taps.all::<S, K, STRIDE>(simd, &mut sums),
                8 => taps.row_by_row::<S, K, STRIDE, 2>(simd, &mut sums),
                4 => taps.row_by_row::<S, K, STRIDE, 4>(simd, &mut sums),
                _ => taps.row_by_row::<S, K, STRIDE, 16>(simd, &mut sums),
            }
            std::mem::swap(&mut now, &mut next);
            if after.first == 0 {
                let found = &mut self.sums[place.plane * K * K..][..K * K];
                totals(sums.as_flattened(), found);
                sums = [[[0.0; LANES]; K]; K];
            }
            place = after;
        }
    }
}

/// The sum of each 16 lanes, in the order of [`crate::math::sum_lanes`], but half of the way for
/// all of them and then the rest: that is what the compiler finds good instructions for.
#[inline(always)]
fn totals(sums: &[[f32; LANES]], found: &mut [f32]) {
    let mut quarters = [[0.0; LANES / 4]; 25];
    for (quarter, lanes) in quarters.iter_mut().zip(sums) {
        let (low, high) = lanes.split_at(LANES / 2);
        let mut half = [0.0; LANES / 2];
        for i in 0..LANES / 2 {
            half[i] = low[i] + high[i];
        }
        for i in 0..LANES / 4 {
            quarter[i] = half[i] + half[i + LANES / 4];
        }
    }
    for (found, [a, b, c, d]) in found.iter_mut().zip(&quarters) {
        *found = (a + c) + (b + d);
    }
}

/// Some rows of one gradient and the lines that its taps see.
struct Taps<'a> {
    form: &'a Lines<'a>,
    lines: &'a [f32],
    /// At least as many as a row of the gradient has.
    zeros: &'a [f32],
    gradient: &'a [f32],
    width: usize,
    rows: usize,
}

impl Taps<'_> {
    /// With a register for every tap, each row of the image is read once.
    #[inline(always)]
    fn all<S: Simd, const K: usize, const STRIDE: usize>(
        &self,
        simd: S,
        sums: &mut [[[f32; LANES]; K]; K],
    ) {
        let mut held = [[simd.splat_f32s(0.0); K]; K];
        for ky in 0..K {
            for kx in 0..K {
                held[ky][kx] = S::as_simd_f32s(&sums[ky][kx]).0[0];
            }
        }
        self.phase::<S, K, STRIDE, 0>(simd, &mut held);
        if STRIDE == 2 {
            self.phase::<S, K, STRIDE, 1>(simd, &mut held);
        }
        for ky in 0..K {
            for kx in 0..K {
                S::as_mut_simd_f32s(&mut sums[ky][kx]).0[0] = held[ky][kx];
            }
        }
    }

    /// Adds the image rows whose number is `PHASE` modulo the stride.
    #[inline(always)]
    fn phase<S: Simd, const K: usize, const STRIDE: usize, const PHASE: usize>(
        &self,
        simd: S,
        sums: &mut [[S::f32s; K]; K],
    ) {
        let (pitch, width) = (self.form.pitch, self.width);
        let whole = width - width % S::F32_LANES;
        let tail = Tail::new(simd, width - whole);
        let rows = self.rows;
        let zeros = &self.zeros[..width];
        let columns = self.columns::<S, K>();
        for (j, line) in self
            .lines
            .chunks_exact(pitch)
            .skip(PHASE)
            .step_by(STRIDE)
            .enumerate()
        {
            // The gradient rows that tap rows PHASE, PHASE + STRIDE, ... meet, backwards; before
            // the first and after the last there is nothing.
            let mut gradients = [zeros; K];
            for (back, gradient) in gradients.iter_mut().enumerate() {
                if j >= back && j - back < rows {
                    *gradient = &self.gradient[(j - back) * width..][..width];
                }
            }
            for x in (0..whole).step_by(LANES) {
                let mut factors = [simd.splat_f32s(0.0); K];
                for back in 0..K.div_ceil(STRIDE) {
                    // SAFETY: a vector from x ends within the width, which every row has.
                    factors[back] = unsafe { load::<S>(gradients[back], x) };
                }
                self.step::<S, K, STRIDE, PHASE>(simd, line, &columns, x, &factors, sums);
            }
            if whole < width {
                let mut factors = [simd.splat_f32s(0.0); K];
                for back in 0..K.div_ceil(STRIDE) {
                    // SAFETY: the rest of a row of this width.
                    factors[back] = unsafe { tail.load(simd, gradients[back], whole) };
                }
                self.step::<S, K, STRIDE, PHASE>(simd, line, &columns, whole, &factors, sums);
            }
        }
    }

    /// Where the kernel's columns begin in a line; vectors from there, as many as a row of the
    /// gradient has, end within it.
    #[inline(always)]
    fn columns<S: Simd, const K: usize>(&self) -> [usize; K] {
        let mut columns = [0; K];
        for (kx, column) in columns.iter_mut().enumerate() {
            *column = self.form.column(kx);
            let last = *column + self.width.next_multiple_of(LANES);
            assert!(last <= self.form.pitch, "a row within its line");
        }
        columns
    }

    /// Adds 16 columns of an image row, times the gradient rows that see it.
    #[inline(always)]
    fn step<S: Simd, const K: usize, const STRIDE: usize, const PHASE: usize>(
        &self,
        simd: S,
        line: &[f32],
        columns: &[usize; K],
        x: usize,
        factors: &[S::f32s; K],
        sums: &mut [[S::f32s; K]; K],
    ) {
        for kx in 0..K {
            // SAFETY: x is a multiple of 16 below the width, so 16 columns from it end within the
            // line: asserted by [`Taps::columns`].
            let value = unsafe { load::<S>(line, columns[kx] + x) };
            for ky in 0..K {
                if ky % STRIDE == PHASE {
                    sums[ky][kx] = simd.mul_add_f32s(factors[ky / STRIDE], value, sums[ky][kx]);
                }
            }
        }
    }

    /// The sums of one row of the kernel after the other.
    #[inline(always)]
    fn row_by_row<S: Simd, const K: usize, const STRIDE: usize, const N: usize>(
        &self,
        simd: S,
        sums: &mut [[[f32; LANES]; K]; K],
    ) {
        let (pitch, width) = (self.form.pitch, self.width);
        for (ky, kept) in sums.iter_mut().enumerate() {
            let mut sums = [[simd.splat_f32s(0.0); N]; K];
            for (sums, kept) in sums.iter_mut().zip(&*kept) {
                sums.copy_from_slice(S::as_simd_f32s(kept).0);
            }
            for (y, row) in self.gradient.chunks_exact(width).enumerate() {
                let line = &self.lines[(y * STRIDE + ky) * pitch..][..pitch];
                for x in (0..width).step_by(LANES) {
                    let mut factors = [simd.splat_f32s(0.0); N];
                    for n in 0..N {
                        let x = (x + n * S::F32_LANES).min(width);
                        // SAFETY: a vector, or the lanes from x, end within the width of the row.
                        factors[n] = unsafe {
                            if x + S::F32_LANES <= width {
                                load::<S>(row, x)
                            } else {
                                Tail::new(simd, width - x).load(simd, row, x)
                            }
                        };
                    }
                    for (kx, sums) in sums.iter_mut().enumerate() {
                        let at = self.form.column(kx) + x;
                        let (values, _) = S::as_simd_f32s(&line[at..at + LANES]);
                        for n in 0..N {
                            sums[n] = simd.mul_add_f32s(factors[n], values[n], sums[n]);
                        }
                    }
                }
            }
            for (sums, kept) in sums.iter().zip(kept) {
                S::as_mut_simd_f32s(kept).0.copy_from_slice(sums);
            }
        }
    }
}
