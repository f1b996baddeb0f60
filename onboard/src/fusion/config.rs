//! Every number the fusion rests on, with its unit and its default.

use crate::card::LEAST_OUTLIER_SHARE;
use serde::{Deserialize, Serialize};

/// Parameters of the fusion; each default is documented at its field and set in one place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FusionConfig {
    /// Side of one belief cell, metres. Default 0.5.
    pub metres_per_cell: f64,
    /// Cells along one side of the belief window. Default 192 (96 m).
    pub window_cells: usize,
    /// Distance driven between two heatmaps that count, metres. Frames nearer together look at the
    /// same things and repeat each other's errors. Default 4.
    pub visual_spacing_m: f64,
    /// Patch centres are rounded to a grid of this size so that neighbouring frames share a patch,
    /// metres. Default 8.
    pub patch_grid_m: f64,
    /// Power to which a heatmap's likelihood is raised. The errors of frames metres apart are related,
    /// which asks for less than 1; heatmaps are wider than their errors, because they were taught with
    /// blurred labels, which asks for more. Default 1.
    pub visual_exponent: f64,
    /// Share of heatmaps that mean nothing. Default: 0.15, or what the student's card says if that is more.
    pub visual_outlier_share: Option<f64>,
    /// Share of the visual belief that is forgotten into "anywhere in the window" at each heatmap, so
    /// that a wrong belief can be overturned. Default 0.002.
    pub visual_forgetting: f64,
    /// Share of a receiver's stated variance that stays nearly the same from fix to fix (atmosphere,
    /// multipath); it is filtered as a bias, so sixty fixes in a minute don't count as sixty. Default 0.9.
    pub gnss_correlated_share: f64,
    /// How long that share lasts, seconds. Default 40.
    pub gnss_correlation_s: f64,
    /// Factor on the stated 1-sigma errors of the receiver: among houses receivers see their noise and a part
    /// of their slow error, hardly their reflections. Default 1.5.
    pub gnss_sigma_factor: f64,
    /// Smallest 1-sigma horizontal error believed of any receiver, metres. Default 0.05.
    pub gnss_sigma_floor_m: f64,
    /// Share of epochs in which the filtered GNSS position means nothing. Default 0.02.
    pub gnss_outlier_share: f64,
    /// Odometry noise per metre driven, m² per metre. Default 0.004.
    pub odometry_noise_m2_per_m: f64,
    /// Initial 1-sigma error of the odometry's speed scale, as a ratio. Default 0.02.
    pub speed_scale_sigma: f64,
    /// Initial 1-sigma error of the yaw rate's offset, rad/s. Default 0.005.
    pub gyro_bias_sigma_rps: f64,
    /// Distance over which yaw and scale errors are remembered by the belief as one error, metres.
    /// Default 20.
    pub drift_memory_m: f64,
    /// 1-sigma error of a yaw from the network, degrees; 0 means it is not used. While a gyro carries the turns, each
    /// counts for less: yaws of neighbouring frames err alike. Default 8.
    pub visual_yaw_sigma_deg: f64,
    /// 1-sigma error that no averaging removes (lever arms, mounting), metres. Default 0.2.
    pub position_floor_m: f64,
    /// 1-sigma error of the time stamps against each other, seconds; times the speed it is a position
    /// error. Default 0.02.
    pub sync_sigma_s: f64,
    /// How late pictures are against their stamps: what they show was true so long before, seconds; negative where
    /// they are stamped too early. What is found beyond it makes the state `degraded`. Default 0.
    pub picture_delay_s: f64,
    /// Largest error of the pictures' stamps that the protection radius covers while turns and changes of speed
    /// have not shown a smaller one, seconds; 0 where the camera is triggered by the clock of the receiver. Default 0.5.
    pub sync_bound_s: f64,
    /// A change of the published place by more than this, and by more than three sigma, is a jump and
    /// needs `jump_confirmations`, metres. Default 3.
    pub jump_m: f64,
    /// Consistent updates in a row before a jump is published. Default 3.
    pub jump_confirmations: usize,
    /// Probability that the vehicle is outside the protection radius. Default 0.001.
    pub protection_risk: f64,
    /// A GNSS fix older than this is missing, seconds. Default 3.
    pub gnss_timeout_s: f64,
    /// Odometry older than this is missing, seconds. Default 1.
    pub odometry_timeout_s: f64,
    /// Distance driven without a heatmap after which the camera no longer contributes, metres.
    /// Default 40.
    pub visual_timeout_m: f64,
    /// The same in time, while driving, seconds. Default 10.
    pub visual_timeout_s: f64,
    /// A larger 1-sigma error than this is no position, metres. Default 50.
    pub lost_sigma_m: f64,
    /// How far back late measurements are accepted, seconds. Default 2.
    pub history_s: f64,
}

