//! The peers of the daemon: one folder for each protocol, with its config, reading, writing and tests.
//!
//! To add one: its folder, its `mod` line, and one line in the registry below. Its config struct
//! implements [`Peer`]; nothing else names it.

pub mod can;
pub(crate) mod covariance;
mod dates;
mod ellipse;
pub mod feed;
mod geoid;
pub mod gpsd;
pub mod images;
pub mod jpeg_stream;
pub mod jsonl;
mod local_frame;
#[cfg(feature = "mavlink")]
pub mod mavlink;
pub mod mcap;
pub mod metrics;
pub mod nmea;
pub mod page;
mod playback;
mod reception;
pub mod record;
#[cfg(feature = "ros2")]
pub mod ros2;
pub mod ubx;
pub mod v4l2;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use self::playback::Playback;
use crate::config::Checker;
use crate::port::{Peer, PeerError};

/// An enum of configs, chosen by `kind`, each of which is a [`Peer`].
macro_rules! registry {
    ($(#[doc = $about:literal])* $name:ident {
        $($(#[doc = $doc:literal])* $(#[cfg($($cfg:tt)*)])? $kind:ident($config:ty),)+
    }) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "kind", rename_all = "snake_case")]
        #[allow(clippy::large_enum_variant, reason = "there are a handful of them")]
        pub enum $name {
            $($(#[doc = $doc])* $(#[cfg($($cfg)*)])? $kind($config),)+
        }

        impl $name {
            /// The peer behind the table.
            pub fn peer(&self) -> &dyn Peer {
                match self {
                    $($(#[cfg($($cfg)*)])? Self::$kind(config) => config,)+
                }
            }

            /// The peer behind the table.
            pub fn peer_mut(&mut self) -> &mut dyn Peer {
                match self {
                    $($(#[cfg($($cfg)*)])? Self::$kind(config) => config,)+
                }
            }

            /// The peer itself.
            pub fn into_peer(self) -> Box<dyn Peer> {
                match self {
                    $($(#[cfg($($cfg)*)])? Self::$kind(config) => Box::new(config),)+
                }
            }
        }
    };
}

registry! {
    /// One `[[source]]`: where events come from. Some also send our position back.
    SourceConfig {
        /// A gpsd server's JSON over TCP.
        Gpsd(gpsd::GpsdConfig),
        /// NMEA 0183 sentences from a serial port, a TCP server or a file.
        Nmea(nmea::NmeaConfig),
        /// A u-blox receiver on a serial port, behind a TCP server, or a file of its bytes.
        Ubx(ubx::UbxConfig),
        /// A folder of pictures named by their time.
        Images(images::ImagesConfig),
        /// A recorded drive.
        Mcap(mcap::McapSourceConfig),
        /// Odometry that another program sends.
        OdometryFeed(feed::FeedConfig),
        /// Speed and yaw rate from a CAN bus.
        Can(can::CanConfig),
        /// JPEG pictures one after the other.
        JpegStream(jpeg_stream::JpegStreamConfig),
        /// A camera of the Linux kernel.
        V4l2(v4l2::V4l2Config),
        /// Topics of ROS 2.
        #[cfg(feature = "ros2")]
        Ros2(ros2::Ros2SourceConfig),
    }
}

registry! {
    /// One `[[sink]]`: where estimates and everything else go.
    SinkConfig {
        /// A server that speaks gpsd's JSON.
        GpsdServer(gpsd::GpsdServerConfig),
        /// A server that sends NMEA 0183 sentences to whoever connects.
        NmeaTcp(nmea::NmeaTcpConfig),
        /// NMEA 0183 sentences to a serial port or over UDP.
        Nmea(nmea::NmeaSinkConfig),
        /// Messages to an autopilot.
        #[cfg(feature = "mavlink")]
        Mavlink(mavlink::MavlinkConfig),
        /// Topics of ROS 2.
        #[cfg(feature = "ros2")]
        Ros2(ros2::Ros2SinkConfig),
        /// Metrics for Prometheus and a health check, over HTTP.
        Metrics(metrics::MetricsConfig),
        /// A page for a browser: map, track, camera, state and health.
        Page(page::PageConfig),
        /// An MCAP log of estimates.
        Mcap(mcap::McapSinkConfig),
        /// A recording of drives for a later adaptation.
        Record(record::RecordSinkConfig),
        /// One JSON object per estimate on standard output.
        Jsonl(jsonl::JsonlSinkConfig),
    }
}

fn check_sigmas(default_sigma_m: f64, floor_sigma_m: f64, check: &mut Checker) {
    check.range("default_sigma_m", default_sigma_m, 0.01, 1e4);
    check.range("floor_sigma_m", floor_sigma_m, 0.001, 1e3);
}

fn check_latency(latency_s: Option<f64>, check: &mut Checker) {
    check.range("latency_s", latency_s.unwrap_or(1.0), 0.0, 60.0);
}

/// A receiver is read from exactly one of a serial port, a server and a file.
fn check_one_input(
    kind: &str,
    serial: Option<&PathBuf>,
    tcp: Option<&String>,
    file: Option<&PathBuf>,
    check: &mut Checker,
) {
    let inputs = [serial.is_some(), tcp.is_some(), file.is_some()];
    if inputs.iter().filter(|is_set| **is_set).count() != 1 {
        let what = format!("{kind} needs exactly one of serial, tcp and file");
        check.problem("", what);
    }
    if let Some(address) = tcp {
        check.address("tcp", address);
    }
    if let Some(path) = file {
        check.exists("file", path);
    }
}

/// A serial port that should be there.
fn check_port(port: Option<&PathBuf>, check: &mut Checker) {
    if let Some(port) = port.filter(|port| !port.exists()) {
        let message = format!(
            "there is no device \"{}\" now; plug it in or correct the path",
            port.display()
        );
        check.machine("serial", message);
    }
}

fn check_server(listen: &str, client_queue: usize, max_clients: usize, check: &mut Checker) {
    check.address("listen", listen);
    check.range("client_queue", client_queue as f64, 1.0, 1e5);
    check.range("max_clients", max_clients as f64, 1.0, 1e4);
}

/// What is wrong with a receiver's port of which nothing could be read for `silence`; `heard`: bytes came.
fn silence(what: &str, silence: std::time::Duration, heard: bool) -> PeerError {
    let seconds = silence.as_secs();
    PeerError::Protocol(if heard {
        format!(
            "{what}: bytes come, and none could be read for {seconds} s; check the speed (baud) and what the receiver sends"
        )
    } else {
        format!("{what} has been silent for {seconds} s; check the cable and the speed")
    })
}

#[cfg(test)]
pub(crate) mod testing {
    use std::sync::Arc;

    use crossfix_calibration::{Geodetic, Yaw};

    use crate::event::{
        CovarianceRule, Estimate, EstimateKind, FixDimension, GnssFix, Reception, State,
    };
    use crate::port::Outbound;

    /// A fix of nine satellites.
    pub fn fix(time_ns: i64) -> GnssFix {
        GnssFix {
            time_ns,
            position: Geodetic::new(-33.5, 151.25, 40.0).unwrap(),
            covariance_m2: [[4.0, 0.0], [0.0, 1.0]],
            height_sigma_m: 3.0,
            covariance_rule: CovarianceRule::Gst,
            speed_mps: None,
            track_deg: None,
            dimension: FixDimension::Three,
            reception: Reception {
                satellites_used: Some(9),
                satellites_visible: Some(14),
                hdop: Some(0.9),
                geoid_m: Some(22.0),
                ..Reception::default()
            },
        }
    }

    /// An estimate at 2020-07-11T22:37:48.500Z, heading east at 10 m/s.
    pub fn estimate(state: State) -> Estimate {
        Estimate {
            time_ns: 1_594_507_068_500_000_000,
            position: Geodetic::new(-33.5, 151.25, 40.0).unwrap(),
            covariance_m2: [[4.0, 0.0], [0.0, 1.0]],
            height_m: Some(40.0),
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

    /// The same as writers get it.
    pub fn outbound(state: State) -> Outbound {
        Outbound::Estimate(Arc::new(estimate(state)))
    }
}
