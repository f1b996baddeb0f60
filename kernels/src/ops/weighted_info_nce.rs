//! `InfoNCE` weighted by a Gaussian target: a contrastive loss that raises the score of the true position and orientation.

use super::softmax::cuda::{SampleParameters, statistics};
use super::softmax::{log_sum_exp, sample_len};
use crate::buffer;
use crate::communicator::{refuse, sums};
use crate::cuda::{Cuda, Kernel, Launch, Source};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tape::Tape;
use crate::tensor::Tensor;
use rayon::prelude::*;

const OP: &str = "weighted_info_nce";

/// The mean of `-log softmax(scores / temperature)` over all cells whose target is strictly above
/// `threshold`, weighted by the target.
///
/// The softmax runs over all orientations and cells of one sample. The weighted sum and its
/// normaliser run over the whole batch: one numerator, one denominator. Of a batch that several
/// processes share, each returns its numerator over the mean of their denominators. A sample without a cell
/// above the threshold adds nothing and gets a zero gradient. No gradient flows to `target`.
///
/// # Shapes
/// `scores` and `target` `[N, ...]`, equal; returns a scalar.
///
/// # Errors
/// [`Error::Shape`] when the shapes differ or a sample is empty, [`Error::Argument`] when
/// `temperature` is not positive or no target in the batch is above `threshold`; on a GPU,
/// where the sum is not checked, the loss is then not finite.
///
/// # Source
/// Convolutional Cross-View Pose Estimation (Xia et al. 2023), the matching loss; temperature 0.1
/// and threshold 0.01 there, threshold 0 in the weakly-supervised adaptation built on it.
pub fn weighted_info_nce(
    tape: &mut Tape,
    scores: &Tensor,
    target: &Tensor,
    temperature: f32,
    threshold: f32,
) -> Result<Tensor> {
    let m = sample_len(OP, "scores", scores)?;
    target.expect_shape(OP, "target", scores.shape())?;
    if !(temperature > 0.0 && temperature.is_finite()) {
        return Err(Error::argument(
            OP,
            format!("temperature {temperature} is not positive"),
        ));
    }
    match Device::common(OP, &[scores, target])? {
        Device::Cpu => on_cpu(tape, scores, target, m, [temperature, threshold]),
        Device::Cuda(cuda) => {
            refuse(tape.communicator(), OP, "sums over all labels")?;
            on_cuda(tape, &cuda, scores, target, m, [temperature, threshold])
        }
    }
}

fn on_cpu(
    tape: &mut Tape,
    scores: &Tensor,
    target: &Tensor,
    m: usize,
    [temperature, threshold]: [f32; 2],
) -> Result<Tensor> {
    let samples: Vec<Sample> = scores
        .data()
        .par_chunks(m)
        .zip(target.data().par_chunks(m))
        .map(|(scores, target)| Sample::new(scores, target, temperature, threshold))
        .collect();
    let mut total: f64 = samples.iter().map(|sample| sample.weight).sum();
    if let Some(communicator) = tape.communicator() {
        // The mean over the processes, so that the mean of their losses is that of the whole batch.
        total = sums(communicator.as_ref(), &[total])?[0] / communicator.size() as f64;
    }
    if !(total > 0.0 && total.is_finite()) {
        return Err(Error::argument(
            OP,
            format!("targets above the threshold {threshold} sum to {total}: nothing to pull up"),
        ));
    }
    let loss = samples.iter().map(|sample| sample.loss).sum::<f64>() / total;
    let mut output = Tensor::scalar(loss as f32);
    let saved = tape
        .needs_gradient(&[scores])
        .then(|| (scores.clone(), target.clone(), samples));
    tape.record(&mut output, &[scores], move |gradient| {
        let (scores, target, samples) = saved.expect("saved whenever recorded");
        // d loss / d score = (weight of the sample * probability - target, if counted) / (tau * total)
        let scale = (f64::from(gradient.item()?) / (total * f64::from(temperature))) as f32;
        let mut data = buffer::zeros(scores.len());
        data.par_chunks_mut(m)
            .zip(scores.data().par_chunks(m))
            .zip(target.data().par_chunks(m))
            .zip(samples.par_iter())
            .filter(|(_, sample)| sample.weight > 0.0)
            .for_each(|(((result, scores), target), sample)| {
                let weight = sample.weight as f32;
                // Relative to a score near the largest, so that f32 keeps its digits.
                let reference = (sample.log_sum * f64::from(temperature)) as f32;
                let correction =
                    (f64::from(reference) / f64::from(temperature) - sample.log_sum) as f32;
                let inverse = 1.0 / temperature;
                for ((result, score), p) in result.iter_mut().zip(scores).zip(target) {
                    let probability = ((score - reference) * inverse + correction).exp();
                    let counted = if *p > threshold { *p } else { 0.0 };
                    *result = scale * (weight * probability - counted);
                }
            });
        Ok(vec![Some(Tensor::from_parts(data, scores.shape()))])
    });
    Ok(output)
}

