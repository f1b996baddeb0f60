//! Sends the messages, and a heartbeat every second.

use std::io::Write;
use std::time::{Duration, Instant};

use mavlink::{MAVLinkV2MessageRaw, MavHeader, MessageData};

use super::message::{global_position_sensor, gps_input, heartbeat, odometry, origin};
use super::{MavlinkConfig, MessageKind};
use crate::event::{Estimate, State};
use crate::peer::local_frame;
use crate::peer::reception::Receivers;
use crate::port::{Outbound, PeerError, Writer};
use crate::transport::udp::Datagrams;
use crate::transport::{serial, write_or_cut};

/// Of heartbeats, as the protocol recommends.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(1);
/// The state of an older estimate says nothing.
const SILENT: Duration = Duration::from_secs(2);
/// A write to a serial port may take this long.
const WRITE_TIMEOUT: Duration = Duration::from_millis(50);

/// Writes messages to an autopilot.
pub struct MavlinkWriter {
    config: MavlinkConfig,
    what: String,
    output: Box<dyn Write + Send>,
    receivers: Receivers,
    sequence: u8,
    /// Time of the estimate that was sent last, nanoseconds UTC.
    sent_ns: Option<i64>,
    beaten: Option<Instant>,
    latest: Option<(State, Instant)>,
    cut: u64,
}

impl MavlinkWriter {
    /// Opens the port or the socket.
    pub fn open(config: &MavlinkConfig) -> Result<Self, PeerError> {
        let (what, output): (String, Box<dyn Write + Send>) = match (&config.serial, &config.udp) {
            (Some(path), _) => (
                serial::describe(path, config.baud),
                Box::new(serial::open(path, config.baud, WRITE_TIMEOUT)?),
            ),
            (None, address) => {
                let address = address.as_deref().unwrap_or_default();
                (format!("UDP {address}"), Box::new(Datagrams::to(address)?))
            }
        };
        Ok(Self {
            config: config.clone(),
            what,
            output,
            receivers: Receivers::default(),
            sequence: 0,
            sent_ns: None,
            beaten: None,
            latest: None,
            cut: 0,
        })
    }

    fn send(&mut self, message: &impl MessageData) -> Result<(), PeerError> {
        let header = MavHeader {
            system_id: self.config.system_id.into(),
            component_id: self.config.component_id,
            sequence: self.sequence,
        };
        self.sequence = self.sequence.wrapping_add(1);
        let mut raw = MAVLinkV2MessageRaw::new();
        raw.serialize_message_data(header, message);
        write_or_cut(&mut self.output, raw.raw_bytes(), &self.what, &mut self.cut)
    }

    fn estimate(&mut self, estimate: &Estimate) -> Result<(), PeerError> {
        self.latest = Some((estimate.state, Instant::now()));
        // A little less, so that jitter does not cost every second one.
        let every_ns = (0.9e9 / self.config.rate_hz) as i64;
        let since_ns = self
            .sent_ns
            .map_or(i64::MAX, |sent_ns| estimate.time_ns.saturating_sub(sent_ns));
        if (0..every_ns).contains(&since_ns) {
            return Ok(());
        }
        self.sent_ns = Some(estimate.time_ns);
        let attendant = self.receivers.attend(estimate);
        let sensor_id = self.config.sensor_id;
        for kind in self.config.messages.clone() {
            match kind {
                MessageKind::GpsInput => self.send(&gps_input(estimate, &attendant, sensor_id))?,
                MessageKind::GlobalPositionSensor => {
                    let message = global_position_sensor(estimate, &attendant, sensor_id);
                    message.map_or(Ok(()), |message| self.send(&message))?;
                }
                MessageKind::Odometry if estimate.state == State::Lost => {}
                MessageKind::Odometry => {
                    let frame = local_frame::of(&self.what, estimate.position);
                    let origin = origin(&frame, &attendant, estimate.time_ns);
                    let message = odometry(estimate, &frame);
                    self.send(&origin)?;
                    message.map_or(Ok(()), |message| self.send(&message))?;
                }
            }
        }
        Ok(())
    }
}

impl Writer for MavlinkWriter {
    fn write(&mut self, outbound: &Outbound) -> Result<(), PeerError> {
        match outbound {
            Outbound::Estimate(estimate) if estimate.kind == self.config.estimate => {
                self.estimate(estimate)?;
            }
            Outbound::Event(event) => self.receivers.note(&event.event),
            _ => {}
        }
        self.poll()
    }

    fn poll(&mut self) -> Result<(), PeerError> {
        let due = self
            .beaten
            .is_none_or(|beaten| beaten.elapsed() >= HEARTBEAT_EVERY);
        if due {
            self.beaten = Some(Instant::now());
            let latest = self.latest.filter(|(_, came)| came.elapsed() < SILENT);
            self.send(&heartbeat(latest.map(|(state, _)| state)))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::sync::Arc;

    use super::*;
    use crate::peer::testing::estimate;

    #[test]
    fn estimates_go_out_at_the_rate_asked_for_with_a_heartbeat() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let config = MavlinkConfig {
            udp: Some(receiver.local_addr().unwrap().to_string()),
            messages: vec![MessageKind::GpsInput, MessageKind::GlobalPositionSensor],
            ..MavlinkConfig::default()
        };
        let mut writer = MavlinkWriter::open(&config).unwrap();
        for tenth in 0..10 {
            let mut estimate = estimate(State::Ok);
            estimate.time_ns += tenth * 100_000_000;
            writer
                .write(&Outbound::Estimate(Arc::new(estimate)))
                .unwrap();
        }
        let mut ids = Vec::new();
        let mut bytes = [0; 512];
        while let Ok(count) = receiver.recv(&mut bytes) {
            assert_eq!((bytes[0], count), (0xfd, bytes[1] as usize + 12));
            assert_eq!(bytes[4] as usize, ids.len(), "sequence");
            ids.push(u32::from_le_bytes([bytes[7], bytes[8], bytes[9], 0]));
        }
        let count = |id| ids.iter().filter(|found| **found == id).count();
        assert_eq!((count(0), count(232), count(296)), (1, 5, 5), "{ids:?}");
    }
}
