//! The sockets of the feed. A sender may come and go; what it sends wrong is told once a kind and counted.

use std::collections::VecDeque;
use std::net::UdpSocket;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::{debug, info, warn};

use super::FeedConfig;
use super::line::sample_of;
use crate::event::Event;
use crate::pipeline::boot_time_ns;
use crate::port::{PeerError, READ_PATIENCE, Reader};
use crate::transport::is_timeout;
use crate::transport::lines::LineBuffer;
use crate::transport::unix::{self, Bound};

/// A longer line is none of ours, bytes.
const LINE_LIMIT: usize = 4096;
/// Largest datagram, bytes.
const DATAGRAM_BYTES: usize = 65_536;
/// Programs that may be connected at a time; the oldest gives way to a new one.
const MOST_SENDERS: usize = 8;
/// Samples that wait for the core; when it is that slow, the sockets wait.
const MOST_WAITING: usize = 256;

/// Reads samples from a socket.
pub struct FeedReader {
    config: FeedConfig,
    socket: Socket,
    waiting: VecDeque<Event>,
    refused: u64,
}

enum Socket {
    Udp(UdpSocket),
    Datagram(Bound<UnixDatagram>),
    Stream(Bound<UnixListener>, Vec<(UnixStream, LineBuffer)>),
}

impl FeedReader {
    /// Listens where the config says.
    pub fn open(config: &FeedConfig) -> Result<Self, PeerError> {
        let socket = match (&config.udp, &config.unix_datagram, &config.unix_stream) {
            (Some(address), ..) => Socket::Udp(listen_udp(&config.name, address)?),
            (_, Some(path), _) => {
                let bound = unix::datagrams(path)?;
                let set = bound.socket.set_nonblocking(true);
                set.map_err(PeerError::io(format!("listening on {path:?}")))?;
                Socket::Datagram(bound)
            }
            (.., Some(path)) => Socket::Stream(unix::listener(path)?, Vec::new()),
            _ => {
                return Err(PeerError::Protocol(
                    "neither udp nor unix_datagram nor unix_stream is set".into(),
                ));
            }
        };
        Ok(Self {
            config: config.clone(),
            socket,
            waiting: VecDeque::new(),
            refused: 0,
        })
    }

    fn take(&mut self, lines: &mut LineBuffer) {
        while self.waiting.len() < MOST_WAITING
            && let Some(line) = lines.next_line()
        {
            match sample_of(line, &self.config, boot_time_ns()) {
                Ok(sample) => self.waiting.push_back(Event::Odometry(sample)),
                Err(reason) => {
                    self.refused += 1;
                    let (source, count) = (self.config.name.as_str(), self.refused);
                    let line = String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned();
                    if count.is_power_of_two() {
                        warn!(
                            source,
                            line, reason, count, "a line of the feed is left out"
                        );
                    } else {
                        debug!(
                            source,
                            line, reason, count, "a line of the feed is left out"
                        );
                    }
                }
            }
        }
    }

    fn read(&mut self) -> Result<(), PeerError> {
        let mut bytes = vec![0; DATAGRAM_BYTES];
        // Of what is refused, too, no more at once: good samples must not wait behind it.
        for _ in 0..MOST_WAITING {
            if self.waiting.len() >= MOST_WAITING {
                break;
            }
            let received = match &self.socket {
                Socket::Udp(socket) => socket.recv(&mut bytes),
                Socket::Datagram(bound) => bound.socket.recv(&mut bytes),
                Socket::Stream(..) => {
                    self.read_streams();
                    return Ok(());
                }
            };
            match received {
                Ok(count) => {
                    let mut lines = LineBuffer::new(LINE_LIMIT);
                    lines.push(&bytes[..count]);
                    lines.push(b"\n");
                    self.take(&mut lines);
                }
                Err(error) if is_timeout(&error) => break,
                Err(error) => return Err(PeerError::io("receiving odometry")(error)),
            }
        }
        Ok(())
    }

    fn read_streams(&mut self) {
        let Socket::Stream(listener, senders) = &mut self.socket else {
            return;
        };
        for _ in 0..MOST_SENDERS {
            let Ok((stream, _)) = listener.socket.accept() else {
                break;
            };
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            info!(source = self.config.name, "a sender connected");
            senders.push((stream, LineBuffer::new(LINE_LIMIT)));
            if senders.len() > MOST_SENDERS {
                senders.remove(0);
            }
        }
        for (mut stream, mut lines) in std::mem::take(senders) {
            // What came before is taken before more is read; else the socket waits.
            self.take(&mut lines);
            let open = self.waiting.len() >= MOST_WAITING
                || !matches!(lines.fill(&mut stream), Ok(Some(0)) | Err(_));
            self.take(&mut lines);
            if let Socket::Stream(_, senders) = &mut self.socket
                && open
            {
                senders.push((stream, lines));
            }
        }
    }

