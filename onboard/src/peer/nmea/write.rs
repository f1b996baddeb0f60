//! Sentences to whoever connects, and back over the connection that a receiver's come from.

use std::io::Write;
use std::time::Duration;

use super::format::sentences;
use super::{NmeaSinkConfig, NmeaTcpConfig};
use crate::event::EstimateKind;
use crate::peer::reception::Receivers;
use crate::port::{Clients, Connection, Outbound, PeerError, Writer};
use crate::transport::tcp_server::Server;
use crate::transport::udp::Datagrams;
use crate::transport::{serial, write_or_cut};

/// A write to a serial port may take this long.
const WRITE_TIMEOUT: Duration = Duration::from_millis(50);

/// Opens the one output that the config names.
pub fn open(config: &NmeaSinkConfig) -> Result<Connection, PeerError> {
    let (what, output): (String, Box<dyn Write + Send>) = match (&config.serial, &config.udp) {
        (Some(path), _) => (
            serial::describe(path, config.baud),
            Box::new(serial::open(path, config.baud, WRITE_TIMEOUT)?),
        ),
        (None, address) => {
            let address = address.as_deref().unwrap_or_default();
            (format!("UDP {address}"), Box::new(Datagrams::to(address)?))
        }
    };
    let writer = NmeaStreamWriter::new(what, output, config.estimate);
    Ok(Connection::writer(writer))
}

/// A server that sends GGA, RMC and GST of each estimate.
pub struct NmeaTcp {
    texts: Texts,
    server: Server<()>,
}

impl NmeaTcp {
    /// Listens where the config says.
    pub fn open(config: &NmeaTcpConfig) -> Result<Self, PeerError> {
        let server = Server::listen(
            "nmea_tcp",
            &config.listen,
            config.client_queue,
            config.max_clients,
        )?;
        Ok(Self {
            texts: Texts::of(config.estimate),
            server,
        })
    }
}

impl Writer for NmeaTcp {
    fn clients(&self) -> Option<Clients> {
        Some(self.server.count())
    }

    fn write(&mut self, outbound: &Outbound) -> Result<(), PeerError> {
        if let Some(text) = self.texts.of_outbound(outbound) {
            self.server
                .clients()
                .for_each(|client| client.send(text.clone()));
            self.server.flush();
        }
        self.poll()
    }

    fn poll(&mut self) -> Result<(), PeerError> {
        // What clients say, such as gpsd's probes, is read and forgotten.
        self.server.poll(|_| {}, |_, _| {});
        Ok(())
    }
}

/// Sends GGA, RMC and GST of each estimate over a stream.
pub struct NmeaStreamWriter {
    what: String,
    output: Box<dyn Write + Send>,
    texts: Texts,
    lost_epochs: u64,
}

impl NmeaStreamWriter {
    /// Writes estimates of `kind` to `output`, called `what` in messages.
    pub fn new(what: String, output: Box<dyn Write + Send>, kind: EstimateKind) -> Self {
        Self {
            what,
            output,
            texts: Texts::of(kind),
            lost_epochs: 0,
        }
    }
}

impl Writer for NmeaStreamWriter {
    fn write(&mut self, outbound: &Outbound) -> Result<(), PeerError> {
        let Some(text) = self.texts.of_outbound(outbound) else {
            return Ok(());
        };
        write_or_cut(
            &mut self.output,
            text.as_bytes(),
            &self.what,
            &mut self.lost_epochs,
        )
    }
}

/// Estimates of one kind as texts, with what the receivers say meanwhile.
struct Texts {
    kind: EstimateKind,
    receivers: Receivers,
}

impl Texts {
    fn of(kind: EstimateKind) -> Self {
        Self {
            kind,
            receivers: Receivers::default(),
        }
    }

    fn of_outbound(&mut self, outbound: &Outbound) -> Option<String> {
        match outbound {
            Outbound::Estimate(estimate) if estimate.kind == self.kind => {
                Some(sentences(estimate, &self.receivers.attend(estimate)).concat())
            }
            Outbound::Event(event) => {
                self.receivers.note(&event.event);
                None
            }
            _ => None,
        }
    }
}
