//! The thread of the core: takes events as they come, hands on what they lead to.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crossbeam_channel::{Receiver, never, select};
use tracing::debug;

use super::live_core::LiveCore;
use super::outputs::Outputs;
use super::shared::Shared;
use crate::event::{Estimate, Event};
use crate::matcher::Matcher;
use crate::port::Outbound;

/// The core and who gets what it gives.
pub struct CoreThread {
    pub core: LiveCore,
    pub outputs: Outputs,
    pub shared: Arc<Shared>,
}

enum Input {
    Event(Event),
    Matcher(Box<dyn Matcher>),
    Nothing,
}

impl CoreThread {
    /// Runs until every sender of events and frames is gone.
    pub fn run(
        mut self,
        mut events: Receiver<Event>,
        mut frames: Receiver<Event>,
        matchers: &Receiver<Box<dyn Matcher>>,
    ) {
        let (mut events_open, mut frames_open) = (true, true);
        while events_open || frames_open {
            self.shared.progress.fetch_add(1, Ordering::Relaxed);
            let patience = self.core.patience(Instant::now());
            // Fixes and odometry are cheap and place the frames, so they go first.
            let input = match events.try_recv() {
                Ok(event) => Input::Event(event),
                Err(_) => select! {
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
                },
            };
            match input {
                Input::Event(event) => self.take(event),
                Input::Matcher(matcher) => self.core.set_matcher(matcher),
                Input::Nothing => {
                    let estimates = self.core.wait_over(Instant::now());
                    self.publish(estimates);
                }
            }
        }
        debug!(counters = ?self.core.counters(), "core is done");
    }

    fn take(&mut self, event: Event) {
        self.shared.events.fetch_add(1, Ordering::Relaxed);
        if self.outputs.any(|interests| interests.events) {
            self.outputs.send(&Outbound::Event(Arc::new(event.clone())));
        }
        let estimates = self.core.handle(event, Instant::now());
        self.shared.note_counters(self.core.counters());
        if let Some(found) = self.core.take_match() {
            self.outputs.send(&Outbound::Match(Arc::new(found)));
        }
        self.publish(estimates);
    }

    fn publish(&self, estimates: Vec<Estimate>) {
        for estimate in estimates {
            let estimate = Arc::new(estimate);
            self.shared.note_estimate(&estimate);
            self.outputs.send(&Outbound::Estimate(estimate));
        }
    }
}
