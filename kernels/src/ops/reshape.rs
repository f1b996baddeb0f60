//! The same elements under other axes.

use crate::error::{Error, Result};
use crate::tape::Tape;
use crate::tensor::Tensor;

/// The elements of `input`, in their order, as `shape`. Nothing is copied.
///
/// # Errors
/// [`Error::Shape`] when the number of elements would change.
pub fn reshape(tape: &mut Tape, input: &Tensor, shape: &[usize]) -> Result<Tensor> {
    if shape.iter().product::<usize>() != input.len() {
        return Err(Error::shape(
            "reshape",
            "a shape with as many elements as the input",
            input.shape(),
            shape,
        ));
    }
    let mut output = input.with_shape(shape);
    let before = input.shape().to_vec();
    tape.record(&mut output, &[input], move |gradient| {
        Ok(vec![Some(gradient.with_shape(&before))])
    });
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradient, noise};

    #[test]
    fn elements_keep_their_order() {
        let x = noise(&[2, 6], 1);
        let y = reshape(&mut Tape::inference(), &x, &[3, 4]).unwrap();
        assert_eq!((y.shape(), y.data()), ([3, 4].as_slice(), x.data()));
    }

    #[test]
    fn gradient_matches_finite_differences() {
        check_gradient(&[noise(&[2, 6], 1)], 2e-3, |tape, inputs| {
            reshape(tape, &inputs[0], &[4, 3])
        });
    }

    #[test]
    fn another_number_of_elements_is_refused() {
        let error = reshape(&mut Tape::inference(), &noise(&[2, 6], 1), &[5, 2]).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("[2, 6]") && message.contains("[5, 2]"),
            "{message}"
        );
    }
}
