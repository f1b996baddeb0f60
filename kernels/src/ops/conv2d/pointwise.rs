//! A 1 × 1 convolution with stride 1 and no padding on the CPU: one matrix product per sample, with
//! the input as it lies in memory, by the `gemm` crate.

use super::geometry::Geometry;
use crate::buffer;
use crate::gemm::{Strides, gemm};
use rayon::prelude::*;

/// Rows of a product that are worth handing to another thread.
const ROWS: usize = 16;
/// Products with at most this many elements are summed up in another order by the library.
const SMALL: usize = 16 * 16;

/// Whether each output pixel reads one input pixel, the one in its place, of all channels.
pub(super) fn fits(g: &Geometry) -> bool {
    g.is_pointwise() && g.groups == 1
}

/// The convolution: weight `[O, C]` times each sample's `[C, pixels]`.
pub(super) fn forward(
    g: &Geometry,
    input: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let row_major = Strides::row_major(g.channels);
    product(g, [g.outputs, g.channels], input, bias, |row| {
        (&weight[row * g.channels..], row_major)
    })
}

/// The gradient of the input: the transposed weight `[C, O]` times each sample's `[O, pixels]`.
pub(super) fn input_gradient(g: &Geometry, weight: &[f32], gradient: &[f32]) -> Vec<f32> {
    let transposed = Strides::transposed(g.channels);
    product(g, [g.channels, g.outputs], gradient, None, |row| {
        (&weight[row..], transposed)
    })
}

/// For each sample `[rows, depth]` · `[depth, pixels]`; `factors(row)` is the left matrix from a row.
fn product<'a>(
    g: &Geometry,
    [rows, depth]: [usize; 2],
    images: &[f32],
    bias: Option<&[f32]>,
    factors: impl Fn(usize) -> (&'a [f32], Strides) + Sync,
) -> Vec<f32> {
    let pixels = g.pixels();
    let mut found = buffer::any(g.batch * rows * pixels);
    let tasks = rayon::current_num_threads().div_ceil(g.batch);
    let split = match pixels {
        // Small products of one column are summed up in another order.
        1 => rows,
        _ => split(rows, tasks),
    };
    found
        .par_chunks_exact_mut(rows * pixels)
        .zip(images.par_chunks_exact(depth * pixels))
        .for_each(|(found, image)| {
            let parts = found.par_chunks_mut(split * pixels).enumerate();
            parts.for_each(|(index, found)| {
                let first = index * split;
                let rows = found.len() / pixels;
                if let Some(bias) = bias {
                    for (row, bias) in found.chunks_exact_mut(pixels).zip(&bias[first..]) {
                        row.fill(*bias);
                    }
                }
                let image = (image, Strides::row_major(pixels));
                gemm(
                    [rows, pixels, depth],
                    found,
                    bias.is_some(),
                    factors(first),
                    image,
                );
            });
        });
    found
}

/// The gradient of the weight. Samples are added in their order, so that the number of threads does
/// not change a bit.
pub(super) fn weight_gradient(g: &Geometry, input: &[f32], gradient: &[f32]) -> Vec<f32> {
    let pixels = g.pixels();
    let mut found = buffer::any(g.outputs * g.channels);
    let mut split = split(g.outputs, rayon::current_num_threads());
    let last = (g.outputs - 1) % split + 1;
    if last * g.channels <= SMALL {
        split = g.outputs;
    }
    let parts = found.par_chunks_mut(split * g.channels).enumerate();
    parts.for_each(|(index, found)| {
        let size = [found.len() / g.channels, g.channels, pixels];
        for sample in 0..g.batch {
            let image = &input[sample * g.channels * pixels..];
            let gradient = &gradient[(sample * g.outputs + index * split) * pixels..];
            let gradient = (gradient, Strides::row_major(pixels));
            let transposed = (image, Strides::transposed(pixels));
            gemm(size, found, sample > 0, gradient, transposed);
        }
    });
    found
}

/// Rows of each of `tasks` tasks. Never a single row: that is a matrix-vector product, which the
/// library sums up in another order.
fn split(rows: usize, tasks: usize) -> usize {
    let split = rows.div_ceil(tasks).next_multiple_of(ROWS);
    if rows % split == 1 { rows } else { split }
}
