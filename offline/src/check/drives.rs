//! Headings, odometry and times against the course, through the gate of the recipes; headings and positions
//! against the truth where it may be looked at.

use super::{Report, Rows};
use crate::data::error::DatasetError;
use crate::data::pairs::truth::Truth;
use crate::data::pairs::{PairRow, Preparation, headings, place};
use crate::data::pose::{wrap_rad, yaw_from_heading};
use crate::data::{Dataset, Pair, Sample};
use crate::model::{ModelSpec, named};
use crate::recipe::gate::{Gate, each_drive, heading_reading, input};
use crossfix_calibration::{Geodetic, LocalFrame};
use std::collections::HashMap;
use std::f64::consts::{PI, TAU};
use std::sync::Arc;

/// Rows that are needed to judge headings that have no order.
const LEAST_ROWS: usize = 12;
/// Headings with a larger sigma are not known, degrees.
const KNOWN_DEG: f64 = 45.0;
/// Neighbouring rows within this distance show how a street runs, metres.
const STREET_M: [f64; 2] = [12.0, 60.0];
/// How much longer than wide the cloud of them must be.
const STREET_SHAPE: f64 = 8.0;

/// What to do about a drive whose instruments lie.
const ONE_DRIVE: &str = "mend that vehicle's instrument and leave the drive's rows out, or, where only odometry is wrong, write null for it";

/// Samples without pictures.
struct Placed(Vec<Sample>);

impl Dataset for Placed {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn sample(&self, index: usize) -> &Sample {
        &self.0[index]
    }

    fn pair(&self, index: usize) -> Result<Arc<Pair>, DatasetError> {
        Err(DatasetError::Pair {
            id: self.0[index].id.clone(),
            what: "only its text was opened".into(),
        })
    }
}

/// Looks at headings, odometry and times.
pub(super) fn look(
    rows: &Rows,
    truth: Option<&Truth>,
    spec: Option<&ModelSpec>,
    find_headings: bool,
    report: &mut Report,
) {
    let at = ("pairs.jsonl", None);
    if let Some(manifest) = &rows.manifest {
        let compact = named("compact").map(|preset| preset.describe());
        let Some(any) = spec.cloned().or(compact) else {
            return;
        };
        let camera = Arc::new(manifest.camera.clone());
        let mut stated: Vec<PairRow> = rows.rows.iter().map(|(_, row)| row.clone()).collect();
        if find_headings {
            headings::find(&mut stated);
        }
        let placed = stated.iter().map(|row| {
            place(row, &camera, &any, &Preparation::default()).map(|(_, sample)| sample)
        });
        let placed = Placed(placed.filter_map(Result::ok).collect());
        let findings = input(&placed, &any, &Gate::default()).findings;
        let wrong = |check: &str| {
            findings
                .iter()
                .any(|finding| finding.refuses && finding.check == check)
        };
        // Headings of another convention turn otherwise than odometry does.
        let other_headings = wrong("course");
        for finding in findings {
            // Without a network nobody says what it bears.
            let of_network = matches!(finding.check.as_str(), "camera" | "heading_sigma");
            let follows = other_headings && finding.check == "turns";
            if finding.refuses && !follows && (spec.is_some() || !of_network) {
                let (check, remedy) = named_check(&finding.check);
                report.problem(check, at, finding.what, remedy);
            }
        }
        // What is wrong with all of them was said.
        let of_all = |check: &str| report.found.iter().any(|found| found.check == check);
        let all = ["heading", "odometry", "clock"].map(of_all);
        if all == [false; 3] {
            for (drive, finding) in each_drive(&placed) {
                let (check, _) = named_check(&finding.check);
                let what = format!("drive {drive:?}: {}", finding.what);
                report.problem(check, at, what, ONE_DRIVE);
            }
        }
    }
    let known: Vec<usize> = (0..rows.rows.len())
        .filter(|row| rows.rows[*row].1.heading_sigma_deg < KNOWN_DEG)
        .collect();
    if known.len() < LEAST_ROWS {
        return;
    }
    values(rows, &known, report);
    let said = report.found.iter().any(|found| found.check == "heading");
    if !said
        && !streets(rows, &known, report)
        && let Some(truth) = truth
    {
        against_truth(rows, truth, report);
    }
}

