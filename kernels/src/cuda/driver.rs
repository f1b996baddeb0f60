//! The interface to a GPU. NVIDIA's driver ([`super::nvidia`]) and the kernel emulator of the tests
//! implement it, so everything above it (shape checks, parameter structs, launch shapes, argument
//! order) is the same code on both.

use crate::error::Result;
use std::any::Any;
use std::ffi::c_void;
use std::time::Instant;

/// A place in a device's memory.
pub type Address = u64;

/// One `.cu` file.
#[derive(Debug)]
pub struct Source {
    /// Its path below `src`, as in `ops/roll.cu`.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
    /// Kernels in it that must compile without register spills.
    pub hot: &'static [&'static str],
}

/// One `extern "C" __global__` function.
#[derive(Debug, Clone, Copy)]
pub struct Kernel {
    /// The file it is in.
    pub source: &'static Source,
    /// Its name, unique among the kernels of all files.
    pub entry: &'static str,
}

/// How many threads run a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaunchShape {
    /// Blocks along x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block along x, y, z.
    pub block: [u32; 3],
    /// Dynamic shared memory of each block.
    pub shared_bytes: u32,
}

/// How exact the device's matrix products and convolutions are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Precision {
    /// f32 throughout.
    #[default]
    F32,
    /// Factors rounded to 10 mantissa bits (TF32), products and sums in f32.
    Tf32,
    /// Factors rounded to bf16 (7 mantissa bits), products and sums in f32.
    Bf16,
}

/// How a dense convolution is computed. Its result differs by roundings only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Convolution {
    /// A matrix product that reads the image in place (implicit im2col).
    Implicit,
    /// A matrix product of columns written to memory (explicit im2col).
    Columns,
    /// A sliding window in registers, for 3 × 3 kernels, in f32.
    Window,
}

/// What happens to a matrix product before it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Epilogue {
    /// Nothing.
    #[default]
    None,
    /// max(x, 0).
    Relu,
}

/// A matrix, or a batch of equally shaped ones, in a device's memory.
#[derive(Debug, Clone, Copy)]
pub struct Operand {
    /// The first element of the first matrix.
    pub address: Address,
    /// Elements from one stored row to the next.
    pub row_stride: usize,
    /// Whether the matrix meant is the transpose of the stored one.
    pub transposed: bool,
    /// Elements from one matrix of the batch to the next; 0 when all share one.
    pub batch_stride: usize,
}

/// `output = epilogue(alpha · a · b + beta · output + bias)` for each of a batch, row-major f32.
#[derive(Debug, Clone, Copy)]
pub struct Gemm {
    /// Which working memory it takes, below [`Gemm::WORKSPACES`]; no other product may use it at
    /// the same time.
    pub workspace: usize,
    /// Number of products.
    pub batch: usize,
    /// Rows of a and of the output.
    pub rows: usize,
    /// Columns of b and of the output.
    pub columns: usize,
    /// Columns of a, rows of b.
    pub inner: usize,
    /// The factor of the product.
    pub alpha: f32,
    /// The factor of what `output` held; 0 ignores it, even NaN.
    pub beta: f32,
    /// The left matrix, `[rows, inner]`.
    pub a: Operand,
    /// The right matrix, `[inner, columns]`.
    pub b: Operand,
    /// The result, `[rows, columns]`; never transposed.
    pub output: Operand,
    /// `[columns]`, added to each row.
    pub bias: Option<Address>,
    /// What is applied to the result.
    pub epilogue: Epilogue,
    /// How exact the factors are.
    pub precision: Precision,
}

impl Gemm {
    /// Workspaces: the most products that may run concurrently.
    pub const WORKSPACES: usize = 4;
}

/// Work recorded by [`Driver::end_capture`].
pub trait Graph: Send + Sync {
    /// Enqueues all of it.
    ///
    /// # Errors
    /// [`crate::Error::Cuda`].
    fn replay(&self) -> Result<()>;
}

/// A download under way.
pub trait Download: Send {
    /// Waits for the copy and for what was queued before it, not for what was queued after it.
    ///
    /// # Errors
    /// [`crate::Error::Cuda`], also for anything queued before that failed.
    fn wait(self: Box<Self>) -> Result<Vec<u8>>;
}

