//! The memory pool: memory of dropped device buffers, kept for the next buffer of that size.
//!
//! All work of a device runs in one queue, so memory may be handed on while work that uses it is
//! still queued: what the next owner enqueues runs later. Memory that a recorded graph uses goes
//! to nobody else while the graph lives, because each replay writes there again.

use super::driver::{Address, Driver};
use crate::error::{Error, Result};
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Default)]
pub(super) struct Pool(Mutex<State>);

#[derive(Default)]
struct State {
    /// Free memory, by size.
    free: HashMap<usize, Vec<Address>>,
    /// How many live graphs use an address.
    graphs: HashMap<Address, usize>,
    /// Dropped buffers that only a graph uses, with their size.
    kept: HashMap<Address, usize>,
    /// Addresses used since a recording began.
    recording: Option<HashSet<Address>>,
    in_use: usize,
    /// Allocations made by the driver so far.
    allocations: u64,
}

/// An allocation from a [`Pool`].
pub(super) struct Taken {
    pub address: Address,
    /// Its size, as [`Pool::give`] wants it.
    pub class: usize,
    /// Whether it was used by an earlier buffer.
    pub is_reused: bool,
}

/// How many bytes a [`Pool`] holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolUse {
    /// Bytes in live buffers.
    pub in_use: usize,
    /// Bytes in dropped buffers, ready for reuse.
    pub free: usize,
    /// Bytes in dropped buffers that a recorded step uses.
    pub kept_for_graphs: usize,
    /// Allocations made by the driver.
    pub allocations: u64,
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Memory for `bytes`.
    pub fn take(&self, driver: &dyn Driver, bytes: usize) -> Result<Taken> {
        let class = driver.size_class(bytes);
        let mut state = self.lock();
        // A recording takes what has been free for longest, so that what used it is likely done
        // and need not be waited for.
        let is_recording = state.recording.is_some();
        let free = state.free.get_mut(&class).and_then(|shelf| {
            let has_some = !shelf.is_empty();
            if is_recording {
                has_some.then(|| shelf.remove(0))
            } else {
                shelf.pop()
            }
        });
        let is_reused = free.is_some();
        let address = match free {
            Some(address) => address,
            None => state.allocate(driver, class)?,
        };
        state.in_use += class;
        if let Some(used) = &mut state.recording {
            used.insert(address);
        }
        Ok(Taken {
            address,
            class,
            is_reused,
        })
    }

    /// Takes memory back.
    pub fn give(&self, address: Address, class: usize) {
        let mut state = self.lock();
        state.in_use -= class;
        if state.graphs.contains_key(&address) {
            state.kept.insert(address, class);
        } else {
            state.free.entry(class).or_default().push(address);
        }
    }

    /// Records that work which uses `address` is being enqueued.
    pub fn used(&self, address: Address) {
        if let Some(used) = &mut self.lock().recording {
            used.insert(address);
        }
    }

    /// Whether a step is being recorded.
    pub fn is_recording(&self) -> bool {
        self.lock().recording.is_some()
    }

    /// Begins to record which addresses are used; false when a recording has begun already.
    pub fn begin_recording(&self) -> bool {
        let mut state = self.lock();
        let begins = state.recording.is_none();
        state.recording.get_or_insert_default();
        begins
    }

    /// Ends the recording. The addresses used since belong to the graph until [`Pool::forget`].
    pub fn end_recording(&self) -> HashSet<Address> {
        let mut state = self.lock();
        let used = state.recording.take().unwrap_or_default();
        for address in &used {
            *state.graphs.entry(*address).or_default() += 1;
        }
        let State { free, kept, .. } = &mut *state;
        for (class, shelf) in free {
            shelf.retain(|address| {
                let is_used = used.contains(address);
                if is_used {
                    kept.insert(*address, *class);
                }
                !is_used
            });
        }
        used
    }

    /// Releases what a dropped graph used.
    pub fn forget(&self, used: &HashSet<Address>) {
        let mut state = self.lock();
        for address in used {
            let graphs = state.graphs.get_mut(address);
            let graphs = graphs.expect("a graph's memory is counted until it is dropped");
            *graphs -= 1;
            if *graphs > 0 {
                continue;
            }
            state.graphs.remove(address);
            if let Some(class) = state.kept.remove(address) {
                state.free.entry(class).or_default().push(*address);
            }
        }
    }

    /// Waits for what is queued, then gives all free memory back to the driver.
    pub fn trim(&self, driver: &dyn Driver) -> Result<()> {
        self.lock().trim(driver)
    }

    pub fn report(&self) -> PoolUse {
        let state = self.lock();
        PoolUse {
            in_use: state.in_use,
            free: state.free.iter().map(|(class, s)| class * s.len()).sum(),
            kept_for_graphs: state.kept.values().sum(),
            allocations: state.allocations,
        }
    }
}

impl State {
    fn allocate(&mut self, driver: &dyn Driver, class: usize) -> Result<Address> {
        self.allocations += 1;
        if let Some(address) = driver.allocate(class)? {
            return Ok(address);
        }
        // Free memory of other sizes may make room. Within a recording, waiting is impossible.
        if self.recording.is_none() {
            self.trim(driver)?;
            if let Some(address) = driver.allocate(class)? {
                return Ok(address);
            }
        }
        let memory = driver.memory()?;
        Err(Error::OutOfMemory {
            device: driver.name(),
            asked: class,
            in_use: self.in_use,
            free: memory.free,
            total: memory.total,
        })
    }

    fn trim(&mut self, driver: &dyn Driver) -> Result<()> {
        driver.synchronise()?;
        for (class, shelf) in self.free.drain() {
            for address in shelf {
                // SAFETY: it came from `allocate` with this size. Nobody holds it and no graph
                // uses it (those are in `kept`). What used it has run: buffers come here only
                // after their work was enqueued, under the lock we hold, and we have waited.
                unsafe { driver.free(address, class) };
            }
        }
        Ok(())
    }
}
