//! `crossfix adapt`: a student for an area without true positions.

use super::data;
use super::device::DeviceArgs;
use super::published::PublishedArgs;
use crate::adapt::{AdaptConfig, adapt, oracle};
use crate::data::Truth;
use crate::model::{CrossViewModel, weights};
use crate::run::{Interrupt, Pace, RunFolder, producer, sha256_file};
use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Instant;

/// How to adapt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Recipe {
    /// The paper: labels by mode, coarse levels, auxiliary student, outlier filter.
    Paper,
    /// Fine-tuning on true positions (needs --truth): the upper bound.
    Oracle,
}

/// Arguments of `crossfix adapt`.
#[derive(Debug, Clone, Args)]
pub struct AdaptArgs {
    /// How.
    #[arg(long, value_enum, default_value_t = Recipe::Paper)]
    recipe: Recipe,
    /// Weights trained where true positions were known.
    #[arg(long)]
    teacher: PathBuf,
    /// Pairs of the new area. Their truth, if there is one, is not opened. Or the root of a
    /// published dataset (see --dataset).
    #[arg(long)]
    data: PathBuf,
    #[command(flatten)]
    published: PublishedArgs,
    /// Folder whose truth.jsonl the recipe `oracle` learns from.
    #[arg(long)]
    truth: Option<PathBuf>,
    /// Pairs with truth, of other places in the area, to measure teacher and student on at the
    /// end. Nothing is chosen by it.
    #[arg(long)]
    test: Option<PathBuf>,
    /// Settings (TOML); the options below win.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Share of labels kept.
    #[arg(long)]
    keep: Option<f64>,
    /// Coarsest levels supervised.
    #[arg(long)]
    levels: Option<usize>,
    /// Supervise every level and the heatmap.
    #[arg(long)]
    all_levels: bool,
    /// Passes over the pairs.
    #[arg(long)]
    epochs: Option<f64>,
    /// Learning rate.
    #[arg(long)]
    learning_rate: Option<f64>,
    /// Seed of the order and the views.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Use at most this many pairs.
    #[arg(long)]
    limit: Option<usize>,
    #[command(flatten)]
    device: DeviceArgs,
    /// Folder for student.safetensors, auxiliary.safetensors, labels.jsonl, run.json.
    #[arg(long)]
    out: PathBuf,
    /// Go on where the checkpoint in --out stopped.
    #[arg(long)]
    resume: bool,
}

