//! Typed memory of a device that goes back to the pool when dropped.

use super::Cuda;
use super::driver::{Address, Download};
use super::launch::AddressWords;
use super::pool::Taken;
use crate::error::{Error, Result};
use std::marker::PhantomData;
use std::sync::Arc;

/// An element type with the same layout on host and device.
///
/// # Safety
/// Any bytes are a valid value, there is no padding, and the layout is that of the device.
pub unsafe trait Element: Copy + Send + Sync + 'static {}

// SAFETY: plain numbers, the same on all machines CUDA runs on.
unsafe impl Element for f32 {}
// SAFETY: as above.
unsafe impl Element for f64 {}
// SAFETY: as above.
unsafe impl Element for u8 {}
// SAFETY: as above.
unsafe impl Element for u32 {}
// SAFETY: as above.
unsafe impl Element for i32 {}
// SAFETY: as above.
unsafe impl Element for u64 {}
// SAFETY: as above; the type is transparent over u16.
unsafe impl Element for half::bf16 {}

/// Elements in a device's memory.
#[derive(Debug)]
pub struct DeviceBuffer<T: Element = f32> {
    cuda: Cuda,
    address: Address,
    length: usize,
    /// Bytes as the pool counts them; `None` for memory that does not return to the pool.
    class: Option<usize>,
    /// The buffer that this is a part of, which lives as long as its parts.
    _whole: Option<Arc<DeviceBuffer<u8>>>,
    element: PhantomData<T>,
}

impl<T: Element> DeviceBuffer<T> {
    pub(super) fn new(cuda: Cuda, length: usize) -> Result<Self> {
        let bytes = length.checked_mul(size_of::<T>()).ok_or_else(|| {
            Error::argument("device buffer", format!("{length} elements are too many"))
        })?;
        let taken = cuda.0.pool.take(&*cuda.0.driver, bytes)?;
        let Taken { address, class, .. } = taken;
        let made = Self {
            cuda,
            address,
            length,
            class: Some(class),
            _whole: None,
            element: PhantomData,
        };
        if taken.is_reused {
            made.cuda.next_uses(&[], &[address])?;
            made.cuda.0.driver.reused(address, class);
        }
        Ok(made)
    }

    /// A view of a table that lives as long as the device.
    pub(super) fn constant(cuda: Cuda, address: Address, length: usize) -> Self {
        Self {
            cuda,
            address,
            length,
            class: None,
            _whole: None,
            element: PhantomData,
        }
    }

    /// `length` elements that begin `offset` bytes into a buffer.
    ///
    /// # Panics
    /// When it does not have that many bytes, or elements would not be aligned.
    pub(super) fn part(whole: &Arc<DeviceBuffer<u8>>, offset: usize, length: usize) -> Self {
        let address = whole.address + offset as u64;
        let end = offset + length * size_of::<T>();
        assert!(end <= whole.length, "a part beyond its whole");
        assert!(
            address.is_multiple_of(align_of::<T>() as u64),
            "elements across their alignment"
        );
        Self {
            cuda: whole.cuda.clone(),
            address,
            length,
            class: None,
            _whole: Some(Arc::clone(whole)),
            element: PhantomData,
        }
    }

    /// The memory, as the pool gave it.
    pub(super) fn leak(mut self) -> (Address, usize) {
        let class = self.class.take().expect("a buffer of the pool");
        (self.address, class)
    }

    /// The device it lies on.
    pub fn cuda(&self) -> &Cuda {
        &self.cuda
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Its address.
    pub(super) fn address(&self) -> Address {
        self.address
    }

    /// Its address, low half first, for a kernel whose parameters hold addresses of buffers. Work
    /// that uses it is about to be enqueued.
    pub(crate) fn address_words(&self) -> AddressWords {
        self.cuda.used(self.address);
        AddressWords([self.address as u32, (self.address >> 32) as u32])
    }

    fn bytes(&self) -> usize {
        self.length * size_of::<T>()
    }

    /// Overwrites it all with `data`, after what is queued.
    ///
    /// # Errors
    /// [`Error::Cuda`], also while a step is being recorded: the copy would not be repeated.
    pub fn upload(&mut self, data: &[T]) -> Result<()> {
        self.overwrite(data)
    }

    /// As [`DeviceBuffer::upload`], for a buffer whose other owners expect the change.
    pub(super) fn overwrite(&self, data: &[T]) -> Result<()> {
        assert_eq!(data.len(), self.length, "upload of another length");
        self.cuda.refuse_in_capture("upload")?;
        if self.is_empty() {
            return Ok(());
        }
        // SAFETY: an Element has no padding, so its bytes are initialised; the length is theirs.
        let bytes = unsafe { std::slice::from_raw_parts(data.as_ptr().cast(), self.bytes()) };
        // SAFETY: this buffer has room for as many elements as `data`, checked above.
        unsafe { self.cuda.0.driver.upload(self.address, bytes) }
    }

    /// Enqueues a copy to the host, returned by [`Arriving::wait`]; work enqueued later does not affect
    /// it.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn begin_download(&self) -> Result<Arriving<T>> {
        self.cuda.refuse_in_capture("download")?;
        // SAFETY: this buffer holds that many bytes.
        let download = unsafe {
            let driver = &self.cuda.0.driver;
            driver.begin_download(self.address, self.bytes())?
        };
        Ok(Arriving {
            download,
            length: self.length,
            element: PhantomData,
        })
    }

