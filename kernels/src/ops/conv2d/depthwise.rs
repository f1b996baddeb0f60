//! Depthwise convolution: every channel by itself, so there is no product of matrices, only rows
//! times numbers. Threads take planes; sums over samples are added in sample order.

use super::fixed::{self, Plane};
use super::geometry::Geometry;
use crate::buffer;
use crate::math::{LANES, add_assign, for_each_cpu, sum_lanes};
use crate::scratch;
use rayon::prelude::*;

/// Whether each output channel sees exactly the input channel of its number.
pub(super) fn fits(g: &Geometry) -> bool {
    g.groups == g.channels && g.groups == g.outputs
}

pub(super) fn forward(
    g: &Geometry,
    input: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let (pixels, taps) = (g.output_pixels(), g.tap_offsets());
    let plane = plane(g);
    let mut output = buffer::any(g.batch * g.outputs * pixels);
    output
        .par_chunks_exact_mut(pixels)
        .zip(input.par_chunks_exact(g.pixels()))
        .enumerate()
        .with_min_len(some_planes(g))
        .for_each(|(index, (output, image))| {
            let channel = index % g.channels;
            let weight = &weight[channel * taps.len()..][..taps.len()];
            let bias = bias.map_or(0.0, |bias| bias[channel]);
            scratch::with([g.plane_step()], |[padded]| {
                g.pad(image, padded);
                if plane.fits() {
                    fixed::convolve(plane, padded, weight, bias, output);
                } else {
                    output.fill(bias);
                    gather(g, output, padded, weight, &taps);
                }
            });
        });
    output
}

pub(super) fn input_gradient(g: &Geometry, weight: &[f32], gradient: &[f32]) -> Vec<f32> {
    let kernel = g.kernel_height * g.kernel_width;
    if let Some(transposed) = g.transposed() {
        // A convolution of the gradient with the kernel turned around.
        let turned: Vec<f32> = weight
            .chunks_exact(kernel)
            .flat_map(|weight| weight.iter().rev().copied())
            .collect();
        return forward(&transposed, gradient, &turned, None);
    }
    let taps = g.tap_offsets();
    let spread = Spread::new(g);
    let mut found = buffer::any(g.batch * g.channels * g.pixels());
    found
        .par_chunks_exact_mut(g.pixels())
        .zip(gradient.par_chunks_exact(g.output_pixels()))
        .enumerate()
        .with_min_len(some_planes(g))
        .for_each(|(index, (found, gradient))| {
            let weight = &weight[index % g.channels * kernel..][..kernel];
            found.fill(0.0);
            if spread.plane.fits() {
                spread.input_gradient(g, weight, gradient, found);
            } else {
                scratch::with([g.plane_step()], |[padded]| {
                    padded.fill(0.0);
                    scatter(g, gradient, padded, weight, &taps);
                    g.fold(padded, found);
                });
            }
        });
    found
}

pub(super) fn weight_gradient(g: &Geometry, input: &[f32], gradient: &[f32]) -> Vec<f32> {
    let (pixels, taps) = (g.output_pixels(), g.tap_offsets());
    let plane = plane(g);
    let pitch = plane.width.next_multiple_of(LANES);
    let slack = pitch + LANES;
    let margin = if plane.fits() {
        fixed::margin(plane)
    } else {
        0
    };
    let aligned_len = pitch * (plane.height + 2 * margin);
    let mut parts = buffer::any(g.batch * g.outputs * taps.len());
    parts
        .par_chunks_exact_mut(taps.len())
        .zip(input.par_chunks_exact(g.pixels()))
        .zip(gradient.par_chunks_exact(pixels))
        .with_min_len(some_planes(g))
        .for_each(|((part, image), gradient)| {
            let lengths = [g.plane_step() + slack, aligned_len];
            scratch::with(lengths, |[padded, aligned]| {
                g.pad(image, padded);
                if !plane.fits() {
                    for (value, tap) in part.iter_mut().zip(&taps) {
                        *value = correlate(g, gradient, &padded[*tap..]);
                    }
                    return;
                }
                // What lies beyond the image meets zeros, but must be a number itself.
                padded[g.plane_step()..].fill(0.0);
                aligned[..margin * pitch].fill(0.0);
                aligned[aligned_len - margin * pitch..].fill(0.0);
                let rows = gradient.chunks_exact(plane.width);
                let middle = aligned[margin * pitch..].chunks_exact_mut(pitch);
                for (aligned, row) in middle.zip(rows) {
                    aligned[..row.len()].copy_from_slice(row);
                    aligned[row.len()..].fill(0.0);
                }
                fixed::weight_gradient(plane, padded, aligned, part);
            });
        });
    let mut sums = buffer::zeros(g.outputs * taps.len());
    for part in parts.chunks_exact(sums.len()) {
        add_assign(&mut sums, part);
    }
    buffer::recycle(parts);
    sums
}

