//! A recorded drive, played at its own speed: each event when it was recorded.

use tracing::warn;

use super::McapSourceConfig;
use crate::event::{Arrival, Event};
use crate::log::{Arrivals, Complaints, LogError, Record, Recording};
use crate::peer::Playback;
use crate::port::{PeerError, Reader};

/// Plays a log.
pub struct McapReader {
    config: McapSourceConfig,
    recording: Recording,
    records: Box<dyn Iterator<Item = Result<Record, LogError>> + Send>,
    complaints: Complaints,
    delivered: u64,
    playback: Playback,
    next: Option<Arrival>,
}

impl McapReader {
    /// Opens the log.
    pub fn open(config: &McapSourceConfig, playback: Playback) -> Result<Self, PeerError> {
        let topics = config.topics.clone().unwrap_or_default();
        let recording = Recording::open(&config.path, &topics)?;
        for remark in &recording.choice().remarks {
            warn!(source = config.name, remark, "topics of a recorded drive");
        }
        Ok(Self {
            config: config.clone(),
            records: Box::new(Arrivals::new(recording.records())),
            recording,
            complaints: Complaints::default(),
            delivered: 0,
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
                        self.delivered += 1;
                        return Ok(arrival);
                    }
                }
                Err(error) => self.complaints.note(&self.config.name, &error),
            }
        }
        if let Some(left_out) = self.complaints.summary() {
            warn!(
                source = self.config.name,
                left_out, "a recorded drive is over"
            );
        }
        if self.delivered == 0 {
            let error = self.recording.unusable("there is no message that is read");
            warn!(source = self.config.name, %error, "a recorded drive is over");
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
