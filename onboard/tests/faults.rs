//! Faults, tried on the running program: whatever breaks, positions keep coming and say how good they are.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crossfix_onboard::log::{LogReader, Message};
use serde_json::Value;

const TENTH: Duration = Duration::from_millis(100);
/// Longer without a position report is an interruption, whatever the state.
const LONGEST_GAP: Duration = Duration::from_millis(1500);

/// A gpsd that says every tenth of a second what `says` gives for that tenth, counted over all
/// connections, and hangs up where it gives nothing.
fn gpsd(says: impl Fn(usize) -> Option<String> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let mut tenth = 0;
        for stream in listener.incoming().flatten() {
            let _ = serve(&stream, &says, &mut tenth);
        }
    });
    address
}

fn serve(
    mut stream: &TcpStream,
    says: &impl Fn(usize) -> Option<String>,
    tenth: &mut usize,
) -> std::io::Result<()> {
    stream.write_all(b"{\"class\":\"VERSION\",\"release\":\"3.22\",\"rev\":\"3.22\",\"proto_major\":3,\"proto_minor\":14}\n")?;
    BufReader::new(stream).read_line(&mut String::new())?;
    stream.write_all(b"{\"class\":\"WATCH\",\"enable\":true,\"json\":true}\n")?;
    loop {
        *tenth += 1;
        let Some(words) = says(*tenth) else {
            return Ok(());
        };
        stream.write_all(words.as_bytes())?;
        sleep(TENTH);
    }
}

/// A fix and its errors at a tenth of a second.
fn fix(tenth: usize) -> String {
    let time = time(tenth);
    format!(
        "{{\"class\":\"GST\",\"device\":\"/dev/gnss\",\"time\":\"{time}\",\"lat\":1.0,\"lon\":1.0,\"alt\":2.0}}\n\
         {{\"class\":\"TPV\",\"device\":\"/dev/gnss\",\"mode\":3,\"time\":\"{time}\",\"lat\":52.0116,\"lon\":4.3571,\"altHAE\":40.0,\"speed\":0.1}}\n"
    )
}

fn time(tenth: usize) -> String {
    let (minutes, seconds) = (tenth / 600 % 60, tenth / 10 % 60);
    let hours = 3 + tenth / 36_000;
    format!(
        "2026-01-02T{hours:02}:{minutes:02}:{seconds:02}.{}00Z",
        tenth % 10
    )
}

/// The program, ended with the test.
struct Daemon(Child);

impl Daemon {
    /// Starts it with a gpsd source, a gpsd sink, and what `more` adds; `shell` wraps the command.
    fn start(
        folder: &Path,
        gpsd: &str,
        more: &str,
        shell: &str,
        stdout: Stdio,
        stderr: Stdio,
    ) -> (Self, u16) {
        // Asked for with a socket that does not listen: one that does lives on in a process that another
        // test starts at this moment, takes our client's connection and resets it.
        let port = UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let config = folder.join("crossfixd.toml");
        let text = format!(
            "[daemon]\nretry_s = 0.1\n{more}\n[[source]]\nkind = \"gpsd\"\naddress = \"{gpsd}\"\ndevice = \"/dev/gnss\"\n\
             [[sink]]\nkind = \"gpsd_server\"\nlisten = \"127.0.0.1:{port}\"\n"
        );
        std::fs::write(&config, text).unwrap();
        let child = Command::new("/bin/sh")
            .arg("-c")
            .arg(format!("{shell} exec \"$0\" run --config \"$1\""))
            .arg(env!("CARGO_BIN_EXE_crossfixd"))
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .unwrap();
        (Self(child), port)
    }

    fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// Asks it to end and waits for it.
    fn finish(mut self) -> bool {
        let asked = Command::new("kill")
            .arg(self.0.id().to_string())
            .status()
            .unwrap();
        assert!(asked.success());
        self.0.wait().unwrap().success()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Every TPV for a while, with the moment it came. Fails when they stop coming.
fn positions(port: u16, time: Duration) -> Vec<(Instant, Value)> {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut stream = loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => break stream,
            Err(error) if Instant::now() > deadline => panic!("nobody listens on {port}: {error}"),
            Err(_) => sleep(Duration::from_millis(20)),
        }
    };
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream
        .write_all(b"?WATCH={\"enable\":true,\"json\":true};\n")
        .unwrap();
    let mut found: Vec<(Instant, Value)> = Vec::new();
    for line in BufReader::new(stream).lines() {
        let report: Value = serde_json::from_str(&line.unwrap()).unwrap();
        if report["class"] != "TPV" {
            continue;
        }
        let now = Instant::now();
        if let Some((last, _)) = found.last() {
            assert!(now - *last < LONGEST_GAP, "{:?} of silence", now - *last);
        }
        found.push((now, report));
        if now - found[0].0 > time {
            break;
        }
    }
    found
}

