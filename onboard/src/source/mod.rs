//! Where events come from: each source turns foreign bytes into [`Event`]s on a thread of its own.
//!
//! A source that fails is dropped and opened again by the pipeline, after a back-off; so a source keeps
//! no retries of its own.

mod covariance;
mod gpsd;
mod gpsd_report;
mod images;
mod lines;
mod mcap;
mod nmea;
mod nmea_sentence;
mod pace;

use std::time::Duration;

pub use self::gpsd_report::GpsdReports;
pub use self::images::image_time_ns;
pub(crate) use self::lines::LineBuffer;
pub use self::nmea_sentence::NmeaSentences;
pub use self::pace::Pace;
use crate::config::SourceConfig;
use crate::event::Event;

/// How long a source may wait for bytes before it gives its thread a chance to stop.
pub(crate) const PATIENCE: Duration = Duration::from_millis(200);

/// Something that delivers events.
pub trait Source: Send {
    /// The next event, or `None` when none came for a moment (at most about 200 ms).
    ///
    /// # Errors
    /// [`SourceError::Ended`] when a recording is over; any other error asks to be opened again.
    fn next(&mut self) -> Result<Option<Event>, SourceError>;
}

/// Why a source delivers no more.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It cannot be reached, or the way to it broke.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, on what.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It speaks, but not what we expect.
    #[error("{0}")]
    Protocol(String),
    /// A recording is over; there is nothing to retry.
    #[error("the recording is over")]
    Ended,
}

impl SourceError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// Opens the source that the config names; `pace` is shared by all recorded ones.
///
/// # Errors
/// [`SourceError`] when it cannot be reached or read.
pub fn open(config: &SourceConfig, pace: &Pace) -> Result<Box<dyn Source>, SourceError> {
    Ok(match config {
        SourceConfig::Gpsd(config) => Box::new(gpsd::GpsdSource::open(config)?),
        SourceConfig::Nmea(config) => nmea::open(config, pace)?,
        SourceConfig::Images(config) => Box::new(images::ImagesSource::open(config, pace.clone())?),
        SourceConfig::Mcap(config) => Box::new(mcap::McapSource::open(config, pace.clone())?),
    })
}
