//! A GPU through NVIDIA's driver, found at run time.
//!
//! One queue (stream), one compiled module for each `.cu` file, one cuBLASLt handle. The bindings
//! panic where a library is absent, so [`open`] asks before every first call.

mod graph_nodes;
mod modules;
mod open;
mod products;
mod staging;
mod transfers;

use super::driver::{Address, Download, Driver, Gemm, Graph, Kernel, LaunchShape, Mark, Memory};
use crate::error::{Error, Result};
use cudarc::driver::{result, sys};
use graph_nodes::GraphNodes;
use modules::Modules;
use products::Products;
use staging::Staging;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use transfers::{Arrivals, GpuMark, Uploads};

pub(super) use open::open;

/// An open GPU. Dropped fields first, then the context.
struct Gpu {
    modules: Mutex<Modules>,
    products: Mutex<Products>,
    staging: Mutex<Staging>,
    uploads: Mutex<Uploads>,
    arrivals: Arrivals,
    /// Of the recording under way.
    graph_nodes: Mutex<GraphNodes>,
    context: Arc<Context>,
}

/// The device's primary context, shared by all users of the device in this process, and our queue.
struct Context {
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    /// Copies the next step's inputs while `stream` computes.
    copies: sys::CUstream,
    /// Where memory is allocated, so that this works while `stream` is being recorded.
    allocations: sys::CUstream,
    name: String,
    architecture: u32,
    /// Whether `cuMemAllocAsync` works; it does not on some virtual GPUs.
    has_memory_pools: bool,
}

// SAFETY: the handles are the driver's, whose functions may be called from any thread once the
// context is current there, which `enter` sees to.
unsafe impl Send for Context {}
// SAFETY: as above; the driver locks what it shares.
unsafe impl Sync for Context {}

/// Maps an error of the call `what`.
fn failed(call: &'static str) -> impl FnOnce(result::DriverError) -> Error {
    move |error| Error::cuda(call, describe(error))
}

