//! Batch normalisation with the activation that follows it, in one pass over the image.
//!
//! Only the input is kept for the backward pass; intermediate values are recomputed.

mod on_cuda;
mod planes;

use super::activation::Activation;
use crate::buffer;
use crate::communicator::{Communicator, refuse, sums};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::math::sum;
use crate::tape::Tape;
use crate::tensor::Tensor;
use rayon::prelude::*;
use std::sync::Arc;

use planes::Channel;

const OP: &str = "batch_norm";

/// Mean and variance of each channel, averaged over training steps; on the device that trains.
#[derive(Debug, Clone)]
pub struct RunningStatistics {
    /// Mean of each channel, `[C]`.
    pub mean: Tensor,
    /// Unbiased variance of each channel, `[C]`.
    pub variance: Tensor,
}

impl RunningStatistics {
    /// Before the first step: mean 0, variance 1.
    pub fn new(channels: usize) -> Self {
        Self {
            mean: Tensor::zeros(&[channels]),
            variance: Tensor::full(&[channels], 1.0),
        }
    }

    /// The same on another device.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Cuda`].
    pub fn to(&self, device: &Device) -> Result<Self> {
        Ok(Self {
            mean: self.mean.to(device)?,
            variance: self.variance.to(device)?,
        })
    }
}

/// Which statistics are used to normalise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum BatchNormMode {
    /// The batch's own, which also update the running ones.
    Train {
        /// Weight of this batch in the running statistics.
        momentum: f32,
    },
    /// The running ones, unchanged. Gradients still flow to input, gamma and beta.
    Frozen,
}

/// activation((x - mean) / sqrt(variance + epsilon) · gamma + beta), channel by channel.
///
/// In training mode the variance that normalises is the biased one and the variance that enters
/// `running` the unbiased one: new = (1 - momentum) · old + momentum · batch. The batch is that of
/// all processes of the tape, whose shares are equally long.
///
/// # Shapes
/// `input` `[N, C, H, W]`, as is the result; `gamma`, `beta` and both of `running` `[C]`.
///
/// # Errors
/// [`Error::Shape`] when the shapes do not fit; [`Error::Argument`] when training on one value
/// per channel, which has no variance.
///
/// # Source
/// Batch Normalization (Ioffe, Szegedy 2015), algorithm 1.
#[expect(
    clippy::too_many_arguments,
    reason = "each is a different kind of thing"
)]
pub fn batch_norm(
    tape: &mut Tape,
    input: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    running: &mut RunningStatistics,
    mode: BatchNormMode,
    epsilon: f32,
    activation: Activation,
) -> Result<Tensor> {
    let [n, c, h, w] = input.dims4(OP, "input")?;
    gamma.expect_shape(OP, "gamma", &[c])?;
    beta.expect_shape(OP, "beta", &[c])?;
    running.mean.expect_shape(OP, "running mean", &[c])?;
    let variance = &running.variance;
    variance.expect_shape(OP, "running variance", &[c])?;
    let everything = [input, gamma, beta, &running.mean, variance];
    let device = Device::common(OP, &everything)?;
    let communicator = tape.communicator();
    let processes = communicator.map_or(1, |communicator| communicator.size());
    let count = n * h * w * processes;
    if let BatchNormMode::Train { .. } = mode
        && count < 2
    {
        return Err(Error::argument(
            OP,
            format!(
                "one value per channel in {:?} has no variance; use a larger batch or freeze",
                input.shape()
            ),
        ));
    }
    if let Device::Cuda(cuda) = device {
        if let BatchNormMode::Train { .. } = mode {
            refuse(communicator, OP, "statistics")?;
        }
        let affine = [gamma, beta];
        return on_cuda::batch_norm(
            tape, &cuda, input, affine, running, mode, epsilon, activation,
        );
    }
    if let BatchNormMode::Train { momentum } = mode {
        let mut moments = channel_moments(input.data(), [c, h * w]);
        if let Some(communicator) = communicator {
            moments = across(communicator.as_ref(), &moments, n * h * w)?;
        }
        let batch = batch_statistics(&moments, count);
        let unbiased = count as f32 / (count - 1) as f32;
        let moved = |running: &Tensor, batch: &Tensor, factor: f32| {
            let pairs = running.data().iter().zip(batch.data());
            let data =
                pairs.map(|(running, batch)| running + momentum * (batch * factor - running));
            Tensor::from_parts(data.collect(), &[c])
        };
        running.mean = moved(&running.mean, &batch.mean, 1.0);
        running.variance = moved(&running.variance, &batch.variance, unbiased);
        let channels = channels(&batch, gamma, beta, epsilon);
        return Ok(normalise(
            tape, input, gamma, beta, channels, true, activation,
        ));
    }
    let channels = channels(running, gamma, beta, epsilon);
    Ok(normalise(
        tape, input, gamma, beta, channels, false, activation,
    ))
}

