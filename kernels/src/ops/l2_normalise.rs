//! Unit length over the channels of each pixel.

use crate::buffer::{self, Buffer};
use crate::cuda::{Cuda, Kernel, Launch, Source, count, parameters, pixel_block};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tape::Tape;
use crate::tensor::Tensor;
use rayon::prelude::*;

const OP: &str = "l2_normalise";

/// Each pixel's channel vector divided by max(its length, `epsilon`).
///
/// A vector shorter than `epsilon` is divided by the constant, so its gradient is `1 / epsilon`
/// times the incoming one; the networks use 1e-12.
///
/// # Shapes
/// `input` `[N, C, H, W]`; returns the same.
///
/// # Errors
/// [`Error::Shape`] when `input` has not four axes, [`Error::Argument`] when `epsilon` is not
/// positive.
pub fn l2_normalise(tape: &mut Tape, input: &Tensor, epsilon: f32) -> Result<Tensor> {
    input.dims4(OP, "input")?;
    if !(epsilon > 0.0 && epsilon.is_finite()) {
        return Err(Error::argument(
            OP,
            format!("epsilon {epsilon} is not positive"),
        ));
    }
    match input.device() {
        Device::Cpu => on_cpu(tape, input, epsilon),
        Device::Cuda(cuda) => on_cuda(tape, &cuda, input, epsilon),
    }
}

fn on_cpu(tape: &mut Tape, input: &Tensor, epsilon: f32) -> Result<Tensor> {
    let [n, c, h, w] = input.dims4(OP, "input")?;
    let pixels = h * w;
    let sample_len = (c * pixels).max(1);
    let mut norms = Buffer::new(buffer::zeros(n * pixels));
    let mut data = buffer::any(input.len());
    data.par_chunks_mut(sample_len)
        .zip(norms.par_chunks_mut(pixels.max(1)))
        .zip(input.data().par_chunks(sample_len))
        .for_each(|((output, norms), input)| {
            for row in input.chunks_exact(pixels) {
                for (sum, x) in norms.iter_mut().zip(row) {
                    *sum += x * x;
                }
            }
            for norm in norms.iter_mut() {
                *norm = norm.sqrt();
            }
            for (output, input) in output
                .chunks_exact_mut(pixels)
                .zip(input.chunks_exact(pixels))
            {
                for ((y, x), norm) in output.iter_mut().zip(input).zip(norms.iter()) {
                    *y = x / norm.max(epsilon);
                }
            }
        });
    let mut output = Tensor::from_parts(data, input.shape());
    let saved = tape
        .needs_gradient(&[input])
        .then(|| (output.clone(), norms));
    tape.record(&mut output, &[input], move |gradient| {
        let (output, norms) = saved.expect("saved whenever recorded");
        let mut data = buffer::any(output.len());
        data.par_chunks_mut(sample_len)
            .zip(norms.par_chunks(pixels.max(1)))
            .zip(output.data().par_chunks(sample_len))
            .zip(gradient.data().par_chunks(sample_len))
            .for_each(|(((result, norms), output), gradient)| {
                // d(x/|x|) = (g - y (y . g)) / |x|
                let mut along = vec![0.0f32; pixels];
                for (y, g) in output
                    .chunks_exact(pixels)
                    .zip(gradient.chunks_exact(pixels))
                {
                    for ((along, y), g) in along.iter_mut().zip(y).zip(g) {
                        *along += y * g;
                    }
                }
                for (along, norm) in along.iter_mut().zip(norms) {
                    if *norm <= epsilon {
                        *along = 0.0;
                    }
                }
                let rows = result
                    .chunks_exact_mut(pixels)
                    .zip(output.chunks_exact(pixels))
                    .zip(gradient.chunks_exact(pixels));
                for ((result, output), gradient) in rows {
                    for (i, result) in result.iter_mut().enumerate() {
                        *result = (gradient[i] - output[i] * along[i]) / norms[i].max(epsilon);
                    }
                }
            });
        Ok(vec![Some(Tensor::from_parts(data, output.shape()))])
    });
    Ok(output)
}

