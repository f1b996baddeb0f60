//! The daemon between a gpsd and a gpsd client, with GNSS alone: the output goes on, marked degraded.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crossfix_onboard::config::Config;
use crossfix_onboard::log::{LogReader, Message};
use crossfix_onboard::pipeline::{self, Controls};
use serde_json::Value;

const LATITUDE_DEG: f64 = 52.0116;
const LONGITUDE_DEG: f64 = 4.3571;

/// A free port of this machine, asked for with a socket that does not listen: one that does lives on in a
/// process that another test starts at this moment, takes our client's connection and resets it.
fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// A gpsd that greets, waits for WATCH and then reports at 10 Hz, `fixes` of them per connection.
fn fake_gpsd(fixes: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let mut sent = 0;
        for stream in listener.incoming().flatten() {
            let _ = serve(&stream, fixes, &mut sent);
        }
    });
    address
}

fn serve(mut stream: &TcpStream, fixes: usize, sent: &mut usize) -> std::io::Result<()> {
    stream.write_all(b"{\"class\":\"VERSION\",\"release\":\"3.22\",\"rev\":\"3.22\",\"proto_major\":3,\"proto_minor\":14}\r\n")?;
    let mut request = String::new();
    BufReader::new(stream).read_line(&mut request)?;
    assert!(request.starts_with("?WATCH="), "{request}");
    stream.write_all(b"{\"class\":\"DEVICES\",\"devices\":[]}\r\n{\"class\":\"WATCH\",\"enable\":true,\"json\":true}\r\n")?;
    for _ in 0..fixes {
        let time = format!("2026-01-02T03:04:{:02}.{}00Z", *sent / 10, *sent % 10);
        *sent += 1;
        let gst = format!(
            r#"{{"class":"GST","device":"/dev/gnss","time":"{time}","lat":2.0,"lon":2.0,"alt":3.0}}"#
        );
        let tpv = format!(
            r#"{{"class":"TPV","device":"/dev/gnss","mode":3,"time":"{time}","lat":{LATITUDE_DEG},"lon":{LONGITUDE_DEG},"altHAE":40.0,"speed":0.1}}"#
        );
        // Another receiver, and our own output come back: neither may be listened to.
        let other = tpv
            .replace("/dev/gnss", "/dev/other")
            .replace("52.01", "53.01");
        let own = tpv
            .replace("/dev/gnss", "crossfix://fused")
            .replace("52.01", "53.01");
        stream
            .write_all(format!("{other}\r\n{own}\r\n{gst}\r\nnot json\r\n{tpv}\r\n").as_bytes())?;
        sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn config(gpsd: &str, port: u16, folder: &Path) -> String {
    let (log, socket) = (folder.join("out.mcap"), folder.join("status"));
    format!(
        "[daemon]\nretry_s = 0.1\nstatus_socket = {socket:?}\n[[source]]\nkind = \"gpsd\"\naddress = \"{gpsd}\"\ndevice = \"/dev/gnss\"\n\
         [[sink]]\nkind = \"gpsd_server\"\nlisten = \"127.0.0.1:{port}\"\n\
         [[sink]]\nkind = \"mcap\"\npath = {log:?}\n"
    )
}

/// Connects as soon as somebody listens, and watches.
fn watch(port: u16) -> impl Iterator<Item = Value> {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut stream = loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => break stream,
            Err(error) if Instant::now() > deadline => panic!("nobody listens on {port}: {error}"),
            Err(_) => sleep(Duration::from_millis(20)),
        }
    };
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream
        .write_all(b"?WATCH={\"enable\":true,\"json\":true};\n")
        .unwrap();
    BufReader::new(stream)
        .lines()
        .map_while(Result::ok)
        .map(|line| serde_json::from_str(&line).unwrap())
}

#[test]
fn gnss_alone_comes_out_degraded_and_goes_on_when_gpsd_dies() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let gpsd = fake_gpsd(15);
    let config = Config::parse(&config(&gpsd, port, folder.path())).unwrap();
    assert_eq!(config.check_run(), []);
    let controls = Controls::default();
    let stop = controls.stop.clone();
    let daemon = std::thread::spawn(move || pipeline::run(&config, &controls).unwrap());

    let mut positions = 0;
    for report in watch(port)
        .filter(|report| report["class"] == "TPV")
        .take(60)
    {
        if report["mode"] == 1 {
            continue;
        }
        positions += 1;
        assert_eq!(report["device"], "crossfix://fused");
        assert_eq!(report["crossfix_state"], "degraded", "{report}");
        assert!(
            (report["lat"].as_f64().unwrap() - LATITUDE_DEG).abs() < 1e-6,
            "{report}"
        );
        assert!(
            (report["lon"].as_f64().unwrap() - LONGITUDE_DEG).abs() < 1e-6,
            "{report}"
        );
        assert!(
            (0.5..20.0).contains(&report["eph"].as_f64().unwrap()),
            "{report}"
        );
    }
    // The fake gpsd hung up every 1.5 s in between.
    assert!(positions > 40, "{positions}");

    stop.store(true, Ordering::Relaxed);
    let summary = daemon.join().unwrap();
    assert!(summary.events > 20 && summary.estimates > 40, "{summary:?}");
    let messages: Vec<_> = LogReader::open(&folder.path().join("out.mcap"))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let estimates = messages
        .iter()
        .filter(|message| matches!(message, Message::Estimate(_)))
        .count();
    assert!(estimates > 40, "{estimates}");
}

#[test]
fn the_program_finishes_its_files_on_term() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let path = folder.path().join("crossfixd.toml");
    std::fs::write(&path, config(&fake_gpsd(1000), port, folder.path())).unwrap();
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_crossfixd"))
        .args(["run", "--config"])
        .arg(&path)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    watch(port)
        .find(|report| report["class"] == "TPV" && report["mode"] == 3)
        .unwrap();
    let asked = Command::new(env!("CARGO_BIN_EXE_crossfixd"))
        .args(["status", "--config"])
        .arg(&path)
        .output()
        .unwrap();
    let status: Value = serde_json::from_slice(&asked.stdout).unwrap();
    assert_eq!(status["ready"], true, "{status}");
    assert_eq!(status["estimate"]["state"], "degraded", "{status}");
    let killed = Command::new("kill")
        .arg(daemon.id().to_string())
        .status()
        .unwrap();
    assert!(killed.success());
    assert!(daemon.wait().unwrap().success());
    let items: Vec<_> = LogReader::open(&folder.path().join("out.mcap"))
        .unwrap()
        .collect();
    assert!(
        !items.is_empty() && items.iter().all(Result::is_ok),
        "{:?}",
        items.last()
    );
}

#[test]
fn check_names_every_problem_and_print_config_shows_every_default() {
    let program = || Command::new(env!("CARGO_BIN_EXE_crossfixd"));
    let broken = program()
        .args(["--check", "tests/data/broken.toml"])
        .output()
        .unwrap();
    assert!(!broken.status.success());
    let words = String::from_utf8(broken.stderr).unwrap();
    for field in [
        "daemon.tick_s",
        "source[0].address",
        "sink[0].listen",
        "tiles.path",
    ] {
        assert!(words.contains(field), "{words}");
    }
    let printed = program().arg("--print-config").output().unwrap();
    assert!(printed.status.success());
    let words = String::from_utf8(printed.stdout).unwrap();
    assert!(
        words.contains("tick_s = 0.1") && words.contains("gnss_correlation_s"),
        "{words}"
    );
    Config::parse(&words).unwrap();
}
