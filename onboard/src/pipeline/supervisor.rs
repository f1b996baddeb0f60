//! What systemd hears: READY, STATUS, and WATCHDOG while the core makes progress.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tracing::{error, info};

use super::Shared;

/// Speaks for the pipeline; without a service manager it says nothing.
pub struct Supervisor {
    started: Instant,
    start_timeout: Duration,
    ready: bool,
    stopping: bool,
    status: String,
    watchdog: Option<Duration>,
    fed: Instant,
    progress: u64,
}

impl Supervisor {
    /// READY comes with the first event, or after `start_timeout`.
    pub fn new(start_timeout: Duration) -> Self {
        let now = Instant::now();
        Self {
            started: now,
            start_timeout,
            ready: false,
            stopping: false,
            status: String::new(),
            watchdog: sd_notify::watchdog_enabled().map(|period| period / 2),
            fed: now,
            progress: 0,
        }
    }

    /// Looks at the pipeline; to be called a few times a second.
    pub fn look(&mut self, shared: &Shared, stopping: bool) {
        let heard = shared.events.load(Ordering::Relaxed) > 0;
        if !self.ready && (heard || self.started.elapsed() >= self.start_timeout) {
            self.ready = true;
            info!(
                input = heard,
                after_s = self.started.elapsed().as_secs_f64(),
                "ready"
            );
            notify(&[NotifyState::Ready]);
        }
        if stopping && !self.stopping {
            self.stopping = true;
            notify(&[NotifyState::Stopping]);
        }
        let status = shared
            .status
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if status != self.status {
            info!(status, "state");
            notify(&[NotifyState::Status(&status)]);
            self.status = status;
        }
        let progress = shared.progress.load(Ordering::Relaxed);
        if let Some(period) = self.watchdog
            && progress != self.progress
            && self.fed.elapsed() >= period
        {
            notify(&[NotifyState::Watchdog]);
            self.fed = Instant::now();
            self.progress = progress;
        }
    }
}

fn notify(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        error!(%error, "the service manager cannot be told");
    }
}
