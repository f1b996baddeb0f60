//! The GPU side: a warp for each pixel and head; gradients of the image are gathered column by
//! column, so that no two threads add to one number.

use super::{OP, Plan};
use crate::cuda::{Cuda, DeviceBuffer, Kernel, Launch, Source, count, parameters};
use crate::error::Result;
use crate::tape::Tape;
use crate::tensor::Tensor;

pub(crate) static SOURCE: Source = Source {
    name: "ops/column_attention.cu",
    text: include_str!("../column_attention.cu"),
    hot: &[
        "column_attention_transpose",
        "column_attention_forward",
        "column_attention_to_query",
        "column_attention_to_image",
    ],
};
const fn kernel(entry: &'static str) -> Kernel {
    Kernel {
        source: &SOURCE,
        entry,
    }
}
static TURN: Kernel = kernel("column_attention_transpose");
static FORWARD: Kernel = kernel("column_attention_forward");
static TO_QUERY: Kernel = kernel("column_attention_to_query");
static TO_IMAGE: Kernel = kernel("column_attention_to_image");

/// Threads of a block, and the pixels of its warps.
const BLOCK: usize = 256;
const WARPS: usize = BLOCK / 32;

parameters! {
    struct ColumnAttentionParameters {
        count: u32,
        heads: u32,
        depth: u32,
        rows: u32,
        columns: u32,
        pixels: u32,
        scale: f32,
    }
}

/// What the backward pass reads.
struct Saved {
    cuda: Cuda,
    query: Tensor,
    columns: Tensor,
    /// Transposed, `[N, heads, columns, rows, depth]`.
    key: DeviceBuffer,
    value: DeviceBuffer,
    /// The softmax of every pixel and head, `[N, heads, pixels, 2 rows]`.
    shares: DeviceBuffer,
}

pub(super) fn column_attention(
    tape: &mut Tape,
    cuda: &Cuda,
    inputs: [&Tensor; 3],
    columns: &Tensor,
    plan: &Plan,
) -> Result<Tensor> {
    let [query, key, value] = inputs;
    let heads = query.len() / (plan.depth * plan.pixels); // of all samples
    let shares = heads * plan.pixels * 2 * plan.rows;
    for elements in [query.len(), key.len(), shares] {
        count(OP, elements)?;
    }
    let parameters = ColumnAttentionParameters {
        count: key.len() as u32,
        heads: plan.heads as u32,
        depth: plan.depth as u32,
        rows: plan.rows as u32,
        columns: plan.columns as u32,
        pixels: plan.pixels as u32,
        scale: 1.0 / (plan.depth as f32).sqrt(),
    };
    let transposed_key = transposed(cuda, key, &parameters)?;
    let transposed_value = transposed(cuda, value, &parameters)?;
    let mut shares = cuda.any(shares)?;
    let mut output = cuda.any(query.len())?;
    // SAFETY: column_attention_forward(query, key, value, columns, shares, output,
    // ColumnAttentionParameters): a warp for each pixel, guarded by `pixels`, of each sample and
    // head; columns are moved inside the image; lengths as the shapes say, key and value transposed,
    // 2 · rows shares for each warp.
    unsafe {
        Launch::new(&FORWARD)
            .grid([plan.pixels.div_ceil(WARPS), heads, 1])
            .input(query.buffer())
            .input(&transposed_key)
            .input(&transposed_value)
            .input(columns.buffer())
            .output(&mut shares)
            .output(&mut output)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    let mut output = Tensor::from_device(output, query.shape());
    let saved = tape.needs_gradient(&inputs).then(|| Saved {
        cuda: cuda.clone(),
        query: query.clone(),
        columns: columns.clone(),
        key: transposed_key,
        value: transposed_value,
        shares,
    });
    let image_shape = key.shape().to_vec();
    tape.record(&mut output, &inputs, move |gradient| {
        let saved = saved.expect("saved whenever recorded");
        backward(&saved, gradient, &image_shape, &parameters)
    });
    Ok(output)
}

/// From [.., depth, rows, columns] to [.., columns, rows, depth].
fn transposed(cuda: &Cuda, image: &Tensor, p: &ColumnAttentionParameters) -> Result<DeviceBuffer> {
    let mut transposed = cuda.any(image.len())?;
    let launch = Launch::new(&TURN).over(image.len());
    // SAFETY: column_attention_transpose(image, transposed, ColumnAttentionParameters): both have `count`
    // elements, by which the kernel guards its index.
    unsafe {
        launch
            .input(image.buffer())
            .output(&mut transposed)
            .parameters(p)
            .enqueue(cuda)?;
    }
    Ok(transposed)
}

fn backward(
    saved: &Saved,
    gradient: &Tensor,
    image_shape: &[usize],
    p: &ColumnAttentionParameters,
) -> Result<Vec<Option<Tensor>>> {
    let cuda = &saved.cuda;
    let (pixels, elements) = (p.pixels as usize, p.rows as usize * p.depth as usize);
    let heads = gradient.len() / (p.depth as usize * pixels);
    let mut slopes = cuda.any::<f32>(saved.shares.len())?;
    let mut to_query = cuda.any(gradient.len())?;
    // SAFETY: column_attention_to_query(key, value, columns, shares, gradient, slopes, to_query,
    // ColumnAttentionParameters): as in the forward pass; slopes are like the shares.
    unsafe {
        Launch::new(&TO_QUERY)
            .grid([pixels.div_ceil(WARPS), heads, 1])
            .input(&saved.key)
            .input(&saved.value)
            .input(saved.columns.buffer())
            .input(&saved.shares)
            .input(gradient.buffer())
            .output(&mut slopes)
            .output(&mut to_query)
            .parameters(p)
            .enqueue(cuda)?;
    }
    let (mut to_key, mut to_value) = (cuda.any(saved.key.len())?, cuda.any(saved.key.len())?);
    // SAFETY: column_attention_to_image(query, columns, shares, slopes, gradient, to_key, to_value,
    // ColumnAttentionParameters): blocks of 256 threads share the rows · depth elements of each
    // column of each sample and head, guarded by `depth`; pixels are guarded by `pixels`.
    unsafe {
        Launch::new(&TO_IMAGE)
            .grid([elements.div_ceil(BLOCK), p.columns as usize, heads])
            .input(saved.query.buffer())
            .input(saved.columns.buffer())
            .input(&saved.shares)
            .input(&slopes)
            .input(gradient.buffer())
            .output(&mut to_key)
            .output(&mut to_value)
            .parameters(p)
            .enqueue(cuda)?;
    }
    Ok(vec![
        Some(Tensor::from_device(to_query, gradient.shape())),
        Some(Tensor::from_device(to_key, image_shape)),
        Some(Tensor::from_device(to_value, image_shape)),
    ])
}
