//! Sources whose clocks misbehave, through the core as a drive and a replay run it.

mod stage;

use stage::*;

use crate::clocks::{ClockConfig, ClockState, Clocks, EventKind, TimeVerdict};
use crate::core::tests::{core, fix, frame, odometry, picture, picture_at};
use crate::event::{Arrival, Estimate, Event, State};
use crate::pipeline::LiveCore;

type CameraClock = fn(i64, i64) -> i64;

/// Clocks that people met, with the words that name them.
const CAMERA_CLOCKS: [(&str, CameraClock, &str); 14] = [
    (
        "since boot",
        |_, a| a - FRAME_LATENCY_NS,
        "this machine's own",
    ),
    (
        "another start",
        |s, _| s - START_NS + 77_000 * SECOND_NS,
        "counts from a start",
    ),
    ("TAI", |s, _| s + 37 * SECOND_NS, "TAI"),
    ("GPS time", |s, _| s + 18 * SECOND_NS, "GPS time"),
    ("microseconds", |s, _| s / 1000, "microseconds"),
    ("milliseconds", |s, _| s / 1_000_000, "milliseconds"),
    ("seconds", |s, _| s / SECOND_NS, "seconds"),
    ("15 s late", |s, _| s - 15 * SECOND_NS, "behind GNSS"),
    ("5 s ahead", |s, _| s + 5 * SECOND_NS, "ahead of GNSS"),
    (
        "an hour ahead",
        |s, _| s + 3600 * SECOND_NS,
        "local time (UTC+01:00)",
    ),
    (
        "Nepal",
        |s, _| s + 20_700 * SECOND_NS,
        "local time (UTC+05:45)",
    ),
    (
        "400 days old",
        |s, _| s - 400 * 86_400 * SECOND_NS,
        "behind GNSS",
    ),
    ("far future", |_, _| i64::MAX, "front"),
    ("before everything", |_, _| i64::MIN, "front"),
];

#[test]
fn a_camera_clock_that_is_off_is_named_and_the_output_goes_on() {
    for (index, (name, clock, words)) in CAMERA_CLOCKS.into_iter().enumerate() {
        let from_tick = if index % 2 == 0 { 50 } else { 0 };
        let outcome = camera(clock, from_tick, ClockConfig::default());
        let front = outcome.clock("front");
        assert_eq!(front.state, ClockState::Off, "{name}");
        let problem = front.problem.as_deref().unwrap_or_default();
        assert!(
            problem.starts_with("front: its ") && problem.contains(words),
            "{name}: {problem}"
        );
        assert!(
            problem.ends_with("its frames are not used"),
            "{name}: {problem}"
        );
        assert!(outcome.longest_silence_s() < 0.3, "{name}");
        assert_eq!(outcome.counters.restarts, 0, "{name}");
        assert_eq!(outcome.counters.frames > 0, from_tick > 0, "{name}");
        // Without the camera it is degraded, and the reason is the clock.
        let last = outcome.fused.last().unwrap();
        assert_eq!(last.state, State::Degraded, "{name}: {}", last.reason);
        assert!(last.reason.contains(words), "{name}: {}", last.reason);
        assert!(last.time_ns <= START_NS + 20 * SECOND_NS, "{name}");
        // Told once or twice, not at every frame.
        assert!(
            outcome.problems.len() <= 3,
            "{name}: {:?}",
            outcome.problems
        );
    }
}

#[test]
fn a_constant_offset_is_corrected_where_the_config_allows_it() {
    for (name, clock, words) in CAMERA_CLOCKS {
        let outcome = camera(clock, 0, correcting("front"));
        let front = outcome.clock("front");
        if ["seconds", "far future", "before everything"].contains(&name) {
            assert_eq!(
                front.state,
                ClockState::Off,
                "{name} is no clock for pictures"
            );
            continue;
        }
        assert_eq!(front.state, ClockState::Corrected, "{name}");
        let problem = front.problem.as_deref().unwrap_or_default();
        assert!(
            problem.contains(words) && problem.ends_with("it is corrected"),
            "{name}: {problem}"
        );
        assert!(
            outcome.counters.frames > 15,
            "{name}: {:?}",
            outcome.counters
        );
        assert!(outcome.matches(15.0, 19.9) > 5, "{name}");
        assert!(outcome.longest_silence_s() < 0.3, "{name}");
    }
}

