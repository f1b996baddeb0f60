//! Uploads through pinned memory, so that the caller goes on while the GPU copies.
//!
//! One ring of pinned memory: the next upload is copied in behind the last one, and waits only
//! when the ring is full of uploads the GPU has not fetched yet.

use super::{Context, failed};
use crate::cuda::driver::Address;
use crate::error::Result;
use cudarc::driver::{result, sys};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// Room for two batches of the published network's input (32 pairs of 3 × 512 × 512 and
/// 3 × 320 × 640 bytes, 45 MB), so that the next is copied in while one is fetched.
const RING_BYTES: usize = 96 << 20;

/// Longer uploads are cut, so that the parts overlap.
const PIECE_BYTES: usize = 16 << 20;

/// Uploads begin at multiples of this.
const ALIGNMENT: usize = 256;

pub struct Staging {
    context: Arc<Context>,
    /// The stream of the copies.
    stream: sys::CUstream,
    /// Pinned, `RING_BYTES` long; null before the first upload.
    memory: *mut u8,
    /// Where the next upload goes.
    next: usize,
    /// Uploads that the GPU may still be reading, oldest first.
    pending: VecDeque<(Range<usize>, sys::CUevent)>,
    /// Events for reuse.
    idle: Vec<sys::CUevent>,
}

// SAFETY: memory and events belong to the context, which may be entered from any thread; only
// this struct knows them.
unsafe impl Send for Staging {}

impl Staging {
    /// For uploads on one of the context's streams.
    pub fn new(context: Arc<Context>, stream: sys::CUstream) -> Self {
        Self {
            context,
            stream,
            memory: std::ptr::null_mut(),
            next: 0,
            pending: VecDeque::new(),
            idle: Vec::new(),
        }
    }

    /// Enqueues a copy of `bytes`, which may change when this returns.
    ///
    /// # Safety
    /// There is room at `to`.
    pub unsafe fn upload(&mut self, to: Address, bytes: &[u8]) -> Result<()> {
        self.context.enter()?;
        if self.memory.is_null() {
            // SAFETY: pinned memory of any content; freed when dropped.
            let memory = unsafe { result::malloc_host(RING_BYTES, 0) };
            self.memory = memory.map_err(failed("cuMemHostAlloc"))?.cast();
        }
        for (index, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
            let to = to + (index * PIECE_BYTES) as u64;
            let place = self.reserve(piece.len())?;
            // SAFETY: `place` lies in the ring, and the GPU has fetched what was there; it is
            // not touched again before the event recorded here. `to` has room: the caller.
            unsafe {
                let staged =
                    std::slice::from_raw_parts_mut(self.memory.add(place.start), piece.len());
                staged.copy_from_slice(piece);
                result::memcpy_htod_async(to, staged, self.stream)
                    .map_err(failed("cuMemcpyHtoDAsync"))?;
            }
            let event = match self.idle.pop() {
                Some(event) => event,
                None => result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)
                    .map_err(failed("cuEventCreate"))?,
            };
            // SAFETY: both are alive.
            unsafe { result::event::record(event, self.stream) }
                .map_err(failed("cuEventRecord"))?;
            self.pending.push_back((place, event));
        }
        Ok(())
    }

    /// The next free place in the ring, waiting until the GPU has fetched what is there.
    fn reserve(&mut self, bytes: usize) -> Result<Range<usize>> {
        let place = next_place(self.next, bytes);
        while let Some(index) = last_overlap(&self.pending, &place) {
            for _ in 0..=index {
                let (_, event) = &self.pending[0];
                // SAFETY: the event was recorded and not destroyed.
                unsafe { result::event::synchronize(*event) }
                    .map_err(failed("cuEventSynchronize"))?;
                let (_, event) = self.pending.pop_front().expect("index is in the queue");
                self.idle.push(event);
            }
        }
        self.next = place.end.next_multiple_of(ALIGNMENT);
        Ok(place)
    }
}

/// Where `bytes` go after `next`: there, or at the start of the ring when the rest is too short.
fn next_place(next: usize, bytes: usize) -> Range<usize> {
    let start = if next + bytes > RING_BYTES { 0 } else { next };
    start..start + bytes
}

/// The youngest of the pending uploads that lies where `place` does.
fn last_overlap<T>(pending: &VecDeque<(Range<usize>, T)>, place: &Range<usize>) -> Option<usize> {
    let overlaps = |range: &Range<usize>| range.start < place.end && place.start < range.end;
    pending.iter().rposition(|(range, _)| overlaps(range))
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.context.enter().is_ok() {
            // SAFETY: the stream is the context's, which is alive.
            let _ = unsafe { result::stream::synchronize(self.stream) };
        }
        let events = self.pending.drain(..).map(|(_, event)| event);
        for event in events.chain(self.idle.drain(..)) {
            // SAFETY: created here, destroyed once.
            let _ = unsafe { result::event::destroy(event) };
        }
        if !self.memory.is_null() {
            // SAFETY: allocated here, freed once, and the GPU has fetched everything.
            let _ = unsafe { result::free_host(self.memory.cast()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_go_round_the_ring_and_wait_for_what_is_in_their_place() {
        assert_eq!(next_place(0, 100), 0..100);
        assert_eq!(
            next_place(RING_BYTES - 100, 100),
            RING_BYTES - 100..RING_BYTES
        );
        assert_eq!(next_place(RING_BYTES - 100, 101), 0..101);
        let pending = VecDeque::from([(0..100, ()), (256..300, ()), (512..600, ())]);
        assert_eq!(last_overlap(&pending, &(600..700)), None);
        assert_eq!(last_overlap(&pending, &(0..256)), Some(0));
        assert_eq!(last_overlap(&pending, &(299..512)), Some(1));
        assert_eq!(last_overlap(&pending, &(50..513)), Some(2));
    }
}
