//! The demo's page: what the outcome looks like.

use super::{Measured, Outcome};
use crate::data::pairs::truth::true_pose;
use crate::data::{Dataset, Sample};
use crate::evaluate::Evaluation;
use crate::metrics::Summary;
use crate::report::{
    self, Coverage, Drive, ErrorCurves, ErrorMap, ErrorMapModel, ErrorPoint, Headline,
    LabelQuality, MapPicture, ModelErrors, PairModel, PairPicture, Pairs, Picture, ProvenanceRow,
    ReportInput, Role, SummaryRow, SummaryTable, TrainingCurve, coverage_series, radius_95_m,
    select_pairs,
};
use crate::run::RunFolder;
use crate::train::Fitted;
use anyhow::Context;
use crossfix_calibration::{Enu, Geodetic, Heatmap, LocalFrame, PatchSpec};
use crossfix_onboard::tiles::TileStore;

/// Ground size of a pixel of the overview pictures.
const OVERVIEW_METRES_PER_PIXEL: f64 = 0.5;
const OVERVIEW_PX: usize = 1040;
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
        ("true positions", Role::UpperBound, &outcome.upper_bound),
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
    let labels = outcome.label_errors_m.iter().zip(&outcome.adapted.labels);
    let labels = |kept: bool| -> Vec<f64> {
        labels
            .clone()
            .filter(|(_, label)| label.is_kept() == kept)
            .map(|(error, _)| *error)
            .collect()
    };
    Ok(ReportInput {
        title: "Crossfix demo".into(),
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
        summary: vec![summary_table(outcome)],
        pairs: Some(pairs(outcome)?),
        error_curves: vec![ErrorCurves {
            caption: "Position error on target places that nothing was trained on.".into(),
            models: models(outcome)
                .iter()
                .map(|(name, role, measured)| ModelErrors { name: (*name).into(), role: *role, errors_m: errors(measured) })
                .collect(),
            maximum_m: None,
        }],
        error_map: Some(error_map(outcome)?),
        drive: Some(Drive {
            caption: "The first test drive, replayed through the daemon's pipeline.".into(),
            map: Some(overview(outcome, ground_of_drive(outcome), outcome.drives.origin)?),
            tracks: outcome.drives.tracks.clone(),
        }),
        coverage: Some(Coverage {
            caption: "How often the truth lies in the region that the fused output claims, over all test drives.".into(),
            series: vec![coverage_series("fused", Role::Fused, &outcome.drives.fused_squared)],
        }),
        label_quality: Some(LabelQuality {
            caption: "Error of the labels that drives agree on; adaptation never saw it.".into(),
            kept_errors_m: labels(true),
            dropped_errors_m: labels(false),
        }),
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
         area from {teacher:.2} m to {student:.2} m ({change:+.0} %). "
    );
    if student >= teacher {
        text += "The student is no better than its teacher: don't drive with it. ";
    }
    text += &format!("The recipe `paper` came to {paper:.2} m. ");
    let findings = &outcome.adapted.verdict;
    for finding in findings.findings.iter().filter(|finding| finding.refuses) {
        text += &format!("The gate refuses it: {}. ", finding.what);
    }
    text + &format!(
        "Along the drives, fusing the student with GNSS and odometry gave {fused_m:.2} m where GNSS alone gave \
         {gnss_m:.2} m."
    )
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
        caption: "Places that nothing was trained on. Masked: within the 99 % ellipse of the coarse position.".into(),
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
    let shown = select_pairs(&changes, PAIRS_SHOWN)
        .into_iter()
        .map(|(index, group)| {
            let pair = outcome.areas.test.pair(index)?;
            let sample = &pair.sample;
            let side_m = pair.aerial.width as f64 * OVERVIEW_METRES_PER_PIXEL;
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

/// The square piece of ground around some places, in metres about an origin.
#[derive(Clone, Copy)]
struct Square {
    /// East and north of its middle.
    middle_m: [f64; 2],
    side_m: f64,
}

impl Square {
    /// Around places, with room; at least as wide as an overview at full resolution. Maps are up to
    /// half as wide again as they are high.
    fn around(places: impl Iterator<Item = [f64; 2]> + Clone) -> Self {
        let along = |axis: usize| {
            let of = places.clone().map(|place| place[axis]);
            let low = of.clone().fold(f64::INFINITY, f64::min);
            let high = of.fold(f64::NEG_INFINITY, f64::max);
            (f64::midpoint(low, high), high - low)
        };
        let [(east, wide), (north, high)] = [along(0), along(1)];
        Self {
            middle_m: [east, north],
            side_m: (1.6 * wide.max(high) + 60.0)
                .max(OVERVIEW_PX as f64 * OVERVIEW_METRES_PER_PIXEL),
        }
    }
}

/// The picture of a piece of ground, placed in metres about `origin`.
fn overview(outcome: &Outcome, ground: Square, origin: Geodetic) -> anyhow::Result<MapPicture> {
    let mut tiles = TileStore::open(&outcome.areas.test_tiles)?;
    let frame = LocalFrame::new(origin);
    let [east, north] = ground.middle_m;
    let middle = frame.geodetic_from_enu(Enu::new(east, north, 0.0));
    let metres_per_pixel = ground.side_m / OVERVIEW_PX as f64;
    let mut size_px = OVERVIEW_PX;
    loop {
        let spec = PatchSpec {
            size_px,
            metres_per_pixel,
        };
        match tiles.patch(middle, spec, 1.0) {
            Ok((georeference, image)) => {
                let centre = frame.enu_from_geodetic(georeference.centre());
                let half_m = size_px as f64 * metres_per_pixel / 2.0;
                return Ok(MapPicture {
                    picture: Picture::jpeg(&image, size_px)?,
                    top_left_m: [centre.east() - half_m, centre.north() + half_m],
                    metres_per_pixel,
                });
            }
            // The tile set ends near the middle: show what there is.
            Err(_) if size_px > 200 => size_px = size_px * 9 / 10,
            Err(error) => return Err(error.into()),
        }
    }
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
        caption: "Where the models are wrong, in the district of the first test drive.".into(),
        map: Some(overview(outcome, ground, origin)?),
        models,
        colour_limit_m: Some(15.0),
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
