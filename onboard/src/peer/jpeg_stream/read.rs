//! The bytes of the stream, from standard input or whoever is connected.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::{info, warn};

use super::JpegStreamConfig;
use super::split::JpegSplitter;
use crate::event::{CameraFrame, Event};
use crate::pipeline::boot_time_ns;
use crate::port::{PeerError, READ_PATIENCE, Reader};
use crate::transport::is_timeout;
use crate::transport::unix::{self, Bound};

/// Bytes read at a time.
const READ_BYTES: usize = 256 << 10;

/// Reads pictures from a stream.
pub struct JpegStreamReader {
    name: String,
    delay_ns: i64,
    input: Input,
    splitter: JpegSplitter,
    told_cut: u64,
    waiting: VecDeque<Event>,
    buffer: Vec<u8>,
}

enum Input {
    Standard(File),
    Socket(Bound<UnixListener>, Option<UnixStream>),
}

impl JpegStreamReader {
    /// Listens where the config says.
    pub fn open(config: &JpegStreamConfig) -> Result<Self, PeerError> {
        let input = match &config.unix_stream {
            Some(path) => Input::Socket(unix::listener(path)?, None),
            None => {
                // A handle of its own: the standard one holds bytes back that cannot be waited for.
                let own = std::io::stdin().as_fd().try_clone_to_owned();
                Input::Standard(own.map_err(PeerError::io("standard input"))?.into())
            }
        };
        Ok(Self::new(config, input))
    }

    fn new(config: &JpegStreamConfig, input: Input) -> Self {
        Self {
            name: config.name.clone(),
            delay_ns: (config.delay_s * 1e9) as i64,
            input,
            splitter: JpegSplitter::default(),
            told_cut: 0,
            waiting: VecDeque::new(),
            buffer: vec![0; READ_BYTES],
        }
    }

    /// Waits until something can be read, at most for [`READ_PATIENCE`]; whether it can.
    fn wait(&self) -> bool {
        let sources: Vec<BorrowedFd<'_>> = match &self.input {
            Input::Standard(file) => vec![file.as_fd()],
            Input::Socket(listener, sender) => std::iter::once(listener.socket.as_fd())
                .chain(sender.as_ref().map(AsFd::as_fd))
                .collect(),
        };
        let mut polled: Vec<PollFd<'_>> = sources
            .iter()
            .map(|source| PollFd::new(source, PollFlags::IN))
            .collect();
        let patience = Timespec {
            tv_sec: 0,
            tv_nsec: READ_PATIENCE.subsec_nanos().into(),
        };
        poll(&mut polled, Some(&patience)).is_ok_and(|ready| ready > 0)
    }

    fn read(&mut self) -> Result<(), PeerError> {
        let count = match &mut self.input {
            Input::Standard(file) => match file.read(&mut self.buffer) {
                Ok(0) => return Err(PeerError::Ended),
                read => read,
            },
            Input::Socket(listener, sender) => {
                if let Ok((stream, _)) = listener.socket.accept()
                    && stream.set_nonblocking(true).is_ok()
                {
                    info!(source = self.name, "a camera connected");
                    *sender = Some(stream);
                    self.splitter.start_over();
                }
                let Some(stream) = sender else { return Ok(()) };
                let read = stream.read(&mut self.buffer);
                if matches!(read, Ok(0)) {
                    *sender = None;
                }
                read
            }
        };
        match count {
            Ok(count) => self.splitter.push(&self.buffer[..count]),
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(PeerError::io("receiving pictures")(error)),
        }
        let time_ns = boot_time_ns() - self.delay_ns;
        while let Some(picture) = self.splitter.next_picture() {
            self.waiting.push_back(Event::Frame(CameraFrame {
                time_ns,
                image: picture.into(),
                camera: self.name.clone(),
            }));
        }
        // Of several that were read at once only the last is new.
        let old = self.waiting.len().saturating_sub(1);
        self.waiting.drain(..old);
        let count = self.splitter.cut;
        if count != self.told_cut && count.is_power_of_two() {
            warn!(
                source = self.name,
                count, "pictures were cut and are left out"
            );
        }
        self.told_cut = count;
        Ok(())
    }
}

impl Reader for JpegStreamReader {
    fn next(&mut self) -> Result<Option<Event>, PeerError> {
        if self.waiting.is_empty() && self.wait() {
            self.read()?;
        }
        Ok(self.waiting.pop_front())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::{Duration, Instant};

    use super::*;

    const JPEG: &[u8] = b"\xff\xd8\xff\xe0\0\x04ab\xff\xda\0\x02pixels\xff\xd9";

    fn next_frame(reader: &mut JpegStreamReader) -> Option<CameraFrame> {
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end {
            if let Some(Event::Frame(frame)) = reader.next().unwrap() {
                return Some(frame);
            }
        }
        None
    }

    #[test]
    fn a_camera_connects_leaves_in_the_middle_and_comes_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("front.sock");
        let config = JpegStreamConfig {
            name: "front".into(),
            unix_stream: Some(path.clone()),
            ..JpegStreamConfig::default()
        };
        let mut reader = JpegStreamReader::open(&config).unwrap();
        for _ in 0..3 {
            let before_ns = boot_time_ns();
            let mut camera = UnixStream::connect(&path).unwrap();
            camera.write_all(JPEG).unwrap();
            camera.write_all(&JPEG[..9]).unwrap();
            let frame = next_frame(&mut reader).unwrap();
            assert_eq!((&*frame.image, frame.camera.as_str()), (JPEG, "front"));
            assert!(frame.time_ns >= before_ns - 100_000_000);
            assert!(frame.time_ns <= boot_time_ns() - 100_000_000);
        }
    }

    #[test]
    fn the_end_of_a_pipe_is_the_end_and_of_pictures_at_once_the_last_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stream");
        std::fs::write(
            &path,
            [JPEG, JPEG, b"--boundary", JPEG, &JPEG[..4]].concat(),
        )
        .unwrap();
        let input = Input::Standard(File::open(path).unwrap());
        let mut reader = JpegStreamReader::new(&JpegStreamConfig::default(), input);
        assert!(matches!(reader.next(), Ok(Some(Event::Frame(_)))));
        assert!(matches!(reader.next(), Err(PeerError::Ended)));
    }
}
