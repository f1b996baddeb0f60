//! `crossfix train`: supervised training where true positions are known.

use super::data::{self, PairsOptions};
use super::dataset::DatasetArgs;
use super::device::DeviceArgs;
use super::settings;
use crate::data::pairs::truth::{Truth, true_labels};
use crate::data::{Dataset, Examples, Labelled};
use crate::model::{CrossViewModel, named, names, weights};
use crate::output;
use crate::recipe::defaults;
use crate::run::{Interrupt, RunContext, RunFolder, Throughput, producer};
use crate::storage::{Files, Paths, Role};
use crate::train::{FitConfig, Fitted, World, fit};
use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Arguments of `crossfix train`.
#[derive(Debug, Clone, Args)]
pub struct TrainArgs {
    /// Pairs dataset with truth.jsonl, or the root of a published dataset (see --dataset).
    #[arg(long)]
    data: PathBuf,
    #[command(flatten)]
    published: DatasetArgs,
    /// Another one to measure on at the end.
    #[arg(long)]
    validation: Option<PathBuf>,
    /// The network: compact, compact-front, ggcvt-compact, or a published one (`ccvpe-vigor`,
    /// `ccvpe-kitti`, `ccvpe-oxford` with options behind, such as
    /// ccvpe-vigor-fov180-prior72-reflect; `ggcvt-vigor`, `ggcvt-kitti3`, `ggcvt-kitti2`) [default: that
    /// of --init, or compact].
    #[arg(long)]
    preset: Option<String>,
    /// Weights to begin with. With --preset they go into that network, whose tensors must be theirs:
    /// those of `compact` fit `compact-unknown-heading`.
    #[arg(long)]
    init: Option<PathBuf>,
    /// TOML file whose values win over the network's settings.
    #[arg(long)]
    config: Option<PathBuf>,
    /// One setting, such as `loss.orientation=0.5`; wins over --config. May be given several times.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    changes: Vec<String>,
    /// Passes over the pairs.
    #[arg(long)]
    epochs: Option<f64>,
    /// Steps instead of epochs.
    #[arg(long)]
    steps: Option<u64>,
    /// Learning rate.
    #[arg(long)]
    learning_rate: Option<f64>,
    /// Seed of weights, order and views.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Aerial metres prepared beyond the network's view, for cutting elsewhere.
    #[arg(long, default_value_t = 16.0)]
    margin_m: f64,
    /// Use at most this many pairs.
    #[arg(long)]
    limit: Option<usize>,
    #[command(flatten)]
    device: DeviceArgs,
    /// Folder for model.safetensors, run.json, the curve and the checkpoint.
    #[arg(long)]
    out: PathBuf,
    /// Go on where the checkpoint in --out stopped.
    #[arg(long)]
    resume: bool,
}

impl Files for TrainArgs {
    fn paths(&mut self) -> Paths<'_> {
        let mut paths = self.published.paths();
        paths.extend([(Role::Input, &mut self.data), (Role::Folder, &mut self.out)]);
        let optional = [&mut self.validation, &mut self.init, &mut self.config];
        paths.extend(
            optional
                .into_iter()
                .flatten()
                .map(|path| (Role::Input, path)),
        );
        paths
    }
}

/// Runs it.
pub fn run(args: &TrainArgs) -> anyhow::Result<()> {
    let interrupt = Interrupt::on_signals().context("cannot catch signals")?;
    let world = World::from_environment()?;
    if !world.is_first() {
        output::silence();
    }
    let mut model = begin_with(args.preset.as_deref(), args.init.as_deref(), args.seed)?;
    model.parameters_mut().move_to(&args.device.open()?)?;
    let spec = model.describe().clone();
    let mut config = settings::resolve(
        &defaults::supervised(&spec),
        args.config.as_deref(),
        &args.changes,
    )?;
    config.epochs = args.epochs.unwrap_or(config.epochs);
    config.steps = args.steps.or(config.steps);
    config.learning_rate = args.learning_rate.unwrap_or(config.learning_rate);
    config.check()?;
    world.check(config.batch, &model.parameters().device())?;

    let folder = RunFolder::create_in(&args.out, &world)
        .with_context(|| format!("cannot make the folder {}", args.out.display()))?;
    if folder.is_finished() && !args.resume {
        bail!(
            "{} holds a finished run; give another --out, or --resume to measure it again",
            args.out.display()
        );
    }
    if args.published.is_published() {
        if args.validation.is_some() {
            bail!(
                "--validation is for pairs datasets; a published dataset is measured by `crossfix evaluate --dataset ... --part validation`"
            );
        }
        return train_published(args, model.as_mut(), &config, &folder, &interrupt, &world);
    }
    args.published.refuse_heading_within()?;
    let options = PairsOptions {
        truth: true,
        ..args.published.pairs_options(args.margin_m, args.limit)?
    };
    let dataset = data::pairs(&args.data, &spec, &options)?;
    let truth = Truth::open(&args.data)?;
    let labels = true_labels(&dataset, &truth, &spec)?;
    if labels.is_empty() {
        bail!(
            "none of the {} pairs has its true position inside its aerial patch; is truth.jsonl of this dataset?",
            dataset.len()
        );
    }
    if labels.len() < dataset.len() {
        crate::note!(
            "{} of {} pairs are left out: no truth, or outside their aerial patch",
            dataset.len() - labels.len(),
            dataset.len()
        );
    }
    let examples = Labelled {
        dataset: &dataset,
        labels: &labels,
        epochs: &[],
        augmentation: &config.augmentation,
        spec: &spec,
    };
    let fitted = run_fit(
        args,
        model.as_mut(),
        &examples,
        &config,
        &folder,
        &interrupt,
        &world,
    )?;
    if !world.is_first() {
        return Ok(());
    }
    let measured = args
        .validation
        .as_ref()
        .map(|path| {
            let options = args.published.pairs_options(0.0, None)?;
            data::measure(model.as_mut(), path, &options, &interrupt)
        })
        .transpose()?;
    if let Some(measured) = &measured {
        crate::out!("{}", measured.evaluation.table());
    }
    let device = model.parameters().device().describe();
    let trained = fitted.losses.len() * config.batch;
    let throughput = Throughput::new(device, trained, fitted.seconds);
    let manifest = dataset.inner().manifest();
    // Fitted together: the daemon adds the share of heatmaps that mean nothing itself.
    let heatmaps = measured
        .as_ref()
        .and_then(|measured| measured.heatmaps.as_ref());
    let provenance = json!({
        "made_by": producer(),
        "seed": args.seed,
        "settings": config,
        "dataset": data::provenance(&args.data, labels.len())?,
        "steps": fitted.total_steps,
        "seconds": fitted.seconds,
        "throughput": throughput,
        "temperature": heatmaps.map(|found| found.temperature),
        "heatmaps": heatmaps,
        "validation": measured,
        "licence": manifest.licence,
    });
    let path = folder.file("model.safetensors");
    weights::save(&path, model.as_ref(), provenance.clone())?;
    folder
        .write_json("run.json", &provenance)
        .context("cannot write run.json")?;
    crate::outln!(
        "{} after {} steps; {throughput}",
        path.display(),
        fitted.total_steps
    );
    Ok(())
}

