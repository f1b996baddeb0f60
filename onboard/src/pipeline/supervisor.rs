//! What systemd and `crossfixd status` hear: READY, STATUS, and WATCHDOG while the core makes progress.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use serde_json::{Value, json};
use tracing::{error, info, warn};

use super::Shared;
use crate::config::DaemonConfig;
use crate::sink::estimate_json;
use crate::status::StatusSocket;

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
    socket: Option<StatusSocket>,
    frames_dropped: Arc<AtomicU64>,
}

impl Supervisor {
    /// READY comes with the first event, or after the config's `start_timeout_s`.
    pub fn new(config: &DaemonConfig, frames_dropped: Arc<AtomicU64>) -> Self {
        let now = Instant::now();
        let socket = config.status_socket.as_ref().and_then(|path| {
            StatusSocket::open(path)
                .inspect_err(|error| warn!(?path, %error, "no status socket"))
                .ok()
        });
        Self {
            started: now,
            start_timeout: Duration::from_secs_f64(config.start_timeout_s),
            ready: false,
            stopping: false,
            status: String::new(),
            watchdog: sd_notify::watchdog_enabled().map(|period| period / 2),
            fed: now,
            progress: 0,
            socket,
            frames_dropped,
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
        if let Some(socket) = &self.socket {
            socket.answer(|| self.words(shared));
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

    fn words(&self, shared: &Shared) -> Value {
        let latest = shared
            .latest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        json!({
            "status": self.status,
            "ready": self.ready,
            "up_s": self.started.elapsed().as_secs(),
            "events": shared.events.load(Ordering::Relaxed),
            "estimates": shared.estimates.load(Ordering::Relaxed),
            "frames_dropped": self.frames_dropped.load(Ordering::Relaxed),
            "estimate": latest.map(|estimate| estimate_json(&estimate)),
        })
    }
}

fn notify(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        error!(%error, "the service manager cannot be told");
    }
}
