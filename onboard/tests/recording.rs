//! Recordings of the running program: killed, and on a disk that is full.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crossfix_onboard::log::{LogReader, Message};
use crossfix_onboard::status;
use serde_json::Value;

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A receiver's minute, recorded with these fields; `shell` comes before the command.
fn start(folder: &Path, fields: &str, shell: &str) -> Daemon {
    let config = folder.join("crossfixd.toml");
    let receiver = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/m9n.nmea");
    let text = format!(
        "[daemon]\nretry_s = 0.1\nstatus_socket = \"status\"\n\
         [[source]]\nkind = \"nmea\"\nfile = {receiver:?}\n\
         [[sink]]\nkind = \"record\"\nfolder = \"recordings\"\n{fields}\n"
    );
    std::fs::write(&config, text).unwrap();
    let child = Command::new("/bin/sh")
        .arg("-c")
        .arg(format!("{shell} exec \"$0\" run --config \"$1\""))
        .arg(env!("CARGO_BIN_EXE_crossfixd"))
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(folder.join("log")).unwrap())
        .spawn()
        .unwrap();
    Daemon(child)
}

fn recordings(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder.join("recordings"))
        .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
        .unwrap_or_default();
    found.sort();
    found
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        sleep(Duration::from_millis(20));
    }
}

fn status(folder: &Path) -> Value {
    let text = status::ask(&folder.join("status")).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

#[test]
fn after_kill_9_every_file_is_whole_and_only_the_last_moments_are_missing() {
    let folder = tempfile::tempdir().unwrap();
    for round in 1..=3 {
        let fields = "flush_s = 0.1\nmin_free_mb = 0";
        let mut daemon = start(folder.path(), fields, "");
        wait_until("the recording", || recordings(folder.path()).len() == round);
        sleep(Duration::from_millis(1300 + 170 * round as u64));
        daemon.0.kill().unwrap();
        daemon.0.wait().unwrap();
        for path in recordings(folder.path()) {
            let messages: Result<Vec<Message>, _> = LogReader::open(&path).unwrap().collect();
            let messages = messages.unwrap_or_else(|damage| panic!("{damage}"));
            let fixes = messages
                .iter()
                .filter(|message| matches!(message, Message::Gnss(_)))
                .count();
            assert!(
                fixes >= 1 && messages.len() > fixes,
                "{path:?}: {messages:?}"
            );
        }
    }
}

#[test]
fn a_full_disk_stops_the_recording_and_says_so_once_and_positions_go_on() {
    let folder = tempfile::tempdir().unwrap();
    // No file may have more than 16 kB; what is written beyond that fails as on a full disk.
    let fields = "flush_s = 0.1\nmin_free_mb = 0";
    let _daemon = start(folder.path(), fields, "trap '' XFSZ; ulimit -f 16;");
    let is_told = |status: &Value| {
        let reasons = status["reasons"].as_array().cloned().unwrap_or_default();
        reasons.iter().any(|reason| {
            reason
                .as_str()
                .unwrap_or("")
                .contains("nothing is recorded")
        })
    };
    wait_until("the reason in the status", || {
        is_told(&status(folder.path()))
    });
    let before = status(folder.path())["estimates"].as_u64().unwrap();
    sleep(Duration::from_millis(700));
    let after = status(folder.path());
    assert!(after["estimates"].as_u64().unwrap() > before + 3, "{after}");
    for path in recordings(folder.path()) {
        let whole = LogReader::open(&path)
            .unwrap()
            .all(|message| message.is_ok());
        assert!(whole, "{path:?}");
    }
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    let told = log.matches("nothing is recorded").count();
    assert!((1..=3).contains(&told), "{told} times: {log}");
}

#[test]
fn too_little_free_space_is_told_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let _daemon = start(folder.path(), "min_free_mb = 1000000000", "");
    wait_until("the reason in the status", || {
        status(folder.path())["reasons"]
            .to_string()
            .contains("min_free_mb")
    });
    assert!(recordings(folder.path()).is_empty());
}
