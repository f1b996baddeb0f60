//! Matrix products on a GPU. Extents are checked here, so that callers need no unsafe code.

use super::buffer::DeviceBuffer;
use super::driver::{Address, Epilogue, Gemm, Operand};
use crate::error::{Error, Result};
use std::sync::atomic::Ordering;

/// A matrix, or a batch of them, in a device buffer.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    buffer: &'a DeviceBuffer,
    offset: usize,
    row_stride: usize,
    transposed: bool,
    batch_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Rows one after the other, `columns` elements each; the same matrix for the whole batch.
    pub fn row_major(buffer: &'a DeviceBuffer, columns: usize) -> Self {
        Self {
            buffer,
            offset: 0,
            row_stride: columns,
            transposed: false,
            batch_stride: 0,
        }
    }

    /// The transpose of a row-major matrix whose stored rows have `rows` elements.
    pub fn transposed(buffer: &'a DeviceBuffer, rows: usize) -> Self {
        Self {
            transposed: true,
            ..Self::row_major(buffer, rows)
        }
    }

    /// The same, beginning at this element of the buffer.
    pub fn at(self, offset: usize) -> Self {
        Self { offset, ..self }
    }

    /// The same, with the next matrix of a batch this many elements further.
    pub fn batched(self, batch_stride: usize) -> Self {
        Self {
            batch_stride,
            ..self
        }
    }

    /// The same, beginning this many elements further in every stored row.
    pub fn further(self, elements: usize) -> Self {
        Self {
            offset: self.offset + elements,
            ..self
        }
    }

    /// One past the last element of a batch of `rows` by `columns`.
    fn extent(&self, batch: usize, rows: usize, columns: usize) -> usize {
        let [rows, columns] = if self.transposed {
            [columns, rows]
        } else {
            [rows, columns]
        };
        assert!(columns <= self.row_stride, "rows of a matrix overlap");
        self.offset + (batch - 1) * self.batch_stride + (rows - 1) * self.row_stride + columns
    }

    fn operand(&self) -> Operand {
        Operand {
            address: self.buffer.address() + (self.offset * size_of::<f32>()) as u64,
            row_stride: self.row_stride,
            transposed: self.transposed,
            batch_stride: self.batch_stride,
        }
    }
}

/// `output = a · b` on a GPU, with optional bias, factor and activation.
#[derive(Debug, Clone, Copy)]
pub struct Product<'a> {
    batch: usize,
    size: [usize; 3],
    a: Matrix<'a>,
    b: Matrix<'a>,
    alpha: f32,
    beta: f32,
    bias: Option<&'a DeviceBuffer>,
    epilogue: Epilogue,
    output_offset: usize,
    output_row_stride: usize,
    output_batch_stride: usize,
}

impl<'a> Product<'a> {
    /// `size` is [rows of a, columns of b, columns of a]. The output is row-major and dense.
    pub fn new(size: [usize; 3], a: Matrix<'a>, b: Matrix<'a>) -> Self {
        Self {
            batch: 1,
            size,
            a,
            b,
            alpha: 1.0,
            beta: 0.0,
            bias: None,
            epilogue: Epilogue::None,
            output_offset: 0,
            output_row_stride: size[1],
            output_batch_stride: size[0] * size[1],
        }
    }

    /// A batch of products, with the batch strides of the factors; outputs are contiguous.
    pub fn batch(self, batch: usize) -> Self {
        Self { batch, ..self }
    }

    /// The product times a number.
    pub fn times(self, alpha: f32) -> Self {
        Self { alpha, ..self }
    }

    /// Added to what the output holds.
    pub fn accumulate(self) -> Self {
        Self { beta: 1.0, ..self }
    }

    /// Adds `bias`, one number for each column, to every row.
    pub fn bias(self, bias: &'a DeviceBuffer) -> Self {
        Self {
            bias: Some(bias),
            ..self
        }
    }

