//! The device half of the convolutions. Products of 1 × 1 kernels go to the device's matrix
//! products, dense kernels through implicit im2col, depthwise ones directly (`conv2d.cu`).

use super::depthwise;
use super::geometry::{Geometry, Sources};
use crate::cuda::{Cuda, DeviceBuffer, Kernel, Launch, Matrix, Precision, Product, Source};
use crate::cuda::{count, parameters};
use crate::error::Result;

const OP: &str = "conv2d";
/// Outputs of a block along both axes, as in the `.cu` file.
const TILE: usize = 64;
/// Blocks that keep a large card busy: parts of a sum are made until there are as many.
const ENOUGH_BLOCKS: usize = 264;
/// Pixels that are worth a part of their own.
const FEWEST_PIXELS: usize = 256;

pub(crate) static SOURCE: Source = Source {
    name: "ops/conv2d.cu",
    text: include_str!("../conv2d.cu"),
    hot: &[
        "conv2d_forward_f32",
        "conv2d_forward_tf32",
        "conv2d_forward_bf16",
        "conv2d_to_weight_f32",
        "conv2d_to_weight_tf32",
        "conv2d_to_weight_bf16",
        "depthwise_forward",
        "depthwise_to_weight",
    ],
};
const fn kernel(entry: &'static str) -> Kernel {
    Kernel {
        source: &SOURCE,
        entry,
    }
}
static FORWARD: [Kernel; 3] = [
    kernel("conv2d_forward_f32"),
    kernel("conv2d_forward_tf32"),
    kernel("conv2d_forward_bf16"),
];
static TO_WEIGHT: [Kernel; 3] = [
    kernel("conv2d_to_weight_f32"),
    kernel("conv2d_to_weight_tf32"),
    kernel("conv2d_to_weight_bf16"),
];
static REDUCE: Kernel = kernel("conv2d_reduce");
static CHANNEL_SUMS: Kernel = kernel("conv2d_channel_sums");
static ADD_BIAS: Kernel = kernel("conv2d_add_bias");
static DEPTHWISE: Kernel = kernel("depthwise_forward");
static DEPTHWISE_TO_WEIGHT: Kernel = kernel("depthwise_to_weight");

/// The kernel for the precision of this device; tensor cores for these exist from `sm_80` on.
fn of_precision(cuda: &Cuda, kernels: &'static [Kernel; 3]) -> &'static Kernel {
    match cuda.precision() {
        _ if cuda.architecture() < 80 => &kernels[0],
        Precision::F32 => &kernels[0],
        Precision::Tf32 => &kernels[1],
        Precision::Bf16 => &kernels[2],
    }
}

parameters! {
    struct ConvolutionParameters {
        rows: u32,
        depth: u32,
        samples: u32,
        pixels: u32,
        columns: u32,
        row_taps: u32,
        column_taps: u32,
        input_width: u32,
        input_sample: u32,
        output_sample: u32,
        weight_row: u32,
        input_offset: u32,
        output_offset: u32,
        weight_offset: u32,
        bias_offset: u32,
        parts: u32,
    }
}
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
    }
}
parameters! {
    struct DepthwiseParameters {
        count: u32,
        channels: u32,
        samples: u32,
        rows: u32,
        columns: u32,
        input_height: u32,
        input_width: u32,
        row_taps: u32,
        column_taps: u32,
        row_repeat: u32,
        column_repeat: u32,
    }
}

/// Whether it is one matrix product for each sample.
fn is_product(g: &Geometry) -> bool {
    g.groups == 1 && g.kernel_height == 1 && g.kernel_width == 1 && !g.is_padded()
}

