//! Depthwise planes, a band of rows at a time: what the loops for outputs and gradients share.

use super::geometry::Geometry;
use super::lines::Lines;
use pulp::Simd;

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
    /// Elements of an image from one band to the next.
    band_pixels: usize,
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
        Self {
            kernel: g.kernel_height,
            stride: g.stride,
            height: g.output_height,
            width: g.output_width,
            pixels: g.pixels(),
            lines,
            band,
            band_pixels: (band * g.stride * g.width).min(g.pixels()),
        }
    }

    /// Elements of working memory for [`Bands::new`]: the lines of two bands.
    pub fn room(&self) -> usize {
        2 * self.band_room()
    }

    /// Elements that the lines of one band take.
    fn band_room(&self) -> usize {
        self.lines.count(self.band) * self.lines.pitch
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

    /// Where the part of the images begins that the band after the next one adds to those before.
    #[inline(always)]
    pub fn ahead(&self, place: Place) -> usize {
        let rows = place.first * self.band_pixels / self.band;
        place.plane * self.pixels + rows + 2 * self.band_pixels
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

/// All bands of some planes, one after the other. A band's lines are written one band ahead: read
/// at once, they would not be in the cache yet.
pub(super) struct Bands<'a> {
    plane: Plane<'a>,
    images: &'a [f32],
    count: usize,
    now: &'a mut [f32],
    next: &'a mut [f32],
    coming: Place,
    begun: bool,
}

impl<'a> Bands<'a> {
    /// `memory` has [`Plane::room`].
    pub fn new(plane: Plane<'a>, images: &'a [f32], memory: &'a mut [f32]) -> Self {
        memory.fill(0.0);
        let (now, next) = memory.split_at_mut(plane.band_room());
        Self {
            plane,
            images,
            count: images.len() / plane.pixels,
            now,
            next,
            coming: Place::default(),
            begun: false,
        }
    }

    /// The next band, whose lines are then [`Bands::lines`].
    //
    // No closures in here: one that is called twice is not inlined, and then copies vectors that
    // its machine does not have.
    #[inline(always)]
    pub fn next<S: Simd>(&mut self, simd: S) -> Option<Place> {
        loop {
            std::mem::swap(&mut self.now, &mut self.next);
            let place = self.coming;
            // The first time, only the lines of the first band are written.
            let fill = if self.begun {
                if place.plane == self.count {
                    return None;
                }
                self.plane.after(place)
            } else {
                place
            };
            self.coming = fill;
            if fill.plane < self.count {
                let form = self.plane.lines;
                let image = &self.images[fill.plane * self.plane.pixels..][..self.plane.pixels];
                let lines = form.count(self.plane.rows(fill)) * form.pitch;
                let lines = &mut self.next[..lines];
                form.fill(simd, image, fill.first * self.plane.stride, lines);
            }
            if self.begun {
                return Some(place);
            }
            self.begun = true;
        }
    }

    /// The lines of this band.
    #[inline(always)]
    pub fn lines(&self) -> &[f32] {
        self.now
    }
}
