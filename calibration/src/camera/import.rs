//! Calibration files of others: ROS's `camera_info` (as `camera_calibration` writes it, or as a message is
//! printed), Kalibr's camera chain, and OpenCV's file storage.
//!
//! All of them put the centre of the first pixel at 0; ours is at 0.5, so 0.5 is added to `cx` and `cy`.

use yaml_rust2::{Yaml, YamlLoader};

use super::{Camera, Distortion, Fisheye, Mount, Pinhole};
use crate::{Error, Result};

/// What such a file says, whichever it is.
struct Calibration<'a> {
    width: Option<f64>,
    height: Option<f64>,
    /// fx, fy, cx, cy.
    intrinsics: [f64; 4],
    /// Name of the distortion model; empty when the file has none.
    model: &'a str,
    coefficients: Vec<f64>,
}

impl Camera {
    /// Reads a calibration file (YAML). `name` chooses the camera of a Kalibr chain, `cam0` by default.
    ///
    /// # Errors
    /// [`Error::Camera`], naming what is missing or not read here.
    ///
    /// # Source
    /// ROS `sensor_msgs/CameraInfo` and REP 104; Kalibr, "Yaml formats"; `OpenCV` `FileStorage`.
    pub fn from_calibration_file(text: &str, name: Option<&str>) -> Result<Self> {
        // OpenCV begins with %YAML:1.0, which is none of YAML's directives.
        let lines = text.lines().filter(|line| !line.starts_with('%'));
        let text = lines.collect::<Vec<_>>().join("\n");
        let documents = YamlLoader::load_from_str(&text)
            .map_err(|error| fail(format!("is not YAML: {error}")))?;
        let root = documents
            .first()
            .ok_or_else(|| fail("has nothing in it".to_owned()))?;
        let calibration = if root["cam0"].is_badvalue() && name.is_none() {
            matrix_file(root)?
        } else {
            kalibr(root, name.unwrap_or("cam0"))?
        };
        let camera = calibration.camera()?;
        camera.check()?;
        Ok(camera)
    }
}

impl Calibration<'_> {
    fn camera(&self) -> Result<Camera> {
        let size = |value: Option<f64>, what: &str| match value {
            Some(value) if value >= 1.0 => Ok(value as usize),
            _ => Err(fail(format!("has no {what} of the picture"))),
        };
        let (width, height) = (size(self.width, "width")?, size(self.height, "height")?);
        let [fx, fy, cx, cy] = self.intrinsics;
        let (cx, cy) = (cx + 0.5, cy + 0.5);
        let mount = Mount::default();
        let all = &self.coefficients;
        let at = |index: usize| all.get(index).copied().unwrap_or(0.0);
        let none_beyond = |count: usize| {
            if all.iter().skip(count).any(|value| *value != 0.0) {
                return Err(fail(format!(
                    "has {} distortion coefficients; those beyond {count} are not modelled here",
                    all.len()
                )));
            }
            Ok(())
        };
        match self.model {
            "equidistant" | "fisheye" | "kannala_brandt" => {
                none_beyond(4)?;
                Ok(Camera::Fisheye(Fisheye {
                    width,
                    height,
                    fx,
                    fy,
                    cx,
                    cy,
                    k1: at(0),
                    k2: at(1),
                    k3: at(2),
                    k4: at(3),
                    largest_angle_deg: 180.0,
                    mount,
                }))
            }
            "" | "none" | "plumb_bob" | "radtan" | "rational_polynomial" => {
                none_beyond(8)?;
                let bends = all.iter().any(|value| *value != 0.0);
                let distortion = bends.then(|| Distortion {
                    k1: at(0),
                    k2: at(1),
                    p1: at(2),
                    p2: at(3),
                    k3: at(4),
                    k4: at(5),
                    k5: at(6),
                    k6: at(7),
                });
                Ok(Camera::Pinhole(Pinhole {
                    width,
                    height,
                    fx,
                    fy,
                    cx,
                    cy,
                    distortion,
                    mount,
                }))
            }
            other => Err(fail(format!(
                "has the distortion model {other:?}; plumb_bob, rational_polynomial, radtan, equidistant and \
                 none are read"
            ))),
        }
    }
}

