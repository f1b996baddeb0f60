//! Times the training step and the forward pass of a network on a device, the way a run of
//! `crossfix train` or `adapt` makes them; `tests/scripts/bench_gpu.sh` runs it beside `PyTorch`.
//!
//! `cargo run --release -p crossfix-offline --example device_step -- --device cuda --batch 8`
//!
//! Options: `--device auto|cpu|cuda[:N]`, `--network PRESET` (ccvpe-vigor; of either kind), `--what
//! adapt,supervised,inference` (the last of CCVPE alone), `--batch N,N` (8), `--precision f32,tf32,bf16` (f32), `--steps N`
//! (50), `--check` (ten steps of the compact networks against the processor, and nothing else),
//! `--convolution implicit|columns|window` (instead of what is expected to be fastest), `--column-room MiB`,
//! `--in-order` (recorded work runs piece by piece), `--parts` (time one step launch by launch, with what each has to move and compute),
//! `--bandwidth GB/s` and `--peak TFLOP/s` (for the floors; of an H200 in f32 unless told).

use anyhow::{Context, bail};
use crossfix_kernels::Device;
use crossfix_kernels::cuda::{Convolution, Precision, Timed};
use crossfix_offline::model::{Ccvpe, named};
use crossfix_offline::recipe::defaults;
use crossfix_offline::train::{FitConfig, measure};
use std::any::Any;
use std::collections::BTreeMap;

struct Options {
    device: String,
    network: String,
    what: String,
    batches: Vec<usize>,
    precisions: Vec<(String, Precision)>,
    steps: usize,
    parts: bool,
    check: bool,
    bandwidth: f64,
    peak: f64,
    convolution: Option<Convolution>,
    in_order: bool,
    /// Numbers.
    column_room: Option<usize>,
}

fn options() -> anyhow::Result<Options> {
    let mut options = Options {
        device: "auto".into(),
        network: "ccvpe-vigor".into(),
        what: "adapt".into(),
        batches: vec![8],
        precisions: vec![("f32".into(), Precision::F32)],
        steps: 50,
        parts: false,
        check: false,
        // NVIDIA H200 (SXM): 4.8 TB/s, 67 TFLOP/s in f32 outside the tensor cores (data sheet).
        bandwidth: 4800.0,
        peak: 67.0,
        convolution: None,
        in_order: false,
        column_room: None,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        if name == "--parts" {
            options.parts = true;
            continue;
        }
        if name == "--in-order" {
            options.in_order = true;
            continue;
        }
        if name == "--check" {
            options.check = true;
            continue;
        }
        let value = arguments
            .next()
            .with_context(|| format!("{name} wants a value"))?;
        match name.as_str() {
            "--device" => options.device = value,
            "--network" => options.network = value,
            "--what" => options.what = value,
            "--batch" => {
                let batches = value.split(',').map(str::parse);
                options.batches = batches.collect::<Result<_, _>>()?;
            }
            "--precision" => {
                let precision = |name: &str| {
                    let precision = match name {
                        "f32" => Precision::F32,
                        "tf32" => Precision::Tf32,
                        "bf16" => Precision::Bf16,
                        _ => bail!("{name:?} is none of f32, tf32, bf16"),
                    };
                    Ok((name.to_string(), precision))
                };
                options.precisions = value.split(',').map(precision).collect::<Result<_, _>>()?;
            }
            "--steps" => options.steps = value.parse()?,
            "--column-room" => options.column_room = Some(value.parse::<usize>()? << 18),
            "--convolution" => {
                options.convolution = Some(match value.as_str() {
                    "implicit" => Convolution::Implicit,
                    "columns" => Convolution::Columns,
                    "window" => Convolution::Window,
                    _ => bail!("{value:?} is none of implicit, columns, window"),
                });
            }
            "--bandwidth" => options.bandwidth = value.parse()?,
            "--peak" => options.peak = value.parse()?,
            _ => bail!("unknown option {name}; the known ones are at the head of this file"),
        }
    }
    Ok(options)
}

