//! `[[source]]` tables: where events come from.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Checker;

/// One `[[source]]`, chosen by `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SourceConfig {
    /// A gpsd server's JSON over TCP.
    Gpsd(GpsdConfig),
    /// NMEA 0183 sentences from a serial port, a TCP server or a file.
    Nmea(NmeaConfig),
    /// A folder of pictures named by their time.
    Images(ImagesConfig),
    /// A recorded drive.
    Mcap(McapSourceConfig),
}

/// A gpsd server to listen to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GpsdConfig {
    /// Name in logs and states. Default "gpsd".
    pub name: String,
    /// Where gpsd listens, host:port. Default "127.0.0.1:2947".
    pub address: String,
    /// Only take reports of this device (gpsd's path of it). Needed when crossfixd's NMEA could reach
    /// the same gpsd, or it would eat its own output. Default: any.
    pub device: Option<String>,
    /// How long to wait after a TPV for the GST of the same epoch, seconds. Default 0.03.
    pub settle_s: f64,
    /// What `eph` means on this receiver. Default "auto": by gpsd's driver name.
    pub eph_confidence: EphConfidence,
    /// What `epx` and `epy` mean. Default "p95".
    pub epx_confidence: EpxConfidence,
    /// 1-sigma per axis when nothing is reported, metres. Default 10.
    pub default_sigma_m: f64,
    /// No axis is believed better than this, metres. Default 0.3.
    pub floor_sigma_m: f64,
    /// Time without a line after which the connection is made anew, seconds. Default 10.
    pub silence_s: f64,
}

impl Default for GpsdConfig {
    fn default() -> Self {
        Self {
            name: "gpsd".into(),
            address: "127.0.0.1:2947".into(),
            device: None,
            settle_s: 0.03,
            eph_confidence: EphConfidence::Auto,
            epx_confidence: EpxConfidence::P95,
            default_sigma_m: 10.0,
            floor_sigma_m: 0.3,
            silence_s: 10.0,
        }
    }
}

/// What gpsd's `eph` means; the protocol does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EphConfidence {
    /// `Rms` when gpsd's driver is u-blox (it copies hAcc), else `P95` (it computes from DOP).
    Auto,
    /// Root mean square in two dimensions: sigma per axis is eph / √2.
    Rms,
    /// Radius of the 95 % circle: sigma per axis is eph / 2.4477.
    P95,
    /// Sigma per axis.
    Sigma,
}

/// What gpsd's `epx` and `epy` mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EpxConfidence {
    /// Half the 95 % interval: sigma is epx / 1.96.
    P95,
    /// Sigma.
    Sigma,
}

/// NMEA 0183 sentences; give exactly one of `serial`, `tcp` and `file`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NmeaConfig {
    /// Name in logs and states. Default "nmea".
    pub name: String,
    /// Serial port, such as "/dev/ttyUSB0".
    pub serial: Option<PathBuf>,
    /// Speed of the serial port, baud. Default 115200.
    pub baud: u32,
    /// Server that sends sentences, host:port.
    pub tcp: Option<String>,
    /// Recorded sentences, played at their own pace.
    pub file: Option<PathBuf>,
    /// 1-sigma per axis for a horizontal dilution of precision of one, metres, when there is no GST.
    /// Default 3.5.
    pub range_sigma_m: f64,
    /// 1-sigma per axis when not even the dilution is reported, metres. Default 10.
    pub default_sigma_m: f64,
    /// No axis is believed better than this, metres. Default 0.3.
    pub floor_sigma_m: f64,
}

impl Default for NmeaConfig {
    fn default() -> Self {
        Self {
            name: "nmea".into(),
            serial: None,
            baud: 115_200,
            tcp: None,
            file: None,
            range_sigma_m: 3.5,
            default_sigma_m: 10.0,
            floor_sigma_m: 0.3,
        }
    }
}

/// A folder of JPEG or PNG pictures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImagesConfig {
    /// Name in logs and states, and of the camera. Default "images".
    pub name: String,
    /// The folder. A picture is named by its time in nanoseconds UTC, such as
    /// `1700000000123456789.jpg`, unless `index` says otherwise.
    pub folder: PathBuf,
    /// CSV file with lines `time_ns,file`, the file relative to the folder. Default: none.
    pub index: Option<PathBuf>,
    /// Whether the pictures are a recording or arrive now. Default "watch".
    pub mode: ImagesMode,
}

