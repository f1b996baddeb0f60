//! The check that a card has to pass is one that the emulator passes.

use crossfix_kernel_emulator::{Emulator, Options, Schedule};
use crossfix_kernels::Device;
use crossfix_kernels::cuda::Cuda;
use crossfix_kernels::testing::{CheckOptions, check_device};

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
