//! Times one training step of a network the size of our compact student, layer by layer.
//!
//! `cargo bench -p crossfix-kernels --bench training_step`
//!
//! The layers are timed on one thread, the fastest of several repeats, and again on all threads
//! for the total. One multiply-add counts as two operations, a backward pass as two forward ones.

use crossfix_kernels::ops::{self, Activation, BatchNormMode, Conv2d, Pad, RunningStatistics};
use crossfix_kernels::testing::noise;
use crossfix_kernels::{Result, Tape, Tensor};
use std::time::Instant;

const BATCH: usize = 8;
const REPEATS: usize = 10;

#[derive(Clone, Copy)]
enum Layer {
    /// 3 × 3: output channels, stride, columns that wrap around.
    Conv(usize, usize, Pad),
    /// Batch normalisation and `SiLU`.
    Norm,
    /// Doubling transposed convolution: output channels.
    Up(usize),
}
use Layer::{Conv, Norm, Up};

fn main() -> Result<()> {
    let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    let alone = alone.expect("one thread can be had");
    alone
        .install(|| time_network(true))?
        .print("all layers, one thread", 1.0);
    // On one of the worker threads, as training does, so that work is not handed over first.
    let together = rayon::join(|| time_network(false), || ()).0?;
    let threads = rayon::current_num_threads();
    together.print(&format!("all layers, {threads} threads"), 1.0);
    together.print("the same, per sample", BATCH as f64);
    Ok(())
}

/// The cost of a forward and a backward pass over a batch.
fn time_network(verbose: bool) -> Result<Cost> {
    let (zero, wrap) = (Pad::Zero, Pad::Circular);
    let encoder = |pad| {
        [
            (12, 2),
            (12, 1),
            (24, 2),
            (24, 1),
            (40, 2),
            (40, 1),
            (80, 2),
            (80, 1),
        ]
        .into_iter()
        .flat_map(|(channels, stride)| [Conv(channels, stride, pad), Norm])
        .collect::<Vec<_>>()
    };
    let decoder = [
        (Up(40), 40),
        (Conv(40, 1, zero), 0),
        (Norm, 0),
        (Up(24), 24),
        (Conv(24, 1, zero), 0),
        (Norm, 0),
        (Up(16), 12),
        (Conv(16, 1, zero), 0),
        (Norm, 0),
        (Conv(1, 1, zero), 0),
    ];
    let mut total = Cost::default();
    let mut shape = vec![BATCH, 3, 128, 128];
    for layer in encoder(zero) {
        shape = time_layer(layer, &shape, &mut total, verbose)?;
    }
    for (layer, skip_channels) in decoder {
        shape = time_layer(layer, &shape, &mut total, verbose)?;
        shape[1] += skip_channels;
    }
    let mut shape = vec![BATCH, 3, 48, 256];
    for layer in encoder(wrap) {
        shape = time_layer(layer, &shape, &mut total, verbose)?;
    }
    Ok(total)
}

#[derive(Default, Clone, Copy)]
struct Cost {
    ms: f64,
    flop: f64,
}

impl Cost {
    fn print(&self, name: &str, share: f64) {
        println!(
            "{name:45} {:8.3} ms {:8.1} MFLOP {:7.1} GFLOP/s",
            self.ms / share,
            self.flop / share / 1e6,
            self.flop / self.ms / 1e6,
        );
    }
}

/// Prints the cost for the batch; returns the output's shape.
fn time_layer(
    layer: Layer,
    shape: &[usize],
    total: &mut Cost,
    verbose: bool,
) -> Result<Vec<usize>> {
    let channels = shape[1];
    let first = channels == 3;
    let (name, parameters, macs_per_output) = match layer {
        Conv(outputs, stride, _) => (
            format!("conv {channels}→{outputs} stride {stride}"),
            vec![noise(&[outputs, channels, 3, 3], 1)],
            channels * 9,
        ),
        Norm => (
            format!("batch norm + silu {channels}"),
            vec![Tensor::full(&[channels], 1.0), noise(&[channels], 2)],
            0,
        ),
        Up(outputs) => (
            format!("transposed conv {channels}→{outputs}"),
            vec![noise(&[channels, outputs, 2, 2], 1), noise(&[outputs], 2)],
            channels,
        ),
    };
    let parameters: Vec<Tensor> = parameters.into_iter().map(Tensor::with_gradient).collect();
    let input = noise(shape, 3);
    let input = if first { input } else { input.with_gradient() };
    let mut forward_ms = f64::INFINITY;
    let mut backward_ms = f64::INFINITY;
    let mut output_shape = Vec::new();
    let mut flop = 0.0;
    for _ in 0..REPEATS {
        let mut tape = Tape::training();
        let start = Instant::now();
        let output = apply(layer, &mut tape, &input, &parameters)?;
        forward_ms = forward_ms.min(start.elapsed().as_secs_f64() * 1e3);
        output_shape = output.shape().to_vec();
        flop = 2.0 * macs_per_output as f64 * output.len() as f64;
        let gradient = noise(&output_shape, 4);
        let start = Instant::now();
        let gradients = tape.backward_from(&output, gradient)?;
        backward_ms = backward_ms.min(start.elapsed().as_secs_f64() * 1e3);
        drop(gradients);
    }
    let size = format!("@{}×{}", output_shape[2], output_shape[3]);
    // The images need no gradient.
    let passes = if first { 1.0 } else { 2.0 };
    for (pass, ms, flop) in [
        ("forward", forward_ms, flop),
        ("backward", backward_ms, passes * flop),
    ] {
        if verbose {
            Cost { ms, flop }.print(&format!("{name} {size} {pass}"), 1.0);
        }
        total.ms += ms;
        total.flop += flop;
    }
    Ok(output_shape)
}

fn apply(layer: Layer, tape: &mut Tape, input: &Tensor, parameters: &[Tensor]) -> Result<Tensor> {
    match layer {
        Conv(_, stride, columns) => {
            let options = Conv2d {
                stride,
                padding: [1; 4],
                rows: Pad::Zero,
                columns,
                groups: 1,
            };
            ops::conv2d(tape, input, &parameters[0], None, &options)
        }
        Norm => ops::batch_norm(
            tape,
            input,
            &parameters[0],
            &parameters[1],
            &mut RunningStatistics::new(input.shape()[1]),
            BatchNormMode::Train { momentum: 0.01 },
            1e-3,
            Activation::Silu,
        ),
        Up(_) => ops::conv_transpose2x2(tape, input, &parameters[0], &parameters[1]),
    }
}
