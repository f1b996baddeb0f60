//! The GPU side: the sum as defined, from tiles in shared memory.
//!
//! What is fast is an estimate, as no GPU was at hand. For the published 102 × 102 × 64 template on
//! a 256 × 256 map the sum has 16 · 10⁹ multiplications for each sample, of which the kernel issues
//! 64 for 10 reads of shared memory, so arithmetic binds; each gradient costs as much again or more.
//! Spectra need a fiftieth of that and are bound by memory, so the two finer published levels take
//! them, and the coarsest, with a 25 × 25 template, this. A product of matrices would have each row
//! of the template against each row of the map: 1.6 times the multiplications, and a copy of the map
//! for every column of the template, a gigabyte a sample.

use super::{OP, Plan};
use crate::cuda::{Cuda, DeviceBuffer, Kernel, Launch, Source, count, parameters};
use crate::error::Result;
use crate::tape::Tape;
use crate::tensor::Tensor;

pub(crate) static SOURCE: Source = Source {
    name: "ops/spatial_correlation.cu",
    text: include_str!("../spatial_correlation.cu"),
    hot: &["correlate_tiles", "correlate_sum"],
};
static TILES: Kernel = Kernel {
    source: &SOURCE,
    entry: "correlate_tiles",
};
static SUM: Kernel = Kernel {
    source: &SOURCE,
    entry: "correlate_sum",
};

/// Outputs of a block, as in the kernel.
const TILE: [usize; 2] = [32, 64];
/// Blocks that keep a large GPU busy: where there are fewer, they share the channels.
const BLOCKS: usize = 512;

parameters! {
    struct CorrelateParameters {
        template_rows: i32,
        template_columns: i32,
        map_rows: i32,
        map_columns: i32,
        rows: i32,
        columns: i32,
        pad_rows: i32,
        pad_columns: i32,
        channels: u32,
        depth: u32,
        parts: u32,
        one_template: u32,
        one_map: u32,
        flipped: u32,
    }
}

parameters! {
    struct CorrelateSumParameters {
        count: u32,
        places: u32,
        parts: u32,
    }
}

pub(super) fn correlation(
    tape: &mut Tape,
    cuda: &Cuda,
    inputs: [&Tensor; 2],
    plan: Plan,
) -> Result<Tensor> {
    let [template, search] = inputs;
    let samples = template.len() / plan.template_len();
    let places = plan.places();
    // Channels are shared among blocks until there are enough of these.
    let tiles = tiles(places);
    let parts = BLOCKS.div_ceil(samples * tiles).clamp(1, plan.channels);
    let depth = plan.channels.div_ceil(parts);
    let parts = plan.channels.div_ceil(depth);
    for elements in [
        template.len(),
        search.len(),
        samples * parts * plan.places_len(),
    ] {
        count(OP, elements)?;
    }
    let parameters = CorrelateParameters {
        depth: depth as u32,
        parts: parts as u32,
        ..each_channel(&plan, plan.template, plan.search, places)
    };
    let partial = correlate(
        cuda,
        samples,
        template.buffer(),
        search.buffer(),
        &parameters,
    )?;
    let output = if parts == 1 {
        partial
    } else {
        summed(cuda, &partial, samples, &plan, parts)?
    };
    let mut output = Tensor::from_device(output, &[samples, places[0], places[1]]);
    let saved = tape
        .needs_gradient(&inputs)
        .then(|| (cuda.clone(), template.clone(), search.clone()));
    tape.record(&mut output, &inputs, move |gradient| {
        let (cuda, template, search) = saved.expect("saved whenever recorded");
        let g = gradient.buffer();
        // The gradient laid on the map, channel by channel.
        let p = CorrelateParameters {
            one_template: 1,
            ..each_channel(&plan, places, plan.search, plan.template)
        };
        let to_template = correlate(&cuda, samples, g, search.buffer(), &p)?;
        // The flipped template on the gradient, which is zero-padded.
        let p = CorrelateParameters {
            one_map: 1,
            flipped: 1,
            pad_rows: plan.template[0] as i32 - 1,
            pad_columns: plan.template[1] as i32 - 1,
            ..each_channel(&plan, plan.template, places, plan.search)
        };
        let to_search = correlate(&cuda, samples, template.buffer(), g, &p)?;
        Ok(vec![
            Some(Tensor::from_device(to_template, template.shape())),
            Some(Tensor::from_device(to_search, search.shape())),
        ])
    });
    Ok(output)
}

/// Tiles that cover an output.
fn tiles(output: [usize; 2]) -> usize {
    output[0].div_ceil(TILE[0]) * output[1].div_ceil(TILE[1])
}

/// One output for each channel.
fn each_channel(
    plan: &Plan,
    template: [usize; 2],
    map: [usize; 2],
    output: [usize; 2],
) -> CorrelateParameters {
    CorrelateParameters {
        template_rows: template[0] as i32,
        template_columns: template[1] as i32,
        map_rows: map[0] as i32,
        map_columns: map[1] as i32,
        rows: output[0] as i32,
        columns: output[1] as i32,
        pad_rows: 0,
        pad_columns: 0,
        channels: plan.channels as u32,
        depth: 1,
        parts: plan.channels as u32,
        one_template: 0,
        one_map: 0,
        flipped: 0,
    }
}

fn correlate(
    cuda: &Cuda,
    samples: usize,
    templates: &DeviceBuffer,
    maps: &DeviceBuffer,
    p: &CorrelateParameters,
) -> Result<DeviceBuffer> {
    let size = [p.rows as usize, p.columns as usize];
    let outputs = samples * p.parts as usize;
    let mut output = cuda.any(outputs * size[0] * size[1])?;
    // SAFETY: correlate_tiles(templates, maps, output, CorrelateParameters): a block for each tile
    // of each output, guarding what it writes by `rows` and `columns`, what it reads of a template
    // and a map by their sides, and its channels by `channels`; there is a template and a map for
    // each channel of each sample, or one for each sample where the parameters say so.
    unsafe {
        Launch::new(&TILES)
            .grid([outputs, tiles(size), 1])
            .block([32, 8, 1])
            .input(templates)
            .input(maps)
            .output(&mut output)
            .parameters(p)
            .enqueue(cuda)?;
    }
    Ok(output)
}

/// The sum over the blocks that shared the channels.
fn summed(
    cuda: &Cuda,
    partial: &DeviceBuffer,
    samples: usize,
    plan: &Plan,
    parts: usize,
) -> Result<DeviceBuffer> {
    let mut output = cuda.any(samples * plan.places_len())?;
    let parameters = CorrelateSumParameters {
        count: output.len() as u32,
        places: plan.places_len() as u32,
        parts: parts as u32,
    };
    let launch = Launch::new(&SUM).over(output.len());
    // SAFETY: correlate_sum(partial, output, CorrelateSumParameters): the output has `count`
    // elements, by which the kernel guards its index, `partial` has `parts` for each.
    unsafe {
        launch
            .input(partial)
            .output(&mut output)
            .parameters(&parameters)
            .enqueue(cuda)?;
    }
    Ok(output)
}
