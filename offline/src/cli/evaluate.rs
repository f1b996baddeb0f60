//! `crossfix evaluate`: one model, one area, one table.

use super::data::{self, PairsOptions};
use super::dataset::DatasetArgs;
use super::device::DeviceArgs;
use crate::data::loader::{Workers, ahead};
use crate::data::pairs::truth::Truth;
use crate::data::{Dataset, Pair};
use crate::evaluate::{Evaluation, compare};
use crate::export;
use crate::model::{named, weights};
use crate::predict::{PairPrediction, from_heatmap};
use crate::run::Interrupt;
use anyhow::{Context, bail};
use clap::Args;
use crossfix_calibration::{PatchGeoreference, PatchSpec};
use crossfix_onboard::matcher::{GroundStrip, Matcher, TractMatcher};
use serde::Serialize;
use serde_json::json;
use std::f64::consts::PI;
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
    let mut matcher = TractMatcher::load(path)?;
    if matcher.card().ground.camera.is_some() {
        bail!(
            "{} sees pinhole pictures, and pairs are prepared as strips; drive with it (crossfixd replay)",
            path.display()
        );
    }
    let name = matcher.card().preset.clone();
    let spec = named(&name).with_context(|| format!("this program has no preset {name:?}"))?;
    let spec = spec.describe();
    export::agree(matcher.card(), &spec)?;
    let options = PairsOptions {
        truth: true,
        ..options.clone()
    };
    let dataset = data::pairs(folder, &spec, &options)?;
    let truth = Truth::open(folder)?;
    let patch = PatchSpec {
        size_px: spec.aerial_px,
        metres_per_pixel: spec.metres_per_pixel,
    };
    let mut one = |pair: &Pair| -> anyhow::Result<PairPrediction> {
        let key = PatchGeoreference::exactly_at(pair.sample.centre, patch)?.key();
        let strip = GroundStrip {
            image: &pair.ground,
            left_azimuth_rad: pair.sample.left_bin as f64 * spec.bin_rad() - PI,
        };
        let found = matcher.match_frame(strip, key, &pair.aerial)?;
        let field = |_| found.yaw_residual_rad;
        let heatmap = found.heatmap.probabilities();
        Ok(from_heatmap(heatmap, field, &pair.sample, &spec, false))
    };
    // Pictures are decoded on the other cores while the matcher runs.
    let read = |index: u64| dataset.pair(index as usize);
    let count = dataset.len() as u64;
    let predictions = ahead(0..count, Workers::default(), interrupt, read, |pairs| {
        let predicted = pairs.map(|pair| {
            let pair = pair?;
            one(&pair).with_context(|| format!("pair {}", pair.sample.id))
        });
        predicted.collect::<anyhow::Result<Vec<PairPrediction>>>()
    })?;
    if interrupt.asked() {
        bail!("stopped on request");
    }
    Ok(compare(&dataset, &predictions, &truth))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::city::frames::CameraKind;
    use crate::city::style::Gap;
    use crate::city::{AreaConfig, AreaName, Part, build_area};
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
