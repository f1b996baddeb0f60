//! Hardware in the loop, without the hardware: Debian's real gpsd reads a recorded receiver from a
//! pseudo-terminal, `crossfixd` reads gpsd, and gpsd's own Python client reads `crossfixd`.

use anyhow::{Context, Result, ensure};
use crossfix_calibration::Geodetic;
use crossfix_tests::{
    Gga, Guard, data, free_port, horizontal_m, mean, place_at, program, read_gga, script,
    wait_for_port,
};
use serde_json::Value;
use serialport::{SerialPort, TTYPort};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Epochs played, one each second as recorded: a stretch where the car moves.
const FIRST_EPOCH: usize = 700;
const EPOCHS: usize = 45;
/// gpsd needs a few epochs to recognise the receiver.
const FEWEST_REPORTS: usize = 20;
/// A fix that comes too late for an estimate of its own time is in the next one, so a busy machine has
/// fewer of these: 39 of 45 at best, 20 with nine programs competing for each core.
const FEWEST_AT_EPOCHS: usize = 8;

#[test]
fn a_real_gpsd_feeds_the_daemon_and_its_client_reads_degraded_positions_near_the_truth()
-> Result<()> {
    let nmea = std::fs::read_to_string(data("mtv_f9k/receiver.nmea"))?;
    let truth = read_gga(&std::fs::read_to_string(data("mtv_f9k/truth.gga"))?);
    let epochs = epochs(&nmea);

    // The receiver: a pseudo-terminal that gpsd opens like a serial port.
    let (mut receiver, mut terminal) = TTYPort::pair().context("no pseudo-terminal")?;
    // gpsd gives up root before it opens the terminal: let anybody in.
    terminal.set_exclusive(false)?;
    let device = terminal.name().context("the pseudo-terminal has no name")?;
    std::fs::set_permissions(&device, std::fs::Permissions::from_mode(0o666))?;
    let (gpsd_port, own_port) = (free_port()?, free_port()?);
    let mut gpsd = Guard::spawn(
        Command::new("/usr/sbin/gpsd")
            .args([
                "-N",
                "-n",
                "-s",
                "9600",
                "-f",
                "8N1",
                "-S",
                &gpsd_port.to_string(),
                &device,
            ])
            .stderr(Stdio::null()),
        Stdio::null(),
    )
    .context("Debian's gpsd is needed; tests/run installs it")?;
    wait_for_port(gpsd_port, Duration::from_secs(10)).context("gpsd")?;

    let folder = tempfile::tempdir()?;
    let config = folder.path().join("crossfixd.toml");
    std::fs::write(
        &config,
        format!(
            "[[source]]\nkind = \"gpsd\"\naddress = \"127.0.0.1:{gpsd_port}\"\n\n\
             [[sink]]\nkind = \"gpsd_server\"\nlisten = \"127.0.0.1:{own_port}\"\n"
        ),
    )?;
    let mut daemon = Guard::spawn(
        Command::new(program("crossfixd")?)
            .args(["run", "--config"])
            .arg(&config)
            .stderr(Stdio::null()),
        Stdio::null(),
    )?;
    wait_for_port(own_port, Duration::from_secs(10)).context("crossfixd")?;
    let mut client = Guard::spawn(
        Command::new("/usr/bin/python3")
            .arg(script("gpsd_client.py"))
            .args([own_port.to_string(), format!("{}", EPOCHS + 2)]),
        Stdio::piped(),
    )
    .context("Debian's python3-gps is needed; tests/run installs it")?;

    let start = Instant::now();
    for (second, epoch) in epochs[FIRST_EPOCH..FIRST_EPOCH + EPOCHS].iter().enumerate() {
        receiver.write_all(epoch.as_bytes())?;
        std::thread::sleep(
            (Duration::from_secs(second as u64 + 1)).saturating_sub(start.elapsed()),
        );
    }
    let mut reports = String::new();
    client
        .0
        .stdout
        .take()
        .context("the client's output")?
        .read_to_string(&mut reports)?;
    let status = daemon.terminate(Duration::from_secs(5))?;
    ensure!(
        status.success(),
        "crossfixd ended with {status} after SIGTERM"
    );
    drop(gpsd.0.kill());
    drop(terminal);

    let reports: Vec<Value> = reports
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let of_class = |class: &str| {
        reports
            .iter()
            .filter(|report| report["class"] == class)
            .collect::<Vec<_>>()
    };
    let positions: Vec<&Value> = of_class("TPV")
        .into_iter()
        .filter(|tpv| tpv["mode"].as_i64() >= Some(2))
        .collect();
    ensure!(
        positions.len() >= FEWEST_REPORTS,
        "only {} positions came",
        positions.len()
    );

    // At the receiver's own epochs, and at every report against the fix that a consumer of the
    // receiver alone would still be holding.
    let fixes = read_gga(&nmea);
    let (mut own, mut alone, mut own_always, mut held) = (vec![], vec![], vec![], vec![]);
    for tpv in &positions {
        let (Some(time), Some(error)) = (time_of_day_s(tpv), error_m(tpv, &truth)) else {
            continue;
        };
        let newest = fixes.partition_point(|fix| fix.time_of_day_s <= time + 1e-3);
        let (Some(fix), Some(true_place)) = (
            newest.checked_sub(1).map(|index| fixes[index]),
            place_at(&truth, time),
        ) else {
            continue;
        };
        if time - fix.time_of_day_s < 2e-3 {
            ensure!(
                tpv["crossfix_state"] == "degraded",
                "a fix just came, but the state is {}",
                tpv["crossfix_state"]
            );
            own.push(error);
            alone.push(horizontal_m(true_place, fix.position));
        }
        own_always.push(error);
        held.push(horizontal_m(true_place, fix.position));
    }
    ensure!(
        own.len() >= FEWEST_AT_EPOCHS,
        "only {} reports at the receiver's epochs",
        own.len()
    );
    let (own_m, alone_m) = (mean(&own), mean(&alone));
    let (own_always_m, held_m) = (mean(&own_always), mean(&held));
    println!(
        "at {} fixes: crossfixd {own_m:.3} m, receiver {alone_m:.3} m",
        own.len()
    );
    println!(
        "at {} reports: crossfixd {own_always_m:.3} m, newest fix {held_m:.3} m",
        held.len()
    );
    ensure!(
        own_always_m < held_m,
        "between fixes: crossfixd {own_always_m:.3} m, newest fix {held_m:.3} m"
    );
    // No worse than the receiver: without another source the output at a fix's time is the fix, to
    // gpsd's rounding and two milliseconds of driving.
    ensure!(
        own_m <= alone_m + 0.05,
        "crossfixd {own_m:.3} m, the receiver alone {alone_m:.3} m"
    );

    // Covariance: there, at 1 sigma in GST, and of a size that fits a receiver of this kind.
    let ellipses = of_class("GST");
    ensure!(!ellipses.is_empty(), "no GST report came");
    for gst in &ellipses {
        for axis in ["lat", "lon", "major", "minor"] {
            let sigma_m = gst[axis]
                .as_f64()
                .with_context(|| format!("GST without {axis}: {gst}"))?;
            ensure!((0.1..30.0).contains(&sigma_m), "GST {axis} is {sigma_m} m");
        }
    }
    for tpv in &positions {
        // Where fixes fail to come for long, at the end or on a machine that stalls, it coasts.
        ensure!(
            tpv["crossfix_state"] == "degraded" || tpv["crossfix_state"] == "coasting",
            "no imagery here, but the state is {}",
            tpv["crossfix_state"]
        );
        ensure!(
            tpv["eph"].as_f64().is_some_and(|eph| eph > 0.0),
            "TPV without eph: {tpv}"
        );
    }
    Ok(())
}

