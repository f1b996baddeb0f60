//! What the program does when nobody reads its output.

use std::fs::OpenOptions;
use std::process::{Command, Stdio};

fn recipes() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_crossfix"));
    command.args(["recipes", "paper"]).stderr(Stdio::piped());
    command
}

#[test]
fn a_reader_who_left_is_no_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = recipes().stdout(writer).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{errors}");
}

#[test]
fn a_full_disk_is_one_error_and_no_panic() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = recipes().stdout(full).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(
        errors.contains("cannot write to standard output"),
        "{errors}"
    );
}