fn channels(
    statistics: &RunningStatistics,
    gamma: &Tensor,
    beta: &Tensor,
    epsilon: f32,
) -> Vec<Channel> {
    let affine = gamma.data().iter().zip(beta.data());
    let statistics = statistics
        .mean
        .data()
        .iter()
        .zip(statistics.variance.data());
    affine
        .zip(statistics)
        .map(|((gamma, beta), (mean, variance))| Channel {
            mean: *mean,
            inverse_sigma: 1.0 / (variance + epsilon).sqrt(),
            gamma: *gamma,
            beta: *beta,
        })
        .collect()
}

fn normalise(
    tape: &mut Tape,
    input: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    channels: Vec<Channel>,
    own_statistics: bool,
    activation: Activation,
) -> Tensor {
    let plane_len = input.shape()[2] * input.shape()[3];
    let mut data = buffer::any(input.len());
    planes_mut(&mut data, plane_len)
        .zip(input.data().par_chunks_exact(plane_len))
        .enumerate()
        .for_each(|(plane, (output, input))| {
            let channel = channels[plane % channels.len()];
            match activation {
                Activation::None => planes::forward_plain(input, output, channel),
                Activation::Silu => planes::forward_silu(input, output, channel),
                Activation::Relu => planes::forward_relu(input, output, channel),
            }
        });
    let mut output = Tensor::from_parts(data, input.shape());
    let inputs = [input, gamma, beta];
    let communicator = tape.communicator().filter(|_| own_statistics).cloned();
    let saved = tape.needs_gradient(&inputs).then(|| input.clone());
    tape.record(&mut output, &inputs, move |gradient| {
        let input = saved.expect("saved whenever recorded");
        let communicator = communicator.as_ref();
        let how = (own_statistics, activation);
        backward(&input, gradient, &channels, how, communicator)
    });
    output
}

