//! What recorded work has to wait for. Launch by launch, work runs in the order it was enqueued; a
//! recording keeps of that order what matters: who reads comes after who wrote it, who writes comes
//! after who read or wrote before. The rest may run side by side, such as the two encoders of a
//! network, or the gradients of a layer's input and weight.

use super::Cuda;
use super::driver::Address;
use crate::error::Result;
use std::collections::{BTreeSet, HashMap};
use std::sync::{MutexGuard, PoisonError};

/// The pieces of work of a recording, by their number.
#[derive(Default)]
pub(super) struct Order {
    pieces: usize,
    written_by: HashMap<Address, usize>,
    read_by: HashMap<Address, Vec<usize>>,
    /// The last piece that came after everything; nothing later may come before it.
    barrier: Option<usize>,
    /// Pieces that no other comes after.
    last: BTreeSet<usize>,
}

impl Order {
    /// Counts a piece; which ones it comes after. Buffers are told apart by where they begin.
    fn piece(&mut self, reads: &[Address], writes: &[Address]) -> Vec<usize> {
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
            self.read_by.entry(*address).or_default().push(self.pieces);
        }
        for address in writes {
            self.written_by.insert(*address, self.pieces);
        }
        self.count(after)
    }

    /// Counts a piece that comes after all others.
    fn barrier(&mut self) -> Vec<usize> {
        self.written_by.clear();
        self.read_by.clear();
        self.barrier = Some(self.pieces);
        self.count(self.last.clone())
    }

    fn count(&mut self, after: BTreeSet<usize>) -> Vec<usize> {
        for piece in &after {
            self.last.remove(piece);
        }
        self.last.insert(self.pieces);
        self.pieces += 1;
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

    /// What is enqueued next reads and writes these buffers.
    pub(super) fn next_uses(&self, reads: &[Address], writes: &[Address]) -> Result<()> {
        let after = match &mut *self.order() {
            Some(order) => order.piece(reads, writes),
            None => return Ok(()),
        };
        self.0.driver.begin_piece(&after)
    }

    /// What is enqueued next uses buffers that it alone knows.
    pub(super) fn next_uses_anything(&self) -> Result<()> {
        let after = match &mut *self.order() {
            Some(order) => order.barrier(),
            None => return Ok(()),
        };
        self.0.driver.begin_piece(&after)
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
        assert_eq!(order.piece(&[1], &[2]), []);
        assert_eq!(order.piece(&[1], &[3]), [], "two may read side by side");
        assert_eq!(order.piece(&[2, 3], &[4]), [0, 1]);
        assert_eq!(order.piece(&[], &[1]), [0, 1], "both read it before");
        assert_eq!(order.piece(&[], &[4]), [2], "written twice");
        assert_eq!(order.piece(&[1], &[1]), [3], "in place");
    }

    #[test]
    fn a_barrier_comes_after_all_and_before_all() {
        let mut order = Order::default();
        order.piece(&[], &[1]);
        order.piece(&[], &[2]);
        order.piece(&[1], &[3]);
        assert_eq!(order.barrier(), [1, 2]);
        assert_eq!(
            order.piece(&[1], &[4]),
            [3],
            "also what was written before it"
        );
        assert_eq!(order.piece(&[], &[5]), [3]);
        assert_eq!(order.barrier(), [4, 5]);
    }
}
