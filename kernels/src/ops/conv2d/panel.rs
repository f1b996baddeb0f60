//! Panels of 32 output pixels, the right matrix of the microkernel: packed from a padded image or read
//! in place; and the sinks that store the sums.

#![allow(
    clippy::needless_range_loop,
    reason = "iterators over arrays of vectors are not always inlined, and then compiled for a narrower instruction set"
)]

use super::geometry::Geometry;
use super::microkernel::{PANEL, RUN, Sink, Values};
use super::vector::{Tail, load, store, unrolled};
use crate::simd;
use pulp::{Simd, WithSimd};

/// A packed panel, one row for each term of the sums.
#[derive(Clone, Copy)]
pub(super) struct Panel<'a>(pub &'a [[f32; PANEL]]);

impl Values for Panel<'_> {
    #[inline(always)]
    fn terms<S: Simd, const N: usize>(&self, from: usize) -> impl Iterator<Item = [S::f32s; N]> {
        let width = N * S::F32_LANES;
        self.0.iter().map(move |row| {
            let (vectors, _) = S::as_simd_f32s(&row[from..from + width]);
            std::array::from_fn(|n| vectors[n])
        })
    }
}

/// Offsets of the taps of some terms, and the largest of them.
#[derive(Clone, Copy)]
pub(super) struct Places<'a> {
    taps: &'a [usize],
    farthest: usize,
}

impl<'a> Places<'a> {
    pub fn new(taps: &'a [usize]) -> Self {
        let farthest = taps.iter().max().copied().unwrap_or(0);
        Self { taps, farthest }
    }

    pub fn taps(&self) -> &'a [usize] {
        self.taps
    }
}

/// A panel read in place from the padded image, in runs of 16 pixels.
#[derive(Clone, Copy)]
pub(super) struct InPlace<'a> {
    image: &'a [f32],
    places: Places<'a>,
    starts: [usize; PANEL / RUN],
}

impl<'a> InPlace<'a> {
    /// # Panics
    /// When a run ends beyond the image.
    pub fn new(image: &'a [f32], places: Places<'a>, starts: [usize; PANEL / RUN]) -> Self {
        let last = starts[0].max(starts[1]);
        assert!(
            places.farthest + last + RUN <= image.len(),
            "runs within the image"
        );
        Self {
            image,
            places,
            starts,
        }
    }
}

impl Values for InPlace<'_> {
    #[inline(always)]
    fn terms<S: Simd, const N: usize>(&self, from: usize) -> impl Iterator<Item = [S::f32s; N]> {
        let Self { image, starts, .. } = *self;
        self.places.taps.iter().map(move |tap| {
            std::array::from_fn(|n| {
                let at = from + n * S::F32_LANES;
                let place = tap + starts[at / RUN] + at % RUN;
                // SAFETY: a vector within a run of 16 that begins at one of the starts, no further
                // than the farthest tap from there: within the image, as `new` asserts.
                unsafe { load::<S>(image, place) }
            })
        })
    }
}

/// Stores partial sums in a compact block, which stays in the cache until later terms are added: the
/// rows of the output itself are far apart and would cause cache misses in the loop.
pub(super) struct Keep<'a> {
    /// The block, from the first column of the panel in the first row.
    pub block: &'a mut [f32],
    /// Elements from one row to the next.
    pub step: usize,
    /// Whether to add to the partial sums of earlier terms.
    pub add: bool,
}

impl Sink for Keep<'_> {
    #[inline(always)]
    fn take<S: Simd, const R: usize, const N: usize>(
        &mut self,
        simd: S,
        row: usize,
        from: usize,
        sums: &[[S::f32s; N]; R],
    ) {
        for (row, sums) in (row..).zip(sums) {
            let kept = &mut self.block[row * self.step + from..][..N * S::F32_LANES];
            let (kept, _) = S::as_mut_simd_f32s(kept);
            for (kept, sum) in kept.iter_mut().zip(sums) {
                *kept = if self.add {
                    simd.add_f32s(*sum, *kept)
                } else {
                    *sum
                };
            }
        }
    }
}

