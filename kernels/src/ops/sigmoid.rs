//! Logistic function: 1 / (1 + e⁻ˣ).

use super::elementwise;
use crate::cuda::Kernel;
use crate::error::Result;
use crate::math::{self, for_each_cpu};
use crate::tape::Tape;
use crate::tensor::Tensor;
use crate::testing::Case;

/// 1 / (1 + e⁻ˣ) for each element; any shape.
///
/// # Errors
/// On the processor none; on a device [`crate::Error::OutOfMemory`] and [`crate::Error::Cuda`].
pub fn sigmoid(tape: &mut Tape, input: &Tensor) -> Result<Tensor> {
    let mut output = elementwise::map(input, forward, &FORWARD)?;
    let saved = tape.needs_gradient(&[input]).then(|| output.clone());
    tape.record(&mut output, &[input], move |gradient| {
        let output = saved.expect("saved whenever recorded");
        let to_input = elementwise::zip(&output, gradient, backward, &BACKWARD)?;
        Ok(vec![Some(to_input)])
    });
    Ok(output)
}

static FORWARD: Kernel = elementwise::kernel("sigmoid_forward");
static BACKWARD: Kernel = elementwise::kernel("sigmoid_backward");

for_each_cpu! {
    fn forward(input: &[f32], output: &mut [f32]) {
        for (y, x) in output.iter_mut().zip(input) {
            *y = math::sigmoid(*x);
        }
    }
}

for_each_cpu! {
    fn backward(saved: &[f32], gradient: &[f32], output: &mut [f32]) {
        for ((d, y), g) in output.iter_mut().zip(saved).zip(gradient) {
            *d = g * y * (1.0 - y);
        }
    }
}

/// What is run on every device.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("sigmoid", &[&[2, 3, 171]], |tape, x| sigmoid(tape, &x[0])),
        Case::new("sigmoid of three", &[&[3]], |tape, x| sigmoid(tape, &x[0])),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradient, noise};

    #[test]
    fn values_worked_by_hand() {
        let x = Tensor::new(vec![0.0, 1.0, -1.0], &[3]).unwrap();
        let y = sigmoid(&mut Tape::inference(), &x).unwrap();
        assert_close(y.data(), &[0.5, 0.731_058_6, 0.268_941_43], 1e-6);
    }

    #[test]
    fn gradient_matches_finite_differences() {
        check_gradient(&[noise(&[2, 3, 7], 1)], 2e-3, |tape, inputs| {
            sigmoid(tape, &inputs[0])
        });
    }
}