/// The sentences of each epoch; RMC opens one.
fn epochs(nmea: &str) -> Vec<String> {
    let mut epochs: Vec<String> = Vec::new();
    for line in nmea.lines() {
        if line.starts_with("$GNRMC") || epochs.is_empty() {
            epochs.push(String::new());
        }
        if let Some(epoch) = epochs.last_mut() {
            epoch.push_str(line);
            epoch.push_str("\r\n");
        }
    }
    epochs
}

/// `2020-02-07T02:26:01.000Z` to seconds since midnight.
fn time_of_day_s(tpv: &Value) -> Option<f64> {
    let clock = tpv["time"]
        .as_str()?
        .split_once('T')?
        .1
        .trim_end_matches('Z');
    let mut parts = clock.split(':').map(str::parse::<f64>);
    let (hours, minutes, seconds) = (
        parts.next()?.ok()?,
        parts.next()?.ok()?,
        parts.next()?.ok()?,
    );
    Some(hours * 3600.0 + minutes * 60.0 + seconds)
}

fn error_m(tpv: &Value, truth: &[Gga]) -> Option<f64> {
    let place = Geodetic::new(tpv["lat"].as_f64()?, tpv["lon"].as_f64()?, 0.0).ok()?;
    Some(horizontal_m(place_at(truth, time_of_day_s(tpv)?)?, place))
}
