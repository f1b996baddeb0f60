//! Panels of 64 output pixels: gathered from a padded image, and given back to outputs or images.

use super::geometry::Geometry;
use super::tile::{PANEL, ROWS, Sink, Tile};
use pulp::Arch;

/// Writes the tiles of a panel to the rows of an output that they belong to.
pub(super) struct FillRows<'a> {
    /// From the first pixel of the panel.
    pub output: &'a mut [f32],
    /// Of one row.
    pub pixels: usize,
    pub valid: usize,
    pub start: Start<'a>,
}

/// What a tile is added to.
pub(super) enum Start<'a> {
    Zero,
    /// One number for each row.
    Bias(&'a [f32]),
    /// What earlier taps left in the output.
    Sum,
}

impl Sink for FillRows<'_> {
    #[inline(always)]
    fn take(&mut self, block: usize, tile: &Tile) {
        let rows = self.output[block * ROWS * self.pixels..].chunks_mut(self.pixels);
        for (index, (row, sums)) in rows.zip(tile).enumerate() {
            let (row, sums) = (&mut row[..self.valid], &sums[..self.valid]);
            match self.start {
                Start::Zero => row.copy_from_slice(sums),
                Start::Bias(bias) => {
                    let bias = bias[block * ROWS + index];
                    for (value, sum) in row.iter_mut().zip(sums) {
                        *value = sum + bias;
                    }
                }
                Start::Sum => {
                    for (value, sum) in row.iter_mut().zip(sums) {
                        *value += sum;
                    }
                }
            }
        }
    }
}

/// Adds the tiles of a panel to the places in a padded image that its taps look at.
pub(super) struct AddTaps<'a> {
    pub image: &'a mut [f32],
    pub taps: &'a [usize],
    pub runs: &'a Runs,
}

impl Sink for AddTaps<'_> {
    #[inline(always)]
    fn take(&mut self, block: usize, tile: &Tile) {
        for (tap, sums) in self.taps[block * ROWS..].iter().zip(tile) {
            self.runs.add(self.image, *tap, sums);
        }
    }
}

/// Where the pixels of one panel lie in the padded image, in runs of neighbours.
pub(super) struct Runs {
    length: usize,
    starts: [usize; PANEL],
    /// Pixels of the panel that exist; the last panel of an image may reach beyond it.
    pub valid: usize,
}

impl Runs {
    pub fn new(g: &Geometry, first_pixel: usize) -> Self {
        // The longest power of two that never crosses the end of a row.
        let length = 1 << g.output_width.trailing_zeros().min(4);
        let valid = PANEL.min(g.output_pixels() - first_pixel);
        // Beyond the image, any place will do.
        let mut starts = [0; PANEL];
        for (start, pixel) in starts.iter_mut().zip((first_pixel..).step_by(length)) {
            if pixel < first_pixel + valid {
                *start = g.pixel_offset(pixel);
            }
        }
        Self {
            length,
            starts,
            valid,
        }
    }

    /// One row of the panel for each tap.
    pub fn gather(&self, image: &[f32], taps: &[usize], panel: &mut [[f32; PANEL]]) {
        Arch::new().dispatch(|| match self.length {
            16 => self.gather_runs::<16>(image, taps, panel),
            8 => self.gather_runs::<8>(image, taps, panel),
            4 => self.gather_runs::<4>(image, taps, panel),
            2 => self.gather_runs::<2>(image, taps, panel),
            _ => self.gather_runs::<1>(image, taps, panel),
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

    /// The transpose of [`Runs::gather`], for one tap.
    #[inline(always)]
    fn add(&self, image: &mut [f32], tap: usize, sums: &[f32; PANEL]) {
        match self.length {
            16 => self.add_runs::<16>(image, tap, sums),
            8 => self.add_runs::<8>(image, tap, sums),
            4 => self.add_runs::<4>(image, tap, sums),
            2 => self.add_runs::<2>(image, tap, sums),
            _ => self.add_runs::<1>(image, tap, sums),
        }
    }

    #[inline(always)]
    fn add_runs<const N: usize>(&self, image: &mut [f32], tap: usize, sums: &[f32; PANEL]) {
        let image = &mut image[tap..];
        let runs = sums[..self.valid].as_chunks::<N>().0;
        for (run, start) in runs.iter().zip(&self.starts) {
            if let Some(values) = image[*start..].first_chunk_mut::<N>() {
                for (value, sum) in values.iter_mut().zip(run) {
                    *value += sum;
                }
            }
        }
    }
}
