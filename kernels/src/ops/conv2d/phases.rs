//! The input gradient of a dense convolution with a step of 2 from few channels: for each remainder of
//! row and column the taps of one remainder meet the gradient, without a multiplication by zero. As
//! [`super::spread`] does for one channel, with all outputs added up in registers.
//!
//! Every sum runs over the outputs, and of each over its taps, last row first, so the results do not
//! depend on the width of the vectors.

#![allow(
    clippy::needless_range_loop,
    reason = "iterators over arrays of vectors are not always inlined, and then compiled for a smaller machine"
)]

use super::Pad;
use super::geometry::Geometry;
use super::shuffles::in_turn;
use super::spread;
use super::vector::{Tail, load, pin, prefetch, prefetch_far, store, unrolled};
use crate::buffer;
use crate::math::LANES;
use crate::simd;
use pulp::{MemMask, Simd, WithSimd};
use rayon::prelude::*;

/// Channels of a tile.
const CHANNELS: usize = 3;
/// Channels for which this is the better way.
const FEW_CHANNELS: usize = 6;
/// Pixels in a row of the gradient for which it is.
const LONG: usize = 32;

/// The gradient as an image whose outputs are pairs, if this is the better way for this convolution.
pub(super) fn pairs(g: &Geometry) -> Option<Geometry> {
    let few = g.groups == 1 && g.channels <= FEW_CHANNELS && g.output_width >= LONG;
    (few && g.pads()[1] == Pad::Zero).then(|| spread::pairs(g))?
}

/// `pairs` is what [`pairs`] found.
pub(super) fn input_gradient(
    g: &Geometry,
    pairs: &Geometry,
    weight: &[f32],
    gradient: &[f32],
) -> Vec<f32> {
    let mut found = buffer::any(g.batch * g.channels * g.pixels());
    let kernel = g.kernel_height * g.kernel_width;
    let groups = g.channels.div_ceil(CHANNELS);
    let mut factors = vec![0.0; groups * g.outputs * kernel * CHANNELS];
    for (index, weight) in weight.chunks_exact(kernel).enumerate() {
        let (output, channel) = (index / g.channels, index % g.channels);
        let from = (channel / CHANNELS * g.outputs + output) * kernel * CHANNELS;
        let factors = factors[from + channel % CHANNELS..].iter_mut();
        for (factor, weight) in factors.step_by(CHANNELS).zip(weight) {
            *factor = *weight;
        }
    }
    // A row of the gradient that does not exist.
    let zeros = vec![0.0; g.output_width];
    found
        .par_chunks_exact_mut(g.channels * g.pixels())
        .zip(gradient.par_chunks_exact(g.outputs * g.output_pixels()))
        .for_each(|(found, gradient)| {
            simd::dispatch(Phases {
                g,
                pairs,
                gradient,
                zeros: &zeros,
                factors: &factors,
                found,
            });
        });
    found
}

struct Phases<'a> {
    g: &'a Geometry,
    pairs: &'a Geometry,
    gradient: &'a [f32],
    zeros: &'a [f32],
    /// [some channels, output, kernel row, kernel column, channel of those].
    factors: &'a [f32],
    found: &'a mut [f32],
}

/// A row of the gradient of all outputs, so far from one to the next.
#[derive(Clone, Copy)]
struct Row<'a> {
    values: &'a [f32],
    from: usize,
    step: usize,
}

impl WithSimd for Phases<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match (self.g.kernel_height, self.g.left() % 2, S::F32_LANES) {
            (3, 0, 8) => self.rows::<S, 3, 2, 0, 1>(simd),
            (3, _, 8) => self.rows::<S, 3, 2, 1, 1>(simd),
            (3, 0, _) => self.rows::<S, 3, 2, 0, 2>(simd),
            (3, _, _) => self.rows::<S, 3, 2, 1, 2>(simd),
            (5, 0, _) => self.rows::<S, 5, 3, 0, 1>(simd),
            (5, _, _) => self.rows::<S, 5, 3, 1, 1>(simd),
            other => unreachable!("no loop for kernel, padding and lanes {other:?}"),
        }
    }
}

