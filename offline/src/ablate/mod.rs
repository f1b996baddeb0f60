//! Many recipes over several areas: what each is worth beside its teacher, with the scatter between
//! areas. Truth is used to measure, never to adapt, but by recipes that say so.

mod table;

pub use table::{MeanAndError, RowSummary, markdown, summarise, with_teacher};

use crate::cli::data::PairsOptions;
use crate::cli::{data, settings};
use crate::data::pairs::truth::{Truth, true_pose};
use crate::data::{Dataset, InMemory, PairsImages};
use crate::evaluate::{Evaluation, evaluate};
use crate::model::weights::write_whole;
use crate::model::{CrossViewModel, ModelSpec};
use crate::recipe::headings::searches_all;
use crate::recipe::{
    AdaptError, Adapted, PseudoLabel, Recipe, Shared, ablations, adapt_sharing, oracle,
};
use crate::run::{Interrupt, RunContext, sha256_file, sha256_json};
use crate::shard::Shard;
use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The rows of the paper's ablations, its baselines and ours, in the order in which they are worth having;
/// rows that share an auxiliary student lie together.
pub fn default_rows(spec: &ModelSpec) -> Vec<String> {
    let mut rows: Vec<String> = vec!["paper".into()];
    rows.extend([0.9, 0.7, 0.6, 0.5].map(|keep| format!("paper,filter.keep={keep:?}")));
    rows.extend(
        [
            "paper-heatmap-no-filter",
            "paper-heatmap",
            "paper-entropy-filter",
            "paper-soft-weights",
            "consensus",
            "oracle",
            "paper-fused-labels",
            "paper-in-prior",
            "paper-times-prior",
            "paper-all-levels",
        ]
        .map(String::from),
    );
    let levels = 1..=spec.levels.len();
    rows.extend(levels.map(|levels| format!("paper,fit.loss.levels={levels}")));
    rows.extend([1.0, 2.5, 5.0, 10.0].map(|noise| format!("oracle,labeller.noise_m={noise:?}")));
    rows.extend([0.01, 0.1, 1.0, 10.0].map(|weight| format!("paper,fit.loss.entropy={weight:?}")));
    rows.extend(["paper-two-rounds", "paper-other-batch-norm"].map(String::from));
    rows.extend(["paper", "paper-two-rounds"].map(|name| format!("{name},fit.average=0.99")));
    rows.push("paper,filter.keep_first=1.0".into());
    rows.push("paper,labeller.views=4".into());
    let narrow = "fit.augmentation.field_of_view_deg=180";
    rows.extend([
        "paper-heatmap,labeller.temperature=0.5".into(),
        format!("paper-heatmap,labeller.temperature=0.5,{narrow}"),
        format!("paper,{narrow}"),
    ]);
    // What one network's default is, another's row changes.
    let mut seen: Vec<Recipe> = Vec::new();
    rows.retain(|row| match recipe_of(row, spec) {
        Ok(recipe) if seen.contains(&recipe) => false,
        Ok(recipe) => {
            seen.push(recipe);
            true
        }
        Err(_) => true,
    });
    rows
}

/// The recipe that a row names: `NAME`, or `NAME,SETTING=VALUE,...`.
///
/// # Errors
/// An unknown name or setting, or a recipe that cannot be followed.
pub fn recipe_of(row: &str, spec: &ModelSpec) -> anyhow::Result<Recipe> {
    let mut parts = row.split(',');
    let name = parts.next().unwrap_or_default();
    let named = ablations::named(name, spec)
        .with_context(|| format!("no recipe {name:?}; `crossfix recipes` lists them"))?;
    let changes: Vec<String> = parts.map(Into::into).collect();
    let mut recipe = settings::resolve(&named, None, &changes)?;
    // What a gate would refuse is measured here.
    recipe.gate.enforce = false;
    recipe.check()?;
    Ok(recipe)
}

