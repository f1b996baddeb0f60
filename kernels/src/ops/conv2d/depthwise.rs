//! Depthwise convolution: every channel by itself, so there is no product of matrices, only rows
//! times numbers. Threads and sums over samples as in [`super::dense`].

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
    let mut output = buffer::any(g.batch * g.outputs * pixels);
    output
        .par_chunks_exact_mut(g.outputs * pixels)
        .zip(input.par_chunks_exact(g.channels * g.pixels()))
        .for_each(|(output, image)| {
            scratch::with([g.padded_len()], |[padded]| {
                g.pad(image, padded);
                let planes = output.chunks_exact_mut(pixels);
                let images = padded.chunks_exact(g.plane_step());
                let weights = weight.chunks_exact(taps.len());
                for (channel, ((plane, image), weight)) in
                    planes.zip(images).zip(weights).enumerate()
                {
                    plane.fill(bias.map_or(0.0, |bias| bias[channel]));
                    gather(g, plane, image, weight, &taps);
                }
            });
        });
    output
}

pub(super) fn input_gradient(g: &Geometry, weight: &[f32], gradient: &[f32]) -> Vec<f32> {
    let (pixels, taps) = (g.output_pixels(), g.tap_offsets());
    let mut found = buffer::zeros(g.batch * g.channels * g.pixels());
    found
        .par_chunks_exact_mut(g.channels * g.pixels())
        .zip(gradient.par_chunks_exact(g.outputs * pixels))
        .for_each(|(found, gradient)| {
            scratch::with([g.padded_len()], |[padded]| {
                padded.fill(0.0);
                let planes = gradient.chunks_exact(pixels);
                let images = padded.chunks_exact_mut(g.plane_step());
                let weights = weight.chunks_exact(taps.len());
                for ((plane, image), weight) in planes.zip(images).zip(weights) {
                    scatter(g, plane, image, weight, &taps);
                }
                g.fold(padded, found);
            });
        });
    found
}

pub(super) fn weight_gradient(g: &Geometry, input: &[f32], gradient: &[f32]) -> Vec<f32> {
    let (pixels, taps) = (g.output_pixels(), g.tap_offsets());
    let parts: Vec<Vec<f32>> = input
        .par_chunks_exact(g.channels * g.pixels())
        .zip(gradient.par_chunks_exact(g.outputs * pixels))
        .map(|(image, gradient)| {
            scratch::with([g.padded_len()], |[padded]| {
                g.pad(image, padded);
                let planes = gradient.chunks_exact(pixels);
                let images = padded.chunks_exact(g.plane_step());
                planes
                    .zip(images)
                    .flat_map(|(plane, image)| {
                        taps.iter().map(|tap| correlate(g, plane, &image[*tap..]))
                    })
                    .collect()
            })
        })
        .collect();
    let mut sums = vec![0.0; g.outputs * taps.len()];
    for part in parts {
        add_assign(&mut sums, &part);
    }
    sums
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