pub(crate) static SOURCE: Source = Source {
    name: "ops/l2_normalise.cu",
    text: include_str!("l2_normalise.cu"),
    hot: &["l2_normalise_forward", "l2_normalise_backward"],
};
static FORWARD: Kernel = Kernel {
    source: &SOURCE,
    entry: "l2_normalise_forward",
};
static BACKWARD: Kernel = Kernel {
    source: &SOURCE,
    entry: "l2_normalise_backward",
};

parameters! {
    struct NormaliseParameters {
        channels: u32,
        pixels: u32,
        /// Blocks of a sample.
        tiles: u32,
        epsilon: f32,
    }
}

fn on_cuda(tape: &mut Tape, cuda: &Cuda, input: &Tensor, epsilon: f32) -> Result<Tensor> {
    let [n, c, h, w] = input.dims4(OP, "input")?;
    count(OP, input.len())?;
    let block = pixel_block(n, c, h * w);
    let tiles = (h * w).div_ceil(block[0] as usize);
    let parameters = NormaliseParameters {
        channels: c as u32,
        pixels: (h * w) as u32,
        tiles: tiles as u32,
        epsilon,
    };
    let mut norms = cuda.any::<f32>(n * h * w)?;
    let mut output = cuda.any(input.len())?;
    let launch = Launch::new(&FORWARD).grid([n * tiles, 1, 1]).block(block);
    // SAFETY: l2_normalise_forward(input, output, norms, NormaliseParameters): `tiles` blocks for
    // each sample, of at most 256 threads, a power of two for a pixel; the kernel guards its
    // indices by `pixels` and `channels`; a number for each pixel in `norms`.
    unsafe {
        launch
            .input(input.buffer())
            .output(&mut output)
            .output(&mut norms)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    let mut output = Tensor::from_device(output, input.shape());
    let saved = tape
        .needs_gradient(&[input])
        .then(|| (cuda.clone(), output.clone(), norms));
    tape.record(&mut output, &[input], move |gradient| {
        let (cuda, output, norms) = saved.expect("saved whenever recorded");
        let mut result = cuda.any(output.len())?;
        let launch = Launch::new(&BACKWARD).grid([n * tiles, 1, 1]).block(block);
        // SAFETY: l2_normalise_backward(output, norms, gradient, result, NormaliseParameters): as
        // above, all but `norms` shaped like the input.
        unsafe {
            launch
                .input(output.buffer())
                .input(&norms)
                .input(gradient.buffer())
                .output(&mut result)
                .parameters(&parameters)
                .enqueue(&cuda)?;
        }
        Ok(vec![Some(Tensor::from_device(result, output.shape()))])
    });
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradient, noise};

    #[test]
    fn three_four_becomes_point_six_point_eight() {
        let x = Tensor::new(vec![3.0, 0.0, 4.0, 2.0], &[1, 2, 1, 2]).unwrap();
        let y = l2_normalise(&mut Tape::inference(), &x, 1e-12).unwrap();
        assert_close(y.data(), &[0.6, 0.0, 0.8, 1.0], 1e-6);
    }

    #[test]
    fn a_zero_vector_stays_zero() {
        let x = Tensor::zeros(&[1, 3, 2, 2]);
        let y = l2_normalise(&mut Tape::inference(), &x, 1e-12).unwrap();
        assert_eq!(y.data(), [0.0; 12]);
    }

    #[test]
    fn gradient_matches_finite_differences() {
        check_gradient(&[noise(&[2, 5, 2, 3], 1)], 3e-3, |tape, x| {
            l2_normalise(tape, &x[0], 1e-12)
        });
    }

    #[test]
    fn short_vectors_are_divided_by_epsilon_in_value_and_gradient() {
        check_gradient(&[noise(&[1, 2, 2, 2], 1)], 3e-3, |tape, x| {
            l2_normalise(tape, &x[0], 10.0)
        });
    }

    #[test]
    fn input_without_four_axes_is_refused() {
        let result = l2_normalise(&mut Tape::inference(), &Tensor::zeros(&[2, 3]), 1e-12);
        assert!(result.unwrap_err().to_string().contains("[2, 3]"));
    }
}
