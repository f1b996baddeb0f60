//! Adds up the partial sums that the blocks of a kernel left behind, always in one order.

use crate::cuda::{Cuda, DeviceBuffer, Kernel, Launch, Source, count, parameters};
use crate::error::Result;
use crate::tensor::Tensor;

pub(crate) static SOURCE: Source = Source {
    name: "ops/total.cu",
    text: include_str!("total.cu"),
    hot: &[],
};
static TOTAL: Kernel = Kernel {
    source: &SOURCE,
    entry: "total",
};

parameters! {
    struct TotalParameters {
        count: u32,
        scale: f32,
    }
}

/// `scale` times the sum of `partial`, as a tensor without axes.
pub(crate) fn total(cuda: &Cuda, partial: &DeviceBuffer<f64>, scale: f32) -> Result<Tensor> {
    let parameters = TotalParameters {
        count: count("total", partial.len())?,
        scale,
    };
    let mut sum = cuda.any(1)?;
    // SAFETY: total(partial, sum, TotalParameters) by one block: `partial` has `count` elements,
    // by which the kernel guards its index, and `sum` one.
    unsafe {
        Launch::new(&TOTAL)
            .input(partial)
            .output(&mut sum)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    Ok(Tensor::from_device(sum, &[]))
}
