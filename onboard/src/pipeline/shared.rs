//! Counters and states that the threads share, and the health report made of them.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clocks::ClockHealth;
use crate::core::CoreCounters;
use crate::event::{Estimate, State};
use crate::health::{Health, SinkHealth, SourceHealth};
use crate::matcher::ModelFile;
use crate::port::Clients;
use crate::shadow::{Comparison, ShadowHealth};
use crate::utc;

/// Estimates come at least every second, so after this they have stopped.
const LONGEST_SILENCE: Duration = Duration::from_secs(3);
/// They are taken a few times a second.
const MOST_COMPARISONS: usize = 64;
const SILENT: &str = "the estimates have stopped";
const NO_ESTIMATE_YET: &str = "no position yet: waiting for the first GNSS fix";

/// What all threads share.
#[derive(Debug, Default)]
pub struct Shared {
    /// Grows with every round of the core thread.
    pub progress: AtomicU64,
    /// Events the core took in.
    pub events: AtomicU64,
    /// Estimates the core gave.
    pub estimates: AtomicU64,
    frames_dropped: Arc<AtomicU64>,
    latest: Mutex<Option<(Arc<Estimate>, Instant)>>,
    counters: Mutex<CoreCounters>,
    clocks: Mutex<Vec<ClockHealth>>,
    model: Mutex<Option<ModelFile>>,
    model_error: Mutex<Option<String>>,
    shadow: Mutex<Option<ShadowHealth>>,
    comparisons: Mutex<Vec<Comparison>>,
    /// Each source's state, in the order of the config.
    pub sources: Vec<Arc<PeerState>>,
    /// Each writer's state.
    pub sinks: Vec<Arc<PeerState>>,
}

/// What one half of a peer did so far.
#[derive(Debug, Default)]
pub struct PeerState {
    name: Arc<str>,
    up: AtomicBool,
    moved: AtomicU64,
    last_event_ns: AtomicI64,
    dropped: Arc<AtomicU64>,
    clients: Mutex<Option<Clients>>,
    error: Mutex<Option<String>>,
    remark: Mutex<Option<String>>,
}

impl Shared {
    /// Nothing happened yet; `frames_dropped` counts frames dropped because the core was busy.
    pub fn new(frames_dropped: Arc<AtomicU64>) -> Self {
        Self {
            frames_dropped,
            ..Self::default()
        }
    }

    /// The latest estimate.
    pub fn latest(&self) -> Option<Arc<Estimate>> {
        let latest = lock(&self.latest);
        latest.as_ref().map(|(estimate, _)| estimate.clone())
    }

    /// Notes an estimate.
    pub fn note_estimate(&self, estimate: &Arc<Estimate>) {
        self.estimates.fetch_add(1, Ordering::Relaxed);
        *lock(&self.latest) = Some((estimate.clone(), Instant::now()));
    }

    /// Notes what became of the events.
    pub fn note_counters(&self, counters: CoreCounters) {
        *lock(&self.counters) = counters;
    }

    /// Notes which student runs from now on.
    pub fn note_model(&self, model: Option<ModelFile>) {
        *lock(&self.model) = model;
        *lock(&self.model_error) = None;
    }

    /// Notes why a new student was refused.
    pub fn note_refused_model(&self, error: String) {
        *lock(&self.model_error) = Some(error);
    }

    /// Notes how the student in shadow mode is; none when there is none.
    pub fn note_shadow(&self, health: Option<ShadowHealth>) {
        *lock(&self.shadow) = health;
    }

    /// Keeps what it said of a frame until it is taken.
    pub fn note_comparison(&self, comparison: Comparison) {
        let mut comparisons = lock(&self.comparisons);
        if comparisons.len() < MOST_COMPARISONS {
            comparisons.push(comparison);
        }
    }

    /// What it said since this was asked last.
    pub fn take_comparisons(&self) -> Vec<Comparison> {
        std::mem::take(&mut *lock(&self.comparisons))
    }

    /// Time since the latest estimate; none before the first.
    pub fn estimate_age(&self) -> Option<Duration> {
        let latest = lock(&self.latest);
        latest.as_ref().map(|(_, given)| given.elapsed())
    }

    /// The state and its reason, for service managers.
    pub fn status(&self) -> String {
        let Some(latest) = self.latest() else {
            return NO_ESTIMATE_YET.to_owned();
        };
        match latest.state {
            _ if self.is_silent() => SILENT.to_owned(),
            State::Ok => latest.state.as_str().to_owned(),
            state if latest.reason.is_empty() => state.as_str().to_owned(),
            state => format!("{}: {}", state.as_str(), latest.reason),
        }
    }

    /// Whether the estimates stopped, which they never should.
    pub fn is_silent(&self) -> bool {
        self.estimate_age().is_some_and(|age| age > LONGEST_SILENCE)
    }

    /// Notes what is thought of the sources' clocks.
    pub fn note_clocks(&self, clocks: Vec<ClockHealth>) {
        *lock(&self.clocks) = clocks;
    }

