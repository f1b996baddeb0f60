//! Reads a drive log, trusting nothing in it.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mcap::McapError;
use mcap::records::op;
use mcap::sans_io::linear_reader::{LinearReadEvent, LinearReader, LinearReaderOptions};

use super::decode::{Decoder, Kind, Recorded};
use super::topics::{Channel, Choice};
use super::{LogError, Message, RECORDING};
use crate::event::Arrival;
use crate::transport::file;

/// No record or chunk, packed or unpacked, may be longer than this; a damaged length would otherwise
/// ask for all memory.
pub(super) const RECORD_LIMIT_BYTES: usize = 64 << 20;
/// The names of topics and types may have this many bytes together: all of them are kept.
pub(super) const NAMES_LIMIT_BYTES: usize = 16 << 20;
/// Longest name of a vehicle that is kept.
const VEHICLE_LIMIT_BYTES: usize = 100;
/// Most bytes asked of the file at a time, whatever the log claims to need.
const READ_LIMIT_BYTES: usize = 1 << 20;

/// A message with where and when it was recorded.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its topic.
    pub topic: Arc<str>,
    /// When it was recorded, nanoseconds on the recorder's clock.
    pub log_time_ns: i64,
    /// The message itself.
    pub message: Message,
}

impl Record {
    /// The recorded event as it arrived; none for calibrations, estimates and foreign messages.
    pub fn into_arrival(self) -> Option<Arrival> {
        let event = self.message.into_event()?;
        Some(Arrival::new(self.topic, self.log_time_ns, event))
    }
}

/// Reads a log from start to end as an iterator of messages.
///
/// A message that is not what its type promises is an error item, and reading goes on. Damage to the
/// file itself is one last error item, after everything that came before it.
pub struct LogReader<R = File> {
    path: PathBuf,
    input: R,
    reader: LinearReader,
    schemas: HashMap<u16, String>, // id -> name
    channels: HashMap<u16, Source>,
    names_bytes: usize,
    vehicle: Option<String>,
    choice: Option<Arc<Choice>>,
    offset: u64,
    messages: u64,
    done: bool,
}

/// A channel, and what is done with its messages.
struct Source {
    channel: Channel,
    topic: Arc<str>,
    decoder: Option<Decoder>,
}

impl LogReader<File> {
    /// Opens a log file.
    ///
    /// # Errors
    /// [`LogError::Io`] when it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, LogError> {
        let input = file::open(path).map_err(|error| LogError::Io {
            path: path.to_owned(),
            source: error.into(),
        })?;
        Ok(Self::new(input, path))
    }
}

impl<R: Read> LogReader<R> {
    /// Reads a log from any bytes; `path` only names it in messages.
    pub fn new(input: R, path: &Path) -> Self {
        let options = LinearReaderOptions::default()
            .with_prevalidate_chunk_crcs(true)
            .with_validate_data_section_crc(true)
            .with_validate_summary_section_crc(true)
            .with_record_length_limit(RECORD_LIMIT_BYTES);
        Self {
            path: path.to_owned(),
            input,
            reader: LinearReader::new_with_options(options),
            schemas: HashMap::new(),
            channels: HashMap::new(),
            names_bytes: 0,
            vehicle: None,
            choice: None,
            offset: 0,
            messages: 0,
            done: false,
        }
    }

    /// Reads only what was chosen, and camera calibrations; by default everything that is understood.
    pub fn chosen(self, choice: Arc<Choice>) -> Self {
        Self {
            choice: Some(choice),
            ..self
        }
    }

    /// The channels of the whole log, up to any damage.
    pub fn channels(mut self) -> Vec<Channel> {
        while let Some(Ok(_)) = self.step() {}
        let sources = self.channels.into_values();
        sources.map(|source| source.channel).collect()
    }

    /// The vehicle, where a recorder of ours wrote its name at the beginning, once that was read.
    pub fn vehicle(&self) -> Option<&str> {
        self.vehicle.as_deref()
    }

    /// The messages with where and when each was recorded.
    pub fn records(mut self) -> impl Iterator<Item = Result<Record, LogError>> {
        std::iter::from_fn(move || self.next_record())
    }

    fn failed(&mut self, error: &McapError) -> LogError {
        if let McapError::UnsupportedCompression(name) = error {
            self.done = true;
            return LogError::Unsupported {
                path: self.path.clone(),
                reason: format!(
                    "is compressed with {name:?}, which is not read; lz4, zstd and none are"
                ),
            };
        }
        self.damaged(error)
    }

    fn damaged(&mut self, reason: impl ToString) -> LogError {
        self.done = true;
        LogError::Damaged {
            path: self.path.clone(),
            offset: self.offset,
            messages: self.messages,
            reason: reason.to_string(),
        }
    }
}

/// What one step through the file brought.
enum Step {
    Need(usize),
    Schema {
        id: u16,
        name: String,
    },
    Channel {
        id: u16,
        topic: String,
        schema: u16,
        encoding: String,
    },
    Message {
        channel: u16,
        log_time: u64,
        data: Vec<u8>,
    },
    Vehicle(String),
    Nothing,
}

impl<R: Read> Iterator for LogReader<R> {
    type Item = Result<Message, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.next_record()?.map(|record| record.message))
    }
}

