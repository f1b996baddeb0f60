//! Writes a drive log: JSON in small checked chunks.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

use crossfix_calibration::Camera;
use mcap::WriteOptions;
use mcap::records::MessageHeader;
use serde::Serialize;

use super::message::{CompressedImage, LocationFix, Odometry, StateMessage};
use super::schema::{self, Schema};
use super::{LogError, topic};
use crate::event::{CameraFrame, Estimate, EstimateKind, GnssFix, OdometrySample, State};

/// A chunk is closed after this many bytes, so that a power cut loses little.
const CHUNK_BYTES: u64 = 256 << 10;

/// Writes one log file; [`LogWriter::finish`] adds the index that viewers want.
pub struct LogWriter<W: Write + Seek = BufWriter<File>> {
    path: PathBuf,
    writer: mcap::Writer<W>,
    channels: HashMap<&'static str, (u16, u32)>, // topic -> id and next sequence number
}

impl LogWriter<BufWriter<File>> {
    /// Creates a log file; an existing one is not overwritten.
    ///
    /// # Errors
    /// [`LogError::Io`] when the file exists or cannot be made.
    pub fn create(path: &Path) -> Result<Self, LogError> {
        let file = File::create_new(path).map_err(|source| LogError::Io {
            path: path.to_owned(),
            source,
        })?;
        Self::new(BufWriter::new(file), path)
    }

    /// Closes the current chunk and waits until it is on the disk.
    ///
    /// # Errors
    /// [`LogError::Write`] when the disk refuses.
    pub fn sync(&mut self) -> Result<(), LogError> {
        self.flush()?;
        // The writer keeps its stream to itself; the file's data is reached through its path.
        let synced = File::open(&self.path).and_then(|file| file.sync_data());
        synced.map_err(|source| LogError::Io {
            path: self.path.clone(),
            source,
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

    /// Closes the current chunk and hands it to the stream.
    ///
    /// # Errors
    /// [`LogError::Write`] when the stream refuses.
    pub fn flush(&mut self) -> Result<(), LogError> {
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
        topic: &'static str,
        schema: &Schema,
        time_ns: i64,
        body: &impl Serialize,
    ) -> Result<(), LogError> {
        let fail = |error: mcap::McapError| write_error(&self.path, error);
        let (id, sequence) = if let Some(known) = self.channels.get_mut(topic) {
            known
        } else {
            let schema = self
                .writer
                .add_schema(schema.name, "jsonschema", schema.text.as_bytes())
                .map_err(fail)?;
            let id = self
                .writer
                .add_channel(schema, topic, "json", &BTreeMap::new())
                .map_err(fail)?;
            self.channels.entry(topic).or_insert((id, 0))
        };
        let data = serde_json::to_vec(body).map_err(|error| write_error(&self.path, error))?;
        let time = u64::try_from(time_ns).unwrap_or(0);
        let header = MessageHeader {
            channel_id: *id,
            sequence: *sequence,
            log_time: time,
            publish_time: time,
        };
        *sequence = sequence.wrapping_add(1);
        self.writer
            .write_to_known_channel(&header, &data)
            .map_err(fail)
    }
}

fn write_error(path: &Path, error: impl ToString) -> LogError {
    LogError::Write {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}
