//! What the element-by-element operations share: slices cut into pieces for the threads.

use crate::buffer;
use crate::tensor::Tensor;
use rayon::prelude::*;

/// Elements per task: enough to pay for handing it over, few enough to stay in the cache.
const PIECE: usize = 16 * 1024;

/// A tensor shaped like `input` whose pieces `function(input, output)` fills in.
pub(crate) fn map(input: &Tensor, function: impl Fn(&[f32], &mut [f32]) + Sync) -> Tensor {
    let mut output = buffer::any(input.len());
    output
        .par_chunks_mut(PIECE)
        .zip(input.data().par_chunks(PIECE))
        .for_each(|(output, input)| function(input, output));
    Tensor::from_parts(output, input.shape())
}

/// As [`map`] for two inputs of the same shape.
pub(crate) fn zip(
    a: &Tensor,
    b: &Tensor,
    function: impl Fn(&[f32], &[f32], &mut [f32]) + Sync,
) -> Tensor {
    let mut output = buffer::any(a.len());
    output
        .par_chunks_mut(PIECE)
        .zip(a.data().par_chunks(PIECE))
        .zip(b.data().par_chunks(PIECE))
        .for_each(|((output, a), b)| function(a, b, output));
    Tensor::from_parts(output, a.shape())
}
