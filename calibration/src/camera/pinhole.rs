//! The pinhole camera, with the distortion of its lens.

use nalgebra::Vector3;
use serde::{Deserialize, Serialize};

use super::{CameraModel, Distortion, Mount};
use crate::{Error, Result};

/// A pinhole camera; lengths in pixels, `[0, 0]` the top-left corner of the picture.
///
/// `cx`, `cy` are in that convention too: `OpenCV` and ROS put the centre of the first pixel at 0, so
/// add 0.5 to theirs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pinhole {
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
    /// Lens distortion, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distortion: Option<Distortion>,
    /// How it sits on the vehicle.
    #[serde(default)]
    pub mount: Mount,
}

impl Pinhole {
    /// A level, undistorted, centred camera with square pixels.
    pub fn with_horizontal_view(width: usize, height: usize, horizontal_view_rad: f64) -> Self {
        let focal = width as f64 / 2.0 / (horizontal_view_rad / 2.0).tan();
        Self {
            width,
            height,
            fx: focal,
            fy: focal,
            cx: width as f64 / 2.0,
            cy: height as f64 / 2.0,
            distortion: None,
            mount: Mount::default(),
        }
    }

    fn sees(&self, pixel: [f64; 2]) -> bool {
        (0.0..=self.width as f64).contains(&pixel[0])
            && (0.0..=self.height as f64).contains(&pixel[1])
    }

    pub(super) fn check(&self) -> Result<()> {
        check_intrinsics(
            [self.width, self.height],
            [self.fx, self.fy],
            [self.cx, self.cy],
        )?;
        if let Some(distortion) = self.distortion
            && distortion.numbers().iter().any(|k| !k.is_finite())
        {
            return Err(Error::Camera(
                "distortion holds a number that is not finite".to_owned(),
            ));
        }
        Ok(())
    }
}

/// Checks focal lengths and the centre, pixels.
pub(super) fn check_intrinsics(
    [width, height]: [usize; 2],
    [fx, fy]: [f64; 2],
    [cx, cy]: [f64; 2],
) -> Result<()> {
    for (name, value) in [("fx", fx), ("fy", fy)] {
        if !(1e-3..=1e6).contains(&value) {
            return Err(Error::Camera(format!(
                "{name} is {value}; a focal length is 0.001 to 1000000 pixels"
            )));
        }
    }
    for (name, value, size) in [("cx", cx, width), ("cy", cy, height)] {
        // Crops can push the axis outside the picture, but not by more than its size.
        if !(-(size as f64)..=2.0 * size as f64).contains(&value) {
            return Err(Error::Camera(format!(
                "{name} is {value}, far outside the {size}-pixel picture"
            )));
        }
    }
    Ok(())
}

impl CameraModel for Pinhole {
    fn project(&self, ray: Vector3<f64>) -> Option<[f64; 2]> {
        if ray.z <= 1e-9 * ray.norm() {
            return None;
        }
        let straight = [ray.x / ray.z, ray.y / ray.z];
        let [x, y] = match &self.distortion {
            None => straight,
            Some(lens) => {
                let r2 = straight[0] * straight[0] + straight[1] * straight[1];
                if !lens.grows_until(r2) {
                    return None;
                }
                lens.bend(straight)
            }
        };
        let pixel = [self.fx * x + self.cx, self.fy * y + self.cy];
        self.sees(pixel).then_some(pixel)
    }

    fn unproject(&self, pixel: [f64; 2]) -> Option<Vector3<f64>> {
        if !self.sees(pixel) {
            return None;
        }
        let bent = [
            (pixel[0] - self.cx) / self.fx,
            (pixel[1] - self.cy) / self.fy,
        ];
        let [x, y] = match &self.distortion {
            None => bent,
            Some(lens) => lens.unbend(bent)?,
        };
        Some(Vector3::new(x, y, 1.0).normalize())
    }

    fn image_size(&self) -> [usize; 2] {
        [self.width, self.height]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edge_of_a_right_angled_view_is_at_45_degrees() {
        let camera = Pinhole::with_horizontal_view(200, 100, std::f64::consts::FRAC_PI_2);
        let [col, row] = camera.project(Vector3::new(1.0, 0.0, 1.0 + 1e-12)).unwrap();
        assert!((col - 200.0).abs() < 1e-9 && (row - 50.0).abs() < 1e-9);
        assert!(camera.project(Vector3::new(1.1, 0.0, 1.0)).is_none());
        assert!(camera.project(Vector3::new(0.0, 0.0, -1.0)).is_none());
        assert!(camera.project(Vector3::zeros()).is_none());
    }

    #[test]
    fn rays_beyond_the_fold_of_a_barrel_lens_are_not_seen() {
        // r (1 - 0.3 r²) turns back at r = 1.054; at r = 1.7 it has returned to 0.23.
        let bent = Distortion {
            k1: -0.3,
            ..Distortion::default()
        };
        let camera = Pinhole {
            distortion: Some(bent),
            ..Pinhole::with_horizontal_view(200, 200, 2.0)
        };
        assert!(camera.project(Vector3::new(1.7, 0.0, 1.0)).is_none());
        assert!(camera.project(Vector3::new(1.0, 0.0, 1.0)).is_some());
    }
}
