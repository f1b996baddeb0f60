//! What the element-by-element operations share: slices cut into pieces for the threads of the
//! processor, and one way of launching their kernels (`elementwise.cu`).

use crate::buffer;
use crate::cuda::{Cuda, Kernel, Launch, Source, count, parameters};
use crate::device::Device;
use crate::error::Result;
use crate::math::add_assign;
use crate::tensor::Tensor;
use rayon::prelude::*;

/// Elements per task: enough to pay for handing it over, few enough to stay in the cache.
const PIECE: usize = 16 * 1024;

pub(crate) static SOURCE: Source = Source {
    name: "ops/elementwise.cu",
    text: include_str!("elementwise.cu"),
    hot: &[
        "add_forward",
        "add_assign",
        "relu_forward",
        "relu_backward",
        "silu_forward",
        "silu_backward",
    ],
};

/// A kernel of `elementwise.cu`.
pub(crate) const fn kernel(entry: &'static str) -> Kernel {
    Kernel {
        source: &SOURCE,
        entry,
    }
}

static ADD_ASSIGN: Kernel = kernel("add_assign");
static SCALE: Kernel = kernel("scale_forward");

parameters! {
    struct ElementwiseParameters {
        count: u32,
        factor: f32,
    }
}

/// A tensor shaped like `input`: on the CPU, `function(input, output)` fills in its pieces;
/// on a device, `kernel(input, output, parameters)`.
pub(crate) fn map(
    input: &Tensor,
    function: impl Fn(&[f32], &mut [f32]) + Sync,
    kernel: &'static Kernel,
) -> Result<Tensor> {
    match input.device() {
        Device::Cpu => Ok(cpu_map(input, function)),
        Device::Cuda(cuda) => cuda_map(&cuda, input, kernel, 0.0),
    }
}

/// As [`map`] for two inputs of the same shape: `kernel(a, b, output, parameters)`.
pub(crate) fn zip(
    a: &Tensor,
    b: &Tensor,
    function: impl Fn(&[f32], &[f32], &mut [f32]) + Sync,
    kernel: &'static Kernel,
) -> Result<Tensor> {
    match Device::common(kernel.entry, &[a, b])? {
        Device::Cpu => {
            let mut output = buffer::any(a.len());
            output
                .par_chunks_mut(PIECE)
                .zip(a.data().par_chunks(PIECE))
                .zip(b.data().par_chunks(PIECE))
                .for_each(|((output, a), b)| function(a, b, output));
            Ok(Tensor::from_parts(output, a.shape()))
        }
        Device::Cuda(cuda) => {
            assert_eq!(a.len(), b.len(), "{}: lengths differ", kernel.entry);
            let mut output = cuda.any(a.len())?;
            let launch = Launch::new(kernel).over(a.len().div_ceil(4));
            // SAFETY: these kernels take (a, b, output, ElementwiseParameters), three
            // buffers of `count` elements each, and guard every index by `count`.
            unsafe {
                launch
                    .input(a.buffer())
                    .input(b.buffer())
                    .output(&mut output)
                    .parameters(&parameters(a.len(), 0.0)?)
                    .enqueue(&cuda)?;
            }
            Ok(Tensor::from_device(output, a.shape()))
        }
    }
}

/// factor · x.
pub(crate) fn scaled(input: &Tensor, factor: f32) -> Result<Tensor> {
    match input.device() {
        Device::Cpu => Ok(cpu_map(input, |input, output| {
            for (y, x) in output.iter_mut().zip(input) {
                *y = factor * x;
            }
        })),
        Device::Cuda(cuda) => cuda_map(&cuda, input, &SCALE, factor),
    }
}

/// sum + more, in place unless `sum` is shared; both have the same shape.
pub(crate) fn accumulated(sum: Tensor, more: &Tensor) -> Result<Tensor> {
    let shape = sum.shape().to_vec();
    match Device::common("backward", &[&sum, more])? {
        Device::Cpu => {
            let mut sum = sum.into_data();
            add_assign(&mut sum, more.data());
            Ok(Tensor::from_parts(sum, &shape))
        }
        Device::Cuda(cuda) => {
            assert_eq!(sum.len(), more.len(), "accumulated: lengths differ");
            let mut sum = sum.into_buffer()?;
            let parameters = parameters(sum.len(), 0.0)?;
            let launch = Launch::new(&ADD_ASSIGN).over(sum.len().div_ceil(4));
            // SAFETY: add_assign(sum, more, ElementwiseParameters): both have `count` elements,
            // and the kernel guards every index by `count`.
            unsafe {
                launch
                    .output(&mut sum)
                    .input(more.buffer())
                    .parameters(&parameters)
                    .enqueue(&cuda)?;
            }
            Ok(Tensor::from_device(sum, &shape))
        }
    }
}

fn parameters(elements: usize, factor: f32) -> Result<ElementwiseParameters> {
    Ok(ElementwiseParameters {
        count: count("elementwise", elements)?,
        factor,
    })
}

fn cpu_map(input: &Tensor, function: impl Fn(&[f32], &mut [f32]) + Sync) -> Tensor {
    let mut output = buffer::any(input.len());
    output
        .par_chunks_mut(PIECE)
        .zip(input.data().par_chunks(PIECE))
        .for_each(|(output, input)| function(input, output));
    Tensor::from_parts(output, input.shape())
}

fn cuda_map(cuda: &Cuda, input: &Tensor, kernel: &'static Kernel, factor: f32) -> Result<Tensor> {
    let mut output = cuda.any(input.len())?;
    let parameters = parameters(input.len(), factor)?;
    let launch = Launch::new(kernel).over(input.len().div_ceil(4));
    // SAFETY: these kernels take (input, output, ElementwiseParameters), two buffers of
    // `count` elements each, and guard every index by `count`.
    unsafe {
        launch
            .input(input.buffer())
            .output(&mut output)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    Ok(Tensor::from_device(output, input.shape()))
}
