//! The fisheye camera whose distance from the centre is a polynomial of the angle.

use std::f64::consts::PI;

use nalgebra::Vector3;
use serde::{Deserialize, Serialize};

use super::pinhole::check_intrinsics;
use super::{CameraModel, Mount};
use crate::{Error, Result};

/// Steps in which a way from the axis is looked through for a turning point.
const STEPS: u32 = 32;

/// A fisheye camera; lengths in pixels, `[0, 0]` the top-left corner of the picture.
///
/// A ray at the angle θ from the axis lands at `f θ (1 + k1 θ² + k2 θ⁴ + k3 θ⁶ + k4 θ⁸)` from the centre.
/// ROS and Kalibr call this model `equidistant`, `OpenCV` `fisheye`, Foxglove `kannala_brandt`. `OpenCV` and
/// ROS put the centre of the first pixel at 0, so add 0.5 to their `cx` and `cy`.
///
/// # Source
/// Kannala and Brandt, "A generic camera model and calibration method for conventional, wide-angle, and
/// fish-eye lenses", 2006; `OpenCV` calib3d, "Fisheye camera model".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fisheye {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Focal length along columns.
    pub fx: f64,
    /// Focal length along rows.
    pub fy: f64,
    /// Column of the optical axis.
    pub cx: f64,
    /// Row of the optical axis.
    pub cy: f64,
    /// θ³.
    #[serde(default)]
    pub k1: f64,
    /// θ⁵.
    #[serde(default)]
    pub k2: f64,
    /// θ⁷.
    #[serde(default)]
    pub k3: f64,
    /// θ⁹.
    #[serde(default)]
    pub k4: f64,
    /// Largest angle from the axis that the lens images, degrees. Default 180: as far as the polynomial
    /// grows and the picture reaches.
    #[serde(default = "whole_sphere", skip_serializing_if = "is_whole_sphere")]
    pub largest_angle_deg: f64,
    /// How it sits on the vehicle.
    #[serde(default)]
    pub mount: Mount,
}