/// A network as it is before its training.
fn begin_with(
    preset: Option<&str>,
    init: Option<&Path>,
    seed: u64,
) -> anyhow::Result<Box<dyn CrossViewModel>> {
    if let (None, Some(path)) = (preset, init) {
        return Ok(weights::load(path)?.0);
    }
    let name = preset.unwrap_or("compact");
    let spec = named(name)
        .with_context(|| format!("no preset {name:?}; there are {}", names().join(", ")))?;
    let mut model = spec.build(seed)?;
    if let Some(path) = init {
        let (other, _) = weights::load(path)?;
        weights::fill(model.as_mut(), weights::arrays_of(other.as_ref()), path)?;
    }
    Ok(model)
}

/// Trains; a run that was stopped is an error that says how it goes on.
fn run_fit(
    args: &TrainArgs,
    model: &mut dyn CrossViewModel,
    examples: &dyn Examples,
    config: &FitConfig,
    folder: &RunFolder,
    interrupt: &Interrupt,
    world: &World,
) -> anyhow::Result<Fitted> {
    let run = RunContext {
        seed: args.seed,
        folder: Some(folder),
        resume: args.resume,
        interrupt,
        world,
    };
    let fitted = fit("train", model, examples, config, &run)?;
    if fitted.interrupted {
        bail!(
            "stopped on request after {} of {} steps; the same command with --resume goes on",
            fitted.steps,
            fitted.total_steps
        );
    }
    Ok(fitted)
}

/// Trains on VIGOR or KITTI with the published draws, and measures on what was kept apart: 20 % of
/// VIGOR's list, KITTI's first test list.
fn train_published(
    args: &TrainArgs,
    model: &mut dyn CrossViewModel,
    config: &FitConfig,
    folder: &RunFolder,
    interrupt: &Interrupt,
    world: &World,
) -> anyhow::Result<()> {
    let spec = model.describe().clone();
    let published = &args.published;
    let (fitted, count) = published.train(&args.data, args.limit, &spec, |examples| {
        let fitted = run_fit(args, model, examples, config, folder, interrupt, world)?;
        Ok((fitted, examples.len()))
    })?;
    if !world.is_first() {
        return Ok(());
    }
    let provenance = |measured: Value| {
        json!({
            "made_by": producer(),
            "seed": args.seed,
            "settings": config,
            "dataset": published.provenance(count),
            "steps": fitted.total_steps,
            "seconds": fitted.seconds,
            "validation": measured,
            "licence": "see the licence of the dataset",
        })
    };
    // Saved before it is measured: measuring may fail or be stopped.
    let path = folder.file("model.safetensors");
    weights::save(&path, model, provenance(Value::Null))?;
    let measured = published.validate(model, &args.data, args.limit, args.seed, interrupt)?;
    crate::out!("{}", measured.table());
    let record = provenance(json!(measured));
    weights::save(&path, model, record.clone())?;
    folder
        .write_json("run.json", &record)
        .context("cannot write run.json")?;
    crate::outln!("{} after {} steps", path.display(), fitted.total_steps);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_a_known_heading_go_into_the_network_that_searches_all_and_into_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("compact.safetensors");
        let known = begin_with(None, None, 3).unwrap();
        weights::save(&path, known.as_ref(), Value::Null).unwrap();
        let all = begin_with(Some("compact-unknown-heading"), Some(&path), 4).unwrap();
        assert_eq!(all.describe().orientation_prior, None);
        assert_eq!(
            weights::arrays_of(all.as_ref()),
            weights::arrays_of(known.as_ref())
        );
        let same = begin_with(None, Some(&path), 4).unwrap();
        assert_eq!(same.describe().preset, "compact");
        assert!(begin_with(Some("compact-small"), Some(&path), 4).is_err());
        assert!(begin_with(Some("compact-large"), None, 4).is_err());
    }
}
