//! Convolution as a product of matrices: weights times im2col, of which only a panel of 64 pixels
//! and 128 taps exists at a time, in the cache.
//!
//! Threads take one sample each. Sums over samples are added in sample order, so the number of
//! threads does not change a bit.

use super::geometry::Geometry;
use super::panel::{AddTaps, FillRows, Runs, Start};
use super::tile::{Lines, PANEL, ROWS, SPAN, UNIT, correlate, panel_product};
use crate::buffer;
use crate::math::add_assign;
use crate::scratch;
use rayon::prelude::*;

/// Taps of the kernel in one panel, at most: 36 KiB.
const DEPTH: usize = 144;

pub(super) fn forward(
    g: &Geometry,
    input: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let (group_outputs, taps) = (g.outputs / g.groups, g.group_taps());
    let blocks: Vec<_> = weight
        .chunks_exact(group_outputs * taps)
        .map(|weight| {
            blocks_of(group_outputs, taps, |output, tap| {
                weight[output * taps + tap]
            })
        })
        .collect();
    let pixels = g.output_pixels();
    let mut output = buffer::any(g.batch * g.outputs * pixels);
    output
        .par_chunks_exact_mut(g.outputs * pixels)
        .zip(input.par_chunks_exact(g.channels * g.pixels()))
        .for_each(|(output, image)| {
            convolve(g, image, &blocks, bias, output);
        });
    output
}

/// The gradient of the input: the transpose of [`forward`].
pub(super) fn input_gradient(g: &Geometry, weight: &[f32], gradient: &[f32]) -> Vec<f32> {
    let (group_outputs, taps) = (g.outputs / g.groups, g.group_taps());
    let group_channels = g.channels / g.groups;
    let kernel = g.kernel_height * g.kernel_width;
    let groups = weight.chunks_exact(group_outputs * taps);
    let transposed = g.transposed();
    let blocks: Vec<_> = match &transposed {
        // A convolution of the gradient with the kernel turned around.
        Some(_) => groups
            .map(|weight| {
                blocks_of(group_channels, group_outputs * kernel, |channel, tap| {
                    let (output, at) = (tap / kernel, kernel - 1 - tap % kernel);
                    weight[output * taps + channel * kernel + at]
                })
            })
            .collect(),
        None => groups
            .map(|weight| {
                blocks_of(taps, group_outputs, |tap, output| {
                    weight[output * taps + tap]
                })
            })
            .collect(),
    };
    let mut found = buffer::any(g.batch * g.channels * g.pixels());
    found
        .par_chunks_exact_mut(g.channels * g.pixels())
        .zip(gradient.par_chunks_exact(g.outputs * g.output_pixels()))
        .for_each(|(found, gradient)| {
            if let Some(transposed) = &transposed {
                convolve(transposed, gradient, &blocks, None, found);
            } else {
                found.fill(0.0);
                scatter(g, gradient, &blocks, found);
            }
        });
    found
}

/// The gradient of the weight.
pub(super) fn weight_gradient(g: &Geometry, input: &[f32], gradient: &[f32]) -> Vec<f32> {
    let parts: Vec<Vec<f32>> = input
        .par_chunks_exact(g.channels * g.pixels())
        .zip(gradient.par_chunks_exact(g.outputs * g.output_pixels()))
        .map(|(image, gradient)| sample_weight_gradient(g, image, gradient))
        .collect();
    let mut sums = buffer::zeros(g.outputs * g.group_taps());
    for part in parts {
        add_assign(&mut sums, &part);
        buffer::recycle(part);
    }
    // From [output, kernel row, kernel column, channel] to [output, channel, row, column].
    let (channels, kernel) = (g.channels / g.groups, g.kernel_height * g.kernel_width);
    let mut found = buffer::empty(sums.len());
    for sums in sums.chunks_exact(channels * kernel) {
        for channel in 0..channels {
            found.extend(sums[channel..].iter().step_by(channels));
        }
    }
    buffer::recycle(sums);
    found
}

/// A matrix of `rows` × `depth` with four rows side by side; rows beyond the last are zero.
fn blocks_of(rows: usize, depth: usize, element: impl Fn(usize, usize) -> f32) -> Vec<[f32; ROWS]> {
    let mut blocks = Vec::with_capacity(rows.div_ceil(ROWS) * depth);
    for first in (0..rows).step_by(ROWS) {
        for k in 0..depth {
            let mut block = [0.0; ROWS];
            for (value, row) in block.iter_mut().zip(first..rows) {
                *value = element(row, k);
            }
            blocks.push(block);
        }
    }
    blocks
}

