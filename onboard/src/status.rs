//! A socket anyone on this machine may read and nobody can write: one JSON line per connection.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

/// A longer response is not from crossfixd.
const ANSWER_LIMIT_BYTES: u64 = 64 << 10;

/// Clients that are answered in one round; more wait for the next.
const ANSWERS_AT_ONCE: usize = 16;

/// Listens on a path, and removes it in the end.
#[derive(Debug)]
pub struct StatusSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl StatusSocket {
    /// Listens; a socket that a dead daemon left behind is replaced, anything else is not.
    ///
    /// # Errors
    /// The system's error, or that another daemon listens there.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        if let Ok(found) = std::fs::symlink_metadata(path) {
            let is_refused = |error: std::io::Error| error.kind() == ErrorKind::ConnectionRefused;
            let is_dead =
                found.file_type().is_socket() && UnixStream::connect(path).is_err_and(is_refused);
            if !is_dead {
                return Err(ErrorKind::AddrInUse.into());
            }
            std::fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        // Connecting needs the right to write, although nothing is ever read.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }

    /// Sends the status to waiting clients, to so many at once that nobody can keep the caller here; one that cannot
    /// take it at once gets none.
    pub fn answer(&self, status: impl Fn() -> Value) {
        for _ in 0..ANSWERS_AT_ONCE {
            let Ok((mut stream, _)) = self.listener.accept() else {
                break;
            };
            let line = format!("{}\n", status());
            let _ = stream
                .set_nonblocking(true)
                .and_then(|()| stream.write_all(line.as_bytes()));
        }
    }
}

impl Drop for StatusSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Reads the status of a running daemon.
///
/// # Errors
/// The system's error, when nobody listens or answers within two seconds.
pub fn ask(path: &Path) -> std::io::Result<String> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut answer = String::new();
    stream
        .take(ANSWER_LIMIT_BYTES)
        .read_to_string(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whoever_connects_reads_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("status");
        let socket = StatusSocket::open(&path).unwrap();
        assert!(
            StatusSocket::open(&path).is_err(),
            "another daemon listens there"
        );
        let asker = {
            let path = path.clone();
            std::thread::spawn(move || ask(&path).unwrap())
        };
        while !asker.is_finished() {
            socket.answer(|| json!({"status": "ok"}));
        }
        assert_eq!(asker.join().unwrap(), "{\"status\":\"ok\"}\n");
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("status");
        std::mem::forget(UnixListener::bind(&path).unwrap().set_nonblocking(true));
        StatusSocket::open(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        assert!(StatusSocket::open(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
