//! Sigmoid-weighted linear unit: x · sigmoid(x), also called swish.

use super::{activation, elementwise};
use crate::cuda::Kernel;
use crate::error::Result;
use crate::math::for_each_cpu;
use crate::tape::Tape;
use crate::tensor::Tensor;
use crate::testing::Case;

/// x · sigmoid(x) for each element; any shape.
///
/// # Errors
/// On the processor none; on a device [`crate::Error::OutOfMemory`] and [`crate::Error::Cuda`].
///
/// # Source
/// Sigmoid-Weighted Linear Units (Elfwing et al. 2017), equations 11 and 12.
pub fn silu(tape: &mut Tape, input: &Tensor) -> Result<Tensor> {
    let mut output = elementwise::map(input, forward, &FORWARD)?;
    let saved = tape.needs_gradient(&[input]).then(|| input.clone());
    tape.record(&mut output, &[input], move |gradient| {
        let input = saved.expect("saved whenever recorded");
        let to_input = elementwise::zip(&input, gradient, backward, &BACKWARD)?;
        Ok(vec![Some(to_input)])
    });
    Ok(output)
}

static FORWARD: Kernel = elementwise::kernel("silu_forward");
static BACKWARD: Kernel = elementwise::kernel("silu_backward");

for_each_cpu! {
    fn forward(input: &[f32], output: &mut [f32]) {
        for (y, x) in output.iter_mut().zip(input) {
            *y = activation::silu(*x);
        }
    }
}

for_each_cpu! {
    fn backward(input: &[f32], gradient: &[f32], output: &mut [f32]) {
        for ((d, x), g) in output.iter_mut().zip(input).zip(gradient) {
            *d = g * activation::silu_slope(*x);
        }
    }
}

/// What is run on every device.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("silu", &[&[2, 3, 171]], |tape, x| silu(tape, &x[0])),
        Case::new("silu of three", &[&[3]], |tape, x| silu(tape, &x[0])),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradient, noise};

    #[test]
    fn values_worked_by_hand() {
        let x = Tensor::new(vec![0.0, 1.0, -1.0, -200.0, 200.0], &[5]).unwrap();
        let y = silu(&mut Tape::inference(), &x).unwrap();
        assert_close(
            y.data(),
            &[0.0, 0.731_058_6, -0.268_941_43, 0.0, 200.0],
            1e-6,
        );
    }

    #[test]
    fn gradient_matches_finite_differences() {
        check_gradient(&[noise(&[2, 3, 7], 1)], 2e-3, |tape, inputs| {
            silu(tape, &inputs[0])
        });
    }
}
