//! Stochastic depth: drops the residual branch of whole samples in training.

use crate::error::{Error, Result};
use crate::tape::Tape;
use crate::tensor::Tensor;

const OP: &str = "drop_connect";

/// Zero for the samples not in `keep`, and `input / keep_probability` for the others, so that the
/// expected value stays. The caller draws `keep`, which keeps this operation free of chance.
///
/// # Shapes
/// `input` `[N, ...]`, `keep` of length N; returns the shape of `input`.
///
/// # Errors
/// [`Error::Shape`] when `keep` has not one entry for each sample, [`Error::Argument`] when
/// `keep_probability` is not in (0, 1].
///
/// # Source
/// Deep Networks with Stochastic Depth (Huang et al. 2016), with the scaling of `EfficientNet`.
pub fn drop_connect(
    tape: &mut Tape,
    input: &Tensor,
    keep: &[bool],
    keep_probability: f32,
) -> Result<Tensor> {
    if input.shape().first() != Some(&keep.len()) {
        return Err(Error::shape(
            OP,
            "samples in keep and input",
            keep.len(),
            input.shape(),
        ));
    }
    if !(keep_probability > 0.0 && keep_probability <= 1.0) {
        return Err(Error::argument(
            OP,
            format!("keep probability {keep_probability} is not in (0, 1]"),
        ));
    }
    let mut output = scale_samples(input, keep, keep_probability);
    let keep = keep.to_vec();
    tape.record(&mut output, &[input], move |gradient| {
        Ok(vec![Some(scale_samples(gradient, &keep, keep_probability))])
    });
    Ok(output)
}

fn scale_samples(tensor: &Tensor, keep: &[bool], keep_probability: f32) -> Tensor {
    let mut data = Vec::with_capacity(tensor.len());
    let sample_len = tensor.len().checked_div(keep.len()).unwrap_or(0).max(1);
    for (sample, keep) in tensor.data().chunks(sample_len).zip(keep) {
        data.extend(
            sample
                .iter()
                .map(|x| if *keep { x / keep_probability } else { 0.0 }),
        );
    }
    Tensor::from_parts(data, tensor.shape())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradient, noise};

    #[test]
    fn kept_samples_are_scaled_and_dropped_ones_are_zero() {
        let x = Tensor::new(vec![1.0, 2.0, 3.0, 4.0], &[2, 2]).unwrap();
        let y = drop_connect(&mut Tape::inference(), &x, &[false, true], 0.5).unwrap();
        assert_eq!(y.data(), [0.0, 0.0, 6.0, 8.0]);
    }

    #[test]
    fn gradient_matches_finite_differences() {
        check_gradient(&[noise(&[3, 2, 2, 2], 1)], 2e-3, |tape, x| {
            drop_connect(tape, &x[0], &[true, false, true], 0.8)
        });
    }

    #[test]
    fn keep_of_another_length_and_impossible_probabilities_are_refused() {
        let x = Tensor::zeros(&[2, 3]);
        let tape = &mut Tape::inference();
        assert!(drop_connect(tape, &x, &[true; 3], 0.5).is_err());
        assert!(drop_connect(tape, &x, &[true; 2], 0.0).is_err());
        assert!(drop_connect(tape, &x, &[true; 2], f32::NAN).is_err());
    }
}
