//! A 1 × 1 convolution that steps by one: products of matrices as they lie, for the library that
//! does those best, or for our own where planes are large.

use super::geometry::Geometry;
use super::large;
use super::tile::UNIT;
use crate::buffer;
use crate::gemm::{Strides, gemm};
use rayon::prelude::*;

/// Rows of a product that are worth handing to another thread.
const ROWS: usize = 16;
/// Pixels of a plane for which our own product is faster.
const LARGE_PLANE: usize = 4096;
/// The same where more planes are read than written.
const MANY_PLANES: usize = 1024;
/// Elements of a product that small are summed up in another order.
const SMALL: usize = 16 * 16;

/// Whether each output pixel sees one input pixel, the one in its place.
pub(super) fn fits(g: &Geometry) -> bool {
    g.is_pointwise() && g.groups == 1
}

pub(super) fn forward(
    g: &Geometry,
    input: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let plain = Strides::row_major(g.channels);
    product(g, g.outputs, input, g.channels, bias, |row| {
        (&weight[row * g.channels..], plain)
    })
}

pub(super) fn input_gradient(g: &Geometry, weight: &[f32], gradient: &[f32]) -> Vec<f32> {
    let turned = Strides::transposed(g.channels);
    product(g, g.channels, gradient, g.outputs, None, |row| {
        (&weight[row..], turned)
    })
}

/// For each sample, `rows` × pixels: the factors from each row, times the planes of `images`.
fn product<'a>(
    g: &Geometry,
    rows: usize,
    images: &[f32],
    planes: usize,
    bias: Option<&[f32]>,
    factors: impl Fn(usize) -> (&'a [f32], Strides) + Sync,
) -> Vec<f32> {
    let pixels = g.pixels();
    let mut found = buffer::any(g.batch * rows * pixels);
    let tasks = rayon::current_num_threads().div_ceil(g.batch);
    let large = pixels >= LARGE_PLANE || planes > rows && pixels >= MANY_PLANES;
    let split = match pixels {
        // Small products of one column are summed up in another order.
        1 => rows,
        _ if large => rows.div_ceil(tasks).next_multiple_of(UNIT),
        _ => split(rows, tasks),
    };
    found
        .par_chunks_exact_mut(rows * pixels)
        .zip(images.par_chunks_exact(planes * pixels))
        .for_each(|(found, image)| {
            let parts = found.par_chunks_mut(split * pixels).enumerate();
            parts.for_each(|(index, found)| {
                let first = index * split;
                let rows = found.len() / pixels;
                let bias = bias.map(|bias| &bias[first..][..rows]);
                let (factors, strides) = factors(first);
                if large {
                    let factor = |row, plane| factors[row * strides.row + plane * strides.column];
                    large::product(factor, image, bias, found, pixels);
                    return;
                }
                if let Some(bias) = bias {
                    for (row, bias) in found.chunks_exact_mut(pixels).zip(bias) {
                        row.fill(*bias);
                    }
                }
                let size = [rows, pixels, planes];
                let image = (image, Strides::row_major(pixels));
                gemm(size, found, bias.is_some(), (factors, strides), image);
            });
        });
    found
}

/// The gradient of the weight. Samples follow each other, so that the number of threads does not
/// change a bit.
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
            let plain = (gradient, Strides::row_major(pixels));
            let turned = (image, Strides::transposed(pixels));
            gemm(size, found, sample > 0, plain, turned);
        }
    });
    found
}

/// Rows for each of some tasks. Never one by itself: that is another kind of product, whose sums
/// run in another order.
fn split(rows: usize, tasks: usize) -> usize {
    let split = rows.div_ceil(tasks).next_multiple_of(ROWS);
    if rows % split == 1 { rows } else { split }
}
