//! Rows of a padded image, a few at a time, where a depthwise loop finds them: in the first-level
//! cache, every row in vectors of its own. Nothing else of the padded image is ever made.

use super::geometry::Geometry;
use super::vector::{Tail, load, store};
use crate::math::LANES;
use pulp::Simd;
use std::ops::Range;

/// Columns beyond the last output that a tile may read.
const TILE: usize = 4 * LANES;
/// Elements of one band, of which two leave room in the first-level cache for what they meet.
const ROOM: usize = 4 * 1024;

/// How the rows lie. With a stride of 2 the even columns come first, then the odd ones.
pub(super) struct Lines<'a> {
    g: &'a Geometry,
    /// From one row to the next.
    pub pitch: usize,
    /// From the even columns to the odd ones.
    phase: usize,
    /// Where column 0 of the padded image lies.
    first: usize,
    /// Padded columns that show a column of the image.
    wraps: Vec<(usize, usize)>,
    /// Rows of the padded image that show the image's rows, from the first.
    inner: Range<usize>,
}

impl<'a> Lines<'a> {
    /// For strides of 1 and 2.
    pub fn new(g: &'a Geometry) -> Self {
        let round = |length: usize| length.next_multiple_of(LANES);
        let left = g.left();
        let wraps = g.fringe().iter();
        let wraps = wraps.filter_map(|(column, source)| Some((*column, (*source)?)));
        let read = g.output_width.next_multiple_of(TILE) + g.kernel_width;
        // With a stride of 1 the image's own columns begin a vector.
        let (first, written) = match g.stride {
            1 => (round(left) - left, left + round(g.width)),
            _ => (0, (left + g.width) / 2 + 1),
        };
        let phase = round(first + read.max(written).max(g.padded_width().div_ceil(g.stride)));
        Self {
            g,
            pitch: phase * g.stride,
            phase,
            first,
            wraps: wraps.collect(),
            inner: g.top()..g.top() + g.height,
        }
    }

    /// Where column `x` of the padded image lies in its row.
    #[inline(always)]
    pub fn column(&self, x: usize) -> usize {
        match self.g.stride {
            1 => self.first + x,
            _ => x % 2 * self.phase + x / 2,
        }
    }

    /// Rows of the padded image for these rows of the output.
    pub fn count(&self, outputs: usize) -> usize {
        (outputs - 1) * self.g.stride + self.g.kernel_height
    }

    /// Output rows whose lines stay in the cache, in multiples of `tile`.
    pub fn band(&self, tile: usize) -> usize {
        let lines = (ROOM / self.pitch).saturating_sub(self.g.kernel_height);
        let rows = lines / self.g.stride / tile * tile;
        rows.clamp(tile, self.g.output_height.max(tile))
    }

    /// Writes the rows of the padded image of `plane` from `first_row`, as many as `lines` holds.
    /// What lies outside the image must be zero before the first call for these lines.
    #[inline(always)]
    pub fn fill<S: Simd>(&self, simd: S, plane: &[f32], first_row: usize, lines: &mut [f32]) {
        let rows = first_row..first_row + lines.len() / self.pitch;
        // Most rows show the image's in their order; those are copied without a look at each.
        let inner = self.inner.start.max(rows.start)..self.inner.end.min(rows.end);
        if inner.is_empty() {
            self.fill_one_by_one(simd, plane, first_row, lines);
            return;
        }
        let (before, lines) = lines.split_at_mut((inner.start - rows.start) * self.pitch);
        let (middle, after) = lines.split_at_mut(inner.len() * self.pitch);
        self.fill_one_by_one(simd, plane, rows.start, before);
        let first = inner.start - self.inner.start;
        let image = &plane[first * self.g.width..][..inner.len() * self.g.width];
        self.copy(simd, image, middle);
        self.fill_one_by_one(simd, plane, inner.end, after);
    }

    #[inline(always)]
    fn fill_one_by_one<S: Simd>(
        &self,
        simd: S,
        plane: &[f32],
        first_row: usize,
        lines: &mut [f32],
    ) {
        let sources = &self.g.rows()[first_row..];
        for (line, source) in lines.chunks_exact_mut(self.pitch).zip(sources) {
            match source {
                None => line.fill(0.0),
                Some(row) => {
                    let row = &plane[row * self.g.width..][..self.g.width];
                    self.copy(simd, row, line);
                }
            }
        }
    }

    /// Copies rows of the image, one to each line.
    #[inline(always)]
    fn copy<S: Simd>(&self, simd: S, image: &[f32], lines: &mut [f32]) {
        let (width, left) = (self.g.width, self.g.left());
        if self.g.stride == 1 {
            let offset = self.first + left;
            copy_rows(simd, image, width, &mut lines[offset..], self.pitch);
        } else {
            let rows = image.chunks_exact(width);
            for (row, line) in rows.zip(lines.chunks_exact_mut(self.pitch)) {
                let (even, odd) = line.split_at_mut(self.phase);
                // The first column of the image may be an odd one of the padded image.
                let (ours, next) = match left % 2 {
                    0 => (&mut even[left / 2..], &mut odd[left / 2..]),
                    _ => (&mut odd[left / 2..], &mut even[left / 2 + 1..]),
                };
                let (pairs, rest) = row.as_chunks::<2>();
                for ((pair, ours), next) in pairs.iter().zip(&mut *ours).zip(next) {
                    [*ours, *next] = *pair;
                }
                if let [last] = rest {
                    ours[pairs.len()] = *last;
                }
            }
        }
        if !self.wraps.is_empty() {
            let rows = image.chunks_exact(width);
            for (row, line) in rows.zip(lines.chunks_exact_mut(self.pitch)) {
                for (column, source) in &self.wraps {
                    line[self.column(*column)] = row[*source];
                }
            }
        }
    }
}

/// Copies each row of `image` to the start of its line in whole vectors, the last filled up with
/// zeros.
#[inline(always)]
fn copy_rows<S: Simd>(simd: S, image: &[f32], width: usize, lines: &mut [f32], pitch: usize) {
    let whole = width - width % S::F32_LANES;
    let rows = image.len() / width;
    assert!(
        lines.len() >= (rows - 1) * pitch + width.next_multiple_of(S::F32_LANES),
        "room for whole vectors"
    );
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
