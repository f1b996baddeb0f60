//! Transposed convolution that doubles an image: every pixel becomes a 2 × 2 square.
//!
//! It is the transpose of the 2 × 2 convolution with stride 2, so that one's gradients serve here
//! with their roles exchanged.

use super::conv2d::{self, Conv2d, Geometry, Pad};
use crate::error::Result;
use crate::tape::Tape;
use crate::tensor::Tensor;

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
    let shape = [batch, outputs, 2 * height, 2 * width];
    let halving = Geometry::of_shapes(
        shape,
        weight.dims4(OP, "weight")?,
        &Conv2d {
            stride: 2,
            padding: [0; 4],
            rows: Pad::Zero,
            columns: Pad::Zero,
            groups: 1,
        },
    )?;
    let mut data = conv2d::input_gradient(&halving, weight.data(), input.data());
    let planes = data.chunks_exact_mut(4 * height * width);
    for (plane, bias) in planes.zip(bias.data().iter().cycle()) {
        for value in plane {
            *value += bias;
        }
    }
    let mut output = Tensor::from_parts(data, &shape);
    let inputs = [input, weight, bias];
    let saved = tape
        .needs_gradient(&inputs)
        .then(|| (input.clone(), weight.clone()));
    tape.record(&mut output, &inputs, move |gradient| {
        let (input, weight) = saved.expect("saved whenever recorded");
        let gradient = gradient.data();
        let of_input = conv2d::forward(&halving, gradient, weight.data(), None);
        let of_weight = conv2d::weight_gradient(&halving, gradient, input.data());
        let of_bias = conv2d::channel_sums(gradient, outputs, 4 * height * width);
        Ok(vec![
            Some(Tensor::from_parts(of_input, input.shape())),
            Some(Tensor::from_parts(of_weight, weight.shape())),
            Some(Tensor::from_parts(of_bias, &[outputs])),
        ])
    });
    Ok(output)
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
