//! A 1 × 1 convolution that steps by one: products of matrices as they lie, for the library that
//! does those best.

use super::geometry::Geometry;
use crate::buffer;
use crate::gemm::{Strides, gemm, gemm_into};
use rayon::prelude::*;

/// Rows of a product that are worth handing to another thread.
const ROWS: usize = 16;
/// Elements of a cache line.
const LINE: usize = 16;
/// Pixels of a plane of which several do not stay in the cache.
const LARGE_PLANE: usize = 4096;
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
    let split = match pixels {
        // Small products of one column are summed up in another order.
        1 => rows,
        _ => split(rows, rayon::current_num_threads().div_ceil(g.batch)),
    };
    found
        .par_chunks_exact_mut(rows * pixels)
        .zip(images.par_chunks_exact(planes * pixels))
        .for_each(|(found, image)| {
            let parts = found.par_chunks_mut(split * pixels).enumerate();
            parts.for_each(|(index, found)| {
                let first = index * split;
                if let Some(bias) = bias {
                    for (row, bias) in found.chunks_exact_mut(pixels).zip(&bias[first..]) {
                        row.fill(*bias);
                    }
                }
                let rows = found.len() / pixels;
                let strides = Strides::row_major(pixels);
                let mut from = 0;
                for to in [off_line(image, pixels), pixels] {
                    let size = [rows, to - from, planes];
                    let output = (&mut found[from..], pixels);
                    let image = (&image[from..], strides);
                    gemm_into(size, output, bias.is_some(), factors(first), image);
                    from = to;
                }
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

/// Pixels before the first that begins a cache line, for planes so large that they do not stay in
/// the cache: a panel of 48 pixels across them that begins elsewhere reads a third more lines. Other
/// planes 0. Never one pixel, which is another kind of product, whose sums run in another order.
fn off_line(plane: &[f32], pixels: usize) -> usize {
    if pixels < LARGE_PLANE || !pixels.is_multiple_of(LINE) {
        return 0;
    }
    match plane.as_ptr().align_offset(LINE * size_of::<f32>()) {
        1 => 1 + LINE,
        offset if offset < LINE => offset,
        _ => 0,
    }
}

/// Rows for each of some tasks. Never one by itself: that is another kind of product, whose sums
/// run in another order.
fn split(rows: usize, tasks: usize) -> usize {
    let split = rows.div_ceil(tasks).next_multiple_of(ROWS);
    if rows % split == 1 { rows } else { split }
}
