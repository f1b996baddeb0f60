//! Products of a matrix and planes so large that they do not stay in the cache: 1 × 1 convolutions of
//! many pixels, and their transposes.
//!
//! Read where they lie, planes a power of two apart push each other out of the cache. So a band of
//! pixels is copied into panels, a little between the multiplications of every term of the band before,
//! while the processor would wait for neither.
//!
//! Every sum runs over its terms in order with one fused multiply-add each, so it depends neither on
//! the number of threads nor on the width of vectors.

#![allow(
    clippy::needless_range_loop,
    reason = "iterators over arrays of vectors are not always inlined, and then compiled for a smaller machine"
)]

use super::panel::Finish;
use super::tile::{self, PANEL, ROWS, Sink};
use super::vector::{load, prefetch, prefetch_far, store, unrolled};
use crate::scratch;
use crate::simd;
use pulp::{Simd, WithSimd};
use std::ops::Range;

/// Elements of a band, two of which stay in the second-level cache.
const BAND: usize = 32 * 1024;
/// Panels of a band, at most.
const MOST_PANELS: usize = 64;
/// Planes that are asked for ahead of those that are copied.
const FAR: usize = 4;
/// Elements of a cache line.
const LINE: usize = 16;

/// Rows whose factors lie side by side; row counts are rounded up to it.
const UNIT: usize = 2;

/// Writes `factor(row, plane)` times the planes of `image`, plus a bias for each row, to the rows of
/// `output`. Planes and rows are `pixels` long.
pub(super) fn product(
    factor: impl Fn(usize, usize) -> f32,
    image: &[f32],
    bias: Option<&[f32]>,
    output: &mut [f32],
    pixels: usize,
) {
    let (rows, planes) = (output.len() / pixels, image.len() / pixels);
    let units = rows.div_ceil(UNIT);
    let panels = (BAND / (planes * PANEL)).clamp(1, MOST_PANELS);
    let copy = planes * panels * PANEL;
    // Lines of what there is more of are read or written whole.
    let begin = off_line(if rows > planes { output } else { image });
    let mut bands = bands(pixels, begin, panels * PANEL).peekable();
    let lengths = [units * planes * UNIT, copy, copy];
    scratch::with(lengths, |[factors, mut here, mut next]| {
        let factors = factors.as_chunks_mut::<UNIT>().0;
        for (unit, factors) in factors.chunks_exact_mut(planes).enumerate() {
            for (plane, factors) in factors.iter_mut().enumerate() {
                for (row, value) in (unit * UNIT..).zip(factors) {
                    *value = if row < rows { factor(row, plane) } else { 0.0 };
                }
            }
        }
        if let Some(first) = bands.peek() {
            Ahead::new(image, pixels, first.clone(), here).finish();
        }
        while let Some(band) = bands.next() {
            let after = bands.peek().cloned().unwrap_or(pixels..pixels);
            let mut ahead = Ahead::new(image, pixels, after, next);
            simd::dispatch(Product {
                factors,
                planes,
                panels: here,
                count: band.len().div_ceil(PANEL),
                ahead: &mut ahead,
                sink: Finish {
                    kept: None,
                    bias,
                    output: &mut *output,
                    pixels,
                    first: band.start,
                    last: band.end,
                },
            });
            ahead.finish();
            (here, next) = (next, here);
        }
    });
}

/// Rows of the next tile, of so many that are left: six are as many as AVX2's registers hold beside two
/// vectors.
#[inline(always)]
fn height(lanes: usize, left: usize) -> usize {
    match (lanes, left) {
        (8, 6 | 10 | 12 | 14..) => 6,
        (_, ..4) => UNIT,
        _ => tile::height(lanes, left),
    }
}

/// Elements before the first that begins a cache line, if the allocator lets one find out.
fn off_line(plane: &[f32]) -> usize {
    match plane.as_ptr().align_offset(LINE * size_of::<f32>()) {
        offset if offset < LINE => offset,
        _ => 0,
    }
}

