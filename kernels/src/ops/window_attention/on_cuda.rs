//! The GPU side: a block for each window and head, a warp for each query.
//!
//! The products are too small for the matrix library, 64 by 64 by 16 for the published network, and
//! all of a window's rows stay in the first cache.

use super::{OP, Plan};
use crate::cuda::{Cuda, DeviceBuffer, Kernel, Launch, Source, count, parameters};
use crate::error::Result;
use crate::tape::Tape;
use crate::tensor::Tensor;

pub(crate) static SOURCE: Source = Source {
    name: "ops/window_attention.cu",
    text: include_str!("../window_attention.cu"),
    hot: &[
        "window_attention_forward",
        "window_attention_to_query",
        "window_attention_to_key",
        "window_attention_to_table",
    ],
};
const fn kernel(entry: &'static str) -> Kernel {
    Kernel {
        source: &SOURCE,
        entry,
    }
}
static FORWARD: Kernel = kernel("window_attention_forward");
static TO_QUERY: Kernel = kernel("window_attention_to_query");
static TO_KEY: Kernel = kernel("window_attention_to_key");
static TO_TABLE: Kernel = kernel("window_attention_to_table");

parameters! {
    struct WindowAttentionParameters {
        samples: u32,
        heads: u32,
        depth: u32,
        width: u32,
        pixels: u32,
        side: u32,
        windows: u32,
        scale: f32,
    }
}

impl WindowAttentionParameters {
    /// Windows, samples · heads.
    fn grid(&self) -> [usize; 3] {
        [
            self.windows as usize,
            self.samples as usize * self.heads as usize,
            1,
        ]
    }
}

/// What the backward pass reads.
struct Saved {
    cuda: Cuda,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    /// The softmax of every head, `[N, heads, windows, tokens, tokens]`.
    shares: DeviceBuffer,
}

pub(super) fn window_attention(
    tape: &mut Tape,
    cuda: &Cuda,
    inputs: [&Tensor; 4],
    mask: Option<&Tensor>,
    plan: &Plan,
) -> Result<Tensor> {
    let [query, key, value, table] = inputs;
    let samples = query.len() / (plan.heads * plan.head_len());
    let shares = samples * plan.heads * plan.pixels() * plan.tokens();
    count(OP, query.len())?;
    count(OP, shares)?;
    let parameters = WindowAttentionParameters {
        samples: samples as u32,
        heads: plan.heads as u32,
        depth: plan.depth as u32,
        width: plan.width as u32,
        pixels: plan.pixels() as u32,
        side: plan.side as u32,
        windows: (plan.pixels() / plan.tokens()) as u32,
        scale: plan.scale(),
    };
    let mut shares = cuda.any(shares)?;
    let mut output = cuda.any(query.len())?;
    // SAFETY: window_attention_forward(query, key, value, table, mask or null, shares, output,
    // WindowAttentionParameters): one block for each window of each sample and head; windows tile
    // the image (checked by the caller), so tokens are pixels; lengths as the shapes say, a row of
    // the table for each offset in a window, tokens² shares for each block.
    unsafe {
        Launch::new(&FORWARD)
            .grid(parameters.grid())
            .input(query.buffer())
            .input(key.buffer())
            .input(value.buffer())
            .input(table.buffer())
            .input_or_null(mask.map(Tensor::buffer))
            .output(&mut shares)
            .output(&mut output)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    let mut output = Tensor::from_device(output, query.shape());
    let saved = tape.needs_gradient(&inputs).then(|| Saved {
        cuda: cuda.clone(),
        query: query.clone(),
        key: key.clone(),
        value: value.clone(),
        shares,
    });
    let table_shape = table.shape().to_vec();
    tape.record(&mut output, &inputs, move |gradient| {
        let saved = saved.expect("saved whenever recorded");
        backward(&saved, gradient, &table_shape, &parameters)
    });
    Ok(output)
}

fn backward(
    saved: &Saved,
    gradient: &Tensor,
    table_shape: &[usize],
    p: &WindowAttentionParameters,
) -> Result<Vec<Option<Tensor>>> {
    let cuda = &saved.cuda;
    let mut slopes = cuda.any::<f32>(saved.shares.len())?;
    let mut to_query = cuda.any(gradient.len())?;
    // SAFETY: window_attention_to_query(key, value, shares, gradient, slopes, to_query,
    // WindowAttentionParameters): as in the forward pass; slopes are like the shares.
    unsafe {
        Launch::new(&TO_QUERY)
            .grid(p.grid())
            .input(saved.key.buffer())
            .input(saved.value.buffer())
            .input(&saved.shares)
            .input(gradient.buffer())
            .output(&mut slopes)
            .output(&mut to_query)
            .parameters(p)
            .enqueue(cuda)?;
    }
    let (mut to_key, mut to_value) = (cuda.any(gradient.len())?, cuda.any(gradient.len())?);
    // SAFETY: window_attention_to_key(query, shares, slopes, gradient, to_key, to_value,
    // WindowAttentionParameters): as above, a block for each window of each sample and head.
    unsafe {
        Launch::new(&TO_KEY)
            .grid(p.grid())
            .input(saved.query.buffer())
            .input(&saved.shares)
            .input(&slopes)
            .input(gradient.buffer())
            .output(&mut to_key)
            .output(&mut to_value)
            .parameters(p)
            .enqueue(cuda)?;
    }
    let mut to_table = cuda.any(table_shape.iter().product())?;
    // SAFETY: window_attention_to_table(slopes, to_table, WindowAttentionParameters): one block
    // for each element of the table, reading pairs of tokens within the windows.
    unsafe {
        Launch::new(&TO_TABLE)
            .grid([table_shape[0], table_shape[1], 1])
            .input(&slopes)
            .output(&mut to_table)
            .parameters(p)
            .enqueue(cuda)?;
    }
    let to_tokens = [to_query, to_key, to_value];
    let mut found: Vec<_> = to_tokens
        .into_iter()
        .map(|buffer| Some(Tensor::from_device(buffer, gradient.shape())))
        .collect();
    found.push(Some(Tensor::from_device(to_table, table_shape)));
    Ok(found)
}
