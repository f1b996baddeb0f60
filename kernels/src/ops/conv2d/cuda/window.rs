//! Convolutions whose windows slide down the image: depthwise ones of 3 × 3 and 5 × 5, dense ones
//! of 3 × 3 (`conv2d_window.cu`).

use super::{ENOUGH_BLOCKS, OP, Pass, reduce};
use crate::cuda::{Cuda, DeviceBuffer, Kernel, Launch, Source, count, parameters};
use crate::error::Result;
use crate::ops::conv2d::geometry::Sources;

/// Outputs of a strip, threads of a block, and channels of a block's tiles, as in the `.cu` file.
const STRIP: usize = 4;
const THREADS: usize = 256;
const OUTPUTS: usize = 16;
const GRADIENTS: usize = 8;

pub(crate) static SOURCE: Source = Source {
    name: "ops/conv2d_window.cu",
    text: include_str!("../../conv2d_window.cu"),
    hot: &[
        "depthwise_3_1",
        "depthwise_3_2",
        "depthwise_5_1",
        "depthwise_5_2",
        "depthwise_3_1_to_weight",
        "depthwise_3_2_to_weight",
        "depthwise_5_1_to_weight",
        "depthwise_5_2_to_weight",
        "conv2d_window_1",
        "conv2d_window_2",
        "conv2d_window_1_to_weight",
        "conv2d_window_2_to_weight",
    ],
};
const fn kernel(entry: &'static str) -> Kernel {
    Kernel {
        source: &SOURCE,
        entry,
    }
}
/// By kernel (3, 5) and stride (1, 2).
static DEPTHWISE: [[Kernel; 2]; 2] = [
    [kernel("depthwise_3_1"), kernel("depthwise_3_2")],
    [kernel("depthwise_5_1"), kernel("depthwise_5_2")],
];
static DEPTHWISE_TO_WEIGHT: [[Kernel; 2]; 2] = [
    [
        kernel("depthwise_3_1_to_weight"),
        kernel("depthwise_3_2_to_weight"),
    ],
    [
        kernel("depthwise_5_1_to_weight"),
        kernel("depthwise_5_2_to_weight"),
    ],
];
static DENSE: [Kernel; 2] = [kernel("conv2d_window_1"), kernel("conv2d_window_2")];
static DENSE_TO_WEIGHT: [Kernel; 2] = [
    kernel("conv2d_window_1_to_weight"),
    kernel("conv2d_window_2_to_weight"),
];

parameters! {
    struct WindowParameters {
        items: u32,
        rows: u32,
        columns: u32,
        strips: u32,
        input_width: u32,
        input_plane: u32,
        channels: u32,
        outputs: u32,
        output_step: u32,
        channel_step: u32,
        flipped: u32,
        parts: u32,
    }
}

/// A pass whose outputs see windows of the padded image.
pub(super) struct Windows<'a> {
    pass: &'a Pass,
    /// For each row and column of the padded image, the one of the image it shows, or -1.
    row_at: Vec<i32>,
    column_at: Vec<i32>,
}

/// What each place of the padded axis shows, where output i sees the `kernel` of them from
/// stride · i on; `None` where it does not, as towards the input of an image that was mirrored.
/// Outputs are made up to `outputs`, which see nothing more.
fn padded(
    sources: &Sources,
    kernel: usize,
    [stride, flipped]: [usize; 2],
    outputs: usize,
) -> Option<Vec<i32>> {
    const UNKNOWN: i32 = i32::MIN;
    let mut at = vec![UNKNOWN; (outputs - 1) * stride + kernel];
    for (output, taps) in sources.table.chunks(sources.taps).enumerate() {
        for (tap, entries) in taps.chunks(sources.repeat).enumerate() {
            let mut used = entries.iter().filter(|source| **source >= 0);
            let source = used.next().copied().unwrap_or(-1);
            let place = output * stride + if flipped == 1 { kernel - 1 - tap } else { tap };
            if used.next().is_some() || (at[place] != UNKNOWN && at[place] != source) {
                return None;
            }
            at[place] = source;
        }
    }
    Some(at.iter().map(|source| (*source).max(-1)).collect())
}

impl<'a> Windows<'a> {
    pub fn of(pass: &'a Pass) -> Option<Self> {
        let [height, width] = pass.kernel;
        let how = [pass.stride, usize::from(pass.flipped)];
        let square = height == width && [3, 5].contains(&height) && pass.stride <= 2;
        if !square {
            return None;
        }
        let rows = pass.rows_from.outputs().next_multiple_of(STRIP);
        let columns = pass.columns_from.outputs();
        Some(Self {
            row_at: padded(&pass.rows_from, height, how, rows)?,
            column_at: padded(&pass.columns_from, width, how, columns)?,
            pass,
        })
    }

