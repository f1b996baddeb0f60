//! The demo's page: what the outcome looks like.

use super::{Measured, Outcome, story};
use crate::data::pairs::truth::true_pose;
use crate::data::{Dataset, Sample};
use crate::evaluate::Evaluation;
use crate::metrics::Summary;
use crate::report::{
    self, Coverage, Drive, ErrorCurves, ErrorMap, ErrorMapModel, ErrorPoint, FeatureModel,
    Features, Headline, ModelErrors, PairModel, PairPicture, Pairs, Picture, ProvenanceRow,
    ReportInput, Role, Square, SummaryRow, SummaryTable, TrainingCurve, coverage_series, label_map,
    label_quality, radius_95_m, select_pairs,
};
use crate::run::RunFolder;
use crate::train::Fitted;
use anyhow::Context;
use crossfix_calibration::{Geodetic, Heatmap, LocalFrame};

const PAIRS_SHOWN: usize = 9;

/// Writes report.html, and report-input.json without pictures.
pub fn write(outcome: &Outcome, folder: &RunFolder) -> anyhow::Result<()> {
    let input = input(outcome)?;
    folder
        .write_json("report-input.json", &input.without_pictures())
        .context("cannot write report-input.json")?;
    let path = folder.file("report.html");
    report::write(&path, &input).with_context(|| format!("cannot write {}", path.display()))
}

