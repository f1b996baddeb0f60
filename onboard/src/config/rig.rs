//! `[rig]`: several cameras whose pictures of one moment are stitched into one panorama.

use crossfix_calibration::{Camera, LeverArm, PanoramaSpec};
use serde::{Deserialize, Serialize};

use super::Checker;
use crate::core::Rig;

/// Cameras of a rig.
const CAMERAS: std::ops::RangeInclusive<usize> = 2..=8;

/// Several cameras in place of one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RigConfig {
    /// Pictures whose times are at most this far from the first one's are of one moment, seconds.
    /// Default 0.05.
    pub within_s: f64,
    /// A moment is used when its cameras see at least this share of what all cameras see. Default 0.6.
    pub least_seen: f64,
    /// Columns of the panorama. Default 1024.
    pub width: usize,
    /// Elevation of its top edge, degrees. Default 30.
    pub top_elevation_deg: f64,
    /// Lowest elevation that it shows, degrees. Default -45.
    pub bottom_elevation_deg: f64,
    /// Height of the point that the position is of above the ground, metres; it matters where cameras have
    /// a `lever_arm`. Default 1.9.
    pub height_m: f64,
    /// The cameras.
    pub camera: Vec<RigCameraConfig>,
}

/// A camera of a rig.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RigCameraConfig {
    /// Name of the source of its pictures; in a recorded drive, of the camera.
    pub source: String,
    /// Its model and mount, as in `[camera]`, or `file` with a calibration of ROS, Kalibr or OpenCV.
    pub lens: Camera,
    /// Where it sits, seen from the point that the position is of. Default: there.
    #[serde(default)]
    pub lever_arm: LeverArm,
}

impl Default for RigConfig {
    fn default() -> Self {
        Self {
            within_s: 0.05,
            least_seen: 0.6,
            width: 1024,
            top_elevation_deg: 30.0,
            bottom_elevation_deg: -45.0,
            height_m: 1.9,
            camera: Vec::new(),
        }
    }
}

/// Tables of a rig take at most this much memory, MB.
const MOST_TABLES_MB: f64 = 1500.0;
/// Cameras that see less of the panorama than this together look the wrong way.
const LEAST_SEEN_BY_ALL: f64 = 0.2;

impl RigConfig {
    /// The panorama that is made of the cameras' pictures.
    pub fn panorama(&self) -> PanoramaSpec {
        PanoramaSpec {
            width: self.width,
            top_elevation_deg: self.top_elevation_deg,
            bottom_elevation_deg: self.bottom_elevation_deg,
            height_m: self.height_m,
        }
    }

    /// Memory of the tables of all cameras, MB: 28 bytes for each sample of each pixel.
    fn tables_mb(&self) -> f64 {
        let span_deg = (self.top_elevation_deg - self.bottom_elevation_deg).clamp(0.0, 180.0);
        let pixels = (self.width as f64).powi(2) * span_deg / 360.0;
        let samples = self.camera.iter().map(|camera| {
            let (fx, fy) = match &camera.lens {
                Camera::Equirectangular(_) => (1.0, 1.0),
                Camera::Pinhole(lens) => (lens.fx, lens.fy),
                Camera::Fisheye(lens) => (lens.fx, lens.fy),
            };
            // Block averaging leaves over up to a factor of two, and what the axes differ by.
            let per_axis = (2.0 * fx.max(fy) / fx.min(fy)).ceil().min(4.0);
            per_axis * per_axis
        });
        pixels * 28.0 * samples.sum::<f64>() * 1e-6
    }

