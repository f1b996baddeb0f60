//! `crossfix recipes`: what `crossfix adapt --recipe` knows.

use crate::model::{named, names};
use crate::recipe::ablations::{self, RECIPES};
use anyhow::Context;
use clap::Args;

/// Arguments of `crossfix recipes`.
#[derive(Debug, Clone, Args)]
pub struct RecipesArgs {
    /// Print this one as TOML: a file for --config, and the names for --set.
    name: Option<String>,
    /// The network that it is for; defaults differ between networks.
    #[arg(long, default_value = "compact")]
    network: String,
}

/// Runs it.
pub fn run(args: &RecipesArgs) -> anyhow::Result<()> {
    let Some(name) = &args.name else {
        for row in RECIPES {
            crate::outln!("{:<22} {}", row.name, row.what);
        }
        return Ok(());
    };
    let network = named(&args.network).with_context(|| {
        let names = names().join(", ");
        format!("no network {:?}; there are {names}", args.network)
    })?;
    let recipe = ablations::named(name, &network.describe());
    let recipe =
        recipe.with_context(|| format!("no recipe {name:?}; `crossfix recipes` lists them"))?;
    let text = toml::to_string(&recipe).context("cannot write the recipe as TOML")?;
    crate::out!("{text}");
    Ok(())
}
