//! Sentences to whoever connects, and back over the connection that a receiver's come from.

use std::io::Write;

use tracing::warn;

use super::NmeaTcpConfig;
use super::format::sentences;
use crate::event::EstimateKind;
use crate::port::{Outbound, PeerError, Writer};
use crate::transport::is_timeout;
use crate::transport::tcp_server::Server;

/// A server that sends GGA, RMC and GST of each estimate.
pub struct NmeaTcp {
    kind: EstimateKind,
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
            kind: config.estimate,
            server,
        })
    }
}

impl Writer for NmeaTcp {
    fn write(&mut self, outbound: &Outbound) -> Result<(), PeerError> {
        if let Some(text) = text_of(outbound, self.kind) {
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
    kind: EstimateKind,
    lost_epochs: u64,
}

impl NmeaStreamWriter {
    /// Writes estimates of `kind` to `output`, called `what` in messages.
    pub fn new(what: String, output: Box<dyn Write + Send>, kind: EstimateKind) -> Self {
        Self {
            what,
            output,
            kind,
            lost_epochs: 0,
        }
    }
}

impl Writer for NmeaStreamWriter {
    fn write(&mut self, outbound: &Outbound) -> Result<(), PeerError> {
        let Some(text) = text_of(outbound, self.kind) else {
            return Ok(());
        };
        match self.output.write_all(text.as_bytes()) {
            Ok(()) => Ok(()),
            // A serial port too slow for the rate; the receiver drops the half sentence by its checksum.
            Err(error) if is_timeout(&error) => {
                self.lost_epochs += 1;
                if self.lost_epochs.is_power_of_two() {
                    warn!(
                        peer = self.what,
                        epochs = self.lost_epochs,
                        "takes positions too slowly; some are cut"
                    );
                }
                Ok(())
            }
            Err(source) => Err(PeerError::Io {
                what: format!("writing to {}", self.what),
                source,
            }),
        }
    }
}

fn text_of(outbound: &Outbound, kind: EstimateKind) -> Option<String> {
    match outbound {
        Outbound::Estimate(estimate) if estimate.kind == kind => Some(sentences(estimate).concat()),
        _ => None,
    }
}
