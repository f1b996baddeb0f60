//! `crossfix adapt`: a student for an area without true positions.

use super::data;
use super::dataset::DatasetArgs;
use super::device::DeviceArgs;
use super::settings;
use crate::check::{self, Look, SAMPLE};
use crate::data::Dataset;
use crate::data::pairs::truth::Truth;
use crate::export::joint_licence;
use crate::model::{CrossViewModel, ModelSpec, named, names, weights};
use crate::output;
use crate::recipe::ablations::{self, RECIPES};
use crate::recipe::gate::Finding;
use crate::recipe::headings::searches_all;
use crate::recipe::{
    self, AdaptError, Adapted, HeatmapFit, Labeller, Pupil, Recipe, Shared, Verdict, adapt_sharing,
    defaults, oracle,
};
use crate::run::{Interrupt, RunContext, RunFolder, Throughput, producer, sha256_file};
use crate::shard::{self, Inputs, Shard};
use crate::storage::{Files, Paths, Role};
use crate::train::World;
use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Instant;

/// Arguments of `crossfix adapt`.
#[derive(Debug, Clone, Args)]
pub struct AdaptArgs {
    /// How, by name; `crossfix recipes` lists them [default: consensus; of a published dataset, whose
    /// pairs stand alone: paper]
    #[arg(long)]
    recipe: Option<String>,
    /// Adapt and write the student even where the gate refuses data, teacher or student.
    #[arg(long)]
    force: bool,
    /// Weights trained where true positions were known.
    #[arg(long)]
    teacher: PathBuf,
    /// Train this network on the teacher's labels instead of a copy of the teacher: a preset such as
    /// `compact-small`, for a camera of the same kind. It begins with nothing unless --student-weights is
    /// given; an auxiliary student stays a copy of the teacher.
    #[arg(long, value_name = "PRESET")]
    student: Option<String>,
    /// Weights that the student begins with instead of the teacher's or nothing.
    #[arg(long, value_name = "FILE")]
    student_weights: Option<PathBuf>,
    /// Pairs of the new area. Their truth, if there is one, is not opened. Or the root of a
    /// published dataset (see --dataset).
    #[arg(long)]
    data: PathBuf,
    #[command(flatten)]
    published: DatasetArgs,
    /// Folder whose truth.jsonl the recipe `oracle` learns from.
    #[arg(long)]
    truth: Option<PathBuf>,
    /// Pairs with truth, of other places in the area, to measure teacher and student on at the
    /// end. Nothing is chosen by it.
    #[arg(long)]
    test: Option<PathBuf>,
    /// TOML file whose values win over the named recipe's.
    #[arg(long)]
    config: Option<PathBuf>,
    /// One value of the recipe, such as `filter.keep=0.7` or `fit.loss.levels=3`; wins over
    /// --config. May be given several times. With --student its training is `student.epochs` and so on, and
    /// `fit` is the auxiliary student's.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    changes: Vec<String>,
    /// Passes over the pairs: `--set fit.epochs=...`, with --student `student.epochs`.
    #[arg(long)]
    epochs: Option<f64>,
    /// Learning rate: `--set fit.learning_rate=...`, with --student `student.learning_rate`.
    #[arg(long)]
    learning_rate: Option<f64>,
    /// Seed of the order and the views.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Use at most this many pairs.
    #[arg(long)]
    limit: Option<usize>,
    /// Only run the teacher over the k-th of n parts of the pairs, and keep its answers in --out, in
    /// answers-K-of-N.jsonl.
    #[arg(long, value_name = "K/N", conflicts_with_all = ["resume", "truth", "test"])]
    shard: Option<Shard>,
    /// Label by the files of all shards instead of running the teacher.
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["shard", "truth"])]
    merge: Vec<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
    /// Folder for student.safetensors, auxiliary.safetensors, labels.jsonl, run.json.
    #[arg(long)]
    out: PathBuf,
    /// Go on where the checkpoint in --out stopped.
    #[arg(long)]
    resume: bool,
}

impl Files for AdaptArgs {
    fn paths(&mut self) -> Paths<'_> {
        let mut paths = self.published.paths();
        paths.extend([
            (Role::Input, &mut self.teacher),
            (Role::Input, &mut self.data),
            (Role::Folder, &mut self.out),
        ]);
        let optional = [
            &mut self.student_weights,
            &mut self.truth,
            &mut self.test,
            &mut self.config,
        ];
        let inputs = optional.into_iter().flatten().chain(&mut self.merge);
        paths.extend(inputs.map(|path| (Role::Input, path)));
        paths
    }
}

