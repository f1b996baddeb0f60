//! `crossfix`: simulate, train, adapt, evaluate, export, report.

use clap::Parser;
use crossfix_offline::cli::{Cli, run};
use crossfix_offline::output;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) if output::failed() => ExitCode::FAILURE,
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            crossfix_offline::note!("crossfix: {error:#}");
            ExitCode::FAILURE
        }
    }
}
