//! Is the stated confidence true? Statistics over samples with known truth; all pure functions.

mod consistency;
mod mixture;
mod reliability;
mod temperature;

pub use consistency::{Consistency, consistency, normalised_error_squared};
pub use mixture::{MixtureFit, MixtureSample, fit_mixture};
pub use reliability::{
    Reliability, coverage, expected_calibration_error, gaussian_level, heatmap_level, reliability,
};
pub use temperature::{TemperatureFit, fit_temperature};
