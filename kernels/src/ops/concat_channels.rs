//! Joins image batches along their channels: decoder features beside skip features.

use crate::buffer;
use crate::error::{Error, Result};
use crate::tape::Tape;
use crate::tensor::Tensor;

/// The channels of every input, one input after the other.
///
/// # Shapes
/// `inputs` `[N, Cᵢ, H, W]`; returns `[N, ΣCᵢ, H, W]`.
///
/// # Errors
/// [`Error::Argument`] without inputs; [`Error::Shape`] when N, H or W differ.
pub fn concat_channels(tape: &mut Tape, inputs: &[&Tensor]) -> Result<Tensor> {
    const OP: &str = "concat_channels";
    let Some(first) = inputs.first() else {
        return Err(Error::argument(
            OP,
            "nothing to join; give at least one input",
        ));
    };
    let [batch, _, height, width] = first.dims4(OP, "first input")?;
    let mut spans = Vec::with_capacity(inputs.len());
    let mut channels = 0;
    for input in inputs {
        let [_, here, ..] = input.dims4(OP, "input")?;
        input.expect_shape(OP, "input", &[batch, here, height, width])?;
        channels += here;
        spans.push(here * height * width);
    }
    let mut data = buffer::empty(batch * channels * height * width);
    for sample in 0..batch {
        for (input, span) in inputs.iter().zip(&spans) {
            data.extend_from_slice(&input.data()[sample * span..][..*span]);
        }
    }
    let mut output = Tensor::from_parts(data, &[batch, channels, height, width]);
    tape.record(&mut output, inputs, move |gradient| {
        let mut parts: Vec<Vec<f32>> = spans
            .iter()
            .map(|span| buffer::empty(batch * span))
            .collect();
        let mut rest = gradient.data();
        for _ in 0..batch {
            for (part, span) in parts.iter_mut().zip(&spans) {
                part.extend_from_slice(&rest[..*span]);
                rest = &rest[*span..];
            }
        }
        Ok(parts
            .into_iter()
            .zip(&spans)
            .map(|(part, span)| {
                let shape = [batch, span / (height * width), height, width];
                Some(Tensor::from_parts(part, &shape))
            })
            .collect())
    });
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradient, noise};

    #[test]
    fn channels_follow_each_other_within_a_sample() {
        let a = Tensor::new(vec![1.0, 2.0], &[2, 1, 1, 1]).unwrap();
        let b = Tensor::new(vec![3.0, 4.0, 5.0, 6.0], &[2, 2, 1, 1]).unwrap();
        let y = concat_channels(&mut Tape::inference(), &[&a, &b]).unwrap();
        assert_eq!(y.shape(), [2, 3, 1, 1]);
        assert_eq!(y.data(), [1.0, 3.0, 4.0, 2.0, 5.0, 6.0]);
    }

    #[test]
    fn gradient_matches_finite_differences() {
        let inputs = [noise(&[2, 1, 2, 2], 1), noise(&[2, 3, 2, 2], 2)];
        check_gradient(&inputs, 2e-3, |tape, inputs| {
            concat_channels(tape, &[&inputs[0], &inputs[1], &inputs[0]])
        });
    }

    #[test]
    fn different_sizes_are_refused() {
        let mut tape = Tape::inference();
        let (a, b) = (noise(&[1, 2, 4, 4], 1), noise(&[1, 3, 2, 4], 2));
        let message = concat_channels(&mut tape, &[&a, &b])
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("[1, 3, 4, 4]") && message.contains("[1, 3, 2, 4]"),
            "{message}"
        );
        assert!(concat_channels(&mut tape, &[]).is_err());
    }
}
