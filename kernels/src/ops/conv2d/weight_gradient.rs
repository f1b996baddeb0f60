//! The weight gradient of a dense convolution on the CPU as a matrix product: output gradients times the
//! transpose of im2col, of which only a panel of 32 taps and 192 pixels is packed at a time, in the L1
//! cache.
//!
//! Sums over samples are added in sample order, and the contributions of bands of rows in the order of
//! rows, so the number of threads does not change a bit.

use super::dense::split;
use super::geometry::Geometry;
use super::microkernel::{DEPTH, PANEL, UNIT, pack, packed_rows, panel_product, piece};
use super::panel::{Keep, Panel};
use super::transpose::transpose_16x16;
use crate::buffer;
use crate::math::{LANES, add_assign};
use crate::scratch;
use crate::simd;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Elements of a band of image and gradient, which stay in the L2 cache.
const BAND: usize = 320 * 1024;
/// Partial sums that stay in the L2 cache until they are written in long rows.
const BLOCK: usize = 128 * 1024;
/// Elements of the gradient in a band, where there are more than [`MOST_WEIGHTS`] weights: few bands,
/// because each band reads and writes all weights.
const MOST_GRADIENT: usize = 512 * 1024;
/// Beyond this many weights, adding them up band by band costs more than cache misses.
const MOST_WEIGHTS: usize = 1024 * 1024;
/// Beyond this many weights, samples are added in place, without partial sums for each sample.
const MANY_WEIGHTS: usize = 256 * 1024;

/// `[O, C / groups, kernel height, kernel width]`.
pub(super) fn weight_gradient(g: &Geometry, input: &[f32], gradient: &[f32]) -> Vec<f32> {
    let (weights, taps) = (g.outputs * g.group_taps(), g.group_taps());
    let (image_len, gradient_len) = (g.channels * g.pixels(), g.outputs * g.output_pixels());
    let mut found;
    if weights > MANY_WEIGHTS || g.batch == 1 {
        found = buffer::any(weights);
        let split = split(g, 1, g.outputs);
        for sample in 0..g.batch {
            let image = &input[sample * image_len..][..image_len];
            let gradient = &gradient[sample * gradient_len..][..gradient_len];
            found
                .par_chunks_mut(split * taps)
                .zip(gradient.par_chunks(split * g.output_pixels()))
                .for_each(|(found, gradient)| one_sample(g, image, gradient, sample > 0, found));
        }
    } else {
        found = buffer::zeros(weights);
        let parts: Vec<Vec<f32>> = input
            .par_chunks_exact(image_len)
            .zip(gradient.par_chunks_exact(gradient_len))
            .map(|(image, gradient)| {
                let mut part = buffer::any(weights);
                one_sample(g, image, gradient, false, &mut part);
                part
            })
            .collect();
        for part in parts {
            add_assign(&mut found, &part);
            buffer::recycle(part);
        }
    }
    found
}

