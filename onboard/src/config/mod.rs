//! The config file as types: one TOML file, every field with its meaning, unit and default in one
//! place. The tables of peers are in their folders under [`crate::peer`].
//!
//! [`Config::load`] reads it, [`Config::check`] reports every problem at once. Relative paths are
//! relative to the config file.

mod camera_file;
mod check;
mod core;
mod rig;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crossfix_calibration::Camera;
use serde::{Deserialize, Serialize};

pub use self::check::{Checker, Part, Problem, ProblemKind};
pub use self::core::{MatchingConfig, ModelConfig, TilesConfig};
pub use self::rig::{RigCameraConfig, RigConfig};
use crate::clocks::ClockConfig;
use crate::log::{Choice, TopicsConfig};
use crate::peer::nmea::NmeaConfig;
use crate::peer::ubx::UbxConfig;
use crate::peer::{SinkConfig, SourceConfig};
use crate::shadow::ShadowConfig;
use crate::transport::file;

/// No config file is larger.
const LARGEST_CONFIG_BYTES: u64 = 4 << 20;

/// The whole config file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Threads, queues and the rate of output.
    pub daemon: DaemonConfig,
    /// The grid belief and its gates.
    pub fusion: crate::fusion::FusionConfig,
    /// The camera's model and mount, or `file` with a calibration of ROS, Kalibr or OpenCV; without it the one recorded in the log is taken, and without
    /// that there is no visual position.
    pub camera: Option<Camera>,
    /// Several cameras in place of one, stitched into a panorama.
    pub rig: Option<RigConfig>,
    /// Aerial tiles; without them the output is GNSS and odometry, marked degraded.
    pub tiles: Option<TilesConfig>,
    /// The exported student; without it the output is GNSS and odometry, marked degraded.
    pub model: Option<ModelConfig>,
    /// Which frames are matched; without it all are.
    pub matching: MatchingConfig,
    /// A second student that is compared with the first and never used; without it none is.
    pub shadow: Option<ShadowConfig>,
    /// Topics of recorded drives: for `crossfixd replay`, and for `mcap` sources without topics of their own.
    pub topics: TopicsConfig,
    /// Where events come from, one thread each.
    pub source: Vec<SourceConfig>,
    /// Where estimates go, one thread each.
    pub sink: Vec<SinkConfig>,
}

/// Threads, queues and the rate of output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DaemonConfig {
    /// Time between estimates when nothing arrives, seconds. Default 0.1.
    pub tick_s: f64,
    /// GNSS and odometry events that may wait for the core. Default 256.
    pub event_queue: usize,
    /// Frames that may wait for the core, of each camera of a rig; the oldest is dropped and counted. Default 2.
    pub frame_queue: usize,
    /// What may wait for one sink; the oldest is dropped and counted. Default 256.
    pub sink_queue: usize,
    /// Time between health reports to sinks that want them when nothing changes, seconds. Default 1.
    pub health_s: f64,
    /// Reports READY to systemd after this time even without any input, seconds. Default 10.
    pub start_timeout_s: f64,
    /// First wait before a failed source or sink is tried again, seconds; doubles up to
    /// `retry_max_s`. Default 0.5.
    pub retry_s: f64,
    /// Longest wait between tries, seconds. Default 10.
    pub retry_max_s: f64,
    /// Where `crossfixd status` asks, a Unix socket. Default: none.
    pub status_socket: Option<PathBuf>,
}

impl Default for DaemonConfig {
    fn default() -> Self {
        Self {
            tick_s: 0.1,
            event_queue: 256,
            frame_queue: 2,
            sink_queue: 256,
            health_s: 1.0,
            start_timeout_s: 10.0,
            retry_s: 0.5,
            retry_max_s: 10.0,
            status_socket: None,
        }
    }
}

/// Why a config file could not be read at all.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be opened or is not text.
    #[error("cannot read config {path:?}: {source}; give an existing file with --config")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file is not the TOML we expect.
    #[error("config {path:?} does not parse: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line, column and reason.
        message: String,
    },
}

