//! A folder of pictures: a recording with its times, or one that another program fills now.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::watch::Watch;
use super::{ImagesConfig, ImagesMode};
use crate::event::{CameraFrame, Event};
use crate::peer::Playback;
use crate::port::{PeerError, READ_PATIENCE, Reader};
use crate::transport::file;

/// A picture larger than this is not one a camera made.
const IMAGE_LIMIT_BYTES: u64 = 64 << 20;
/// An index larger than this is not one, bytes.
const INDEX_LIMIT_BYTES: u64 = 256 << 20;
/// Wait between reads of a picture that is still being written, and how many there are before it is
/// given up.
const UNFINISHED_WAIT: Duration = Duration::from_millis(50);
const UNFINISHED_TRIES: u32 = 20;
/// Pictures that are being written at the same time; more, and the oldest is given up.
const MOST_UNFINISHED: usize = 64;
/// Pictures that are remembered, since they may be told twice.
const DONE: usize = 256;
/// Pictures that are passed over are told one by one up to here, and then every so many.
const PASSED_OVER_TOLD: u64 = 10;

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
    name: String,
    pictures: Pictures,
    passed_over: u64,
}

enum Pictures {
    /// With their times, and the clock that recordings share.
    Recorded(VecDeque<(i64, PathBuf)>, Playback),
    /// As they appear.
    Watched(Box<Watched>),
}

struct Watched {
    watch: Watch,
    /// Those that are not whole yet.
    unfinished: VecDeque<Unfinished>,
    /// Those that were delivered or passed over lately; they may be told again.
    done: VecDeque<PathBuf>,
}

/// A picture that is being written.
struct Unfinished {
    path: PathBuf,
    tries: u32,
    next_try: Instant,
}

impl ImagesReader {
    /// Lists the folder or reads its index, or begins to watch it.
    pub fn open(config: &ImagesConfig, playback: Playback) -> Result<Self, PeerError> {
        let pictures = match (config.mode, &config.index) {
            (ImagesMode::Watch, _) => Pictures::Watched(Box::new(Watched {
                watch: Watch::open(&config.folder)?,
                unfinished: VecDeque::new(),
                done: VecDeque::new(),
            })),
            (ImagesMode::Paced, Some(index)) => {
                Pictures::Recorded(read_index(index, &config.folder)?.into(), playback)
            }
            (ImagesMode::Paced, None) => Pictures::Recorded(list(&config.folder)?.into(), playback),
        };
        Ok(Self {
            name: config.name.clone(),
            pictures,
            passed_over: 0,
        })
    }

    fn frame(&self, time_ns: i64, bytes: Vec<u8>) -> Event {
        Event::Frame(CameraFrame {
            time_ns,
            image: bytes.into(),
            camera: self.name.clone(),
        })
    }

    fn pass_over(&mut self, path: &Path, reason: &str) {
        self.passed_over += 1;
        let (source, count) = (self.name.as_str(), self.passed_over);
        if count <= PASSED_OVER_TOLD || count.is_power_of_two() {
            warn!(source, ?path, reason, count, "a picture is passed over");
        } else {
            debug!(source, ?path, reason, count, "a picture is passed over");
        }
    }

    /// The next picture of the recording, when it is due.
    fn recorded(&mut self) -> Result<Option<Event>, PeerError> {
        let Pictures::Recorded(queue, playback) = &mut self.pictures else {
            return Ok(None);
        };
        let (time_ns, path) = queue.pop_front().ok_or(PeerError::Ended)?;
        if !playback.wait_for(time_ns) {
            queue.push_front((time_ns, path));
            return Ok(None);
        }
        match load(&path) {
            Ok(Some(bytes)) => return Ok(Some(self.frame(time_ns, bytes))),
            Ok(None) => self.pass_over(&path, "ends in the middle of the picture"),
            Err(reason) => self.pass_over(&path, &reason),
        }
        Ok(None)
    }

    /// The next picture that appears, in the order in which they do.
    fn watched(&mut self) -> Result<Option<Event>, PeerError> {
        let Pictures::Watched(watched) = &mut self.pictures else {
            return Ok(None);
        };
        let Some((path, tries)) = watched.next()? else {
            return Ok(None);
        };
        let Some(time_ns) = image_time_ns(&path) else {
            return Ok(None);
        };
        match load(&path) {
            Ok(Some(bytes)) => {
                watched.is_done(path);
                Ok(Some(self.frame(time_ns, bytes)))
            }
            Ok(None) if tries < UNFINISHED_TRIES && watched.unfinished.len() < MOST_UNFINISHED => {
                watched.unfinished.push_back(Unfinished {
                    path,
                    tries,
                    next_try: Instant::now() + UNFINISHED_WAIT,
                });
                Ok(None)
            }
            Ok(None) => {
                // If it is told once more when its writer closes it, it is read once more.
                self.pass_over(&path, "ends in the middle of the picture");
                Ok(None)
            }
            // A writer that moves its pictures into place takes the old name away.
            Err(_) if !path.exists() => Ok(None),
            Err(reason) => {
                watched.is_done(path.clone());
                self.pass_over(&path, &reason);
                Ok(None)
            }
        }
    }
}

impl Watched {
    /// A picture to read, and how often that was tried with this time.
    fn next(&mut self) -> Result<Option<(PathBuf, u32)>, PeerError> {
        let now = Instant::now();
        let due = self.unfinished.iter().position(|one| one.next_try <= now);
        if let Some(one) = due.and_then(|index| self.unfinished.remove(index)) {
            return Ok(Some((one.path, one.tries + 1)));
        }
        let next_try = self.unfinished.iter().map(|one| one.next_try).min();
        let wait = next_try.map_or(READ_PATIENCE, |at| at - now);
        let Some(path) = self.watch.next(wait.min(READ_PATIENCE))? else {
            return Ok(None);
        };
        self.unfinished.retain(|one| one.path != path);
        Ok((!self.done.contains(&path)).then_some((path, 1)))
    }

