//! A contiguous, row-major f32 array with a run-time shape.
//!
//! Tensors are immutable once made and cheap to clone (the data is shared). What changes in
//! training, the parameters, is replaced by the optimiser between steps.

use crate::buffer::Buffer;
use crate::cuda::DeviceBuffer;
use crate::device::Device;
use crate::error::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Identifies a tensor on a tape; clones of a tensor share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorId(u64);

impl TensorId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Where the elements are.
#[derive(Debug, Clone)]
enum Storage {
    Host(Arc<Buffer>),
    Cuda(Arc<DeviceBuffer>),
}

/// A contiguous f32 array, row-major, on one device, immutable and shared by its clones.
#[derive(Debug, Clone)]
pub struct Tensor {
    id: TensorId,
    shape: Arc<[usize]>,
    storage: Storage,
    requires_gradient: bool,
}

impl Tensor {
    /// Wraps `data`, row-major, in `shape`.
    ///
    /// # Errors
    /// [`Error::Shape`] when the number of elements differs from the product of `shape`.
    pub fn new(data: Vec<f32>, shape: &[usize]) -> Result<Self> {
        let elements: usize = shape.iter().product();
        if elements != data.len() {
            return Err(Error::shape(
                "tensor",
                "number of elements",
                shape,
                data.len(),
            ));
        }
        Ok(Self::from_parts(data, shape))
    }

    /// As [`Tensor::new`] for callers that computed both sides from the same numbers.
    ///
    /// # Panics
    /// When the element count does not match `shape`: a bug in the calling op.
    pub(crate) fn from_parts(data: Vec<f32>, shape: &[usize]) -> Self {
        assert_eq!(
            data.len(),
            shape.iter().product::<usize>(),
            "op built {shape:?} with wrong data"
        );
        Self {
            id: TensorId::next(),
            shape: shape.into(),
            storage: Storage::Host(Arc::new(Buffer::new(data))),
            requires_gradient: false,
        }
    }

    /// Wraps what an operation computed on a device.
    ///
    /// # Panics
    /// When the element count does not match `shape`: a bug in the calling op.
    pub(crate) fn from_device(buffer: DeviceBuffer, shape: &[usize]) -> Self {
        assert_eq!(
            buffer.len(),
            shape.iter().product::<usize>(),
            "op built {shape:?} with wrong data"
        );
        Self {
            id: TensorId::next(),
            shape: shape.into(),
            storage: Storage::Cuda(Arc::new(buffer)),
            requires_gradient: false,
        }
    }

    /// A tensor filled with one value.
    pub fn full(shape: &[usize], value: f32) -> Self {
        Self::from_parts(vec![value; shape.iter().product()], shape)
    }

    /// A tensor of zeros.
    pub fn zeros(shape: &[usize]) -> Self {
        Self::full(shape, 0.0)
    }

    /// A tensor without axes.
    pub fn scalar(value: f32) -> Self {
        Self::from_parts(vec![value], &[])
    }

    /// The same values as a leaf whose gradient [`crate::Tape::backward`] returns.
    pub fn with_gradient(mut self) -> Self {
        self.id = TensorId::next();
        self.requires_gradient = true;
        self
    }

    /// The same values, detached from the tape: no gradient flows through.
    pub fn detach(&self) -> Self {
        Self {
            id: TensorId::next(),
            shape: self.shape.clone(),
            storage: self.storage.clone(),
            requires_gradient: false,
        }
    }

    pub(crate) fn mark_requires_gradient(&mut self) {
        self.requires_gradient = true;
    }

    /// Whether a gradient flows to this tensor.
    pub fn requires_gradient(&self) -> bool {
        self.requires_gradient
    }

    /// The identifier of this value on the tape.
    pub fn id(&self) -> TensorId {
        self.id
    }

    /// Length of each axis.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match &self.storage {
            Storage::Host(data) => data.len(),
            Storage::Cuda(buffer) => buffer.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the elements are.
    pub fn device(&self) -> Device {
        match &self.storage {
            Storage::Host(_) => Device::Cpu,
            Storage::Cuda(buffer) => Device::Cuda(buffer.cuda().clone()),
        }
    }

    /// The same values on another device, detached from the tape: no gradient flows through.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; [`Error::Cuda`], also for anything enqueued before that failed.
    pub fn to(&self, device: &Device) -> Result<Self> {
        match device {
            _ if self.device() == *device => Ok(self.detach()),
            Device::Cpu => Ok(Self::from_parts(self.to_vec()?, &self.shape)),
            Device::Cuda(cuda) => match &self.storage {
                Storage::Host(data) => Ok(Self::from_device(cuda.upload(data)?, &self.shape)),
                Storage::Cuda(_) => self.to(&Device::Cpu)?.to(device),
            },
        }
    }

    /// The elements, row-major, of a tensor that has to lie on the host: for what runs on the
    /// processor only. `op` is who reads them.
    ///
    /// # Errors
    /// [`Error::CpuOnly`] when the tensor lies on a device.
    pub fn host(&self, op: &'static str) -> Result<&[f32]> {
        match &self.storage {
            Storage::Host(data) => Ok(data),
            Storage::Cuda(_) => Err(Error::CpuOnly {
                op,
                shape: format!("{:?}", self.shape),
                device: self.device().describe(),
            }),
        }
    }

