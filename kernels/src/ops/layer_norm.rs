//! Layer norm over the channels of each pixel.

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
/// [`crate::Error::Shape`] when the shapes do not fit.
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
