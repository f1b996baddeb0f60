//! The thread around each peer: open, deliver and write, and after a failure open again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender};
use tracing::{error, info, warn};

use super::machine_clock::ArrivalClock;
use super::queue::OldestDropped;
use super::shared::PeerState;
use crate::config::DaemonConfig;
use crate::event::{Arrival, Event};
use crate::peer::Playback;
use crate::port::{Connection, Outbound, Peer, PeerError, Reader, Writer};
use crate::utc;

/// How often a writer looks at its clients while nothing comes.
const POLL: Duration = Duration::from_millis(20);
/// How often a thread that waits looks whether it should stop.
const STOP_POLL: Duration = Duration::from_millis(50);

/// Where the events of a source go, and when to stop. The core runs until the last one is gone.
pub struct Route {
    pub events: Sender<Arrival>,
    pub frames: OldestDropped<Arrival>,
    pub stop: Arc<AtomicBool>,
    pub clock: ArrivalClock,
    pub state: Arc<PeerState>,
}

/// What a writer gets, until the core is gone.
pub struct Inbox {
    pub outbound: Receiver<Outbound>,
    pub state: Arc<PeerState>,
}

/// A peer and its ways to the core: a route for a source, an inbox if it wants anything.
pub struct PeerThread {
    pub peer: Box<dyn Peer>,
    pub daemon: DaemonConfig,
    pub playback: Playback,
    pub route: Option<Route>,
    pub inbox: Option<Inbox>,
}

/// How serving a connection came to its end.
enum End {
    /// It was stopped, the recording is over, or the core is gone.
    Finished,
    /// The other half failed.
    OtherHalf,
    Failed(PeerError),
}

impl PeerThread {
    /// Starts the thread. It ends when it is stopped, when its recording is over, and when the core is
    /// gone, with its files finished.
    pub fn spawn(self) -> std::io::Result<JoinHandle<()>> {
        let role = if self.route.is_some() {
            "source"
        } else {
            "sink"
        };
        let name = format!("{role}-{}", self.peer.name());
        Builder::new().name(name).spawn(move || self.run())
    }

    fn run(mut self) {
        let mut wait_s = self.daemon.retry_s;
        let mut last_message = String::new();
        while !self.is_stopped() {
            let mut worked = false;
            let failure = match self.peer.open(&self.playback) {
                Err(PeerError::Ended) => return,
                Err(failure) => failure,
                Ok(connection) => match self.serve(connection, &mut worked) {
                    End::Finished | End::OtherHalf => return,
                    End::Failed(failure) => failure,
                },
            };
            if worked {
                wait_s = self.daemon.retry_s;
                last_message.clear();
            }
            let message = failure.to_string();
            self.set_down(Some(message.clone()));
            // The same failure again and again is logged once.
            if message != last_message {
                self.log_failure(&message, wait_s);
                last_message = message;
            }
            if !self.rest(Duration::from_secs_f64(wait_s)) {
                return;
            }
            wait_s = (2.0 * wait_s).min(self.daemon.retry_max_s);
        }
    }

    /// Runs the halves that both the connection and the config have. A source that is also written to
    /// gets a second thread for as long as the connection holds.
    fn serve(&mut self, connection: Connection, worked: &mut bool) -> End {
        let Self { route, inbox, .. } = self;
        let reader = connection
            .reader
            .and_then(|reader| Some((reader, route.take()?)));
        let writer = connection.writer.zip(inbox.as_ref());
        let broken = AtomicBool::new(false);
        match (reader, writer) {
            (Some((reader, source)), None) => {
                let end = source.deliver(reader, &broken, worked);
                *route = Some(source);
                end
            }
            (None, Some((writer, inbox))) => inbox.pass_on(writer, &broken, worked),
            (Some((reader, source)), Some((writer, inbox))) => std::thread::scope(|scope| {
                let writing = scope.spawn(|| {
                    let mut worked = false;
                    let end = inbox.pass_on(writer, &broken, &mut worked);
                    broken.store(true, Ordering::Relaxed);
                    (end, worked)
                });
                let read = source.deliver(reader, &broken, worked);
                if matches!(read, End::Finished) {
                    // The core may end now; the writer goes on until it does.
                    drop(source);
                } else {
                    broken.store(true, Ordering::Relaxed);
                    *route = Some(source);
                }
                let (wrote, write_worked) = writing.join().unwrap_or((End::Finished, false));
                *worked |= write_worked;
                match (read, wrote) {
                    (End::Finished, _) => End::Finished,
                    (End::Failed(failure), _) | (_, End::Failed(failure)) => End::Failed(failure),
                    (_, wrote) => wrote,
                }
            }),
            (None, None) => End::Failed(PeerError::Protocol(format!(
                "{} neither delivers nor takes anything; check its config",
                self.peer.name()
            ))),
        }
    }

