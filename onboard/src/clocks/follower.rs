//! The clock of every stream that does not lead: each stamp must fit GNSS time at its arrival.

use super::config::{ClockRule, SourceClock};
use super::offset::{Epoch, Moment, Scale, Unit};
use super::window::RecentMax;
use super::{ClockState, EventKind, SECOND_NS, TOLERANCE_NS};

/// A least latency over this time that differs by more than this from the one before is another way from the
/// source to here, or another way of stamping, nanoseconds.
const STEP_STRETCH_NS: i64 = SECOND_NS;
const STEP_NS: i64 = 150_000_000;
/// How far back the least latency is looked for, nanoseconds.
const STRETCH_NS: i64 = 5 * SECOND_NS;
/// Events in a row that change what is thought of a clock, and the time they span, nanoseconds.
const AGREEING: usize = 3;
const AGREEING_NS: i64 = SECOND_NS;
/// The same before an offset that is only measured is taken off.
const MEASURING: usize = 10;
const MEASURING_NS: i64 = 5 * SECOND_NS;
/// Silence that counts as a stall, after which events may come late, nanoseconds.
const STALL_NS: i64 = SECOND_NS / 2;
/// Time after which stamps without any common offset are told, nanoseconds.
const JUMPING_NS: i64 = 3 * SECOND_NS;
/// Words that only differ in their figures are told this often, nanoseconds.
const REPEAT_NS: i64 = 10 * SECOND_NS;
/// A clock that counts less than this part of the time that passes stands still.
const STANDING: i64 = 10;

/// What is known of one stream's clock.
#[derive(Debug, Clone)]
pub struct Follower {
    latency_ns: i64,
    rule: ClockRule,
    kind: EventKind,
    /// Stamps minus arrivals, as they come.
    raw: RecentMax,
    /// Stamps minus arrivals, as they are used.
    used: Option<RecentMax>,
    /// The same over a short time, what it usually is, and how often that has changed.
    lately: RecentMax,
    usual_ns: Option<i64>,
    steps: u64,
    last: Option<(i64, i64)>, // stamp and arrival
    /// The last silence: when it ended, and how long it was.
    stall: (i64, i64),
    /// The run of events that fit, or that do not.
    run: Run,
    state: ClockState,
    scale: Option<Scale>,
    said: Option<Said>,
    set_aside: u64,
}

/// Why events are not used, in words, with the offset that was found then.
#[derive(Debug, Clone)]
struct Said {
    words: String,
    offset_s: f64,
    at_ns: i64,
    /// Whether these were the first words, made of one event.
    first: bool,
}

/// Events in a row that fit or do not.
#[derive(Debug, Clone, Copy)]
struct Run {
    fits: bool,
    count: usize,
    began_ns: i64,
    first_stamp: i64,
    /// Smallest and largest stamp minus arrival, and when that began.
    spread: [i64; 2],
    steady_since_ns: i64,
    steady_count: usize,
}

impl Follower {
    /// Nothing came yet.
    pub fn new(kind: EventKind, stated: SourceClock) -> Self {
        Self {
            latency_ns: (stated.latency_s * 1e9) as i64,
            rule: stated.rule,
            kind,
            raw: RecentMax::new(STRETCH_NS),
            used: None,
            lately: RecentMax::new(STEP_STRETCH_NS),
            usual_ns: None,
            steps: 0,
            last: None,
            stall: (i64::MIN, 0),
            run: Run::new(true, 0, 0),
            state: ClockState::Waiting,
            scale: None,
            said: None,
            set_aside: 0,
        }
    }

    /// The time of an event in UTC, if it is to be used.
    pub fn judge(&mut self, stamp: i64, at: Moment) -> Option<i64> {
        let silence_ns = self
            .last
            .map_or(0, |(_, last_ns)| at.arrived_ns.saturating_sub(last_ns));
        if silence_ns > STALL_NS {
            self.stall = (at.arrived_ns, silence_ns);
        }
        // Two pictures of one moment are one picture, or a clock that stands still.
        let repeats = self.kind == EventKind::Camera
            && self.last.is_some_and(|(last_stamp, _)| last_stamp == stamp);
        self.last = Some((stamp, at.arrived_ns));
        self.raw
            .add(stamp.saturating_sub(at.arrived_ns), at.arrived_ns);
        let correction = self.scale.filter(|_| self.state == ClockState::Corrected);
        let time_ns = correction.map_or(stamp, |scale| scale.utc_ns(stamp, at));
        let fits = self.fits(time_ns, at) && !repeats;
        self.run.note(fits, stamp, at.arrived_ns);
        self.change_state(stamp, at);
        let used = fits
            && matches!(self.state, ClockState::Right | ClockState::Corrected)
            && (self.state == ClockState::Corrected) == correction.is_some();
        if !used {
            self.set_aside += 1;
            return None;
        }
        self.used
            .get_or_insert_with(|| RecentMax::new(STRETCH_NS))
            .add(time_ns.saturating_sub(at.arrived_ns), at.arrived_ns);
        self.note_step(time_ns, at);
        Some(time_ns)
    }

