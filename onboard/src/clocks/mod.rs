//! The clocks of the sources: what time it is, and whose stamps may be believed.
//!
//! Every event brings two times: the stamp that its source gave it, and when it arrived, on the one clock
//! of this machine. From the difference each source's clock is judged by itself. GNSS leads: what the
//! receiver's stamps say is UTC ([`lead`]). All others must fit it within their stated latency
//! ([`follower`]); what does not is set aside, named with the offset that was found, and used again when
//! it is right, or corrected if the config allows that. The machine's own idea of UTC plays no part.

mod config;
mod follower;
mod lead;
mod offset;
#[cfg(test)]
mod tests;
mod window;

use std::sync::Arc;

use serde::Serialize;

pub use self::config::{
    CAMERA_LATENCY_S, ClockConfig, ClockRule, GNSS_LATENCY_S, ODOMETRY_LATENCY_S, SourceClock,
};
use self::follower::Follower;
use self::lead::{Lead, LeadVerdict};
use self::offset::Moment;
use crate::event::{Arrival, Event};

const SECOND_NS: i64 = 1_000_000_000;
/// Clocks that differ by less are equal, nanoseconds.
const TOLERANCE_NS: i64 = SECOND_NS / 4;
/// How much slower than real time "now" goes while it is ahead of every source, as a divisor.
const SLEW: i64 = 10;
/// Times from 1970 to 2223 are used, so that sums of them are times too, nanoseconds UTC.
const USABLE_NS: std::ops::Range<i64> = 0..8_000_000_000 * SECOND_NS;
/// More sources than anybody has; those beyond are not used.
const MOST_STREAMS: usize = 256;
/// More cameras than any source has; those beyond share a clock.
const MOST_CAMERAS: usize = 16;

/// What a source delivers. Each kind has its own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// Fixes.
    Gnss,
    /// Frames.
    Camera,
    /// Odometry samples.
    Odometry,
}

impl EventKind {
    /// The kind of an event; none for what has no clock.
    pub fn of(event: &Event) -> Option<Self> {
        match event {
            Event::Gnss(_) => Some(Self::Gnss),
            Event::Frame(_) => Some(Self::Camera),
            Event::Odometry(_) => Some(Self::Odometry),
            Event::SourceState { .. } => None,
        }
    }

    fn plural(self) -> &'static str {
        match self {
            Self::Gnss => "fixes",
            Self::Camera => "frames",
            Self::Odometry => "samples",
        }
    }
}

/// What is thought of a source's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockState {
    /// There is no GNSS time yet to judge it by.
    Waiting,
    /// It is right.
    Right,
    /// It is off, and its events are not used.
    Off,
    /// It is off by a constant that is taken off.
    Corrected,
}

/// One source's clock, for people.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClockHealth {
    /// Whose it is.
    pub source: String,
    /// Of which events.
    pub kind: EventKind,
    /// What is thought of it.
    pub state: ClockState,
    /// Its stamps minus GNSS time for the events that took the least time to arrive, seconds.
    pub offset_s: f64,
    /// Events that were not used because of their stamps.
    pub set_aside: u64,
    /// What is the matter, as a sentence with the source's name; none when nothing is.
    pub problem: Option<String>,
}

/// What becomes of an event because of its stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeVerdict {
    /// It is used.
    Use,
    /// It is not: its clock is off.
    SetAside,
    /// It is not: there is no GNSS time yet to judge it by.
    Wait,
    /// GNSS time changed: everything starts over with this fix.
    StartOver,
}

/// The clocks of all sources.
#[derive(Debug, Clone, Default)]
pub struct Clocks {
    config: ClockConfig,
    streams: Vec<Stream>,
    lead: Option<Lead>,
    /// "Now" minus GNSS time, and when that was.
    ahead: (i64, i64),
}

/// One kind of event from one source.
#[derive(Debug, Clone)]
struct Stream {
    source: Arc<str>,
    kind: EventKind,
    /// The camera, where frames of several come from one source.
    camera: Option<String>,
    follower: Follower,
    last_arrived_ns: Option<i64>,
}

impl Stream {
    /// The source, and the camera where that has another name.
    fn name(&self) -> String {
        match self.camera.as_deref() {
            Some(camera) if *camera != *self.source => format!("{} (camera {camera})", self.source),
            _ => self.source.to_string(),
        }
    }
}

