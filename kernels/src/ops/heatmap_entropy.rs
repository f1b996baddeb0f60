//! Mean entropy of heatmaps.

use super::heatmap_cross_entropy::LOSS;
use super::softmax::cuda::{STATISTICS, SampleParameters, statistics};
use super::softmax::{log_sum_exp, sample_len, softmax};
use crate::buffer;
use crate::cuda::{Cuda, Kernel, Launch, Source};
use crate::device::Device;
use crate::error::Result;
use crate::tape::Tape;
use crate::tensor::Tensor;
use rayon::prelude::*;

const OP: &str = "heatmap_entropy";

/// `-(1/N) sum over samples and cells of p * log p`, nats, where p is the softmax of a sample's logits.
///
/// # Shapes
/// `logits` `[N, ...]`; returns a scalar.
///
/// # Errors
/// [`crate::Error::Shape`] when a sample is empty, or the device's own.
///
/// # Source
/// Semi-supervised Learning by Entropy Minimization (Grandvalet, Bengio 2004), the regulariser.
pub fn heatmap_entropy(tape: &mut Tape, logits: &Tensor) -> Result<Tensor> {
    let m = sample_len(OP, "logits", logits)?;
    match Device::common(OP, &[logits])? {
        Device::Cpu => Ok(on_cpu(tape, logits, m)),
        Device::Cuda(cuda) => on_cuda(tape, &cuda, logits, m),
    }
}

/// Of one sample: the log of its denominator, and the mean of its logits by their probabilities.
struct Sample {
    log_sum: f64,
    mean_logit: f64,
}

impl Sample {
    fn new(logits: &[f32]) -> Self {
        let log_sum = log_sum_exp(logits, 1.0);
        let weighted = logits.iter().map(|x| f64::from(*x));
        Self {
            log_sum,
            mean_logit: weighted.map(|x| (x - log_sum).exp() * x).sum(),
        }
    }
}

fn on_cpu(tape: &mut Tape, logits: &Tensor, m: usize) -> Tensor {
    let n = logits.shape()[0] as f64;
    let samples: Vec<Sample> = logits.data().par_chunks(m).map(Sample::new).collect();
    let entropies = samples
        .iter()
        .map(|sample| sample.log_sum - sample.mean_logit);
    let mut output = Tensor::scalar((entropies.sum::<f64>() / n) as f32);
    let saved = tape
        .needs_gradient(&[logits])
        .then(|| (logits.clone(), samples));
    tape.record(&mut output, &[logits], move |gradient| {
        let (logits, samples) = saved.expect("saved whenever recorded");
        let scale = f64::from(gradient.item()?) / n;
        let mut data = buffer::any(logits.len());
        data.par_chunks_mut(m)
            .zip(logits.data().par_chunks(m))
            .zip(samples.par_iter())
            .for_each(|((result, logits), sample)| {
                for (result, x) in result.iter_mut().zip(logits) {
                    let x = f64::from(*x);
                    let probability = (x - sample.log_sum).exp();
                    *result = (-scale * probability * (x - sample.mean_logit)) as f32;
                }
            });
        Ok(vec![Some(Tensor::from_parts(data, logits.shape()))])
    });
    output
}

pub(crate) static SOURCE: Source = Source {
    name: "ops/heatmap_entropy.cu",
    text: include_str!("heatmap_entropy.cu"),
    hot: &["heatmap_entropy_backward"],
};
static BACKWARD: Kernel = Kernel {
    source: &SOURCE,
    entry: "heatmap_entropy_backward",
};

fn on_cuda(tape: &mut Tape, cuda: &Cuda, logits: &Tensor, m: usize) -> Result<Tensor> {
    let parameters = SampleParameters::new(OP, logits.len(), m)?;
    let probabilities = softmax(&mut Tape::inference(), logits)?;
    let statistics = statistics(cuda, logits, Some(&probabilities), &parameters)?;
    debug_assert_eq!(statistics.len(), logits.shape()[0] * STATISTICS);
    let mut loss = cuda.any(1)?;
    // SAFETY: heatmap_cross_entropy_loss(statistics, loss, SampleParameters) by one block: statistics of
    // all `samples`, by which the kernel guards its index; one loss.
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
        .then(|| (cuda.clone(), logits.clone(), statistics));
    tape.record(&mut output, &[logits], move |gradient| {
        let (cuda, logits, statistics) = saved.expect("saved whenever recorded");
        let mut result = cuda.any(logits.len())?;
        let launch = Launch::new(&BACKWARD).over(logits.len());
        // SAFETY: heatmap_entropy_backward(logits, statistics, gradient, result, SampleParameters):
        // `logits` and `result` have samples · length elements, by which the kernel guards its index;
        // `gradient` has one.
        unsafe {
            launch
                .input(logits.buffer())
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
        // Probabilities 1/4, 3/4 and 1/2, 1/2.
        let logits = Tensor::new(vec![0.0, 3.0f32.ln(), 5.0, 5.0], &[2, 2]).unwrap();
        let entropy = heatmap_entropy(&mut Tape::inference(), &logits).unwrap();
        let first = 0.25 * 4.0f32.ln() + 0.75 * (4.0f32 / 3.0).ln();
        assert_close(entropy.data(), &[f32::midpoint(first, 2.0f32.ln())], 1e-6);
    }

    #[test]
    fn gradient_matches_finite_differences() {
        check_gradient(&[noise(&[2, 3, 4], 1)], 2e-3, |tape, x| {
            heatmap_entropy(tape, &x[0])
        });
    }

    #[test]
    fn an_empty_sample_is_refused() {
        assert!(heatmap_entropy(&mut Tape::inference(), &Tensor::zeros(&[2, 0])).is_err());
    }
}
