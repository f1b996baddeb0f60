//! The files behind the name of a log: one MCAP file, or the folder of a ROS 2 bag with several.

use std::path::{Path, PathBuf};

use super::LogError;

/// The MCAP files of a log, in the order of their numbers: a ROS 2 bag is a folder whose recorder begins a
/// new file, `drive_0.mcap`, `drive_1.mcap`, …, when one is long enough.
///
/// # Errors
/// [`LogError::Io`] when it cannot be opened, [`LogError::Unsupported`] when there is no MCAP file.
pub fn files_of(path: &Path) -> Result<Vec<PathBuf>, LogError> {
    let fail = |source| LogError::Io {
        path: path.to_owned(),
        source,
    };
    if !std::fs::metadata(path).map_err(fail)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    let mut others = Vec::new();
    for entry in std::fs::read_dir(path).map_err(fail)? {
        let file = entry.map_err(fail)?.path();
        let extension = file.extension().unwrap_or_default();
        if extension == "mcap" {
            files.push(file);
        } else if extension == "db3" || extension == "zstd" {
            others.push(extension.to_string_lossy().into_owned());
        }
    }
    if files.is_empty() {
        let reason = if others.iter().any(|extension| extension == "db3") {
            "is a ROS 2 bag in SQLite; convert it to MCAP with `ros2 bag convert`, or with Python's \
             rosbags: `rosbags-convert --src BAG --dst NEW --dst-storage mcap`"
        } else if !others.is_empty() {
            "is a ROS 2 bag whose files are compressed as a whole; unpack them with `unzstd`"
        } else {
            "is a folder without any .mcap file"
        };
        return Err(LogError::Unsupported {
            path: path.to_owned(),
            reason: reason.to_owned(),
        });
    }
    files.sort_by_key(|file| (number_of(file), file.clone()));
    Ok(files)
}

/// The number at the end of a file's name.
fn number_of(file: &Path) -> u64 {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let digits = stem.trim_end_matches(|letter: char| letter.is_ascii_digit());
    stem[digits.len()..].parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_a_bag_come_in_the_order_of_their_numbers() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "drive_10.mcap",
            "drive_2.mcap",
            "drive_0.mcap",
            "metadata.yaml",
        ] {
            std::fs::write(folder.path().join(name), b"").unwrap();
        }
        let files = files_of(folder.path()).unwrap();
        let names: Vec<_> = files.iter().map(|file| file.file_name().unwrap()).collect();
        assert_eq!(names, ["drive_0.mcap", "drive_2.mcap", "drive_10.mcap"]);
        assert_eq!(files_of(&files[1]).unwrap(), [files[1].clone()]);
    }

    #[test]
    fn a_bag_of_another_storage_is_refused_with_what_to_do() {
        for (name, words) in [
            ("drive_0.db3", "convert"),
            ("drive_0.mcap.zstd", "unzstd"),
            ("notes.txt", "without any"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join(name), b"").unwrap();
            let message = files_of(folder.path()).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        }
        assert!(files_of(Path::new("/no/such/bag")).is_err());
    }
}