#[test]
fn a_clock_that_is_right_again_is_used_again() {
    for corrected in [false, true] {
        let config = if corrected {
            correcting("front")
        } else {
            ClockConfig::default()
        };
        let outcome = play(config, |kind, tick, stamp, arrived_ns| {
            let off = kind == EventKind::Camera && (50..120).contains(&tick);
            Some((if off { stamp + 37 * SECOND_NS } else { stamp }, arrived_ns))
        });
        assert_eq!(outcome.clock("front").state, ClockState::Right);
        assert_eq!(outcome.clock("front").problem, None);
        assert!(outcome.matches(17.0, 19.9) > 1);
        assert!(outcome.clock("front").set_aside > 0);
    }
}

#[test]
fn one_stamp_far_off_moves_nothing_whoever_sends_it() {
    for kind in [EventKind::Gnss, EventKind::Camera, EventKind::Odometry] {
        let untouched = play(ClockConfig::default(), |found, tick, stamp, arrived_ns| {
            (found != kind || tick != 100).then_some((stamp, arrived_ns))
        });
        for wild_s in [9, 3, -3600] {
            let outcome = play(ClockConfig::default(), |found, tick, stamp, arrived_ns| {
                let wild = found == kind && tick == 100;
                Some((
                    stamp + if wild { wild_s * SECOND_NS } else { 0 },
                    arrived_ns,
                ))
            });
            assert_eq!(outcome.counters.restarts, 0);
            assert!(outcome.longest_silence_s() < 0.3, "{kind:?} {wild_s}");
            let (last, expected) = (
                outcome.fused.last().unwrap(),
                untouched.fused.last().unwrap(),
            );
            assert_eq!(last.position, expected.position, "{kind:?} {wild_s}");
            assert_eq!(last.covariance_m2, expected.covariance_m2);
            assert!(outcome.fused.is_sorted_by_key(|estimate| estimate.time_ns));
            let ahead = outcome
                .told_ns
                .iter()
                .zip(&outcome.fused)
                .map(|(told_ns, estimate)| (estimate.time_ns - START_NS) - (told_ns - BOOT_NS));
            assert!(
                ahead.max() <= Some(0),
                "{kind:?} {wild_s}: no estimate is from the future"
            );
        }
    }
}

#[test]
fn without_any_fix_nothing_starts_and_every_source_waits() {
    let outcome = play(ClockConfig::default(), |kind, _, stamp, arrived_ns| {
        (kind != EventKind::Gnss).then_some((stamp, arrived_ns))
    });
    assert!(outcome.fused.is_empty());
    assert!(
        outcome
            .clocks
            .iter()
            .all(|clock| clock.state == ClockState::Waiting)
    );
    assert_eq!(outcome.counters.frames + outcome.counters.odometry, 0);
}

#[test]
fn a_camera_that_comes_before_the_first_fix_does_not_set_the_time() {
    let outcome = play(
        ClockConfig::default(),
        |kind, tick, stamp, arrived_ns| match kind {
            EventKind::Camera => Some((stamp - 15 * SECOND_NS, arrived_ns)),
            EventKind::Gnss if tick < 50 => None,
            _ => Some((stamp, arrived_ns)),
        },
    );
    assert_eq!(outcome.clock("front").state, ClockState::Off);
    assert!(outcome.states_are(6.0, 19.9, State::Degraded));
    assert_eq!(outcome.counters.restarts, 0);
}

#[test]
fn a_receiver_whose_clock_is_set_says_lost_and_goes_on() {
    for step_s in [-9, 9, -1024 * 604_800] {
        let outcome = play(ClockConfig::default(), |kind, tick, stamp, arrived_ns| {
            let set = kind == EventKind::Gnss && tick >= 100;
            Some((stamp + if set { step_s * SECOND_NS } else { 0 }, arrived_ns))
        });
        assert_eq!(outcome.counters.restarts, 1, "{step_s}");
        assert!(outcome.longest_silence_s() < 0.4, "{step_s}");
        let lost = outcome
            .fused
            .iter()
            .position(|estimate| estimate.state == State::Lost);
        let lost = &outcome.fused[lost.expect("it is told")];
        assert_eq!(lost.reset_count, 1);
        assert!(
            lost.reason.contains("the clock of gnss was set"),
            "{}",
            lost.reason
        );
        // It leads, so all others are off now.
        let last = outcome.fused.last().unwrap();
        assert_eq!(
            (last.state, last.reset_count),
            (State::Degraded, 1),
            "{step_s}"
        );
        assert_eq!(outcome.clock("front").state, ClockState::Off, "{step_s}");
        assert!((last.time_ns - START_NS - (20 + step_s) * SECOND_NS).abs() < SECOND_NS);
    }
}

