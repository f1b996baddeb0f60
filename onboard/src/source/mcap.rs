//! A recorded drive, played at its own pace.

use tracing::warn;

use super::{PATIENCE, Pace, Source, SourceError};
use crate::config::McapSourceConfig;
use crate::event::Event;
use crate::log::{LogReader, Message};

/// Plays a log.
pub struct McapSource {
    config: McapSourceConfig,
    reader: LogReader,
    pace: Pace,
    next: Option<Event>,
}

impl McapSource {
    /// Opens the log.
    pub fn open(config: &McapSourceConfig, pace: Pace) -> Result<Self, SourceError> {
        let reader = LogReader::open(&config.path)
            .map_err(|error| SourceError::Protocol(error.to_string()))?;
        Ok(Self {
            config: config.clone(),
            reader,
            pace,
            next: None,
        })
    }

    fn read(&mut self) -> Result<Event, SourceError> {
        for item in self.reader.by_ref() {
            match item {
                Ok(Message::Gnss(fix)) if self.config.gnss => return Ok(Event::Gnss(fix)),
                Ok(Message::Frame(frame)) if self.config.camera => return Ok(Event::Frame(frame)),
                Ok(Message::Odometry(sample)) if self.config.odometry => {
                    return Ok(Event::Odometry(sample));
                }
                Ok(_) => {}
                Err(error) => warn!(source = self.config.name, %error, "reading a recorded drive"),
            }
        }
        Err(SourceError::Ended)
    }
}

impl Source for McapSource {
    fn next(&mut self) -> Result<Option<Event>, SourceError> {
        let event = match self.next.take() {
            Some(event) => event,
            None => self.read()?,
        };
        let wait = self.pace.until(event.time_ns());
        if wait > PATIENCE {
            self.next = Some(event);
            std::thread::sleep(PATIENCE);
            return Ok(None);
        }
        std::thread::sleep(wait);
        Ok(Some(event))
    }
}
