//! Times one training step of a network the size of our compact student, layer by layer.
//!
//! `cargo run --release -p crossfix-kernels --example training_step`
//!
//! Processor time, summed over the threads, is what a shared machine can measure fairly; GFLOP/s
//! are per core. One multiply-add counts as two operations, a backward pass as two forward ones.

use crossfix_kernels::ops::{self, Activation, BatchNormMode, Conv2d, Pad, RunningStatistics};
use crossfix_kernels::testing::noise;
use crossfix_kernels::{Result, Tape, Tensor};
use std::time::Instant;

const BATCH: usize = 8;

#[derive(Clone, Copy)]
enum Layer {
    /// 3 × 3: output channels, stride, columns that wrap around.
    Conv(usize, usize, Pad),
    /// Batch normalisation and SiLU.
    Norm,
    /// Doubling transposed convolution: output channels.
    Up(usize),
}
use Layer::{Conv, Norm, Up};

fn main() -> Result<()> {
    // On one of the worker threads, as training does, so that work is not handed over first.
    rayon::join(time_network, || ()).0
}

fn time_network() -> Result<()> {
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
    println!("aerial encoder");
    for layer in encoder(zero) {
        shape = time_layer(layer, &shape, &mut total)?;
    }
    println!("decoder");
    for (layer, skip_channels) in decoder {
        shape = time_layer(layer, &shape, &mut total)?;
        shape[1] += skip_channels;
    }
    println!("ground encoder");
    let mut shape = vec![BATCH, 3, 48, 256];
    for layer in encoder(wrap) {
        shape = time_layer(layer, &shape, &mut total)?;
    }
    println!("all together, per sample");
    total.print("forward and backward", BATCH as f64);
    Ok(())
}

#[derive(Default, Clone, Copy)]
struct Cost {
    cpu_ms: f64,
    wall_ms: f64,
    flop: f64,
}

impl Cost {
    fn print(&self, name: &str, share: f64) {
        println!(
            "{name:40} {:8.3} ms cpu {:8.3} ms wall {:8.1} MFLOP {:7.1} GFLOP/s",
            self.cpu_ms / share,
            self.wall_ms / share,
            self.flop / share / 1e6,
            self.flop / self.cpu_ms / 1e6,
        );
    }
}

/// Prints the cost for the batch; returns the output's shape.
fn time_layer(layer: Layer, shape: &[usize], total: &mut Cost) -> Result<Vec<usize>> {
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
    let mut forward = Cost::default();
    let mut backward = Cost::default();
    let mut output_shape = Vec::new();
    for repeat in 0..12 {
        let mut tape = Tape::training();
        let start = Clock::now();
        let output = apply(layer, &mut tape, &input, &parameters)?;
        let forward_cost = start.cost();
        output_shape = output.shape().to_vec();
        let gradient = noise(&output_shape, 4);
        let start = Clock::now();
        let gradients = tape.backward_from(&output, gradient)?;
        let backward_cost = start.cost();
        drop(gradients);
        let flop = 2.0 * macs_per_output as f64 * output.len() as f64;
        keep_fastest(&mut forward, forward_cost, flop, repeat);
        let passes = if first { 1.0 } else { 2.0 };
        keep_fastest(&mut backward, backward_cost, passes * flop, repeat);
    }
    let size = format!("@{}×{}", output_shape[2], output_shape[3]);
    forward.print(&format!("  {name} {size} forward"), 1.0);
    backward.print(&format!("  {name} {size} backward"), 1.0);
    for cost in [forward, backward] {
        total.cpu_ms += cost.cpu_ms;
        total.wall_ms += cost.wall_ms;
        total.flop += cost.flop;
    }
    Ok(output_shape)
}

fn keep_fastest(best: &mut Cost, this: Cost, flop: f64, repeat: usize) {
    if repeat == 0 {
        *best = Cost { flop, ..this };
    }
    best.cpu_ms = best.cpu_ms.min(this.cpu_ms);
    best.wall_ms = best.wall_ms.min(this.wall_ms);
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

struct Clock {
    wall: Instant,
    cpu_ns: u64,
}

impl Clock {
    fn now() -> Self {
        Self {
            wall: Instant::now(),
            cpu_ns: cpu_ns(),
        }
    }

    fn cost(&self) -> Cost {
        let wall_ms = self.wall.elapsed().as_secs_f64() * 1e3;
        let cpu_ms = (cpu_ns() - self.cpu_ns) as f64 / 1e6;
        Cost {
            // Where the system does not tell, the wall clock has to do.
            cpu_ms: if cpu_ms > 0.0 { cpu_ms } else { wall_ms },
            wall_ms,
            flop: 0.0,
        }
    }
}

/// Nanoseconds on a processor, over all threads of this process (Linux; elsewhere 0).
fn cpu_ns() -> u64 {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else {
        return 0;
    };
    tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|line| line.split(' ').next()?.parse::<u64>().ok())
        .sum()
}