impl Default for FusionConfig {
    fn default() -> Self {
        Self {
            metres_per_cell: 0.5,
            window_cells: 192,
            visual_spacing_m: 4.0,
            patch_grid_m: 8.0,
            visual_exponent: 1.0,
            visual_outlier_share: None,
            visual_forgetting: 0.002,
            gnss_correlated_share: 0.9,
            gnss_correlation_s: 40.0,
            gnss_sigma_factor: 1.5,
            gnss_sigma_floor_m: 0.05,
            gnss_outlier_share: 0.02,
            odometry_noise_m2_per_m: 0.004,
            speed_scale_sigma: 0.02,
            gyro_bias_sigma_rps: 0.005,
            drift_memory_m: 20.0,
            visual_yaw_sigma_deg: 8.0,
            position_floor_m: 0.2,
            sync_sigma_s: 0.02,
            picture_delay_s: 0.0,
            sync_bound_s: 0.5,
            jump_m: 3.0,
            jump_confirmations: 3,
            protection_risk: 1e-3,
            gnss_timeout_s: 3.0,
            odometry_timeout_s: 1.0,
            visual_timeout_m: 40.0,
            visual_timeout_s: 10.0,
            lost_sigma_m: 50.0,
            history_s: 2.0,
        }
    }
}

/// Share of heatmaps that mean nothing, of students that nothing was found of.
const OUTLIER_SHARE: f64 = LEAST_OUTLIER_SHARE;
/// Least side of the belief's window, metres.
const SMALLEST_WINDOW_M: f64 = 48.0;

impl FusionConfig {
    /// Share of heatmaps that mean nothing: as set, or at least 0.15, or more by the student's card.
    pub fn outlier_share(&self) -> f64 {
        self.visual_outlier_share.unwrap_or(OUTLIER_SHARE)
    }

    /// A window must hold a vehicle that a receiver among houses knows.
    fn check_window(&self) -> Option<String> {
        let side_m = self.metres_per_cell * self.window_cells as f64;
        (side_m < SMALLEST_WINDOW_M).then(|| {
            format!(
                "window_cells = {} of metres_per_cell = {} are a window of {side_m:.0} m; it needs {SMALLEST_WINDOW_M} m",
                self.window_cells, self.metres_per_cell
            )
        })
    }

    /// Every problem at once, each as `field = value` and what is allowed.
    pub fn check(&self) -> Vec<String> {
        let ranges = [
            ("metres_per_cell", self.metres_per_cell, 0.1, 4.0),
            ("window_cells", self.window_cells as f64, 16.0, 1024.0),
            ("visual_spacing_m", self.visual_spacing_m, 0.0, 100.0),
            ("patch_grid_m", self.patch_grid_m, 0.1, 32.0),
            ("visual_exponent", self.visual_exponent, 0.01, 1.0),
            ("visual_outlier_share", self.outlier_share(), 0.001, 0.99),
            ("visual_forgetting", self.visual_forgetting, 0.0, 0.5),
            (
                "gnss_correlated_share",
                self.gnss_correlated_share,
                0.0,
                0.999,
            ),
            ("gnss_correlation_s", self.gnss_correlation_s, 0.1, 1e4),
            ("gnss_sigma_factor", self.gnss_sigma_factor, 0.1, 100.0),
            ("gnss_sigma_floor_m", self.gnss_sigma_floor_m, 0.001, 10.0),
            ("gnss_outlier_share", self.gnss_outlier_share, 0.0, 0.5),
            (
                "odometry_noise_m2_per_m",
                self.odometry_noise_m2_per_m,
                0.0,
                10.0,
            ),
            ("speed_scale_sigma", self.speed_scale_sigma, 1e-4, 0.5),
            ("gyro_bias_sigma_rps", self.gyro_bias_sigma_rps, 1e-5, 0.5),
            ("drift_memory_m", self.drift_memory_m, 0.0, 1000.0),
            (
                "visual_yaw_sigma_deg",
                self.visual_yaw_sigma_deg,
                0.0,
                180.0,
            ),
            ("position_floor_m", self.position_floor_m, 0.0, 10.0),
            ("sync_sigma_s", self.sync_sigma_s, 0.0, 1.0),
            ("picture_delay_s", self.picture_delay_s, -1.0, 1.5),
            ("sync_bound_s", self.sync_bound_s, 0.0, 2.0),
            ("jump_m", self.jump_m, 0.0, 1e3),
            (
                "jump_confirmations",
                self.jump_confirmations as f64,
                1.0,
                100.0,
            ),
            ("protection_risk", self.protection_risk, 1e-9, 0.5),
            ("gnss_timeout_s", self.gnss_timeout_s, 0.1, 3600.0),
            ("odometry_timeout_s", self.odometry_timeout_s, 0.1, 60.0),
            ("visual_timeout_m", self.visual_timeout_m, 1.0, 1e4),
            ("visual_timeout_s", self.visual_timeout_s, 0.1, 3600.0),
            ("lost_sigma_m", self.lost_sigma_m, 1.0, 1e4),
            ("history_s", self.history_s, 0.1, 10.0),
        ];
        ranges
            .iter()
            .filter(|(_, value, low, high)| !(low..=high).contains(&value))
            .map(|(name, value, low, high)| format!("{name} = {value} is outside {low} to {high}"))
            .chain(self.check_window())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_pass_and_every_problem_is_listed() {
        assert_eq!(FusionConfig::default().check(), Vec::<String>::new());
        let broken = FusionConfig {
            visual_exponent: f64::NAN,
            window_cells: 1,
            ..FusionConfig::default()
        };
        let problems = broken.check();
        assert_eq!(problems.len(), 3, "{problems:?}");
    }
}
