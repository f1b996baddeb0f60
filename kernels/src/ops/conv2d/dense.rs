//! Convolution as a product of matrices: weights times im2col, of which only a panel of 32 pixels
//! and 192 taps exists at a time, in the cache; where few outputs share a panel, not even that.
//!
//! Threads take one sample each or, when there are fewer samples than threads, some of its
//! rows. Sums over samples are added in sample order, so the number of threads does not change a
//! bit.

use super::correlate;
use super::geometry::Geometry;
use super::panel::{AddTaps, InPlace, Keep, Panel, Runs};
use super::tile::{DEPTH, PANEL, ROWS, Rows, UNIT, pack, packed_rows, panel_product, piece};
use crate::buffer;
use crate::math::add_assign;
use crate::scratch;
use rayon::prelude::*;

/// Outputs that share a panel without repaying its gathering.
const FEW_OUTPUTS: usize = 64;
/// Sums that stay in the second-level cache while the taps go by.
const BLOCK: usize = 128 * 1024;
/// Rows whose factors, [`DEPTH`] of each, stay in the second-level cache beside those sums.
const MOST_ROWS: usize = 336;
/// Weights beyond this many are not summed up sample by sample in memory of their own.
const MANY_WEIGHTS: usize = 256 * 1024;

pub(super) fn forward(
    g: &Geometry,
    input: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let (outputs, taps) = (g.outputs / g.groups, g.group_taps());
    let packed = packed(g.groups, outputs, taps, |group, output, first, terms| {
        let row = &weight[(group * outputs + output) * taps..][..taps];
        terms.copy_from_slice(&row[first..][..terms.len()]);
    });
    let mut output = buffer::any(g.batch * g.outputs * g.output_pixels());
    convolve_all(g, input, &packed, bias, &mut output);
    buffer::recycle(packed);
    output
}

/// The gradient of the input: the transpose of [`forward`].
pub(super) fn input_gradient(g: &Geometry, weight: &[f32], gradient: &[f32]) -> Vec<f32> {
    let (outputs, taps) = (g.outputs / g.groups, g.group_taps());
    let channels = g.channels / g.groups;
    let kernel = g.kernel_height * g.kernel_width;
    let mut found = buffer::any(g.batch * g.channels * g.pixels());
    if let Some(transposed) = g.transposed() {
        // A convolution of the gradient with the kernel turned around.
        let depth = outputs * kernel;
        let packed = packed(g.groups, channels, depth, |group, channel, first, terms| {
            let weight = &weight[group * outputs * taps + channel * kernel..];
            let (mut output, mut left) = (first / kernel, kernel - first % kernel);
            for term in terms {
                left -= 1;
                *term = weight[output * taps + left];
                if left == 0 {
                    (output, left) = (output + 1, kernel);
                }
            }
        });
        convolve_all(&transposed, gradient, &packed, None, &mut found);
        buffer::recycle(packed);
        return found;
    }
    let packed = packed(g.groups, taps, outputs, |group, tap, first, terms| {
        let weight = &weight[(group * outputs + first) * taps + tap..];
        for (term, weight) in terms.iter_mut().zip(weight.iter().step_by(taps)) {
            *term = *weight;
        }
    });
    found
        .par_chunks_exact_mut(g.channels * g.pixels())
        .zip(gradient.par_chunks_exact(g.outputs * g.output_pixels()))
        .for_each(|(found, gradient)| {
            found.fill(0.0);
            scatter(g, gradient, packed.as_chunks().0, found);
        });
    buffer::recycle(packed);
    found
}

