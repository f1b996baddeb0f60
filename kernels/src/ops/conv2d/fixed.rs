//! Depthwise kernels of 3 × 3 and 5 × 5, steps of 1 and 2, in vector registers: several output
//! rows at a time.
//!
//! Every sum runs over its taps in the order of the weight, one fused multiply-add each; sums over
//! an image keep 16 lanes whatever the vectors' width. So the results do not depend on it.

use crate::math::{LANES, sum_lanes};
use pulp::{Arch, Simd, WithSimd};

/// One plane of a padded image and what is made of it.
#[derive(Clone, Copy)]
pub(super) struct Plane {
    pub kernel: usize,
    pub stride: usize,
    /// Of the output, or of the gradient.
    pub height: usize,
    pub width: usize,
    /// From one row of the padded image to the next.
    pub row_step: usize,
    /// From the columns of one remainder modulo the stride to those of the next.
    pub phase_step: usize,
}

impl Plane {
    /// Whether there is a loop for this size.
    pub fn fits(&self) -> bool {
        matches!((self.kernel, self.stride), (3 | 5, 1 | 2)) && self.height >= 4 && self.width >= 16
    }

    /// Where the column `kx` of the kernel begins.
    #[inline(always)]
    fn column<const STRIDE: usize>(&self, kx: usize) -> usize {
        kx % STRIDE * self.phase_step + kx / STRIDE
    }
}

/// Writes the convolution of `image` with `weight` [kernel, kernel], plus `bias`, to `output`.
pub(super) fn convolve(plane: Plane, image: &[f32], weight: &[f32], bias: f32, output: &mut [f32]) {
    Arch::new().dispatch(Convolve {
        plane,
        image,
        weight,
        bias,
        output,
    });
}

struct Convolve<'a> {
    plane: Plane,
    image: &'a [f32],
    weight: &'a [f32],
    bias: f32,
    output: &'a mut [f32],
}

impl WithSimd for Convolve<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        match (self.plane.kernel, self.plane.stride) {
            (3, 1) => self.sized::<S, 3, 1>(simd),
            (3, 2) => self.sized::<S, 3, 2>(simd),
            (5, 1) => self.sized::<S, 5, 1>(simd),
            (5, 2) => self.sized::<S, 5, 2>(simd),
            other => unreachable!("no depthwise loop for kernel and stride {other:?}"),
        }
    }
}

impl Convolve<'_> {
    #[inline(always)]
    fn sized<S: Simd, const K: usize, const STRIDE: usize>(&mut self, simd: S) {
        // As many sums as the registers hold: the match is decided at compile time.
        match (S::F32_LANES, self.plane.width) {
            (16, 64..) => self.rows::<S, K, STRIDE, 4, 4>(simd),
            (16, 32..) => self.rows::<S, K, STRIDE, 4, 2>(simd),
            (16, _) => self.rows::<S, K, STRIDE, 4, 1>(simd),
            (_, 32..) => self.rows::<S, K, STRIDE, 2, 4>(simd),
            _ => self.rows::<S, K, STRIDE, 2, 2>(simd),
        }
    }

    #[inline(always)]
    fn rows<S: Simd, const K: usize, const STRIDE: usize, const R: usize, const N: usize>(
        &mut self,
        simd: S,
    ) {
        let Plane { height, width, .. } = self.plane;
        let columns = N * S::F32_LANES;
        // What does not fill a tile is covered by one that overlaps its neighbour.
        for y in (0..height).step_by(R).map(|y| y.min(height - R)) {
            for x in (0..width).step_by(columns).map(|x| x.min(width - columns)) {
                let sums = self.tile::<S, K, STRIDE, R, N>(simd, y, x);
                for (row, sums) in sums.iter().enumerate() {
                    let output = &mut self.output[(y + row) * width + x..][..columns];
                    S::as_mut_simd_f32s(output).0.copy_from_slice(sums);
                }
            }
        }
    }

    #[inline(always)]
    fn tile<S: Simd, const K: usize, const STRIDE: usize, const R: usize, const N: usize>(
        &self,
        simd: S,
        y: usize,
        x: usize,
    ) -> [[S::f32s; N]; R] {
        let mut sums = [[simd.splat_f32s(self.bias); N]; R];
        let (weight, _) = self.weight.as_chunks::<K>();
        for (ky, weight) in weight.iter().enumerate() {
            let lines: [&[f32]; R] = std::array::from_fn(|row| {
                let place = ((y + row) * STRIDE + ky) * self.plane.row_step + x;
                &self.image[place..]
            });
            for (kx, factor) in weight.iter().enumerate() {
                let at = self.plane.column::<STRIDE>(kx);
                let factor = simd.splat_f32s(*factor);
                for (sums, line) in sums.iter_mut().zip(lines) {
                    let (values, _) = S::as_simd_f32s(&line[at..at + N * S::F32_LANES]);
                    for (sum, value) in sums.iter_mut().zip(values) {
                        *sum = simd.mul_add_f32s(factor, *value, *sum);
                    }
                }
            }
        }
        // Element by element, so that the sums stay in registers whatever becomes of the copy.
        std::array::from_fn(|r| std::array::from_fn(|n| sums[r][n]))
    }
}

/// Writes the sums of `gradient` · `image`, shifted by each tap, to `sums` [kernel, kernel].
/// Rows of `gradient` are a multiple of 16 long, and zero beyond the plane's width, as are
/// [`margin`] rows before the first and after the last; `image` can be read as far beyond its end.
pub(super) fn weight_gradient(plane: Plane, image: &[f32], gradient: &[f32], sums: &mut [f32]) {
    Arch::new().dispatch(WeightGradient {
        plane,
        image,
        gradient,
        sums,
    });
}

