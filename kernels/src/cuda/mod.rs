//! CUDA devices: memory, launches, matrix products and recorded steps.
//!
//! Operations use [`Cuda`], [`DeviceBuffer`], [`Launch`] and [`Product`]; what differs between a GPU
//! and the emulator is behind [`Driver`]. All work of a device runs in one queue, in order; only
//! reading a value waits.

mod buffer;
mod capture;
pub mod compile;
mod driver;
mod fill;
mod launch;
mod nvidia;
mod order;
mod pool;
mod product;
mod profile;
#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use pool::Pool;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

pub use buffer::{Arriving, DeviceBuffer, Element};
pub use capture::{Capture, Step};
pub use compile::COMMON;
pub use driver::{
    Address, Convolution, Download, Driver, Epilogue, Gemm, Graph, Kernel, LaunchShape, Mark,
    Memory, Operand, Precision, Source,
};
pub(crate) use fill::{SOURCE as FILL_SOURCE, fill};
pub(crate) use launch::AddressWords;
pub use launch::{Launch, Parameters, Word};
pub(crate) use launch::{
    THREADS, count, divider, double, pack, parameters, pixel_block, plane_block,
};
pub use pool::PoolUse;
pub use product::{Matrix, Product};
pub use profile::Timed;

/// One CUDA device; clones are the same device.
#[derive(Clone)]
pub struct Cuda(Arc<Inner>);

struct Inner {
    driver: Box<dyn Driver>,
    pool: Pool,
    precision: AtomicU8,
    /// 0 for none.
    convolution: AtomicU8,
    column_room: AtomicUsize,
    /// Whether recordings run in the order they were recorded in.
    keeps_order: AtomicBool,
    /// Of the recording under way.
    order: Mutex<Option<order::Order>>,
    /// Matrix products so far.
    products: AtomicUsize,
    /// Uploaded tables by content: their memory, kept while the device is open.
    constants: Mutex<HashMap<Vec<u8>, (Address, usize)>>,
    /// The profile being taken, if any.
    profile: Mutex<Option<profile::Profile>>,
}

impl Cuda {
    /// The device with this number, counted from 0.
    ///
    /// # Errors
    /// [`Error::NoDevice`] saying whether the driver, the GPU or the right to use it is missing,
    /// [`Error::OldDriver`], [`Error::Architecture`] for a GPU before Turing.
    pub fn open(ordinal: usize) -> Result<Self> {
        nvidia::open(ordinal).map(Self::with_driver)
    }

    /// A device behind a driver of the caller's, such as the emulator.
    pub fn with_driver(driver: Box<dyn Driver>) -> Self {
        Self(Arc::new(Inner {
            driver,
            pool: Pool::default(),
            precision: AtomicU8::new(Precision::F32 as u8),
            convolution: AtomicU8::new(0),
            column_room: AtomicUsize::new(32 << 20),
            keeps_order: AtomicBool::new(false),
            order: Mutex::default(),
            products: AtomicUsize::new(0),
            constants: Mutex::default(),
            profile: Mutex::default(),
        }))
    }

    /// The device's name.
    pub fn name(&self) -> String {
        self.0.driver.name()
    }

    /// Its architecture: 90 for `sm_90`.
    pub fn architecture(&self) -> u32 {
        self.0.driver.architecture()
    }

    /// How exact matrix products and convolutions are; f32 until changed.
    pub fn precision(&self) -> Precision {
        match self.0.precision.load(Ordering::Relaxed) {
            1 => Precision::Tf32,
            2 => Precision::Bf16,
            _ => Precision::F32,
        }
    }

    /// Changes how exact matrix products and convolutions are, for all that is enqueued from here.
    pub fn set_precision(&self, precision: Precision) {
        self.0.precision.store(precision as u8, Ordering::Relaxed);
    }

    /// How dense convolutions are computed; `None`, the default, chooses the way expected to be fastest.
    pub fn convolution(&self) -> Option<Convolution> {
        match self.0.convolution.load(Ordering::Relaxed) {
            1 => Some(Convolution::Implicit),
            2 => Some(Convolution::Columns),
            3 => Some(Convolution::Window),
            _ => None,
        }
    }

    /// Changes how dense convolutions are computed, where this way supports their shape. `Implicit` also
    /// sends depthwise convolutions to the kernels that support every shape.
    pub fn set_convolution(&self, convolution: Option<Convolution>) {
        let number = convolution.map_or(0, |convolution| convolution as u8 + 1);
        self.0.convolution.store(number, Ordering::Relaxed);
    }