/// Writes finished sums to the output: the sums of the last terms, the partial sums that [`Keep`]
/// stored, and the bias.
pub(super) struct Finish<'a> {
    /// The kept sums, from the first column, and their step; `None` when there were no earlier
    /// terms.
    pub kept: Option<(&'a [f32], usize)>,
    pub bias: Option<&'a [f32]>,
    /// The whole output, whose rows are `pixels` long.
    pub output: &'a mut [f32],
    pub pixels: usize,
    /// The pixel of the first column, and the one after the last.
    pub first: usize,
    pub last: usize,
}

impl Sink for Finish<'_> {
    #[inline(always)]
    fn take<S: Simd, const R: usize, const N: usize>(
        &mut self,
        simd: S,
        row: usize,
        from: usize,
        sums: &[[S::f32s; N]; R],
    ) {
        let pixel = self.first + from;
        if pixel >= self.last {
            return;
        }
        let rows = self.output.len() / self.pixels;
        let columns = N * S::F32_LANES;
        if self.kept.is_none() && row + R <= rows && pixel + columns <= self.last {
            // Unrolled, so that the sums stay in registers.
            let output = &mut self.output[row * self.pixels + pixel..];
            assert!((R - 1) * self.pixels + columns <= output.len(), "R rows");
            unrolled!(r in R => {
                let bias = match self.bias {
                    Some(bias) => simd.splat_f32s(bias[row + r]),
                    None => simd.splat_f32s(0.0),
                };
                for n in 0..N {
                    let sum = match self.bias {
                        Some(_) => simd.add_f32s(sums[r][n], bias),
                        None => sums[r][n],
                    };
                    // SAFETY: N vectors from the start of row r < R, which end within it: asserted
                    // above.
                    unsafe { store::<S>(output, r * self.pixels + n * S::F32_LANES, sum) };
                }
            });
            return;
        }
        // A copy for this rare case only: without it, the compiler would keep all sums in memory.
        let mut copy = [[simd.splat_f32s(0.0); N]; R];
        unrolled!(r in R => {
            for n in 0..N {
                copy[r][n] = sums[r][n];
            }
        });
        // Rows beyond the last only fill the tile.
        for (r, sums) in copy.iter().enumerate().take(rows.saturating_sub(row)) {
            let mut sums = *sums;
            if let Some((kept, step)) = self.kept {
                let kept = &kept[(row + r) * step + from..][..columns];
                for n in 0..N {
                    let (kept, _) = S::as_simd_f32s(&kept[n * S::F32_LANES..][..S::F32_LANES]);
                    sums[n] = simd.add_f32s(sums[n], kept[0]);
                }
            }
            if let Some(bias) = self.bias {
                let bias = simd.splat_f32s(bias[row + r]);
                for n in 0..N {
                    sums[n] = simd.add_f32s(sums[n], bias);
                }
            }
            let output = &mut self.output[(row + r) * self.pixels + pixel..];
            if pixel + columns <= self.last {
                let output = &mut output[..columns];
                for n in 0..N {
                    // SAFETY: N vectors from the start of a slice that long.
                    unsafe { store::<S>(output, n * S::F32_LANES, sums[n]) };
                }
                continue;
            }
            let output = &mut output[..self.last - pixel];
            for n in 0..N {
                let at = (n * S::F32_LANES).min(output.len());
                let tail = Tail::new(simd, output.len() - at);
                // SAFETY: the lanes from `at`, as far as the slice reaches.
                unsafe { tail.store(simd, output, at, sums[n]) };
            }
        }
    }
}

/// Offsets of the pixels of one panel in the padded image, in runs of contiguous pixels.
pub(super) struct Runs {
    length: usize,
    starts: [usize; PANEL],
    /// Valid pixels of the panel; the last panel of an image may reach beyond it.
    pub valid: usize,
}

impl Runs {
    /// `origin` is the offset in the padded image at which the present rows begin.
    pub fn new(g: &Geometry, first_pixel: usize, origin: usize) -> Self {
        let valid = PANEL.min(g.output_pixels() - first_pixel);
        // The longest power of two that never crosses the end of a row.
        let length = if g.is_pointwise() && valid == PANEL {
            PANEL
        } else {
            PANEL.min(1 << g.output_width.trailing_zeros())
        };
        // Beyond the image, any valid offset will do.
        let mut starts = [0; PANEL];
        for (start, pixel) in starts.iter_mut().zip((first_pixel..).step_by(length)) {
            if pixel < first_pixel + valid {
                *start = g.pixel_offset(pixel) - origin;
            }
        }
        Self {
            length,
            starts,
            valid,
        }
    }

