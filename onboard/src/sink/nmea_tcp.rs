//! A server that sends NMEA sentences to whoever connects.

use super::nmea_sentences::sentences;
use super::server::Server;
use super::{Sink, SinkError};
use crate::config::NmeaTcpConfig;
use crate::event::{Estimate, EstimateKind};

/// Sends GGA, RMC and GST of each estimate.
pub struct NmeaTcp {
    kind: EstimateKind,
    server: Server<()>,
}

impl NmeaTcp {
    /// Listens where the config says.
    pub fn open(config: &NmeaTcpConfig) -> Result<Self, SinkError> {
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

impl Sink for NmeaTcp {
    fn publish(&mut self, estimate: &Estimate) -> Result<(), SinkError> {
        if estimate.kind == self.kind {
            let text = sentences(estimate).concat();
            self.server
                .clients()
                .for_each(|client| client.send(text.clone()));
            self.server.flush();
        }
        self.poll()
    }

    fn poll(&mut self) -> Result<(), SinkError> {
        // What clients say, such as gpsd's probes, is read and forgotten.
        self.server.poll(|_| {}, |_, _| {});
        Ok(())
    }
}
