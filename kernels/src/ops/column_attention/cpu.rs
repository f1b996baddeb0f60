//! The definition, pixel by pixel; the image is transposed so that the channels of a token are
//! contiguous.

use super::Plan;
use crate::buffer;
use crate::math;
use rayon::prelude::*;

pub fn forward(plan: &Plan, [query, key, value]: [&[f32]; 3], columns: &[f32]) -> Vec<f32> {
    let mut output = buffer::any(query.len());
    let image = plan.depth * plan.rows * plan.columns;
    output
        .par_chunks_exact_mut(plan.depth * plan.pixels)
        .zip(query.par_chunks_exact(plan.depth * plan.pixels))
        .zip(
            key.par_chunks_exact(image)
                .zip(value.par_chunks_exact(image)),
        )
        .enumerate()
        .for_each(|(index, ((output, query), (key, value)))| {
            let [key, value] = [key, value].map(|image| by_column(plan, image));
            let columns = &columns[index / plan.heads * plan.pixels..][..plan.pixels];
            let mut shares = vec![0.0; 2 * plan.rows];
            let (mut q, mut mixed) = (vec![0.0; plan.depth], vec![0.0; plan.depth]);
            for (pixel, column) in columns.iter().enumerate() {
                read(plan, query, pixel, &mut q);
                let sides = neighbours(plan, *column);
                score(plan, &key, &q, sides, &mut shares);
                mixed.fill(0.0);
                for (token, share) in tokens(plan, sides).zip(&shares) {
                    add_scaled(&mut mixed, &value[token..][..plan.depth], *share);
                }
                write(plan, output, pixel, &mixed);
            }
        });
    output
}

/// Gradients of query, key and value. With p the shares and g the incoming gradient:
/// `dp = g · v`, `ds = p (dp - Σ p dp)`.
pub fn backward(
    plan: &Plan,
    [query, key, value, gradient]: [&[f32]; 4],
    columns: &[f32],
) -> [Vec<f32>; 3] {
    let mut to_query = buffer::any(query.len());
    let [mut to_key, mut to_value] = [(); 2].map(|()| buffer::any(key.len()));
    let image = plan.depth * plan.rows * plan.columns;
    let map = plan.depth * plan.pixels;
    to_query
        .par_chunks_exact_mut(map)
        .zip(to_key.par_chunks_exact_mut(image))
        .zip(to_value.par_chunks_exact_mut(image))
        .enumerate()
        .for_each(|(index, ((to_query, to_key), to_value))| {
            let query = &query[index * map..][..map];
            let gradient = &gradient[index * map..][..map];
            let [key, value] =
                [key, value].map(|all| by_column(plan, &all[index * image..][..image]));
            let columns = &columns[index / plan.heads * plan.pixels..][..plan.pixels];
            let (mut key_sums, mut value_sums) = (vec![0.0; image], vec![0.0; image]);
            let [mut shares, mut slopes] = [(); 2].map(|()| vec![0.0; 2 * plan.rows]);
            let [mut q, mut g, mut to] = [(); 3].map(|()| vec![0.0; plan.depth]);
            let scale = 1.0 / (plan.depth as f32).sqrt();
            for (pixel, column) in columns.iter().enumerate() {
                read(plan, query, pixel, &mut q);
                read(plan, gradient, pixel, &mut g);
                let sides = neighbours(plan, *column);
                score(plan, &key, &q, sides, &mut shares);
                let mut mean = 0.0;
                for ((token, p), d) in tokens(plan, sides).zip(&shares).zip(&mut slopes) {
                    *d = dot(&g, &value[token..][..plan.depth]);
                    mean += *d * p;
                    add_scaled(&mut value_sums[token..][..plan.depth], &g, *p);
                }
                to.fill(0.0);
                for ((token, p), d) in tokens(plan, sides).zip(&shares).zip(&slopes) {
                    let slope = p * (d - mean) * scale;
                    add_scaled(&mut to, &key[token..][..plan.depth], slope);
                    add_scaled(&mut key_sums[token..][..plan.depth], &q, slope);
                }
                write(plan, to_query, pixel, &to);
            }
            by_channel(plan, &key_sums, to_key);
            by_channel(plan, &value_sums, to_value);
        });
    [to_query, to_key, to_value]
}

/// Softmax of the scores of one pixel with its tokens.
fn score(plan: &Plan, key: &[f32], query: &[f32], sides: [usize; 2], shares: &mut [f32]) {
    let scale = 1.0 / (plan.depth as f32).sqrt();
    let mut max = f32::NEG_INFINITY;
    for (token, share) in tokens(plan, sides).zip(shares.iter_mut()) {
        *share = dot(query, &key[token..][..plan.depth]) * scale;
        max = max.max(*share);
    }
    shares.iter_mut().for_each(|x| *x = math::exp(*x - max));
    let inverse = 1.0 / math::sum(shares);
    shares.iter_mut().for_each(|x| *x *= inverse);
}

/// Column ⌊u⌋ and the next, inside the image; the conversion saturates, NaN is column 0.
fn neighbours(plan: &Plan, column: f32) -> [usize; 2] {
    let left = column.floor();
    [left, left + 1.0].map(|at| (at.max(0.0) as usize).min(plan.columns - 1))
}

/// First element of each token of two columns.
fn tokens(plan: &Plan, sides: [usize; 2]) -> impl Iterator<Item = usize> {
    let (rows, depth) = (plan.rows, plan.depth);
    sides
        .into_iter()
        .flat_map(move |column| (0..rows).map(move |row| (column * rows + row) * depth))
}

/// From [depth, rows, columns] to [columns, rows, depth].
fn by_column(plan: &Plan, image: &[f32]) -> Vec<f32> {
    let mut transposed = Vec::with_capacity(image.len());
    for column in 0..plan.columns {
        for row in 0..plan.rows {
            let at = row * plan.columns + column;
            let channels = image[at..].iter().step_by(plan.rows * plan.columns);
            transposed.extend(channels.take(plan.depth));
        }
    }
    transposed
}

/// The inverse.
fn by_channel(plan: &Plan, transposed: &[f32], image: &mut [f32]) {
    let planes = image.chunks_exact_mut(plan.rows * plan.columns);
    for (channel, plane) in planes.enumerate() {
        for (row, line) in plane.chunks_exact_mut(plan.columns).enumerate() {
            for (column, value) in line.iter_mut().enumerate() {
                *value = transposed[(column * plan.rows + row) * plan.depth + channel];
            }
        }
    }
}

fn read(plan: &Plan, map: &[f32], pixel: usize, vector: &mut [f32]) {
    for (value, plane) in vector.iter_mut().zip(map.chunks_exact(plan.pixels)) {
        *value = plane[pixel];
    }
}

fn write(plan: &Plan, map: &mut [f32], pixel: usize, vector: &[f32]) {
    for (value, plane) in vector.iter().zip(map.chunks_exact_mut(plan.pixels)) {
        plane[pixel] = *value;
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add_scaled(sums: &mut [f32], values: &[f32], factor: f32) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += value * factor;
    }
}
