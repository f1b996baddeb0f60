//! Fills a buffer with one value.

use super::{DeviceBuffer, Kernel, Launch, Source, count, parameters};
use crate::error::Result;

pub(crate) static SOURCE: Source = Source {
    name: "cuda/fill.cu",
    text: include_str!("fill.cu"),
    hot: &[],
};
static FILL: Kernel = Kernel {
    source: &SOURCE,
    entry: "fill_forward",
};

parameters! {
    struct FillParameters {
        count: u32,
        value: f32,
    }
}

/// Enqueues overwriting all elements with `value`.
pub(crate) fn fill(buffer: &mut DeviceBuffer, value: f32) -> Result<()> {
    let cuda = buffer.cuda().clone();
    let parameters = FillParameters {
        count: count("fill", buffer.len())?,
        value,
    };
    let launch = Launch::new(&FILL).over(buffer.len());
    // SAFETY: fill_forward(output, FillParameters): the buffer has `count` elements, and the kernel
    // guards every index by `count`.
    unsafe { launch.output(buffer).parameters(&parameters).enqueue(&cuda) }
}