    fn is_done(&mut self, path: PathBuf) {
        self.done.push_back(path);
        if self.done.len() > DONE {
            self.done.pop_front();
        }
    }
}

impl Reader for ImagesReader {
    fn next(&mut self) -> Result<Option<Event>, PeerError> {
        match self.pictures {
            Pictures::Recorded(..) => self.recorded(),
            Pictures::Watched(_) => self.watched(),
        }
    }
}

/// The bytes of a picture; `None` while it is still being written.
fn load(path: &Path) -> Result<Option<Vec<u8>>, String> {
    let bytes = file::read(path, IMAGE_LIMIT_BYTES).map_err(|error| error.to_string())?;
    // Some cameras pad their pictures with zeros.
    let end = bytes.iter().rposition(|byte| *byte != 0);
    let end = end.map_or(0, |at| at + 1);
    let tail = &bytes[end.saturating_sub(16)..end];
    let finished = tail.windows(2).any(|pair| pair == [0xff, 0xd9])
        || tail.windows(4).any(|four| four == b"IEND");
    Ok(finished.then_some(bytes))
}

/// Pictures of the folder in order of time.
fn list(folder: &Path) -> Result<Vec<(i64, PathBuf)>, PeerError> {
    let entries =
        std::fs::read_dir(folder).map_err(PeerError::io(format!("listing {folder:?}")))?;
    let mut images: Vec<_> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            Some((image_time_ns(&path)?, path))
        })
        .collect();
    images.sort();
    Ok(images)
}

fn read_index(index: &Path, folder: &Path) -> Result<Vec<(i64, PathBuf)>, PeerError> {
    let text = file::read_text(index, INDEX_LIMIT_BYTES)
        .map_err(|error| PeerError::io(format!("reading {index:?}"))(error.into()))?;
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
    fn a_picture_that_is_padded_is_whole_and_a_cut_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.jpg");
        let mut padded = JPEG.to_vec();
        padded.resize(JPEG.len() + 4096, 0);
        std::fs::write(&path, &padded).unwrap();
        assert_eq!(load(&path).unwrap(), Some(padded));
        for cut in [&b"\xff\xd8 half\0\0\0\0"[..], b"\0\0\0", b""] {
            std::fs::write(&path, cut).unwrap();
            assert_eq!(load(&path).unwrap(), None, "{cut:?}");
        }
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

    fn watching(folder: &Path) -> ImagesReader {
        let config = ImagesConfig {
            folder: folder.into(),
            ..Default::default()
        };
        ImagesReader::open(&config, Playback::default()).unwrap()
    }

    #[test]
    fn no_name_hides_the_pictures_that_come_after_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("9000000000000000000.jpg"), JPEG).unwrap();
        let mut source = watching(folder.path());
        for name in ["50.jpg", "8999999999999999999.png", "51.jpg", "7.jpg"] {
            std::fs::write(folder.path().join(name), JPEG).unwrap();
        }
        assert_eq!(times(&mut source), [50, 8_999_999_999_999_999_999, 51, 7]);
        // Another program writes under another name and moves it into place.
        let half = folder.path().join("60.jpg.tmp");
        std::fs::write(&half, JPEG).unwrap();
        std::fs::rename(&half, folder.path().join("60.jpg")).unwrap();
        assert_eq!(times(&mut source), [60]);
    }

    #[test]
    fn a_picture_that_is_written_slowly_comes_when_it_is_whole_and_holds_up_no_other() {
        use std::io::Write;
        let folder = tempfile::tempdir().unwrap();
        let mut source = watching(folder.path());
        let mut slow = std::fs::File::create(folder.path().join("1.jpg")).unwrap();
        slow.write_all(b"\xff\xd8 half").unwrap();
        std::fs::write(folder.path().join("2.jpg"), JPEG).unwrap();
        let mut found = Vec::new();
        let begun = Instant::now();
        while found.len() < 2 && begun.elapsed() < Duration::from_secs(5) {
            found.extend(source.next().unwrap().map(|event| event.time_ns()));
            if found == [2] {
                slow.write_all(JPEG).unwrap();
            }
        }
        assert_eq!(found, [2, 1]);
    }

    #[test]
    fn what_is_no_file_or_never_ends_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let mut source = watching(folder.path());
        let made = std::process::Command::new("mkfifo")
            .arg(folder.path().join("1.jpg"))
            .status();
        assert!(made.unwrap().success());
        std::os::unix::fs::symlink("/dev/zero", folder.path().join("2.jpg")).unwrap();
        std::fs::create_dir(folder.path().join("3.jpg")).unwrap();
        let huge = std::fs::File::create(folder.path().join("4.jpg")).unwrap();
        huge.set_len(1 << 40).unwrap();
        std::fs::write(folder.path().join("5.jpg"), JPEG).unwrap();
        let begun = Instant::now();
        assert_eq!(times(&mut source), [5]);
        assert!(begun.elapsed() < Duration::from_secs(10));
        assert_eq!(source.passed_over, 3, "the folder is not even told");
    }

    #[test]
    fn a_folder_that_was_made_anew_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let frames = folder.path().join("frames");
        std::fs::create_dir(&frames).unwrap();
        let mut source = watching(&frames);
        std::fs::remove_dir(&frames).unwrap();
        std::fs::create_dir(&frames).unwrap();
        let begun = Instant::now();
        while source.next().is_ok() {
            assert!(begun.elapsed() < Duration::from_secs(5), "it is an error");
        }
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