impl Clocks {
    /// No event yet.
    pub fn new(config: ClockConfig) -> Self {
        Self {
            config,
            ..Self::default()
        }
    }

    /// GNSS time at this arrival, nanoseconds UTC; none before the first fix.
    pub fn gnss_ns(&self, arrived_ns: i64) -> Option<i64> {
        Some(self.lead.as_ref()?.utc_ns(arrived_ns))
    }

    /// The time now, nanoseconds UTC; none before the first fix. That is GNSS time, or what other
    /// sources in good standing say whose events take less time to arrive.
    pub fn now_ns(&mut self, arrived_ns: i64) -> Option<i64> {
        let lead = self.lead.as_ref()?;
        let gnss_ns = lead.utc_ns(arrived_ns);
        let shift_ns = gnss_ns.saturating_sub(arrived_ns);
        let ahead_ns = self
            .streams
            .iter()
            .filter_map(|stream| stream.follower.used_offset_ns(arrived_ns))
            .map(|offset_ns| offset_ns.saturating_sub(shift_ns))
            .fold(0, i64::max)
            .min(lead.ahead_ns());
        // It never stands still because a quick source fell silent.
        let (before_ns, since_ns) = self.ahead;
        let passed_ns = arrived_ns.saturating_sub(since_ns).max(0);
        let ahead_ns = ahead_ns.max(before_ns.saturating_sub(passed_ns / SLEW));
        self.ahead = (ahead_ns, arrived_ns.max(since_ns));
        Some(gnss_ns.saturating_add(ahead_ns))
    }

    /// Judges an arrival by its stamp, and corrects that where the config allows it.
    pub fn judge(&mut self, arrival: &mut Arrival) -> TimeVerdict {
        let Some(kind) = EventKind::of(&arrival.event) else {
            return TimeVerdict::Use;
        };
        let Some(stream) = self.stream(arrival, kind) else {
            return TimeVerdict::SetAside;
        };
        let (stamp, arrived_ns) = (arrival.event.time_ns(), arrival.arrived_ns);
        if kind == EventKind::Gnss {
            if !USABLE_NS.contains(&stamp) {
                self.streams[stream].follower.wait();
                return TimeVerdict::SetAside;
            }
            let latency_ns = (self.config.of(&arrival.source, kind).latency_s * 1e9) as i64;
            match &mut self.lead {
                None => self.lead = Some(Lead::new(stream, stamp, arrived_ns, latency_ns)),
                Some(lead) if lead.stream != stream && lead.is_silent(arrived_ns) => {
                    lead.hand_over(stream, latency_ns);
                }
                Some(_) => {}
            }
        }
        let Some(lead) = &mut self.lead else {
            self.streams[stream].follower.wait();
            return TimeVerdict::Wait;
        };
        if lead.stream == stream {
            let verdict = lead.judge(stamp, arrived_ns);
            return self.follow_lead(stream, verdict);
        }
        let at = Moment {
            arrived_ns,
            utc_ns: lead.utc_ns(arrived_ns),
            ahead_ns: lead.ahead_ns(),
        };
        match self.streams[stream].follower.judge(stamp, at) {
            Some(time_ns) if USABLE_NS.contains(&time_ns) => {
                arrival.event.set_time_ns(time_ns);
                TimeVerdict::Use
            }
            _ => TimeVerdict::SetAside,
        }
    }

    /// Whether this arrived more than a second before the one of its stream that came before it. That
    /// only happens where a log starts over, and then all streams begin anew.
    pub fn went_back(&mut self, arrival: &Arrival) -> bool {
        let found = EventKind::of(&arrival.event).and_then(|kind| self.stream(arrival, kind));
        let Some(stream) = found else { return false };
        let before_ns = self.streams[stream].last_arrived_ns;
        let back = before_ns
            .is_some_and(|before_ns| before_ns.saturating_sub(arrival.arrived_ns) > SECOND_NS);
        if back {
            for stream in &mut self.streams {
                stream.last_arrived_ns = None;
            }
        }
        self.streams[stream].last_arrived_ns = Some(arrival.arrived_ns);
        back
    }

