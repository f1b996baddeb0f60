//! `crossfix import`: published `PyTorch` checkpoints, read without running anything in them.
//!
//! A checkpoint is a pickle program beside raw arrays. [`pickle`] runs the few instructions that
//! build a state dict and refuses every other, [`checkpoint`] finds the arrays, [`names`] says
//! which belong to a network; [`write`](mod@write) goes back.

pub mod checkpoint;
pub mod names;
pub mod pickle;
#[cfg(test)]
mod tests;
pub mod write;

use crate::model::weights::{self, Arrays};
use crate::model::{CrossViewModel, ModelError, NetworkKind, named, names as network_names};
use crate::run::{producer, sha256_file};
use crate::storage::{Files, Paths, Role, is_url};
use anyhow::Context;
use checkpoint::Checkpoint;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Names listed of each kind of problem; the rest is counted.
const MOST_LISTED: usize = 30;

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The file cannot be read.
    #[error("{0}")]
    File(#[from] std::io::Error),
    /// The bytes are not a whole checkpoint.
    #[error("{0}; copy or download the file again")]
    Damaged(String),
    /// The file asks for something that a state dict does not need.
    #[error(
        "{0}; only state dicts are read (tensors by name), and nothing in a file is ever run: save `model.state_dict()` with torch.save"
    )]
    Refused(String),
    /// There is more than one network in it.
    #[error("it holds the network more than once, under {0}; say which with --key")]
    Several(String),
    /// The tensors are another network's.
    #[error("the tensors don't make this network: {0}")]
    Mismatch(String),
}

/// A checkpoint that cannot be used, and which.
#[derive(Debug, thiserror::Error)]
#[error("\"{}\": {problem}", path.display())]
pub struct ImportError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What was in a checkpoint.
#[derive(Debug)]
pub struct Imported {
    /// The wanted tensors, flattened.
    pub tensors: BTreeMap<String, Vec<f32>>,
    /// `zip`, `legacy` or `safetensors`.
    pub format: &'static str,
    /// Tensors left out, because the network never uses them.
    pub unused: usize,
    /// Names of tensors left out because they are not of the network: an optimiser's, another copy's.
    pub strange: Vec<String>,
}

/// Reads the `wanted` tensors (published names and shapes) of a checkpoint, of the state dict under `key` where
/// there are several. `unused` says which others are of the network.
///
/// # Errors
/// [`ImportError`] when the file is damaged or asks for more than tensors, and when tensors are
/// missing or of another shape: all of them at once, with what is there instead.
pub fn read(
    path: &Path,
    wanted: &BTreeMap<String, Vec<usize>>,
    unused: fn(&str) -> bool,
    key: Option<&str>,
) -> Result<Imported, ImportError> {
    let inner = || -> Result<Imported, Problem> {
        let mut checkpoint = Checkpoint::open(path)?;
        let mut strange = checkpoint.choose(|name| wanted.contains_key(name), key)?;
        let found = checkpoint.shapes();
        agree(&found, wanted, unused)?;
        let others = found.keys().filter(|name| !wanted.contains_key(*name));
        let (own, other): (Vec<_>, Vec<_>) = others.partition(|name| unused(name));
        strange.extend(other.into_iter().cloned());
        Ok(Imported {
            format: checkpoint.format(),
            unused: own.len(),
            strange,
            tensors: checkpoint.read(|name| wanted.contains_key(name))?,
        })
    };
    inner().map_err(|problem| ImportError {
        path: path.into(),
        problem,
    })
}

/// Compares what a file has with what a network needs, everything at once.
fn agree(
    found: &BTreeMap<String, Vec<usize>>,
    wanted: &BTreeMap<String, Vec<usize>>,
    unused: fn(&str) -> bool,
) -> Result<(), Problem> {
    let missing = wanted.keys().filter(|name| !found.contains_key(*name));
    let extra = found
        .keys()
        .filter(|name| !wanted.contains_key(*name) && !unused(name));
    let shapes = wanted.iter().filter_map(|(name, wanted)| {
        let found = found.get(name)?;
        (found != wanted).then(|| format!("{name} ({found:?}, {wanted:?} needed)"))
    });
    let kinds: [(&str, Vec<String>); 3] = [
        ("missing", missing.cloned().collect()),
        ("of another shape", shapes.collect()),
        ("not part of it", extra.cloned().collect()),
    ];
    if kinds[0].1.is_empty() && kinds[1].1.is_empty() {
        return Ok(());
    }
    let problems: Vec<String> = kinds
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(what, names)| {
            let more = more(names.len());
            let listed = names[..names.len().min(MOST_LISTED)].join(", ");
            format!("{} {what}: {listed}{more}", names.len())
        })
        .collect();
    Err(Problem::Mismatch(problems.join("; ")))
}

