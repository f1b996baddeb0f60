//! Transposed convolution that doubles an image: every pixel becomes a 2 × 2 square.

use crate::error::Result;
use crate::gemm::{Strides, gemm};
use crate::math::sum;
use crate::tape::Tape;
use crate::tensor::Tensor;
use rayon::prelude::*;

#[derive(Clone, Copy)]
struct Sizes {
    channels: usize,
    outputs: usize,
    height: usize,
    width: usize,
}

/// output(o, 2y + i, 2x + j) = bias(o) + Σ over c of input(c, y, x) · weight(c, o, i, j).
///
/// # Shapes
/// `input` `[N, C, H, W]`; `weight` `[C, O, 2, 2]`; `bias` `[O]`; returns `[N, O, 2H, 2W]`.
///
/// # Errors
/// [`crate::Error::Shape`] when the shapes do not fit.
pub fn conv_transpose2x2(
    tape: &mut Tape,
    input: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
) -> Result<Tensor> {
    const OP: &str = "conv_transpose2x2";
    let [batch, channels, height, width] = input.dims4(OP, "input")?;
    let [_, outputs, ..] = weight.dims4(OP, "weight")?;
    weight.expect_shape(OP, "weight for this input", &[channels, outputs, 2, 2])?;
    bias.expect_shape(OP, "bias", &[outputs])?;
    let sizes = Sizes {
        channels,
        outputs,
        height,
        width,
    };
    let data = forward(sizes, batch, input.data(), weight.data(), bias.data());
    let mut output = Tensor::from_parts(data, &[batch, outputs, 2 * height, 2 * width]);
    let inputs = [input, weight, bias];
    let saved = tape
        .needs_gradient(&inputs)
        .then(|| (input.clone(), weight.clone()));
    tape.record(&mut output, &inputs, move |gradient| {
        let (input, weight) = saved.expect("saved whenever recorded");
        let [input_gradient, weight_gradient, bias_gradient] =
            backward(sizes, input.data(), weight.data(), gradient.data());
        Ok(vec![
            Some(Tensor::from_parts(input_gradient, input.shape())),
            Some(Tensor::from_parts(weight_gradient, weight.shape())),
            Some(Tensor::from_parts(bias_gradient, &[outputs])),
        ])
    });
    Ok(output)
}

fn forward(s: Sizes, batch: usize, input: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
    let pixels = s.height * s.width;
    let mut output = vec![0.0; batch * s.outputs * 4 * pixels];
    output
        .par_chunks_exact_mut(s.outputs * 4 * pixels)
        .zip(input.par_chunks_exact(s.channels * pixels))
        .for_each(|(output, image)| {
            // [(output, i, j), pixel]
            let mut quarters = vec![0.0; s.outputs * 4 * pixels];
            gemm(
                [s.outputs * 4, pixels, s.channels],
                &mut quarters,
                false,
                (weight, Strides::transposed(s.outputs * 4)),
                (image, Strides::row_major(pixels)),
            );
            let planes = output.chunks_exact_mut(4 * pixels).zip(bias);
            for ((plane, bias), quarters) in planes.zip(quarters.chunks_exact(4 * pixels)) {
                for (row, output) in plane.chunks_exact_mut(2 * s.width).enumerate() {
                    let from = (row % 2 * 2 * s.height + row / 2) * s.width;
                    let even = &quarters[from..][..s.width];
                    let odd = &quarters[from + pixels..][..s.width];
                    for (pair, (even, odd)) in output.chunks_exact_mut(2).zip(even.iter().zip(odd))
                    {
                        pair[0] = even + bias;
                        pair[1] = odd + bias;
                    }
                }
            }
        });
    output
}