/// Writes the convolution of one image.
fn convolve(
    g: &Geometry,
    image: &[f32],
    blocks: &[Vec<[f32; ROWS]>],
    bias: Option<&[f32]>,
    output: &mut [f32],
) {
    let (group_outputs, pixels) = (g.outputs / g.groups, g.output_pixels());
    let taps = g.tap_offsets();
    let padded_len = if g.is_padded() { g.padded_len() } else { 0 };
    scratch::with([padded_len, DEPTH * PANEL], |[padded, panel]| {
        let padded: &[f32] = if g.is_padded() {
            g.pad(image, padded);
            padded
        } else {
            image
        };
        let panel = panel.as_chunks_mut().0;
        let images = padded.chunks_exact(padded.len() / g.groups);
        let outputs = output.chunks_exact_mut(group_outputs * pixels);
        let depth = taps.len().div_ceil(taps.len().div_ceil(DEPTH));
        for (group, ((image, output), blocks)) in images.zip(outputs).zip(blocks).enumerate() {
            let bias = bias.map(|bias| &bias[group * group_outputs..][..group_outputs]);
            for first_pixel in (0..pixels).step_by(PANEL) {
                let runs = Runs::new(g, first_pixel);
                for (index, taps_here) in taps.chunks(depth).enumerate() {
                    let panel = &mut panel[..taps_here.len()];
                    runs.gather(image, taps_here, panel);
                    let sink = FillRows {
                        output: &mut output[first_pixel..],
                        pixels,
                        valid: runs.valid,
                        start: match (index, bias) {
                            (0, None) => Start::Zero,
                            (0, Some(bias)) => Start::Bias(bias),
                            _ => Start::Sum,
                        },
                    };
                    panel_product(blocks, taps.len(), index * depth, panel, sink);
                }
            }
        }
    });
}

/// Adds the gradient of one image, tap by tap, through the padded image.
fn scatter(g: &Geometry, gradient: &[f32], blocks: &[Vec<[f32; ROWS]>], image: &mut [f32]) {
    let (group_outputs, pixels) = (g.outputs / g.groups, g.output_pixels());
    let taps = g.tap_offsets();
    scratch::with([g.padded_len(), DEPTH * PANEL], |[padded, panel]| {
        padded.fill(0.0);
        let panel = panel.as_chunks_mut().0;
        let group_len = padded.len() / g.groups;
        let images = padded.chunks_exact_mut(group_len);
        let gradients = gradient.chunks_exact(group_outputs * pixels);
        for ((image, gradient), blocks) in images.zip(gradients).zip(blocks) {
            for first_pixel in (0..pixels).step_by(PANEL) {
                let runs = Runs::new(g, first_pixel);
                for first in (0..group_outputs).step_by(DEPTH) {
                    let depth = DEPTH.min(group_outputs - first);
                    let panel = &mut panel[..depth];
                    let rows = gradient[first * pixels..].chunks_exact(pixels);
                    for (panel, row) in panel.iter_mut().zip(rows) {
                        let row = &row[first_pixel..][..runs.valid];
                        panel[..runs.valid].copy_from_slice(row);
                    }
                    let sink = AddTaps {
                        image: &mut *image,
                        taps: &taps,
                        runs: &runs,
                    };
                    panel_product(blocks, group_outputs, first, panel, sink);
                }
            }
        }
        g.fold(padded, image);
    });
}

/// [output, kernel row, kernel column, channel of the group].
fn sample_weight_gradient(g: &Geometry, image: &[f32], gradient: &[f32]) -> Vec<f32> {
    let (group_outputs, pixels) = (g.outputs / g.groups, g.output_pixels());
    let channels = g.channels / g.groups;
    let row_taps = g.kernel_width * channels;
    let span = balanced_span(row_taps);
    let line = g.padded_width() * channels;
    let mut found = buffer::any(g.outputs * g.group_taps());
    let padded_len = g.padded_height() * line;
    scratch::with([padded_len + SPAN], |[padded]| {
        let groups = image
            .chunks_exact(channels * g.pixels())
            .zip(gradient.chunks_exact(group_outputs * pixels))
            .zip(found.chunks_exact_mut(group_outputs * g.group_taps()));
        for ((image, gradient), found) in groups {
            g.pad_interleaved(image, &mut padded[..padded_len]);
            for first in (0..group_outputs).step_by(ROWS) {
                // Beyond the last output, repeat it; those sums are dropped below.
                let factors = std::array::from_fn(|row| {
                    let output = (first + row).min(group_outputs - 1);
                    &gradient[output * pixels..][..pixels]
                });
                for ky in 0..g.kernel_height {
                    for from in (0..row_taps).step_by(span) {
                        let width = span.min(row_taps - from);
                        let lines = Lines {
                            count: g.output_height,
                            pixels: g.output_width,
                            line_step: g.stride * line,
                            pixel_step: g.stride * channels,
                        };
                        let mut sums = [[0.0; SPAN]; ROWS];
                        correlate(
                            factors,
                            &padded[ky * line + from..],
                            lines,
                            width,
                            &mut sums,
                        );
                        for (output, sums) in (first..group_outputs).zip(&sums) {
                            let at = (output * g.kernel_height + ky) * row_taps + from;
                            found[at..at + width].copy_from_slice(&sums[..width]);
                        }
                    }
                }
            }
        }
    });
    found
}

/// Cuts `taps` into as few spans as possible, about equally long.
fn balanced_span(taps: usize) -> usize {
    taps.div_ceil(taps.div_ceil(SPAN)).next_multiple_of(UNIT)
}
