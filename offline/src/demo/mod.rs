//! `crossfix demo`: the whole system once, small but real, on places the teacher has never seen.
//!
//! Simulate a target area and drives there → measure the shipped teacher → adapt by `consensus`, and
//! beside it by `paper` (and fine-tune on true positions, as the upper bound) → evaluate on places never trained on → export → compare
//! with the training engine → replay drives through the daemon's pipeline → one table, one page.

mod area;
mod drive;
mod example;
mod outcome;
mod page;
mod story;

use crate::cli::data;
use crate::cli::device::DeviceArgs;
use crate::data::pairs::truth::{Truth, true_pose};
use crate::data::{Dataset, plain_batch};
use crate::evaluate::{Evaluation, Views, evaluate, placed_samples, temperature, view_descriptors};
use crate::export::{self, joint_licence, verify_export, write_onnx, write_parity};
use crate::model::{CrossViewModel, weights};
use crate::predict::PairPrediction;
use crate::recipe::{Adapted, Recipe, adapt, defaults, oracle};
use crate::run::{Interrupt, RunContext, RunFolder, producer, sha256_file};
use crate::storage::{Files, Paths, Role};
use crate::train::World;
use anyhow::{Context, anyhow, ensure};
use area::Areas;
use clap::Args;
use crossfix_onboard::card::StudentCard;
use drive::Drives;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The teacher that ships with the program; `docs/benchmarks.md` says how it was made.
const SHIPPED_TEACHER: &[u8] = include_bytes!("../../assets/teacher-compact.safetensors");
/// Pairs whose outputs are kept for checking the exported student with other runtimes.
const PARITY_PAIRS: usize = 8;
/// Pairs whose descriptors are laid out for the page.
const PAIRS_IN_PLANE: usize = 200;
/// The file that says that a folder is the demo's.
const MARKER: &str = ".crossfix-demo";

/// Arguments of `crossfix demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Seed of the simulated world and of the training.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Folder for everything that is made.
    #[arg(long, default_value = "demo-out")]
    pub out: PathBuf,
    /// Another teacher than the shipped one (.safetensors).
    #[arg(long)]
    pub teacher: Option<PathBuf>,
    /// Which part of the target area the figures are of. Choices are made on `validation`; `test`
    /// is what is reported.
    #[arg(long, value_enum, default_value = "test")]
    pub part: crate::city::Part,
    /// Where the networks run.
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// One model on the held-out places.
struct Measured {
    predictions: Vec<PairPrediction>,
    evaluation: Evaluation,
    /// What it compares, for the page, where that was asked for and there is such.
    views: Option<Views>,
}

/// Everything the table and the page are made of.
struct Outcome {
    seed: u64,
    areas: Areas,
    adapt_truth: Truth,
    teacher_on_source: Evaluation,
    teacher: Measured,
    auxiliary: Measured,
    paper: Measured,
    paper_adapted: Adapted,
    paper_label_errors_m: Vec<f64>,
    student: Measured,
    upper_bound: Measured,
    label_errors_m: Vec<f64>,
    adapted: Adapted,
    recipe: Recipe,
    temperature: f64,
    export_error: f64,
    drives: Drives,
    seconds: f64,
}

impl Files for DemoArgs {
    fn paths(&mut self) -> Paths<'_> {
        let mut paths = vec![(Role::Folder, &mut self.out)];
        paths.extend(self.teacher.iter_mut().map(|path| (Role::Input, path)));
        paths
    }
}

