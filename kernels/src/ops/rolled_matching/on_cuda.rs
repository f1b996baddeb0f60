//! The GPU side of the matching: the scores of all orientations are one matrix product for each
//! sample, as are both gradients; the norms and what they multiply are kernels.

use super::{OP, Plan};
use crate::cuda::{
    Cuda, DeviceBuffer, Kernel, Launch, Matrix, Product, Source, THREADS, count, divider, pack,
    parameters, pixel_block,
};
use crate::error::Result;
use crate::tape::Tape;
use crate::tensor::Tensor;

pub(crate) static SOURCE: Source = Source {
    name: "ops/rolled_matching.cu",
    text: include_str!("../rolled_matching.cu"),
    hot: &[
        "rolled_matching_norms",
        "rolled_matching_scale",
        "rolled_matching_pull",
        "rolled_matching_to_aerial",
    ],
};
const fn kernel(entry: &'static str) -> Kernel {
    Kernel {
        source: &SOURCE,
        entry,
    }
}
static ROLL: Kernel = kernel("rolled_matching_roll");
static NORMS: Kernel = kernel("rolled_matching_norms");
static SCALE: Kernel = kernel("rolled_matching_scale");
static ALONG: Kernel = kernel("rolled_matching_along");
static PULL: Kernel = kernel("rolled_matching_pull");
static TO_AERIAL: Kernel = kernel("rolled_matching_to_aerial");
static TO_GROUND: Kernel = kernel("rolled_matching_to_ground");

/// Scores that one block sums, and the most blocks for one sample.
const SHARE: usize = 4096;
const MOST_PARTS: usize = 256;
/// Numbers of a block of `rolled_matching_roll`.
const ROLLED: usize = 1024;

parameters! {
    struct MatchingParameters {
        samples: u32,
        orientations: u32,
        windows: u32,
        channels: u32,
        /// Of the descriptor and the window.
        length: u32,
        pixels: u32,
        /// Blocks that share a sample's scores.
        parts: u32,
        /// Whether a pack is four pixels, else one.
        wide: u32,
        /// By packs of a map of pixels.
        in_map: [u32; 3],
        /// By orientations.
        in_scores: [u32; 3],
        /// By channels.
        in_channels: [u32; 3],
        /// Blocks of a map that find norms.
        tiles: u32,
    }
}

/// The plan as kernels read it.
struct Tables {
    parameters: MatchingParameters,
    /// Threads of a block that finds norms.
    norms_block: [u32; 3],
    /// First channel of the window of each orientation.
    starts: DeviceBuffer<u32>,
    /// First channels of the windows whose norms differ.
    windows: DeviceBuffer<u32>,
    /// Index of the window of each orientation.
    window_of: DeviceBuffer<u32>,
}

impl Tables {
    fn new(cuda: &Cuda, plan: &Plan, samples: usize) -> Result<Self> {
        let orientations = plan.starts.len();
        for width in [plan.channels, orientations, plan.windows.len()] {
            count(OP, samples * width * plan.pixels)?;
        }
        let table = |values: &[usize]| {
            let values: Vec<u32> = values.iter().map(|value| *value as u32).collect();
            cuda.constant(&values)
        };
        let pack = pack(plan.pixels);
        let norms_block = pixel_block(samples * plan.windows.len(), plan.length, plan.pixels);
        Ok(Self {
            norms_block,
            parameters: MatchingParameters {
                samples: samples as u32,
                orientations: orientations as u32,
                windows: plan.windows.len() as u32,
                channels: plan.channels as u32,
                length: plan.length as u32,
                pixels: plan.pixels as u32,
                parts: (orientations * plan.pixels).div_ceil(SHARE).min(MOST_PARTS) as u32,
                wide: u32::from(pack == 4),
                in_map: divider(plan.pixels / pack),
                in_scores: divider(orientations),
                in_channels: divider(plan.channels),
                tiles: plan.pixels.div_ceil(norms_block[0] as usize) as u32,
            },
            starts: table(&plan.starts)?,
            windows: table(&plan.windows)?,
            window_of: table(&plan.window_of)?,
        })
    }

    fn samples(&self) -> usize {
        self.parameters.samples as usize
    }

    fn orientations(&self) -> usize {
        self.parameters.orientations as usize
    }

    fn channels(&self) -> usize {
        self.parameters.channels as usize
    }

