//! A drive through the core on a simulated clock: events when they arrive, ticks when too little does,
//! as the daemon does it.

use crate::drive::Drive;
use crate::fault::{apply, seconds};
use crate::scenario::{Act, Scenario};
use crate::student::{Lies, LyingStudent};
use anyhow::Context;
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
    let elsewhere = |act: &Act| matches!(act, Act::Elsewhere { .. });
    let matching = scenario.student && !scenario.fault.iter().any(|fault| elsewhere(&fault.act));
    let (mut tiles, mut student) = (None, None);
    if matching {
        tiles = Some(TileStore::open(vehicle.tiles).context("no aerial tiles")?);
        let lying = LyingStudent::load(vehicle.student, lies.clone()).context("no student")?;
        student = Some(Box::new(lying) as Box<dyn Matcher>);
    }
    let core = Core::new(vehicle.fusion.clone(), drive.camera.clone(), tiles, student);
    let mut live = LiveCore::new(core, TICK_NS, 0);
    let mut fused = Vec::new();
    let (start_ns, end_ns) = (drive.truth.start_ns(), drive.truth.end_ns());
    let mut publish = |at_ns: i64, estimates: Vec<Estimate>| {
        for estimate in estimates {
            let claimed_ns = if scenario.expect.by_arrival {
                start_ns + at_ns
            } else {
                estimate.time_ns
            };
            // What is late arrives after the drive, where nobody knows the truth.
            let is_after = claimed_ns > end_ns && claimed_ns < end_ns + AFTER_NS;
            if estimate.kind == EstimateKind::Fused && !is_after {
                fused.push(Published {
                    time_ns: estimate.time_ns,
                    at_s: at_ns as f64 * 1e-9,
                    error_m: drive.truth.error_m(claimed_ns, estimate.position),
                    covariance_m2: estimate.covariance_m2,
                    radius_m: estimate.protection_radius_m,
                    state: estimate.state,
                    reason: estimate.reason,
                    reset_count: estimate.reset_count,
                });
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
    let last_ns = drive.arrivals.last().map_or(0, |last| last.at_ns);
    let length_s = last_ns.min(end_ns - start_ns) as f64 * 1e-9;
    Ok(Run { length_s, fused })
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
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(drive) = drives.get(index) else {
                return done;
            };
            done.push((index, run(drive, scenario, vehicle)));
        }
    };
    let mut runs = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        let joined = workers
            .into_iter()
            .map(|worker| worker.join().expect("no run panics"));
        joined.flatten().collect::<Vec<_>>()
    });
    runs.sort_by_key(|(index, _)| *index);
    runs.into_iter().map(|(_, run)| run).collect()
}