pub(in crate::ops) fn forward(
    cuda: &Cuda,
    g: &Geometry,
    input: &DeviceBuffer,
    weight: &DeviceBuffer,
    bias: Option<&DeviceBuffer>,
) -> Result<DeviceBuffer> {
    let mut output = cuda.any(g.batch * g.outputs * g.output_pixels())?;
    if depthwise::fits(g) {
        let pass = Depthwise::forward(g);
        pass.run(cuda, input, weight, bias, &mut output)?;
    } else if is_product(g) {
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
        for group in 0..g.groups {
            pass.run(cuda, g, group, input, weight, bias, &mut output)?;
        }
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
    if depthwise::fits(g) {
        Depthwise::to_input(g).run(cuda, gradient, weight, None, &mut found)?;
    } else if is_product(g) {
        let (pixels, outputs) = (g.pixels(), g.outputs);
        let gradient = Matrix::row_major(gradient, pixels).batched(outputs * pixels);
        let weight = Matrix::transposed(weight, g.channels);
        Product::new([g.channels, pixels, outputs], weight, gradient)
            .batch(g.batch)
            .enqueue(&mut found)?;
    } else {
        let pass = Pass::to_input(g);
        for group in 0..g.groups {
            pass.run(cuda, g, group, gradient, weight, None, &mut found)?;
        }
    }
    Ok(found)
}

pub(in crate::ops) fn weight_gradient(
    cuda: &Cuda,
    g: &Geometry,
    input: &DeviceBuffer,
    gradient: &DeviceBuffer,
) -> Result<DeviceBuffer> {
    let mut found = cuda.any(g.outputs * g.group_taps())?;
    if depthwise::fits(g) {
        Depthwise::forward(g).to_weight(cuda, input, gradient, &mut found)?;
    } else if is_product(g) {
        let (pixels, outputs, channels) = (g.pixels(), g.outputs, g.channels);
        let mut partial = cuda.any(g.batch * outputs * channels)?;
        let gradient = Matrix::row_major(gradient, pixels).batched(outputs * pixels);
        let image = Matrix::transposed(input, pixels).batched(channels * pixels);
        Product::new([outputs, channels, pixels], gradient, image)
            .batch(g.batch)
            .enqueue(&mut partial)?;
        reduce(cuda, &partial, g.batch, &mut found, 0)?;
    } else {
        let pass = Pass::forward(g);
        for group in 0..g.groups {
            pass.to_weight(cuda, g, group, input, gradient, &mut found)?;
        }
    }
    Ok(found)
}

/// Sum over samples and pixels of each channel of `[samples, channels, pixels]`.
pub(in crate::ops) fn channel_sums(
    cuda: &Cuda,
    images: &DeviceBuffer,
    [samples, channels, pixels]: [usize; 3],
) -> Result<DeviceBuffer> {
    let parameters = channel_parameters(images.len(), [samples, channels, pixels])?;
    let mut sums = cuda.any(channels)?;
    // SAFETY: conv2d_channel_sums(images, sums, ChannelParameters): one block for each channel,
    // the number of sums; reads samples · channels · pixels elements, checked above.
    unsafe {
        Launch::new(&CHANNEL_SUMS)
            .grid([channels, 1, 1])
            .input(images)
            .output(&mut sums)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    Ok(sums)
}

fn channel_parameters(
    elements: usize,
    [samples, channels, pixels]: [usize; 3],
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
    })
}

fn add_bias(
    cuda: &Cuda,
    images: &mut DeviceBuffer,
    bias: &DeviceBuffer,
    shape: [usize; 3],
) -> Result<()> {
    let parameters = channel_parameters(images.len(), shape)?;
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
    let launch = Launch::new(&REDUCE).over(elements);
    // SAFETY: conv2d_reduce(partial, sum, ReduceParameters): `partial` has parts · count
    // elements, the kernel guards its index by `count`, and offset + count ends within `sum`.
    unsafe {
        launch
            .input(partial)
            .output(sum)
            .parameters(&parameters)
            .enqueue(cuda)
    }
}

/// One convolution of all samples and one group: the forward one, or the one that takes the
/// output's gradient to the input's.
struct Pass {
    /// Output channels of a group.
    rows: usize,
    rows_from: Sources,
    columns_from: Sources,
    /// Elements of the weight from output channel to output channel.
    weight_row: usize,
    /// Channels, pixels and width of the images that are read.
    input: [usize; 3],
    /// Channels of the images that are written.
    outputs: usize,
    /// For each product: where its weight is, the first pixel of its channel, row and column tap.
    taps: Vec<u32>,
}

impl Pass {
    fn forward(g: &Geometry) -> Self {
        let kernel = g.kernel_height * g.kernel_width;
        let channels = g.channels / g.groups;
        Self::new(
            g.outputs / g.groups,
            g.sources(),
            channels * kernel,
            [g.channels, g.pixels(), g.width],
            g.outputs,
            channels,
            |channel, u, v| channel * kernel + u * g.kernel_width + v,
        )
    }

    fn to_input(g: &Geometry) -> Self {
        let kernel = g.kernel_height * g.kernel_width;
        let channels = g.channels / g.groups;
        let sources = g.transposed_sources();
        let repeats = [sources[0].repeat, sources[1].repeat];
        Self::new(
            channels,
            sources,
            kernel,
            [g.outputs, g.output_pixels(), g.output_width],
            g.channels,
            g.outputs / g.groups,
            |output, u, v| {
                let at = u / repeats[0] * g.kernel_width + v / repeats[1];
                output * channels * kernel + at
            },
        )
    }