fn named_check(check: &str) -> (&'static str, &'static str) {
    match check {
        "course" => (
            "heading",
            "write heading_deg in degrees clockwise from true north",
        ),
        "speed" => (
            "clock",
            "write time_ns in nanoseconds, positions in degrees",
        ),
        "odometry" | "turns" => (
            "odometry",
            "write metres forward and to the left and radians counter-clockwise, since the row before",
        ),
        "heading_sigma" => (
            "heading-sigma",
            "take a network that searches all headings (compact-unknown-heading), or give better ones",
        ),
        _ => ("camera", "take a network for this camera"),
    }
}

/// What headings look like by themselves: radians, or one value that nobody measured.
fn values(rows: &Rows, known: &[usize], report: &mut Report) {
    let headings = known.iter().map(|row| rows.rows[*row].1.heading_deg);
    let least = headings.clone().fold(f64::INFINITY, f64::min);
    let most = headings.fold(f64::NEG_INFINITY, f64::max);
    let at = ("pairs.jsonl", None);
    if most == least {
        let what = format!("heading_deg is {most} in all {} rows", known.len());
        let remedy = "a heading that is not known has heading_sigma_deg 180";
        report.problem("heading", at, what, remedy);
    } else if most - least > 2.0 && most <= TAU + 1e-3 && least >= -PI - 1e-3 {
        let what =
            format!("heading_deg is {least:.2} to {most:.2} in all rows; it fits as radians");
        let remedy = "write heading_deg in degrees clockwise from true north";
        report.problem("heading", at, what, remedy);
    }
}