/// What stands behind the names that are listed.
fn more(names: usize) -> String {
    match names.saturating_sub(MOST_LISTED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    }
}

/// Puts the tensors of a checkpoint into `model`, of the state dict under `key` where there are several.
///
/// # Errors
/// [`ImportError`] as [`read`]; [`ModelError::Weights`] when a number is not finite.
pub fn fill(
    model: &mut dyn CrossViewModel,
    path: &Path,
    key: Option<&str>,
) -> anyhow::Result<Imported> {
    let wanted = names::wanted(model.parameters());
    let unused = match model.describe().kind {
        NetworkKind::Ccvpe => names::is_unused,
        NetworkKind::Ggcvt => names::is_unused_by_ggcvt,
    };
    let mut imported = read(path, &wanted, unused, key)?;
    let parameters = model.parameters();
    let mut shapes = BTreeMap::new();
    for parameter in parameters.all() {
        shapes.insert(parameter.name.as_str(), parameter.value.shape());
    }
    let arrays: Arrays = std::mem::take(&mut imported.tensors)
        .into_iter()
        .map(|(name, data)| {
            let own = shapes.get(name.as_str()).map(|shape| shape.to_vec());
            let shape = own.unwrap_or_else(|| vec![data.len()]);
            (name, (shape, data))
        })
        .collect();
    let result: Result<(), ModelError> = weights::fill(model, arrays, path);
    result?;
    Ok(imported)
}

/// Arguments of `crossfix import`.
#[derive(Debug, Clone, clap::Args)]
pub struct ImportArgs {
    /// The network: ccvpe-vigor, ccvpe-kitti or ccvpe-oxford, with options such as -prior0,
    /// -fov180 or -reflect behind; ggcvt-vigor, ggcvt-kitti2 or ggcvt-kitti3.
    pub preset: String,
    /// A `PyTorch` checkpoint (.pt, .pth), or .safetensors: a state dict, alone or inside a training checkpoint.
    pub checkpoint: PathBuf,
    /// Where in the checkpoint the network is, such as model_ema, when it is there more than once.
    #[arg(long)]
    pub key: Option<String>,
    /// The file to write; the checkpoint's name with .safetensors when not given.
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Licence of the weights, as an SPDX expression. It travels with them.
    #[arg(long)]
    pub licence: Option<String>,
}

impl Files for ImportArgs {
    fn paths(&mut self) -> Paths<'_> {
        // Not beside a checkpoint that lies in a cache.
        if self.out.is_none() && is_url(&self.checkpoint) {
            let name = self.checkpoint.file_name().unwrap_or_default();
            self.out = Some(PathBuf::from(name).with_extension("safetensors"));
        }
        let mut paths = vec![(Role::Input, &mut self.checkpoint)];
        paths.extend(self.out.iter_mut().map(|path| (Role::File, path)));
        paths
    }
}

/// Runs it.
///
/// # Errors
/// When there is no such network, the checkpoint cannot be used, or the file cannot be written.
pub fn run(args: &ImportArgs) -> anyhow::Result<()> {
    let spec = named(&args.preset).with_context(|| {
        let all = network_names().join(", ");
        format!("no preset {:?}; there are {all}", args.preset)
    })?;
    let out = match &args.out {
        Some(out) => out.clone(),
        None => args.checkpoint.with_extension("safetensors"),
    };
    let same = out.canonicalize().is_ok_and(|out| {
        let checkpoint = args.checkpoint.canonicalize();
        checkpoint.is_ok_and(|checkpoint| checkpoint == out)
    });
    anyhow::ensure!(
        !same,
        "{} is the checkpoint itself; give another --out",
        out.display()
    );
    let mut model = spec.build(0)?;
    let imported = fill(model.as_mut(), &args.checkpoint, args.key.as_deref())?;
    let file = args.checkpoint.file_name().unwrap_or_default();
    let provenance = json!({
        "made_by": producer(),
        "imported_from": {
            "file": file.to_string_lossy(),
            "sha256": sha256_file(&args.checkpoint).context("cannot read the checkpoint")?,
            "format": imported.format,
            "key": args.key,
            "tensors_left_out": imported.unused + imported.strange.len(),
        },
        "licence": args.licence,
    });
    weights::save(&out, model.as_ref(), provenance)?;
    if !imported.strange.is_empty() {
        let names = &imported.strange;
        let shown = names[..names.len().min(MOST_LISTED)].join(", ");
        let more = more(names.len());
        crate::note!(
            "{} tensors are not of {} and left out: {shown}{more}",
            names.len(),
            args.preset
        );
    }
    crate::outln!(
        "{}: {} from a {} checkpoint, {} parameters; {} tensors that it never uses left out",
        out.display(),
        args.preset,
        imported.format,
        model.parameters().count(),
        imported.unused
    );
    Ok(())
}
