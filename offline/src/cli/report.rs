//! `crossfix report`: a page from what a run left, with pictures of its labels and descriptors where pairs are given.

use super::data::{self, PairsOptions};
use super::device::DeviceArgs;
use crate::data::pairs::truth::Truth;
use crate::data::{InMemory, PairsImages};
use crate::evaluate::{Views, placed_samples, view_descriptors};
use crate::model::weights;
use crate::recipe::headings::searches_all;
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
    #[arg(long, default_value_t = 300, value_name = "PAIRS", value_parser = clap::value_parser!(u16).range(4..=2000))]
    descriptors: u16,
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

    fn pairs(folder: &Path, student: &Path) -> anyhow::Result<InMemory<PairsImages>> {
        let (student, _) = weights::load(student)?;
        let spec = student.describe();
        // As the networks are measured: one that takes headings as given gets those that drives tell.
        let options = PairsOptions {
            unchecked: true,
            find_headings: !searches_all(spec),
            ..PairsOptions::default()
        };
        data::pairs(folder, spec, &options)
    }

    /// The run's labels on the map and, with truth, their errors.
    fn labels(&self, input: &mut ReportInput, folder: &Path, student: &Path) -> anyhow::Result<()> {
        let labels = report::read_labels(&self.input.join("labels.jsonl"))?;
        let pairs = Self::pairs(folder, student)?;
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
            let pairs = Self::pairs(folder, path)?;
            let shown = placed_samples(&pairs, &truth, self.descriptors.into());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::city::frames::CameraKind;
    use crate::city::style::Gap;
    use crate::city::{AreaConfig, AreaName, Part, build_area};
    use crate::data::Dataset;
    use crate::model::{Ccvpe, CrossViewModel, preset};
    use crate::predict::predict;
    use crate::recipe::PseudoLabel;
    use crate::simulate::{Contents, PairsPlan, write_pairs};
    use clap::Parser;
    use serde_json::json;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        report: ReportArgs,
    }

    #[test]
    fn a_run_its_pairs_and_places_with_truth_become_a_page_with_labels_and_descriptors() {
        let folder = tempfile::tempdir().unwrap();
        let area = build_area(AreaConfig {
            area: AreaName::Target,
            seed: 9,
            gap: Gap::default(),
        });
        let plan = PairsPlan {
            headings: crate::city::frames::Headings::Measured,
            part: Part::Test,
            districts: 1,
            contents: Contents::Drives {
                drives: 1,
                length_m: 60.0,
                spacing_m: 5.0,
                logs: 0,
            },
            camera: CameraKind::Panorama,
        };
        let path = |name: &str| folder.path().join(name).display().to_string();
        let hidden = indicatif::ProgressBar::hidden();
        write_pairs(&area, &plan, Path::new(&path("pairs")), &hidden).unwrap();
        let mut model = Ccvpe::new(preset("compact").unwrap(), 4).unwrap();
        let options = PairsOptions::default();
        let pairs = data::pairs(Path::new(&path("pairs")), model.describe(), &options).unwrap();
        let predictions = predict(&mut model, &pairs, false, &Interrupt::default()).unwrap();
        std::fs::create_dir(path("run")).unwrap();
        weights::save(
            Path::new(&path("run/student.safetensors")),
            &model,
            json!({}),
        )
        .unwrap();
        std::fs::write(
            path("run/run.json"),
            json!({ "recipe": "paper" }).to_string(),
        )
        .unwrap();
        let labels = pairs.samples().zip(predictions);
        let lines = labels.map(|(sample, found)| {
            let label = PseudoLabel {
                id: sample.id.clone(),
                column: found.mode_cell[0] as f64 + 0.5,
                row: found.mode_cell[1] as f64 + 0.5,
                offset_m: found.mode_m,
                residual_rad: 0.0,
                peak_m: found.peak_m,
                peak: found.peak,
                entropy: found.entropy,
                support: 1.0,
                weight: 1.0,
                map: None,
            };
            json!({ "label": label, "distance_m": null, "kept": true }).to_string() + "\n"
        });
        std::fs::write(path("run/labels.jsonl"), lines.collect::<String>()).unwrap();
        let (run, pairs_at, student) =
            (path("run"), path("pairs"), path("run/student.safetensors"));
        let out = path("page.html");
        let words = |more: &[&str]| {
            let begin = [
                "report", "--input", &run, "--pairs", &pairs_at, "--out", &out,
            ];
            let words = begin.iter().chain(more).map(ToString::to_string);
            Command::try_parse_from(words).unwrap().report
        };
        super::run(&words(&[])).unwrap();
        let page = std::fs::read_to_string(&out).unwrap();
        let frames = pairs.len();
        assert!(frames >= 8);
        assert_eq!(page.matches("<circle class=\"label\"").count(), frames);
        assert!(page.contains("What happened") && !page.contains("m from the truth"));
        let more = [
            "--truth",
            "--test",
            &pairs_at,
            "--teacher",
            &student,
            "--descriptors",
            "6",
        ];
        super::run(&words(&more)).unwrap();
        let page = std::fs::read_to_string(&out).unwrap();
        assert!(page.contains("m from the truth on average") && page.contains("Label quality"));
        // Teacher and student, which are the same here: twice the same six pairs.
        assert_eq!(page.matches("<circle class=\"f-ground\"").count(), 12);
        let planes: Vec<&str> = page.split("class=\"joined\" d=\"").skip(1).collect();
        let line = |plane: &str| plane.split('"').next().unwrap().to_owned();
        assert_eq!(line(planes[0]), line(planes[1]));
        let error = super::run(&words(&["--student", "nowhere"])).unwrap_err();
        assert!(error.to_string().contains("--student"), "{error}");
    }
}
