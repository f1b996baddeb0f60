//! A page from what `crossfix train` and `crossfix adapt` leave: `run.json`, the loss curves
//! (`NAME.curve.jsonl`) and, of an adaptation, `labels.jsonl`.

use super::input::{
    Coverage, CoveragePoint, CoverageSeries, Headline, ProvenanceRow, ReportInput, Role,
    SummaryRow, SummaryTable, Table, TrainingCurve,
};
use super::run_story;
use super::svg::number;
use anyhow::Context;
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// Longest line of a curve or label file.
const MOST_LINE_BYTES: u64 = 64 << 10;
/// Largest `run.json`.
const MOST_RUN_BYTES: u64 = 64 << 20;

/// What a run folder has to show.
///
/// # Errors
/// When `run.json` cannot be read: a run that was stopped has none.
pub fn from_run(folder: &Path) -> anyhow::Result<ReportInput> {
    let path = folder.join("run.json");
    let cannot = || {
        format!(
            "cannot read {}; a page is made of a finished run (stopped ones go on with --resume)",
            path.display()
        )
    };
    let mut text = String::new();
    let file = File::open(&path).with_context(cannot)?;
    file.take(MOST_RUN_BYTES)
        .read_to_string(&mut text)
        .with_context(cannot)?;
    let run: Value = serde_json::from_str(&text)
        .with_context(|| format!("{} is no run's record", path.display()))?;
    let adapted = run.get("recipe").is_some();
    let labels = label_statistics(&folder.join("labels.jsonl"))?;
    Ok(ReportInput {
        title: format!("Crossfix {} run", if adapted { "adapt" } else { "train" }),
        verdict: verdict(&run),
        headlines: headlines(&run),
        story: run_story::steps(&run),
        summary: summary(&run).into_iter().collect(),
        training: curves(folder)?,
        coverage: coverage(&run),
        tables: labels.into_iter().chain([settings(&run)]).collect(),
        reproduce: vec![command(&run)],
        provenance: provenance(&run),
        ..ReportInput::default()
    })
}

pub(super) fn mean_m(run: &Value, model: &str) -> Option<f64> {
    let pointers = [
        "unmasked/mean_m",
        "position_m/mean",
        "published/position_m/mean",
    ];
    let found = pointers
        .into_iter()
        .find_map(|pointer| run.pointer(&format!("{model}/{pointer}")));
    found?.as_f64()
}

fn verdict(run: &Value) -> String {
    let recipe = run.get("recipe").and_then(Value::as_str);
    let kept = run
        .pointer("/details/kept_fraction")
        .and_then(Value::as_f64);
    let mut text = match recipe {
        Some(recipe) => format!("A teacher was adapted with the recipe `{recipe}`."),
        None => "A network was trained on true positions.".to_owned(),
    };
    if let Some(kept) = kept {
        text += &format!(" The student learned {:.0} % of the labels.", 100.0 * kept);
    }
    match (mean_m(run, "/test/teacher"), mean_m(run, "/test/student")) {
        (Some(teacher), Some(student)) => {
            let change = 100.0 * (student / teacher - 1.0);
            text += &format!(
                " On places that nothing was trained on, the mean error went from {teacher:.2} m to \
                 {student:.2} m ({change:+.0} %)."
            );
            if student >= teacher {
                text += " The student is no better than its teacher: don't drive with it.";
            }
        }
        _ if recipe.is_some() => {
            text += " Nothing was measured with true positions (--test), so this page cannot say whether the \
                     student is better than its teacher.";
        }
        _ => {}
    }
    if let Some(mean) = mean_m(run, "/validation") {
        text += &format!(" On the validation set its mean error is {mean:.2} m.");
    }
    text
}

fn headlines(run: &Value) -> Vec<Headline> {
    let (teacher, student) = (mean_m(run, "/test/teacher"), mean_m(run, "/test/student"));
    let Some((teacher, student)) = teacher.zip(student) else {
        return Vec::new();
    };
    vec![Headline {
        label: "student, mean error".into(),
        value: format!("{student:.2} m"),
        note: format!("teacher {teacher:.2} m"),
        good: Some(student < teacher),
    }]
}

