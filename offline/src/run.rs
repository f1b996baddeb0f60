//! What a long run leaves behind: `run.json`, a loss curve, checkpoints, and hashes of its inputs.

use crate::model::weights::write_whole;
use crate::train::World;
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The folder that a run writes into.
#[derive(Debug, Clone)]
pub struct RunFolder {
    path: PathBuf,
    writes: bool,
}

impl RunFolder {
    /// Makes the folder.
    ///
    /// # Errors
    /// The operating system's.
    pub fn create(path: &Path) -> std::io::Result<Self> {
        Self::create_in(path, World::alone())
    }

    /// As [`RunFolder::create`] in the first of several processes; in the others, a folder that
    /// is read, and where nothing that is written appears.
    ///
    /// # Errors
    /// The operating system's.
    pub fn create_in(path: &Path, world: &World) -> std::io::Result<Self> {
        Self::open(path, world.is_first())
    }

    fn open(path: &Path, writes: bool) -> std::io::Result<Self> {
        if writes {
            std::fs::create_dir_all(path)?;
        }
        let path = path.into();
        Ok(Self { path, writes })
    }

    /// Whether what this process writes here appears.
    pub fn writes(&self) -> bool {
        self.writes
    }

    /// Path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A folder in it, made when it is not there.
    ///
    /// # Errors
    /// Its path, and the operating system's reason.
    pub fn subfolder(&self, name: &str) -> Result<Self, (String, std::io::Error)> {
        let path = self.path.join(name);
        Self::open(&path, self.writes).map_err(|error| (path.display().to_string(), error))
    }

    /// Writes a JSON file, whole or not at all.
    ///
    /// # Errors
    /// The operating system's.
    pub fn write_json(&self, name: &str, value: &impl Serialize) -> std::io::Result<()> {
        let mut text = serde_json::to_string_pretty(value)?;
        text.push('\n');
        self.write(name, text.as_bytes())
    }

    /// Writes a file, whole or not at all.
    ///
    /// # Errors
    /// The operating system's.
    pub fn write(&self, name: &str, bytes: &[u8]) -> std::io::Result<()> {
        if self.writes {
            write_whole(&self.file(name), bytes)?;
        }
        Ok(())
    }

    /// Appends one JSON line; curves are read while they grow.
    ///
    /// # Errors
    /// The operating system's.
    pub fn append_line(&self, name: &str, value: &Value) -> std::io::Result<()> {
        if !self.writes {
            return Ok(());
        }
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.file(name));
        writeln!(file?, "{value}")
    }

    /// Drops the JSON lines of a file that `keep` does not want, and a last one that was cut short.
    ///
    /// # Errors
    /// The operating system's.
    pub fn retain_lines(&self, name: &str, keep: impl Fn(&Value) -> bool) -> std::io::Result<()> {
        let path = self.file(name);
        if !self.writes || !path.exists() {
            return Ok(());
        }
        let text = std::fs::read_to_string(&path)?;
        let kept = text.lines().filter(|line| {
            let value = serde_json::from_str(line);
            value.is_ok_and(|value| keep(&value))
        });
        let kept: String = kept.flat_map(|line| [line, "\n"]).collect();
        write_whole(&path, kept.as_bytes())
    }

    /// Carries what was written to where the folder stands for (object storage); nothing to do for others.
    pub fn share(&self) {
        if self.writes {
            crate::storage::share(&self.path);
        }
    }

    /// Whether a run was finished here: it wrote its `run.json` last.
    pub fn is_finished(&self) -> bool {
        self.file("run.json").exists()
    }

    /// Removes a file that an earlier run left, if there is one.
    pub fn forget(&self, name: &str) {
        if self.writes {
            // Absent is what we want; a file that cannot be removed shows at the next write.
            let _ = std::fs::remove_file(self.file(name));
        }
    }
}

/// What every long run is given besides its data and settings.
#[derive(Debug, Clone, Copy)]
pub struct RunContext<'a> {
    /// Fixes everything that is drawn.
    pub seed: u64,
    /// Where files of the run go; `None` writes none.
    pub folder: Option<&'a RunFolder>,
    /// Go on where the folder's checkpoints stopped.
    pub resume: bool,
    /// Looked at between steps.
    pub interrupt: &'a Interrupt,
    /// The processes that train together.
    pub world: &'a World,
}

/// How fast pairs went through a network.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Throughput {
    /// Where the network ran.
    pub device: String,
    /// Pairs that went through the network, each time counted.
    pub pairs: usize,
    /// Seconds for them, images read and carried to the device included.
    pub seconds: f64,
    /// Pairs a second.
    pub pairs_per_second: f64,
}

impl Throughput {
    /// Of `pairs` in `seconds`.
    pub fn new(device: String, pairs: usize, seconds: f64) -> Self {
        Self {
            device,
            pairs,
            seconds,
            pairs_per_second: pairs as f64 / seconds.max(1e-9),
        }
    }
}

impl std::fmt::Display for Throughput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} pairs in {:.1} s: {:.1} pairs/s",
            self.pairs, self.seconds, self.pairs_per_second
        )
    }
}

/// Set by the first TERM or INT; long loops look at it between steps.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Catches INT and TERM: the first asks to stop, the second ends the process.
    ///
    /// # Errors
    /// The operating system's.
    pub fn on_signals() -> std::io::Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register_conditional_shutdown(signal, 130, flag.clone())?;
            signal_hook::flag::register(signal, flag.clone())?;
        }
        Ok(Self(flag))
    }

    /// Asks to stop.
    pub fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether a stop was requested.
    pub fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// SHA-256 of a file, lower-case hexadecimal.
///
/// # Errors
/// The operating system's.
pub fn sha256_file(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hexadecimal(&hash.finalize())),
            read => hash.update(&buffer[..read]),
        }
    }
}

/// SHA-256 of the JSON text of a value.
pub fn sha256_json(value: &impl Serialize) -> String {
    sha256_bytes(&serde_json::to_vec(value).unwrap_or_default())
}

/// SHA-256 of bytes, lower-case hexadecimal.
pub fn sha256_bytes(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// The program that made a run, as every run records it.
pub fn producer() -> Value {
    json!({
        "program": "crossfix",
        "version": env!("CARGO_PKG_VERSION"),
        "command": std::env::args().collect::<Vec<_>>(),
    })
}
