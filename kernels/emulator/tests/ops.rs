//! Every operation's kernels agree with their definition on the CPU, forward and backward,
//! in several orders of threads; and no kernel reads what it should not or races.

use crossfix_kernel_emulator::{Emulator, Guard, Options, Schedule};
use crossfix_kernels::Device;
use crossfix_kernels::cuda::{Cuda, Precision};
use crossfix_kernels_dev::{OpCase, cases};
use std::time::Instant;

/// Runs every case on an emulator with these options; with `CROSSFIX_CASE` set, those whose name
/// contains it.
fn all_cases_agree(options: Options) {
    let wanted = std::env::var("CROSSFIX_CASE").unwrap_or_default();
    let mut failures = Vec::new();
    let start = Instant::now();
    let mut slowest = (0.0, String::new());
    for case in cases().into_iter().filter(|c| c.name.contains(&wanted)) {
        let begun = Instant::now();
        let device = Device::Cuda(Cuda::with_driver(Box::new(Emulator::new(options))));
        match case.compare(&device) {
            Ok(difference) => {
                let accepted = case.accepts(difference);
                let verdict = if accepted { "ok" } else { "WRONG" };
                println!(
                    "{:40} forward {:8.1e} backward {:8.1e} {verdict}",
                    case.name, difference.forward, difference.backward
                );
                if !accepted {
                    failures.push(format!(
                        "{}: {difference:?}, allowed {:?}",
                        case.name, case.tolerance
                    ));
                }
            }
            Err(error) => failures.push(format!("{}: {error}", case.name)),
        }
        let taken = begun.elapsed().as_secs_f64();
        if taken > slowest.0 {
            slowest = (taken, case.name);
        }
    }
    let (seconds, name) = slowest;
    let total = start.elapsed().as_secs_f64();
    println!("{total:.1} s, of which {seconds:.1} s for {name}");
    assert!(failures.is_empty(), "{options:?}:\n{}", failures.join("\n"));
}

#[test]
fn they_agree_when_threads_run_in_reverse() {
    // Also with guards before the buffers, which the other tests have behind.
    all_cases_agree(Options {
        schedule: Schedule::Reverse,
        guard: Guard::Before,
        ..Options::default()
    });
}

#[test]
fn they_agree_in_a_random_order() {
    all_cases_agree(Options {
        schedule: Schedule::Random(1),
        ..Options::default()
    });
}

#[test]
fn they_agree_in_another_random_order() {
    all_cases_agree(Options {
        schedule: Schedule::Random(2),
        ..Options::default()
    });
}

#[test]
fn no_kernel_races_or_reads_what_nobody_wrote() {
    all_cases_agree(Options {
        checked: true,
        ..Options::default()
    });
}

/// Factors are rounded to 11 bits (TF32) or 8 (bf16), so sums of a few hundred products of numbers
/// below 1 differ by about the root of their number times 2⁻¹² or 2⁻⁹. No difference at all would
/// mean that the tensor cores were not asked.
#[test]
fn tensor_cores_agree_to_their_rounding() {
    for (precision, most) in [(Precision::Tf32, 1e-2), (Precision::Bf16, 8e-2)] {
        let mut tried = 0;
        for case in cases().into_iter().filter(OpCase::is_implicit) {
            let options = Options {
                schedule: Schedule::Random(3),
                ..Options::default()
            };
            let cuda = Cuda::with_driver(Box::new(Emulator::new(options)));
            cuda.set_precision(precision);
            let difference = case.compare(&Device::Cuda(cuda)).unwrap();
            println!("{precision:?} {}: {difference:?}", case.name);
            for found in [difference.forward, difference.backward] {
                assert!((1e-5..most).contains(&found), "{}: {found}", case.name);
            }
            tried += 1;
        }
        assert!(tried >= 5);
    }
}
