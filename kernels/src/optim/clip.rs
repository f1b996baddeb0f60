//! Gradient clipping: the global norm of all gradients, and the factor that bounds it.

use super::adam::Parameter;
use crate::error::{Error, Result};
use crate::tape::Gradients;
use rayon::prelude::*;

/// The length of the gradients of all parameters taken as one vector; parameters without a
/// gradient count as zero. Summed in f64, each parameter by itself, then in order: the result
/// does not depend on the number of threads.
///
/// # Errors
/// [`Error::Shape`] when a gradient does not fit its parameter, [`Error::NotFinite`], naming the
/// parameter, when a gradient holds NaN or infinity, [`Error::CpuOnly`] when one lies on a
/// device: there [`super::Adam`] finds the length.
pub fn global_norm(parameters: &[Parameter], gradients: &Gradients) -> Result<f64> {
    let squares: Vec<f64> = parameters
        .par_iter()
        .map(|parameter| {
            let Some(gradient) = gradients.get(&parameter.value) else {
                return Ok(0.0);
            };
            gradient.expect_shape("global_norm", "gradient", parameter.value.shape())?;
            let square: f64 = gradient
                .host("global_norm")?
                .iter()
                .map(|g| f64::from(*g).powi(2))
                .sum();
            if square.is_finite() {
                Ok(square)
            } else {
                Err(Error::NotFinite {
                    op: "global_norm",
                    what: format!("gradient of {}", parameter.name),
                })
            }
        })
        .collect::<Result<_>>()?;
    Ok(squares.iter().sum::<f64>().sqrt())
}

/// What gradients of length `norm` are multiplied by so that they are not longer than `max_norm`;
/// 1 when they already are not. The 1e-6 is `PyTorch`'s.
pub fn clip_factor(norm: f64, max_norm: f64) -> f64 {
    (max_norm / (norm + 1e-6)).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Tape, Tensor, ops};

    /// Parameters [3, -1] and [2], the gradients of relu's output being [3, 4] and [12].
    fn example(last: f32) -> (Vec<Parameter>, Gradients) {
        let value = Tensor::new(vec![1.0, 1.0, 2.0], &[3]).unwrap();
        let parameters = vec![
            Parameter::new("used", value),
            Parameter::new("unused", Tensor::zeros(&[5])),
        ];
        let mut tape = Tape::training();
        let y = ops::relu(&mut tape, &parameters[0].value).unwrap();
        let gradient = Tensor::new(vec![3.0, 4.0, last], &[3]).unwrap();
        (parameters, tape.backward_from(&y, gradient).unwrap())
    }

    #[test]
    fn three_four_twelve_have_length_thirteen() {
        let (parameters, gradients) = example(12.0);
        let norm = global_norm(&parameters, &gradients).unwrap();
        assert!((norm - 13.0).abs() < 1e-12);
    }

    #[test]
    fn an_infinite_gradient_is_named() {
        let (parameters, gradients) = example(f32::INFINITY);
        let message = global_norm(&parameters, &gradients)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("gradient of used is not finite"),
            "{message}"
        );
    }

    #[test]
    fn short_gradients_are_left_alone() {
        assert!((clip_factor(0.5, 1.0) - 1.0).abs() < 1e-12);
        assert!((clip_factor(4.0, 1.0) - 0.25).abs() < 1e-6);
    }
}
