//! The input gradient of a depthwise convolution with a step of 2. Every second pixel of the
//! image meets every second tap, so it is four convolutions of the gradient, one for each
//! remainder of row and column, without a multiplication by zero; they share what they load, and
//! go straight to the image, even and odd columns in turn.
//!
//! Padding that wraps around to as many pixels as the outputs step over makes the gradient wrap
//! around likewise. So no pixel is ever added to another.
//!
//! Every sum runs over the kernel's columns, and within a column over its rows, last row first.

#![allow(
    clippy::needless_range_loop,
    reason = "iterators over arrays of vectors are not always inlined, and then compiled for a smaller machine"
)]

use super::bands::{Ahead, Bands, Plane};
use super::geometry::Geometry;
use super::lines::Lines;
use super::shuffles::in_turn;
use super::vector::{Tail, load, pin, prefetch, store, unrolled};
use super::{Conv2d, Pad};
use crate::math::LANES;
use crate::simd;
use pulp::{Simd, WithSimd};

/// The gradient as an image with a step of 1 whose outputs are pairs: of rows 2v and 2v + 1 of the
/// padded image, of columns 2u and 2u + 1 of the image itself. `None` where there is no loop for
/// the kernel, or its padding shows pixels that the gradient does not.
pub(super) fn pairs(g: &Geometry) -> Option<Geometry> {
    let kernel = [g.kernel_height, g.kernel_width];
    if g.stride != 2 || (kernel != [3, 3] && kernel != [5, 5]) {
        return None;
    }
    let kernel = g.kernel_height;
    let taps = kernel.div_ceil(2);
    // Zeros before and after, where pair p meets gradients from p + reach - (taps - 1) to p + reach.
    let margins =
        |pad: Pad, [before, after]: [usize; 2], [length, outputs, pairs, reach]: [usize; 4]| {
            let shows = match pad {
                Pad::Zero => true,
                Pad::Circular => 2 * outputs == length,
                Pad::Reflect => false,
            };
            let fits = shows && before < kernel && after < kernel;
            fits.then(|| [taps - 1 - reach, pairs + reach - outputs])
        };
    let [top, left] = [g.top(), g.left()];
    let rows = (top + g.height).div_ceil(2) - top / 2;
    let [above, below] = margins(
        g.pads()[0],
        [top, g.padded_height() - g.height - top],
        [g.height, g.output_height, rows, top / 2],
    )?;
    let [before, after] = margins(
        g.pads()[1],
        [left, g.padded_width() - g.width - left],
        [
            g.width,
            g.output_width,
            g.width.div_ceil(2),
            left.div_ceil(2),
        ],
    )?;
    let options = Conv2d {
        stride: 1,
        padding: [above, below, before, after],
        rows: g.pads()[0],
        columns: g.pads()[1],
        groups: g.outputs,
    };
    let gradient = [g.batch, g.outputs, g.output_height, g.output_width];
    Geometry::of_shapes(gradient, [g.outputs, 1, taps, taps], &options).ok()
}

/// Writes the input gradient of each plane with its own weight to `found`. `plane` is of
/// [`pairs`], and `lines` has its [`Plane::room`].
pub(super) fn input_gradient<'w>(
    g: &Geometry,
    plane: Plane,
    gradients: &[f32],
    weights: impl Fn(usize) -> &'w [f32],
    lines: &mut [f32],
    found: &mut [f32],
) {
    simd::dispatch(Planes {
        g,
        plane,
        gradients,
        weights,
        lines,
        found,
    });
}

struct Planes<'a, W> {
    g: &'a Geometry,
    plane: Plane<'a>,
    gradients: &'a [f32],
    weights: W,
    lines: &'a mut [f32],
    found: &'a mut [f32],
}

impl<'w, W: Fn(usize) -> &'w [f32]> WithSimd for Planes<'_, W> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match (self.g.kernel_height, self.g.left() % 2) {
            (3, 0) => self.planes::<S, 3, 0>(simd),
            (3, _) => self.planes::<S, 3, 1>(simd),
            (5, 0) => self.planes::<S, 5, 0>(simd),
            (5, _) => self.planes::<S, 5, 1>(simd),
            other => unreachable!("no depthwise loop for kernel and padding {other:?}"),
        }
    }
}

impl<'w, W: Fn(usize) -> &'w [f32]> Planes<'_, W> {
    /// `LEFT` is the remainder of the columns to the left of the image.
    #[inline(always)]
    fn planes<S: Simd, const K: usize, const LEFT: usize>(self, simd: S) {
        let (g, plane) = (self.g, self.plane);
        let mut bands = Bands::new(plane, self.gradients, self.lines);
        while let Some(place) = bands.next(simd) {
            let band = Band {
                form: plane.lines,
                lines: bands.lines(),
                weight: (self.weights)(place.plane),
                rows: plane.rows(place),
                pairs: plane.width,
                ahead: plane.ahead(self.gradients, place),
                first: 2 * place.first,
                above: g.top() % 2,
                height: g.height,
                width: g.width,
                found: &mut self.found[place.plane * g.pixels()..][..g.pixels()],
            };
            band.tiles::<S, K, LEFT>(simd);
        }
    }
}

/// Some pairs of rows of one plane.
struct Band<'a> {
    form: &'a Lines<'a>,
    lines: &'a [f32],
    weight: &'a [f32],
    /// Pairs of rows, and of columns.
    rows: usize,
    pairs: usize,
    /// Of the gradients.
    ahead: Ahead<'a>,
    /// Twice the first pair of rows; the image's first row is number `above` of the first pair of
    /// the plane.
    first: usize,
    above: usize,
    height: usize,
    width: usize,
    /// The whole plane.
    found: &'a mut [f32],
}

