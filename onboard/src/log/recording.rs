//! A recorded drive as a whole: its files, its topics, and which of them are used.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mcap::sans_io::summary_reader::{SummaryReadEvent, SummaryReader, SummaryReaderOptions};

use super::files::files_of;
use super::reader::{NAMES_LIMIT_BYTES, RECORD_LIMIT_BYTES};
use super::topics::{Channel, Choice, TopicsConfig, list};
use super::{LogError, LogReader, Record};
use crate::transport::file;

/// A recorded drive: one MCAP file, or a folder with those of a ROS 2 bag.
pub struct Recording {
    path: PathBuf,
    files: Vec<PathBuf>,
    channels: Vec<Channel>,
    choice: Arc<Choice>,
}

impl Recording {
    /// Finds out which topics there are, and chooses those to use.
    ///
    /// # Errors
    /// [`LogError`] when it cannot be opened.
    pub fn open(path: &Path, topics: &TopicsConfig) -> Result<Self, LogError> {
        let files = files_of(path)?;
        let mut channels = Vec::new();
        for file in &files {
            channels.extend(channels_of(file)?);
        }
        channels.sort();
        channels.dedup();
        let choice = Arc::new(Choice::new(topics, &channels));
        Ok(Self {
            path: path.to_owned(),
            files,
            channels,
            choice,
        })
    }

    /// Which topics are used.
    pub fn choice(&self) -> &Choice {
        &self.choice
    }

    /// The messages of the topics that are used, and camera calibrations, in the order of the files.
    pub fn records(&self) -> Box<dyn Iterator<Item = Result<Record, LogError>> + Send> {
        let choice = self.choice.clone();
        let files = self.files.clone().into_iter();
        Box::new(files.flat_map(move |file| {
            let opened = LogReader::open(&file).map(|reader| reader.chosen(choice.clone()));
            let (reader, failure) = match opened {
                Ok(reader) => (Some(reader), None),
                Err(error) => (None, Some(Err(error))),
            };
            let records = reader.into_iter().flat_map(LogReader::records);
            failure.into_iter().chain(records)
        }))
    }

    /// Why nothing could be used, for whoever expected otherwise.
    pub fn unusable(&self, why: &str) -> LogError {
        let all: Vec<&Channel> = self.channels.iter().collect();
        let topics = if all.is_empty() {
            "it has no topics".to_owned()
        } else {
            format!("its topics are {}", list(&all))
        };
        LogError::Unusable {
            path: self.path.clone(),
            reason: format!("{why}; {topics}"),
        }
    }
}

/// The channels of a file: by its summary, or where it has none, by reading through it.
fn channels_of(path: &Path) -> Result<Vec<Channel>, LogError> {
    let file = file::open(path).map_err(|error| LogError::Io {
        path: path.to_owned(),
        source: error.into(),
    })?;
    match summary_channels(file) {
        Some(channels) if !channels.is_empty() => Ok(channels),
        _ => Ok(LogReader::open(path)?.channels()),
    }
}

fn summary_channels(mut file: File) -> Option<Vec<Channel>> {
    let size = file.metadata().ok()?.len();
    let options = SummaryReaderOptions::default()
        .with_file_size(size)
        .with_record_length_limit(RECORD_LIMIT_BYTES);
    let mut reader = SummaryReader::new_with_options(options);
    while let Some(event) = reader.next_event() {
        match event.ok()? {
            SummaryReadEvent::ReadRequest(bytes) => {
                let read = file
                    .read(reader.insert(bytes.min(RECORD_LIMIT_BYTES)))
                    .ok()?;
                if read == 0 {
                    return None;
                }
                reader.notify_read(read);
            }
            SummaryReadEvent::SeekRequest(position) => {
                reader.notify_seeked(file.seek(position).ok()?);
            }
        }
    }
    let channels = reader.finish()?.channels;
    let name_bytes = channels.values().map(|channel| {
        let schema = channel
            .schema
            .as_ref()
            .map_or(0, |schema| schema.name.len());
        channel.topic.len() + schema + channel.message_encoding.len()
    });
    if name_bytes.sum::<usize>() > NAMES_LIMIT_BYTES {
        // Reading through it says what is wrong.
        return None;
    }
    let found = channels.values().map(|channel| Channel {
        topic: channel.topic.clone(),
        schema: channel
            .schema
            .as_ref()
            .map(|schema| schema.name.clone())
            .unwrap_or_default(),
        encoding: channel.message_encoding.clone(),
    });
    Some(found.collect())
}
