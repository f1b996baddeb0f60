//! The gpsd-compatible server: the sockets around [`super::json`].

use super::GpsdServerConfig;
use super::json::{self, Watch, error, line};
use crate::event::Estimate;
use crate::peer::nmea::sentences;
use crate::peer::reception::Receivers;
use crate::port::{Clients, Outbound, PeerError, Writer};
use crate::transport::tcp_server::{Client, Server};

/// gpsd promises to take 80 characters; real clients stay far below this.
const REQUEST_LIMIT_BYTES: usize = 512;

/// Serves the latest estimates to whoever watches.
pub struct GpsdServer {
    server: Server<Conversation>,
    state: json::Server,
    receivers: Receivers,
}

/// What we remember of a client.
#[derive(Default)]
struct Conversation {
    watch: Watch,
    requests: Requests,
}

impl GpsdServer {
    /// Listens where the config says.
    pub fn open(config: &GpsdServerConfig) -> Result<Self, PeerError> {
        Ok(Self {
            server: Server::listen(
                "gpsd_server",
                &config.listen,
                config.client_queue,
                config.max_clients,
            )?,
            state: json::Server {
                kind: config.estimate,
                activated_ns: None,
                latest: None,
            },
            receivers: Receivers::default(),
        })
    }
}

impl Writer for GpsdServer {
    fn clients(&self) -> Option<Clients> {
        Some(self.server.count())
    }

    fn write(&mut self, outbound: &Outbound) -> Result<(), PeerError> {
        if let Outbound::Event(event) = outbound {
            self.receivers.note(&event.event);
        }
        if let Outbound::Estimate(estimate) = outbound
            && estimate.kind == self.state.kind
        {
            self.state.activated_ns.get_or_insert(estimate.time_ns);
            let attendant = self.receivers.attend(estimate);
            self.state.latest = Some((Estimate::clone(estimate), attendant));
            let reports = json::reports(estimate, &attendant).concat();
            let nmea = sentences(estimate, &attendant).concat();
            for client in self.server.clients() {
                if client.state.watch.json {
                    client.send(reports.clone());
                }
                if client.state.watch.nmea {
                    client.send(nmea.clone());
                }
            }
            self.server.flush();
        }
        self.poll()
    }

    fn poll(&mut self) -> Result<(), PeerError> {
        let state = &self.state;
        self.server.poll(
            |client: &mut Client<Conversation>| client.send(line(&json::Server::version())),
            |client, bytes| {
                for request in client.state.requests.split(bytes) {
                    let answers = match request {
                        Ok(request) => state.answer(&request, &mut client.state.watch),
                        Err(reason) => vec![error(reason)],
                    };
                    client.send(answers.iter().map(line).collect::<String>());
                }
            },
        );
        Ok(())
    }
}

/// Cuts requests out of what a client sends: each ends with `;` outside a string, or with the line.
#[derive(Default)]
struct Requests {
    pending: Vec<u8>,
    in_string: bool,
    too_long: bool,
}

impl Requests {
    fn split(&mut self, bytes: &[u8]) -> Vec<Result<String, &'static str>> {
        let mut found = Vec::new();
        for &byte in bytes {
            if byte == b'\n' || (byte == b';' && !self.in_string) {
                self.in_string = false;
                let request = std::mem::take(&mut self.pending);
                let request = String::from_utf8_lossy(request.trim_ascii()).into_owned();
                if std::mem::take(&mut self.too_long) {
                    found.push(Err("Request too long"));
                } else if !request.is_empty() {
                    found.push(Ok(request));
                }
                continue;
            }
            self.in_string ^= byte == b'"';
            if self.pending.len() < REQUEST_LIMIT_BYTES {
                self.pending.push(byte);
            } else {
                self.too_long = true;
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpStream;

    use super::*;
    use crate::event::{EstimateKind, State};
    use crate::peer::testing::{estimate, outbound};

    fn split(text: &str) -> Vec<String> {
        Requests::default()
            .split(text.as_bytes())
            .into_iter()
            .map(|request| request.unwrap_or_else(str::to_owned))
            .collect()
    }

    #[test]
    fn requests_end_with_a_semicolon_a_line_end_or_both() {
        let watch = "?WATCH={\"enable\":true,\"device\":\"a;b\"}";
        assert_eq!(
            split(&format!("{watch};\r\n{watch}\r\n{watch};?POLL;\n\n?DEV")),
            [watch, watch, watch, "?POLL"]
        );
    }

    #[test]
    fn an_endless_request_is_refused_once_and_takes_no_memory() {
        let mut requests = Requests::default();
        for _ in 0..100 {
            assert!(requests.split(&[b'x'; 4096]).is_empty());
            assert!(requests.pending.len() <= REQUEST_LIMIT_BYTES);
        }
        assert_eq!(
            requests.split(b"\n?POLL;"),
            [Err("Request too long"), Ok("?POLL".into())]
        );
    }

    #[test]
    fn a_watching_client_gets_each_estimate_and_another_kind_is_not_served() {
        let config = GpsdServerConfig {
            listen: "127.0.0.1:0".into(),
            ..Default::default()
        };
        let mut server = GpsdServer::open(&config).unwrap();
        let stream = TcpStream::connect(server.server.address()).unwrap();
        (&stream)
            .write_all(b"?WATCH={\"enable\":true,\"json\":true}\n")
            .unwrap();
        for _ in 0..10 {
            server.poll().unwrap();
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let other = Estimate {
            kind: EstimateKind::VisualOnly,
            ..estimate(State::Ok)
        };
        server.write(&Outbound::Estimate(other.into())).unwrap();
        server.write(&outbound(State::Degraded)).unwrap();
        drop(server);
        let classes: Vec<String> = BufReader::new(stream)
            .lines()
            .map(|line| {
                serde_json::from_str::<serde_json::Value>(&line.unwrap()).unwrap()["class"]
                    .as_str()
                    .unwrap()
                    .into()
            })
            .collect();
        assert_eq!(
            classes,
            ["VERSION", "DEVICES", "WATCH", "GST", "SKY", "TPV", "ATT"]
        );
    }
}
