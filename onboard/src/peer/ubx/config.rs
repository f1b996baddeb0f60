//! The `ubx` source of the config.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::read;
use crate::clocks::ClockRule;
use crate::config::Checker;
use crate::peer::nmea::NmeaConfig;
use crate::peer::{Playback, check_latency, check_one_input, check_port, check_sigmas};
use crate::port::{Connection, Peer, PeerError};

/// A u-blox receiver; give exactly one of `serial`, `tcp` and `file`.
///
/// NAV-PVT gives the fix, NAV-COV its covariance, NAV-STATUS and SEC-SIG whether the receiver finds itself
/// spoofed or jammed. Sentences on the same line are used while there is no NAV-PVT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UbxConfig {
    /// Name in logs and states. Default "ubx".
    pub name: String,
    /// Serial port, such as "/dev/ttyACM0".
    pub serial: Option<PathBuf>,
    /// Speed of the serial port, baud. Default 115200.
    pub baud: u32,
    /// Server that passes the receiver's bytes on, host:port.
    pub tcp: Option<String>,
    /// Recorded bytes, played at their own speed.
    pub file: Option<PathBuf>,
    /// What to set up in the receiver. Default "off".
    pub configure: Configure,
    /// Use fixes while the receiver says that it is spoofed; the state is "degraded" in any case.
    /// Default false.
    pub use_spoofed: bool,
    /// 1-sigma per axis for a dilution of one, metres, of sentences without GST. Default 3.5.
    pub range_sigma_m: f64,
    /// 1-sigma per axis of a fix without any statement of its error, metres. Default 10.
    pub default_sigma_m: f64,
    /// Smallest 1-sigma per axis that is used, metres. Default 0.3.
    pub floor_sigma_m: f64,
    /// Longest time from the moment of a fix until it arrives here, seconds; stamps that do not fit
    /// it are not used. Default 1.
    pub latency_s: Option<f64>,
}

/// Which set-up a receiver gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Configure {
    /// None.
    Off,
    /// UBX-CFG-VALSET into RAM, so that it is gone when the receiver is switched off: UBX output, NAV-PVT,
    /// NAV-COV, NAV-STATUS and SEC-SIG on UART1 and USB. Receivers from generation 9 on.
    Ram,
}

impl Default for UbxConfig {
    fn default() -> Self {
        Self {
            name: "ubx".into(),
            serial: None,
            baud: 115_200,
            tcp: None,
            file: None,
            configure: Configure::Off,
            use_spoofed: false,
            range_sigma_m: 3.5,
            default_sigma_m: 10.0,
            floor_sigma_m: 0.3,
            latency_s: None,
        }
    }
}

impl UbxConfig {
    /// How the sentences on the line are read.
    pub(super) fn nmea(&self) -> NmeaConfig {
        NmeaConfig {
            name: self.name.clone(),
            range_sigma_m: self.range_sigma_m,
            default_sigma_m: self.default_sigma_m,
            floor_sigma_m: self.floor_sigma_m,
            ..NmeaConfig::default()
        }
    }
}

impl Peer for UbxConfig {
    fn name(&self) -> &str {
        &self.name
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
            "ubx",
            self.serial.as_ref(),
            self.tcp.as_ref(),
            self.file.as_ref(),
            check,
        );
        if self.file.is_some() && self.configure != Configure::Off {
            check.problem("configure", "needs serial or tcp; a file is only read");
        }
        check.range("baud", f64::from(self.baud), 300.0, 4e6);
        check.range("range_sigma_m", self.range_sigma_m, 0.01, 1e3);
        check_sigmas(self.default_sigma_m, self.floor_sigma_m, check);
    }

    fn paths_mut(&mut self) -> Vec<&mut PathBuf> {
        self.serial.iter_mut().chain(&mut self.file).collect()
    }
}