fn main() -> anyhow::Result<()> {
    let options = options()?;
    let device = Device::parse(&options.device)?;
    println!("device: {}", device.describe());
    if options.check {
        return check(&device);
    }
    let table = named(&options.network);
    let table = table.with_context(|| format!("no preset {}", options.network))?;
    for (precision_name, precision) in &options.precisions {
        if let Device::Cuda(cuda) = &device {
            cuda.set_precision(*precision);
            cuda.set_convolution(options.convolution);
            cuda.set_keeps_order(options.in_order);
            if let Some(room) = options.column_room {
                cuda.set_column_room(room);
            }
        }
        for batch in &options.batches {
            for what in options.what.split(',') {
                // A network of its own for each, and the memory of the last one given back.
                let mut model = table.build(1)?;
                model.parameters_mut().move_to(&device)?;
                let config = match what {
                    "adapt" => Some(defaults::paper(model.describe()).fit),
                    "supervised" => Some(defaults::supervised(model.describe())),
                    "inference" => None,
                    _ => bail!("{what:?} is none of adapt, supervised, inference"),
                };
                // PyTorch's network beside it has no stochastic depth.
                let config = config.map(|config| FitConfig {
                    batch: *batch,
                    drop_connect: false,
                    ..config
                });
                let measured = if let Some(config) = &config {
                    measure::training(&mut *model, config, options.steps)?
                } else {
                    let model: &mut dyn Any = &mut *model;
                    let model = model.downcast_mut::<Ccvpe>();
                    let model = model.context("inference is timed of CCVPE alone")?;
                    measure::inference(model, *batch, options.steps)?
                };
                let device_ms = measured
                    .device_ms
                    .map_or("-".into(), |ms| format!("{ms:.2}"));
                let busy = measured.device_ms.map_or("-".into(), |ms| {
                    format!("{:.1}", 100.0 * (ms / measured.step_ms).min(1.0))
                });
                let held = measured.held_bytes.map_or("-".into(), |bytes| {
                    format!("{:.2}", bytes as f64 / (1u64 << 30) as f64)
                });
                println!(
                    "ours  {:30} {what:10} {precision_name:5} batch {batch:3} step_ms {:9.2} images/s {:9.2} \
                     device_ms {device_ms:>8} busy_% {busy:>5} memory_GiB {held:>6}",
                    options.network,
                    measured.step_ms,
                    *batch as f64 / measured.step_ms * 1e3,
                );
                if let (true, Some(config)) = (options.parts, &config) {
                    parts(&measure::profile(&mut *model, config)?, &options);
                }
                drop(model);
                if let Device::Cuda(cuda) = &device {
                    cuda.trim()?;
                }
            }
        }
    }
    Ok(())
}

/// Losses of ten steps beside the processor's. Adam amplifies roundings, most where gradients are
/// near 0: 1e-3 of the loss is what ten steps of it may make of differences of 1e-6.
fn check(device: &Device) -> anyhow::Result<()> {
    const ALLOWED: f32 = 1e-3;
    for name in ["compact", "ggcvt-compact"] {
        let table = named(name).with_context(|| format!("no preset {name}"))?;
        let config = FitConfig {
            batch: 4,
            drop_connect: false,
            ..defaults::supervised(&table.describe())
        };
        println!("{:>5} {:>12} {:>12}  {name}", "step", "processor", "device");
        let mut worst = 0.0f32;
        let losses = measure::compare(&table, &config, device, 7)?;
        for (step, [here, there]) in losses.iter().enumerate() {
            println!("{:>5} {here:>12.6} {there:>12.6}", step + 1);
            let difference = ((there - here) / here).abs();
            worst = if difference.is_nan() {
                f32::INFINITY
            } else {
                worst.max(difference)
            };
        }
        println!("worst relative difference {worst:.1e}, allowed {ALLOWED:.0e}");
        anyhow::ensure!(worst <= ALLOWED, "{name}: losses differ by {worst:e}");
    }
    Ok(())
}

/// The launches of a step, equal ones together, longest first, with the least time that the bytes
/// and operations they state could take on the card.
fn parts(timed: &[Timed], options: &Options) {
    let floor_ms = |bytes: u64, operations: u64| {
        let moved = bytes as f64 / (options.bandwidth * 1e9) * 1e3;
        let computed = operations as f64 / (options.peak * 1e12) * 1e3;
        moved.max(computed)
    };
    let mut by_name: BTreeMap<(&str, &str), (usize, f64, u64, u64)> = BTreeMap::new();
    let mut by_part: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for launch in timed {
        let sum = by_name.entry((launch.part, &launch.name)).or_default();
        sum.0 += 1;
        sum.1 += launch.milliseconds;
        sum.2 += launch.bytes;
        sum.3 += launch.operations;
        let part = by_part.entry(launch.part).or_default();
        part.0 += launch.milliseconds;
        part.1 += floor_ms(launch.bytes, launch.operations);
    }
    println!(
        "{:>7} {:>9} {:>9} {:>9} {:>9}  part: launch",
        "calls", "ms", "floor_ms", "MB", "GFLOP"
    );
    let mut rows: Vec<_> = by_name.into_iter().collect();
    rows.sort_by(|a, b| b.1.1.total_cmp(&a.1.1));
    for ((part, name), (calls, ms, bytes, operations)) in rows {
        println!(
            "{calls:>7} {ms:>9.3} {:>9.3} {:>9.1} {:>9.2}  {part}: {name}",
            floor_ms(bytes, operations),
            bytes as f64 / 1e6,
            operations as f64 / 1e9
        );
    }
    for (part, (ms, floor)) in by_part {
        println!("{part}: {ms:.2} ms, floor {floor:.2} ms");
    }
}
