//! Work done ahead of who needs it, on threads of its own, handed over in order.
//!
//! Training must not wait for a JPEG decoder. Workers take the next number, make its item, and put
//! it where the consumer finds it; none works further than `depth` items ahead, so memory is
//! bounded. What an item is depends on its number alone, so neither the number of threads nor
//! their timing shows in the result.

use crate::run::Interrupt;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often a consumer that waits looks whether somebody asked to stop.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How many threads work, and how far ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workers {
    /// Threads.
    pub threads: usize,
    /// Items made or being made that nobody took yet, at most.
    pub depth: usize,
}

impl Default for Workers {
    /// Every core, each with an item under way, and two items in hand. At most 32 threads: each
    /// holds a batch and the decoded tiles around it.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = cores.min(32);
        Self {
            threads,
            depth: threads + 2,
        }
    }
}

struct State<T> {
    /// Next number that no worker took.
    next: u64,
    /// Next number that the consumer takes.
    wanted: u64,
    end: u64,
    made: BTreeMap<u64, T>,
    stopped: bool,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    /// An item was made, or a worker died.
    made: Condvar,
    /// An item was taken, or everything stops.
    taken: Condvar,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // The state is whole at every await and unlock; a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self) {
        self.lock().stopped = true;
        self.made.notify_all();
        self.taken.notify_all();
    }

    fn work(&self, depth: u64, make: &(impl Fn(u64) -> T + Sync)) {
        // A worker that panics must not leave the consumer waiting.
        let guard = StopOnPanic(self);
        loop {
            let mut state = self.lock();
            while !state.stopped && state.next < state.end && state.next >= state.wanted + depth {
                state = self
                    .taken
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if state.stopped || state.next >= state.end {
                break;
            }
            let number = state.next;
            state.next += 1;
            drop(state);
            let item = make(number);
            self.lock().made.insert(number, item);
            self.made.notify_all();
        }
        std::mem::forget(guard);
    }
}

struct StopOnPanic<'a, T>(&'a Shared<T>);

impl<T> Drop for StopOnPanic<'_, T> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Where the consumer takes items, in the order of their numbers.
pub struct Ahead<'a, T> {
    shared: &'a Shared<T>,
    interrupt: &'a Interrupt,
}

impl<T> Iterator for Ahead<'_, T> {
    type Item = T;

    /// The next item; waits for it. `None` after the last, and when somebody asked to stop.
    fn next(&mut self) -> Option<T> {
        let mut state = self.shared.lock();
        loop {
            if state.wanted >= state.end {
                return None;
            }
            if self.interrupt.asked() {
                drop(state);
                self.shared.stop();
                return None;
            }
            let wanted = state.wanted;
            if let Some(item) = state.made.remove(&wanted) {
                state.wanted += 1;
                self.shared.taken.notify_all();
                return Some(item);
            }
            if state.stopped {
                return None;
            }
            let waited = self.shared.made.wait_timeout(state, LOOK_EVERY);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Makes the items of `numbers` ahead of `consume`, which may stop early. When `interrupt` was
/// asked for, no further item is made or handed over.
///
/// # Panics
/// When `make` panics.
pub fn ahead<T: Send, R>(
    numbers: Range<u64>,
    workers: Workers,
    interrupt: &Interrupt,
    make: impl Fn(u64) -> T + Sync,
    consume: impl FnOnce(&mut Ahead<T>) -> R,
) -> R {
    let shared = Shared {
        state: Mutex::new(State {
            next: numbers.start,
            wanted: numbers.start,
            end: numbers.end,
            made: BTreeMap::new(),
            stopped: false,
        }),
        made: Condvar::new(),
        taken: Condvar::new(),
    };
    let depth = workers.depth.max(1) as u64;
    let count = numbers.end.saturating_sub(numbers.start);
    let threads = (workers.threads.max(1) as u64).min(count).min(depth);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| shared.work(depth, &make));
        }
        // However the consumer leaves, the workers stop.
        let _stop = StopOnPanic(&shared);
        consume(&mut Ahead {
            shared: &shared,
            interrupt,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    fn never() -> Interrupt {
        Interrupt::default()
    }

    fn workers(threads: usize, depth: usize) -> Workers {
        Workers { threads, depth }
    }

    #[test]
    fn items_come_in_order_whatever_the_threads_and_their_timing() {
        for threads in [1, 2, 7] {
            let make = |number: u64| {
                std::thread::sleep(Duration::from_micros((number * 7919) % 300));
                number * number
            };
            let items: Vec<u64> = ahead(3..60, workers(threads, 4), &never(), make, |items| {
                items.collect()
            });
            assert_eq!(items, (3..60).map(|n| n * n).collect::<Vec<_>>());
        }
    }

    #[test]
    fn no_worker_runs_further_ahead_than_the_depth() {
        let begun = AtomicU64::new(0);
        let make = |number: u64| begun.fetch_max(number + 1, Ordering::SeqCst);
        ahead(0..1000, workers(4, 5), &never(), make, |items| {
            for taken in 1..=20u64 {
                items.next().unwrap();
                std::thread::sleep(Duration::from_millis(1));
                assert!(begun.load(Ordering::SeqCst) <= taken + 5);
            }
        });
        assert!(begun.load(Ordering::SeqCst) <= 25);
    }

    #[test]
    fn nothing_to_make_is_an_empty_sequence() {
        let items: Vec<u64> = ahead(
            5..5,
            Workers::default(),
            &never(),
            |n| n,
            |items| items.collect(),
        );
        assert!(items.is_empty());
    }

    #[test]
    fn a_panic_in_a_worker_reaches_the_caller() {
        let result = std::panic::catch_unwind(|| {
            let make = |number: u64| assert!(number != 3, "three");
            ahead(0..10, workers(2, 3), &never(), make, |items| items.count())
        });
        assert!(result.is_err());
    }

    #[test]
    fn a_consumer_that_waits_hears_the_interrupt() {
        let interrupt = Interrupt::default();
        let (asks, make) = (interrupt.clone(), |number: u64| {
            // The second item never comes.
            while number == 1 && !interrupt.asked() {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let taken = ahead(0..100, workers(1, 1), &interrupt, make, |items| {
            assert!(items.next().is_some());
            asks.ask();
            items.count()
        });
        assert_eq!(taken, 0);
    }
}
