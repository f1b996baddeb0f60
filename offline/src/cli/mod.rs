//! The command line: one file for each subcommand, each a thin call into the library.

mod ablate;
mod adapt;
mod calibrate;
pub(crate) mod check;
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
pub use check::CheckArgs;
pub use evaluate::EvaluateArgs;
pub use recipes::RecipesArgs;
pub use report::ReportArgs;
pub use train::TrainArgs;

use crate::demo::{self, DemoArgs};
use crate::export::{self, ExportArgs};
use crate::import::{self, ImportArgs};
use crate::ingest::{self, IngestArgs};
use crate::progress;
use crate::simulate::{self, SimulateArgs};
use crate::storage::{Files, Paths, Storage};
use crate::tileset::{self, TilesArgs};
use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// Localises cameras in aerial images, and adapts to new areas without surveyed positions.
#[derive(Debug, Parser)]
#[command(name = "crossfix", version, propagate_version = true)]
pub struct Cli {
    /// Folder for what is fetched from object storage [default: CROSSFIX_CACHE, or crossfix in the user's cache folder]
    #[arg(long, global = true, value_name = "FOLDER")]
    object_cache: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    /// Simulate a town: pairs, aerial tiles, drives.
    Simulate(SimulateArgs),
    /// Train a network on pairs with true positions.
    Train(TrainArgs),
    /// Read a published `PyTorch` checkpoint.
    Import(ImportArgs),
    /// Make tile sets of aerial pictures, and look at them.
    Tiles(TilesArgs),
    /// Make a dataset of recorded drives or photos.
    Ingest(IngestArgs),
    /// Say everything that is wrong with a dataset, each with its remedy.
    Check(CheckArgs),
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
    let mut command = cli.command.clone();
    let storage = Storage::open(command.paths(), cli.object_cache.as_deref())?;
    let done = run_here(&command);
    match (done, storage.finish()) {
        (done, Ok(())) => done,
        (Ok(()), Err(error)) => Err(error.into()),
        (Err(why), Err(error)) => {
            crate::note!("{error}");
            Err(why)
        }
    }
}

impl Files for Command {
    fn paths(&mut self) -> Paths<'_> {
        match self {
            Self::Simulate(args) => args.paths(),
            Self::Train(args) => args.paths(),
            Self::Import(args) => args.paths(),
            Self::Tiles(args) => args.paths(),
            Self::Ingest(args) => args.paths(),
            Self::Check(args) => args.paths(),
            Self::Adapt(args) => args.paths(),
            Self::Ablate(args) => args.paths(),
            Self::Calibrate(args) => args.paths(),
            Self::Recipes(_) => Paths::new(),
            Self::Evaluate(args) => args.paths(),
            Self::Export(args) => args.paths(),
            Self::Report(args) => args.paths(),
            Self::Demo(args) => args.paths(),
        }
    }
}

/// Runs a command all of whose paths are local.
fn run_here(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Simulate(args) => {
            let written = simulate::run(args, &progress::bar("simulate", 0))?;
            crate::outln!("{}", serde_json::to_string(&written)?);
            Ok(())
        }
        Command::Train(args) => train::run(args),
        Command::Import(args) => import::run(args),
        Command::Tiles(args) => tileset::run(args),
        Command::Ingest(args) => ingest::run(args),
        Command::Check(args) => check::run(args),
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
