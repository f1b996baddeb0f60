//! What the subcommands share: reading pairs and settings, and measuring with their truth.

use crate::data::{Pair, PairsDataset, Preparation, Truth, prepare};
use crate::evaluate::{Evaluation, evaluate};
use crate::model::{CrossViewModel, ModelSpec};
use crate::predict::predict;
use crate::run::{Pace, sha256_file};
use anyhow::Context;
use serde::Serialize;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Instant;

/// Reads and prepares a dataset; of more than `limit` pairs, every n-th is taken.
pub fn pairs(
    folder: &Path,
    spec: &ModelSpec,
    margin_m: f64,
    limit: Option<usize>,
) -> anyhow::Result<(Vec<Pair>, PairsDataset)> {
    let mut dataset = PairsDataset::open(folder)?;
    if let Some(limit) = limit.filter(|limit| *limit < dataset.rows.len()) {
        let all = dataset.rows.len();
        let mut index = 0;
        dataset.retain(|_| {
            index += 1;
            index * limit / all > (index - 1) * limit / all
        });
    }
    let preparation = Preparation {
        margin_m,
        ..Preparation::default()
    };
    Ok((prepare(&dataset, spec, &preparation)?, dataset))
}

/// What a network's measurement found, and its pace.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    #[serde(flatten)]
    pub evaluation: Evaluation,
    pub pace: Pace,
}

/// Measures a network on a dataset with truth.
pub fn measure(
    model: &mut dyn CrossViewModel,
    folder: &Path,
    limit: Option<usize>,
) -> anyhow::Result<Measured> {
    let truth = Truth::open(folder)?;
    let begun = Instant::now();
    let (pairs, _) = pairs(folder, model.describe(), 0.0, limit)?;
    let pairs: Vec<&Pair> = pairs.iter().collect();
    let prepare_seconds = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    let predictions = predict(model, &pairs, false)?;
    let seconds = begun.elapsed().as_secs_f64();
    let device = model.parameters().device().describe();
    Ok(Measured {
        evaluation: evaluate(&pairs, &predictions, &truth),
        pace: Pace::new(device, prepare_seconds, pairs.len(), seconds),
    })
}

/// What a run says about its dataset: where it lies, what it says of itself, hashes of its text.
pub fn provenance(folder: &Path, dataset: &PairsDataset, used: usize) -> anyhow::Result<Value> {
    let hash =
        |name: &str| sha256_file(&folder.join(name)).with_context(|| format!("cannot read {name}"));
    Ok(json!({
        "area": dataset.manifest.area,
        "licence": dataset.manifest.licence,
        "provenance": dataset.manifest.provenance,
        "pairs": used,
        "dataset_toml_sha256": hash("dataset.toml")?,
        "pairs_jsonl_sha256": hash("pairs.jsonl")?,
    }))
}
