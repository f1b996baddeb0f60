//! The running average of a network's weights over the steps of its training: the averaged student.

use crate::model::weights::{Arrays, arrays_of, fill};
use crate::model::{CrossViewModel, ModelError};
use std::path::Path;

/// The exponential moving average of weights and running statistics. It has no part of the weights before the first step:
/// the mean over `steps` steps weighs them by `decay` to the power of their age and divides by the sum of these
/// weights, as Adam corrects its moments. So a short run is averaged over all its steps, and not held back at its
/// teacher.
///
/// # Source
/// Mean teachers are better role models (Tarvainen and Valpola 2017); the correction is that of Adam (Kingma and Ba
/// 2015), section 3.
#[derive(Debug, Clone)]
pub(super) struct Average {
    decay: f64,
    /// Empty before the first step.
    pub arrays: Arrays,
}

impl Average {
    /// Before the first step.
    pub fn new(decay: f64) -> Self {
        Self {
            decay,
            arrays: Arrays::new(),
        }
    }

    /// Takes in the weights after step `step`, counted from 1. The network lies on the host.
    pub fn note(&mut self, model: &dyn CrossViewModel, step: u64) {
        let now = arrays_of(model);
        if self.arrays.is_empty() {
            self.arrays = now;
            return;
        }
        // 1 for the first step, falling to 1 - decay.
        let share = (1.0 - self.decay) / (1.0 - self.decay.powf(step as f64));
        for (mean, now) in self.arrays.values_mut().zip(now.values()) {
            for (mean, now) in mean.1.iter_mut().zip(&now.1) {
                *mean += (share * f64::from(*now - *mean)) as f32;
            }
        }
    }

    /// Gives a network the averaged weights; before the first step it stays as it is.
    ///
    /// # Errors
    /// [`ModelError::Weights`] where they are of another network.
    pub fn put_into(&self, model: &mut dyn CrossViewModel) -> Result<(), ModelError> {
        if self.arrays.is_empty() {
            return Ok(());
        }
        fill(
            model,
            self.arrays.clone(),
            Path::new("the averaged weights"),
        )
    }
}
