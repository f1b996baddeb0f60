//! Layer norm over the channels of each pixel.

use crate::device::Device;
use crate::error::Result;
use crate::tape::Tape;
use crate::tensor::Tensor;

const OP: &str = "layer_norm";

/// `(x - mean) / sqrt(variance + epsilon) * gamma + beta`, mean and (biased) variance over the
/// channels of one pixel. A pixel is what a transformer calls a token.
///
/// # Shapes
/// `input` `[N, C, H, W]`; `gamma` and `beta` `[C]`; returns `[N, C, H, W]`.
///
/// # Errors
/// [`crate::Error::Shape`] when the shapes do not fit, [`crate::Error::Device`] when the inputs lie
/// apart.
///
/// # Source
/// Layer Normalization (Ba, Kiros, Hinton 2016).
pub fn layer_norm(
    tape: &mut Tape,
    input: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    epsilon: f32,
) -> Result<Tensor> {
    let [_, c, h, w] = input.dims4(OP, "input")?;
    gamma.expect_shape(OP, "gamma", &[c])?;
    beta.expect_shape(OP, "beta", &[c])?;
    if let Device::Cuda(cuda) = Device::common(OP, &[input, gamma, beta])? {
        return cuda::layer_norm(tape, &cuda, [input, gamma, beta], epsilon);
    }
    let size = [c, h * w];
    let (data, moments) = cpu::forward(size, input.data(), gamma.data(), beta.data(), epsilon);
    let mut output = Tensor::from_parts(data, input.shape());
    let inputs = [input, gamma, beta];
    let saved = tape
        .needs_gradient(&inputs)
        .then(|| (input.clone(), gamma.clone()));
    tape.record(&mut output, &inputs, move |gradient| {
        let (input, gamma) = saved.expect("saved whenever recorded");
        let [x, scale, shift] =
            cpu::backward(size, input.data(), gamma.data(), &moments, gradient.data());
        Ok(vec![
            Some(Tensor::from_parts(x, input.shape())),
            Some(Tensor::from_parts(scale, &[size[0]])),
            Some(Tensor::from_parts(shift, &[size[0]])),
        ])
    });
    Ok(output)
}

mod cpu {
    use crate::buffer;
    use crate::math::{self, for_each_cpu};
    use rayon::prelude::*;

    /// The normalised input, and for each sample a row of means and one of 1 / sigma.
    pub fn forward(
        [channels, pixels]: [usize; 2],
        input: &[f32],
        gamma: &[f32],
        beta: &[f32],
        epsilon: f32,
    ) -> (Vec<f32>, Vec<f32>) {
        let len = channels * pixels;
        let mut output = buffer::any(input.len());
        let mut moments = vec![0.0; input.len() / channels * 2];
        output
            .par_chunks_exact_mut(len)
            .zip(moments.par_chunks_exact_mut(2 * pixels))
            .zip(input.par_chunks_exact(len))
            .for_each(|((output, moments), input)| {
                let (mean, inverse) = moments.split_at_mut(pixels);
                let share = 1.0 / channels as f32;
                for row in input.chunks_exact(pixels) {
                    math::add_assign(mean, row);
                }
                scale(mean, share);
                for row in input.chunks_exact(pixels) {
                    add_squares(inverse, row, mean);
                }
                for value in inverse.iter_mut() {
                    *value = 1.0 / (*value * share + epsilon).sqrt();
                }
                let rows = output
                    .chunks_exact_mut(pixels)
                    .zip(input.chunks_exact(pixels));
                for ((output, input), (gamma, beta)) in rows.zip(gamma.iter().zip(beta)) {
                    normalise(output, input, [mean, inverse], *gamma, *beta);
                }
            });
        (output, moments)
    }

    /// Gradients of input, gamma and beta. With n the normalised input and u = gamma · g:
    /// `dx = (u - mean(u) - n mean(u n)) / sigma`.
    pub fn backward(
        [channels, pixels]: [usize; 2],
        input: &[f32],
        gamma: &[f32],
        moments: &[f32],
        gradient: &[f32],
    ) -> [Vec<f32>; 3] {
        let len = channels * pixels;
        let mut result = buffer::any(input.len());
        let sums: Vec<[Vec<f32>; 2]> = result
            .par_chunks_exact_mut(len)
            .zip(input.par_chunks_exact(len))
            .zip(moments.par_chunks_exact(2 * pixels))
            .zip(gradient.par_chunks_exact(len))
            .map(|(((result, input), moments), gradient)| {
                let (mean, inverse) = moments.split_at(pixels);
                let share = 1.0 / channels as f32;
                let (mut plain, mut along) = (vec![0.0; pixels], vec![0.0; pixels]);
                let mut normal = vec![0.0; pixels];
                let (mut to_gamma, mut to_beta) = (vec![0.0; channels], vec![0.0; channels]);
                let rows = input
                    .chunks_exact(pixels)
                    .zip(gradient.chunks_exact(pixels));
                for (channel, (input, gradient)) in rows.clone().enumerate() {
                    normalise(&mut normal, input, [mean, inverse], 1.0, 0.0);
                    add_scaled(&mut plain, gradient, gamma[channel]);
                    multiply(&mut normal, gradient);
                    add_scaled(&mut along, &normal, gamma[channel]);
                    to_gamma[channel] = math::sum(&normal);
                    to_beta[channel] = math::sum(gradient);
                }
                scale(&mut plain, share);
                scale(&mut along, share);
                for (channel, (input, gradient)) in rows.enumerate() {
                    let result = &mut result[channel * pixels..][..pixels];
                    normalise(result, input, [mean, inverse], 1.0, 0.0);
                    finish(result, gradient, [&plain, &along, inverse], gamma[channel]);
                }
                [to_gamma, to_beta]
            })
            .collect();
        let mut total = [vec![0.0; channels], vec![0.0; channels]];
        for sums in &sums {
            for (total, sums) in total.iter_mut().zip(sums) {
                math::add_assign(total, sums);
            }
        }
        let [to_gamma, to_beta] = total;
        [result, to_gamma, to_beta]
    }