struct Sample {
    /// log of the softmax's denominator.
    log_sum: f64,
    /// Sum of the targets that count.
    weight: f64,
    loss: f64,
}

impl Sample {
    fn new(scores: &[f32], target: &[f32], temperature: f32, threshold: f32) -> Self {
        let log_sum = log_sum_exp(scores, temperature);
        let mut weight = 0.0;
        let mut loss = 0.0;
        for (score, p) in scores.iter().zip(target) {
            if *p > threshold {
                weight += f64::from(*p);
                loss += f64::from(*p) * (log_sum - f64::from(*score) / f64::from(temperature));
            }
        }
        Self {
            log_sum,
            weight,
            loss,
        }
    }
}

pub(crate) static SOURCE: Source = Source {
    name: "ops/weighted_info_nce.cu",
    text: include_str!("weighted_info_nce.cu"),
    hot: &["weighted_info_nce_backward"],
};
static LOSS: Kernel = Kernel {
    source: &SOURCE,
    entry: "weighted_info_nce_loss",
};
static BACKWARD: Kernel = Kernel {
    source: &SOURCE,
    entry: "weighted_info_nce_backward",
};

fn on_cuda(
    tape: &mut Tape,
    cuda: &Cuda,
    scores: &Tensor,
    target: &Tensor,
    m: usize,
    [temperature, threshold]: [f32; 2],
) -> Result<Tensor> {
    let parameters = SampleParameters::new(OP, scores.len(), m)?.tempered(temperature, threshold);
    let statistics = statistics(cuda, scores, Some(target), &parameters)?;
    let mut loss = cuda.any(1)?;
    let mut total = cuda.any::<f64>(1)?;
    // SAFETY: weighted_info_nce_loss(statistics, loss, total, SampleParameters) by one block:
    // statistics of all `samples`, by which the kernel guards its index; one loss, one total.
    unsafe {
        Launch::new(&LOSS)
            .input(&statistics)
            .output(&mut loss)
            .output(&mut total)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    let mut output = Tensor::from_device(loss, &[]);
    let saved = tape.needs_gradient(&[scores]).then(|| {
        (
            cuda.clone(),
            scores.clone(),
            target.clone(),
            statistics,
            total,
        )
    });
    tape.record(&mut output, &[scores], move |gradient| {
        let (cuda, scores, target, statistics, total) = saved.expect("saved whenever recorded");
        let mut result = cuda.any(scores.len())?;
        let launch = Launch::new(&BACKWARD).over(scores.len());
        // SAFETY: weighted_info_nce_backward(scores, target, statistics, total, gradient, result,
        // SampleParameters): the first two and `result` have samples · length elements, by which
        // the kernel guards its index; `total` and `gradient` have one.
        unsafe {
            launch
                .input(scores.buffer())
                .input(target.buffer())
                .input(&statistics)
                .input(&total)
                .input(gradient.buffer())
                .output(&mut result)
                .parameters(&parameters)
                .enqueue(&cuda)?;
        }
        Ok(vec![Some(Tensor::from_device(result, scores.shape()))])
    });
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradient, in_processes, noise};

    #[test]
    fn batch_normaliser_worked_by_hand() {
        // Temperature 1. Sample 1: probabilities 1/4, 3/4, targets 1 and 0.5, both count.
        // Sample 2: probabilities 1/2, 1/2, targets 0.01 (not above) and 0.5.
        let scores = Tensor::new(vec![0.0, 3.0f32.ln(), 2.0, 2.0], &[2, 2]).unwrap();
        let target = Tensor::new(vec![1.0, 0.5, 0.01, 0.5], &[2, 2]).unwrap();
        let loss = weighted_info_nce(&mut Tape::inference(), &scores, &target, 1.0, 0.01).unwrap();
        let expected = (4.0f32.ln() + 0.5 * (4.0f32 / 3.0).ln() + 0.5 * 2.0f32.ln()) / 2.0;
        assert_close(loss.data(), &[expected], 1e-6);
    }

    #[test]
    fn gradient_matches_finite_differences() {
        let target = noise(&[2, 3, 2, 2], 2);
        check_gradient(&[noise(&[2, 3, 2, 2], 1)], 3e-3, |tape, x| {
            weighted_info_nce(tape, &x[0], &target, 0.5, 0.01)
        });
    }

    #[test]
    fn a_sample_without_positives_gets_no_gradient() {
        let scores = noise(&[2, 3], 1).with_gradient();
        let target = Tensor::new(vec![0.0, 0.0, 0.0, 0.0, 1.0, 0.0], &[2, 3]).unwrap();
        let mut tape = Tape::training();
        let loss = weighted_info_nce(&mut tape, &scores, &target, 0.1, 0.01).unwrap();
        let gradients = tape.backward(&loss).unwrap();
        let gradient = gradients.get(&scores).unwrap().data();
        assert_eq!(gradient[..3], [0.0; 3]);
        assert!(gradient[4] < 0.0);
    }

    /// The second process has no cell above the threshold.
    #[test]
    fn the_mean_of_shares_is_the_loss_of_the_whole_batch() {
        let scores = noise(&[4, 3], 1);
        let labels = vec![0.7, 0.0, 0.2, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.01, 0.0];
        let target = Tensor::new(labels, &[4, 3]).unwrap();
        let run = |scores: &Tensor, target: &Tensor, communicator| {
            let scores = scores.clone().with_gradient();
            let mut tape = Tape::training_across(communicator);
            let loss = weighted_info_nce(&mut tape, &scores, target, 0.1, 0.01).unwrap();
            let gradients = tape.backward(&loss).unwrap();
            let gradient = gradients.get(&scores).unwrap().data().to_vec();
            (loss.item().unwrap(), gradient)
        };
        let (loss, gradient) = run(&scores, &target, None);
        let shares = in_processes(2, |communicator| {
            let share = 6 * communicator.rank()..6 * (communicator.rank() + 1);
            let part = |all: &Tensor| Tensor::new(all.data()[share.clone()].to_vec(), &[2, 3]);
            run(
                &part(&scores).unwrap(),
                &part(&target).unwrap(),
                Some(communicator),
            )
        });
        assert_close(&[f32::midpoint(shares[0].0, shares[1].0)], &[loss], 1e-6);
        let halves = shares.iter().flat_map(|share| &share.1);
        assert_close(
            &halves.map(|g| g / 2.0).collect::<Vec<_>>(),
            &gradient,
            1e-6,
        );
    }

    #[test]
    fn no_positive_in_the_batch_is_refused() {
        let scores = Tensor::zeros(&[1, 3]);
        let target = Tensor::full(&[1, 3], 0.01);
        let message = weighted_info_nce(&mut Tape::inference(), &scores, &target, 0.1, 0.01)
            .unwrap_err()
            .to_string();
        assert!(message.contains("threshold 0.01"), "{message}");
        assert!(weighted_info_nce(&mut Tape::inference(), &scores, &target, 0.0, 0.0).is_err());
    }

    /// `testdata/info_nce.f32` holds scores, targets and gradient of two samples with 40 x 40
    /// cells; its README says where they come from. Tolerances: the scores were rounded to f32
    /// after the f64 run, which a temperature of 0.1 makes ten times larger.
    #[test]
    fn loss_and_gradient_agree_with_the_published_implementation() {
        let numbers: Vec<f32> = include_bytes!("../../testdata/info_nce.f32")
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
            .collect();
        let [scores, target, expected] = [0, 1, 2].map(|part| {
            let len = 2 * 40 * 40;
            let data = numbers[part * len..(part + 1) * len].to_vec();
            Tensor::new(data, &[2, 1, 40, 40]).unwrap()
        });
        let scores = scores.with_gradient();
        let mut tape = Tape::training();
        let loss = weighted_info_nce(&mut tape, &scores, &target, 0.1, 0.01).unwrap();
        assert_close(loss.data(), &[7.343_642], 2e-7);
        let gradients = tape.backward(&loss).unwrap();
        assert_close(
            gradients.get(&scores).unwrap().data(),
            expected.data(),
            3e-7,
        );
    }
}
