//! The harness that the cross-crate tests share: recorded fixtures, child processes, ports.

pub mod ccvpe;
pub mod golden;
pub mod published;

use anyhow::{Context, Result, bail};
use crossfix_calibration::{Geodetic, LocalFrame};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A file below `tests/data`.
pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("data")
        .join(name)
}

/// A file below `tests/scripts`.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("scripts")
        .join(name)
}

/// The numbers of a CSV fixture, without its header line.
///
/// # Errors
/// When the file cannot be read or holds something that is not a number.
pub fn read_csv(name: &str) -> Result<Vec<Vec<f64>>> {
    let path = data(name);
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    text.lines()
        .skip(1)
        .map(|line| {
            line.split(',')
                .map(|field| {
                    field
                        .parse()
                        .with_context(|| format!("{}: '{field}'", path.display()))
                })
                .collect()
        })
        .collect()
}

/// One GGA sentence: seconds since midnight UTC and position.
#[derive(Debug, Clone, Copy)]
pub struct Gga {
    /// Seconds since midnight, UTC.
    pub time_of_day_s: f64,
    /// Position; the height is above the ellipsoid.
    pub position: Geodetic,
}

/// The positions in GGA sentences. Written here, apart from the daemon's own parser, so that the
/// tests compare two readings of the same text.
pub fn read_gga(text: &str) -> Vec<Gga> {
    let degrees = |field: &str, hemisphere: &str| -> Option<f64> {
        let value: f64 = field.parse().ok()?;
        let degrees = (value / 100.0).floor();
        let sign = if matches!(hemisphere, "S" | "W") {
            -1.0
        } else {
            1.0
        };
        Some(sign * (degrees + (value - degrees * 100.0) / 60.0))
    };
    text.lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(',').collect();
            if !fields.first()?.ends_with("GGA") || fields.get(6) == Some(&"0") {
                return None;
            }
            let clock: f64 = fields[1].parse().ok()?;
            let (hours, rest) = ((clock / 1e4).floor(), clock % 1e4);
            let time_of_day_s = hours * 3600.0 + (rest / 100.0).floor() * 60.0 + rest % 100.0;
            let height = fields[9].parse::<f64>().ok()? + fields[11].parse::<f64>().ok()?;
            let position = Geodetic::new(
                degrees(fields[2], fields[3])?,
                degrees(fields[4], fields[5])?,
                height,
            )
            .ok()?;
            Some(Gga {
                time_of_day_s,
                position,
            })
        })
        .collect()
}

/// The mean; not a number for none.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Horizontal distance, metres.
pub fn horizontal_m(a: Geodetic, b: Geodetic) -> f64 {
    let enu = LocalFrame::new(a).enu_from_geodetic(b);
    enu.east().hypot(enu.north())
}

/// The truth at a time, between its seconds linearly; nothing where the record has a gap.
pub fn place_at(truth: &[Gga], time_of_day_s: f64) -> Option<Geodetic> {
    let next = truth
        .iter()
        .find(|fix| fix.time_of_day_s >= time_of_day_s)?;
    let last = truth
        .iter()
        .rev()
        .find(|fix| fix.time_of_day_s <= time_of_day_s)?;
    let span = next.time_of_day_s - last.time_of_day_s;
    if span > 1.5 {
        return None;
    }
    let share = if span == 0.0 {
        0.0
    } else {
        (time_of_day_s - last.time_of_day_s) / span
    };
    let mix = |of: fn(&Geodetic) -> f64| {
        of(&last.position) + share * (of(&next.position) - of(&last.position))
    };
    Geodetic::new(mix(|p| p.latitude_deg), mix(|p| p.longitude_deg), 0.0).ok()
}

/// A loopback port that was free a moment ago. It is asked for with a socket that does not listen: one that
/// does lives on in a process that another test starts at this moment, takes a connection and resets it.
///
/// # Errors
/// When no socket can be bound.
pub fn free_port() -> Result<u16> {
    Ok(UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Waits until something listens on a loopback port.
///
/// # Errors
/// When nothing does within `patience`.
pub fn wait_for_port(port: u16, patience: Duration) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < patience {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("nothing listens on 127.0.0.1:{port} after {patience:?}")
}

/// One of our programs, built beside the tests (`cargo test --workspace` and `tests/run` build them).
///
/// # Errors
/// When it has not been built.
pub fn program(name: &str) -> Result<PathBuf> {
    // The test itself runs from target/<profile>/deps/.
    let here = std::env::current_exe()?;
    let path = here
        .parent()
        .and_then(Path::parent)
        .context("a target folder")?
        .join(name);
    if !path.exists() {
        bail!(
            "{} is not built; run `cargo build --release` or tests/run",
            path.display()
        );
    }
    Ok(path)
}

/// A child process that is ended when the test ends, however it ends.
pub struct Guard(pub Child);

impl Guard {
    /// Starts `command` with its output going where `stdout` says.
    ///
    /// # Errors
    /// When the program cannot be started; the message names it.
    pub fn spawn(command: &mut Command, stdout: Stdio) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::null())
            .stdout(stdout)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Self(child))
    }

    /// Asks the process to end (SIGTERM) and waits for its exit status.
    ///
    /// # Errors
    /// When it does not end within `patience`.
    pub fn terminate(&mut self, patience: Duration) -> Result<std::process::ExitStatus> {
        Command::new("kill")
            .args(["-TERM", &self.0.id().to_string()])
            .status()
            .context("kill")?;
        let start = Instant::now();
        while start.elapsed() < patience {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!(
            "process {} still runs {patience:?} after SIGTERM",
            self.0.id()
        )
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