    /// Whether the least latency is another one now.
    fn note_step(&mut self, time_ns: i64, at: Moment) {
        let ahead_ns = time_ns.saturating_sub(at.utc_ns);
        self.lately.add(ahead_ns, at.arrived_ns);
        let lately_ns = self.lately.get().unwrap_or(ahead_ns);
        let usual_ns = *self.usual_ns.get_or_insert(lately_ns);
        if lately_ns.saturating_sub(usual_ns).saturating_abs() > STEP_NS {
            self.usual_ns = Some(lately_ns);
            self.steps += 1;
        }
    }

    /// How often the least latency has changed by much: what was learned of the stamps' errors is void then.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// An event that came before there was any GNSS time.
    pub fn wait(&mut self) {
        self.set_aside += 1;
    }

    /// Whether an event of this time can have arrived now.
    fn fits(&self, time_ns: i64, at: Moment) -> bool {
        let ahead_ns = time_ns.saturating_sub(at.utc_ns);
        if ahead_ns > at.ahead_ns {
            return false;
        }
        let late_ns = ahead_ns
            .saturating_neg()
            .saturating_sub(self.latency_ns + TOLERANCE_NS);
        // After a stall what was held back comes at once, late by up to the length of the stall.
        let (ended_ns, stalled_ns) = self.stall;
        late_ns <= 0
            || (late_ns <= stalled_ns && at.arrived_ns.saturating_sub(ended_ns) <= stalled_ns)
    }

    fn change_state(&mut self, stamp: i64, at: Moment) {
        let run = self.run;
        let lasts = |count: usize, ns: i64| {
            run.count >= count && at.arrived_ns.saturating_sub(run.began_ns) >= ns
        };
        match self.state {
            // The first event that fits is used; so is each that fits until several do not.
            ClockState::Waiting | ClockState::Right if run.fits => {
                self.state = ClockState::Right;
                self.said = None;
            }
            ClockState::Waiting => self.state = ClockState::Off,
            ClockState::Right if lasts(AGREEING, 0) => self.state = ClockState::Off,
            ClockState::Off if run.fits && lasts(AGREEING, AGREEING_NS) => {
                self.state = ClockState::Right;
                self.scale = None;
                self.said = None;
            }
            ClockState::Corrected if !run.fits && lasts(AGREEING, AGREEING_NS) => {
                self.state = ClockState::Off;
                self.scale = None;
            }
            _ => {}
        }
        if self.state == ClockState::Off && !run.fits {
            self.look(stamp, at);
        }
    }

    /// Finds out what is the matter with a clock that is off.
    fn look(&mut self, stamp: i64, at: Moment) {
        let run = self.run;
        let passed_ns = at.arrived_ns.saturating_sub(run.began_ns);
        let counted = stamp.saturating_sub(run.first_stamp);
        let offset_ns = self.offset_ns(at);
        let offset_s = offset_ns as f64 * 1e-9;
        let scale = match Scale::of(stamp, at) {
            scale if scale.unit != Unit::Nanoseconds => scale,
            // By the stamp that an event would have that takes the least time to arrive.
            _ => Scale::of(at.utc_ns.saturating_add(offset_ns), at),
        };
        let other_unit = scale.unit != Unit::Nanoseconds;
        let stands = run.count >= AGREEING
            && counted.saturating_abs() < passed_ns / STANDING
            && (counted == 0 || passed_ns > 2 * AGREEING_NS);
        let steady_ns = at.arrived_ns.saturating_sub(run.steady_since_ns);
        let steady = |count, ns| run.steady_count >= count && steady_ns >= ns;
        let jumps = passed_ns > JUMPING_NS && !steady(AGREEING, 0);
        let words = match Unit::of_rate(counted, passed_ns) {
            _ if other_unit => scale.words(offset_s),
            Some(unit) if run.count >= MEASURING && passed_ns > AGREEING_NS => {
                unit.words_of_unknown_start()
            }
            _ if stands => "its clock stands still".to_owned(),
            _ if jumps || scale.epoch == Epoch::Utc(0) => "its clock jumps about".to_owned(),
            _ => scale.words(offset_s),
        };
        self.say(words, offset_s, at.arrived_ns);
        let known = scale.is_exact() && scale.epoch != Epoch::Utc(0);
        let constant = if other_unit {
            true
        } else if known {
            steady(AGREEING, AGREEING_NS)
        } else {
            steady(MEASURING, MEASURING_NS)
        };
        let fine = scale.unit != Unit::Seconds && !stands;
        if self.rule == ClockRule::Correct && constant && fine {
            self.scale = Some(scale);
            self.state = ClockState::Corrected;
            self.run = Run::new(true, stamp, at.arrived_ns);
        }
    }

