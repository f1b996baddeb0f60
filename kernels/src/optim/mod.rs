//! What moves parameters: Adam, how long its steps are, and how gradients are bounded.

mod adam;
pub(crate) mod adam_on_cuda;
mod clip;
pub(crate) mod guard;
mod schedule;

pub use adam::{Adam, AdamState, Moments, Parameter, StepReport};
pub use clip::{clip_factor, global_norm};
pub use guard::{Guard, PendingReport, Report};
pub use schedule::{Decay, LearningRate};
