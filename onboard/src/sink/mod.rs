//! Where estimates go: each sink turns [`Estimate`]s into foreign bytes on a thread of its own.
//!
//! A sink that fails is dropped and opened again by the pipeline, after a back-off. When we do not know
//! where we are, a sink says so and gives no position.

mod ellipse;
mod gpsd_json;
mod gpsd_server;
mod jsonl;
mod mcap;
mod nmea_sentences;
mod nmea_tcp;
mod server;

pub use self::jsonl::estimate_json;
use crate::config::SinkConfig;
use crate::event::Estimate;

/// Something that takes estimates.
pub trait Sink: Send {
    /// Passes an estimate on.
    ///
    /// # Errors
    /// [`SinkError`] when it cannot; the pipeline opens the sink again.
    fn publish(&mut self, estimate: &Estimate) -> Result<(), SinkError>;

    /// Does what is due without a new estimate: new clients, requests, flushes. Called about every 20 ms.
    ///
    /// # Errors
    /// As [`Sink::publish`].
    fn poll(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// Writes what is still held back and closes.
    ///
    /// # Errors
    /// As [`Sink::publish`].
    fn finish(self: Box<Self>) -> Result<(), SinkError> {
        Ok(())
    }
}

/// Why a sink takes no more.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// It cannot be opened or written.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, on what.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The log cannot be written.
    #[error(transparent)]
    Log(#[from] crate::log::LogError),
}

/// Opens the sink that the config names.
///
/// # Errors
/// [`SinkError`] when its port is taken or its file cannot be made.
pub fn open(config: &SinkConfig) -> Result<Box<dyn Sink>, SinkError> {
    Ok(match config {
        SinkConfig::GpsdServer(config) => Box::new(gpsd_server::GpsdServer::open(config)?),
        SinkConfig::NmeaTcp(config) => Box::new(nmea_tcp::NmeaTcp::open(config)?),
        SinkConfig::Mcap(config) => Box::new(mcap::McapSink::open(config)?),
        SinkConfig::Jsonl(_) => Box::new(jsonl::JsonlSink),
    })
}

#[cfg(test)]
pub(crate) mod testing {
    use crossfix_calibration::{Geodetic, Yaw};

    use crate::event::{Estimate, EstimateKind, State};

    /// An estimate at 2020-07-11T22:37:48.500Z, heading east at 10 m/s.
    pub fn estimate(state: State) -> Estimate {
        Estimate {
            time_ns: 1_594_507_068_500_000_000,
            position: Geodetic::new(-33.5, 151.25, 40.0).unwrap(),
            covariance_m2: [[4.0, 0.0], [0.0, 1.0]],
            height_m: 40.0,
            yaw: Yaw::new(0.0),
            yaw_sigma_rad: 0.02,
            speed_mps: 10.0,
            mode_count: 1,
            protection_radius_m: 7.5,
            state,
            reset_count: 0,
            kind: EstimateKind::Fused,
            reason: "no \"camera\"".into(),
        }
    }
}
