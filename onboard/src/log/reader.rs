//! Reads a drive log, trusting nothing in it.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mcap::records::op;
use mcap::sans_io::linear_reader::{LinearReadEvent, LinearReader, LinearReaderOptions};

use super::message::{CompressedImage, LocationFix, Odometry};
use super::{LogError, Message, topic};
use crate::event::Arrival;

/// No record or chunk, packed or unpacked, may be longer than this; a damaged length would otherwise
/// ask for all memory.
const RECORD_LIMIT_BYTES: usize = 64 << 20;
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
/// A message that is not what its topic promises is an error item, and reading goes on. Damage to the
/// file itself is one last error item, after everything that came before it.
pub struct LogReader<R = File> {
    path: PathBuf,
    input: R,
    reader: LinearReader,
    channels: HashMap<u16, (Arc<str>, String)>, // id -> topic and message encoding
    offset: u64,
    messages: u64,
    done: bool,
}

impl LogReader<File> {
    /// Opens a log file.
    ///
    /// # Errors
    /// [`LogError::Io`] when it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, LogError> {
        let input = File::open(path).map_err(|source| LogError::Io {
            path: path.to_owned(),
            source,
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
            channels: HashMap::new(),
            offset: 0,
            messages: 0,
            done: false,
        }
    }

    /// The messages with where and when each was recorded.
    pub fn records(mut self) -> impl Iterator<Item = Result<Record, LogError>> {
        std::iter::from_fn(move || self.next_record())
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
    Channel {
        id: u16,
        topic: String,
        encoding: String,
    },
    Message {
        channel: u16,
        log_time: u64,
        data: Vec<u8>,
    },
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
        while !self.done {
            let step = match self.reader.next_event() {
                None => {
                    self.done = true;
                    return None;
                }
                Some(event) => event.and_then(step_of),
            };
            match step {
                Err(error) => return Some(Err(self.damaged(error))),
                Ok(Step::Nothing) => {}
                Ok(Step::Need(bytes)) => match self
                    .input
                    .read(self.reader.insert(bytes.clamp(1, READ_LIMIT_BYTES)))
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
                Ok(Step::Channel {
                    id,
                    topic,
                    encoding,
                }) => {
                    self.channels.insert(id, (topic.into(), encoding));
                }
                Ok(Step::Message {
                    channel,
                    log_time,
                    data,
                }) => {
                    self.messages += 1;
                    let Some((topic, encoding)) = self.channels.get(&channel) else {
                        return Some(Err(self.damaged(format!(
                            "a message is on channel {channel}, which is not declared"
                        ))));
                    };
                    let log_time_ns = i64::try_from(log_time).unwrap_or(i64::MAX);
                    let decoded = decode(topic, encoding, log_time_ns, data);
                    return Some(match decoded {
                        Ok(message) => Ok(Record {
                            topic: topic.clone(),
                            log_time_ns,
                            message,
                        }),
                        Err(reason) => Err(LogError::BadMessage {
                            path: self.path.clone(),
                            topic: topic.to_string(),
                            number: self.messages,
                            reason,
                        }),
                    });
                }
            }
        }
        None
    }
}

fn step_of(event: LinearReadEvent<'_>) -> mcap::McapResult<Step> {
    let (opcode, data) = match event {
        LinearReadEvent::ReadRequest(bytes) => return Ok(Step::Need(bytes)),
        LinearReadEvent::Record { opcode, data } => (opcode, data),
    };
    // Everything else (indexes, statistics, metadata) is of no use here, so it is not even parsed.
    if !matches!(opcode, op::CHANNEL | op::MESSAGE) {
        return Ok(Step::Nothing);
    }
    Ok(match mcap::parse_record(opcode, data)? {
        mcap::records::Record::Channel(channel) => Step::Channel {
            id: channel.id,
            topic: channel.topic,
            encoding: channel.message_encoding,
        },
        mcap::records::Record::Message { header, data } => Step::Message {
            channel: header.channel_id,
            log_time: header.log_time,
            data: data.into_owned(),
        },
        _ => Step::Nothing,
    })
}

fn decode(topic: &str, encoding: &str, log_time_ns: i64, data: Vec<u8>) -> Result<Message, String> {
    fn json<'a, T: serde::Deserialize<'a>>(encoding: &str, data: &'a [u8]) -> Result<T, String> {
        if encoding != "json" {
            return Err(format!(
                "its encoding is {encoding:?}; only \"json\" is read here"
            ));
        }
        serde_json::from_slice(data).map_err(|error| error.to_string())
    }
    Ok(match topic {
        topic::GNSS => Message::Gnss(json::<LocationFix>(encoding, &data)?.into_gnss()?),
        topic::IMAGE => Message::Frame(json::<CompressedImage>(encoding, &data)?.into_frame()?),
        topic::ODOMETRY => Message::Odometry(json::<Odometry>(encoding, &data)?.into_sample()?),
        topic::CALIBRATION => Message::Calibration(json(encoding, &data)?),
        topic::FUSED | topic::VISUAL_ONLY => {
            Message::Estimate(json::<LocationFix>(encoding, &data)?.into_estimate()?)
        }
        _ => Message::Other {
            topic: topic.to_owned(),
            time_ns: log_time_ns,
            data,
        },
    })
}