    /// Followed by max(x, 0).
    pub fn relu(self) -> Self {
        Self {
            epilogue: Epilogue::Relu,
            ..self
        }
    }

    /// Where in the output's buffer the result goes: first element, elements from row to row, and
    /// from one product of the batch to the next.
    pub fn to(self, offset: usize, row_stride: usize, batch_stride: usize) -> Self {
        Self {
            output_offset: offset,
            output_row_stride: row_stride,
            output_batch_stride: batch_stride,
            ..self
        }
    }

    /// Enqueues the product with the device's precision.
    ///
    /// # Errors
    /// [`Error::Argument`] for an empty product; [`Error::Cuda`].
    ///
    /// # Panics
    /// When a buffer is too short for its strides or lies elsewhere: a bug in the calling op.
    pub fn enqueue(self, output: &mut DeviceBuffer) -> Result<()> {
        let [rows, columns, inner] = self.size;
        if rows * columns * inner * self.batch == 0 {
            let size = self.size;
            return Err(Error::argument(
                "product",
                format!("empty product {size:?}"),
            ));
        }
        let cuda = output.cuda().clone();
        let target = Matrix {
            buffer: output,
            offset: self.output_offset,
            row_stride: self.output_row_stride,
            transposed: false,
            batch_stride: self.output_batch_stride,
        };
        let operands = [
            ("left matrix", &self.a, [rows, inner]),
            ("right matrix", &self.b, [inner, columns]),
            ("output", &target, [rows, columns]),
        ];
        for (what, matrix, [rows, columns]) in operands {
            let extent = matrix.extent(self.batch, rows, columns);
            assert!(matrix.buffer.len() >= extent, "{what} too short");
            assert_eq!(*matrix.buffer.cuda(), cuda, "{what} on another device");
            cuda.used(matrix.buffer.address());
        }
        let apart = self.batch == 1
            || target.extent(1, rows, columns) - target.offset <= target.batch_stride;
        assert!(apart, "outputs of a batch overlap");
        if let Some(bias) = self.bias {
            assert!(bias.len() >= columns, "bias too short");
            assert_eq!(*bias.cuda(), cuda, "bias on another device");
            cuda.used(bias.address());
        }
        // Products that may run concurrently get a workspace each.
        let product = cuda.0.products.fetch_add(1, Ordering::Relaxed);
        let workspace = product % Gemm::WORKSPACES;
        let reads = [Some(self.a.buffer), Some(self.b.buffer), self.bias];
        let reads: Vec<_> = reads.iter().flatten().map(|read| read.address()).collect();
        // No buffer begins at such an address.
        let place = workspace as Address + 1;
        cuda.next_uses(&reads, &[target.buffer.address(), place])?;
        let gemm = Gemm {
            workspace,
            batch: self.batch,
            rows,
            columns,
            inner,
            alpha: self.alpha,
            beta: self.beta,
            a: self.a.operand(),
            b: self.b.operand(),
            output: target.operand(),
            bias: self.bias.map(DeviceBuffer::address),
            epilogue: self.epilogue,
            precision: cuda.precision(),
        };
        // SAFETY: the extents of all operands lie in their buffers, which are of this device,
        // checked above; the output is borrowed mutably, so it overlaps neither factor nor bias.
        let enqueue = || unsafe { cuda.0.driver.gemm(&gemm) };
        let describe = || {
            let shared = |matrix: &Matrix| {
                if matrix.batch_stride == 0 {
                    1
                } else {
                    self.batch
                }
            };
            let elements = shared(&self.a) * rows * inner
                + shared(&self.b) * inner * columns
                + self.batch * rows * columns;
            let operations = 2 * self.batch * rows * columns * inner;
            let name = format!(
                "product {}x[{rows}x{inner}]x[{inner}x{columns}]",
                self.batch
            );
            (name, (4 * elements) as u64, operations as u64)
        };
        cuda.timed(describe, enqueue)
    }
}
