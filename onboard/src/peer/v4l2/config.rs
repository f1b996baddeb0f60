//! The `v4l2` source of the config.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::choose::PixelFormat;
use crate::clocks::{CAMERA_LATENCY_S, ClockRule};
use crate::config::Checker;
use crate::peer::{Playback, check_latency};
use crate::port::{Connection, Peer, PeerError};

/// A camera of the Linux kernel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct V4l2Config {
    /// Name in logs and states, and of the camera. Default "camera".
    pub name: String,
    /// The device. Names below `/dev/v4l/by-id` and `/dev/v4l/by-path` stay the same when cameras are plugged in
    /// in another order. Default "/dev/video0".
    pub device: PathBuf,
    /// Columns of its pictures, as the camera's model was calibrated; must be set.
    pub width: u32,
    /// Rows of its pictures; must be set.
    pub height: u32,
    /// Pictures a second that are asked for; the camera gives the nearest that it can. Default: as it is set.
    pub rate_hz: Option<f64>,
    /// "mjpeg", "yuyv", "uyvy", "nv12", "yuv420" or "grey". Default: the first of them that the camera offers in
    /// this size.
    pub format: Option<PixelFormat>,
    /// Time from the middle of the exposure until the driver's stamp, seconds; negative where it stamps the start of
    /// the exposure, as the log says. Default 0.
    pub delay_s: f64,
    /// Longest time from the middle of the exposure until a picture is here, seconds; what does not fit it is not
    /// used. Default 1.
    pub latency_s: Option<f64>,
    /// A camera that delivers nothing usable for this time is opened anew, seconds. Default 3.
    pub silence_s: f64,
}

impl Default for V4l2Config {
    fn default() -> Self {
        Self {
            name: "camera".into(),
            device: "/dev/video0".into(),
            width: 0,
            height: 0,
            rate_hz: None,
            format: None,
            delay_s: 0.0,
            latency_s: None,
            silence_s: 3.0,
        }
    }
}

/// Longest exposure of which a stamp may be the start, seconds.
const LONGEST_EXPOSURE_S: f64 = 1.0;

impl Peer for V4l2Config {
    fn name(&self) -> &str {
        &self.name
    }

    fn clock(&self) -> (Option<f64>, ClockRule) {
        // Stamps are of this machine's own clock, so what they are off by is known exactly.
        (self.latency_s, ClockRule::Correct)
    }

    #[cfg(target_os = "linux")]
    fn open(&self, _playback: &Playback) -> Result<Connection, PeerError> {
        let (capture, mode) = super::device::open(self)?;
        Ok(Connection::reader(super::read::V4l2Reader::new(
            self, mode, capture,
        )))
    }

    #[cfg(not(target_os = "linux"))]
    fn open(&self, _playback: &Playback) -> Result<Connection, PeerError> {
        Err(PeerError::Protocol(format!(
            "camera {:?}: only Linux has V4L2",
            self.device
        )))
    }

    fn check(&self, check: &mut Checker) {
        check_latency(self.latency_s, check);
        let latency_s = self.latency_s.unwrap_or(CAMERA_LATENCY_S);
        check.range("width", f64::from(self.width), 16.0, 8192.0);
        check.range("height", f64::from(self.height), 16.0, 8192.0);
        check.range("rate_hz", self.rate_hz.unwrap_or(1.0), 0.1, 1000.0);
        check.range(
            "delay_s",
            self.delay_s,
            -LONGEST_EXPOSURE_S / 2.0,
            latency_s,
        );
        check.range("silence_s", self.silence_s, 0.5, 60.0);
        if self.device.as_os_str().as_encoded_bytes().contains(&0) {
            check.problem("device", "has a NUL in it");
        }
    }

    fn exclusive(&self) -> Vec<String> {
        vec![format!("camera {:?}", self.device)]
    }

    #[cfg(target_os = "linux")]
    fn check_machine(&self, check: &mut Checker) {
        let offers = super::device::offers(&self.device);
        if let Err(problem) = offers.and_then(|offers| super::choose::choose(&offers, self)) {
            let message = format!("\"{}\" {problem}", self.device.display());
            check.machine("device", message);
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn check_machine(&self, check: &mut Checker) {
        check.machine("device", "only Linux has V4L2");
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    const SIZE: &str = "width = 1280\nheight = 720\n";

    fn config(text: &str) -> Config {
        Config::parse(&format!("[[source]]\nkind = \"v4l2\"\n{text}")).unwrap()
    }

    fn problems(text: &str) -> Vec<String> {
        let problems = config(text).check();
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(problems(SIZE).is_empty());
        assert!(
            problems(&format!(
                "{SIZE}format = \"nv12\"\nrate_hz = 7.5\ndelay_s = -0.01"
            ))
            .is_empty()
        );
        for (text, field) in [
            ("width = 1280", "height"),
            ("height = 720", "width"),
            (&*format!("{SIZE}rate_hz = 0.0"), "rate_hz"),
            (&*format!("{SIZE}delay_s = 1.5"), "delay_s"),
            (&*format!("{SIZE}delay_s = -0.6"), "delay_s"),
            (&*format!("{SIZE}silence_s = 0.0"), "silence_s"),
            (&*format!("{SIZE}device = \"/dev/vi\\u0000deo\""), "device"),
        ] {
            let found = problems(text);
            let named = format!("source[0].{field}: ");
            assert!(
                found.len() == 1 && found[0].starts_with(&named),
                "{text}: {found:?}"
            );
        }
        let unknown = "[[source]]\nkind = \"v4l2\"\nformat = \"h264\"\n";
        assert!(Config::parse(unknown).unwrap_err().contains("h264"));
    }

    #[test]
    fn one_camera_is_one_source() {
        let again = format!("{SIZE}[[source]]\nkind = \"v4l2\"\nname = \"rear\"\n{SIZE}");
        let found = problems(&again);
        assert!(
            found.len() == 1 && found[0].contains("\"/dev/video0\" is source[0]'s already"),
            "{found:?}"
        );
        let other = again.replace("\"rear\"", "\"rear\"\ndevice = \"/dev/video2\"");
        assert!(problems(&other).is_empty());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_device_that_is_not_there_or_is_none_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().display().to_string();
        for (device, words) in [
            ("/dev/video-none", "is not there"),
            (&path, "is no device"),
            ("/dev/null", "has no formats to capture"),
        ] {
            let found = config(&format!("{SIZE}device = \"{device}\"")).check_machine();
            let text = found[0].to_string();
            assert!(found.len() == 1 && text.contains(words), "{text}");
            assert!(text.starts_with("source[0].device: "), "{text}");
        }
    }
}
