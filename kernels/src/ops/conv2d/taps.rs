//! The weight gradient of a depthwise convolution, 3 × 3 and 5 × 5, steps of 1 and 2: a tile of
//! the gradient stays in vector registers and meets, row after row, what its taps saw.
//!
//! Sums over an image keep 16 lanes whatever the vectors' width: columns 16 apart share one. Within
//! a lane they run over tiles of [`ROWS`] rows, the last rows one by one; within a tile over its
//! columns; and within a column of tiles over the rows. Lanes are added at the end of a plane. So the
//! results do not depend on the width of the vectors.

#![allow(
    clippy::needless_range_loop,
    reason = "iterators over arrays of vectors are not always inlined, and then compiled for a smaller machine"
)]

use super::bands::{Ahead, Bands, Plane};
use super::shuffles::totals;
use super::vector::{Tail, load, pin, store, unrolled};
use crate::math::LANES;
use crate::simd;
use pulp::{Simd, WithSimd};

/// Rows of the gradient in one tile.
const ROWS: usize = 4;

/// Writes, for each of `images` and its gradient, the sums of gradient · image shifted by each
/// tap, to `sums` [plane, kernel, kernel]. `lines` has [`Plane::room`].
pub(super) fn weight_gradient(
    plane: Plane,
    images: &[f32],
    gradients: &[f32],
    lines: &mut [f32],
    sums: &mut [f32],
) {
    simd::dispatch(WeightGradient {
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
    fn with_simd<S: Simd>(self, simd: S) {
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
    fn planes<S: Simd, const K: usize, const STRIDE: usize>(self, simd: S) {
        let plane = self.plane;
        let mut bands = Bands::new(plane, self.images, self.lines);
        let mut sums = [[[0.0; LANES]; K]; K];
        while let Some(place) = bands.next(simd) {
            let rows = plane.rows(place);
            let from = (place.plane * plane.height + place.first) * plane.width;
            let taps = Taps {
                pitch: plane.lines.pitch,
                columns: [plane.lines.column(0), plane.lines.column(1)],
                lines: bands.lines(),
                gradient: &self.gradients[from..from + rows * plane.width],
                width: plane.width,
                rows,
                begins: place.first == 0,
                image_ahead: plane.ahead(self.images, place),
                gradient_ahead: plane.gradient_ahead(self.gradients, place),
            };
            // As many rows of the kernel at a time as there are registers for.
            for part in (0..LANES).step_by(S::F32_LANES) {
                if S::F32_LANES == 8 && K > 3 {
                    taps.add::<S, K, STRIDE, 2>(simd, part, 0, &mut sums);
                    taps.add::<S, K, STRIDE, 2>(simd, part, 2, &mut sums);
                    taps.add::<S, K, STRIDE, 1>(simd, part, 4, &mut sums);
                } else {
                    taps.add::<S, K, STRIDE, K>(simd, part, 0, &mut sums);
                }
            }
            if plane.ends(place) {
                let found = &mut self.sums[place.plane * K * K..][..K * K];
                totals::<S>(sums.as_flattened(), found);
            }
        }
    }
}

/// Some rows of one gradient and the lines that its taps see.
struct Taps<'a> {
    /// From one line to the next.
    pitch: usize,
    /// Where the kernel's first columns begin in a line; the others follow, with a step of 2 those
    /// two apart.
    columns: [usize; 2],
    lines: &'a [f32],
    gradient: &'a [f32],
    width: usize,
    rows: usize,
    /// Whether these are the first rows of their plane.
    begins: bool,
    image_ahead: Ahead<'a>,
    gradient_ahead: Ahead<'a>,
}

impl Taps<'_> {
    /// Adds to the sums of `G` rows of the kernel from `ky`, in the lanes from `part`.
    #[inline(always)]
    fn add<S: Simd, const K: usize, const STRIDE: usize, const G: usize>(
        &self,
        simd: S,
        part: usize,
        ky: usize,
        sums: &mut [[[f32; LANES]; K]; K],
    ) {
        let last = self.columns[0].max(self.columns[1]) + (K - 1) / STRIDE;
        let rows = self.rows;
        assert!(
            last + self.width.next_multiple_of(LANES) <= self.pitch
                && self.lines.len() >= ((rows - 1) * STRIDE + K) * self.pitch
                && self.gradient.len() >= rows * self.width,
            "the lines of these rows"
        );
        let mut held = [[simd.splat_f32s(0.0); K]; G];
        if !self.begins {
            for g in 0..G {
                unrolled!(kx in K => {
                    // SAFETY: 16 lanes, of which `part` is a multiple of a vector's.
                    held[g][kx] = unsafe { load::<S>(&sums[ky + g][kx], part) };
                });
            }
        }
        let whole = rows - rows % ROWS;
        // SAFETY: rows that exist, and what they meet: asserted above.
        unsafe {
            for y in (0..whole).step_by(ROWS) {
                self.rows::<S, K, STRIDE, G, ROWS>(simd, part, ky, y, &mut held);
            }
            for y in whole..rows {
                self.rows::<S, K, STRIDE, G, 1>(simd, part, ky, y, &mut held);
            }
        }
        for g in 0..G {
            unrolled!(kx in K => {
                // SAFETY: as above.
                unsafe { store::<S>(&mut sums[ky + g][kx], part, held[g][kx]) };
            });
        }
    }

    /// The same for `R` rows of the gradient from `y`.
    ///
    /// # Safety
    /// There are so many rows, and the lines that the kernel's rows meet: all of the kernel's
    /// columns for every 16 columns that begin within the width.
    #[inline(always)]
    unsafe fn rows<S: Simd, const K: usize, const STRIDE: usize, const G: usize, const R: usize>(
        &self,
        simd: S,
        part: usize,
        ky: usize,
        y: usize,
        sums: &mut [[S::f32s; K]; G],
    ) {
        let width = self.width;
        let whole = width - width % LANES;
        let lines = (y * STRIDE + ky) * self.pitch;
        let mut factors = [simd.splat_f32s(0.0); R];
        let asks = part == 0 && ky == 0;
        let mut image_ahead = self.image_ahead.after(y * width);
        let mut gradient_ahead = self.gradient_ahead.after(y * width);
        for x in (part..whole).step_by(LANES) {
            if asks {
                gradient_ahead.ask(R * LANES);
                if STRIDE == 1 {
                    image_ahead.ask(R * LANES);
                }
            }
            // SAFETY: a vector from x ends within the 16 columns that hold it, of which each row of
            // the gradient has all; lines as promised.
            unsafe {
                for r in 0..R {
                    factors[r] = load::<S>(self.gradient, (y + r) * width + x);
                }
                self.tile::<S, K, STRIDE, G, R>(simd, lines + x, &factors, sums);
            }
        }
        let x = whole + part;
        if x < width {
            let tail = Tail::new(simd, width - x);
            // SAFETY: the rest of each row, or a vector of it; lines as promised.
            unsafe {
                for r in 0..R {
                    factors[r] = tail.load(simd, self.gradient, (y + r) * width + x);
                }
                self.tile::<S, K, STRIDE, G, R>(simd, lines + x, &factors, sums);
            }
        }
    }

    /// Adds the products of `R` vectors of the gradient and what each tap sees. `from` is where the
    /// line of the first row and tap begins, and the columns before.
    ///
    /// # Safety
    /// Vectors from there in all lines that are met, and each of the kernel's columns, exist.
    #[inline(always)]
    unsafe fn tile<S: Simd, const K: usize, const STRIDE: usize, const G: usize, const R: usize>(
        &self,
        simd: S,
        from: usize,
        factors: &[S::f32s; R],
        sums: &mut [[S::f32s; K]; G],
    ) {
        let columns = [self.columns[0] + from, self.columns[1] + from];
        unrolled!(j in ((R - 1) * STRIDE + G) => {
            for kx in 0..K {
                let at = match STRIDE {
                    1 => columns[0] + kx,
                    _ => columns[kx % 2] + kx / 2,
                };
                // SAFETY: the caller's promise.
                let value = unsafe { load::<S>(self.lines, j * self.pitch + at) };
                for g in 0..G {
                    if j >= g && (j - g).is_multiple_of(STRIDE) && (j - g) / STRIDE < R {
                        let factor = factors[(j - g) / STRIDE];
                        sums[g][kx] = simd.mul_add_f32s(factor, value, sums[g][kx]);
                    }
                }
            }
            for g in 0..G {
                for kx in 0..K {
                    pin::<S>(&mut sums[g][kx]);
                }
            }
        });
    }
}
