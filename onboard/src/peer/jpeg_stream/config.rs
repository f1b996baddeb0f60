//! The `jpeg_stream` source of the config.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::read::JpegStreamReader;
use crate::clocks::{CAMERA_LATENCY_S, ClockRule};
use crate::config::Checker;
use crate::peer::{Playback, check_latency};
use crate::port::{Connection, Peer, PeerError};

/// JPEG pictures one after the other, from a program that reads the camera.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JpegStreamConfig {
    /// Name in logs and states, and of the camera. Default "camera".
    pub name: String,
    /// Read them from standard input. Default false.
    pub stdin: bool,
    /// Listen for a connection on this Unix socket; a newer one takes the place of an older one.
    pub unix_stream: Option<PathBuf>,
    /// Time from the middle of the exposure until a picture is here, seconds: pictures have no stamps of their
    /// own. Default 0.1.
    pub delay_s: f64,
    /// Longest such time, seconds; what does not fit it is not used. Default 1.
    pub latency_s: Option<f64>,
}

impl Default for JpegStreamConfig {
    fn default() -> Self {
        Self {
            name: "camera".into(),
            stdin: false,
            unix_stream: None,
            delay_s: 0.1,
            latency_s: None,
        }
    }
}

impl Peer for JpegStreamConfig {
    fn name(&self) -> &str {
        &self.name
    }

    fn clock(&self) -> (Option<f64>, ClockRule) {
        // They are stamped as they arrive, on this machine's own clock.
        (self.latency_s, ClockRule::Correct)
    }

    fn open(&self, _playback: &Playback) -> Result<Connection, PeerError> {
        JpegStreamReader::open(self).map(Connection::reader)
    }

    fn check(&self, check: &mut Checker) {
        check_latency(self.latency_s, check);
        let latency_s = self.latency_s.unwrap_or(CAMERA_LATENCY_S);
        check.range("delay_s", self.delay_s, 0.0, latency_s);
        if self.stdin == self.unix_stream.is_some() {
            check.problem(
                "stdin",
                "set either stdin = true or unix_stream = \"front.sock\"",
            );
        }
    }

    fn exclusive(&self) -> Vec<String> {
        let socket = self
            .unix_stream
            .iter()
            .map(|path| format!("socket {path:?}"));
        let stdin = self.stdin.then(|| "the standard input".to_owned());
        socket.chain(stdin).collect()
    }

    fn check_machine(&self, check: &mut Checker) {
        if let Some(path) = &self.unix_stream {
            check.socket("unix_stream", path);
        }
    }

    fn paths_mut(&mut self) -> Vec<&mut PathBuf> {
        self.unix_stream.iter_mut().collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn there_is_one_way_in() {
        for (text, good) in [
            ("stdin = true", true),
            ("unix_stream = \"front.sock\"", true),
            ("", false),
            ("stdin = true\nunix_stream = \"front.sock\"", false),
            ("stdin = true\ndelay_s = 3.0", false),
        ] {
            let text = format!("[[source]]\nkind = \"jpeg_stream\"\n{text}");
            let problems = Config::parse(&text).unwrap().check();
            assert_eq!(problems.is_empty(), good, "{text}: {problems:?}");
        }
    }
}
