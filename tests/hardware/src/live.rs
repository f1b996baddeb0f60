//! A drive through the running daemon, in real time: NMEA over pseudo-terminals, odometry over UDP, pictures in a
//! folder, positions from its standard output.

use crate::drive::{Arrival, Drive};
use crate::fault::{apply, seconds};
use crate::run::{Published, Record, Run, Vehicle};
use crate::scenario::{Act, Scenario};
use anyhow::{Context, ensure};
use chrono::DateTime;
use crossfix_calibration::Geodetic;
use crossfix_onboard::event::{Event, GnssFix, OdometrySample, State};
use serde::Deserialize;
use serialport::{SerialPort, TTYPort};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// From the start of the daemon to that of the drive, nanoseconds: the student loads.
const START_NS: i64 = 4_000_000_000;
/// What is still under way at the end gets this long.
const AFTER: Duration = Duration::from_millis(500);
const KNOTS: f64 = 0.514_444;

/// The daemon and what it reads, for drives in real time.
#[derive(Debug, Clone, Copy)]
pub struct Daemon<'a> {
    /// The program.
    pub program: &'a Path,
    /// The TOML table `[camera]`.
    pub camera: &'a str,
    /// A folder for configs, pictures and logs.
    pub folder: &'a Path,
}

/// Whether a scenario can be driven by what the daemon is sent: the student and the tiles are as they are.
pub fn is_possible(scenario: &Scenario) -> bool {
    !scenario
        .fault
        .iter()
        .any(|fault| matches!(fault.act, Act::Heatmap { .. } | Act::Aerial { .. }))
}

/// Drives `drive` under a scenario.
///
/// # Errors
/// When the daemon does not start, or does not end well.
pub fn run(
    drive: &Drive,
    scenario: &Scenario,
    vehicle: Vehicle<'_>,
    daemon: Daemon<'_>,
) -> anyhow::Result<Run> {
    let start_ns = drive.truth.start_ns();
    let begins_ns = now_ns() + START_NS;
    // By whole seconds, so that epochs stay where receivers have them.
    let shift_ns = (begins_ns - start_ns).div_euclid(1_000_000_000) * 1_000_000_000;
    let drive = apply(&drive.later(shift_ns), scenario);
    let begins_ns = start_ns + shift_ns;

    let folder = daemon
        .folder
        .join(format!("{}-{}", scenario.name, drive.name));
    let pictures = folder.join("pictures");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&pictures)?;
    let mut peers = Peers::new(&drive, &pictures)?;
    let config = config(&drive, scenario, vehicle, daemon, &peers)?;
    std::fs::write(folder.join("crossfixd.toml"), config)?;
    let process = Command::new(std::fs::canonicalize(daemon.program)?)
        .args(["run", "--config", "crossfixd.toml"])
        // Paths of sockets may not be long.
        .current_dir(&folder)
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(folder.join("log"))?)
        .spawn()
        .with_context(|| format!("{} does not start", daemon.program.display()))?;
    let mut process = Running(process);
    let lines = lines(process.0.stdout.take().context("no standard output")?);

    // What a fault without an end holds back never comes.
    let end_ns = drive.truth.end_ns() - drive.truth.start_ns();
    let sent = drive
        .arrivals
        .iter()
        .filter(|arrival| arrival.at_ns <= end_ns);
    let mut sends: Vec<Send<'_>> = sent.map(Send::Event).collect();
    for fault in &scenario.fault {
        if matches!(fault.act, Act::Suspend) {
            let [from_ns, until_ns] =
                [fault.from_s, fault.until_s].map(|at_s| seconds(at_s).min(end_ns));
            let at = |at_ns: i64| sends.partition_point(|send| send.at_ns() < at_ns);
            let (from, until) = (at(from_ns), at(until_ns));
            sends.insert(until, Send::Signal(until_ns, "CONT"));
            sends.insert(from, Send::Signal(from_ns, "STOP"));
        }
    }
    for before_s in [2, 1] {
        let at_ns = begins_ns - before_s * 1_000_000_000;
        wait_until(at_ns);
        peers.search(at_ns);
    }
    for send in &sends {
        wait_until(begins_ns + send.at_ns());
        match send {
            Send::Event(arrival) => peers.send(arrival)?,
            Send::Signal(_, name) => signal(&process.0, name)?,
        }
    }
    thread::sleep(AFTER);
    signal(&process.0, "TERM")?;
    let status = process.0.wait()?;
    ensure!(status.success(), "{} ended with {status}", folder.display());

    let mut record = Record::new(&drive, scenario);
    for (arrived_ns, line) in lines {
        let line: Line =
            serde_json::from_str(&line).with_context(|| format!("no estimate: {line}"))?;
        if line.kind == "fused" && arrived_ns >= begins_ns {
            let position = Geodetic {
                latitude_deg: line.latitude_deg.unwrap_or(f64::NAN),
                longitude_deg: line.longitude_deg.unwrap_or(f64::NAN),
                height_m: 0.0,
            };
            let published = Published {
                time_ns: line.time_ns,
                at_s: (arrived_ns - begins_ns) as f64 * 1e-9,
                error_m: None,
                covariance_m2: line.covariance_m2.unwrap_or([[f64::NAN; 2]; 2]),
                radius_m: line.protection_radius_m.unwrap_or(f64::NAN),
                state: line.state,
                reason: line.reason,
                reset_count: line.reset_count,
            };
            record.add(published, position);
        }
    }
    Ok(record.run())
}

