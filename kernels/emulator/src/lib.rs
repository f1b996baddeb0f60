//! Runs our CUDA kernels on the CPU, to find their faults without a GPU.
//!
//! The same `.cu` files, compiled as C++: every CUDA thread is a fiber, which leaves the CPU only
//! where CUDA threads wait for each other. [`Emulator`] is a [`Driver`], so operations, memory
//! pool, launches and recorded steps are the very code that runs on a GPU.
//!
//! What it finds, always: reads and writes outside a buffer (guard pages on both sides) or of a
//! freed one, barriers that not all threads reach, threads that wait for each other for ever,
//! values used before they are written (memory starts as NaN), copies never waited for, results
//! that depend on the order in which threads run ([`Schedule`]). And in [`Options::checked`], from
//! one run of any schedule: two unordered accesses of which one writes (a race), with both source
//! lines; reads of what nobody wrote; indices outside an array; misaligned vector accesses.
//!
//! ```
//! use crossfix_kernel_emulator::{Emulator, Options, Schedule};
//! use crossfix_kernels::{Device, Tape, Tensor, cuda::Cuda, ops};
//!
//! let options = Options { schedule: Schedule::Random(7), ..Options::default() };
//! let device = Device::Cuda(Cuda::with_driver(Box::new(Emulator::new(options))));
//! let x = Tensor::new(vec![1.0, 2.0, 3.0], &[3])?.to(&device)?;
//! let y = ops::roll(&mut Tape::inference(), &x, 0, 1)?;
//! assert_eq!(y.to_vec()?, [3.0, 1.0, 2.0]);
//! # Ok::<(), crossfix_kernels::Error>(())
//! ```
//!
//! What it does not find: what only speed or a real memory system shows (bank conflicts, missing
//! `__threadfence` between blocks), and races between launches of different streams: there is one.

mod emulator;
mod gemm;
mod native;
mod source_lines;

pub use crossfix_kernels::cuda::Driver;
pub use emulator::{Emulator, Guard, Options, Schedule};
