//! The harness itself: faults do what they say, and bounds can be broken.

use crate::drive::{Arrival, Drive, Truth};
use crate::fault::apply;
use crate::figures::{Compared, Figures};
use crate::run::{Published, Run};
use crate::scenario::{Expect, Known, Scenario};
use crossfix_calibration::Geodetic;
use crossfix_onboard::event::{
    CovarianceRule, Event, FixDimension, GnssFix, OdometrySample, Reception, State,
};
use std::path::Path;

const SECOND_NS: i64 = 1_000_000_000;
const START_NS: i64 = 1_700_000_000 * SECOND_NS;

/// Thirty seconds at rest: a fix and an odometry sample each.
fn drive() -> Drive {
    let place = Geodetic::new(52.0, 4.0, 0.0).unwrap();
    let mut arrivals = Vec::new();
    for second in 0..30 {
        let time_ns = START_NS + second * SECOND_NS;
        let mut arrive = |source, event| {
            arrivals.push(Arrival {
                source,
                at_ns: time_ns - START_NS,
                event,
            });
        };
        arrive(
            "gnss",
            Event::Gnss(GnssFix {
                time_ns,
                position: place,
                covariance_m2: [[4.0, 0.0], [0.0, 4.0]],
                height_sigma_m: 1.0,
                covariance_rule: CovarianceRule::Recorded,
                speed_mps: Some(second as f64),
                track_deg: Some(10.0),
                dimension: FixDimension::Three,
                reception: Reception::default(),
            }),
        );
        arrive(
            "odometry",
            Event::Odometry(OdometrySample {
                time_ns,
                forward_speed_mps: Some(second as f64),
                yaw_rate_rps: Some(0.1),
                yaw: None,
                speed_sigma_mps: 0.1,
                yaw_rate_sigma_rps: 0.01,
            }),
        );
    }
    Drive {
        name: "at rest".into(),
        arrivals,
        camera: None,
        truth: Truth::of(vec![(START_NS, place), (START_NS + 30 * SECOND_NS, place)]),
    }
}

fn with(fault: &str) -> Drive {
    let text = format!("about = \"\"\n[[fault]]\n{fault}");
    apply(&drive(), &toml::from_str::<Scenario>(&text).unwrap())
}

fn speeds(drive: &Drive) -> Vec<f64> {
    let speed = |arrival: &Arrival| match &arrival.event {
        Event::Odometry(sample) => sample.forward_speed_mps,
        _ => None,
    };
    drive.arrivals.iter().filter_map(speed).collect()
}

#[test]
fn every_file_is_a_scenario() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let scenarios = Scenario::all(&folder).unwrap();
    assert!(scenarios.len() >= 90, "{}", scenarios.len());
    assert!(toml::from_str::<Scenario>("about = \"\"\nfautl = []").is_err());
    let misspelt = "about = \"\"\n[[fault]]\ndo = \"set\"\non = \"gnss\"\nfield = \"east\"\nvalue = 1\nvaleu = 2";
    assert!(toml::from_str::<Scenario>(misspelt).is_err());
}

#[test]
fn a_fault_lasts_from_its_beginning_to_its_end() {
    let scaled = speeds(&with(
        "from_s = 10\nuntil_s = 12\ndo = \"scale\"\non = \"odometry\"\nfield = \"speed\"\nby = 2",
    ));
    assert_eq!(scaled[9..13], [9.0, 20.0, 22.0, 12.0]);
    let stuck = speeds(&with(
        "do = \"stick\"\non = \"odometry\"\nfield = \"speed\"",
    ));
    assert_eq!(stuck[9..12], [9.0, 10.0, 10.0]);
    let dropped = speeds(&with(
        "from_s = 5\ndo = \"drop\"\non = \"odometry\"\nshare = 1",
    ));
    assert_eq!(dropped.len(), 5);
}

#[test]
fn a_delay_moves_the_arrival_and_not_the_stamp() {
    let drive = with("from_s = 0\ndo = \"delay\"\non = \"odometry\"\nseconds = 1.5");
    let late = drive
        .arrivals
        .iter()
        .find(|arrival| arrival.source == "odometry");
    let late = late.unwrap();
    assert_eq!(late.at_ns, 3 * SECOND_NS / 2);
    assert_eq!(late.event.time_ns(), START_NS);
    let ordered = drive.arrivals.is_sorted_by_key(|arrival| arrival.at_ns);
    assert!(ordered);
}

#[test]
fn a_drag_is_metres_to_the_east() {
    let drive = with("from_s = 10\ndo = \"ramp\"\non = \"gnss\"\nfield = \"east\"\nper_s = 0.5");
    let fixes = drive
        .arrivals
        .iter()
        .filter_map(|arrival| match &arrival.event {
            Event::Gnss(fix) => Some(fix),
            _ => None,
        });
    for (second, fix) in fixes.enumerate() {
        let [east, north] = drive.truth.error_m(fix.time_ns, fix.position).unwrap();
        let expected = (second as f64 - 10.0).max(0.0) * 0.5;
        assert!(
            (east - expected).abs() < 1e-4 && north.abs() < 1e-4,
            "{second}: {east}"
        );
    }
}

#[test]
fn a_drive_elsewhere_is_the_same_in_metres() {
    let drive =
        with("from_s = 0\ndo = \"elsewhere\"\nlatitude_deg = -17\nlongitude_deg = 179.9999");
    let Event::Gnss(fix) = &drive.arrivals[0].event else {
        panic!("a fix comes first");
    };
    assert!((fix.position.longitude_deg - 179.9999).abs() < 1e-9);
    let [east, north] = drive.truth.error_m(START_NS, fix.position).unwrap();
    assert!(east.hypot(north) < 1e-6);
}

