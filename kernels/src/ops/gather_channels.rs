//! Picks channels for each sample on its own; [`super::select_channels`] picks the same for the
//! whole batch.

use crate::cuda::{Cuda, DeviceBuffer, Kernel, Launch, Source, count, parameters};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tape::Tape;
use crate::tensor::Tensor;

const OP: &str = "gather_channels";

/// `output[n, r] = input[n, channels[n][r]]`.
///
/// # Shapes
/// `input` `[N, C, H, W]`, one list of equal length R for each sample; returns `[N, R, H, W]`.
///
/// # Errors
/// [`Error::Shape`] or [`Error::Argument`] when lists and samples don't fit; on a device
/// [`Error::Cuda`] while a step is being recorded, because its replays would pick the same again:
/// see [`gather_channels_by`].
pub fn gather_channels(tape: &mut Tape, input: &Tensor, channels: &[Vec<usize>]) -> Result<Tensor> {
    let [n, c, _, _] = input.dims4(OP, "input")?;
    let lists = channel_lists(channels, c)?;
    if channels.len() != n {
        return Err(Error::shape(OP, "lists", n, channels.len()));
    }
    gather_channels_by(tape, input, &lists.to(&input.device())?)
}

/// Lists of channels, each below `channels`, as the tensor that [`gather_channels_by`] takes.
///
/// # Shapes
/// Lists of one length R above 0; returns `[N, R]`.
///
/// # Errors
/// [`Error::Shape`] when the lengths differ, [`Error::Argument`] for a channel that does not exist.
pub fn channel_lists(lists: &[Vec<usize>], channels: usize) -> Result<Tensor> {
    let picked = lists.first().map_or(0, Vec::len);
    if picked == 0 || lists.iter().any(|list| list.len() != picked) {
        let lengths: Vec<usize> = lists.iter().map(Vec::len).collect();
        return Err(Error::shape(OP, "lists", "one length above 0", lengths));
    }
    // Whole numbers below 2^24 are exact in f32.
    let most = channels.min(1 << 24);
    if let Some(bad) = lists.iter().flatten().find(|channel| **channel >= most) {
        let what = format!("channel {bad} of {channels} does not exist");
        return Err(Error::argument(OP, what));
    }
    let flat = lists.iter().flatten().map(|channel| *channel as f32);
    Tensor::new(flat.collect(), &[lists.len(), picked])
}

/// As [`gather_channels`] by lists that are a tensor, so that they can be an input of a recorded
/// step. No gradient flows to them. A number that is no channel picks the nearest that is one.
///
/// # Shapes
/// `input` `[N, C, H, W]`, `lists` `[N, R]` of [`channel_lists`]; returns `[N, R, H, W]`.
///
/// # Errors
/// [`Error::Shape`] when lists and samples don't fit, [`Error::Device`] when the two lie on
/// different devices, [`Error::Cuda`].
pub fn gather_channels_by(tape: &mut Tape, input: &Tensor, lists: &Tensor) -> Result<Tensor> {
    let [n, c, h, w] = input.dims4(OP, "input")?;
    let [rows, picked] = lists.dims2(OP, "lists")?;
    if rows != n {
        return Err(Error::shape(OP, "lists", n, rows));
    }
    let gather = Gather {
        channels: c,
        picked,
        pixels: h * w,
        input_shape: [n, c, h, w],
        output_shape: [n, picked, h, w],
    };
    match Device::common(OP, &[input, lists])? {
        Device::Cpu => {
            let channel = |number: &f32| (*number as usize).min(c - 1);
            let lists: Vec<usize> = lists.data().iter().map(channel).collect();
            let mut output = gather.forward_on_cpu(input, &lists);
            tape.record(&mut output, &[input], move |gradient| {
                Ok(vec![Some(gather.backward_on_cpu(gradient, &lists))])
            });
            Ok(output)
        }
        Device::Cuda(cuda) => {
            let lists = lists.detach();
            let to = gather.output_shape;
            let mut output = gather.launch(&cuda, &FORWARD, input, lists.buffer(), to)?;
            tape.record(&mut output, &[input], move |gradient| {
                let to = gather.input_shape;
                let to_input = gather.launch(&cuda, &BACKWARD, gradient, lists.buffer(), to)?;
                Ok(vec![Some(to_input)])
            });
            Ok(output)
        }
    }
}