#[test]
fn frames_that_a_stall_held_back_are_used_and_no_clock_is_blamed() {
    // Everything of a second comes at once, again and again.
    let outcome = play(ClockConfig::default(), |kind, tick, stamp, arrived_ns| {
        let held = (50..150).contains(&tick) && kind != EventKind::Gnss;
        let at_ns = BOOT_NS + (tick / 15 * 15 + 15) * TENTH_NS + tick;
        Some((
            stamp,
            if held {
                arrived_ns.max(at_ns)
            } else {
                arrived_ns
            },
        ))
    });
    assert_eq!(outcome.counters.times_doubted, 0, "{:?}", outcome.problems);
    assert_eq!(outcome.counters.restarts, 0);
    assert!(
        outcome.longest_silence_s() < 0.4,
        "{}",
        outcome.longest_silence_s()
    );
    assert!(outcome.fused.is_sorted_by_key(|estimate| estimate.time_ns));
}

#[test]
fn stamps_that_jitter_repeat_or_go_back_a_little_are_no_reason_to_stop() {
    let jitter = |tick: i64| (tick * 7919 % 101 - 50) * 1_000_000;
    let clocks: [&dyn Fn(i64, i64) -> i64; 3] = [
        &|stamp, tick| stamp + jitter(tick),
        &|stamp, tick| {
            if tick % 5 == 0 {
                stamp - TENTH_NS
            } else {
                stamp
            }
        },
        &|stamp, tick| {
            if tick % 7 == 0 {
                stamp - 3 * TENTH_NS
            } else {
                stamp
            }
        },
    ];
    for clock in clocks {
        let outcome = play(ClockConfig::default(), |kind, tick, stamp, arrived_ns| {
            let changed = kind != EventKind::Gnss && tick > 5;
            Some((if changed { clock(stamp, tick) } else { stamp }, arrived_ns))
        });
        assert_eq!(outcome.counters.restarts, 0);
        assert_eq!(outcome.clock("front").state, ClockState::Right);
        assert!(outcome.longest_silence_s() < 0.3);
        assert!(outcome.matches(10.0, 19.9) > 10);
    }
}

#[test]
fn clocks_that_stand_still_or_jump_about_are_named() {
    let still = camera(|_, _| START_NS + 6 * SECOND_NS, 60, ClockConfig::default());
    let problem = still.clock("front").problem.clone().unwrap();
    assert!(problem.contains("stands still"), "{problem}");
    let jumping = camera(
        |stamp, _| stamp ^ (stamp / TENTH_NS % 64 * 7) << 32,
        60,
        ClockConfig::default(),
    );
    let problem = jumping.clock("front").problem.clone().unwrap();
    assert!(problem.contains("jumps about"), "{problem}");
    for outcome in [still, jumping] {
        assert!(outcome.longest_silence_s() < 0.3);
        assert!(outcome.states_are(17.0, 19.9, State::Degraded));
    }
}

#[test]
fn clocks_that_drift_by_a_hundred_parts_in_a_million_stay_right() {
    let (mut core, _folder) = core();
    core.set_clocks(ClockConfig::default());
    // Ten minutes with the receiver only, then its own and a camera's drift against each other.
    let mut arrivals = Vec::new();
    for second in 0..600 {
        for (source, mut event, rate) in [
            ("gnss", fix(0), 1.0),
            ("front", frame(0, picture()), 1.0 + 100e-6),
        ] {
            let at_ns = second * SECOND_NS;
            event.set_time_ns(START_NS + (at_ns as f64 * rate) as i64);
            arrivals.push(Arrival::new(
                source,
                BOOT_NS + (at_ns as f64 * (1.0 - 100e-6)) as i64,
                event,
            ));
        }
    }
    let outcome = run(LiveCore::new(core, TENTH_NS, BOOT_NS), arrivals, BOOT_NS);
    assert_eq!(outcome.counters.times_doubted, 0);
    assert_eq!(outcome.clock("front").state, ClockState::Right);
    assert!((outcome.clock("front").offset_s - 0.06).abs() < 0.02);
}

