//! `crossfix`: simulate, train, adapt, evaluate, export, report.

use clap::Parser;
use crossfix_offline::cli::{Cli, run};
use crossfix_offline::output;
use crossfix_offline::train::parallel;
use std::process::ExitCode;

fn main() -> ExitCode {
    let result = run(&Cli::parse());
    if let Err(error) = &result {
        output::complain(format_args!("crossfix: {error:#}\n"));
    }
    parallel::leave(result.is_err());
    if result.is_err() || output::failed() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
