//! Panoramas: columns are azimuth, rows are elevation, both linear.

use std::f64::consts::TAU;

use nalgebra::Vector3;
use serde::{Deserialize, Serialize};

use super::{CameraModel, Mount};
use crate::{Error, Result};

/// A full turn of azimuth across the width (the centre column looks along the mount's forward axis,
/// azimuth grows to the right) and a band of elevation over the height.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Equirectangular {
    /// Columns, one full turn.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Elevation of the top edge in degrees.
    #[serde(default = "straight_up_deg")]
    pub top_elevation_deg: f64,
    /// Elevation of the bottom edge in degrees.
    #[serde(default = "straight_down_deg")]
    pub bottom_elevation_deg: f64,
    /// How it sits on the vehicle.
    #[serde(default)]
    pub mount: Mount,
}

fn straight_up_deg() -> f64 {
    90.0
}

fn straight_down_deg() -> f64 {
    -90.0
}

impl Equirectangular {
    /// Azimuth in radians, clockwise from the forward axis, of a continuous column.
    pub fn azimuth_rad(&self, column: f64) -> f64 {
        (column / self.width as f64 - 0.5) * TAU
    }

    /// Continuous column of an azimuth, in `0..width`.
    pub fn column(&self, azimuth_rad: f64) -> f64 {
        let column = (azimuth_rad / TAU + 0.5).rem_euclid(1.0) * self.width as f64;
        // A tiny negative angle rounds up to a full turn.
        if column < self.width as f64 {
            column
        } else {
            0.0
        }
    }

    /// Continuous row of an elevation; outside `0..=height` when the picture does not reach there.
    pub fn row(&self, elevation_rad: f64) -> f64 {
        (self.top_elevation_deg - elevation_rad.to_degrees())
            / (self.top_elevation_deg - self.bottom_elevation_deg)
            * self.height as f64
    }

    /// Rows per radian of elevation.
    pub(super) fn rows_per_radian(&self) -> f64 {
        self.height as f64 / (self.top_elevation_deg - self.bottom_elevation_deg).to_radians()
    }

    pub(super) fn check(&self) -> Result<()> {
        let (top, bottom) = (self.top_elevation_deg, self.bottom_elevation_deg);
        if !(-90.0 <= bottom && bottom < top && top <= 90.0) {
            return Err(Error::Camera(format!(
                "top_elevation_deg {top} and bottom_elevation_deg {bottom}; need -90 <= bottom < top <= 90"
            )));
        }
        Ok(())
    }
}

impl CameraModel for Equirectangular {
    fn project(&self, ray: Vector3<f64>) -> Option<[f64; 2]> {
        let row = self.row((-ray.y).atan2(ray.x.hypot(ray.z)));
        (0.0..=self.height as f64)
            .contains(&row)
            .then(|| [self.column(ray.x.atan2(ray.z)), row])
    }

    fn unproject(&self, pixel: [f64; 2]) -> Option<Vector3<f64>> {
        let inside = (0.0..=self.width as f64).contains(&pixel[0])
            && (0.0..=self.height as f64).contains(&pixel[1]);
        let (sin_azimuth, cos_azimuth) = self.azimuth_rad(pixel[0]).sin_cos();
        let share = pixel[1] / self.height as f64;
        let elevation_deg =
            self.top_elevation_deg + share * (self.bottom_elevation_deg - self.top_elevation_deg);
        let (up, across) = elevation_deg.to_radians().sin_cos();
        inside.then(|| Vector3::new(across * sin_azimuth, -up, across * cos_azimuth))
    }

    fn image_size(&self) -> [usize; 2] {
        [self.width, self.height]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::PI;

    #[test]
    fn forward_is_the_centre_and_right_is_three_quarters() {
        let camera = Equirectangular {
            width: 400,
            height: 200,
            top_elevation_deg: 90.0,
            bottom_elevation_deg: -90.0,
            mount: Mount::default(),
        };
        assert_eq!(camera.project(Vector3::z()), Some([200.0, 100.0]));
        assert_eq!(camera.project(Vector3::x()), Some([300.0, 100.0]));
        assert_eq!(camera.project(-Vector3::x()), Some([100.0, 100.0]));
        assert_eq!(camera.column(PI), 0.0);
        assert_eq!(camera.column(-PI - 1e-18), 0.0);
    }

    #[test]
    fn rays_above_the_band_are_not_seen() {
        let camera = Equirectangular {
            width: 256,
            height: 48,
            top_elevation_deg: 28.0,
            bottom_elevation_deg: -39.5,
            mount: Mount::default(),
        };
        let up = |deg: f64| Vector3::new(0.0, -deg.to_radians().tan(), 1.0);
        assert!(camera.project(up(28.1)).is_none() && camera.project(up(27.9)).is_some());
        assert!(camera.project(up(-39.6)).is_none() && camera.project(up(-39.4)).is_some());
        assert!(camera.unproject([257.0, 3.0]).is_none());
    }
}
