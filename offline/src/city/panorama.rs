//! Whole panoramas, by default 48 × 256 pixels, 28° above the horizon to 39.5° below it.

use super::detail::PanoramaSize;
use super::district::District;
use super::ground::{ColumnView, Pose, Walker, direction};
use super::style::Colour;
use crossfix_calibration::angle::azimuth_rad_from_yaw_rad;
use std::f64::consts::{PI, TAU};

/// Rays per pixel along each axis.
const RAYS: usize = 2;
/// Angle between the rays of the default panorama.
pub(super) const COARSEST_RAY_RAD: f32 = (TAU / (256 * RAYS) as f64) as f32;

/// A picture in floating point, row by row, 0 to 255.
pub struct Radiance {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Pixels.
    pub pixels: Vec<Colour>,
}

/// The panorama at a pose: its centre column looks along `pose.yaw_rad` and columns run clockwise.
///
/// For a north-aligned picture pass a yaw of π/2 (north).
pub fn render(district: &District, pose: &Pose, sky_seed: u32, size: PanoramaSize) -> Radiance {
    let ray_rad = size.radians_per_pixel() / RAYS as f64;
    let top_rad = size.top_rad();
    let tangents: Vec<f32> = (0..size.rows() * RAYS)
        .map(|row| (top_rad - (row as f64 + 0.5) * ray_rad).tan() as f32)
        .collect();
    let forward = azimuth_rad_from_yaw_rad(pose.yaw_rad);
    supersampled(size.rows(), size.columns(), |column, colours| {
        let azimuth = forward - PI + (column as f64 + 0.5) * ray_rad;
        let view = ColumnView {
            direction: direction(azimuth),
            tangents: &tangents,
            ray_rad: ray_rad as f32,
        };
        Walker::new(district, pose, sky_seed).fill(&view, colours);
    })
}

/// Averages `RAYS` × `RAYS` rays per pixel; `fill` paints a column of rays.
pub(super) fn supersampled(
    rows: usize,
    columns: usize,
    mut fill: impl FnMut(usize, &mut [Colour]),
) -> Radiance {
    let mut pixels = vec![[0.0; 3]; rows * columns];
    let mut rays = vec![[0.0; 3]; rows * RAYS];
    let weight = 1.0 / (RAYS * RAYS) as f32;
    for ray_column in 0..columns * RAYS {
        fill(ray_column, &mut rays);
        for (ray_row, ray) in rays.iter().enumerate() {
            let pixel: &mut Colour = &mut pixels[ray_row / RAYS * columns + ray_column / RAYS];
            for (sum, channel) in pixel.iter_mut().zip(ray) {
                *sum += weight * channel;
            }
        }
    }
    Radiance {
        width: columns,
        height: rows,
        pixels,
    }
}

/// Rays per pixel along each axis, for renderers that share [`supersampled`].
pub(super) const fn rays() -> usize {
    RAYS
}
