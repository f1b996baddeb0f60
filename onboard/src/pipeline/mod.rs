//! Threads and bounded channels: one thread per source, one for the core, one per sink.
//!
//! The only place with a clock. A peer that fails is opened again after a growing wait; frames that the
//! core is too slow for are dropped, oldest first, and counted; a slow sink loses the oldest of what
//! it wants and never holds up the core. When every source is silent, ticks make the core go on.

mod core_thread;
mod live_core;
mod machine_clock;
mod outputs;
mod peers;
mod queue;
mod replay;
mod setup;
mod shadow_thread;
mod shared;
mod supervisor;
#[cfg(test)]
mod tests;
mod tick;
mod trusted;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use tracing::{error, info, warn};

use self::core_thread::CoreThread;
pub use self::live_core::LiveCore;
pub(crate) use self::machine_clock::{ArrivalClock, boot_time_ns};
use self::outputs::Outputs;
use self::peers::{Inbox, PeerThread, Route};
use self::queue::OldestDropped;
pub use self::replay::{ReplayError, ReplaySummary, Replayed, replay, replay_until};
pub(crate) use self::setup::open_tiles;
pub use self::setup::{SetupError, core_from, misfits};
use self::shadow_thread::{LoadShadow, ShadowThread};
use self::shared::{PeerState, Shared};
use self::supervisor::Supervisor;
use crate::config::{Config, DaemonConfig};
use crate::core::Core;
use crate::matcher::Matcher;
use crate::peer::{Playback, SinkConfig, SourceConfig};
use crate::port::Peer;

/// How long sources may take to stop, and then the core and the writers to finish their files.
const SOURCES_STOP_WITHIN: Duration = Duration::from_secs(2);
const THREADS_STOP_WITHIN: Duration = Duration::from_secs(4);

/// Why the daemon cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// What the daemon did until it stopped.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct RunSummary {
    /// Events the core took in.
    pub events: u64,
    /// Estimates the core gave.
    pub estimates: u64,
    /// Frames that were dropped because the core was busy.
    pub frames_dropped: u64,
    /// What sinks lost because they were slow or not open.
    pub outbound_dropped: u64,
}

/// The controls of a running daemon.
#[derive(Debug, Clone, Default)]
pub struct Controls {
    /// Set it to finish the files and return.
    pub stop: Arc<AtomicBool>,
    /// Set it to load the student again; it is cleared when that begins. A student that cannot be used
    /// leaves the old one running, and health says why.
    pub reload_model: Arc<AtomicBool>,
    /// Where `[model]` is read from for that; without it the path the daemon started with is used.
    pub config_path: Option<PathBuf>,
}

/// Runs until it is stopped or every recorded source is over; then files are finished.
///
/// # Errors
/// [`RunError`] when the threads cannot be started. What fails later is retried, and logged.
pub fn run(config: &Config, controls: &Controls) -> Result<RunSummary, RunError> {
    let model = config.model.clone();
    let config_path = controls.config_path.clone();
    let daemon = Daemon {
        core: setup::core_or_less(config),
        config: DaemonConfig {
            frame_queue: config.frames_waiting(),
            ..config.daemon.clone()
        },
        clock: ArrivalClock::default(),
        sources: peers(config, &config.source, SourceConfig::into_peer),
        sinks: peers(config, &config.sink, SinkConfig::into_peer),
        load_model: Arc::new(move || setup::reload_model(model.as_ref(), config_path.as_deref())),
        load_shadow: setup::shadow_loader(config, controls.config_path.clone()),
    };
    daemon.run(controls)
}

fn peers<T: Clone>(
    config: &Config,
    tables: &[T],
    into_peer: impl Fn(T) -> Box<dyn Peer>,
) -> Vec<Box<dyn Peer>> {
    let mut peers: Vec<_> = tables.iter().cloned().map(into_peer).collect();
    peers.iter_mut().for_each(|peer| peer.set_up(config));
    peers
}

type LoadModel = dyn Fn() -> Result<Box<dyn Matcher>, SetupError> + Send + Sync;

/// Everything that runs, with peers of any kind.
struct Daemon {
    core: Core,
    config: DaemonConfig,
    clock: ArrivalClock,
    sources: Vec<Box<dyn Peer>>,
    sinks: Vec<Box<dyn Peer>>,
    load_model: Arc<LoadModel>,
    load_shadow: Arc<LoadShadow>,
}

