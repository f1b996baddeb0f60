//! Processes that train one network together, each on its share of every batch.
//!
//! Shares are equally long, so the mean over a batch is the mean of the shares' means. What an
//! operation computes over the whole batch (the statistics of a batch norm, the normaliser of
//! [`crate::ops::weighted_info_nce`]) it gathers from all processes. Every process must therefore run
//! the same operations in the same order.

use crate::error::{Error, Result};
use std::fmt::Debug;
use std::sync::Arc;

/// How the processes of one training exchange numbers. A call returns when all processes made it.
pub trait Communicator: Debug + Send + Sync {
    /// Number of this process, from 0.
    fn rank(&self) -> usize;

    /// Number of processes.
    fn size(&self) -> usize;

    /// Replaces `values` by their sums over the processes, with the same bits in each of them.
    ///
    /// # Errors
    /// [`Error::Communication`] when the exchange fails.
    fn all_reduce_sum(&self, values: &mut [f32]) -> Result<()>;

    /// The values of all processes, one after another in the order of their ranks.
    ///
    /// # Errors
    /// [`Error::Communication`] when the exchange fails.
    fn all_gather(&self, values: &[f64]) -> Result<Vec<f64>>;
}

/// Sums of `values` over the processes, added in the order of their ranks.
pub(crate) fn sums(communicator: &dyn Communicator, values: &[f64]) -> Result<Vec<f64>> {
    let all = communicator.all_gather(values)?;
    let mut sums = vec![0.0; values.len()];
    for share in all.chunks_exact(values.len().max(1)) {
        for (sum, value) in sums.iter_mut().zip(share) {
            *sum += value;
        }
    }
    Ok(sums)
}

/// Refuses an operation over the whole batch that a device cannot do for several processes.
pub(crate) fn refuse(
    communicator: Option<&Arc<dyn Communicator>>,
    op: &'static str,
    what: &str,
) -> Result<()> {
    match communicator {
        None => Ok(()),
        Some(_) => Err(Error::argument(
            op,
            format!(
                "{what} of several processes' batch are computed on the CPU only; use --device cpu"
            ),
        )),
    }
}
