//! How bytes move: files, serial ports, TCP connections and servers, Unix sockets, UDP, HTTP, and lines out of any
//! of them.

pub mod duplex;
pub mod file;
pub mod http;
pub mod lines;
pub mod serial;
pub mod tcp;
pub mod tcp_server;
pub mod udp;
pub mod unix;

use std::io::ErrorKind;

/// Whether an I/O error only means that nothing could be moved for the moment.
pub fn is_timeout(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}