fn backward(
    input: &Tensor,
    gradient: &Tensor,
    channels: &[Channel],
    (own_statistics, activation): (bool, Activation),
    communicator: Option<&Arc<dyn Communicator>>,
) -> Result<Vec<Option<Tensor>>> {
    let plane_len = input.shape()[2] * input.shape()[3];
    let processes = communicator.map_or(1, |communicator| communicator.size());
    let count = (input.len() / channels.len() * processes) as f32;
    // First the gradient before the activation, and its sums over each plane.
    let mut data = buffer::any(input.len());
    let plane_sums: Vec<[f32; 2]> = planes_mut(&mut data, plane_len)
        .zip(input.data().par_chunks_exact(plane_len))
        .zip(gradient.data().par_chunks_exact(plane_len))
        .enumerate()
        .map(|(plane, ((bent, input), gradient))| {
            let channel = channels[plane % channels.len()];
            match activation {
                Activation::None => planes::backward_plain(input, gradient, bent, channel),
                Activation::Silu => planes::backward_silu(input, gradient, bent, channel),
                Activation::Relu => planes::backward_relu(input, gradient, bent, channel),
            }
        })
        .collect();
    let mut beta_gradient = vec![0.0; channels.len()];
    let mut gamma_gradient = vec![0.0; channels.len()];
    for sample in plane_sums.chunks_exact(channels.len()) {
        for (c, [plain, centred]) in sample.iter().enumerate() {
            beta_gradient[c] += plain;
            gamma_gradient[c] += centred * channels[c].inverse_sigma;
        }
    }
    // Every process moved the statistics that all were normalised by.
    let [beta_sums, gamma_sums] = match communicator {
        None => [beta_gradient.clone(), gamma_gradient.clone()],
        Some(communicator) => {
            let both = [&beta_gradient[..], &gamma_gradient[..]].concat();
            let both: Vec<f64> = both.into_iter().map(f64::from).collect();
            let both = sums(communicator.as_ref(), &both)?;
            let both: Vec<f32> = both.into_iter().map(|sum| sum as f32).collect();
            let (beta, gamma) = both.split_at(channels.len());
            [beta.to_vec(), gamma.to_vec()]
        }
    };
    // Then the gradient of the input, in place.
    planes_mut(&mut data, plane_len)
        .zip(input.data().par_chunks_exact(plane_len))
        .enumerate()
        .for_each(|(plane, (gradient, input))| {
            let c = plane % channels.len();
            let Channel {
                mean,
                inverse_sigma,
                gamma,
                ..
            } = channels[c];
            let scale = gamma * inverse_sigma;
            if own_statistics {
                let shift = -scale * beta_sums[c] / count;
                let slope = -scale * inverse_sigma * gamma_sums[c] / count;
                planes::through_statistics(gradient, input, scale, shift, mean, slope);
            } else {
                for value in gradient {
                    *value *= scale;
                }
            }
        });
    let shape = [channels.len()];
    Ok(vec![
        Some(Tensor::from_parts(data, input.shape())),
        Some(Tensor::from_parts(gamma_gradient, &shape)),
        Some(Tensor::from_parts(beta_gradient, &shape)),
    ])
}

/// Planes for the threads, small ones several at a time.
fn planes_mut(
    data: &mut [f32],
    plane_len: usize,
) -> impl IndexedParallelIterator<Item = &mut [f32]> {
    data.par_chunks_exact_mut(plane_len)
        .with_min_len((8 * 1024 / plane_len).max(1))
}

/// Of each channel: its mean, and the sum of squared distances to it.
fn channel_moments(data: &[f32], [c, plane_len]: [usize; 2]) -> Vec<[f64; 2]> {
    let moments: Vec<[f32; 2]> = data
        .par_chunks_exact(plane_len)
        .with_min_len((8 * 1024 / plane_len).max(1))
        .map(|plane| {
            let mean = sum(plane) / plane_len as f32;
            [mean, planes::squared_distance(plane, mean)]
        })
        .collect();
    let of_channel = |channel: usize| {
        let planes = moments[channel..].iter().step_by(c);
        planes.map(|[mean, squares]| [f64::from(*mean), f64::from(*squares)])
    };
    (0..c)
        .map(|channel| joint_moments(of_channel(channel), plane_len))
        .collect()
}

/// Mean and squared distances of parts of `length` elements each, of which these are known.
///
/// # Source
/// Updating Formulae and a Pairwise Algorithm for Computing Sample Variances (Chan, Golub, LeVeque
/// 1979): within the parts, plus between them.
fn joint_moments(
    parts: impl ExactSizeIterator<Item = [f64; 2]> + Clone,
    length: usize,
) -> [f64; 2] {
    let count = parts.len() as f64;
    let mean = parts.clone().map(|[mean, _]| mean).sum::<f64>() / count;
    let squares = parts
        .map(|[of_part, squares]| squares + length as f64 * (of_part - mean).powi(2))
        .sum();
    [mean, squares]
}

/// The moments of all processes' shares together, each of `length` elements in a channel.
fn across(
    communicator: &dyn Communicator,
    moments: &[[f64; 2]],
    length: usize,
) -> Result<Vec<[f64; 2]>> {
    let all = communicator.all_gather(moments.as_flattened())?;
    let (all, _) = all.as_chunks::<2>();
    let of_channel = |channel: usize| all[channel..].iter().step_by(moments.len()).copied();
    Ok((0..moments.len())
        .map(|channel| joint_moments(of_channel(channel), length))
        .collect())
}

