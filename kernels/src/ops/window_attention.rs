//! Self-attention inside square windows, with a learned bias for each relative position.

use crate::error::{Error, Result};
use crate::tape::Tape;
use crate::tensor::Tensor;

const OP: &str = "window_attention";

/// Added to the score of a masked key: far below any real one, and finite, so that a window of
/// masked keys alone still has a softmax.
const MASKED: f32 = -100.0;

/// Multi-head attention within windows that tile the image:
/// `softmax(q · k / √d + bias[relative position]) · v` for each head, window and pixel.
///
/// Channels are grouped by head. The bias of query (y, x) and key (y', x') in a window of side s
/// is row `(y - y' + s - 1)(2s - 1) + (x - x' + s - 1)` of `table`. Where `mask` is 0, the pixel as a
/// key gets −100. No gradient flows to `mask`.
///
/// # Shapes
/// `query`, `key`, `value` `[N, heads · d, H, W]`; `table` `[(2s - 1)², heads]`; `mask` `[N, H, W]`;
/// returns `[N, heads · d, H, W]`. `side` (s) divides H and W.
///
/// # Errors
/// [`Error::Shape`] when the shapes do not fit.
///
/// # Source
/// Swin Transformer (Liu et al. 2021), equation 4, without shifting.
pub fn window_attention(
    tape: &mut Tape,
    [query, key, value]: [&Tensor; 3],
    table: &Tensor,
    mask: Option<&Tensor>,
    side: usize,
) -> Result<Tensor> {
    let [n, c, h, w] = query.dims4(OP, "query")?;
    key.expect_shape(OP, "key", query.shape())?;
    value.expect_shape(OP, "value", query.shape())?;
    let [rows, heads] = table.dims2(OP, "bias table")?;
    if side == 0 || !h.is_multiple_of(side) || !w.is_multiple_of(side) {
        let expected = format!("multiples of the window side {side}");
        return Err(Error::shape(OP, "image sides", expected, [h, w]));
    }
    if rows != (2 * side - 1).pow(2) || !c.is_multiple_of(heads) {
        let expected = format!("[{}, a divisor of {c}]", (2 * side - 1).pow(2));
        return Err(Error::shape(OP, "bias table", expected, table.shape()));
    }
    if let Some(mask) = mask {
        mask.expect_shape(OP, "mask", &[n, h, w])?;
    }
    let plan = Plan {
        heads,
        depth: c / heads,
        height: h,
        width: w,
        side,
    };
    let shared = mask.map(|mask| mask.data());
    let (data, shares) = cpu::forward(
        &plan,
        [query.data(), key.data(), value.data()],
        table.data(),
        shared,
    );
    let mut output = Tensor::from_parts(data, query.shape());
    let inputs = [query, key, value, table];
    let saved = tape
        .needs_gradient(&inputs)
        .then(|| (query.clone(), key.clone(), value.clone(), shares));
    tape.record(&mut output, &inputs, move |gradient| {
        let (query, key, value, shares) = saved.expect("saved whenever recorded");
        let given = [query.data(), key.data(), value.data(), gradient.data()];
        let ([q, k, v], table) = cpu::backward(&plan, given, &shares);
        Ok(vec![
            Some(Tensor::from_parts(q, query.shape())),
            Some(Tensor::from_parts(k, query.shape())),
            Some(Tensor::from_parts(v, query.shape())),
            Some(Tensor::from_parts(table, &[rows, heads])),
        ])
    });
    Ok(output)
}

struct Plan {
    heads: usize,
    /// Channels of one head.
    depth: usize,
    height: usize,
    width: usize,
    /// Pixels along a window.
    side: usize,
}

impl Plan {
    fn pixels(&self) -> usize {
        self.height * self.width
    }

    /// Pixels of one window.
    fn tokens(&self) -> usize {
        self.side * self.side
    }

    /// Values of one head of one sample.
    fn head_len(&self) -> usize {
        self.depth * self.pixels()
    }

    fn scale(&self) -> f32 {
        1.0 / (self.depth as f32).sqrt()
    }

    /// First pixel of each window, row-major.
    fn corners(&self) -> impl Iterator<Item = usize> {
        let (side, width) = (self.side, self.width);
        (0..self.height)
            .step_by(side)
            .flat_map(move |top| (0..width).step_by(side).map(move |left| top * width + left))
    }

