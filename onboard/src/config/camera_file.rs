//! `[camera]` with `file`: the lens is in a calibration file of ROS, Kalibr or OpenCV, the mount in the config.

use std::path::Path;

use crossfix_calibration::Camera;
use serde::Deserialize;

use super::Config;
use crate::transport::file;

/// No calibration file is larger, bytes.
const LARGEST_BYTES: u64 = 4 << 20;

/// `[camera]` in place of the fields of a camera.
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

/// Reads config text; a calibration file is looked for relative to `base`.
///
/// # Errors
/// What is wrong, in words, with line and column where the TOML parser has them.
pub fn parse(text: &str, base: &Path) -> Result<Config, String> {
    let camera = text
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut table| table.remove("camera"))
        .filter(|camera| camera.get("file").is_some());
    let Some(camera) = camera else {
        return Config::parse(text);
    };
    let named = CameraFile::deserialize(camera).map_err(|error| {
        format!("camera: {error}; beside `file` there may be `name` and `mount`")
    })?;
    let path = base.join(&named.file);
    let read = |text: String| {
        Camera::from_calibration_file(&text, named.name.as_deref())
            .map_err(|error| error.to_string())
    };
    let camera = file::read_text(&path, LARGEST_BYTES)
        .map_err(|error| error.to_string())
        .and_then(read)
        .map_err(|problem| format!("camera.file {path:?}: {problem}"))?;
    let mut table: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| error.to_string())?;
    let mut camera = toml::Table::try_from(&camera).map_err(|error| error.to_string())?;
    if let Some(mount) = named.mount {
        camera.insert("mount".to_owned(), mount.into());
    }
    table.insert("camera".to_owned(), camera.into());
    Config::deserialize(table).map_err(|error| super::explained(&error))
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
