//! The GPU side: a thread for each point and a slice of channels.

use super::{OP, Outside, Size};
use crate::cuda::{Cuda, DeviceBuffer, Kernel, Launch, Source, count, parameters};
use crate::error::Result;
use crate::tape::Tape;
use crate::tensor::Tensor;

pub(crate) static SOURCE: Source = Source {
    name: "ops/grid_sample.cu",
    text: include_str!("../grid_sample.cu"),
    hot: &[
        "grid_sample_forward",
        "grid_sample_to_grid",
        "grid_sample_largest",
        "grid_sample_scatter",
        "grid_sample_settle",
    ],
};
const fn kernel(entry: &'static str) -> Kernel {
    Kernel {
        source: &SOURCE,
        entry,
    }
}
static FORWARD: Kernel = kernel("grid_sample_forward");
static TO_GRID: Kernel = kernel("grid_sample_to_grid");
static LARGEST: Kernel = kernel("grid_sample_largest");
static SCATTER: Kernel = kernel("grid_sample_scatter");
static SETTLE: Kernel = kernel("grid_sample_settle");

/// Threads of a block, each with one point.
const BLOCK: usize = 256;
/// Channels of one thread: enough to pay for the taps of its point.
const SLICE: usize = 16;
/// Most bits of a unit below the largest gradient: then a term keeps more than f32 has.
const MOST_BITS: i32 = 44;

parameters! {
    struct GridSampleParameters {
        channels: u32,
        height: u32,
        width: u32,
        points: u32,
        slice: u32,
        outside: u32,
        bits: i32,
    }
}

impl GridSampleParameters {
    /// Blocks of points, slices of channels, samples.
    fn grid(&self, samples: usize) -> [usize; 3] {
        let blocks = (self.points as usize).div_ceil(BLOCK);
        [blocks, self.channels.div_ceil(self.slice) as usize, samples]
    }
}

pub(super) fn grid_sample(
    tape: &mut Tape,
    cuda: &Cuda,
    inputs: [&Tensor; 2],
    size: &Size,
    outside: Outside,
) -> Result<Tensor> {
    let [input, grid] = inputs;
    let [n, p, q, _] = grid.dims4(OP, "grid")?;
    count(OP, input.len())?;
    count(OP, grid.len())?;
    count(OP, n * size.channels * size.points)?;
    // All points may touch one pixel with their four corners, each less than two largest
    // gradients; 63 bits hold their sum.
    let points = 1 + i32::try_from(size.points.ilog2()).unwrap_or(31);
    let parameters = GridSampleParameters {
        channels: size.channels as u32,
        height: size.height as u32,
        width: size.width as u32,
        points: size.points as u32,
        slice: SLICE as u32,
        outside: match outside {
            Outside::Empty => 0,
            Outside::Zeros => 1,
            Outside::Border => 2,
        },
        bits: (60 - points).min(MOST_BITS),
    };
    let mut output = cuda.any(n * size.channels * size.points)?;
    // SAFETY: grid_sample_forward(input, grid, output, GridSampleParameters): the kernel guards
    // its point by `points` and its channel by `channels`; taps lie inside the image; lengths as
    // the shapes say, a pair of coordinates for each point.
    unsafe {
        Launch::new(&FORWARD)
            .grid(parameters.grid(n))
            .input(input.buffer())
            .input(grid.buffer())
            .output(&mut output)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    let mut output = Tensor::from_device(output, &[n, size.channels, p, q]);
    let saved = tape
        .needs_gradient(&inputs)
        .then(|| (cuda.clone(), input.clone(), grid.clone()));
    tape.record(&mut output, &inputs, move |gradient| {
        let (cuda, input, grid) = saved.expect("saved whenever recorded");
        let to_input = input
            .requires_gradient()
            .then(|| to_input(&cuda, &input, &grid, gradient, &parameters));
        let to_grid = grid
            .requires_gradient()
            .then(|| to_grid(&cuda, &input, &grid, gradient, &parameters));
        Ok(vec![to_input.transpose()?, to_grid.transpose()?])
    });
    Ok(output)
}

fn to_input(
    cuda: &Cuda,
    input: &Tensor,
    grid: &Tensor,
    gradient: &Tensor,
    parameters: &GridSampleParameters,
) -> Result<Tensor> {
    let [n, c, h, w] = input.dims4(OP, "input")?;
    let planes = n * c;
    let mut largest = cuda.any::<f32>(planes)?;
    // SAFETY: grid_sample_largest(gradient, largest, GridSampleParameters): one block for each
    // plane, guarding its index by `points`, with one number each.
    unsafe {
        Launch::new(&LARGEST)
            .grid([planes, 1, 1])
            .input(gradient.buffer())
            .output(&mut largest)
            .parameters(parameters)
            .enqueue(cuda)?;
    }
    let mut sums: DeviceBuffer<u64> = cuda.zeros(input.len())?;
    // SAFETY: grid_sample_scatter(grid, gradient, largest, sums, GridSampleParameters): as in the
    // forward pass; `sums` is as long as the image, adds to it are atomic.
    unsafe {
        Launch::new(&SCATTER)
            .grid(parameters.grid(n))
            .input(grid.buffer())
            .input(gradient.buffer())
            .input(&largest)
            .output(&mut sums)
            .parameters(parameters)
            .enqueue(cuda)?;
    }
    let mut result = cuda.any(input.len())?;
    let blocks = (h * w).div_ceil(BLOCK).min(64);
    // SAFETY: grid_sample_settle(sums, largest, result, GridSampleParameters): blocks of each
    // plane stride over its pixels; all but `largest` are as long as the image.
    unsafe {
        Launch::new(&SETTLE)
            .grid([planes, blocks, 1])
            .input(&sums)
            .input(&largest)
            .output(&mut result)
            .parameters(parameters)
            .enqueue(cuda)?;
    }
    Ok(Tensor::from_device(result, input.shape()))
}

fn to_grid(
    cuda: &Cuda,
    input: &Tensor,
    grid: &Tensor,
    gradient: &Tensor,
    parameters: &GridSampleParameters,
) -> Result<Tensor> {
    let [blocks, _, samples] = parameters.grid(grid.shape()[0]);
    let mut result = cuda.any(grid.len())?;
    // SAFETY: grid_sample_to_grid(input, grid, gradient, result, GridSampleParameters): as in the
    // forward pass, all channels in one thread; the result is like the grid.
    unsafe {
        Launch::new(&TO_GRID)
            .grid([blocks, 1, samples])
            .input(input.buffer())
            .input(grid.buffer())
            .input(gradient.buffer())
            .output(&mut result)
            .parameters(parameters)
            .enqueue(cuda)?;
    }
    Ok(Tensor::from_device(result, grid.shape()))
}
