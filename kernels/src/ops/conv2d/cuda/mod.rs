//! The GPU side of the convolutions. 1 × 1 convolutions are matrix products. Dense ones are computed in
//! one of three ways: sliding windows ([`window`]), a matrix product of im2col columns in memory
//! ([`columns`]), or one that reads the image in place ([`implicit`], implicit im2col). Depthwise ones
//! use sliding windows ([`window`]) or tables of rows and columns ([`depthwise`]).

mod columns;
mod depthwise;
mod implicit;
mod window;

use super::depthwise::fits as is_depthwise;
use super::geometry::{Geometry, Sources};
use crate::cuda::{Convolution, Cuda, DeviceBuffer, Kernel, Launch, Matrix, Precision, Product};
use crate::cuda::{Source, count, parameters};
use crate::error::Result;

const OP: &str = "conv2d";
/// Blocks that occupy a large GPU: sums are split into parts until there are that many.
const ENOUGH_BLOCKS: usize = 528;

pub(crate) static SOURCE: Source = Source {
    name: "ops/conv2d.cu",
    text: include_str!("../../conv2d.cu"),
    hot: &[
        "conv2d_forward_f32",
        "conv2d_forward_tf32",
        "conv2d_forward_bf16",
        "conv2d_to_weight_f32",
        "conv2d_to_weight_tf32",
        "conv2d_to_weight_bf16",
        "conv2d_columns",
        "conv2d_channel_sums",
        "depthwise_forward",
        "depthwise_to_weight",
    ],
};
pub(in crate::ops) use columns::Sum;
pub(crate) use window::SOURCE as WINDOW_SOURCE;

const fn kernel(entry: &'static str) -> Kernel {
    Kernel {
        source: &SOURCE,
        entry,
    }
}
static REDUCE: Kernel = kernel("conv2d_reduce");
static CHANNEL_SUMS: Kernel = kernel("conv2d_channel_sums");
static ADD_BIAS: Kernel = kernel("conv2d_add_bias");

parameters! {
    struct ReduceParameters {
        count: u32,
        parts: u32,
        offset: u32,
    }
}
parameters! {
    struct ChannelParameters {
        samples: u32,
        channels: u32,
        pixels: u32,
        parts: u32,
    }
}

/// Whether it is one matrix product for each sample.
fn is_product(g: &Geometry) -> bool {
    g.groups == 1 && g.kernel_height == 1 && g.kernel_width == 1 && !g.is_padded()
}

/// One convolution of all samples: the forward one, or the one that takes the output's gradient to
/// the input's.
struct Pass {
    samples: usize,
    groups: usize,
    /// Output channels of a group.
    rows: usize,
    rows_from: Sources,
    columns_from: Sources,
    /// Of the outputs beside and below each other in the padded image.
    stride: usize,
    /// Whether the tables list the kernel's taps from last to first.
    flipped: bool,
    kernel: [usize; 2],
    /// Elements of the weight from output channel to output channel, and from input channel to
    /// input channel.
    weight_steps: [usize; 2],
    /// Elements of the weight, and of those of one group.
    weights: [usize; 2],
    /// Channels, pixels and width of the images that are read.
    input: [usize; 3],
    /// Channels of the images that are written.
    outputs: usize,
}

impl Pass {
    fn forward(g: &Geometry) -> Self {
        let kernel = g.kernel_height * g.kernel_width;
        let [rows_from, columns_from] = g.sources();
        Self {
            samples: g.batch,
            groups: g.groups,
            rows: g.outputs / g.groups,
            rows_from,
            columns_from,
            stride: g.stride,
            flipped: false,
            kernel: [g.kernel_height, g.kernel_width],
            weight_steps: [g.group_taps(), kernel],
            weights: [
                g.outputs * g.group_taps(),
                g.outputs / g.groups * g.group_taps(),
            ],
            input: [g.channels, g.pixels(), g.width],
            outputs: g.outputs,
        }
    }

    fn to_input(g: &Geometry) -> Self {
        let kernel = g.kernel_height * g.kernel_width;
        let [rows_from, columns_from] = g.transposed_sources();
        Self {
            rows: g.channels / g.groups,
            rows_from,
            columns_from,
            stride: 1,
            flipped: true,
            weight_steps: [kernel, g.group_taps()],
            input: [g.outputs, g.output_pixels(), g.output_width],
            outputs: g.channels,
            ..Self::forward(g)
        }
    }

    /// Pixels of an image that is written.
    fn pixels(&self) -> usize {
        self.rows_from.outputs() * self.columns_from.outputs()
    }

    /// Channels of a group of what is read.
    fn channels(&self) -> usize {
        self.input[0] / self.groups
    }

    /// Products of a sum.
    fn depth(&self) -> usize {
        self.channels() * self.rows_from.taps * self.columns_from.taps
    }

    /// Multiplications and additions of the kernel's own taps, for one group.
    fn operations(&self) -> usize {
        let taps = self.channels() * self.kernel[0] * self.kernel[1];
        2 * self.samples * self.pixels() * self.rows * taps
    }