    fn pixels(&self) -> usize {
        self.parameters.pixels as usize
    }

    /// Packs of maps of pixels with so many elements.
    fn packs_of(&self, elements: usize) -> usize {
        let [packs, ..] = self.parameters.in_map;
        elements / self.pixels() * packs as usize
    }
}

pub(super) fn matching(
    tape: &mut Tape,
    cuda: &Cuda,
    aerial: &Tensor,
    ground: &Tensor,
    plan: Plan,
) -> Result<Tensor> {
    let [n, channels, h, w] = aerial.dims4(OP, "aerial")?;
    let t = Tables::new(cuda, &plan, n)?;
    let (orientations, pixels) = (t.orientations(), t.pixels());

    // The descriptor as each orientation sees it, [N, R, C], and 1 / |g|.
    let mut rolled = cuda.any(n * orientations * channels)?;
    let mut inverse_ground = cuda.any(n)?;
    // SAFETY: rolled_matching_roll(ground, starts, rolled, inverse_ground, MatchingParameters):
    // blocks of ROLLED numbers for each sample; lengths as the plan says, a start below C for each
    // orientation.
    unsafe {
        Launch::new(&ROLL)
            .grid([(orientations * channels).div_ceil(ROLLED), n, 1])
            .input(ground.buffer())
            .input(&t.starts)
            .output(&mut rolled)
            .output(&mut inverse_ground)
            .parameters(&t.parameters)
            .enqueue(cuda)?;
    }
    // 1 / |a| of each window, [N, windows, H, W].
    let mut inverse = cuda.any(n * plan.windows.len() * pixels)?;
    // SAFETY: rolled_matching_norms(aerial, windows, inverse, MatchingParameters): `tiles` blocks
    // for each window of each sample; the kernel guards its indices by pixels and the window's
    // length, at most C, and wraps channels at C.
    unsafe {
        Launch::new(&NORMS)
            .grid([n * plan.windows.len() * t.parameters.tiles as usize, 1, 1])
            .block(t.norms_block)
            .input(aerial.buffer())
            .input(&t.windows)
            .output(&mut inverse)
            .parameters(&t.parameters)
            .enqueue(cuda)?;
    }
    let mut products = cuda.any(n * orientations * pixels)?;
    let left = Matrix::row_major(&rolled, channels).batched(orientations * channels);
    let right = Matrix::row_major(aerial.buffer(), pixels).batched(channels * pixels);
    Product::new([orientations, pixels, channels], left, right)
        .batch(n)
        .enqueue(&mut products)?;
    let scores = scaled(cuda, &t, &products, &inverse, &inverse_ground)?;
    let mut output = Tensor::from_device(scores, &[n, orientations, h, w]);
    let saved = tape.needs_gradient(&[aerial, ground]).then(|| {
        let tensors = (aerial.clone(), ground.clone(), output.clone());
        (cuda.clone(), tensors, rolled, inverse, inverse_ground)
    });
    tape.record(&mut output, &[aerial, ground], move |gradient| {
        let (cuda, (aerial, ground, scores), rolled, inverse, inverse_ground) =
            saved.expect("saved whenever recorded");
        let norms = [&inverse, &inverse_ground];
        let scaled = scaled(&cuda, &t, gradient.buffer(), &inverse, &inverse_ground)?;
        let us = [gradient.buffer(), scores.buffer()];
        Ok(vec![
            Some(to_aerial(&cuda, &t, &aerial, &rolled, &scaled, us, norms)?),
            Some(to_ground(
                &cuda,
                &t,
                [&aerial, &ground],
                &scaled,
                us,
                norms,
            )?),
        ])
    });
    Ok(output)
}

/// x / (|g| |a|), orientation by orientation.
fn scaled(
    cuda: &Cuda,
    t: &Tables,
    x: &DeviceBuffer,
    inverse: &DeviceBuffer,
    inverse_ground: &DeviceBuffer,
) -> Result<DeviceBuffer> {
    let mut result = cuda.any(x.len())?;
    let launch = Launch::new(&SCALE).over(t.packs_of(x.len()));
    // SAFETY: rolled_matching_scale(x, inverse, inverse_ground, window_of, result,
    // MatchingParameters): the kernel guards its index by the packs of samples · orientations ·
    // pixels, the length of x and the result; a window for each orientation.
    unsafe {
        launch
            .input(x)
            .input(inverse)
            .input(inverse_ground)
            .input(&t.window_of)
            .output(&mut result)
            .parameters(&t.parameters)
            .enqueue(cuda)?;
    }
    Ok(result)
}