    /// Keeps what is the matter, but does not repeat what a drifting clock does at every event.
    fn say(&mut self, words: String, offset_s: f64, now_ns: i64) {
        let new = self.said.as_ref().is_none_or(|said| {
            let moved = (offset_s - said.offset_s).abs() > 0.2 + 0.01 * said.offset_s.abs();
            let other = moved || !said_alike(&said.words, &words);
            let age_ns = now_ns.saturating_sub(said.at_ns);
            other && (age_ns > REPEAT_NS || (said.first && age_ns > 2 * AGREEING_NS))
        });
        if new {
            self.said = Some(Said {
                first: self.said.is_none(),
                words,
                offset_s,
                at_ns: now_ns,
            });
        }
    }

    /// Stamps minus GNSS time, of the events that took the least time to arrive, nanoseconds.
    pub fn offset_ns(&self, at: Moment) -> i64 {
        let shift_ns = at.utc_ns.saturating_sub(at.arrived_ns);
        let raw_ns = if self.run.fits {
            self.raw.get()
        } else {
            Some(self.run.spread[1])
        };
        raw_ns.map_or(0, |raw_ns| raw_ns.saturating_sub(shift_ns))
    }

    /// The largest time minus arrival of what is used; nothing while nothing is.
    pub fn used_offset_ns(&self, arrived_ns: i64) -> Option<i64> {
        let (_, last_ns) = self.last?;
        let fresh = arrived_ns.saturating_sub(last_ns) < 2 * STRETCH_NS;
        self.used.filter(|_| fresh)?.get()
    }

    /// GNSS time changed, so everything is judged anew.
    pub fn start_over(&mut self) {
        let set_aside = self.set_aside;
        let stated = SourceClock {
            latency_s: self.latency_ns as f64 * 1e-9,
            rule: self.rule,
        };
        *self = Self {
            set_aside,
            ..Self::new(self.kind, stated)
        };
    }

    /// What is thought of the clock.
    pub fn state(&self) -> ClockState {
        self.state
    }

    /// Events that were not used.
    pub fn set_aside(&self) -> u64 {
        self.set_aside
    }

    /// What is the matter, in words; nothing when all is well.
    pub fn words(&self) -> Option<&str> {
        let off = matches!(self.state, ClockState::Off | ClockState::Corrected);
        self.said
            .as_ref()
            .filter(|_| off)
            .map(|said| said.words.as_str())
    }
}

/// Whether two sentences differ in their figures only.
fn said_alike(one: &str, other: &str) -> bool {
    let without_figures = |text: &str| -> String {
        text.chars()
            .filter(|letter| !letter.is_ascii_digit())
            .collect()
    };
    without_figures(one) == without_figures(other)
}

impl Run {
    fn new(fits: bool, stamp: i64, arrived_ns: i64) -> Self {
        Self {
            fits,
            count: 0,
            began_ns: arrived_ns,
            first_stamp: stamp,
            spread: [i64::MAX, i64::MIN],
            steady_since_ns: arrived_ns,
            steady_count: 0,
        }
    }

    fn note(&mut self, fits: bool, stamp: i64, arrived_ns: i64) {
        if fits != self.fits {
            *self = Self::new(fits, stamp, arrived_ns);
        }
        self.count += 1;
        let raw_ns = stamp.saturating_sub(arrived_ns);
        let [low, high] = self.spread;
        self.spread = [low.min(raw_ns), high.max(raw_ns)];
        self.steady_count += 1;
        if self.spread[1].saturating_sub(self.spread[0]) > SECOND_NS {
            self.spread = [raw_ns, raw_ns];
            self.steady_since_ns = arrived_ns;
            self.steady_count = 1;
        }
    }
}
