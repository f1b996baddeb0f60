//! Dense convolution on the CPU as a matrix product: weights times im2col, of which only a panel of 32
//! pixels and 192 taps is packed at a time, in the L1 cache. Where few output channels would share a
//! panel, the taps are read in place.
//!
//! Each thread takes one sample or, when there are fewer samples than threads, some of its output
//! channels. Sums over samples are added in sample order, so the number of threads does not change a
//! bit.

use super::geometry::Geometry;
use super::microkernel::{
    DEPTH, PANEL, ROWS, Rows, Sink, UNIT, pack, packed_rows, panel_product, piece,
};
use super::panel::{Finish, InPlace, Keep, Panel, Places, Runs};
use crate::buffer;
use crate::scratch;
use rayon::prelude::*;
use std::ops::Range;

/// Up to this many output channels, packing a panel costs more than it saves.
const FEW_OUTPUTS: usize = 64;
/// Partial sums of a block of pixels: they stay in the L2 cache while the depth is traversed.
const BLOCK: usize = 128 * 1024;
/// The most panels that are read in place together.
const IN_PLACE: usize = 8;
/// Rows of packed weights, [`DEPTH`] of each, that stay in the L2 cache beside those sums.
const MOST_ROWS: usize = 336;

pub(super) fn forward(
    g: &Geometry,
    input: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let (outputs, taps) = (g.outputs / g.groups, g.group_taps());
    let copy = |group: usize, output: usize, first: usize, terms: &mut [f32]| {
        let row = &weight[(group * outputs + output) * taps..][..taps];
        terms.copy_from_slice(&row[first..][..terms.len()]);
    };
    let mut output = buffer::any(g.batch * g.outputs * g.output_pixels());
    convolve_all(g, input, &copy, TapOrder::Forward, bias, &mut output);
    output
}