/// ds/da = g / (|g| |a|) - s a / |a|².
fn to_aerial(
    cuda: &Cuda,
    t: &Tables,
    aerial: &Tensor,
    rolled: &DeviceBuffer,
    scaled: &DeviceBuffer,
    [gradient, scores]: [&DeviceBuffer; 2],
    [inverse, _]: [&DeviceBuffer; 2],
) -> Result<Tensor> {
    let (orientations, channels, pixels) = (t.orientations(), t.channels(), t.pixels());
    let mut found = cuda.any(aerial.len())?;
    let left = Matrix::transposed(rolled, channels).batched(orientations * channels);
    let right = Matrix::row_major(scaled, pixels).batched(orientations * pixels);
    Product::new([channels, pixels, orientations], left, right)
        .batch(t.samples())
        .enqueue(&mut found)?;
    // The sum of u s / |a|² over the orientations that share a window.
    let mut pull = cuda.any::<f32>(inverse.len())?;
    let launch = Launch::new(&PULL).over(inverse.len());
    // SAFETY: rolled_matching_pull(gradient, scores, inverse, window_of, pull,
    // MatchingParameters): the kernel guards its index by samples · windows · pixels.
    unsafe {
        launch
            .input(gradient)
            .input(scores)
            .input(inverse)
            .input(&t.window_of)
            .output(&mut pull)
            .parameters(&t.parameters)
            .enqueue(cuda)?;
    }
    let launch = Launch::new(&TO_AERIAL).over(t.packs_of(aerial.len()));
    // SAFETY: rolled_matching_to_aerial(aerial, pull, windows, found, MatchingParameters): the
    // kernel guards its index by the packs of samples · channels · pixels, the length of aerial and
    // found.
    unsafe {
        launch
            .input(aerial.buffer())
            .input(&pull)
            .input(&t.windows)
            .output(&mut found)
            .parameters(&t.parameters)
            .enqueue(cuda)?;
    }
    Ok(Tensor::from_device(found, aerial.shape()))
}

/// The same with a and g exchanged.
fn to_ground(
    cuda: &Cuda,
    t: &Tables,
    [aerial, ground]: [&Tensor; 2],
    scaled: &DeviceBuffer,
    [gradient, scores]: [&DeviceBuffer; 2],
    [_, inverse_ground]: [&DeviceBuffer; 2],
) -> Result<Tensor> {
    let (orientations, channels, pixels) = (t.orientations(), t.channels(), t.pixels());
    let parts = t.parameters.parts as usize;
    let mut products = cuda.any(t.samples() * orientations * channels)?;
    let left = Matrix::row_major(scaled, pixels).batched(orientations * pixels);
    let right = Matrix::transposed(aerial.buffer(), pixels).batched(channels * pixels);
    Product::new([orientations, channels, pixels], left, right)
        .batch(t.samples())
        .enqueue(&mut products)?;
    let mut along = cuda.any::<f64>(t.samples() * parts)?;
    // SAFETY: rolled_matching_along(gradient, scores, along, MatchingParameters): `parts` blocks
    // for each sample, each guarding its index by orientations · pixels, with one sum each.
    unsafe {
        Launch::new(&ALONG)
            .grid([parts, t.samples(), 1])
            .input(gradient)
            .input(scores)
            .output(&mut along)
            .parameters(&t.parameters)
            .enqueue(cuda)?;
    }
    let mut found = cuda.any(ground.len())?;
    let length = t.parameters.length as usize;
    // SAFETY: rolled_matching_to_ground(ground, products, starts, along, inverse_ground, found,
    // MatchingParameters): blocks of 256 threads for each sample, guarding their index by
    // `length`; a thread for each of at most 256 parts.
    unsafe {
        Launch::new(&TO_GROUND)
            .grid([length.div_ceil(THREADS as usize), t.samples(), 1])
            .input(ground.buffer())
            .input(&products)
            .input(&t.starts)
            .input(&along)
            .input(inverse_ground)
            .output(&mut found)
            .parameters(&t.parameters)
            .enqueue(cuda)?;
    }
    Ok(Tensor::from_device(found, ground.shape()))
}
