//! Writes a drive log: JSON in small checked chunks.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};

use crossfix_calibration::Camera;
use mcap::WriteOptions;
use mcap::records::{MessageHeader, Metadata};
use serde::Serialize;

use super::end_marked::EndMarked;
use super::message::{CompressedImage, LocationFix, Odometry, ShadowMessage, StateMessage};
use super::schema::{self, Schema};
use super::{LogError, topic};
use crate::event::{CameraFrame, Estimate, EstimateKind, GnssFix, OdometrySample, State};
use crate::shadow::Comparison;

/// A chunk is closed after this many bytes, so that a power cut loses little.
const CHUNK_BYTES: u64 = 256 << 10;
/// What was written is flushed after so many bytes of messages at the latest.
const UNFLUSHED_BYTES: usize = 4 << 20;

/// Writes one log file; [`LogWriter::finish`] adds the index that viewers want.
pub struct LogWriter<W: Write + Seek = EndMarked> {
    path: PathBuf,
    writer: mcap::Writer<W>,
    channels: HashMap<String, (u16, u32)>, // topic -> id and next sequence number
    unflushed_bytes: usize,
}

/// When a message was recorded and when it was true, nanoseconds UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// MCAP's `log_time`.
    pub log_ns: i64,
    /// MCAP's `publish_time`.
    pub publish_ns: i64,
}

impl Times {
    /// Recorded at the moment it was true.
    pub fn at_once(time_ns: i64) -> Self {
        Self {
            log_ns: time_ns,
            publish_ns: time_ns,
        }
    }
}

impl LogWriter {
    /// Creates a log file; an existing one is not overwritten. It is a whole log after every
    /// [`LogWriter::flush`], however the program ends.
    ///
    /// # Errors
    /// [`LogError::Io`] when the file exists or cannot be made.
    pub fn create(path: &Path) -> Result<Self, LogError> {
        let file = File::create_new(path).map_err(|source| LogError::Io {
            path: path.to_owned(),
            source: if source.kind() == std::io::ErrorKind::AlreadyExists {
                let what =
                    "is there already and is not overwritten; remove it, or give another name";
                std::io::Error::new(source.kind(), what)
            } else {
                source
            },
        })?;
        let made =
            Self::new(EndMarked::new(file), path).and_then(|mut log| log.flush().map(|()| log));
        // On a full disk, nothing is left behind for each try.
        made.inspect_err(|_| {
            let _ = std::fs::remove_file(path);
        })
    }
}

impl<W: Write + Seek> LogWriter<W> {
    /// Writes a log to any stream; `path` only names it in messages.
    ///
    /// # Errors
    /// [`LogError::Write`] when the stream refuses.
    pub fn new(stream: W, path: &Path) -> Result<Self, LogError> {
        let options = WriteOptions::new()
            .profile("")
            .library(concat!("crossfix ", env!("CARGO_PKG_VERSION")))
            .chunk_size(Some(CHUNK_BYTES))
            .compression_threads(0);
        let writer = options
            .create(stream)
            .map_err(|error| write_error(path, error))?;
        Ok(Self {
            path: path.to_owned(),
            writer,
            channels: HashMap::new(),
            unflushed_bytes: 0,
        })
    }

    /// Writes a GNSS fix to [`topic::GNSS`].
    ///
    /// # Errors
    /// [`LogError::Write`] when the stream refuses or a number is not finite; so for all of these.
    pub fn write_gnss(&mut self, fix: &GnssFix) -> Result<(), LogError> {
        self.write(
            topic::GNSS,
            &schema::LOCATION_FIX,
            fix.time_ns,
            &LocationFix::from_gnss(fix),
        )
    }

    /// Writes a picture to [`topic::IMAGE`].
    ///
    /// # Errors
    /// As [`LogWriter::write_gnss`].
    pub fn write_frame(&mut self, frame: &CameraFrame) -> Result<(), LogError> {
        self.write(
            topic::IMAGE,
            &schema::COMPRESSED_IMAGE,
            frame.time_ns,
            &CompressedImage::from_frame(frame),
        )
    }

    /// Writes the camera's model and mount to [`topic::CALIBRATION`].
    ///
    /// # Errors
    /// As [`LogWriter::write_gnss`].
    pub fn write_calibration(&mut self, time_ns: i64, camera: &Camera) -> Result<(), LogError> {
        self.write(topic::CALIBRATION, &schema::CAMERA, time_ns, camera)
    }