    /// Row of the bias table for each query and key of a window, `[tokens, tokens]`.
    fn relative(&self) -> Vec<usize> {
        let s = self.side;
        let places = move || (0..s * s).map(move |token| (token / s, token % s));
        let row = |(y, x): (usize, usize), (ky, kx): (usize, usize)| {
            (y + s - 1 - ky) * (2 * s - 1) + (x + s - 1 - kx)
        };
        places()
            .flat_map(|query| places().map(move |key| row(query, key)))
            .collect()
    }
}

mod cpu {
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradient, noise};

    #[test]
    fn two_by_two_window_worked_by_hand() {
        // Queries of zero: only the bias decides. Row 4 (no offset) gets ln 3, all others 0, so
        // each pixel takes half of itself and a sixth of each other.
        let zero = Tensor::zeros(&[1, 1, 2, 2]);
        let value = Tensor::new(vec![6.0, 12.0, 18.0, 24.0], &[1, 1, 2, 2]).unwrap();
        let mut table = vec![0.0; 9];
        table[4] = 3.0f32.ln();
        let table = Tensor::new(table, &[9, 1]).unwrap();
        let mut tape = Tape::inference();
        let y = window_attention(&mut tape, [&zero, &zero, &value], &table, None, 2).unwrap();
        assert_close(y.data(), &[12.0, 14.0, 16.0, 18.0], 1e-6);
        // With the last pixel hidden as a key: 3/5 of itself and 1/5 of the other two.
        let mask = Tensor::new(vec![1.0, 1.0, 1.0, 0.0], &[1, 2, 2]).unwrap();
        let inputs = [&zero, &zero, &value];
        let y = window_attention(&mut tape, inputs, &table, Some(&mask), 2).unwrap();
        assert_close(y.data(), &[9.6, 12.0, 14.4, 12.0], 1e-6);
    }

    #[test]
    fn a_bias_belongs_to_query_minus_key() {
        // Window 2: row 1 of the table is dy = -1, dx = 0: queries above read the key below.
        let zero = Tensor::zeros(&[1, 1, 2, 2]);
        let value = Tensor::new(vec![1.0, 2.0, 3.0, 4.0], &[1, 1, 2, 2]).unwrap();
        let mut table = vec![0.0; 9];
        table[1] = 50.0;
        let table = Tensor::new(table, &[9, 1]).unwrap();
        let inputs = [&zero, &zero, &value];
        let y = window_attention(&mut Tape::inference(), inputs, &table, None, 2).unwrap();
        assert_close(y.data(), &[3.0, 4.0, 2.5, 2.5], 1e-6);
    }

    #[test]
    fn windows_do_not_see_each_other() {
        let [q, k, v] = [1, 2, 3].map(|seed| noise(&[1, 2, 2, 4], seed));
        let table = noise(&[9, 2], 4);
        let mut tape = Tape::inference();
        let before = window_attention(&mut tape, [&q, &k, &v], &table, None, 2).unwrap();
        let mut changed = v.data().to_vec();
        changed[3] += 1.0;
        let changed = Tensor::new(changed, v.shape()).unwrap();
        let after = window_attention(&mut tape, [&q, &k, &changed], &table, None, 2).unwrap();
        let moved = |i: usize| before.data()[i] != after.data()[i];
        assert!(!moved(0) && !moved(1) && moved(2) && moved(3) && moved(6) && !moved(8));
    }

    #[test]
    fn gradient_matches_finite_differences() {
        let [q, k, v] = [1, 2, 3].map(|seed| noise(&[2, 4, 2, 4], seed));
        let mask = Tensor::new((0..16).map(|i| (i % 3) as f32).collect(), &[2, 2, 4]).unwrap();
        for mask in [None, Some(&mask)] {
            let inputs = [q.clone(), k.clone(), v.clone(), noise(&[9, 2], 4)];
            check_gradient(&inputs, 3e-3, |tape, x| {
                window_attention(tape, [&x[0], &x[1], &x[2]], &x[3], mask, 2)
            });
        }
    }

    #[test]
    fn wrong_shapes_are_refused() {
        let x = noise(&[1, 4, 4, 4], 1);
        let table = noise(&[9, 2], 2);
        let mut tape = Tape::inference();
        let mut run = |table: &Tensor, side| {
            window_attention(&mut tape, [&x, &x, &x], table, None, side).is_err()
        };
        assert!(run(&table, 3));
        assert!(run(&table, 4));
        assert!(run(&noise(&[9, 3], 2), 2));
        assert!(!run(&table, 2));
    }
}