    fn scale(values: &mut [f32], factor: f32) {
        values.iter_mut().for_each(|value| *value *= factor);
    }

    for_each_cpu! {
        fn add_squares(sums: &mut [f32], row: &[f32], mean: &[f32]) {
            for ((sum, x), mean) in sums.iter_mut().zip(row).zip(mean) {
                *sum += (x - mean) * (x - mean);
            }
        }
    }

    for_each_cpu! {
        fn normalise(out: &mut [f32], row: &[f32], [mean, inverse]: [&[f32]; 2], gamma: f32, beta: f32) {
            for (((y, x), mean), inverse) in out.iter_mut().zip(row).zip(mean).zip(inverse) {
                *y = (x - mean) * inverse * gamma + beta;
            }
        }
    }

    for_each_cpu! {
        fn add_scaled(sums: &mut [f32], row: &[f32], factor: f32) {
            for (sum, x) in sums.iter_mut().zip(row) {
                *sum += x * factor;
            }
        }
    }

    for_each_cpu! {
        fn multiply(values: &mut [f32], row: &[f32]) {
            for (value, x) in values.iter_mut().zip(row) {
                *value *= x;
            }
        }
    }

    for_each_cpu! {
        /// On entry `out` holds the normalised input.
        fn finish(out: &mut [f32], gradient: &[f32], [plain, along, inverse]: [&[f32]; 3], gamma: f32) {
            for ((((y, g), plain), along), inverse) in
                out.iter_mut().zip(gradient).zip(plain).zip(along).zip(inverse)
            {
                *y = (g * gamma - plain - *y * along) * inverse;
            }
        }
    }
}

pub(crate) mod cuda {
    use super::OP;
    use crate::cuda::{Cuda, DeviceBuffer, Kernel, Launch, Source, count, parameters};
    use crate::error::Result;
    use crate::tape::Tape;
    use crate::tensor::Tensor;

    pub(crate) static SOURCE: Source = Source {
        name: "ops/layer_norm.cu",
        text: include_str!("layer_norm.cu"),
        hot: &[
            "layer_norm_forward",
            "layer_norm_to_input",
            "layer_norm_sums",
        ],
    };
    const fn kernel(entry: &'static str) -> Kernel {
        Kernel {
            source: &SOURCE,
            entry,
        }
    }
    static FORWARD: Kernel = kernel("layer_norm_forward");
    static TO_INPUT: Kernel = kernel("layer_norm_to_input");
    static SUMS: Kernel = kernel("layer_norm_sums");
    static TOTALS: Kernel = kernel("layer_norm_totals");

    /// A block's pixels, and the threads that share the channels of one.
    const BLOCK: [u32; 3] = [32, 8, 1];
    /// Pixels that one block sums for a channel, and the most blocks for one channel.
    const SHARE: usize = 2048;
    const MOST_PARTS: usize = 256;

    parameters! {
        struct LayerNormParameters {
            count: u32,
            channels: u32,
            pixels: u32,
            parts: u32,
            epsilon: f32,
        }
    }

