//! Nearest-neighbour enlargement to twice the side.

use crate::error::Result;
use crate::tape::Tape;
use crate::tensor::Tensor;

/// Every pixel four times, as a 2 × 2 square.
///
/// # Shapes
/// `input` `[N, C, H, W]`; returns `[N, C, 2H, 2W]`.
///
/// # Errors
/// [`crate::Error::Shape`] when `input` is not an image batch.
pub fn upsample2x(tape: &mut Tape, input: &Tensor) -> Result<Tensor> {
    let [n, c, h, w] = input.dims4("upsample2x", "input")?;
    let data = cpu::forward(input.data(), w);
    let mut output = Tensor::from_parts(data, &[n, c, 2 * h, 2 * w]);
    tape.record(&mut output, &[input], move |gradient| {
        let data = cpu::backward(gradient.data(), w);
        Ok(vec![Some(Tensor::from_parts(data, &[n, c, h, w]))])
    });
    Ok(output)
}

mod cpu {
    use crate::buffer;
    use rayon::prelude::*;

    pub fn forward(input: &[f32], width: usize) -> Vec<f32> {
        let mut output = buffer::any(4 * input.len());
        output
            .par_chunks_exact_mut(4 * width)
            .zip(input.par_chunks_exact(width))
            .for_each(|(rows, row)| {
                let (first, second) = rows.split_at_mut(2 * width);
                for (pair, x) in first.as_chunks_mut::<2>().0.iter_mut().zip(row) {
                    *pair = [*x; 2];
                }
                second.copy_from_slice(first);
            });
        output
    }

    pub fn backward(gradient: &[f32], width: usize) -> Vec<f32> {
        let mut input = buffer::any(gradient.len() / 4);
        input
            .par_chunks_exact_mut(width)
            .zip(gradient.par_chunks_exact(4 * width))
            .for_each(|(row, rows)| {
                let (first, second) = rows.split_at(2 * width);
                let pairs = first
                    .as_chunks::<2>()
                    .0
                    .iter()
                    .zip(second.as_chunks::<2>().0);
                for (x, ([a, b], [c, d])) in row.iter_mut().zip(pairs) {
                    *x = (a + b) + (c + d);
                }
            });
        input
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradient, noise};

    #[test]
    fn every_pixel_becomes_a_square() {
        let x = Tensor::new(vec![1.0, 2.0, 3.0, 4.0], &[1, 2, 1, 2]).unwrap();
        let y = upsample2x(&mut Tape::inference(), &x).unwrap();
        assert_eq!(y.shape(), [1, 2, 2, 4]);
        let (a, b) = ([1., 1., 2., 2.], [3., 3., 4., 4.]);
        assert_eq!(y.data(), [a, a, b, b].concat());
    }

    #[test]
    fn gradient_matches_finite_differences() {
        check_gradient(&[noise(&[2, 2, 3, 2], 1)], 2e-3, |tape, x| {
            upsample2x(tape, &x[0])
        });
    }

    #[test]
    fn a_matrix_is_refused() {
        assert!(upsample2x(&mut Tape::inference(), &noise(&[3, 2], 1)).is_err());
    }
}
