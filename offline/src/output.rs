//! Standard output and error that may be closed by whoever reads them: a closed pipe ends the text,
//! not the work.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};

static FAILED: AtomicBool = AtomicBool::new(false);
static SILENT: AtomicBool = AtomicBool::new(false);

/// Says nothing from now on: of several processes that do one work, the first one speaks.
pub fn silence() {
    SILENT.store(true, Ordering::Relaxed);
}

/// Writes results. A reader who left is no error; anything else, such as a full disk, is told and
/// remembered for [`failed`].
pub fn write(text: Arguments) {
    if SILENT.load(Ordering::Relaxed) {
        return;
    }
    let mut output = std::io::stdout().lock();
    let written = output.write_fmt(text).and_then(|()| output.flush());
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
        && !FAILED.swap(true, Ordering::Relaxed)
    {
        note(format_args!(
            "crossfix: cannot write to standard output: {error}\n"
        ));
    }
}

/// Writes what people are told on the way; nothing depends on it.
pub fn note(text: Arguments) {
    if !SILENT.load(Ordering::Relaxed) {
        complain(text);
    }
}

/// Writes why the program fails, also where it is silent otherwise.
pub fn complain(text: Arguments) {
    let _ = std::io::stderr().lock().write_fmt(text);
}

/// Whether results could not be written, though somebody still wanted them.
pub fn failed() -> bool {
    FAILED.load(Ordering::Relaxed)
}

/// As `println!`, by [`write`](crate::output::write).
#[macro_export]
macro_rules! outln {
    ($($text:tt)*) => { $crate::output::write(format_args!("{}\n", format_args!($($text)*))) };
}

/// As `print!`, by [`write`](crate::output::write).
#[macro_export]
macro_rules! out {
    ($($text:tt)*) => { $crate::output::write(format_args!($($text)*)) };
}

/// As `eprintln!`, by [`note`](crate::output::note).
#[macro_export]
macro_rules! note {
    ($($text:tt)*) => { $crate::output::note(format_args!("{}\n", format_args!($($text)*))) };
}
