//! The definition, window by window, its products through the matrix multiplication.

use super::{MASKED, Plan};
use crate::buffer;
use crate::gemm::{Strides, gemm};
use crate::math;
use rayon::prelude::*;

/// The output, and the softmax of every head: `[N, heads, windows, tokens, tokens]`.
pub fn forward(
    plan: &Plan,
    [query, key, value]: [&[f32]; 3],
    table: &[f32],
    mask: Option<&[f32]>,
) -> (Vec<f32>, Vec<f32>) {
    let (tokens, depth) = (plan.tokens(), plan.depth);
    let (plain, turned) = (Strides::row_major(tokens), Strides::transposed(tokens));
    let relative = plan.relative();
    let mut output = buffer::any(query.len());
    let mut shares = buffer::any(query.len() / depth * tokens);
    output
        .par_chunks_exact_mut(plan.head_len())
        .zip(shares.par_chunks_exact_mut(plan.pixels() * tokens))
        .zip(query.par_chunks_exact(plan.head_len()))
        .zip(key.par_chunks_exact(plan.head_len()))
        .zip(value.par_chunks_exact(plan.head_len()))
        .enumerate()
        .for_each(|(index, ((((output, shares), query), key), value))| {
            let (sample, head) = (index / plan.heads, index % plan.heads);
            let bias: Vec<f32> = relative
                .iter()
                .map(|row| table[row * plan.heads + head])
                .collect();
            let mask = mask.map(|mask| &mask[sample * plan.pixels()..][..plan.pixels()]);
            // Each [depth, tokens].
            let [mut q, mut k, mut v, mut mixed] = tiles(plan);
            let windows = plan.corners().zip(shares.chunks_exact_mut(tokens * tokens));
            for (corner, shares) in windows {
                gather(plan, corner, query, &mut q);
                gather(plan, corner, key, &mut k);
                gather(plan, corner, value, &mut v);
                q.iter_mut().for_each(|q| *q *= plan.scale());
                let size = [tokens, tokens, depth];
                gemm(size, shares, false, (&q, turned), (&k, plain));
                math::add_assign(shares, &bias);
                if let Some(mask) = mask {
                    hide(plan, corner, mask, shares);
                }
                shares.chunks_exact_mut(tokens).for_each(softmax);
                let size = [depth, tokens, tokens];
                gemm(size, &mut mixed, false, (&v, plain), (shares, turned));
                scatter(plan, corner, &mixed, output);
            }
        });
    (output, shares)
}

/// Gradients of query, key and value, and of the table. With s the scores, p the shares and g
/// the incoming gradient: `dp = gᵀ v`, `ds = p (dp - Σ p dp)`.
pub fn backward(
    plan: &Plan,
    [query, key, value, gradient]: [&[f32]; 4],
    shares: &[f32],
) -> ([Vec<f32>; 3], Vec<f32>) {
    let (tokens, depth) = (plan.tokens(), plan.depth);
    let (plain, turned) = (Strides::row_major(tokens), Strides::transposed(tokens));
    let [mut to_query, mut to_key, mut to_value] = [(); 3].map(|()| buffer::any(query.len()));
    let heads = to_query.par_chunks_exact_mut(plan.head_len());
    let heads = heads.zip(to_key.par_chunks_exact_mut(plan.head_len()));
    let heads = heads.zip(to_value.par_chunks_exact_mut(plan.head_len()));
    // For each sample and head, the gradient of every query-key bias.
    let biases: Vec<Vec<f32>> = heads
        .enumerate()
        .map(|(index, ((to_query, to_key), to_value))| {
            let range = index * plan.head_len()..(index + 1) * plan.head_len();
            let shares = &shares[index * plan.pixels() * tokens..];
            let mut bias = vec![0.0; tokens * tokens];
            let mut scores = vec![0.0; tokens * tokens];
            let [mut q, mut k, mut v, mut g] = tiles(plan);
            let mut to = q.clone();
            let windows = plan.corners().zip(shares.chunks_exact(tokens * tokens));
            for (corner, shares) in windows {
                gather(plan, corner, &query[range.clone()], &mut q);
                gather(plan, corner, &key[range.clone()], &mut k);
                gather(plan, corner, &value[range.clone()], &mut v);
                gather(plan, corner, &gradient[range.clone()], &mut g);
                let inner = [depth, tokens, tokens];
                gemm(inner, &mut to, false, (&g, plain), (shares, plain));
                scatter(plan, corner, &to, to_value);
                let outer = [tokens, tokens, depth];
                gemm(outer, &mut scores, false, (&g, turned), (&v, plain));
                let rows = scores.chunks_exact_mut(tokens);
                for (row, shares) in rows.zip(shares.chunks_exact(tokens)) {
                    let mean: f32 = row.iter().zip(shares).map(|(d, p)| d * p).sum();
                    for (d, p) in row.iter_mut().zip(shares) {
                        *d = p * (*d - mean);
                    }
                }
                math::add_assign(&mut bias, &scores);
                scores.iter_mut().for_each(|d| *d *= plan.scale());
                gemm(inner, &mut to, false, (&k, plain), (&scores, turned));
                scatter(plan, corner, &to, to_query);
                gemm(inner, &mut to, false, (&q, plain), (&scores, plain));
                scatter(plan, corner, &to, to_key);
            }
            bias
        })
        .collect();
    let relative = plan.relative();
    let mut table = vec![0.0; (2 * plan.side - 1).pow(2) * plan.heads];
    for (index, bias) in biases.iter().enumerate() {
        for (row, bias) in relative.iter().zip(bias) {
            table[row * plan.heads + index % plan.heads] += bias;
        }
    }
    ([to_query, to_key, to_value], table)
}

fn tiles(plan: &Plan) -> [Vec<f32>; 4] {
    [(); 4].map(|()| vec![0.0; plan.depth * plan.tokens()])
}

/// One window of all channels of a head.
fn gather(plan: &Plan, corner: usize, head: &[f32], tile: &mut [f32]) {
    let planes = head.chunks_exact(plan.pixels());
    for (tile, plane) in tile.chunks_exact_mut(plan.tokens()).zip(planes) {
        let rows = plane[corner..].chunks(plan.width);
        for (tile, row) in tile.chunks_exact_mut(plan.side).zip(rows) {
            tile.copy_from_slice(&row[..plan.side]);
        }
    }
}

fn scatter(plan: &Plan, corner: usize, tile: &[f32], head: &mut [f32]) {
    let planes = head.chunks_exact_mut(plan.pixels());
    for (tile, plane) in tile.chunks_exact(plan.tokens()).zip(planes) {
        let rows = plane[corner..].chunks_mut(plan.width);
        for (tile, row) in tile.chunks_exact(plan.side).zip(rows) {
            row[..plan.side].copy_from_slice(tile);
        }
    }
}

fn hide(plan: &Plan, corner: usize, mask: &[f32], scores: &mut [f32]) {
    let rows = mask[corner..].chunks(plan.width).take(plan.side);
    let keys = rows.flat_map(|row| &row[..plan.side]);
    let hidden: Vec<f32> = keys
        .map(|seen| if *seen == 0.0 { MASKED } else { 0.0 })
        .collect();
    for row in scores.chunks_exact_mut(plan.tokens()) {
        math::add_assign(row, &hidden);
    }
}

fn softmax(row: &mut [f32]) {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    row.iter_mut().for_each(|x| *x = math::exp(*x - max));
    let inverse = 1.0 / math::sum(row);
    row.iter_mut().for_each(|x| *x *= inverse);
}