/// One row in one area.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cell {
    /// As it was asked for.
    pub row: String,
    /// The area's folder.
    pub area: String,
    /// Of program, teacher, pairs, recipe and seed.
    pub fingerprint: String,
    /// The teacher on the area's test pairs.
    pub teacher: Errors,
    /// The student that learned every label, where the recipe has one.
    pub auxiliary: Option<Errors>,
    /// The student.
    pub student: Errors,
    /// Share of labels that it learned.
    pub kept: f64,
    /// Mean distance of labels that were learned from the truth, where the pairs have one, metres.
    pub kept_label_error_m: Option<f64>,
    /// The same for labels that were dropped.
    pub dropped_label_error_m: Option<f64>,
    /// Seconds that it took.
    pub seconds: f64,
}

/// Errors of a network on the test pairs of an area, metres.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Errors {
    /// Mean over the whole image.
    pub mean_m: f64,
    /// Median over the whole image.
    pub median_m: f64,
    /// Mean inside the coarse position's 99 % ellipse.
    pub masked_mean_m: f64,
    /// Median inside it.
    pub masked_median_m: f64,
}

impl From<&Evaluation> for Errors {
    fn from(found: &Evaluation) -> Self {
        Self {
            mean_m: found.unmasked.mean_m,
            median_m: found.unmasked.median_m,
            masked_mean_m: found.masked.mean_m,
            masked_median_m: found.masked.median_m,
        }
    }
}

/// What is compared.
pub struct Study<'a> {
    /// Every adaptation starts from it.
    pub teacher: &'a dyn CrossViewModel,
    /// SHA-256 of its file.
    pub teacher_sha256: String,
    /// Folders with `adapt` and `test` pairs.
    pub areas: &'a [PathBuf],
    /// Rows, in order.
    pub rows: &'a [String],
    /// Seed of every adaptation.
    pub seed: u64,
    /// This part of so many: cells are dealt in turn.
    pub shard: Shard,
    /// Whether a cell that is not there is an error; otherwise the shard's own are computed.
    pub merges: bool,
    /// Do not look at the data first.
    pub unchecked: bool,
    /// Where each cell is kept.
    pub out: &'a Path,
    /// Looked at between steps.
    pub interrupt: &'a Interrupt,
}

/// An area that is open.
struct Area<'a> {
    name: String,
    pairs: InMemory<PairsImages>,
    truth: Option<Truth>,
    test: InMemory<PairsImages>,
    test_truth: Truth,
    sha256: String,
    shared: Shared,
    folder: &'a Path,
    teacher: Option<Errors>,
}