    fn is_stopped(&self) -> bool {
        self.route.as_ref().is_some_and(Route::is_stopped)
    }

    fn set_down(&self, message: Option<String>) {
        if let Some(route) = &self.route {
            route.state.set_down(message.clone());
        }
        if let Some(inbox) = &self.inbox {
            inbox.state.set_down(message);
        }
    }

    fn log_failure(&self, error: &str, retry_s: f64) {
        let name = self.peer.name();
        if self.route.is_some() {
            warn!(source = name, error, retry_s, "source failed, trying again");
        } else {
            warn!(sink = name, error, retry_s, "sink failed, trying again");
        }
    }

    /// Waits, and loses what comes in the meantime; false when it is time to end.
    fn rest(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if self.is_stopped() || left.is_zero() {
                return !self.is_stopped();
            }
            let slice = left.min(STOP_POLL);
            match &self.inbox {
                None => std::thread::sleep(slice),
                Some(inbox) => match inbox.outbound.recv_timeout(slice) {
                    Ok(_) => inbox.state.count_dropped(),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return false,
                },
            }
        }
    }
}

impl Route {
    fn deliver(&self, mut reader: Box<dyn Reader>, broken: &AtomicBool, worked: &mut bool) -> End {
        let end = loop {
            if self.is_stopped() {
                break End::Finished;
            }
            if broken.load(Ordering::Relaxed) {
                break End::OtherHalf;
            }
            let next = reader.next();
            self.state.note_remark(reader.remark());
            match next {
                Ok(Some(event)) => {
                    *worked = true;
                    self.state.count_event(event.time_ns());
                    if self.state.set_up() {
                        info!(source = &*self.state.name(), "delivers");
                        self.send(self.source_state(true));
                    }
                    self.send(event);
                }
                Ok(None) => {}
                Err(PeerError::Ended) => {
                    info!(source = &*self.state.name(), "the recording is over");
                    break End::Finished;
                }
                Err(failure) => break End::Failed(failure),
            }
        };
        if self.state.set_down(None) && !self.is_stopped() {
            self.send(self.source_state(false));
        }
        end
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn send(&self, event: Event) {
        let mut arrival = Arrival::new(self.state.name(), self.clock.now_ns(), event);
        if let Event::Frame(_) = arrival.event {
            self.frames.send(arrival);
            return;
        }
        // Fixes and odometry are never dropped: the source waits for the core.
        while let Err(SendTimeoutError::Timeout(back)) = self
            .events
            .send_timeout(arrival, Duration::from_millis(100))
        {
            if self.is_stopped() {
                return;
            }
            arrival = back;
        }
    }

    fn source_state(&self, up: bool) -> Event {
        Event::SourceState {
            source: self.state.name().to_string(),
            up,
            time_ns: utc::now_ns(),
        }
    }
}

impl Inbox {
    fn pass_on(&self, mut writer: Box<dyn Writer>, broken: &AtomicBool, worked: &mut bool) -> End {
        self.state.set_up();
        loop {
            let done = match self.outbound.recv_timeout(POLL) {
                Ok(outbound) => writer.write(&outbound).inspect(|()| {
                    self.state.count_written();
                }),
                Err(RecvTimeoutError::Timeout) => writer.poll(),
                Err(RecvTimeoutError::Disconnected) => {
                    if let Err(failure) = writer.finish() {
                        error!(
                            sink = &*self.state.name(),
                            error = %failure,
                            "cannot be finished; its last seconds may be missing"
                        );
                    }
                    return End::Finished;
                }
            };
            match done {
                Ok(()) => {
                    *worked = true;
                    self.state.note_clients(writer.clients());
                }
                Err(failure) => {
                    self.state.set_down(None);
                    return End::Failed(failure);
                }
            }
            if broken.load(Ordering::Relaxed) {
                self.state.set_down(None);
                return End::OtherHalf;
            }
        }
    }
}
