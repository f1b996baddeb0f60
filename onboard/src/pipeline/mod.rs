//! Threads and bounded channels: one thread per source, one for the core, one per sink.
//!
//! The only place with a clock. A source or sink that fails is opened again after a back-off; frames
//! that the core is too slow for are dropped, oldest first, and counted; a slow sink loses its oldest
//! estimates and never holds up the core. When every source is silent, ticks make the core go on.

mod clock;
mod live_core;
mod queue;
mod replay;
mod setup;
mod sinks;
mod sources;
mod supervisor;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, never, select};
use tracing::{debug, info};

pub use self::live_core::LiveCore;
use self::queue::OldestDropped;
pub use self::replay::{ReplayError, ReplaySummary, replay};
pub use self::setup::{SetupError, core_from};
use self::supervisor::Supervisor;
use crate::config::Config;
use crate::event::{Estimate, Event, State};
use crate::source::Pace;

/// Why the daemon cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// What the daemon did, for its last words.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct RunSummary {
    /// Events the core took in.
    pub events: u64,
    /// Estimates the core gave.
    pub estimates: u64,
    /// Frames that were dropped because the core was busy.
    pub frames_dropped: u64,
    /// Estimates that slow sinks lost.
    pub estimates_dropped: u64,
}

/// Counters and words that the threads share.
#[derive(Debug, Default)]
struct Shared {
    /// Grows with every round of the core thread.
    progress: AtomicU64,
    events: AtomicU64,
    estimates: AtomicU64,
    /// The latest state, in words.
    status: std::sync::Mutex<String>,
    /// The latest estimate of all.
    latest: std::sync::Mutex<Option<Arc<Estimate>>>,
}

/// Runs until `stop` is set or every recorded source is over; then files are finished.
///
/// # Errors
/// [`RunError`] when the threads cannot be started. What fails later is retried, and logged.
pub fn run(config: &Config, stop: &Arc<AtomicBool>) -> Result<RunSummary, RunError> {
    let core = setup::core_or_less(config);
    let shared = Arc::new(Shared::default());
    let (event_sender, events) = crossbeam_channel::bounded(config.daemon.event_queue);
    let frames = OldestDropped::new(config.daemon.frame_queue);
    let frame_receiver = frames.receiver();

    let mut sinks = Vec::new();
    let mut outputs = Vec::new();
    for sink in &config.sink {
        let output = OldestDropped::new(config.daemon.sink_queue);
        sinks.push(sinks::spawn(
            sink.clone(),
            config.daemon.clone(),
            output.receiver(),
        )?);
        outputs.push(output);
    }
    let pace = Pace::default();
    let mut sources = Vec::new();
    for source in &config.source {
        let route = sources::Route {
            events: event_sender.clone(),
            frames: frames.clone(),
            stop: stop.clone(),
        };
        sources.push(sources::spawn(
            source.clone(),
            config.daemon.clone(),
            pace.clone(),
            route,
        )?);
    }
    let frames_dropped = frames.counter();
    let outputs_dropped: Vec<_> = outputs.iter().map(OldestDropped::counter).collect();
    // The core runs until the last sender is gone.
    drop((event_sender, frames));

    let core = CoreThread {
        core: LiveCore::new(
            core,
            Duration::from_secs_f64(config.daemon.tick_s),
            Instant::now(),
        ),
        outputs,
        shared: shared.clone(),
    };
    let core = std::thread::Builder::new()
        .name("core".into())
        .spawn(move || core.run(events, frame_receiver))?;

    let mut supervisor = Supervisor::new(&config.daemon, frames_dropped.clone());
    while !core.is_finished() {
        std::thread::sleep(Duration::from_millis(50));
        supervisor.look(&shared, stop.load(Ordering::Relaxed));
    }
    // A thread that panicked has taken the process with it, so a failed join only happens in tests.
    for thread in sources.into_iter().chain([core]).chain(sinks) {
        let name = thread.thread().name().unwrap_or("?").to_owned();
        if thread.join().is_err() {
            tracing::error!(thread = name, "a thread panicked");
        }
    }
    let summary = RunSummary {
        events: shared.events.load(Ordering::Relaxed),
        estimates: shared.estimates.load(Ordering::Relaxed),
        frames_dropped: frames_dropped.load(Ordering::Relaxed),
        estimates_dropped: outputs_dropped
            .iter()
            .map(|dropped| dropped.load(Ordering::Relaxed))
            .sum(),
    };
    info!(?summary, "stopped");
    Ok(summary)
}

struct CoreThread {
    core: LiveCore,
    outputs: Vec<OldestDropped<Arc<Estimate>>>,
    shared: Arc<Shared>,
}

impl CoreThread {
    fn run(mut self, mut events: Receiver<Event>, mut frames: Receiver<Event>) {
        let (mut events_open, mut frames_open) = (true, true);
        while events_open || frames_open {
            self.shared.progress.fetch_add(1, Ordering::Relaxed);
            let patience = self.core.patience(Instant::now());
            // Fixes and odometry are cheap and place the frames, so they go first.
            let event = match events.try_recv() {
                Ok(event) => Ok(event),
                Err(_) => select! {
                    recv(events) -> event => event.map_err(|_| {
                        events_open = false;
                        events = never();
                        RecvTimeoutError::Disconnected
                    }),
                    recv(frames) -> event => event.map_err(|_| {
                        frames_open = false;
                        frames = never();
                        RecvTimeoutError::Disconnected
                    }),
                    default(patience) => Err(RecvTimeoutError::Timeout),
                },
            };
            let estimates = match event {
                Ok(event) => self.take(event),
                Err(_) => self.core.wait_over(Instant::now()),
            };
            self.publish(estimates);
        }
        debug!(counters = ?self.core.counters(), "core is done");
    }

    fn take(&mut self, event: Event) -> Vec<Estimate> {
        self.shared.events.fetch_add(1, Ordering::Relaxed);
        self.core.handle(event, Instant::now())
    }

    fn publish(&mut self, estimates: Vec<Estimate>) {
        if let Some(latest) = estimates.last() {
            let mut status = self
                .shared
                .status
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            *status = match (latest.state, latest.reason.as_str()) {
                (State::Ok, _) | (_, "") => latest.state.as_str().to_owned(),
                (state, reason) => format!("{}: {reason}", state.as_str()),
            };
        }
        for estimate in estimates {
            self.shared.estimates.fetch_add(1, Ordering::Relaxed);
            let estimate = Arc::new(estimate);
            *self
                .shared
                .latest
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(estimate.clone());
            self.outputs
                .iter()
                .for_each(|output| output.send(estimate.clone()));
        }
    }
}
