//! The sum as defined, a row at a time.
//!
//! One row of the template against one row of the map is summed in f32; rows are added up in f64,
//! so that a million terms do not lose precision.

use super::Plan;
use crate::buffer;
use crate::math::for_each_cpu;
use rayon::prelude::*;

pub(super) fn forward(plan: &Plan, template: &[f32], search: &[f32]) -> Vec<f32> {
    let mut output = buffer::any(template.len() / plan.template_len() * plan.places_len());
    let ([h, w], [height, width], [rows, columns]) = (plan.template, plan.search, plan.places());
    output
        .par_chunks_exact_mut(plan.places_len())
        .zip(template.par_chunks_exact(plan.template_len()))
        .zip(search.par_chunks_exact(plan.search_len()))
        .for_each(|((output, template), search)| {
            let mut sums = vec![0.0f64; rows * columns];
            let mut line = vec![0.0f32; columns];
            let planes = template
                .chunks_exact(h * w)
                .zip(search.chunks_exact(height * width));
            for (template, search) in planes {
                for (a, sums) in sums.chunks_exact_mut(columns).enumerate() {
                    let below = search[a * width..].chunks_exact(width);
                    for (factors, row) in template.chunks_exact(w).zip(below) {
                        slide(&mut line, factors, row);
                        add_and_clear(sums, &mut line);
                    }
                }
            }
            for (output, sum) in output.iter_mut().zip(sums) {
                *output = sum as f32;
            }
        });
    output
}

/// Gradients of the template and of the map.
pub(super) fn backward(plan: &Plan, [template, search, gradient]: [&[f32]; 3]) -> [Vec<f32>; 2] {
    let ([h, w], [height, width], [_, columns]) = (plan.template, plan.search, plan.places());
    let mut to_template = buffer::any(template.len());
    let mut to_search = buffer::zeros(search.len());
    let planes = template
        .par_chunks_exact(h * w)
        .zip(search.par_chunks_exact(height * width))
        .zip(to_template.par_chunks_exact_mut(h * w))
        .zip(to_search.par_chunks_exact_mut(height * width));
    planes
        .enumerate()
        .for_each(|(index, (((template, search), to_template), to_search))| {
            let gradient = &gradient[index / plan.channels * plan.places_len()..];
            let gradient = &gradient[..plan.places_len()];
            let mut sums = vec![0.0f64; h * w];
            let mut line = vec![0.0f32; w];
            for (a, gradient) in gradient.chunks_exact(columns).enumerate() {
                let below = search[a * width..].chunks_exact(width);
                for (sums, row) in sums.chunks_exact_mut(w).zip(below) {
                    slide(&mut line, gradient, row);
                    add_and_clear(sums, &mut line);
                }
                let below = to_search[a * width..].chunks_exact_mut(width);
                for (factors, row) in template.chunks_exact(w).zip(below) {
                    spread(row, factors, gradient);
                }
            }
            for (value, sum) in to_template.iter_mut().zip(sums) {
                *value = sum as f32;
            }
        });
    [to_template, to_search]
}

for_each_cpu! {
    /// `line[b] += Σ factors[j] · row[b + j]`, four factors at a time.
    fn slide(line: &mut [f32], factors: &[f32], row: &[f32]) {
        let n = line.len();
        let (fours, rest) = factors.as_chunks::<4>();
        for (index, [a, b, c, d]) in fours.iter().enumerate() {
            let row = &row[4 * index..4 * index + 3 + n];
            let shifted = row[..n].iter().zip(&row[1..=n]).zip(&row[2..n + 2]).zip(&row[3..]);
            for (sum, (((w, x), y), z)) in line.iter_mut().zip(shifted) {
                *sum = d.mul_add(*z, c.mul_add(*y, b.mul_add(*x, a.mul_add(*w, *sum))));
            }
        }
        for (index, factor) in rest.iter().enumerate() {
            let row = &row[4 * fours.len() + index..][..n];
            for (sum, x) in line.iter_mut().zip(row) {
                *sum = factor.mul_add(*x, *sum);
            }
        }
    }
}

for_each_cpu! {
    /// `row[b + j] += factors[j] · gradient[b]`: the transpose of [`slide`].
    fn spread(row: &mut [f32], factors: &[f32], gradient: &[f32]) {
        for (index, factor) in factors.iter().enumerate() {
            for (value, g) in row[index..].iter_mut().zip(gradient) {
                *value = factor.mul_add(*g, *value);
            }
        }
    }
}

for_each_cpu! {
    fn add_and_clear(sums: &mut [f64], line: &mut [f32]) {
        for (sum, value) in sums.iter_mut().zip(line) {
            *sum += f64::from(*value);
            *value = 0.0;
        }
    }
}