/// Bands of so many pixels from `begin`, and what comes before.
fn bands(pixels: usize, begin: usize, length: usize) -> impl Iterator<Item = Range<usize>> {
    let begin = begin.min(pixels);
    let before = (begin > 0).then_some(0..begin);
    let whole = (begin..pixels).step_by(length);
    let whole = whole.map(move |first| first..pixels.min(first + length));
    before.into_iter().chain(whole)
}

/// A band that is copied into panels while another is multiplied.
struct Ahead<'a> {
    image: &'a [f32],
    /// From one plane to the next.
    pixels: usize,
    planes: usize,
    band: Range<usize>,
    panels: &'a mut [f32],
    place: Place,
}

/// The next row of a panel to be copied: plane by plane.
#[derive(Clone, Copy)]
struct Place {
    from: usize,
    to: usize,
    /// Panels of this plane that are left.
    left: usize,
    /// Rows that are left, of all whole panels.
    rows: usize,
    /// Terms until it is copied.
    wait: usize,
}

impl<'a> Ahead<'a> {
    fn new(image: &'a [f32], pixels: usize, band: Range<usize>, panels: &'a mut [f32]) -> Self {
        let planes = image.len() / pixels;
        assert!(
            band.start <= band.end && band.end <= pixels,
            "pixels that there are"
        );
        let all = planes * band.len().div_ceil(PANEL) * PANEL;
        assert!(all <= panels.len(), "room for the band");
        let whole = band.len() / PANEL;
        let place = Place {
            from: band.start,
            to: 0,
            left: whole,
            rows: planes * whole,
            wait: 1,
        };
        Self {
            image,
            pixels,
            planes,
            band,
            panels,
            place,
        }
    }

    /// Copies a row once in so many calls, as long as there are any.
    #[inline(always)]
    fn step<S: Simd>(&mut self, place: &mut Place, every: usize) {
        place.wait -= 1;
        if place.wait > 0 {
            return;
        }
        place.wait = every;
        if place.rows == 0 {
            return;
        }
        for line in (0..PANEL).step_by(LINE) {
            prefetch_far(self.image, place.from + FAR * self.pixels + line);
            prefetch(self.image, place.from + self.pixels + line);
        }
        for at in (0..PANEL).step_by(S::F32_LANES) {
            // SAFETY: a vector of a row of a whole panel; there are no more rows than lie in the image
            // and in the panels, as `new` asserts.
            unsafe {
                let vector = load::<S>(self.image, place.from + at);
                store::<S>(self.panels, place.to + at, vector);
            }
        }
        let (plane, panel) = (self.pixels, self.planes * PANEL);
        let whole = self.band.len() / PANEL;
        place.from += PANEL;
        place.to += panel;
        place.rows -= 1;
        place.left -= 1;
        if place.left == 0 {
            place.left = whole;
            place.from += plane - whole * PANEL;
            place.to -= whole * panel - PANEL;
        }
    }

    /// Copies what is left, and what does not fill a panel.
    fn finish(mut self) {
        simd::dispatch(Rest { ahead: &mut self });
        let whole = self.band.len() / PANEL;
        let rest = self.band.start + whole * PANEL..self.band.end;
        let panel = self.panels[whole * self.planes * PANEL..].chunks_exact_mut(PANEL);
        // The slice of panels may end here.
        for (plane, row) in (0..self.planes).zip(panel) {
            row[..rest.len()].copy_from_slice(&self.image[plane * self.pixels..][rest.clone()]);
        }
    }
}

struct Rest<'a, 'b> {
    ahead: &'a mut Ahead<'b>,
}

impl WithSimd for Rest<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let mut place = self.ahead.place;
        place.wait = 1;
        while place.rows > 0 {
            self.ahead.step::<S>(&mut place, 1);
        }
    }
}

/// The products of one band.
struct Product<'a, 'b> {
    /// For each [`UNIT`] rows, those of every plane.
    factors: &'a [[f32; UNIT]],
    planes: usize,
    panels: &'a [f32],
    count: usize,
    ahead: &'a mut Ahead<'b>,
    sink: Finish<'a>,
}