impl Config {
    /// Reads a config file and makes its relative paths relative to the file's folder.
    ///
    /// # Errors
    /// [`ConfigError`] when the file is missing, not UTF-8, not TOML or has fields we do not know.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            file::read_text(path, LARGEST_CONFIG_BYTES).map_err(|error| ConfigError::Read {
                path: path.to_owned(),
                source: error.into(),
            })?;
        let base = path.parent().unwrap_or(Path::new(""));
        let mut config = camera_file::parse(&text, base).map_err(|message| ConfigError::Parse {
            path: path.to_owned(),
            message,
        })?;
        config.resolve_paths(base);
        for source in &mut config.source {
            if let SourceConfig::Mcap(source) = source {
                source.topics.get_or_insert_with(|| config.topics.clone());
            }
        }
        Ok(config)
    }

    /// Frames that may wait for the core: of each camera as many.
    pub fn frames_waiting(&self) -> usize {
        let cameras = self.rig.as_ref().map_or(1, |rig| rig.camera.len().max(1));
        self.daemon.frame_queue.saturating_mul(cameras)
    }

    /// Reads config text, with paths as they stand.
    ///
    /// # Errors
    /// The TOML parser's message, with line and column where it has them.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| explained(&error))
    }

    /// The resolved config as TOML, for `--print-config` and for run records.
    ///
    /// # Panics
    /// Never: a config is made of tables, arrays and scalars.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("the config is made of tables, arrays and scalars")
    }

    /// Every problem at once; empty means ready to run.
    pub fn check(&self) -> Vec<Problem> {
        let mut checker = Checker::default();
        let daemon = &self.daemon;
        let check = checker.within(Part::Daemon, "daemon");
        check.range("tick_s", daemon.tick_s, 0.01, 10.0);
        check.range("event_queue", daemon.event_queue as f64, 1.0, 1e6);
        check.range("frame_queue", daemon.frame_queue as f64, 1.0, 1e3);
        check.range("sink_queue", daemon.sink_queue as f64, 1.0, 1e6);
        check.range("health_s", daemon.health_s, 0.1, 3600.0);
        check.range("start_timeout_s", daemon.start_timeout_s, 0.0, 3600.0);
        check.range("retry_s", daemon.retry_s, 0.01, 3600.0);
        check.range("retry_max_s", daemon.retry_max_s, daemon.retry_s, 3600.0);
        for problem in self.fusion.check() {
            checker.within(Part::Fusion, "fusion").problem("", problem);
        }
        if let Some(tiles) = &self.tiles {
            tiles.check(checker.within(Part::Tiles, "tiles"));
        }
        if let Some(model) = &self.model {
            model.check(checker.within(Part::Model, "model"));
        }
        self.matching.check(
            checker.within(Part::Matching, "matching"),
            self.fusion.visual_timeout_m,
        );
        if let Some(shadow) = &self.shadow {
            let check = checker.within(Part::Shadow, "shadow");
            shadow.check(check);
            if self.model.is_none() {
                check.problem(
                    "",
                    "is compared with the student of [model], and there is none; add it",
                );
            }
        }
        if let Some(camera) = &self.camera
            && let Err(error) = camera.check()
        {
            let message = format!("cannot be right: {error}");
            checker.within(Part::Camera, "camera").problem("", message);
        }
        if let Some(rig) = &self.rig {
            let recorded = |source: &SourceConfig| matches!(source, SourceConfig::Mcap(_));
            let names: Vec<&str> = self
                .source
                .iter()
                .map(|source| source.peer().name())
                .collect();
            let named = !self.source.is_empty() && !self.source.iter().any(recorded);
            let check = checker.within(Part::Rig, "rig");
            rig.check(check, named.then_some(&names));
            if self.camera.is_some() {
                check.problem(
                    "",
                    "stands beside [camera]; describe either one camera or a rig",
                );
            }
        }
        let check = checker.within(Part::Topics, "topics");
        self.topics.check(check);
        if self.rig.is_none() {
            self.topics.check_one_camera(check);
        }
        self.check_addresses(&mut checker);
        let mut names = std::collections::BTreeSet::new();
        let feeds_nmea = self
            .sink
            .iter()
            .any(|sink| matches!(sink, SinkConfig::NmeaTcp(_) | SinkConfig::Nmea(_)));
        for (index, source) in self.source.iter().enumerate() {
            let check = checker.within(Part::Source, format!("source[{index}]"));
            source.peer().check(check);
            if let (SourceConfig::Mcap(mcap), None) = (source, &self.rig)
                && let Some(topics) = &mcap.topics
                && *topics != self.topics
            {
                topics.check_one_camera(check);
            }
            if let SourceConfig::Gpsd(gpsd) = source
                && feeds_nmea
                && gpsd.device.is_none()
            {
                check.problem(
                    "device",
                    "must be set when there is an nmea or nmea_tcp sink: a gpsd that reads our NMEA would feed it back; \
                     name the receiver's device, such as \"/dev/ttyUSB0\"",
                );
            }
            #[cfg(feature = "ros2")]
            for sink in &self.sink {
                if let (SourceConfig::Ros2(source), SinkConfig::Ros2(sink)) = (source, sink) {
                    source.check_against(sink, check);
                }
            }
            let name = source.peer().name();
            if !names.insert(name) {
                check.problem(
                    "name",
                    format!("{name:?} is used twice; give each source its own name"),
                );
            }
        }
        for (index, sink) in self.sink.iter().enumerate() {
            let check = checker.within(Part::Sink, format!("sink[{index}]"));
            sink.peer().check(check);
        }
        self.check_exclusive(&mut checker);
        checker.into_problems()
    }

    /// What a run needs of this machine and does not find now: devices, free ports, folders to write in.
    /// A run goes on without most of it, and takes it up when it appears.
    pub fn check_machine(&self) -> Vec<Problem> {
        let mut checker = Checker::default();
        // What stands in /run is made by the service manager.
        let made_at_start =
            |folder: &&Path| folder.parent() == Some(Path::new("/run")) && !folder.exists();
        if let Some(folder) = self
            .daemon
            .status_socket
            .as_ref()
            .and_then(|path| path.parent())
            .filter(|folder| !made_at_start(folder))
        {
            checker
                .within(Part::Daemon, "daemon")
                .writable("status_socket", folder);
        }
        for (index, source) in self.source.iter().enumerate() {
            let check = checker.within(Part::Source, format!("source[{index}]"));
            source.peer().check_machine(check);
        }
        for (index, sink) in self.sink.iter().enumerate() {
            let check = checker.within(Part::Sink, format!("sink[{index}]"));
            sink.peer().check_machine(check);
            if let Some(address) = sink.peer().listens() {
                check.free_address("listen", address);
            }
        }
        checker.into_problems()
    }

    /// What only one peer can have is named once.
    fn check_exclusive(&self, checker: &mut Checker) {
        let sources = self.source.iter().map(SourceConfig::peer).enumerate();
        let sources = sources.map(|(index, peer)| (Part::Source, format!("source[{index}]"), peer));
        let sinks = self.sink.iter().map(SinkConfig::peer).enumerate();
        let sinks = sinks.map(|(index, peer)| (Part::Sink, format!("sink[{index}]"), peer));
        let mut taken = BTreeMap::new();
        for (part, place, peer) in sources.chain(sinks) {
            for what in peer.exclusive() {
                if let Some(other) = taken.insert(what.clone(), place.clone()) {
                    let message = format!("{what} is {other}'s already; only one can have it");
                    checker.within(part, place.clone()).problem("", message);
                }
            }
        }
    }

    /// Two servers cannot have one port.
    fn check_addresses(&self, checker: &mut Checker) {
        let mut taken: Vec<String> = Vec::new();
        for (index, sink) in self.sink.iter().enumerate() {
            let Some(address) = sink.peer().listens() else {
                continue;
            };
            let address = address.replace("localhost:", "127.0.0.1:");
            if let Some(other) = taken.iter().find(|other| same_port(other, &address)) {
                let message = format!("{address} and {other} are one port; give each sink its own");
                checker
                    .within(Part::Sink, format!("sink[{index}]"))
                    .problem("listen", message);
            }
            taken.push(address);
        }
        for (index, source) in self.source.iter().enumerate() {
            let (SourceConfig::Nmea(NmeaConfig { tcp, .. })
            | SourceConfig::Ubx(UbxConfig { tcp, .. })) = source
            else {
                continue;
            };
            let address = tcp
                .as_ref()
                .map(|tcp| tcp.replace("localhost:", "127.0.0.1:"));
            if address.is_some_and(|address| taken.iter().any(|own| same_port(own, &address))) {
                checker
                    .within(Part::Source, format!("source[{index}]"))
                    .problem(
                        "tcp",
                        "is a sink of this config: its own output would come in as a receiver's",
                    );
            }
        }
    }

    /// What is stated of the sources' clocks, by the names of the sources.
    pub fn clocks(&self) -> ClockConfig {
        let stated = self.source.iter().map(|source| {
            let peer = source.peer();
            (peer.name().to_owned(), peer.clock())
        });
        ClockConfig {
            sources: stated.collect(),
        }
    }

    /// The same by the topics of a log, for a replay: what is stated of a recording counts for all of
    /// them, and else that of cameras for frames and that of receivers for fixes.
    pub fn recorded_clocks(&self, choice: &Choice) -> ClockConfig {
        let [fixes, frames, samples] = choice.topics();
        let mut clocks = ClockConfig::default();
        for source in &self.source {
            let stated = source.peer().clock();
            let topics = match source {
                SourceConfig::Gpsd(_) | SourceConfig::Nmea(_) | SourceConfig::Ubx(_) => {
                    fixes.clone()
                }
                SourceConfig::Images(_) | SourceConfig::JpegStream(_) | SourceConfig::V4l2(_) => {
                    frames.clone()
                }
                SourceConfig::Mcap(_) => [&fixes[..], &frames, &samples].concat(),
                SourceConfig::OdometryFeed(_) | SourceConfig::Can(_) => samples.clone(),
                #[cfg(feature = "ros2")]
                SourceConfig::Ros2(_) => [&fixes[..], &frames, &samples].concat(),
            };
            for topic in topics {
                clocks.sources.insert(topic.to_owned(), stated);
            }
        }
        clocks
    }

    /// Problems that only matter to `crossfixd run`, which needs something to listen to.
    pub fn check_run(&self) -> Vec<Problem> {
        let mut checker = Checker::with(self.check());
        if self.source.is_empty() {
            checker.within(Part::Source, "").problem(
                "source",
                "there is none; add a [[source]] table, such as kind = \"gpsd\"",
            );
        }
        if self.sink.is_empty() {
            checker.within(Part::Sink, "").problem(
                "sink",
                "there is none; add a [[sink]] table, such as kind = \"gpsd_server\"",
            );
        }
        checker.into_problems()
    }

    fn resolve_paths(&mut self, base: &Path) {
        let resolve = |path: &mut PathBuf| {
            if path.is_relative() && !path.as_os_str().is_empty() {
                *path = base.join(&*path);
            }
        };
        if let Some(socket) = &mut self.daemon.status_socket {
            resolve(socket);
        }
        if let Some(tiles) = &mut self.tiles {
            resolve(&mut tiles.path);
        }
        if let Some(model) = &mut self.model {
            resolve(&mut model.path);
        }
        if let Some(shadow) = &mut self.shadow {
            resolve(&mut shadow.model);
        }
        let sources = self.source.iter_mut().map(SourceConfig::peer_mut);
        let sinks = self.sink.iter_mut().map(SinkConfig::peer_mut);
        sources
            .chain(sinks)
            .flat_map(|peer| peer.paths_mut())
            .for_each(resolve);
    }
}

