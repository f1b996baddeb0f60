//! Picks channels by index: the orientations inside a heading prior.

use crate::buffer;
use crate::cuda::{Cuda, DeviceBuffer, Kernel, Launch, Source, count, parameters};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tape::Tape;
use crate::tensor::Tensor;

const OP: &str = "select_channels";

/// The channels of `input` named by `channels`, in that order; a channel may be named twice, and
/// its gradients then add up.
///
/// # Shapes
/// `input` `[N, C, H, W]`; returns `[N, channels.len(), H, W]`.
///
/// # Errors
/// [`Error::Shape`] when `input` has not four axes, [`Error::Argument`] when an index is not
/// below C or none is given.
pub fn select_channels(tape: &mut Tape, input: &Tensor, channels: &[usize]) -> Result<Tensor> {
    let shape = input.dims4(OP, "input")?;
    if channels.is_empty() {
        return Err(Error::argument(OP, "no channel is named"));
    }
    if let Some(channel) = channels.iter().find(|channel| **channel >= shape[1]) {
        return Err(Error::argument(
            OP,
            format!(
                "channel {channel} of an input with shape {:?}",
                input.shape()
            ),
        ));
    }
    let mut output = match input.device() {
        Device::Cpu => forward_cpu(input, channels, shape),
        Device::Cuda(cuda) => on_cuda(&cuda, &FORWARD, input, channels, shape)?,
    };
    let channels = channels.to_vec();
    tape.record(&mut output, &[input], move |gradient| {
        let to_input = match gradient.device() {
            Device::Cpu => backward_cpu(gradient, &channels, shape),
            Device::Cuda(cuda) => on_cuda(&cuda, &BACKWARD, gradient, &channels, shape)?,
        };
        Ok(vec![Some(to_input)])
    });
    Ok(output)
}

fn forward_cpu(input: &Tensor, channels: &[usize], [n, c, h, w]: [usize; 4]) -> Tensor {
    let pixels = h * w;
    let mut data = Vec::with_capacity(n * channels.len() * pixels);
    for sample in 0..n {
        for channel in channels {
            let start = (sample * c + channel) * pixels;
            data.extend_from_slice(&input.data()[start..start + pixels]);
        }
    }
    Tensor::from_parts(data, &[n, channels.len(), h, w])
}

fn backward_cpu(gradient: &Tensor, channels: &[usize], [n, c, h, w]: [usize; 4]) -> Tensor {
    let pixels = h * w;
    let mut data = buffer::zeros(n * c * pixels);
    for sample in 0..n {
        for (index, channel) in channels.iter().enumerate() {
            let from = (sample * channels.len() + index) * pixels;
            let to = (sample * c + channel) * pixels;
            let sums = data[to..to + pixels].iter_mut();
            for (sum, g) in sums.zip(&gradient.data()[from..from + pixels]) {
                *sum += g;
            }
        }
    }
    Tensor::from_parts(data, &[n, c, h, w])
}

pub(crate) static SOURCE: Source = Source {
    name: "ops/select_channels.cu",
    text: include_str!("select_channels.cu"),
    hot: &[],
};
static FORWARD: Kernel = Kernel {
    source: &SOURCE,
    entry: "select_channels_forward",
};
static BACKWARD: Kernel = Kernel {
    source: &SOURCE,
    entry: "select_channels_backward",
};

parameters! {
    struct SelectParameters {
        count: u32,
        channels: u32,
        selected: u32,
        pixels: u32,
    }
}

/// Forward or backward: `from` has the shape of one side, the result that of the other.
fn on_cuda(
    cuda: &Cuda,
    kernel: &'static Kernel,
    from: &Tensor,
    channels: &[usize],
    [n, c, h, w]: [usize; 4],
) -> Result<Tensor> {
    let forward = std::ptr::eq(kernel, &raw const FORWARD);
    let shape = [n, if forward { channels.len() } else { c }, h, w];
    let mut output = cuda.any(shape.iter().product())?;
    count(OP, from.len())?;
    let parameters = SelectParameters {
        count: count(OP, output.len())?,
        channels: c as u32,
        selected: channels.len() as u32,
        pixels: (h * w) as u32,
    };
    let table: Vec<u32> = channels.iter().map(|channel| *channel as u32).collect();
    let table: DeviceBuffer<u32> = cuda.constant(&table)?;
    let launch = Launch::new(kernel).over(output.len());
    // SAFETY: select_channels_*(from, table, output, SelectParameters): `output` has `count`
    // elements, by which the kernel guards its index; `table` has `selected` entries, each below
    // `channels`, so both sides are indexed within [N, channels or selected, pixels].
    unsafe {
        launch
            .input(from.buffer())
            .input(&table)
            .output(&mut output)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    Ok(Tensor::from_device(output, &shape))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradient, noise};

    #[test]
    fn channels_come_in_the_order_named() {
        let x = Tensor::new(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[1, 3, 1, 2]).unwrap();
        let y = select_channels(&mut Tape::inference(), &x, &[2, 0, 2]).unwrap();
        assert_eq!(y.data(), [5.0, 6.0, 1.0, 2.0, 5.0, 6.0]);
        assert_eq!(y.shape(), [1, 3, 1, 2]);
    }

    #[test]
    fn gradients_of_a_channel_named_twice_add_up() {
        check_gradient(&[noise(&[2, 3, 2, 2], 1)], 2e-3, |tape, x| {
            select_channels(tape, &x[0], &[1, 0, 1, 2])
        });
    }

    #[test]
    fn a_channel_that_is_not_there_is_refused() {
        let x = Tensor::zeros(&[1, 3, 2, 2]);
        let message = select_channels(&mut Tape::inference(), &x, &[0, 3])
            .unwrap_err()
            .to_string();
        assert!(message.contains('3') && message.contains("[1, 3, 2, 2]"));
        assert!(select_channels(&mut Tape::inference(), &x, &[]).is_err());
    }
}
