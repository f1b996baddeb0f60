//! The thread around each sink: open, publish, and after a failure open again.

use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use tracing::{error, warn};

use crate::config::{DaemonConfig, SinkConfig};
use crate::event::Estimate;
use crate::sink::{Sink, open};

/// How often a sink looks at its clients while no estimate comes.
const POLL: Duration = Duration::from_millis(20);

/// Starts the thread of one sink; it ends, with its files finished, when the core is gone.
pub fn spawn(
    config: SinkConfig,
    daemon: DaemonConfig,
    estimates: Receiver<Arc<Estimate>>,
) -> std::io::Result<JoinHandle<()>> {
    Builder::new()
        .name("sink".into())
        .spawn(move || publish(&config, &daemon, &estimates))
}

fn publish(config: &SinkConfig, daemon: &DaemonConfig, estimates: &Receiver<Arc<Estimate>>) {
    let mut wait_s = daemon.retry_s;
    let mut last_words = String::new();
    loop {
        let failure = match open(config) {
            Err(failure) => failure,
            Ok(mut sink) => loop {
                let done = match estimates.recv_timeout(POLL) {
                    Ok(estimate) => sink.publish(&estimate),
                    Err(RecvTimeoutError::Timeout) => sink.poll(),
                    Err(RecvTimeoutError::Disconnected) => return finish(sink),
                };
                match done {
                    Ok(()) => wait_s = daemon.retry_s,
                    Err(failure) => break failure,
                }
            },
        };
        let words = failure.to_string();
        if words != last_words {
            warn!(error = words, retry_s = wait_s, "sink failed, trying again");
            last_words = words;
        }
        // What comes in the meantime is lost to this sink.
        let until = Instant::now() + Duration::from_secs_f64(wait_s);
        while Instant::now() < until {
            if estimates.recv_deadline(until) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
        }
        wait_s = (2.0 * wait_s).min(daemon.retry_max_s);
    }
}

fn finish(sink: Box<dyn Sink>) {
    if let Err(failure) = sink.finish() {
        error!(error = %failure, "a sink could not be finished; its last seconds may be missing");
    }
}
