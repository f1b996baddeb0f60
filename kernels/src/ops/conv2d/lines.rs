//! Rows of a padded image, a few at a time, where a depthwise loop finds them: in the first-level
//! cache, every row in vectors of its own. Nothing else of the padded image is ever made.

use super::geometry::Geometry;
use super::shuffles::apart;
use super::vector::{Tail, load, store};
use crate::math::LANES;
use pulp::Simd;
use std::ops::Range;

/// Elements of one band: a third of the first-level cache, which leaves room for what it meets.
const ROOM: usize = 4 * 1024;
/// Rows of the tallest tile, which divide a band; with a stride of 2 half as many.
const TILE_ROWS: usize = 16;

/// How the rows lie. With a stride of 2 the even columns come first, then the odd ones.
pub(super) struct Lines<'a> {
    g: &'a Geometry,
    /// From one row to the next.
    pub pitch: usize,
    /// Where columns 0 and 1 of the padded image lie.
    firsts: [usize; 2],
    /// Padded columns that show a column of the image.
    wraps: Vec<(usize, usize)>,
    /// Rows of the padded image that show the image's rows, from the first.
    inner: Range<usize>,
    /// Output rows whose lines stay in the cache.
    pub band: usize,
    /// Whether the rows outside the image are zero and always lie in the same lines.
    settled: bool,
}

impl<'a> Lines<'a> {
    /// For strides of 1 and 2.
    pub fn new(g: &'a Geometry) -> Self {
        let round = |length: usize| length.next_multiple_of(LANES);
        let (stride, left) = (g.stride, g.left());
        let wraps = g.fringe().iter();
        let wraps = wraps.filter_map(|(column, source)| Some((*column, (*source)?)));
        // Tiles of four vectors, where they are not wider than the rows.
        let tile = match g.output_width {
            ..17 => LANES,
            17..49 => 2 * LANES,
            _ => 4 * LANES,
        };
        let read = g.output_width.next_multiple_of(tile) + g.kernel_width;
        let read = read.max(g.padded_width().div_ceil(stride));
        // The image's own columns begin a vector, the even and the odd ones of the padded image.
        let mut firsts = [0; 2];
        let mut pitch = 0;
        for (phase, first) in firsts.iter_mut().enumerate().take(stride) {
            let before = (left + stride - 1 - phase) / stride;
            let offset = round(before) - before;
            *first = pitch + offset;
            let written = before + round(g.width.div_ceil(stride));
            pitch += round(offset + read.max(written));
        }
        if stride == 1 {
            firsts[1] = firsts[0] + 1;
        }
        let lines = (ROOM / pitch).saturating_sub(g.kernel_height);
        let tile_rows = TILE_ROWS / stride;
        let band = lines / stride / tile_rows * tile_rows;
        let band = band.clamp(tile_rows, g.output_height.max(tile_rows));
        let inner = g.top()..g.top() + g.height;
        let shown = g.rows().iter().flatten().count();
        Self {
            g,
            pitch,
            firsts,
            wraps: wraps.collect(),
            settled: band >= g.output_height && shown == g.height,
            inner,
            band,
        }
    }

    /// Where column `x` of the padded image lies in its row.
    #[inline(always)]
    pub fn column(&self, x: usize) -> usize {
        match self.g.stride {
            1 => self.firsts[0] + x,
            _ => self.firsts[x % 2] + x / 2,
        }
    }

    /// Rows of the padded image for these rows of the output.
    pub fn count(&self, outputs: usize) -> usize {
        (outputs - 1) * self.g.stride + self.g.kernel_height
    }

    /// Writes `count` rows of the padded image of `plane` from `first_row`. What lies outside the
    /// image must be zero before the first call for these lines.
    #[inline(always)]
    pub fn fill<S: Simd>(
        &self,
        simd: S,
        plane: &[f32],
        first_row: usize,
        count: usize,
        lines: &mut [f32],
    ) {
        let rows = first_row..first_row + count;
        // Most rows show the image's in their order; those are copied without a look at each.
        let inner = self.inner.start.max(rows.start)..self.inner.end.min(rows.end);
        if inner.is_empty() {
            self.fill_one_by_one(simd, plane, rows, lines);
            return;
        }
        let (before, lines) = lines.split_at_mut((inner.start - rows.start) * self.pitch);
        let (middle, after) = lines.split_at_mut(inner.len() * self.pitch);
        let first = inner.start - self.inner.start;
        let image = &plane[first * self.g.width..][..inner.len() * self.g.width];
        self.copy(simd, image, inner.len(), middle);
        // Where a plane is one band, lines of zeros are never anything else.
        if !self.settled {
            self.fill_one_by_one(simd, plane, rows.start..inner.start, before);
            self.fill_one_by_one(simd, plane, inner.end..rows.end, after);
        }
    }

