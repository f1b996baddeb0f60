//! `crossfix`: simulate, train, adapt, evaluate, export, report.

use clap::Parser;
use crossfix_offline::cli::{Cli, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("crossfix: {error:#}");
            ExitCode::FAILURE
        }
    }
}
