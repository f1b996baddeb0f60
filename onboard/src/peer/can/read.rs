//! Messages from an interface or a recording.

use std::collections::VecDeque;

use tracing::warn;

use super::CanConfig;
use super::decode::{CanSignals, Frame};
use super::dump::frame_of;
use crate::event::Event;
use crate::peer::Playback;
use crate::pipeline::boot_time_ns;
use crate::port::{Connection, PeerError, READ_PATIENCE, Reader};
use crate::transport::{file, is_timeout};

/// A recording larger than this is cut up by its owner, bytes.
const RECORDING_LIMIT_BYTES: u64 = 1 << 30;

/// Tells about messages that are too short, at growing distances.
fn tell_too_short(source: &str, signals: &CanSignals, before: u64) {
    let count = signals.too_short;
    if count != before && count.is_power_of_two() {
        warn!(
            source,
            count, "messages are shorter than their signals; check id, start_bit and length"
        );
    }
}

/// Plays a recording of `candump -l`.
pub struct DumpReader {
    name: String,
    interface: Option<String>,
    signals: CanSignals,
    delay_ns: i64,
    lines: VecDeque<String>,
    playback: Playback,
    bad_lines: u64,
}

impl DumpReader {
    /// Opens the recording.
    pub fn open(config: &CanConfig, playback: Playback) -> Result<Self, PeerError> {
        let path = config.file.clone().unwrap_or_default();
        let text = file::read_text(&path, RECORDING_LIMIT_BYTES)
            .map_err(|error| PeerError::io(format!("reading {path:?}"))(error.into()))?;
        Ok(Self {
            name: config.name.clone(),
            interface: config.interface.clone(),
            signals: CanSignals::new(&config.signal),
            delay_ns: (config.delay_s * 1e9) as i64,
            lines: text.lines().map(str::to_owned).collect(),
            playback,
            bad_lines: 0,
        })
    }
}

impl Reader for DumpReader {
    fn next(&mut self) -> Result<Option<Event>, PeerError> {
        while let Some(line) = self.lines.pop_front() {
            let (arrived_ns, frame) = match frame_of(&line, self.interface.as_deref()) {
                Ok(Some(found)) => found,
                Ok(None) => continue,
                Err(reason) => {
                    self.bad_lines += 1;
                    let (source, count) = (self.name.as_str(), self.bad_lines);
                    if count.is_power_of_two() {
                        warn!(source, reason, count, "a line of the recording is left out");
                    }
                    continue;
                }
            };
            if !self.playback.wait_for(arrived_ns) {
                self.lines.push_front(line);
                return Ok(None);
            }
            let before = self.signals.too_short;
            let sample = self.signals.frame(&frame, arrived_ns - self.delay_ns);
            tell_too_short(&self.name, &self.signals, before);
            if let Some(sample) = sample {
                return Ok(Some(Event::Odometry(sample)));
            }
        }
        Err(PeerError::Ended)
    }
}

/// Listens to an interface.
#[cfg(target_os = "linux")]
pub fn open_interface(config: &CanConfig, interface: &str) -> Result<Connection, PeerError> {
    use socketcan::{CanFdSocket, CanFilter, Socket, SocketOptions};

    let fail = || PeerError::io(format!("CAN interface {interface}"));
    let socket = CanFdSocket::open(interface).map_err(fail())?;
    // The kernel passes on only what is asked for; bit 31 says that an identifier has 29 bits.
    let filters: Vec<CanFilter> = config
        .signal
        .iter()
        .map(|signal| {
            let extended = u32::from(signal.is_extended()) << 31;
            CanFilter::new(signal.id | extended, 0x1fff_ffff | 1 << 31)
        })
        .collect();
    socket.set_filters(&filters).map_err(fail())?;
    socket.set_read_timeout(READ_PATIENCE).map_err(fail())?;
    Ok(Connection::reader(InterfaceReader {
        name: config.name.clone(),
        interface: interface.to_owned(),
        socket,
        signals: CanSignals::new(&config.signal),
        delay_ns: (config.delay_s * 1e9) as i64,
    }))
}

/// There is no SocketCAN elsewhere.
#[cfg(not(target_os = "linux"))]
pub fn open_interface(_: &CanConfig, interface: &str) -> Result<Connection, PeerError> {
    Err(PeerError::Protocol(format!(
        "CAN interface {interface}: only Linux has SocketCAN"
    )))
}

#[cfg(target_os = "linux")]
struct InterfaceReader {
    name: String,
    interface: String,
    socket: socketcan::CanFdSocket,
    signals: CanSignals,
    delay_ns: i64,
}

#[cfg(target_os = "linux")]
impl Reader for InterfaceReader {
    fn next(&mut self) -> Result<Option<Event>, PeerError> {
        use socketcan::{CanAnyFrame, EmbeddedFrame, Frame as _, Socket};

        let frame = match self.socket.read_frame() {
            Ok(frame) => frame,
            Err(error) if is_timeout(&error) => return Ok(None),
            Err(error) => {
                return Err(PeerError::io(format!("CAN interface {}", self.interface))(
                    error,
                ));
            }
        };
        let arrived_ns = boot_time_ns();
        let frame = match &frame {
            CanAnyFrame::Normal(frame) => Frame {
                id: frame.raw_id(),
                extended: frame.is_extended(),
                data: frame.data().to_vec(),
            },
            CanAnyFrame::Fd(frame) => Frame {
                id: frame.raw_id(),
                extended: frame.is_extended(),
                data: frame.data().to_vec(),
            },
            _ => return Ok(None),
        };
        let before = self.signals.too_short;
        let sample = self.signals.frame(&frame, arrived_ns - self.delay_ns);
        tell_too_short(&self.name, &self.signals, before);
        Ok(sample.map(Event::Odometry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_not_there_is_named() {
        let failure = open_interface(&CanConfig::default(), "nocan7")
            .err()
            .unwrap();
        assert!(failure.to_string().contains("nocan7"), "{failure}");
    }
}