/// Planes that are worth handing to another thread.
fn some_planes(g: &Geometry) -> usize {
    (16 * 1024 / g.pixels()).max(1)
}

fn plane(g: &Geometry) -> Plane {
    Plane {
        // A kernel that is no square has no loop of its own.
        kernel: if g.kernel_height == g.kernel_width {
            g.kernel_height
        } else {
            0
        },
        stride: g.stride,
        height: g.output_height,
        width: g.output_width,
        row_step: g.row_step(),
        phase_step: g.phase_width(),
    }
}

/// The gradient spread out to the places in the padded image that it came from, zeros between, so
/// that a convolution takes it to the gradient of the padded image.
struct Spread {
    plane: Plane,
    /// Rows and columns of zeros before and after.
    margin: usize,
}

impl Spread {
    fn new(g: &Geometry) -> Self {
        let margin = g.kernel_width - 1;
        Self {
            plane: Plane {
                stride: 1,
                height: g.padded_height(),
                width: g.padded_width(),
                row_step: g.padded_width() + margin,
                phase_step: 0,
                ..plane(g)
            },
            margin,
        }
    }

    fn input_gradient(&self, g: &Geometry, weight: &[f32], gradient: &[f32], found: &mut [f32]) {
        let Self { plane, margin } = *self;
        let rows = plane.height + margin;
        let turned: Vec<f32> = weight.iter().rev().copied().collect();
        let lengths = [rows * plane.row_step, plane.height * plane.width];
        scratch::with(lengths, |[spread, padded]| {
            spread.fill(0.0);
            let lines = spread[margin * plane.row_step..].chunks_mut(g.stride * plane.row_step);
            for (line, row) in lines.zip(gradient.chunks_exact(g.output_width)) {
                let line = line[margin..].iter_mut().step_by(g.stride);
                for (place, value) in line.zip(row) {
                    *place = *value;
                }
            }
            fixed::convolve(plane, spread, &turned, 0.0, padded);
            g.fold_plain(padded, found);
        });
    }
}

for_each_cpu! {
    /// `plane += Σ over taps of weight · image, shifted by the tap`.
    fn gather(g: &Geometry, plane: &mut [f32], image: &[f32], weight: &[f32], taps: &[usize]) {
        for (y, row) in plane.chunks_exact_mut(g.output_width).enumerate() {
            let image = &image[g.pixel_offset(y * g.output_width)..];
            for (weight, tap) in weight.iter().zip(taps) {
                for (sum, value) in row.iter_mut().zip(&image[*tap..]) {
                    *sum = weight.mul_add(*value, *sum);
                }
            }
        }
    }
}

for_each_cpu! {
    /// The transpose of [`gather`].
    fn scatter(g: &Geometry, plane: &[f32], image: &mut [f32], weight: &[f32], taps: &[usize]) {
        for (y, row) in plane.chunks_exact(g.output_width).enumerate() {
            let image = &mut image[g.pixel_offset(y * g.output_width)..];
            for (weight, tap) in weight.iter().zip(taps) {
                for (sum, value) in image[*tap..].iter_mut().zip(row) {
                    *sum = weight.mul_add(*value, *sum);
                }
            }
        }
    }
}

for_each_cpu! {
    /// The sum of plane · image, which begins at the tap.
    fn correlate(g: &Geometry, plane: &[f32], image: &[f32]) -> f32 {
        let mut lanes = [0.0f32; LANES];
        let mut rest = 0.0f32;
        for (y, row) in plane.chunks_exact(g.output_width).enumerate() {
            let image = &image[g.pixel_offset(y * g.output_width)..][..g.output_width];
            let (row, row_rest) = row.as_chunks::<LANES>();
            let (image, image_rest) = image.as_chunks::<LANES>();
            for (row, image) in row.iter().zip(image) {
                for lane in 0..LANES {
                    lanes[lane] = row[lane].mul_add(image[lane], lanes[lane]);
                }
            }
            for (value, factor) in row_rest.iter().zip(image_rest) {
                rest = value.mul_add(*factor, rest);
            }
        }
        sum_lanes(lanes) + rest
    }
}
