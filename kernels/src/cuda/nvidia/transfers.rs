//! Asynchronous copies: uploads on a second stream, downloads that are waited for later, and the events
//! that order them and measure times.

use super::staging::Staging;
use super::{Context, failed, lock};
use crate::cuda::driver::{Address, Download, Mark};
use crate::error::{Error, Result};
use cudarc::driver::{result, sys};
use std::any::Any;
use std::sync::{Arc, Mutex};

/// A CUDA event.
pub struct Event {
    event: sys::CUevent,
    context: Arc<Context>,
}

// SAFETY: the handle belongs to the context, which may be entered from any thread.
unsafe impl Send for Event {}

impl Event {
    fn new(context: &Arc<Context>, timed: bool) -> Result<Self> {
        context.enter()?;
        let flags = if timed {
            sys::CUevent_flags::CU_EVENT_DEFAULT
        } else {
            sys::CUevent_flags::CU_EVENT_DISABLE_TIMING
        };
        Ok(Self {
            event: result::event::create(flags).map_err(failed("cuEventCreate"))?,
            context: context.clone(),
        })
    }

    /// Records the event on `stream`: passed when all that is queued there has run.
    fn record(&self, stream: sys::CUstream) -> Result<()> {
        self.context.enter()?;
        // SAFETY: event and stream are alive.
        unsafe { result::event::record(self.event, stream) }.map_err(failed("cuEventRecord"))
    }

    /// Work queued on `stream` from now on waits for the event.
    fn hold(&self, stream: sys::CUstream) -> Result<()> {
        self.context.enter()?;
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: event and stream are alive.
        unsafe { result::stream::wait_event(stream, self.event, flags) }
            .map_err(failed("cuStreamWaitEvent"))
    }

    fn synchronise(&self) -> Result<()> {
        self.context.enter()?;
        // SAFETY: the event is alive.
        unsafe { result::event::synchronize(self.event) }.map_err(failed("cuEventSynchronize"))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if self.context.enter().is_ok() {
            // SAFETY: created by `new`, destroyed once; the driver waits where it has to.
            let _ = unsafe { result::event::destroy(self.event) };
        }
    }
}

/// The second stream.
pub struct Uploads {
    staging: Staging,
    uploaded: Event,
    /// Set by [`Uploads::release`].
    released: [Option<Event>; 2],
    context: Arc<Context>,
}

impl Uploads {
    pub fn new(context: &Arc<Context>) -> Result<Self> {
        Ok(Self {
            staging: Staging::new(context.clone(), context.copies),
            uploaded: Event::new(context, false)?,
            released: [None, None],
            context: context.clone(),
        })
    }

    /// # Safety
    /// There is room at `to`, and nothing uses it, as `Driver::upload_concurrently` says.
    pub unsafe fn upload(&mut self, to: Address, bytes: &[u8]) -> Result<()> {
        // SAFETY: passed on.
        unsafe { self.staging.upload(to, bytes) }
    }

    pub fn await_uploads(&self) -> Result<()> {
        self.uploaded.record(self.context.copies)?;
        self.uploaded.hold(self.context.stream)
    }

    pub fn release(&mut self, slot: usize) -> Result<()> {
        let event = match self.released[slot].take() {
            Some(event) => event,
            None => Event::new(&self.context, false)?,
        };
        event.record(self.context.stream)?;
        self.released[slot] = Some(event);
        Ok(())
    }

    pub fn await_release(&self, slot: usize) -> Result<()> {
        match &self.released[slot] {
            Some(event) => event.hold(self.context.copies),
            None => Ok(()),
        }
    }
}

/// Pinned memory for a download, reused by the next.
#[derive(Clone, Default)]
pub struct Arrivals(Arc<Mutex<Vec<Pinned>>>);

struct Pinned {
    memory: *mut u8,
    capacity: usize,
    context: Arc<Context>,
}

// SAFETY: plain memory that one owner uses at a time.
unsafe impl Send for Pinned {}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.context.enter().is_ok() {
            // SAFETY: allocated by `begin`, freed once; no copy into it is under way, because
            // `Arriving` waits before it lets go.
            let _ = unsafe { result::free_host(self.memory.cast()) };
        }
    }
}

