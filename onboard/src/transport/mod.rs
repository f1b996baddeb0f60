//! How bytes move: files, serial ports, TCP connections, TCP servers, Unix sockets, and lines out of any of
//! them.

pub mod file;
pub mod lines;
pub mod serial;
pub mod tcp;
pub mod tcp_server;
pub mod unix;

use std::io::ErrorKind;

/// Whether an I/O error only means that nothing could be moved for the moment.
pub fn is_timeout(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}
