//! A recorded drive, played at its own speed: each event when it was recorded.

use tracing::warn;

use super::McapSourceConfig;
use crate::event::{Arrival, Event};
use crate::log::{Arrivals, LogError, LogReader, Record};
use crate::peer::Playback;
use crate::port::{PeerError, Reader};

/// Plays a log.
pub struct McapReader {
    config: McapSourceConfig,
    records: Box<dyn Iterator<Item = Result<Record, LogError>> + Send>,
    playback: Playback,
    next: Option<Arrival>,
}

impl McapReader {
    /// Opens the log.
    pub fn open(config: &McapSourceConfig, playback: Playback) -> Result<Self, PeerError> {
        Ok(Self {
            config: config.clone(),
            records: Box::new(Arrivals::new(LogReader::open(&config.path)?.records())),
            playback,
            next: None,
        })
    }

    fn read(&mut self) -> Result<Arrival, PeerError> {
        for record in self.records.by_ref() {
            match record {
                Ok(record) => {
                    if let Some(arrival) = record.into_arrival()
                        && is_wanted(&arrival.event, &self.config)
                    {
                        return Ok(arrival);
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
        let arrival = match self.next.take() {
            Some(arrival) => arrival,
            None => self.read()?,
        };
        if !self.playback.wait_for(arrival.arrived_ns) {
            self.next = Some(arrival);
            return Ok(None);
        }
        Ok(Some(arrival.event))
    }
}
