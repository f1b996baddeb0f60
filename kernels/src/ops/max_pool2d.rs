//! Maximum over square windows that tile the image.

use crate::buffer;
use crate::cuda::{Cuda, DeviceBuffer, Kernel, Launch, Source, count, parameters};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tape::Tape;
use crate::tensor::Tensor;

const OP: &str = "max_pool2d";

/// The largest value in each `window` × `window` square; the first of equals wins and gets the
/// whole gradient. NaN wins over any number. Rows and columns that fill no window are dropped.
///
/// # Shapes
/// `input` `[N, C, H, W]`; returns `[N, C, H / window, W / window]`, rounded down.
///
/// # Errors
/// [`Error::Shape`] when the image is smaller than one window; [`Error::Argument`] for window 0.
pub fn max_pool2d(tape: &mut Tape, input: &Tensor, window: usize) -> Result<Tensor> {
    let shape @ [_, _, h, w] = input.dims4(OP, "input")?;
    if window == 0 {
        return Err(Error::argument(OP, "window 0 holds nothing; use 1 or more"));
    }
    if h < window || w < window {
        return Err(Error::shape(
            OP,
            "image",
            format!("at least {window} × {window}"),
            [h, w],
        ));
    }
    match input.device() {
        Device::Cpu => {
            let (mut output, winners) = forward_cpu(input, shape, window);
            tape.record(&mut output, &[input], move |gradient| {
                let mut data = buffer::zeros(shape.iter().product());
                for (winner, gradient) in winners.iter().zip(gradient.data()) {
                    data[*winner] += gradient;
                }
                Ok(vec![Some(Tensor::from_parts(data, &shape))])
            });
            Ok(output)
        }
        Device::Cuda(cuda) => {
            let (mut output, winners) = forward_cuda(&cuda, input, shape, window)?;
            tape.record(&mut output, &[input], move |gradient| {
                let to_input = backward_cuda(&cuda, gradient, &winners, shape, window)?;
                Ok(vec![Some(to_input)])
            });
            Ok(output)
        }
    }
}

fn forward_cpu(input: &Tensor, [n, c, h, w]: [usize; 4], window: usize) -> (Tensor, Vec<usize>) {
    let (rows, columns) = (h / window, w / window);
    let mut data = Vec::with_capacity(n * c * rows * columns);
    let mut winners = Vec::with_capacity(data.capacity());
    for plane in 0..n * c {
        for row in 0..rows {
            for column in 0..columns {
                let corner = (plane * h + row * window) * w + column * window;
                let mut winner = corner;
                for y in 0..window {
                    for x in 0..window {
                        let here = corner + y * w + x;
                        let (value, best) = (input.data()[here], input.data()[winner]);
                        if value > best || (value.is_nan() && !best.is_nan()) {
                            winner = here;
                        }
                    }
                }
                data.push(input.data()[winner]);
                winners.push(winner);
            }
        }
    }
    (Tensor::from_parts(data, &[n, c, rows, columns]), winners)
}

pub(crate) static SOURCE: Source = Source {
    name: "ops/max_pool2d.cu",
    text: include_str!("max_pool2d.cu"),
    hot: &["max_pool2d_forward", "max_pool2d_backward"],
};
static FORWARD: Kernel = Kernel {
    source: &SOURCE,
    entry: "max_pool2d_forward",
};
static BACKWARD: Kernel = Kernel {
    source: &SOURCE,
    entry: "max_pool2d_backward",
};

parameters! {
    struct MaxPoolParameters {
        count: u32,
        height: u32,
        width: u32,
        window: u32,
    }
}

fn parameters(count: usize, [_, _, h, w]: [usize; 4], window: usize) -> MaxPoolParameters {
    MaxPoolParameters {
        count: count as u32,
        height: h as u32,
        width: w as u32,
        window: window as u32,
    }
}

fn forward_cuda(
    cuda: &Cuda,
    input: &Tensor,
    shape: [usize; 4],
    window: usize,
) -> Result<(Tensor, DeviceBuffer<u32>)> {
    count(OP, input.len())?;
    let [n, c, h, w] = shape;
    let pooled = [n, c, h / window, w / window];
    let mut output = cuda.any(pooled.iter().product())?;
    let mut winners = cuda.any(output.len())?;
    let parameters = parameters(output.len(), shape, window);
    let launch = Launch::new(&FORWARD).over(output.len());
    // SAFETY: max_pool2d_forward(input, output, winners, MaxPoolParameters): the outputs have
    // `count` elements, by which the kernel guards its index; it reads the window of each, which
    // lies within its image of height × width.
    unsafe {
        launch
            .input(input.buffer())
            .output(&mut output)
            .output(&mut winners)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    Ok((Tensor::from_device(output, &pooled), winners))
}

fn backward_cuda(
    cuda: &Cuda,
    gradient: &Tensor,
    winners: &DeviceBuffer<u32>,
    shape: [usize; 4],
    window: usize,
) -> Result<Tensor> {
    let mut result = cuda.any(shape.iter().product())?;
    let parameters = parameters(result.len(), shape, window);
    let launch = Launch::new(&BACKWARD).over(result.len());
    // SAFETY: max_pool2d_backward(gradient, winners, result, MaxPoolParameters): the result has
    // `count` elements, by which the kernel guards its index; the others one for each window, of
    // which those beyond the last whole one are not asked.
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
    use crate::testing::{check_gradient, noise};

    #[test]
    fn the_largest_of_each_window_stays() {
        let x = [1., 5., 2., 0., 9., 3., 4., 8., 1., 7., 6., 0., 0., 0., 9.];
        let x = Tensor::new(x.to_vec(), &[1, 1, 3, 5]).unwrap();
        let y = max_pool2d(&mut Tape::inference(), &x, 2).unwrap();
        assert_eq!(y.shape(), [1, 1, 1, 2]);
        assert_eq!(y.data(), [5.0, 8.0]);
    }

    #[test]
    fn nan_wins() {
        let x = Tensor::new(vec![1.0, f32::NAN, 3.0, 2.0], &[1, 1, 2, 2]).unwrap();
        let y = max_pool2d(&mut Tape::inference(), &x, 2).unwrap();
        assert!(y.data()[0].is_nan());
    }

    #[test]
    fn gradient_matches_finite_differences() {
        check_gradient(&[noise(&[1, 2, 5, 4], 3)], 2e-3, |tape, inputs| {
            max_pool2d(tape, &inputs[0], 2)
        });
    }

    #[test]
    fn a_window_larger_than_the_image_is_refused() {
        let x = noise(&[1, 1, 2, 4], 1);
        assert!(max_pool2d(&mut Tape::inference(), &x, 3).is_err());
        assert!(max_pool2d(&mut Tape::inference(), &x, 0).is_err());
    }
}
