//! Rectifier: max(x, 0).

use crate::error::Result;
use crate::tape::Tape;
use crate::tensor::Tensor;

/// max(x, 0) for each element; any shape.
///
/// # Errors
/// None; the signature matches the other operations.
pub fn relu(tape: &mut Tape, input: &Tensor) -> Result<Tensor> {
    let data = input.data().iter().map(|x| x.max(0.0)).collect();
    let mut output = Tensor::from_parts(data, input.shape());
    let saved = tape.needs_gradient(&[input]).then(|| input.clone());
    tape.record(&mut output, &[input], move |gradient| {
        let input = saved.expect("saved whenever recorded");
        let data = input
            .data()
            .iter()
            .zip(gradient.data())
            .map(|(x, g)| if *x > 0.0 { *g } else { 0.0 });
        Ok(vec![Some(Tensor::from_parts(
            data.collect(),
            input.shape(),
        ))])
    });
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradient, noise};

    #[test]
    fn negative_values_become_zero() {
        let x = Tensor::new(vec![-1.5, 0.0, 2.0], &[3]).unwrap();
        assert_eq!(
            relu(&mut Tape::inference(), &x).unwrap().data(),
            [0.0, 0.0, 2.0]
        );
    }

    #[test]
    fn gradient_matches_finite_differences() {
        check_gradient(&[noise(&[2, 3, 4], 1)], 2e-3, |tape, inputs| {
            relu(tape, &inputs[0])
        });
    }
}