impl Default for ImagesConfig {
    fn default() -> Self {
        Self {
            name: "images".into(),
            folder: PathBuf::new(),
            index: None,
            mode: ImagesMode::Watch,
        }
    }
}

/// When pictures of a folder are delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImagesMode {
    /// As they appear; those already there at the start are passed over.
    Watch,
    /// At the pace of their times, together with the other recorded sources.
    Paced,
}

/// A recorded drive, played at its own pace by `crossfixd run`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct McapSourceConfig {
    /// Name in logs and states. Default "mcap".
    pub name: String,
    /// The MCAP file.
    pub path: PathBuf,
    /// Take its GNSS fixes. Default true.
    pub gnss: bool,
    /// Take its camera frames. Default true.
    pub camera: bool,
    /// Take its odometry. Default true.
    pub odometry: bool,
}

impl Default for McapSourceConfig {
    fn default() -> Self {
        Self {
            name: "mcap".into(),
            path: PathBuf::new(),
            gnss: true,
            camera: true,
            odometry: true,
        }
    }
}

impl SourceConfig {
    /// The name given in the file.
    pub fn name(&self) -> &str {
        match self {
            SourceConfig::Gpsd(config) => &config.name,
            SourceConfig::Nmea(config) => &config.name,
            SourceConfig::Images(config) => &config.name,
            SourceConfig::Mcap(config) => &config.name,
        }
    }

    pub(super) fn paths_mut(&mut self) -> Vec<&mut PathBuf> {
        match self {
            SourceConfig::Gpsd(_) => vec![],
            SourceConfig::Nmea(config) => {
                config.serial.iter_mut().chain(&mut config.file).collect()
            }
            SourceConfig::Images(config) => std::iter::once(&mut config.folder)
                .chain(&mut config.index)
                .collect(),
            SourceConfig::Mcap(config) => vec![&mut config.path],
        }
    }

    pub(super) fn check(&self, feeds_nmea: bool, check: &mut Checker) {
        match self {
            SourceConfig::Gpsd(config) => {
                check.address("address", &config.address);
                check.range("settle_s", config.settle_s, 0.0, 1.0);
                check.range("silence_s", config.silence_s, 0.1, 3600.0);
                check_sigmas(config.default_sigma_m, config.floor_sigma_m, check);
                if feeds_nmea && config.device.is_none() {
                    check.problem(
                        "device",
                        "must be set when there is an nmea_tcp sink: a gpsd that reads our NMEA would feed it back; \
                         name the receiver's device, such as \"/dev/ttyUSB0\"",
                    );
                }
                if config
                    .device
                    .as_deref()
                    .is_some_and(|device| device.starts_with(crate::OUTPUT_DEVICE_PREFIX))
                {
                    check.problem("device", "is our own output; name the receiver's device");
                }
            }
            SourceConfig::Nmea(config) => {
                let inputs = [
                    config.serial.is_some(),
                    config.tcp.is_some(),
                    config.file.is_some(),
                ];
                if inputs.iter().filter(|given| **given).count() != 1 {
                    check.problem("", "nmea needs exactly one of serial, tcp and file");
                }
                if let Some(address) = &config.tcp {
                    check.address("tcp", address);
                }
                if let Some(path) = &config.file {
                    check.exists("file", path);
                }
                check.range("baud", f64::from(config.baud), 300.0, 4e6);
                check.range("range_sigma_m", config.range_sigma_m, 0.01, 1e3);
                check_sigmas(config.default_sigma_m, config.floor_sigma_m, check);
            }
            SourceConfig::Images(config) => {
                check.exists("folder", &config.folder);
                if let Some(index) = &config.index {
                    check.exists("index", index);
                    if config.mode == ImagesMode::Watch {
                        check.problem("index", "only goes with mode = \"paced\"");
                    }
                }
            }
            SourceConfig::Mcap(config) => check.exists("path", &config.path),
        }
    }
}

fn check_sigmas(default_sigma_m: f64, floor_sigma_m: f64, check: &mut Checker) {
    check.range("default_sigma_m", default_sigma_m, 0.01, 1e4);
    check.range("floor_sigma_m", floor_sigma_m, 0.001, 1e3);
}
