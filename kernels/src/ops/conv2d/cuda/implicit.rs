//! Dense convolutions by implicit im2col: a matrix product that reads the image in place, in one launch
//! without working memory.

use super::{ENOUGH_BLOCKS, OP, Pass, kernel, of_precision, reduce};
use crate::cuda::{Cuda, DeviceBuffer, Kernel, Launch, count, parameters};
use crate::error::Result;

/// Outputs of a block along both axes, as in the `.cu` file.
const TILE: usize = 64;
/// Pixels that are worth a part of their own.
const FEWEST_PIXELS: usize = 256;

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

fn parameters(pass: &Pass, group: usize, parts: usize) -> Result<ConvolutionParameters> {
    let [channels, pixels, width] = pass.input;
    count(OP, pass.weights[0] * parts)?;
    Ok(ConvolutionParameters {
        rows: pass.rows as u32,
        depth: pass.depth() as u32,
        samples: pass.samples as u32,
        pixels: pass.pixels() as u32,
        columns: pass.columns_from.outputs() as u32,
        row_taps: pass.rows_from.taps as u32,
        column_taps: pass.columns_from.taps as u32,
        input_width: width as u32,
        input_sample: (channels * pixels) as u32,
        output_sample: (pass.outputs * pass.pixels()) as u32,
        weight_row: pass.weight_steps[0] as u32,
        input_offset: (group * pass.channels() * pixels) as u32,
        output_offset: (group * pass.rows * pass.pixels()) as u32,
        weight_offset: (group * pass.weights[1]) as u32,
        bias_offset: (group * pass.rows) as u32,
        parts: parts as u32,
    })
}

pub(super) fn run(
    cuda: &Cuda,
    pass: &Pass,
    [input, weight]: [&DeviceBuffer; 2],
    bias: Option<&DeviceBuffer>,
    output: &mut DeviceBuffer,
) -> Result<()> {
    let tiles = [
        (pass.samples * pass.pixels()).div_ceil(TILE),
        pass.rows.div_ceil(TILE),
        1,
    ];
    let taps = cuda.constant(&pass.taps())?;
    let rows = cuda.constant(&pass.rows_from.table)?;
    let columns = cuda.constant(&pass.columns_from.table)?;
    for group in 0..pass.groups {
        let parameters = parameters(pass, group, 1)?;
        // SAFETY: conv2d_forward_*(input, weight, bias or null, taps, row table, column table,
        // output, ConvolutionParameters): 256 threads; pixels, rows and depth beyond the last are
        // guarded; the tables hold rows and columns of the image or -1, and the taps offsets of
        // channels and weights within one group, to which the group's offsets are added.
        unsafe {
            Launch::new(of_precision(cuda, &FORWARD))
                .grid(tiles)
                .operations(pass.operations())
                .input(input)
                .input(weight)
                .input_or_null(bias)
                .input(&taps)
                .input(&rows)
                .input(&columns)
                .output(output)
                .parameters(&parameters)
                .enqueue(cuda)?;
        }
    }
    Ok(())
}

/// The gradient of a forward pass's weight.
pub(super) fn to_weight(
    cuda: &Cuda,
    pass: &Pass,
    input: &DeviceBuffer,
    gradient: &DeviceBuffer,
    found: &mut DeviceBuffer,
) -> Result<()> {
    let depth = pass.depth();
    let tiles = [depth.div_ceil(TILE), pass.rows.div_ceil(TILE)];
    let parts = (pass.samples * pass.pixels())
        .div_ceil(FEWEST_PIXELS)
        .min((ENOUGH_BLOCKS / 2).div_ceil(tiles[0] * tiles[1]));
    let taps = cuda.constant(&pass.taps())?;
    let rows = cuda.constant(&pass.rows_from.table)?;
    let columns = cuda.constant(&pass.columns_from.table)?;
    for group in 0..pass.groups {
        let parameters = parameters(pass, group, parts)?;
        let mut partial = cuda.any(parts * pass.rows * depth)?;
        // SAFETY: conv2d_to_weight_*(input, gradient, taps, row table, column table, partial,
        // ConvolutionParameters): as for the forward pass; `partial` holds rows · depth elements
        // for each part, the third axis of the grid.
        unsafe {
            Launch::new(of_precision(cuda, &TO_WEIGHT))
                .grid([tiles[0], tiles[1], parts])
                .operations(pass.operations())
                .input(input)
                .input(gradient)
                .input(&taps)
                .input(&rows)
                .input(&columns)
                .output(&mut partial)
                .parameters(&parameters)
                .enqueue(cuda)?;
        }
        reduce(cuda, &partial, parts, found, group * pass.rows * depth)?;
    }
    Ok(())
}
