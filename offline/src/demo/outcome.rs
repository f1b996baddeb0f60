//! What a demo found, as numbers: `summary.json` and the printed table.

use super::Outcome;
use crate::data::Dataset;
use crate::evaluate::Evaluation;
use crate::metrics::mean;
use serde_json::{Value, json};

impl Outcome {
    /// Mean error of the labels of `paper`, kept or dropped.
    pub(super) fn paper_label_error_m(&self, kept: bool) -> f64 {
        let labels = &self.paper_adapted.labels;
        let errors = self.paper_label_errors_m.iter().zip(labels);
        let errors = errors.filter(|(error, label)| label.is_kept() == kept && error.is_finite());
        mean(&errors.map(|(error, _)| *error).collect::<Vec<f64>>())
    }

    /// Mean error of the labels of `consensus`.
    pub(super) fn label_error_m(&self) -> f64 {
        let errors = self.label_errors_m.iter().copied();
        mean(
            &errors
                .filter(|error| error.is_finite())
                .collect::<Vec<f64>>(),
        )
    }

    /// Mean error of all labels of `paper`: the teacher's modes.
    pub(super) fn mode_error_m(&self) -> f64 {
        let errors = self.paper_label_errors_m.iter().copied();
        mean(
            &errors
                .filter(|error| error.is_finite())
                .collect::<Vec<f64>>(),
        )
    }

    /// `summary.json`: an interface, only ever added to.
    pub(super) fn summary(&self) -> Value {
        let model = |evaluation: &Evaluation| {
            let (free, masked) = (&evaluation.unmasked, &evaluation.masked);
            json!({
                "mean_m": free.mean_m,
                "median_m": free.median_m,
                "p90_m": free.p90_m,
                "along_mean_m": free.along_mean_m,
                "across_mean_m": free.across_mean_m,
                "masked_mean_m": masked.mean_m,
                "masked_median_m": masked.median_m,
                "outside_prior": evaluation.outside_prior,
                "yaw_mean_deg": evaluation.yaw.map(|yaw| yaw.mean_deg),
                "count": free.count,
            })
        };
        let target = &self.teacher.evaluation;
        json!({
            "teacher": {
                "source": model(&self.teacher_on_source),
                "target": model(target),
            },
            "guess_centre": { "mean_m": target.guess_centre.mean_m },
            "coarse": { "mean_m": target.coarse.mean_m },
            "paper": {
                "auxiliary": model(&self.auxiliary.evaluation),
                "student": model(&self.paper.evaluation),
                "kept_fraction": self.paper_adapted.kept_fraction(),
                "label_error_kept_m": self.paper_label_error_m(true),
                "label_error_dropped_m": self.paper_label_error_m(false),
            },
            "consensus": {
                "student": model(&self.student.evaluation),
                "kept_fraction": self.adapted.kept_fraction(),
                "label_error_m": self.label_error_m(),
                "teacher_label_error_m": self.mode_error_m(),
                "evidence": self.adapted.evidence,
                "gate": self.adapted.verdict.findings,
                "refused": self.adapted.verdict.refuses(),
            },
            "upper_bound": model(&self.upper_bound.evaluation),
            "onnx": { "max_relative_error": self.export_error, "temperature": self.temperature },
            "drive": self.drives.summary(),
            "pairs": { "adapt": self.areas.adapt.len(), "test": self.areas.test.len() },
            "seconds": self.seconds,
            "seed": self.seed,
        })
    }

    /// What is printed.
    pub(super) fn table(&self) -> String {
        let mut text = format!(
            "position error, m        {:>7} {:>7} {:>7} {:>8} {:>8}\n",
            "mean", "median", "p90", "in prior", "yaw, deg"
        );
        let target = &self.teacher.evaluation;
        for (name, evaluation) in [
            ("teacher, source area", &self.teacher_on_source),
            ("teacher, target area", target),
            ("paper, auxiliary", &self.auxiliary.evaluation),
            ("paper, student", &self.paper.evaluation),
            ("consensus, student", &self.student.evaluation),
            ("true positions (bound)", &self.upper_bound.evaluation),
        ] {
            let (free, masked) = (&evaluation.unmasked, &evaluation.masked);
            text += &format!(
                "{name:<24} {:>7.2} {:>7.2} {:>7.2} {:>8.2} {:>8.2}\n",
                free.mean_m,
                free.median_m,
                free.p90_m,
                masked.mean_m,
                evaluation.yaw.map_or(f64::NAN, |yaw| yaw.mean_deg),
            );
        }
        text += &format!(
            "{:<24} {:>7.2}\n",
            "guessing the centre", target.guess_centre.mean_m
        );
        let change = |of: f64, to: f64| (to / of - 1.0) * 100.0;
        text += &format!(
            "student against teacher: {:+.0} % ({:+.0} % in prior), of `paper` {:+.0} %\n",
            change(
                target.unmasked.mean_m,
                self.student.evaluation.unmasked.mean_m
            ),
            change(target.masked.mean_m, self.student.evaluation.masked.mean_m),
            change(
                target.unmasked.mean_m,
                self.paper.evaluation.unmasked.mean_m
            ),
        );
        text += &format!(
            "labels: teacher's modes {:.2} m, consensus {:.2} m; `paper` keeps {:.0} %, their error {:.2} m, of dropped {:.2} m\n",
            self.mode_error_m(),
            self.label_error_m(),
            self.paper_adapted.kept_fraction() * 100.0,
            self.paper_label_error_m(true),
            self.paper_label_error_m(false),
        );
        text += &self.drives.line();
        text += &format!(
            "student.onnx in tract differs from the training engine by {:.1e}; {:.0} s in all, seed {}\n",
            self.export_error, self.seconds, self.seed
        );
        text
    }
}