impl Arrivals {
    /// # Safety
    /// `bytes` bytes lie at `from`.
    pub unsafe fn begin(
        &self,
        context: &Arc<Context>,
        from: Address,
        bytes: usize,
    ) -> Result<Arriving> {
        context.enter()?;
        let kept = {
            let mut shelf = lock(&self.0);
            let fits = shelf.iter().position(|pinned| pinned.capacity >= bytes);
            fits.map(|index| shelf.swap_remove(index))
        };
        let pinned = if let Some(pinned) = kept {
            pinned
        } else {
            let capacity = bytes.next_power_of_two().max(4096);
            // SAFETY: memory of any content; freed when dropped.
            let memory = unsafe { result::malloc_host(capacity, 0) };
            let memory = memory.map_err(failed("cuMemHostAlloc"))?.cast::<u8>();
            // SAFETY: just allocated with this length. From here it is initialised.
            unsafe { std::ptr::write_bytes(memory, 0, capacity) };
            Pinned {
                memory,
                capacity,
                context: context.clone(),
            }
        };
        let arrived = Event::new(context, false)?;
        // SAFETY: `pinned` has the room and nobody else has it; it lives until the event passed.
        unsafe {
            let to = std::slice::from_raw_parts_mut(pinned.memory, bytes);
            result::memcpy_dtoh_async(to, from, context.stream)
                .map_err(failed("cuMemcpyDtoHAsync"))?;
        }
        arrived.record(context.stream)?;
        Ok(Arriving {
            pinned: Some(pinned),
            bytes,
            arrived,
            shelf: self.clone(),
        })
    }
}

/// A download under way.
pub struct Arriving {
    pinned: Option<Pinned>,
    bytes: usize,
    arrived: Event,
    shelf: Arrivals,
}

impl Download for Arriving {
    fn wait(mut self: Box<Self>) -> Result<Vec<u8>> {
        self.arrived.synchronise()?;
        let pinned = self.pinned.take().expect("there until waited for");
        // SAFETY: the copy has ended; that many bytes are initialised.
        let bytes = unsafe { std::slice::from_raw_parts(pinned.memory, self.bytes) }.to_vec();
        lock(&self.shelf.0).push(pinned);
        Ok(bytes)
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        if let Some(pinned) = self.pinned.take() {
            match self.arrived.synchronise() {
                Ok(()) => drop(pinned),
                // The device failed and the copy may be under way: leak the memory instead of reusing it.
                Err(_) => std::mem::forget(pinned),
            }
        }
    }
}

/// A timed event in the queue.
pub struct GpuMark(Event);

impl GpuMark {
    pub fn now(context: &Arc<Context>) -> Result<Self> {
        let event = Event::new(context, true)?;
        event.record(context.stream)?;
        Ok(Self(event))
    }
}

impl Mark for GpuMark {
    fn milliseconds_to(&self, later: &dyn Mark) -> Result<f64> {
        let later: &Self = later.as_any().downcast_ref().expect("a mark of this GPU");
        later.0.synchronise()?;
        let mut milliseconds = 0.0f32;
        // SAFETY: the type is the function's of every CUDA since 2.0; both events are timed,
        // recorded on one stream, and alive; the pointer is to a float. (CUDA 13's bindings only
        // know its second version, which needs a driver of CUDA 12.8.)
        unsafe {
            type Elapsed =
                unsafe extern "C" fn(*mut f32, sys::CUevent, sys::CUevent) -> sys::CUresult;
            let elapsed = sys::culib().get::<Elapsed>(b"cuEventElapsedTime\0");
            let elapsed = elapsed.map_err(|error| Error::cuda("cuEventElapsedTime", error))?;
            elapsed(&raw mut milliseconds, self.0.event, later.0.event)
                .result()
                .map_err(failed("cuEventElapsedTime"))?;
        }
        Ok(f64::from(milliseconds))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