#[test]
fn after_a_pause_of_minutes_it_says_lost_and_the_next_fix_starts_anew() {
    let pause_ns = 300 * SECOND_NS;
    // The machine slept, or the program was stopped: no ticks either.
    let (mut core, _folder) = core();
    let mut estimates = Vec::new();
    for tick in 0..300 {
        let slept_ns = if tick < 150 { 0 } else { pause_ns };
        let arrived_ns = BOOT_NS + tick * TENTH_NS + slept_ns;
        if tick == 150 {
            estimates.extend(core.tick(arrived_ns));
            let told: &Estimate = estimates.last().unwrap();
            assert_eq!((told.state, told.reset_count), (State::Lost, 1));
            assert!(
                told.reason.contains("nothing was heard for 300 s"),
                "{}",
                told.reason
            );
        }
        let mut events = vec![odometry(tick)];
        if tick % 10 == 5 {
            events.push(fix(tick));
        }
        for mut event in events {
            event.set_time_ns(event.time_ns() + slept_ns);
            estimates.extend(core.handle(Arrival::new("one", arrived_ns, event)));
        }
        estimates.extend(core.tick(arrived_ns + TENTH_NS / 2));
    }
    assert_eq!(core.counters().restarts, 1);
    let last = estimates.last().unwrap();
    assert_eq!((last.state, last.reset_count), (State::Degraded, 1));
    // A clock of arrivals that does not count while the machine sleeps: the first fix tells.
    let stopped = play(ClockConfig::default(), |_, tick, stamp, arrived_ns| {
        Some((stamp + if tick < 100 { 0 } else { pause_ns }, arrived_ns))
    });
    assert_eq!(stopped.counters.restarts, 1);
    assert!(stopped.longest_silence_s() < 0.4);
}

#[test]
fn frames_that_waited_seconds_for_the_core_are_late_and_nothing_else() {
    let (mut core, _folder) = core();
    let at = |tick: i64| BOOT_NS + tick * TENTH_NS;
    for tick in 0..100 {
        if tick % 10 == 0 {
            core.handle(Arrival::new("gnss", at(tick), fix(tick)));
        }
        core.handle(Arrival::new("wheels", at(tick), odometry(tick)));
        // What arrived five seconds ago has its turn now.
        if tick >= 60 && tick % 10 == 5 {
            core.handle(Arrival::new(
                "front",
                at(tick - 50),
                frame(tick - 50, picture_at(tick - 50)),
            ));
        }
    }
    assert_eq!(
        (core.counters().restarts, core.counters().times_doubted),
        (0, 0)
    );
}

#[test]
fn silence_of_all_sources_coasts_and_ends_in_lost() {
    let end_ns = BOOT_NS + 400 * SECOND_NS;
    let outcome = play_until(
        ClockConfig::default(),
        end_ns,
        |_, tick, stamp, arrived_ns| (tick < 100).then_some((stamp, arrived_ns)),
    );
    assert!(outcome.longest_silence_s() < 0.3);
    assert_eq!(outcome.fused.last().unwrap().state, State::Lost);
    assert_eq!(outcome.counters.restarts, 0);
}

#[test]
fn a_second_receiver_with_another_clock_is_named_and_leads_when_the_first_falls_silent() {
    let outcome = {
        let (core, _folder) = core();
        let mut arrivals = Vec::new();
        for second in 0..60 {
            let arrived_ns = BOOT_NS + second * SECOND_NS;
            for (source, ahead_s) in [("one", 0), ("two", 18)] {
                if source == "one" && second > 20 {
                    continue;
                }
                let mut event = fix(0);
                event.set_time_ns(START_NS + (second + ahead_s) * SECOND_NS);
                arrivals.push(Arrival::new(source, arrived_ns, event));
            }
        }
        let before =
            arrivals.partition_point(|arrival| arrival.arrived_ns < BOOT_NS + 20 * SECOND_NS);
        let early = run(
            LiveCore::new(core, TENTH_NS, BOOT_NS),
            arrivals[..before].to_vec(),
            BOOT_NS,
        );
        assert_eq!(early.clock("two").state, ClockState::Off);
        assert!(
            early
                .clock("two")
                .problem
                .as_ref()
                .unwrap()
                .contains("GPS time")
        );
        let (core, _folder) = self::core();
        run(
            LiveCore::new(core, TENTH_NS, BOOT_NS),
            arrivals,
            BOOT_NS + 60 * SECOND_NS,
        )
    };
    assert_eq!(outcome.clock("two").state, ClockState::Right);
    assert_eq!(outcome.counters.restarts, 1);
    assert_eq!(outcome.fused.last().unwrap().state, State::Degraded);
    assert!(outcome.longest_silence_s() < 0.4);
}

