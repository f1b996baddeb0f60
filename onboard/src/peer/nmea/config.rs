//! The `nmea` source and the `nmea_tcp` sink of the config.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{read, write};
use crate::clocks::ClockRule;
use crate::config::Checker;
use crate::event::EstimateKind;
use crate::peer::{
    Playback, check_latency, check_one_input, check_port, check_server, check_sigmas,
};
use crate::port::{Connection, Interests, Peer, PeerError};

/// NMEA 0183 sentences; give exactly one of `serial`, `tcp` and `file`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NmeaConfig {
    /// Name in logs and states. Default "nmea".
    pub name: String,
    /// Serial port, such as "/dev/ttyUSB0".
    pub serial: Option<PathBuf>,
    /// Speed of the serial port, baud. Default 115200.
    pub baud: u32,
    /// Server that sends sentences, host:port.
    pub tcp: Option<String>,
    /// Recorded sentences, played at their own speed.
    pub file: Option<PathBuf>,
    /// Also send our position back over the same serial port or TCP connection, as GGA, RMC and GST:
    /// which estimates. Default: none.
    pub send: Option<EstimateKind>,
    /// Take positions that the receiver says are simulated, on a test bench. Default false.
    pub accept_simulated: bool,
    /// 1-sigma per axis for a horizontal dilution of precision of one, metres, when there is no GST: of a
    /// plain fix. Corrections make half of it, a float carrier-phase solution a tenth and a fixed one a
    /// hundredth. Default 3.5.
    pub range_sigma_m: f64,
    /// 1-sigma per axis of a plain fix when not even the dilution is reported, metres. Default 10.
    pub default_sigma_m: f64,
    /// Smallest 1-sigma per axis that is used, metres. Default 0.3.
    pub floor_sigma_m: f64,
    /// Longest time from the moment of a fix until it arrives here, seconds; stamps that do not fit
    /// it are not used. Default 1.
    pub latency_s: Option<f64>,
}

impl Default for NmeaConfig {
    fn default() -> Self {
        Self {
            name: "nmea".into(),
            serial: None,
            baud: 115_200,
            tcp: None,
            file: None,
            send: None,
            accept_simulated: false,
            range_sigma_m: 3.5,
            default_sigma_m: 10.0,
            floor_sigma_m: 0.3,
            latency_s: None,
        }
    }
}

impl Peer for NmeaConfig {
    fn name(&self) -> &str {
        &self.name
    }

    fn wants(&self) -> Interests {
        if self.send.is_some() {
            Interests::ESTIMATES | Interests::FIXES
        } else {
            Interests::default()
        }
    }

    fn clock(&self) -> (Option<f64>, ClockRule) {
        (self.latency_s, ClockRule::Refuse)
    }

    fn open(&self, playback: &Playback) -> Result<Connection, PeerError> {
        read::open(self, playback)
    }

    fn exclusive(&self) -> Vec<String> {
        let serial = self.serial.iter();
        serial.map(|path| format!("port {path:?}")).collect()
    }

    fn check_machine(&self, check: &mut Checker) {
        check_port(self.serial.as_ref(), check);
    }

    fn check(&self, check: &mut Checker) {
        check_latency(self.latency_s, check);
        check_one_input(
            "nmea",
            self.serial.as_ref(),
            self.tcp.as_ref(),
            self.file.as_ref(),
            check,
        );
        if self.file.is_some() && self.send.is_some() {
            check.problem("send", "needs serial or tcp; a file is only read");
        }
        check.range("baud", f64::from(self.baud), 300.0, 4e6);
        check.range("range_sigma_m", self.range_sigma_m, 0.01, 1e3);
        check_sigmas(self.default_sigma_m, self.floor_sigma_m, check);
    }

    fn paths_mut(&mut self) -> Vec<&mut PathBuf> {
        self.serial.iter_mut().chain(&mut self.file).collect()
    }
}

/// NMEA 0183 sentences to a serial port or over UDP; give exactly one of `serial` and `udp`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NmeaSinkConfig {
    /// Serial port, such as "/dev/ttyS1".
    pub serial: Option<PathBuf>,
    /// Speed of the serial port, baud. Default 115200.
    pub baud: u32,
    /// Where datagrams go, host:port, each with the sentences of one estimate.
    pub udp: Option<String>,
    /// Which estimates to send. Default "fused".
    pub estimate: EstimateKind,
}

impl Default for NmeaSinkConfig {
    fn default() -> Self {
        Self {
            serial: None,
            baud: 115_200,
            udp: None,
            estimate: EstimateKind::Fused,
        }
    }
}

impl Peer for NmeaSinkConfig {
    fn name(&self) -> &'static str {
        "nmea"
    }

    fn wants(&self) -> Interests {
        Interests::ESTIMATES | Interests::FIXES
    }

    fn open(&self, _playback: &Playback) -> Result<Connection, PeerError> {
        write::open(self)
    }

    fn check(&self, check: &mut Checker) {
        if self.serial.is_some() == self.udp.is_some() {
            check.problem("", "an nmea sink needs exactly one of serial and udp");
        }
        if let Some(address) = &self.udp {
            check.address("udp", address);
        }
        check.range("baud", f64::from(self.baud), 300.0, 4e6);
    }

    fn exclusive(&self) -> Vec<String> {
        let serial = self.serial.iter();
        serial.map(|path| format!("port {path:?}")).collect()
    }

    fn check_machine(&self, check: &mut Checker) {
        check_port(self.serial.as_ref(), check);
    }

    fn paths_mut(&mut self) -> Vec<&mut PathBuf> {
        self.serial.iter_mut().collect()
    }
}

/// A server that sends NMEA 0183 sentences.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NmeaTcpConfig {
    /// Where to listen, host:port. Default "127.0.0.1:10110".
    pub listen: String,
    /// Which estimates to send. Default "fused".
    pub estimate: EstimateKind,
    /// Epochs that may wait for one client; then the oldest are dropped. Default 64.
    pub client_queue: usize,
    /// Clients at a time; one more sends the idlest away. Default 16.
    pub max_clients: usize,
}

impl Default for NmeaTcpConfig {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:10110".into(),
            estimate: EstimateKind::Fused,
            client_queue: 64,
            max_clients: 16,
        }
    }
}

impl Peer for NmeaTcpConfig {
    fn name(&self) -> &'static str {
        "nmea_tcp"
    }

    fn wants(&self) -> Interests {
        Interests::ESTIMATES | Interests::FIXES
    }

    fn open(&self, _playback: &Playback) -> Result<Connection, PeerError> {
        write::NmeaTcp::open(self).map(Connection::writer)
    }

    fn listens(&self) -> Option<&str> {
        Some(&self.listen)
    }

    fn check(&self, check: &mut Checker) {
        check_server(&self.listen, self.client_queue, self.max_clients, check);
    }
}
