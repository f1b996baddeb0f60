//! The dry run of `tests/gpu`: the device check on the emulator, with threads in random order.
//!
//! `cargo run --release -p crossfix-kernel-emulator --example device_check_emulated [SEED]`

use crossfix_kernel_emulator::{Emulator, Options, Schedule};
use crossfix_kernels::Device;
use crossfix_kernels::cuda::Cuda;
use crossfix_kernels_dev::{CheckOptions, check_device};
use std::process::ExitCode;

fn main() -> ExitCode {
    let seed = match std::env::args().nth(1).map(|seed| seed.parse()) {
        None => 1,
        Some(Ok(seed)) => seed,
        Some(Err(error)) => {
            eprintln!("device_check_emulated: the seed is a number: {error}");
            return ExitCode::from(2);
        }
    };
    let emulator = Emulator::new(Options {
        schedule: Schedule::Random(seed),
        ..Options::default()
    });
    let device = Device::Cuda(Cuda::with_driver(Box::new(emulator)));
    let options = CheckOptions {
        replays: 20,
        ..CheckOptions::default()
    };
    ExitCode::from(u8::from(!check_device(&device, &options).is_empty()))
}
