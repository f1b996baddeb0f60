//! A TCP server that never waits for a client: bounded queues, oldest dropped, then disconnected.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use tracing::{debug, info, warn};

use super::is_timeout;
use crate::port::PeerError;

/// A client that lost this many whole queues without taking a byte is gone.
const STALLED_QUEUES: usize = 4;
/// Bytes read from one client at a time; more waits for the next round.
const READ_BYTES: usize = 4096;

/// Accepts clients and queues bytes for each; `T` is what the protocol remembers of a client.
pub struct Server<T> {
    name: &'static str,
    listener: TcpListener,
    queue_limit: usize,
    max_clients: usize,
    clients: Vec<Client<T>>,
}

/// One connection.
pub struct Client<T> {
    stream: TcpStream,
    peer: String,
    queue: VecDeque<Vec<u8>>,
    sent: usize, // bytes of the first in the queue
    dropped: usize,
    open: bool,
    /// What the protocol remembers.
    pub state: T,
}

impl<T: Default> Server<T> {
    /// Listens on `host:port`.
    pub fn listen(
        name: &'static str,
        address: &str,
        queue_limit: usize,
        max_clients: usize,
    ) -> Result<Self, PeerError> {
        let fail = |source| PeerError::Io {
            what: format!("{name} cannot listen on {address}"),
            source,
        };
        let listener = TcpListener::bind(address).map_err(fail)?;
        listener.set_nonblocking(true).map_err(fail)?;
        let local = listener.local_addr().map_err(fail)?;
        if !local.ip().is_loopback() {
            warn!(sink = name, %local, "listens beyond this machine, without any authentication");
        }
        info!(sink = name, %local, "listening");
        Ok(Self {
            name,
            listener,
            queue_limit,
            max_clients,
            clients: Vec::new(),
        })
    }

    /// Where it listens.
    #[cfg(test)]
    pub fn address(&self) -> std::net::SocketAddr {
        self.listener
            .local_addr()
            .expect("a listening socket has an address")
    }

    /// The clients that are connected now.
    pub fn clients(&mut self) -> impl Iterator<Item = &mut Client<T>> {
        self.clients.iter_mut()
    }

    /// Accepts who waits, reads what came and sends what is queued. `greet` sees new clients, `hear`
    /// the bytes they send.
    pub fn poll(
        &mut self,
        greet: impl Fn(&mut Client<T>),
        mut hear: impl FnMut(&mut Client<T>, &[u8]),
    ) {
        loop {
            match self.listener.accept() {
                Ok((stream, peer)) if self.clients.len() >= self.max_clients => {
                    warn!(sink = self.name, %peer, clients = self.clients.len(), "too many clients, one turned away");
                    drop(stream);
                }
                Ok((stream, peer)) => {
                    if stream
                        .set_nonblocking(true)
                        .and_then(|()| stream.set_nodelay(true))
                        .is_err()
                    {
                        continue;
                    }
                    debug!(sink = self.name, %peer, "client connected");
                    let mut client = Client {
                        stream,
                        peer: peer.to_string(),
                        queue: VecDeque::new(),
                        sent: 0,
                        dropped: 0,
                        open: true,
                        state: T::default(),
                    };
                    greet(&mut client);
                    self.clients.push(client);
                }
                // Also when a client hung up before it was accepted, or we have too many files open.
                Err(_) => break,
            }
        }
        for client in &mut self.clients {
            let mut bytes = [0; READ_BYTES];
            match client.stream.read(&mut bytes) {
                Ok(0) => client.open = false,
                Ok(count) => hear(client, &bytes[..count]),
                Err(error) if is_timeout(&error) => {}
                Err(_) => client.open = false,
            }
        }
        self.flush();
    }

    /// Sends what is queued, as far as the clients take it, and forgets those that are gone.
    pub fn flush(&mut self) {
        let limit = STALLED_QUEUES * self.queue_limit;
        for client in &mut self.clients {
            client.flush();
            let excess = client.queue.len().saturating_sub(self.queue_limit);
            // The first may be half sent, so it stays.
            if excess > 0 {
                client.queue.drain(1..=excess);
                client.dropped += excess;
            }
            if client.dropped > limit {
                warn!(
                    sink = self.name,
                    peer = client.peer,
                    dropped = client.dropped,
                    "client takes nothing, disconnected"
                );
                client.open = false;
            }
        }
        self.clients.retain(|client| client.open);
    }
}

impl<T> Client<T> {
    /// Queues bytes that belong together.
    pub fn send(&mut self, bytes: impl Into<Vec<u8>>) {
        self.queue.push_back(bytes.into());
    }

    fn flush(&mut self) {
        while self.open
            && let Some(first) = self.queue.front()
        {
            match self.stream.write(&first[self.sent..]) {
                Ok(0) => self.open = false,
                Ok(count) => {
                    self.sent += count;
                    self.dropped = 0;
                    if self.sent == first.len() {
                        self.queue.pop_front();
                        self.sent = 0;
                    }
                }
                Err(error) if is_timeout(&error) => return,
                Err(_) => self.open = false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(queue: usize, clients: usize) -> (Server<()>, String) {
        let server = Server::listen("test", "127.0.0.1:0", queue, clients).unwrap();
        let address = server.address().to_string();
        (server, address)
    }

    fn poll(server: &mut Server<()>, rounds: usize) {
        for _ in 0..rounds {
            server.poll(|_| {}, |_, _| {});
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }

    #[test]
    fn a_client_that_takes_nothing_is_dropped_and_the_others_are_served() {
        let (mut server, address) = server(4, 8);
        let _sleeper = TcpStream::connect(&address).unwrap();
        poll(&mut server, 5);
        let mut eager = TcpStream::connect(&address).unwrap();
        eager.set_nonblocking(true).unwrap();
        poll(&mut server, 5);
        assert_eq!(server.clients.len(), 2);
        let mut received = 0;
        let mut bytes = vec![0; 1 << 20];
        for _ in 0..200 {
            for client in server.clients() {
                client.send(vec![b'x'; 256 << 10]);
                assert!(client.queue.len() <= 5);
            }
            server.flush();
            while let Ok(count) = eager.read(&mut bytes) {
                received += count;
            }
        }
        assert_eq!(server.clients.len(), 1);
        assert!(received > 10 << 20, "{received}");
    }

    #[test]
    fn more_clients_than_allowed_are_turned_away() {
        let (mut server, address) = server(4, 1);
        let _first = TcpStream::connect(&address).unwrap();
        poll(&mut server, 3);
        let mut second = TcpStream::connect(&address).unwrap();
        poll(&mut server, 3);
        assert_eq!(server.clients.len(), 1);
        assert_eq!(second.read(&mut [0; 8]).unwrap(), 0);
    }

    #[test]
    fn a_client_that_hangs_up_is_forgotten() {
        let (mut server, address) = server(4, 4);
        drop(TcpStream::connect(&address).unwrap());
        poll(&mut server, 5);
        assert_eq!(server.clients.len(), 0);
    }
}
