//! `crossfix evaluate`: one model, one area, one table.

use super::data::{self, PairsOptions};
use super::dataset::DatasetArgs;
use super::device::DeviceArgs;
use crate::data::pairs::truth::Truth;
use crate::evaluate::{Evaluation, compare};
use crate::model::weights;
use crate::run::Interrupt;
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
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub fn run(args: &EvaluateArgs) -> anyhow::Result<()> {
    let interrupt = Interrupt::on_signals().context("cannot catch signals")?;
    let onnx = args.model.extension().is_some_and(|name| name == "onnx");
    if args.published.is_published() {
        return measure_published(args, onnx, &interrupt);
    }
    let options = args.published.pairs_options(0.0, args.limit)?;
    if onnx {
        let measured = measure_onnx(&args.model, &args.data, &options, &interrupt)?;
        return show(args.json, &measured, &measured.table());
    }
    let measured = {
        let (mut model, _) = weights::load(&args.model)?;
        model.parameters_mut().move_to(&args.device.open()?)?;
        data::measure(model.as_mut(), &args.data, &options, &interrupt)?
    };
    let text = format!("{}{}\n", measured.evaluation.table(), measured.throughput);
    show(args.json, &measured, &text)
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
    Ok(compare(&dataset, &predictions, &truth))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::city::frames::CameraKind;
    use crate::city::style::Gap;
    use crate::city::{AreaConfig, AreaName, Part, build_area};
    use crate::export;
    use crate::model::{Ccvpe, CrossViewModel, preset};
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