/// A daemon that does not outlive its drive.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended, unless an error came between.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What is done at a moment of the drive.
enum Send<'a> {
    Event(&'a Arrival),
    Signal(i64, &'static str),
}

impl Send<'_> {
    fn at_ns(&self) -> i64 {
        match self {
            Send::Event(arrival) => arrival.at_ns,
            Send::Signal(at_ns, _) => *at_ns,
        }
    }
}

/// The vehicle's other ends of the daemon's sources.
struct Peers<'a> {
    /// Our end of each receiver's terminal, and the name of the daemon's.
    receivers: BTreeMap<&'static str, (TTYPort, String)>,
    odometry: UdpSocket,
    odometry_port: u16,
    pictures: &'a Path,
}

/// A UDP port that is free now and was given to no other drive of this process: many start at once.
fn port_of_its_own() -> anyhow::Result<u16> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let port = UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
        if GIVEN
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(port)
        {
            return Ok(port);
        }
    }
}

impl<'a> Peers<'a> {
    fn new(drive: &Drive, pictures: &'a Path) -> anyhow::Result<Self> {
        let mut receivers = BTreeMap::new();
        for arrival in &drive.arrivals {
            if matches!(arrival.event, Event::Gnss(_)) && !receivers.contains_key(arrival.source) {
                // Theirs is closed again: serial ports have one owner.
                let (ours, theirs) = TTYPort::pair().context("no pseudo-terminal")?;
                let theirs = theirs.name().context("a terminal without a name")?;
                receivers.insert(arrival.source, (ours, theirs));
            }
        }
        let odometry_port = port_of_its_own()?;
        Ok(Self {
            receivers,
            odometry: UdpSocket::bind("127.0.0.1:0")?,
            odometry_port,
            pictures,
        })
    }

    /// What receivers say before they have a fix. It shows where their epochs end.
    fn search(&mut self, time_ns: i64) {
        let (clock, date) = clock_and_date(time_ns);
        let text = sentences([
            format!("GPGGA,{clock},,,,,0,00,,,M,,M,,"),
            format!("GPRMC,{clock},V,,,,,,,{date},,,N"),
            format!("GPGST,{clock},,,,,,,"),
        ]);
        for (port, _) in self.receivers.values_mut() {
            let _ = port.write_all(text.as_bytes());
        }
    }

    fn send(&mut self, arrival: &Arrival) -> anyhow::Result<()> {
        match &arrival.event {
            Event::Gnss(fix) => {
                let receiver = self.receivers.get_mut(arrival.source);
                let (port, _) = receiver.context("an unknown receiver")?;
                // Nobody may be listening, as on any vehicle: a port that was silent is opened anew.
                let _ = port.write_all(nmea(fix).as_bytes());
            }
            Event::Odometry(sample) => {
                let to = ("127.0.0.1", self.odometry_port);
                let _ = self.odometry.send_to(json(sample).as_bytes(), to);
            }
            Event::Frame(frame) => {
                let name = self.pictures.join(format!("{}.jpg", frame.time_ns));
                let hidden = self.pictures.join(".next");
                std::fs::write(&hidden, &frame.image)?;
                std::fs::rename(hidden, name)?;
            }
            Event::SourceState { .. } => {}
        }
        Ok(())
    }
}