/// The gradient of the weight.
pub(super) fn weight_gradient(g: &Geometry, input: &[f32], gradient: &[f32]) -> Vec<f32> {
    let samples = || {
        let images = input.par_chunks_exact(g.channels * g.pixels());
        images.zip(gradient.par_chunks_exact(g.outputs * g.output_pixels()))
    };
    let weights = g.outputs * g.group_taps();
    let mut sums = buffer::zeros(weights);
    if weights > MANY_WEIGHTS || g.batch == 1 {
        let split = split(g, 1, g.outputs);
        for sample in 0..g.batch {
            let image = &input[sample * g.channels * g.pixels()..][..g.channels * g.pixels()];
            let gradient = &gradient[sample * g.outputs * g.output_pixels()..];
            sums.par_chunks_mut(split * g.group_taps())
                .zip(gradient.par_chunks(split * g.output_pixels()))
                .for_each(|(sums, gradient)| add_weight_gradient(g, image, gradient, sums));
        }
    } else {
        let parts: Vec<Vec<f32>> = samples()
            .map(|(image, gradient)| {
                let mut part = buffer::zeros(weights);
                add_weight_gradient(g, image, gradient, &mut part);
                part
            })
            .collect();
        for part in parts {
            add_assign(&mut sums, &part);
            buffer::recycle(part);
        }
    }
    // From [output, kernel row, kernel column, channel] to [output, channel, row, column].
    let (channels, kernel) = (g.channels / g.groups, g.kernel_height * g.kernel_width);
    if kernel == 1 {
        return sums;
    }
    let mut found = buffer::any(sums.len());
    found
        .par_chunks_exact_mut(channels * kernel)
        .zip(sums.par_chunks_exact(channels * kernel))
        .with_min_len(16)
        .for_each(|(found, sums)| {
            for (channel, found) in found.chunks_exact_mut(kernel).enumerate() {
                for (value, sum) in found
                    .iter_mut()
                    .zip(sums[channel..].iter().step_by(channels))
                {
                    *value = *sum;
                }
            }
        });
    buffer::recycle(sums);
    found
}

/// Rows of each sample that one task takes: all that stay in the cache, if there are as many
/// samples as threads.
fn split(g: &Geometry, samples: usize, rows: usize) -> usize {
    if g.groups > 1 {
        return rows;
    }
    let tasks = rayon::current_num_threads().div_ceil(samples);
    let tasks = tasks.max(rows.div_ceil(MOST_ROWS));
    rows.div_ceil(tasks).next_multiple_of(ROWS)
}

/// For each group, a packed matrix of `rows` × `depth`; `copy(group, row, first, terms)` fills in
/// the terms from `first`.
fn packed(
    groups: usize,
    rows: usize,
    depth: usize,
    copy: impl Fn(usize, usize, usize, &mut [f32]) + Sync,
) -> Vec<f32> {
    let piece = piece(depth);
    let group_rows = packed_rows(rows, depth, piece);
    let mut packed = buffer::any(groups * group_rows * DEPTH);
    let (whole, _) = packed.as_chunks_mut();
    for (group, packed) in whole.chunks_exact_mut(group_rows).enumerate() {
        let copy = |row: usize, first: usize, terms: &mut [f32]| copy(group, row, first, terms);
        pack(rows, depth, piece, copy, packed);
    }
    packed
}

/// Writes the convolution of every image with packed weights.
fn convolve_all(
    g: &Geometry,
    input: &[f32],
    packed: &[f32],
    bias: Option<&[f32]>,
    output: &mut [f32],
) {
    let pixels = g.output_pixels();
    let split = split(g, g.batch, g.outputs);
    output
        .par_chunks_exact_mut(g.outputs * pixels)
        .zip(input.par_chunks_exact(g.channels * g.pixels()))
        .for_each(|(output, image)| {
            output
                .par_chunks_mut(split * pixels)
                .enumerate()
                .for_each(|(index, output)| {
                    let bias = bias.map(|bias| &bias[index * split..][..output.len() / pixels]);
                    convolve(g, image, packed.as_chunks().0, index * split, bias, output);
                });
        });
}

