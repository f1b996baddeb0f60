//! Depthwise convolutions of any kernel, stride and padding, by tables.

use super::{OP, Pass, kernel};
use crate::cuda::{Cuda, DeviceBuffer, Kernel, Launch, count, parameters};
use crate::error::Result;

static DEPTHWISE: Kernel = kernel("depthwise_forward");
static DEPTHWISE_TO_WEIGHT: Kernel = kernel("depthwise_to_weight");

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

fn parameters(pass: &Pass) -> Result<DepthwiseParameters> {
    let [channels, pixels, width] = pass.input;
    Ok(DepthwiseParameters {
        count: count(OP, pass.samples * channels * pass.pixels())?,
        channels: channels as u32,
        samples: pass.samples as u32,
        rows: pass.rows_from.outputs() as u32,
        columns: pass.columns_from.outputs() as u32,
        input_height: (pixels / width) as u32,
        input_width: width as u32,
        row_taps: pass.rows_from.taps as u32,
        column_taps: pass.columns_from.taps as u32,
        row_repeat: pass.rows_from.repeat as u32,
        column_repeat: pass.columns_from.repeat as u32,
    })
}

pub(super) fn run(
    cuda: &Cuda,
    pass: &Pass,
    [input, weight]: [&DeviceBuffer; 2],
    bias: Option<&DeviceBuffer>,
    output: &mut DeviceBuffer,
) -> Result<()> {
    let parameters = parameters(pass)?;
    let rows = cuda.constant(&pass.rows_from.table)?;
    let columns = cuda.constant(&pass.columns_from.table)?;
    let launch = Launch::new(&DEPTHWISE).over(output.len());
    // SAFETY: depthwise_forward(input, weight, bias or null, row table, column table, output,
    // DepthwiseParameters): the kernel guards its index by `count`, the elements written; the
    // tables hold rows and columns of the image or -1.
    unsafe {
        launch
            .operations(pass.operations() * pass.groups)
            .input(input)
            .input(weight)
            .input_or_null(bias)
            .input(&rows)
            .input(&columns)
            .output(output)
            .parameters(&parameters)
            .enqueue(cuda)
    }
}

/// The gradient of a forward pass's weight.
pub(super) fn to_weight(
    cuda: &Cuda,
    pass: &Pass,
    input: &DeviceBuffer,
    gradient: &DeviceBuffer,
    found: &mut DeviceBuffer,
) -> Result<()> {
    let parameters = parameters(pass)?;
    let taps = pass.rows_from.taps * pass.columns_from.taps;
    let rows = cuda.constant(&pass.rows_from.table)?;
    let columns = cuda.constant(&pass.columns_from.table)?;
    // SAFETY: depthwise_to_weight(input, gradient, row table, column table, found,
    // DepthwiseParameters): a block for each channel and tap, the elements of `found`; pixels are
    // guarded by rows · columns, the tables as above.
    unsafe {
        Launch::new(&DEPTHWISE_TO_WEIGHT)
            .grid([found.len() / taps, taps, 1])
            .operations(pass.operations() * pass.groups)
            .input(input)
            .input(gradient)
            .input(&rows)
            .input(&columns)
            .output(found)
            .parameters(&parameters)
            .enqueue(cuda)
    }
}