/// Rows of zeros about the gradient.
pub(super) fn margin(plane: Plane) -> usize {
    (plane.kernel - 1) / plane.stride
}

struct WeightGradient<'a> {
    plane: Plane,
    image: &'a [f32],
    gradient: &'a [f32],
    sums: &'a mut [f32],
}

impl WithSimd for WeightGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        match (self.plane.kernel, self.plane.stride) {
            (3, 1) => self.sized::<S, 3, 1>(simd),
            (3, 2) => self.sized::<S, 3, 2>(simd),
            (5, 1) => self.sized::<S, 5, 1>(simd),
            (5, 2) => self.sized::<S, 5, 2>(simd),
            other => unreachable!("no depthwise loop for kernel and stride {other:?}"),
        }
    }
}

impl WeightGradient<'_> {
    #[inline(always)]
    fn sized<S: Simd, const K: usize, const STRIDE: usize>(&mut self, simd: S) {
        match S::F32_LANES {
            16 => self.all_taps::<S, K, STRIDE>(simd),
            8 => (0..K).for_each(|ky| self.taps::<S, K, STRIDE, 2>(simd, ky)),
            4 => (0..K).for_each(|ky| self.taps::<S, K, STRIDE, 4>(simd, ky)),
            _ => (0..K).for_each(|ky| self.taps::<S, K, STRIDE, 16>(simd, ky)),
        }
    }

    /// With a register for every tap, each row of the image is read once.
    #[inline(always)]
    fn all_taps<S: Simd, const K: usize, const STRIDE: usize>(&mut self, simd: S) {
        let mut sums = [[simd.splat_f32s(0.0); K]; K];
        self.phase::<S, K, STRIDE, 0>(simd, &mut sums);
        if STRIDE == 2 {
            self.phase::<S, K, STRIDE, 1>(simd, &mut sums);
        }
        for (found, sum) in self.sums.iter_mut().zip(sums.as_flattened()) {
            *found = total::<S, 1>(&[*sum]);
        }
    }

    /// Adds the image rows whose number is `PHASE` modulo the stride.
    #[inline(always)]
    fn phase<S: Simd, const K: usize, const STRIDE: usize, const PHASE: usize>(
        &self,
        simd: S,
        sums: &mut [[S::f32s; K]; K],
    ) {
        let plane = self.plane;
        let pitch = plane.width.next_multiple_of(LANES);
        let margin = margin(plane);
        let rows = (plane.height - 1) * STRIDE + K - PHASE;
        for j in 0..rows.div_ceil(STRIDE) {
            let line = &self.image[(j * STRIDE + PHASE) * plane.row_step..];
            // The gradient rows that tap rows PHASE, PHASE + STRIDE, ... meet, backwards.
            let last = (j + margin) * pitch;
            let gradients: [&[f32]; K] = std::array::from_fn(|back| {
                let place = last.saturating_sub(back * pitch);
                &self.gradient[place..place + pitch]
            });
            for x in (0..pitch).step_by(LANES) {
                let values: [S::f32s; K] = std::array::from_fn(|kx| {
                    let at = x + plane.column::<STRIDE>(kx);
                    S::as_simd_f32s(&line[at..at + LANES]).0[0]
                });
                for (ky, sums) in sums.iter_mut().enumerate() {
                    if ky % STRIDE == PHASE {
                        let row = gradients[ky / STRIDE];
                        let factor = S::as_simd_f32s(&row[x..x + LANES]).0[0];
                        for (sum, value) in sums.iter_mut().zip(values) {
                            *sum = simd.mul_add_f32s(factor, value, *sum);
                        }
                    }
                }
            }
        }
    }

    /// The sums of one row of the kernel.
    #[inline(always)]
    fn taps<S: Simd, const K: usize, const STRIDE: usize, const N: usize>(
        &mut self,
        simd: S,
        ky: usize,
    ) {
        let plane = self.plane;
        let pitch = plane.width.next_multiple_of(LANES);
        let mut sums = [[simd.splat_f32s(0.0); N]; K];
        let rows = self.gradient.chunks_exact(pitch).skip(margin(plane));
        for (y, row) in rows.take(plane.height).enumerate() {
            let line = &self.image[(y * STRIDE + ky) * plane.row_step..];
            let (row, _) = row.as_chunks::<LANES>();
            for (x, factors) in row.iter().enumerate() {
                let (factors, _) = S::as_simd_f32s(factors);
                for (kx, sums) in sums.iter_mut().enumerate() {
                    let at = x * LANES + plane.column::<STRIDE>(kx);
                    let (values, _) = S::as_simd_f32s(&line[at..at + LANES]);
                    for n in 0..N {
                        sums[n] = simd.mul_add_f32s(factors[n], values[n], sums[n]);
                    }
                }
            }
        }
        for (found, sums) in self.sums[ky * K..].iter_mut().zip(&sums) {
            *found = total::<S, N>(sums);
        }
    }
}

/// The sum of 16 lanes.
#[inline(always)]
fn total<S: Simd, const N: usize>(sums: &[S::f32s; N]) -> f32 {
    let mut lanes = [0.0; LANES];
    S::as_mut_simd_f32s(&mut lanes).0.copy_from_slice(sums);
    sum_lanes(lanes)
}
