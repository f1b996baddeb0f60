//! A page from what `crossfix ablate` leaves: `ablations.json`.

use super::input::{Headline, ProvenanceRow, ReportInput};
use super::study::{PublishedRow, StudyRow, StudyTable};
use crate::ablate::{Cell, RowSummary, with_teacher};
use crate::recipe::ablations::RECIPES;
use anyhow::{Context, ensure};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// Largest `ablations.json`.
const MOST_BYTES: u64 = 64 << 20;

/// The file's name in a study's folder.
pub const FILE: &str = "ablations.json";

#[derive(Deserialize)]
struct Study {
    seed: u64,
    #[serde(default)]
    network: Option<String>,
    #[serde(default)]
    made_by: Value,
    cells: Vec<Cell>,
}

/// What a study has to show.
///
/// # Errors
/// The file, and what is wrong with it.
pub fn from_study(folder: &Path) -> anyhow::Result<ReportInput> {
    let path = folder.join(FILE);
    let cannot = || format!("cannot read {}", path.display());
    let bytes = std::fs::metadata(&path).with_context(cannot)?.len();
    ensure!(
        bytes <= MOST_BYTES,
        "{} has {bytes} bytes; a study has at most {MOST_BYTES}",
        path.display()
    );
    let text = std::fs::read_to_string(&path).with_context(cannot)?;
    let study: Study =
        serde_json::from_str(&text).with_context(|| format!("{} is no study", path.display()))?;
    ensure!(
        !study.cells.is_empty(),
        "{} has no cells; `crossfix ablate` computes them",
        path.display()
    );
    let rows = with_teacher(&study.cells);
    let rows: Vec<StudyRow> = rows
        .iter()
        .enumerate()
        .map(|(index, row)| study_row(row, index == 0))
        .collect();
    let areas: BTreeSet<&str> = study.cells.iter().map(|cell| cell.area.as_str()).collect();
    let hours = study.cells.iter().map(|cell| cell.seconds).sum::<f64>() / 3600.0;
    let recipes: BTreeSet<&str> = study.cells.iter().map(|cell| cell.row.as_str()).collect();
    let network = study
        .network
        .as_deref()
        .map_or(String::new(), |name| format!(" of network {name}"));
    let caption = format!(
        "{} recipes, each starting from the same teacher{network}, in {} areas ({}), one adaptation seed ({}) in each: {} \
         adaptations, {hours:.1} hours of training in all. Errors are on places of the area that nothing was trained on.",
        recipes.len(),
        areas.len(),
        areas.iter().copied().collect::<Vec<_>>().join(", "),
        study.seed,
        study.cells.len()
    );
    let command = study.made_by.get("command").and_then(Value::as_array);
    let words = command.into_iter().flatten().filter_map(Value::as_str);
    let command = words.collect::<Vec<_>>().join(" ");
    let provenance = |name: &str, value: Option<String>| {
        value.map(|value| ProvenanceRow {
            name: name.into(),
            value,
        })
    };
    let version = study
        .made_by
        .get("version")
        .and_then(Value::as_str)
        .map(Into::into);
    let rows_of_provenance = [
        provenance("program", version),
        provenance("network", study.network.clone()),
        provenance("adaptation seed", Some(study.seed.to_string())),
        provenance(
            "areas",
            Some(areas.into_iter().collect::<Vec<_>>().join(", ")),
        ),
    ];
    Ok(ReportInput {
        title: "Crossfix ablation".into(),
        verdict: verdict(&rows),
        headlines: headlines(&rows),
        study: Some(StudyTable {
            caption,
            published: published(),
            rows,
        }),
        reproduce: if command.is_empty() {
            Vec::new()
        } else {
            vec![command]
        },
        provenance: rows_of_provenance.into_iter().flatten().collect(),
        ..ReportInput::default()
    })
}