    /// The most elements of im2col columns that a convolution writes at a time, and of the partial sums
    /// of a weight's gradient. Default 128 MiB, a few times the L2 cache of a large GPU.
    pub fn column_room(&self) -> usize {
        self.0.column_room.load(Ordering::Relaxed)
    }

    /// Changes it, for all that is enqueued from here.
    pub fn set_column_room(&self, numbers: usize) {
        self.0.column_room.store(numbers, Ordering::Relaxed);
    }

    /// Whether what is recorded from now on runs in the order of recording. Otherwise, which is the
    /// default, independent nodes of the graph may run concurrently; results are the same bits.
    pub fn set_keeps_order(&self, keeps: bool) {
        self.0.keeps_order.store(keeps, Ordering::Relaxed);
    }

    /// An uninitialised buffer, for an operation that overwrites all of it.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Cuda`].
    pub fn any<T: Element>(&self, length: usize) -> Result<DeviceBuffer<T>> {
        DeviceBuffer::new(self.clone(), length)
    }

    /// Elements that are all 0.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Cuda`].
    pub fn zeros<T: Element>(&self, length: usize) -> Result<DeviceBuffer<T>> {
        let mut buffer = self.any(length)?;
        buffer.fill_zero()?;
        Ok(buffer)
    }

    /// A copy of `data` on the device.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; [`Error::Cuda`], also while a step is being recorded: what changes
    /// from step to step has to be an input of the [`Step`], and what does not a
    /// [`Cuda::constant`].
    pub fn upload<T: Element>(&self, data: &[T]) -> Result<DeviceBuffer<T>> {
        let mut buffer = self.any(data.len())?;
        buffer.upload(data)?;
        Ok(buffer)
    }

    /// A table that is the same in every step, such as the shifts of a matching: uploaded the
    /// first time, found again by its content afterwards, kept while the device is open.
    ///
    /// # Errors
    /// As [`Cuda::upload`], where it is new.
    pub fn constant<T: Element>(&self, data: &[T]) -> Result<DeviceBuffer<T>> {
        // SAFETY: an Element has no padding, so its bytes are initialised; the length is theirs.
        let bytes = unsafe {
            std::slice::from_raw_parts(data.as_ptr().cast::<u8>(), std::mem::size_of_val(data))
        };
        let mut constants = self
            .0
            .constants
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let address = if let Some((address, _)) = constants.get(bytes) {
            *address
        } else {
            let memory = self.upload(data)?.leak();
            constants.insert(bytes.to_vec(), memory);
            memory.0
        };
        Ok(DeviceBuffer::constant(self.clone(), address, data.len()))
    }

    /// Waits until everything enqueued has run.
    ///
    /// # Errors
    /// [`Error::Cuda`] when something enqueued has failed.
    pub fn synchronise(&self) -> Result<()> {
        self.0.driver.synchronise()
    }

    /// What the pool holds.
    pub fn memory(&self) -> PoolUse {
        self.0.pool.report()
    }

    /// What the device has left, for all processes.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn device_memory(&self) -> Result<Memory> {
        self.0.driver.memory()
    }

    /// Gives the memory of dropped buffers back to the system.
    ///
    /// # Errors
    /// [`Error::Cuda`] when something enqueued has failed.
    pub fn trim(&self) -> Result<()> {
        self.refuse_in_capture("trim")?;
        self.0.pool.trim(&*self.0.driver)
    }

    /// Records that work which uses `address` is being enqueued.
    fn used(&self, address: Address) {
        self.0.pool.used(address);
    }

    /// Whether what is enqueued is recorded instead of run.
    pub fn is_recording(&self) -> bool {
        self.0.pool.is_recording()
    }

    fn refuse_in_capture(&self, call: &str) -> Result<()> {
        if self.0.pool.is_recording() {
            return Err(Error::cuda(
                call,
                "a step is being recorded, and its replays would not repeat this; make it an \
                 input of the step, or do it before",
            ));
        }
        Ok(())
    }
}

impl PartialEq for Cuda {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Cuda {}

impl fmt::Debug for Cuda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cuda({})", self.name())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let constants = self
            .constants
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        for (_, (address, class)) in constants.drain() {
            self.pool.give(address, class);
        }
        // An error cannot be returned from here; the driver frees everything when it closes.
        let _ = self.pool.trim(&*self.driver);
    }
}
