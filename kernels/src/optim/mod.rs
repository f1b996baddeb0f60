//! Optimisation: Adam, learning-rate schedules, gradient clipping, and the guard against non-finite
//! steps.

mod adam;
mod adam_on_cuda;
mod clip;
mod guard;
mod schedule;

pub use adam::{Adam, AdamState, Moments, Parameter, StepReport};
pub use clip::{clip_factor, global_norm};
pub use guard::{Guard, PendingReport, Report};
pub use schedule::{Decay, LearningRate};

/// The `.cu` files of the optimisers.
pub(crate) static SOURCES: [&crate::cuda::Source; 2] = [&adam_on_cuda::SOURCE, &guard::SOURCE];
