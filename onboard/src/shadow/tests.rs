//! A second student beside a core that drives past staged pictures.

use super::*;
use crate::core::tests::{core, fix, frame, odometry, picture_at, staged, staged_at};
use crate::event::Arrival;

/// Some 10 m/s for so long, each match shown to the shadow; what it said.
fn drive(shadow: &mut Shadow, tenths: i64) -> Vec<Comparison> {
    let (mut core, _folder) = core();
    let mut comparisons = Vec::new();
    for tick in 0..tenths {
        let frame = (tick % 2 == 0).then(|| frame(tick, picture_at(tick)));
        let fix = (tick % 10 == 0).then(|| fix(tick));
        for event in fix.into_iter().chain([odometry(tick)]).chain(frame) {
            core.handle(Arrival::at_once("test", event));
            if let Some((found, look)) = core.take_match().zip(core.take_look()) {
                comparisons.extend(shadow.consider(&found, &look));
            }
        }
    }
    comparisons
}

fn shadow(matcher: Box<dyn Matcher>, every: u64) -> Shadow {
    Shadow::new(matcher, None, [8.0, 0.15], every)
}

#[test]
fn the_same_student_is_neither_better_nor_worse() {
    let mut same = shadow(staged(false), 1);
    let comparisons = drive(&mut same, 300);
    assert!(comparisons.len() > 40);
    for comparison in &comparisons {
        assert!(comparison.modes_apart_m < 1e-6);
        assert_eq!(comparison.running, comparison.shadow);
    }
    assert_eq!(same.tally().health("", 0).verdict, Verdict::Undecided);
}

#[test]
fn one_that_sees_the_vehicle_nearer_is_better_and_one_that_sees_it_elsewhere_is_worse() {
    // Patches are centred within half a grid step of the vehicle, so the middle is the better guess.
    let mut sharper = shadow(staged_at([0.0, 0.0], 2.5), 1);
    drive(&mut sharper, 500);
    let health = sharper.tally().health("sharper.onnx", 0);
    assert_eq!(health.verdict, Verdict::Better, "{}", health.sentence());
    let mut elsewhere = shadow(staged_at([20.0, -20.0], 2.5), 1);
    let comparisons = drive(&mut elsewhere, 500);
    let health = elsewhere.tally().health("elsewhere.onnx", 0);
    assert_eq!(health.verdict, Verdict::Worse, "{}", health.sentence());
    // (1, 0) and (20, -20) to the nearest cells.
    let apart_m = comparisons[0].modes_apart_m;
    assert!((apart_m - 19f64.hypot(20.0)).abs() < 1.5, "{apart_m}");
    assert!(health.shadow.mode_off_m > Some(20.0));
}

#[test]
fn it_looks_at_every_so_many_frames_and_its_failures_are_counted() {
    let mut all = shadow(staged(false), 1);
    let every = drive(&mut all, 300).len();
    let mut some = shadow(staged(false), 4);
    assert_eq!(drive(&mut some, 300).len(), every.div_ceil(4));
    let mut failing = shadow(staged(true), 1);
    assert_eq!(drive(&mut failing, 300), []);
    let health = failing.tally().health("", 0);
    assert_eq!((health.compared, health.failed), (0, every as u64));
    assert!(health.error.unwrap().contains("staged failure"));
    failing.forget();
    assert_eq!(failing.tally().health("", 0).failed, 0);
}
