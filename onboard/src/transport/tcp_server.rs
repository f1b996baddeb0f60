//! A TCP server that never waits for a client: bounded queues, oldest dropped, then disconnected. When it
//! is full, the idlest client makes room.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rustix::net::sockopt;
use tracing::{debug, info, warn};

use super::is_timeout;
use crate::port::{Clients, PeerError};

/// A client that lost this many whole queues without taking a byte is gone.
const STALLED_QUEUES: usize = 4;
/// A client with which nothing was exchanged for this long is gone.
const IDLE_LIMIT: Duration = Duration::from_mins(5);
/// Clients that were quiet for about as long count alike.
const QUIET_STEP_S: u64 = 5;
/// New clients in one round; more wait for the next.
const ACCEPTED_A_ROUND: usize = 64;
/// The system asks a silent client after the first, then every second of these; after so many without an
/// answer the connection is closed.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(10), 3);
/// Bytes read from one client at a time; more waits for the next round.
const READ_BYTES: usize = 4096;

/// Accepts clients and queues bytes for each; `T` is what the protocol remembers of a client.
pub struct Server<T> {
    name: &'static str,
    listener: TcpListener,
    queue_limit: usize,
    max_clients: usize,
    clients: Vec<Client<T>>,
    sent_away: u64,
}

/// One connection.
pub struct Client<T> {
    stream: TcpStream,
    queue: VecDeque<Vec<u8>>,
    sent: usize, // bytes of the first in the queue
    dropped: usize,
    open: bool,
    has_asked: bool,
    /// When bytes last moved, in either direction.
    moved: Instant,
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
            sent_away: 0,
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

    /// Accepts who waits, reads what came and sends what is queued. `greet` is called with new
    /// clients, `receive` with the bytes that clients send.
    pub fn poll(
        &mut self,
        greet: impl Fn(&mut Client<T>),
        mut receive: impl FnMut(&mut Client<T>, &[u8]),
    ) {
        for _ in 0..ACCEPTED_A_ROUND {
            // It fails also when a client hung up before, or when we have too many files open.
            let Ok((stream, peer)) = self.listener.accept() else {
                break;
            };
            if prepare(&stream).is_err() {
                continue;
            }
            debug!(sink = self.name, %peer, "client connected");
            self.make_room();
            let mut client = Client {
                stream,
                queue: VecDeque::new(),
                sent: 0,
                dropped: 0,
                open: true,
                has_asked: false,
                moved: Instant::now(),
                state: T::default(),
            };
            greet(&mut client);
            self.clients.push(client);
        }
        for client in &mut self.clients {
            let mut bytes = [0; READ_BYTES];
            match client.stream.read(&mut bytes) {
                Ok(0) => client.open = false,
                Ok(count) => {
                    client.has_asked = true;
                    client.moved = Instant::now();
                    receive(client, &bytes[..count]);
                }
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
            // Too slow, or nothing was said in either direction for a long time.
            if client.dropped > limit || client.moved.elapsed() > IDLE_LIMIT {
                client.open = false;
                self.sent_away += 1;
            }
        }
        self.clients.retain(|client| client.open);
    }

    /// How many are connected, and how many were sent away.
    pub fn count(&self) -> Clients {
        Clients {
            connected: self.clients.len(),
            sent_away: self.sent_away,
        }
    }

    /// Sends somebody away when there is no room for one more: who has never asked for anything first,
    /// then who has been quiet for longest, then who came first.
    fn make_room(&mut self) {
        if self.clients.len() < self.max_clients {
            return;
        }
        let quiet = |client: &Client<T>| client.moved.elapsed().as_secs() / QUIET_STEP_S;
        let found = self
            .clients
            .iter()
            .enumerate()
            .min_by_key(|(_, client)| (client.has_asked, std::cmp::Reverse(quiet(client))));
        if let Some((index, _)) = found {
            self.clients.remove(index);
            self.sent_away += 1;
            if self.sent_away.is_power_of_two() {
                warn!(
                    sink = self.name,
                    clients = self.max_clients,
                    sent_away = self.sent_away,
                    "too many clients; the idlest was sent away"
                );
            }
        }
    }
}

fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    let (after, every, tries) = KEEPALIVE;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, after)?;
    sockopt::set_tcp_keepintvl(stream, every)?;
    sockopt::set_tcp_keepcnt(stream, tries)?;
    Ok(())
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
                    self.moved = Instant::now();
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
    fn when_it_is_full_the_idlest_makes_room_and_who_asked_stays() {
        let (mut server, address) = server(4, 3);
        let mut asking = TcpStream::connect(&address).unwrap();
        asking.write_all(b"?WATCH").unwrap();
        poll(&mut server, 3);
        let mut idle: Vec<_> = (0..20)
            .map(|_| {
                let stream = TcpStream::connect(&address).unwrap();
                poll(&mut server, 2);
                stream
            })
            .collect();
        assert_eq!(
            server.count(),
            Clients {
                connected: 3,
                sent_away: 18
            }
        );
        for gone in &mut idle[..18] {
            assert_eq!(gone.read(&mut [0; 8]).unwrap(), 0);
        }
        for client in server.clients() {
            client.send(b"hello".to_vec());
        }
        server.flush();
        let mut hello = [0; 5];
        for stays in idle[18..].iter_mut().chain([&mut asking]) {
            stays.read_exact(&mut hello).unwrap();
        }
    }

    #[test]
    fn a_client_that_hangs_up_is_forgotten() {
        let (mut server, address) = server(4, 4);
        drop(TcpStream::connect(&address).unwrap());
        poll(&mut server, 5);
        assert_eq!(server.clients.len(), 0);
    }
}
