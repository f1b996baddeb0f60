//! Tensors, gradients and the operations our networks need. Knows nothing about maps or models.
//!
//! Begin with [`Tensor`] and [`Tape`]; then [`ops`], where each operation is one file that holds
//! its definition, its gradient and its tests.
//!
//! ```
//! use crossfix_kernels::{Tape, Tensor, ops};
//!
//! let x = Tensor::new(vec![-1.0, 0.0, 2.0], &[3])?.with_gradient();
//! let mut tape = Tape::training();
//! let y = ops::relu(&mut tape, &x)?;
//! let gradients = tape.backward_from(&y, Tensor::full(&[3], 1.0))?;
//! assert_eq!(gradients.get(&x).unwrap().data(), [0.0, 0.0, 1.0]);
//! # Ok::<(), crossfix_kernels::Error>(())
//! ```

#![allow(
    clippy::inline_always,
    reason = "what inner loops call must adopt their instruction set"
)]
#![cfg_attr(
    test,
    allow(clippy::float_cmp, reason = "tests compare values that are exact")
)]

mod buffer;
mod communicator;
pub mod cuda;
mod device;
mod error;
mod gemm;
mod kernel_sources;
mod math;
pub mod ops;
pub mod optim;
mod pixels;
mod scratch;
pub mod simd;
mod tape;
mod tensor;
#[doc(hidden)]
pub mod testing;

pub use communicator::Communicator;
pub use device::Device;
pub use error::{Error, Result};
#[doc(hidden)]
pub use kernel_sources::kernel_sources;
pub use pixels::Pixels;
pub use tape::{Gradients, Tape};
pub use tensor::{Tensor, TensorId};