/// The gradient of the input: the transpose of [`forward`].
pub(super) fn input_gradient(g: &Geometry, weight: &[f32], gradient: &[f32]) -> Vec<f32> {
    let (outputs, taps) = (g.outputs / g.groups, g.group_taps());
    let kernel = g.kernel_height * g.kernel_width;
    let mut found = buffer::any(g.batch * g.channels * g.pixels());
    if let Some(transposed) = g.transposed() {
        // A convolution of the gradient with the flipped kernel: its taps are visited from the last
        // to the first, so that weights can be copied in memory order.
        let copy = |group: usize, channel: usize, first: usize, terms: &mut [f32]| {
            let weight = &weight[group * outputs * taps + channel * kernel..];
            copy_kernels(weight, taps, kernel, first, terms);
        };
        convolve_all(
            &transposed,
            gradient,
            &copy,
            TapOrder::Reversed,
            None,
            &mut found,
        );
        return found;
    }
    let packed = packed(
        g.groups,
        taps,
        outputs,
        &|group, tap, first, terms: &mut [f32]| {
            let weight = &weight[(group * outputs + first) * taps + tap..];
            for (term, weight) in terms.iter_mut().zip(weight.iter().step_by(taps)) {
                *term = *weight;
            }
        },
    );
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

/// Rows of each sample that one task takes: as many as stay in the cache, if there are as many
/// samples as threads.
pub(super) fn split(g: &Geometry, samples: usize, rows: usize) -> usize {
    if g.groups > 1 {
        return rows;
    }
    let tasks = rayon::current_num_threads().div_ceil(samples);
    let tasks = tasks.max(rows.div_ceil(MOST_ROWS));
    rows.div_ceil(tasks).next_multiple_of(ROWS)
}

/// For each group, the packed left matrix of `rows` × `depth`; `copy(group, row, first, terms)` writes
/// the terms of a row from `first`.
fn packed(
    groups: usize,
    rows: usize,
    depth: usize,
    copy: &(impl Fn(usize, usize, usize, &mut [f32]) + Sync),
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

/// Writes the convolution of every sample with the weights that `copy` writes, as in [`packed`].
fn convolve_all(
    g: &Geometry,
    input: &[f32],
    copy: &(impl Fn(usize, usize, usize, &mut [f32]) + Sync),
    order: TapOrder,
    bias: Option<&[f32]>,
    output: &mut [f32],
) {
    let pixels = g.output_pixels();
    let split = split(g, g.batch, g.outputs);
    // Weights that are used for one block only are packed slice by slice, right before their use.
    let blocks = Blocks::new(g, split.min(g.outputs / g.groups));
    let shared = (g.batch > 1 || blocks.count > 1)
        .then(|| packed(g.groups, g.outputs / g.groups, g.group_taps(), copy));
    let all = shared.as_ref().map(|all| all.as_chunks().0);
    output
        .par_chunks_exact_mut(g.outputs * pixels)
        .zip(input.par_chunks_exact(g.channels * g.pixels()))
        .for_each(|(output, image)| {
            output
                .par_chunks_mut(split * pixels)
                .enumerate()
                .for_each(|(index, output)| {
                    let bias = bias.map(|bias| &bias[index * split..][..output.len() / pixels]);
                    let factors = Factors {
                        all,
                        copy,
                        order,
                        first: index * split,
                    };
                    convolve(g, image, &factors, bias, output);
                });
        });
    if let Some(shared) = shared {
        buffer::recycle(shared);
    }
}

/// Blocks of pixels whose partial sums stay in the cache: as few as possible, about equally wide.
struct Blocks {
    count: usize,
    width: usize,
}

impl Blocks {
    fn new(g: &Geometry, rows: usize) -> Self {
        let pixels = g.output_pixels();
        let most = (BLOCK / rows.next_multiple_of(UNIT)).max(PANEL);
        let count = pixels.div_ceil(most);
        let width = pixels.div_ceil(count).next_multiple_of(PANEL);
        Self { count, width }
    }
}

/// The weights of the output channels from `first`.
struct Factors<'a, C> {
    /// All of them, if they were packed before.
    all: Option<&'a Rows>,
    copy: &'a C,
    order: TapOrder,
    first: usize,
}

/// The order of the taps of a kernel in the rows of packed weights.
#[derive(Clone, Copy)]
enum TapOrder {
    Forward,
    /// From the last tap to the first: the flipped kernel of the transpose.
    Reversed,
}

impl TapOrder {
    /// Offsets of the taps from `first` in a padded image with `plane_step` elements of each channel.
    fn offsets(self, g: &Geometry, first: usize, plane_step: usize, offsets: &mut [usize]) {
        for (place, offset) in (first..).zip(offsets) {
            *offset = g.tap_offset(self.tap(g, place), plane_step);
        }
    }

    /// The tap at this position.
    fn tap(self, g: &Geometry, place: usize) -> usize {
        let last = g.kernel_height * g.kernel_width - 1;
        match self {
            Self::Forward => place,
            Self::Reversed => place - place % (last + 1) + (last - place % (last + 1)),
        }
    }
}

/// Copies terms of a row of the transposed weight matrix, from term `first`: the `kernel` weights of each
/// output channel, which lie `step` apart.
fn copy_kernels(weight: &[f32], step: usize, kernel: usize, first: usize, terms: &mut [f32]) {
    let (output, from) = (first / kernel, first % kernel);
    let mut weights = weight[output * step..].chunks(step);
    let mut next = || weights.next().expect("as many outputs as terms ask for");
    let (begun, terms) = match from {
        0 => terms.split_at_mut(0),
        _ => terms.split_at_mut(terms.len().min(kernel - from)),
    };
    if !begun.is_empty() {
        begun.copy_from_slice(&next()[from..from + begun.len()]);
    }
    if kernel == 9 {
        let (whole, rest) = terms.as_chunks_mut::<9>();
        for terms in whole {
            *terms = *next().first_chunk().expect("whole kernels");
        }
        if !rest.is_empty() {
            rest.copy_from_slice(&next()[..rest.len()]);
        }
        return;
    }
    for terms in terms.chunks_mut(kernel) {
        terms.copy_from_slice(&next()[..terms.len()]);
    }
}

/// Writes the convolution of one image.
fn convolve(
    g: &Geometry,
    image: &[f32],
    factors: &Factors<impl Fn(usize, usize, usize, &mut [f32])>,
    bias: Option<&[f32]>,
    output: &mut [f32],
) {
    let (group_outputs, pixels) = (g.outputs / g.groups, g.output_pixels());
    let depth = g.group_taps();
    let piece = piece(depth);
    let pieces = depth.div_ceil(piece);
    let group_rows = packed_rows(group_outputs, depth, piece);
    let rows = group_outputs.min(output.len() / pixels);
    let padded_rows = rows.next_multiple_of(UNIT);
    let width = Blocks::new(g, rows).width;
    let step = width + 16; // not a power of two: rows use different cache sets
    let block_len = if pieces > 1 { padded_rows * step } else { 0 };
    // The rows of the padded image that one block reads.
    let block_rows = ((width - 1) / g.output_width + 2).min(g.output_height);
    let plane_step = ((block_rows - 1) * g.stride + g.kernel_height) * g.row_step();
    let (plane_step, padded_len) = if g.is_padded() {
        (plane_step, g.channels * plane_step)
    } else {
        (g.plane_step(), 0)
    };
    let own_len = match factors.all {
        Some(_) => 0,
        None => padded_rows * DEPTH,
    };
    // Short slices leave room for several panels.
    let together = DEPTH / piece;
    let lengths = [padded_len, DEPTH * PANEL, block_len, own_len];
    scratch::with(lengths, |[padded, panel, block, own]| {
        let panel = panel.as_chunks_mut().0;
        let own = own.as_chunks_mut().0;
        for first in (0..pixels).step_by(width) {
            let last = pixels.min(first + width);
            let mut origin = 0;
            let there: &[f32] = if g.is_padded() {
                let first_row = first / g.output_width * g.stride;
                origin = first_row * g.row_step();
                g.pad_rows(image, first_row, plane_step, padded);
                padded
            } else {
                image
            };
            let images = there.chunks_exact(there.len() / g.groups);
            let outputs = output.chunks_mut(group_outputs * pixels);
            for (group, (image, output)) in images.zip(outputs).enumerate() {
                let bias = bias.map(|bias| &bias[group * group_outputs..]);
                for index in 0..pieces {
                    let mut taps = [0; DEPTH];
                    let taps = &mut taps[..piece.min(depth - index * piece)];
                    factors.order.offsets(g, index * piece, plane_step, taps);
                    let places = Places::new(taps);
                    let packed: &Rows = if let Some(all) = factors.all {
                        let all = &all[group * group_rows..];
                        let from = index * group_outputs.next_multiple_of(UNIT);
                        &all[from + factors.first..][..padded_rows]
                    } else {
                        for (row, terms) in own.iter_mut().enumerate() {
                            let terms = &mut terms[..taps.len()];
                            if row < rows {
                                let row = factors.first + row;
                                (factors.copy)(group, row, index * piece, terms);
                            } else {
                                terms.fill(0.0);
                            }
                        }
                        own
                    };
                    let finish = index + 1 == pieces;
                    for first_pixel in (first..last).step_by(together * PANEL) {
                        let last = last.min(first_pixel + together * PANEL);
                        let from = first_pixel - first;
                        if finish {
                            let sink = Finish {
                                kept: (index > 0).then(|| (&block[from..], step)),
                                bias,
                                output: &mut *output,
                                pixels,
                                first: first_pixel,
                                last,
                            };
                            convolve_panels(
                                g,
                                image,
                                origin,
                                places,
                                packed,
                                panel,
                                first_pixel..last,
                                sink,
                            );
                        } else {
                            let sink = Keep {
                                block: &mut block[from..],
                                step,
                                add: index > 0,
                            };
                            convolve_panels(
                                g,
                                image,
                                origin,
                                places,
                                packed,
                                panel,
                                first_pixel..last,
                                sink,
                            );
                        }
                    }
                }
            }
        }
    });
}

/// Passes the sums over some taps, for some pixels, to `sink`.
#[expect(clippy::too_many_arguments, reason = "the body of one loop")]
fn convolve_panels(
    g: &Geometry,
    image: &[f32],
    origin: usize,
    places: Places,
    packed: &Rows,
    memory: &mut [[f32; PANEL]],
    pixels: Range<usize>,
    sink: impl Sink,
) {
    if packed.len() <= FEW_OUTPUTS && !g.is_pointwise() && pixels.len() <= IN_PLACE * PANEL {
        let values = |first| {
            let starts = Runs::new(g, first, origin).long()?;
            Some(InPlace::new(image, places, starts))
        };
        if let Some(first) = values(pixels.start) {
            if pixels.len() <= PANEL {
                return panel_product(packed, &[first], sink);
            }
            let mut panels = [first; IN_PLACE];
            let mut count = 0;
            for (panel, first) in panels.iter_mut().zip(pixels.clone().step_by(PANEL)) {
                *panel = values(first).expect("rows of whole runs");
                count += 1;
            }
            return panel_product(packed, &panels[..count], sink);
        }
    }
    let taps = places.taps();
    let firsts = pixels.step_by(PANEL);
    let count = firsts.len();
    for (first, memory) in firsts.zip(memory.chunks_exact_mut(taps.len())) {
        Runs::new(g, first, origin).gather(image, taps, memory);
    }
    let mut panels = [Panel(&[]); DEPTH];
    for (panel, memory) in panels.iter_mut().zip(memory.chunks_exact(taps.len())) {
        *panel = Panel(memory);
    }
    panel_product(packed, &panels[..count], sink);
}

/// Writes the input gradient of one sample: adds the contribution of every tap to a padded image (col2im),
/// and folds its padding.
fn scatter(g: &Geometry, gradient: &[f32], packed: &Rows, image: &mut [f32]) {
    let (group_outputs, pixels) = (g.outputs / g.groups, g.output_pixels());
    let taps = g.tap_offsets();
    let piece = piece(group_outputs);
    let group_rows = packed_rows(taps.len(), group_outputs, piece);
    let lengths = [
        g.padded_len(),
        DEPTH * PANEL,
        taps.len().next_multiple_of(UNIT) * PANEL,
    ];
    scratch::with(lengths, |[padded, panel, block]| {
        padded.fill(0.0);
        let panel = panel.as_chunks_mut().0;
        let group_len = padded.len() / g.groups;
        let images = padded.chunks_exact_mut(group_len);
        let gradients = gradient.chunks_exact(group_outputs * pixels);
        let packed = packed.chunks_exact(group_rows);
        for ((image, gradient), packed) in images.zip(gradients).zip(packed) {
            for first_pixel in (0..pixels).step_by(PANEL) {
                let runs = Runs::new(g, first_pixel, 0);
                let pieces = gradient.chunks(piece * pixels);
                let packed = packed.chunks_exact(taps.len().next_multiple_of(UNIT));
                for (index, (gradient, packed)) in pieces.zip(packed).enumerate() {
                    let sink = Keep {
                        block: &mut *block,
                        step: PANEL,
                        add: index > 0,
                    };
                    let panel = &mut panel[..gradient.len() / pixels];
                    for (panel, row) in panel.iter_mut().zip(gradient.chunks_exact(pixels)) {
                        let row = &row[first_pixel..][..runs.valid];
                        match row.first_chunk() {
                            Some(row) => *panel = *row,
                            None => panel[..row.len()].copy_from_slice(row),
                        }
                    }
                    panel_product(packed, &[Panel(panel)], sink);
                }
                // One tap after the other, so that the order of the sums does not depend on the tile.
                runs.scatter(block.as_chunks().0, &taps, image);
            }
        }
        g.fold(padded, image);
    });
}
