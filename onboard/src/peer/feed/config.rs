//! The `odometry_feed` source of the config.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::read::FeedReader;
use crate::clocks::ClockRule;
use crate::config::Checker;
use crate::peer::{Playback, check_latency};
use crate::port::{Connection, Peer, PeerError};

/// Odometry as JSON lines that another program sends: one object a line, one or more lines a datagram.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FeedConfig {
    /// Name in logs and states. Default "odometry".
    pub name: String,
    /// Listen for UDP datagrams here, `host:port`.
    pub udp: Option<String>,
    /// Listen for datagrams on this Unix socket.
    pub unix_datagram: Option<PathBuf>,
    /// Listen for connections on this Unix socket.
    pub unix_stream: Option<PathBuf>,
    /// Which clock `time_ns` is of. Default "utc".
    pub stamps: Stamps,
    /// With `stamps = "arrival"`: the time from the measurement until it arrives here, seconds. Default 0.02.
    pub delay_s: f64,
    /// Longest time from the moment of a measurement until it arrives here, seconds; stamps that do not fit
    /// it are not used. Default 0.5.
    pub latency_s: Option<f64>,
    /// What to do when the clock behind the stamps is off by a constant: "refuse" what it delivers, or
    /// "correct" the stamps. Stamps that are not UTC are corrected in any case. Default "refuse".
    pub clock: ClockRule,
    /// Distance between the left and the right wheel, metres: makes a yaw rate of `wheel_speeds_mps`.
    /// Default: none, and no yaw rate of wheels.
    pub track_width_m: Option<f64>,
    /// 1-sigma error of a speed that states none, m/s. Default 0.2.
    pub speed_sigma_mps: f64,
    /// 1-sigma error of a yaw rate that states none, rad/s. Default 0.01.
    pub yaw_rate_sigma_radps: f64,
}

/// Which clock stamps are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stamps {
    /// Nanoseconds UTC.
    Utc,
    /// Nanoseconds since this machine started (CLOCK_BOOTTIME).
    Boot,
    /// There are none: what counts is when a message arrives, less `delay_s`.
    Arrival,
}

impl Default for FeedConfig {
    fn default() -> Self {
        Self {
            name: "odometry".into(),
            udp: None,
            unix_datagram: None,
            unix_stream: None,
            stamps: Stamps::Utc,
            delay_s: 0.02,
            latency_s: None,
            clock: ClockRule::Refuse,
            track_width_m: None,
            speed_sigma_mps: 0.2,
            yaw_rate_sigma_radps: 0.01,
        }
    }
}

impl Peer for FeedConfig {
    fn name(&self) -> &str {
        &self.name
    }

    fn clock(&self) -> (Option<f64>, ClockRule) {
        let rule = match self.stamps {
            Stamps::Utc => self.clock,
            // What counts from another start is known by exactly how much.
            Stamps::Boot | Stamps::Arrival => ClockRule::Correct,
        };
        (self.latency_s, rule)
    }

    fn open(&self, _playback: &Playback) -> Result<Connection, PeerError> {
        FeedReader::open(self).map(Connection::reader)
    }

    fn check(&self, check: &mut Checker) {
        check_latency(self.latency_s, check);
        let latency_s = self.latency_s.unwrap_or(crate::clocks::ODOMETRY_LATENCY_S);
        check.range("delay_s", self.delay_s, 0.0, latency_s);
        check.range("speed_sigma_mps", self.speed_sigma_mps, 0.001, 50.0);
        check.range("yaw_rate_sigma_radps", self.yaw_rate_sigma_radps, 1e-5, 3.0);
        check.range(
            "track_width_m",
            self.track_width_m.unwrap_or(1.5),
            0.1,
            10.0,
        );
        let ways = [
            self.udp.is_some(),
            self.unix_datagram.is_some(),
            self.unix_stream.is_some(),
        ];
        if ways.into_iter().filter(|way| *way).count() != 1 {
            check.problem(
                "udp",
                "set one of udp (such as \"127.0.0.1:7755\"), unix_datagram and unix_stream",
            );
        }
        if let Some(udp) = &self.udp {
            check.address("udp", udp);
        }
    }

    fn exclusive(&self) -> Vec<String> {
        let sockets = self.unix_datagram.iter().chain(&self.unix_stream);
        let sockets = sockets.map(|path| format!("socket {path:?}"));
        let udp = self.udp.iter().map(|address| format!("UDP {address}"));
        sockets.chain(udp).collect()
    }

    fn check_machine(&self, check: &mut Checker) {
        if let Some(udp) = &self.udp
            && let Err(error) = std::net::UdpSocket::bind(udp)
        {
            let message =
                format!("{udp} cannot be listened on: {error}; stop who has it, or choose another");
            check.machine("udp", message);
        }
        for (field, path) in [
            ("unix_datagram", &self.unix_datagram),
            ("unix_stream", &self.unix_stream),
        ] {
            if let Some(path) = path {
                check.socket(field, path);
            }
        }
    }

    fn paths_mut(&mut self) -> Vec<&mut PathBuf> {
        self.unix_datagram
            .iter_mut()
            .chain(&mut self.unix_stream)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn problems(text: &str) -> Vec<String> {
        let text = format!("[[source]]\nkind = \"odometry_feed\"\n{text}");
        let problems = Config::parse(&text).unwrap().check();
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn there_is_one_way_in_and_what_is_wrong_is_named() {
        assert!(problems("udp = \"127.0.0.1:7755\"").is_empty());
        assert!(problems("unix_stream = \"odometry.sock\"\nstamps = \"boot\"").is_empty());
        for (text, field) in [
            ("", "udp"),
            ("udp = \"127.0.0.1:7755\"\nunix_stream = \"x\"", "udp"),
            ("udp = \"7755\"", "udp"),
            ("unix_datagram = \"x\"\ndelay_s = 2.0", "delay_s"),
            (
                "unix_datagram = \"x\"\nspeed_sigma_mps = -1.0",
                "speed_sigma_mps",
            ),
        ] {
            let found = problems(text);
            let named = format!("source[0].{field}: ");
            assert!(
                found.len() == 1 && found[0].starts_with(&named),
                "{text}: {found:?}"
            );
        }
    }
}
