use super::*;
use crate::city::dice::Dice;
use crate::data::{Dataset, OdometryStep, Pair, Sample};
use crate::model::{GroundProjection, ModelSpec, named};
use crossfix_calibration::{Enu, LocalFrame, RgbImage};

/// What a vehicle says of itself at a place.
#[derive(Clone, Copy)]
struct Said {
    yaw_rad: f64,
    yaw_sigma_rad: f64,
    odometry: OdometryStep,
    time_ns: i64,
}

/// Two drives round a block, 4 m from frame to frame, with what `change` makes of it.
fn drives(change: impl Fn(&mut Said)) -> Vec<Pair> {
    let projection = GroundProjection::Panorama {
        metres_per_pixel: 0.5,
        turn_rad: 0.0,
    };
    let origin = crossfix_calibration::Geodetic::new(52.0, 4.0, 0.0).unwrap();
    let frame = LocalFrame::new(origin);
    let mut pairs = Vec::new();
    for drive in 0..2 {
        let (mut place, mut yaw) = ([0.0f64, 0.0], 0.4f64);
        for index in 0..150i64 {
            // A quarter turn to the left over five frames of every twenty-five.
            let turn_rad: f64 = if index % 25 >= 20 { 0.314 } else { 0.0 };
            let mut said = Said {
                yaw_rad: yaw,
                yaw_sigma_rad: 0.03,
                odometry: OdometryStep {
                    forward_m: 4.0,
                    left_m: 0.0,
                    yaw_rad: turn_rad,
                },
                time_ns: 1_700_000_000_000_000_000 + index * 500_000_000,
            };
            change(&mut said);
            let sample = Sample {
                drive: format!("drive-{drive}"),
                time_ns: said.time_ns,
                centre: frame.geodetic_from_enu(Enu::new(place[0], place[1], 0.0)),
                coarse_covariance_m2: [[25.0, 0.0], [0.0, 25.0]],
                yaw_rad: said.yaw_rad,
                yaw_sigma_rad: said.yaw_sigma_rad,
                odometry: (index > 0).then_some(said.odometry),
                ..Sample::unplaced(format!("{drive}-{index}"), projection)
            };
            pairs.push(Pair {
                sample,
                ground: RgbImage::black(1, 1),
                aerial: RgbImage::black(1, 1),
            });
            place = [place[0] + 4.0 * yaw.cos(), place[1] + 4.0 * yaw.sin()];
            yaw += turn_rad;
        }
    }
    pairs
}

fn spec() -> ModelSpec {
    named("compact").unwrap().describe()
}

fn verdict(change: impl Fn(&mut Said)) -> Verdict {
    input(&drives(change), &spec(), &Gate::default())
}

/// Which checks refuse, and what they say.
fn refusals(change: impl Fn(&mut Said)) -> Vec<(String, String)> {
    let findings = verdict(change).findings.into_iter();
    let refused = findings.filter(|finding| finding.refuses);
    refused
        .map(|finding| (finding.check, finding.what))
        .collect()
}

#[test]
fn right_data_is_looked_at_from_every_side_and_passes() {
    let verdict = verdict(|_| {});
    assert!(!verdict.refuses(), "{verdict}");
    let checks: Vec<&str> = verdict
        .findings
        .iter()
        .map(|finding| finding.check.as_str())
        .collect();
    assert_eq!(
        checks,
        ["heading_sigma", "speed", "course", "odometry", "turns"]
    );
    assert!(verdict.findings[2].value < 10.0, "{verdict}");
}

#[test]
fn headings_of_other_conventions_are_refused_and_named() {
    use std::f64::consts::{FRAC_PI_2, PI};
    // What a yaw becomes where its heading was written otherwise.
    let cases: [(&str, fn(f64) -> f64); 5] = [
        ("counter-clockwise from east (ENU)", |yaw| FRAC_PI_2 - yaw),
        ("counter-clockwise from north", |yaw| PI - yaw),
        ("half a circle", |yaw| yaw + PI),
        ("radians clockwise from north", |yaw| {
            let heading_rad = (FRAC_PI_2 - yaw).rem_euclid(2.0 * PI);
            FRAC_PI_2 - heading_rad.to_radians()
        }),
        ("radians counter-clockwise from east", |yaw| {
            FRAC_PI_2 - yaw.rem_euclid(2.0 * PI).to_radians()
        }),
    ];
    for (words, written) in cases {
        let refused = refusals(|said| said.yaw_rad = written(said.yaw_rad));
        let course = refused.iter().find(|(check, _)| check == "course");
        let (_, what) = course.unwrap_or_else(|| panic!("{words}: {refused:?}"));
        assert!(what.contains(words), "{words}: {what}");
    }
}

/// Coarse positions whose errors of 5 m an axis are independent of each other, steps of 4 m between them.
#[test]
fn errors_of_coarse_positions_are_no_wrong_headings_and_hide_none() {
    let scattered = |change: &dyn Fn(&mut Said)| {
        let mut pairs = drives(change);
        let frame = LocalFrame::new(pairs[0].sample.centre);
        let mut dice = Dice::new(1, &[]);
        for pair in &mut pairs {
            let place = frame.enu_from_geodetic(pair.sample.centre);
            let mut error_m = || dice.normal(5.0);
            let moved = Enu::new(place.east() + error_m(), place.north() + error_m(), 0.0);
            pair.sample.centre = frame.geodetic_from_enu(moved);
        }
        let verdict = input(&pairs, &spec(), &Gate::default());
        let course = verdict
            .findings
            .into_iter()
            .find(|finding| finding.check == "course");
        course.unwrap()
    };
    let right = scattered(&|_| {});
    assert!(!right.refuses && right.value < 30.0, "{}", right.what);
    let enu = scattered(&|said| said.yaw_rad = std::f64::consts::FRAC_PI_2 - said.yaw_rad);
    assert!(enu.refuses, "{}", enu.what);
}

