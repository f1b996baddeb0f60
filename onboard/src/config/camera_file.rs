//! `[camera]`, or the `lens` of a rig's camera, with `file`: the lens is in a calibration file of ROS, Kalibr or
//! OpenCV, the mount in the config.

use std::path::Path;

use crossfix_calibration::Camera;
use serde::Deserialize;

use super::Config;
use crate::transport::file;

/// No calibration file is larger, bytes.
const LARGEST_BYTES: u64 = 4 << 20;

/// A camera's table with `file` in place of the fields of its lens.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CameraFile {
    file: std::path::PathBuf,
    /// Which camera of a Kalibr chain.
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    mount: Option<toml::Table>,
}

/// Reads config text; calibration files are looked for relative to `base`.
///
/// # Errors
/// What is wrong, in words, with line and column where the TOML parser has them.
pub fn parse(text: &str, base: &Path) -> Result<Config, String> {
    let Ok(mut table) = text.parse::<toml::Table>() else {
        return Config::parse(text);
    };
    let mut cameras: Vec<(String, &mut toml::Value)> = Vec::new();
    for (key, value) in &mut table {
        match (key.as_str(), value) {
            ("camera", camera) => cameras.push((key.clone(), camera)),
            ("rig", rig) => {
                let rig = rig.get_mut("camera").and_then(toml::Value::as_array_mut);
                for (index, camera) in rig.into_iter().flatten().enumerate() {
                    if let Some(lens) = camera.get_mut("lens") {
                        cameras.push((format!("rig.camera[{index}].lens"), lens));
                    }
                }
            }
            _ => {}
        }
    }
    cameras.retain(|(_, camera)| camera.get("file").is_some());
    if cameras.is_empty() {
        return Config::parse(text);
    }
    for (place, camera) in cameras {
        *camera = described(camera.clone(), &place, base)?;
    }
    Config::deserialize(table).map_err(|error| super::explained(&error))
}

/// The camera of the file that `camera` names.
fn described(camera: toml::Value, place: &str, base: &Path) -> Result<toml::Value, String> {
    let named = CameraFile::deserialize(camera).map_err(|error| {
        format!("{place}: {error}; beside `file` there may be `name` and `mount`")
    })?;
    let path = base.join(&named.file);
    let read = |text: String| {
        Camera::from_calibration_file(&text, named.name.as_deref())
            .map_err(|error| error.to_string())
    };
    let camera = file::read_text(&path, LARGEST_BYTES)
        .map_err(|error| error.to_string())
        .and_then(read)
        .map_err(|problem| format!("{place}.file {path:?}: {problem}"))?;
    let mut camera = toml::Table::try_from(&camera).map_err(|error| error.to_string())?;
    if let Some(mount) = named.mount {
        camera.insert("mount".to_owned(), mount.into());
    }
    Ok(camera.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KALIBR: &str = "cam0:\n  camera_model: pinhole\n  distortion_coeffs: [0.1, 0.2, 0.3, 0.4]\n  \
        distortion_model: equidistant\n  intrinsics: [300.0, 300.0, 320.0, 240.0]\n  resolution: [640, 480]\n";

    #[test]
    fn the_lens_comes_from_the_file_and_the_mount_from_the_config() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("chain.yaml"), KALIBR).unwrap();
        let text = "[camera]\nfile = \"chain.yaml\"\nmount = { pitch_up_deg = -2.0 }\n[daemon]\ntick_s = 0.2\n";
        let config = parse(text, folder.path()).unwrap();
        let Some(Camera::Fisheye(lens)) = &config.camera else {
            panic!("{:?}", config.camera)
        };
        assert_eq!(
            (lens.cx, lens.k4, lens.mount.pitch_up_deg),
            (320.5, 0.4, -2.0)
        );
        assert_eq!(config.daemon.tick_s, 0.2);
        // What is printed is complete.
        assert_eq!(
            Config::parse(&config.to_toml()).unwrap().camera,
            config.camera
        );
    }

    #[test]
    fn cameras_of_a_rig_have_files_too() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("chain.yaml"), KALIBR).unwrap();
        let camera = |source: &str, lens: &str| {
            format!("[[rig.camera]]\nsource = \"{source}\"\nlens = {{ {lens} }}\n")
        };
        let front = "file = \"chain.yaml\", mount = { pitch_up_deg = -2.0 }";
        let rear = "file = \"chain.yaml\", mount = { yaw_left_deg = 180.0 }";
        let text = [camera("front", front), camera("rear", rear)].concat();
        let rig = parse(&text, folder.path()).unwrap().rig.unwrap();
        let yaws = rig
            .camera
            .iter()
            .map(|camera| camera.lens.mount().yaw_left_deg);
        assert_eq!(yaws.collect::<Vec<_>>(), [0.0, 180.0]);
        let text = [
            camera("front", front),
            camera("rear", "file = \"none.yaml\""),
        ]
        .concat();
        let message = parse(&text, folder.path()).unwrap_err();
        assert!(
            message.contains("rig.camera[1].lens.file") && message.contains("none.yaml"),
            "{message}"
        );
    }

    #[test]
    fn what_is_wrong_with_the_file_is_told_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("chain.yaml"), KALIBR).unwrap();
        for (camera, words) in [
            ("file = \"none.yaml\"", "none.yaml"),
            ("file = \"chain.yaml\"\nname = \"cam3\"", "cam3"),
            ("file = \"chain.yaml\"\nfx = 3.0", "fx"),
            (
                "file = \"chain.yaml\"\nmount = { pitch_deg = 1.0 }",
                "pitch_deg",
            ),
        ] {
            let message = parse(&format!("[camera]\n{camera}\n"), folder.path()).unwrap_err();
            assert!(message.contains(words), "{camera}: {message}");
        }
    }
}
