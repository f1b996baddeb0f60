//! Scratch memory that each thread keeps between calls: page faults of fresh memory would cost more
//! than the arithmetic of small images.

use std::cell::RefCell;

/// Elements in one cache line.
const LINE: usize = 16;

thread_local! {
    static KEPT: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Calls `work` with slices of the given lengths, whose content is unspecified.
/// A call within `work` gets memory of its own.
pub(crate) fn with<const N: usize, R>(
    lengths: [usize; N],
    work: impl FnOnce([&mut [f32]; N]) -> R,
) -> R {
    let mut memory = KEPT.take();
    let room = |length: usize| length.next_multiple_of(LINE);
    let total = lengths.iter().map(|length| room(*length)).sum::<usize>() + LINE;
    if memory.len() < total {
        memory.resize(total, 0.0);
    }
    // Begin each slice on a cache line; where the offset is unknown, anywhere will do.
    let offset = memory.as_ptr().align_offset(LINE * size_of::<f32>());
    let mut rest = &mut memory[if offset < LINE { offset } else { 0 }..];
    let slices = lengths.map(|length| {
        let (slice, after) = std::mem::take(&mut rest).split_at_mut(room(length));
        rest = after;
        &mut slice[..length]
    });
    let result = work(slices);
    KEPT.set(memory);
    result
}

#[cfg(test)]
mod tests {
    #[test]
    fn slices_have_their_lengths_and_nest() {
        super::with([3, 0, 5], |[a, b, c]| {
            assert_eq!((a.len(), b.len(), c.len()), (3, 0, 5));
            a.fill(1.0);
            super::with([4], |[inner]| inner.fill(2.0));
            assert_eq!(a, [1.0; 3]);
        });
    }
}