impl Daemon {
    fn run(self, controls: &Controls) -> Result<RunSummary, RunError> {
        let (event_sender, events) = crossbeam_channel::bounded(self.config.event_queue);
        let frames = OldestDropped::new(self.config.frame_queue);
        let frame_receiver = frames.receiver();
        let mut outputs = Outputs::default();
        let mut shared = Shared::new(frames.counter());
        let playback = Playback::default();
        let mut peer_threads = Vec::new();
        let sources = self.sources.into_iter().map(|peer| (peer, true));
        for (peer, is_source) in sources.chain(self.sinks.into_iter().map(|peer| (peer, false))) {
            let route = is_source.then(|| {
                let state = Arc::new(PeerState::new(peer.name(), Arc::default()));
                shared.sources.push(state.clone());
                Route {
                    events: event_sender.clone(),
                    frames: frames.clone(),
                    stop: controls.stop.clone(),
                    clock: self.clock.clone(),
                    state,
                }
            });
            let inbox = (!peer.wants().is_empty()).then(|| {
                let (outbound, dropped) = outputs.add(peer.wants(), self.config.sink_queue);
                let state = Arc::new(PeerState::new(peer.name(), dropped));
                shared.sinks.push(state.clone());
                Inbox { outbound, state }
            });
            peer_threads.push(PeerThread {
                peer,
                daemon: self.config.clone(),
                playback: playback.clone(),
                route,
                inbox,
            });
        }
        // The core runs until the last sender is gone.
        drop((event_sender, frames));
        shared.note_model(self.core.model_file().cloned());
        let shared = Arc::new(shared);
        let peer_threads: Vec<_> = peer_threads
            .into_iter()
            .map(PeerThread::spawn)
            .collect::<Result<_, _>>()?;

        let (matcher_sender, matchers) = crossbeam_channel::bounded(1);
        let tick_ns = (self.config.tick_s * 1e9) as i64;
        let quit = Arc::new(AtomicBool::new(false));
        let to_shadow = shadow_thread::queue();
        let reload_shadow = Arc::new(AtomicBool::new(false));
        let shadow = ShadowThread {
            load: self.load_shadow,
            frames: to_shadow.receiver(),
            reload: reload_shadow.clone(),
            shared: shared.clone(),
            skipped: to_shadow.counter(),
        };
        let shadow = shadow.spawn()?;
        let core = CoreThread {
            core: LiveCore::new(self.core, tick_ns, self.clock.now_ns()),
            clock: self.clock,
            clocks_noted_ns: i64::MIN,
            quit: quit.clone(),
            outputs: outputs.clone(),
            shared: shared.clone(),
            shadow: to_shadow,
        };
        let core = std::thread::Builder::new()
            .name("core".into())
            .spawn(move || core.run(events, frame_receiver, &matchers))?;

        let mut supervisor = Supervisor::new(&self.config, shared.clone(), outputs);
        let mut stopped: Option<Instant> = None;
        while !core.is_finished() {
            std::thread::sleep(Duration::from_millis(50));
            if controls.stop.load(Ordering::Relaxed) {
                let since = stopped.get_or_insert_with(Instant::now);
                if since.elapsed() > SOURCES_STOP_WITHIN && !quit.swap(true, Ordering::Relaxed) {
                    warn!("a source does not stop; going on without it");
                }
                if since.elapsed() > SOURCES_STOP_WITHIN + THREADS_STOP_WITHIN {
                    break;
                }
            }
            if controls.reload_model.swap(false, Ordering::Relaxed) {
                let to = (&matcher_sender, &reload_shadow);
                spawn_reload(&self.load_model, &shared, to)?;
            }
            supervisor.poll(controls.stop.load(Ordering::Relaxed));
        }
        // It ends with its frame, or is left behind.
        join(std::iter::once(shadow), &AtomicBool::new(true));
        supervisor.hand_on_comparisons();
        // The writers end when the last sender to them is gone.
        drop(supervisor);
        join(std::iter::once(core).chain(peer_threads), &controls.stop);
        let health = shared.health();
        let summary = RunSummary {
            events: health.events,
            estimates: health.estimates,
            frames_dropped: health.frames_dropped,
            outbound_dropped: health.sinks.iter().map(|sink| sink.dropped).sum(),
        };
        info!(?summary, "stopped");
        Ok(summary)
    }
}

/// Waits for threads that have been told to end. Once `stop` is set, those that do not end soon are left
/// behind: they may hang in a system call, such as a write that nobody reads.
fn join(threads: impl Iterator<Item = JoinHandle<()>>, stop: &AtomicBool) {
    let mut stopped: Option<Instant> = None;
    for thread in threads {
        let name = thread.thread().name().unwrap_or("?").to_owned();
        while !thread.is_finished()
            && stopped.is_none_or(|since| since.elapsed() < THREADS_STOP_WITHIN)
        {
            std::thread::sleep(Duration::from_millis(5));
            if stop.load(Ordering::Relaxed) {
                stopped.get_or_insert_with(Instant::now);
            }
        }
        if !thread.is_finished() {
            error!(thread = name, "does not end and is left behind");
        } else if thread.join().is_err() {
            // A thread that panicked has taken the process with it, so this only happens in tests.
            error!(thread = name, "a thread panicked");
        }
    }
}

/// Loads the student on a thread of its own, since it takes seconds, and hands it to the core. The one in
/// shadow mode comes after it, for it is compared with this one.
fn spawn_reload(
    load: &Arc<LoadModel>,
    shared: &Arc<Shared>,
    (core, reload_shadow): (&Sender<Box<dyn Matcher>>, &Arc<AtomicBool>),
) -> std::io::Result<()> {
    let (load, shared) = (load.clone(), shared.clone());
    let (core, reload_shadow) = (core.clone(), reload_shadow.clone());
    let thread = std::thread::Builder::new().name("model".into());
    thread.spawn(move || {
        match load() {
            Ok(matcher) => {
                let file = matcher.file().cloned();
                if core.send(matcher).is_ok() {
                    shared.note_model(file);
                    info!("a new student is used from now on");
                }
            }
            Err(failure) => {
                error!(error = %failure, "the new student cannot be used; the old one stays");
                shared.note_refused_model(format!("new student refused: {failure}"));
            }
        }
        reload_shadow.store(true, Ordering::Relaxed);
    })?;
    Ok(())
}
