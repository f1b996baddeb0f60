//! The device half of batch normalisation. As on the processor, only the input is kept for the
//! backward pass.

use super::{BatchNormMode, OP, RunningStatistics};
use crate::cuda::{Cuda, DeviceBuffer, Kernel, Launch, Source, count, parameters};
use crate::error::{Error, Result};
use crate::ops::Activation;
use crate::tape::Tape;
use crate::tensor::Tensor;
use crate::testing::Case;

pub(crate) static SOURCE: Source = Source {
    name: "ops/batch_norm.cu",
    text: include_str!("../batch_norm.cu"),
    hot: &[
        "batch_norm_moments",
        "batch_norm_forward",
        "batch_norm_backward_sums",
        "batch_norm_to_input",
    ],
};
const fn kernel(entry: &'static str) -> Kernel {
    Kernel {
        source: &SOURCE,
        entry,
    }
}
static MOMENTS: Kernel = kernel("batch_norm_moments");
static STATISTICS: Kernel = kernel("batch_norm_statistics");
static FROZEN: Kernel = kernel("batch_norm_frozen");
static FORWARD: Kernel = kernel("batch_norm_forward");
static BACKWARD_SUMS: Kernel = kernel("batch_norm_backward_sums");
static BACKWARD_TOTALS: Kernel = kernel("batch_norm_backward_totals");
static TO_INPUT: Kernel = kernel("batch_norm_to_input");

/// Elements of a channel that one block sums, and the most blocks for one channel: their sums are
/// added by one thread each.
const SHARE: usize = 4096;
const MOST_PARTS: usize = 256;
/// Numbers that a channel is normalised with: mean, 1 / sigma, gamma, beta.
const CHANNEL: usize = 4;

parameters! {
    struct BatchNormParameters {
        samples: u32,
        channels: u32,
        pixels: u32,
        parts: u32,
        momentum: f32,
        epsilon: f32,
        /// 0 nothing, 1 SiLU, 2 ReLU.
        activation: u32,
        /// Whether the batch's own statistics normalised.
        own: u32,
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "each is a different kind of thing"
)]
pub(super) fn batch_norm(
    tape: &mut Tape,
    cuda: &Cuda,
    input: &Tensor,
    [gamma, beta]: [&Tensor; 2],
    running: &mut RunningStatistics,
    mode: BatchNormMode,
    epsilon: f32,
    activation: Activation,
) -> Result<Tensor> {
    let [n, c, h, w] = input.dims4(OP, "input")?;
    count(OP, input.len())?;
    let (own, momentum) = match mode {
        BatchNormMode::Train { momentum } => (true, momentum),
        BatchNormMode::Frozen => (false, 0.0),
    };
    let p = BatchNormParameters {
        samples: n as u32,
        channels: c as u32,
        pixels: (h * w) as u32,
        parts: (n * h * w).div_ceil(SHARE).min(MOST_PARTS) as u32,
        momentum,
        epsilon,
        activation: match activation {
            Activation::None => 0,
            Activation::Silu => 1,
            Activation::Relu => 2,
        },
        own: u32::from(own),
    };
    let channels = if own {
        own_channels(cuda, input, [gamma, beta], running, &p)?
    } else {
        frozen_channels(cuda, [gamma, beta], running, &p)?
    };
    let mut output = cuda.any(input.len())?;
    let launch = Launch::new(&FORWARD).over(input.len());
    // SAFETY: batch_norm_forward(input, channels, output, BatchNormParameters): the kernel guards
    // its index by samples · channels · pixels, the length of both; CHANNEL numbers per channel.
    unsafe {
        launch
            .input(input.buffer())
            .input(&channels)
            .output(&mut output)
            .parameters(&p)
            .enqueue(cuda)?;
    }
    let mut output = Tensor::from_device(output, input.shape());
    let inputs = [input, gamma, beta];
    let saved = tape
        .needs_gradient(&inputs)
        .then(|| (cuda.clone(), input.clone(), channels));
    tape.record(&mut output, &inputs, move |gradient| {
        let (cuda, input, channels) = saved.expect("saved whenever recorded");
        backward(&cuda, &input, gradient, &channels, &p)
    });
    Ok(output)
}

/// From the batch; moves the running statistics in place, where nobody else holds them.
fn own_channels(
    cuda: &Cuda,
    input: &Tensor,
    [gamma, beta]: [&Tensor; 2],
    running: &mut RunningStatistics,
    p: &BatchNormParameters,
) -> Result<DeviceBuffer> {
    let (c, parts) = (p.channels as usize, p.parts as usize);
    let mut partial = cuda.any::<f64>(c * parts * 2)?;
    // SAFETY: batch_norm_moments(input, partial, BatchNormParameters): `parts` blocks for each
    // channel, each with two sums; the kernel guards its index by samples · pixels.
    unsafe {
        Launch::new(&MOMENTS)
            .grid([parts, c, 1])
            .input(input.buffer())
            .output(&mut partial)
            .parameters(p)
            .enqueue(cuda)?;
    }
    if cuda.is_recording() && (running.mean.is_shared() || running.variance.is_shared()) {
        // A copy would take their place, and every replay would begin with the old ones.
        let what = "running statistics are shared with another tensor, so a recorded step cannot \
                    update them in place; drop or copy that one first";
        return Err(Error::argument(OP, what));
    }
    let taken = |tensor: &mut Tensor| std::mem::replace(tensor, Tensor::scalar(0.0)).into_buffer();
    let (mut mean, mut variance) = (taken(&mut running.mean)?, taken(&mut running.variance)?);
    let mut channels = cuda.any(c * CHANNEL)?;
    // SAFETY: batch_norm_statistics(input, partial, gamma, beta, mean, variance, channels,
    // BatchNormParameters): one block for each channel, a thread for each of at most 256 parts;
    // one number per channel, CHANNEL in `channels`; of the input, first elements of channels.
    unsafe {
        Launch::new(&STATISTICS)
            .grid([c, 1, 1])
            .input(input.buffer())
            .input(&partial)
            .input(gamma.buffer())
            .input(beta.buffer())
            .output(&mut mean)
            .output(&mut variance)
            .output(&mut channels)
            .parameters(p)
            .enqueue(cuda)?;
    }
    running.mean = Tensor::from_device(mean, &[c]);
    running.variance = Tensor::from_device(variance, &[c]);
    Ok(channels)
}

