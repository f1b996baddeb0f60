//! Times training steps and forward passes of a network on the CPU, in the format of
//! `tests/scripts/bench_torch.py`; `tests/scripts/bench_cpu.sh` runs the two by turns.
//!
//! `cargo run --release -p crossfix-offline --example network_time -- step,inference 1 10`
//!
//! Arguments: what (of `step`, `inference`, `batch-inference`, `vigor-step`, `vigor-inference`),
//! threads, measurements.

use crossfix_kernels::ops::BatchNormMode;
use crossfix_kernels::optim::Adam;
use crossfix_kernels::{Pixels, Tape};
use crossfix_offline::model::loss::{LossConfig, PoseTarget, loss};
use crossfix_offline::model::{
    Ccvpe, CrossViewModel, Extent, ForwardOptions, Input, ModelError, Share, preset,
};
use std::time::Instant;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_else(|| "step,inference".into());
    let threads = arguments.next().map_or(Ok(1), |text| text.parse())?;
    let rounds = arguments.next().map_or(Ok(10), |text| text.parse())?;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()?;
    for what in what.split(',') {
        let (name, batch, training) = match what {
            "step" => ("compact", 8, true),
            "inference" => ("compact", 1, false),
            "batch-inference" => ("compact", 8, false),
            "vigor-step" => ("ccvpe-vigor", 1, true),
            "vigor-inference" => ("ccvpe-vigor", 1, false),
            other => anyhow::bail!("{other} cannot be timed; see the head of this file"),
        };
        let times_ms = pool.install(|| time(name, batch, training, rounds))?;
        let kind = if training {
            "training step"
        } else {
            "inference"
        };
        let (least, median) = (times_ms[0], times_ms[times_ms.len() / 2]);
        println!(
            "ours  {:34} threads {threads} least {least:9.2} ms median {median:9.2} ms images/s {:8.2}",
            format!("{name} {kind} batch {batch}"),
            batch as f64 / median * 1e3,
        );
    }
    Ok(())
}

/// Sorted milliseconds of `rounds` runs, after two that do not count.
fn time(name: &str, batch: usize, training: bool, rounds: usize) -> Result<Vec<f64>, ModelError> {
    let spec = preset(name).expect("a preset");
    let mut model = Ccvpe::new(spec.clone(), 1)?;
    let noise = |shape: [usize; 4]| {
        let count = shape.iter().product::<usize>();
        let bytes = (0..count).map(|i| (i * 7919 % 256) as u8).collect();
        Pixels::new(bytes, shape)
    };
    let input = Input {
        ground: noise([batch, 3, spec.ground_rows, spec.ground_columns])?,
        aerial: noise([batch, 3, spec.aerial_px, spec.aerial_px])?,
        augment: None,
        ground_left_bin: Vec::new(),
        projections: Vec::new(),
    };
    let middle = spec.heatmap_side() as f64 / 2.0;
    let targets = vec![
        PoseTarget {
            column: middle,
            row: middle,
            residual_rad: 0.1,
            weight: 1.0,
            map: None,
        };
        batch
    ];
    let mut adam = Adam::default();
    let mut run = || -> Result<(), ModelError> {
        if !training {
            let options = ForwardOptions::evaluation(Extent::Everything);
            model.forward(&mut Tape::inference(), &input, options)?;
            return Ok(());
        }
        let mut tape = Tape::training();
        let options = ForwardOptions {
            batch_norm: BatchNormMode::Train { momentum: 0.01 },
            drop_connect: None,
            share: Share::default(),
            extent: Extent::Everything,
        };
        let prediction = model.forward(&mut tape, &input, options)?;
        let loss = loss(
            &mut tape,
            &spec,
            &prediction,
            &targets,
            &LossConfig::default(),
        )?;
        let gradients = tape.backward(&loss.total)?;
        adam.step(model.parameters_mut().all_mut(), &gradients, 1e-4)?;
        Ok(())
    };
    let mut times_ms = Vec::with_capacity(rounds);
    for round in 0..rounds + 2 {
        let start = Instant::now();
        run()?;
        if round >= 2 {
            times_ms.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    times_ms.sort_by(f64::total_cmp);
    Ok(times_ms)
}