impl AdaptArgs {
    /// The recipe's name.
    fn recipe(&self) -> &str {
        let default = if self.published.is_published() {
            "paper"
        } else {
            "consensus"
        };
        self.recipe.as_deref().unwrap_or(default)
    }

    /// The student that is no copy of the teacher, if one is asked for, and the SHA-256 of its weights' file.
    fn own_student(&self) -> anyhow::Result<Option<OwnStudent>> {
        let student = match (&self.student, &self.student_weights) {
            (None, None) => return Ok(None),
            (Some(name), None) => {
                let table = named(name).with_context(|| {
                    format!(
                        "--student: no network {name:?}; there are {}",
                        names().join(", ")
                    )
                })?;
                OwnStudent {
                    model: table.build(self.seed)?,
                    weights_sha256: None,
                    provenance: Value::Null,
                }
            }
            (name, Some(path)) => {
                let (model, header) = weights::load(path)?;
                let preset = &model.describe().preset;
                if let Some(name) = name.as_ref().filter(|name| *name != preset) {
                    bail!(
                        "--student is {name} and {} is of a {preset}; leave --student away or give its weights",
                        path.display()
                    );
                }
                let sha256 = sha256_file(path).context("cannot read --student-weights")?;
                OwnStudent {
                    model,
                    weights_sha256: Some(sha256),
                    provenance: header.provenance,
                }
            }
        };
        Ok(Some(student))
    }

    /// The named recipe with --config and --set over it.
    fn resolve(&self, spec: &ModelSpec, own: Option<&OwnStudent>) -> anyhow::Result<Recipe> {
        let recipe_for = |spec: &ModelSpec| {
            ablations::named(self.recipe(), spec).with_context(|| {
                let names: Vec<&str> = RECIPES.iter().map(|row| row.name).collect();
                format!(
                    "no recipe {:?}; there are {}",
                    self.recipe(),
                    names.join(", ")
                )
            })
        };
        let mut named = recipe_for(spec)?;
        if let Some(own) = own {
            let spec = own.model.describe();
            named.student = Some(match own.weights_sha256 {
                Some(_) => recipe_for(spec)?.fit,
                None => defaults::from_nothing(spec),
            });
        }
        let mut recipe = settings::resolve(&named, self.config.as_deref(), &self.changes)?;
        if own.is_none() && recipe.student.is_some() {
            bail!(
                "the settings have a table [student], which trains a student of another size; name it with --student"
            );
        }
        let fit = recipe.student.as_mut().unwrap_or(&mut recipe.fit);
        fit.epochs = self.epochs.unwrap_or(fit.epochs);
        fit.learning_rate = self.learning_rate.unwrap_or(fit.learning_rate);
        recipe.gate.enforce &= !self.force;
        recipe.check()?;
        match (recipe.labeller, &self.truth) {
            (Labeller::GroundTruth(_), None) => {
                bail!("this recipe learns from true positions; say --truth FOLDER")
            }
            (_, Some(_)) if !recipe.labeller.needs_truth() => {
                bail!("this recipe uses no truth; leave --truth away")
            }
            _ => Ok(recipe),
        }
    }
}

/// A student that is no copy of its teacher.
struct OwnStudent {
    model: Box<dyn CrossViewModel>,
    /// None where it begins with nothing.
    weights_sha256: Option<String>,
    /// What its weights' file says of them.
    provenance: Value,
}

impl OwnStudent {
    /// Its own view of the pairs.
    fn pairs(&self, args: &AdaptArgs, teacher: &ModelSpec) -> anyhow::Result<Box<dyn Dataset>> {
        let spec = self.model.describe();
        let scales = [teacher, spec].map(|spec| spec.metres_per_pixel);
        if (scales[0] / scales[1] - 1.0).abs() > 1e-6 {
            let differ = format!(
                "the teacher sees {:.4} m a pixel and the student {:.4}",
                scales[0], scales[1]
            );
            if args.published.is_published() {
                bail!(
                    "{differ}, and pictures of a published dataset have one scale; take a student of the teacher's scale"
                );
            }
            crate::note!("{differ}; each gets aerial images of its own from the tiles");
        }
        let data = if args.force {
            args.published.checked()
        } else {
            args.published.clone()
        };
        data.target(&args.data, args.limit, spec)
    }

