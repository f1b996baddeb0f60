//! Two-dimensional convolution with padding by zeros, wrap-around or reflection, per axis.
//! Ground panoramas wrap around in azimuth but not in elevation.
//!
//! `plan` chooses the loop on the CPU: `depthwise`, `pointwise` (matrix products of the input as it
//! lies in memory) or `dense` (im2col, a panel at a time, with `weight_gradient`). `geometry` and
//! `padding` hold sizes and the padded image, `microkernel`, `panel`, `transpose` and `vector` the
//! inner loops. The GPU half is `cuda`.

pub(crate) mod cuda;
mod dense;
mod depthwise;
mod geometry;
mod microkernel;
mod padding;
mod panel;
mod plan;
mod pointwise;
#[cfg(test)]
mod tests;
mod transpose;
mod vector;
mod weight_gradient;

use crate::cuda::{Convolution, Cuda};
use crate::device::Device;
use crate::error::Result;
use crate::tape::Tape;
use crate::tensor::Tensor;
use crate::testing::Case;

pub(super) use geometry::Geometry;
use plan::{Strategy, plan};

/// What lies beyond the edge of an image along one axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pad {
    /// Zeros.
    Zero,
    /// The other side: a full panorama's columns.
    Circular,
    /// The image mirrored about its edge pixel, which is not repeated.
    Reflect,
}

/// How a convolution steps and pads. Columns are padded first, then rows, so a row of zero
/// padding is zero in its corners too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2d {
    /// Pixels between neighbouring outputs, along both axes.
    pub stride: usize,
    /// Pixels added at the [top, bottom, left, right].
    pub padding: [usize; 4],
    /// What the added rows hold.
    pub rows: Pad,
    /// What the added columns hold.
    pub columns: Pad,
    /// 1 for a dense convolution, the number of channels for a depthwise one.
    pub groups: usize,
}

/// Correlates `input` with `weight` (what deep learning calls convolution) and adds `bias`.
///
/// # Shapes
/// `input` `[N, C, H, W]`; `weight` `[O, C / groups, kh, kw]`; `bias` `[O]`; returns
/// `[N, O, (H + top + bottom - kh) / stride + 1, (W + left + right - kw) / stride + 1]`, rounded
/// down.
///
/// # Errors
/// [`crate::Error::Shape`] when the shapes do not fit or the kernel is larger than the padded
/// image; [`crate::Error::Argument`] for a stride or group count without meaning, or padding
/// that reflects or wraps further than the image reaches.
pub fn conv2d(
    tape: &mut Tape,
    input: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    options: &Conv2d,
) -> Result<Tensor> {
    let geometry = Geometry::new(input, weight, bias, options)?;
    let mut inputs = vec![input, weight];
    inputs.extend(bias);
    let mut output = match Device::common("conv2d", &inputs)? {
        Device::Cpu => {
            let bias = bias.map(Tensor::data);
            let data = forward(&geometry, input.data(), weight.data(), bias);
            Tensor::from_parts(data, &geometry.output_shape())
        }
        Device::Cuda(device) => {
            let bias = bias.map(Tensor::buffer);
            let (input, weight) = (input.buffer(), weight.buffer());
            let data = cuda::forward(&device, &geometry, input, weight, bias)?;
            Tensor::from_device(data, &geometry.output_shape())
        }
    };
    let saved = tape
        .needs_gradient(&inputs)
        .then(|| (input.clone(), weight.clone()));
    let bias_gradient = bias.map(Tensor::requires_gradient);
    tape.record(&mut output, &inputs, move |gradient| {
        let (input, weight) = saved.expect("saved whenever recorded");
        let mut gradients = match gradient.device() {
            Device::Cpu => backward(&geometry, &input, &weight, gradient),
            Device::Cuda(device) => {
                backward_on_cuda(&device, &geometry, &input, &weight, gradient)?
            }
        };
        if let Some(wanted) = bias_gradient {
            let found = wanted.then(|| to_bias(&geometry, gradient));
            gradients.push(found.transpose()?);
        }
        Ok(gradients)
    });
    Ok(output)
}

/// The gradients of input and weight, of each only where one is asked for.
fn backward(
    geometry: &Geometry,
    input: &Tensor,
    weight: &Tensor,
    gradient: &Tensor,
) -> Vec<Option<Tensor>> {
    vec![
        input.requires_gradient().then(|| {
            let found = input_gradient(geometry, weight.data(), gradient.data());
            Tensor::from_parts(found, input.shape())
        }),
        weight.requires_gradient().then(|| {
            let found = weight_gradient(geometry, input.data(), gradient.data());
            Tensor::from_parts(found, weight.shape())
        }),
    ]
}

