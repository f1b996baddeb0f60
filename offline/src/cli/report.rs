//! `crossfix report`: a page from what a run left, with pictures of its labels and descriptors where pairs are given.

use super::data::{self, PairsOptions};
use super::device::DeviceArgs;
use crate::data::pairs::truth::Truth;
use crate::data::{InMemory, PairsImages};
use crate::evaluate::{Views, placed_samples, view_descriptors};
use crate::model::weights;
use crate::report::{self, FeatureModel, Features, ReportInput, Role as Who};
use crate::run::Interrupt;
use crate::storage::{Files, Paths, Role};
use anyhow::{Context, bail};
use clap::Args;
use std::path::{Path, PathBuf};

/// Arguments of `crossfix report`.
#[derive(Debug, Clone, Args)]
pub struct ReportArgs {
    /// The folder of a run of `train`, `adapt`, `demo` or `ablate`, or a report-input.json.
    #[arg(long)]
    input: PathBuf,
    /// Pairs that the run learned: its labels are drawn over their aerial picture.
    #[arg(long, value_name = "FOLDER")]
    pairs: Option<PathBuf>,
    /// Draw the truth.jsonl of --pairs beside the labels, and say how far they are from it.
    #[arg(long, requires = "pairs")]
    truth: bool,
    /// Pairs with truth, of places that the run did not learn: how well ground views and aerial images agree, by
    /// the descriptors of --teacher and of the student.
    #[arg(long, value_name = "FOLDER", requires = "teacher")]
    test: Option<PathBuf>,
    /// Weights that the run began with, for --test.
    #[arg(long, value_name = "FILE", requires = "test")]
    teacher: Option<PathBuf>,
    /// The student's weights, for --pairs and --test [default: student.safetensors in --input].
    #[arg(long, value_name = "FILE")]
    student: Option<PathBuf>,
    /// Pairs of --test that are laid out in the plane, at even distances.
    #[arg(long, default_value_t = 300, value_name = "PAIRS")]
    descriptors: usize,
    #[command(flatten)]
    device: DeviceArgs,
    /// The page to write.
    #[arg(long, default_value = "report.html")]
    out: PathBuf,
}

impl Files for ReportArgs {
    fn paths(&mut self) -> Paths<'_> {
        let mut paths = vec![(Role::Input, &mut self.input), (Role::File, &mut self.out)];
        let optional = [
            &mut self.pairs,
            &mut self.test,
            &mut self.teacher,
            &mut self.student,
        ];
        let optional = optional.into_iter().flatten();
        paths.extend(optional.map(|path| (Role::Input, path)));
        paths
    }
}

/// Runs it.
pub fn run(args: &ReportArgs) -> anyhow::Result<()> {
    let mut input = report::open(&args.input)?;
    if args.pairs.is_some() || args.test.is_some() {
        let student = args.student()?;
        if let Some(folder) = &args.pairs {
            args.labels(&mut input, folder, &student)?;
        }
        if let (Some(folder), Some(teacher)) = (&args.test, &args.teacher) {
            input.features = args.features(folder, [teacher, &student])?;
            if input.features.is_none() {
                input.notes.push(
                    "The descriptors of these networks are not shown: one of them has none at a place (a GGCVT for pinhole cameras)."
                        .into(),
                );
            }
        }
    }
    report::write(&args.out, &input)
        .with_context(|| format!("cannot write {}", args.out.display()))?;
    crate::outln!("{}", args.out.display());
    Ok(())
}

impl ReportArgs {
    fn student(&self) -> anyhow::Result<PathBuf> {
        let path = match &self.student {
            Some(path) => path.clone(),
            None => self.input.join("student.safetensors"),
        };
        if !path.is_file() {
            bail!(
                "{} is no file; name the student's weights with --student",
                path.display()
            );
        }
        Ok(path)
    }

    fn pairs(&self, folder: &Path, student: &Path) -> anyhow::Result<InMemory<PairsImages>> {
        let (student, _) = weights::load(student)?;
        let options = PairsOptions {
            unchecked: true,
            ..PairsOptions::default()
        };
        data::pairs(folder, student.describe(), &options)
    }

    /// The run's labels on the map and, with truth, their errors.
    fn labels(&self, input: &mut ReportInput, folder: &Path, student: &Path) -> anyhow::Result<()> {
        let labels = report::read_labels(&self.input.join("labels.jsonl"))?;
        let pairs = self.pairs(folder, student)?;
        let truth = self.truth.then(|| Truth::open(folder)).transpose()?;
        let tiles = folder.join(&pairs.inner().manifest().tiles);
        input.label_map = report::label_map(&pairs, &labels, truth.as_ref(), &tiles)?;
        if input.label_map.is_none() {
            input
                .notes
                .push("The pairs are of no drive, so their labels are not on a map.".into());
        }
        if let Some(truth) = &truth {
            input.label_quality = Some(report::label_quality(&pairs, &labels, truth));
        }
        Ok(())
    }

    /// What teacher and student compare; `None` where one of them has no descriptors.
    fn features(&self, folder: &Path, files: [&Path; 2]) -> anyhow::Result<Option<Features>> {
        let interrupt = Interrupt::on_signals().context("cannot catch signals")?;
        let truth = Truth::open(folder)?;
        let device = self.device.open()?;
        let names = [("teacher", Who::Teacher), ("student", Who::Student)];
        let mut models = Vec::new();
        for ((name, role), path) in names.into_iter().zip(files) {
            let (mut model, _) = weights::load(path)?;
            model.parameters_mut().move_to(&device)?;
            let pairs = self.pairs(folder, path)?;
            let shown = placed_samples(&pairs, &truth, self.descriptors);
            if shown.len() < 4 {
                bail!(
                    "{} has the truth of {} pairs; a picture of descriptors needs at least 4",
                    folder.display(),
                    shown.len()
                );
            }
            let Some(found) = view_descriptors(model.as_mut(), &pairs, &shown, &interrupt)? else {
                return Ok(None);
            };
            models.push(FeatureModel::of(name, role, Views::of(&found)));
        }
        Ok(Some(Features {
            caption: format!(
                "{} pairs at even distances, of places that the student did not learn: the descriptor of each ground view, and that of \
                 the aerial image at the true place.",
                models[0].plane.len()
            ),
            models,
        }))
    }
}
