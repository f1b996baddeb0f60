//! The GPU side of squeeze and excitation: three launches forward, four backward.

use super::OP;
use crate::cuda::{
    Cuda, DeviceBuffer, Kernel, Launch, Source, THREADS, count, divider, pack, parameters,
    plane_block,
};
use crate::error::{Error, Result};
use crate::ops::global_mean_pool;
use crate::tape::Tape;
use crate::tensor::Tensor;

pub(crate) static SOURCE: Source = Source {
    name: "ops/squeeze_excite.cu",
    text: include_str!("../squeeze_excite.cu"),
    hot: &[
        "squeeze_excite_gates",
        "squeeze_excite_scale",
        "squeeze_excite_products",
        "squeeze_excite_to_hidden",
        "squeeze_excite_to_weights",
        "squeeze_excite_to_input",
    ],
};
const fn kernel(entry: &'static str) -> Kernel {
    Kernel {
        source: &SOURCE,
        entry,
    }
}
static GATES: Kernel = kernel("squeeze_excite_gates");
static SCALE: Kernel = kernel("squeeze_excite_scale");
static PRODUCTS: Kernel = kernel("squeeze_excite_products");
static TO_HIDDEN: Kernel = kernel("squeeze_excite_to_hidden");
static TO_WEIGHTS: Kernel = kernel("squeeze_excite_to_weights");
static TO_INPUT: Kernel = kernel("squeeze_excite_to_input");

/// As the kernels define them: channels of a block that finds gates, hidden units of a block that
/// finds their gradients, and packs that a thread moves.
const CHANNELS: usize = 256;
const UNITS: usize = 16;
const IN_FLIGHT: usize = 4;
/// Threads of the first two.
const MANY_THREADS: u32 = 1024;
/// Hidden units that fit the shared memory of a block that finds gates.
const MOST_HIDDEN: usize = 8192;

parameters! {
    struct SqueezeParameters {
        samples: u32,
        channels: u32,
        hidden: u32,
    }
}

parameters! {
    struct PlaneParameters {
        /// Packs of the images.
        count: u32,
        /// Whether they are four elements, else one.
        wide: u32,
        in_plane: [u32; 3],
        share: f32,
    }
}

fn plane_parameters(shape: [usize; 4]) -> Result<PlaneParameters> {
    let elements = shape.iter().product();
    count(OP, elements)?;
    let pixels = shape[2] * shape[3];
    let pack = pack(pixels);
    Ok(PlaneParameters {
        count: (elements / pack) as u32,
        wide: u32::from(pack == 4),
        in_plane: divider(pixels / pack),
        share: 1.0 / pixels as f32,
    })
}

/// What the backward pass needs.
struct Saved {
    cuda: Cuda,
    input: Tensor,
    reduce: Tensor,
    expand: Tensor,
    /// `[N, C]`.
    means: Tensor,
    /// `[N, S]`, before the `SiLU`.
    hidden: DeviceBuffer,
    /// `[N, C]`.
    gates: DeviceBuffer,
}

