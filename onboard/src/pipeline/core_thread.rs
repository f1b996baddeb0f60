//! The thread of the core: takes events as they come, hands on what they lead to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, never, select};
use tracing::debug;

use super::live_core::LiveCore;
use super::machine_clock::ArrivalClock;
use super::outputs::Outputs;
use super::queue::OldestDropped;
use super::shadow_thread::Seen;
use super::shared::Shared;
use crate::event::{Arrival, Estimate};
use crate::matcher::Matcher;
use crate::port::{Interests, Outbound};

/// How often health learns what is thought of the clocks, nanoseconds.
const CLOCKS_EVERY_NS: i64 = 200_000_000;

/// The core and who gets what it gives.
pub struct CoreThread {
    pub core: LiveCore,
    pub clock: ArrivalClock,
    pub clocks_noted_ns: i64,
    /// Ends it although sources are still open.
    pub quit: Arc<AtomicBool>,
    pub outputs: Outputs,
    pub shared: Arc<Shared>,
    /// Frames for the student in shadow mode; it never holds anything up.
    pub shadow: OldestDropped<Seen>,
}

enum Input {
    Event(Arrival),
    Matcher(Box<dyn Matcher>),
    Nothing,
}

impl CoreThread {
    /// Runs until every sender of events and frames is gone, or it is told to quit.
    pub fn run(
        mut self,
        mut events: Receiver<Arrival>,
        mut frames: Receiver<Arrival>,
        matchers: &Receiver<Box<dyn Matcher>>,
    ) {
        let (mut events_open, mut frames_open) = (true, true);
        while (events_open || frames_open) && !self.quit.load(Ordering::Relaxed) {
            self.shared.progress.fetch_add(1, Ordering::Relaxed);
            let wait_ns = self.core.next_tick_ns().saturating_sub(self.clock.now_ns());
            let patience = Duration::from_nanos(u64::try_from(wait_ns).unwrap_or(0));
            // Fixes and odometry are cheap and place the frames, so they go first.
            let input = if let Ok(event) = events.try_recv() {
                Input::Event(event)
            } else {
                select! {
                    recv(events) -> event => event.map_or_else(|_| {
                        events_open = false;
                        events = never();
                        Input::Nothing
                    }, Input::Event),
                    recv(frames) -> event => event.map_or_else(|_| {
                        frames_open = false;
                        frames = never();
                        Input::Nothing
                    }, Input::Event),
                    recv(matchers) -> matcher => matcher.map_or(Input::Nothing, Input::Matcher),
                    default(patience) => Input::Nothing,
                }
            };
            match input {
                Input::Event(event) => self.take(event),
                Input::Matcher(matcher) => self.core.set_matcher(matcher),
                Input::Nothing => {
                    let estimates = self.core.wait_over(self.clock.now_ns());
                    self.publish(estimates);
                }
            }
        }
        debug!(counters = ?self.core.counters(), "core is done");
    }

    fn take(&mut self, arrival: Arrival) {
        self.shared.events.fetch_add(1, Ordering::Relaxed);
        let events = Interests::EVENTS | Interests::FIXES | Interests::FRAMES;
        if self.outputs.want(events) {
            self.outputs
                .send(&Outbound::Event(Arc::new(arrival.clone())));
        }
        let estimates = self.core.handle(arrival);
        self.shared.note_counters(self.core.counters());
        self.note_clocks();
        let look = self.core.take_look();
        if let Some(found) = self.core.take_match() {
            let found = Arc::new(found);
            if let Some(look) = look {
                self.shadow.send((found.clone(), Arc::new(look)));
            }
            self.outputs.send(&Outbound::Match(found));
        }
        self.publish(estimates);
    }

    fn note_clocks(&mut self) {
        let now_ns = self.clock.now_ns();
        if now_ns.saturating_sub(self.clocks_noted_ns).saturating_abs() >= CLOCKS_EVERY_NS {
            self.clocks_noted_ns = now_ns;
            self.shared.note_clocks(self.core.clocks(now_ns));
        }
    }

    fn publish(&self, estimates: Vec<Estimate>) {
        for estimate in estimates {
            let estimate = Arc::new(estimate);
            self.shared.note_estimate(&estimate);
            self.outputs.send(&Outbound::Estimate(estimate));
        }
    }
}
