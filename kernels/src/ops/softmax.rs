//! Logits to probabilities, sample by sample.

use crate::error::{Error, Result};
use crate::tape::Tape;
use crate::tensor::Tensor;
use rayon::prelude::*;

const OP: &str = "softmax";

/// exp(x) divided by its sum over everything but the first axis.
///
/// # Shapes
/// `logits` `[N, ...]`; returns the same shape, each sample summing to 1.
///
/// # Errors
/// [`Error::Shape`] when `logits` has no axis or its samples are empty.
pub fn softmax(tape: &mut Tape, logits: &Tensor) -> Result<Tensor> {
    let m = sample_len(OP, "logits", logits)?;
    let mut data = vec![0.0; logits.len()];
    data.par_chunks_mut(m)
        .zip(logits.data().par_chunks(m))
        .for_each(|(output, logits)| {
            let log_sum = log_sum_exp(logits, 1.0);
            for (output, x) in output.iter_mut().zip(logits) {
                *output = (f64::from(*x) - log_sum).exp() as f32;
            }
        });
    let mut output = Tensor::from_parts(data, logits.shape());
    let saved = tape.needs_gradient(&[logits]).then(|| output.clone());
    tape.record(&mut output, &[logits], move |gradient| {
        let output = saved.expect("saved whenever recorded");
        let mut data = vec![0.0; output.len()];
        data.par_chunks_mut(m)
            .zip(output.data().par_chunks(m))
            .zip(gradient.data().par_chunks(m))
            .for_each(|((result, output), gradient)| {
                let mean: f64 = output
                    .iter()
                    .zip(gradient)
                    .map(|(p, g)| f64::from(*p) * f64::from(*g))
                    .sum();
                for ((result, p), g) in result.iter_mut().zip(output).zip(gradient) {
                    *result = (f64::from(*p) * (f64::from(*g) - mean)) as f32;
                }
            });
        Ok(vec![Some(Tensor::from_parts(data, output.shape()))])
    });
    Ok(output)
}

/// Elements of one sample: everything but the first axis.
pub(super) fn sample_len(op: &'static str, what: &'static str, tensor: &Tensor) -> Result<usize> {
    let len = tensor.shape().iter().skip(1).product();
    if tensor.shape().is_empty() || len == 0 {
        return Err(Error::shape(
            op,
            what,
            "[N, ...], not empty",
            tensor.shape(),
        ));
    }
    Ok(len)
}

/// log of the sum of exp(x / temperature), without overflow; summed in f64.
pub(super) fn log_sum_exp(logits: &[f32], temperature: f32) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let inverse = 1.0 / temperature;
    let sum: f64 = logits
        .iter()
        .map(|x| f64::from(((x - max) * inverse).exp()))
        .sum();
    f64::from(max) / f64::from(temperature) + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradient, noise};

    #[test]
    fn two_logits_worked_by_hand() {
        // exp(0) : exp(ln 3) = 1 : 3
        let x = Tensor::new(vec![0.0, 3.0f32.ln(), 5.0, 5.0], &[2, 2]).unwrap();
        let y = softmax(&mut Tape::inference(), &x).unwrap();
        assert_close(y.data(), &[0.25, 0.75, 0.5, 0.5], 1e-6);
    }

    #[test]
    fn large_logits_do_not_overflow() {
        let x = Tensor::new(vec![1e4, 1e4, -1e4], &[1, 3]).unwrap();
        let y = softmax(&mut Tape::inference(), &x).unwrap();
        assert_close(y.data(), &[0.5, 0.5, 0.0], 1e-6);
    }

    #[test]
    fn nan_is_not_hidden() {
        let x = Tensor::new(vec![1.0, f32::NAN, 2.0], &[1, 3]).unwrap();
        let y = softmax(&mut Tape::inference(), &x).unwrap();
        assert!(y.data().iter().all(|y| y.is_nan()));
    }

    #[test]
    fn gradient_matches_finite_differences() {
        check_gradient(&[noise(&[3, 7], 1)], 2e-3, |tape, x| softmax(tape, &x[0]));
    }

    #[test]
    fn empty_samples_are_refused() {
        assert!(softmax(&mut Tape::inference(), &Tensor::zeros(&[2, 0])).is_err());
        assert!(softmax(&mut Tape::inference(), &Tensor::scalar(1.0)).is_err());
    }
}
