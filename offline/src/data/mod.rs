//! Drives of ground and aerial images, and how they become batches.
//!
//! A [`Dataset`] is opened for a network: [`pairs`] is our own format, [`vigor`] and [`kitti`] are
//! the published ones. Its metadata is in memory, its pixels are read when asked for, ahead of who
//! needs them ([`loader`]), through a folder of decoded pictures ([`cache`]) and a bounded memory
//! ([`memory`]). A [`Sample`] and a [`Pair`] have no field for the truth; true positions are in
//! [`pairs::truth`], and adaptation never sees them.
//!
//! [`Examples`] are images with labels, drawn anew each time: [`Labelled`] gives labels to any
//! dataset; VIGOR and KITTI have their own, with the published draws.

pub mod augment;
pub mod batch;
pub mod cache;
pub mod error;
pub mod examples;
#[cfg(test)]
mod golden;
pub mod kitti;
pub mod loader;
pub mod memory;
pub mod npy;
pub mod numpy;
pub mod pairs;
pub mod picture;
pub mod planes;
pub mod pose;
pub mod problems;
pub mod resample;
pub mod sample;
mod text;
pub mod vigor;

pub use augment::{Augmentation, Transform};
pub use batch::{Batch, plain_batch};
pub use cache::Pictures;
pub use error::DatasetError;
pub use examples::{Example, Examples, Labelled, ReadExample};
pub use memory::{InMemory, MEMORY_BYTES};
pub use pairs::{Pairs, PairsImages, Preparation};
pub use problems::Problems;
pub use sample::{Dataset, Drive, OdometryStep, Pair, Sample, Subset};