pub(super) fn squeeze_excite(
    tape: &mut Tape,
    cuda: &Cuda,
    input: &Tensor,
    [reduce, reduce_bias, expand, expand_bias]: [&Tensor; 4],
) -> Result<Tensor> {
    let shape @ [n, c, ..] = input.dims4(OP, "input")?;
    let s = reduce_bias.len();
    if s > MOST_HIDDEN {
        let what = format!("{s} hidden units, and a device takes {MOST_HIDDEN} at most");
        return Err(Error::argument(OP, what));
    }
    count(OP, 2 * c * s + n * c + c + s)?;
    let parameters = SqueezeParameters {
        samples: n as u32,
        channels: c as u32,
        hidden: s as u32,
    };
    let means = global_mean_pool::forward_cuda(cuda, input, shape)?;
    let (mut hidden, mut gates) = (cuda.any(n * s)?, cuda.any(n * c)?);
    // SAFETY: squeeze_excite_gates(means, reduce, reduce_bias, expand, expand_bias, hidden, gates,
    // SqueezeParameters): shapes checked by the caller, means and gates [N, C], hidden [N, S]; a
    // row of blocks for each sample, of which each writes CHANNELS gates and has shared memory
    // for S numbers.
    unsafe {
        Launch::new(&GATES)
            .grid([c.div_ceil(CHANNELS), n, 1])
            .block([MANY_THREADS, 1, 1])
            .shared(s * size_of::<f32>())
            .input(means.buffer())
            .input(reduce.buffer())
            .input(reduce_bias.buffer())
            .input(expand.buffer())
            .input(expand_bias.buffer())
            .output(&mut hidden)
            .output(&mut gates)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    let planes = plane_parameters(shape)?;
    let mut output = cuda.any(input.len())?;
    // SAFETY: squeeze_excite_scale(input, gates, output, PlaneParameters): both images have
    // `count` packs, by which the kernel guards its index, `in_plane` for each gate.
    unsafe {
        Launch::new(&SCALE)
            .grid([blocks(&planes), 1, 1])
            .input(input.buffer())
            .input(&gates)
            .output(&mut output)
            .parameters(&planes)
            .enqueue(cuda)?;
    }
    let mut output = Tensor::from_device(output, &shape);
    let inputs = [input, reduce, reduce_bias, expand, expand_bias];
    let saved = tape.needs_gradient(&inputs).then(|| Saved {
        cuda: cuda.clone(),
        input: input.clone(),
        reduce: reduce.clone(),
        expand: expand.clone(),
        means,
        hidden,
        gates,
    });
    tape.record(&mut output, &inputs, move |gradient| {
        let saved = saved.expect("saved whenever recorded");
        backward(&saved, gradient, &parameters, &planes)
    });
    Ok(output)
}

/// Blocks that move the images.
fn blocks(planes: &PlaneParameters) -> usize {
    (planes.count as usize).div_ceil(IN_FLIGHT * THREADS as usize)
}

fn backward(
    saved: &Saved,
    gradient: &Tensor,
    p: &SqueezeParameters,
    planes: &PlaneParameters,
) -> Result<Vec<Option<Tensor>>> {
    let cuda = &saved.cuda;
    let [n, c, s] = [p.samples, p.channels, p.hidden].map(|length| length as usize);
    let mut to_gates = cuda.any::<f32>(n * c)?;
    let [packs, ..] = planes.in_plane;
    // SAFETY: squeeze_excite_products(input, gradient, to_gates, PlaneParameters): one block for
    // each plane of `in_plane` packs, as many as there are gates.
    unsafe {
        Launch::new(&PRODUCTS)
            .grid([n * c, 1, 1])
            .block(plane_block(packs as usize))
            .input(saved.input.buffer())
            .input(gradient.buffer())
            .output(&mut to_gates)
            .parameters(planes)
            .enqueue(cuda)?;
    }
    let mut to_hidden = cuda.any::<f32>(n * s)?;
    // SAFETY: squeeze_excite_to_hidden(to_gates, gates, expand, hidden, to_hidden,
    // SqueezeParameters): gates [N, C], expand [C, S], hidden [N, S]; a row of blocks for each
    // sample, UNITS units each, by which the kernel guards its index.
    unsafe {
        Launch::new(&TO_HIDDEN)
            .grid([s.div_ceil(UNITS), n, 1])
            .block([MANY_THREADS, 1, 1])
            .input(&to_gates)
            .input(&saved.gates)
            .input(saved.expand.buffer())
            .input(&saved.hidden)
            .output(&mut to_hidden)
            .parameters(p)
            .enqueue(cuda)?;
    }
    let mut to_means = cuda.any::<f32>(n * c)?;
    let (mut to_reduce, mut to_reduce_bias) = (cuda.any(s * c)?, cuda.any(s)?);
    let (mut to_expand, mut to_expand_bias) = (cuda.any(c * s)?, cuda.any(c)?);
    let launch = Launch::new(&TO_WEIGHTS).over(2 * c * s + n * c + c + s);
    // SAFETY: squeeze_excite_to_weights(to_gates, gates, means, hidden, to_hidden, reduce,
    // to_means, to_reduce, to_reduce_bias, to_expand, to_expand_bias, SqueezeParameters): shapes
    // as above, the results like what they are the gradients of; the kernel guards its index by
    // the numbers of all five.
    unsafe {
        launch
            .input(&to_gates)
            .input(&saved.gates)
            .input(saved.means.buffer())
            .input(&saved.hidden)
            .input(&to_hidden)
            .input(saved.reduce.buffer())
            .output(&mut to_means)
            .output(&mut to_reduce)
            .output(&mut to_reduce_bias)
            .output(&mut to_expand)
            .output(&mut to_expand_bias)
            .parameters(p)
            .enqueue(cuda)?;
    }
    let mut to_input = cuda.any(gradient.len())?;
    // SAFETY: squeeze_excite_to_input(gradient, gates, to_means, to_input, PlaneParameters): both
    // images have `count` packs, by which the kernel guards its index, `in_plane` for each of the
    // other two.
    unsafe {
        Launch::new(&TO_INPUT)
            .grid([blocks(planes), 1, 1])
            .input(gradient.buffer())
            .input(&saved.gates)
            .input(&to_means)
            .output(&mut to_input)
            .parameters(planes)
            .enqueue(cuda)?;
    }
    Ok(vec![
        Some(Tensor::from_device(to_input, gradient.shape())),
        Some(Tensor::from_device(to_reduce, &[s, c])),
        Some(Tensor::from_device(to_reduce_bias, &[s])),
        Some(Tensor::from_device(to_expand, &[c, s])),
        Some(Tensor::from_device(to_expand_bias, &[c])),
    ])
}