/// The states in the order they came, each once.
fn states(positions: &[(Instant, Value)]) -> Vec<String> {
    let mut states: Vec<String> = positions
        .iter()
        .map(|(_, tpv)| tpv["crossfix_state"].as_str().unwrap_or("?").to_owned())
        .collect();
    states.dedup();
    states
}

#[test]
fn without_the_antenna_it_coasts_until_it_is_lost_and_recovers_when_the_antenna_is_back() {
    let folder = tempfile::tempdir().unwrap();
    // What gpsd says of a receiver that sees no satellite.
    let blind = |tenth| {
        format!(
            "{{\"class\":\"TPV\",\"device\":\"/dev/gnss\",\"mode\":1,\"time\":\"{}\"}}\n",
            time(tenth)
        )
    };
    let gpsd = gpsd(move |tenth| {
        Some(if (10..35).contains(&tenth) {
            blind(tenth)
        } else {
            fix(tenth)
        })
    });
    let more = "[fusion]\ngnss_timeout_s = 0.5\nlost_sigma_m = 5.0\n";
    let (daemon, port) =
        Daemon::start(folder.path(), &gpsd, more, "", Stdio::null(), Stdio::null());
    let positions = positions(port, Duration::from_millis(4500));
    let states = states(&positions);
    let known: Vec<&String> = states.iter().filter(|state| *state != "?").collect();
    assert_eq!(
        known,
        ["degraded", "coasting", "lost", "degraded"],
        "{states:?}"
    );
    for (_, tpv) in &positions {
        let lost = tpv["crossfix_state"] == "lost";
        assert_eq!(lost, tpv["mode"] == 1 && tpv.get("lat").is_none(), "{tpv}");
    }
    assert!(daemon.finish());
}

#[test]
fn a_gpsd_that_is_restarted_with_its_clock_an_hour_on_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let gpsd = gpsd(|tenth| match tenth {
        0..15 => Some(fix(tenth)),
        15 => None,
        _ => Some(fix(tenth + 36_000)),
    });
    let (daemon, port) = Daemon::start(folder.path(), &gpsd, "", "", Stdio::null(), Stdio::null());
    let positions = positions(port, Duration::from_millis(3500));
    let hour = |tpv: &Value| tpv["time"].as_str().map(|time| time[11..13].to_owned());
    assert_eq!(hour(&positions[2].1).as_deref(), Some("03"));
    let last = &positions.last().unwrap().1;
    assert_eq!(hour(last).as_deref(), Some("04"), "{last}");
    assert_eq!(last["crossfix_state"], "degraded", "{last}");
    assert!(daemon.finish());
}

#[test]
fn a_full_disk_costs_the_recording_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let records = folder.path().join("records");
    std::fs::create_dir(&records).unwrap();
    let more = format!(
        "[[sink]]\nkind = \"mcap\"\npath = {:?}\nflush_s = 0.2\n[[sink]]\nkind = \"jsonl\"\n",
        records.join("out.mcap")
    );
    let full = || {
        Stdio::from(
            std::fs::File::options()
                .write(true)
                .open("/dev/full")
                .unwrap(),
        )
    };
    // No file may grow beyond 8 KiB: the recording fails as on a full disk, and so do standard output
    // and the log on standard error.
    let (mut daemon, port) = Daemon::start(
        folder.path(),
        &gpsd(|tenth| Some(fix(tenth))),
        &more,
        "trap '' XFSZ; ulimit -f 16;",
        full(),
        full(),
    );
    let positions = positions(port, Duration::from_secs(4));
    assert!(positions.len() > 30, "{}", positions.len());
    assert!(daemon.is_running());
    // What was written before is there and readable, and the tries since have left nothing.
    let recorded = LogReader::open(&records.join("out.mcap"))
        .unwrap()
        .filter(|message| matches!(message, Ok(Message::Estimate(_))))
        .count();
    assert!(recorded > 3, "{recorded}");
    daemon.finish();
    let files = std::fs::read_dir(&records).unwrap().count();
    assert!(files <= 4, "{files} files");
}

