//! `crossfix check`: everything that is wrong with a dataset, at once.

use super::dataset::DatasetArgs;
use super::device::DeviceArgs;
use crate::check::{self, Look, Report};
use crate::model::weights;
use crate::run::Interrupt;
use crate::storage::{Files, Paths, Role};
use anyhow::{Context, bail};
use clap::Args;
use std::path::{Path, PathBuf};

/// Arguments of `crossfix check`.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// Pairs dataset, or the root of a published dataset (see --dataset).
    data: PathBuf,
    /// Weights that are to be adapted, trained or measured: their camera and scale must fit, and the network
    /// is asked whether headings, pictures or tiles mean something else than they say.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Decode about this many pictures and tiles, not all.
    #[arg(long)]
    sample: Option<usize>,
    #[command(flatten)]
    published: DatasetArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Files for CheckArgs {
    fn paths(&mut self) -> Paths<'_> {
        let mut paths = self.published.paths();
        paths.push((Role::Input, &mut self.data));
        paths.extend(self.model.iter_mut().map(|path| (Role::Input, path)));
        paths
    }
}

/// Runs it.
pub fn run(args: &CheckArgs) -> anyhow::Result<()> {
    let interrupt = Interrupt::on_signals().context("cannot catch signals")?;
    let mut network = None;
    if let Some(path) = &args.model {
        let (mut model, _) = weights::load(path)?;
        model.parameters_mut().move_to(&args.device.open()?)?;
        network = Some(model);
    }
    let report = if args.published.is_published() {
        args.published.check(&args.data, args.sample)
    } else {
        let spec = network.as_ref().map(|model| model.describe().clone());
        let look = Look {
            sample: args.sample,
            truth: true,
            find_headings: false,
            spec: spec.as_ref(),
            network: network.as_mut().map(|model| model.as_mut() as _),
        };
        check::pairs(&args.data, look, &interrupt)?
    };
    if args.json {
        let text = serde_json::to_string_pretty(&report).context("cannot write JSON")?;
        crate::outln!("{text}");
    } else {
        crate::outln!("{report}");
    }
    if report.refuses() {
        let noun = if report.problems() == 1 {
            "problem"
        } else {
            "problems"
        };
        bail!("{}: {} {noun}", report.dataset, report.problems());
    }
    Ok(())
}

/// What `adapt`, `train` and `evaluate` look at first: every line and header, some pictures and tiles.
///
/// # Errors
/// The report, when something is wrong; notes are only printed.
pub fn before(folder: &Path, look: Look, interrupt: &Interrupt) -> anyhow::Result<()> {
    let report: Report = check::pairs(folder, look, interrupt)?;
    if report.refuses() {
        bail!("{report}\n(--no-check goes on all the same)");
    }
    if !report.found.is_empty() {
        crate::note!("{report}");
    }
    Ok(())
}
