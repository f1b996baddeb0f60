//! The check that a GPU has to pass is one that the emulator passes.

use crossfix_kernel_emulator::{Emulator, Options, Schedule};
use crossfix_kernels::Device;
use crossfix_kernels::cuda::Cuda;
use crossfix_kernels_dev::{CheckOptions, check_device};

fn failures(options: Options) -> Vec<String> {
    let device = Device::Cuda(Cuda::with_driver(Box::new(Emulator::new(options))));
    let checked = CheckOptions {
        recorded_only: true,
        replays: 10,
        ..CheckOptions::default()
    };
    check_device(&device, &checked)
}

#[test]
fn recorded_steps_have_the_bits_of_launched_ones_in_any_order_that_their_buffers_allow() {
    for schedule in [Schedule::Reverse, Schedule::Random(1), Schedule::Random(2)] {
        let options = Options {
            schedule,
            ..Options::default()
        };
        assert_eq!(failures(options), [] as [&str; 0], "{schedule:?}");
    }
}

#[test]
fn a_recording_that_forgets_what_comes_before_is_noticed() {
    for schedule in [Schedule::Reverse, Schedule::Random(1)] {
        let options = Options {
            schedule,
            forgets_order: true,
            ..Options::default()
        };
        assert_ne!(failures(options), [] as [&str; 0], "{schedule:?}");
    }
}

#[test]
fn operations_training_memory_and_replays_agree_with_the_processor() {
    let emulator = Emulator::new(Options {
        schedule: Schedule::Random(3),
        ..Options::default()
    });
    let device = Device::Cuda(Cuda::with_driver(Box::new(emulator)));
    let options = CheckOptions {
        replays: 10,
        ..CheckOptions::default()
    };
    let failures = check_device(&device, &options);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