/// Mean and biased variance of channels of `count` elements.
fn batch_statistics(moments: &[[f64; 2]], count: usize) -> RunningStatistics {
    let c = moments.len();
    let means = moments.iter().map(|[mean, _]| *mean as f32);
    let variances = moments
        .iter()
        .map(|[_, squares]| (squares / count as f64) as f32);
    RunningStatistics {
        mean: Tensor::from_parts(means.collect(), &[c]),
        variance: Tensor::from_parts(variances.collect(), &[c]),
    }
}

pub(crate) use on_cuda::SOURCE;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradient, in_processes, noise};

    const TRAIN: BatchNormMode = BatchNormMode::Train { momentum: 0.1 };
    const ACTIVATIONS: [Activation; 3] = [Activation::None, Activation::Silu, Activation::Relu];

    fn running() -> RunningStatistics {
        RunningStatistics {
            mean: Tensor::from_parts(vec![0.2, -0.1, 0.4], &[3]),
            variance: Tensor::from_parts(vec![0.5, 1.5, 0.9], &[3]),
        }
    }

    #[test]
    fn training_worked_by_hand() {
        // Channel values 1, 3, 5, 7: mean 4, biased variance 5, unbiased 20 / 3.
        let x = Tensor::new(vec![1.0, 3.0, 5.0, 7.0], &[2, 1, 1, 2]).unwrap();
        let gamma = Tensor::new(vec![2.0], &[1]).unwrap();
        let beta = Tensor::new(vec![1.0], &[1]).unwrap();
        let mut running = RunningStatistics::new(1);
        let mut tape = Tape::inference();
        let y = batch_norm(
            &mut tape,
            &x,
            &gamma,
            &beta,
            &mut running,
            TRAIN,
            0.0,
            Activation::None,
        )
        .unwrap();
        let unit = 2.0 / 5.0f32.sqrt();
        assert_close(
            y.data(),
            &[1.0 - 3.0 * unit, 1.0 - unit, 1.0 + unit, 1.0 + 3.0 * unit],
            1e-6,
        );
        assert_close(running.mean.data(), &[0.4], 1e-6);
        assert_close(running.variance.data(), &[0.9 + 2.0 / 3.0], 1e-6);
    }

    #[test]
    fn frozen_uses_running_statistics_and_leaves_them() {
        let x = Tensor::new(vec![1.0, 5.0], &[1, 1, 1, 2]).unwrap();
        let one = Tensor::full(&[1], 1.0);
        let mut running = RunningStatistics {
            mean: Tensor::full(&[1], 3.0),
            variance: Tensor::full(&[1], 3.0),
        };
        let mut tape = Tape::inference();
        let y = batch_norm(
            &mut tape,
            &x,
            &one,
            &one,
            &mut running,
            BatchNormMode::Frozen,
            1.0,
            Activation::Relu,
        )
        .unwrap();
        assert_close(y.data(), &[0.0, 2.0], 1e-6);
        assert_eq!([running.mean.data(), running.variance.data()], [[3.0]; 2]);
    }

    #[test]
    fn gradients_match_finite_differences() {
        for mode in [TRAIN, BatchNormMode::Frozen] {
            for activation in ACTIVATIONS {
                let inputs = [noise(&[2, 3, 4, 5], 1), noise(&[3], 2), noise(&[3], 3)];
                check_gradient(&inputs, 8e-3, |tape, i| {
                    batch_norm(
                        tape,
                        &i[0],
                        &i[1],
                        &i[2],
                        &mut running(),
                        mode,
                        1e-3,
                        activation,
                    )
                });
            }
        }
    }

    #[test]
    fn shares_of_a_batch_are_normalised_as_the_whole() {
        let (whole, gradient) = (noise(&[6, 3, 4, 5], 1), noise(&[6, 3, 4, 5], 4));
        let run = |x: &Tensor, gradient: &Tensor, communicator| {
            let leaves = [x.clone(), noise(&[3], 2), noise(&[3], 3)].map(Tensor::with_gradient);
            let [x, gamma, beta] = &leaves;
            let mut statistics = running();
            let mut tape = Tape::training_across(communicator);
            let silu = Activation::Silu;
            let y = batch_norm(
                &mut tape,
                x,
                gamma,
                beta,
                &mut statistics,
                TRAIN,
                1e-3,
                silu,
            )
            .unwrap();
            let gradients = tape.backward_from(&y, gradient.clone()).unwrap();
            let gradients = leaves.map(|leaf| gradients.get(&leaf).unwrap().data().to_vec());
            (y.into_data(), statistics, gradients)
        };
        let (y, statistics, [x_gradient, gamma_gradient, beta_gradient]) =
            run(&whole, &gradient, None);
        let shares = in_processes(3, |communicator| {
            let share = 2 * 60 * communicator.rank()..2 * 60 * (communicator.rank() + 1);
            let part = |all: &Tensor| {
                Tensor::from_parts(all.data()[share.clone()].to_vec(), &[2, 3, 4, 5])
            };
            run(&part(&whole), &part(&gradient), Some(communicator))
        });
        let joined = |part: fn(&(Vec<f32>, RunningStatistics, [Vec<f32>; 3])) -> &[f32]| {
            shares.iter().flat_map(part).copied().collect::<Vec<f32>>()
        };
        assert_close(&joined(|share| &share.0), &y, 1e-6);
        assert_close(&joined(|share| &share.2[0]), &x_gradient, 1e-6);
        for (index, expected) in [(1, gamma_gradient), (2, beta_gradient)] {
            let mut sum = vec![0.0; 3];
            for (_, _, gradients) in &shares {
                for (sum, value) in sum.iter_mut().zip(&gradients[index]) {
                    *sum += value;
                }
            }
            assert_close(&sum, &expected, 1e-6);
        }
        for (_, share, _) in &shares {
            assert_close(share.mean.data(), statistics.mean.data(), 1e-6);
            assert_close(share.variance.data(), statistics.variance.data(), 1e-6);
        }
    }

    #[test]
    fn a_large_mean_does_not_cancel() {
        let data = noise(&[4, 1, 8, 8], 1)
            .data()
            .iter()
            .map(|v| v * 0.01 + 1000.0)
            .collect();
        let x = Tensor::new(data, &[4, 1, 8, 8]).unwrap();
        let (gamma, beta) = (Tensor::full(&[1], 1.0), Tensor::zeros(&[1]));
        let mut running = RunningStatistics::new(1);
        let y = batch_norm(
            &mut Tape::inference(),
            &x,
            &gamma,
            &beta,
            &mut running,
            TRAIN,
            0.0,
            Activation::None,
        )
        .unwrap();
        let variance = y.data().iter().map(|v| v * v).sum::<f32>() / y.len() as f32;
        assert_close(&[variance], &[1.0], 0.01);
    }

    #[test]
    fn nan_stays_visible() {
        for activation in ACTIVATIONS {
            let x = Tensor::new(vec![f32::NAN, 1.0], &[1, 1, 1, 2]).unwrap();
            let one = Tensor::full(&[1], 1.0);
            let mut running = RunningStatistics::new(1);
            let mut tape = Tape::inference();
            let y = batch_norm(
                &mut tape,
                &x,
                &one,
                &one,
                &mut running,
                BatchNormMode::Frozen,
                1e-3,
                activation,
            );
            assert!(y.unwrap().data()[0].is_nan());
        }
    }

    #[test]
    fn bad_inputs_are_refused() {
        let mut tape = Tape::inference();
        let (one, two) = (Tensor::full(&[1], 1.0), Tensor::full(&[2], 1.0));
        let mut running = RunningStatistics::new(1);
        let mut refused = |x: &Tensor, gamma: &Tensor| {
            batch_norm(
                &mut tape,
                x,
                gamma,
                &one,
                &mut running,
                TRAIN,
                1e-3,
                Activation::None,
            )
            .unwrap_err()
            .to_string()
        };
        assert_eq!(
            refused(&noise(&[2, 1, 2, 2], 1), &two),
            "batch_norm: gamma: expected [1], got [2]"
        );
        assert!(refused(&noise(&[1, 1, 1, 1], 1), &one).contains("no variance"));
        assert!(refused(&Tensor::zeros(&[0, 1, 2, 2]), &one).contains("[0, 1, 2, 2]"));
    }
}