#[derive(Clone, Copy)]
struct Gather {
    channels: usize,
    picked: usize,
    pixels: usize,
    input_shape: [usize; 4],
    output_shape: [usize; 4],
}

impl Gather {
    /// First elements of the picked planes in the input, in the order of the output.
    fn sources<'a>(&'a self, lists: &'a [usize]) -> impl Iterator<Item = usize> + 'a {
        let rows = lists.iter().enumerate();
        rows.map(|(row, channel)| (row / self.picked * self.channels + channel) * self.pixels)
    }

    fn forward_on_cpu(&self, input: &Tensor, lists: &[usize]) -> Tensor {
        let mut data = Vec::with_capacity(lists.len() * self.pixels);
        for from in self.sources(lists) {
            data.extend_from_slice(&input.data()[from..from + self.pixels]);
        }
        Tensor::from_parts(data, &self.output_shape)
    }

    fn backward_on_cpu(&self, gradient: &Tensor, lists: &[usize]) -> Tensor {
        let mut data = vec![0.0; self.input_shape.iter().product()];
        let planes = gradient.data().chunks_exact(self.pixels);
        for (to, plane) in self.sources(lists).zip(planes) {
            let to = &mut data[to..to + self.pixels];
            to.iter_mut().zip(plane).for_each(|(to, from)| *to += from);
        }
        Tensor::from_parts(data, &self.input_shape)
    }

    fn launch(
        &self,
        cuda: &Cuda,
        kernel: &'static Kernel,
        from: &Tensor,
        lists: &DeviceBuffer,
        to: [usize; 4],
    ) -> Result<Tensor> {
        let elements = to.iter().product();
        count(OP, from.len())?;
        let parameters = GatherParameters {
            count: count(OP, elements)?,
            pixels: self.pixels as u32,
            channels: self.channels as u32,
            picked: self.picked as u32,
        };
        let mut output = cuda.any(elements)?;
        let launch = Launch::new(kernel).over(elements);
        // SAFETY: both kernels take (from, lists, to, GatherParameters): `to` has `count`
        // elements, by which they guard the index; `from` has `channels` planes for each sample,
        // to which the kernel bounds what the lists name, or one plane for each of their entries.
        unsafe {
            launch
                .input(from.buffer())
                .input(lists)
                .output(&mut output)
                .parameters(&parameters)
                .enqueue(cuda)?;
        }
        Ok(Tensor::from_device(output, &to))
    }
}

pub(crate) static SOURCE: Source = Source {
    name: "ops/gather_channels.cu",
    text: include_str!("gather_channels.cu"),
    hot: &["gather_channels_forward", "gather_channels_backward"],
};
static FORWARD: Kernel = Kernel {
    source: &SOURCE,
    entry: "gather_channels_forward",
};
static BACKWARD: Kernel = Kernel {
    source: &SOURCE,
    entry: "gather_channels_backward",
};

parameters! {
    struct GatherParameters {
        count: u32,
        pixels: u32,
        channels: u32,
        picked: u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradient, noise};

    #[test]
    fn each_sample_reads_its_own_channels() {
        let x = Tensor::new((0..6).map(|v| v as f32).collect(), &[2, 3, 1, 1]).unwrap();
        let y = gather_channels(&mut Tape::inference(), &x, &[vec![2, 0], vec![1, 1]]).unwrap();
        assert_eq!(y.data(), [2.0, 0.0, 4.0, 4.0]);
    }

    #[test]
    fn gradient_matches_finite_differences() {
        check_gradient(&[noise(&[2, 3, 2, 2], 1)], 2e-3, |tape, inputs| {
            gather_channels(tape, &inputs[0], &[vec![2, 0], vec![1, 1]])
        });
    }
}