    #[inline(always)]
    pub fn fill_one_by_one<S: Simd>(
        &self,
        simd: S,
        plane: &[f32],
        rows: Range<usize>,
        lines: &mut [f32],
    ) {
        for (row, source) in self.g.rows()[rows].iter().enumerate() {
            let line = &mut lines[row * self.pitch..][..self.pitch];
            match source {
                None => line.fill(0.0),
                Some(row) => {
                    let row = &plane[row * self.g.width..][..self.g.width];
                    self.copy(simd, row, 1, line);
                }
            }
        }
    }

    /// Copies the `count` rows of `image`, one to each line.
    //
    // No iterators over chunks: they divide, which takes as long as copying a short row.
    #[inline(always)]
    fn copy<S: Simd>(&self, simd: S, image: &[f32], count: usize, lines: &mut [f32]) {
        let (width, left) = (self.g.width, self.g.left());
        if self.g.stride == 1 {
            let lines = &mut lines[self.firsts[0] + left..];
            copy_rows(simd, image, [count, width], lines, self.pitch);
        } else {
            let offsets = [self.column(left), self.column(left + 1)];
            take_rows_apart(simd, image, [count, width], lines, offsets, self.pitch);
        }
        for (column, source) in &self.wraps {
            let column = self.column(*column);
            for row in 0..count {
                lines[row * self.pitch + column] = image[row * width + source];
            }
        }
    }
}

/// Copies each row of `image` [rows, width] to the start of its line in whole vectors, the last
/// filled up with zeros.
#[inline(always)]
fn copy_rows<S: Simd>(
    simd: S,
    image: &[f32],
    [rows, width]: [usize; 2],
    lines: &mut [f32],
    pitch: usize,
) {
    assert!(
        image.len() >= rows * width
            && lines.len() >= (rows - 1) * pitch + width.next_multiple_of(S::F32_LANES),
        "room for whole vectors"
    );
    if width == S::F32_LANES {
        // Rows so short that the loop below would take longer than copying.
        for row in 0..rows {
            // SAFETY: a row is a vector; its line has room for one, as asserted.
            unsafe { store::<S>(lines, row * pitch, load::<S>(image, row * width)) };
        }
        return;
    }
    let whole = width - width % S::F32_LANES;
    let tail = Tail::new(simd, width - whole);
    for row in 0..rows {
        let (from, to) = (row * width, row * pitch);
        for x in (0..whole).step_by(S::F32_LANES) {
            // SAFETY: a vector from x ends within row `row` of `image`, and there is room for it in
            // its line: asserted above.
            unsafe { store::<S>(lines, to + x, load::<S>(image, from + x)) };
        }
        if whole < width {
            // SAFETY: the rest of the row; its line has room for a whole vector, as above.
            unsafe { store::<S>(lines, to + whole, tail.load(simd, image, from + whole)) };
        }
    }
}

/// Copies each row of `image` [rows, width] to its line, even columns to one place and odd ones to another, in
/// whole vectors, the last filled up with zeros.
#[inline(always)]
fn take_rows_apart<S: Simd>(
    simd: S,
    image: &[f32],
    [rows, width]: [usize; 2],
    lines: &mut [f32],
    offsets: [usize; 2],
    pitch: usize,
) {
    let pair = 2 * S::F32_LANES;
    let whole = width - width % pair;
    let written = width.next_multiple_of(pair) / 2;
    assert!(
        image.len() >= rows * width
            && lines.len() >= (rows - 1) * pitch + offsets[0].max(offsets[1]) + written,
        "room for whole vectors"
    );
    let tails = [
        Tail::new(simd, width - whole),
        Tail::new(simd, (width - whole).saturating_sub(S::F32_LANES)),
    ];
    for row in 0..rows {
        let from = row * width;
        let to = [row * pitch + offsets[0], row * pitch + offsets[1]];
        for x in (0..whole).step_by(pair) {
            // SAFETY: two vectors from x end within row `row` of `image`, and there is room for
            // half as many columns in both places of its line: asserted above.
            unsafe {
                let first = load::<S>(image, from + x);
                let second = load::<S>(image, from + x + S::F32_LANES);
                let [even, odd] = apart::<S>(first, second);
                store::<S>(lines, to[0] + x / 2, even);
                store::<S>(lines, to[1] + x / 2, odd);
            }
        }
        if whole < width {
            let next = (whole + S::F32_LANES).min(width);
            // SAFETY: the rest of the row; its line has room for whole vectors, as above.
            unsafe {
                let first = tails[0].load(simd, image, from + whole);
                let second = tails[1].load(simd, image, from + next);
                let [even, odd] = apart::<S>(first, second);
                store::<S>(lines, to[0] + whole / 2, even);
                store::<S>(lines, to[1] + whole / 2, odd);
            }
        }
    }
}
