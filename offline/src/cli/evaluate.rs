//! `crossfix evaluate`: one model, one area, one table.

use super::data::{self, PairsOptions};
use super::dataset::DatasetArgs;
use super::device::DeviceArgs;
use crate::data::Dataset;
use crate::data::pairs::truth::Truth;
use crate::evaluate::{Evaluation, compare, temperature};
use crate::export::calibrated;
use crate::model::{CrossViewModel, weights};
use crate::predict::PairPrediction;
use crate::recipe::heatmap_fit::RegionCoverage;
use crate::run::{Interrupt, sha256_file};
use crate::shard::{self, Answer, Inputs, Shard};
use crate::storage::{Files, Paths, Role};
use crate::student::Student;
use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Arguments of `crossfix evaluate`.
#[derive(Debug, Clone, Args)]
pub struct EvaluateArgs {
    /// Weights (.safetensors), or an exported student (.onnx), which runs as on the vehicle.
    #[arg(long)]
    model: PathBuf,
    /// Pairs dataset with truth.jsonl, or the root of a published dataset (see --dataset).
    #[arg(long)]
    data: PathBuf,
    #[command(flatten)]
    published: DatasetArgs,
    /// Use at most this many pairs.
    #[arg(long)]
    limit: Option<usize>,
    /// Seed of the turns that --dataset vigor draws.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    device: DeviceArgs,
    /// Run the network over the k-th of n parts of the pairs, and keep its answers in --out.
    #[arg(long, value_name = "K/N", requires = "out", conflicts_with = "json")]
    shard: Option<Shard>,
    /// File for the answers of --shard.
    #[arg(long, requires = "shard")]
    out: Option<PathBuf>,
    /// The files of all shards: what one run would have measured, without the network.
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "shard")]
    merge: Vec<PathBuf>,
    /// File that `calibrate --out` wrote for these weights: how often the truth lies within the regions of
    /// heatmaps that are believed as it says.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["shard", "merge"])]
    calibration: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Files for EvaluateArgs {
    fn paths(&mut self) -> Paths<'_> {
        let mut paths = self.published.paths();
        paths.extend([
            (Role::Input, &mut self.model),
            (Role::Input, &mut self.data),
        ]);
        paths.extend(self.calibration.iter_mut().map(|path| (Role::Input, path)));
        paths.extend(self.merge.iter_mut().map(|path| (Role::Input, path)));
        paths.extend(self.out.iter_mut().map(|path| (Role::File, path)));
        paths
    }
}

/// Runs it.
pub fn run(args: &EvaluateArgs) -> anyhow::Result<()> {
    let interrupt = Interrupt::on_signals().context("cannot catch signals")?;
    let onnx = args.model.extension().is_some_and(|name| name == "onnx");
    let in_shards = args.shard.is_some() || !args.merge.is_empty();
    if args.calibration.is_some() && (onnx || in_shards || args.published.is_published()) {
        bail!(
            "--calibration is for weights on pairs, in one run; an exported student has its own inside (export --calibration)"
        );
    }
    let near = args.published.heading_within().is_some() && !args.published.is_published();
    if near && (onnx || in_shards) {
        bail!("--heading-within on pairs is for weights, in one run; leave it away");
    }
    if onnx {
        args.device
            .refuse("an exported student runs in tract, on the processor, as on the vehicle")?;
    }
    if args.published.is_published() {
        if in_shards {
            bail!("published datasets are measured in one run; leave --shard and --merge away");
        }
        return measure_published(args, onnx, &interrupt);
    }
    let options = args.published.pairs_options(0.0, args.limit)?;
    if in_shards {
        return measure_shards(args, &options, &interrupt);
    }
    if onnx {
        let measured = measure_onnx(&args.model, &args.data, &options, &interrupt)?;
        return show(args.json, &measured, &measured.table());
    }
    let measured = {
        let (mut model, _) = weights::load(&args.model)?;
        model.parameters_mut().move_to(&args.device.open()?)?;
        if let Some(within_deg) = args.published.heading_within() {
            model = near_heading(model.as_ref(), within_deg)?;
        }
        let fit = args
            .calibration
            .as_deref()
            .map(|path| calibrated(path, &args.model))
            .transpose()?;
        data::measure_believing(
            model.as_mut(),
            &args.data,
            &options,
            fit.as_ref(),
            &interrupt,
        )?
    };
    let mut text = format!("{}{}\n", measured.evaluation.table(), measured.throughput);
    if let (Some(own), Some(believed)) = (&measured.heatmaps, &measured.believed) {
        text += &regions(&[
            (&own.describe(), &own.coverage),
            (&believed.fit.describe(), &believed.coverage),
        ]);
    }
    show(args.json, &measured, &text)
}