/// Gradients of input, weight and bias.
fn backward(s: Sizes, input: &[f32], weight: &[f32], gradient: &[f32]) -> [Vec<f32>; 3] {
    let pixels = s.height * s.width;
    let mut input_gradient = vec![0.0; input.len()];
    // One partial sum for each sample, added in sample order: the same bits on any thread count.
    let parts: Vec<(Vec<f32>, Vec<f32>)> = input_gradient
        .par_chunks_exact_mut(s.channels * pixels)
        .zip(input.par_chunks_exact(s.channels * pixels))
        .zip(gradient.par_chunks_exact(s.outputs * 4 * pixels))
        .map(|((input_gradient, image), gradient)| {
            let mut quarters = vec![0.0; s.outputs * 4 * pixels];
            let planes = gradient.chunks_exact(4 * pixels);
            for (plane, quarters) in planes.zip(quarters.chunks_exact_mut(4 * pixels)) {
                for (row, gradient) in plane.chunks_exact(2 * s.width).enumerate() {
                    let to = (row % 2 * 2 * s.height + row / 2) * s.width;
                    let (evens, odds) = quarters[to..].split_at_mut(pixels);
                    let pairs = gradient.chunks_exact(2);
                    for ((even, odd), pair) in evens.iter_mut().zip(odds).zip(pairs) {
                        *even = pair[0];
                        *odd = pair[1];
                    }
                }
            }
            gemm(
                [s.channels, pixels, s.outputs * 4],
                input_gradient,
                false,
                (weight, Strides::row_major(s.outputs * 4)),
                (&quarters, Strides::row_major(pixels)),
            );
            let mut weight_part = vec![0.0; weight.len()];
            gemm(
                [s.channels, s.outputs * 4, pixels],
                &mut weight_part,
                false,
                (image, Strides::row_major(pixels)),
                (&quarters, Strides::transposed(pixels)),
            );
            (
                weight_part,
                gradient.chunks_exact(4 * pixels).map(sum).collect(),
            )
        })
        .collect();
    let mut weight_gradient = vec![0.0; weight.len()];
    let mut bias_gradient = vec![0.0; s.outputs];
    for (weight_part, bias_part) in &parts {
        crate::math::add_assign(&mut weight_gradient, weight_part);
        crate::math::add_assign(&mut bias_gradient, bias_part);
    }
    [input_gradient, weight_gradient, bias_gradient]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradient, noise};

    #[test]
    fn each_pixel_becomes_its_weighted_square() {
        let x = Tensor::new(vec![1.0, 2.0, 10.0, 0.0], &[1, 2, 1, 2]).unwrap();
        let w = Tensor::new(vec![1., 2., 3., 4., 0., 0., 0., 1.], &[2, 1, 2, 2]).unwrap();
        let b = Tensor::new(vec![0.5], &[1]).unwrap();
        let y = conv_transpose2x2(&mut Tape::inference(), &x, &w, &b).unwrap();
        assert_eq!(y.shape(), [1, 1, 2, 4]);
        assert_eq!(y.data(), [1.5, 2.5, 2.5, 4.5, 3.5, 14.5, 6.5, 8.5]);
    }

    #[test]
    fn gradient_matches_finite_differences() {
        let inputs = [
            noise(&[2, 3, 3, 4], 1),
            noise(&[3, 2, 2, 2], 2),
            noise(&[2], 3),
        ];
        check_gradient(&inputs, 3e-3, |tape, i| {
            conv_transpose2x2(tape, &i[0], &i[1], &i[2])
        });
    }

    #[test]
    fn wrong_shapes_are_refused() {
        let mut tape = Tape::inference();
        let (x, b) = (noise(&[1, 3, 2, 2], 1), noise(&[2], 3));
        let error = conv_transpose2x2(&mut tape, &x, &noise(&[4, 2, 2, 2], 2), &b);
        let message = error.unwrap_err().to_string();
        assert!(
            message.contains("[3, 2, 2, 2]") && message.contains("[4, 2, 2, 2]"),
            "{message}"
        );
        let empty = Tensor::zeros(&[0, 3, 2, 2]);
        assert!(conv_transpose2x2(&mut tape, &empty, &noise(&[3, 2, 2, 2], 2), &b).is_err());
    }
}