/// Runs it.
pub fn run(args: &AdaptArgs) -> anyhow::Result<()> {
    let interrupt = Interrupt::on_signals().context("cannot catch signals")?;
    match (args.recipe, &args.truth) {
        (Recipe::Oracle, None) => {
            bail!("the recipe `oracle` learns from true positions; say --truth FOLDER")
        }
        (Recipe::Paper, Some(_)) => bail!("the recipe `paper` uses no truth; leave --truth away"),
        _ => {}
    }
    let (mut teacher, header) = weights::load(&args.teacher)?;
    teacher.parameters_mut().move_to(&args.device.open()?)?;
    let spec = teacher.describe().clone();
    let mut config = data::settings(args.config.as_deref(), teacher.paper())?;
    config.keep = args.keep.unwrap_or(config.keep);
    config.levels = args.levels.unwrap_or(config.levels);
    config.all_levels |= args.all_levels;
    config.epochs = args.epochs.unwrap_or(config.epochs);
    config.learning_rate = args.learning_rate.unwrap_or(config.learning_rate);

    let folder = RunFolder::create(&args.out)
        .with_context(|| format!("cannot make the folder {}", args.out.display()))?;
    if args.published.is_published() {
        return adapt_published(args, teacher.as_ref(), &config, &folder, &interrupt);
    }
    let begun = Instant::now();
    let (pairs, dataset) = data::pairs(&args.data, &spec, 0.0, args.limit)?;
    let prepare_seconds = begun.elapsed().as_secs_f64();
    let device = teacher.parameters().device().describe();
    let pace = |steps: usize, seconds| {
        Pace::new(
            device.clone(),
            prepare_seconds,
            steps * config.batch,
            seconds,
        )
    };
    let provenance = |details: Value| -> anyhow::Result<Value> {
        Ok(json!({
            "made_by": producer(),
            "seed": args.seed,
            "recipe": format!("{:?}", args.recipe).to_lowercase(),
            "settings": config,
            "teacher_sha256": sha256_file(&args.teacher).context("cannot read the teacher")?,
            "dataset": data::provenance(&args.data, &dataset, pairs.len())?,
            "licence": header.provenance["licence"],
            "details": details,
        }))
    };
    let (mut student, details): (Box<dyn CrossViewModel>, Value) = match &args.truth {
        Some(truth) => {
            let truth = Truth::open(truth)?;
            let (student, fitted) = oracle::fine_tune(
                teacher.as_ref(),
                &pairs,
                &truth,
                &config,
                args.seed,
                Some(&folder),
                args.resume,
                &interrupt,
            )?;
            let pace = pace(fitted.losses.len(), fitted.seconds);
            (student, json!({ "seconds": fitted.seconds, "pace": pace }))
        }
        None => {
            let adapted = adapt(
                teacher.as_ref(),
                &pairs,
                &config,
                args.seed,
                Some(&folder),
                args.resume,
                &interrupt,
            )?;
            // Labelling and filtering take a forward pass of every pair each, students their steps.
            let all_seconds = begun.elapsed().as_secs_f64();
            let seconds = adapted.fits[0].seconds + adapted.fits[1].seconds;
            let steps = adapted.fits[0].losses.len() + adapted.fits[1].losses.len();
            let pace = pace(steps, seconds);
            println!("two students: {pace}; in all {all_seconds:.1} s");
            let details = json!({
                "kept_fraction": adapted.filtered.kept_fraction(),
                "seconds": seconds,
                "pace": pace,
                "label_and_filter_seconds": all_seconds - prepare_seconds - seconds,
            });
            let path = folder.file("auxiliary.safetensors");
            weights::save(
                &path,
                adapted.auxiliary.as_ref(),
                provenance(details.clone())?,
            )?;
            (adapted.student, details)
        }
    };
    let mut record = provenance(details)?;
    let path = folder.file("student.safetensors");
    weights::save(&path, student.as_ref(), record.clone())?;
    if let Some(test) = &args.test {
        let before = data::measure(teacher.boxed_clone().as_mut(), test, None)?;
        let after = data::measure(student.as_mut(), test, None)?;
        print!(
            "teacher\n{}student\n{}",
            before.evaluation.table(),
            after.evaluation.table()
        );
        record["test"] = json!({ "teacher": before, "student": after });
    }
    folder
        .write_json("run.json", &record)
        .context("cannot write run.json")?;
    println!("{}", path.display());
    Ok(())
}

/// Adapts to the target area of VIGOR or KITTI, and measures teacher and student on its test part.
fn adapt_published(
    args: &AdaptArgs,
    teacher: &dyn CrossViewModel,
    config: &AdaptConfig,
    folder: &RunFolder,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    if args.recipe != Recipe::Paper || args.test.is_some() {
        bail!(
            "published datasets adapt with the recipe `paper`, and are tested on their own parts"
        );
    }
    let published = &args.published;
    let pairs = published.target(&args.data, args.limit, teacher.describe())?;
    let adapted = adapt(
        teacher,
        pairs.as_ref(),
        config,
        args.seed,
        Some(folder),
        args.resume,
        interrupt,
    )?;
    let mut record = json!({
        "made_by": producer(),
        "seed": args.seed,
        "recipe": "paper",
        "settings": config,
        "teacher_sha256": sha256_file(&args.teacher).context("cannot read the teacher")?,
        "dataset": published.provenance(pairs.len()),
        "licence": "see the licence of the dataset",
        "details": {
            "kept_fraction": adapted.filtered.kept_fraction(),
            "seconds": adapted.fits[0].seconds + adapted.fits[1].seconds,
        },
    });
    let auxiliary = folder.file("auxiliary.safetensors");
    weights::save(&auxiliary, adapted.auxiliary.as_ref(), record.clone())?;
    let path = folder.file("student.safetensors");
    weights::save(&path, adapted.student.as_ref(), record.clone())?;
    let mut measured = serde_json::Map::new();
    let models = [
        ("teacher", teacher.boxed_clone()),
        ("auxiliary", adapted.auxiliary.boxed_clone()),
        ("student", adapted.student.boxed_clone()),
    ];
    for (name, mut model) in models {
        let summary = published.test(model.as_mut(), &args.data, args.limit, args.seed)?;
        print!("{name}\n{}", summary.table());
        measured.insert(name.into(), json!(summary));
    }
    record["test"] = Value::Object(measured);
    folder
        .write_json("run.json", &record)
        .context("cannot write run.json")?;
    println!("{}", path.display());
    Ok(())
}