impl Study<'_> {
    /// Computes what is missing, row by row over all areas, and returns every cell that is there.
    ///
    /// # Errors
    /// A folder that cannot be read, a row without meaning, a cell of other settings, or on request;
    /// cells done until then are kept.
    pub fn run(&self) -> anyhow::Result<Vec<Cell>> {
        let spec = self.teacher.describe().clone();
        for row in self.rows {
            recipe_of(row, &spec).with_context(|| format!("--row {row}"))?;
        }
        let mut open: BTreeMap<&Path, Area> = BTreeMap::new();
        let mut cells = Vec::new();
        let all = self.rows.len() * self.areas.len();
        if self.merges {
            self.check_all_there()?;
        }
        for (number, (row, folder)) in self
            .rows
            .iter()
            .flat_map(|row| self.areas.iter().map(move |area| (row, area)))
            .enumerate()
        {
            let path = self.cell_path(row, folder);
            let mine = number % self.shard.of == self.shard.index;
            if !path.exists() && !mine {
                continue;
            }
            let recipe = recipe_of(row, &spec)?;
            if !open.contains_key(folder.as_path()) {
                open.insert(folder, open_area(folder, &spec, self.unchecked)?);
            }
            let Some(area) = open.get_mut(folder.as_path()) else {
                continue;
            };
            let version = env!("CARGO_PKG_VERSION");
            let teacher = &self.teacher_sha256;
            let key = (version, teacher, &area.sha256, &recipe, self.seed);
            let fingerprint = sha256_json(&key);
            if path.exists() {
                let text = std::fs::read_to_string(&path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                let cell: Cell = serde_json::from_str(&text)
                    .with_context(|| format!("{} is not a cell of a study", path.display()))?;
                if cell.fingerprint != fingerprint {
                    bail!(
                        "{} was made with another program, teacher, other pairs, settings or seed; remove it, or give another --out",
                        path.display()
                    );
                }
                cells.push(cell);
                continue;
            }
            crate::note!("{} of {all}: {row} in {}", number + 1, area.name);
            let cell = self.cell(row, &recipe, area, fingerprint)?;
            let text = serde_json::to_string_pretty(&cell)? + "\n";
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)
                    .with_context(|| format!("cannot make {}", parent.display()))?;
            }
            write_whole(&path, text.as_bytes())
                .with_context(|| format!("cannot write {}", path.display()))?;
            crate::storage::share(self.out);
            cells.push(cell);
        }
        Ok(cells)
    }

    /// Names the cells that are missing.
    fn check_all_there(&self) -> anyhow::Result<()> {
        let cells = self.rows.iter().flat_map(|row| {
            let areas = self.areas.iter();
            areas.map(move |area| self.cell_path(row, area))
        });
        let missing = cells.filter(|path| !path.exists());
        let missing: Vec<String> = missing.map(|path| path.display().to_string()).collect();
        if !missing.is_empty() {
            bail!(
                "cells are missing: {}; run their --shard, or run without --merge",
                missing.join(", ")
            );
        }
        Ok(())
    }

    fn cell_path(&self, row: &str, area: &Path) -> PathBuf {
        let plain = |c: char| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        };
        let slug: String = row.chars().map(plain).collect();
        let folder = self.out.join("cells").join(slug);
        folder.join(format!("{}.json", name_of(area)))
    }

    fn cell(
        &self,
        row: &str,
        recipe: &Recipe,
        area: &mut Area,
        fingerprint: String,
    ) -> anyhow::Result<Cell> {
        let run = RunContext {
            seed: self.seed,
            folder: None,
            resume: false,
            interrupt: self.interrupt,
            world: crate::train::World::alone(),
        };
        let teacher = match area.teacher {
            Some(errors) => errors,
            None => self.errors(self.teacher, area)?,
        };
        area.teacher = Some(teacher);
        let begun = Instant::now();
        let adapted = if recipe.labeller.needs_truth() {
            let truth = area.truth.as_ref().with_context(|| {
                let folder = area.folder.display();
                format!("{row} learns true positions, and {folder}/adapt has no truth.jsonl")
            })?;
            oracle::adapt(self.teacher, &area.pairs, truth, None, recipe, &run)
        } else {
            adapt_sharing(
                self.teacher,
                &area.pairs,
                None,
                recipe,
                &run,
                &mut area.shared,
            )
        };
        let adapted = match adapted {
            Err(AdaptError::Interrupted(_)) => {
                bail!("stopped on request; the same command goes on with what is missing")
            }
            adapted => adapted?,
        };
        let seconds = begun.elapsed().as_secs_f64();
        let auxiliary = adapted.auxiliary.as_ref();
        let auxiliary = auxiliary.map(|auxiliary| self.errors(auxiliary.model.as_ref(), area));
        let label_error = |kept| label_error_m(area, &adapted, kept);
        Ok(Cell {
            row: row.into(),
            area: area.name.clone(),
            fingerprint,
            teacher,
            auxiliary: auxiliary.transpose()?,
            student: self.errors(adapted.student.as_ref(), area)?,
            kept: adapted.kept_fraction(),
            kept_label_error_m: label_error(true),
            dropped_label_error_m: label_error(false),
            seconds,
        })
    }

    fn errors(&self, model: &dyn CrossViewModel, area: &Area) -> anyhow::Result<Errors> {
        let mut model = model.boxed_clone();
        let (test, truth) = (&area.test, &area.test_truth);
        let (found, _) = evaluate(model.as_mut(), test, truth, false, self.interrupt)?;
        found
            .check()
            .map_err(|what| data::wrong_truth(&area.folder.join("test"), &what))?;
        Ok(Errors::from(&found))
    }
}