fn whole_sphere() -> f64 {
    180.0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_whole_sphere(angle_deg: &f64) -> bool {
    *angle_deg == whole_sphere()
}

impl Fisheye {
    /// The distance from the centre in focal lengths.
    fn radius(&self, theta: f64) -> f64 {
        let s = theta * theta;
        theta * (1.0 + s * (self.k1 + s * (self.k2 + s * (self.k3 + s * self.k4))))
    }

    fn slope(&self, theta: f64) -> f64 {
        let s = theta * theta;
        1.0 + s * (3.0 * self.k1 + s * (5.0 * self.k2 + s * (7.0 * self.k3 + s * 9.0 * self.k4)))
    }

    /// Whether the distance still grows all the way out to this angle.
    fn grows_until(&self, theta: f64) -> bool {
        (1..=STEPS).all(|step| self.slope(theta * f64::from(step) / f64::from(STEPS)) > 0.0)
    }

    fn sees(&self, pixel: [f64; 2]) -> bool {
        (0.0..=self.width as f64).contains(&pixel[0])
            && (0.0..=self.height as f64).contains(&pixel[1])
    }

    /// The angle of a distance, by bisection: it grows, and there is no other safe start.
    fn angle(&self, radius: f64) -> Option<f64> {
        let (mut low, mut high) = (0.0, self.largest_angle_deg.to_radians().min(PI));
        if !self.grows_until(high) {
            // The last angle that still grows.
            let (mut good, mut bad) = (0.0, high);
            for _ in 0..60 {
                let middle = f64::midpoint(good, bad);
                if self.grows_until(middle) {
                    good = middle;
                } else {
                    bad = middle;
                }
            }
            high = good;
        }
        if self.radius(high) < radius {
            return None;
        }
        for _ in 0..60 {
            let middle = f64::midpoint(low, high);
            if self.radius(middle) < radius {
                low = middle;
            } else {
                high = middle;
            }
        }
        Some(f64::midpoint(low, high))
    }

    pub(super) fn check(&self) -> Result<()> {
        check_intrinsics(
            [self.width, self.height],
            [self.fx, self.fy],
            [self.cx, self.cy],
        )?;
        if [self.k1, self.k2, self.k3, self.k4]
            .iter()
            .any(|k| !k.is_finite())
        {
            return Err(Error::Camera(
                "k1 to k4 hold a number that is not finite".to_owned(),
            ));
        }
        if !(1.0..=180.0).contains(&self.largest_angle_deg) {
            return Err(Error::Camera(format!(
                "largest_angle_deg is {}; it must be 1 to 180",
                self.largest_angle_deg
            )));
        }
        Ok(())
    }
}

impl CameraModel for Fisheye {
    fn project(&self, ray: Vector3<f64>) -> Option<[f64; 2]> {
        let across = ray.x.hypot(ray.y);
        let theta = across.atan2(ray.z);
        // What lies exactly behind is in no direction from the centre.
        if ray.norm() == 0.0
            || (across == 0.0 && ray.z < 0.0)
            || theta > self.largest_angle_deg.to_radians()
            || !self.grows_until(theta)
        {
            return None;
        }
        let scale = if across > 0.0 {
            self.radius(theta) / across
        } else {
            0.0
        };
        let pixel = [
            self.fx * scale * ray.x + self.cx,
            self.fy * scale * ray.y + self.cy,
        ];
        self.sees(pixel).then_some(pixel)
    }

    fn unproject(&self, pixel: [f64; 2]) -> Option<Vector3<f64>> {
        if !self.sees(pixel) {
            return None;
        }
        let x = (pixel[0] - self.cx) / self.fx;
        let y = (pixel[1] - self.cy) / self.fy;
        let radius = x.hypot(y);
        if radius == 0.0 {
            return Some(Vector3::z());
        }
        let (sine, cosine) = self.angle(radius)?.sin_cos();
        Some(Vector3::new(x / radius * sine, y / radius * sine, cosine))
    }

    fn image_size(&self) -> [usize; 2] {
        [self.width, self.height]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fisheye() -> Fisheye {
        Fisheye {
            width: 1000,
            height: 1000,
            fx: 300.0,
            fy: 300.0,
            cx: 500.0,
            cy: 500.0,
            k1: 0.0,
            k2: 0.0,
            k3: 0.0,
            k4: 0.0,
            largest_angle_deg: 180.0,
            mount: Mount::default(),
        }
    }

    #[test]
    fn a_ray_to_the_side_lands_a_quarter_turn_away_and_one_behind_outside() {
        let [col, row] = fisheye().project(Vector3::new(1.0, 0.0, 0.0)).unwrap();
        assert!((col - 500.0 - 300.0 * PI / 2.0).abs() < 1e-9 && (row - 500.0).abs() < 1e-9);
        // 95° from the axis is still in the picture, 100° is not.
        let at = |angle: f64| fisheye().project(Vector3::new(angle.sin(), 0.0, angle.cos()));
        assert!(at(95f64.to_radians()).is_some() && at(100f64.to_radians()).is_none());
        assert!(fisheye().project(Vector3::zeros()).is_none());
        let narrow = Fisheye {
            largest_angle_deg: 60.0,
            ..fisheye()
        };
        assert!(narrow.project(Vector3::new(1.0, 0.0, 0.0)).is_none());
        assert!(narrow.unproject([10.0, 500.0]).is_none());
    }

    #[test]
    fn rays_beyond_the_fold_are_not_seen() {
        // θ (1 - 0.1 θ²) turns back at θ = 1.83.
        let folded = Fisheye {
            k1: -0.1,
            ..fisheye()
        };
        let at = |angle: f64| folded.project(Vector3::new(angle.sin(), 0.0, angle.cos()));
        assert!(at(1.7).is_some() && at(2.0).is_none() && at(3.0).is_none());
        assert!(folded.unproject([999.0, 999.0]).is_none());
    }
}
