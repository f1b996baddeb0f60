//! Mean of each channel over the whole image.

use crate::buffer;
use crate::error::Result;
use crate::math::sum;
use crate::tape::Tape;
use crate::tensor::Tensor;

/// The mean over rows and columns.
///
/// # Shapes
/// `input` `[N, C, H, W]`; returns `[N, C]`.
///
/// # Errors
/// [`crate::Error::Shape`] when `input` is not an image batch.
pub fn global_mean_pool(tape: &mut Tape, input: &Tensor) -> Result<Tensor> {
    let [n, c, h, w] = input.dims4("global_mean_pool", "input")?;
    let share = 1.0 / (h * w) as f32;
    let planes = input.data().chunks_exact(h * w);
    let data = planes.map(|plane| sum(plane) * share).collect();
    let mut output = Tensor::from_parts(data, &[n, c]);
    tape.record(&mut output, &[input], move |gradient| {
        let mut data = buffer::empty(n * c * h * w);
        for gradient in gradient.data() {
            data.resize(data.len() + h * w, gradient * share);
        }
        Ok(vec![Some(Tensor::from_parts(data, &[n, c, h, w]))])
    });
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradient, noise};

    #[test]
    fn each_channel_becomes_its_mean() {
        let x = Tensor::new(vec![1.0, 2.0, 3.0, 6.0, 0.0, 0.0, 0.0, -4.0], &[1, 2, 2, 2]).unwrap();
        let y = global_mean_pool(&mut Tape::inference(), &x).unwrap();
        assert_eq!((y.shape(), y.data()), ([1, 2].as_slice(), &[3.0, -1.0][..]));
    }

    #[test]
    fn gradient_matches_finite_differences() {
        check_gradient(&[noise(&[2, 3, 3, 2], 1)], 2e-3, |tape, inputs| {
            global_mean_pool(tape, &inputs[0])
        });
    }

    #[test]
    fn an_empty_batch_is_refused() {
        let empty = Tensor::zeros(&[0, 3, 4, 4]);
        assert!(global_mean_pool(&mut Tape::inference(), &empty).is_err());
    }
}