fn models(outcome: &Outcome) -> [(&'static str, Role, &Measured); 5] {
    [
        ("teacher", Role::Teacher, &outcome.teacher),
        ("paper, auxiliary", Role::Auxiliary, &outcome.auxiliary),
        ("paper, student", Role::Other, &outcome.paper),
        ("consensus, student", Role::Student, &outcome.student),
        ("upper bound", Role::UpperBound, &outcome.upper_bound),
    ]
}

fn input(outcome: &Outcome) -> anyhow::Result<ReportInput> {
    let summary = outcome.summary();
    let number = |pointer: &str| summary.pointer(pointer).and_then(serde_json::Value::as_f64);
    let (teacher, student) = (
        outcome.teacher.evaluation.unmasked.mean_m,
        outcome.student.evaluation.unmasked.mean_m,
    );
    let (gnss, fused) = (
        number("/drive/gnss/mean_m").unwrap_or(0.0),
        number("/drive/fused/mean_m").unwrap_or(0.0),
    );
    let truth = &outcome.areas.test_truth;
    let errors = |measured: &Measured| -> Vec<f64> {
        let pairs = outcome.areas.test.samples().zip(&measured.predictions);
        pairs
            .filter_map(|(sample, prediction)| {
                let [east, north] = true_pose(sample, truth)?.offset_m;
                Some((prediction.mode_m[0] - east).hypot(prediction.mode_m[1] - north))
            })
            .collect()
    };
    let adapt = &outcome.areas.adapt;
    let labels = &outcome.adapted.labels;
    let adapt_tiles = outcome
        .areas
        .adapt_folder
        .join(&adapt.inner().manifest().tiles);
    Ok(ReportInput {
        title: "Crossfix demo: a new area without true positions".into(),
        verdict: verdict(outcome, gnss, fused),
        headlines: vec![
            headline("student, mean error", format!("{student:.2} m"), format!("teacher {teacher:.2} m"), student < teacher),
            headline("fused drive, mean error", format!("{fused:.2} m"), format!("GNSS {gnss:.2} m"), fused < gnss),
            headline(
                "truth inside the 95 % region",
                format!("{:.1} %", outcome.drives.coverage_95() * 100.0),
                coverage_note(outcome.drives.coverage_95()),
                (0.90..=0.99).contains(&outcome.drives.coverage_95()),
            ),
        ],
        story: story::steps(outcome),
        summary: vec![summary_table(outcome)],
        pairs: Some(pairs(outcome)?),
        error_curves: vec![ErrorCurves {
            caption: "How many of the target's test places are within a distance; further up and left is better.".into(),
            models: models(outcome)
                .iter()
                .map(|(name, role, measured)| ModelErrors { name: (*name).into(), role: *role, errors_m: errors(measured) })
                .collect(),
            maximum_m: None,
        }],
        error_map: Some(error_map(outcome)?),
        label_map: label_map(adapt, labels, Some(&outcome.adapt_truth), &adapt_tiles)?,
        features: features(outcome),
        drive: Some(Drive {
            caption: "The first test drive, replayed through the vehicle's own program with the exported student. Move the slider \
                      to follow it.".into(),
            map: Some(ground_of_drive(outcome).picture(&outcome.areas.test_tiles, outcome.drives.origin)?),
            tracks: outcome.drives.tracks.clone(),
        }),
        coverage: Some(Coverage {
            caption: "How often the truth lies in the region that the fused position claims, over all test drives; on the line is honest.".into(),
            series: vec![coverage_series("fused", Role::Fused, &outcome.drives.fused_squared)],
        }),
        label_quality: Some(label_quality(adapt, labels, &outcome.adapt_truth)),
        training: trainings(outcome)
            .into_iter()
            .map(|(fitted, (name, role))| TrainingCurve {
                name: name.into(),
                role,
                loss: fitted.losses.iter().map(|loss| f64::from(*loss)).collect(),
                ..TrainingCurve::default()
            })
            .collect(),
        reproduce: vec![format!("cargo run --release --bin crossfix -- demo --seed {}", outcome.seed)],
        provenance: vec![
            provenance("program", format!("crossfix {}", env!("CARGO_PKG_VERSION"))),
            provenance("seed", outcome.seed.to_string()),
            provenance("recipe", recipe_line(outcome)),
            provenance("adaptation pairs", outcome.areas.adapt.len().to_string()),
            provenance("test pairs", outcome.areas.test.len().to_string()),
            provenance("imagery", "simulated".into()),
        ],
        ..ReportInput::default()
    })
}

/// What was done and what came of it, `paper` and the gate included.
fn verdict(outcome: &Outcome, gnss_m: f64, fused_m: f64) -> String {
    let mean = |measured: &Measured| measured.evaluation.unmasked.mean_m;
    let teacher = mean(&outcome.teacher);
    let (student, paper) = (mean(&outcome.student), mean(&outcome.paper));
    let change = (student / teacher - 1.0) * 100.0;
    let mut text = format!(
        "Adapting the teacher with coarse positions only changed its mean error on unseen places of the target \
         area from {teacher:.2} m to {student:.2} m ({}). ",
        percent_change(change)
    );
    if student >= teacher {
        text += "The student is no better than its teacher: don't drive with it. ";
    }
    text += &format!("The published method (recipe paper) came to {paper:.2} m. ");
    let findings = &outcome.adapted.verdict;
    for finding in findings.findings.iter().filter(|finding| finding.refuses) {
        text += &format!("The gate refuses it: {}. ", finding.what);
    }
    text + &format!(
        "Along the drives, fusing the student with GNSS and odometry gave {fused_m:.2} m where GNSS alone gave \
         {gnss_m:.2} m."
    )
}

/// A change in per cent with a real minus sign.
fn percent_change(change: f64) -> String {
    format!("{change:+.0} %").replace('-', "−")
}

/// What a share of positions inside the 95 % region means.
fn coverage_note(share: f64) -> String {
    let verdict = if share > 0.99 {
        "too cautious: the region is larger than the errors need"
    } else if share < 0.90 {
        "overconfident: the region is smaller than the errors"
    } else {
        "honest"
    };
    format!("{verdict} (95 % is meant, 90 to 99 % counts as honest)")
}

fn headline(label: &str, value: String, note: String, good: bool) -> Headline {
    Headline {
        label: label.into(),
        value,
        note,
        good: Some(good),
    }
}

fn provenance(name: &str, value: String) -> ProvenanceRow {
    ProvenanceRow {
        name: name.into(),
        value,
    }
}

fn summary_table(outcome: &Outcome) -> SummaryTable {
    let row = |metric: &str, masked: bool, of: &dyn Fn(&Summary) -> f64| SummaryRow {
        area: "target".into(),
        metric: metric.into(),
        unit: "m".into(),
        masked: Some(masked),
        higher_is_better: false,
        values: models(outcome)
            .iter()
            .map(|(_, _, measured)| {
                let Evaluation {
                    unmasked,
                    masked: within,
                    ..
                } = &measured.evaluation;
                Some(of(if masked { within } else { unmasked }))
            })
            .collect(),
    };
    let source = SummaryRow {
        area: "source".into(),
        metric: "mean error".into(),
        unit: "m".into(),
        masked: Some(false),
        higher_is_better: false,
        values: vec![
            Some(outcome.teacher_on_source.unmasked.mean_m),
            None,
            None,
            None,
            None,
        ],
    };
    SummaryTable {
        caption: "Errors in metres on places that nothing was trained on: lower is better; small print is the change against the teacher. \
                  Masked: the network looks only within the 99 % ellipse of the coarse position.".into(),
        models: models(outcome).iter().map(|(name, role, _)| ((*name).into(), *role)).collect(),
        rows: vec![
            source,
            row("mean error", false, &|summary| summary.mean_m),
            row("median error", false, &|summary| summary.median_m),
            row("90th percentile", false, &|summary| summary.p90_m),
            row("mean along the road", false, &|summary| summary.along_mean_m),
            row("mean across the road", false, &|summary| summary.across_mean_m),
            row("mean error", true, &|summary| summary.mean_m),
            row("median error", true, &|summary| summary.median_m),
        ],
    }
}

fn pairs(outcome: &Outcome) -> anyhow::Result<Pairs> {
    let truth = &outcome.areas.test_truth;
    let error = |sample: &Sample, mode_m: [f64; 2]| {
        true_pose(sample, truth).map_or(f64::NAN, |pose| {
            (mode_m[0] - pose.offset_m[0]).hypot(mode_m[1] - pose.offset_m[1])
        })
    };
    let (teacher, student) = (&outcome.teacher.predictions, &outcome.student.predictions);
    let changes: Vec<(f64, f64)> = outcome
        .areas
        .test
        .samples()
        .zip(teacher.iter().zip(student))
        .map(|(sample, (teacher, student))| {
            (error(sample, teacher.mode_m), error(sample, student.mode_m))
        })
        .collect();
    let metres_per_pixel = outcome.adapted.student.describe().metres_per_pixel;
    let shown = select_pairs(&changes, PAIRS_SHOWN)
        .into_iter()
        .map(|(index, group)| {
            let pair = outcome.areas.test.pair(index)?;
            let sample = &pair.sample;
            let side_m = pair.aerial.width as f64 * metres_per_pixel;
            let model = |name: &str, role, measured: &Measured| -> anyhow::Result<PairModel> {
                let prediction = &measured.predictions[index];
                let heatmap = prediction.heatmap.as_ref().map(|values| {
                    let side = values.len().isqrt();
                    Heatmap::new(side, side_m / side as f64, values.clone())
                });
                Ok(PairModel {
                    name: name.into(),
                    role,
                    heatmap: heatmap
                        .transpose()?
                        .map(|heatmap| Picture::heatmap_overlay(&heatmap))
                        .transpose()?,
                    mode_offset_m: Some(prediction.mode_m),
                    error_m: Some(error(sample, prediction.mode_m)),
                })
            };
            Ok(PairPicture {
                id: sample.id.clone(),
                group,
                ground: Some(Picture::jpeg(&pair.ground, 1024)?),
                aerial: Some(Picture::jpeg(&pair.aerial, 512)?),
                aerial_side_m: side_m,
                truth_offset_m: true_pose(sample, truth).map(|pose| pose.offset_m),
                coarse_offset_m: Some(sample.coarse_offset_m),
                coarse_radius_m: radius_95_m(sample.coarse_covariance_m2),
                models: vec![
                    model("teacher", Role::Teacher, &outcome.teacher)?,
                    model("student", Role::Student, &outcome.student)?,
                ],
            })
        });
    Ok(Pairs {
        selection: format!(
            "The {0} largest gains, {0} in the middle and the {0} worst regressions of {1} test pairs.",
            PAIRS_SHOWN / 3,
            changes.len()
        ),
        pairs: shown.collect::<anyhow::Result<_>>()?,
    })
}

/// The ground of the first test drive.
fn ground_of_drive(outcome: &Outcome) -> Square {
    let samples = outcome.drives.tracks[0].samples.iter();
    Square::around(samples.map(|sample| [sample.east_m, sample.north_m]))
}

/// Errors over the district of the first test drive.
fn error_map(outcome: &Outcome) -> anyhow::Result<ErrorMap> {
    let truth = &outcome.areas.test_truth;
    let origin = outcome.drives.origin;
    let frame = LocalFrame::new(origin);
    let points = |measured: &Measured| -> Vec<ErrorPoint> {
        let pairs = outcome.areas.test.samples().zip(&measured.predictions);
        pairs
            .filter_map(|(sample, prediction)| {
                let row = truth.get(&sample.id)?;
                let place = Geodetic::new(row.latitude_deg, row.longitude_deg, 0.0).ok()?;
                let place = frame.enu_from_geodetic(place);
                let [east, north] = true_pose(sample, truth)?.offset_m;
                let error_m = (prediction.mode_m[0] - east).hypot(prediction.mode_m[1] - north);
                // Districts lie kilometres apart; the map shows one.
                (place.east().hypot(place.north()) < 900.0).then_some(ErrorPoint {
                    east_m: place.east(),
                    north_m: place.north(),
                    error_m,
                })
            })
            .collect()
    };
    let model = |name: &str, role, measured| ErrorMapModel {
        name: name.into(),
        role,
        points: points(measured),
    };
    let models = vec![
        model("teacher", Role::Teacher, &outcome.teacher),
        model("student", Role::Student, &outcome.student),
    ];
    let places = models.iter().flat_map(|model| &model.points);
    let ground = Square::around(places.map(|point| [point.east_m, point.north_m]));
    Ok(ErrorMap {
        caption: "Each dot is a test place, at its true position, coloured by how far a network is wrong there; district of the first test drive.".into(),
        map: Some(ground.picture(&outcome.areas.test_tiles, origin)?),
        models,
        colour_limit_m: Some(15.0),
    })
}

/// What teacher and student compare, where both have descriptors.
fn features(outcome: &Outcome) -> Option<Features> {
    let models = [
        ("teacher", Role::Teacher, &outcome.teacher),
        ("consensus, student", Role::Student, &outcome.student),
    ];
    let models = models.map(|(name, role, measured)| {
        let views = measured.views.clone()?;
        Some(FeatureModel::of(name, role, views))
    });
    let models: Option<Vec<FeatureModel>> = models.into_iter().collect();
    models.map(|models| Features {
        caption: format!(
            "{} test pairs at even distances: the descriptor of each ground view, and that of the aerial image at the true place.",
            models[0].plane.len()
        ),
        models,
    })
}

/// The trainings of the recipe: what its curves are called, their colour, how they went.
fn trainings(outcome: &Outcome) -> Vec<(&Fitted, (&'static str, Role))> {
    let auxiliary = outcome.paper_adapted.auxiliary.as_ref();
    let auxiliary =
        auxiliary.map(|auxiliary| (&auxiliary.fit, ("paper, auxiliary", Role::Auxiliary)));
    let paper = (&outcome.paper_adapted.fit, ("paper, student", Role::Other));
    let student = (&outcome.adapted.fit, ("consensus, student", Role::Student));
    auxiliary.into_iter().chain([paper, student]).collect()
}

/// The recipe's main settings.
fn recipe_line(outcome: &Outcome) -> String {
    let fit = &outcome.recipe.fit;
    format!(
        "consensus: {:.0} % of labels learned, {} epochs at {:e}",
        outcome.adapted.kept_fraction() * 100.0,
        fit.epochs,
        fit.learning_rate
    )
}
