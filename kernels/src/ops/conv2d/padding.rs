//! Copies an image into its padded image, and adds a padded image back.

use super::geometry::Geometry;
use crate::simd;
use pulp::{Simd, WithSimd};

impl Geometry {
    /// Writes every channel of `image` with its padding around it, of each channel the rows from
    /// `first_row`, `plane_step` elements. Within a row, the columns that share a remainder modulo the
    /// stride lie together (polyphase order), so that the pixels a tap reads are neighbours.
    pub fn pad_rows(&self, image: &[f32], first_row: usize, plane_step: usize, padded: &mut [f32]) {
        let mut line = match self.stride {
            1 | 2 => Vec::new(),
            _ => vec![0.0; self.row_step()],
        };
        let planes = image.chunks_exact(self.pixels());
        for (plane, padded) in planes.zip(padded.chunks_exact_mut(plane_step)) {
            let padded_rows = padded.chunks_exact_mut(self.row_step());
            for (padded_row, source) in padded_rows.zip(&self.rows()[first_row..]) {
                let Some(source) = source else {
                    padded_row.fill(0.0);
                    continue;
                };
                let row = &plane[source * self.width..][..self.width];
                match self.stride {
                    1 => {
                        self.pad_row(row, padded_row);
                        continue;
                    }
                    2 => {
                        self.pad_halves(row, padded_row);
                        continue;
                    }
                    _ => self.pad_row(row, &mut line),
                }
                let phases = padded_row.chunks_exact_mut(self.phase_width());
                for (phase, values) in phases.enumerate() {
                    let line = line[phase..].iter().step_by(self.stride);
                    for (value, from) in values.iter_mut().zip(line) {
                        *value = *from;
                    }
                }
            }
        }
    }

    fn pad_row(&self, row: &[f32], padded_row: &mut [f32]) {
        padded_row[self.left()..][..self.width].copy_from_slice(row);
        for (column, source) in self.fringe() {
            padded_row[*column] = source.map_or(0.0, |source| row[source]);
        }
    }

    /// The even columns of the padded row, then the odd ones.
    fn pad_halves(&self, row: &[f32], padded_row: &mut [f32]) {
        let (even, odd) = padded_row.split_at_mut(self.phase_width());
        let halves = if self.left().is_multiple_of(2) {
            [&mut *even, &mut *odd]
        } else {
            [&mut *odd, &mut *even]
        };
        simd::dispatch(Halve {
            row,
            halves,
            starts: [self.left() / 2, self.left().div_ceil(2)],
        });
        for (column, source) in self.fringe() {
            let half = if column % 2 == 0 {
                &mut *even
            } else {
                &mut *odd
            };
            half[column / 2] = source.map_or(0.0, |source| row[source]);
        }
        // With an odd width the last odd column does not exist; it is never read.
        if !self.padded_width().is_multiple_of(2) {
            odd[self.padded_width() / 2] = 0.0;
        }
    }

    /// The transpose of [`Geometry::pad_rows`]: adds every padded pixel to the pixel it copies.
    pub fn fold(&self, padded: &[f32], image: &mut [f32]) {
        let mut line = vec![0.0; self.row_step()];
        let planes = image.chunks_exact_mut(self.pixels());
        for (plane, padded) in planes.zip(padded.chunks_exact(self.plane_step())) {
            simd::dispatch(Fold {
                g: self,
                padded,
                line: &mut line,
                plane,
            });
        }
    }

    #[inline(always)]
    fn fold_row(&self, line: &[f32], row: &mut [f32]) {
        for (sum, value) in row.iter_mut().zip(&line[self.left()..]) {
            *sum += value;
        }
        for (column, source) in self.fringe() {
            if let Some(source) = source {
                row[*source] += line[*column];
            }
        }
    }

    /// The columns of one padded row in image order (the inverse of the polyphase order).
    #[inline(always)]
    fn join_phases(&self, padded_row: &[f32], line: &mut [f32]) {
        match self.stride {
            1 => line.copy_from_slice(padded_row),
            2 => {
                let (even, odd) = padded_row.split_at(self.phase_width());
                let pairs = line.as_chunks_mut::<2>().0.iter_mut();
                for (pair, (even, odd)) in pairs.zip(even.iter().zip(odd)) {
                    *pair = [*even, *odd];
                }
            }
            stride => {
                let phases = padded_row.chunks_exact(self.phase_width());
                for (phase, values) in phases.enumerate() {
                    let line = line[phase..].iter_mut().step_by(stride);
                    for (value, from) in line.zip(values) {
                        *value = *from;
                    }
                }
            }
        }
    }
}

/// Copies every second element of a row to one half, from its start, and the others to the other.
struct Halve<'a> {
    row: &'a [f32],
    halves: [&'a mut [f32]; 2],
    starts: [usize; 2],
}

impl WithSimd for Halve<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let [first, second] = self.halves;
        let (first, second) = (&mut first[self.starts[0]..], &mut second[self.starts[1]..]);
        let (pairs, last) = self.row.as_chunks::<2>();
        for ((a, b), pair) in first.iter_mut().zip(second).zip(pairs) {
            [*a, *b] = *pair;
        }
        if let [last] = last {
            first[pairs.len()] = *last;
        }
    }
}

/// [`Geometry::fold`] for one plane.
struct Fold<'a> {
    g: &'a Geometry,
    padded: &'a [f32],
    line: &'a mut [f32],
    plane: &'a mut [f32],
}

impl WithSimd for Fold<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let g = self.g;
        for (padded_row, source) in self.padded.chunks_exact(g.row_step()).zip(g.rows()) {
            let Some(source) = source else { continue };
            g.join_phases(padded_row, self.line);
            g.fold_row(self.line, &mut self.plane[source * g.width..][..g.width]);
        }
    }
}
