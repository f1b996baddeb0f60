//! `crossfix report`: a page from what a run left.

use crate::report;
use crate::storage::{Files, Paths, Role};
use anyhow::Context;
use clap::Args;
use std::path::PathBuf;

/// Arguments of `crossfix report`.
#[derive(Debug, Clone, Args)]
pub struct ReportArgs {
    /// The folder of a run of `train`, `adapt` or `demo`, or a report-input.json.
    #[arg(long)]
    input: PathBuf,
    /// The page to write.
    #[arg(long, default_value = "report.html")]
    out: PathBuf,
}

impl Files for ReportArgs {
    fn paths(&mut self) -> Paths<'_> {
        vec![(Role::Input, &mut self.input), (Role::File, &mut self.out)]
    }
}

/// Runs it.
pub fn run(args: &ReportArgs) -> anyhow::Result<()> {
    let input = report::open(&args.input)?;
    report::write(&args.out, &input)
        .with_context(|| format!("cannot write {}", args.out.display()))?;
    crate::outln!("{}", args.out.display());
    Ok(())
}
