//! Compares a CUDA device with the CPU: every operation, ten training steps, and replays
//! of a recorded step. Prints one table; exits non-zero on any failure. `tests/gpu` runs it.
//!
//! ```text
//! cargo run --release -p crossfix-kernels-dev --example device_check -- [cuda[:N]] [--operations] [--replays N]
//! ```

use crossfix_kernels::Device;
use crossfix_kernels_dev::{CheckOptions, check_device};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut options = CheckOptions::default();
    let mut name = String::from("cuda");
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--operations" => options.operations_only = true,
            "--replays" => match arguments.next().map(|n| n.parse()) {
                Some(Ok(replays)) => options.replays = replays,
                _ => return refuse("--replays wants a number"),
            },
            _ if argument.starts_with("cuda") => name = argument,
            _ => return refuse(&format!("unknown argument {argument:?}")),
        }
    }
    match Device::parse(&name) {
        Ok(device) => ExitCode::from(u8::from(!check_device(&device, &options).is_empty())),
        Err(error) => refuse(&error.to_string()),
    }
}

fn refuse(why: &str) -> ExitCode {
    eprintln!("device_check: {why}");
    ExitCode::from(2)
}
