//! A folder of pictures: a recording with its times, or one that another program fills now.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::warn;

use super::{ImagesConfig, ImagesMode};
use crate::event::{CameraFrame, Event};
use crate::peer::Playback;
use crate::port::{PeerError, Reader};

/// A picture larger than this is not one a camera made.
const IMAGE_LIMIT_BYTES: u64 = 64 << 20;
/// How often a watched folder is listed.
const WATCH_INTERVAL: Duration = Duration::from_millis(50);
/// Reads of a picture that is still being written, before it is given up.
const UNFINISHED_TRIES: u32 = 20;

/// The time in the name of a picture, `1700000000123456789.jpg`; `None` for other files.
pub fn image_time_ns(path: &Path) -> Option<i64> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    let known = matches!(extension.as_str(), "jpg" | "jpeg" | "png");
    known
        .then(|| path.file_stem()?.to_str()?.parse().ok())
        .flatten()
}

/// Delivers the pictures of a folder.
pub struct ImagesReader {
    config: ImagesConfig,
    playback: Playback,
    queue: VecDeque<(i64, PathBuf)>,
    last_ns: i64,
    tries: u32,
}

impl ImagesReader {
    /// Lists the folder or reads its index.
    pub fn open(config: &ImagesConfig, playback: Playback) -> Result<Self, PeerError> {
        let queue = match &config.index {
            Some(index) => read_index(index, &config.folder)?,
            None => list(&config.folder, i64::MIN)?,
        };
        let mut source = Self {
            config: config.clone(),
            playback,
            queue: queue.into(),
            last_ns: i64::MIN,
            tries: 0,
        };
        if config.mode == ImagesMode::Watch {
            source.last_ns = source
                .queue
                .back()
                .map_or(i64::MIN, |(time_ns, _)| *time_ns);
            source.queue.clear();
        }
        Ok(source)
    }

    /// The bytes of a picture; `None` while it is still being written.
    fn load(path: &Path) -> Result<Option<Vec<u8>>, String> {
        let size = std::fs::metadata(path)
            .map_err(|error| error.to_string())?
            .len();
        if size > IMAGE_LIMIT_BYTES {
            return Err(format!(
                "has {size} bytes; at most {IMAGE_LIMIT_BYTES} are read"
            ));
        }
        let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
        let tail = &bytes[bytes.len().saturating_sub(16)..];
        let finished = tail.windows(2).any(|pair| pair == [0xff, 0xd9])
            || tail.windows(4).any(|four| four == b"IEND");
        Ok(finished.then_some(bytes))
    }
}

impl Reader for ImagesReader {
    fn next(&mut self) -> Result<Option<Event>, PeerError> {
        let watching = self.config.mode == ImagesMode::Watch;
        let Some((time_ns, path)) = self.queue.pop_front() else {
            if !watching {
                return Err(PeerError::Ended);
            }
            std::thread::sleep(WATCH_INTERVAL);
            self.queue = list(&self.config.folder, self.last_ns)?.into();
            return Ok(None);
        };
        if !watching && !self.playback.wait_for(time_ns) {
            self.queue.push_front((time_ns, path));
            return Ok(None);
        }
        self.tries += 1;
        let loaded = match Self::load(&path) {
            Ok(None) if watching && self.tries < UNFINISHED_TRIES => {
                self.queue.push_front((time_ns, path));
                std::thread::sleep(WATCH_INTERVAL);
                return Ok(None);
            }
            Ok(None) => Err("ends in the middle of the picture".into()),
            Ok(Some(bytes)) => Ok(bytes),
            Err(reason) => Err(reason),
        };
        self.tries = 0;
        self.last_ns = time_ns;
        match loaded {
            Ok(bytes) => Ok(Some(Event::Frame(CameraFrame {
                time_ns,
                image: bytes.into(),
                camera: self.config.name.clone(),
            }))),
            Err(reason) => {
                warn!(
                    source = self.config.name,
                    ?path,
                    reason,
                    "a picture is passed over"
                );
                Ok(None)
            }
        }
    }
}

/// Pictures of the folder that are newer than `after_ns`, in order of time.
fn list(folder: &Path, after_ns: i64) -> Result<Vec<(i64, PathBuf)>, PeerError> {
    let entries =
        std::fs::read_dir(folder).map_err(PeerError::io(format!("listing {folder:?}")))?;
    let mut images: Vec<_> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            Some((
                image_time_ns(&path).filter(|time_ns| *time_ns > after_ns)?,
                path,
            ))
        })
        .collect();
    images.sort();
    Ok(images)
}

fn read_index(index: &Path, folder: &Path) -> Result<Vec<(i64, PathBuf)>, PeerError> {
    let text =
        std::fs::read_to_string(index).map_err(PeerError::io(format!("reading {index:?}")))?;
    let mut images = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        let header = number == 0 && line.starts_with("time_ns");
        if line.is_empty() || line.starts_with('#') || header {
            continue;
        }
        let entry = line
            .split_once(',')
            .and_then(|(time, file)| Some((time.trim().parse().ok()?, folder.join(file.trim()))));
        images.push(entry.ok_or_else(|| {
            PeerError::Protocol(format!(
                "{index:?} line {}: {line:?} is not `time_ns,file`",
                number + 1
            ))
        })?);
    }
    images.sort();
    Ok(images)
}

#[cfg(test)]
mod tests {
    use super::*;

    const JPEG: &[u8] = b"\xff\xd8 picture \xff\xd9";

    fn times(source: &mut ImagesReader) -> Vec<i64> {
        let mut times = Vec::new();
        for _ in 0..30 {
            match source.next() {
                Ok(Some(event)) => times.push(event.time_ns()),
                Ok(None) => {}
                Err(PeerError::Ended) => break,
                Err(error) => panic!("{error}"),
            }
        }
        times
    }

    #[test]
    fn a_recording_comes_in_order_of_time_whatever_the_names_look_like() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["1000.jpg", "900.JPG", "1001.png", "readme.txt", "front.jpg"] {
            std::fs::write(folder.path().join(name), JPEG).unwrap();
        }
        std::fs::write(folder.path().join("1002.jpg"), b"\xff\xd8 half").unwrap();
        let config = ImagesConfig {
            folder: folder.path().into(),
            mode: ImagesMode::Paced,
            ..Default::default()
        };
        assert_eq!(
            times(&mut ImagesReader::open(&config, Playback::default()).unwrap()),
            [900, 1000, 1001]
        );
    }

    #[test]
    fn a_watched_folder_delivers_what_appears() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("1.jpg"), JPEG).unwrap();
        let config = ImagesConfig {
            folder: folder.path().into(),
            ..Default::default()
        };
        let mut source = ImagesReader::open(&config, Playback::default()).unwrap();
        std::fs::write(folder.path().join("2.jpg"), JPEG).unwrap();
        assert_eq!(times(&mut source), [2]);
    }

    #[test]
    fn a_bad_line_of_an_index_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let index = folder.path().join("index.csv");
        std::fs::write(&index, "time_ns,file\n5, b.jpg\nlater,c.jpg\n").unwrap();
        let error = read_index(&index, folder.path()).unwrap_err().to_string();
        assert!(error.contains("line 3"), "{error}");
        std::fs::write(&index, "time_ns,file\n5, b.jpg\n4,a.jpg\n").unwrap();
        assert_eq!(
            read_index(&index, folder.path()).unwrap()[0],
            (4, folder.path().join("a.jpg"))
        );
    }
}
