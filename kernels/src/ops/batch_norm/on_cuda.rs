//! The GPU side of batch normalisation. As on the CPU, only the input is kept for the
//! backward pass.

use super::{BatchNormMode, OP, RunningStatistics};
use crate::cuda::{
    Cuda, DeviceBuffer, Kernel, Launch, Source, THREADS, count, divider, pack, parameters,
};
use crate::error::{Error, Result};
use crate::ops::Activation;
use crate::tape::Tape;
use crate::tensor::Tensor;

pub(crate) static SOURCE: Source = Source {
    name: "ops/batch_norm.cu",
    text: include_str!("../batch_norm.cu"),
    hot: &[
        "batch_norm_forward_whole",
        "batch_norm_forward_long",
        "batch_norm_moments",
        "batch_norm_forward",
        "batch_norm_backward_whole",
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
static FORWARD_WHOLE: Kernel = kernel("batch_norm_forward_whole");
static FORWARD_LONG: Kernel = kernel("batch_norm_forward_long");
static BACKWARD_WHOLE: Kernel = kernel("batch_norm_backward_whole");
static MOMENTS: Kernel = kernel("batch_norm_moments");
static STATISTICS: Kernel = kernel("batch_norm_statistics");
static FROZEN: Kernel = kernel("batch_norm_frozen");
static FORWARD: Kernel = kernel("batch_norm_forward");
static BACKWARD_SUMS: Kernel = kernel("batch_norm_backward_sums");
static BACKWARD_TOTALS: Kernel = kernel("batch_norm_backward_totals");
static TO_INPUT: Kernel = kernel("batch_norm_to_input");

/// The most elements of a channel that its blocks sum each, the most blocks of a channel (their
/// sums are added by a thread each), and blocks enough for a GPU: with fewer channels, more blocks
/// share one.
const SHARE: usize = 8192;
const MOST_PARTS: usize = 256;
const BLOCKS: usize = 2048;
/// Packs of a channel that a thread of `batch_norm_*_whole` keeps, and of `batch_norm_forward_long`
/// before and from Blackwell on.
const KEPT: usize = 4;
const KEPT_LONG: [usize; 2] = [8, 6];
/// The most threads of a block.
const MOST_THREADS: usize = 1024;
/// `IN_FLIGHT` of the kernels: packs that a thread of `batch_norm_forward` writes;
/// `batch_norm_to_input`, which reads two images, half as many.
const IN_FLIGHT: usize = 4;
/// Numbers that a channel is normalised with: mean, 1 / sigma, gamma, beta.
const CHANNEL: usize = 4;

parameters! {
    struct BatchNormParameters {
        samples: u32,
        channels: u32,
        pixels: u32,
        /// Whether a pack is four elements, else one.
        wide: u32,
        /// By packs of a plane.
        in_plane: [u32; 3],
        /// By channels.
        in_sample: [u32; 3],
        parts: u32,
        momentum: f32,
        epsilon: f32,
        /// 0 nothing, 1 SiLU, 2 ReLU.
        activation: u32,
        /// 1 / elements of a channel where its own statistics normalised, else 0.
        share: f32,
    }
}

impl BatchNormParameters {
    /// Packs of a channel.
    fn packs(&self) -> usize {
        let [in_plane, ..] = self.in_plane;
        self.samples as usize * in_plane as usize
    }

    /// Threads of a block that keeps a whole channel, `kept` packs for each thread; `None` where
    /// it is too long for that.
    fn threads_of_whole(&self, kept: usize) -> Option<u32> {
        let threads = self.packs().div_ceil(kept).next_multiple_of(32);
        (threads <= MOST_THREADS).then_some(threads as u32)
    }

    /// Blocks of 256 threads that write all images, `packs` for each thread.
    fn blocks(&self, packs: usize) -> usize {
        let all = self.packs() * self.channels as usize;
        all.div_ceil(packs * THREADS as usize)
    }
}

/// How many blocks share a channel of `count` elements.
fn parts(channels: usize, count: usize) -> usize {
    let enough = BLOCKS.div_ceil(channels);
    count.div_ceil(SHARE).min(enough).min(MOST_PARTS)
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
    let (by_batch, momentum) = match mode {
        BatchNormMode::Train { momentum } => (true, momentum),
        BatchNormMode::Frozen => (false, 0.0),
    };
    let pack = pack(h * w);
    let p = BatchNormParameters {
        samples: n as u32,
        channels: c as u32,
        pixels: (h * w) as u32,
        wide: u32::from(pack == 4),
        in_plane: divider(h * w / pack),
        in_sample: divider(c),
        parts: parts(c, n * h * w) as u32,
        momentum,
        epsilon,
        activation: match activation {
            Activation::None => 0,
            Activation::Silu => 1,
            Activation::Relu => 2,
        },
        share: if by_batch {
            1.0 / (n * h * w) as f32
        } else {
            0.0
        },
    };
    let affine = [gamma, beta];
    let (channels, output) = if by_batch {
        by_own_statistics(cuda, input, affine, running, &p)?
    } else {
        let channels = frozen_channels(cuda, affine, running, &p)?;
        let output = normalised(cuda, input, &channels, &p)?;
        (channels, output)
    };
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

/// With the batch's statistics: the values that normalise each channel, and the output. Moves the
/// running statistics in place, unless they are shared.
fn by_own_statistics(
    cuda: &Cuda,
    input: &Tensor,
    [gamma, beta]: [&Tensor; 2],
    running: &mut RunningStatistics,
    p: &BatchNormParameters,
) -> Result<(DeviceBuffer, DeviceBuffer)> {
    if cuda.is_recording() && (running.mean.is_shared() || running.variance.is_shared()) {
        // A copy would take their place, and every replay would begin with the old ones.
        let what = "running statistics are shared with another tensor, so a recorded step cannot \
                    update them in place; drop or copy that one first";
        return Err(Error::argument(OP, what));
    }
    let c = p.channels as usize;
    let taken = |tensor: &mut Tensor| std::mem::replace(tensor, Tensor::scalar(0.0)).into_buffer();
    let (mut mean, mut variance) = (taken(&mut running.mean)?, taken(&mut running.variance)?);
    let mut channels = cuda.any(c * CHANNEL)?;
    let kept_long = KEPT_LONG[usize::from(cuda.architecture() >= 100)];
    let whole = [(&FORWARD_WHOLE, KEPT), (&FORWARD_LONG, kept_long)];
    let whole = whole
        .into_iter()
        .find_map(|(kernel, kept)| Some((kernel, p.threads_of_whole(kept)?)));
    let output = if let Some((kernel, threads)) = whole {
        let mut output = cuda.any(input.len())?;
        // SAFETY: batch_norm_forward_whole or _long(input, gamma, beta, mean, variance, channels,
        // output, BatchNormParameters): one block for each channel, threads for all its packs,
        // by which the kernel guards its index; one number per channel, CHANNEL in `channels`.
        unsafe {
            Launch::new(kernel)
                .grid([c, 1, 1])
                .block([threads, 1, 1])
                .input(input.buffer())
                .input(gamma.buffer())
                .input(beta.buffer())
                .output(&mut mean)
                .output(&mut variance)
                .output(&mut channels)
                .output(&mut output)
                .parameters(p)
                .enqueue(cuda)?;
        }
        output
    } else {
        let partial = moments(cuda, input, p)?;
        // SAFETY: batch_norm_statistics(input, partial, gamma, beta, mean, variance, channels,
        // BatchNormParameters): one block for each channel, a thread for each of at most 256
        // parts; one number per channel, CHANNEL in `channels`; of the input, first elements of
        // channels.
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
        normalised(cuda, input, &channels, p)?
    };
    running.mean = Tensor::from_device(mean, &[c]);
    running.variance = Tensor::from_device(variance, &[c]);
    Ok((channels, output))
}

/// Two sums for each part of each channel.
fn moments(cuda: &Cuda, input: &Tensor, p: &BatchNormParameters) -> Result<DeviceBuffer<f64>> {
    let (c, parts) = (p.channels as usize, p.parts as usize);
    let mut partial = cuda.any::<f64>(c * parts * 2)?;
    // SAFETY: batch_norm_moments(input, partial, BatchNormParameters): `parts` blocks for each
    // channel, each with two sums; the kernel guards its index by the packs of a channel.
    unsafe {
        Launch::new(&MOMENTS)
            .grid([parts, c, 1])
            .input(input.buffer())
            .output(&mut partial)
            .parameters(p)
            .enqueue(cuda)?;
    }
    Ok(partial)
}

/// The output, from the statistics of each channel.
fn normalised(
    cuda: &Cuda,
    input: &Tensor,
    channels: &DeviceBuffer,
    p: &BatchNormParameters,
) -> Result<DeviceBuffer> {
    let mut output = cuda.any(input.len())?;
    // SAFETY: batch_norm_forward(input, channels, output, BatchNormParameters): the kernel guards
    // its index by the packs of the images, both of that length; CHANNEL numbers per channel.
    unsafe {
        Launch::new(&FORWARD)
            .grid([p.blocks(IN_FLIGHT), 1, 1])
            .input(input.buffer())
            .input(channels)
            .output(&mut output)
            .parameters(p)
            .enqueue(cuda)?;
    }
    Ok(output)
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
    let c = p.channels as usize;
    let (mut to_gamma, mut to_beta) = (cuda.any(c)?, cuda.any(c)?);
    let mut to_input = cuda.any(input.len())?;
    if let Some(threads) = p.threads_of_whole(KEPT) {
        // SAFETY: batch_norm_backward_whole(input, gradient, channels, to_gamma, to_beta,
        // to_input, BatchNormParameters): one block for each channel, threads for all its packs,
        // by which the kernel guards its index; one number per channel, CHANNEL in `channels`.
        unsafe {
            Launch::new(&BACKWARD_WHOLE)
                .grid([c, 1, 1])
                .block([threads, 1, 1])
                .input(input.buffer())
                .input(gradient.buffer())
                .input(channels)
                .output(&mut to_gamma)
                .output(&mut to_beta)
                .output(&mut to_input)
                .parameters(p)
                .enqueue(cuda)?;
        }
    } else {
        let partial = backward_sums(cuda, input, gradient, channels, p)?;
        // SAFETY: batch_norm_backward_totals(partial, channels, to_gamma, to_beta,
        // BatchNormParameters): one block for each channel, a thread for each of at most 256
        // parts.
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
        // SAFETY: batch_norm_to_input(input, gradient, channels, to_gamma, to_beta, to_input,
        // BatchNormParameters): the kernel guards its index by the packs of the images, the
        // length of all three; the others as above.
        unsafe {
            Launch::new(&TO_INPUT)
                .grid([p.blocks(IN_FLIGHT / 2), 1, 1])
                .input(input.buffer())
                .input(gradient.buffer())
                .input(channels)
                .input(&to_gamma)
                .input(&to_beta)
                .output(&mut to_input)
                .parameters(p)
                .enqueue(cuda)?;
        }
    }
    Ok(vec![
        Some(Tensor::from_device(to_input, input.shape())),
        Some(Tensor::from_device(to_gamma, &[c])),
        Some(Tensor::from_device(to_beta, &[c])),
    ])
}

/// Two sums for each part of each channel.
fn backward_sums(
    cuda: &Cuda,
    input: &Tensor,
    gradient: &Tensor,
    channels: &DeviceBuffer,
    p: &BatchNormParameters,
) -> Result<DeviceBuffer<f64>> {
    let (c, parts) = (p.channels as usize, p.parts as usize);
    let mut partial = cuda.any::<f64>(c * parts * 2)?;
    // SAFETY: batch_norm_backward_sums(input, gradient, channels, partial, BatchNormParameters):
    // `parts` blocks for each channel, each with two sums; the kernel guards its index by the
    // packs of a channel.
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
    Ok(partial)
}
