//! Squeeze and excitation: each channel is weighted by what the whole image shows.

use super::{global_mean_pool, linear, sigmoid, silu};
use crate::buffer;
use crate::cuda::{Cuda, Kernel, Launch, Source, count, parameters};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tape::Tape;
use crate::tensor::Tensor;
use crate::testing::Case;

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
    let [_, channels, ..] = input.dims4("squeeze_excite", "input")?;
    if expand_weight.shape().first() != Some(&channels) {
        return Err(Error::shape(
            "squeeze_excite",
            "expand weight",
            format!("[{channels}, S]"),
            expand_weight.shape(),
        ));
    }
    let mean = global_mean_pool(tape, input)?;
    let squeezed = linear(tape, &mean, reduce_weight, reduce_bias)?;
    let squeezed = silu(tape, &squeezed)?;
    let excited = linear(tape, &squeezed, expand_weight, expand_bias)?;
    let gate = sigmoid(tape, &excited)?;
    multiply_channels(tape, input, &gate)
}

/// Multiplies each channel of `input` `[N, C, H, W]` by its number in `gate` `[N, C]`.
fn multiply_channels(tape: &mut Tape, input: &Tensor, gate: &Tensor) -> Result<Tensor> {
    let [n, c, h, w] = input.dims4("squeeze_excite", "input")?;
    gate.expect_shape("squeeze_excite", "gate", &[n, c])?;
    let inputs = [input, gate];
    let shape = [n, c, h, w];
    let mut output = match Device::common("squeeze_excite", &inputs)? {
        Device::Cpu => scaled_planes(input, gate, h * w),
        Device::Cuda(cuda) => scaled_on_cuda(&cuda, input, gate, shape)?,
    };
    let saved = tape
        .needs_gradient(&inputs)
        .then(|| (input.clone(), gate.clone()));
    tape.record(&mut output, &inputs, move |gradient| {
        let (input, gate) = saved.expect("saved whenever recorded");
        if let Device::Cuda(cuda) = gradient.device() {
            return Ok(vec![
                Some(scaled_on_cuda(&cuda, gradient, &gate, shape)?),
                Some(products_on_cuda(&cuda, &input, gradient, shape)?),
            ]);
        }
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

pub(crate) static SOURCE: Source = Source {
    name: "ops/squeeze_excite.cu",
    text: include_str!("squeeze_excite.cu"),
    hot: &["squeeze_excite_scale", "squeeze_excite_products"],
};
static SCALE: Kernel = Kernel {
    source: &SOURCE,
    entry: "squeeze_excite_scale",
};
static PRODUCTS: Kernel = Kernel {
    source: &SOURCE,
    entry: "squeeze_excite_products",
};

parameters! {
    struct PlaneParameters {
        count: u32,
        pixels: u32,
    }
}

fn plane_parameters([n, c, h, w]: [usize; 4]) -> Result<PlaneParameters> {
    Ok(PlaneParameters {
        count: count("squeeze_excite", n * c * h * w)?,
        pixels: (h * w) as u32,
    })
}

fn scaled_on_cuda(
    cuda: &Cuda,
    image: &Tensor,
    factors: &Tensor,
    shape: [usize; 4],
) -> Result<Tensor> {
    let parameters = plane_parameters(shape)?;
    let mut output = cuda.any(image.len())?;
    let launch = Launch::new(&SCALE).over(image.len());
    // SAFETY: squeeze_excite_scale(image, factors, output, PlaneParameters): both images have
    // `count` elements, by which the kernel guards its index, `pixels` for each factor.
    unsafe {
        launch
            .input(image.buffer())
            .input(factors.buffer())
            .output(&mut output)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    Ok(Tensor::from_device(output, &shape))
}

/// The sum of a · b over each plane.
fn products_on_cuda(cuda: &Cuda, a: &Tensor, b: &Tensor, shape: [usize; 4]) -> Result<Tensor> {
    let parameters = plane_parameters(shape)?;
    let [n, c, ..] = shape;
    let mut sums = cuda.any(n * c)?;
    // SAFETY: squeeze_excite_products(a, b, sums, PlaneParameters): one block for each plane of
    // `pixels` elements, as many as there are sums.
    unsafe {
        Launch::new(&PRODUCTS)
            .grid([n * c, 1, 1])
            .input(a.buffer())
            .input(b.buffer())
            .output(&mut sums)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    Ok(Tensor::from_device(sums, &[n, c]))
}

/// What is run on every device.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "squeeze_excite",
            &[&[2, 6, 9, 10], &[3, 6], &[3], &[6, 3], &[6]],
            |tape, x| squeeze_excite(tape, &x[0], &x[1], &x[2], &x[3], &x[4]),
        )
        // Sums over a plane in another order.
        .tolerance(2e-6, 2e-5),
    ]
}

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
