//! A receiver on a serial port or behind a server, or a file of its bytes.

use std::fs::File;
use std::io::Read;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::{Configure, UbxConfig, UbxStream, setup};
use crate::event::{Event, GnssFix};
use crate::peer::{Playback, dates, silence};
use crate::port::{Connection, PeerError, Reader};
use crate::transport::duplex::{self, Duplex};
use crate::transport::file;
use crate::transport::is_timeout;

/// Silence after which a port is opened anew.
const SILENCE: Duration = Duration::from_secs(10);
/// Shorter than the time between epochs.
const READ_TIMEOUT: Duration = Duration::from_millis(50);

/// Opens the one input that the config names.
pub fn open(config: &UbxConfig, playback: &Playback) -> Result<Connection, PeerError> {
    if let Some(path) = &config.file {
        let opening = || PeerError::io(format!("opening {path:?}"));
        let input = file::open(path).map_err(|error| opening()(error.into()))?;
        let about = input.metadata().map_err(opening())?;
        let mut stream = UbxStream::new(config);
        stream.set_machine_time(about.modified().ok().and_then(dates::date_time));
        return Ok(Connection::reader(UbxFile {
            what: format!("{path:?}"),
            input,
            log: Log::new(config, stream),
            playback: playback.clone(),
            next: None,
        }));
    }
    let port = config.serial.as_deref().map(|path| (path, config.baud));
    let server = ("receiver at", config.tcp.as_deref().unwrap_or_default());
    let Duplex {
        what,
        input,
        mut output,
    } = duplex::open(port, server, READ_TIMEOUT)?;
    if config.configure == Configure::Ram {
        for message in setup::messages() {
            output
                .write_all(&message)
                .map_err(PeerError::io(format!("setting up {what}")))?;
        }
    }
    Ok(Connection::reader(UbxPort {
        what,
        input,
        log: Log::new(config, UbxStream::new(config)),
        started: Instant::now(),
        last_message: (Duration::ZERO, 0),
        heard: false,
    }))
}

/// A stream, and what was said about it.
struct Log {
    source: String,
    stream: UbxStream,
    reported_bad: u64,
    /// What holds now, and what was said before: nothing is said twice.
    remarks: Vec<String>,
    said: Vec<String>,
    /// What holds now, for the status.
    remark: Option<String>,
}

impl Log {
    fn new(config: &UbxConfig, stream: UbxStream) -> Self {
        Self {
            source: config.name.clone(),
            stream,
            reported_bad: 0,
            remarks: Vec::new(),
            said: Vec::new(),
            remark: None,
        }
    }

    /// Says what is new at `now`; bad messages each time that there are twice as many.
    fn report(&mut self, now: Duration) {
        let source = self.source.as_str();
        let messages = self.stream.bad_messages();
        if messages >= 2 * self.reported_bad.max(1) {
            warn!(source, messages, "damaged messages are passed over");
            self.reported_bad = messages;
        }
        let remarks = self.stream.remarks(now);
        if remarks != self.remarks {
            for remark in &remarks {
                if !self.said.contains(remark) {
                    warn!(source, "{remark}");
                    self.said.push(remark.clone());
                }
            }
            self.remark = (!remarks.is_empty()).then(|| remarks.join("; "));
            self.remarks = remarks;
        }
        match self.stream.take_acknowledged() {
            Some(true) => info!(source, "the receiver took its set-up"),
            Some(false) => warn!(source, "the receiver does not know a part of its set-up"),
            None => {}
        }
    }
}

struct UbxPort {
    what: String,
    input: Box<dyn Read + Send>,
    log: Log,
    started: Instant,
    /// When the last whole message was there, and how many there were then.
    last_message: (Duration, u64),
    /// Whether bytes came since.
    heard: bool,
}

impl UbxPort {
    /// Whether too long nothing came that can be read.
    fn check_silence(&mut self, now: Duration) -> Result<(), PeerError> {
        let readable = self.log.stream.readable();
        if readable != self.last_message.1 {
            self.last_message = (now, readable);
            self.heard = false;
        }
        if now.saturating_sub(self.last_message.0) <= SILENCE {
            return Ok(());
        }
        Err(silence(&self.what, SILENCE, self.heard))
    }
}

impl Reader for UbxPort {
    fn next(&mut self) -> Result<Option<Event>, PeerError> {
        let now = self.started.elapsed();
        let stream = &mut self.log.stream;
        stream.set_machine_time(dates::machine_time());
        if let Some(fix) = stream.take(now) {
            return Ok(Some(Event::Gnss(fix)));
        }
        let mut bytes = [0; 4096];
        match self.input.read(&mut bytes) {
            Ok(0) => return Err(PeerError::Protocol(format!("{} closed", self.what))),
            Ok(count) => {
                self.heard = true;
                stream.bytes(&bytes[..count], self.started.elapsed());
            }
            Err(error) if is_timeout(&error) => {}
            Err(source) => {
                return Err(PeerError::Io {
                    what: format!("reading {}", self.what),
                    source,
                });
            }
        }
        let fix = stream.take(self.started.elapsed());
        self.log.report(now);
        self.check_silence(now)?;
        Ok(fix.map(Event::Gnss))
    }

    fn remark(&self) -> Option<&str> {
        self.log.remark.as_deref()
    }
}

struct UbxFile {
    what: String,
    input: File,
    log: Log,
    playback: Playback,
    next: Option<GnssFix>,
}

impl UbxFile {
    fn read(&mut self) -> Result<Option<GnssFix>, PeerError> {
        // Time stands still in a file: an epoch ends where the next begins.
        let stream = &mut self.log.stream;
        loop {
            if let Some(fix) = stream.take(Duration::ZERO) {
                return Ok(Some(fix));
            }
            let mut bytes = [0; 4096];
            let count = self
                .input
                .read(&mut bytes)
                .map_err(PeerError::io(format!("reading {}", self.what)))?;
            if count == 0 {
                return Ok(stream.finish(Duration::ZERO));
            }
            stream.bytes(&bytes[..count], Duration::ZERO);
        }
    }
}

impl Reader for UbxFile {
    fn next(&mut self) -> Result<Option<Event>, PeerError> {
        if self.next.is_none() {
            self.next = self.read()?;
            self.log.report(Duration::ZERO);
        }
        let fix = self.next.take().ok_or(PeerError::Ended)?;
        if !self.playback.wait_for(fix.time_ns) {
            self.next = Some(fix);
            return Ok(None);
        }
        Ok(Some(Event::Gnss(fix)))
    }
}
