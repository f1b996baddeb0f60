//! The operations, one file each: definition, gradient, tests.
#![expect(
    clippy::missing_panics_doc,
    reason = "the only panics are the broken invariant that a recorded closure has what it saved"
)]

mod activation;
pub(crate) mod add;
mod batch_norm;
mod collapse_rows;
mod concat_channels;
mod conv2d;
mod conv_transpose2x2;
mod drop_connect;
pub(crate) mod elementwise;
mod global_mean_pool;
mod heatmap_cross_entropy;
mod l2_normalise;
mod linear;
mod max_channels;
mod max_pool2d;
mod orientation_loss;
pub(crate) mod relu;
pub(crate) mod reshape;
pub(crate) mod roll;
mod rolled_matching;
pub(crate) mod scale;
mod select_channels;
pub(crate) mod sigmoid;
pub(crate) mod silu;
mod softmax;
mod squeeze_excite;
mod weighted_info_nce;

pub use activation::Activation;
pub use add::add;
pub use batch_norm::{BatchNormMode, RunningStatistics, batch_norm};
pub use collapse_rows::collapse_rows;
pub use concat_channels::concat_channels;
pub use conv_transpose2x2::conv_transpose2x2;
pub use conv2d::{Conv2d, Pad, conv2d};
pub use drop_connect::drop_connect;
pub use global_mean_pool::global_mean_pool;
pub use heatmap_cross_entropy::heatmap_cross_entropy;
pub use l2_normalise::l2_normalise;
pub use linear::linear;
pub use max_channels::max_channels;
pub use max_pool2d::max_pool2d;
pub use orientation_loss::orientation_loss;
pub use relu::relu;
pub use reshape::reshape;
pub use roll::roll;
pub use rolled_matching::rolled_matching;
pub use scale::scale;
pub use select_channels::select_channels;
pub use sigmoid::sigmoid;
pub use silu::silu;
pub use softmax::softmax;
pub use squeeze_excite::squeeze_excite;
pub use weighted_info_nce::weighted_info_nce;
