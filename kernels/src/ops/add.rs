//! Sum of two tensors: the skip connection.

use super::elementwise;
use crate::cuda::Kernel;
use crate::error::Result;
use crate::math::for_each_cpu;
use crate::tape::Tape;
use crate::tensor::Tensor;

/// a + b, element by element.
///
/// # Shapes
/// `a` and `b` the same, and so is the result.
///
/// # Errors
/// [`crate::Error::Shape`] when the shapes differ, [`crate::Error::Device`] when the devices do.
pub fn add(tape: &mut Tape, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    b.expect_shape("add", "b", a.shape())?;
    let mut output = elementwise::zip(a, b, forward, &FORWARD)?;
    tape.record(&mut output, &[a, b], |gradient| {
        Ok(vec![Some(gradient.clone()), Some(gradient.clone())])
    });
    Ok(output)
}

static FORWARD: Kernel = elementwise::kernel("add_forward");

for_each_cpu! {
    fn forward(a: &[f32], b: &[f32], output: &mut [f32]) {
        for ((y, a), b) in output.iter_mut().zip(a).zip(b) {
            *y = a + b;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradient, noise};

    #[test]
    fn adds_element_by_element() {
        let a = Tensor::new(vec![1.0, 2.0], &[2]).unwrap();
        let b = Tensor::new(vec![10.0, -2.0], &[2]).unwrap();
        let y = add(&mut Tape::inference(), &a, &b).unwrap();
        assert_eq!(y.data(), [11.0, 0.0]);
    }

    #[test]
    fn gradient_matches_finite_differences() {
        let inputs = [noise(&[2, 5], 1), noise(&[2, 5], 2)];
        check_gradient(&inputs, 2e-3, |tape, inputs| {
            add(tape, &inputs[0], &inputs[1])
        });
    }

    #[test]
    fn adding_a_tensor_to_itself_doubles_its_gradient() {
        check_gradient(&[noise(&[6], 1)], 2e-3, |tape, inputs| {
            add(tape, &inputs[0], &inputs[0])
        });
    }

    #[test]
    fn different_shapes_are_refused() {
        let error = add(
            &mut Tape::inference(),
            &noise(&[2, 3], 1),
            &noise(&[3, 2], 1),
        );
        let message = error.unwrap_err().to_string();
        assert_eq!(message, "add: b: expected [2, 3], got [3, 2]");
    }
}
