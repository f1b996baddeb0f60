//! One drive whose instruments lie among others that don't: its odometry, headings and coarse positions
//! against each other. Limits are wider than those for a whole dataset, since a drive has few stretches.

use super::Finding;
use super::input::{
    STRETCH_SIGMAS, Stretch, coarse_sigma_m, heading_reading, median, stretches_of, unit_of,
};
use crate::data::Dataset;

/// Drives of fewer samples are not judged.
const LEAST_SAMPLES: usize = 12;
/// Stretches are at least so long, metres: those whose length and turn, and those whose course is looked at;
/// and [`STRETCH_SIGMAS`] times as long as coarse positions err.
const LENGTH_M: f64 = 40.0;
const COURSE_M: f64 = 24.0;
/// Least stretches for a length, a course, a turn.
const LEAST_LENGTHS: usize = 4;
const LEAST_COURSES: usize = 6;
const LEAST_TURNS: usize = 3;
/// Odometry of a drive may be this much longer or shorter than its coarse positions.
const MOST_LENGTH_RATIO: f64 = 1.5;
/// Headings of a drive may be this far from its course in the median, degrees.
const MOST_COURSE_DEG: f64 = 45.0;
/// Odometry may turn so many times as far as headings.
const TURN_RATIO: std::ops::RangeInclusive<f64> = 0.4..=1.8;
/// Turns that are compared are larger than this, radians, and than this many times what headings err by.
const LEAST_TURN_RAD: f64 = 0.5;
const TURN_SIGMAS: f64 = 4.0;

/// What is wrong with single drives: their names and findings, all of which refuse.
pub fn each_drive(pairs: &dyn Dataset) -> Vec<(String, Finding)> {
    let mut found = Vec::new();
    for drive in pairs.drives() {
        if drive.samples.len() < LEAST_SAMPLES {
            continue;
        }
        let sigma_m = coarse_sigma_m(drive.samples.iter().map(|index| pairs.sample(*index)));
        let stretches = |least_m: f64| {
            let least_m = least_m.max(STRETCH_SIGMAS * sigma_m);
            let mut stretches = stretches_of(pairs, &drive.samples, least_m);
            stretches.retain(|stretch| !stretch.leaps());
            stretches
        };
        let long = stretches(LENGTH_M);
        let findings = [length(&long), course(&stretches(COURSE_M)), turns(&long)];
        found.extend(
            findings
                .into_iter()
                .flatten()
                .map(|finding| (drive.name.clone(), finding)),
        );
    }
    found
}

fn refused(check: &str, value: f64, limit: f64, what: String) -> Finding {
    Finding {
        check: check.into(),
        value,
        limit,
        refuses: true,
        what,
    }
}

fn length(stretches: &[Stretch]) -> Option<Finding> {
    let ratios: Vec<f64> = stretches
        .iter()
        .filter(|stretch| stretch.is_straight())
        .filter_map(Stretch::distance_ratio)
        .collect();
    if ratios.len() < LEAST_LENGTHS {
        return None;
    }
    let value = median(ratios);
    if (1.0 / MOST_LENGTH_RATIO..=MOST_LENGTH_RATIO).contains(&value) {
        return None;
    }
    let fits = unit_of(value).map_or(String::new(), |unit| format!("; it fits as {unit}"));
    let what = format!("its odometry goes {value:.2} times as far as its coarse positions{fits}");
    Some(refused("odometry", value, MOST_LENGTH_RATIO, what))
}

fn course(stretches: &[Stretch]) -> Option<Finding> {
    let known = stretches
        .iter()
        .filter(|stretch| 3.0 * stretch.middle.yaw_sigma_rad < MOST_COURSE_DEG.to_radians());
    let yaws: Vec<[f64; 2]> = known
        .map(|stretch| {
            let course = stretch.step_m[1].atan2(stretch.step_m[0]);
            let way_m = stretch.step_m[0].hypot(stretch.step_m[1]);
            let is_reverse = stretch
                .odometry
                .is_some_and(|step| step.forward_m < -0.5 * way_m);
            let back = if is_reverse {
                std::f64::consts::PI
            } else {
                0.0
            };
            [stretch.middle.yaw_rad, course + back]
        })
        .collect();
    if yaws.len() < LEAST_COURSES {
        return None;
    }
    let (value, fits) = heading_reading(&yaws, MOST_COURSE_DEG);
    if value <= MOST_COURSE_DEG {
        return None;
    }
    let fits = fits.map_or(String::new(), |(best, words)| {
        format!("; {words} ({best:.0}° then)")
    });
    let what = format!("its headings are {value:.0}° from its course in the median{fits}");
    Some(refused("course", value, MOST_COURSE_DEG, what))
}

fn turns(stretches: &[Stretch]) -> Option<Finding> {
    let both: Vec<[f64; 2]> = stretches
        .iter()
        .filter(|stretch| {
            let noise_rad = stretch
                .first
                .yaw_sigma_rad
                .hypot(stretch.last.yaw_sigma_rad);
            stretch.turned_rad.abs() > LEAST_TURN_RAD.max(TURN_SIGMAS * noise_rad)
        })
        .filter_map(|stretch| Some([stretch.odometry?.yaw_rad, stretch.turned_rad]))
        .collect();
    if both.len() < LEAST_TURNS {
        return None;
    }
    let value = median(
        both.iter()
            .map(|[odometry, turned]| odometry / turned)
            .collect(),
    );
    if TURN_RATIO.contains(&value) {
        return None;
    }
    let fits = match value {
        value if value < -0.5 => "; yaw_rad fits as clockwise",
        value if value.abs() < 0.2 => "; its yaw rate may be dead",
        value if value > 20.0 => "; yaw_rad fits as degrees",
        _ => "",
    };
    let what = format!("its odometry turns {value:.2} times as far as its headings{fits}");
    Some(refused("turns", value, *TURN_RATIO.end(), what))
}
