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
/// A loop stays only if a whole run without it is at least 5 % slower on one of the two: slowdown on one
/// thread, AVX-512 / AVX2 (Zen 4, November 2026; the shapes of `offline/examples/network_time.rs`):
///
/// | without | compact step | published step | published forward |
/// |---|---|---|---|
/// | depthwise register tiles (plain loops instead) | none used | 7 % | 5 % |
/// | panels read in place (dense, up to 64 outputs) | 6.0 / 1.7 % | noise | 1.8 / 1.5 % |
///
/// The matrix products (`Pointwise` and `Dense`) have no alternative. Removed as below 5 %: products of
/// large planes for 1 × 1 (0.5 %), rows read in place for few taps (1.2 %), weight gradients by pairs of
/// planes (0.5 %), by rows (0.9 %), by planes and in interleaved order (3.1 % together, compact step), and
/// depthwise bands with prefetching (1.3 %). All removals together: `docs/benchmarks.md`.
pub(super) fn plan(g: &Geometry) -> Strategy {
    if depthwise::fits(g) {
        Strategy::Depthwise
    } else if pointwise::fits(g) {
        Strategy::Pointwise
    } else {
        Strategy::Dense
    }
}
