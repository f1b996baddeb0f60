//! The ports of the daemon: what a peer hands in, what it gets out, and how the pipeline opens it.
//!
//! A [`Peer`] is one `[[source]]` or `[[sink]]` table of the config. Opened, it is a [`Connection`]
//! with a [`Reader`], a [`Writer`], or both over the same wire. Neither retries anything: after an
//! error the pipeline drops the connection and opens it again, after a growing wait.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::clocks::ClockRule;
use crate::config::{Checker, Config};
use crate::event::{Arrival, Estimate, Event, Match};
use crate::health::Health;
use crate::log::LogError;
use crate::peer::Playback;
use crate::shadow::Comparison;

/// Longest time a reader waits for bytes, so that its thread can stop.
pub const READ_PATIENCE: Duration = Duration::from_millis(200);

/// Something that happened in the daemon, for peers that asked for its kind. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Outbound {
    /// An input event, as it entered the core.
    Event(Arc<Arrival>),
    /// A frame that was matched with an aerial patch.
    Match(Arc<Match>),
    /// Where the vehicle is.
    Estimate(Arc<Estimate>),
    /// How the daemon and its peers are.
    Health(Arc<Health>),
    /// What a student in shadow mode said of a frame.
    Shadow(Arc<Comparison>),
}

/// Which kinds of [`Outbound`] a peer wants, joined with `|`; by default none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Interests(u8);

impl Interests {
    /// [`Outbound::Event`].
    pub const EVENTS: Self = Self(1);
    /// [`Outbound::Match`].
    pub const MATCHES: Self = Self(2);
    /// [`Outbound::Estimate`].
    pub const ESTIMATES: Self = Self(4);
    /// [`Outbound::Health`].
    pub const HEALTH: Self = Self(8);
    /// Of [`Outbound::Event`], the fixes of receivers only.
    pub const FIXES: Self = Self(16);
    /// Of [`Outbound::Event`], the pictures of cameras only.
    pub const FRAMES: Self = Self(32);
    /// [`Outbound::Shadow`].
    pub const SHADOW: Self = Self(64);
    /// Every kind but what a student in shadow mode said.
    pub const ALL: Self = Self(15);

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether both have a kind in common.
    pub fn overlap(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The kind of this one.
    pub fn of(outbound: &Outbound) -> Self {
        match outbound {
            Outbound::Event(event) if matches!(event.event, Event::Gnss(_)) => {
                Self::EVENTS | Self::FIXES
            }
            Outbound::Event(event) if matches!(event.event, Event::Frame(_)) => {
                Self::EVENTS | Self::FRAMES
            }
            Outbound::Event(_) => Self::EVENTS,
            Outbound::Match(_) => Self::MATCHES,
            Outbound::Estimate(_) => Self::ESTIMATES,
            Outbound::Health(_) => Self::HEALTH,
            Outbound::Shadow(_) => Self::SHADOW,
        }
    }
}

impl std::ops::BitOr for Interests {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The clients of a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Clients {
    /// Connected now.
    pub connected: usize,
    /// Sent away so far: too slow, idle, or the idlest when there was no room for a new one.
    pub sent_away: u64,
}

/// Turns foreign bytes into events, on a thread of its own.
pub trait Reader: Send {
    /// The next event, or `None` when none came within [`READ_PATIENCE`].
    ///
    /// # Errors
    /// [`PeerError::Ended`] when a recording is over; after any other error the peer is opened again.
    fn next(&mut self) -> Result<Option<Event>, PeerError>;

    /// What its owner should know although nothing failed, such as that nobody sends; shown in the status.
    fn remark(&self) -> Option<&str> {
        None
    }
}

/// Turns [`Outbound`] into foreign bytes, on a thread of its own. Without a position a writer reports
/// that there is none, and never an old one.
pub trait Writer: Send {
    /// Passes one thing on; of the kinds in the peer's [`Interests`] only.
    ///
    /// # Errors
    /// [`PeerError`] when it cannot; the peer is opened again.
    fn write(&mut self, outbound: &Outbound) -> Result<(), PeerError>;

    /// Does what is due while nothing comes: new clients, requests, flushes. Called about every 20 ms.
    ///
    /// # Errors
    /// As [`Writer::write`].
    fn poll(&mut self) -> Result<(), PeerError> {
        Ok(())
    }

    /// How many clients it has; none when it is no server.
    fn clients(&self) -> Option<Clients> {
        None
    }

    /// Writes what is still held back and closes.
    ///
    /// # Errors
    /// As [`Writer::write`].
    fn finish(self: Box<Self>) -> Result<(), PeerError> {
        Ok(())
    }
}

/// An opened peer. The pipeline runs both halves at once and closes both when one fails.
pub struct Connection {
    /// The half that delivers events; only used for a `[[source]]`.
    pub reader: Option<Box<dyn Reader>>,
    /// The half that takes what the peer wants.
    pub writer: Option<Box<dyn Writer>>,
}

impl Connection {
    /// A connection that only delivers.
    pub fn reader(reader: impl Reader + 'static) -> Self {
        Self {
            reader: Some(Box::new(reader)),
            writer: None,
        }
    }

    /// A connection that only takes.
    pub fn writer(writer: impl Writer + 'static) -> Self {
        Self {
            reader: None,
            writer: Some(Box::new(writer)),
        }
    }
}

/// A configured peer.
pub trait Peer: Send {
    /// Its name in logs and health.
    fn name(&self) -> &str;

    /// What its writer wants; nothing for a peer that only reads.
    fn wants(&self) -> Interests {
        Interests::default()
    }

    /// What is stated of the clock behind its events: the longest time that they take to arrive in
    /// seconds, and what to do when the clock is off.
    fn clock(&self) -> (Option<f64>, ClockRule) {
        (None, ClockRule::Refuse)
    }

    /// Takes what it needs of the rest of the config; called once, before it is opened.
    fn set_up(&mut self, _config: &Config) {}

    /// Connects, listens, or opens the file. `playback` is the clock that recordings share.
    ///
    /// # Errors
    /// [`PeerError`] when it cannot be reached, read or made; it is tried again later.
    fn open(&self, playback: &Playback) -> Result<Connection, PeerError>;

    /// Reports every field of its config that cannot be right.
    fn check(&self, _check: &mut Checker) {}

    /// The address that it listens on, `host:port`, if it is a server.
    fn listens(&self) -> Option<&str> {
        None
    }

    /// What no other peer can have beside it: a socket, a serial port, the standard input.
    fn exclusive(&self) -> Vec<String> {
        Vec::new()
    }

    /// Reports what of this machine it needs and does not find now: devices, folders, rights.
    fn check_machine(&self, _check: &mut Checker) {}

    /// The paths in its config, which may be relative to the config file.
    fn paths_mut(&mut self) -> Vec<&mut PathBuf> {
        Vec::new()
    }
}

/// Why a peer cannot be opened, or goes on no longer.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// It cannot be reached, read or written.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, on what.
        what: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// What it sends is not what we expect.
    #[error("{0}")]
    Protocol(String),
    /// A log cannot be read or written.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A recording is over; there is nothing to retry.
    #[error("the recording is over")]
    Ended,
}

impl PeerError {
    /// Makes an I/O error that says what was tried.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