fn name_of(area: &Path) -> String {
    let name = area.file_name().unwrap_or(area.as_os_str());
    name.to_string_lossy().into_owned()
}

fn open_area<'a>(folder: &'a Path, spec: &ModelSpec, unchecked: bool) -> anyhow::Result<Area<'a>> {
    let options = PairsOptions {
        unchecked,
        ..PairsOptions::default()
    };
    let [adapt, test] = ["adapt", "test"].map(|part| folder.join(part));
    let finding = |find_headings| PairsOptions {
        find_headings,
        ..options.clone()
    };
    let pairs = data::pairs(&adapt, spec, &finding(true))?;
    let truth = adapt.join("truth.jsonl").exists();
    Ok(Area {
        name: name_of(folder),
        sha256: sha256_json(&(
            [
                data::provenance(&adapt, pairs.len())?,
                data::provenance(&test, 0)?,
            ],
            // What oracle rows learn and every row is measured by.
            [&adapt, &test].map(|part| sha256_file(&part.join("truth.jsonl")).ok()),
        )),
        pairs,
        truth: truth.then(|| Truth::open(&adapt)).transpose()?,
        test: data::pairs(&test, spec, &finding(!searches_all(spec)))?,
        test_truth: Truth::open(&test)?,
        shared: Shared::default(),
        folder,
        teacher: None,
    })
}

/// Mean error of the labels that were kept, or dropped.
fn label_error_m(area: &Area, adapted: &Adapted, kept: bool) -> Option<f64> {
    let truth = area.truth.as_ref()?;
    let both = area.pairs.samples().zip(&adapted.labels);
    let errors = both.filter(|(_, label)| label.is_kept() == kept);
    let errors = errors.filter_map(|(sample, label): (_, &PseudoLabel)| {
        let [east, north] = true_pose(sample, truth)?.offset_m;
        Some((label.offset_m[0] - east).hypot(label.offset_m[1] - north))
    });
    let errors: Vec<f64> = errors.collect();
    (!errors.is_empty()).then(|| errors.iter().sum::<f64>() / errors.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::named;
    use crate::recipe::Filter;

    #[test]
    fn every_default_row_is_a_recipe_of_both_families_and_no_two_are_the_same() {
        for name in ["compact", "ggcvt-compact"] {
            let spec = named(name).unwrap().describe();
            let rows = default_rows(&spec);
            for row in &rows {
                recipe_of(row, &spec).unwrap_or_else(|error| panic!("{name}, {row}: {error:#}"));
            }
            let recipes: Vec<Recipe> = rows
                .iter()
                .map(|row| recipe_of(row, &spec).unwrap())
                .collect();
            for (index, recipe) in recipes.iter().enumerate() {
                assert!(!recipes[..index].contains(recipe), "{}", rows[index]);
            }
        }
    }

    #[test]
    fn settings_in_a_row_win_over_its_recipe() {
        let spec = named("compact").unwrap().describe();
        let recipe = recipe_of("paper,filter.keep=0.5,fit.epochs=1.0", &spec).unwrap();
        assert_eq!(
            recipe.filter,
            Filter::AuxiliaryStudent {
                keep: 0.5,
                keep_first: None
            }
        );
        assert_eq!(recipe.fit.epochs, 1.0);
        assert!(recipe_of("paper,filter.keeps=0.5", &spec).is_err());
        assert!(recipe_of("papier", &spec).is_err());
    }
}