/// Rows near one another, in any order, lie along a street, and vehicles drive along it.
fn streets(rows: &Rows, known: &[usize], report: &mut Report) -> bool {
    let first = &rows.rows[known[0]].1;
    let geodetic = |latitude_deg, longitude_deg| Geodetic {
        latitude_deg,
        longitude_deg,
        height_m: 0.0,
    };
    let frame = LocalFrame::new(geodetic(first.latitude_deg, first.longitude_deg));
    let places: Vec<[f64; 2]> = known
        .iter()
        .map(|row| {
            let row = &rows.rows[*row].1;
            let enu = frame.enu_from_geodetic(geodetic(row.latitude_deg, row.longitude_deg));
            [enu.east(), enu.north()]
        })
        .collect();
    let mut by_cell: HashMap<[i64; 2], Vec<usize>> = HashMap::new();
    let cell = |place: &[f64; 2]| place.map(|metres| (metres / STREET_M[1]).floor() as i64);
    for (index, place) in places.iter().enumerate() {
        by_cell.entry(cell(place)).or_default().push(index);
    }
    // Axes of streets and headings, doubled: an axis is known to half a circle.
    let mut doubled = Vec::new();
    let step = places.len().div_ceil(2000);
    for (index, place) in places.iter().enumerate().step_by(step.max(1)) {
        let [column, row] = cell(place);
        let around = (-1..=1).flat_map(|dx| (-1..=1).map(move |dy| [column + dx, row + dy]));
        let near = around.filter_map(|cell| by_cell.get(&cell)).flatten();
        let (mut count, mut moments) = (0, [0.0; 3]);
        for other in near.take(200) {
            let [east, north] = [0, 1].map(|axis| places[*other][axis] - place[axis]);
            if (STREET_M[0]..STREET_M[1]).contains(&east.hypot(north)) {
                count += 1;
                moments[0] += east * east;
                moments[1] += east * north;
                moments[2] += north * north;
            }
        }
        let [ee, en, nn] = moments;
        let spread = (0.25 * (ee - nn).powi(2) + en * en).sqrt();
        let (long, short) = (0.5 * (ee + nn) + spread, 0.5 * (ee + nn) - spread);
        if count >= 3 && long > STREET_SHAPE * short.max(1e-9) {
            let heading_deg = rows.rows[known[index]].1.heading_deg;
            let yaw = yaw_from_heading(heading_deg);
            doubled.push([yaw, 0.5 * (2.0 * en).atan2(ee - nn)]);
        }
    }
    if doubled.len() < LEAST_ROWS {
        return false;
    }
    let off = |reading: &dyn Fn(f64) -> f64| {
        let angle = |[yaw, axis]: &[f64; 2]| wrap_rad(2.0 * (reading(*yaw) - axis)).abs() / 2.0;
        let mut angles: Vec<f64> = doubled.iter().map(angle).collect();
        angles.sort_by(f64::total_cmp);
        angles[angles.len() / 2].to_degrees()
    };
    let plain = off(&|yaw| yaw);
    let enu = off(&|yaw| PI / 2.0 - yaw);
    let counter = off(&|yaw| PI - yaw);
    let quarter = off(&|yaw| yaw + PI / 2.0);
    if plain < 35.0 {
        return false;
    }
    let fits = if enu < 15.0 {
        "; they fit as degrees counter-clockwise from east (ENU): write 90 minus them"
    } else if counter < 15.0 {
        "; they fit as degrees counter-clockwise from north: write minus them"
    } else if quarter < 15.0 {
        "; they fit turned by a quarter of a circle"
    } else {
        // Rows that lie along no street have axes at random, 45° from anything in the median.
        return false;
    };
    let what = format!(
        "headings are {plain:.0}° from the streets along which rows lie, in the median{fits}"
    );
    let remedy = "write heading_deg in degrees clockwise from true north";
    report.problem("heading", ("pairs.jsonl", None), what, remedy);
    true
}

/// Headings and positions against true ones.
fn against_truth(rows: &Rows, truth: &Truth, report: &mut Report) {
    let both: Vec<_> = rows
        .rows
        .iter()
        .filter_map(|(_, row)| Some((row, truth.get(&row.id)?)))
        .collect();
    let known = both
        .iter()
        .filter(|(row, _)| row.heading_sigma_deg < KNOWN_DEG);
    let yaws: Vec<[f64; 2]> = known
        .map(|(row, truth)| [row.heading_deg, truth.heading_deg].map(yaw_from_heading))
        .collect();
    let at = ("pairs.jsonl", None);
    if yaws.len() >= LEAST_ROWS {
        let most = Gate::default().most_course_deg;
        let (off, fits) = heading_reading(&yaws, most);
        if off > most {
            let fits = fits.map_or(String::new(), |(best, words)| {
                format!("; {words} ({best:.1}° then)")
            });
            let what =
                format!("headings are {off:.1}° from those of truth.jsonl in the median{fits}");
            let remedy = "write heading_deg in degrees clockwise from true north, in both files";
            report.problem("heading", at, what, remedy);
        }
    }
    let mut ratios: Vec<f64> = both
        .iter()
        .map(|(row, truth)| {
            let mut there = (*row).clone();
            there.latitude_deg = truth.latitude_deg;
            there.longitude_deg = truth.longitude_deg;
            let sigma = (row.covariance_m2[0][0] + row.covariance_m2[1][1]).sqrt();
            super::places::distance_m(row, &there) / (sigma + 1.0)
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    if let Some(ratio) = ratios.get(ratios.len() / 2)
        && *ratio > 6.0
    {
        let what = format!("coarse positions are {ratio:.0} sigma from true ones in the median");
        let remedy = "is it the truth of this dataset, and is covariance_m2 in square metres?";
        report.problem("truth", ("truth.jsonl", None), what, remedy);
    }
}
