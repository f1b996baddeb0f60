//! Sentences grouped into epochs.
//!
//! An epoch ends where a sentence of another time begins the next. That would make every fix late by a
//! whole interval, so an epoch also ends once it has every kind of sentence that the epoch before had:
//! receivers repeat themselves. A slow serial port spreads an epoch over most of a second; nothing is cut
//! off by a short wait.

use std::time::Duration;

use chrono::{NaiveDateTime, NaiveTime};

use super::sentence::{Position, Sentence, Velocity};
use crate::peer::covariance::GstSigmas;

/// After this long without a sentence an epoch has ended: the receiver was unplugged, or its epochs are
/// further apart.
const SILENCE: Duration = Duration::from_millis(1200);

/// The sentences of one moment.
#[derive(Debug, Clone, Default)]
pub struct Epoch {
    /// Time of day, UTC.
    pub time: NaiveTime,
    /// GGA or GNS.
    pub position: Option<Position>,
    /// RMC's place.
    pub minimum: Option<Position>,
    /// RMC's date.
    pub date_time: Option<NaiveDateTime>,
    /// GLL.
    pub place: Option<Position>,
    /// RMC's or VTG's.
    pub velocity: Velocity,
    /// GST.
    pub sigmas: Option<GstSigmas>,
    kinds: Kinds,
    arrived: Duration,
}

/// A set of kinds of sentences.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Kinds(u8);

impl Kinds {
    fn of(sentence: &Sentence) -> Self {
        Self(match sentence {
            Sentence::Position { .. } => 1,
            Sentence::Minimum { .. } => 2,
            Sentence::Place { .. } => 4,
            Sentence::Errors { .. } => 8,
            Sentence::Velocity(_) => 16,
            Sentence::Date(_) => 0,
        })
    }

    fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Groups sentences.
#[derive(Debug, Default)]
pub struct Epochs {
    open: Option<Epoch>,
    /// Ended, not yet handed out.
    ended: Option<Epoch>,
    /// The latest epoch that was handed out before the next one began: its time, and every kind of it,
    /// those that came after its end as well.
    handed_out: Option<(NaiveTime, Kinds)>,
    /// The kinds of the epoch before; none before there was one.
    usual: Option<Kinds>,
}

impl Epochs {
    /// Takes a sentence in that arrived at `now`, any monotonic time. Take epochs out after each.
    pub fn add(&mut self, sentence: &Sentence, now: Duration) {
        let kind = Kinds::of(sentence);
        let time = match sentence {
            Sentence::Position { time, .. }
            | Sentence::Minimum { time, .. }
            | Sentence::Place { time, .. }
            | Sentence::Errors { time, .. } => *time,
            // It has no time: it belongs to the epoch that came last.
            Sentence::Velocity(_) => match (&self.open, self.handed_out) {
                (Some(open), _) => open.time,
                (None, Some((time, _))) => time,
                (None, None) => return,
            },
            Sentence::Date(_) => return,
        };
        if let Some((handed_out, kinds)) = &mut self.handed_out {
            if *handed_out == time {
                kinds.add(kind);
                return;
            }
            self.usual = Some(*kinds);
            self.handed_out = None;
        }
        if self.open.as_ref().is_some_and(|open| open.time != time) {
            self.ended = self.open.take();
            self.usual = self.ended.as_ref().map(|ended| ended.kinds);
        }
        let epoch = self.open.get_or_insert_with(|| Epoch {
            time,
            ..Epoch::default()
        });
        epoch.arrived = now;
        epoch.kinds.add(kind);
        match *sentence {
            Sentence::Position { position, .. } => epoch.position = Some(position),
            Sentence::Minimum {
                position,
                date_time,
                velocity,
                ..
            } => {
                epoch.minimum = Some(position);
                epoch.date_time = date_time;
                epoch.velocity = or(velocity, epoch.velocity);
            }
            Sentence::Place { position, .. } => epoch.place = Some(position),
            Sentence::Errors { sigmas, .. } => epoch.sigmas = Some(sigmas),
            Sentence::Velocity(velocity) => epoch.velocity = or(epoch.velocity, velocity),
            Sentence::Date(_) => {}
        }
    }

    /// An epoch that has ended by `now`.
    pub fn take(&mut self, now: Duration) -> Option<Epoch> {
        if let Some(ended) = self.ended.take() {
            return Some(ended);
        }
        let open = self.open.as_ref()?;
        let is_whole = self.usual.is_some_and(|usual| open.kinds.contains(usual));
        if is_whole || now.saturating_sub(open.arrived) >= SILENCE {
            self.finish()
        } else {
            None
        }
    }

    /// The last epoch of a recording.
    pub fn finish(&mut self) -> Option<Epoch> {
        let epoch = self.ended.take().or_else(|| self.open.take())?;
        self.handed_out = Some((epoch.time, epoch.kinds));
        Some(epoch)
    }
}

/// The first's figures, and the second's where it has none.
fn or(first: Velocity, second: Velocity) -> Velocity {
    Velocity {
        speed_mps: first.speed_mps.or(second.speed_mps),
        track_deg: first.track_deg.or(second.track_deg),
    }
}
