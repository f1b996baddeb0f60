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

use crate::port::PeerError;

/// Whether an I/O error only means that nothing could be moved for the moment.
pub fn is_timeout(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

/// Writes `bytes` to `what`. Of a peer that is too slow for the rate the rest is dropped and counted in `cut`: it
/// drops the part by its checksum.
///
/// # Errors
/// [`PeerError::Io`] when the line is broken.
pub fn write_or_cut(
    output: &mut dyn std::io::Write,
    bytes: &[u8],
    what: &str,
    cut: &mut u64,
) -> Result<(), PeerError> {
    match output.write_all(bytes) {
        Ok(()) => Ok(()),
        Err(error) if is_timeout(&error) => {
            *cut += 1;
            if cut.is_power_of_two() {
                tracing::warn!(
                    peer = what,
                    messages = *cut,
                    "takes messages too slowly; some are cut"
                );
            }
            Ok(())
        }
        Err(source) => Err(PeerError::Io {
            what: format!("writing to {what}"),
            source,
        }),
    }
}