fn study_row(row: &RowSummary, teacher: bool) -> StudyRow {
    let pair = |value: crate::ablate::MeanAndError| [value.mean, value.standard_error];
    StudyRow {
        name: row.row.clone(),
        what: if teacher {
            "as it came, trained elsewhere".into()
        } else {
            what(&row.row)
        },
        areas: row.areas,
        mean_m: pair(row.mean_m),
        median_m: pair(row.median_m),
        in_prior_m: pair(row.masked_mean_m),
        difference_m: (!teacher).then(|| pair(row.difference_m)),
        change: row.relative.mean,
        worse: row.worse,
        learned: Some(row.kept).filter(|share| share.is_finite()),
        label_error_m: row.label_error_m,
    }
}

/// What a row's recipe is, in a line.
fn what(row: &str) -> String {
    let mut parts = row.split(',');
    let name = parts.next().unwrap_or_default();
    let known = RECIPES.iter().find(|recipe| recipe.name == name);
    let settings: Vec<&str> = parts
        .map(str::trim)
        .filter(|part| part.contains('='))
        .collect();
    let known = known.map(|recipe| recipe.what.to_owned());
    let settings = (!settings.is_empty()).then(|| format!("with {}", settings.join(", ")));
    known
        .into_iter()
        .chain(settings)
        .collect::<Vec<_>>()
        .join("; ")
}

/// The teacher, the row with the least mean error that sees no truth, and how it fares.
fn verdict(rows: &[StudyRow]) -> String {
    let (Some(teacher), Some(best)) = (rows.first(), best(rows)) else {
        return String::new();
    };
    let [mean, error] = best.mean_m;
    let mut text = format!(
        "The teacher is {:.2} ± {:.2} m wrong on average. Of the recipes that see no true position, `{}` ends lowest: \
         {mean:.2} ± {error:.2} m ({:+.0} %), worse than the teacher in {} of {} areas.",
        teacher.mean_m[0],
        teacher.mean_m[1],
        best.name,
        100.0 * best.change,
        best.worse,
        best.areas
    );
    if let Some(bound) = rows.iter().find(|row| row.name == "oracle") {
        text += &format!(
            " Trained with true positions the same network reaches {:.2} m.",
            bound.mean_m[0]
        );
    }
    if best.areas < 5 {
        text += &format!(
            " With {} areas, standard errors are themselves uncertain.",
            best.areas
        );
    }
    text
}

fn best(rows: &[StudyRow]) -> Option<&StudyRow> {
    let candidates = rows
        .iter()
        .filter(|row| row.difference_m.is_some() && !row.name.starts_with("oracle"));
    candidates.min_by(|a, b| a.mean_m[0].total_cmp(&b.mean_m[0]))
}

fn headlines(rows: &[StudyRow]) -> Vec<Headline> {
    let (Some(teacher), Some(best)) = (rows.first(), best(rows)) else {
        return Vec::new();
    };
    vec![
        Headline {
            label: "teacher, mean error".into(),
            value: format!("{:.2} m", teacher.mean_m[0]),
            note: format!("over {} areas", teacher.areas),
            good: None,
        },
        Headline {
            label: format!("`{}`, mean error", best.name),
            value: format!("{:.2} m", best.mean_m[0]),
            note: format!("{:+.0} % against the teacher", 100.0 * best.change),
            good: Some(best.change < 0.0),
        },
        Headline {
            label: "areas where it is worse than its teacher".into(),
            value: format!("{} of {}", best.worse, best.areas),
            note: "none is meant".into(),
            good: Some(best.worse == 0),
        },
    ]
}