    /// For each product: where its weight is, the first pixel of its channel, row and column tap.
    fn taps(&self) -> Vec<u32> {
        let [rows, columns] = [&self.rows_from, &self.columns_from];
        let mut taps = Vec::with_capacity(4 * self.depth());
        for channel in 0..self.channels() {
            for u in 0..rows.taps {
                for v in 0..columns.taps {
                    let tap = u / rows.repeat * self.kernel[1] + v / columns.repeat;
                    let weight = channel * self.weight_steps[1] + tap;
                    let tap = [weight, channel * self.input[1], u, v];
                    taps.extend(tap.map(|value| value as u32));
                }
            }
        }
        taps
    }

    /// Every index that a kernel forms is below one of these.
    fn check(&self) -> Result<()> {
        let [channels, pixels, _] = self.input;
        count(OP, self.samples * channels * pixels)?;
        count(OP, self.samples * self.outputs * self.pixels())?;
        count(OP, self.weights[0]).map(drop)
    }
}

/// Chooses by the expected time of each way on a GPU such as an H200, in milliseconds, of which only the
/// order matters. The rates were measured (docs/gpu.md).
fn choose(cuda: &Cuda, pass: &Pass, window_fits: bool, window_ms: f64) -> Convolution {
    let implicit_or = |way, can: bool| if can { way } else { Convolution::Implicit };
    match cuda.convolution() {
        Some(Convolution::Window) => return implicit_or(Convolution::Window, window_fits),
        Some(Convolution::Columns) => return implicit_or(Convolution::Columns, pass.groups == 1),
        Some(Convolution::Implicit) => return Convolution::Implicit,
        None => {}
    }
    if pass.groups != 1 {
        return Convolution::Implicit;
    }
    let columns_ms = columns::expected_ms(cuda, pass);
    if window_fits && window_ms <= columns_ms {
        return Convolution::Window;
    }
    // Below some microseconds of work one launch is better than two or three.
    let small = pass.operations() < 20_000_000;
    implicit_or(Convolution::Columns, !small)
}

pub(in crate::ops) fn forward(
    cuda: &Cuda,
    g: &Geometry,
    input: &DeviceBuffer,
    weight: &DeviceBuffer,
    bias: Option<&DeviceBuffer>,
) -> Result<DeviceBuffer> {
    let mut output = cuda.any(g.batch * g.outputs * g.output_pixels())?;
    if is_product(g) {
        let (pixels, channels) = (g.pixels(), g.channels);
        let image = Matrix::row_major(input, pixels).batched(channels * pixels);
        let weight = Matrix::row_major(weight, channels);
        Product::new([g.outputs, pixels, channels], weight, image)
            .batch(g.batch)
            .enqueue(&mut output)?;
        if let Some(bias) = bias {
            add_bias(cuda, &mut output, bias, [g.batch, g.outputs, pixels])?;
        }
    } else {
        let pass = Pass::forward(g);
        run(cuda, g, &pass, [input, weight], bias, &mut output)?;
    }
    Ok(output)
}

pub(in crate::ops) fn input_gradient(
    cuda: &Cuda,
    g: &Geometry,
    weight: &DeviceBuffer,
    gradient: &DeviceBuffer,
) -> Result<DeviceBuffer> {
    let mut found = cuda.any(g.batch * g.channels * g.pixels())?;
    if is_product(g) {
        let (pixels, outputs) = (g.pixels(), g.outputs);
        let gradient = Matrix::row_major(gradient, pixels).batched(outputs * pixels);
        let weight = Matrix::transposed(weight, g.channels);
        Product::new([g.channels, pixels, outputs], weight, gradient)
            .batch(g.batch)
            .enqueue(&mut found)?;
    } else {
        let pass = Pass::to_input(g);
        run(cuda, g, &pass, [gradient, weight], None, &mut found)?;
    }
    Ok(found)
}

fn run(
    cuda: &Cuda,
    g: &Geometry,
    pass: &Pass,
    images: [&DeviceBuffer; 2],
    bias: Option<&DeviceBuffer>,
    output: &mut DeviceBuffer,
) -> Result<()> {
    pass.check()?;
    if is_depthwise(g) {
        let windows = window::Windows::of(pass).filter(window::Windows::are_depthwise);
        return match windows {
            Some(windows) if cuda.convolution() != Some(Convolution::Implicit) => {
                windows.depthwise(cuda, images, bias, output)
            }
            _ => depthwise::run(cuda, pass, images, bias, output),
        };
    }
    let windows = window::Windows::of(pass).filter(window::Windows::are_dense);
    let ms = windows
        .as_ref()
        .map_or(f64::INFINITY, window::Windows::expected_ms);
    match (choose(cuda, pass, windows.is_some(), ms), windows) {
        (Convolution::Window, Some(windows)) => windows.dense(cuda, images, bias, output),
        (Convolution::Columns, _) => columns::run(cuda, pass, images, bias, output),
        _ => implicit::run(cuda, pass, images, bias, output),
    }
}