/// Runs it.
///
/// # Errors
/// When a step fails; the message says which. Nothing half-done is left without a message.
pub fn run(args: &DemoArgs) -> anyhow::Result<()> {
    World::refuse_several()?;
    let clock = Instant::now();
    let interrupt = Interrupt::on_signals().context("cannot catch signals")?;
    let folder = own_folder(&args.out)?;
    let say = |what: &str| crate::note!("[{:5.1} s] {what}", clock.elapsed().as_secs_f64());

    let teacher_path = if let Some(path) = &args.teacher {
        path.clone()
    } else {
        let path = folder.file("teacher.safetensors");
        weights::write_whole(&path, SHIPPED_TEACHER)
            .with_context(|| format!("cannot write {}", path.display()))?;
        path
    };
    let (mut teacher, header) = weights::load(&teacher_path)?;
    teacher.parameters_mut().move_to(&args.device.open()?)?;

    say("simulating a source area, a target area and drives there");
    let areas = Areas::simulate(&args.out, args.seed, args.part, teacher.describe())?;

    say("measuring the teacher at home and in the target area");
    let (teacher_on_source, at_home) = evaluate(
        teacher.as_mut(),
        &areas.source,
        &areas.source_truth,
        true,
        &interrupt,
    )?;
    let temperature = temperature(
        &areas.source,
        &at_home,
        &areas.source_truth,
        teacher.describe(),
    )
    .context("no temperature fits the source area")?;
    let mut measured_teacher =
        measure(teacher.as_mut(), &areas.test, &areas.test_truth, &interrupt)?;

    say("adapting by `consensus` (coarse positions and odometry only)");
    let mut recipe = defaults::consensus(teacher.describe());
    // What the gate finds is shown; the demo goes on to show what would have come of it.
    recipe.gate.enforce = false;
    let context = RunContext {
        seed: args.seed,
        folder: Some(&folder),
        resume: false,
        interrupt: &interrupt,
        world: crate::train::World::alone(),
    };
    let mut adapted = adapt(teacher.as_ref(), &areas.adapt, &recipe, &context)?;
    crate::outln!("{}", adapted.verdict);
    say("beside it by `paper`: auxiliary student, outlier filter, student");
    let paper_folder = folder.subfolder("paper");
    let paper_folder = paper_folder.map_err(|(path, error)| anyhow!("{path}: {error}"))?;
    let paper_context = RunContext {
        folder: Some(&paper_folder),
        ..context
    };
    let paper_recipe = defaults::paper(teacher.describe());
    let mut paper_adapted = adapt(
        teacher.as_ref(),
        &areas.adapt,
        &paper_recipe,
        &paper_context,
    )?;
    say("fine-tuning on true positions, for the upper bound");
    let adapt_truth = Truth::open(&areas.adapt_folder)?;
    let upper_bound = defaults::oracle(teacher.describe());
    let mut upper_bound = oracle::adapt(
        teacher.as_ref(),
        &areas.adapt,
        &adapt_truth,
        None,
        &upper_bound,
        &context,
    )?;

    say("evaluating where nothing was trained");
    let auxiliary = paper_adapted.auxiliary.as_mut();
    let auxiliary = auxiliary.context("the recipe `paper` trains an auxiliary student")?;
    let auxiliary = measure(
        auxiliary.model.as_mut(),
        &areas.test,
        &areas.test_truth,
        &interrupt,
    )?;
    let paper = measure(
        paper_adapted.student.as_mut(),
        &areas.test,
        &areas.test_truth,
        &interrupt,
    )?;
    let mut student = measure(
        adapted.student.as_mut(),
        &areas.test,
        &areas.test_truth,
        &interrupt,
    )?;
    let upper_bound = measure(
        upper_bound.student.as_mut(),
        &areas.test,
        &areas.test_truth,
        &interrupt,
    )?;

    say("laying out what teacher and student compare");
    let shown = placed_samples(&areas.test, &areas.test_truth, PAIRS_IN_PLANE);
    let mut networks = [
        (teacher.as_mut(), &mut measured_teacher),
        (adapted.student.as_mut(), &mut student),
    ];
    for (network, measured) in &mut networks {
        measured.views = view_descriptors(*network, &areas.test, &shown, &interrupt)?
            .map(|found| Views::of(&found));
    }

    say("exporting to ONNX and comparing tract with the training engine");
    let teacher_licence = header.provenance["licence"].as_str();
    let dataset_licence = areas.adapt.inner().manifest().licence.as_str();
    let provenance = json!({
        "made_by": producer(),
        "seed": args.seed,
        "recipe": "consensus",
        "settings": recipe,
        "teacher": header.provenance,
        "teacher_sha256": sha256_file(&teacher_path).context("cannot read the teacher")?,
        "dataset": data::provenance(&areas.adapt_folder, areas.adapt.len())?,
        "temperature": temperature,
        "licence": joint_licence(teacher_licence, Some(dataset_licence)),
        "licences": { "teacher": teacher_licence, "dataset": dataset_licence },
        "test": { "student": student.evaluation },
        "evidence": adapted.evidence,
        "gate": adapted.verdict.findings,
    });
    let weights_path = folder.file("student.safetensors");
    weights::save(&weights_path, adapted.student.as_ref(), provenance)?;
    let (exported, header) = weights::load(&weights_path)?;
    let card = export::card_of(exported.describe(), &header.provenance, None)?;
    let export_error = export_student(exported.as_ref(), card, &folder, &areas.test)?;

    example::write(&folder, &areas.test, parity_pairs(&areas.test), &student)?;

    say("replaying the drives through the daemon's pipeline");
    let drives = Drives::replay(&areas, &folder.file("student.onnx"))?;

    let outcome = Outcome {
        seed: args.seed,
        label_errors_m: label_errors(&areas.adapt, &adapted, &adapt_truth),
        paper_label_errors_m: label_errors(&areas.adapt, &paper_adapted, &adapt_truth),
        paper,
        paper_adapted,
        adapt_truth,
        areas,
        teacher_on_source,
        teacher: measured_teacher,
        auxiliary,
        student,
        upper_bound,
        adapted,
        recipe,
        temperature,
        export_error,
        drives,
        seconds: clock.elapsed().as_secs_f64(),
    };
    folder
        .write_json("summary.json", &outcome.summary())
        .context("cannot write summary.json")?;
    page::write(&outcome, &folder)?;
    crate::outln!("{}", outcome.table());
    crate::outln!(
        "{0}/report.html shows it, {0}/student.onnx drives, {0}/summary.json has the figures",
        args.out.display()
    );
    Ok(())
}