/// A moment in a device's queue.
pub trait Mark: Send {
    /// Milliseconds that the device took from here to `later`; waits until both have passed.
    ///
    /// # Errors
    /// [`crate::Error::Cuda`].
    ///
    /// # Panics
    /// When `later` is a mark of another kind of device.
    fn milliseconds_to(&self, later: &dyn Mark) -> Result<f64>;

    /// For [`Mark::milliseconds_to`] to find its own kind again.
    fn as_any(&self) -> &dyn Any;
}

/// The host's clock, read when the queue is empty: for a driver that cannot time its queue.
struct Moment(Instant);

impl Mark for Moment {
    fn milliseconds_to(&self, later: &dyn Mark) -> Result<f64> {
        let later: &Self = later
            .as_any()
            .downcast_ref()
            .expect("a mark of this device");
        Ok(later.0.duration_since(self.0).as_secs_f64() * 1e3)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Free and total bytes of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Bytes no process uses.
    pub free: usize,
    /// Bytes there are.
    pub total: usize,
}

/// A device with one queue, in which work runs in the order it was enqueued.
pub trait Driver: Send + Sync {
    /// The device's name, for people.
    fn name(&self) -> String;

    /// Its architecture: 90 for `sm_90`.
    fn architecture(&self) -> u32;

    /// Memory of any content, at least 256-byte aligned. `Ok(None)` when there is none left.
    ///
    /// # Errors
    /// [`crate::Error::Cuda`].
    fn allocate(&self, bytes: usize) -> Result<Option<Address>>;

    /// Gives memory back.
    ///
    /// # Safety
    /// `address` came from [`Driver::allocate`] for `bytes`, is given back once, and no work that
    /// uses it is queued (synchronise first) or recorded in a graph that will be replayed.
    unsafe fn free(&self, address: Address, bytes: usize);

    /// What the device has left.
    ///
    /// # Errors
    /// [`crate::Error::Cuda`].
    fn memory(&self) -> Result<Memory>;

    /// How much to allocate for `bytes`: rounding up lets the pool reuse memory for buffers of similar
    /// sizes. The emulator allocates exactly, to see what lies one past the end.
    fn size_class(&self, bytes: usize) -> usize {
        let bytes = bytes.max(512);
        // Eight classes for each doubling: at most an eighth is wasted.
        bytes.next_multiple_of((bytes.next_power_of_two() / 16).max(512))
    }

    /// Called before the pool hands out memory again; the emulator poisons it.
    fn reused(&self, address: Address, bytes: usize) {
        let _ = (address, bytes);
    }

    /// Copies to the device, after what is queued; `bytes` may change as soon as this returns.
    ///
    /// # Safety
    /// `to` has room for `bytes`.
    ///
    /// # Errors
    /// [`crate::Error::Cuda`].
    unsafe fn upload(&self, to: Address, bytes: &[u8]) -> Result<()>;

    /// Copies from the device, after what is queued, and waits for it.
    ///
    /// # Safety
    /// `bytes.len()` bytes lie at `from`.
    ///
    /// # Errors
    /// [`crate::Error::Cuda`], also for anything queued before that failed.
    unsafe fn download(&self, from: Address, bytes: &mut [u8]) -> Result<()>;

    /// As [`Driver::upload`], on a second queue for uploads: it does not wait for what is queued, so
    /// the next step's inputs are copied while this step runs. Ordered by the two fences below.
    ///
    /// # Safety
    /// `to` has room for `bytes`; what is queued and uses it was queued before the fence that the
    /// last [`Driver::await_release`] waits for, or comes after [`Driver::await_uploads`].
    ///
    /// # Errors
    /// [`crate::Error::Cuda`].
    unsafe fn upload_concurrently(&self, to: Address, bytes: &[u8]) -> Result<()>;

    /// What is queued after this call waits for the uploads that the second queue holds now.
    ///
    /// # Errors
    /// [`crate::Error::Cuda`].
    fn await_uploads(&self) -> Result<()>;

