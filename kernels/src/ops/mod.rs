//! The operations, one file each: definition, gradient, tests.

mod relu;

pub use relu::relu;