fn backward_on_cuda(
    device: &Cuda,
    g: &Geometry,
    input: &Tensor,
    weight: &Tensor,
    gradient: &Tensor,
) -> Result<Vec<Option<Tensor>>> {
    let to_input = if input.requires_gradient() {
        let found = cuda::input_gradient(device, g, weight.buffer(), gradient.buffer())?;
        Some(Tensor::from_device(found, input.shape()))
    } else {
        None
    };
    let to_weight = if weight.requires_gradient() {
        let found = cuda::weight_gradient(device, g, input.buffer(), gradient.buffer())?;
        Some(Tensor::from_device(found, weight.shape()))
    } else {
        None
    };
    Ok(vec![to_input, to_weight])
}

/// The gradient of the bias.
fn to_bias(g: &Geometry, gradient: &Tensor) -> Result<Tensor> {
    Ok(match gradient.device() {
        Device::Cpu => {
            let sums = channel_sums(gradient.data(), g.outputs, g.output_pixels());
            Tensor::from_parts(sums, &[g.outputs])
        }
        Device::Cuda(device) => {
            let shape = [g.batch, g.outputs, g.output_pixels()];
            let sums = cuda::channel_sums(&device, gradient.buffer(), shape)?;
            Tensor::from_device(sums, &[g.outputs])
        }
    })
}

/// The convolution on the CPU.
pub(super) fn forward(
    geometry: &Geometry,
    input: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
) -> Vec<f32> {
    match plan(geometry) {
        Strategy::Depthwise => depthwise::forward(geometry, input, weight, bias),
        Strategy::Pointwise => pointwise::forward(geometry, input, weight, bias),
        Strategy::Dense => dense::forward(geometry, input, weight, bias),
    }
}

/// Its transpose, which takes the gradient of the output to that of the input.
pub(super) fn input_gradient(geometry: &Geometry, weight: &[f32], gradient: &[f32]) -> Vec<f32> {
    match plan(geometry) {
        Strategy::Depthwise => depthwise::input_gradient(geometry, weight, gradient),
        Strategy::Pointwise => pointwise::input_gradient(geometry, weight, gradient),
        Strategy::Dense => dense::input_gradient(geometry, weight, gradient),
    }
}

/// The gradient of the weight.
pub(super) fn weight_gradient(geometry: &Geometry, input: &[f32], gradient: &[f32]) -> Vec<f32> {
    match plan(geometry) {
        Strategy::Depthwise => depthwise::weight_gradient(geometry, input, gradient),
        Strategy::Pointwise => pointwise::weight_gradient(geometry, input, gradient),
        Strategy::Dense => weight_gradient::weight_gradient(geometry, input, gradient),
    }
}

/// Sum over samples and pixels of each channel: the gradient of a bias.
pub(super) fn channel_sums(images: &[f32], channels: usize, pixels: usize) -> Vec<f32> {
    let mut sums = vec![0.0; channels];
    for image in images.chunks_exact(channels * pixels) {
        for (sum, plane) in sums.iter_mut().zip(image.chunks_exact(pixels)) {
            *sum += crate::math::sum(plane);
        }
    }
    sums
}