impl WithSimd for Product<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let rows = self.factors.len() / self.planes * UNIT;
        let columns = if S::F32_LANES >= 8 { 2 } else { 4 } * S::F32_LANES;
        let (mut row, mut tiles) = (0, 0);
        while row < rows {
            row += height(S::F32_LANES, rows - row);
            tiles += PANEL / columns;
        }
        // Many terms want one panel in the first-level cache for all rows, few terms long rows of
        // the output.
        let together = if self.many_rows() { self.count } else { 1 };
        for first in (0..self.count).step_by(together) {
            let panels = first..self.count.min(first + together);
            let mut row = 0;
            while row < rows {
                let panels = panels.clone();
                row += match (S::F32_LANES, height(S::F32_LANES, rows - row)) {
                    (16, ROWS) => self.tiles::<S, ROWS, 2>(simd, row, panels, tiles),
                    (16, 8) => self.tiles::<S, 8, 2>(simd, row, panels, tiles),
                    (8, 6) => self.tiles::<S, 6, 2>(simd, row, panels, tiles),
                    (8 | 16, 4) => self.tiles::<S, 4, 2>(simd, row, panels, tiles),
                    (8 | 16, _) => self.tiles::<S, UNIT, 2>(simd, row, panels, tiles),
                    (_, 4) => self.tiles::<S, 4, 4>(simd, row, panels, tiles),
                    _ => self.tiles::<S, UNIT, 4>(simd, row, panels, tiles),
                };
            }
        }
    }
}

impl Product<'_, '_> {
    #[inline(always)]
    fn many_rows(&self) -> bool {
        self.factors.len() / self.planes * UNIT > self.planes
    }

    /// Asks for what will be written soon: a row every now and then, which the processor by itself
    /// fetches late.
    #[inline(always)]
    fn ask(&self, rows: Range<usize>, column: usize, columns: usize) {
        for row in rows {
            let at = row * self.sink.pixels + self.sink.first + column;
            for line in (0..columns).step_by(LINE) {
                prefetch(self.sink.output, at + line);
            }
        }
    }

    /// Returns the number of rows it took.
    #[inline(always)]
    fn tiles<S: Simd, const R: usize, const N: usize>(
        &mut self,
        simd: S,
        row: usize,
        panels: Range<usize>,
        every: usize,
    ) -> usize {
        let planes = self.planes;
        let factors = &self.factors[row / UNIT * planes..][..R / UNIT * planes];
        for panel in panels {
            let values = &self.panels[panel * planes * PANEL..][..planes * PANEL];
            for from in (0..PANEL).step_by(N * S::F32_LANES) {
                let mut place = self.ahead.place;
                let mut sums = [[simd.splat_f32s(0.0); N]; R];
                for k in 0..planes {
                    self.ahead.step::<S>(&mut place, every);
                    let mut vectors = [simd.splat_f32s(0.0); N];
                    for n in 0..N {
                        // SAFETY: N vectors from `from`, a multiple of as many, in row k of the panel.
                        vectors[n] =
                            unsafe { load::<S>(values, k * PANEL + from + n * S::F32_LANES) };
                    }
                    for r in 0..R {
                        // SAFETY: of R / UNIT times as many factors as there are planes.
                        let unit = unsafe { factors.get_unchecked(r / UNIT * planes + k) };
                        let factor = simd.splat_f32s(unit[r % UNIT]);
                        for n in 0..N {
                            sums[r][n] = simd.mul_add_f32s(factor, vectors[n], sums[r][n]);
                        }
                    }
                }
                self.ahead.place = place;
                // Element by element, so that the sums stay in registers whatever becomes of the copy.
                let mut found = [[simd.splat_f32s(0.0); N]; R];
                unrolled!(r in R => {
                    for n in 0..N {
                        found[r][n] = sums[r][n];
                    }
                });
                self.sink.take(simd, row, panel * PANEL + from, &found);
                if !self.many_rows() {
                    self.ask(row..row + R, (panel + 1) * PANEL + from, N * S::F32_LANES);
                }
            }
        }
        R
    }
}
