//! Rectifier: max(x, 0).

use super::{activation, elementwise};
use crate::cuda::Kernel;
use crate::error::Result;
use crate::math::for_each_cpu;
use crate::tape::Tape;
use crate::tensor::Tensor;
use crate::testing::Case;

/// max(x, 0) for each element; any shape. NaN stays NaN.
///
/// # Errors
/// On the processor none; on a device [`crate::Error::OutOfMemory`] and [`crate::Error::Cuda`].
pub fn relu(tape: &mut Tape, input: &Tensor) -> Result<Tensor> {
    let mut output = elementwise::map(input, forward, &FORWARD)?;
    let saved = tape.needs_gradient(&[input]).then(|| input.clone());
    tape.record(&mut output, &[input], move |gradient| {
        let input = saved.expect("saved whenever recorded");
        let to_input = elementwise::zip(&input, gradient, backward, &BACKWARD)?;
        Ok(vec![Some(to_input)])
    });
    Ok(output)
}

static FORWARD: Kernel = elementwise::kernel("relu_forward");
static BACKWARD: Kernel = elementwise::kernel("relu_backward");

for_each_cpu! {
    fn forward(input: &[f32], output: &mut [f32]) {
        for (y, x) in output.iter_mut().zip(input) {
            *y = activation::relu(*x);
        }
    }
}

for_each_cpu! {
    fn backward(input: &[f32], gradient: &[f32], output: &mut [f32]) {
        for ((d, x), g) in output.iter_mut().zip(input).zip(gradient) {
            *d = g * activation::relu_slope(*x);
        }
    }
}

/// What is run on every device.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("relu", &[&[2, 3, 171]], |tape, x| relu(tape, &x[0])),
        Case::new("relu of three", &[&[3]], |tape, x| relu(tape, &x[0])),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradient, noise};

    #[test]
    fn negative_values_become_zero() {
        let x = Tensor::new(vec![-1.5, 0.0, 2.0, f32::NAN], &[4]).unwrap();
        let y = relu(&mut Tape::inference(), &x).unwrap();
        assert_eq!(y.data()[..3], [0.0, 0.0, 2.0]);
        assert!(y.data()[3].is_nan());
    }

    #[test]
    fn gradient_matches_finite_differences() {
        check_gradient(&[noise(&[2, 3, 4], 1)], 2e-3, |tape, inputs| {
            relu(tape, &inputs[0])
        });
    }
}
