//! Datagrams to one receiver.

use std::io::{ErrorKind, Result, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};

use crate::port::PeerError;

/// Each write is a datagram. That nobody listens there is no error.
#[derive(Debug)]
pub struct Datagrams {
    socket: UdpSocket,
}

impl Datagrams {
    /// Sends to `host:port`.
    ///
    /// # Errors
    /// [`PeerError::Io`] when the name is unknown or there is no way there.
    pub fn to(address: &str) -> std::result::Result<Self, PeerError> {
        let fail = || PeerError::io(format!("sending to {address} over UDP"));
        let target = address.to_socket_addrs().map_err(fail())?.next();
        let target = target
            .ok_or_else(|| std::io::Error::other("the host has no address"))
            .map_err(fail())?;
        let any: SocketAddr = if target.is_ipv4() {
            (Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (Ipv6Addr::UNSPECIFIED, 0).into()
        };
        let socket = UdpSocket::bind(any).map_err(fail())?;
        socket
            .set_broadcast(true)
            .and_then(|()| socket.set_nonblocking(true))
            .and_then(|()| socket.connect(target))
            .map_err(fail())?;
        Ok(Self { socket })
    }
}

impl Write for Datagrams {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        match self.socket.send(bytes) {
            Ok(_) => Ok(bytes.len()),
            // What came of an earlier datagram is told with a later one.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                Ok(self.socket.send(bytes).map_or(bytes.len(), |_| bytes.len()))
            }
            Err(error) => Err(error),
        }
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_a_datagram_and_a_receiver_may_come_and_go() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = receiver.local_addr().unwrap();
        let mut datagrams = Datagrams::to(&address.to_string()).unwrap();
        let mut bytes = [0; 64];
        datagrams.write_all(b"one").unwrap();
        datagrams.write_all(b"two").unwrap();
        assert_eq!(receiver.recv(&mut bytes).unwrap(), 3);
        assert_eq!(receiver.recv(&mut bytes).unwrap(), 3);
        drop(receiver);
        for _ in 0..5 {
            datagrams.write_all(b"nobody").unwrap();
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let receiver = UdpSocket::bind(address).unwrap();
        datagrams.write_all(b"back").unwrap();
        assert_eq!(receiver.recv(&mut bytes).unwrap(), 4);
        assert!(Datagrams::to("no port").is_err());
    }
}