    /// `named`: the sources of the config, unless one of them is a recorded drive, which names its cameras
    /// itself.
    pub(super) fn check(&self, check: &mut Checker, named: Option<&[&str]>) {
        check.range("within_s", self.within_s, 0.0, 1.0);
        check.range("least_seen", self.least_seen, 0.0, 1.0);
        check.range("width", self.width as f64, 64.0, 4096.0);
        check.range("height_m", self.height_m, 0.1, 10.0);
        let count = self.camera.len();
        if !CAMERAS.contains(&count) {
            check.problem(
                "camera",
                format!(
                    "there are {count}; give {} to {}, each as [[rig.camera]], or describe one camera in [camera]",
                    CAMERAS.start(),
                    CAMERAS.end()
                ),
            );
        }
        let mut is_right = true;
        for (index, camera) in self.camera.iter().enumerate() {
            let source = &camera.source;
            if let Err(error) = camera.lens.check() {
                is_right = false;
                check.problem(
                    &format!("camera[{index}].lens"),
                    format!("cannot be right: {error}"),
                );
            }
            let field = format!("camera[{index}].source");
            if self.camera[..index]
                .iter()
                .any(|other| other.source == *source)
            {
                check.problem(&field, format!("{source:?} is another camera's already"));
            }
            if let Some(named) = named
                && !named.contains(&source.as_str())
            {
                check.problem(
                    &field,
                    format!(
                        "{source:?} is no [[source]]; give its name ({})",
                        named.join(", ")
                    ),
                );
            }
        }
        if is_right && CAMERAS.contains(&count) {
            let tables_mb = self.tables_mb();
            if tables_mb > MOST_TABLES_MB {
                check.problem(
                    "width",
                    format!("its tables would take {tables_mb:.0} MB; make it smaller (at most {MOST_TABLES_MB} MB)"),
                );
                return;
            }
            match Rig::new(self) {
                Err(error) => check.problem("", format!("cannot be right: {error}")),
                Ok(rig) => {
                    let seen = rig.seen_fraction();
                    if seen < LEAST_SEEN_BY_ALL {
                        check.problem(
                            "camera",
                            format!(
                                "together they see {:.0} % of the panorama; correct their lenses and mounts, or its elevations",
                                100.0 * seen
                            ),
                        );
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    const RIG: &str = r#"
[[rig.camera]]
source = "front"
lens = { kind = "pinhole", width = 640, height = 480, fx = 300.0, fy = 300.0, cx = 320.0, cy = 240.0 }
[[rig.camera]]
source = "rear"
lens = { kind = "pinhole", width = 640, height = 480, fx = 300.0, fy = 300.0, cx = 320.0, cy = 240.0, mount = { yaw_left_deg = 180.0 } }
lever_arm = { forward_m = -1.2 }
[[source]]
kind = "images"
name = "front"
folder = "."
[[source]]
kind = "jpeg_stream"
name = "rear"
stdin = true
"#;

    fn problems(text: &str) -> Vec<String> {
        let config = Config::parse(text).unwrap();
        let found = config.check().into_iter();
        found.map(|problem| problem.to_string()).collect()
    }

    #[test]
    fn a_rig_reads_back_as_printed_and_is_right() {
        assert_eq!(problems(RIG), Vec::<String>::new());
        let config = Config::parse(RIG).unwrap();
        let rig = config.rig.as_ref().unwrap();
        assert_eq!(rig.camera[1].lever_arm.forward_m, -1.2);
        assert_eq!(config.frames_waiting(), 4);
        assert_eq!(Config::default().frames_waiting(), 2);
        let again = Config::parse(&config.to_toml()).unwrap();
        assert_eq!(again.rig, config.rig);
    }

    #[test]
    fn what_is_wrong_with_a_rig_is_named() {
        for (from, to, words) in [
            (
                "source = \"rear\"",
                "source = \"back\"",
                "rig.camera[1].source: \"back\" is no [[source]]",
            ),
            (
                "source = \"rear\"",
                "source = \"front\"",
                "another camera's already",
            ),
            (
                "forward_m = -1.2",
                "forward_m = -120.0",
                "lever_arm.forward_m is -120",
            ),
            (
                "fx = 300.0",
                "fx = 0.0",
                "rig.camera[0].lens: cannot be right",
            ),
            (
                "[[rig.camera]]\nsource = \"front\"",
                "[camera]\nkind = \"equirectangular\"\nwidth = 64\nheight = 32\n[[rig.camera]]\nsource = \"front\"",
                "beside [camera]",
            ),
            (
                "\n[[rig.camera]]\nsource = \"front\"",
                "\n[rig]\nleast_seen = 2.0\n[[rig.camera]]\nsource = \"front\"",
                "rig.least_seen",
            ),
        ] {
            let text = RIG.replacen(from, to, 1);
            assert_ne!(text, RIG, "{from}");
            let found = problems(&text);
            assert!(
                found.iter().any(|problem| problem.contains(words)),
                "{words}: {found:?}"
            );
        }
        let found = problems("[rig]\nwidth = 512\n");
        assert!(
            found.iter().any(|problem| problem.contains("give 2 to 8")),
            "{found:?}"
        );
    }
}
