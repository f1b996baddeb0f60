//! `crossfix evaluate`: one model, one area, one table.

use super::data;
use crate::model::weights;
use anyhow::Context;
use clap::Args;
use std::path::PathBuf;

/// Arguments of `crossfix evaluate`.
#[derive(Debug, Clone, Args)]
pub struct EvaluateArgs {
    /// Weights (.safetensors) or an exported student (.onnx), which runs as on the vehicle.
    #[arg(long)]
    model: PathBuf,
    /// Pairs dataset with truth.jsonl.
    #[arg(long)]
    data: PathBuf,
    /// Use at most this many pairs.
    #[arg(long)]
    limit: Option<usize>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub fn run(args: &EvaluateArgs) -> anyhow::Result<()> {
    let (mut model, _) = weights::load(&args.model)?;
    let measured = data::measure(&mut model, &args.data, args.limit)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&measured).context("cannot write JSON")?);
    } else {
        print!("{}", measured.table());
    }
    Ok(())
}
