//! Writes a small part of the simulated town: `cargo run --release --example simulate -- --out town`.

use clap::Parser;
use crossfix_offline::simulate::{SimulateArgs, run};
use indicatif::ProgressBar;

#[derive(Parser)]
struct Options {
    #[command(flatten)]
    simulate: SimulateArgs,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let written = run(&options.simulate, &ProgressBar::new(0))?;
    println!("{}", serde_json::to_string_pretty(&written)?);
    Ok(())
}