    pub(super) fn layer_norm(
        tape: &mut Tape,
        cuda: &Cuda,
        inputs: [&Tensor; 3],
        epsilon: f32,
    ) -> Result<Tensor> {
        let [input, gamma, beta] = inputs;
        let [n, c, h, w] = input.dims4(OP, "input")?;
        count(OP, input.len())?;
        let pixels = n * h * w;
        let p = LayerNormParameters {
            count: pixels as u32,
            channels: c as u32,
            pixels: (h * w) as u32,
            parts: pixels.div_ceil(SHARE).min(MOST_PARTS) as u32,
            epsilon,
        };
        let mut output = cuda.any(input.len())?;
        let mut moments = cuda.any(2 * pixels)?;
        // SAFETY: layer_norm_forward(input, gamma, beta, output, moments, LayerNormParameters):
        // blocks of 32 pixels cover `count`, by which the kernel guards its pixel; `channels`
        // values for each in input and output, two in `moments`; gamma and beta have `channels`.
        unsafe {
            Launch::new(&FORWARD)
                .grid([pixels.div_ceil(BLOCK[0] as usize), 1, 1])
                .block(BLOCK)
                .input(input.buffer())
                .input(gamma.buffer())
                .input(beta.buffer())
                .output(&mut output)
                .output(&mut moments)
                .parameters(&p)
                .enqueue(cuda)?;
        }
        let mut output = Tensor::from_device(output, input.shape());
        let saved = tape
            .needs_gradient(&inputs)
            .then(|| (cuda.clone(), input.clone(), gamma.clone()));
        tape.record(&mut output, &inputs, move |gradient| {
            let (cuda, input, gamma) = saved.expect("saved whenever recorded");
            let to_input = to_input(&cuda, [&input, &gamma, gradient], &moments, &p)?;
            let [to_gamma, to_beta] = to_channels(&cuda, [&input, gradient], &moments, &p)?;
            Ok(vec![Some(to_input), Some(to_gamma), Some(to_beta)])
        });
        Ok(output)
    }

    fn to_input(
        cuda: &Cuda,
        [input, gamma, gradient]: [&Tensor; 3],
        moments: &DeviceBuffer,
        p: &LayerNormParameters,
    ) -> Result<Tensor> {
        let mut result = cuda.any(input.len())?;
        // SAFETY: layer_norm_to_input(input, gamma, moments, gradient, result,
        // LayerNormParameters): as in the forward pass; gradient and result are like the input.
        unsafe {
            Launch::new(&TO_INPUT)
                .grid([p.count.div_ceil(BLOCK[0]) as usize, 1, 1])
                .block(BLOCK)
                .input(input.buffer())
                .input(gamma.buffer())
                .input(moments)
                .input(gradient.buffer())
                .output(&mut result)
                .parameters(p)
                .enqueue(cuda)?;
        }
        Ok(Tensor::from_device(result, input.shape()))
    }

    fn to_channels(
        cuda: &Cuda,
        [input, gradient]: [&Tensor; 2],
        moments: &DeviceBuffer,
        p: &LayerNormParameters,
    ) -> Result<[Tensor; 2]> {
        let (c, parts) = (p.channels as usize, p.parts as usize);
        let mut partial = cuda.any::<f64>(c * parts * 2)?;
        // SAFETY: layer_norm_sums(input, moments, gradient, partial, LayerNormParameters): `parts`
        // blocks for each channel, each with two sums; index guarded by `count`.
        unsafe {
            Launch::new(&SUMS)
                .grid([parts, c, 1])
                .input(input.buffer())
                .input(moments)
                .input(gradient.buffer())
                .output(&mut partial)
                .parameters(p)
                .enqueue(cuda)?;
        }
        let (mut to_gamma, mut to_beta) = (cuda.any(c)?, cuda.any(c)?);
        // SAFETY: layer_norm_totals(partial, to_gamma, to_beta, LayerNormParameters): one block
        // for each channel, a thread for each of at most 256 parts.
        unsafe {
            Launch::new(&TOTALS)
                .grid([c, 1, 1])
                .input(&partial)
                .output(&mut to_gamma)
                .output(&mut to_beta)
                .parameters(p)
                .enqueue(cuda)?;
        }
        Ok([to_gamma, to_beta].map(|buffer| Tensor::from_device(buffer, &[c])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradient, noise};

    #[test]
    fn two_channels_worked_by_hand() {
        // Pixel 1: 1 and 3, mean 2, sigma 1. Pixel 2: 0 and 4, mean 2, sigma 2.
        let x = Tensor::new(vec![1.0, 0.0, 3.0, 4.0], &[1, 2, 1, 2]).unwrap();
        let gamma = Tensor::new(vec![1.0, 10.0], &[2]).unwrap();
        let beta = Tensor::new(vec![0.0, 0.5], &[2]).unwrap();
        let y = layer_norm(&mut Tape::inference(), &x, &gamma, &beta, 0.0).unwrap();
        assert_close(y.data(), &[-1.0, -1.0, 10.5, 10.5], 1e-6);
    }

    #[test]
    fn gradient_matches_finite_differences() {
        let inputs = [noise(&[2, 5, 2, 3], 1), noise(&[5], 2), noise(&[5], 3)];
        check_gradient(&inputs, 5e-3, |tape, x| {
            layer_norm(tape, &x[0], &x[1], &x[2], 1e-5)
        });
    }

    #[test]
    fn wrong_shapes_are_refused() {
        let (x, good, bad) = (noise(&[1, 3, 2, 2], 1), noise(&[3], 2), noise(&[4], 3));
        let mut tape = Tape::inference();
        assert!(layer_norm(&mut tape, &x, &bad, &good, 1e-5).is_err());
        assert!(layer_norm(&mut tape, &x, &good, &bad, 1e-5).is_err());
    }
}