/// Writes the convolution of one image, for the outputs from `first_output`.
fn convolve(
    g: &Geometry,
    image: &[f32],
    packed: &Rows,
    first_output: usize,
    bias: Option<&[f32]>,
    output: &mut [f32],
) {
    let (group_outputs, pixels) = (g.outputs / g.groups, g.output_pixels());
    let taps = g.tap_offsets();
    let piece = piece(taps.len());
    let group_rows = packed_rows(group_outputs, taps.len(), piece);
    let padded_len = if g.is_padded() { g.padded_len() } else { 0 };
    let rows = group_outputs.min(output.len() / pixels);
    let padded_rows = rows.next_multiple_of(UNIT);
    // A small output is summed up where it is. Otherwise as few blocks as possible, about equally
    // wide; the odd step spreads rows over the cache.
    let direct = rows == padded_rows && pixels % PANEL == 0 && rows * pixels <= BLOCK;
    let blocks = pixels.div_ceil((BLOCK / padded_rows).max(PANEL));
    let width = pixels.div_ceil(blocks).next_multiple_of(PANEL);
    let step = if direct { pixels } else { width + 16 };
    let block_len = if direct { 0 } else { padded_rows * step };
    let lengths = [padded_len, DEPTH * PANEL, block_len];
    scratch::with(lengths, |[padded, panel, block]| {
        let padded: &[f32] = if g.is_padded() {
            g.pad(image, padded);
            padded
        } else {
            image
        };
        let panel = panel.as_chunks_mut().0;
        let images = padded.chunks_exact(padded.len() / g.groups);
        let outputs = output.chunks_mut(group_outputs * pixels);
        let packed = packed.chunks_exact(group_rows);
        for (group, ((image, output), packed)) in images.zip(outputs).zip(packed).enumerate() {
            for first in (0..pixels).step_by(width) {
                let last = pixels.min(first + width);
                let sums = if direct { &mut *output } else { &mut *block };
                for (index, taps) in taps.chunks(piece).enumerate() {
                    let packed = &packed[index * group_outputs.next_multiple_of(UNIT)..];
                    let packed = &packed[first_output..][..padded_rows];
                    for first_pixel in (first..last).step_by(PANEL) {
                        let runs = Runs::new(g, first_pixel);
                        let sink = Keep {
                            block: &mut sums[first_pixel - first..],
                            step,
                            add: index > 0,
                        };
                        match runs.long() {
                            Some(starts) if rows <= FEW_OUTPUTS && !g.is_pointwise() => {
                                let values = InPlace {
                                    image,
                                    taps,
                                    starts,
                                };
                                panel_product(packed, values, sink);
                            }
                            _ => {
                                let panel = &mut panel[..taps.len()];
                                runs.gather(image, taps, panel);
                                panel_product(packed, Panel(panel), sink);
                            }
                        }
                    }
                }
                let rows = output.chunks_exact_mut(pixels);
                for (row, output) in rows.enumerate() {
                    let output = &mut output[first..last];
                    if !direct {
                        output.copy_from_slice(&block[row * step..][..last - first]);
                    }
                    if let Some(bias) = bias {
                        let bias = bias[group * group_outputs + row];
                        output.iter_mut().for_each(|value| *value += bias);
                    }
                }
            }
        }
    });
}

/// Adds the gradient of one image, tap by tap, through the padded image.
fn scatter(g: &Geometry, gradient: &[f32], packed: &Rows, image: &mut [f32]) {
    let (group_outputs, pixels) = (g.outputs / g.groups, g.output_pixels());
    let taps = g.tap_offsets();
    let piece = piece(group_outputs);
    let group_rows = packed_rows(taps.len(), group_outputs, piece);
    scratch::with([g.padded_len(), DEPTH * PANEL], |[padded, panel]| {
        padded.fill(0.0);
        let panel = panel.as_chunks_mut().0;
        let group_len = padded.len() / g.groups;
        let images = padded.chunks_exact_mut(group_len);
        let gradients = gradient.chunks_exact(group_outputs * pixels);
        let packed = packed.chunks_exact(group_rows);
        for ((image, gradient), packed) in images.zip(gradients).zip(packed) {
            for first_pixel in (0..pixels).step_by(PANEL) {
                let runs = Runs::new(g, first_pixel);
                let pieces = gradient.chunks(piece * pixels);
                let packed = packed.chunks_exact(taps.len().next_multiple_of(UNIT));
                for (gradient, packed) in pieces.zip(packed) {
                    let panel = &mut panel[..gradient.len() / pixels];
                    let rows = gradient.chunks_exact(pixels);
                    for (panel, row) in panel.iter_mut().zip(rows) {
                        let row = &row[first_pixel..][..runs.valid];
                        panel[..runs.valid].copy_from_slice(row);
                    }
                    let sink = AddTaps {
                        image: &mut *image,
                        taps: &taps,
                        runs: &runs,
                    };
                    panel_product(packed, Panel(panel), sink);
                }
            }
        }
        g.fold(padded, image);
    });
}