#[test]
fn odometry_of_other_units_axes_and_signs_is_refused_and_named() {
    let refused = |change: fn(&mut OdometryStep), check: &str, words: &str| {
        let refused = refusals(|said| change(&mut said.odometry));
        let found = refused.iter().find(|(name, _)| name == check);
        let (_, what) = found.unwrap_or_else(|| panic!("{words}: {refused:?}"));
        assert!(what.contains(words), "{words}: {what}");
    };
    refused(|step| step.forward_m *= 3.2808, "odometry", "feet");
    refused(|step| step.forward_m *= 1000.0, "odometry", "millimetres");
    refused(|step| step.forward_m *= 0.5, "odometry", "must be metres");
    refused(
        |step| std::mem::swap(&mut step.forward_m, &mut step.left_m),
        "odometry",
        "exchanged",
    );
    refused(|step| step.yaw_rad *= 57.29578, "turns", "degrees");
    refused(|step| step.yaw_rad *= -1.0, "turns", "counter-clockwise");
    let few_percent = refusals(|said| said.odometry.forward_m *= 1.05);
    assert!(few_percent.is_empty(), "{few_percent:?}");
}

#[test]
fn times_of_another_unit_are_refused() {
    let refused = refusals(|said| said.time_ns /= 1_000_000);
    assert_eq!(refused[0].0, "speed", "{refused:?}");
}

#[test]
fn headings_that_nobody_claims_to_know_are_refused_as_such_and_not_for_the_course() {
    let refused = refusals(|said| {
        said.yaw_rad = 1.0;
        said.yaw_sigma_rad = std::f64::consts::PI;
    });
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0].0, "heading_sigma");
    // A network that searches all headings takes them.
    let all = named("ccvpe-vigor").unwrap().describe();
    let pairs = drives(|said| said.yaw_sigma_rad = std::f64::consts::PI);
    assert!(!input(&pairs, &all, &Gate::default()).refuses());
}

#[test]
fn rows_that_leap_are_pairs_that_stand_alone() {
    let mut pairs = drives(|said| said.yaw_rad += 2.0);
    let frame = LocalFrame::new(pairs[0].sample.centre);
    for (index, pair) in pairs.iter_mut().enumerate() {
        let east = 300.0 * (index * 7 % 5) as f64;
        pair.sample.centre = frame.geodetic_from_enu(Enu::new(east, 0.0, 0.0));
        pair.sample.odometry = None;
    }
    let verdict = input(&pairs, &spec(), &Gate::default());
    assert!(!verdict.refuses(), "{verdict}");
    assert!(verdict.to_string().contains("stand alone"), "{verdict}");
}

#[test]
fn pairs_that_stand_alone_are_not_judged() {
    let mut alone = drives(|said| said.yaw_rad = 0.0);
    for pair in &mut alone {
        pair.sample.drive = String::new();
    }
    let findings = input(&alone, &spec(), &Gate::default()).findings;
    assert!(findings.iter().all(|finding| !finding.refuses));
    assert!(findings.iter().all(|finding| finding.check != "course"));
}

#[test]
fn a_seeded_share_of_drives_is_held_out() {
    let mut pairs = Vec::new();
    for round in 0..5 {
        for mut pair in drives(|_| {}) {
            pair.sample.drive = format!("{}-{round}", pair.sample.drive);
            pairs.push(pair);
        }
    }
    let found = |joined| crate::recipe::Found {
        labels: Vec::new(),
        evidence: Some(crate::recipe::Evidence {
            frames: 100,
            by_odometry: joined,
            ..crate::recipe::Evidence::default()
        }),
    };
    let gate = Gate {
        held_out: 0.2,
        ..Gate::default()
    };
    let chosen = held_out(&pairs, &found(90), &gate, 1);
    assert_eq!(chosen.len(), 300);
    let names: std::collections::BTreeSet<&str> = chosen
        .iter()
        .map(|index| pairs.sample(*index).drive.as_str())
        .collect();
    assert_eq!(names.len(), 2);
    assert_eq!(chosen, held_out(&pairs, &found(90), &gate, 1));
    assert_ne!(chosen, held_out(&pairs, &found(90), &gate, 2));
    assert!(held_out(&pairs, &found(10), &gate, 1).is_empty());
    assert!(held_out(&pairs, &found(90), &Gate::default(), 1).is_empty());
}

#[test]
fn a_teacher_that_its_drives_contradict_is_refused() {
    let evidence = |agreement| Evidence {
        frames: 100,
        by_odometry: 90,
        agreement,
        ..Evidence::default()
    };
    let gate = Gate::default();
    assert!(!teacher(&evidence(0.8), &gate).unwrap().refuses);
    assert!(teacher(&evidence(0.2), &gate).unwrap().refuses);
    assert!(teacher(&evidence(f64::NAN), &gate).unwrap().refuses);
    let alone = Evidence {
        by_odometry: 0,
        ..evidence(0.1)
    };
    assert!(teacher(&alone, &gate).is_none());
}
