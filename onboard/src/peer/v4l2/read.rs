//! Pictures out of an open camera, whichever driver is behind it.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::V4l2Config;
use super::pixels::Layout;
use super::stamp::{Now, Stamp};
use crate::event::{CameraFrame, Event};
use crate::port::{PeerError, READ_PATIENCE, Reader};

/// How long damaged pictures are mentioned in the status.
const DAMAGE_TOLD: Duration = Duration::from_secs(10);

/// Buffers that are passed over when they were all full already; no driver has more waiting.
const MOST_PASSED_OVER: usize = 32;

/// An open camera that streams.
pub trait Capture: Send {
    /// Whether a buffer is full, or the camera has failed; waits for that, at most for `patience`.
    ///
    /// # Errors
    /// The system's.
    fn wait(&mut self, patience: Duration) -> io::Result<bool>;

    /// The next full buffer, which goes back to the driver with the call after this one.
    ///
    /// # Errors
    /// The system's: the camera is gone, or was stopped.
    fn take(&mut self) -> io::Result<Taken<'_>>;
}

/// A full buffer.
pub struct Taken<'a> {
    /// What the driver wrote.
    pub bytes: &'a [u8],
    /// When the picture was taken.
    pub stamp: Stamp,
    /// Whether the driver knows that bytes are wrong or missing.
    pub damaged: bool,
}

/// Delivers the pictures of a camera.
pub struct V4l2Reader<C> {
    name: String,
    device: PathBuf,
    delay_ns: i64,
    silence: Duration,
    layout: Layout,
    capture: C,
    /// What was in the buffer that was taken last.
    bytes: Vec<u8>,
    /// When the last usable picture came, or the camera was opened.
    last: Instant,
    told_stamps: bool,
    damaged: u64,
    damaged_at: Option<Instant>,
    remark: String,
}

impl<C: Capture> V4l2Reader<C> {
    /// Reads a camera that was just opened and delivers pictures of this layout.
    pub fn new(config: &V4l2Config, layout: Layout, capture: C) -> Self {
        Self {
            name: config.name.clone(),
            device: config.device.clone(),
            delay_ns: (config.delay_s * 1e9) as i64,
            silence: Duration::from_secs_f64(config.silence_s),
            layout,
            capture,
            bytes: Vec::new(),
            last: Instant::now(),
            told_stamps: false,
            damaged: 0,
            damaged_at: None,
            remark: String::new(),
        }
    }

    fn fail(&self) -> impl FnOnce(io::Error) -> PeerError + use<C> {
        let device = self.device.clone();
        move |error| PeerError::Protocol(format!("camera {device:?} {}", explained(&error)))
    }

    /// The newest of the buffers that are full: when it was taken, and whether it is damaged. A reader that fell
    /// behind does not stay behind.
    fn take(&mut self) -> io::Result<(Stamp, bool)> {
        let mut passed_over = 0;
        loop {
            let taken = self.capture.take()?;
            let about = (taken.stamp, taken.damaged);
            self.bytes.clear();
            self.bytes.extend_from_slice(taken.bytes);
            if passed_over == MOST_PASSED_OVER || !self.capture.wait(Duration::ZERO)? {
                return Ok(about);
            }
            passed_over += 1;
        }
    }

    fn tell_stamps(&mut self, stamp: Stamp, now: Now) {
        if std::mem::replace(&mut self.told_stamps, true) {
            return;
        }
        let source = self.name.as_str();
        if stamp.is_usable(now) {
            let age_s = now.monotonic_ns.saturating_sub(stamp.time_ns) as f64 * 1e-9;
            let moment = stamp.moment.as_str();
            info!(source, moment, age_s, "stamps are the driver's");
        } else {
            let ahead_s = stamp.time_ns.saturating_sub(now.monotonic_ns) as f64 * 1e-9;
            warn!(
                source,
                clock = ?stamp.clock,
                ahead_s,
                "its driver's stamps are not of the monotonic clock, or ahead of it; pictures are stamped as they arrive"
            );
        }
    }

