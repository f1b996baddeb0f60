//! Times the ways in which a GPU can compute the convolutions of the published CCVPE network,
//! recorded and replayed, beside each other: what `kernels/src/ops/conv2d/cuda` chooses by.
//!
//! `cargo run --release -p crossfix-kernels --example device_convolutions -- [cuda:N] [--batch N] [--replays N]`
//!
//! For each shape, precision and way: milliseconds of the forward pass, of the input's gradient and of the
//! weight's, and TFLOP/s of each. `auto` is what would be taken.

#[path = "../benches/shapes/mod.rs"]
mod shapes;

use crossfix_kernels::cuda::{Convolution, Cuda, Precision};
use crossfix_kernels::testing::noise;
use crossfix_kernels::{Device, Result, Tape, Tensor, ops};
use shapes::{SHAPES, Shape};
use std::process::ExitCode;

const PRECISIONS: [(&str, Precision); 2] = [("f32", Precision::F32), ("tf32", Precision::Tf32)];
const WAYS: [(&str, Option<Convolution>); 4] = [
    ("auto", None),
    ("window", Some(Convolution::Window)),
    ("columns", Some(Convolution::Columns)),
    ("implicit", Some(Convolution::Implicit)),
];

fn main() -> ExitCode {
    let (mut name, mut batch, mut replays) = (String::from("cuda"), 8, 10);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let number = match argument.as_str() {
            "--batch" => &mut batch,
            "--replays" => &mut replays,
            _ => {
                name = argument;
                continue;
            }
        };
        match arguments.next().map(|n| n.parse()) {
            Some(Ok(n)) => *number = n,
            _ => return refuse(&format!("{argument} wants a number")),
        }
    }
    let cuda = match Device::parse(&name) {
        Ok(Device::Cuda(cuda)) => cuda,
        Ok(Device::Cpu) => return refuse("the CPU has no choice of ways; use cuda[:N]"),
        Err(error) => return refuse(&error.to_string()),
    };
    match measure(&cuda, batch, replays) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(&error.to_string()),
    }
}

fn refuse(why: &str) -> ExitCode {
    eprintln!("device_convolutions: {why}");
    ExitCode::from(2)
}

fn measure(cuda: &Cuda, batch: usize, replays: usize) -> Result<()> {
    println!("device: {}, batch {batch}", cuda.name());
    println!(
        "{:36} {:5} {:9} {:>8} {:>8} {:>8}   {:>7} {:>7} {:>7}",
        "convolution", "", "way", "forward", "input", "weight", "TFLOP/s", "", ""
    );
    for shape in SHAPES {
        // One matrix product: there is but one way.
        let ways = if shape.kernel == 1 {
            &WAYS[..1]
        } else {
            &WAYS[..]
        };
        for (precision_name, precision) in PRECISIONS {
            cuda.set_precision(precision);
            for (way_name, way) in ways {
                cuda.set_convolution(*way);
                let ms = times(cuda, shape, batch, replays)?;
                let rate = |ms: f64| batch as f64 * shape.flop() / ms / 1e9;
                println!(
                    "{:36} {precision_name:5} {way_name:9} {:8.4} {:8.4} {:8.4}   {:7.1} {:7.1} {:7.1}",
                    shape.name(),
                    ms[0],
                    ms[1],
                    ms[2],
                    rate(ms[0]),
                    rate(ms[1]),
                    rate(ms[2]),
                );
            }
        }
    }
    Ok(())
}

/// Milliseconds of the forward pass, of the input's gradient and of the weight's.
fn times(cuda: &Cuda, shape: &Shape, batch: usize, replays: usize) -> Result<[f64; 3]> {
    let device = Device::Cuda(cuda.clone());
    let [_, channels, height, width] = shape.input();
    let input = noise(&[batch, channels, height, width], 1).to(&device)?;
    let weight = noise(&shape.weight(), 2).to(&device)?;
    let side = shape.side / shape.stride;
    let gradient = noise(&[batch, shape.outputs, side, side], 3).to(&device)?;
    let recorded = |work: &dyn Fn() -> Result<Vec<Tensor>>| -> Result<f64> {
        work()?;
        let (capture, _kept) = cuda.capture(work)?;
        capture.replay_ms(2)?;
        capture.replay_ms(replays)
    };
    let convolve = |tape: &mut Tape, input: &Tensor, weight: &Tensor| {
        ops::conv2d(tape, input, weight, None, &shape.options())
    };
    let forward = recorded(&|| Ok(vec![convolve(&mut Tape::inference(), &input, &weight)?]))?;
    let with_gradients = |input: &Tensor, weight: &Tensor| {
        recorded(&|| {
            let mut tape = Tape::training();
            let output = convolve(&mut tape, input, weight)?;
            let gradients = tape.backward_from(&output, gradient.clone())?;
            let found = [input, weight].into_iter().filter_map(|x| gradients.get(x));
            Ok(found.cloned().collect())
        })
    };
    let weight = weight.with_gradient();
    let of_weight = with_gradients(&input, &weight)?;
    let of_both = with_gradients(&input.clone().with_gradient(), &weight)?;
    Ok([forward, of_both - of_weight, of_weight - forward])
}
