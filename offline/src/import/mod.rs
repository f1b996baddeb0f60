//! Published PyTorch checkpoints.

pub mod names;