#[test]
fn a_camera_folder_that_vanishes_is_taken_up_again_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let (frames, log) = (folder.path().join("frames"), folder.path().join("log"));
    std::fs::create_dir(&frames).unwrap();
    let more = format!(
        "[[source]]\nkind = \"images\"\nname = \"front\"\nfolder = {frames:?}\nmode = \"watch\"\n"
    );
    let (daemon, port) = Daemon::start(
        folder.path(),
        &gpsd(|tenth| Some(fix(tenth))),
        &more,
        "",
        Stdio::null(),
        std::fs::File::create(&log).unwrap().into(),
    );
    let camera = std::thread::spawn(move || {
        for tenth in 0..35 {
            sleep(TENTH);
            match tenth {
                12 => std::fs::remove_dir_all(&frames).unwrap(),
                20 => std::fs::create_dir(&frames).unwrap(),
                _ => {}
            }
            // The camera goes on whether or not anybody made its folder.
            let _ = std::fs::write(frames.join(format!("{tenth}.jpg")), b"\xff\xd8 .. \xff\xd9");
        }
    });
    let positions = positions(port, Duration::from_millis(3800));
    assert!(positions.len() > 30, "{}", positions.len());
    camera.join().unwrap();
    assert!(daemon.finish());
    let log = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("front") || line.contains("frames"))
        .filter(|line| line.contains("delivers") || line.contains("source failed"))
        .collect();
    assert_eq!(lines.len(), 3, "{log}");
    assert!(lines[0].contains("delivers"), "{log}");
    assert!(lines[1].contains("source failed"), "{log}");
    assert!(lines[2].contains("delivers"), "{log}");
}

/// A pipe that nobody reads, full from the start, with the end that must stay open.
fn stalled() -> (Stdio, std::io::PipeReader) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let filler = writer.try_clone().unwrap();
    std::thread::spawn(move || {
        let mut filler = filler;
        while filler.write_all(&[b'x'; 4096]).is_ok() {}
    });
    sleep(TENTH);
    writer.flush().unwrap();
    (writer.into(), reader)
}

#[test]
fn readers_of_the_log_and_of_standard_output_that_stall_stop_neither_positions_nor_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("out.mcap");
    let more =
        format!("[[sink]]\nkind = \"jsonl\"\n[[sink]]\nkind = \"mcap\"\npath = {record:?}\n");
    let (stdout, _unread_output) = stalled();
    let (stderr, _unread_log) = stalled();
    let (daemon, port) = Daemon::start(
        folder.path(),
        &gpsd(|tenth| Some(fix(tenth))),
        &more,
        "CROSSFIX_LOG=trace",
        stdout,
        stderr,
    );
    let positions = positions(port, Duration::from_secs(3));
    assert!(positions.len() > 20, "{}", positions.len());
    let asked = Instant::now();
    assert!(daemon.finish());
    assert!(
        asked.elapsed() < Duration::from_secs(8),
        "{:?}",
        asked.elapsed()
    );
    // The recording has its end.
    assert!(
        LogReader::open(&record)
            .unwrap()
            .all(|message| message.is_ok())
    );
}

#[test]
fn a_hangup_reloads_the_student_and_cuts_no_recording() {
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("out.mcap");
    let more = format!("[[sink]]\nkind = \"mcap\"\npath = {record:?}\n");
    let source = gpsd(|tenth| Some(fix(tenth)));
    let (mut daemon, port) = Daemon::start(
        folder.path(),
        &source,
        &more,
        "",
        Stdio::null(),
        Stdio::null(),
    );
    let before = positions(port, Duration::from_secs(1)).len();
    let hangup = Command::new("kill")
        .args(["-HUP", &daemon.0.id().to_string()])
        .status();
    assert!(hangup.unwrap().success());
    let after = positions(port, Duration::from_secs(2)).len();
    assert!(daemon.is_running());
    assert!(daemon.finish());
    let estimates = LogReader::open(&record).unwrap().map(Result::unwrap);
    assert!(estimates.count() >= before + after);
    assert!(!folder.path().join("out-1.mcap").exists());
}

#[test]
fn a_pipe_among_the_pictures_holds_up_neither_camera_nor_end() {
    let folder = tempfile::tempdir().unwrap();
    let frames = folder.path().join("frames");
    std::fs::create_dir(&frames).unwrap();
    let more = format!("[[source]]\nkind = \"images\"\nname = \"front\"\nfolder = {frames:?}\n");
    let source = gpsd(|tenth| Some(fix(tenth)));
    let (daemon, port) = Daemon::start(
        folder.path(),
        &source,
        &more,
        "",
        Stdio::null(),
        Stdio::null(),
    );
    positions(port, Duration::from_millis(500));
    let made = Command::new("mkfifo")
        .arg(frames.join("1700000000000000000.jpg"))
        .status();
    assert!(made.unwrap().success());
    std::os::unix::fs::symlink("/dev/zero", frames.join("1700000000000000001.jpg")).unwrap();
    assert!(positions(port, Duration::from_secs(2)).len() > 10);
    let asked = Instant::now();
    assert!(daemon.finish());
    assert!(
        asked.elapsed() < Duration::from_secs(3),
        "{:?}",
        asked.elapsed()
    );
}
