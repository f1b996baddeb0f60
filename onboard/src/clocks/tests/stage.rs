//! A drive whose sources stamp as a test wants, and what comes out of it.

use crate::clocks::{ClockConfig, ClockHealth, ClockRule, EventKind};
use crate::core::CoreCounters;
use crate::core::tests::{core, fix, frame, odometry, picture_at};
use crate::event::{Arrival, Estimate, EstimateKind, State};
use crate::pipeline::LiveCore;

pub(super) const SECOND_NS: i64 = 1_000_000_000;
pub(super) const TENTH_NS: i64 = SECOND_NS / 10;
pub(super) const START_NS: i64 = 1_700_000_000 * SECOND_NS;
/// When the machine had been on for this long, the drive began.
pub(super) const BOOT_NS: i64 = 5_000 * SECOND_NS;
pub(super) const FIX_LATENCY_NS: i64 = 120_000_000;
pub(super) const FRAME_LATENCY_NS: i64 = 80_000_000;
pub(super) const ODOMETRY_LATENCY_NS: i64 = 10_000_000;

/// What came out of a drive.
pub(super) struct Outcome {
    pub(super) fused: Vec<Estimate>,
    /// Arrival clock at each of them.
    pub(super) told_ns: Vec<i64>,
    pub(super) counters: CoreCounters,
    pub(super) clocks: Vec<ClockHealth>,
    pub(super) problems: Vec<String>,
    /// Arrival clock when a frame was matched.
    pub(super) matched_ns: Vec<i64>,
}

impl Outcome {
    /// Frames that were matched in this stretch; how far the output may be called `ok` is the fusion's.
    pub(super) fn matches(&self, from_s: f64, to_s: f64) -> usize {
        let window = BOOT_NS + (from_s * 1e9) as i64..BOOT_NS + (to_s * 1e9) as i64;
        self.matched_ns
            .iter()
            .filter(|at_ns| window.contains(at_ns))
            .count()
    }

    pub(super) fn clock(&self, source: &str) -> &ClockHealth {
        self.clocks
            .iter()
            .find(|clock| clock.source == source)
            .unwrap()
    }

    pub(super) fn longest_silence_s(&self) -> f64 {
        let gaps = self.told_ns.windows(2).map(|pair| pair[1] - pair[0]);
        gaps.max().unwrap_or(i64::MAX) as f64 * 1e-9
    }

    pub(super) fn states(&self, from_s: f64, to_s: f64) -> Vec<State> {
        let window = BOOT_NS + (from_s * 1e9) as i64..BOOT_NS + (to_s * 1e9) as i64;
        let told = self.told_ns.iter().zip(&self.fused);
        told.filter(|(told_ns, _)| window.contains(told_ns))
            .map(|(_, estimate)| estimate.state)
            .collect()
    }

    pub(super) fn states_are(&self, from_s: f64, to_s: f64, state: State) -> bool {
        let states = self.states(from_s, to_s);
        !states.is_empty() && states.iter().all(|found| *found == state)
    }
}

/// Twenty seconds at 10 m/s: fixes at 1 Hz, odometry at 10 Hz, frames at 2.5 Hz. `change` gives stamp and
/// arrival of each event; none drops it.
pub(super) fn play(
    config: ClockConfig,
    change: impl Fn(EventKind, i64, i64, i64) -> Option<(i64, i64)>,
) -> Outcome {
    play_until(config, BOOT_NS + 20 * SECOND_NS, change)
}

pub(super) fn play_until(
    config: ClockConfig,
    end_ns: i64,
    change: impl Fn(EventKind, i64, i64, i64) -> Option<(i64, i64)>,
) -> Outcome {
    let mut arrivals = Vec::new();
    for tick in 0..200 {
        let mut events = vec![(odometry(tick), ODOMETRY_LATENCY_NS)];
        if tick % 4 == 0 {
            events.push((frame(tick, picture_at(tick)), FRAME_LATENCY_NS));
        }
        if tick % 10 == 0 {
            events.push((fix(tick), FIX_LATENCY_NS));
        }
        for (mut event, latency_ns) in events {
            let kind = EventKind::of(&event).unwrap();
            let arrived_ns = BOOT_NS + tick * TENTH_NS + latency_ns;
            if let Some((stamp, arrived_ns)) = change(kind, tick, event.time_ns(), arrived_ns) {
                event.set_time_ns(stamp);
                let source = match kind {
                    EventKind::Gnss => "gnss",
                    EventKind::Camera => "front",
                    EventKind::Odometry => "wheels",
                };
                arrivals.push(Arrival::new(source, arrived_ns, event));
            }
        }
    }
    arrivals.sort_by_key(|arrival| arrival.arrived_ns);
    let (mut core, _folder) = core();
    core.set_clocks(config);
    run(LiveCore::new(core, TENTH_NS, BOOT_NS), arrivals, end_ns)
}

pub(super) fn run(mut live: LiveCore, arrivals: Vec<Arrival>, end_ns: i64) -> Outcome {
    let mut outcome = Outcome {
        fused: Vec::new(),
        told_ns: Vec::new(),
        counters: CoreCounters::default(),
        clocks: Vec::new(),
        problems: Vec::new(),
        matched_ns: Vec::new(),
    };
    let mut now_ns = BOOT_NS;
    let note = |outcome: &mut Outcome, live: &LiveCore, estimates: Vec<Estimate>, now_ns: i64| {
        for estimate in estimates {
            if estimate.kind == EstimateKind::Fused {
                outcome.fused.push(estimate);
                outcome.told_ns.push(now_ns);
            }
        }
        for clock in live.clocks(now_ns) {
            outcome.problems.extend(clock.problem);
        }
        outcome.problems.dedup();
    };
    for arrival in arrivals {
        while live.next_tick_ns() < arrival.arrived_ns {
            now_ns = live.next_tick_ns();
            let estimates = live.wait_over(now_ns);
            note(&mut outcome, &live, estimates, now_ns);
        }
        now_ns = arrival.arrived_ns;
        let estimates = live.handle(arrival);
        outcome.matched_ns.extend(live.take_match().map(|_| now_ns));
        note(&mut outcome, &live, estimates, now_ns);
    }
    while live.next_tick_ns() < end_ns {
        now_ns = live.next_tick_ns();
        let estimates = live.wait_over(now_ns);
        note(&mut outcome, &live, estimates, now_ns);
    }
    outcome.counters = live.counters();
    outcome.clocks = live.clocks(now_ns);
    outcome
}

pub(super) fn correcting(source: &str) -> ClockConfig {
    let mut config = ClockConfig::default();
    config
        .sources
        .insert(source.into(), (None, ClockRule::Correct));
    config
}

/// The camera's clock shows this instead of UTC, from the start or from the fifth second on.
pub(super) fn camera(
    clock: impl Fn(i64, i64) -> i64,
    from_tick: i64,
    config: ClockConfig,
) -> Outcome {
    play(config, |kind, tick, stamp, arrived_ns| {
        let shown = if kind == EventKind::Camera && tick >= from_tick {
            clock(stamp, arrived_ns)
        } else {
            stamp
        };
        Some((shown, arrived_ns))
    })
}