    fn new(
        rows: usize,
        [rows_from, columns_from]: [Sources; 2],
        weight_row: usize,
        input: [usize; 3],
        outputs: usize,
        channels: usize,
        weight: impl Fn(usize, usize, usize) -> usize,
    ) -> Self {
        let mut taps = Vec::with_capacity(channels * rows_from.taps * columns_from.taps * 4);
        for channel in 0..channels {
            for u in 0..rows_from.taps {
                for v in 0..columns_from.taps {
                    let tap = [weight(channel, u, v), channel * input[1], u, v];
                    taps.extend(tap.map(|value| value as u32));
                }
            }
        }
        Self {
            rows,
            rows_from,
            columns_from,
            weight_row,
            input,
            outputs,
            taps,
        }
    }

    fn pixels(&self) -> usize {
        self.rows_from.outputs() * self.columns_from.outputs()
    }

    fn depth(&self) -> usize {
        self.taps.len() / 4
    }

    fn parameters(
        &self,
        g: &Geometry,
        group: usize,
        parts: usize,
    ) -> Result<ConvolutionParameters> {
        let [channels, pixels, width] = self.input;
        // Every index a kernel forms is below one of these.
        count(OP, g.batch * channels * pixels)?;
        count(OP, g.batch * self.outputs * self.pixels())?;
        count(OP, g.outputs * g.group_taps() * parts)?;
        Ok(ConvolutionParameters {
            rows: self.rows as u32,
            depth: self.depth() as u32,
            samples: g.batch as u32,
            pixels: self.pixels() as u32,
            columns: self.columns_from.outputs() as u32,
            row_taps: self.rows_from.taps as u32,
            column_taps: self.columns_from.taps as u32,
            input_width: width as u32,
            input_sample: (channels * pixels) as u32,
            output_sample: (self.outputs * self.pixels()) as u32,
            weight_row: self.weight_row as u32,
            input_offset: (group * channels / g.groups * pixels) as u32,
            output_offset: (group * self.rows * self.pixels()) as u32,
            weight_offset: (group * g.outputs / g.groups * g.group_taps()) as u32,
            bias_offset: (group * self.rows) as u32,
            parts: parts as u32,
        })
    }

    #[expect(clippy::too_many_arguments, reason = "one for each matrix")]
    fn run(
        &self,
        cuda: &Cuda,
        g: &Geometry,
        group: usize,
        input: &DeviceBuffer,
        weight: &DeviceBuffer,
        bias: Option<&DeviceBuffer>,
        output: &mut DeviceBuffer,
    ) -> Result<()> {
        let tiles = [
            (g.batch * self.pixels()).div_ceil(TILE),
            self.rows.div_ceil(TILE),
            1,
        ];
        let parameters = self.parameters(g, group, 1)?;
        let taps = cuda.constant(&self.taps)?;
        let rows = cuda.constant(&self.rows_from.table)?;
        let columns = cuda.constant(&self.columns_from.table)?;
        // SAFETY: conv2d_forward_*(input, weight, bias or null, taps, row table, column table,
        // output, ConvolutionParameters): 256 threads; pixels, rows and depth beyond the last are
        // guarded; the tables hold rows and columns of the image or -1, and the taps offsets of
        // channels and weights within one group, to which the group's offsets are added.
        unsafe {
            Launch::new(of_precision(cuda, &FORWARD))
                .grid(tiles)
                .operations(self.operations(g))
                .input(input)
                .input(weight)
                .input_or_null(bias)
                .input(&taps)
                .input(&rows)
                .input(&columns)
                .output(output)
                .parameters(&parameters)
                .enqueue(cuda)
        }
    }

    /// Multiplications and additions for one group.
    fn operations(&self, g: &Geometry) -> usize {
        2 * g.batch * self.pixels() * self.rows * self.depth()
    }

