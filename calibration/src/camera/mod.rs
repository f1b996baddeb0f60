//! Cameras: where a ray lands in a picture, and the remap from pictures to the network's ground strip.
//!
//! Two frames meet here. The **lens** frame is the usual one of computer vision: x right, y down, z
//! along the optical axis. The **body** frame is the vehicle's: x forward, y left, z up. [`Mount`]
//! turns one into the other.

mod distortion;
mod equirectangular;
mod extrinsics;
mod fisheye;
mod import;
mod mapper;
mod pinhole;
mod remap;
mod stitch;
mod strip;
mod view;

use nalgebra::Vector3;
use serde::{Deserialize, Serialize};

pub use distortion::Distortion;
pub use equirectangular::Equirectangular;
pub use extrinsics::Mount;
pub use fisheye::Fisheye;
pub use mapper::StripMapper;
pub use pinhole::Pinhole;
pub use remap::StripRemap;
pub use stitch::{LeverArm, PanoramaSpec, Stitcher};
pub use strip::StripSpec;
pub use view::PinholeView;

use crate::{Error, Result};

/// A lens and its sensor, in the lens frame (x right, y down, z forward).
pub trait CameraModel {
    /// The continuous pixel `[col, row]` that sees along `ray` (any length), `None` if none does.
    fn project(&self, ray: Vector3<f64>) -> Option<[f64; 2]>;
    /// The unit ray that a continuous pixel sees along, `None` outside the picture.
    fn unproject(&self, pixel: [f64; 2]) -> Option<Vector3<f64>>;
    /// `[columns, rows]`.
    fn image_size(&self) -> [usize; 2];
}

/// A camera on a vehicle, as written in calibration files and logs: `kind` chooses the lens.
///
/// ```
/// # use crossfix_calibration::Camera;
/// let camera: Camera = serde_json::from_str(
///     r#"{"kind": "pinhole", "width": 640, "height": 400, "fx": 270.0, "fy": 270.0, "cx": 320.0, "cy": 200.0,
///         "mount": {"pitch_up_deg": -2.0}}"#,
/// ).unwrap();
/// camera.check().unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Camera {
    /// All around; the centre column looks along the mount's forward axis.
    Equirectangular(Equirectangular),
    /// One flat picture.
    Pinhole(Pinhole),
    /// A wide one.
    Fisheye(Fisheye),
}

impl Camera {
    /// The lens model.
    pub fn lens(&self) -> &dyn CameraModel {
        match self {
            Self::Equirectangular(lens) => lens,
            Self::Pinhole(lens) => lens,
            Self::Fisheye(lens) => lens,
        }
    }

    /// How it sits on the vehicle.
    pub fn mount(&self) -> &Mount {
        match self {
            Self::Equirectangular(lens) => &lens.mount,
            Self::Pinhole(lens) => &lens.mount,
            Self::Fisheye(lens) => &lens.mount,
        }
    }

    /// `[columns, rows]` of its pictures.
    pub fn image_size(&self) -> [usize; 2] {
        self.lens().image_size()
    }

    /// Checks the numbers of a description that came from outside.
    ///
    /// # Errors
    /// [`Error::Camera`], naming the field, its value and what it should be.
    pub fn check(&self) -> Result<()> {
        let [width, height] = self.image_size();
        if !(1..=32_768).contains(&width) || !(1..=32_768).contains(&height) {
            return Err(Error::Camera(format!(
                "width and height are {width}x{height}; each must be 1 to 32768"
            )));
        }
        self.mount().check()?;
        match self {
            Self::Equirectangular(lens) => lens.check(),
            Self::Pinhole(lens) => lens.check(),
            Self::Fisheye(lens) => lens.check(),
        }
    }

    /// The pixel that sees along a body ray (x forward, y left, z up), `None` if none does.
    pub fn project_body(&self, ray: Vector3<f64>) -> Option<[f64; 2]> {
        self.lens().project(self.mount().lens_from_body() * ray)
    }

