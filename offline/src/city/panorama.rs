//! Whole panoramas: 48 × 256 pixels, 28° above the horizon to 39.5° below it.

use super::district::District;
use super::ground::{ColumnView, Pose, Walker, direction};
use super::style::Colour;
use std::f64::consts::{FRAC_PI_2, PI, TAU};

/// Rows of a panorama.
pub const ROWS: usize = 48;
/// Columns of a panorama, once around.
pub const COLUMNS: usize = 256;
/// Elevation of the upper edge, rad.
pub const TOP_RAD: f64 = 28.0 * PI / 180.0;
/// Pixels are square: rad per row and per column.
pub const RADIANS_PER_PIXEL: f64 = TAU / COLUMNS as f64;
/// Rays per pixel along each axis.
const RAYS: usize = 2;

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
pub fn render(district: &District, pose: &Pose, sky_seed: u32) -> Radiance {
    let ray_rad = RADIANS_PER_PIXEL / RAYS as f64;
    let tangents: Vec<f32> = (0..ROWS * RAYS)
        .map(|row| (TOP_RAD - (row as f64 + 0.5) * ray_rad).tan() as f32)
        .collect();
    let forward = FRAC_PI_2 - pose.yaw_rad;
    supersampled(ROWS, COLUMNS, |column, colours| {
        let azimuth = forward - PI + (column as f64 + 0.5) * ray_rad;
        let view = ColumnView {
            direction: direction(azimuth),
            tangents: &tangents,
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