    pub fn are_depthwise(&self) -> bool {
        self.pass.groups == self.pass.outputs
    }

    pub fn are_dense(&self) -> bool {
        self.pass.groups == 1 && self.pass.kernel == [3, 3]
    }

    /// Strips of `planes` images.
    fn items(&self, planes: usize) -> usize {
        let rows = self.pass.rows_from.outputs().div_ceil(STRIP);
        planes * rows * self.pass.columns_from.outputs()
    }

    /// Whether for kernels of 3 or 5, and stride 1 or 2.
    fn kind(&self) -> [usize; 2] {
        [usize::from(self.pass.kernel[0] == 5), self.pass.stride - 1]
    }

    fn parameters(&self, items: usize, parts: usize) -> Result<WindowParameters> {
        let pass = self.pass;
        let [channels, pixels, width] = pass.input;
        count(OP, pass.weights[0] * parts)?;
        Ok(WindowParameters {
            items: count(OP, items)?,
            rows: pass.rows_from.outputs() as u32,
            columns: pass.columns_from.outputs() as u32,
            strips: pass.rows_from.outputs().div_ceil(STRIP) as u32,
            input_width: width as u32,
            input_plane: pixels as u32,
            channels: channels as u32,
            outputs: pass.outputs as u32,
            output_step: pass.weight_steps[0] as u32,
            channel_step: pass.weight_steps[1] as u32,
            flipped: u32::from(pass.flipped),
            parts: parts as u32,
        })
    }

    pub fn depthwise(
        &self,
        cuda: &Cuda,
        [input, weight]: [&DeviceBuffer; 2],
        bias: Option<&DeviceBuffer>,
        output: &mut DeviceBuffer,
    ) -> Result<()> {
        let items = self.items(self.pass.samples * self.pass.outputs);
        let [kernel, stride] = self.kind();
        self.launch(
            cuda,
            Launch::new(&DEPTHWISE[kernel][stride]).grid([items.div_ceil(THREADS), 1, 1]),
            &self.parameters(items, 1)?,
            [input, weight],
            bias,
            output,
        )
    }

    pub fn dense(
        &self,
        cuda: &Cuda,
        [input, weight]: [&DeviceBuffer; 2],
        bias: Option<&DeviceBuffer>,
        output: &mut DeviceBuffer,
    ) -> Result<()> {
        let items = self.items(self.pass.samples);
        let grid = [
            items.div_ceil(THREADS),
            self.pass.outputs.div_ceil(OUTPUTS),
            1,
        ];
        self.launch(
            cuda,
            Launch::new(&DENSE[self.pass.stride - 1]).grid(grid),
            &self.parameters(items, 1)?,
            [input, weight],
            bias,
            output,
        )
    }

    fn launch(
        &self,
        cuda: &Cuda,
        launch: Launch,
        parameters: &WindowParameters,
        [input, weight]: [&DeviceBuffer; 2],
        bias: Option<&DeviceBuffer>,
        output: &mut DeviceBuffer,
    ) -> Result<()> {
        let rows = cuda.constant(&self.row_at)?;
        let columns = cuda.constant(&self.column_at)?;
        // SAFETY: depthwise_* and conv2d_window_*(input, weight, bias or null, row table, column
        // table, output, WindowParameters): 256 threads; strips, rows and channels beyond the last
        // are guarded; the tables hold rows and columns of the image or -1, and reach as far as
        // the last strip looks.
        unsafe {
            launch
                .operations(self.pass.operations() * self.pass.groups)
                .input(input)
                .input(weight)
                .input_or_null(bias)
                .input(&rows)
                .input(&columns)
                .output(output)
                .parameters(parameters)
                .enqueue(cuda)
        }
    }

    /// The gradient of a forward pass's weight.
    pub fn depthwise_gradient(
        &self,
        cuda: &Cuda,
        input: &DeviceBuffer,
        gradient: &DeviceBuffer,
        found: &mut DeviceBuffer,
    ) -> Result<()> {
        let (items, channels) = (self.items(self.pass.samples), self.pass.outputs);
        let parts = items
            .div_ceil(4 * THREADS)
            .min(ENOUGH_BLOCKS.div_ceil(channels));
        let [kernel, stride] = self.kind();
        let launch = Launch::new(&DEPTHWISE_TO_WEIGHT[kernel][stride]).grid([channels, parts, 1]);
        self.gradient(cuda, launch, [items, parts], [input, gradient], found)
    }