    fn follow_lead(&mut self, stream: usize, verdict: LeadVerdict) -> TimeVerdict {
        match verdict {
            LeadVerdict::Fits => TimeVerdict::Use,
            LeadVerdict::Doubted => {
                self.streams[stream].follower.wait();
                TimeVerdict::SetAside
            }
            LeadVerdict::Changed => {
                self.ahead = (0, i64::MIN);
                for stream in &mut self.streams {
                    stream.follower.start_over();
                }
                TimeVerdict::StartOver
            }
        }
    }

    /// Something else than time passing may have happened to the machine's clock: the next fix is
    /// believed whatever it says.
    pub fn doubt(&mut self) {
        if let Some(lead) = &mut self.lead {
            lead.doubt();
        }
    }

    /// How often the latency of any camera's or odometer's events has changed at once by much.
    pub fn steps(&self) -> u64 {
        let followers = self
            .streams
            .iter()
            .filter(|stream| stream.kind != EventKind::Gnss);
        followers.map(|stream| stream.follower.steps()).sum()
    }

    /// What is thought of each clock; `arrived_now_ns` is now.
    pub fn health(&self, arrived_now_ns: i64) -> Vec<ClockHealth> {
        let streams = self.streams.iter().enumerate();
        streams
            .map(|(index, stream)| self.stream_health(index, stream, arrived_now_ns))
            .collect()
    }

    /// What is the matter with the clock of this source's events, as a sentence.
    pub fn problem(&self, source: &str, kind: EventKind) -> Option<String> {
        let numbered = self.streams.iter().enumerate();
        let mut found =
            numbered.filter(|(_, stream)| *stream.source == *source && stream.kind == kind);
        found.find_map(|(index, _)| self.stream_problem(index))
    }

    fn stream_health(&self, index: usize, stream: &Stream, arrived_now_ns: i64) -> ClockHealth {
        let lead = self.lead.as_ref();
        let leads = lead.is_some_and(|lead| lead.stream == index);
        let state = match lead {
            Some(lead) if leads && lead.is_doubted() => ClockState::Off,
            Some(_) if leads => ClockState::Right,
            _ => stream.follower.state(),
        };
        let offset_ns = lead.filter(|_| !leads).map_or(0, |lead| {
            stream.follower.offset_ns(Moment {
                arrived_ns: arrived_now_ns,
                utc_ns: lead.utc_ns(arrived_now_ns),
                ahead_ns: lead.ahead_ns(),
            })
        });
        ClockHealth {
            source: stream.name(),
            kind: stream.kind,
            state,
            offset_s: offset_ns as f64 * 1e-9,
            set_aside: stream.follower.set_aside(),
            problem: self.stream_problem(index),
        }
    }

    fn stream_problem(&self, index: usize) -> Option<String> {
        let stream = &self.streams[index];
        let events = stream.kind.plural();
        let named = |words: &str, outcome: &str| format!("{}: {words}; {outcome}", stream.name());
        if let Some(lead) = self.lead.as_ref().filter(|lead| lead.stream == index) {
            let words = lead.words()?;
            return Some(named(&words, &format!("its {events} are not used")));
        }
        let words = stream.follower.words()?;
        Some(match stream.follower.state() {
            ClockState::Corrected => named(words, "it is corrected"),
            _ => named(words, &format!("its {events} are not used")),
        })
    }

    fn stream(&mut self, arrival: &Arrival, kind: EventKind) -> Option<usize> {
        let camera = match &arrival.event {
            Event::Frame(frame) => Some(frame.camera.as_str()),
            _ => None,
        };
        let of_source = || {
            let numbered = self.streams.iter().enumerate();
            numbered.filter(|(_, stream)| stream.kind == kind && *stream.source == *arrival.source)
        };
        let same_camera = of_source().find(|(_, stream)| stream.camera.as_deref() == camera);
        let shared = || of_source().nth(MOST_CAMERAS - 1);
        let known = same_camera.or_else(shared).map(|(index, _)| index);
        if known.is_some() || self.streams.len() >= MOST_STREAMS {
            return known;
        }
        self.streams.push(Stream {
            source: arrival.source.clone(),
            kind,
            camera: camera.map(str::to_owned),
            follower: Follower::new(kind, self.config.of(&arrival.source, kind)),
            last_arrived_ns: None,
        });
        Some(self.streams.len() - 1)
    }
}
