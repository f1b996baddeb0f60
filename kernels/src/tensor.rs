//! A contiguous, row-major f32 array with a run-time shape.
//!
//! Tensors are immutable once made and cheap to clone (the data is shared). What changes in
//! training, the parameters, is replaced by the optimiser between steps.

use crate::buffer::Buffer;
use crate::error::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Names one tensor value on a tape; clones of a tensor share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorId(u64);

impl TensorId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A contiguous f32 array, row-major, immutable and shared by its clones.
#[derive(Debug, Clone)]
pub struct Tensor {
    id: TensorId,
    shape: Arc<[usize]>,
    data: Arc<Buffer>,
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
            data: Arc::new(Buffer::new(data)),
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

    /// The same values, cut from whatever made them: no gradient flows through.
    pub fn detach(&self) -> Self {
        Self {
            id: TensorId::next(),
            shape: self.shape.clone(),
            data: self.data.clone(),
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

    /// The name of this value on the tape.
    pub fn id(&self) -> TensorId {
        self.id
    }

    /// Length of each axis.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The elements, row-major.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// The elements, copied only if another tensor shares them.
    pub fn into_data(self) -> Vec<f32> {
        Arc::try_unwrap(self.data).map_or_else(|shared| shared.to_vec(), Buffer::into_vec)
    }

    /// The only element of a one-element tensor.
    ///
    /// # Errors
    /// [`Error::Shape`] when there is not exactly one.
    pub fn item(&self) -> Result<f32> {
        match self.data() {
            [value] => Ok(*value),
            _ => Err(Error::shape("item", "elements", 1, self.len())),
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
            data: self.data.clone(),
            requires_gradient: false,
        }
    }
}
