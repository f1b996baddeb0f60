//! The activations that other operations fuse, with their derivatives.

use crate::math::sigmoid;

/// What follows a normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// Nothing.
    None,
    /// x · sigmoid(x).
    Silu,
    /// max(x, 0).
    Relu,
}

#[inline(always)]
pub(super) fn plain(x: f32) -> f32 {
    x
}

#[inline(always)]
pub(super) fn plain_slope(_: f32) -> f32 {
    1.0
}

#[inline(always)]
pub(super) fn silu(x: f32) -> f32 {
    x * sigmoid(x)
}

/// s + x s (1 - s), with s the sigmoid of x.
#[inline(always)]
pub(super) fn silu_slope(x: f32) -> f32 {
    let s = sigmoid(x);
    s * x.mul_add(1.0 - s, 1.0)
}

/// max(x, 0), except that NaN stays NaN.
#[inline(always)]
pub(super) fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

/// 1 where x is positive, else 0; NaN stays NaN.
#[inline(always)]
pub(super) fn relu_slope(x: f32) -> f32 {
    if x > 0.0 {
        1.0
    } else if x <= 0.0 {
        0.0
    } else {
        x
    }
}
