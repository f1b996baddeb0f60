//! Convolution as a matrix product: im2col, then [`crate::gemm`].

use super::geometry::Geometry;
use crate::gemm::{Strides, gemm};
use rayon::prelude::*;

/// Gradients of one convolution.
pub(super) struct Found {
    pub input: Option<Vec<f32>>,
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
}

pub(super) fn forward(
    g: &Geometry,
    input: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let pixels = g.output_pixels();
    let mut output = vec![0.0; g.batch * g.outputs * pixels];
    output
        .par_chunks_exact_mut(g.outputs * pixels)
        .zip(input.par_chunks_exact(g.channels * g.pixels()))
        .for_each(|(output, image)| {
            if let Some(bias) = bias {
                for (plane, bias) in output.chunks_exact_mut(pixels).zip(bias) {
                    plane.fill(*bias);
                }
            }
            let columns = im2col(g, image);
            for group in 0..g.groups {
                let (outputs, taps) = (g.outputs / g.groups, group_taps(g));
                gemm(
                    [outputs, pixels, taps],
                    &mut output[group * outputs * pixels..][..outputs * pixels],
                    true,
                    (&weight[group * outputs * taps..], Strides::row_major(taps)),
                    (
                        &columns[group * taps * pixels..],
                        Strides::row_major(pixels),
                    ),
                );
            }
        });
    output
}

pub(super) fn backward(
    g: &Geometry,
    input: &[f32],
    weight: &[f32],
    gradient: &[f32],
    wants_input: bool,
) -> Found {
    let pixels = g.output_pixels();
    let (outputs, taps) = (g.outputs / g.groups, group_taps(g));
    // One partial sum for each sample, added in sample order: the same bits on any thread count.
    let parts: Vec<(Vec<f32>, Vec<f32>, Vec<f32>)> = input
        .par_chunks_exact(g.channels * g.pixels())
        .zip(gradient.par_chunks_exact(g.outputs * pixels))
        .map(|(image, gradient)| {
            let columns = im2col(g, image);
            let mut weight_part = vec![0.0; weight.len()];
            for group in 0..g.groups {
                gemm(
                    [outputs, taps, pixels],
                    &mut weight_part[group * outputs * taps..][..outputs * taps],
                    false,
                    (
                        &gradient[group * outputs * pixels..],
                        Strides::row_major(pixels),
                    ),
                    (
                        &columns[group * taps * pixels..],
                        Strides::transposed(pixels),
                    ),
                );
            }
            let bias_part = gradient
                .chunks_exact(pixels)
                .map(|plane| plane.iter().sum())
                .collect();
            let input_part = if wants_input {
                let mut columns = columns;
                for group in 0..g.groups {
                    gemm(
                        [taps, pixels, outputs],
                        &mut columns[group * taps * pixels..][..taps * pixels],
                        false,
                        (&weight[group * outputs * taps..], Strides::transposed(taps)),
                        (
                            &gradient[group * outputs * pixels..],
                            Strides::row_major(pixels),
                        ),
                    );
                }
                col2im(g, &columns)
            } else {
                Vec::new()
            };
            (input_part, weight_part, bias_part)
        })
        .collect();
    let mut found = Found {
        input: wants_input.then(|| Vec::with_capacity(input.len())),
        weight: vec![0.0; weight.len()],
        bias: vec![0.0; g.outputs],
    };
    for (input_part, weight_part, bias_part) in parts {
        if let Some(input) = &mut found.input {
            input.extend(input_part);
        }
        for (sum, part) in found.weight.iter_mut().zip(weight_part) {
            *sum += part;
        }
        for (sum, part) in found.bias.iter_mut().zip(bias_part) {
            *sum += part;
        }
    }
    found
}

fn group_taps(g: &Geometry) -> usize {
    g.channels / g.groups * g.kernel_height * g.kernel_width
}

/// One row for each (channel, kernel row, kernel column), one column for each output pixel.
fn im2col(g: &Geometry, image: &[f32]) -> Vec<f32> {
    let mut padded = vec![0.0; g.channels * g.padded_pixels()];
    g.pad(image, &mut padded);
    let mut columns =
        Vec::with_capacity(g.channels * g.kernel_height * g.kernel_width * g.output_pixels());
    for_each_tap(g, |start| {
        let row = padded[start..].iter().step_by(g.stride);
        columns.extend(row.take(g.output_width));
    });
    columns
}

fn col2im(g: &Geometry, columns: &[f32]) -> Vec<f32> {
    let mut padded = vec![0.0; g.channels * g.padded_pixels()];
    let mut rows = columns.chunks_exact(g.output_width);
    for_each_tap(g, |start| {
        let row = rows.next().expect("one row for each tap and output row");
        for (sum, value) in padded[start..].iter_mut().step_by(g.stride).zip(row) {
            *sum += value;
        }
    });
    let mut image = vec![0.0; g.channels * g.pixels()];
    g.fold(&padded, &mut image);
    image
}

/// Calls `row` with the offset in the padded image where each tap of each output row begins.
fn for_each_tap(g: &Geometry, mut row: impl FnMut(usize)) {
    for channel in 0..g.channels {
        for ky in 0..g.kernel_height {
            for kx in 0..g.kernel_width {
                for y in 0..g.output_height {
                    row(channel * g.padded_pixels() + (y * g.stride + ky) * g.padded_width() + kx);
                }
            }
        }
    }
}
