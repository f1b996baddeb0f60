//! A recorded drive, played at its own speed.

use tracing::warn;

use super::McapSourceConfig;
use crate::event::Event;
use crate::log::LogReader;
use crate::peer::Playback;
use crate::port::{PeerError, Reader};

/// Plays a log.
pub struct McapReader {
    config: McapSourceConfig,
    reader: LogReader,
    playback: Playback,
    next: Option<Event>,
}

impl McapReader {
    /// Opens the log.
    pub fn open(config: &McapSourceConfig, playback: Playback) -> Result<Self, PeerError> {
        Ok(Self {
            config: config.clone(),
            reader: LogReader::open(&config.path)?,
            playback,
            next: None,
        })
    }

    fn read(&mut self) -> Result<Event, PeerError> {
        for item in self.reader.by_ref() {
            match item {
                Ok(message) => {
                    if let Some(event) = message.into_event()
                        && is_wanted(&event, &self.config)
                    {
                        return Ok(event);
                    }
                }
                Err(error) => warn!(source = self.config.name, %error, "reading a recorded drive"),
            }
        }
        Err(PeerError::Ended)
    }
}

fn is_wanted(event: &Event, config: &McapSourceConfig) -> bool {
    match event {
        Event::Gnss(_) => config.gnss,
        Event::Frame(_) => config.camera,
        Event::Odometry(_) => config.odometry,
        Event::SourceState { .. } => false,
    }
}

impl Reader for McapReader {
    fn next(&mut self) -> Result<Option<Event>, PeerError> {
        let event = match self.next.take() {
            Some(event) => event,
            None => self.read()?,
        };
        if !self.playback.wait_for(event.time_ns()) {
            self.next = Some(event);
            return Ok(None);
        }
        Ok(Some(event))
    }
}
