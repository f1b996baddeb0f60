//! The client of a gpsd server: the socket around [`GpsdReports`].

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use super::GpsdConfig;
use super::report::{GpsdReports, Line};
use crate::event::Event;
use crate::peer::dates;
use crate::port::{PeerError, READ_PATIENCE, Reader};
use crate::transport::lines::LineBuffer;
use crate::transport::tcp;

/// gpsd itself stops at 10 240 bytes.
const LINE_LIMIT_BYTES: usize = 16 << 10;
/// One request per write: an unknown command in the same write would take the WATCH down with it.
const WATCH: &[u8] = b"?WATCH={\"enable\":true,\"json\":true};\n";
/// Without an echo the request is sent again after this time, this many times.
const WATCH_TIMEOUT: Duration = Duration::from_secs(2);
const WATCH_TRIES: u32 = 5;
/// Major version of the protocol implemented here.
const PROTOCOL_MAJOR: u64 = 3;

/// A connection to gpsd.
pub struct GpsdReader {
    config: GpsdConfig,
    stream: TcpStream,
    lines: LineBuffer,
    reports: GpsdReports,
    started: Instant,
    last_input: Duration,
    watch: Watch,
    broken_lines: u64,
    remarks: Vec<String>,
    /// All of them, for the status.
    remark: Option<String>,
}

/// Where the handshake stands.
enum Watch {
    /// Asked this many times, the last time then.
    Asked(u32, Duration),
    /// gpsd said it sends reports.
    On,
}

impl GpsdReader {
    /// Connects; the handshake goes on in [`Reader::next`].
    pub fn open(config: &GpsdConfig) -> Result<Self, PeerError> {
        let stream = tcp::connect(&config.address, READ_PATIENCE)?;
        let mut source = Self {
            config: config.clone(),
            stream,
            lines: LineBuffer::new(LINE_LIMIT_BYTES),
            reports: GpsdReports::new(config),
            started: Instant::now(),
            last_input: Duration::ZERO,
            watch: Watch::Asked(1, Duration::ZERO),
            broken_lines: 0,
            remarks: Vec::new(),
            remark: None,
        };
        source.ask()?;
        Ok(source)
    }

    fn ask(&mut self) -> Result<(), PeerError> {
        self.stream.write_all(WATCH).map_err(PeerError::io(format!(
            "asking {} for reports",
            self.config.address
        )))
    }

    fn line(&mut self) -> Result<bool, PeerError> {
        let now = self.started.elapsed();
        let Some(line) = self.lines.next_line() else {
            return Ok(false);
        };
        self.reports.set_machine_time(dates::machine_time());
        let meaning = self.reports.line(line, now);
        for remark in self.reports.remarks() {
            if !self.remarks.contains(&remark) {
                warn!(source = self.config.name, "{remark}");
                self.remarks.push(remark);
                self.remark = Some(self.remarks.join("; "));
            }
        }
        match meaning {
            Line::Report => {}
            Line::Watch { enabled: true } => self.watch = Watch::On,
            Line::Watch { enabled: false } => {
                self.watch = Watch::Asked(1, now);
                self.ask()?;
            }
            Line::Version {
                release,
                proto_major,
            } => {
                info!(source = self.config.name, release, "gpsd answers");
                if proto_major != PROTOCOL_MAJOR {
                    return Err(PeerError::Protocol(format!(
                        "gpsd {release} at {} speaks protocol {proto_major}; version {PROTOCOL_MAJOR} is needed",
                        self.config.address
                    )));
                }
            }
            Line::WithoutDevice(paths) => {
                let there = paths.join(", ");
                return Err(PeerError::Protocol(format!(
                    "gpsd at {} has no device {:?}; it has {there}",
                    self.config.address,
                    self.config.device.as_deref().unwrap_or_default()
                )));
            }
            Line::Error(message) => {
                warn!(source = self.config.name, message, "gpsd refused a request");
            }
            Line::Broken(reason) => {
                self.broken_lines += 1;
                if self.broken_lines.is_power_of_two() {
                    warn!(
                        source = self.config.name,
                        lines = self.broken_lines,
                        reason,
                        "a line of gpsd is broken, passed over"
                    );
                }
            }
        }
        Ok(true)
    }

    fn check_handshake(&mut self) -> Result<(), PeerError> {
        let now = self.started.elapsed();
        if let Watch::Asked(tries, at) = self.watch
            && now.saturating_sub(at) > WATCH_TIMEOUT
        {
            if tries >= WATCH_TRIES {
                return Err(PeerError::Protocol(format!(
                    "{} does not answer ?WATCH; is that a gpsd?",
                    self.config.address
                )));
            }
            debug!(
                source = self.config.name,
                tries, "no answer to ?WATCH, asking again"
            );
            self.watch = Watch::Asked(tries + 1, now);
            self.ask()?;
        }
        Ok(())
    }
}

impl Reader for GpsdReader {
    fn next(&mut self) -> Result<Option<Event>, PeerError> {
        loop {
            if let Some(fix) = self.reports.take(self.started.elapsed()) {
                return Ok(Some(Event::Gnss(fix)));
            }
            if !self.line()? {
                break;
            }
        }
        self.check_handshake()?;
        let timeout = if self.reports.is_settling() {
            Duration::from_secs_f64(self.config.settle_s.max(0.005))
        } else {
            READ_PATIENCE
        };
        let reading = || format!("reading from {}", self.config.address);
        self.stream
            .set_read_timeout(Some(timeout))
            .map_err(PeerError::io(reading()))?;
        match self
            .lines
            .fill(&mut self.stream)
            .map_err(PeerError::io(reading()))?
        {
            Some(0) => {
                return Err(PeerError::Protocol(format!(
                    "{} closed the connection",
                    self.config.address
                )));
            }
            Some(_) => self.last_input = self.started.elapsed(),
            None if self
                .started
                .elapsed()
                .saturating_sub(self.last_input)
                .as_secs_f64()
                > self.config.silence_s =>
            {
                return Err(PeerError::Protocol(format!(
                    "{} has been silent for {} s; is the receiver plugged in?",
                    self.config.address, self.config.silence_s
                )));
            }
            None => {}
        }
        Ok(None)
    }

    fn remark(&self) -> Option<&str> {
        self.remark.as_deref()
    }
}