impl<R: Read> LogReader<R> {
    /// The next message, with where and when it was recorded.
    pub fn next_record(&mut self) -> Option<Result<Record, LogError>> {
        loop {
            let (channel, log_time, data) = match self.step()? {
                Ok(Step::Message {
                    channel,
                    log_time,
                    data,
                }) => (channel, log_time, data),
                Ok(_) => continue,
                Err(error) => return Some(Err(error)),
            };
            self.messages += 1;
            let Some(source) = self.channels.get(&channel) else {
                return Some(Err(self.damaged(format!(
                    "a message is on channel {channel}, which is not declared"
                ))));
            };
            let log_time_ns = i64::try_from(log_time).unwrap_or(i64::MAX);
            let Some(decoded) = source.read(self.choice.as_deref(), log_time_ns, data) else {
                continue;
            };
            return Some(match decoded {
                Ok(message) => Ok(Record {
                    topic: source.topic.clone(),
                    log_time_ns,
                    message,
                }),
                Err(reason) => Err(LogError::BadMessage {
                    path: self.path.clone(),
                    topic: source.topic.to_string(),
                    number: self.messages,
                    reason,
                }),
            });
        }
    }

    /// One step through the file; schemas and channels are noted on the way.
    fn step(&mut self) -> Option<Result<Step, LogError>> {
        if self.done {
            return None;
        }
        let Some(event) = self.reader.next_event() else {
            self.done = true;
            return None;
        };
        let step = match event.and_then(step_of) {
            Ok(step) => step,
            Err(error) => return Some(Err(self.failed(&error))),
        };
        match &step {
            Step::Need(bytes) => match self
                .input
                .read(self.reader.insert((*bytes).clamp(1, READ_LIMIT_BYTES)))
            {
                Ok(read) => {
                    self.offset += read as u64;
                    self.reader.notify_read(read);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => {
                    self.done = true;
                    return Some(Err(LogError::Io {
                        path: self.path.clone(),
                        source,
                    }));
                }
            },
            Step::Schema { id, name } => {
                self.names_bytes += name.len();
                let before = self.schemas.insert(*id, name.clone());
                self.names_bytes -= before.map_or(0, |name| name.len());
            }
            Step::Channel {
                id,
                topic,
                schema,
                encoding,
            } => {
                let channel = Channel {
                    topic: topic.clone(),
                    schema: self.schemas.get(schema).cloned().unwrap_or_default(),
                    encoding: encoding.clone(),
                };
                let source = Source {
                    topic: topic.as_str().into(),
                    decoder: channel.decoder(),
                    channel,
                };
                self.names_bytes += source.channel.name_bytes();
                let before = self.channels.insert(*id, source);
                self.names_bytes -= before.map_or(0, |source| source.channel.name_bytes());
            }
            Step::Vehicle(name) => self.vehicle = Some(name.clone()),
            Step::Message { .. } | Step::Nothing => {}
        }
        if self.names_bytes > NAMES_LIMIT_BYTES {
            return Some(Err(
                self.damaged("the names of its topics and types are too long")
            ));
        }
        Some(Ok(step))
    }
}

impl Source {
    /// A message in our terms; none when it was not chosen.
    fn read(
        &self,
        choice: Option<&Choice>,
        log_time_ns: i64,
        data: Vec<u8>,
    ) -> Option<Result<Message, String>> {
        let recorded = Recorded {
            topic: &self.topic,
            log_time_ns,
        };
        let Some(decoder) = &self.decoder else {
            return choice.is_none().then(|| {
                Ok(Message::Other {
                    topic: self.channel.topic.clone(),
                    time_ns: log_time_ns,
                    data,
                })
            });
        };
        let used = match choice {
            Some(choice) if decoder.kind != Kind::Calibration => Some(choice.get(&self.topic)?),
            _ => None,
        };
        let message = decoder.decode(&data, recorded);
        Some(match used {
            Some(used) => message.map(|message| used.of(message)),
            None => message,
        })
    }
}

fn step_of(event: LinearReadEvent<'_>) -> mcap::McapResult<Step> {
    let (opcode, data) = match event {
        LinearReadEvent::ReadRequest(bytes) => return Ok(Step::Need(bytes)),
        LinearReadEvent::Record { opcode, data } => (opcode, data),
    };
    // Everything else (indexes, statistics) is of no use here, so it is not even parsed.
    if !matches!(
        opcode,
        op::SCHEMA | op::CHANNEL | op::MESSAGE | op::METADATA
    ) {
        return Ok(Step::Nothing);
    }
    Ok(match mcap::parse_record(opcode, data)? {
        mcap::records::Record::Schema { header, .. } => Step::Schema {
            id: header.id,
            name: header.name,
        },
        mcap::records::Record::Channel(channel) => Step::Channel {
            id: channel.id,
            topic: channel.topic,
            schema: channel.schema_id,
            encoding: channel.message_encoding,
        },
        mcap::records::Record::Message { header, data } => Step::Message {
            channel: header.channel_id,
            log_time: header.log_time,
            data: data.into_owned(),
        },
        mcap::records::Record::Metadata(mut about) if about.name == RECORDING => {
            let name = about.metadata.remove("vehicle").unwrap_or_default();
            let fits = !name.is_empty() && name.len() <= VEHICLE_LIMIT_BYTES;
            if fits {
                Step::Vehicle(name)
            } else {
                Step::Nothing
            }
        }
        _ => Step::Nothing,
    })
}
