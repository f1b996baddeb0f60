//! Squeeze and excitation: each channel is scaled by a gate computed from the means of all channels.

mod on_cuda;

use super::{global_mean_pool, linear, sigmoid, silu};
use crate::buffer;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tape::Tape;
use crate::tensor::Tensor;

const OP: &str = "squeeze_excite";

/// Multiplies each channel by sigmoid(expand(silu(reduce(mean over the image)))).
///
/// # Shapes
/// `input` `[N, C, H, W]`, as is the result; `reduce_weight` `[S, C]`; `reduce_bias` `[S]`;
/// `expand_weight` `[C, S]`; `expand_bias` `[C]`.
///
/// # Errors
/// [`Error::Shape`] when the shapes do not fit.
///
/// # Source
/// Squeeze-and-Excitation Networks (Hu et al. 2018), with the `SiLU` of `EfficientNet`.
pub fn squeeze_excite(
    tape: &mut Tape,
    input: &Tensor,
    reduce_weight: &Tensor,
    reduce_bias: &Tensor,
    expand_weight: &Tensor,
    expand_bias: &Tensor,
) -> Result<Tensor> {
    let [_, channels, ..] = input.dims4(OP, "input")?;
    let [_, hidden] = expand_weight.dims2(OP, "expand weight")?;
    if expand_weight.shape().first() != Some(&channels) {
        return Err(Error::shape(
            OP,
            "expand weight",
            format!("[{channels}, S]"),
            expand_weight.shape(),
        ));
    }
    reduce_weight.expect_shape(OP, "reduce weight", &[hidden, channels])?;
    reduce_bias.expect_shape(OP, "reduce bias", &[hidden])?;
    expand_bias.expect_shape(OP, "expand bias", &[channels])?;
    let layers = [reduce_weight, reduce_bias, expand_weight, expand_bias];
    let everything = [
        input,
        reduce_weight,
        reduce_bias,
        expand_weight,
        expand_bias,
    ];
    if let Device::Cuda(cuda) = Device::common(OP, &everything)? {
        return on_cuda::squeeze_excite(tape, &cuda, input, layers);
    }
    let mean = global_mean_pool(tape, input)?;
    let squeezed = linear(tape, &mean, reduce_weight, reduce_bias)?;
    let squeezed = silu(tape, &squeezed)?;
    let excited = linear(tape, &squeezed, expand_weight, expand_bias)?;
    let gate = sigmoid(tape, &excited)?;
    multiply_channels(tape, input, &gate)
}

/// Multiplies each channel of `input` `[N, C, H, W]` by its number in `gate` `[N, C]`, on the
/// processor.
fn multiply_channels(tape: &mut Tape, input: &Tensor, gate: &Tensor) -> Result<Tensor> {
    let [n, c, h, w] = input.dims4(OP, "input")?;
    let inputs = [input, gate];
    let mut output = scaled_planes(input, gate, h * w);
    let saved = tape
        .needs_gradient(&inputs)
        .then(|| (input.clone(), gate.clone()));
    tape.record(&mut output, &inputs, move |gradient| {
        let (input, gate) = saved.expect("saved whenever recorded");
        let planes = input.data().chunks_exact(h * w);
        let gate_gradient = planes
            .zip(gradient.data().chunks_exact(h * w))
            .map(|(x, g)| x.iter().zip(g).map(|(x, g)| x * g).sum())
            .collect();
        Ok(vec![
            Some(scaled_planes(gradient, &gate, h * w)),
            Some(Tensor::from_parts(gate_gradient, &[n, c])),
        ])
    });
    Ok(output)
}

fn scaled_planes(image: &Tensor, factors: &Tensor, pixels: usize) -> Tensor {
    let mut data = buffer::empty(image.len());
    for (plane, factor) in image.data().chunks_exact(pixels).zip(factors.data()) {
        data.extend(plane.iter().map(|value| value * factor));
    }
    Tensor::from_parts(data, image.shape())
}

pub(crate) use on_cuda::SOURCE;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradient, noise};

    #[test]
    fn worked_by_hand() {
        // Mean 2; reduce 0.5 · 2 = 1; silu(1) = 0.7310586; gates sigmoid(0.7310586 · [1, 0] + [0, 0]).
        let x = Tensor::new(vec![1.0, 3.0, 2.0, 2.0], &[1, 2, 1, 2]).unwrap();
        let reduce = Tensor::new(vec![0.5, 0.0], &[1, 2]).unwrap();
        let expand = Tensor::new(vec![1.0, 0.0], &[2, 1]).unwrap();
        let (b1, b2) = (Tensor::zeros(&[1]), Tensor::zeros(&[2]));
        let y = squeeze_excite(&mut Tape::inference(), &x, &reduce, &b1, &expand, &b2).unwrap();
        let gate = 1.0 / (1.0 + (-0.731_058_6f32).exp());
        assert_close(y.data(), &[gate, 3.0 * gate, 1.0, 1.0], 1e-6);
    }

    #[test]
    fn gradient_matches_finite_differences() {
        let inputs = [
            noise(&[2, 4, 3, 2], 1),
            noise(&[3, 4], 2),
            noise(&[3], 3),
            noise(&[4, 3], 4),
            noise(&[4], 5),
        ];
        check_gradient(&inputs, 3e-3, |tape, i| {
            squeeze_excite(tape, &i[0], &i[1], &i[2], &i[3], &i[4])
        });
    }

    #[test]
    fn wrong_shapes_are_refused() {
        let mut tape = Tape::inference();
        let (x, b) = (noise(&[2, 4, 3, 2], 1), noise(&[3], 3));
        let (reduce, expand) = (noise(&[3, 4], 2), noise(&[5, 3], 4));
        let error = squeeze_excite(&mut tape, &x, &reduce, &b, &expand, &noise(&[5], 5));
        let message = error.unwrap_err().to_string();
        assert!(
            message.contains("[4, S]") && message.contains("[5, 3]"),
            "{message}"
        );
    }
}
