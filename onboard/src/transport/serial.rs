//! Serial ports.

use std::path::Path;
use std::time::Duration;

use serialport::SerialPort;

use crate::port::PeerError;

/// Opens a port; neither a read nor a write blocks longer than `timeout`.
///
/// # Errors
/// [`PeerError::Io`] with the port's name and speed.
pub fn open(path: &Path, baud: u32, timeout: Duration) -> Result<Box<dyn SerialPort>, PeerError> {
    serialport::new(path.to_string_lossy(), baud)
        .timeout(timeout)
        .open()
        .map_err(|error| PeerError::Io {
            what: describe(path, baud),
            source: error.into(),
        })
}

/// The port in messages.
pub fn describe(path: &Path, baud: u32) -> String {
    format!("serial port {path:?} at {baud} baud")
}
