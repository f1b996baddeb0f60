//! The queues to the writers: each gets what it wants, and none can hold up who sends.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crossbeam_channel::Receiver;

use super::queue::OldestDropped;
use crate::port::{Interests, Outbound};

/// The sending side of all writers' queues; clones feed the same queues.
#[derive(Debug, Clone, Default)]
pub struct Outputs {
    outputs: Vec<(Interests, OldestDropped<Outbound>)>,
}

impl Outputs {
    /// Adds a queue of `capacity` for a writer that wants these; gives its receiving side and the
    /// counter of what was dropped.
    pub fn add(
        &mut self,
        interests: Interests,
        capacity: usize,
    ) -> (Receiver<Outbound>, Arc<AtomicU64>) {
        let queue = OldestDropped::new(capacity);
        let ends = (queue.receiver(), queue.counter());
        self.outputs.push((interests, queue));
        ends
    }

    /// Whether any writer wants what `interest` picks out.
    pub fn any(&self, interest: impl Fn(Interests) -> bool) -> bool {
        self.outputs
            .iter()
            .any(|(interests, _)| interest(*interests))
    }

    /// Hands it to every writer that wants it; never waits.
    pub fn send(&self, outbound: &Outbound) {
        for (interests, queue) in &self.outputs {
            if interests.include(outbound) {
                queue.send(outbound.clone());
            }
        }
    }
}
