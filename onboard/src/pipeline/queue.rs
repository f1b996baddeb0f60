//! A bounded queue whose sender never waits: the oldest gives way, and is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, TrySendError};

/// The sending side; clones feed the same queue.
#[derive(Debug)]
pub struct OldestDropped<T> {
    sender: Sender<T>,
    oldest: Receiver<T>,
    dropped: Arc<AtomicU64>,
}

impl<T> Clone for OldestDropped<T> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            oldest: self.oldest.clone(),
            dropped: self.dropped.clone(),
        }
    }
}

impl<T> OldestDropped<T> {
    /// A queue for `capacity` items.
    pub fn new(capacity: usize) -> Self {
        let (sender, oldest) = crossbeam_channel::bounded(capacity.max(1));
        Self {
            sender,
            oldest,
            dropped: Arc::default(),
        }
    }

    /// The receiving side.
    pub fn receiver(&self) -> Receiver<T> {
        self.oldest.clone()
    }

    /// How many were dropped, readable after the queue is gone.
    pub fn counter(&self) -> Arc<AtomicU64> {
        self.dropped.clone()
    }

    /// Puts an item in, at the price of the oldest if need be.
    pub fn send(&self, item: T) {
        let mut item = item;
        while let Err(TrySendError::Full(back)) = self.sender.try_send(item) {
            item = back;
            if self.oldest.try_recv().is_ok() {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_gives_way_and_is_counted() {
        let queue = OldestDropped::new(2);
        let (receiver, counter) = (queue.receiver(), queue.counter());
        (0..5).for_each(|item| queue.send(item));
        drop(queue);
        assert_eq!(receiver.iter().collect::<Vec<_>>(), [3, 4]);
        assert_eq!(counter.load(Ordering::Relaxed), 3);
    }
}