fn run(error_m: f64, state: State) -> Run {
    let published = |tenth: u32| Published {
        time_ns: i64::from(tenth),
        at_s: f64::from(tenth) / 10.0,
        error_m: Some([error_m, 0.0]),
        covariance_m2: [[1.0, 0.0], [0.0, 1.0]],
        radius_m: 3.0,
        state,
        reason: "why".into(),
        reset_count: 0,
    };
    Run {
        length_s: 30.0,
        fused: (0..=300).map(published).collect(),
    }
}

#[test]
fn each_bound_can_be_broken() {
    let scenario: Scenario = toml::from_str(
        "about = \"\"\n[[fault]]\ndo = \"suspend\"\n[expect]\nstates = [\"degraded\"]\nmean_m = 1\nmax_m = 2\n\
         moved_m = 0.5\nword = \"because\"\nok_percent = 101",
    )
    .unwrap();
    let compared = Compared {
        reference_m: Some(1.0),
        moved_m: Some(1.0),
    };
    let mut wrong = run(5.0, State::Ok);
    wrong.fused.truncate(200);
    let figures = Figures::of(&scenario, &[wrong]);
    let failures = figures.failures(&scenario.expect, compared);
    // ok while outside, outside, gap, mean, max, moved, state, ratio, ok share, word.
    assert_eq!(failures.len(), 10, "{failures:?}");
    let plain: Scenario = toml::from_str("about = \"\"").unwrap();
    let good = Figures::of(&plain, &[run(0.4, State::Degraded)]);
    let failures = good.failures(&Expect::default(), Compared::default());
    assert_eq!(failures, Vec::<String>::new());
}

#[test]
fn what_is_known_to_be_broken_may_not_get_worse() {
    let known: Known = toml::from_str("why = \"\"\noutside_percent = 3").unwrap();
    let scenario: Scenario = toml::from_str("about = \"\"").unwrap();
    let good = Figures::of(&scenario, &[run(0.4, State::Ok)]);
    assert_eq!(good.worse_than(&known), Vec::<String>::new());
    let bad = Figures::of(&scenario, &[run(5.0, State::Ok)]);
    assert_eq!(bad.worse_than(&known).len(), 2, "ok and outside, outside");
}

#[test]
fn in_real_time_bounds_are_those_of_the_scenario_or_of_what_was_simulated() {
    let scenario: Scenario =
        toml::from_str("about = \"\"\n[expect]\nok_percent = 90\nmean_m = 1").unwrap();
    let simulated = Figures::of(&scenario, &[run(2.0, State::Degraded)]);
    let live = scenario.expect.live(&simulated);
    let failures = |run: Run| {
        let figures = Figures::of(&scenario, &[run]);
        figures.failures(&live, Compared::default())
    };
    assert_eq!(failures(run(2.5, State::Degraded)), Vec::<String>::new());
    // Mean, and outside.
    assert_eq!(failures(run(5.0, State::Degraded)).len(), 2);
    assert_eq!(failures(run(5.0, State::Ok)).len(), 3);
    // What is known to be broken keeps the promise, or is as it was simulated.
    let known: Known = toml::from_str("why = \"\"\noutside_percent = 3").unwrap();
    let worse = |state| Figures::of(&scenario, &[run(5.0, state)]).worse_than(&known.live(&live));
    assert_eq!(worse(State::Degraded), Vec::<String>::new());
    assert_eq!(worse(State::Ok).len(), 1);
}

#[test]
fn a_later_drive_is_the_same_drive() {
    let drive = drive().later(5 * SECOND_NS);
    assert_eq!(drive.truth.start_ns(), START_NS + 5 * SECOND_NS);
    let Event::Gnss(fix) = &drive.arrivals[0].event else {
        panic!("a fix comes first");
    };
    assert_eq!(drive.arrivals[0].at_ns, 0);
    let error_m = drive.truth.error_m(fix.time_ns, fix.position).unwrap();
    assert_eq!(error_m, [0.0, 0.0]);
}

#[test]
fn an_estimate_of_another_time_is_outside() {
    let scenario: Scenario = toml::from_str("about = \"\"").unwrap();
    let mut run = run(0.0, State::Ok);
    for published in &mut run.fused {
        published.error_m = None;
    }
    let figures = Figures::of(&scenario, &[run]);
    assert_eq!((figures.outside, figures.ok_outside), (100.0, 100.0));
}

#[test]
fn the_course_of_the_truth_is_that_of_the_last_metre() {
    let place = Geodetic::new(52.0, 4.0, 0.0).unwrap();
    let at = |second: i64, east_m, north_m| {
        let place = crate::drive::moved(place, east_m, north_m);
        (START_NS + second * SECOND_NS, place)
    };
    // East, then north, then at rest.
    let truth = Truth::of(vec![
        at(0, 0.0, 0.0),
        at(1, 5.0, 0.0),
        at(2, 5.0, 5.0),
        at(3, 5.0, 5.0),
    ]);
    assert_eq!(truth.course(START_NS), None);
    for (second, right) in [(1, [1.0, 0.0]), (2, [0.0, 1.0]), (3, [0.0, 1.0])] {
        let course = truth.course(START_NS + second * SECOND_NS).unwrap();
        for axis in 0..2 {
            assert!(
                (course[axis] - right[axis]).abs() < 1e-5,
                "{second}: {course:?}"
            );
        }
    }
    assert_eq!(truth.course(START_NS + 4 * SECOND_NS), None);
}
