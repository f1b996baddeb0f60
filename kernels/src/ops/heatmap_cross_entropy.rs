//! Cross-entropy between a predicted heatmap and a Gaussian about the true place.

use super::softmax::cuda::{STATISTICS, SampleParameters, statistics};
use super::softmax::{log_sum_exp, sample_len};
use crate::buffer;
use crate::cuda::{Cuda, Kernel, Launch, Source};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tape::Tape;
use crate::tensor::Tensor;
use rayon::prelude::*;

const OP: &str = "heatmap_cross_entropy";

/// `-(1/N) sum over samples and cells of Y * log softmax(logits)`, where Y is `target` divided by
/// its own sum for each sample: this operation normalises, the caller hands over the plain map.
///
/// No gradient flows to `target`.
///
/// # Shapes
/// `logits` and `target` `[N, ...]`, equal; returns a scalar.
///
/// # Errors
/// [`Error::Shape`] when the shapes differ or a sample is empty, [`Error::Argument`] when a
/// sample's target does not sum to a positive number; on a GPU, where the
/// sums are not checked, the loss is then not finite.
///
/// # Source
/// Convolutional Cross-View Pose Estimation (Xia et al. 2023), the localisation loss.
pub fn heatmap_cross_entropy(tape: &mut Tape, logits: &Tensor, target: &Tensor) -> Result<Tensor> {
    let m = sample_len(OP, "logits", logits)?;
    target.expect_shape(OP, "target", logits.shape())?;
    match Device::common(OP, &[logits, target])? {
        Device::Cpu => on_cpu(tape, logits, target, m),
        Device::Cuda(cuda) => on_cuda(tape, &cuda, logits, target, m),
    }
}

fn on_cpu(tape: &mut Tape, logits: &Tensor, target: &Tensor, m: usize) -> Result<Tensor> {
    let n = logits.shape()[0];
    let samples: Vec<Sample> = logits
        .data()
        .par_chunks(m)
        .zip(target.data().par_chunks(m))
        .map(|(logits, target)| Sample::new(logits, target))
        .collect();
    for (index, sample) in samples.iter().enumerate() {
        if !(sample.target_sum > 0.0 && sample.target_sum.is_finite()) {
            return Err(Error::argument(
                OP,
                format!(
                    "target of sample {index} sums to {}; it has to be positive",
                    sample.target_sum
                ),
            ));
        }
    }
    let loss = samples.iter().map(|sample| sample.loss).sum::<f64>() / n as f64;
    let mut output = Tensor::scalar(loss as f32);
    let saved = tape
        .needs_gradient(&[logits])
        .then(|| (logits.clone(), target.clone(), samples));
    tape.record(&mut output, &[logits], move |gradient| {
        let (logits, target, samples) = saved.expect("saved whenever recorded");
        let scale = f64::from(gradient.item()?) / n as f64;
        let mut data = buffer::any(logits.len());
        data.par_chunks_mut(m)
            .zip(logits.data().par_chunks(m))
            .zip(target.data().par_chunks(m))
            .zip(samples.par_iter())
            .for_each(|(((result, logits), target), sample)| {
                for ((result, x), y) in result.iter_mut().zip(logits).zip(target) {
                    let probability = (f64::from(*x) - sample.log_sum).exp();
                    *result = (scale * (probability - f64::from(*y) / sample.target_sum)) as f32;
                }
            });
        Ok(vec![Some(Tensor::from_parts(data, logits.shape()))])
    });
    Ok(output)
}

struct Sample {
    log_sum: f64,
    target_sum: f64,
    loss: f64,
}

impl Sample {
    fn new(logits: &[f32], target: &[f32]) -> Self {
        let log_sum = log_sum_exp(logits, 1.0);
        let target_sum: f64 = target.iter().map(|y| f64::from(*y)).sum();
        let weighted: f64 = logits
            .iter()
            .zip(target)
            .filter(|(_, y)| **y != 0.0)
            .map(|(x, y)| f64::from(*y) * (log_sum - f64::from(*x)))
            .sum();
        Self {
            log_sum,
            target_sum,
            loss: weighted / target_sum,
        }
    }
}