    /// The elements of a tensor on the host, row-major: for tests, and for operations that have
    /// asked for the device before.
    ///
    /// # Panics
    /// When the tensor lies elsewhere; [`Tensor::host`] gives an error then, and
    /// [`Tensor::to_vec`] reads from any device.
    pub fn data(&self) -> &[f32] {
        match &self.storage {
            Storage::Host(data) => data,
            Storage::Cuda(buffer) => panic!(
                "a tensor {:?} on {} is read as if it were on the host",
                self.shape,
                buffer.cuda().name()
            ),
        }
    }

    /// A copy of the elements, row-major; waits for a device to have computed them.
    ///
    /// # Errors
    /// [`Error::Cuda`], also for anything enqueued before that failed.
    pub fn to_vec(&self) -> Result<Vec<f32>> {
        match &self.storage {
            Storage::Host(data) => Ok(data.to_vec()),
            Storage::Cuda(buffer) => buffer.to_vec(),
        }
    }

    /// The elements of a tensor on the host, copied only if another tensor shares them.
    ///
    /// # Panics
    /// As [`Tensor::data`].
    pub fn into_data(self) -> Vec<f32> {
        match self.storage {
            Storage::Host(data) => {
                Arc::try_unwrap(data).map_or_else(|shared| shared.to_vec(), Buffer::into_vec)
            }
            Storage::Cuda(_) => self.data().to_vec(),
        }
    }

    /// The elements of a tensor on a device.
    ///
    /// # Panics
    /// When the tensor lies on the host: the op has matched on the device before.
    pub(crate) fn buffer(&self) -> &DeviceBuffer {
        match &self.storage {
            Storage::Cuda(buffer) => buffer,
            Storage::Host(_) => panic!("a tensor on the host is used as if it were on a device"),
        }
    }

    /// The elements of a tensor on a device, to be changed; copied only if another tensor shares
    /// them.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Cuda`].
    ///
    /// # Panics
    /// As [`Tensor::buffer`].
    pub(crate) fn into_buffer(self) -> Result<DeviceBuffer> {
        match self.storage {
            Storage::Cuda(buffer) => match Arc::try_unwrap(buffer) {
                Ok(buffer) => Ok(buffer),
                Err(shared) => {
                    let mut copy = shared.cuda().any(shared.len())?;
                    copy.copy_from(&shared)?;
                    Ok(copy)
                }
            },
            Storage::Host(_) => panic!("a tensor on the host is used as if it were on a device"),
        }
    }

    /// The elements of a tensor on a device, to be changed in place, where they stay for the next
    /// step; a copy takes their place only if another tensor shares them.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Cuda`].
    ///
    /// # Panics
    /// As [`Tensor::buffer`].
    pub(crate) fn buffer_mut(&mut self) -> Result<&mut DeviceBuffer> {
        match &mut self.storage {
            Storage::Cuda(buffer) => {
                if Arc::get_mut(buffer).is_none() {
                    let mut copy = buffer.cuda().any(buffer.len())?;
                    copy.copy_from(buffer)?;
                    *buffer = Arc::new(copy);
                }
                Ok(Arc::get_mut(buffer).expect("no other owner"))
            }
            Storage::Host(_) => panic!("a tensor on the host is used as if it were on a device"),
        }
    }

    /// Whether another tensor shares the elements.
    pub(crate) fn is_shared(&self) -> bool {
        match &self.storage {
            Storage::Host(data) => Arc::strong_count(data) > 1,
            Storage::Cuda(buffer) => Arc::strong_count(buffer) > 1,
        }
    }

    /// The only element of a one-element tensor; waits for a device to have computed it.
    ///
    /// # Errors
    /// [`Error::Shape`] when there is not exactly one; [`Error::Cuda`] from the device.
    pub fn item(&self) -> Result<f32> {
        if self.len() != 1 {
            return Err(Error::shape("item", "elements", 1, self.len()));
        }
        match &self.storage {
            Storage::Host(data) => Ok(data[0]),
            Storage::Cuda(buffer) => Ok(buffer.to_vec()?[0]),
        }
    }

    /// The four axes of an image batch `[N, C, H, W]`.
    ///
    /// # Errors
    /// [`Error::Shape`], naming `op` and `what`, when there are not four axes or one is empty.
    pub fn dims4(&self, op: &'static str, what: &'static str) -> Result<[usize; 4]> {
        match <[usize; 4]>::try_from(self.shape()) {
            Ok(dims) if !self.is_empty() => Ok(dims),
            _ => Err(Error::shape(
                op,
                what,
                "[N, C, H, W], none of them 0",
                self.shape(),
            )),
        }
    }

    /// The two axes of a matrix.
    ///
    /// # Errors
    /// [`Error::Shape`], naming `op` and `what`, when there are not two axes or one is empty.
    pub fn dims2(&self, op: &'static str, what: &'static str) -> Result<[usize; 2]> {
        match <[usize; 2]>::try_from(self.shape()) {
            Ok(dims) if !self.is_empty() => Ok(dims),
            _ => Err(Error::shape(
                op,
                what,
                "[rows, columns], none of them 0",
                self.shape(),
            )),
        }
    }

    /// Checks the whole shape.
    ///
    /// # Errors
    /// [`Error::Shape`], naming `op`, `what` and both shapes.
    pub fn expect_shape(
        &self,
        op: &'static str,
        what: &'static str,
        expected: &[usize],
    ) -> Result<()> {
        if self.shape() == expected {
            Ok(())
        } else {
            Err(Error::shape(op, what, expected, self.shape()))
        }
    }

    pub(crate) fn with_shape(&self, shape: &[usize]) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), self.len());
        Self {
            id: TensorId::next(),
            shape: shape.into(),
            storage: self.storage.clone(),
            requires_gradient: false,
        }
    }
}