impl Band<'_> {
    #[inline(always)]
    fn tiles<S: Simd, const K: usize, const LEFT: usize>(mut self, simd: S) {
        match self.rows {
            4.. => self.columns::<S, K, LEFT, 4>(simd),
            _ => self.columns::<S, K, LEFT, 1>(simd),
        }
    }

    #[inline(always)]
    fn columns<S: Simd, const K: usize, const LEFT: usize, const R: usize>(&mut self, simd: S) {
        // Rows that do not fill a tile are covered by one that overlaps its neighbour.
        let (rows, pairs) = (self.rows, self.pairs);
        for y in (0..rows).step_by(R).map(|y| y.min(rows - R)) {
            for x in (0..pairs).step_by(S::F32_LANES) {
                self.ahead.ask(R * S::F32_LANES);
                // As many sums as there are registers for.
                if S::F32_LANES == 8 {
                    self.tile::<S, K, LEFT, R, 0, 1>(simd, y, x);
                    self.tile::<S, K, LEFT, R, 1, 2>(simd, y, x);
                } else {
                    self.tile::<S, K, LEFT, R, 0, 2>(simd, y, x);
                }
            }
        }
    }

    /// Writes pairs of columns from `x` in `R` pairs of rows from `y`: of each the rows
    /// `FROM..TO`.
    #[inline(always)]
    fn tile<
        S: Simd,
        const K: usize,
        const LEFT: usize,
        const R: usize,
        const FROM: usize,
        const TO: usize,
    >(
        &mut self,
        simd: S,
        y: usize,
        x: usize,
    ) {
        let mut sums = [[[simd.splat_f32s(0.0); 2]; R]; 2];
        self.add::<S, K, LEFT, R, FROM, TO, 0>(simd, y, x, &mut sums);
        self.add::<S, K, LEFT, R, FROM, TO, 1>(simd, y, x, &mut sums);
        if K == 5 {
            self.add::<S, K, LEFT, R, FROM, TO, 2>(simd, y, x, &mut sums);
        }
        let width = self.width;
        let inside = 2 * (x + S::F32_LANES) <= width;
        let tail = Tail::new(simd, width - 2 * x);
        let second = (2 * x + S::F32_LANES).min(width);
        let second_tail = Tail::new(simd, width - second);
        unrolled!(r in R => {
            for row in FROM..TO {
                let Some(image_row) = (self.first + 2 * (y + r) + row).checked_sub(self.above)
                else {
                    continue;
                };
                if image_row >= self.height {
                    continue;
                }
                // The next pairs of rows: left to itself, the processor fetches lines that are
                // only written late.
                for line in (0..2 * S::F32_LANES).step_by(LANES) {
                    prefetch(self.found, (image_row + 2 * R) * width + 2 * x + line);
                }
                let found = &mut self.found[image_row * width..][..width];
                let [even, odd] = sums[row][r];
                let [a, b] = in_turn::<S>(even, odd);
                // SAFETY: two vectors from column 2 x end within the row, or their lanes do.
                unsafe {
                    if inside {
                        store::<S>(found, 2 * x, a);
                        store::<S>(found, second, b);
                    } else {
                        tail.store(simd, found, 2 * x, a);
                        second_tail.store(simd, found, second, b);
                    }
                }
            }
        });
    }

    /// Adds what the gradients contribute that lie `SHIFT` columns before the last one that a pair
    /// of columns meets.
    #[inline(always)]
    fn add<
        S: Simd,
        const K: usize,
        const LEFT: usize,
        const R: usize,
        const FROM: usize,
        const TO: usize,
        const SHIFT: usize,
    >(
        &self,
        simd: S,
        y: usize,
        x: usize,
        sums: &mut [[[S::f32s; 2]; R]; 2],
    ) {
        let pitch = self.form.pitch;
        let taps = K.div_ceil(2);
        let lines = &self.lines[y * pitch..][..(R + taps - 1) * pitch];
        let at = self.form.column(taps - 1 - SHIFT) + x;
        assert!(at + S::F32_LANES <= pitch, "a tile within its lines");
        // The kernel's column that each column of a pair meets there; beyond the kernel, none.
        let columns = [(2 * SHIFT).wrapping_sub(LEFT), 2 * SHIFT + 1 - LEFT];
        let weight = &self.weight[..K * K];
        let mut factors = [[simd.splat_f32s(0.0); 2]; K];
        for ky in 0..K {
            for column in 0..2 {
                if columns[column] < K {
                    factors[ky][column] = simd.splat_f32s(weight[ky * K + columns[column]]);
                }
            }
        }
        unrolled!(j in (R + taps - 1) => {
            // SAFETY: row j < R + taps - 1 of `lines`, and in it a vector from `at`, which ends
            // before the row does: asserted above.
            let value = unsafe { load::<S>(lines, j * pitch + at) };
            for row in FROM..TO {
                for p in 0..taps {
                    let ky = 2 * p + row;
                    // Pair `y + r` meets row `2 p` of the kernel at line `r + taps - 1 - p`.
                    if ky < K && j + p + 1 >= taps && j + p + 1 - taps < R {
                        let r = j + p + 1 - taps;
                        for column in 0..2 {
                            if columns[column] < K {
                                let sum = &mut sums[row][r][column];
                                *sum = simd.mul_add_f32s(factors[ky][column], value, *sum);
                            }
                        }
                    }
                }
            }
            for row in FROM..TO {
                for r in 0..R {
                    for column in 0..2 {
                        pin::<S>(&mut sums[row][r][column]);
                    }
                }
            }
        });
    }
}
