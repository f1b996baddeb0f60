//! A drive through the core on a simulated clock: events when they arrive, ticks when too little does,
//! as the daemon does it.

use crate::drive::Drive;
use crate::fault::{apply, seconds};
use crate::scenario::{Act, Scenario};
use crate::student::{Lies, LyingStudent};
use anyhow::Context;
use crossfix_calibration::Geodetic;
use crossfix_onboard::config::MatchingConfig;
use crossfix_onboard::core::Core;
use crossfix_onboard::event::{Arrival, Estimate, EstimateKind, State};
use crossfix_onboard::fusion::FusionConfig;
use crossfix_onboard::matcher::Matcher;
use crossfix_onboard::pipeline::LiveCore;
use crossfix_onboard::tiles::TileStore;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The daemon's tick.
const TICK_NS: i64 = 100_000_000;

/// Estimates of so long after the end of the truth are left out, nanoseconds.
const AFTER_NS: i64 = 10_000_000_000;

/// One published estimate of the fused output.
#[derive(Debug, Clone)]
pub struct Published {
    /// The time it claims, nanoseconds UTC.
    pub time_ns: i64,
    /// When it came out, seconds of the drive.
    pub at_s: f64,
    /// Metres east and north of the truth at the time it claims; nothing for a time outside the drive.
    pub error_m: Option<[f64; 2]>,
    /// Its covariance, m².
    pub covariance_m2: [[f64; 2]; 2],
    /// Its protection radius, metres.
    pub radius_m: f64,
    /// Its state.
    pub state: State,
    /// Why.
    pub reason: String,
    /// Its count of discontinuities.
    pub reset_count: u32,
}

/// What came out of a drive.
#[derive(Debug, Clone)]
pub struct Run {
    /// Length of the drive, seconds.
    pub length_s: f64,
    /// In order.
    pub fused: Vec<Published>,
}

/// The files that every run needs.
#[derive(Debug, Clone, Copy)]
pub struct Vehicle<'a> {
    /// The daemon's settings.
    pub fusion: &'a FusionConfig,
    /// Of its matches, one in this many looks at the whole patch where a part of it would do.
    pub whole_every: u32,
    /// The exported student.
    pub student: &'a Path,
    /// The aerial tiles.
    pub tiles: &'a Path,
}

/// Drives `drive` under a scenario.
///
/// # Errors
/// When student or tiles cannot be used.
pub fn run(drive: &Drive, scenario: &Scenario, vehicle: Vehicle<'_>) -> anyhow::Result<Run> {
    let drive = apply(drive, scenario);
    let lies = Arc::new(Mutex::new(Lies::default()));
    let (mut tiles, mut student) = (None, None);
    if scenario.is_matched() {
        tiles = Some(TileStore::open(vehicle.tiles).context("no aerial tiles")?);
        let lying = LyingStudent::load(vehicle.student, lies.clone()).context("no student")?;
        student = Some(Box::new(lying) as Box<dyn Matcher>);
    }
    let mut core = Core::new(vehicle.fusion.clone(), drive.camera.clone(), tiles, student);
    core.set_matching(MatchingConfig {
        whole_every: vehicle.whole_every,
        ..MatchingConfig::default()
    });
    let mut live = LiveCore::new(core, TICK_NS, 0);
    let mut record = Record::new(&drive, scenario);
    let mut publish = |at_ns: i64, estimates: Vec<Estimate>| {
        for estimate in estimates {
            if estimate.kind == EstimateKind::Fused {
                let published = Published {
                    time_ns: estimate.time_ns,
                    at_s: at_ns as f64 * 1e-9,
                    error_m: None,
                    covariance_m2: estimate.covariance_m2,
                    radius_m: estimate.protection_radius_m,
                    state: estimate.state,
                    reason: estimate.reason,
                    reset_count: estimate.reset_count,
                };
                record.add(published, estimate.position);
            }
        }
    };
    for arrival in &drive.arrivals {
        let at_ns = arrival.at_ns.max(0);
        while live.next_tick_ns() < at_ns {
            let now_ns = live.next_tick_ns();
            publish(now_ns, live.wait_over(now_ns));
        }
        *lies.lock().unwrap_or_else(PoisonError::into_inner) = lies_at(scenario, at_ns);
        let arrival = Arrival::new(arrival.source, at_ns, arrival.event.clone());
        publish(at_ns, live.handle(arrival));
    }
    Ok(record.run())
}

/// Compares what comes out with the truth.
pub(crate) struct Record<'a> {
    drive: &'a Drive,
    by_arrival: bool,
    fused: Vec<Published>,
}

impl<'a> Record<'a> {
    /// Of a drive as the scenario has it.
    pub(crate) fn new(drive: &'a Drive, scenario: &Scenario) -> Self {
        Self {
            drive,
            by_arrival: scenario.expect.by_arrival,
            fused: Vec::new(),
        }
    }

    /// Takes a fused position in; its `error_m` is worked out here.
    pub(crate) fn add(&mut self, mut published: Published, position: Geodetic) {
        let truth = &self.drive.truth;
        let claimed_ns = if self.by_arrival {
            truth.start_ns() + seconds(published.at_s)
        } else {
            published.time_ns
        };
        // What is late arrives after the drive, where nobody knows the truth.
        let is_after = claimed_ns > truth.end_ns() && claimed_ns < truth.end_ns() + AFTER_NS;
        if !is_after {
            published.error_m = truth.error_m(claimed_ns, position);
            self.fused.push(published);
        }
    }

    /// All of it.
    pub(crate) fn run(self) -> Run {
        let truth = &self.drive.truth;
        let last_ns = self.drive.arrivals.last().map_or(0, |last| last.at_ns);
        let length_s = last_ns.min(truth.end_ns() - truth.start_ns()) as f64 * 1e-9;
        Run {
            length_s,
            fused: self.fused,
        }
    }
}

fn lies_at(scenario: &Scenario, at_ns: i64) -> Lies {
    let mut lies = Lies::default();
    for fault in &scenario.fault {
        if at_ns < seconds(fault.from_s) || at_ns >= seconds(fault.until_s) {
            continue;
        }
        match fault.act {
            Act::Heatmap { what } => lies.heatmap = Some(what),
            Act::Aerial { what } => lies.aerial = Some(what),
            _ => {}
        }
    }
    lies
}

/// The runs of all drives, `threads` at once, in the drives' order.
///
/// # Errors
/// When student or tiles cannot be used.
///
/// # Panics
/// When a run does: the core must not.
pub fn run_all(
    drives: &[Drive],
    scenario: &Scenario,
    vehicle: Vehicle<'_>,
    threads: usize,
) -> anyhow::Result<Vec<Run>> {
    in_parallel(drives, threads, |drive| run(drive, scenario, vehicle))
        .into_iter()
        .collect()
}

/// What `work` makes of each item, `threads` at once, in the items' order.
///
/// # Panics
/// When `work` does.
pub fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else {
                return done;
            };
            done.push((index, work(item)));
        }
    };
    let mut done = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(worker)).collect();
        let joined = workers
            .into_iter()
            .map(|worker| worker.join().expect("no work panics"));
        joined.flatten().collect::<Vec<_>>()
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}
