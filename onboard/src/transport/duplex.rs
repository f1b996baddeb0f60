//! A line to a device that is read and written: a serial port or a TCP connection.

use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use super::{serial, tcp};
use crate::port::PeerError;

/// Both directions of a line.
pub struct Duplex {
    /// What it is, for messages.
    pub what: String,
    /// From the device.
    pub input: Box<dyn Read + Send>,
    /// To it.
    pub output: Box<dyn Write + Send>,
}

/// Opens the serial port at this path and speed, or else a TCP connection to `address`, where a `server`
/// answers. Reading waits at most `read_timeout`.
///
/// # Errors
/// [`PeerError`] naming the port or address.
pub fn open(
    port: Option<(&Path, u32)>,
    (server, address): (&str, &str),
    read_timeout: Duration,
) -> Result<Duplex, PeerError> {
    if let Some((path, baud)) = port {
        let what = serial::describe(path, baud);
        let input = serial::open(path, baud, read_timeout)?;
        let output = input.try_clone().map_err(|error| PeerError::Io {
            what: what.clone(),
            source: error.into(),
        })?;
        return Ok(Duplex {
            what,
            input: Box::new(input),
            output: Box::new(output),
        });
    }
    let input = tcp::connect(address, read_timeout)?;
    let output = input.try_clone().map_err(PeerError::io(address))?;
    Ok(Duplex {
        what: format!("{server} {address}"),
        input: Box::new(input),
        output: Box::new(output),
    })
}
