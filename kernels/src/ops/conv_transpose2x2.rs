//! Transposed convolution that doubles an image: every pixel becomes a 2 × 2 square.
//!
//! It is the transpose of the 2 × 2 convolution with stride 2, so that one's gradients serve here
//! with their roles exchanged.

use super::conv2d::{self, Conv2d, Geometry, Pad};
use crate::cuda::{Cuda, DeviceBuffer, Kernel, Launch, Matrix, Product, Source};
use crate::cuda::{count, parameters};
use crate::device::Device;
use crate::error::Result;
use crate::tape::Tape;
use crate::tensor::Tensor;

const OP: &str = "conv_transpose2x2";

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
    let inputs = [input, weight, bias];
    match Device::common(OP, &inputs)? {
        Device::Cpu => Ok(on_cpu(tape, inputs, halving, shape)),
        Device::Cuda(cuda) => on_cuda(tape, &cuda, inputs, shape),
    }
}

fn on_cpu(
    tape: &mut Tape,
    inputs @ [input, weight, bias]: [&Tensor; 3],
    halving: Geometry,
    shape: [usize; 4],
) -> Tensor {
    let pixels = shape[2] * shape[3];
    let mut data = conv2d::input_gradient(&halving, weight.data(), input.data());
    let planes = data.chunks_exact_mut(pixels);
    for (plane, bias) in planes.zip(bias.data().iter().cycle()) {
        for value in plane {
            *value += bias;
        }
    }
    let mut output = Tensor::from_parts(data, &shape);
    let saved = tape
        .needs_gradient(&inputs)
        .then(|| (input.clone(), weight.clone()));
    let bias_gradient = bias.requires_gradient();
    tape.record(&mut output, &inputs, move |gradient| {
        let (input, weight) = saved.expect("saved whenever recorded");
        let gradient = gradient.data();
        Ok(vec![
            input.requires_gradient().then(|| {
                let found = conv2d::forward(&halving, gradient, weight.data(), None);
                Tensor::from_parts(found, input.shape())
            }),
            weight.requires_gradient().then(|| {
                let found = conv2d::weight_gradient(&halving, gradient, input.data());
                Tensor::from_parts(found, weight.shape())
            }),
            bias_gradient.then(|| {
                let found = conv2d::channel_sums(gradient, shape[1], pixels);
                Tensor::from_parts(found, &[shape[1]])
            }),
        ])
    });
    output
}

pub(crate) static SOURCE: Source = Source {
    name: "ops/conv_transpose2x2.cu",
    text: include_str!("conv_transpose2x2.cu"),
    hot: &["conv_transpose2x2_spread", "conv_transpose2x2_gather"],
};
static SPREAD: Kernel = Kernel {
    source: &SOURCE,
    entry: "conv_transpose2x2_spread",
};
static GATHER: Kernel = Kernel {
    source: &SOURCE,
    entry: "conv_transpose2x2_gather",
};

parameters! {
    struct SquareParameters {
        count: u32,
        outputs: u32,
        height: u32,
        width: u32,
    }
}

/// As products of matrices: weight `[C, 4 O]` against images `[C, H W]`, and a copy that puts the
/// four numbers of each pixel and output channel into their square.
fn on_cuda(
    tape: &mut Tape,
    cuda: &Cuda,
    inputs @ [input, weight, bias]: [&Tensor; 3],
    shape: [usize; 4],
) -> Result<Tensor> {
    let [n, outputs, height, width] = shape;
    let (channels, pixels, rows) = (input.shape()[1], height * width / 4, 4 * outputs);
    let mut spread = cuda.any(n * rows * pixels)?;
    let image = Matrix::row_major(input.buffer(), pixels).batched(channels * pixels);
    let transposed = Matrix::transposed(weight.buffer(), rows);
    Product::new([rows, pixels, channels], transposed, image)
        .batch(n)
        .enqueue(&mut spread)?;
    let data = square(cuda, &SPREAD, &spread, Some(bias.buffer()), shape)?;
    let mut output = Tensor::from_device(data, &shape);
    let saved = tape
        .needs_gradient(&inputs)
        .then(|| (cuda.clone(), input.clone(), weight.clone()));
    let bias_gradient = bias.requires_gradient();
    tape.record(&mut output, &inputs, move |gradient| {
        let (cuda, input, weight) = saved.expect("saved whenever recorded");
        let gathered = square(&cuda, &GATHER, gradient.buffer(), None, shape)?;
        let mut found = vec![None, None, None];
        if input.requires_gradient() {
            let of_output = Matrix::row_major(&gathered, pixels).batched(rows * pixels);
            let mut of_input = cuda.any(input.len())?;
            let factor = Matrix::row_major(weight.buffer(), rows);
            Product::new([channels, pixels, rows], factor, of_output)
                .batch(n)
                .enqueue(&mut of_input)?;
            found[0] = Some(Tensor::from_device(of_input, input.shape()));
        }
        if weight.requires_gradient() {
            let mut of_weight = cuda.any(weight.len())?;
            conv2d::cuda::Sum::new(&cuda, [channels, rows], n, pixels).of_images(
                &cuda,
                input.buffer(),
                &gathered,
                &mut of_weight,
            )?;
            found[1] = Some(Tensor::from_device(of_weight, weight.shape()));
        }
        if bias_gradient {
            let sums = [n, outputs, height * width];
            let of_bias = conv2d::cuda::channel_sums(&cuda, gradient.buffer(), sums)?;
            found[2] = Some(Tensor::from_device(of_bias, &[outputs]));
        }
        Ok(found)
    });
    Ok(output)
}

/// Between `[N, O, 2, 2, H, W]` and `[N, O, 2 H, 2 W]`, whose shape is given.
fn square(
    cuda: &Cuda,
    kernel: &'static Kernel,
    from: &DeviceBuffer,
    bias: Option<&DeviceBuffer>,
    [n, outputs, height, width]: [usize; 4],
) -> Result<DeviceBuffer> {
    let parameters = SquareParameters {
        count: count(OP, n * outputs * height * width)?,
        outputs: outputs as u32,
        height: height as u32,
        width: width as u32,
    };
    assert_eq!(from.len(), n * outputs * height * width, "another size");
    let mut to = cuda.any(from.len())?;
    let launch = Launch::new(kernel).over(from.len());
    // SAFETY: conv_transpose2x2_*(from, bias or null, to, SquareParameters): both have `count`
    // elements, by which the kernel guards its index; there is a bias for each output channel.
    unsafe {
        launch
            .input(from)
            .input_or_null(bias)
            .output(&mut to)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    Ok(to)
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