    /// A report of everything, now.
    pub fn health(&self) -> Health {
        let latest = self.latest();
        let mut sources: Vec<_> = self.sources.iter().map(|state| state.source()).collect();
        let clocks = lock(&self.clocks).clone();
        let sinks: Vec<_> = self.sinks.iter().map(|state| state.sink()).collect();
        let mut reasons = Vec::new();
        match &latest {
            None => reasons.push(NO_ESTIMATE_YET.to_owned()),
            Some(_) if self.is_silent() => reasons.push(SILENT.to_owned()),
            Some(latest) if latest.state != State::Ok && !latest.reason.is_empty() => {
                reasons.push(latest.reason.clone());
            }
            Some(_) => {}
        }
        for clock in clocks {
            let untold = |problem: &&String| !reasons.iter().any(|told| told.contains(*problem));
            reasons.extend(
                clock
                    .problem
                    .iter()
                    .filter(untold)
                    .cloned()
                    .collect::<Vec<_>>(),
            );
            if let Some(source) = sources
                .iter_mut()
                .find(|source| source.name == clock.source)
            {
                source.clocks.push(clock);
            }
        }
        let failed_sources = sources.iter().filter_map(|source| {
            let error = source.error.as_ref().or(source.remark.as_ref())?;
            Some(format!("source {}: {error}", source.name))
        });
        let failed_sinks = sinks.iter().filter_map(|sink| {
            let error = sink.error.as_ref()?;
            Some(format!("sink {}: {error}", sink.name))
        });
        reasons.extend(failed_sources.chain(failed_sinks));
        reasons.extend(lock(&self.model_error).clone());
        let shadow = lock(&self.shadow).clone();
        let shadow_error = |shadow: &ShadowHealth| {
            let error = shadow.error.as_ref()?;
            Some(format!("shadow {}: {error}", shadow.model))
        };
        reasons.extend(shadow.as_ref().and_then(shadow_error));
        Health {
            time_ns: utc::now_ns(),
            state: latest.map(|latest| latest.state),
            estimate_age_s: self.estimate_age().map(|age| age.as_secs_f64()),
            reasons,
            sources,
            sinks,
            events: self.events.load(Ordering::Relaxed),
            estimates: self.estimates.load(Ordering::Relaxed),
            frames_dropped: self.frames_dropped.load(Ordering::Relaxed),
            core: *lock(&self.counters),
            model: lock(&self.model).clone(),
            shadow,
        }
    }
}

impl PeerState {
    /// The state of a peer that was not opened yet; `dropped` counts what its queue drops.
    pub fn new(name: &str, dropped: Arc<AtomicU64>) -> Self {
        Self {
            name: name.into(),
            dropped,
            last_event_ns: AtomicI64::new(i64::MIN),
            ..Self::default()
        }
    }

    /// Its name.
    pub fn name(&self) -> Arc<str> {
        self.name.clone()
    }

    /// It delivers or is open; whether it did not before.
    pub fn set_up(&self) -> bool {
        *lock(&self.error) = None;
        !self.up.swap(true, Ordering::Relaxed)
    }

    /// It does no more, and why, if not by intention; whether it did before.
    pub fn set_down(&self, error: Option<String>) -> bool {
        if error.is_some() {
            *lock(&self.error) = error;
        }
        *lock(&self.remark) = None;
        self.up.swap(false, Ordering::Relaxed)
    }

    /// One more event, of this time.
    pub fn count_event(&self, time_ns: i64) {
        self.moved.fetch_add(1, Ordering::Relaxed);
        self.last_event_ns.store(time_ns, Ordering::Relaxed);
    }

    /// One more thing written.
    pub fn count_written(&self) {
        self.moved.fetch_add(1, Ordering::Relaxed);
    }

    /// One more thing lost while it was not open.
    pub fn count_dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// How many clients it has.
    pub fn note_clients(&self, clients: Option<Clients>) {
        *lock(&self.clients) = clients;
    }

    /// What its owner should know although nothing failed.
    pub fn note_remark(&self, remark: Option<&str>) {
        let mut noted = lock(&self.remark);
        if noted.as_deref() != remark {
            *noted = remark.map(str::to_owned);
        }
    }

    fn source(&self) -> SourceHealth {
        let last_ns = self.last_event_ns.load(Ordering::Relaxed);
        SourceHealth {
            name: self.name.to_string(),
            up: self.up.load(Ordering::Relaxed),
            events: self.moved.load(Ordering::Relaxed),
            last_event_ns: (last_ns != i64::MIN).then_some(last_ns),
            error: lock(&self.error).clone(),
            remark: lock(&self.remark).clone(),
            clocks: Vec::new(),
        }
    }

    fn sink(&self) -> SinkHealth {
        SinkHealth {
            name: self.name.to_string(),
            up: self.up.load(Ordering::Relaxed),
            written: self.moved.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            clients: *lock(&self.clients),
            error: lock(&self.error).clone(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
