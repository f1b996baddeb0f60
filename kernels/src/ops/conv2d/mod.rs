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

use crate::cuda::Cuda;
use crate::device::Device;
use crate::error::Result;
use crate::tape::Tape;
use crate::tensor::Tensor;

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
