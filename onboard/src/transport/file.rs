//! Whole files, read with limits: what is no regular file, or larger than it may be, is refused.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A folder, a pipe, a socket or a device.
    #[error("is no regular file")]
    NotRegular,
    /// More bytes than allowed.
    #[error("has more than {0} bytes, which is the most that is read")]
    TooLarge(u64),
    /// The system's error.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl From<FileError> for std::io::Error {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Io(error) => error,
            other => Self::new(std::io::ErrorKind::InvalidData, other.to_string()),
        }
    }
}

/// Opens a regular file. A pipe or a device is neither waited for nor touched.
///
/// # Errors
/// [`FileError`]
pub fn open(path: &Path) -> Result<File, FileError> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(FileError::NotRegular);
    }
    // It may have been replaced since.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(FileError::NotRegular);
    }
    Ok(file)
}

/// The bytes of a regular file, `limit_bytes` at most.
///
/// # Errors
/// [`FileError`]
pub fn read(path: &Path, limit_bytes: u64) -> Result<Vec<u8>, FileError> {
    let file = open(path)?;
    let size = file.metadata()?.len();
    if size > limit_bytes {
        return Err(FileError::TooLarge(limit_bytes));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    // It may grow, and some files say they are empty and never end.
    file.take(limit_bytes.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit_bytes {
        return Err(FileError::TooLarge(limit_bytes));
    }
    Ok(bytes)
}

/// The text of a regular file, `limit_bytes` at most.
///
/// # Errors
/// [`FileError`], also when it is not UTF-8.
pub fn read_text(path: &Path, limit_bytes: u64) -> Result<String, FileError> {
    String::from_utf8(read(path, limit_bytes)?).map_err(|error| {
        std::io::Error::new(std::io::ErrorKind::InvalidData, error.utf8_error()).into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_devices_folders_and_large_files_are_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, b"12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        assert!(matches!(read(&path, 4), Err(FileError::TooLarge(4))));
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
        for path in [&pipe, &link, &folder.path().to_owned()] {
            assert!(
                matches!(read(path, 1 << 20), Err(FileError::NotRegular)),
                "{path:?}"
            );
        }
        // A file that says that it is empty, and is not.
        let mounts = read(Path::new("/proc/self/mounts"), 1 << 20).unwrap();
        assert!(!mounts.is_empty());
        assert!(read(Path::new("/proc/self/mounts"), 3).is_err());
    }
}
