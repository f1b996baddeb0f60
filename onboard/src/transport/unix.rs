//! Unix sockets in the file system: a socket that a dead program left behind is replaced, anything else
//! is not.

use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::port::PeerError;

/// A socket and its path, which is removed in the end.
#[derive(Debug)]
pub struct Bound<T> {
    /// The socket.
    pub socket: T,
    path: PathBuf,
}

impl<T> Drop for Bound<T> {
    fn drop(&mut self) {
        // If this fails, the next start replaces it.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Receives datagrams at this path.
///
/// # Errors
/// [`PeerError::Io`] when another program has it, or it cannot be made.
pub fn datagrams(path: &Path) -> Result<Bound<UnixDatagram>, PeerError> {
    bind(path, |path| {
        let probe = UnixDatagram::unbound()?;
        probe.connect(path)
    })?;
    bound(path, UnixDatagram::bind(path))
}

/// Accepts connections at this path.
///
/// # Errors
/// As [`datagrams`].
pub fn listener(path: &Path) -> Result<Bound<UnixListener>, PeerError> {
    bind(path, |path| UnixStream::connect(path).map(drop))?;
    let listener = UnixListener::bind(path);
    bound(
        path,
        listener.and_then(|listener| listener.set_nonblocking(true).map(|()| listener)),
    )
}

fn bound<T>(path: &Path, socket: std::io::Result<T>) -> Result<Bound<T>, PeerError> {
    let socket = socket.map_err(PeerError::io(format!("listening on {path:?}")))?;
    Ok(Bound {
        socket,
        path: path.to_owned(),
    })
}

/// Makes room for a new socket.
fn bind(path: &Path, ask: impl Fn(&Path) -> std::io::Result<()>) -> Result<(), PeerError> {
    let fail = || PeerError::io(format!("listening on {path:?}"));
    let Ok(found) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !found.file_type().is_socket() {
        return Err(PeerError::Protocol(format!(
            "{path:?} is there and is no socket; remove it or choose another path"
        )));
    }
    // Refused is what a socket answers that nobody has; one of another kind or user may live.
    let is_dead = ask(path).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
    if !is_dead {
        return Err(fail()(ErrorKind::AddrInUse.into()));
    }
    std::fs::remove_file(path).map_err(fail())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_socket_is_replaced_and_a_living_one_or_a_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        drop(UnixDatagram::bind(&path).unwrap());
        assert!(path.exists());
        let living = datagrams(&path).unwrap();
        assert!(datagrams(&path).is_err());
        drop(living);
        assert!(!path.exists());
        let living = listener(&path).unwrap();
        assert!(listener(&path).is_err());
        // A living socket of the other kind.
        assert!(datagrams(&path).is_err());
        drop(living);
        let living = datagrams(&path).unwrap();
        assert!(listener(&path).is_err() && path.exists());
        drop(living);
        std::fs::write(&path, b"mine").unwrap();
        assert!(listener(&path).is_err() && datagrams(&path).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    }
}