    /// Waits until something can be read, at most for [`READ_PATIENCE`].
    fn wait(&self) {
        let mut sources: Vec<BorrowedFd<'_>> = Vec::new();
        match &self.socket {
            Socket::Udp(socket) => sources.push(socket.as_fd()),
            Socket::Datagram(bound) => sources.push(bound.socket.as_fd()),
            Socket::Stream(listener, senders) => {
                sources.push(listener.socket.as_fd());
                sources.extend(senders.iter().map(|(stream, _)| stream.as_fd()));
            }
        }
        let mut polled: Vec<PollFd<'_>> = sources
            .iter()
            .map(|source| PollFd::new(source, PollFlags::IN))
            .collect();
        let patience = Timespec {
            tv_sec: 0,
            tv_nsec: READ_PATIENCE.subsec_nanos().into(),
        };
        // Interrupted or not: what follows reads without waiting.
        let _ = poll(&mut polled, Some(&patience));
    }
}

impl Reader for FeedReader {
    fn next(&mut self) -> Result<Option<Event>, PeerError> {
        if self.waiting.is_empty() {
            self.wait();
            self.read()?;
        }
        Ok(self.waiting.pop_front())
    }
}

fn listen_udp(name: &str, address: &str) -> Result<UdpSocket, PeerError> {
    let fail = || PeerError::io(format!("listening for datagrams on {address}"));
    let socket = UdpSocket::bind(address).map_err(fail())?;
    socket.set_nonblocking(true).map_err(fail())?;
    if let Ok(local) = socket.local_addr()
        && !local.ip().is_loopback()
    {
        warn!(source = name, %local, "listens beyond this machine, without any authentication");
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::Command;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::event::OdometrySample;
    use crate::peer::feed::Stamps;

    const LINE: &[u8] = b"{\"time_ns\":7,\"speed_mps\":1.5}\n";

    fn samples(reader: &mut FeedReader, count: usize) -> Vec<OdometrySample> {
        let end = Instant::now() + Duration::from_secs(20);
        let mut samples = Vec::new();
        while samples.len() < count && Instant::now() < end {
            if let Some(Event::Odometry(sample)) = reader.next().unwrap() {
                samples.push(sample);
            }
        }
        samples
    }

    fn local(config: FeedConfig) -> (FeedReader, String) {
        let reader = FeedReader::open(&FeedConfig {
            udp: Some("127.0.0.1:0".into()),
            ..config
        })
        .unwrap();
        let Socket::Udp(socket) = &reader.socket else {
            unreachable!()
        };
        let address = socket.local_addr().unwrap().to_string();
        (reader, address)
    }

    #[test]
    fn a_datagram_may_have_several_lines_and_bad_ones_cost_only_themselves() {
        let (mut reader, address) = local(FeedConfig::default());
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let datagram = [LINE, b"nonsense\n", &LINE[..LINE.len() - 1]].concat();
        sender.send_to(&datagram, &address).unwrap();
        sender.send_to(LINE, &address).unwrap();
        assert_eq!(samples(&mut reader, 3).len(), 3);
        assert_eq!(reader.refused, 1);
        assert!(reader.next().unwrap().is_none());
    }

    #[test]
    fn unix_sockets_take_datagrams_and_streams_of_several_senders() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("odometry.sock");
        let mut reader = FeedReader::open(&FeedConfig {
            unix_datagram: Some(path.clone()),
            ..FeedConfig::default()
        })
        .unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        sender.send_to(LINE, &path).unwrap();
        assert_eq!(samples(&mut reader, 1)[0].forward_speed_mps, Some(1.5));
        drop(reader);

        let mut reader = FeedReader::open(&FeedConfig {
            unix_stream: Some(path.clone()),
            ..FeedConfig::default()
        })
        .unwrap();
        for _ in 0..20 {
            // One that leaves in the middle of a line, and one that sends a line in two parts.
            let mut leaves = UnixStream::connect(&path).unwrap();
            let mut stays = UnixStream::connect(&path).unwrap();
            leaves.write_all(&[LINE, &LINE[..9]].concat()).unwrap();
            drop(leaves);
            stays.write_all(&LINE[..9]).unwrap();
            assert_eq!(samples(&mut reader, 1).len(), 1);
            stays.write_all(&LINE[9..]).unwrap();
            assert_eq!(samples(&mut reader, 1).len(), 1);
        }
        assert_eq!(reader.refused, 0);
    }

    #[test]
    fn the_example_in_python_feeds_it() {
        let (mut reader, address) = local(FeedConfig {
            stamps: Stamps::Boot,
            ..FeedConfig::default()
        });
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/odometry_feed.py");
        let before_ns = boot_time_ns();
        let (host, port) = address.split_once(':').unwrap();
        let mut python = Command::new("python3")
            .args([example, host, port, "0.5"])
            .spawn()
            .unwrap();
        let samples = samples(&mut reader, 10);
        assert!(python.wait().unwrap().success());
        assert_eq!(samples.len(), 10);
        assert!(samples[0].time_ns > before_ns && samples[9].time_ns < boot_time_ns());
        assert!(samples.is_sorted_by_key(|sample| sample.time_ns));
        assert_eq!(samples[9].forward_speed_mps, Some(10.0));
        assert_eq!(samples[9].yaw_rate_rps, Some(0.0));
    }
}