    /// Writes how the vehicle moved to [`topic::ODOMETRY`].
    ///
    /// # Errors
    /// As [`LogWriter::write_gnss`].
    pub fn write_odometry(&mut self, sample: &OdometrySample) -> Result<(), LogError> {
        self.write(
            topic::ODOMETRY,
            &schema::ODOMETRY,
            sample.time_ns,
            &Odometry::from_sample(sample),
        )
    }

    /// Writes an estimate: its state always, its position unless it is lost.
    ///
    /// # Errors
    /// As [`LogWriter::write_gnss`].
    pub fn write_estimate(&mut self, estimate: &Estimate) -> Result<(), LogError> {
        let topic = match estimate.kind {
            EstimateKind::Fused => topic::FUSED,
            EstimateKind::VisualOnly => topic::VISUAL_ONLY,
        };
        if estimate.state != State::Lost {
            self.write(
                topic,
                &schema::LOCATION_FIX,
                estimate.time_ns,
                &LocationFix::from_estimate(estimate),
            )?;
        }
        self.write(
            topic::STATE,
            &schema::STATE,
            estimate.time_ns,
            &StateMessage::from_estimate(estimate),
        )
    }

    /// Writes what a student in shadow mode said of a frame to [`topic::SHADOW`].
    ///
    /// # Errors
    /// As [`LogWriter::write_gnss`].
    pub fn write_comparison(&mut self, comparison: &Comparison) -> Result<(), LogError> {
        let body = ShadowMessage::from_comparison(comparison);
        self.write(topic::SHADOW, &schema::SHADOW, comparison.time_ns, &body)
    }

    /// Writes a metadata record: a name, and texts by their names.
    ///
    /// # Errors
    /// [`LogError::Write`] when the stream refuses.
    pub fn write_metadata(
        &mut self,
        name: &str,
        metadata: BTreeMap<String, String>,
    ) -> Result<(), LogError> {
        let record = Metadata {
            name: name.to_owned(),
            metadata,
        };
        self.writer
            .write_metadata(&record)
            .map_err(|error| write_error(&self.path, error))
    }

    /// Closes the current chunk and hands it to the stream; a file's data are on the disk then.
    ///
    /// # Errors
    /// [`LogError::Write`] when the stream refuses.
    pub fn flush(&mut self) -> Result<(), LogError> {
        self.unflushed_bytes = 0;
        self.writer
            .flush()
            .map_err(|error| write_error(&self.path, error))
    }

    /// Writes the index and the end of the file.
    ///
    /// # Errors
    /// [`LogError::Write`] when the stream refuses.
    pub fn finish(mut self) -> Result<(), LogError> {
        self.writer
            .finish()
            .map_err(|error| write_error(&self.path, error))?;
        let mut stream = self.writer.into_inner();
        stream
            .flush()
            .map_err(|error| write_error(&self.path, error))
    }

    fn write(
        &mut self,
        topic: &str,
        schema: &Schema,
        time_ns: i64,
        body: &impl Serialize,
    ) -> Result<(), LogError> {
        self.write_to(topic, schema, Times::at_once(time_ns), body)
    }

    /// Writes a message to any topic, which has one schema.
    ///
    /// # Errors
    /// [`LogError::Write`] when the stream refuses or a number is not finite.
    pub(crate) fn write_to(
        &mut self,
        topic: &str,
        schema: &Schema,
        times: Times,
        body: &impl Serialize,
    ) -> Result<(), LogError> {
        let fail = |error: mcap::McapError| write_error(&self.path, error);
        if !self.channels.contains_key(topic) {
            let schema = self
                .writer
                .add_schema(schema.name, "jsonschema", schema.text.as_bytes())
                .map_err(fail)?;
            let id = self
                .writer
                .add_channel(schema, topic, "json", &BTreeMap::new())
                .map_err(fail)?;
            self.channels.insert(topic.to_owned(), (id, 0));
        }
        let data = serde_json::to_vec(body).map_err(|error| write_error(&self.path, error))?;
        let Some((id, sequence)) = self.channels.get_mut(topic) else {
            unreachable!("it was added above")
        };
        let header = MessageHeader {
            channel_id: *id,
            sequence: *sequence,
            log_time: u64::try_from(times.log_ns).unwrap_or(0),
            publish_time: u64::try_from(times.publish_ns).unwrap_or(0),
        };
        *sequence = sequence.wrapping_add(1);
        self.writer
            .write_to_known_channel(&header, &data)
            .map_err(|error| write_error(&self.path, error))?;
        self.unflushed_bytes += data.len();
        if self.unflushed_bytes > UNFLUSHED_BYTES {
            self.flush()?;
        }
        Ok(())
    }
}

fn write_error(path: &Path, error: impl ToString) -> LogError {
    LogError::Write {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}
