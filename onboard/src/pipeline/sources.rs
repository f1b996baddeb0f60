//! The thread around each source: open, deliver, and after a failure open again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{SendTimeoutError, Sender};
use tracing::{info, warn};

use super::queue::OldestDropped;
use crate::config::{DaemonConfig, SourceConfig};
use crate::event::Event;
use crate::source::{Pace, SourceError, open};

/// Where events go, and when to stop.
pub struct Route {
    pub events: Sender<Event>,
    pub frames: OldestDropped<Event>,
    pub stop: Arc<AtomicBool>,
}

/// Starts the thread of one source.
pub fn spawn(
    config: SourceConfig,
    daemon: DaemonConfig,
    pace: Pace,
    route: Route,
) -> std::io::Result<JoinHandle<()>> {
    let name = format!("source-{}", config.name());
    Builder::new()
        .name(name)
        .spawn(move || deliver(&config, &daemon, &pace, &route))
}

fn deliver(config: &SourceConfig, daemon: &DaemonConfig, pace: &Pace, route: &Route) {
    let name = config.name();
    let mut wait_s = daemon.retry_s;
    let mut last_words = String::new();
    while !route.stopped() {
        let mut up = false;
        let failure = match open(config, pace) {
            Err(error) => error,
            Ok(mut source) => loop {
                if route.stopped() {
                    return;
                }
                match source.next() {
                    Ok(Some(event)) => {
                        if !up {
                            up = true;
                            wait_s = daemon.retry_s;
                            last_words.clear();
                            info!(source = name, "delivers");
                            route.send(state(name, true));
                        }
                        route.send(event);
                    }
                    Ok(None) => {}
                    Err(error) => break error,
                }
            },
        };
        if up {
            route.send(state(name, false));
        }
        if matches!(failure, SourceError::Ended) {
            info!(source = name, "the recording is over");
            return;
        }
        // The same failure again and again is said once.
        let words = failure.to_string();
        if words != last_words {
            warn!(
                source = name,
                error = words,
                retry_s = wait_s,
                "source failed, trying again"
            );
            last_words = words;
        }
        route.rest(Duration::from_secs_f64(wait_s));
        wait_s = (2.0 * wait_s).min(daemon.retry_max_s);
    }
}

impl Route {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn send(&self, event: Event) {
        if let Event::Frame(_) = event {
            self.frames.send(event);
            return;
        }
        // Fixes and odometry are never dropped: the source waits for the core.
        let mut event = event;
        while let Err(SendTimeoutError::Timeout(back)) =
            self.events.send_timeout(event, Duration::from_millis(100))
        {
            if self.stopped() {
                return;
            }
            event = back;
        }
    }

    fn rest(&self, time: Duration) {
        let slice = Duration::from_millis(50);
        let mut left = time;
        while !left.is_zero() && !self.stopped() {
            std::thread::sleep(left.min(slice));
            left = left.saturating_sub(slice);
        }
    }
}

fn state(source: &str, up: bool) -> Event {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let time_ns = i64::try_from(since.as_nanos()).unwrap_or(i64::MAX);
    Event::SourceState {
        source: source.to_owned(),
        up,
        time_ns,
    }
}
