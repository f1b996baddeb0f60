//! The core with a clock: events as they arrive, and ticks when too little does.
//!
//! The clock is the caller's, so that arrivals of any unpunctuality can be tested.

use std::time::{Duration, Instant};

use super::clock::EventClock;
use super::tick::Ticker;
use crate::core::{Core, CoreCounters};
use crate::event::{Estimate, Event, Match};
use crate::matcher::Matcher;

/// A core whose events come with the moment they arrived.
#[derive(Debug)]
pub struct LiveCore {
    core: Core,
    clock: EventClock,
    ticker: Ticker,
    started: Instant,
}

impl LiveCore {
    /// Ticks `core` when there was no estimate for `tick`.
    pub fn new(core: Core, tick: Duration, now: Instant) -> Self {
        Self {
            core,
            clock: EventClock::default(),
            ticker: Ticker::new(nanoseconds(tick), 0),
            started: now,
        }
    }

    /// What became of the events so far.
    pub fn counters(&self) -> CoreCounters {
        self.core.counters()
    }

    /// The match of the event just handled, if it was a frame that was used.
    pub fn take_match(&mut self) -> Option<Match> {
        self.core.take_match()
    }

    /// Uses another student from the next frame on.
    pub fn set_matcher(&mut self, matcher: Box<dyn Matcher>) {
        self.core.set_matcher(matcher);
    }

    /// How long an event may be waited for.
    pub fn patience(&self, now: Instant) -> Duration {
        let wait_ns = self.ticker.next_ns() - self.elapsed_ns(now);
        Duration::from_nanos(u64::try_from(wait_ns).unwrap_or(0))
    }

    /// Takes in an event that arrived just now.
    pub fn handle(&mut self, event: Event, now: Instant) -> Vec<Estimate> {
        if !matches!(event, Event::SourceState { .. }) {
            self.clock.note(event.time_ns(), now);
        }
        let estimates = self.core.handle(event);
        if !estimates.is_empty() {
            self.ticker.restart(self.elapsed_ns(now));
        }
        estimates
    }

    /// Nothing arrived: dead-reckons, if it is time to.
    pub fn wait_over(&mut self, now: Instant) -> Vec<Estimate> {
        let elapsed_ns = self.elapsed_ns(now);
        if elapsed_ns < self.ticker.next_ns() {
            return Vec::new();
        }
        let estimates = self
            .clock
            .now_ns(now)
            .map_or_else(Vec::new, |now_ns| self.core.tick(now_ns));
        self.ticker.ticked(elapsed_ns, !estimates.is_empty());
        estimates
    }

    fn elapsed_ns(&self, now: Instant) -> i64 {
        nanoseconds(now.saturating_duration_since(self.started))
    }
}

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}
