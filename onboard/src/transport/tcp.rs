//! TCP connections to servers.

use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::port::PeerError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const WRITE_TIMEOUT: Duration = Duration::from_secs(3);

/// Connects within a time limit, to whichever address of the host answers. Reads block at most for
/// `read_timeout`, writes for 3 s.
///
/// # Errors
/// [`PeerError::Io`] when the name is unknown or nothing answers.
pub fn connect(address: &str, read_timeout: Duration) -> Result<TcpStream, PeerError> {
    let mut last = None;
    for candidate in address
        .to_socket_addrs()
        .map_err(PeerError::io(format!("looking up {address}")))?
    {
        match TcpStream::connect_timeout(&candidate, CONNECT_TIMEOUT) {
            Ok(stream) => {
                stream
                    .set_read_timeout(Some(read_timeout))
                    .and_then(|()| stream.set_write_timeout(Some(WRITE_TIMEOUT)))
                    .map_err(PeerError::io(address))?;
                return Ok(stream);
            }
            Err(error) => last = Some(error),
        }
    }
    let source = last.unwrap_or_else(|| std::io::Error::other("the host has no address"));
    Err(PeerError::Io {
        what: format!("connecting to {address}"),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_nobody_listens_on_is_named() {
        let closed = {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.local_addr().unwrap().to_string()
        };
        let error = connect(&closed, Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains(&closed), "{error}");
        assert!(connect("no port", Duration::from_millis(50)).is_err());
    }
}
