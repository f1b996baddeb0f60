//! Every pixel of a map attends to two neighbouring columns of an image: the overhead pixel and
//! the strip of the ground image in the direction of which it lies.

use crate::error::{Error, Result};
use crate::tape::Tape;
use crate::tensor::Tensor;

const OP: &str = "column_attention";

/// Multi-head attention of each pixel of `query` to all rows of two columns of `key` and `value`:
/// column `⌊columns⌋` and the next, both moved inside the image. Channels are grouped by head;
/// scores are divided by √d. No gradient flows to `columns`.
///
/// # Shapes
/// `query` `[N, heads · d, P, Q]`; `key`, `value` `[N, heads · d, H, W]`; `columns` `[N, P, Q]` in
/// pixels; returns `[N, heads · d, P, Q]`.
///
/// # Errors
/// [`Error::Shape`] when the shapes do not fit.
///
/// # Source
/// Boosting 3-DoF Ground-to-Satellite Camera Localization Accuracy via Geometry-Guided
/// Cross-View Transformer (Shi et al. 2023), the cross-view attention.
pub fn column_attention(
    tape: &mut Tape,
    [query, key, value]: [&Tensor; 3],
    columns: &Tensor,
    heads: usize,
) -> Result<Tensor> {
    let [n, c, p, q] = query.dims4(OP, "query")?;
    let [_, _, h, w] = key.dims4(OP, "key")?;
    key.expect_shape(OP, "key", &[n, c, h, w])?;
    value.expect_shape(OP, "value", &[n, c, h, w])?;
    columns.expect_shape(OP, "columns", &[n, p, q])?;
    if heads == 0 || !c.is_multiple_of(heads) {
        return Err(Error::argument(
            OP,
            format!("{heads} heads do not divide {c} channels"),
        ));
    }
    let plan = Plan {
        heads,
        depth: c / heads,
        rows: h,
        columns: w,
        pixels: p * q,
    };
    let data = cpu::forward(
        &plan,
        [query.data(), key.data(), value.data()],
        columns.data(),
    );
    let mut output = Tensor::from_parts(data, query.shape());
    let inputs = [query, key, value];
    let saved = tape
        .needs_gradient(&inputs)
        .then(|| (query.clone(), key.clone(), value.clone(), columns.clone()));
    tape.record(&mut output, &inputs, move |gradient| {
        let (query, key, value, columns) = saved.expect("saved whenever recorded");
        let given = [query.data(), key.data(), value.data(), gradient.data()];
        let [to_query, to_key, to_value] = cpu::backward(&plan, given, columns.data());
        Ok(vec![
            Some(Tensor::from_parts(to_query, query.shape())),
            Some(Tensor::from_parts(to_key, key.shape())),
            Some(Tensor::from_parts(to_value, key.shape())),
        ])
    });
    Ok(output)
}

struct Plan {
    heads: usize,
    /// Channels of one head.
    depth: usize,
    /// Of the image.
    rows: usize,
    columns: usize,
    /// Of the map.
    pixels: usize,
}

mod cpu {
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
        let mut turned = Vec::with_capacity(image.len());
        for column in 0..plan.columns {
            for row in 0..plan.rows {
                let at = row * plan.columns + column;
                let channels = image[at..].iter().step_by(plan.rows * plan.columns);
                turned.extend(channels.take(plan.depth));
            }
        }
        turned
    }

    /// The way back.
    fn by_channel(plan: &Plan, turned: &[f32], image: &mut [f32]) {
        let planes = image.chunks_exact_mut(plan.rows * plan.columns);
        for (channel, plane) in planes.enumerate() {
            for (row, line) in plane.chunks_exact_mut(plan.columns).enumerate() {
                for (column, value) in line.iter_mut().enumerate() {
                    *value = turned[(column * plan.rows + row) * plan.depth + channel];
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradient, noise};

    #[test]
    fn two_columns_worked_by_hand() {
        // One channel, one row, columns 0, 1, 2; keys are logarithms, so shares are ratios.
        let key = Tensor::new(vec![0.0, 3.0f32.ln(), 1.0f32.ln()], &[1, 1, 1, 3]).unwrap();
        let value = Tensor::new(vec![4.0, 8.0, 100.0], &[1, 1, 1, 3]).unwrap();
        let query = Tensor::full(&[1, 1, 1, 4], 1.0);
        // Between columns 0 and 1: 1/4 and 3/4. Beyond either edge: that edge twice.
        let columns = Tensor::new(vec![0.7, 1.0, -5.5, 1e12], &[1, 1, 4]).unwrap();
        let inputs = [&query, &key, &value];
        let y = column_attention(&mut Tape::inference(), inputs, &columns, 1).unwrap();
        assert_close(y.data(), &[7.0, 31.0, 4.0, 100.0], 1e-6);
    }

    #[test]
    fn gradient_matches_finite_differences() {
        let columns = Tensor::new((0..12).map(|i| i as f32 * 0.6 - 1.0).collect(), &[2, 2, 3]);
        let columns = columns.unwrap();
        let inputs = [
            noise(&[2, 4, 2, 3], 1),
            noise(&[2, 4, 3, 4], 2),
            noise(&[2, 4, 3, 4], 3),
        ];
        check_gradient(&inputs, 3e-3, |tape, x| {
            column_attention(tape, [&x[0], &x[1], &x[2]], &columns, 2)
        });
    }

    #[test]
    fn wrong_shapes_are_refused() {
        let (query, image) = (noise(&[1, 4, 2, 3], 1), noise(&[1, 4, 3, 5], 2));
        let columns = Tensor::zeros(&[1, 2, 3]);
        let mut tape = Tape::inference();
        let inputs = [&query, &image, &image];
        assert!(column_attention(&mut tape, inputs, &columns, 3).is_err());
        assert!(column_attention(&mut tape, inputs, &Tensor::zeros(&[1, 3, 2]), 2).is_err());
        assert!(column_attention(&mut tape, [&query, &image, &query], &columns, 2).is_err());
    }
}