/// ROS and `OpenCV`: a matrix and a list of coefficients under one of several names.
fn matrix_file(root: &Yaml) -> Result<Calibration<'_>> {
    let find = |names: &[&str]| {
        names
            .iter()
            .map(|name| &root[*name])
            .find(|value| !value.is_badvalue())
    };
    let matrix = find(&["camera_matrix", "Camera_Matrix", "K", "k"]).and_then(numbers);
    let Some(&[fx, _, cx, _, fy, cy, ..]) = matrix.as_deref() else {
        return Err(fail(
            "has no camera_matrix (ROS, OpenCV), no K (a CameraInfo) and no cam0 (Kalibr)"
                .to_owned(),
        ));
    };
    let coefficients = find(&[
        "distortion_coefficients",
        "Distortion_Coefficients",
        "dist_coeffs",
        "D",
        "d",
    ]);
    let is_fisheye = find(&["fisheye_model"]).and_then(number) == Some(1.0);
    let model = find(&["distortion_model"]).and_then(Yaml::as_str);
    Ok(Calibration {
        width: find(&["image_width", "image_Width", "width"]).and_then(number),
        height: find(&["image_height", "image_Height", "height"]).and_then(number),
        intrinsics: [fx, fy, cx, cy],
        model: if is_fisheye {
            "fisheye"
        } else {
            model.unwrap_or("")
        },
        coefficients: coefficients.and_then(numbers).unwrap_or_default(),
    })
}

fn kalibr<'a>(root: &'a Yaml, name: &str) -> Result<Calibration<'a>> {
    let camera = &root[name];
    if camera.is_badvalue() {
        let names: Vec<_> = root
            .as_hash()
            .into_iter()
            .flat_map(|cameras| cameras.keys())
            .filter_map(Yaml::as_str)
            .collect();
        return Err(fail(format!(
            "has no camera {name:?}; it has {}",
            names.join(", ")
        )));
    }
    let kind = camera["camera_model"].as_str().unwrap_or("pinhole");
    if kind != "pinhole" {
        return Err(fail(format!(
            "has the camera model {kind:?}; calibrate it with pinhole-radtan or pinhole-equi"
        )));
    }
    let intrinsics = numbers(&camera["intrinsics"]);
    let Some(&[fx, fy, cx, cy]) = intrinsics.as_deref() else {
        return Err(fail("has no intrinsics of four numbers".to_owned()));
    };
    let resolution = numbers(&camera["resolution"]).unwrap_or_default();
    Ok(Calibration {
        width: resolution.first().copied(),
        height: resolution.get(1).copied(),
        intrinsics: [fx, fy, cx, cy],
        model: camera["distortion_model"].as_str().unwrap_or(""),
        coefficients: numbers(&camera["distortion_coeffs"]).unwrap_or_default(),
    })
}

/// The numbers of a list, or of the `data` of a matrix.
fn numbers(value: &Yaml) -> Option<Vec<f64>> {
    let list = match &value["data"] {
        Yaml::BadValue => value,
        data => data,
    };
    list.as_vec()?.iter().map(number).collect()
}

fn number(value: &Yaml) -> Option<f64> {
    value.as_f64().or(value.as_i64().map(|value| value as f64))
}

