//! The core with a clock: events as they arrive, and ticks when too little does.
//!
//! The clock is the caller's, so that arrivals of any unpunctuality can be tested.

use std::time::{Duration, Instant};

use super::clock::EventClock;
use crate::core::{Core, CoreCounters};
use crate::event::{Estimate, Event};

/// A core that is told when things arrive.
#[derive(Debug)]
pub struct LiveCore {
    core: Core,
    clock: EventClock,
    tick: Duration,
    next_tick: Instant,
}

impl LiveCore {
    /// Ticks `core` when there was no estimate for `tick`.
    pub fn new(core: Core, tick: Duration, now: Instant) -> Self {
        Self {
            core,
            clock: EventClock::default(),
            tick,
            next_tick: now + tick,
        }
    }

    /// What became of the events so far.
    pub fn counters(&self) -> CoreCounters {
        self.core.counters()
    }

    /// How long an event may be waited for.
    pub fn patience(&self, now: Instant) -> Duration {
        self.next_tick.saturating_duration_since(now)
    }

    /// Takes in an event that arrived just now.
    pub fn handle(&mut self, event: Event, now: Instant) -> Vec<Estimate> {
        if !matches!(event, Event::SourceState { .. }) {
            self.clock.saw(event.time_ns(), now);
        }
        let estimates = self.core.handle(event);
        if !estimates.is_empty() {
            self.next_tick = now + self.tick;
        }
        estimates
    }

    /// Nothing arrived: dead-reckons, if it is time to.
    pub fn wait_over(&mut self, now: Instant) -> Vec<Estimate> {
        if now < self.next_tick {
            return Vec::new();
        }
        let estimates = self
            .clock
            .now_ns(now)
            .map_or_else(Vec::new, |now_ns| self.core.tick(now_ns));
        // Without an estimate the core waits for a fix that is due; it is asked again soon.
        self.next_tick = now
            + if estimates.is_empty() {
                self.tick / 4
            } else {
                self.tick
            };
        estimates
    }
}