/// The driver's name for an error and its words.
fn describe(error: result::DriverError) -> String {
    let words = error.error_string().map(|words| words.to_string_lossy());
    match words {
        Ok(words) => format!("{:?}: {words}", error.0),
        Err(_) => format!("{:?}", error.0),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Context {
    /// Makes the context current on this thread; cheap where it is already.
    fn enter(&self) -> Result<()> {
        // SAFETY: the context is retained until `self` is dropped.
        unsafe { result::ctx::set_current(self.context) }.map_err(failed("cuCtxSetCurrent"))
    }

    /// Waits until the queue is empty.
    fn synchronise(&self) -> Result<()> {
        self.enter()?;
        // SAFETY: the stream lives as long as `self`.
        unsafe { result::stream::synchronize(self.stream) }.map_err(failed("cuStreamSynchronize"))
    }

    /// `None` when there is no memory left.
    fn allocate(&self, bytes: usize) -> Result<Option<Address>> {
        self.enter()?;
        let allocated = if self.has_memory_pools {
            // SAFETY: the stream is ours; waiting for it makes the memory usable on any stream.
            unsafe {
                result::malloc_async(self.allocations, bytes).and_then(|address| {
                    result::stream::synchronize(self.allocations)?;
                    Ok(address)
                })
            }
        } else {
            // SAFETY: memory of any content is what is promised.
            unsafe { result::malloc_sync(bytes) }
        };
        match allocated {
            Ok(address) => Ok(Some(address)),
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => Ok(None),
            Err(error) => Err(failed("allocating memory")(error)),
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // Failures here concern a device nobody can use any more.
        let _ = self.synchronise();
        // SAFETY: the streams are ours, and destroyed once they are idle; the context was
        // retained once.
        unsafe {
            let _ = result::stream::destroy(self.stream);
            let _ = result::stream::destroy(self.copies);
            let _ = result::stream::destroy(self.allocations);
            let _ = result::primary_ctx::release(self.device);
        }
    }
}

impl Driver for Gpu {
    fn name(&self) -> String {
        self.context.name.clone()
    }

    fn architecture(&self) -> u32 {
        self.context.architecture
    }

    fn allocate(&self, bytes: usize) -> Result<Option<Address>> {
        self.context.allocate(bytes)
    }

    unsafe fn free(&self, address: Address, _bytes: usize) {
        if self.context.enter().is_ok() {
            // SAFETY: the caller promises that it is ours, given back once, and that no work
            // uses it; `cuMemFree` takes memory of either allocator. A failure leaks it.
            let _ = unsafe { result::memory_free(address) };
        }
    }

    fn memory(&self) -> Result<Memory> {
        self.context.enter()?;
        let (free, total) = result::mem_get_info().map_err(failed("cuMemGetInfo"))?;
        Ok(Memory { free, total })
    }

    unsafe fn upload(&self, to: Address, bytes: &[u8]) -> Result<()> {
        // SAFETY: passed on.
        unsafe { lock(&self.staging).upload(to, bytes) }
    }

    unsafe fn download(&self, from: Address, bytes: &mut [u8]) -> Result<()> {
        self.context.enter()?;
        // SAFETY: the caller promises as many bytes at `from`; `bytes` is borrowed until the
        // stream has been waited for.
        unsafe { result::memcpy_dtoh_async(bytes, from, self.context.stream) }
            .map_err(failed("cuMemcpyDtoHAsync"))?;
        self.context.synchronise()
    }

    unsafe fn upload_concurrently(&self, to: Address, bytes: &[u8]) -> Result<()> {
        // SAFETY: passed on.
        unsafe { lock(&self.uploads).upload(to, bytes) }
    }

    fn await_uploads(&self) -> Result<()> {
        lock(&self.uploads).await_uploads()
    }

    fn release_to_uploads(&self, slot: usize) -> Result<()> {
        lock(&self.uploads).release(slot)
    }

    fn await_release(&self, slot: usize) -> Result<()> {
        lock(&self.uploads).await_release(slot)
    }

    unsafe fn begin_download(&self, from: Address, bytes: usize) -> Result<Box<dyn Download>> {
        // SAFETY: passed on.
        let arriving = unsafe { self.arrivals.begin(&self.context, from, bytes)? };
        Ok(Box::new(arriving))
    }

    fn mark(&self) -> Result<Box<dyn Mark>> {
        Ok(Box::new(GpuMark::now(&self.context)?))
    }

    unsafe fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<()> {
        self.context.enter()?;
        // SAFETY: the caller promises room at both places.
        unsafe { result::memcpy_dtod_async(to, from, bytes, self.context.stream) }
            .map_err(failed("cuMemcpyDtoDAsync"))
    }

    unsafe fn fill_zero(&self, address: Address, bytes: usize) -> Result<()> {
        self.context.enter()?;
        // SAFETY: the caller promises that many bytes there.
        unsafe { result::memset_d8_async(address, 0, bytes, self.context.stream) }
            .map_err(failed("cuMemsetD8Async"))
    }

    unsafe fn launch(
        &self,
        kernel: &Kernel,
        shape: LaunchShape,
        arguments: &mut [*mut c_void],
    ) -> Result<()> {
        self.context.enter()?;
        let function = lock(&self.modules).function(kernel, shape.shared_bytes)?;
        let [grid, block] = [shape.grid, shape.block].map(|[x, y, z]| (x, y, z));
        let stream = self.context.stream;
        // SAFETY: the function is of a module that stays loaded; what the arguments are is the
        // caller's promise, and they are copied before the call returns.
        let launched = unsafe {
            result::launch_kernel(function, grid, block, shape.shared_bytes, stream, arguments)
        };
        launched.map_err(|error| {
            let cause = format!("{} (grid {grid:?}, block {block:?})", describe(error));
            Error::cuda(format!("launching {}", kernel.entry), cause)
        })
    }

    unsafe fn gemm(&self, gemm: &Gemm) -> Result<()> {
        self.context.enter()?;
        // SAFETY: passed on.
        unsafe { lock(&self.products).enqueue(gemm) }
    }

    fn synchronise(&self) -> Result<()> {
        self.context.synchronise()
    }

    fn begin_capture(&self) -> Result<()> {
        self.context.enter()?;
        lock(&self.graph_nodes).reset();
        // Relaxed, because a buffer that is needed for the first time is allocated meanwhile, on
        // another stream. What must not be recorded is refused above.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the stream is alive.
        unsafe { result::stream::begin_capture(self.context.stream, mode) }
            .map_err(failed("cuStreamBeginCapture"))
    }

    fn begin_node(&self, after: &[usize]) -> Result<()> {
        self.context.enter()?;
        lock(&self.graph_nodes).begin(&self.context, after)
    }

    fn end_capture(&self) -> Result<Box<dyn Graph>> {
        self.context.enter()?;
        // A failed recording may refuse this; ending it reports the error.
        let _ = lock(&self.graph_nodes).finish(&self.context);
        // SAFETY: the stream is alive and being captured; the graph is destroyed once, below.
        let graph = unsafe { result::stream::end_capture(self.context.stream) }
            .map_err(failed("cuStreamEndCapture"))?;
        if graph.is_null() {
            return Err(Error::cuda(
                "cuStreamEndCapture",
                "the recording was invalidated",
            ));
        }
        // SAFETY: the graph is valid, and no longer needed once instantiated.
        let executable = unsafe {
            let executable = result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0));
            let _ = result::graph::destroy(graph);
            executable.map_err(failed("cuGraphInstantiate"))?
        };
        Ok(Box::new(CardGraph {
            executable,
            context: self.context.clone(),
        }))
    }
}

struct CardGraph {
    executable: sys::CUgraphExec,
    context: Arc<Context>,
}

// SAFETY: as for Context; launches of one graph are ordered by the one stream.
unsafe impl Send for CardGraph {}
// SAFETY: as above.
unsafe impl Sync for CardGraph {}

impl Graph for CardGraph {
    fn replay(&self) -> Result<()> {
        self.context.enter()?;
        // SAFETY: graph and stream are alive; the memory it uses is kept by the pool.
        unsafe { result::graph::launch(self.executable, self.context.stream) }
            .map_err(failed("cuGraphLaunch"))
    }
}

impl Drop for CardGraph {
    fn drop(&mut self) {
        let _ = self.context.synchronise();
        // SAFETY: destroyed once, and no launch of it is running.
        let _ = unsafe { result::graph::exec_destroy(self.executable) };
    }
}
