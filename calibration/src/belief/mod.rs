//! Where the vehicle may be: a grid of probabilities over a square window of ENU metres.
//!
//! The window travels with the vehicle. [`GridBelief::predict`] moves the window itself by the
//! odometry step, so a step costs no interpolation and loses nothing, and blurs by the step's noise;
//! [`GridBelief::recentre`] slides the window by whole cells when the belief has wandered from its
//! middle. Measurements land anywhere, sub-cell.

mod estimate;
mod grid;
mod log_map;
mod math;
mod predict;
mod smooth;
mod update;

pub use estimate::BeliefEstimate;
pub use grid::GridBelief;
pub use log_map::LogMap;
pub use smooth::{Evidence, Step, smooth};