/// What is run on every device.
pub(crate) fn cases() -> Vec<Case> {
    let zero = |padding, stride, groups| Conv2d {
        stride,
        padding,
        rows: Pad::Zero,
        columns: Pad::Zero,
        groups,
    };
    let round = |options| Conv2d {
        columns: Pad::Circular,
        ..options
    };
    let mirrored = |options| Conv2d {
        rows: Pad::Reflect,
        columns: Pad::Reflect,
        ..options
    };
    let case = |name: &str, shapes: &[&[usize]], options: Conv2d| {
        Case::new(name, shapes, move |tape, x| {
            conv2d(tape, &x[0], &x[1], x.get(2), &options)
        })
        // Sums of up to a few hundred products in another order.
        .tolerance(1e-5, 1e-5)
    };
    type Shapes = &'static [&'static [usize]];
    let dense: [(&str, Shapes, Conv2d); 5] = [
        (
            "3x3",
            &[&[2, 5, 9, 11], &[7, 5, 3, 3], &[7]],
            zero([1; 4], 1, 1),
        ),
        (
            "of several tiles",
            &[&[2, 9, 12, 13], &[70, 9, 3, 3], &[70]],
            zero([1; 4], 1, 1),
        ),
        (
            "stride 2, asymmetric",
            &[&[2, 3, 9, 10], &[8, 3, 3, 3]],
            zero([0, 1, 0, 1], 2, 1),
        ),
        (
            "round a panorama",
            &[&[2, 4, 6, 8], &[6, 4, 3, 3], &[6]],
            round(zero([1; 4], 1, 1)),
        ),
        (
            "mirrored",
            &[&[1, 4, 7, 6], &[6, 4, 5, 3]],
            mirrored(zero([2, 2, 1, 1], 1, 1)),
        ),
    ];
    let ways = [
        (Convolution::Implicit, "implicit"),
        (Convolution::Columns, "columns"),
        (Convolution::Window, "window"),
    ];
    let mut cases = Vec::new();
    for (name, shapes, options) in dense {
        for (way, way_name) in ways {
            // The input's gradient of several tiles sums 70 · 9 products of about 1/4: rounding 2⁻²⁴
            // each, on both sides.
            let backward = if name == "of several tiles" {
                2e-5
            } else {
                1e-5
            };
            let name = format!("conv2d {way_name}, {name}");
            let case = case(&name, shapes, options).tolerance(1e-5, backward);
            cases.push(case.convolution(way));
        }
    }
    // Columns in pieces: some samples, and some pixels of one.
    for room in [2 * 5 * 9 * 99, 5 * 9 * 30] {
        let name = format!("conv2d columns, {room} numbers at a time");
        let shapes: Shapes = &[&[3, 5, 9, 11], &[7, 5, 3, 3], &[7]];
        let case = case(&name, shapes, zero([1; 4], 1, 1));
        cases.push(case.convolution(Convolution::Columns).column_room(room));
    }
    // More strips than the blocks of a part take at once.
    let shapes: Shapes = &[&[2, 3, 60, 70], &[2, 3, 3, 3]];
    cases.push(
        case("conv2d window, in parts", shapes, zero([1; 4], 1, 1))
            // The weight's gradient sums 8400 products.
            .tolerance(1e-5, 4e-5)
            .convolution(Convolution::Window),
    );
    let depthwise: [(&str, Shapes, Conv2d); 7] = [
        ("3", &[&[2, 6, 9, 8], &[6, 1, 3, 3]], zero([1; 4], 1, 6)),
        (
            "3, stride 2",
            &[&[2, 2, 9, 10], &[2, 1, 3, 3]],
            zero([0, 1, 0, 1], 2, 2),
        ),
        (
            "5, with a bias",
            &[&[2, 3, 6, 7], &[3, 1, 5, 5], &[3]],
            zero([2; 4], 1, 3),
        ),
        (
            "5, stride 2, round",
            &[&[2, 3, 10, 12], &[3, 1, 5, 5], &[3]],
            round(zero([1, 2, 1, 2], 2, 3)),
        ),
        (
            "3, mirrored",
            &[&[1, 2, 5, 6], &[2, 1, 3, 3]],
            mirrored(zero([1; 4], 1, 2)),
        ),
        (
            "3 by 5",
            &[&[1, 2, 5, 6], &[2, 1, 3, 5]],
            zero([1, 1, 2, 2], 1, 2),
        ),
        (
            "3, in parts",
            &[&[3, 2, 50, 60], &[2, 1, 3, 3]],
            zero([1; 4], 1, 2),
        ),
    ];
    for (name, shapes, options) in depthwise {
        let name = format!("conv2d depthwise {name}");
        cases.push(case(&name, shapes, options));
        if name.ends_with("3, stride 2") {
            let tables = case(&format!("{name}, by tables"), shapes, options);
            cases.push(tables.convolution(Convolution::Implicit));
        }
    }
    cases.extend([
        case(
            "conv2d 1x1",
            &[&[3, 7, 5, 6], &[9, 7, 1, 1], &[9]],
            zero([0; 4], 1, 1),
        ),
        case(
            "conv2d 1x1 of many pixels",
            &[&[2, 3, 70, 61], &[2, 3, 1, 1]],
            zero([0; 4], 1, 1),
        )
        // The weight's gradient sums 8540 products.
        .tolerance(1e-5, 2e-5),
        case(
            "conv2d 1x1 of more samples than parts",
            &[&[5, 3, 24, 25], &[2, 3, 1, 1]],
            zero([0; 4], 1, 1),
        ),
        case(
            "conv2d in two groups",
            &[&[2, 6, 5, 7], &[8, 3, 3, 3], &[8]],
            zero([1; 4], 1, 2),
        )
        .convolution(Convolution::Implicit),
    ]);
    cases
}
