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
    /// `zip` or `legacy`.
    pub format: &'static str,
    /// Tensors left out, because the network never uses them.
    pub unused: usize,
}

/// Reads the `wanted` tensors (published names and shapes) of a checkpoint. `unused` says which
/// others may be left out.
///
/// # Errors
/// [`ImportError`] when the file is damaged or asks for more than tensors, and when tensors are
/// missing, extra or of another shape: all of them at once.
pub fn read(
    path: &Path,
    wanted: &BTreeMap<String, Vec<usize>>,
    unused: fn(&str) -> bool,
) -> Result<Imported, ImportError> {
    let inner = || -> Result<Imported, Problem> {
        let mut checkpoint = Checkpoint::open(path)?;
        checkpoint.unwrap_names(|name| wanted.contains_key(name));
        let found = checkpoint.shapes();
        agree(&found, wanted, unused)?;
        Ok(Imported {
            format: checkpoint.format(),
            unused: found.len() - wanted.len(),
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
    let problems: Vec<String> = kinds
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(what, names)| {
            let more = match names.len().saturating_sub(MOST_LISTED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let listed = names[..names.len().min(MOST_LISTED)].join(", ");
            format!("{} {what}: {listed}{more}", names.len())
        })
        .collect();
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Problem::Mismatch(problems.join("; ")))
    }
}

/// Puts the tensors of a checkpoint into `model`.
///
/// # Errors
/// [`ImportError`] as [`read`]; [`ModelError::Weights`] when a number is not finite.
pub fn fill(model: &mut dyn CrossViewModel, path: &Path) -> anyhow::Result<Imported> {
    let wanted = names::wanted(model.parameters());
    let unused = match model.describe().kind {
        NetworkKind::Ccvpe => names::is_unused,
        NetworkKind::Ggcvt => names::is_unused_by_ggcvt,
    };
    let mut imported = read(path, &wanted, unused)?;
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
    /// A `PyTorch` checkpoint (.pt, .pth): a state dict in the zip or the legacy format.
    pub checkpoint: PathBuf,
    /// The file to write; the checkpoint's name with .safetensors when not given.
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Licence of the weights, as an SPDX expression. It travels with them.
    #[arg(long)]
    pub licence: Option<String>,
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
    let mut model = spec.build(0)?;
    let imported = fill(model.as_mut(), &args.checkpoint)?;
    let file = args.checkpoint.file_name().unwrap_or_default();
    let provenance = json!({
        "made_by": producer(),
        "imported_from": {
            "file": file.to_string_lossy(),
            "sha256": sha256_file(&args.checkpoint).context("cannot read the checkpoint")?,
            "format": imported.format,
            "tensors_left_out": imported.unused,
        },
        "licence": args.licence,
    });
    weights::save(&out, model.as_ref(), provenance)?;
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
