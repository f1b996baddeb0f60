//! Depthwise convolution: every channel by itself, so there is no product of matrices, only rows
//! times numbers. Threads take planes; sums over samples are added in sample order.

use super::bands::Plane;
use super::fixed;
use super::geometry::Geometry;
use super::lines::Lines;
use super::spread;
use super::taps;
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
    let (pixels, kernel) = (g.output_pixels(), g.kernel_height * g.kernel_width);
    let mut output = buffer::any(g.batch * g.outputs * pixels);
    let some = some_planes(g);
    let of_channel = |plane: usize| {
        let channel = channel(g, plane);
        let weight = &weight[channel * kernel..][..kernel];
        (weight, bias.map_or(0.0, |bias| bias[channel]))
    };
    let tasks = output
        .par_chunks_mut(some * pixels)
        .zip(input.par_chunks(some * g.pixels()))
        .enumerate();
    if let Some(lines) = lines(g) {
        let plane = Plane::new(g, &lines);
        tasks.for_each(|(task, (output, images))| {
            scratch::with([plane.room()], |[lines]| {
                let first = task * some % g.channels;
                let weights = |index| of_channel(first + index);
                fixed::convolve(plane, images, weights, lines, output);
            });
        });
        return output;
    }
    let taps = g.tap_offsets();
    tasks.for_each(|(task, (output, images))| {
        let planes = output.chunks_exact_mut(pixels);
        let planes = planes.zip(images.chunks_exact(g.pixels())).enumerate();
        for (index, (output, image)) in planes {
            let (weight, bias) = of_channel(task * some + index);
            scratch::with([g.plane_step()], |[padded]| {
                g.pad(image, padded);
                output.fill(bias);
                gather(g, output, padded, weight, &taps);
            });
        }
    });
    output
}

pub(super) fn input_gradient(g: &Geometry, weight: &[f32], gradient: &[f32]) -> Vec<f32> {
    let kernel = g.kernel_height * g.kernel_width;
    if let Some(transposed) = g.transposed() {
        // A convolution of the gradient with the kernel turned around.
        let mut turned = buffer::any(weight.len());
        let kernels = turned.chunks_exact_mut(kernel);
        for (turned, weight) in kernels.zip(weight.chunks_exact(kernel)) {
            turned.copy_from_slice(weight);
            turned.reverse();
        }
        let found = forward(&transposed, gradient, &turned, None);
        buffer::recycle(turned);
        return found;
    }
    let mut found = buffer::any(g.batch * g.channels * g.pixels());
    let some = some_planes(g);
    let of_channel = |plane: usize| &weight[channel(g, plane) * kernel..][..kernel];
    let tasks = found
        .par_chunks_mut(some * g.pixels())
        .zip(gradient.par_chunks(some * g.output_pixels()))
        .enumerate();
    if let Some(pairs) = spread::pairs(g) {
        let lines = Lines::new(&pairs);
        let plane = Plane::new(&pairs, &lines);
        tasks.for_each(|(task, (found, gradients))| {
            scratch::with([plane.room()], |[lines]| {
                let first = task * some % g.channels;
                let weights = |index| of_channel(first + index);
                spread::input_gradient(g, plane, gradients, weights, lines, found);
            });
        });
        return found;
    }
    let taps = g.tap_offsets();
    tasks.for_each(|(task, (found, gradients))| {
        let planes = found.chunks_exact_mut(g.pixels());
        let planes = planes.zip(gradients.chunks_exact(g.output_pixels()));
        for (index, (found, gradient)) in planes.enumerate() {
            scratch::with([g.plane_step()], |[padded]| {
                padded.fill(0.0);
                scatter(g, gradient, padded, of_channel(task * some + index), &taps);
                found.fill(0.0);
                g.fold(padded, found);
            });
        }
    });
    found
}

pub(super) fn weight_gradient(g: &Geometry, input: &[f32], gradient: &[f32]) -> Vec<f32> {
    let (pixels, kernel) = (g.output_pixels(), g.kernel_height * g.kernel_width);
    let mut parts = buffer::any(g.batch * g.outputs * kernel);
    let some = some_planes(g);
    let tasks = parts
        .par_chunks_mut(some * kernel)
        .zip(input.par_chunks(some * g.pixels()))
        .zip(gradient.par_chunks(some * pixels));
    if let Some(lines) = lines(g) {
        let plane = Plane::new(g, &lines);
        tasks.for_each(|((parts, images), gradients)| {
            scratch::with([plane.room()], |[lines]| {
                taps::weight_gradient(plane, images, gradients, lines, parts);
            });
        });
    } else {
        let taps = g.tap_offsets();
        tasks.for_each(|((parts, images), gradients)| {
            let planes = images.chunks_exact(g.pixels());
            let planes = planes.zip(gradients.chunks_exact(pixels));
            for (part, (image, gradient)) in parts.chunks_exact_mut(kernel).zip(planes) {
                scratch::with([g.plane_step()], |[padded]| {
                    g.pad(image, padded);
                    for (value, tap) in part.iter_mut().zip(&taps) {
                        *value = correlate(g, gradient, &padded[*tap..]);
                    }
                });
            }
        });
    }
    if g.batch == 1 {
        return parts;
    }
    let mut sums = buffer::zeros(g.outputs * kernel);
    for part in parts.chunks_exact(sums.len()) {
        add_assign(&mut sums, part);
    }
    buffer::recycle(parts);
    sums
}

/// The channel of a plane, counted from the first of any sample: seldom a division, which would
/// show where planes are small.
#[inline(always)]
fn channel(g: &Geometry, plane: usize) -> usize {
    if plane < g.channels {
        plane
    } else {
        plane % g.channels
    }
}

/// Planes that are worth handing to another thread.
fn some_planes(g: &Geometry) -> usize {
    (32 * 1024 / g.pixels()).max(1)
}

/// How rows lie for the loops of fixed size, if there is one for this kernel and stride.
fn lines(g: &Geometry) -> Option<Lines<'_>> {
    let kernel = [g.kernel_height, g.kernel_width];
    let fits = (kernel == [3, 3] || kernel == [5, 5]) && matches!(g.stride, 1 | 2);
    fits.then(|| Lines::new(g))
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
