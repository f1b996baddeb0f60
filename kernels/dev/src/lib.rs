//! What only tests and developers need of the kernels: every operation on small inputs
//! ([`cases`]), and the comparison of a GPU with the CPU ([`check_device`]). No program that we ship
//! depends on it.

#![cfg_attr(
    test,
    allow(clippy::float_cmp, reason = "tests compare values that are exact")
)]

mod cases;
mod device_check;
mod op_case;
mod training;

pub use cases::cases;
pub use device_check::{CheckOptions, check_device};
pub use op_case::{Difference, OpCase};