    fn note_damage(&mut self, reason: &str) {
        self.damaged += 1;
        self.damaged_at = Some(Instant::now());
        let count = self.damaged;
        self.remark = format!("{count} damaged pictures were left out: {reason}");
        if count.is_power_of_two() {
            let source = self.name.as_str();
            warn!(source, reason, count, "a damaged picture is left out");
        }
    }

    /// Nothing usable came; an error when that has lasted too long.
    fn nothing(&self) -> Result<Option<Event>, PeerError> {
        if self.last.elapsed() < self.silence {
            return Ok(None);
        }
        Err(PeerError::Protocol(format!(
            "camera {:?} is open and has delivered nothing usable for {} s; it is opened anew",
            self.device,
            self.silence.as_secs_f64()
        )))
    }
}

impl<C: Capture> Reader for V4l2Reader<C> {
    fn next(&mut self) -> Result<Option<Event>, PeerError> {
        let fail = self.fail();
        match self.capture.wait(READ_PATIENCE) {
            Ok(true) => {}
            Ok(false) => return self.nothing(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(None),
            Err(error) => return Err(fail(error)),
        }
        let (stamp, damaged) = self.take().map_err(fail)?;
        let now = Now::read();
        let picture = if damaged {
            Err("its driver says so".to_owned())
        } else {
            self.layout.picture(&self.bytes)
        };
        let image = match picture {
            Ok(image) => image.into(),
            Err(reason) => {
                self.note_damage(&reason);
                return self.nothing();
            }
        };
        self.last = Instant::now();
        self.tell_stamps(stamp, now);
        Ok(Some(Event::Frame(CameraFrame {
            time_ns: stamp.boot_ns(now) - self.delay_ns,
            image,
            camera: self.name.clone(),
        })))
    }

    fn remark(&self) -> Option<&str> {
        let told = self.damaged_at.is_some_and(|at| at.elapsed() < DAMAGE_TOLD);
        told.then_some(&self.remark)
    }
}

/// What a system error means for a camera, and what to do.
pub fn explained(error: &io::Error) -> String {
    match rustix::io::Errno::from_io_error(error) {
        Some(rustix::io::Errno::NOENT) => "is not there; plug it in or correct the path".to_owned(),
        Some(rustix::io::Errno::NODEV | rustix::io::Errno::NXIO) => {
            "is gone: it was unplugged, or its driver was stopped".to_owned()
        }
        Some(rustix::io::Errno::BUSY) => {
            "is in use by another program; stop that one (`fuser` names it)".to_owned()
        }
        Some(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => {
            "may not be opened by this user; add it to the group video".to_owned()
        }
        _ => format!("failed: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::peer::v4l2::PixelFormat;
    use crate::peer::v4l2::stamp::{Moment, StampClock};
    use crate::pipeline::boot_time_ns;

    const JPEG: &[u8] = b"\xff\xd8\xff\xe0 picture \xff\xd9";

    const OTHER_JPEG: &[u8] = b"\xff\xd8\xff\xe0 another \xff\xd9";

    /// What a camera does next: delivers these bytes, damaged or not, with a stamp that is so old; or fails.
    enum Step {
        Picture(&'static [u8], bool, Option<i64>),
        Nothing,
        Fails(rustix::io::Errno),
    }

    struct Script(VecDeque<Step>);

    impl Capture for Script {
        fn wait(&mut self, _patience: Duration) -> io::Result<bool> {
            match self.0.front() {
                Some(Step::Nothing) => {
                    self.0.pop_front();
                    Ok(false)
                }
                None => Ok(false),
                Some(_) => Ok(true),
            }
        }

        fn take(&mut self) -> io::Result<Taken<'_>> {
            match self.0.pop_front() {
                Some(Step::Picture(bytes, damaged, age_ns)) => {
                    let now = Now::read();
                    let clock = match age_ns {
                        Some(_) => StampClock::Monotonic,
                        None => StampClock::Other,
                    };
                    Ok(Taken {
                        bytes,
                        stamp: Stamp {
                            clock,
                            moment: Moment::StartOfExposure,
                            time_ns: now.monotonic_ns - age_ns.unwrap_or(0),
                        },
                        damaged,
                    })
                }
                Some(Step::Fails(errno)) => Err(errno.into()),
                _ => Err(io::ErrorKind::WouldBlock.into()),
            }
        }
    }

    fn reader(steps: impl IntoIterator<Item = Step>) -> V4l2Reader<Script> {
        let config = V4l2Config {
            name: "front".into(),
            delay_s: 0.25,
            silence_s: 0.05,
            ..V4l2Config::default()
        };
        let layout = Layout {
            format: PixelFormat::Mjpeg,
            width: 4,
            height: 4,
            stride: 0,
        };
        V4l2Reader::new(&config, layout, Script(steps.into_iter().collect()))
    }

    fn frame(reader: &mut V4l2Reader<Script>) -> CameraFrame {
        match reader.next() {
            Ok(Some(Event::Frame(frame))) => frame,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_picture_is_as_old_as_its_stamp_and_the_delay_before_it() {
        let age_ns = 40_000_000;
        let mut reader = reader([
            Step::Nothing,
            Step::Picture(JPEG, false, Some(age_ns)),
            Step::Nothing,
            Step::Picture(JPEG, false, None),
        ]);
        assert!(matches!(reader.next(), Ok(None)));
        for age_ns in [age_ns, 0] {
            let before_ns = boot_time_ns();
            let frame = frame(&mut reader);
            let expected_ns = before_ns - age_ns - 250_000_000;
            // The test's own time, on a busy machine.
            let late_ns = frame.time_ns - expected_ns;
            assert!((0..500_000_000).contains(&late_ns), "{late_ns} ns");
            assert_eq!((&*frame.image, frame.camera.as_str()), (JPEG, "front"));
        }
    }

    #[test]
    fn of_several_that_wait_the_newest_counts() {
        let mut reader = reader([
            Step::Picture(b"old", true, Some(900_000_000)),
            Step::Picture(JPEG, false, Some(500_000_000)),
            Step::Picture(OTHER_JPEG, false, Some(100_000_000)),
            Step::Nothing,
        ]);
        let frame = frame(&mut reader);
        assert_eq!(&*frame.image, OTHER_JPEG);
        let age_ns = boot_time_ns() - frame.time_ns;
        assert!(
            age_ns < 700_000_000,
            "{age_ns} ns, of which 250 ms are the delay"
        );
        assert!(matches!(reader.next(), Ok(None)));
        assert_eq!(reader.remark(), None);
    }

    #[test]
    fn damaged_pictures_are_left_out_and_counted() {
        let mut reader = reader([
            Step::Picture(JPEG, true, Some(0)),
            Step::Nothing,
            Step::Picture(b"half a picture", false, Some(0)),
            Step::Nothing,
            Step::Picture(JPEG, false, Some(0)),
        ]);
        assert_eq!(reader.remark(), None);
        assert!(matches!(reader.next(), Ok(None)));
        assert!(matches!(reader.next(), Ok(None)));
        assert_eq!(&*frame(&mut reader).image, JPEG);
        let remark = reader.remark().unwrap();
        assert!(remark.starts_with("2 damaged pictures"), "{remark}");
    }

    #[test]
    fn a_camera_that_delivers_nothing_usable_is_given_up_after_a_time() {
        let damaged = || Step::Picture(b"", false, Some(0));
        for steps in [Vec::new(), (0..100_000).map(|_| damaged()).collect()] {
            let begun = Instant::now();
            let mut reader = reader(steps);
            let error = loop {
                match reader.next() {
                    Ok(None) => std::thread::sleep(Duration::from_millis(1)),
                    Ok(Some(event)) => panic!("{event:?}"),
                    Err(error) => break error.to_string(),
                }
            };
            assert!(begun.elapsed() >= Duration::from_millis(50));
            assert!(error.contains("\"/dev/video0\" is open and"), "{error}");
        }
    }

    #[test]
    fn what_happened_to_a_camera_is_said() {
        for (errno, words) in [
            (rustix::io::Errno::NODEV, "unplugged"),
            (rustix::io::Errno::BUSY, "another program"),
            (rustix::io::Errno::IO, "failed: "),
        ] {
            let error = reader([Step::Fails(errno)]).next().unwrap_err();
            assert!(matches!(error, PeerError::Protocol(_)));
            let text = error.to_string();
            assert!(
                text.contains("/dev/video0") && text.contains(words),
                "{text}"
            );
        }
    }
}
