//! The `gpsd` source and the `gpsd_server` sink of the config.

use serde::{Deserialize, Serialize};

use super::read::GpsdReader;
use super::write::GpsdServer;
use crate::OUTPUT_DEVICE_PREFIX;
use crate::clocks::ClockRule;
use crate::config::Checker;
use crate::event::EstimateKind;
use crate::peer::{Playback, check_latency, check_server, check_sigmas};
use crate::port::{Connection, Interests, Peer, PeerError};

/// A gpsd server to listen to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GpsdConfig {
    /// Name in logs and states. Default "gpsd".
    pub name: String,
    /// Where gpsd listens, host:port. Default "127.0.0.1:2947".
    pub address: String,
    /// Only take reports of this device (gpsd's path of it). Needed when crossfixd's NMEA could reach
    /// the same gpsd, or it would read its own output. Default: any.
    pub device: Option<String>,
    /// Take positions that the receiver says are simulated, on a test bench. Default false.
    pub accept_simulated: bool,
    /// How long to wait after a TPV for the GST of the same epoch, seconds. Default 0.03.
    pub settle_s: f64,
    /// What `eph` means on this receiver. Default "auto": by gpsd's driver name.
    pub eph_confidence: EphConfidence,
    /// What `epx` and `epy` mean. Default "p95".
    pub epx_confidence: EpxConfidence,
    /// 1-sigma per axis when nothing is reported, metres. Default 10.
    pub default_sigma_m: f64,
    /// Smallest 1-sigma per axis that is used, metres. Default 0.3.
    pub floor_sigma_m: f64,
    /// Time without a line after which the connection is made anew, seconds. Default 10.
    pub silence_s: f64,
    /// Longest time from the moment of a fix until it arrives here, seconds; stamps that do not fit
    /// it are not used. Default 1.
    pub latency_s: Option<f64>,
}

impl Default for GpsdConfig {
    fn default() -> Self {
        Self {
            name: "gpsd".into(),
            address: "127.0.0.1:2947".into(),
            device: None,
            accept_simulated: false,
            settle_s: 0.03,
            eph_confidence: EphConfidence::Auto,
            epx_confidence: EpxConfidence::P95,
            default_sigma_m: 10.0,
            floor_sigma_m: 0.3,
            silence_s: 10.0,
            latency_s: None,
        }
    }
}

/// What gpsd's `eph` means; the protocol does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EphConfidence {
    /// `Rms` when gpsd's driver is u-blox (it copies hAcc), else `P95` (it computes from DOP).
    Auto,
    /// Root mean square in two dimensions: sigma per axis is eph / √2.
    Rms,
    /// Radius of the 95 % circle: sigma per axis is eph / 2.4477.
    P95,
    /// Sigma per axis.
    Sigma,
}

/// What gpsd's `epx` and `epy` mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EpxConfidence {
    /// Half the 95 % interval: sigma is epx / 1.96.
    P95,
    /// Sigma.
    Sigma,
}

impl Peer for GpsdConfig {
    fn name(&self) -> &str {
        &self.name
    }

    fn clock(&self) -> (Option<f64>, ClockRule) {
        (self.latency_s, ClockRule::Refuse)
    }

    fn open(&self, _playback: &Playback) -> Result<Connection, PeerError> {
        GpsdReader::open(self).map(Connection::reader)
    }

    fn check(&self, check: &mut Checker) {
        check_latency(self.latency_s, check);
        check.address("address", &self.address);
        check.range("settle_s", self.settle_s, 0.0, 1.0);
        check.range("silence_s", self.silence_s, 0.1, 3600.0);
        check_sigmas(self.default_sigma_m, self.floor_sigma_m, check);
        if self
            .device
            .as_deref()
            .is_some_and(|device| device.starts_with(OUTPUT_DEVICE_PREFIX))
        {
            check.problem("device", "is our own output; name the receiver's device");
        }
    }
}

/// A server that speaks gpsd's JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GpsdServerConfig {
    /// Where to listen, host:port. Default "127.0.0.1:2948" (2947 is gpsd's own).
    pub listen: String,
    /// Which estimates to serve. Default "fused".
    pub estimate: EstimateKind,
    /// Lines that may wait for one client; then the oldest are dropped. Default 64.
    pub client_queue: usize,
    /// Clients at a time; one more sends the idlest away. Default 16.
    pub max_clients: usize,
}

impl Default for GpsdServerConfig {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:2948".into(),
            estimate: EstimateKind::Fused,
            client_queue: 64,
            max_clients: 16,
        }
    }
}

impl Peer for GpsdServerConfig {
    fn name(&self) -> &'static str {
        "gpsd_server"
    }

    fn wants(&self) -> Interests {
        Interests::ESTIMATES | Interests::FIXES
    }

    fn open(&self, _playback: &Playback) -> Result<Connection, PeerError> {
        GpsdServer::open(self).map(Connection::writer)
    }

    fn listens(&self) -> Option<&str> {
        Some(&self.listen)
    }

    fn check(&self, check: &mut Checker) {
        check_server(&self.listen, self.client_queue, self.max_clients, check);
    }
}
