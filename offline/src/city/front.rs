//! The forward camera: an upright pinhole.

use super::district::District;
use super::ground::{ColumnView, Pose, Walker, direction};
use super::panorama::{self, Radiance};
use crossfix_calibration::angle::azimuth_rad_from_yaw_rad;

/// Columns of the picture.
pub const COLUMNS: usize = 128;
/// Rows of the picture.
pub const ROWS: usize = 96;
/// Horizontal field of view, degrees.
pub const FIELD_OF_VIEW_DEG: f64 = 100.0;
/// The principal point lies above the middle, so that more road than sky is seen.
pub const PRINCIPAL_ROW: f64 = 42.0;

/// Focal length, pixels.
pub fn focal_px() -> f64 {
    0.5 * COLUMNS as f64 / (0.5 * FIELD_OF_VIEW_DEG.to_radians()).tan()
}

/// The picture of a camera that looks along `pose.yaw_rad`, level.
pub fn render(district: &District, pose: &Pose, sky_seed: u32) -> Radiance {
    let rays = panorama::rays();
    let forward = azimuth_rad_from_yaw_rad(pose.yaw_rad);
    let mut tangents = vec![0.0_f32; ROWS * rays];
    panorama::supersampled(ROWS, COLUMNS, |column, colours| {
        let right = ((column as f64 + 0.5) / rays as f64 - 0.5 * COLUMNS as f64) / focal_px();
        let angle = right.atan();
        for (row, tangent) in tangents.iter_mut().enumerate() {
            let up = (PRINCIPAL_ROW - (row as f64 + 0.5) / rays as f64) / focal_px();
            *tangent = (up * angle.cos()) as f32;
        }
        let view = ColumnView {
            direction: direction(forward + angle),
            tangents: &tangents,
            ray_rad: panorama::COARSEST_RAY_RAD,
        };
        Walker::new(district, pose, sky_seed).fill(&view, colours);
    })
}