    /// Copies it all to the host, waiting for what is queued.
    ///
    /// # Errors
    /// [`Error::Cuda`], also for anything queued before that failed.
    pub fn to_vec(&self) -> Result<Vec<T>> {
        self.cuda.refuse_in_capture("download")?;
        if self.is_empty() {
            return Ok(Vec::new());
        }
        let mut data: Vec<T> = Vec::with_capacity(self.length);
        // SAFETY: the capacity holds that many elements; the bytes are only written.
        let bytes = unsafe {
            std::ptr::write_bytes(data.as_mut_ptr(), 0, self.length);
            std::slice::from_raw_parts_mut(data.as_mut_ptr().cast(), self.bytes())
        };
        // SAFETY: this buffer holds that many bytes.
        unsafe { self.cuda.0.driver.download(self.address, bytes)? };
        // SAFETY: all elements were written above, and any bytes are an Element.
        unsafe { data.set_len(self.length) };
        Ok(data)
    }

    /// Enqueues filling it with zeros.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn fill_zero(&mut self) -> Result<()> {
        self.cuda.used(self.address);
        if self.is_empty() {
            return Ok(());
        }
        self.cuda.next_uses(&[], &[self.address])?;
        // SAFETY: the buffer is that long.
        unsafe { self.cuda.0.driver.fill_zero(self.address, self.bytes()) }
    }

    /// Enqueues overwriting it with another buffer of the same device and length.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn copy_from(&mut self, other: &Self) -> Result<()> {
        self.overwrite_from(other)
    }

    /// As [`DeviceBuffer::copy_from`], for a buffer whose other owners expect the change.
    pub(super) fn overwrite_from(&self, other: &Self) -> Result<()> {
        assert_eq!(self.length, other.length, "copy of another length");
        assert_eq!(self.cuda, other.cuda, "copy between devices");
        self.cuda.used(self.address);
        self.cuda.used(other.address);
        if self.is_empty() {
            return Ok(());
        }
        self.cuda.next_uses(&[other.address], &[self.address])?;
        // SAFETY: both are that long, on this device, and two buffers never overlap.
        unsafe {
            let driver = &self.cuda.0.driver;
            driver.copy(other.address, self.address, self.bytes())
        }
    }
}

impl DeviceBuffer<u8> {
    /// As [`DeviceBuffer::overwrite`] for the bytes from `offset` on, on the second queue.
    ///
    /// # Safety
    /// Work that uses these bytes is ordered by the driver's fences; see
    /// [`super::Driver::upload_concurrently`].
    pub(super) unsafe fn overwrite_concurrently<T: Element>(
        &self,
        offset: usize,
        data: &[T],
    ) -> Result<()> {
        let length = std::mem::size_of_val(data);
        assert!(offset + length <= self.length, "upload beyond a buffer");
        self.cuda.refuse_in_capture("upload")?;
        if data.is_empty() {
            return Ok(());
        }
        // SAFETY: an Element has no padding, so its bytes are initialised; the length is theirs.
        let bytes = unsafe { std::slice::from_raw_parts(data.as_ptr().cast::<u8>(), length) };
        let to = self.address + offset as u64;
        // SAFETY: the bytes are there, checked above; their order is the caller's promise.
        unsafe { self.cuda.0.driver.upload_concurrently(to, bytes) }
    }
}

/// A download of elements under way.
pub struct Arriving<T: Element> {
    download: Box<dyn Download>,
    length: usize,
    element: PhantomData<T>,
}

impl<T: Element> Arriving<T> {
    /// Waits for them, and for what was enqueued before, but for nothing that was enqueued later.
    ///
    /// # Errors
    /// [`Error::Cuda`], also for anything enqueued before that failed.
    ///
    /// # Panics
    /// When the driver returns another number of bytes than asked for: a bug in it.
    pub fn wait(self) -> Result<Vec<T>> {
        let bytes = self.download.wait()?;
        assert_eq!(
            bytes.len(),
            self.length * size_of::<T>(),
            "a short download"
        );
        let chunks = bytes.chunks_exact(size_of::<T>());
        // SAFETY: any bytes are an Element, and each chunk has its size; it may lie anywhere.
        let element = |chunk: &[u8]| unsafe { chunk.as_ptr().cast::<T>().read_unaligned() };
        Ok(chunks.map(element).collect())
    }
}

impl<T: Element> Drop for DeviceBuffer<T> {
    fn drop(&mut self) {
        if let Some(class) = self.class {
            self.cuda.0.pool.give(self.address, class);
        }
    }
}