    /// Sets fence `slot` (0 or 1) for [`Driver::await_release`]: it is passed when all that is queued so
    /// far has run. Setting a fence again replaces it.
    ///
    /// # Errors
    /// [`crate::Error::Cuda`].
    fn release_to_uploads(&self, slot: usize) -> Result<()>;

    /// Later uploads on the second queue wait for fence `slot`; not at all where it was never set.
    ///
    /// # Errors
    /// [`crate::Error::Cuda`].
    fn await_release(&self, slot: usize) -> Result<()>;

    /// Enqueues a copy from the device, to be waited for later.
    ///
    /// # Safety
    /// `bytes` bytes lie at `from`.
    ///
    /// # Errors
    /// [`crate::Error::Cuda`].
    unsafe fn begin_download(&self, from: Address, bytes: usize) -> Result<Box<dyn Download>>;

    /// A mark in the queue, to measure times with. The default waits until the queue is empty and reads
    /// the host's clock.
    ///
    /// # Errors
    /// [`crate::Error::Cuda`] when something queued has failed.
    fn mark(&self) -> Result<Box<dyn Mark>> {
        self.synchronise()?;
        Ok(Box::new(Moment(Instant::now())))
    }

    /// Enqueues a copy within the device.
    ///
    /// # Safety
    /// `bytes` bytes lie at both places, and they don't overlap.
    ///
    /// # Errors
    /// [`crate::Error::Cuda`].
    unsafe fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<()>;

    /// Enqueues filling with zero bytes.
    ///
    /// # Safety
    /// `bytes` bytes lie at `address`.
    ///
    /// # Errors
    /// [`crate::Error::Cuda`].
    unsafe fn fill_zero(&self, address: Address, bytes: usize) -> Result<()>;

    /// Enqueues a kernel, compiling it first where that has not been done.
    ///
    /// # Safety
    /// `arguments` point at values of the kernel's parameter types, in order, and what the kernel
    /// reads and writes through them with this shape lies in memory allocated here.
    ///
    /// # Errors
    /// [`crate::Error::Compile`] or [`crate::Error::Cuda`].
    unsafe fn launch(
        &self,
        kernel: &Kernel,
        shape: LaunchShape,
        arguments: &mut [*mut c_void],
    ) -> Result<()>;

    /// Enqueues a matrix product.
    ///
    /// # Safety
    /// All elements that the operands' strides reach lie in memory allocated here, and the output
    /// overlaps neither factor.
    ///
    /// # Errors
    /// [`crate::Error::Cuda`].
    unsafe fn gemm(&self, gemm: &Gemm) -> Result<()>;

    /// Waits until the queue is empty.
    ///
    /// # Errors
    /// [`crate::Error::Cuda`] when something queued has failed.
    fn synchronise(&self) -> Result<()>;

    /// From here to [`Driver::end_capture`], work is recorded instead of run. Uploads and
    /// downloads are refused in between.
    ///
    /// # Errors
    /// [`crate::Error::Cuda`].
    fn begin_capture(&self) -> Result<()>;

    /// While work is recorded: what is enqueued next is a new node of the graph, numbered from 0, that
    /// depends on the nodes `after`. A driver may ignore this and keep the order of the recording, as
    /// the default does.
    ///
    /// # Errors
    /// [`crate::Error::Cuda`].
    fn begin_node(&self, after: &[usize]) -> Result<()> {
        let _ = after;
        Ok(())
    }

    /// Ends the recording; also the way to abandon one after an error.
    ///
    /// # Errors
    /// [`crate::Error::Cuda`].
    fn end_capture(&self) -> Result<Box<dyn Graph>>;
}

impl Source {
    /// The names of its kernels, in their order.
    pub fn entries(&self) -> impl Iterator<Item = &'static str> {
        let pieces = self.text.split("extern \"C\" __global__").skip(1);
        pieces.filter_map(|piece| {
            let mut head = piece.split('{').next()?;
            if let Some((_, after)) = head.split_once("__launch_bounds__(") {
                head = after.split_once(')')?.1;
            }
            head.split('(').next()?.split_whitespace().last()
        })
    }
}