fn config(
    drive: &Drive,
    scenario: &Scenario,
    vehicle: Vehicle<'_>,
    daemon: Daemon<'_>,
    peers: &Peers<'_>,
) -> anyhow::Result<String> {
    let mut config = "[daemon]\nstatus_socket = \"status\"\n".to_owned();
    for (name, (_, port)) in &peers.receivers {
        write!(
            config,
            "[[source]]\nkind = \"nmea\"\nname = \"{name}\"\nserial = \"{port}\"\n"
        )?;
    }
    write!(
        config,
        "[[source]]\nkind = \"odometry_feed\"\nname = \"odometry\"\nudp = \"127.0.0.1:{}\"\nstamps = \"utc\"\n\
         [[source]]\nkind = \"images\"\nname = \"camera\"\nfolder = \"pictures\"\n[[sink]]\nkind = \"jsonl\"\n[matching]\nwhole_every = {}\n[fusion]\n{}",
        peers.odometry_port,
        vehicle.whole_every,
        toml::to_string(vehicle.fusion)?,
    )?;
    if scenario.is_matched() && drive.camera.is_some() {
        for (table, path) in [("model", vehicle.student), ("tiles", vehicle.tiles)] {
            let path = std::fs::canonicalize(path)?;
            write!(config, "\n[{table}]\npath = {path:?}\n")?;
        }
        config += daemon.camera;
    }
    Ok(config)
}

/// GGA, RMC and GST of a fix.
fn nmea(fix: &GnssFix) -> String {
    let (clock, date) = clock_and_date(fix.time_ns);
    let Geodetic {
        latitude_deg,
        longitude_deg,
        height_m,
    } = fix.position;
    let angle = |degrees: f64, width: usize, letters: [char; 2]| {
        let letter = letters[usize::from(degrees < 0.0)];
        let (whole, part) = (degrees.abs().trunc(), degrees.abs().fract());
        format!("{whole:0width$}{:010.7},{letter}", part * 60.0)
    };
    let place = format!(
        "{},{}",
        angle(latitude_deg, 2, ['N', 'S']),
        angle(longitude_deg, 3, ['E', 'W'])
    );
    let number = |value: Option<f64>, unit: f64| {
        value.map_or_else(String::new, |value| format!("{:.4}", value / unit))
    };
    let [[ee, _], [_, nn]] = fix.covariance_m2;
    let (east_m, north_m) = (ee.sqrt(), nn.sqrt());
    // The ellipse's axes, the longer one first, and its direction from north.
    let (longer_m, shorter_m) = (east_m.max(north_m), east_m.min(north_m));
    let towards_deg = if east_m > north_m { 90.0 } else { 0.0 };
    sentences([
        format!("GPGGA,{clock},{place},1,10,1.2,{height_m:.2},M,0.0,M,,"),
        format!(
            "GPRMC,{clock},A,{place},{},{},{date},,,A",
            number(fix.speed_mps, KNOTS),
            number(fix.track_deg, 1.0)
        ),
        format!(
            "GPGST,{clock},{longer_m:.2},{longer_m:.2},{shorter_m:.2},{towards_deg:.1},{north_m:.2},{east_m:.2},{:.2}",
            fix.height_sigma_m
        ),
    ])
}

/// NMEA's `hhmmss.sss` and `ddmmyy`.
fn clock_and_date(time_ns: i64) -> (String, String) {
    let time = DateTime::from_timestamp_nanos(time_ns);
    let [clock, date] = ["%H%M%S%.3f", "%d%m%y"].map(|format| time.format(format).to_string());
    (clock, date)
}

/// With their sums.
fn sentences<const N: usize>(bodies: [String; N]) -> String {
    let with_sum = |body: String| {
        let sum = body.bytes().fold(0, |sum, byte| sum ^ byte);
        format!("${body}*{sum:02X}\r\n")
    };
    bodies.map(with_sum).concat()
}

