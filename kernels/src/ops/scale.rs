//! A tensor times a number.

use super::elementwise;
use crate::error::Result;
use crate::tape::Tape;
use crate::tensor::Tensor;

/// factor · x for each element; any shape.
///
/// # Errors
/// On the CPU none; on a device [`crate::Error::OutOfMemory`] and [`crate::Error::Cuda`].
pub fn scale(tape: &mut Tape, input: &Tensor, factor: f32) -> Result<Tensor> {
    let mut output = elementwise::scaled(input, factor)?;
    tape.record(&mut output, &[input], move |gradient| {
        Ok(vec![Some(elementwise::scaled(gradient, factor)?)])
    });
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradient, noise};

    #[test]
    fn multiplies_each_element() {
        let x = Tensor::new(vec![1.0, -2.0], &[2]).unwrap();
        let y = scale(&mut Tape::inference(), &x, -0.5).unwrap();
        assert_eq!(y.data(), [-0.5, 1.0]);
    }

    #[test]
    fn gradient_matches_finite_differences() {
        check_gradient(&[noise(&[2, 5], 1)], 2e-3, |tape, inputs| {
            scale(tape, &inputs[0], 1.7)
        });
    }
}