/// Whether two addresses to listen on are one port of this machine.
fn same_port(one: &str, other: &str) -> bool {
    let port = |address: &str| address.rsplit_once(':').map(|(_, port)| port.to_owned());
    let any = |address: &str| address.starts_with("0.0.0.0:") || address.starts_with("[::]:");
    one == other || (port(one) == port(other) && (any(one) || any(other)))
}

/// Kinds of peers that are only there when the program was built with the feature of that name.
const OPTIONAL_KINDS: [(&str, bool); 2] = [
    ("mavlink", cfg!(feature = "mavlink")),
    ("ros2", cfg!(feature = "ros2")),
];

/// The parser's message; where it does not know a kind that another build has, with the remedy.
fn explained(error: &toml::de::Error) -> String {
    let message = error.to_string();
    let is_meant =
        |(kind, built): &(&str, bool)| !built && message.contains(&format!("variant `{kind}`"));
    match OPTIONAL_KINDS.iter().find(|kind| is_meant(kind)) {
        None => message,
        Some((kind, _)) => format!(
            "{}\nthis crossfixd was built without {kind}; build it with `cargo build --release -p crossfix-onboard \
             --features {kind}`, or remove the table",
            message.trim_end()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../crossfixd.example.toml");

    #[test]
    fn the_shipped_example_parses_and_only_misses_its_files() {
        let config = Config::parse(EXAMPLE).unwrap();
        let other: Vec<_> = config
            .check_run()
            .into_iter()
            .filter(|problem| problem.kind != ProblemKind::Missing)
            .collect();
        assert!(other.is_empty(), "{other:?}");
    }

    #[test]
    fn a_broken_config_reports_every_problem_at_once() {
        let config = Config::parse(include_str!("../../tests/data/broken.toml")).unwrap();
        let fields: Vec<_> = config
            .check_run()
            .into_iter()
            .map(|problem| problem.field)
            .collect();
        for field in [
            "daemon.tick_s",
            "source[0].address",
            "source[0].device",
            "source[1].name",
            "source[1]",
            "tiles.path",
            "sink[0].listen",
        ] {
            assert!(
                fields.iter().any(|found| found == field),
                "{field} is missing from {fields:?}"
            );
        }
    }

    #[test]
    fn what_only_one_peer_can_have_is_named_once() {
        let problems = |text: &str| -> Vec<String> {
            let config = Config::parse(text).unwrap();
            let problems = config.check().into_iter().chain(config.check_machine());
            problems.map(|problem| problem.to_string()).collect()
        };
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("plain");
        std::fs::write(&file, "mine").unwrap();
        let file = file.display();
        let long = "x".repeat(120);
        for (text, words) in [
            (
                "[[source]]\nkind = \"jpeg_stream\"\nname = \"a\"\nstdin = true\n\
                 [[source]]\nkind = \"jpeg_stream\"\nname = \"b\"\nstdin = true\n"
                    .to_owned(),
                "the standard input is source[0]'s already",
            ),
            (
                "[[source]]\nkind = \"odometry_feed\"\nname = \"a\"\nudp = \"127.0.0.1:7755\"\n\
                 [[source]]\nkind = \"odometry_feed\"\nname = \"b\"\nudp = \"127.0.0.1:7755\"\n"
                    .to_owned(),
                "UDP 127.0.0.1:7755 is source[0]'s already",
            ),
            (
                "[[source]]\nkind = \"nmea\"\nserial = \"/dev/ttyS9\"\n\
                 [[sink]]\nkind = \"nmea\"\nserial = \"/dev/ttyS9\"\n"
                    .to_owned(),
                "port \"/dev/ttyS9\" is source[0]'s already",
            ),
            (
                "[[sink]]\nkind = \"nmea_tcp\"\nlisten = \"localhost:10110\"\n\
                 [[sink]]\nkind = \"gpsd_server\"\nlisten = \"127.0.0.1:10110\"\n"
                    .to_owned(),
                "are one port",
            ),
            (
                "[[source]]\nkind = \"nmea\"\ntcp = \"127.0.0.1:10110\"\n\
                 [[sink]]\nkind = \"nmea_tcp\"\nlisten = \"0.0.0.0:10110\"\n"
                    .to_owned(),
                "its own output would come in",
            ),
            (
                format!(
                    "[[source]]\nkind = \"odometry_feed\"\nname = \"a\"\nunix_stream = \"{file}\"\n"
                ),
                "is no socket",
            ),
            (
                format!(
                    "[[source]]\nkind = \"jpeg_stream\"\nname = \"a\"\nunix_stream = \"/tmp/{long}\"\n"
                ),
                "107 bytes",
            ),
        ] {
            let found = problems(&text);
            assert!(
                found.iter().any(|problem| problem.contains(words)),
                "{words}: {found:?}"
            );
        }
    }

    #[test]
    fn what_a_run_needs_of_the_machine_is_reported() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = listener.local_addr().unwrap();
        let text = format!(
            "[daemon]\nstatus_socket = \"/nowhere/status\"\n\
             [camera]\nkind = \"equirectangular\"\nwidth = 0\nheight = 512\n\
             [[source]]\nkind = \"nmea\"\nserial = \"/dev/no_such_receiver\"\n\
             [[sink]]\nkind = \"gpsd_server\"\nlisten = \"{taken}\"\n\
             [[sink]]\nkind = \"nmea_tcp\"\nlisten = \"0.0.0.0:{}\"\n\
             [[sink]]\nkind = \"mcap\"\npath = \"/proc/1/out.mcap\"\n",
            taken.port()
        );
        let config = Config::parse(&text).unwrap();
        let fields = |problems: Vec<Problem>| -> Vec<String> {
            problems.into_iter().map(|problem| problem.field).collect()
        };
        let wrong = fields(config.check_run());
        assert!(wrong.contains(&"camera".to_owned()), "{wrong:?}");
        assert!(
            wrong.contains(&"sink[1].listen".to_owned()),
            "given twice: {wrong:?}"
        );
        let machine = fields(config.check_machine());
        for field in [
            "daemon.status_socket",
            "source[0].serial",
            "sink[0].listen",
            "sink[1].listen",
        ] {
            assert!(machine.contains(&field.to_owned()), "{field}: {machine:?}");
        }
    }

    #[test]
    fn unknown_fields_are_refused_by_name() {
        for text in [
            "speling = 1",
            "[daemon]\ntik_s = 1",
            "[[source]]\nkind = \"gpsd\"\nadress = \"x\"",
            "[[sink]]\nkind = \"pigeon\"",
        ] {
            let message = Config::parse(text).unwrap_err();
            assert!(message.contains("unknown"), "{message}");
        }
    }

    #[test]
    fn a_kind_that_was_not_built_in_is_refused_with_the_remedy() {
        for (kind, built) in OPTIONAL_KINDS {
            let text = format!("[[sink]]\nkind = \"{kind}\"");
            match Config::parse(&text) {
                Ok(_) => assert!(built, "{kind}"),
                Err(message) => {
                    assert!(
                        !built && message.contains(&format!("--features {kind}")),
                        "{message}"
                    );
                }
            }
        }
        let message = Config::parse("[[sink]]\nkind = \"pigeon\"").unwrap_err();
        assert!(!message.contains("--features"), "{message}");
    }

    #[test]
    fn what_print_config_prints_reads_back_the_same() {
        let config = Config::parse(EXAMPLE).unwrap();
        let again = Config::parse(&config.to_toml()).unwrap();
        assert_eq!(config.to_toml(), again.to_toml());
    }

    #[test]
    fn hostile_text_is_an_error_not_a_panic() {
        for text in [
            "\u{0}",
            "[[[[",
            "source = 3",
            "source = [{}]",
            "[daemon]\ntick_s = \"x\"",
            &"[".repeat(100_000),
        ] {
            assert!(Config::parse(text).is_err());
        }
        let infinite = Config::parse("[daemon]\ntick_s = inf").unwrap();
        assert_eq!(infinite.check()[0].field, "daemon.tick_s");
    }
}
