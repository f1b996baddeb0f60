//! Pairs kept in memory after they were read, as many as a budget holds.

use super::error::DatasetError;
use super::pairs::headings::FoundHeadings;
use super::sample::{Dataset, Pair, Sample};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// Bytes of pixels that [`InMemory`] keeps unless told otherwise.
pub const MEMORY_BYTES: usize = 256 << 20;

/// A dataset whose pairs stay in memory once they were read, until the budget is full.
///
/// None is ever dropped for another: every epoch asks for each pair once, so the pair that was used
/// longest ago is the next one needed, and replacing it would gain nothing.
pub struct InMemory<D> {
    dataset: D,
    pairs: Vec<OnceLock<Arc<Pair>>>,
    /// Bytes that may still be kept.
    left: AtomicUsize,
}

impl<D: Dataset> InMemory<D> {
    /// Keeps up to `bytes` of pixels of `dataset`.
    pub fn new(dataset: D, bytes: usize) -> Self {
        Self {
            pairs: (0..dataset.len()).map(|_| OnceLock::new()).collect(),
            left: AtomicUsize::new(bytes),
            dataset,
        }
    }

    /// The dataset behind it.
    pub fn inner(&self) -> &D {
        &self.dataset
    }
}

impl<D: Dataset> Dataset for InMemory<D> {
    fn len(&self) -> usize {
        self.dataset.len()
    }

    fn sample(&self, index: usize) -> &Sample {
        self.dataset.sample(index)
    }

    fn pair(&self, index: usize) -> Result<Arc<Pair>, DatasetError> {
        if let Some(pair) = self.pairs[index].get() {
            return Ok(pair.clone());
        }
        let pair = self.dataset.pair(index)?;
        let bytes = pair.ground.data.len() + pair.aerial.data.len();
        let order = Ordering::Relaxed;
        let room = self
            .left
            .fetch_update(order, order, |left| left.checked_sub(bytes))
            .is_ok();
        if room && self.pairs[index].set(pair.clone()).is_err() {
            // Another thread read it meanwhile, and paid for it.
            self.left.fetch_add(bytes, order);
        }
        Ok(pair)
    }

    fn margin_px(&self) -> usize {
        self.dataset.margin_px()
    }

    fn found_headings(&self) -> Option<FoundHeadings> {
        self.dataset.found_headings()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::GroundProjection;
    use crossfix_calibration::RgbImage;

    /// Counts how often a pair is read.
    struct Counted(Vec<Pair>, AtomicUsize);

    impl Dataset for Counted {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn sample(&self, index: usize) -> &Sample {
            &self.0[index].sample
        }

        fn pair(&self, index: usize) -> Result<Arc<Pair>, DatasetError> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.pair(index)
        }
    }

    #[test]
    fn pairs_are_read_once_until_the_budget_is_full() {
        let projection = GroundProjection::Panorama {
            metres_per_pixel: 0.5,
            turn_rad: 0.0,
        };
        let pairs = (0..4).map(|index| Pair {
            sample: Sample::unplaced(index.to_string(), projection),
            ground: RgbImage::black(4, 2),
            aerial: RgbImage::black(4, 4),
        });
        // 72 bytes a pair: two fit.
        let dataset = Counted(pairs.collect(), AtomicUsize::new(0));
        let dataset = InMemory::new(dataset, 2 * 72 + 10);
        for _ in 0..3 {
            for index in 0..4 {
                let pair = dataset.pair(index).unwrap();
                assert_eq!(pair.sample.id, index.to_string());
            }
        }
        assert_eq!(dataset.inner().1.load(Ordering::Relaxed), 2 + 3 * 2);
    }
}