/// Teacher, auxiliary student and student against what was measured of them.
fn summary(run: &Value) -> Option<SummaryTable> {
    let known = [
        ("teacher", Role::Teacher),
        ("auxiliary", Role::Auxiliary),
        ("student", Role::Student),
    ];
    let test = run.get("test");
    let mut models: Vec<(String, Role, &Value)> = known
        .iter()
        .filter_map(|(name, role)| Some(((*name).to_owned(), *role, test?.get(name)?)))
        .collect();
    if models.is_empty() {
        let validation = run
            .get("validation")
            .filter(|measured| measured.is_object())?;
        models.push(("model".into(), Role::Teacher, validation));
    }
    let rows = [
        ("mean error", Some(false), "/unmasked/mean_m"),
        ("median error", Some(false), "/unmasked/median_m"),
        ("90th percentile", Some(false), "/unmasked/p90_m"),
        ("mean along the road", Some(false), "/unmasked/along_mean_m"),
        (
            "mean across the road",
            Some(false),
            "/unmasked/across_mean_m",
        ),
        ("mean error", Some(true), "/masked/mean_m"),
        ("median error", Some(true), "/masked/median_m"),
        ("mean error", None, "/position_m/mean"),
        ("median error", None, "/position_m/median"),
    ];
    let rows = rows
        .into_iter()
        .map(|(metric, masked, pointer)| SummaryRow {
            area: "measured".into(),
            metric: metric.into(),
            unit: "m".into(),
            masked,
            higher_is_better: false,
            values: models
                .iter()
                .map(|(_, _, measured)| measured.pointer(pointer)?.as_f64())
                .collect(),
        });
    Some(SummaryTable {
        caption: "Errors in metres: lower is better; small print is the change against the first network. Masked: the network looks only \
                  within the 99 % ellipse of the coarse position."
            .into(),
        rows: rows
            .filter(|row| row.values.iter().any(Option::is_some))
            .collect(),
        models: models
            .into_iter()
            .map(|(name, role, _)| (name, role))
            .collect(),
    })
}

/// How often the regions of the student's heatmaps hold the truth, believed as drives say and as the truth says.
fn coverage(run: &Value) -> Option<Coverage> {
    let network = if run.get("recipe").is_some() {
        "/test/student"
    } else {
        "/validation"
    };
    let measured = run.pointer(network)?;
    let series = |name: &str, role, fit: Option<&Value>, points: Option<&Value>| {
        let (fit, points) = (fit?, points?.as_array()?);
        let number = |value: &Value, key: &str| value.get(key)?.as_f64();
        let point = |value: &Value| {
            Some(CoveragePoint {
                nominal: number(value, "nominal")?,
                empirical: number(value, "observed")?,
            })
        };
        Some(CoverageSeries {
            name: format!(
                "{name}: temperature {}, {:.1} % mean nothing",
                super::svg::number(number(fit, "temperature")?),
                100.0 * number(fit, "outlier_share")?
            ),
            role,
            sample_count: number(measured.get("heatmaps")?, "frames")? as usize,
            points: points.iter().filter_map(point).collect(),
        })
    };
    let own = measured.get("heatmaps");
    let believed = measured.get("believed");
    let fit = believed.and_then(|believed| believed.get("fit"));
    let by_truth = |own: &Value| own.get("coverage").cloned();
    let all = [
        series(
            "fitted by drives without truth",
            Role::Student,
            fit,
            believed.and_then(|believed| believed.get("coverage")),
        ),
        series(
            "fitted by the truth of these places",
            Role::UpperBound,
            own,
            own.and_then(by_truth).as_ref(),
        ),
    ];
    let series: Vec<CoverageSeries> = all.into_iter().flatten().collect();
    (!series.is_empty()).then(|| Coverage {
        caption: "How often the truth lies within the smallest region of a single heatmap that claims to hold it \
                  with a probability. Below the line the network is too sure. By drives, temperature and share of \
                  heatmaps that mean nothing are fitted to odometry, GNSS and each other's heatmaps; fitted by the \
                  truth they are the best that can be had here."
            .into(),
        series,
    })
}

