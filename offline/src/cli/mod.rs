//! The command line: one file for each subcommand, each a thin call into the library.

mod ablate;
mod adapt;
mod calibrate;
pub(crate) mod data;
mod dataset;
pub(crate) mod device;
mod evaluate;
mod lists;
mod recipes;
mod report;
pub(crate) mod settings;
mod train;

pub use ablate::AblateArgs;
pub use adapt::AdaptArgs;
pub use calibrate::CalibrateArgs;
pub use evaluate::EvaluateArgs;
pub use recipes::RecipesArgs;
pub use report::ReportArgs;
pub use train::TrainArgs;

use crate::demo::{self, DemoArgs};
use crate::export::{self, ExportArgs};
use crate::import::{self, ImportArgs};
use crate::progress;
use crate::simulate::{self, SimulateArgs};
use clap::{Parser, Subcommand};

/// Localises cameras in aerial images, and adapts to new areas without surveyed positions.
#[derive(Debug, Parser)]
#[command(name = "crossfix", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Simulate a town: pairs, aerial tiles, drives.
    Simulate(SimulateArgs),
    /// Train a network on pairs with true positions.
    Train(TrainArgs),
    /// Read a published `PyTorch` checkpoint.
    Import(ImportArgs),
    /// Adapt a network to an area without true positions.
    Adapt(AdaptArgs),
    /// Compare recipes over several areas: what each part of the method is worth.
    Ablate(AblateArgs),
    /// Find what instruments have wrong, from drives without true positions.
    Calibrate(CalibrateArgs),
    /// List the recipes of `adapt`, or print one as TOML.
    Recipes(RecipesArgs),
    /// Measure a network on pairs with true positions.
    Evaluate(EvaluateArgs),
    /// Write a network as one ONNX file for vehicles.
    Export(ExportArgs),
    /// Make the page of a run again.
    Report(ReportArgs),
    /// The whole system once: simulate, adapt, evaluate, export, drive, report.
    Demo(DemoArgs),
}

/// Runs the program.
///
/// # Errors
/// Whatever the subcommand says, ready to print.
pub fn run(cli: &Cli) -> anyhow::Result<()> {
    match &cli.command {
        Command::Simulate(args) => {
            let written = simulate::run(args, &progress::bar("simulate", 0))?;
            crate::outln!("{}", serde_json::to_string(&written)?);
            Ok(())
        }
        Command::Train(args) => train::run(args),
        Command::Import(args) => import::run(args),
        Command::Adapt(args) => adapt::run(args),
        Command::Ablate(args) => ablate::run(args),
        Command::Calibrate(args) => calibrate::run(args),
        Command::Recipes(args) => recipes::run(args),
        Command::Evaluate(args) => evaluate::run(args),
        Command::Export(args) => export::run(args),
        Command::Report(args) => report::run(args),
        Command::Demo(args) => demo::run(args),
    }
}
