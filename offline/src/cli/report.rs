//! `crossfix report`: a page from what a run left.

use crate::report::{self, ReportInput, from_run};
use anyhow::Context;
use clap::Args;
use std::path::{Path, PathBuf};

/// Largest report input that is read.
const MOST_BYTES: u64 = 256 << 20;

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

/// Runs it.
pub fn run(args: &ReportArgs) -> anyhow::Result<()> {
    let kept = args.input.join("report-input.json");
    let input = match (args.input.is_dir(), kept.is_file()) {
        (true, true) => read(&kept)?,
        (true, false) => from_run(&args.input)?,
        _ => read(&args.input)?,
    };
    report::write(&args.out, &input)
        .with_context(|| format!("cannot write {}", args.out.display()))?;
    crate::outln!("{}", args.out.display());
    Ok(())
}

/// Reads what a run kept for its page.
fn read(path: &Path) -> anyhow::Result<ReportInput> {
    let cannot = || format!("cannot read {}", path.display());
    let bytes = std::fs::metadata(path).with_context(cannot)?.len();
    anyhow::ensure!(
        bytes <= MOST_BYTES,
        "{} has {bytes} bytes; a report input has at most {MOST_BYTES}",
        path.display()
    );
    let text = std::fs::read_to_string(path).with_context(cannot)?;
    serde_json::from_str(&text).with_context(|| format!("{} is no report input", path.display()))
}