/// Mean errors that the paper reports on VIGOR with known orientation, by the row that does the same here.
///
/// # Source
/// Adapting Fine-Grained Cross-View Localization to Areas without Fine Ground Truth (Xia, Shi, Li, Kooij 2024), main
/// results and ablations; its ablations start from a teacher at 5.16 m, its main results from one at 5.19 m.
fn published() -> Vec<PublishedRow> {
    let rows = [
        ("paper", "the method", "CCVPE", [4.38, 3.85]),
        ("paper", "the method", "GGCVT", [5.19, 4.34]),
        (
            "paper",
            "mode and outlier filter, ablation",
            "GGCVT",
            [5.16, 4.28],
        ),
        (
            "paper-no-filter",
            "mode, no filter, ablation",
            "GGCVT",
            [5.16, 4.67],
        ),
        (
            "paper, its auxiliary student (no filter)",
            "mode, no filter, ablation",
            "GGCVT",
            [5.16, 4.67],
        ),
        (
            "paper-heatmap-no-filter",
            "whole heatmaps, no filter, ablation",
            "GGCVT",
            [5.16, 5.34],
        ),
        (
            "paper-entropy-filter",
            "filter by entropy",
            "CCVPE",
            [4.38, 4.17],
        ),
        (
            "paper-entropy-filter",
            "filter by entropy",
            "GGCVT",
            [5.19, 4.52],
        ),
        (
            "oracle",
            "fine-tuned with true positions",
            "CCVPE",
            [4.38, 2.31],
        ),
        (
            "oracle",
            "fine-tuned with true positions",
            "GGCVT",
            [5.19, 2.91],
        ),
    ];
    let row = |(row, what, network, published_m): (&str, &str, &str, [f64; 2])| PublishedRow {
        row: row.into(),
        what: what.into(),
        network: network.into(),
        published_m,
    };
    rows.map(row).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_study_becomes_a_page_with_seeds_errors_and_the_command() {
        let folder = tempfile::tempdir().unwrap();
        let errors = |mean: f64| json!({ "mean_m": mean, "median_m": mean / 2.0, "masked_mean_m": mean, "masked_median_m": mean });
        let cell = |row: &str, area: &str, teacher: f64, student: f64| {
            json!({ "row": row, "area": area, "fingerprint": "", "teacher": errors(teacher), "auxiliary": errors(student + 0.5),
                    "student": errors(student), "kept": 0.8, "kept_label_error_m": 1.0, "dropped_label_error_m": null, "seconds": 1800.0 })
        };
        let study = json!({
            "seed": 7,
            "network": "compact",
            "made_by": { "version": "1.2", "command": ["crossfix", "ablate", "--seed", "7"] },
            "rows": [],
            "cells": [
                cell("paper", "city-1", 4.0, 3.0), cell("paper", "city-2", 6.0, 5.5),
                cell("oracle", "city-1", 4.0, 1.0), cell("oracle", "city-2", 6.0, 2.0),
            ],
        });
        std::fs::write(folder.path().join(FILE), study.to_string()).unwrap();
        let input = super::super::open(folder.path()).unwrap();
        let table = input.study.as_ref().unwrap();
        let names: Vec<&str> = table.rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "teacher",
                "paper, its auxiliary student (no filter)",
                "paper",
                "oracle"
            ]
        );
        // Differences -1 and -0.5: mean -0.75, standard error 0.25.
        let [mean, error] = table.rows[2].difference_m.unwrap();
        assert!((mean + 0.75).abs() < 1e-12 && (error - 0.25).abs() < 1e-12);
        assert!(
            input.verdict.contains("5.00 ± 1.00 m")
                && input.verdict.contains("`paper` ends lowest"),
            "{}",
            input.verdict
        );
        let page = super::super::render(&input);
        for text in [
            "crossfix ablate --seed 7",
            "in 2 areas (city-1, city-2), one adaptation seed (7)",
            "2.0 hours",
            "ECCV 2024",
            "4.38 → 3.85",
        ] {
            assert!(page.contains(text), "{text}");
        }
        assert!(page.len() < 200_000);
    }

    #[test]
    fn a_study_without_cells_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join(FILE),
            "{\"seed\":1,\"rows\":[],\"cells\":[]}",
        )
        .unwrap();
        let error = from_study(folder.path()).unwrap_err().to_string();
        assert!(error.contains("crossfix ablate"), "{error}");
    }
}
