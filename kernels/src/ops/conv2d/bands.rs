//! Depthwise planes, a band of rows at a time: what the loops for outputs and gradients share.

use super::geometry::Geometry;
use super::lines::Lines;
use super::vector::{prefetch, prefetch_far};
use crate::math::LANES;
use pulp::Simd;

/// Elements of a band so short that its first line is not yet in the cache when the last is
/// written, and so small that the next one has room beside it.
const SHORT: usize = 3 * 1024;

/// Planes of one kernel size, height and width.
#[derive(Clone, Copy)]
pub(super) struct Plane<'a> {
    pub kernel: usize,
    pub stride: usize,
    /// Of the output.
    pub height: usize,
    pub width: usize,
    /// Elements of an image.
    pub pixels: usize,
    pub lines: &'a Lines<'a>,
    /// Output rows whose lines exist together.
    band: usize,
    /// Elements of an image from one band to the next, and from one output row to the next.
    band_pixels: usize,
    row_pixels: usize,
    /// Elements that the lines of one band take.
    band_room: usize,
    /// Bands whose lines exist together.
    depth: usize,
}

/// A band of one of the planes: its number, and its first row of the output.
#[derive(Clone, Copy, Default)]
pub(super) struct Place {
    pub plane: usize,
    pub first: usize,
}

impl<'a> Plane<'a> {
    pub fn new(g: &Geometry, lines: &'a Lines<'a>) -> Self {
        let band = lines.band;
        let band_room = lines.count(band) * lines.pitch;
        Self {
            kernel: g.kernel_height,
            stride: g.stride,
            height: g.output_height,
            width: g.output_width,
            pixels: g.pixels(),
            lines,
            band,
            band_pixels: (band * g.stride * g.width).min(g.pixels()),
            row_pixels: g.stride * g.width,
            band_room,
            depth: if band_room <= SHORT { 2 } else { 1 },
        }
    }

    /// Elements of working memory for [`Bands::new`].
    pub fn room(&self) -> usize {
        self.depth * self.band_room
    }

    /// The output rows of a band.
    #[inline(always)]
    pub fn rows(&self, place: Place) -> usize {
        self.band.min(self.height - place.first)
    }

    /// Whether a band is the last of its plane.
    #[inline(always)]
    pub fn ends(&self, place: Place) -> bool {
        place.first + self.band >= self.height
    }

    /// The part of the images that is copied next, once this band is done.
    #[inline(always)]
    pub fn ahead(&self, images: &'a [f32], place: Place) -> Ahead<'a> {
        let rows = place.first * self.row_pixels + self.depth * self.band_pixels;
        self.ahead_from(images, place.plane * self.pixels + rows)
    }

    /// The same of what lies as the outputs do.
    #[inline(always)]
    pub fn gradient_ahead(&self, gradients: &'a [f32], place: Place) -> Ahead<'a> {
        let rows = place.first + self.depth * self.band.min(self.height);
        self.ahead_from(gradients, (place.plane * self.height + rows) * self.width)
    }

    #[inline(always)]
    fn ahead_from(&self, values: &'a [f32], at: usize) -> Ahead<'a> {
        Ahead {
            values,
            at,
            near: self.kernel > 3,
        }
    }

    /// The place after `place`.
    #[inline(always)]
    fn after(&self, place: Place) -> Place {
        if self.ends(place) {
            Place {
                plane: place.plane + 1,
                first: 0,
            }
        } else {
            Place {
                first: place.first + self.band,
                ..place
            }
        }
    }
}

/// What will be read soon, to be asked for while something else is computed.
#[derive(Clone, Copy)]
pub(super) struct Ahead<'a> {
    values: &'a [f32],
    at: usize,
    /// Whether into the first-level cache: where many products meet a pixel there is time for it.
    /// Where few do, what is asked for waits for the memory, and what is computed with behind it.
    near: bool,
}

impl Ahead<'_> {
    /// Asks for the next elements, whole lines of 16.
    #[inline(always)]
    pub fn ask(&mut self, elements: usize) {
        for line in (0..elements).step_by(LANES) {
            if self.near {
                prefetch(self.values, self.at + line);
            } else {
                prefetch_far(self.values, self.at + line);
            }
        }
        self.at += elements;
    }

    /// The same from so many elements further on.
    #[inline(always)]
    pub fn after(self, elements: usize) -> Self {
        Self {
            at: self.at + elements,
            ..self
        }
    }
}

/// All bands of some planes, one after the other. The lines of a short band are written one band
/// ahead: read at once, they would not be in the cache yet.
pub(super) struct Bands<'a> {
    plane: Plane<'a>,
    images: &'a [f32],
    /// How many images there are.
    count: usize,
    memory: &'a mut [f32],
    /// The next band to be written, and where.
    written: Place,
    write_at: usize,
    /// The next band to be returned, and how many of those written are not.
    coming: Place,
    waiting: usize,
    /// Where the band lies that was returned last.
    read_at: usize,
}

impl<'a> Bands<'a> {
    /// `memory` has [`Plane::room`].
    pub fn new(plane: Plane<'a>, images: &'a [f32], memory: &'a mut [f32]) -> Self {
        memory.fill(0.0);
        Self {
            plane,
            images,
            count: images.len() / plane.pixels,
            memory,
            written: Place::default(),
            write_at: 0,
            coming: Place::default(),
            waiting: 0,
            read_at: (plane.depth - 1) * plane.band_room,
        }
    }

    /// The next band, whose lines are then [`Bands::lines`].
    //
    // No closures in here: one that is called twice is not inlined, and then copies vectors that
    // its machine does not have.
    #[inline(always)]
    pub fn next<S: Simd>(&mut self, simd: S) -> Option<Place> {
        let plane = self.plane;
        if self.coming.plane == self.count {
            return None;
        }
        while self.waiting < plane.depth && self.written.plane < self.count {
            let image = &self.images[self.written.plane * plane.pixels..][..plane.pixels];
            let lines = &mut self.memory[self.write_at..][..plane.band_room];
            let (row, rows) = (self.written.first * plane.stride, plane.rows(self.written));
            let count = plane.lines.count(rows);
            plane.lines.fill(simd, image, row, count, lines);
            self.written = plane.after(self.written);
            self.write_at = self.slot_after(self.write_at);
            self.waiting += 1;
        }
        let place = self.coming;
        self.coming = plane.after(place);
        self.waiting -= 1;
        self.read_at = self.slot_after(self.read_at);
        Some(place)
    }

    /// The lines of this band.
    #[inline(always)]
    pub fn lines(&self) -> &[f32] {
        &self.memory[self.read_at..][..self.plane.band_room]
    }

    #[inline(always)]
    fn slot_after(&self, at: usize) -> usize {
        let next = at + self.plane.band_room;
        if next < self.plane.room() { next } else { 0 }
    }
}