fn fail(problem: String) -> Error {
    Error::Camera(format!("the calibration file {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROS: &str = "image_width: 640\nimage_height: 480\ncamera_name: front\ncamera_matrix:\n  rows: 3\n  cols: 3\n  \
        data: [500.5, 0.0, 320.25, 0.0, 501, 240.0, 0.0, 0.0, 1.0]\ndistortion_model: plumb_bob\n\
        distortion_coefficients:\n  rows: 1\n  cols: 5\n  data: [-0.1, 0.02, 0.001, -0.002, 0.0]\n";
    /// As OpenCV's `FileStorage` writes it.
    const OPENCV: &str = "%YAML:1.0\n---\nimage_width: 640\nimage_height: 480\ncamera_matrix: !!opencv-matrix\n   rows: 3\n   \
        cols: 3\n   dt: d\n   data: [ 5.005e+02, 0., 3.2025e+02, 0., 501., 240., 0., 0., 1. ]\n\
        distortion_coefficients: !!opencv-matrix\n   rows: 5\n   cols: 1\n   dt: d\n   data: [ -1.0e-01, 2.0e-02, \
        1.0e-03, -2.0e-03,\n       0. ]\n";
    const MESSAGE: &str = "header:\n  frame_id: front\nheight: 480\nwidth: 640\ndistortion_model: plumb_bob\nd: [-0.1, \
        0.02, 0.001, -0.002, 0.0]\nk: [500.5, 0.0, 320.25, 0.0, 501.0, 240.0, 0.0, 0.0, 1.0]\n";
    const KALIBR: &str = "cam0:\n  cam_overlaps: [1]\n  camera_model: pinhole\n  distortion_coeffs: [-0.1, 0.02, 0.001, -0.002]\n  \
        distortion_model: radtan\n  intrinsics: [500.5, 501.0, 320.25, 240.0]\n  resolution: [640, 480]\n\
        cam1:\n  camera_model: pinhole\n  distortion_coeffs: [0.1, 0.2, 0.3, 0.4]\n  distortion_model: equidistant\n  \
        intrinsics: [300.0, 300.0, 320.0, 240.0]\n  resolution: [640, 480]\n";

    #[test]
    fn every_format_gives_the_same_camera() {
        let expected = Camera::Pinhole(Pinhole {
            width: 640,
            height: 480,
            fx: 500.5,
            fy: 501.0,
            cx: 320.75,
            cy: 240.5,
            distortion: Some(Distortion {
                k1: -0.1,
                k2: 0.02,
                p1: 0.001,
                p2: -0.002,
                ..Distortion::default()
            }),
            mount: Mount::default(),
        });
        for text in [ROS, OPENCV, MESSAGE, KALIBR] {
            assert_eq!(
                Camera::from_calibration_file(text, None).unwrap(),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn a_fisheye_is_one_by_each_of_its_names() {
        let of_kalibr = Camera::from_calibration_file(KALIBR, Some("cam1")).unwrap();
        let Camera::Fisheye(lens) = of_kalibr else {
            panic!("{of_kalibr:?}")
        };
        assert_eq!([lens.k1, lens.k2, lens.k3, lens.k4], [0.1, 0.2, 0.3, 0.4]);
        let of_ros = ROS.replace("plumb_bob", "equidistant");
        let of_opencv = format!("{OPENCV}fisheye_model: 1\n");
        for text in [&of_ros, &of_opencv] {
            let camera = Camera::from_calibration_file(text, None).unwrap();
            assert!(matches!(camera, Camera::Fisheye(_)), "{camera:?}");
        }
    }

    #[test]
    fn what_is_missing_or_not_modelled_is_named() {
        for (text, name, words) in [
            ("a: [", None, "YAML"),
            ("", None, "nothing"),
            ("a: 1", None, "camera_matrix"),
            (KALIBR, Some("cam7"), "cam0, cam1"),
            (&KALIBR.replace("pinhole", "omni"), None, "omni"),
            (&ROS.replace("image_width", "w"), None, "width"),
            (&ROS.replace("plumb_bob", "thin_prism"), None, "thin_prism"),
            (&ROS.replace("500.5", "-1"), None, "fx"),
            (
                &ROS.replace("-0.002, 0.0]", "-0.002, 0, 0, 0, 0, 0.5]"),
                None,
                "9 distortion",
            ),
        ] {
            let message = Camera::from_calibration_file(text, name)
                .unwrap_err()
                .to_string();
            assert!(message.contains(words), "{words}: {message}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,200}") {
            let _ = Camera::from_calibration_file(&text, None);
        }
    }
}
