//! The errors of this crate.

/// An error of an operation or a device, with the values that explain it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Two shapes that an operation needs to agree do not.
    #[error("{op}: {what}: expected {expected}, got {got}")]
    Shape {
        /// The operation, by its function name.
        op: &'static str,
        /// Which argument or relation is wrong.
        what: &'static str,
        /// The shape that would fit, or a description of it.
        expected: String,
        /// The shape that was passed.
        got: String,
    },
    /// An argument has a value that makes no sense.
    #[error("{op}: {what}")]
    Argument {
        /// The operation, by its function name.
        op: &'static str,
        /// What is wrong, with the value, and what would be right.
        what: String,
    },
    /// A loss or gradient is NaN or infinite.
    #[error("{op}: {what} is not finite; lower the learning rate or look for a broken sample")]
    NotFinite {
        /// The operation or step that found it.
        op: &'static str,
        /// Which value.
        what: String,
    },
    /// The inputs of one operation lie on different devices.
    #[error("{op}: one input lies on {first}, another on {second}; move one with Tensor::to")]
    Device {
        /// The operation, by its function name.
        op: &'static str,
        /// Where the first input lies.
        first: String,
        /// Where another one lies.
        second: String,
    },
    /// A tensor on a GPU was passed to something that only the CPU does.
    #[error(
        "{op} runs on the CPU only, and a tensor {shape} lies on {device}; move it with \
         Tensor::to, or use --device cpu"
    )]
    CpuOnly {
        /// The operation, by its function name, or another reader of the values.
        op: &'static str,
        /// The tensor's shape.
        shape: String,
        /// Where it lies.
        device: String,
    },
    /// The device asked for is not there.
    #[error("no device {asked:?}: {cause}; {way_out}")]
    NoDevice {
        /// What was asked for, as in `--device`.
        asked: String,
        /// Why there is none.
        cause: String,
        /// What to do.
        way_out: String,
    },
    /// The GPU's driver is too old.
    #[error("{found}; update it to {needed}, or use --device cpu")]
    OldDriver {
        /// The version found.
        found: String,
        /// The version needed.
        needed: &'static str,
    },
    /// The GPU is older than the kernels support.
    #[error(
        "{name} has compute capability {major}.{minor}, but the kernels need 7.5 (Turing, 2018) \
         or newer; use --device cpu or another card"
    )]
    Architecture {
        /// The GPU.
        name: String,
        /// Its compute capability, before the point.
        major: u32,
        /// Its compute capability, after the point.
        minor: u32,
    },
    /// A kernel does not compile.
    #[error(
        "{source_name} does not compile for sm_{architecture}: {log}\n\
         use --device cpu until it is mended, or CUDA 13.0's compiler (libnvrtc.so.13)"
    )]
    Compile {
        /// The file.
        source_name: &'static str,
        /// The architecture, 90 for `sm_90`.
        architecture: u32,
        /// The compiler's message.
        log: String,
    },
    /// The device has no memory left for what was asked.
    #[error(
        "out of memory on {device}: {asked} bytes asked, {in_use} in use by this process, {free} \
         of {total} free; use a smaller batch or smaller images, end other programs on the \
         device, or use --device cpu"
    )]
    OutOfMemory {
        /// The device.
        device: String,
        /// Bytes asked for.
        asked: usize,
        /// Bytes that live tensors of this process hold.
        in_use: usize,
        /// Bytes free on the device.
        free: usize,
        /// Bytes the device has.
        total: usize,
    },
    /// A call of the driver or a library failed. What was computed since the last value was read is
    /// lost.
    #[error("{call} failed: {cause}")]
    Cuda {
        /// What was being done.
        call: String,
        /// The driver's or library's message.
        cause: String,
    },
    /// Processes that train together could not exchange numbers.
    #[error("{call} between the training's processes failed: {cause}")]
    Communication {
        /// What was being done.
        call: &'static str,
        /// The library's message.
        cause: String,
    },
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A shape disagreement, with anything printable on both sides.
    pub fn shape(
        op: &'static str,
        what: &'static str,
        expected: impl std::fmt::Debug,
        got: impl std::fmt::Debug,
    ) -> Self {
        Self::Shape {
            op,
            what,
            expected: format!("{expected:?}"),
            got: format!("{got:?}"),
        }
    }

    /// An invalid argument.
    pub fn argument(op: &'static str, what: impl Into<String>) -> Self {
        Self::Argument {
            op,
            what: what.into(),
        }
    }

    /// A failed call of a device's driver or library.
    pub fn cuda(call: impl Into<String>, cause: impl std::fmt::Display) -> Self {
        Self::Cuda {
            call: call.into(),
            cause: cause.to_string(),
        }
    }
}