    /// Offsets of each 16 pixels, if those are contiguous.
    pub fn long(&self) -> Option<[usize; PANEL / RUN]> {
        match self.length {
            PANEL => Some([self.starts[0], self.starts[0] + RUN]),
            RUN => Some([self.starts[0], self.starts[1]]),
            _ => None,
        }
    }

    /// One row of the panel for each tap.
    pub fn gather(&self, image: &[f32], taps: &[usize], panel: &mut [[f32; PANEL]]) {
        simd::dispatch(Gather {
            runs: self,
            image,
            taps,
            panel,
        });
    }

    #[inline(always)]
    fn gather_runs<const N: usize>(
        &self,
        image: &[f32],
        taps: &[usize],
        panel: &mut [[f32; PANEL]],
    ) {
        for (row, tap) in panel.iter_mut().zip(taps) {
            let image = &image[*tap..];
            for (run, start) in row.as_chunks_mut::<N>().0.iter_mut().zip(&self.starts) {
                run.copy_from_slice(&image[*start..start + N]);
            }
        }
    }

    /// The transpose of [`Runs::gather`]: adds one row of sums for each tap.
    pub fn scatter(&self, sums: &[[f32; PANEL]], taps: &[usize], image: &mut [f32]) {
        simd::dispatch(Scatter {
            runs: self,
            sums,
            taps,
            image,
        });
    }

    #[inline(always)]
    fn add_runs<const N: usize>(&self, image: &mut [f32], tap: usize, sums: &[f32; PANEL]) {
        let image = &mut image[tap..];
        for (at, run) in (0..self.valid).step_by(N).zip(sums.as_chunks::<N>().0) {
            let start = self.starts[at / self.length] + at % self.length;
            if let Some(values) = image[start..].first_chunk_mut::<N>() {
                for (value, sum) in values.iter_mut().zip(run) {
                    *value += sum;
                }
            }
        }
    }
}

/// [`Runs::gather`]; not a closure, which might be compiled for a narrower instruction set.
struct Gather<'a> {
    runs: &'a Runs,
    image: &'a [f32],
    taps: &'a [usize],
    panel: &'a mut [[f32; PANEL]],
}

impl WithSimd for Gather<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self {
            runs,
            image,
            taps,
            panel,
        } = self;
        match runs.length {
            PANEL => runs.gather_runs::<PANEL>(image, taps, panel),
            16 => runs.gather_runs::<16>(image, taps, panel),
            8 => runs.gather_runs::<8>(image, taps, panel),
            4 => runs.gather_runs::<4>(image, taps, panel),
            2 => runs.gather_runs::<2>(image, taps, panel),
            _ => runs.gather_runs::<1>(image, taps, panel),
        }
    }
}

/// [`Runs::scatter`], likewise.
struct Scatter<'a> {
    runs: &'a Runs,
    sums: &'a [[f32; PANEL]],
    taps: &'a [usize],
    image: &'a mut [f32],
}

impl WithSimd for Scatter<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { runs, image, .. } = self;
        for (sums, tap) in self.sums.iter().zip(self.taps) {
            match runs.length {
                RUN | PANEL if runs.valid == PANEL => {
                    let [low, high] = runs.long().expect("long runs");
                    let image = &mut image[*tap..];
                    let (sums, _) = sums.as_chunks::<RUN>();
                    for (start, sums) in [low, high].into_iter().zip(sums) {
                        let image = &mut image[start..][..RUN];
                        for at in (0..RUN).step_by(S::F32_LANES) {
                            // SAFETY: a vector that ends within 16 elements, in both slices.
                            unsafe {
                                let sum = simd.add_f32s(load::<S>(image, at), load::<S>(sums, at));
                                store::<S>(image, at, sum);
                            }
                        }
                    }
                }
                RUN | PANEL => runs.add_runs::<RUN>(image, *tap, sums),
                4 | 8 => runs.add_runs::<4>(image, *tap, sums),
                2 => runs.add_runs::<2>(image, *tap, sums),
                _ => runs.add_runs::<1>(image, *tap, sums),
            }
        }
    }
}