    /// Keeps in a run's folder what it begins with. Labels and settings do not tell one beginning from another, so a run
    /// that is gone on with is refused here.
    fn goes_on(&self, folder: &RunFolder, resume: bool) -> anyhow::Result<()> {
        let path = folder.file("student-begins-with.json");
        let now = self.weights_sha256.as_deref().unwrap_or("nothing");
        if resume && let Ok(text) = std::fs::read_to_string(&path) {
            let before: String = serde_json::from_str(&text)
                .with_context(|| format!("{} is damaged", path.display()))?;
            if before != now {
                bail!(
                    "this run's student began with {before}, and --resume names {now}; give the same --student-weights, or another --out"
                );
            }
            return Ok(());
        }
        folder
            .write_json("student-begins-with.json", &now)
            .context("cannot write student-begins-with.json")
    }

    /// What a run's record says of it.
    fn about(&self) -> Value {
        let numbers = self.model.parameters().all().iter();
        let numbers: usize = numbers.map(|parameter| parameter.value.len()).sum();
        json!({
            "preset": self.model.describe().preset,
            "parameters": numbers,
            "begins_with": self.weights_sha256.as_deref().unwrap_or("nothing"),
            "auxiliary": "a copy of the teacher: what it disagrees with is contradicted by other pictures, not out of a smaller network's reach",
        })
    }
}

