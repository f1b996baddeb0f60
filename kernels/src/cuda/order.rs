//! Dependencies between the nodes of a recorded step. Outside a recording, work runs in the order it
//! was enqueued. A recorded node depends only on the last writer of each buffer it reads, and on the
//! readers and the writer of each buffer it writes; independent nodes may run concurrently, such as
//! the two encoders of a network, or the gradients of a layer's input and weight.

use super::Cuda;
use super::driver::Address;
use crate::error::Result;
use std::collections::{BTreeSet, HashMap};
use std::sync::{MutexGuard, PoisonError};

/// The nodes of a recording, by their number.
#[derive(Default)]
pub(super) struct Order {
    nodes: usize,
    written_by: HashMap<Address, usize>,
    read_by: HashMap<Address, Vec<usize>>,
    /// The last node that depends on all before it; every later node depends on it.
    barrier: Option<usize>,
    /// Nodes on which no other depends yet.
    last: BTreeSet<usize>,
}

impl Order {
    /// Adds a node and returns the nodes it depends on. Buffers are identified by their address.
    fn add_node(&mut self, reads: &[Address], writes: &[Address]) -> Vec<usize> {
        let mut after = BTreeSet::new();
        for address in reads.iter().chain(writes) {
            after.extend(self.written_by.get(address));
        }
        for address in writes {
            after.extend(self.read_by.remove(address).unwrap_or_default());
        }
        if after.is_empty() {
            after.extend(self.barrier);
        }
        for address in reads {
            self.read_by.entry(*address).or_default().push(self.nodes);
        }
        for address in writes {
            self.written_by.insert(*address, self.nodes);
        }
        self.count(after)
    }

    /// Adds a node that depends on all others.
    fn barrier(&mut self) -> Vec<usize> {
        self.written_by.clear();
        self.read_by.clear();
        self.barrier = Some(self.nodes);
        self.count(self.last.clone())
    }

    fn count(&mut self, after: BTreeSet<usize>) -> Vec<usize> {
        for node in &after {
            self.last.remove(node);
        }
        self.last.insert(self.nodes);
        self.nodes += 1;
        after.into_iter().collect()
    }
}

impl Cuda {
    pub(super) fn begin_ordering(&self) {
        let keeps = self
            .0
            .keeps_order
            .load(std::sync::atomic::Ordering::Relaxed);
        *self.order() = (!keeps).then(Order::default);
    }

    pub(super) fn end_ordering(&self) {
        *self.order() = None;
    }

    /// Declares the buffers that the next enqueued work reads and writes.
    pub(super) fn next_uses(&self, reads: &[Address], writes: &[Address]) -> Result<()> {
        let after = match &mut *self.order() {
            Some(order) => order.add_node(reads, writes),
            None => return Ok(()),
        };
        self.0.driver.begin_node(&after)
    }

    /// Declares that the next enqueued work uses buffers not listed here.
    pub(super) fn next_uses_anything(&self) -> Result<()> {
        let after = match &mut *self.order() {
            Some(order) => order.barrier(),
            None => return Ok(()),
        };
        self.0.driver.begin_node(&after)
    }

    fn order(&self) -> MutexGuard<'_, Option<Order>> {
        self.0.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_comes_after_who_wrote_and_who_writes_after_who_read() {
        let mut order = Order::default();
        assert_eq!(order.add_node(&[1], &[2]), []);
        assert_eq!(order.add_node(&[1], &[3]), [], "two may read concurrently");
        assert_eq!(order.add_node(&[2, 3], &[4]), [0, 1]);
        assert_eq!(order.add_node(&[], &[1]), [0, 1], "both read it before");
        assert_eq!(order.add_node(&[], &[4]), [2], "written twice");
        assert_eq!(order.add_node(&[1], &[1]), [3], "in place");
    }

    #[test]
    fn a_barrier_comes_after_all_and_before_all() {
        let mut order = Order::default();
        order.add_node(&[], &[1]);
        order.add_node(&[], &[2]);
        order.add_node(&[1], &[3]);
        assert_eq!(order.barrier(), [1, 2]);
        assert_eq!(
            order.add_node(&[1], &[4]),
            [3],
            "also what was written before it"
        );
        assert_eq!(order.add_node(&[], &[5]), [3]);
        assert_eq!(order.barrier(), [4, 5]);
    }
}
