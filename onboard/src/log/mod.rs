//! Drive logs: MCAP files, ours with JSON messages that Foxglove shows as they are, and those of others.
//!
//! [`Recording`] finds out what a log has, and which of its topics are used; [`decode`] turns messages of
//! ROS 2, Foxglove and this program into events. [`LogReader`] trusts nothing in the file and keeps what
//! came before any damage; [`LogWriter`] writes in small checked chunks, so that little is lost when the
//! power is. Truth is never in a log of ours.

mod arrivals;
mod complaints;
mod decode;
mod end_marked;
mod files;
mod message;
mod reader;
mod recorded;
mod recording;
mod schema;
mod topics;
mod writer;

use std::path::PathBuf;

use crossfix_calibration::Camera;

pub use self::arrivals::Arrivals;
pub use self::complaints::Complaints;
pub(crate) use self::decode::{RawPicture, rgb_of_yuv};
#[cfg(feature = "ros2")]
pub(crate) use self::decode::{Recorded, RosSeed, RosType, ros_message};
pub use self::end_marked::EndMarked;
pub use self::reader::{LogReader, Record};
pub use self::recorded::Selection;
pub use self::recording::Recording;
pub use self::topics::{Choice, TopicNames, TopicsConfig};
pub use self::writer::{LogWriter, Times};
use crate::event::{CameraFrame, Estimate, Event, GnssFix, OdometrySample};

/// Name of the metadata record that a recorder writes first: whose recording it is.
pub const RECORDING: &str = "crossfix.recording";

/// Topics of a drive log.
pub mod topic {
    /// `foxglove.LocationFix`: the receiver's fixes.
    pub const GNSS: &str = "/gnss/fix";
    /// `foxglove.CompressedImage`: what the camera saw.
    pub const IMAGE: &str = "/camera/image";
    /// `crossfix.Camera`: the camera's model and mount.
    pub const CALIBRATION: &str = "/camera/calibration";
    /// `crossfix.Odometry`: how the vehicle moved.
    pub const ODOMETRY: &str = "/odometry";
    /// `foxglove.LocationFix`: where crossfixd thinks the vehicle is.
    pub const FUSED: &str = "/crossfix/fused";
    /// `foxglove.LocationFix`: the same without GNSS.
    pub const VISUAL_ONLY: &str = "/crossfix/visual_only";
    /// `crossfix.State`: how reliable it is, and why.
    pub const STATE: &str = "/crossfix/state";
    /// `crossfix.Shadow`: what a student in shadow mode said of a frame.
    pub const SHADOW: &str = "/crossfix/shadow";
    /// `crossfix.Selection`: why a frame was kept.
    pub const SELECTION: &str = "/crossfix/selection";
    /// `crossfix.Health`: how the daemon and its peers are.
    pub const HEALTH: &str = "/crossfix/health";
}

/// One message of a log, in the daemon's own types.
#[derive(Debug, Clone)]
pub enum Message {
    /// A fix of a receiver.
    Gnss(GnssFix),
    /// A picture.
    Frame(CameraFrame),
    /// How the vehicle moved.
    Odometry(OdometrySample),
    /// A camera's model and mount.
    Calibration(Camera),
    /// Where crossfixd thought that the vehicle was.
    Estimate(Estimate),
    /// A message that says that nothing was measured, and in which words.
    Nothing(&'static str),
    /// Anything else, passed over by the daemon.
    Other {
        /// Its topic.
        topic: String,
        /// Log time, nanoseconds UTC.
        time_ns: i64,
        /// The bytes as they are.
        data: Vec<u8>,
    },
}

impl Message {
    /// The event that was recorded; none for calibrations, estimates and foreign messages.
    pub fn into_event(self) -> Option<Event> {
        match self {
            Message::Gnss(fix) => Some(Event::Gnss(fix)),
            Message::Frame(frame) => Some(Event::Frame(frame)),
            Message::Odometry(sample) => Some(Event::Odometry(sample)),
            Message::Calibration(_)
            | Message::Estimate(_)
            | Message::Nothing(_)
            | Message::Other { .. } => None,
        }
    }
}

/// What can go wrong with a log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file cannot be opened, read or written.
    #[error("log {path:?}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file stops making sense; what came before has been delivered.
    #[error(
        "log {path:?} is damaged or cut off near byte {offset}, after {messages} good messages: {reason}; \
         those are kept (`mcap recover` may find more)"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Bytes read until then.
        offset: u64,
        /// Messages delivered before.
        messages: u64,
        /// What is wrong.
        reason: String,
    },
    /// A whole file that is not of a kind that is read here.
    #[error("log {path:?} {reason}")]
    Unsupported {
        /// The file or folder.
        path: PathBuf,
        /// What it is, and what to do.
        reason: String,
    },
    /// The log was read, and nothing in it was of use.
    #[error("log {path:?} gave nothing to work with: {reason}")]
    Unusable {
        /// The file or folder.
        path: PathBuf,
        /// What is missing, and what there is.
        reason: String,
    },
    /// One message is not what its topic promises; reading goes on after it.
    #[error("log {path:?}: message {number} on {topic}: {reason}; it is left out")]
    BadMessage {
        /// The file.
        path: PathBuf,
        /// Its topic.
        topic: String,
        /// Its place in the file, from 1.
        number: u64,
        /// What is wrong.
        reason: String,
    },
    /// The file cannot be written on.
    #[error("cannot write log {path:?}: {reason}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
}

impl LogError {
    /// Whether nothing more comes after this error.
    pub fn ends_the_log(&self) -> bool {
        !matches!(self, LogError::BadMessage { .. })
    }
}

#[cfg(test)]
mod tests;