fn frozen_channels(
    cuda: &Cuda,
    [gamma, beta]: [&Tensor; 2],
    running: &RunningStatistics,
    p: &BatchNormParameters,
) -> Result<DeviceBuffer> {
    let c = p.channels as usize;
    let mut channels = cuda.any(c * CHANNEL)?;
    // SAFETY: batch_norm_frozen(mean, variance, gamma, beta, channels, BatchNormParameters): the
    // kernel guards its index by `channels`; one number per channel, CHANNEL in the result.
    unsafe {
        Launch::new(&FROZEN)
            .over(c)
            .input(running.mean.buffer())
            .input(running.variance.buffer())
            .input(gamma.buffer())
            .input(beta.buffer())
            .output(&mut channels)
            .parameters(p)
            .enqueue(cuda)?;
    }
    Ok(channels)
}

fn backward(
    cuda: &Cuda,
    input: &Tensor,
    gradient: &Tensor,
    channels: &DeviceBuffer,
    p: &BatchNormParameters,
) -> Result<Vec<Option<Tensor>>> {
    let (c, parts) = (p.channels as usize, p.parts as usize);
    let mut partial = cuda.any::<f64>(c * parts * 2)?;
    // SAFETY: batch_norm_backward_sums(input, gradient, channels, partial, BatchNormParameters):
    // `parts` blocks for each channel, each with two sums; index guarded by samples · pixels.
    unsafe {
        Launch::new(&BACKWARD_SUMS)
            .grid([parts, c, 1])
            .input(input.buffer())
            .input(gradient.buffer())
            .input(channels)
            .output(&mut partial)
            .parameters(p)
            .enqueue(cuda)?;
    }
    let (mut to_gamma, mut to_beta) = (cuda.any(c)?, cuda.any(c)?);
    // SAFETY: batch_norm_backward_totals(partial, channels, to_gamma, to_beta,
    // BatchNormParameters): one block for each channel, a thread for each of at most 256 parts.
    unsafe {
        Launch::new(&BACKWARD_TOTALS)
            .grid([c, 1, 1])
            .input(&partial)
            .input(channels)
            .output(&mut to_gamma)
            .output(&mut to_beta)
            .parameters(p)
            .enqueue(cuda)?;
    }
    let mut to_input = cuda.any(input.len())?;
    let launch = Launch::new(&TO_INPUT).over(input.len());
    // SAFETY: batch_norm_to_input(input, gradient, channels, to_gamma, to_beta, to_input,
    // BatchNormParameters): the kernel guards its index by samples · channels · pixels, the
    // length of the three images; the others as above.
    unsafe {
        launch
            .input(input.buffer())
            .input(gradient.buffer())
            .input(channels)
            .input(&to_gamma)
            .input(&to_beta)
            .output(&mut to_input)
            .parameters(p)
            .enqueue(cuda)?;
    }
    Ok(vec![
        Some(Tensor::from_device(to_input, input.shape())),
        Some(Tensor::from_device(to_gamma, &[c])),
        Some(Tensor::from_device(to_beta, &[c])),
    ])
}

/// What is run on every device. Running statistics are an input like the others, so that they are
/// on the case's device; training shows them through a second, frozen pass.
pub(crate) fn cases() -> Vec<Case> {
    let case = |name, shape: [usize; 4], activation, training: bool| {
        let c = shape[1];
        Case::new(name, &[&shape, &[c], &[c]], move |tape, x| {
            let mut running = RunningStatistics::new(c).to(&x[0].device())?;
            let mut norm = |tape: &mut Tape, x: &[Tensor], mode| {
                super::batch_norm(
                    tape,
                    &x[0],
                    &x[1],
                    &x[2],
                    &mut running,
                    mode,
                    1e-3,
                    activation,
                )
            };
            if training {
                let normal = norm(tape, x, BatchNormMode::Train { momentum: 0.3 })?;
                let again = [normal, x[1].clone(), x[2].clone()];
                return norm(tape, &again, BatchNormMode::Frozen);
            }
            norm(tape, x, BatchNormMode::Frozen)
        })
        // Sums over a channel in another order.
        .tolerance(5e-6, 2e-5)
    };
    vec![
        case("batch_norm, frozen", [2, 3, 5, 7], Activation::Silu, false),
        case("batch_norm with SiLU", [2, 3, 5, 7], Activation::Silu, true),
        case("batch_norm with ReLU", [3, 2, 4, 6], Activation::Relu, true),
        case(
            "batch_norm of several blocks",
            [2, 2, 50, 60],
            Activation::None,
            true,
        ),
    ]
}
