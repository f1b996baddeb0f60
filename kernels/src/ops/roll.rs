//! Rolls a tensor along one axis. Rolling a panorama's columns turns the camera.

use crate::buffer;
use crate::error::{Error, Result};
use crate::tape::Tape;
use crate::tensor::Tensor;

/// Moves every element `shift` places up along `axis`; what falls off one end comes in at the
/// other. Negative shifts move down; any shift is taken modulo the axis length.
///
/// # Errors
/// [`Error::Argument`] when there is no such axis.
pub fn roll(tape: &mut Tape, input: &Tensor, axis: usize, shift: isize) -> Result<Tensor> {
    if axis >= input.shape().len() {
        return Err(Error::argument(
            "roll",
            format!("axis {axis} of a tensor shaped {:?}", input.shape()),
        ));
    }
    let mut output = rolled(input, axis, shift);
    tape.record(&mut output, &[input], move |gradient| {
        Ok(vec![Some(rolled(gradient, axis, -shift))])
    });
    Ok(output)
}

fn rolled(input: &Tensor, axis: usize, shift: isize) -> Tensor {
    if input.is_empty() {
        return input.detach();
    }
    let length = input.shape()[axis];
    let inner: usize = input.shape()[axis + 1..].iter().product();
    let from = (-shift).rem_euclid(length as isize) as usize * inner;
    let mut output = buffer::empty(input.len());
    for span in input.data().chunks_exact(length * inner) {
        output.extend_from_slice(&span[from..]);
        output.extend_from_slice(&span[..from]);
    }
    Tensor::from_parts(output, input.shape())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradient, noise};

    #[test]
    fn elements_move_up_and_come_back_in() {
        let x = Tensor::new((0..8).map(|v| v as f32).collect(), &[2, 4]).unwrap();
        let mut tape = Tape::inference();
        let y = roll(&mut tape, &x, 1, 1).unwrap();
        assert_eq!(y.data(), [3., 0., 1., 2., 7., 4., 5., 6.]);
        let y = roll(&mut tape, &x, 0, -3).unwrap();
        assert_eq!(y.data(), [4., 5., 6., 7., 0., 1., 2., 3.]);
    }

    #[test]
    fn rolling_back_restores() {
        let x = noise(&[2, 3, 5, 2], 1);
        let mut tape = Tape::inference();
        let there = roll(&mut tape, &x, 2, 12).unwrap();
        assert_eq!(roll(&mut tape, &there, 2, -12).unwrap().data(), x.data());
    }

    #[test]
    fn gradient_matches_finite_differences() {
        check_gradient(&[noise(&[2, 3, 4], 1)], 2e-3, |tape, inputs| {
            roll(tape, &inputs[0], 1, 2)
        });
    }

    #[test]
    fn missing_axis_is_refused() {
        assert!(roll(&mut Tape::inference(), &noise(&[2, 3], 1), 2, 1).is_err());
    }
}
