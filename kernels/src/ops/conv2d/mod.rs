//! Two-dimensional convolution with padding by zeros, wrap-around or reflection, per axis.
//! Ground panoramas wrap around in azimuth but not in elevation.

mod dense;
mod depthwise;
mod geometry;
mod panel;
#[cfg(test)]
mod tests;
mod tile;

use crate::error::Result;
use crate::tape::Tape;
use crate::tensor::Tensor;

pub(super) use geometry::Geometry;

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
    let data = forward(
        &geometry,
        input.data(),
        weight.data(),
        bias.map(Tensor::data),
    );
    let mut output = Tensor::from_parts(data, &geometry.output_shape());

    let mut inputs = vec![input, weight];
    inputs.extend(bias);
    let saved = tape
        .needs_gradient(&inputs)
        .then(|| (input.clone(), weight.clone()));
    let with_bias = bias.is_some();
    tape.record(&mut output, &inputs, move |gradient| {
        let (input, weight) = saved.expect("saved whenever recorded");
        let found = weight_gradient(&geometry, input.data(), gradient.data());
        let mut gradients = vec![
            input.requires_gradient().then(|| {
                let found = input_gradient(&geometry, weight.data(), gradient.data());
                Tensor::from_parts(found, input.shape())
            }),
            Some(Tensor::from_parts(found, weight.shape())),
        ];
        if with_bias {
            let found = channel_sums(gradient.data(), geometry.outputs, geometry.output_pixels());
            gradients.push(Some(Tensor::from_parts(found, &[geometry.outputs])));
        }
        Ok(gradients)
    });
    Ok(output)
}

/// The convolution itself.
pub(super) fn forward(
    geometry: &Geometry,
    input: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
) -> Vec<f32> {
    if depthwise::fits(geometry) {
        depthwise::forward(geometry, input, weight, bias)
    } else {
        dense::forward(geometry, input, weight, bias)
    }
}

/// Its transpose, which takes the gradient of the output to that of the input.
pub(super) fn input_gradient(geometry: &Geometry, weight: &[f32], gradient: &[f32]) -> Vec<f32> {
    if depthwise::fits(geometry) {
        depthwise::input_gradient(geometry, weight, gradient)
    } else {
        dense::input_gradient(geometry, weight, gradient)
    }
}

/// The gradient of the weight.
pub(super) fn weight_gradient(geometry: &Geometry, input: &[f32], gradient: &[f32]) -> Vec<f32> {
    if depthwise::fits(geometry) {
        depthwise::weight_gradient(geometry, input, gradient)
    } else {
        dense::weight_gradient(geometry, input, gradient)
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