pub(crate) static SOURCE: Source = Source {
    name: "ops/heatmap_cross_entropy.cu",
    text: include_str!("heatmap_cross_entropy.cu"),
    hot: &["heatmap_cross_entropy_backward"],
};
/// From the statistics of each sample: mean of log of the denominator minus targets · logits over the sum
/// of targets. The entropy of heatmaps is the same of their own probabilities.
pub(super) static LOSS: Kernel = Kernel {
    source: &SOURCE,
    entry: "heatmap_cross_entropy_loss",
};
static BACKWARD: Kernel = Kernel {
    source: &SOURCE,
    entry: "heatmap_cross_entropy_backward",
};

fn on_cuda(
    tape: &mut Tape,
    cuda: &Cuda,
    logits: &Tensor,
    target: &Tensor,
    m: usize,
) -> Result<Tensor> {
    let parameters = SampleParameters::new(OP, logits.len(), m)?;
    let statistics = statistics(cuda, logits, Some(target), &parameters)?;
    debug_assert_eq!(statistics.len(), logits.shape()[0] * STATISTICS);
    let mut loss = cuda.any(1)?;
    // SAFETY: heatmap_cross_entropy_loss(statistics, loss, SampleParameters) by one block:
    // statistics of all `samples`, by which the kernel guards its index; one loss.
    unsafe {
        Launch::new(&LOSS)
            .input(&statistics)
            .output(&mut loss)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    let mut output = Tensor::from_device(loss, &[]);
    let saved = tape
        .needs_gradient(&[logits])
        .then(|| (cuda.clone(), logits.clone(), target.clone(), statistics));
    tape.record(&mut output, &[logits], move |gradient| {
        let (cuda, logits, target, statistics) = saved.expect("saved whenever recorded");
        let mut result = cuda.any(logits.len())?;
        let launch = Launch::new(&BACKWARD).over(logits.len());
        // SAFETY: heatmap_cross_entropy_backward(logits, target, statistics, gradient, result,
        // SampleParameters): the first two and `result` have samples · length elements, by which
        // the kernel guards its index; `gradient` has one.
        unsafe {
            launch
                .input(logits.buffer())
                .input(target.buffer())
                .input(&statistics)
                .input(gradient.buffer())
                .output(&mut result)
                .parameters(&parameters)
                .enqueue(&cuda)?;
        }
        Ok(vec![Some(Tensor::from_device(result, logits.shape()))])
    });
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradient, noise};

    #[test]
    fn two_samples_worked_by_hand() {
        // Sample 1: probabilities 1/4, 3/4; target (2, 2) becomes (1/2, 1/2).
        // Sample 2: probabilities 1/2, 1/2; target (0, 3) becomes (0, 1).
        let logits = Tensor::new(vec![0.0, 3.0f32.ln(), 1.0, 1.0], &[2, 2]).unwrap();
        let target = Tensor::new(vec![2.0, 2.0, 0.0, 3.0], &[2, 2]).unwrap();
        let loss = heatmap_cross_entropy(&mut Tape::inference(), &logits, &target).unwrap();
        let expected = f32::midpoint(0.5 * (4.0f32.ln() + (4.0f32 / 3.0).ln()), 2.0f32.ln());
        assert_close(loss.data(), &[expected], 1e-6);
    }

    #[test]
    fn gradient_matches_finite_differences() {
        let data = noise(&[2, 3, 4], 2).into_data();
        let target = data.iter().map(|x| x.abs() * 3.0).collect();
        let target = Tensor::new(target, &[2, 3, 4]).unwrap();
        check_gradient(&[noise(&[2, 3, 4], 1)], 2e-3, |tape, x| {
            heatmap_cross_entropy(tape, &x[0], &target)
        });
    }

    #[test]
    fn a_sample_without_target_is_refused() {
        let logits = Tensor::zeros(&[2, 2]);
        let target = Tensor::new(vec![1.0, 0.0, 0.0, 0.0], &[2, 2]).unwrap();
        let message = heatmap_cross_entropy(&mut Tape::inference(), &logits, &target)
            .unwrap_err()
            .to_string();
        assert!(message.contains("sample 1"), "{message}");
    }

    #[test]
    fn shapes_that_differ_are_named() {
        let message = heatmap_cross_entropy(
            &mut Tape::inference(),
            &Tensor::zeros(&[2, 3]),
            &Tensor::zeros(&[2, 4]),
        )
        .unwrap_err()
        .to_string();
        assert_eq!(
            message,
            "heatmap_cross_entropy: target: expected [2, 3], got [2, 4]"
        );
    }
}