/// The same network searching so many degrees on each side of the given heading.
fn near_heading(
    model: &dyn CrossViewModel,
    within_deg: f64,
) -> anyhow::Result<Box<dyn CrossViewModel>> {
    let spec = model.describe();
    if !(0.0..=180.0).contains(&within_deg) {
        bail!("--heading-within {within_deg}; it is 0 to 180 degrees");
    }
    let bins = (within_deg.to_radians() / spec.bin_rad() - 1e-9).ceil();
    let near = model.searching_near(bins.max(0.0) as usize);
    near.with_context(|| {
        format!(
            "{} has no bins to search; leave --heading-within away",
            spec.preset
        )
    })
}

/// Keeps the answers of one shard, or measures those of all.
fn measure_shards(
    args: &EvaluateArgs,
    options: &PairsOptions,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    let mut student = Student::load(&args.model)?;
    let spec = student.spec().clone();
    if let Student::Weights { model, .. } = &mut student {
        model.parameters_mut().move_to(&args.device.open()?)?;
    }
    let options = PairsOptions {
        truth: true,
        ..options.clone()
    };
    let dataset = data::pairs(&args.data, &spec, &options)?;
    let weights = student.weights();
    let keep = weights.is_some() && data::keeps_heatmaps(&dataset, &spec);
    let inputs = Inputs::new(
        "evaluate",
        sha256_file(&args.model).context("cannot read the model")?,
        weights,
        (&dataset, data::provenance(&args.data, dataset.len())?),
        json!({ "heatmaps": keep }),
    );
    if let (Some(shard), Some(out)) = (args.shard, &args.out) {
        let found = shard::keep(out, &inputs, shard, (&dataset, &spec), |part| {
            let keep = |_: &_, mut prediction: PairPrediction, heatmap: &[f32]| {
                prediction.heatmap = keep.then(|| heatmap.to_vec());
                let map = None;
                Ok(Answer { prediction, map })
            };
            let answers = student.predict_with(part, interrupt, keep);
            anyhow::Ok(answers?)
        })?;
        crate::outln!("{}: shard {shard}, {found} pairs", out.display());
        return Ok(());
    }
    let truth = Truth::open(&args.data)?;
    let answers = shard::merge(&args.merge, &inputs, &dataset, &spec)?;
    let predictions = answers.into_iter().map(|answer| answer.prediction);
    let predictions: Vec<PairPrediction> = predictions.collect();
    let evaluation = compare(&dataset, &predictions, &truth);
    evaluation
        .check()
        .map_err(|what| data::wrong_truth(&args.data, &what))?;
    let table = evaluation.table();
    let mut measured = json!(evaluation);
    if student.weights().is_some() {
        measured["temperature"] = json!(temperature(&dataset, &predictions, &truth, &spec));
    }
    show(args.json, &measured, &table)
}

/// How often regions hold the truth, one line for each way to believe heatmaps.
fn regions(ways: &[(&str, &[RegionCoverage])]) -> String {
    let mut text = "how often the smallest region of a probability holds the truth:\n".to_owned();
    for (name, coverage) in ways {
        for region in *coverage {
            text += &format!(
                "{:>3.0} %: {:>5.1} %  ",
                100.0 * region.nominal,
                100.0 * region.observed
            );
        }
        text += &format!("({name})\n");
    }
    text
}

