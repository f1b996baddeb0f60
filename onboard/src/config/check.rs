//! What [`Config::check`](super::Config::check) collects: each problem with its place and kind.

use std::fmt;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Longest path of a Unix socket (unix(7): 108 with the zero behind it).
const SOCKET_PATH_BYTES: usize = 107;

/// A part of the config file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Part {
    /// `[daemon]`.
    #[default]
    Daemon,
    /// `[fusion]`.
    Fusion,
    /// `[camera]`.
    Camera,
    /// `[rig]`.
    Rig,
    /// `[tiles]`.
    Tiles,
    /// `[model]`.
    Model,
    /// `[matching]`.
    Matching,
    /// `[shadow]`.
    Shadow,
    /// `[topics]`.
    Topics,
    /// A `[[source]]`.
    Source,
    /// A `[[sink]]`.
    Sink,
}

/// The kind of a [`Problem`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemKind {
    /// A value that cannot be right, wherever the daemon runs.
    Invalid,
    /// A file or folder that is not there now.
    Missing,
    /// Something of this machine that a run needs now: a device, a port, the right to write.
    Machine,
}

/// One thing that is wrong with a config file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where in the file.
    pub part: Part,
    /// What kind of thing is wrong.
    pub kind: ProblemKind,
    /// Path of the field, such as `source[0].address`.
    pub field: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// Collects problems while walking the config.
#[derive(Debug, Default)]
pub struct Checker {
    part: Part,
    prefix: String,
    problems: Vec<Problem>,
}

impl Checker {
    /// Goes on after these problems.
    pub(super) fn with(problems: Vec<Problem>) -> Self {
        Self {
            problems,
            ..Self::default()
        }
    }

    /// What was found.
    pub(crate) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    /// Where in the file the next problems are.
    pub(super) fn within(&mut self, part: Part, prefix: impl Into<String>) -> &mut Self {
        self.part = part;
        self.prefix = prefix.into();
        self
    }

    /// Adds a problem with `field` under the current prefix.
    pub fn problem(&mut self, field: &str, message: impl Into<String>) {
        self.add(ProblemKind::Invalid, field, message.into());
    }

    fn add(&mut self, kind: ProblemKind, field: &str, message: String) {
        let field = match (self.prefix.as_str(), field) {
            ("", field) => field.to_owned(),
            (prefix, "") => prefix.to_owned(),
            (prefix, field) => format!("{prefix}.{field}"),
        };
        self.problems.push(Problem {
            part: self.part,
            kind,
            field,
            message,
        });
    }

    /// Wants a finite number in a closed range.
    pub fn range(&mut self, field: &str, value: f64, low: f64, high: f64) {
        if !(value.is_finite() && (low..=high).contains(&value)) {
            self.problem(
                field,
                format!("is {value}; set it between {low} and {high}"),
            );
        }
    }

    /// Wants something to be there.
    pub fn exists(&mut self, field: &str, path: &Path) {
        if !path.exists() {
            let message = format!(
                "\"{}\" does not exist; create it or correct the path",
                path.display()
            );
            self.add(ProblemKind::Missing, field, message);
        }
    }

    /// Wants a SHA-256 in hex, if there is one.
    pub fn sha256(&mut self, field: &str, sha256: Option<&str>) {
        let hex =
            |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if sha256.is_some_and(|text| !hex(text)) {
            self.problem(
                field,
                "is not 64 hexadecimal digits; run sha256sum on the file",
            );
        }
    }

    /// Wants a public key of minisign, if anything.
    pub fn minisign(&mut self, field: &str, key: Option<&str>) {
        let is_key = |key: &str| minisign_verify::PublicKey::from_base64(key.trim()).is_ok();
        if key.is_some_and(|key| !is_key(key)) {
            self.problem(
                field,
                "is no public key of minisign; it is the second line of minisign.pub, which begins with RW",
            );
        }
    }

    /// Wants a device, a port or a right that a run needs.
    pub fn machine(&mut self, field: &str, message: impl Into<String>) {
        self.add(ProblemKind::Machine, field, message.into());
    }

    /// Wants a folder that may be written into.
    pub fn writable(&mut self, field: &str, folder: &Path) {
        let folder = if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        };
        if !folder.is_dir() {
            let message = format!("folder \"{}\" does not exist; create it", folder.display());
            self.machine(field, message);
        } else if rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).is_err() {
            let message = format!(
                "folder \"{}\" may not be written by this user; change its owner or the path",
                folder.display()
            );
            self.machine(field, message);
        }
    }

    /// Wants a path where a Unix socket can be made.
    pub fn socket(&mut self, field: &str, path: &Path) {
        if path.as_os_str().len() > SOCKET_PATH_BYTES {
            let message = format!(
                "is longer than the {SOCKET_PATH_BYTES} bytes that a socket's path may have"
            );
            self.machine(field, message);
        }
        let found = std::fs::symlink_metadata(path);
        if found.is_ok_and(|found| !found.file_type().is_socket()) {
            let message = "is there and is no socket; remove it or choose another path";
            self.machine(field, message);
        }
        self.writable(field, path.parent().unwrap_or(Path::new("/")));
    }

    /// Wants an address to listen on that nobody else has now.
    pub fn free_address(&mut self, field: &str, address: &str) {
        if let Err(error) = std::net::TcpListener::bind(address) {
            self.machine(
                field,
                format!(
                    "{address} cannot be listened on: {error}; stop who has it, or choose another"
                ),
            );
        }
    }

    /// Wants `host:port`.
    pub fn address(&mut self, field: &str, address: &str) {
        let port = address
            .rsplit_once(':')
            .filter(|(host, _)| !host.is_empty())
            .and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_none() {
            self.problem(
                field,
                format!("{address:?} is not host:port, such as \"127.0.0.1:2947\""),
            );
        }
    }
}