impl Phases<'_> {
    /// For a kernel of K × K, which meets P × P of the gradient; `LEFT` is the remainder of the
    /// columns to the left of the image. In tiles of N vectors of pairs.
    #[inline(always)]
    fn rows<S: Simd, const K: usize, const P: usize, const LEFT: usize, const N: usize>(
        mut self,
        simd: S,
    ) {
        let (g, pairs) = (self.g, self.pairs);
        let columns = N * S::F32_LANES;
        let groups = g.channels.div_ceil(CHANNELS);
        assert!(
            self.factors.len() >= groups * g.outputs * K * K * CHANNELS,
            "all factors"
        );
        for y in 0..pairs.output_height {
            let mut rows = [Row {
                values: self.zeros,
                from: 0,
                step: 0,
            }; P];
            for p in 0..P {
                // The kernel's first rows meet what lies furthest down.
                if let Some(row) = pairs.rows()[y + P - 1 - p] {
                    rows[p] = Row {
                        values: self.gradient,
                        from: row * g.output_width,
                        step: g.output_pixels(),
                    };
                }
            }
            for channel in (0..g.channels).step_by(CHANNELS) {
                let mut x = 0;
                while x < pairs.output_width {
                    let inside =
                        x >= pairs.left() && x + columns + P - 1 <= g.output_width + pairs.left();
                    // SAFETY: all factors exist: asserted above. The columns of a tile inside lie
                    // within the gradient.
                    unsafe {
                        if inside {
                            self.tile::<S, K, P, LEFT, N, false>(simd, &rows, y, channel, x);
                        } else {
                            self.tile::<S, K, P, LEFT, N, true>(simd, &rows, y, channel, x);
                        }
                    }
                    x += columns;
                }
            }
        }
    }

    /// Writes pairs of columns from pair `x` of pair `y` of rows, of the channels from `first`.
    ///
    /// # Safety
    /// All factors exist, and unless at the `EDGE`, N vectors from `x` and as many columns further on
    /// as there are taps, in each row.
    #[inline(always)]
    unsafe fn tile<
        S: Simd,
        const K: usize,
        const P: usize,
        const LEFT: usize,
        const N: usize,
        const EDGE: bool,
    >(
        &mut self,
        simd: S,
        rows: &[Row; P],
        y: usize,
        first: usize,
        x: usize,
    ) {
        let g = self.g;
        let (width, pixels) = (g.width, g.pixels());
        let columns = N * S::F32_LANES;
        // The image's first row is the second of its pair where an odd number is added above.
        let row = |row: usize| (2 * y + row).checked_sub(g.top() % 2);
        // Lines that the next tile writes, of each channel and row.
        let here = first * pixels + row(0).unwrap_or(0) * width + 2 * (x + columns);
        let lines = (2 * columns).div_ceil(LANES);
        // Where each of the kernel's columns meets the gradient, and the lanes that exist.
        let mut places = [0; P];
        let mut masks = [[MemMask::new(simd.mask_between_m32s(0, 0).mask()); N]; P];
        for q in 0..P {
            places[q] = (x + P - 1 - q).wrapping_sub(self.pairs.left());
            if EDGE {
                for n in 0..N {
                    let at = places[q].wrapping_add(n * S::F32_LANES) as isize;
                    let lanes = S::F32_LANES as isize;
                    let begin = (-at).clamp(0, lanes);
                    let end = (g.output_width as isize - at).clamp(begin, lanes);
                    let mask = simd.mask_between_m32s(begin as u32, end as u32).mask();
                    masks[q][n] = MemMask::new(mask);
                }
            }
        }
        let mut sums = [[[[simd.splat_f32s(0.0); N]; CHANNELS]; 2]; 2];
        for output in 0..g.outputs {
            // What the next pair of rows meets.
            for line in (0..columns).step_by(LANES) {
                let at = rows[0].from + g.output_width + output * rows[0].step;
                prefetch_far(self.gradient, at + x + line);
            }
            if output < 2 * CHANNELS * lines {
                let (row, line) = (output / lines, output % lines);
                let at = row / 2 * pixels + row % 2 * width + line * LANES;
                prefetch(self.found, here + at);
            }
            let from = (first / CHANNELS * g.outputs + output) * K * K * CHANNELS;
            unrolled!(pq in (P * P) => {
                let (p, q) = (pq / P, pq % P);
                let at = (rows[p].from + output * rows[p].step).wrapping_add(places[q]);
                let mut values = [simd.splat_f32s(0.0); N];
                for n in 0..N {
                    let at = at.wrapping_add(n * S::F32_LANES);
                    // SAFETY: the caller's promise; at the edge, the lanes that exist.
                    values[n] = unsafe {
                        if EDGE {
                            let values = rows[p].values.as_ptr().wrapping_add(at);
                            simd.mask_load_ptr_f32s(masks[q][n], values)
                        } else {
                            load::<S>(rows[p].values, at)
                        }
                    };
                }
                for phase in 0..4 {
                    let (row, column) = (phase / 2, phase % 2);
                    let (ky, kx) = (2 * p + row, (2 * q + column).wrapping_sub(LEFT));
                    if ky < K && kx < K {
                        for c in 0..CHANNELS {
                            let at = from + (ky * K + kx) * CHANNELS + c;
                            debug_assert!(at < self.factors.len());
                            // SAFETY: the caller's promise.
                            let factor = unsafe { *self.factors.get_unchecked(at) };
                            let factor = simd.splat_f32s(factor);
                            for n in 0..N {
                                let sum = &mut sums[row][column][c][n];
                                *sum = simd.mul_add_f32s(factor, values[n], *sum);
                            }
                        }
                    }
                }
                for phase in 0..4 {
                    for c in 0..CHANNELS {
                        for n in 0..N {
                            pin::<S>(&mut sums[phase / 2][phase % 2][c][n]);
                        }
                    }
                }
            });
        }
        let image_rows = [row(0), row(1)];
        // Spelled out, so that the sums stay in registers.
        unrolled!(rc in (2 * CHANNELS) => {
            let (r, c) = (rc / CHANNELS, rc % CHANNELS);
            if let Some(row) = image_rows[r].filter(|row| *row < g.height)
                && first + c < g.channels
            {
                let found = &mut self.found[(first + c) * pixels + row * width..][..width];
                for n in 0..N {
                    let from = (2 * (x + n * S::F32_LANES)).min(width);
                    let second = (from + S::F32_LANES).min(width);
                    let [a, b] = in_turn::<S>(sums[r][0][c][n], sums[r][1][c][n]);
                    // SAFETY: two vectors from there end within the row, or their lanes do.
                    unsafe {
                        if from + 2 * S::F32_LANES <= width {
                            store::<S>(found, from, a);
                            store::<S>(found, second, b);
                        } else {
                            Tail::new(simd, width - from).store(simd, found, from, a);
                            Tail::new(simd, width - second).store(simd, found, second, b);
                        }
                    }
                }
            }
        });
    }
}
