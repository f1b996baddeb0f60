//! An adaptation's record as a story, for someone who was not there.

use super::run_folder::mean_m;
use super::story::StoryStep;
use serde_json::Value;

/// The steps of an adaptation, as far as its `run.json` tells; none of another run.
pub fn steps(run: &Value) -> Vec<StoryStep> {
    let Some(recipe) = run.get("recipe").and_then(Value::as_str) else {
        return Vec::new();
    };
    let number = |pointer: &str| run.pointer(pointer).and_then(Value::as_f64);
    let text = |pointer: &str| run.pointer(pointer).and_then(Value::as_str);
    let mut steps = Vec::new();
    let from = text("/teacher_sha256").map_or_else(String::new, |sha| {
        format!(" (SHA-256 {}…)", sha.chars().take(12).collect::<String>())
    });
    let pairs = number("/dataset/pairs").map_or_else(String::new, |pairs| format!("{pairs:.0} "));
    let area =
        text("/dataset/area").map_or_else(String::new, |area| format!(" of the area {area}"));
    steps.push(StoryStep::new(
        "A teacher, and pairs without truth.",
        format!(
            "A network that was trained elsewhere{from} was given {pairs}ground views{area} with coarse positions. No true position was opened{}.",
            if recipe == "oracle" { ", but for the labels: this recipe measures what true positions would buy" } else { "" }
        ),
    ));
    if let Some(evidence) = run
        .pointer("/details/evidence")
        .filter(|evidence| evidence.is_object())
    {
        let of = |key: &str| evidence.get(key).and_then(Value::as_f64);
        let drives = evidence
            .get("drives")
            .and_then(Value::as_array)
            .map_or(0, Vec::len);
        let mut text =
            format!("The frames of {drives} drives were brought to agree on where the vehicle was");
        if let Some((odometry, frames)) = of("by_odometry").zip(of("frames")) {
            text +=
                &format!("; odometry joins {odometry:.0} of {frames:.0} frames to the one before");
        }
        if let Some((support, agreement)) = of("support").zip(of("agreement")) {
            text += &format!(
                ". The labels' mean support is {support:.2} (1 is sure); at {:.0} % of the frames the teacher's own answer is within 3 m of the label",
                100.0 * agreement
            );
        }
        if let Some(offset) = evidence.get("tile_offset_m").and_then(Value::as_array) {
            let metres: Vec<String> = offset
                .iter()
                .filter_map(Value::as_f64)
                .map(|m| format!("{m:+.1}"))
                .collect();
            if metres.len() == 2 {
                text += &format!(
                    ". The aerial picture lies {} m (east, north) off the coarse positions",
                    metres.join(", ").replace('-', "−")
                );
            }
        }
        steps.push(StoryStep::new("Labels that drives agree on.", text + "."));
    }
    let learned = number("/details/kept_fraction").map_or_else(String::new, |share| {
        format!(" The student learned {:.0} % of the labels; the rest were dropped by the filter or kept back to judge it.", 100.0 * share)
    });
    let epochs = number("/settings/fit/epochs").zip(number("/settings/fit/learning_rate"));
    let epochs = epochs.map_or_else(String::new, |(epochs, rate)| {
        format!(" Training took {epochs} passes over them at a learning rate of {rate:e}.")
    });
    let student = match text("/student/preset") {
        Some(preset) => format!("A student of another kind ({preset})"),
        None => "A copy of the teacher".into(),
    };
    steps.push(StoryStep::new(
        "A student learns them.",
        format!("{student} was trained by the recipe `{recipe}`.{learned}{epochs}"),
    ));
    let findings = run.pointer("/details/gate").and_then(Value::as_array);
    let findings: Vec<String> = findings
        .into_iter()
        .flatten()
        .filter_map(|finding| {
            let what = finding.get("what")?.as_str()?;
            let refuses = finding
                .get("refuses")
                .and_then(Value::as_bool)
                .unwrap_or(false);
            Some(if refuses {
                format!("refused: {what}")
            } else {
                what.to_owned()
            })
        })
        .collect();
    if !findings.is_empty() {
        steps.push(StoryStep::new(
            "Judged without truth.",
            format!("{}.", findings.join("; ")),
        ));
    }
    let measured = match (mean_m(run, "/test/teacher"), mean_m(run, "/test/student")) {
        (Some(teacher), Some(student)) => format!(
            "On places that nothing was trained on, the teacher is {teacher:.2} m wrong on average and the student {student:.2} m."
        ),
        _ => "Nobody measured it with true positions: `--test` with pairs of other places does."
            .into(),
    };
    steps.push(StoryStep::new("Measured.", measured));
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_story_has_what_the_record_has_and_says_what_was_not_measured() {
        let mut run = json!({
            "recipe": "consensus",
            "teacher_sha256": "0123456789abcdef",
            "dataset": { "pairs": 900, "area": "target" },
            "settings": { "fit": { "epochs": 2.5, "learning_rate": 0.001 } },
            "details": {
                "kept_fraction": 0.83,
                "evidence": { "frames": 900, "by_odometry": 888, "support": 0.97, "agreement": 0.8, "tile_offset_m": [1.0, -2.0], "drives": [{}, {}] },
                "gate": [{ "check": "student", "what": "the student is off 0.6 of what its teacher is", "refuses": false }],
            },
        });
        let told = |run: &Value| {
            let steps = steps(run).into_iter();
            steps
                .map(|step| step.title + " " + &step.text)
                .collect::<Vec<_>>()
                .join("\n")
        };
        let text = told(&run);
        for part in [
            "900 ground views of the area target",
            "2 drives",
            "888 of 900",
            "0.97",
            "80 %",
            "+1.0, −2.0 m",
            "83 %",
            "off 0.6",
            "Nobody measured",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        run["test"] = json!({ "teacher": { "unmasked": { "mean_m": 2.0 } }, "student": { "unmasked": { "mean_m": 1.0 } } });
        assert!(
            told(&run).contains("the teacher is 2.00 m wrong on average and the student 1.00 m")
        );
        assert!(steps(&json!({ "validation": {} })).is_empty());
        assert_eq!(steps(&json!({ "recipe": "paper" })).len(), 3);
    }
}
