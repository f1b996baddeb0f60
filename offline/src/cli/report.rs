//! `crossfix report`: a page from what a run left.

use crate::report::{self, ReportInput};
use anyhow::Context;
use clap::Args;
use std::path::PathBuf;

/// Largest report input that is read.
const MOST_BYTES: u64 = 256 << 20;

/// Arguments of `crossfix report`.
#[derive(Debug, Clone, Args)]
pub struct ReportArgs {
    /// A run folder with report-input.json (`crossfix demo` writes one), or that file.
    #[arg(long)]
    input: PathBuf,
    /// The page to write.
    #[arg(long, default_value = "report.html")]
    out: PathBuf,
}

/// Runs it.
pub fn run(args: &ReportArgs) -> anyhow::Result<()> {
    let path = if args.input.is_dir() {
        args.input.join("report-input.json")
    } else {
        args.input.clone()
    };
    let cannot = || format!("cannot read {}", path.display());
    let bytes = std::fs::metadata(&path).with_context(cannot)?.len();
    anyhow::ensure!(
        bytes <= MOST_BYTES,
        "{} has {bytes} bytes; a report input has at most {MOST_BYTES}",
        path.display()
    );
    let text = std::fs::read_to_string(&path).with_context(cannot)?;
    let input: ReportInput = serde_json::from_str(&text)
        .with_context(|| format!("{} is no report input", path.display()))?;
    report::write(&args.out, &input)
        .with_context(|| format!("cannot write {}", args.out.display()))?;
    crate::outln!("{}", args.out.display());
    Ok(())
}
