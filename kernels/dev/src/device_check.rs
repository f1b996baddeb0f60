//! The device check: operations, training, memory and replays of a device compared with the CPU, in
//! one table. `tests/gpu` runs it on a GPU, and `tests/gpu --emulated` on the emulator.

use crate::training::Training;
use crate::{Difference, OpCase, cases};
use crossfix_kernels::cuda::Precision;
use crossfix_kernels::{Device, Error, Result};

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct CheckOptions {
    /// Only the operations: what compute-sanitizer can run in reasonable time.
    pub operations_only: bool,
    /// Only the replays of recorded steps.
    pub recorded_only: bool,
    /// Replays of the recorded training step.
    pub replays: usize,
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self {
            operations_only: false,
            recorded_only: false,
            replays: 1000,
        }
    }
}

const STEPS: usize = 10;

/// Runs every operation against its definition, ten training steps against the CPU's, and
/// a soak of replays of a recorded step. Prints one line for each and returns what failed.
pub fn check_device(device: &Device, options: &CheckOptions) -> Vec<String> {
    println!("device: {}", device.describe());
    let mut failures = Vec::new();
    if !options.recorded_only {
        failures.extend(operations(device));
        failures.extend(tensor_cores(device));
    }
    if !options.operations_only {
        let parts: [(&str, &dyn Fn() -> Result<()>); 3] = [
            ("training", &|| training(device)),
            ("memory", &|| memory(device)),
            ("replay", &|| replay(device, options.replays)),
        ];
        for (name, part) in parts {
            if let Err(error) = part() {
                println!("{name}: FAILED: {error}");
                failures.push(format!("{name}: {error}"));
            }
        }
    }
    println!("{} failures", failures.len());
    failures
}

fn operations(device: &Device) -> Vec<String> {
    let mut failures = Vec::new();
    println!(
        "{:48} {:>9} {:>9} {:>9}  verdict",
        "operation", "forward", "backward", "allowed"
    );
    for case in cases() {
        let name = &case.name;
        let allowed = case.tolerance[0].max(case.tolerance[1]);
        let problem = match case.compare(device) {
            Ok(difference) => {
                let [forward, backward] = [difference.forward, difference.backward];
                let same = case.repeats_to_the_bit(device);
                let verdict = match (case.accepts(difference), &same) {
                    (true, Ok(true)) => "ok",
                    (true, Ok(false)) => "NOT THE SAME BITS TWICE",
                    (true, Err(_)) => "FAILED THE SECOND TIME",
                    (false, _) => "WRONG",
                };
                println!("{name:48} {forward:>9.1e} {backward:>9.1e} {allowed:>9.1e}  {verdict}");
                (verdict != "ok").then(|| format!("{verdict}: {difference:?}"))
            }
            Err(error) => {
                println!("{name:48} FAILED: {error}");
                Some(error.to_string())
            }
        };
        failures.extend(problem.map(|problem| format!("{name}: {problem}")));
    }
    failures
}

/// Dense convolutions by tensor cores. Factors are rounded to 11 bits (TF32) or 8 (bf16), so sums of
/// a few hundred products of numbers below 1 differ by about the root of their number times 2⁻¹² or
/// 2⁻⁹. No difference at all would mean that the tensor cores were not asked.
fn tensor_cores(device: &Device) -> Vec<String> {
    let Device::Cuda(cuda) = device else {
        return Vec::new();
    };
    let mut failures = Vec::new();
    for (precision, most) in [(Precision::Tf32, 1e-2), (Precision::Bf16, 8e-2)] {
        for case in cases().into_iter().filter(OpCase::is_implicit) {
            cuda.set_precision(precision);
            let compared = case.compare(device);
            cuda.set_precision(Precision::F32);
            let name = format!("{} {precision:?}", case.name);
            let problem = match compared {
                Ok(Difference { forward, backward }) => {
                    let fits = [forward, backward].map(|found| (1e-5..most).contains(&found));
                    let verdict = if fits == [true; 2] { "ok" } else { "WRONG" };
                    println!("{name:48} {forward:>9.1e} {backward:>9.1e} {most:>9.1e}  {verdict}");
                    (verdict != "ok").then(|| format!("forward {forward:e}, backward {backward:e}"))
                }
                Err(error) => {
                    println!("{name:48} FAILED: {error}");
                    Some(error.to_string())
                }
            };
            failures.extend(problem.map(|problem| format!("{name}: {problem}")));
        }
    }
    failures
}

/// Ten steps have the losses they have on the CPU.
fn training(device: &Device) -> Result<()> {
    let (mut here, mut there) = (Training::new(&Device::Cpu)?, Training::new(device)?);
    println!("{:>8} {:>12} {:>12}", "step", "CPU", "device");
    let mut worst = 0.0f32;
    for step in 1..=STEPS {
        let (expected, got) = (here.step()?, there.step()?);
        println!("{step:>8} {expected:>12.6} {got:>12.6}");
        let difference = ((got - expected) / expected).abs();
        worst = worst.max(if difference.is_nan() {
            f32::INFINITY
        } else {
            difference
        });
    }
    // Ten steps of Adam amplify roundings, most where gradients are near 0.
    require(worst <= 1e-4, || format!("losses differ by {worst:e}"))
}

/// A step allocates nothing once the first ones have run.
fn memory(device: &Device) -> Result<()> {
    let Device::Cuda(cuda) = device else {
        return Ok(());
    };
    let mut training = Training::new(device)?;
    for _ in 0..2 {
        training.step()?;
    }
    let before = cuda.memory();
    for _ in 0..3 {
        training.step()?;
    }
    let after = cuda.memory();
    println!("memory: {} bytes in use, {} free", after.in_use, after.free);
    require(before == after, || {
        format!("steps go on allocating: {before:?}, then {after:?}")
    })
}

/// A recorded step computes, to the bit, what the same step computes launch by launch, and its
/// memory is not shared: another training runs on the device in between.
fn replay(device: &Device, replays: usize) -> Result<()> {
    let mut launched = Training::new(device)?;
    let mut recorded = Training::new(device)?;
    launched.step()?;
    recorded.step()?;
    let mut recorded = recorded.record()?;
    let mut bystander = Training::new(device)?;
    let Device::Cuda(cuda) = device else {
        return Err(Error::argument("replay", "needs a device"));
    };
    let mut held = None;
    for step in 1..=replays {
        let (expected, got) = (launched.step()?, recorded.step()?);
        require(expected.to_bits() == got.to_bits(), || {
            format!("replay {step}: loss {got}, not {expected}")
        })?;
        if step % 7 == 0 {
            bystander.step()?;
        }
        // Every kind of step has run by then; nothing may grow any more.
        if step == replays.min(14) {
            held = Some((cuda.memory(), cuda.device_memory()?));
        }
    }
    let now = (cuda.memory(), cuda.device_memory()?);
    let (pool, memory) = held.unwrap_or(now);
    require(now.0 == pool, || {
        format!("the pool grew in the soak: {pool:?}, then {:?}", now.0)
    })?;
    // The GPU may be shared with others: a whole megabyte for each hundred replays is a leak.
    let lost = memory.free.saturating_sub(now.1.free);
    require(lost <= (replays / 100) << 20, || {
        format!("the GPU lost {lost} bytes in the soak")
    })?;
    let same = launched.values()? == recorded.values()?;
    require(same, || "parameters differ after the replays".into())?;
    println!(
        "replay: {replays} recorded steps have the bits of launched ones; memory grew by {lost} bytes"
    );
    Ok(())
}

fn require(holds: bool, what: impl FnOnce() -> String) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(Error::argument("device check", what()))
}