/// Prints what was measured, as JSON or as a table.
fn show(json: bool, measured: &impl Serialize, table: &str) -> anyhow::Result<()> {
    if json {
        let text = serde_json::to_string_pretty(measured).context("cannot write JSON")?;
        crate::outln!("{text}");
    } else {
        crate::out!("{table}");
    }
    Ok(())
}

/// Measures a network on VIGOR or KITTI.
fn measure_published(args: &EvaluateArgs, onnx: bool, interrupt: &Interrupt) -> anyhow::Result<()> {
    if onnx {
        bail!("published datasets are measured with weights (.safetensors), not with a .onnx");
    }
    let (mut model, _) = weights::load(&args.model)?;
    model.parameters_mut().move_to(&args.device.open()?)?;
    let measured =
        args.published
            .evaluate(model.as_mut(), &args.data, args.limit, args.seed, interrupt)?;
    if args.json {
        let settings = args.published.provenance(measured.count());
        let text = json!({ "settings": settings, "measured": measured });
        crate::outln!("{}", serde_json::to_string_pretty(&text)?);
    } else {
        crate::out!("{}", measured.table());
    }
    Ok(())
}

/// Measures an exported student through the daemon's own matcher.
fn measure_onnx(
    path: &Path,
    folder: &Path,
    options: &PairsOptions,
    interrupt: &Interrupt,
) -> anyhow::Result<Evaluation> {
    let mut student = Student::load(path)?;
    let options = PairsOptions {
        truth: true,
        ..options.clone()
    };
    let dataset = data::pairs(folder, student.spec(), &options)?;
    let truth = Truth::open(folder)?;
    let predictions = student.predict(&dataset, interrupt)?;
    let evaluation = compare(&dataset, &predictions, &truth);
    evaluation
        .check()
        .map_err(|what| data::wrong_truth(folder, &what))?;
    Ok(evaluation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::city::frames::{CameraKind, Headings};
    use crate::city::style::Gap;
    use crate::city::{AreaConfig, AreaName, Part, build_area};
    use crate::export;
    use crate::model::{Ccvpe, preset};
    use crate::simulate::{Contents, PairsPlan, write_pairs};

    #[test]
    fn an_exported_student_is_measured_like_its_weights() {
        for (name, camera) in [
            ("compact", CameraKind::Panorama),
            ("compact-front", CameraKind::Front),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let area = build_area(AreaConfig {
                area: AreaName::Target,
                seed: 9,
                gap: Gap::default(),
            });
            let plan = PairsPlan {
                headings: Headings::Measured,
                part: Part::Test,
                districts: 1,
                contents: Contents::Random { pairs: 12 },
                camera,
            };
            let pairs = folder.path().join("pairs");
            write_pairs(&area, &plan, &pairs, &indicatif::ProgressBar::hidden()).unwrap();
            let mut model = Ccvpe::new(preset(name).unwrap(), 4).unwrap();
            let path = folder.path().join("student.onnx");
            let card = export::student_card(model.describe(), 1.0, "MIT");
            export::write_onnx(&model, card, &path).unwrap();
            let (options, never) = (PairsOptions::default(), Interrupt::default());
            let exported = measure_onnx(&path, &pairs, &options, &never).unwrap();
            let trained = data::measure(&mut model, &pairs, &options, &never)
                .unwrap()
                .evaluation;
            for (exported, trained) in [
                (&exported.unmasked, &trained.unmasked),
                (&exported.masked, &trained.masked),
                (&exported.coarse, &trained.coarse),
            ] {
                assert_eq!(exported.count, 12, "{name}");
                assert!((exported.mean_m - trained.mean_m).abs() < 1e-6, "{name}");
            }
            assert!(exported.yaw.is_some() && exported.levels.is_empty());
        }
    }
}
