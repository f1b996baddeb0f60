//! `crossfix ablate`: what each part of the method is worth.

use super::device::DeviceArgs;
use crate::ablate::{Study, default_rows, markdown, summarise};
use crate::model::weights::{self, write_whole};
use crate::run::{Interrupt, RunFolder, producer, sha256_file};
use crate::shard::Shard;
use crate::storage::{Files, Paths, Role};
use crate::train::World;
use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Arguments of `crossfix ablate`.
#[derive(Debug, Clone, Args)]
pub struct AblateArgs {
    /// Weights that every adaptation starts from.
    #[arg(long)]
    teacher: PathBuf,
    /// A folder with the pairs `adapt` and, of other places with truth, `test`. May be given several
    /// times; means and standard errors are over areas.
    #[arg(long = "area", value_name = "FOLDER", required_unless_present = "list")]
    areas: Vec<PathBuf>,
    /// A recipe, or one with settings: `paper,filter.keep=0.7`. May be given several times [default: the
    /// paper's ablations and baselines, and ours].
    #[arg(long = "row", value_name = "NAME[,SETTING=VALUE]...")]
    rows: Vec<String>,
    /// Do not look at the data first.
    #[arg(long)]
    no_check: bool,
    /// Print the default rows for the teacher's network, and stop.
    #[arg(long)]
    list: bool,
    /// Seed of every adaptation.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Compute the k-th of n parts of the cells; the last to finish, or --merge, makes the table.
    #[arg(long, value_name = "K/N", default_value = "1/1")]
    shard: Shard,
    /// Make the table of the cells in --out, and compute none: one that is missing is an error.
    #[arg(long, conflicts_with = "shard")]
    merge: bool,
    #[command(flatten)]
    device: DeviceArgs,
    /// Folder for cells, ablations.md and ablations.json. What is there is not computed again; `crossfix report
    /// --input` makes a page of it.
    #[arg(long, required_unless_present = "list")]
    out: Option<PathBuf>,
}

impl Files for AblateArgs {
    fn paths(&mut self) -> Paths<'_> {
        let mut paths = vec![(Role::Input, &mut self.teacher)];
        paths.extend(self.areas.iter_mut().map(|path| (Role::Input, path)));
        paths.extend(self.out.iter_mut().map(|path| (Role::Folder, path)));
        paths
    }
}

/// Runs it.
pub fn run(args: &AblateArgs) -> anyhow::Result<()> {
    if args.shard == Shard::WHOLE {
        World::refuse_several()?;
    }
    let interrupt = Interrupt::on_signals().context("cannot catch signals")?;
    let (mut teacher, _) = weights::load(&args.teacher)?;
    let rows = if args.rows.is_empty() {
        default_rows(teacher.describe())
    } else {
        args.rows.clone()
    };
    if args.list {
        for row in rows {
            crate::outln!("{row}");
        }
        return Ok(());
    }
    let out = args.out.as_ref().context("give --out FOLDER")?;
    let mut names: Vec<_> = args.areas.iter().map(|area| area.file_name()).collect();
    names.sort();
    if names.windows(2).any(|two| two[0] == two[1]) {
        bail!("two areas have folders of one name; cells are kept by it");
    }
    let mut named: Vec<&String> = rows.iter().collect();
    named.sort();
    if let Some([twice, _]) = named.windows(2).find(|two| two[0] == two[1]) {
        bail!("--row {twice} is given twice; it would count twice");
    }
    teacher.parameters_mut().move_to(&args.device.open()?)?;
    let folder = RunFolder::create(out)
        .with_context(|| format!("cannot make the folder {}", out.display()))?;
    let study = Study {
        teacher: teacher.as_ref(),
        teacher_sha256: sha256_file(&args.teacher).context("cannot read the teacher")?,
        areas: &args.areas,
        rows: &rows,
        seed: args.seed,
        shard: args.shard,
        merges: args.merge,
        unchecked: args.no_check,
        out,
        interrupt: &interrupt,
    };
    let cells = study.run()?;
    let table = markdown(&cells);
    write_whole(&folder.file("ablations.md"), table.as_bytes())
        .context("cannot write ablations.md")?;
    let all = json!({
        "made_by": producer(),
        "network": teacher.describe().preset,
        "seed": args.seed,
        "rows": summarise(&cells),
        "cells": cells,
    });
    folder
        .write_json("ablations.json", &all)
        .context("cannot write ablations.json")?;
    crate::out!("{table}");
    Ok(())
}