/// Adds the gradient of one sample, for as many outputs as `gradient` has, to `found`
/// [output, kernel row, kernel column, channel of the group].
fn add_weight_gradient(g: &Geometry, image: &[f32], gradient: &[f32], found: &mut [f32]) {
    if correlate::fits(g) {
        return correlate::add_weight_gradient(g, image, gradient, found);
    }
    let pixels = g.output_pixels();
    let (channels, taps) = (g.channels / g.groups, g.group_taps());
    let outputs = found.len() / taps / g.groups;
    let row_taps = g.kernel_width * channels;
    let line = g.padded_width() * channels;
    let padded_len = g.padded_height() * line;
    let piece = piece(pixels);
    let lengths = [
        padded_len,
        DEPTH * PANEL,
        packed_rows(outputs, pixels, piece) * DEPTH,
        outputs.next_multiple_of(UNIT) * PANEL,
    ];
    scratch::with(lengths, |[padded, panel, packed, block]| {
        let (panel, packed) = (panel.as_chunks_mut().0, packed.as_chunks_mut().0);
        let groups = image
            .chunks_exact(channels * g.pixels())
            .zip(gradient.chunks_exact(outputs * pixels))
            .zip(found.chunks_exact_mut(outputs * taps));
        for ((image, gradient), found) in groups {
            g.pad_interleaved(image, padded);
            let copy = |output: usize, first: usize, terms: &mut [f32]| {
                terms.copy_from_slice(&gradient[output * pixels + first..][..terms.len()]);
            };
            pack(outputs, pixels, piece, copy, packed);
            for first_tap in (0..taps).step_by(PANEL) {
                let valid = PANEL.min(taps - first_tap);
                let packed = packed.chunks_exact(outputs.next_multiple_of(UNIT));
                for (first_pixel, packed) in (0..pixels).step_by(piece).zip(packed) {
                    let panel = &mut panel[..piece.min(pixels - first_pixel)];
                    // The taps of one kernel row lie side by side.
                    let mut column = 0;
                    while column < valid {
                        let (ky, from) = (
                            (first_tap + column) / row_taps,
                            (first_tap + column) % row_taps,
                        );
                        let length = (row_taps - from).min(valid - column);
                        let padded = &padded[ky * line + from..];
                        let mut at = first_pixel;
                        let mut rest = &mut *panel;
                        while !rest.is_empty() {
                            let (y, x) = (at / g.output_width, at % g.output_width);
                            let run = rest.len().min(g.output_width - x);
                            let (here, after) = rest.split_at_mut(run);
                            rest = after;
                            at += run;
                            let from = g.stride * (y * line + x * channels);
                            copy_spans(here, column, length, &padded[from..], g.stride * channels);
                        }
                        column += length;
                    }
                    let sink = Keep {
                        block: &mut *block,
                        step: PANEL,
                        add: first_pixel > 0,
                    };
                    panel_product(packed, Panel(panel), sink);
                }
                let rows = found.chunks_exact_mut(taps).zip(block.chunks_exact(PANEL));
                for (found, block) in rows {
                    let found = &mut found[first_tap..first_tap + valid];
                    for (found, sum) in found.iter_mut().zip(block) {
                        *found += sum;
                    }
                }
            }
        }
    });
}

/// Copies to each row of `panel`, from `column`, `length` values; from one row to the next, they
/// move on by `step`.
fn copy_spans(
    panel: &mut [[f32; PANEL]],
    column: usize,
    length: usize,
    values: &[f32],
    step: usize,
) {
    if let (PANEL, 0) = (length, column) {
        for (index, row) in panel.iter_mut().enumerate() {
            row.copy_from_slice(&values[index * step..][..PANEL]);
        }
        return;
    }
    for (index, row) in panel.iter_mut().enumerate() {
        let values = &values[index * step..][..length];
        for (to, from) in row[column..column + length].iter_mut().zip(values) {
            *to = *from;
        }
    }
}
