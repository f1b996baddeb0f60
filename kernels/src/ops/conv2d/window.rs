//! The rows of a padded image that a few rows of the output see, and no others: they move down the
//! image, each new one in the place of one that is not seen any more.

use super::geometry::Geometry;
use super::lines::Lines;
use super::vector::prefetch_far;
use crate::math::LANES;
use pulp::Simd;
use std::ops::Range;

pub(super) struct Window<'a> {
    g: &'a Geometry,
    lines: &'a Lines<'a>,
    image: &'a [f32],
    /// [channel, row of the padded image modulo `slots`, `lines.pitch`].
    memory: &'a mut [f32],
    slots: usize,
    /// For each tap its channel's and column's place, and its row of the kernel.
    taps: Vec<(usize, usize)>,
    /// Where each row of the padded image that one row of the output sees begins in its channel.
    starts: Vec<usize>,
    /// Rows of the padded image that were copied.
    there: usize,
}

impl<'a> Window<'a> {
    /// Elements that it takes, for so many rows of the output.
    pub fn room(g: &Geometry, lines: &Lines, rows: usize) -> usize {
        g.channels * lines.count(rows) * lines.pitch
    }

    /// Of one image, in memory of [`Window::room`], with so many taps of the kernel.
    pub fn new(
        g: &'a Geometry,
        lines: &'a Lines<'a>,
        rows: usize,
        taps: &[usize],
        image: &'a [f32],
        memory: &'a mut [f32],
    ) -> Self {
        memory.fill(0.0);
        let slots = lines.count(rows);
        let of_tap = |tap: &usize| {
            let (row, column) = (tap / g.kernel_width, tap % g.kernel_width);
            let (channel, row) = (row / g.kernel_height, row % g.kernel_height);
            (channel * slots * lines.pitch + lines.column(column), row)
        };
        Self {
            g,
            lines,
            image,
            memory,
            slots,
            taps: taps.iter().map(of_tap).collect(),
            starts: vec![0; g.kernel_height],
            there: 0,
        }
    }

    /// Where [`Window::move_to`] finds what it says.
    #[inline(always)]
    pub fn memory(&self) -> &[f32] {
        self.memory
    }

    /// Moves to what some rows of the output see, further down than the last, and writes where the
    /// first pixel of each finds each tap. From there, all of the row's pixels and as many more
    /// as fill a multiple of 16 have a place.
    #[inline(always)]
    pub fn move_to<S: Simd>(&mut self, simd: S, outputs: Range<usize>, places: &mut [usize]) {
        let (g, slots, pitch) = (self.g, self.slots, self.lines.pitch);
        let first = outputs.start * g.stride;
        let end = first + self.lines.count(outputs.len());
        for row in self.there.max(first)..end {
            let planes = self.image.chunks_exact(g.pixels());
            let channels = self.memory.chunks_exact_mut(slots * pitch);
            for (plane, channel) in planes.zip(channels) {
                let line = &mut channel[row % slots * pitch..][..pitch];
                self.lines.fill_one_by_one(simd, plane, row..row + 1, line);
            }
        }
        self.there = end;
        let mut farthest = 0;
        for (y, places) in outputs.zip(places.chunks_exact_mut(self.taps.len())) {
            for (ky, start) in self.starts.iter_mut().enumerate() {
                *start = (y * g.stride + ky) % slots * pitch;
            }
            for (place, (at, ky)) in places.iter_mut().zip(&self.taps) {
                *place = at + self.starts[*ky];
                farthest = farthest.max(*place);
            }
        }
        assert!(
            farthest + g.output_width.next_multiple_of(LANES) <= self.memory.len(),
            "the pixels of a row at each tap"
        );
    }

    /// The rows of the image that so many more rows of the output see, to be asked for in parts.
    #[inline(always)]
    pub fn ahead(&self, outputs: usize, parts: usize) -> Ahead<'a> {
        let g = self.g;
        let row = self.there.saturating_sub(g.top());
        let span = (outputs * g.stride).min(g.height.saturating_sub(row)) * g.width;
        let share = (g.channels * span.next_multiple_of(LANES)).div_ceil(parts);
        Ahead {
            image: self.image,
            channels: g.channels,
            pixels: g.pixels(),
            from: row * g.width,
            span,
            share: share.next_multiple_of(LANES),
            channel: 0,
            at: 0,
        }
    }
}

/// Some rows of an image.
pub(super) struct Ahead<'a> {
    image: &'a [f32],
    channels: usize,
    /// Elements of a channel, where the rows begin in it, and how many elements they have.
    pixels: usize,
    from: usize,
    span: usize,
    /// Elements of each part.
    share: usize,
    /// What comes next.
    channel: usize,
    at: usize,
}

impl Ahead<'_> {
    /// Asks for the next part.
    #[inline(always)]
    pub fn ask(&mut self) {
        let mut asked = 0;
        while asked < self.share && self.channel < self.channels {
            prefetch_far(self.image, self.channel * self.pixels + self.from + self.at);
            asked += LANES;
            self.at += LANES;
            if self.at >= self.span {
                self.at = 0;
                self.channel += 1;
            }
        }
    }
}
