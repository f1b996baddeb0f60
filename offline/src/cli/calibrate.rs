//! `crossfix calibrate`: what instruments have wrong, from recorded drives.

use super::data::{self, PairsOptions};
use super::device::DeviceArgs;
use crate::calibrate::calibrate;
use crate::model::weights;
use crate::recipe::Consensus;
use crate::run::{Interrupt, sha256_file};
use crate::storage::{Files, Paths, Role};
use anyhow::Context;
use clap::Args;
use std::path::PathBuf;

/// Arguments of `crossfix calibrate`.
#[derive(Debug, Clone, Args)]
pub struct CalibrateArgs {
    /// The network: a student adapted to the area, or its teacher.
    #[arg(long)]
    weights: PathBuf,
    /// Pairs of drives. Their truth, if there is one, is not opened.
    #[arg(long)]
    data: PathBuf,
    /// Use at most this many pairs.
    #[arg(long)]
    limit: Option<usize>,
    /// Do not look at the data first.
    #[arg(long)]
    no_check: bool,
    #[command(flatten)]
    device: DeviceArgs,
    /// Write what was found to this file too (JSON).
    #[arg(long)]
    out: Option<PathBuf>,
}

impl Files for CalibrateArgs {
    fn paths(&mut self) -> Paths<'_> {
        let mut paths = vec![
            (Role::Input, &mut self.weights),
            (Role::Input, &mut self.data),
        ];
        paths.extend(self.out.iter_mut().map(|path| (Role::File, path)));
        paths
    }
}

/// Runs it.
pub fn run(args: &CalibrateArgs) -> anyhow::Result<()> {
    let interrupt = Interrupt::on_signals().context("cannot catch signals")?;
    let (mut network, _) = weights::load(&args.weights)?;
    network.parameters_mut().move_to(&args.device.open()?)?;
    let options = PairsOptions {
        limit: args.limit,
        unchecked: args.no_check,
        find_headings: true,
        ..PairsOptions::default()
    };
    let pairs = data::pairs(&args.data, network.describe(), &options)?;
    let mut found = calibrate(network.as_mut(), &pairs, &Consensus::default(), &interrupt)?;
    found.weights_sha256 = Some(sha256_file(&args.weights).context("cannot read --weights")?);
    crate::outln!("{}", found.table());
    if let Some(path) = &args.out {
        let mut text = serde_json::to_string_pretty(&found)?;
        text.push('\n');
        weights::write_whole(path, text.as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
