//! The operations, one file each: definition, gradient, tests.

mod activation;
mod add;
mod batch_norm;
mod concat_channels;
mod conv2d;
mod conv_transpose2x2;
mod elementwise;
mod global_mean_pool;
mod linear;
mod max_pool2d;
mod relu;
mod reshape;
mod roll;
mod scale;
mod sigmoid;
mod silu;
mod squeeze_excite;

pub use activation::Activation;
pub use add::add;
pub use batch_norm::{BatchNormMode, RunningStatistics, batch_norm};
pub use concat_channels::concat_channels;
pub use conv_transpose2x2::conv_transpose2x2;
pub use conv2d::{Conv2d, Pad, conv2d};
pub use global_mean_pool::global_mean_pool;
pub use linear::linear;
pub use max_pool2d::max_pool2d;
pub use relu::relu;
pub use reshape::reshape;
pub use roll::roll;
pub use scale::scale;
pub use sigmoid::sigmoid;
pub use silu::silu;
pub use squeeze_excite::squeeze_excite;