    /// The body ray that a pixel sees along, `None` outside the picture.
    pub fn unproject_body(&self, pixel: [f64; 2]) -> Option<Vector3<f64>> {
        Some(
            self.mount()
                .lens_from_body()
                .tr_mul(&self.lens().unproject(pixel)?),
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> std::result::Result<Camera, String> {
        let camera: Camera = serde_json::from_str(text).map_err(|e| e.to_string())?;
        camera.check().map_err(|e| e.to_string())?;
        Ok(camera)
    }

    #[test]
    fn calibration_text_comes_back_as_written() {
        for text in [
            r#"{"kind":"equirectangular","width":256,"height":48,"top_elevation_deg":28.0,"bottom_elevation_deg":-39.5,"mount":{"yaw_left_deg":3.0}}"#,
            r#"{"kind":"pinhole","width":640,"height":400,"fx":270.0,"fy":270.0,"cx":320.0,"cy":200.0,"distortion":{"k1":-0.1,"k2":0.01,"p1":0.0,"p2":0.0,"k3":0.0}}"#,
            r#"{"kind":"pinhole","width":640,"height":400,"fx":270.0,"fy":270.0,"cx":320.0,"cy":200.0,"distortion":{"k1":1.1,"k2":0.1,"p1":0.0,"p2":0.0,"k3":0.0,"k4":1.2,"k5":0.3,"k6":0.01}}"#,
            r#"{"kind":"fisheye","width":640,"height":400,"fx":170.0,"fy":170.0,"cx":320.0,"cy":200.0,"k1":0.01,"k2":-0.002}"#,
        ] {
            let camera = parse(text).unwrap();
            assert_eq!(
                parse(&serde_json::to_string(&camera).unwrap()).unwrap(),
                camera
            );
        }
    }

    #[test]
    fn wrong_calibration_says_which_number() {
        for (text, word) in [
            (r#"{"kind":"telescope"}"#, "telescope"),
            (
                r#"{"kind":"fisheye","width":640,"height":400,"fx":0,"fy":270,"cx":320,"cy":200}"#,
                "fx",
            ),
            (
                r#"{"kind":"fisheye","width":640,"height":400,"fx":270,"fy":270,"cx":320,"cy":200,"k5":1}"#,
                "k5",
            ),
            (
                r#"{"kind":"equirectangular","width":0,"height":48}"#,
                "width",
            ),
            (
                r#"{"kind":"equirectangular","width":9,"height":9,"elevation":3}"#,
                "elevation",
            ),
            (
                r#"{"kind":"equirectangular","width":9,"height":9,"top_elevation_deg":-10,"bottom_elevation_deg":20}"#,
                "top_elevation_deg",
            ),
            (
                r#"{"kind":"pinhole","width":640,"height":400,"fx":-1,"fy":270,"cx":320,"cy":200}"#,
                "fx",
            ),
            (
                r#"{"kind":"pinhole","width":640,"height":400,"fx":270,"fy":270,"cx":99999,"cy":200}"#,
                "cx",
            ),
            (
                r#"{"kind":"pinhole","width":640,"height":400,"fx":270,"fy":270,"cx":320,"cy":200,"mount":{"pitch_up_deg":1e9}}"#,
                "pitch_up_deg",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn pixels_come_back_through_their_rays(u in 0.01..0.99f64, v in 0.01..0.99f64,
                                               yaw in -180.0..180.0f64, pitch in -80.0..80.0f64, roll in -180.0..180.0f64) {
            let mount = Mount { yaw_left_deg: yaw, pitch_up_deg: pitch, roll_right_deg: roll };
            let bent = Distortion { k1: -0.12, k2: 0.02, p1: 0.001, p2: -0.002, ..Distortion::default() };
            let rational = Distortion { k1: 0.9, k2: 0.1, p1: 0.001, p2: -0.0005, k3: 0.002, k4: 1.0, k5: 0.2, k6: 0.01 };
            let fisheye = Fisheye { width: 640, height: 400, fx: 200.0, fy: 205.0, cx: 330.0, cy: 190.0, k1: 0.02, k2: -0.01, k3: 0.003, k4: -0.0004, largest_angle_deg: 180.0, mount };
            let pinhole = Pinhole { width: 640, height: 400, fx: 300.0, fy: 310.0, cx: 330.0, cy: 190.0, distortion: None, mount };
            for camera in [
                Camera::Pinhole(Pinhole { distortion: Some(bent), ..pinhole.clone() }),
                Camera::Pinhole(Pinhole { distortion: Some(rational), ..pinhole.clone() }),
                Camera::Fisheye(fisheye),
                Camera::Pinhole(pinhole),
                Camera::Equirectangular(Equirectangular { width: 512, height: 200, top_elevation_deg: 40.0, bottom_elevation_deg: -60.0, mount }),
            ] {
                let [width, height] = camera.image_size();
                let pixel = [u * width as f64, v * height as f64];
                let ray = camera.unproject_body(pixel).unwrap();
                prop_assert!((ray.norm() - 1.0).abs() < 1e-12);
                let back = camera.project_body(ray * 7.0).unwrap();
                prop_assert!((back[0] - pixel[0]).abs() < 1e-6 && (back[1] - pixel[1]).abs() < 1e-6, "{back:?} {pixel:?}");
            }
        }
    }

    #[test]
    fn pixels_are_those_that_opencv_finds() {
        #[derive(Deserialize)]
        struct Case {
            camera: Camera,
            /// Rays and pixels; OpenCV puts the centre of the first pixel at 0.
            rays: Vec<([f64; 3], [f64; 2])>,
        }
        let text = include_str!("opencv.json");
        let cases: Vec<Case> = serde_json::from_str(text).unwrap();
        assert_eq!(cases.len(), 6);
        for Case { camera, rays } in cases {
            camera.check().unwrap();
            assert!(rays.len() >= 20);
            for (ray, [col, row]) in rays {
                let ray = Vector3::from(ray);
                let found = camera.lens().project(ray).unwrap();
                let off = (found[0] - 0.5 - col).hypot(found[1] - 0.5 - row);
                assert!(off < 1e-6, "{camera:?} {ray:?}: {found:?} {col} {row}");
                let back = camera.lens().unproject(found).unwrap();
                assert!((back - ray.normalize()).norm() < 1e-6, "{camera:?} {ray:?}");
            }
        }
    }
}