    /// The gradient of a forward pass's weight.
    pub fn dense_gradient(
        &self,
        cuda: &Cuda,
        input: &DeviceBuffer,
        gradient: &DeviceBuffer,
        found: &mut DeviceBuffer,
    ) -> Result<()> {
        let items = self.items(self.pass.samples);
        let tiles = [
            self.pass.input[0].div_ceil(8),
            self.pass.outputs.div_ceil(GRADIENTS),
        ];
        let parts = items
            .div_ceil(8 * 32)
            .min(ENOUGH_BLOCKS.div_ceil(tiles[0] * tiles[1]));
        let kernel = &DENSE_TO_WEIGHT[self.pass.stride - 1];
        let launch = Launch::new(kernel).grid([tiles[0], tiles[1], parts]);
        self.gradient(cuda, launch, [items, parts], [input, gradient], found)
    }

    fn gradient(
        &self,
        cuda: &Cuda,
        launch: Launch,
        [items, parts]: [usize; 2],
        [input, gradient]: [&DeviceBuffer; 2],
        found: &mut DeviceBuffer,
    ) -> Result<()> {
        let parameters = self.parameters(items, parts)?;
        let rows = cuda.constant(&self.row_at)?;
        let columns = cuda.constant(&self.column_at)?;
        let mut partial = (parts > 1)
            .then(|| cuda.any(parts * self.pass.weights[0]))
            .transpose()?;
        // SAFETY: *_to_weight(input, gradient, row table, column table, partial,
        // WindowParameters): as for the forward pass; the output holds all weights for each part,
        // the last axis of the grid.
        unsafe {
            launch
                .operations(self.pass.operations() * self.pass.groups)
                .input(input)
                .input(gradient)
                .input(&rows)
                .input(&columns)
                .output(partial.as_mut().unwrap_or(found))
                .parameters(&parameters)
                .enqueue(cuda)?;
        }
        match partial {
            Some(partial) => reduce(cuda, &partial, parts, found, 0),
            None => Ok(()),
        }
    }

    /// How long a dense pass takes on an H200, about.
    pub fn expected_ms(&self) -> f64 {
        const PER_MS: f64 = 27e9;
        let pass = self.pass;
        let blocks = self.items(pass.samples).div_ceil(THREADS) * pass.outputs.div_ceil(OUTPUTS);
        let made = pass.outputs.next_multiple_of(OUTPUTS) as f64 / pass.outputs as f64;
        let idle = (ENOUGH_BLOCKS as f64 / 2.0 / blocks as f64).max(1.0);
        pass.operations() as f64 * made * idle / PER_MS
    }

    /// How long the gradient of its weight takes on an H200, about.
    pub fn expected_gradient_ms(&self) -> f64 {
        const PER_MS: f64 = 13e9;
        let pass = self.pass;
        let tiles = [pass.outputs, pass.input[0]].map(|n| n.next_multiple_of(8) as f64 / n as f64);
        pass.operations() as f64 * tiles[0] * tiles[1] / PER_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::conv2d::{Conv2d, Pad, geometry::Geometry};

    fn geometry(pad: Pad, stride: usize, length: usize) -> Geometry {
        let options = Conv2d {
            stride,
            padding: [1; 4],
            rows: pad,
            columns: pad,
            groups: 1,
        };
        Geometry::of_shapes([1, 1, length, length], [1, 1, 3, 3], &options).unwrap()
    }

    #[test]
    fn a_padded_axis_is_found_from_its_windows() {
        let forward = |pad, stride| Pass::forward(&geometry(pad, stride, 4));
        let rows = |pass: &Pass| Windows::of(pass).map(|windows| windows.row_at);
        let table = |pad| rows(&forward(pad, 1)).unwrap();
        assert_eq!(table(Pad::Zero), [-1, 0, 1, 2, 3, -1]);
        assert_eq!(table(Pad::Circular), [3, 0, 1, 2, 3, 0]);
        assert_eq!(table(Pad::Reflect), [1, 0, 1, 2, 3, 2]);
        // Two outputs, and two beyond the last that see nothing.
        let strided = rows(&forward(Pad::Zero, 2)).unwrap();
        assert_eq!(strided, [-1, 0, 1, 2, 3, -1, -1, -1, -1]);
    }

    #[test]
    fn towards_the_input_only_what_is_not_mirrored_slides() {
        let back = |pad, stride| Pass::to_input(&geometry(pad, stride, 4));
        let rows = |pass: &Pass| Windows::of(pass).map(|windows| windows.row_at);
        assert_eq!(rows(&back(Pad::Zero, 1)).unwrap(), [-1, 0, 1, 2, 3, -1]);
        assert_eq!(rows(&back(Pad::Circular, 1)).unwrap(), [3, 0, 1, 2, 3, 0]);
        assert_eq!(rows(&back(Pad::Reflect, 1)), None);
        // Input row y was seen by output row (y + 1 - u) / 2, where that is whole.
        let strided = rows(&back(Pad::Zero, 2)).unwrap();
        assert_eq!(strided, [-1, 0, -1, 1, -1, -1]);
    }
}