fn measure(
    model: &mut dyn CrossViewModel,
    pairs: &dyn Dataset,
    truth: &Truth,
    interrupt: &Interrupt,
) -> anyhow::Result<Measured> {
    let (evaluation, predictions) = evaluate(model, pairs, truth, true, interrupt)?;
    Ok(Measured {
        predictions,
        evaluation,
        views: None,
    })
}

/// The folder of the demo: one that is empty or not there, or that an earlier demo made. What lies in
/// it is replaced, so nobody else's may lie there.
fn own_folder(path: &Path) -> anyhow::Result<RunFolder> {
    let folder = RunFolder::create(path)
        .with_context(|| format!("cannot make the folder {}", path.display()))?;
    let marker = folder.file(MARKER);
    let cannot = || format!("cannot read {}", path.display());
    let empty = std::fs::read_dir(path)
        .with_context(cannot)?
        .next()
        .is_none();
    ensure!(
        empty || marker.is_file(),
        "{} holds files that are not of a demo (it has no {MARKER}); give an empty folder as --out",
        path.display()
    );
    std::fs::write(
        &marker,
        "made by `crossfix demo`, which may replace everything here\n",
    )
    .with_context(|| format!("cannot write {}", marker.display()))?;
    Ok(folder)
}

/// Writes student.onnx and parity.safetensors; the largest relative difference to tract.
fn export_student(
    student: &dyn CrossViewModel,
    card: StudentCard,
    folder: &RunFolder,
    test: &dyn Dataset,
) -> anyhow::Result<f64> {
    let path = folder.file("student.onnx");
    let temperature = card.temperature;
    write_onnx(student, card, &path)?;
    let some = parity_pairs(test).map(|index| test.pair(index));
    let some = some.collect::<Result<Vec<_>, _>>()?;
    let input = plain_batch(&some, student.describe())?;
    write_parity(
        &folder.file("parity.safetensors"),
        student,
        temperature,
        &input,
    )?;
    let error = verify_export(student, &path, &input)?.max_relative_error();
    ensure!(
        error <= 1e-3,
        "{} differs from the training engine by {error:.1e} relative; don't drive with it",
        path.display()
    );
    Ok(error)
}

/// The pairs whose outputs are kept, at even distances.
fn parity_pairs(test: &dyn Dataset) -> impl Iterator<Item = usize> + use<> {
    let step = (test.len() / PARITY_PAIRS).max(1);
    (0..test.len()).step_by(step).take(PARITY_PAIRS)
}

/// Error of the label of each pair; only the simulation knows it.
fn label_errors(pairs: &dyn Dataset, adapted: &Adapted, truth: &Truth) -> Vec<f64> {
    let errors = pairs.samples().zip(&adapted.labels).map(|(sample, label)| {
        true_pose(sample, truth).map_or(f64::NAN, |pose| {
            let [east, north] = pose.offset_m;
            (label.offset_m[0] - east).hypot(label.offset_m[1] - north)
        })
    });
    errors.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_takes_no_folder_that_holds_something_else() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("out");
        own_folder(&path).unwrap();
        std::fs::write(path.join("source"), "old").unwrap();
        own_folder(&path).unwrap();
        let other = outer.path().join("other");
        std::fs::create_dir_all(other.join("test")).unwrap();
        let error = own_folder(&other).err().unwrap().to_string();
        assert!(
            error.contains("other") && error.contains("empty folder"),
            "{error}"
        );
        assert!(other.join("test").is_dir());
    }
}
