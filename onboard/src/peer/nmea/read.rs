//! A receiver on a serial port, a server that sends sentences, or a file of them.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tracing::warn;

use super::write::NmeaStreamWriter;
use super::{NmeaConfig, NmeaSentences};
use crate::event::{Event, GnssFix};
use crate::peer::{Playback, dates, silence};
use crate::port::{Connection, PeerError, Reader, Writer};
use crate::transport::duplex::{self, Duplex};
use crate::transport::file;
use crate::transport::lines::LineBuffer;

/// Longest line that may hold a sentence; receivers mix binary messages in.
const LINE_LIMIT_BYTES: usize = 1024;
/// Silence after which a port is opened anew.
const SILENCE: Duration = Duration::from_secs(10);
/// Shorter than the time between epochs, so that each comes out before the next begins.
const READ_TIMEOUT: Duration = Duration::from_millis(50);

/// Opens the one input that the config names; a stream is also written to if the config says so.
pub fn open(config: &NmeaConfig, playback: &Playback) -> Result<Connection, PeerError> {
    if let Some(path) = &config.file {
        let opening = || format!("opening {path:?}");
        let input = file::open(path).map_err(|error| PeerError::io(opening())(error.into()))?;
        let about = input.metadata().map_err(PeerError::io(opening()))?;
        let mut sentences = SentenceReader::new(config);
        // A recording without dates was made before its file was last written.
        let written = about.modified().ok().and_then(dates::date_time);
        sentences.sentences.set_machine_time(written);
        return Ok(Connection::reader(NmeaFile {
            input,
            sentences,
            playback: playback.clone(),
            next: None,
            path: path.clone(),
        }));
    }
    let port = config.serial.as_deref().map(|path| (path, config.baud));
    let server = ("NMEA server", config.tcp.as_deref().unwrap_or_default());
    let Duplex {
        what,
        input,
        output,
    } = duplex::open(port, server, READ_TIMEOUT)?;
    let writer = config
        .send
        .map(|kind| Box::new(NmeaStreamWriter::new(what.clone(), output, kind)) as Box<dyn Writer>);
    Ok(Connection {
        reader: Some(Box::new(NmeaStream {
            what,
            input,
            sentences: SentenceReader::new(config),
            started: Instant::now(),
            last_sentence: (Duration::ZERO, 0),
            heard: false,
        })),
        writer,
    })
}

/// Cuts a stream into lines and the lines' sentences into fixes.
struct SentenceReader {
    lines: LineBuffer,
    sentences: NmeaSentences,
    reported_bad: u64,
    remarks: Vec<String>,
    /// All of them, for the status.
    remark: Option<String>,
}

impl SentenceReader {
    fn new(config: &NmeaConfig) -> Self {
        Self {
            lines: LineBuffer::new(LINE_LIMIT_BYTES),
            sentences: NmeaSentences::new(config),
            reported_bad: 0,
            remarks: Vec::new(),
            remark: None,
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

    /// Logs bad sentences, each time twice as many were found.
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
        let remarks = self.sentences.remarks();
        if remarks != self.remarks {
            for remark in remarks.iter().filter(|new| !self.remarks.contains(new)) {
                warn!(source = what, "{remark}");
            }
            self.remark = (!remarks.is_empty()).then(|| remarks.join("; "));
            self.remarks = remarks;
        }
    }
}

struct NmeaStream {
    what: String,
    input: Box<dyn Read + Send>,
    sentences: SentenceReader,
    started: Instant,
    /// When the last whole sentence was there, and how many there were then.
    last_sentence: (Duration, u64),
    /// Whether bytes came since.
    heard: bool,
}

impl NmeaStream {
    /// Whether too long nothing came that can be read.
    fn check_silence(&mut self, now: Duration) -> Result<(), PeerError> {
        let readable = self.sentences.sentences.readable();
        if readable != self.last_sentence.1 {
            self.last_sentence = (now, readable);
            self.heard = false;
        }
        if now.saturating_sub(self.last_sentence.0) <= SILENCE {
            return Ok(());
        }
        Err(silence(&self.what, SILENCE, self.heard))
    }
}

impl Reader for NmeaStream {
    fn next(&mut self) -> Result<Option<Event>, PeerError> {
        let now = self.started.elapsed();
        self.sentences
            .sentences
            .set_machine_time(dates::machine_time());
        if let Some(fix) = self.sentences.next_fix(now) {
            return Ok(Some(Event::Gnss(fix)));
        }
        match self
            .sentences
            .lines
            .fill(&mut self.input)
            .map_err(PeerError::io(format!("reading {}", self.what)))?
        {
            Some(0) => return Err(PeerError::Protocol(format!("{} closed", self.what))),
            Some(_) => self.heard = true,
            None => {}
        }
        let fix = self.sentences.next_fix(self.started.elapsed());
        self.sentences.report(&self.what);
        self.check_silence(now)?;
        Ok(fix.map(Event::Gnss))
    }

    fn remark(&self) -> Option<&str> {
        self.sentences.remark.as_deref()
    }
}

struct NmeaFile {
    path: PathBuf,
    input: File,
    sentences: SentenceReader,
    playback: Playback,
    next: Option<GnssFix>,
}

impl NmeaFile {
    fn read(&mut self) -> Result<Option<GnssFix>, PeerError> {
        loop {
            // Time stands still in a file: an epoch ends where the next begins.
            if let Some(fix) = self.sentences.next_fix(Duration::ZERO) {
                return Ok(Some(fix));
            }
            let read = self.sentences.lines.fill(&mut self.input);
            if read.map_err(PeerError::io(format!("reading {:?}", self.path)))? == Some(0) {
                self.sentences.lines.push(b"\n");
                return Ok(self
                    .sentences
                    .next_fix(Duration::ZERO)
                    .or_else(|| self.sentences.sentences.finish()));
            }
        }
    }
}

impl Reader for NmeaFile {
    fn next(&mut self) -> Result<Option<Event>, PeerError> {
        if self.next.is_none() {
            self.next = self.read()?;
            self.sentences.report(&self.path.to_string_lossy());
        }
        let fix = self.next.take().ok_or(PeerError::Ended)?;
        if !self.playback.wait_for(fix.time_ns) {
            self.next = Some(fix);
            return Ok(None);
        }
        Ok(Some(Event::Gnss(fix)))
    }
}
