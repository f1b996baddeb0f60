//! The `mavlink` sink of the config.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::write::MavlinkWriter;
use crate::config::Checker;
use crate::event::EstimateKind;
use crate::peer::{Playback, check_port};
use crate::port::{Connection, Interests, Peer, PeerError};

/// MAVLink 2 messages to an autopilot; give exactly one of `serial` and `udp`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MavlinkConfig {
    /// Serial port of the autopilot, such as "/dev/ttyAMA0".
    pub serial: Option<PathBuf>,
    /// Speed of the serial port, baud. Default 115200.
    pub baud: u32,
    /// Where datagrams go, host:port, such as "127.0.0.1:14550".
    pub udp: Option<String>,
    /// Which messages to send besides the heartbeat. Default `gps_input`.
    pub messages: Vec<MessageKind>,
    /// Which estimates to send. Default "fused".
    pub estimate: EstimateKind,
    /// Positions a second at most. Default 5.
    pub rate_hz: f64,
    /// System that we are part of, the autopilot's. Default 1.
    pub system_id: u8,
    /// Component that we are: 220 is a GNSS receiver, 197 a visual odometry. Default 220.
    pub component_id: u8,
    /// Number of our receiver or sensor among those of the autopilot. Default 0.
    pub sensor_id: u8,
}

/// A message with a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageKind {
    /// GPS_INPUT (232), as from a GNSS receiver; ArduPilot takes it with GPS_TYPE 14.
    GpsInput,
    /// GLOBAL_POSITION_SENSOR (296); PX4 takes it as an auxiliary global position.
    GlobalPositionSensor,
    /// ODOMETRY (331) in local NED with its GPS_GLOBAL_ORIGIN (49): the one with a reset counter.
    Odometry,
}

impl Default for MavlinkConfig {
    fn default() -> Self {
        Self {
            serial: None,
            baud: 115_200,
            udp: None,
            messages: vec![MessageKind::GpsInput],
            estimate: EstimateKind::Fused,
            rate_hz: 5.0,
            system_id: 1,
            component_id: 220,
            sensor_id: 0,
        }
    }
}

impl Peer for MavlinkConfig {
    fn name(&self) -> &'static str {
        "mavlink"
    }

    fn wants(&self) -> Interests {
        Interests::ESTIMATES | Interests::FIXES
    }

    fn open(&self, _playback: &Playback) -> Result<Connection, PeerError> {
        MavlinkWriter::open(self).map(Connection::writer)
    }

    fn check(&self, check: &mut Checker) {
        if self.serial.is_some() == self.udp.is_some() {
            check.problem("", "mavlink needs exactly one of serial and udp");
        }
        if let Some(address) = &self.udp {
            check.address("udp", address);
        }
        if self.messages.is_empty() {
            check.problem("messages", "is empty; name one, such as \"gps_input\"");
        }
        check.range("baud", f64::from(self.baud), 300.0, 4e6);
        check.range("rate_hz", self.rate_hz, 0.1, 50.0);
        check.range("system_id", f64::from(self.system_id), 1.0, 255.0);
        check.range("component_id", f64::from(self.component_id), 1.0, 255.0);
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
