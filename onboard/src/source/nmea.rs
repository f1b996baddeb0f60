//! A receiver on a serial port, a server that sends sentences, or a file of them.

use std::fs::File;
use std::io::Read;
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tracing::warn;

use super::{LineBuffer, NmeaSentences, PATIENCE, Pace, Source, SourceError, gpsd};
use crate::config::NmeaConfig;
use crate::event::{Event, GnssFix};

/// Longest line that may hold a sentence; receivers mix binary messages in.
const LINE_LIMIT_BYTES: usize = 1024;
/// Silence after which a port is opened anew.
const SILENCE: Duration = Duration::from_secs(10);
/// Shorter than the time between epochs, so that each comes out before the next begins.
const READ_TIMEOUT: Duration = Duration::from_millis(50);

/// Opens the one input that the config names.
pub fn open(config: &NmeaConfig, pace: &Pace) -> Result<Box<dyn Source>, SourceError> {
    if let Some(path) = &config.file {
        let input = File::open(path).map_err(SourceError::io(format!("opening {path:?}")))?;
        return Ok(Box::new(NmeaFile {
            input,
            reader: Reader::new(config),
            pace: pace.clone(),
            next: None,
            path: path.clone(),
        }));
    }
    let (what, input): (String, Box<dyn Read + Send>) = if let Some(path) = &config.serial {
        let what = format!("serial port {path:?} at {} baud", config.baud);
        let port = serialport::new(path.to_string_lossy(), config.baud)
            .timeout(READ_TIMEOUT)
            .open();
        (
            what.clone(),
            Box::new(port.map_err(|error| SourceError::Io {
                what,
                source: error.into(),
            })?),
        )
    } else {
        let address = config.tcp.as_deref().unwrap_or_default();
        let stream: TcpStream = gpsd::connect(address)?;
        stream
            .set_read_timeout(Some(READ_TIMEOUT))
            .map_err(SourceError::io(address))?;
        (format!("NMEA server {address}"), Box::new(stream))
    };
    Ok(Box::new(NmeaStream {
        what,
        input,
        reader: Reader::new(config),
        started: Instant::now(),
        heard: Duration::ZERO,
    }))
}

/// Lines and what they say.
struct Reader {
    lines: LineBuffer,
    sentences: NmeaSentences,
    reported_bad: u64,
}

impl Reader {
    fn new(config: &NmeaConfig) -> Self {
        Self {
            lines: LineBuffer::new(LINE_LIMIT_BYTES),
            sentences: NmeaSentences::new(config),
            reported_bad: 0,
        }
    }

    /// The next fix in what was read so far.
    fn next_fix(&mut self, now: Duration) -> Option<GnssFix> {
        loop {
            if let Some(fix) = self.sentences.take(now) {
                return Some(fix);
            }
            let line = self.lines.next_line()?;
            self.sentences.line(line, now);
        }
    }

    /// Says so when sentences are bad, at ever greater intervals.
    fn report(&mut self, what: &str) {
        let bad = self.sentences.bad_sentences();
        if bad >= 2 * self.reported_bad.max(1) {
            warn!(
                source = what,
                sentences = bad,
                "sentences with a wrong checksum or shape are passed over"
            );
            self.reported_bad = bad;
        }
    }
}

struct NmeaStream {
    what: String,
    input: Box<dyn Read + Send>,
    reader: Reader,
    started: Instant,
    heard: Duration,
}

impl Source for NmeaStream {
    fn next(&mut self) -> Result<Option<Event>, SourceError> {
        let now = self.started.elapsed();
        if let Some(fix) = self.reader.next_fix(now) {
            return Ok(Some(Event::Gnss(fix)));
        }
        match self
            .reader
            .lines
            .fill(&mut self.input)
            .map_err(SourceError::io(format!("reading {}", self.what)))?
        {
            Some(0) => return Err(SourceError::Protocol(format!("{} closed", self.what))),
            Some(_) => self.heard = self.started.elapsed(),
            None if now.saturating_sub(self.heard) > SILENCE => {
                return Err(SourceError::Protocol(format!(
                    "{} has been silent for {} s; check the cable and the speed",
                    self.what,
                    SILENCE.as_secs()
                )));
            }
            None => {}
        }
        self.reader.report(&self.what);
        Ok(self
            .reader
            .next_fix(self.started.elapsed())
            .map(Event::Gnss))
    }
}

struct NmeaFile {
    path: PathBuf,
    input: File,
    reader: Reader,
    pace: Pace,
    next: Option<GnssFix>,
}

impl NmeaFile {
    fn read(&mut self) -> Result<Option<GnssFix>, SourceError> {
        loop {
            // Time stands still in a file: an epoch ends where the next begins.
            if let Some(fix) = self.reader.next_fix(Duration::ZERO) {
                return Ok(Some(fix));
            }
            let read = self.reader.lines.fill(&mut self.input);
            if read.map_err(SourceError::io(format!("reading {:?}", self.path)))? == Some(0) {
                self.reader.lines.push(b"\n");
                return Ok(self
                    .reader
                    .next_fix(Duration::ZERO)
                    .or_else(|| self.reader.sentences.finish()));
            }
        }
    }
}

impl Source for NmeaFile {
    fn next(&mut self) -> Result<Option<Event>, SourceError> {
        if self.next.is_none() {
            self.next = self.read()?;
            self.reader.report(&self.path.to_string_lossy());
        }
        let fix = self.next.take().ok_or(SourceError::Ended)?;
        let wait = self.pace.until(fix.time_ns);
        if wait > PATIENCE {
            self.next = Some(fix);
            std::thread::sleep(PATIENCE);
            return Ok(None);
        }
        std::thread::sleep(wait);
        Ok(Some(Event::Gnss(fix)))
    }
}
