//! Tells systemd READY, STATUS and WATCHDOG (while the core makes progress and estimates come),
//! answers `crossfixd status`, and reports health to the sinks that want it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use serde_json::{Value, json};
use tracing::{error, info, warn};

use super::outputs::Outputs;
use super::shared::Shared;
use crate::config::DaemonConfig;
use crate::health::Health;
use crate::peer::jsonl::estimate_json;
use crate::port::{Interests, Outbound};
use crate::status::StatusSocket;

/// Watches the pipeline; without a service manager it notifies nobody.
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
    shared: Arc<Shared>,
    outputs: Outputs,
    health_every: Duration,
    health: Option<(Health, Instant)>, // the latest report, and when it was sent
}

impl Supervisor {
    /// READY comes with the first event, or after the config's `start_timeout_s`.
    pub fn new(config: &DaemonConfig, shared: Arc<Shared>, outputs: Outputs) -> Self {
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
            shared,
            outputs,
            health_every: Duration::from_secs_f64(config.health_s),
            health: None,
        }
    }

    /// Does what is due; to be called a few times a second.
    pub fn poll(&mut self, stopping: bool) {
        let has_input = self.shared.events.load(Ordering::Relaxed) > 0;
        if !self.ready && (has_input || self.started.elapsed() >= self.start_timeout) {
            self.ready = true;
            info!(
                input = has_input,
                after_s = self.started.elapsed().as_secs_f64(),
                "ready"
            );
            notify(&[NotifyState::Ready]);
        }
        if stopping && !self.stopping {
            self.stopping = true;
            notify(&[NotifyState::Stopping]);
        }
        self.hand_on_comparisons();
        self.report_health();
        let status = self.shared.status();
        if status != self.status {
            info!(status, "state");
            notify(&[NotifyState::Status(&status)]);
            self.status = status;
        }
        if let Some(socket) = &self.socket {
            socket.answer(|| self.status_json());
        }
        let progress = self.shared.progress.load(Ordering::Relaxed);
        if let Some(period) = self.watchdog
            && progress != self.progress
            && !self.shared.is_silent()
            && self.fed.elapsed() >= period
        {
            notify(&[NotifyState::Watchdog]);
            self.fed = Instant::now();
            self.progress = progress;
        }
    }

    /// What the student in shadow mode said, to whoever wants it. Its own thread holds no queue of a
    /// writer, so that a student that hangs does not keep one open.
    pub fn hand_on_comparisons(&self) {
        for comparison in self.shared.take_comparisons() {
            self.outputs.send(&Outbound::Shadow(Arc::new(comparison)));
        }
    }

    /// Reports health to whoever wants it: when something changed, and at regular times.
    fn report_health(&mut self) {
        if !self.outputs.want(Interests::HEALTH) {
            return;
        }
        let health = self.shared.health();
        let due = self.health.as_ref().is_none_or(|(before, sent)| {
            sent.elapsed() >= self.health_every || health.differs_from(before)
        });
        if due {
            self.outputs
                .send(&Outbound::Health(Arc::new(health.clone())));
            self.health = Some((health, Instant::now()));
        }
    }

    fn status_json(&self) -> Value {
        let health = self.shared.health();
        json!({
            "status": self.status,
            "ready": self.ready,
            "up_s": self.started.elapsed().as_secs(),
            "events": health.events,
            "estimates": health.estimates,
            "estimate_age_s": health.estimate_age_s,
            "frames_dropped": health.frames_dropped,
            "reasons": health.reasons,
            "sources": health.sources,
            "sinks": health.sinks,
            "model": health.model,
            "shadow": health.shadow,
            "estimate": self.shared.latest().map(|estimate| estimate_json(&estimate)),
        })
    }
}

fn notify(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        error!(%error, "cannot notify the service manager");
    }
}
