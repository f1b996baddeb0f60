//! Maximum over channels: CCVPE's matching map is the best score over orientations.

use crate::buffer;
use crate::cuda::{Cuda, DeviceBuffer, Kernel, Launch, Source, count, parameters};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tape::Tape;
use crate::tensor::Tensor;
use rayon::prelude::*;

const OP: &str = "max_channels";

/// The largest channel of each pixel. The gradient goes to the winning channel only; of equal
/// channels the first wins, and NaN wins over everything so that it is not hidden.
///
/// # Shapes
/// `input` `[N, R, H, W]`; returns `[N, 1, H, W]`.
///
/// # Errors
/// [`Error::Shape`] when `input` has not four axes or no channel.
pub fn max_channels(tape: &mut Tape, input: &Tensor) -> Result<Tensor> {
    let shape @ [_, channels, ..] = input.dims4(OP, "input")?;
    if channels == 0 {
        return Err(Error::shape(
            OP,
            "input",
            "at least one channel",
            input.shape(),
        ));
    }
    match input.device() {
        Device::Cpu => {
            let (mut output, winners) = forward_cpu(input, shape);
            tape.record(&mut output, &[input], move |gradient| {
                Ok(vec![Some(backward_cpu(gradient, &winners, shape))])
            });
            Ok(output)
        }
        Device::Cuda(cuda) => {
            let (mut output, winners) = forward_cuda(&cuda, input, shape)?;
            tape.record(&mut output, &[input], move |gradient| {
                Ok(vec![Some(backward_cuda(&cuda, gradient, &winners, shape)?)])
            });
            Ok(output)
        }
    }
}

fn forward_cpu(input: &Tensor, [n, channels, h, w]: [usize; 4]) -> (Tensor, Vec<u32>) {
    let pixels = (h * w).max(1);
    let mut data = buffer::any(n * h * w);
    let mut winners = vec![0u32; n * h * w];
    data.par_chunks_mut(pixels)
        .zip(winners.par_chunks_mut(pixels))
        .zip(input.data().par_chunks(channels * pixels))
        .for_each(|((best, winners), input)| {
            best.copy_from_slice(&input[..pixels]);
            for (channel, row) in input.chunks_exact(pixels).enumerate().skip(1) {
                for ((best, winner), x) in best.iter_mut().zip(winners.iter_mut()).zip(row) {
                    let wins = *x > *best || x.is_nan();
                    *best = if wins { *x } else { *best };
                    *winner = if wins { channel as u32 } else { *winner };
                }
            }
        });
    (Tensor::from_parts(data, &[n, 1, h, w]), winners)
}

fn backward_cpu(gradient: &Tensor, winners: &[u32], shape: [usize; 4]) -> Tensor {
    let [n, channels, h, w] = shape;
    let pixels = (h * w).max(1);
    let mut data = buffer::zeros(n * channels * h * w);
    data.par_chunks_mut(channels * pixels)
        .zip(winners.par_chunks(pixels))
        .zip(gradient.data().par_chunks(pixels))
        .for_each(|((result, winners), gradient)| {
            for (pixel, (winner, g)) in winners.iter().zip(gradient).enumerate() {
                result[*winner as usize * pixels + pixel] = *g;
            }
        });
    Tensor::from_parts(data, &shape)
}

pub(crate) static SOURCE: Source = Source {
    name: "ops/max_channels.cu",
    text: include_str!("max_channels.cu"),
    hot: &["max_channels_forward", "max_channels_backward"],
};
static FORWARD: Kernel = Kernel {
    source: &SOURCE,
    entry: "max_channels_forward",
};
static BACKWARD: Kernel = Kernel {
    source: &SOURCE,
    entry: "max_channels_backward",
};

parameters! {
    struct MaxChannelsParameters {
        count: u32,
        channels: u32,
        pixels: u32,
    }
}

fn parameters(written: usize, [n, channels, h, w]: [usize; 4]) -> Result<MaxChannelsParameters> {
    count(OP, n * channels * h * w)?;
    Ok(MaxChannelsParameters {
        count: written as u32,
        channels: channels as u32,
        pixels: (h * w) as u32,
    })
}

fn forward_cuda(
    cuda: &Cuda,
    input: &Tensor,
    shape: [usize; 4],
) -> Result<(Tensor, DeviceBuffer<u32>)> {
    let [n, _, h, w] = shape;
    let mut output = cuda.any(n * h * w)?;
    let mut winners = cuda.any(n * h * w)?;
    let launch = Launch::new(&FORWARD).over(output.len());
    // SAFETY: max_channels_forward(input, output, winners, MaxChannelsParameters): the outputs
    // have `count` elements, by which the kernel guards its index, and `input` as many for each
    // channel.
    unsafe {
        launch
            .input(input.buffer())
            .output(&mut output)
            .output(&mut winners)
            .parameters(&parameters(n * h * w, shape)?)
            .enqueue(cuda)?;
    }
    Ok((Tensor::from_device(output, &[n, 1, h, w]), winners))
}

fn backward_cuda(
    cuda: &Cuda,
    gradient: &Tensor,
    winners: &DeviceBuffer<u32>,
    shape: [usize; 4],
) -> Result<Tensor> {
    let mut result = cuda.any(shape.iter().product())?;
    let parameters = parameters(result.len(), shape)?;
    let launch = Launch::new(&BACKWARD).over(result.len());
    // SAFETY: max_channels_backward(gradient, winners, result, MaxChannelsParameters): the result
    // has `count` elements, by which the kernel guards its index; the others one for each pixel.
    unsafe {
        launch
            .input(gradient.buffer())
            .input(winners)
            .output(&mut result)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    Ok(Tensor::from_device(result, &shape))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::check_gradient;

    #[test]
    fn gradient_goes_to_the_first_of_equal_winners() {
        let x = Tensor::new(vec![1.0, 5.0, 3.0, 5.0, 3.0, 2.0], &[1, 3, 1, 2])
            .unwrap()
            .with_gradient();
        let mut tape = Tape::training();
        let y = max_channels(&mut tape, &x).unwrap();
        assert_eq!(y.data(), [3.0, 5.0]);
        let gradient = Tensor::new(vec![7.0, 9.0], &[1, 1, 1, 2]).unwrap();
        let gradients = tape.backward_from(&y, gradient).unwrap();
        assert_eq!(
            gradients.get(&x).unwrap().data(),
            [0.0, 9.0, 7.0, 0.0, 0.0, 0.0]
        );
    }

    #[test]
    fn nan_is_not_hidden() {
        let x = Tensor::new(vec![f32::NAN, 1.0, 2.0, f32::NAN], &[1, 2, 1, 2]).unwrap();
        let y = max_channels(&mut Tape::inference(), &x).unwrap();
        assert!(y.data().iter().all(|y| y.is_nan()));
    }

    #[test]
    fn gradient_matches_finite_differences() {
        // Further apart than the finite step, so that the winner stays.
        let data = (0..48).map(|i| (i * 37 % 97) as f32 / 32.0).collect();
        let x = Tensor::new(data, &[2, 4, 2, 3]).unwrap();
        check_gradient(&[x], 2e-3, |tape, x| max_channels(tape, &x[0]));
    }

    #[test]
    fn input_without_channels_is_refused() {
        assert!(max_channels(&mut Tape::inference(), &Tensor::zeros(&[1, 0, 2, 2])).is_err());
    }
}