/// Runs it.
pub fn run(args: &AdaptArgs) -> anyhow::Result<()> {
    let interrupt = Interrupt::on_signals().context("cannot catch signals")?;
    // A shard is one process's, whoever starts many of them.
    let world = match args.shard {
        Some(_) => World::default(),
        None => World::from_environment()?,
    };
    if !world.is_first() {
        output::silence();
    }
    let (mut teacher, header) = weights::load(&args.teacher)?;
    let mut own = args.own_student()?;
    let recipe = args.resolve(teacher.describe(), own.as_ref())?;
    let device = args.device.open()?;
    teacher.parameters_mut().move_to(&device)?;
    if let Some(own) = &mut own {
        own.model.parameters_mut().move_to(&device)?;
    }
    // Before every process has labelled all pairs.
    for fit in [Some(&recipe.fit), recipe.student.as_ref()]
        .into_iter()
        .flatten()
    {
        world.check(fit.batch, &device)?;
    }
    let spec = teacher.describe().clone();

    let folder = RunFolder::create_in(&args.out, &world)
        .with_context(|| format!("cannot make the folder {}", args.out.display()))?;
    if folder.is_finished() && !args.resume {
        bail!(
            "{} holds a finished run; give another --out, or --resume to measure it again",
            args.out.display()
        );
    }
    let published = args.published.is_published();
    if published && (recipe.labeller.needs_truth() || args.test.is_some()) {
        bail!("published datasets adapt without truth, and are tested on their own parts");
    }
    let context = RunContext {
        seed: args.seed,
        folder: Some(&folder),
        resume: args.resume,
        interrupt: &interrupt,
        world: &world,
    };
    if let Some(own) = &own {
        own.goes_on(&folder, args.resume && world.is_first())?;
    }
    folder.forget("refused.json");
    let begun = Instant::now();
    if !published && args.published.checks() {
        look_first(args, teacher.as_mut(), &recipe, &context)?;
    }
    let looked_at = if published {
        args.published.clone()
    } else {
        args.published.checked()
    };
    let pairs = looked_at.target(&args.data, args.limit, &spec)?;
    let pairs = pairs.as_ref();
    let about = args.published.about(&args.data, pairs.len())?;
    let inputs = Inputs::new(
        "adapt",
        sha256_file(&args.teacher).context("cannot read the teacher")?,
        Some(teacher.as_ref()),
        (pairs, about.clone()),
        json!(recipe.labeller),
    );
    if let Some(shard) = args.shard {
        return keep_answers(shard, &inputs, teacher.as_mut(), pairs, &recipe, &context);
    }
    let own_pairs = match &own {
        Some(own) => Some(own.pairs(args, &spec)?),
        None => None,
    };
    let pupil = own.as_ref().zip(own_pairs.as_ref());
    let pupil = pupil.map(|(own, pairs)| Pupil {
        model: own.model.as_ref(),
        pairs: pairs.as_ref(),
    });
    let mut shared = if args.merge.is_empty() {
        Shared::default()
    } else {
        Shared::answered(shard::merge(&args.merge, &inputs, pairs, &spec)?)
    };
    let device = teacher.parameters().device().describe();
    let teacher_licence = header.provenance["licence"].as_str();
    let dataset_licence = about["licence"].as_str();
    let begins_with = own.as_ref().map(|own| &own.provenance);
    let own_licence = begins_with.and_then(|own| own["licence"].as_str());
    let provenance = |details: Value,
                      own: Option<&OwnStudent>,
                      found: Option<&HeatmapFit>|
     -> anyhow::Result<Value> {
        // Until its own heatmaps were fitted, a copy is as sure of itself as its teacher.
        let temperature = &own.map_or(&header.provenance, |own| &own.provenance)["temperature"];
        let licence = joint_licence(teacher_licence, dataset_licence);
        let own_licence = own_licence.filter(|_| own.is_some());
        Ok(json!({
            "made_by": producer(),
            "seed": args.seed,
            "recipe": args.recipe(),
            "settings": recipe,
            "teacher_sha256": inputs.model_sha256,
            "student": own.map(OwnStudent::about),
            "dataset": about,
            "temperature": found.map_or(temperature.clone(), |found| json!(found.temperature)),
            "heatmaps": found,
            "licence": joint_licence(licence.as_deref(), own_licence),
            "licences": { "teacher": teacher_licence, "dataset": dataset_licence, "student": own_licence },
            "details": details,
        }))
    };
    let adapted = match &args.truth {
        Some(truth) => {
            let truth = Truth::open(truth)?;
            oracle::adapt(teacher.as_ref(), pairs, &truth, pupil, &recipe, &context)?
        }
        None => {
            let teacher = teacher.as_ref();
            match adapt_sharing(teacher, pairs, pupil, &recipe, &context, &mut shared) {
                Err(AdaptError::Refused(verdict)) => {
                    note_refusal(&context, &verdict)?;
                    return Err(AdaptError::Refused(verdict).into());
                }
                adapted => adapted?,
            }
        }
    };
    if !world.is_first() {
        return Ok(());
    }
    if !adapted.verdict.findings.is_empty() {
        crate::outln!("{}", adapted.verdict);
    }
    if adapted.verdict.refuses() && recipe.gate.enforce {
        write_refusal(&folder, &adapted.verdict)?;
        bail!("the student is refused and not written; --force writes it all the same");
    }
    // Labelling and filtering take a forward pass of every pair each, students their steps.
    let all_seconds = begun.elapsed().as_secs_f64();
    let seconds = adapted.training_seconds();
    let auxiliary = adapted.auxiliary.as_ref();
    let auxiliary_steps = auxiliary.map_or(0, |auxiliary| auxiliary.fit.losses.len());
    let own_fit = recipe.student.as_ref().unwrap_or(&recipe.fit);
    let seen = auxiliary_steps * recipe.fit.batch + adapted.fit.losses.len() * own_fit.batch;
    let throughput = Throughput::new(device, seen, seconds);
    crate::outln!("training: {throughput}; in all {all_seconds:.1} s");
    let details = json!({
        "kept_fraction": adapted.kept_fraction(),
        "seconds": seconds,
        "throughput": throughput,
        "label_and_filter_seconds": all_seconds - seconds,
        "evidence": adapted.evidence,
        "gate": adapted.verdict.findings,
        "heatmaps": adapted.heatmaps,
    });
    if let Some(auxiliary) = &adapted.auxiliary {
        let path = folder.file("auxiliary.safetensors");
        weights::save(
            &path,
            auxiliary.model.as_ref(),
            provenance(details.clone(), None, None)?,
        )?;
    }
    let found = adapted.heatmaps.as_ref();
    if let Some(found) = found {
        crate::outln!("{}", found.describe());
        if !found.is_enough() {
            crate::note!(
                "too few frames for the export, which keeps the temperature that the student began with; `crossfix calibrate` with drives that the student did not learn finds its own"
            );
        }
    }
    let mut record = provenance(
        details,
        own.as_ref(),
        found.filter(|found| found.is_enough()),
    )?;
    let path = folder.file("student.safetensors");
    weights::save(&path, adapted.student.as_ref(), record.clone())?;
    if published || args.test.is_some() {
        record["test"] = test(args, teacher.as_ref(), &adapted, &interrupt)?;
        // Once more, so that an export can say how good it is.
        weights::save(&path, adapted.student.as_ref(), record.clone())?;
    }
    folder
        .write_json("run.json", &record)
        .context("cannot write run.json")?;
    crate::outln!("{}", path.display());
    Ok(())
}

/// Runs the teacher over one shard of the pairs and keeps what it answers.
fn keep_answers(
    shard: Shard,
    inputs: &Inputs,
    teacher: &mut dyn CrossViewModel,
    pairs: &dyn Dataset,
    recipe: &Recipe,
    run: &RunContext,
) -> anyhow::Result<()> {
    if run.world.size() > 1 {
        bail!("a shard is one process's; start each shard by itself");
    }
    let folder = run.folder.context("a shard has a folder")?;
    let Shard { index, of } = shard;
    let path = folder.file(&format!("answers-{}-of-{of}.jsonl", index + 1));
    let spec = teacher.describe().clone();
    let found = shard::keep(&path, inputs, shard, (pairs, &spec), |part| {
        let answers = recipe::answers(&recipe.labeller, teacher, part, run.interrupt);
        anyhow::Ok(answers?)
    })?;
    crate::outln!("{}: shard {shard}, {found} pairs", path.display());
    Ok(())
}