/// Any mixture of stamps: nothing panics, nothing stops, and time only goes back with a reset.
#[test]
fn whatever_the_other_clocks_show_there_is_an_estimate_every_second() {
    let mut random = 12_345_u64;
    let mut next = move || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as i64
    };
    let shifts: Vec<i64> = (0..400)
        .map(|_| match next() % 6 {
            0 => 0,
            1 => next() % (4 * SECOND_NS) - 2 * SECOND_NS,
            2 => next() * 1_000 - SECOND_NS * 1_000,
            3 => i64::MAX / 2,
            4 => i64::MIN / 2,
            _ => next() % SECOND_NS,
        })
        .collect();
    let outcome = play(ClockConfig::default(), |kind, tick, stamp, arrived_ns| {
        let shift = shifts[(2 * tick) as usize + usize::from(kind == EventKind::Camera)];
        let changed = kind != EventKind::Gnss;
        Some((
            if changed {
                stamp.saturating_add(shift)
            } else {
                stamp
            },
            arrived_ns,
        ))
    });
    assert!(outcome.longest_silence_s() < 1.0);
    assert!(outcome.fused.is_sorted_by_key(|estimate| estimate.time_ns));
    assert_eq!(outcome.counters.restarts, 0);
    let event = Event::SourceState {
        source: "x".into(),
        up: true,
        time_ns: i64::MIN,
    };
    assert_eq!(EventKind::of(&event), None);
}

#[test]
fn a_step_of_the_stamps_is_noticed_and_jitter_is_none() {
    for (step_ns, expected) in [(0, 0), (-5 * TENTH_NS, 1), (5 * TENTH_NS, 1)] {
        let mut clocks = Clocks::new(ClockConfig::default());
        for tick in 0..300 {
            let arrived_ns = BOOT_NS + tick * TENTH_NS;
            if tick % 10 == 0 {
                let mut arrival = Arrival::new("gnss", arrived_ns + FIX_LATENCY_NS, fix(tick));
                clocks.judge(&mut arrival);
            }
            let mut event = frame(tick, picture());
            let step_ns = if tick < 150 { 0 } else { step_ns };
            event.set_time_ns(event.time_ns() + step_ns);
            let jitter_ns = tick * 7919 % 10 * TENTH_NS / 10;
            let arrived_ns = arrived_ns + FRAME_LATENCY_NS + jitter_ns;
            clocks.judge(&mut Arrival::new("front", arrived_ns, event));
        }
        assert_eq!(clocks.steps(), expected, "{step_ns}");
    }
}

/// Frames of this many cameras at the same moments, from one source.
fn frames_used(cameras: usize) -> (usize, usize, Clocks) {
    let mut clocks = Clocks::new(ClockConfig::default());
    let (mut used, mut all) = (0, 0);
    for tick in 0..100 {
        let arrived_ns = BOOT_NS + tick * TENTH_NS;
        if tick % 10 == 0 {
            let mut arrival = Arrival::new("gnss", arrived_ns + FIX_LATENCY_NS, fix(tick));
            clocks.judge(&mut arrival);
        }
        for camera in 0..cameras {
            let mut event = frame(tick, picture());
            if let Event::Frame(frame) = &mut event {
                frame.camera = format!("camera {camera}");
            }
            let mut arrival = Arrival::new("log", arrived_ns + FRAME_LATENCY_NS, event);
            all += 1;
            used += usize::from(clocks.judge(&mut arrival) == TimeVerdict::Use);
        }
    }
    (used, all, clocks)
}

#[test]
fn cameras_of_one_source_may_take_their_pictures_at_the_same_moments() {
    for cameras in [1, 6] {
        let (used, all, clocks) = frames_used(cameras);
        assert!(used * 10 > all * 9, "{used} of {all}");
        assert_eq!(clocks.problem("log", EventKind::Camera), None);
    }
    // A source that makes up a camera for every frame takes no memory.
    let (.., clocks) = frames_used(300);
    assert!(clocks.health(BOOT_NS).len() < 20);
}