/// Adds the gradient of one sample to `found`, or writes it there, for as many outputs as `gradient`
/// has: `[output, channel of the group, kernel row, kernel column]`.
fn one_sample(g: &Geometry, image: &[f32], gradient: &[f32], add: bool, found: &mut [f32]) {
    let (channels, taps) = (g.channels / g.groups, g.group_taps());
    let outputs = found.len() / taps / g.groups;
    // The same for every number of threads.
    let row = channels * g.stride * g.row_step() + g.outputs / g.groups * g.output_width;
    let band = if g.outputs * taps > MOST_WEIGHTS {
        MOST_GRADIENT / (g.outputs / g.groups * g.output_width)
    } else {
        BAND / row
    };
    let band = band.clamp(1, g.output_height);
    let (padded_len, plane_step) = if g.is_padded() {
        let plane_step = ((band - 1) * g.stride + g.kernel_height) * g.row_step();
        (channels * plane_step, plane_step)
    } else {
        (0, g.plane_step())
    };
    // A multiple of 16, so that the runs of 16 pixels of a row are contiguous.
    let piece = piece(band * g.output_width).next_multiple_of(LANES);
    let padded_outputs = outputs.next_multiple_of(UNIT);
    let panels = (BLOCK / (padded_outputs * PANEL)).clamp(1, taps.div_ceil(PANEL));
    let together = panels * PANEL;
    let step = together + 16; // not a power of two: rows use different cache sets
    let lengths = [
        padded_len,
        DEPTH * PANEL,
        packed_rows(outputs, band * g.output_width, piece) * DEPTH,
        padded_outputs * step,
    ];
    scratch::with(lengths, |[padded, panel, packed, block]| {
        let (panel, packed) = (panel.as_chunks_mut().0, packed.as_chunks_mut().0);
        let groups = image
            .chunks_exact(channels * g.pixels())
            .zip(gradient.chunks_exact(outputs * g.output_pixels()))
            .zip(found.chunks_exact_mut(outputs * taps));
        for ((image, gradient), found) in groups {
            for first_row in (0..g.output_height).step_by(band) {
                let pixels = band.min(g.output_height - first_row) * g.output_width;
                let there = if g.is_padded() {
                    g.pad_rows(image, first_row * g.stride, plane_step, padded);
                    &*padded
                } else {
                    &image[first_row * g.row_step()..]
                };
                let copy = |output: usize, first: usize, terms: &mut [f32]| {
                    let at = output * g.output_pixels() + first_row * g.output_width + first;
                    terms.copy_from_slice(&gradient[at..][..terms.len()]);
                };
                let packed = &mut packed[..packed_rows(outputs, pixels, piece)];
                pack(outputs, pixels, piece, copy, packed);
                let add = add || first_row > 0;
                for first_tap in (0..taps).step_by(together) {
                    let all = together.min(taps - first_tap);
                    for column in (0..all).step_by(PANEL) {
                        let valid = PANEL.min(all - column);
                        let mut places = [0; PANEL];
                        g.tap_offsets_from(first_tap + column, plane_step, &mut places[..valid]);
                        let packed = packed.chunks_exact(padded_outputs);
                        for (first, packed) in (0..pixels).step_by(piece).zip(packed) {
                            let panel = &mut panel[..piece.min(pixels - first)];
                            simd::dispatch(PackTransposed {
                                g,
                                image: there,
                                places: &places,
                                first,
                                panel,
                            });
                            let sink = Keep {
                                block: &mut block[column..],
                                step,
                                add: first > 0,
                            };
                            panel_product(packed, &[Panel(panel)], sink);
                        }
                    }
                    let rows = found.chunks_exact_mut(taps).zip(block.chunks_exact(step));
                    for (found, block) in rows {
                        let found = &mut found[first_tap..][..all];
                        if add {
                            add_assign(found, &block[..all]);
                        } else {
                            found.copy_from_slice(&block[..all]);
                        }
                    }
                }
            }
        }
    });
}

/// Packs the transposed panel: for each pixel from `first`, the values at each tap offset.
struct PackTransposed<'a> {
    g: &'a Geometry,
    image: &'a [f32],
    places: &'a [usize; PANEL],
    first: usize,
    panel: &'a mut [[f32; PANEL]],
}

impl WithSimd for PackTransposed<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { g, image, .. } = self;
        let width = g.output_width;
        // Pixels that are contiguous if they begin at a multiple of it.
        let run = LANES.min(1 << width.trailing_zeros());
        for (index, panel) in self.panel.chunks_mut(LANES).enumerate() {
            let first = self.first + index * LANES;
            let begin = g.pixel_offset(first);
            let together = first % width + LANES <= width;
            if panel.len() < LANES {
                for (pixel, row) in (first..).zip(panel) {
                    let begin = g.pixel_offset(pixel);
                    for (value, place) in row.iter_mut().zip(self.places) {
                        *value = image[place + begin];
                    }
                }
                continue;
            }
            for (half, places) in self.places.as_chunks::<LANES>().0.iter().enumerate() {
                let panel = &mut panel.as_flattened_mut()[half * LANES..];
                if together {
                    transpose_16x16::<S>(&image[begin..], places, panel, PANEL);
                    continue;
                }
                let mut rows = [[0.0; LANES]; LANES];
                match run {
                    8 => self.g.gather_runs::<8>(image, places, first, &mut rows),
                    4 => self.g.gather_runs::<4>(image, places, first, &mut rows),
                    2 => self.g.gather_runs::<2>(image, places, first, &mut rows),
                    _ => self.g.gather_runs::<1>(image, places, first, &mut rows),
                }
                let mut places = [0; LANES];
                for (row, place) in places.iter_mut().enumerate() {
                    *place = row * LANES;
                }
                transpose_16x16::<S>(rows.as_flattened(), &places, panel, PANEL);
            }
        }
    }
}

impl Geometry {
    /// For each tap offset, the values at the 16 pixels from `first`, in contiguous runs of N.
    #[inline(always)]
    fn gather_runs<const N: usize>(
        &self,
        image: &[f32],
        places: &[usize; LANES],
        first: usize,
        rows: &mut [[f32; LANES]; LANES],
    ) {
        for at in (0..LANES).step_by(N) {
            let begin = self.pixel_offset(first + at);
            for (row, place) in rows.iter_mut().zip(places) {
                let values = image[place + begin..].first_chunk::<N>();
                row[at..at + N].copy_from_slice(values.expect("pixels within the image"));
            }
        }
    }
}