/// Looks at the data before anything is learned from it, and asks the teacher about it. Opens no truth.
fn look_first(
    args: &AdaptArgs,
    teacher: &mut dyn CrossViewModel,
    recipe: &Recipe,
    run: &RunContext,
) -> anyhow::Result<()> {
    let spec = teacher.describe().clone();
    let look = Look {
        sample: Some(SAMPLE),
        truth: false,
        find_headings: true,
        spec: Some(&spec),
        network: Some(teacher),
    };
    let report = check::pairs(&args.data, look, run.interrupt)?;
    if !report.found.is_empty() {
        crate::note!("{report}");
    }
    if !report.refuses() || !recipe.gate.enforce {
        return Ok(());
    }
    let problems = report.found.iter().filter(|found| found.problem);
    let findings = problems.map(|found| Finding {
        check: found.check.into(),
        value: 1.0,
        limit: 0.0,
        refuses: true,
        what: format!("{}: {}; {}", found.file, found.what, found.remedy),
    });
    let verdict = Verdict {
        findings: findings.collect(),
    };
    note_refusal(run, &verdict)?;
    bail!("the data are refused; --force adapts all the same")
}

/// Writes down a refusal that all processes found, before any of them ends the others by failing.
fn note_refusal(run: &RunContext, verdict: &Verdict) -> anyhow::Result<()> {
    if let Some(folder) = run.folder {
        write_refusal(folder, verdict)?;
    }
    Ok(run.world.barrier()?)
}

/// What the gate found, where there will be no `run.json`.
fn write_refusal(folder: &RunFolder, verdict: &Verdict) -> anyhow::Result<()> {
    folder
        .write_json("refused.json", verdict)
        .context("cannot write refused.json")?;
    folder.share();
    Ok(())
}

/// Measures teacher, auxiliary student and student: on --test, or on the test part of a published
/// dataset.
fn test(
    args: &AdaptArgs,
    teacher: &dyn CrossViewModel,
    adapted: &Adapted,
    interrupt: &Interrupt,
) -> anyhow::Result<Value> {
    let auxiliary = adapted.auxiliary.as_ref();
    let models = [
        ("teacher", Some(teacher)),
        (
            "auxiliary",
            auxiliary.map(|auxiliary| auxiliary.model.as_ref()),
        ),
        ("student", Some(adapted.student.as_ref())),
    ];
    let mut measured = serde_json::Map::new();
    for (name, model) in models {
        let Some(model) = model else { continue };
        let mut model = model.boxed_clone();
        let (table, value) = match &args.test {
            Some(folder) => {
                // What knows its heading is measured with the one that drives tell, what searches all without any.
                let options = data::PairsOptions {
                    find_headings: !searches_all(model.describe()),
                    ..args.published.pairs_options(0.0, None)?
                };
                let fit = adapted.heatmaps.as_ref().filter(|_| name == "student");
                let found =
                    data::measure_believing(model.as_mut(), folder, &options, fit, interrupt)?;
                (found.evaluation.table(), json!(found))
            }
            None => {
                let (limit, seed) = (args.limit, args.seed);
                let part = &args.published;
                let found = part.test(model.as_mut(), &args.data, limit, seed, interrupt)?;
                (found.table(), json!(found))
            }
        };
        crate::out!("{name}\n{table}");
        measured.insert(name.into(), value);
    }
    Ok(Value::Object(measured))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossfix_kernels::testing::in_processes;
    use std::time::Duration;

    /// The first process is late; the other one would end it.
    #[test]
    fn no_process_leaves_before_a_refusal_is_written() {
        let path = tempfile::tempdir().unwrap();
        let there = in_processes(2, |communicator| {
            let world = World::new(communicator);
            let folder = RunFolder::create_in(path.path(), &world).unwrap();
            let run = RunContext {
                seed: 0,
                folder: Some(&folder),
                resume: false,
                interrupt: &Interrupt::default(),
                world: &world,
            };
            if world.is_first() {
                std::thread::sleep(Duration::from_millis(100));
            }
            note_refusal(&run, &Verdict::default()).unwrap();
            path.path().join("refused.json").exists()
        });
        assert_eq!(there, [true, true]);
    }
}