pub(in crate::ops) fn weight_gradient(
    cuda: &Cuda,
    g: &Geometry,
    input: &DeviceBuffer,
    gradient: &DeviceBuffer,
) -> Result<DeviceBuffer> {
    let mut found = cuda.any(g.outputs * g.group_taps())?;
    if is_product(g) {
        let sum = Sum::new(cuda, [g.outputs, g.channels], g.batch, g.pixels());
        sum.of_images(cuda, gradient, input, &mut found)?;
        return Ok(found);
    }
    let pass = Pass::forward(g);
    pass.check()?;
    let windows = window::Windows::of(&pass);
    if is_depthwise(g) {
        let windows = windows.filter(window::Windows::are_depthwise);
        match windows {
            Some(windows) if cuda.convolution() != Some(Convolution::Implicit) => {
                windows.depthwise_gradient(cuda, input, gradient, &mut found)?;
            }
            _ => depthwise::to_weight(cuda, &pass, input, gradient, &mut found)?,
        }
        return Ok(found);
    }
    let windows = windows.filter(window::Windows::are_dense);
    let ms = windows
        .as_ref()
        .map_or(f64::INFINITY, window::Windows::expected_gradient_ms);
    match (choose(cuda, &pass, windows.is_some(), ms), windows) {
        (Convolution::Window, Some(windows)) => {
            windows.dense_gradient(cuda, input, gradient, &mut found)?;
        }
        (Convolution::Columns, _) => columns::to_weight(cuda, &pass, input, gradient, &mut found)?,
        _ => implicit::to_weight(cuda, &pass, input, gradient, &mut found)?,
    }
    Ok(found)
}

/// Sum over samples and pixels of each channel of `[samples, channels, pixels]`.
pub(in crate::ops) fn channel_sums(
    cuda: &Cuda,
    images: &DeviceBuffer,
    [samples, channels, pixels]: [usize; 3],
) -> Result<DeviceBuffer> {
    const WORTH_A_PART: usize = 2048;
    let parts = (4 * ENOUGH_BLOCKS)
        .div_ceil(channels)
        .min(pixels.div_ceil(WORTH_A_PART));
    let parameters = channel_parameters(images.len(), [samples, channels, pixels], parts)?;
    let mut partial = cuda.any(parts * channels)?;
    // SAFETY: conv2d_channel_sums(images, partial, ChannelParameters): a block for each channel and
    // part; reads samples · channels · pixels elements, checked above, and writes one number for
    // each block.
    unsafe {
        Launch::new(&CHANNEL_SUMS)
            .grid([channels, parts, 1])
            .input(images)
            .output(&mut partial)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    if parts == 1 {
        return Ok(partial);
    }
    let mut sums = cuda.any(channels)?;
    reduce(cuda, &partial, parts, &mut sums, 0)?;
    Ok(sums)
}

fn channel_parameters(
    elements: usize,
    [samples, channels, pixels]: [usize; 3],
    parts: usize,
) -> Result<ChannelParameters> {
    assert_eq!(
        elements,
        samples * channels * pixels,
        "images of another size"
    );
    count(OP, elements)?;
    Ok(ChannelParameters {
        samples: samples as u32,
        channels: channels as u32,
        pixels: pixels as u32,
        parts: parts as u32,
    })
}

fn add_bias(
    cuda: &Cuda,
    images: &mut DeviceBuffer,
    bias: &DeviceBuffer,
    shape: [usize; 3],
) -> Result<()> {
    let parameters = channel_parameters(images.len(), shape, 1)?;
    let launch = Launch::new(&ADD_BIAS).over(images.len());
    // SAFETY: conv2d_add_bias(bias, images, ChannelParameters): the kernel guards its index by
    // samples · channels · pixels, the number of elements, and has a bias for each channel.
    unsafe {
        launch
            .input(bias)
            .output(images)
            .parameters(&parameters)
            .enqueue(cuda)
    }
}

/// The sum of `parts` arrays, written from element `offset` of `sum` on.
fn reduce(
    cuda: &Cuda,
    partial: &DeviceBuffer,
    parts: usize,
    sum: &mut DeviceBuffer,
    offset: usize,
) -> Result<()> {
    let elements = partial.len() / parts;
    assert!(offset + elements <= sum.len(), "sum too short");
    count(OP, partial.len())?;
    let parameters = ReduceParameters {
        count: elements as u32,
        parts: parts as u32,
        offset: offset as u32,
    };
    let launch = Launch::new(&REDUCE)
        .grid([elements.div_ceil(32), 1, 1])
        .block([32, 8, 1]);
    // SAFETY: conv2d_reduce(partial, sum, ReduceParameters): 32 by 8 threads; `partial` has parts ·
    // count elements, the kernel guards its index by `count`, and offset + count ends within `sum`.
    unsafe {
        launch
            .input(partial)
            .output(sum)
            .parameters(&parameters)
            .enqueue(cuda)
    }
}

/// The kernel for the precision of this device; tensor cores for these exist from `sm_80` on.
fn of_precision(cuda: &Cuda, kernels: &'static [Kernel; 3]) -> &'static Kernel {
    match cuda.precision() {
        _ if cuda.architecture() < 80 => &kernels[0],
        Precision::F32 => &kernels[0],
        Precision::Tf32 => &kernels[1],
        Precision::Bf16 => &kernels[2],
    }
}
