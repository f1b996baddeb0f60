//! The core with a clock: events as they arrive, and ticks when too little does.
//!
//! The clock is the caller's, so that arrivals of any unpunctuality can be tested, and so that a replay
//! goes through the same as a drive.

use crossfix_calibration::Camera;

use super::tick::Ticker;
use crate::clocks::ClockHealth;
use crate::core::{Core, CoreCounters};
use crate::event::{Arrival, Estimate, Look, Match};
use crate::matcher::Matcher;

/// No tick is further away than this, unless time went back, nanoseconds.
const FAR_NS: i64 = 20_000_000_000;
/// Nor is one ever this late, unless nothing was played before, nanoseconds.
const LATE_NS: i64 = 600_000_000_000;

/// A core that is ticked. All times are nanoseconds on the clock of the arrivals.
#[derive(Debug)]
pub struct LiveCore {
    core: Core,
    ticker: Ticker,
}

impl LiveCore {
    /// Ticks `core` when there was no estimate for `tick_ns`.
    pub fn new(core: Core, tick_ns: i64, now_ns: i64) -> Self {
        Self {
            core,
            ticker: Ticker::new(tick_ns, now_ns),
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

    /// What that match was made of.
    pub fn take_look(&mut self) -> Option<Look> {
        self.core.take_look()
    }

    /// Uses another student from the next frame on.
    pub fn set_matcher(&mut self, matcher: Box<dyn Matcher>) {
        self.core.set_matcher(matcher);
    }

    /// What is thought of each source's clock.
    pub fn clocks(&self, now_ns: i64) -> Vec<ClockHealth> {
        self.core.clocks(now_ns)
    }

    /// Uses another camera calibration from now on.
    pub fn set_camera(&mut self, camera: Camera) {
        self.core.set_camera(camera);
    }

    /// When [`LiveCore::wait_over`] is due.
    pub fn next_tick_ns(&self) -> i64 {
        self.ticker.next_ns()
    }

    /// Takes in an event.
    pub fn handle(&mut self, arrival: Arrival) -> Vec<Estimate> {
        let arrived_ns = arrival.arrived_ns;
        let estimates = self.core.handle(arrival);
        // The clock of the arrivals may have been set, or this is the first one.
        let wait_ns = self.ticker.next_ns().saturating_sub(arrived_ns);
        if !estimates.is_empty() || !(-LATE_NS..=FAR_NS).contains(&wait_ns) {
            self.ticker.restart(arrived_ns);
        }
        estimates
    }

    /// Nothing arrived: dead-reckons, if it is time to.
    pub fn wait_over(&mut self, now_ns: i64) -> Vec<Estimate> {
        if now_ns < self.ticker.next_ns() {
            return Vec::new();
        }
        let estimates = self.core.tick(now_ns);
        self.ticker.ticked(now_ns, !estimates.is_empty());
        estimates
    }
}