/// The loss curves, in the order of training.
fn curves(folder: &Path) -> anyhow::Result<Vec<TrainingCurve>> {
    let known = [
        ("train", "training", Role::Teacher),
        ("auxiliary", "auxiliary student", Role::Auxiliary),
        ("student", "student", Role::Student),
        ("oracle", "true positions", Role::UpperBound),
    ];
    let mut curves = Vec::new();
    for (file, name, role) in known {
        let mut points: Vec<(f64, f64)> = Vec::new();
        read_lines(&folder.join(format!("{file}.curve.jsonl")), |line| {
            let number = |key: &str| line.get(key).and_then(Value::as_f64);
            points.extend(number("step").zip(number("loss")));
        })?;
        if !points.is_empty() {
            curves.push(TrainingCurve {
                name: name.into(),
                role,
                loss_steps: points.iter().map(|(step, _)| *step).collect(),
                loss: points.iter().map(|(_, loss)| *loss).collect(),
                ..TrainingCurve::default()
            });
        }
    }
    Ok(curves)
}

/// How the labels look: nothing here needs a true position.
fn label_statistics(path: &Path) -> anyhow::Result<Option<Table>> {
    let mut groups: [(usize, Vec<f64>, Vec<f64>); 2] = Default::default();
    read_lines(path, |line| {
        let kept = line.get("kept").and_then(Value::as_bool).unwrap_or(true);
        let (count, distances, peaks) = &mut groups[usize::from(!kept)];
        *count += 1;
        distances.extend(line.get("distance_m").and_then(Value::as_f64));
        peaks.extend(line.pointer("/label/peak").and_then(Value::as_f64));
    })?;
    if groups.iter().all(|(count, ..)| *count == 0) {
        return Ok(None);
    }
    let median = |values: &[f64]| {
        let sorted = super::curves::sorted(values);
        super::curves::quantile(&sorted, 0.5).map_or("–".into(), number)
    };
    let rows = ["kept", "dropped"].into_iter().zip(&groups);
    let rows = rows.map(|(name, (count, distances, peaks))| {
        vec![
            name.into(),
            count.to_string(),
            median(distances),
            median(peaks),
        ]
    });
    Ok(Some(Table {
        title: "Labels".into(),
        note: "Medians. Distance: between the teacher's mode and the auxiliary student's. Peak: probability of the \
               heatmap's largest cell."
            .into(),
        columns: ["", "labels", "distance, m", "peak"].map(Into::into).to_vec(),
        rows: rows.collect(),
    }))
}

/// The run's settings, one row for each value.
fn settings(run: &Value) -> Table {
    let mut rows = Vec::new();
    flatten(
        run.get("settings").unwrap_or(&Value::Null),
        String::new(),
        &mut rows,
    );
    Table {
        title: "Settings".into(),
        note: "As `--set NAME=VALUE` takes them.".into(),
        columns: vec!["name".into(), "value".into()],
        rows,
    }
}

fn flatten(value: &Value, name: String, rows: &mut Vec<Vec<String>>) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                let dot = if name.is_empty() { "" } else { "." };
                flatten(value, format!("{name}{dot}{field}"), rows);
            }
        }
        Value::Null => {}
        other => rows.push(vec![name, other.to_string()]),
    }
}

fn command(run: &Value) -> String {
    let words = run.pointer("/made_by/command").and_then(Value::as_array);
    let words = words.into_iter().flatten().filter_map(Value::as_str);
    words.collect::<Vec<_>>().join(" ")
}

