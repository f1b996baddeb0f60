//! The thread of the student in shadow mode. It may take as long as it likes, fail or hang: what it does not
//! come to is dropped, and nobody waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use tracing::{info, warn};

use super::queue::OldestDropped;
use super::setup::SetupError;
use super::shared::Shared;
use crate::event::{Look, Match};
use crate::shadow::{Shadow, ShadowHealth};

/// How often it looks whether it should load its student again while no frame comes.
const POLL: Duration = Duration::from_millis(100);
/// Of all threads this one comes last (`nice`).
const LOWEST_PRIORITY: i32 = 19;

/// A frame that the first student was used for.
pub type Seen = (Arc<Match>, Arc<Look>);

/// What the config says of a shadow.
pub enum Loaded {
    /// There is none.
    None,
    /// Its name, and the student behind it.
    Some(String, Result<Box<Shadow>, SetupError>),
    /// The config cannot be read, which was told where the first student was to be loaded.
    Unreadable,
}

/// Loads what the config names now; it takes seconds.
pub type LoadShadow = dyn Fn() -> Loaded + Send + Sync;

/// Everything that the thread works with.
pub struct ShadowThread {
    pub load: Arc<LoadShadow>,
    pub frames: Receiver<Seen>,
    /// Set it to load the student again; it is cleared when that begins.
    pub reload: Arc<AtomicBool>,
    pub shared: Arc<Shared>,
    pub skipped: Arc<std::sync::atomic::AtomicU64>,
}

/// A queue for one frame.
pub fn queue() -> OldestDropped<Seen> {
    OldestDropped::new(1)
}

impl ShadowThread {
    /// Starts the thread; it ends when the core is gone.
    pub fn spawn(self) -> std::io::Result<JoinHandle<()>> {
        let thread = std::thread::Builder::new().name("shadow".into());
        thread.spawn(move || self.run())
    }

    fn run(self) {
        come_last();
        let mut shadow: Option<(String, Box<Shadow>)> = None;
        let mut problem = None;
        self.reload.store(true, Ordering::Relaxed);
        let mut skipped_before = 0;
        loop {
            if self.reload.swap(false, Ordering::Relaxed) {
                problem = self.load(&mut shadow);
                skipped_before = self.skipped.load(Ordering::Relaxed);
                self.report(shadow.as_ref(), problem.as_ref(), skipped_before);
            }
            match self.frames.recv_timeout(POLL) {
                Ok((found, look)) => {
                    let Some((_, shadow)) = &mut shadow else {
                        continue;
                    };
                    if let Some(comparison) = shadow.consider(&found, &look) {
                        self.shared.note_comparison(comparison);
                    }
                }
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.report(shadow.as_ref(), problem.as_ref(), skipped_before);
        }
    }

    /// Loads it again. One that cannot be used leaves the old one running; says why.
    fn load(&self, shadow: &mut Option<(String, Box<Shadow>)>) -> Option<(String, String)> {
        match (self.load)() {
            Loaded::None => {
                *shadow = None;
                None
            }
            Loaded::Unreadable => None,
            Loaded::Some(name, Ok(loaded)) => {
                info!(model = name, "a student runs in shadow mode");
                *shadow = Some((name, loaded));
                None
            }
            Loaded::Some(name, Err(failure)) => {
                warn!(model = name, error = %failure, "the student for shadow mode cannot be used");
                // The first student may be another one now.
                if let Some((_, old)) = shadow {
                    old.forget();
                }
                Some((name, failure.to_string()))
            }
        }
    }

    fn report(
        &self,
        shadow: Option<&(String, Box<Shadow>)>,
        problem: Option<&(String, String)>,
        skipped_before: u64,
    ) {
        let skipped = self.skipped.load(Ordering::Relaxed) - skipped_before;
        let health = match (shadow, problem) {
            (None, None) => None,
            (None, Some((name, problem))) => Some(ShadowHealth::broken(name, problem.clone())),
            (Some((name, shadow)), problem) => {
                let mut health = shadow.tally().health(name, skipped);
                if let Some((new, problem)) = problem {
                    health.error = Some(format!("{new} was refused: {problem}"));
                }
                Some(health)
            }
        };
        self.shared.note_shadow(health);
    }
}

/// On Linux a priority is that of a thread, and a thread may always lower its own.
fn come_last() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, LOWEST_PRIORITY) {
        warn!(%error, "the student in shadow mode has the priority of everything else");
    }
}