    /// The gradient of a forward pass's weight, for one group.
    fn to_weight(
        &self,
        cuda: &Cuda,
        g: &Geometry,
        group: usize,
        input: &DeviceBuffer,
        gradient: &DeviceBuffer,
        found: &mut DeviceBuffer,
    ) -> Result<()> {
        let tiles = [self.depth().div_ceil(TILE), self.rows.div_ceil(TILE)];
        let parts = (g.batch * self.pixels())
            .div_ceil(FEWEST_PIXELS)
            .min(ENOUGH_BLOCKS.div_ceil(tiles[0] * tiles[1]));
        let parameters = self.parameters(g, group, parts)?;
        let taps = cuda.constant(&self.taps)?;
        let rows = cuda.constant(&self.rows_from.table)?;
        let columns = cuda.constant(&self.columns_from.table)?;
        let mut partial = cuda.any(parts * self.rows * self.depth())?;
        // SAFETY: conv2d_to_weight_*(input, gradient, taps, row table, column table, partial,
        // ConvolutionParameters): as for the forward pass; `partial` holds rows · depth elements
        // for each part, the third axis of the grid.
        unsafe {
            Launch::new(of_precision(cuda, &TO_WEIGHT))
                .grid([tiles[0], tiles[1], parts])
                .operations(self.operations(g))
                .input(input)
                .input(gradient)
                .input(&taps)
                .input(&rows)
                .input(&columns)
                .output(&mut partial)
                .parameters(&parameters)
                .enqueue(cuda)?;
        }
        let offset = group * self.rows * self.depth();
        reduce(cuda, &partial, parts, found, offset)
    }
}

/// A depthwise convolution, forward or towards the input's gradient.
struct Depthwise {
    rows_from: Sources,
    columns_from: Sources,
    parameters: DepthwiseParameters,
    /// Elements of the images that are read and of those that are written.
    lengths: [usize; 2],
}

impl Depthwise {
    fn forward(g: &Geometry) -> Self {
        Self::new(g, g.sources(), [g.height, g.width])
    }

    fn to_input(g: &Geometry) -> Self {
        Self::new(g, g.transposed_sources(), [g.output_height, g.output_width])
    }

    fn new(
        g: &Geometry,
        [rows_from, columns_from]: [Sources; 2],
        [input_height, input_width]: [usize; 2],
    ) -> Self {
        let planes = g.batch * g.channels;
        let written = planes * rows_from.outputs() * columns_from.outputs();
        let parameters = DepthwiseParameters {
            count: written as u32,
            channels: g.channels as u32,
            samples: g.batch as u32,
            rows: rows_from.outputs() as u32,
            columns: columns_from.outputs() as u32,
            input_height: input_height as u32,
            input_width: input_width as u32,
            row_taps: rows_from.taps as u32,
            column_taps: columns_from.taps as u32,
            row_repeat: rows_from.repeat as u32,
            column_repeat: columns_from.repeat as u32,
        };
        Self {
            rows_from,
            columns_from,
            parameters,
            lengths: [planes * input_height * input_width, written],
        }
    }

    fn check(&self) -> Result<()> {
        count(OP, self.lengths[0])?;
        count(OP, self.lengths[1]).map(drop)
    }

    fn run(
        &self,
        cuda: &Cuda,
        input: &DeviceBuffer,
        weight: &DeviceBuffer,
        bias: Option<&DeviceBuffer>,
        output: &mut DeviceBuffer,
    ) -> Result<()> {
        self.check()?;
        let rows = cuda.constant(&self.rows_from.table)?;
        let columns = cuda.constant(&self.columns_from.table)?;
        let launch = Launch::new(&DEPTHWISE).over(output.len());
        // SAFETY: depthwise_forward(input, weight, bias or null, row table, column table, output,
        // DepthwiseParameters): the kernel guards its index by `count`, the elements written; the
        // tables hold rows and columns of the image or -1.
        unsafe {
            launch
                .operations(2 * output.len() * weight.len() / self.parameters.channels as usize)
                .input(input)
                .input(weight)
                .input_or_null(bias)
                .input(&rows)
                .input(&columns)
                .output(output)
                .parameters(&self.parameters)
                .enqueue(cuda)
        }
    }

    /// The gradient of a forward pass's weight.
    fn to_weight(
        &self,
        cuda: &Cuda,
        input: &DeviceBuffer,
        gradient: &DeviceBuffer,
        found: &mut DeviceBuffer,
    ) -> Result<()> {
        self.check()?;
        let taps = self.rows_from.taps * self.columns_from.taps;
        let rows = cuda.constant(&self.rows_from.table)?;
        let columns = cuda.constant(&self.columns_from.table)?;
        // SAFETY: depthwise_to_weight(input, gradient, row table, column table, found,
        // DepthwiseParameters): a block for each channel and tap, the elements of `found`; pixels
        // are guarded by rows · columns, the tables as above.
        unsafe {
            Launch::new(&DEPTHWISE_TO_WEIGHT)
                .grid([found.len() / taps, taps, 1])
                .operations(2 * gradient.len() * taps)
                .input(input)
                .input(gradient)
                .input(&rows)
                .input(&columns)
                .output(found)
                .parameters(&self.parameters)
                .enqueue(cuda)
        }
    }
}