/// A line of the odometry feed. Numbers that cannot be stand there as they are, as programs write them.
fn json(sample: &OdometrySample) -> String {
    let mut text = format!("{{\"time_ns\": {}", sample.time_ns);
    let mut field = |name: &str, value: f64| text += &format!(", \"{name}\": {value}");
    if let Some(speed_mps) = sample.forward_speed_mps {
        field("speed_mps", speed_mps);
        field("speed_sigma_mps", sample.speed_sigma_mps);
    }
    if let Some(yaw_rate_rps) = sample.yaw_rate_rps {
        field("yaw_rate_radps", yaw_rate_rps);
        field("yaw_rate_sigma_radps", sample.yaw_rate_sigma_rps);
    }
    if let Some(yaw) = sample.yaw {
        field("heading_deg", yaw.yaw.heading().degrees());
        field("heading_sigma_deg", yaw.sigma_rad.to_degrees());
    }
    text + "}\n"
}

/// The daemon's lines with the moments they came.
fn lines(stdout: ChildStdout) -> mpsc::Receiver<(i64, String)> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send((now_ns(), line)).is_err() {
                return;
            }
        }
    });
    receiver
}

/// A line of the sink `jsonl`. While the state is `lost` it holds no position.
#[derive(Debug, Deserialize)]
struct Line {
    kind: String,
    time_ns: i64,
    state: State,
    reason: String,
    reset_count: u32,
    latitude_deg: Option<f64>,
    longitude_deg: Option<f64>,
    covariance_m2: Option<[[f64; 2]; 2]>,
    protection_radius_m: Option<f64>,
}

fn signal(process: &Child, name: &str) -> anyhow::Result<()> {
    let id = process.id().to_string();
    let status = Command::new("kill")
        .arg(format!("-{name}"))
        .arg(id)
        .status()?;
    ensure!(status.success(), "the daemon is gone");
    Ok(())
}

fn wait_until(at_ns: i64) {
    let left_ns = at_ns - now_ns();
    if left_ns > 0 {
        thread::sleep(Duration::from_nanos(left_ns.unsigned_abs()));
    }
}

fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossfix_onboard::event::{CovarianceRule, FixDimension, Reception};
    use crossfix_onboard::peer::nmea::{NmeaConfig, NmeaSentences};

    #[test]
    fn a_fix_comes_out_of_its_sentences_as_it_was() {
        let mut fix = GnssFix {
            time_ns: 1_796_083_200_250_000_000,
            position: Geodetic::new(-33.856_784, -70.215_299, 12.0).unwrap(),
            covariance_m2: [[9.0, 0.0], [0.0, 16.0]],
            height_sigma_m: 5.0,
            covariance_rule: CovarianceRule::Recorded,
            speed_mps: Some(7.25),
            track_deg: Some(359.5),
            dimension: FixDimension::Three,
            reception: Reception::default(),
        };
        let mut reader = NmeaSentences::new(&NmeaConfig::default());
        let mut read = Vec::new();
        for second in 0..2 {
            fix.time_ns += second * 1_000_000_000;
            let now = Duration::from_secs(second.unsigned_abs());
            for line in nmea(&fix).lines() {
                reader.line(line.as_bytes(), now);
            }
            read.extend(reader.take(now));
        }
        let got = &read[0];
        assert_eq!(got.time_ns, 1_796_083_200_250_000_000);
        let off_m = crate::drive::Truth::of(vec![(0, fix.position), (1, fix.position)])
            .error_m(0, got.position)
            .unwrap();
        assert!(off_m[0].hypot(off_m[1]) < 0.001, "{off_m:?}");
        for (got, sent) in got
            .covariance_m2
            .iter()
            .flatten()
            .zip([9.0, 0.0, 0.0, 16.0])
        {
            assert!((got - sent).abs() < 1e-9, "{got}");
        }
        assert!((got.speed_mps.unwrap() - 7.25).abs() < 1e-3);
        assert_eq!(got.track_deg, Some(359.5));
    }

    #[test]
    fn numbers_that_cannot_be_are_sent_as_they_are() {
        let sample = OdometrySample {
            time_ns: 5,
            forward_speed_mps: Some(f64::NAN),
            yaw_rate_rps: None,
            yaw: None,
            speed_sigma_mps: 0.1,
            yaw_rate_sigma_rps: 0.1,
        };
        assert_eq!(
            json(&sample),
            "{\"time_ns\": 5, \"speed_mps\": NaN, \"speed_sigma_mps\": 0.1}\n"
        );
    }
}
