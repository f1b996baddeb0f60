//! Which loop computes a convolution on the CPU.

use super::geometry::Geometry;
use super::{depthwise, pointwise};

/// How a convolution, its input gradient and its weight gradient are computed on the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strategy {
    /// Every channel by itself, in register tiles over padded rows.
    Depthwise,
    /// 1 × 1 with stride 1: one matrix product per sample, by the `gemm` crate.
    Pointwise,
    /// Everything else: a matrix product with im2col, a panel at a time.
    Dense,
}

/// The strategy for a convolution of these sizes.
///
/// TABLE
pub(super) fn plan(g: &Geometry) -> Strategy {
    if depthwise::fits(g) {
        Strategy::Depthwise
    } else if pointwise::fits(g) {
        Strategy::Pointwise
    } else {
        Strategy::Dense
    }
}
