//! The ground picture of networks that see pinhole pictures, whatever camera took it.

use nalgebra::Vector3;

use super::pinhole::check_intrinsics;
use crate::{Error, Result};

/// The picture of a level, undistorted camera that looks along the vehicle's nose.
///
/// `cx` and `cy` count from the centre of the first pixel, as in `OpenCV` and in camera matrices that
/// networks are given; those of [`super::Pinhole`] count from its corner.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PinholeView {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// Focal length along columns, pixels.
    pub fx: f64,
    /// Focal length along rows, pixels.
    pub fy: f64,
    /// Column of the optical axis, pixels.
    pub cx: f64,
    /// Row of the optical axis, the horizon, pixels.
    pub cy: f64,
}

impl PinholeView {
    /// The body ray (x forward, y left, z up) of a continuous pixel `[col, row]`, whose `[0, 0]` is the
    /// top-left corner; of any length.
    pub fn body_ray(&self, pixel: [f64; 2]) -> Vector3<f64> {
        let right = (pixel[0] - 0.5 - self.cx) / self.fx;
        let down = (pixel[1] - 0.5 - self.cy) / self.fy;
        Vector3::new(1.0, -right, -down)
    }

    /// Angle that a pixel near the axis covers, radians.
    pub(super) fn radians_per_pixel(&self) -> f64 {
        1.0 / self.fx.max(self.fy)
    }

    pub(super) fn check(&self) -> Result<()> {
        if !(1..=4096).contains(&self.rows) || !(1..=4096).contains(&self.columns) {
            return Err(Error::Strip(format!(
                "{}x{} pixels; need at most 4096x4096 and no side zero",
                self.columns, self.rows
            )));
        }
        let size = [self.columns, self.rows];
        check_intrinsics(size, [self.fx, self.fy], [self.cx, self.cy])
    }
}
