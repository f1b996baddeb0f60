//! What the subcommands share: reading pairs and settings, and measuring with their truth.

use super::check;
use crate::check::{Look, SAMPLE};
use crate::data::pairs::truth::Truth;
use crate::data::pairs::{DatasetManifest, headings};
use crate::data::{Dataset, InMemory, MEMORY_BYTES, Pairs, PairsImages, Pictures, Preparation};
use crate::evaluate::{Evaluation, evaluate, heatmap_fit, temperature, with_truth};
use crate::model::{CrossViewModel, ModelSpec};
use crate::recipe::HeatmapFit;
use crate::recipe::heatmap_fit::RegionCoverage;
use crate::run::{Interrupt, Throughput, sha256_file, sha256_json};
use anyhow::Context;
use serde::Serialize;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Instant;

/// How a pairs dataset is opened.
#[derive(Debug, Clone, Default)]
pub struct PairsOptions {
    /// Aerial metres beyond the network's view, for cutting elsewhere.
    pub margin_m: f64,
    /// Of more pairs than this, every n-th is taken.
    pub limit: Option<usize>,
    /// Where decoded pictures are kept.
    pub pictures: Pictures,
    /// Do not look at the data first.
    pub unchecked: bool,
    /// Look at the truth too.
    pub truth: bool,
    /// Find headings that are not known along their drives, before pictures are aligned with them.
    pub find_headings: bool,
}

/// Opens a pairs dataset for a network. Its pairs are read when they are needed, and kept in memory
/// as far as they fit.
pub fn pairs(
    folder: &Path,
    spec: &ModelSpec,
    options: &PairsOptions,
) -> anyhow::Result<InMemory<PairsImages>> {
    if !options.unchecked {
        let look = Look {
            sample: Some(SAMPLE),
            truth: options.truth,
            find_headings: options.find_headings,
            spec: Some(spec),
            network: None,
        };
        check::before(folder, look, &Interrupt::default())?;
    }
    let mut pairs = Pairs::open(folder)?;
    if let Some(limit) = options.limit.filter(|limit| *limit < pairs.rows.len()) {
        let all = pairs.rows.len();
        let mut index = 0;
        pairs.retain(|_| {
            index += 1;
            index * limit / all > (index - 1) * limit / all
        });
    }
    let found_headings = if options.find_headings {
        headings::find(&mut pairs.rows)
    } else {
        None
    };
    if let Some(found) = &found_headings {
        crate::note!("{}", found.describe());
    }
    let preparation = Preparation {
        margin_m: options.margin_m,
        ..Preparation::default()
    };
    let mut images = PairsImages::open(pairs, spec, preparation)?;
    images.pictures = options.pictures.clone();
    images.found_headings = found_headings;
    Ok(InMemory::new(images, MEMORY_BYTES))
}

/// What a network's measurement found, and how fast.
#[derive(Debug, Clone, Serialize)]
pub struct Measurement {
    #[serde(flatten)]
    pub evaluation: Evaluation,
    pub throughput: Throughput,
    /// Softmax temperature at which the heatmaps mean what they say here; `None` where they are too
    /// many to keep.
    pub temperature: Option<f64>,
    /// The same together with the share of heatmaps that mean nothing.
    pub heatmaps: Option<HeatmapFit>,
    /// How often the truth lies within the regions of heatmaps that are believed as something else said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub believed: Option<Believed>,
}

/// Heatmaps believed as a fit of other places says, held against the truth.
#[derive(Debug, Clone, Serialize)]
pub struct Believed {
    /// The fit.
    pub fit: HeatmapFit,
    /// How often regions hold the truth here.
    pub coverage: Vec<RegionCoverage>,
}

/// Heatmaps are kept for the temperature up to this many bytes.
const HEATMAP_BYTES: usize = 256 << 20;

/// Whether the heatmaps of a dataset are few enough to be kept.
pub fn keeps_heatmaps(dataset: &dyn Dataset, spec: &ModelSpec) -> bool {
    dataset.len() * spec.heatmap_side().pow(2) * size_of::<f32>() <= HEATMAP_BYTES
}

/// Measures a network on a dataset with truth.
pub fn measure(
    model: &mut dyn CrossViewModel,
    folder: &Path,
    options: &PairsOptions,
    interrupt: &Interrupt,
) -> anyhow::Result<Measurement> {
    measure_believing(model, folder, options, None, interrupt)
}

/// As [`measure`], and how often regions hold the truth when heatmaps are believed as `fit` says.
pub fn measure_believing(
    model: &mut dyn CrossViewModel,
    folder: &Path,
    options: &PairsOptions,
    fit: Option<&HeatmapFit>,
    interrupt: &Interrupt,
) -> anyhow::Result<Measurement> {
    let options = PairsOptions {
        truth: true,
        ..options.clone()
    };
    let dataset = pairs(folder, model.describe(), &options)?;
    let truth = Truth::open(folder)?;
    let begun = Instant::now();
    let spec = model.describe().clone();
    let keep = keeps_heatmaps(&dataset, &spec);
    let (evaluation, predictions) = evaluate(model, &dataset, &truth, keep, interrupt)?;
    evaluation
        .check()
        .map_err(|what| wrong_truth(folder, &what))?;
    let temperature = temperature(&dataset, &predictions, &truth, &spec);
    let heatmaps = heatmap_fit(&dataset, &predictions, &truth, &spec);
    let believed = fit.filter(|_| keep).map(|fit| {
        let samples = with_truth(&dataset, &predictions, &truth, &spec);
        let coverage = fit.coverage_of(spec.heatmap_side(), &samples)?;
        Ok::<_, anyhow::Error>(Believed {
            fit: fit.clone(),
            coverage,
        })
    });
    let believed = believed.transpose()?;
    let seconds = begun.elapsed().as_secs_f64();
    let device = model.parameters().device().describe();
    Ok(Measurement {
        evaluation,
        throughput: Throughput::new(device, dataset.len(), seconds),
        temperature,
        heatmaps,
        believed,
    })
}

/// Says which dataset has no truth to measure by.
pub fn wrong_truth(folder: &Path, what: &str) -> anyhow::Error {
    anyhow::anyhow!("{}: {what}", folder.display())
}

/// What a run says about its dataset: where it lies, what it says of itself, hashes of its text
/// (`sha256` is that of both as a JSON array).
pub fn provenance(folder: &Path, used: usize) -> anyhow::Result<Value> {
    let manifest = DatasetManifest::read(folder)?;
    let hash =
        |name: &str| sha256_file(&folder.join(name)).with_context(|| format!("cannot read {name}"));
    Ok(json!({
        "area": manifest.area,
        "licence": manifest.licence,
        "provenance": manifest.provenance,
        "pairs": used,
        "sha256": sha256_json(&[hash("dataset.toml")?, hash("pairs.jsonl")?]),
        "dataset_toml_sha256": hash("dataset.toml")?,
        "pairs_jsonl_sha256": hash("pairs.jsonl")?,
    }))
}