fn provenance(run: &Value) -> Vec<ProvenanceRow> {
    let known = [
        ("program", "/made_by/version"),
        ("seed", "/seed"),
        ("recipe", "/recipe"),
        ("teacher sha256", "/teacher_sha256"),
        ("area", "/dataset/area"),
        ("pairs", "/dataset/pairs"),
        ("dataset sha256", "/dataset/sha256"),
        ("licence", "/licence"),
    ];
    let row = |(name, pointer): (&str, &str)| {
        let value = match run.pointer(pointer)? {
            Value::Null => return None,
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        Some(ProvenanceRow {
            name: name.into(),
            value,
        })
    };
    known.into_iter().filter_map(row).collect()
}

/// Calls `each` with every JSON line of a file; a file that is not there has none, and a last line
/// that was cut off by a stop is left out.
fn read_lines(path: &Path, mut each: impl FnMut(&Value)) -> anyhow::Result<()> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let mut reader = BufReader::new(file);
    let mut line = String::new();
    loop {
        line.clear();
        let read = (&mut reader).take(MOST_LINE_BYTES).read_line(&mut line);
        match read.with_context(|| format!("cannot read {}", path.display()))? {
            0 => return Ok(()),
            _ => {
                if let Ok(value) = serde_json::from_str(&line) {
                    each(&value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_run_folder_becomes_a_page_with_its_curve_its_labels_and_an_honest_verdict() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let measured = |mean: f64| json!({ "unmasked": { "mean_m": mean } });
        let run = json!({
            "made_by": { "version": "1", "command": ["crossfix", "adapt"] },
            "recipe": "paper",
            "settings": { "fit": { "epochs": 2.5 }, "rounds": 1 },
            "details": { "kept_fraction": 0.8 },
            "test": { "teacher": measured(2.0), "student": measured(3.0) },
        });
        let mut run = run;
        let fit = |temperature: f64| {
            json!({ "temperature": temperature, "outlier_share": 0.02, "frames": 300,
                    "coverage": [{ "nominal": 0.5, "observed": 0.51 }] })
        };
        run["test"]["student"]["heatmaps"] = fit(0.5);
        run["test"]["student"]["believed"] =
            json!({ "fit": fit(0.4), "coverage": [{ "nominal": 0.5, "observed": 0.47 }] });
        write("run.json", &run.to_string());
        write(
            "student.curve.jsonl",
            "{\"step\":10,\"loss\":4.0}\n{\"step\":20,\"loss\":3.0}\n{\"st",
        );
        let label =
            |kept: bool| json!({ "label": { "peak": 0.2 }, "distance_m": 1.0, "kept": kept });
        write(
            "labels.jsonl",
            &format!("{}\n{}\n", label(true), label(false)),
        );
        let input = from_run(folder.path()).unwrap();
        assert!(
            input.verdict.contains("2.00 m to 3.00 m (+50 %)"),
            "{}",
            input.verdict
        );
        assert!(input.verdict.contains("don't drive with it"));
        let coverage = input.coverage.as_ref().unwrap();
        let [drives, truth] = coverage.series.as_slice() else {
            panic!("{coverage:?}");
        };
        assert!(drives.name.starts_with("fitted by drives") && drives.name.contains("0.40"));
        assert_eq!(
            (drives.points[0].empirical, truth.points[0].empirical),
            (0.47, 0.51)
        );
        assert_eq!(truth.sample_count, 300);
        assert_eq!(input.training[0].loss_steps, [10.0, 20.0]);
        assert_eq!(input.tables[0].rows[1], ["dropped", "1", "1.00", "0.20"]);
        assert!(
            input.tables[1]
                .rows
                .contains(&vec!["fit.epochs".into(), "2.5".into()])
        );
        let page = super::super::render(&input);
        assert!(page.contains("Is the stated uncertainty honest?"));
        assert!(page.contains("Training loss") && page.contains("crossfix adapt"));
    }

    #[test]
    fn a_folder_without_a_record_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = from_run(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains("run.json") && error.contains("--resume"),
            "{error}"
        );
    }
}
