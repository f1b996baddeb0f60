//! A camera of the kernel, through its `ioctl` calls.
//!
//! The library behind them panics where a driver answers with a colour space that it does not know, and where
//! stopping fails; both become errors here.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

use moq_v4l::buffer::{Flags, Metadata, Type};
use moq_v4l::format::FieldOrder;
use moq_v4l::framesize::FrameSizeEnum;
use moq_v4l::io::traits::{CaptureStream, Stream as _};
use moq_v4l::prelude::{Device, MmapStream};
use moq_v4l::video::Capture as _;
use moq_v4l::video::capture::Parameters;
use moq_v4l::{Format, FourCC, Fraction};
use tracing::{info, warn};

use super::V4l2Config;
use super::choose::{Code, Offer, PixelFormat, Sizes, choose};
use super::pixels::Layout;
use super::read::{Capture, Taken, explained};
use super::stamp::{Moment, Stamp, StampClock};
use crate::panics::quietly;
use crate::port::PeerError;

/// Buffers that a driver is asked for. One is ours, the others are being filled; some drivers begin with three.
const BUFFERS: u32 = 5;
/// `poll` for something to read.
const POLLIN: i16 = 1;

/// Calls the library.
fn call<T>(work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    quietly("moq-v4l", work).unwrap_or_else(|words| Err(io::Error::other(words)))
}

/// Opens a device, for questions only at first.
fn device(path: &Path) -> Result<Device, String> {
    let found = fs::metadata(path).map_err(|error| explained(&error))?;
    if !found.file_type().is_char_device() {
        return Err("is no device; it is a file or a folder".into());
    }
    call(|| Device::with_path(path)).map_err(|error| explained(&error))
}

/// The formats that a device offers.
fn offers_of(device: &Device) -> Result<Vec<Offer>, String> {
    let formats = call(|| device.enum_formats()).map_err(|error| explained(&error))?;
    let offers = formats.into_iter().map(|format| {
        // A driver need not say; then it is asked for what is wanted.
        let sizes = call(|| device.enum_framesizes(format.fourcc)).unwrap_or_default();
        let sizes = sizes.into_iter().map(|size| match size.size {
            FrameSizeEnum::Discrete(size) => Sizes::One(size.width, size.height),
            FrameSizeEnum::Stepwise(size) => Sizes::Range(
                [size.min_width, size.max_width, size.step_width],
                [size.min_height, size.max_height, size.step_height],
            ),
        });
        Offer {
            code: Code(format.fourcc.repr),
            sizes: sizes.collect(),
        }
    });
    Ok(offers.collect())
}

/// The formats that a device offers; it is opened for that and closed again.
///
/// # Errors
/// What is the matter with it, without its name.
pub fn offers(path: &Path) -> Result<Vec<Offer>, String> {
    offers_of(&device(path)?)
}

/// Opens a camera in the format of the config, and starts it.
///
/// # Errors
/// It is not there, may not be opened, is in use, or does not offer what the config wants.
pub fn open(config: &V4l2Config) -> Result<(V4l2Capture, Layout), PeerError> {
    start(config)
        .map_err(|words| PeerError::Protocol(format!("camera {:?} {words}", config.device)))
}

fn start(config: &V4l2Config) -> Result<(V4l2Capture, Layout), String> {
    let device = device(&config.device)?;
    let code = choose(&offers_of(&device)?, config)?;
    let mut wanted = Format::new(config.width, config.height, FourCC::new(&code.0));
    wanted.field_order = FieldOrder::Progressive;
    let format = call(|| device.set_format(&wanted)).map_err(|error| explained(&error))?;
    let given = Code(format.fourcc.repr);
    if (given, format.width, format.height) != (code, config.width, config.height) {
        return Err(format!(
            "was asked for {code} with {} × {} px and gives {given} with {} × {}",
            config.width, config.height, format.width, format.height
        ));
    }
    let fields = format.field_order;
    if matches!(
        fields,
        FieldOrder::Top
            | FieldOrder::Bottom
            | FieldOrder::SequentialTB
            | FieldOrder::SequentialBT
            | FieldOrder::Alternate
    ) {
        return Err(format!(
            "delivers fields ({fields}) and no whole pictures; set its input to a progressive mode"
        ));
    }
    let layout = Layout {
        format: PixelFormat::of(code).ok_or("has another format")?,
        width: format.width,
        height: format.height,
        stride: format.stride,
    };
    let rate_hz = rate(&device, config);
    let capture = V4l2Capture::start(&device).map_err(|error| explained(&error))?;
    info!(
        source = config.name,
        device = ?config.device,
        card = card(&config.device),
        format = %code,
        width = layout.width,
        height = layout.height,
        rate_hz,
        "camera opened"
    );
    Ok((capture, layout))
}

/// Asks for a rate if the config has one; what the camera says that it is, pictures a second.
fn rate(device: &Device, config: &V4l2Config) -> Option<f64> {
    let answer = match config.rate_hz {
        None => call(|| device.params()),
        Some(rate_hz) => {
            let interval = Fraction::new(1000, (rate_hz * 1e3).round() as u32);
            call(|| device.set_params(&Parameters::new(interval)))
        }
    };
    if let (Err(error), Some(rate_hz)) = (&answer, config.rate_hz) {
        let source = config.name.as_str();
        warn!(source, rate_hz, %error, "its rate cannot be set");
    }
    let interval = answer.ok()?.interval;
    (interval.numerator > 0)
        .then(|| f64::from(interval.denominator) / f64::from(interval.numerator))
}

/// The name of a camera, as its driver says.
fn card(path: &Path) -> String {
    let device = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folder = Path::new("/sys/class/video4linux").join(device.file_name().unwrap_or_default());
    let name = fs::read(folder.join("name")).unwrap_or_default();
    String::from_utf8_lossy(&name).trim().to_owned()
}

/// A camera that streams into buffers of its driver.
pub struct V4l2Capture {
    /// None only while it is dropped.
    stream: Option<MmapStream<'static>>,
}

impl V4l2Capture {
    fn start(device: &Device) -> io::Result<Self> {
        let stream = call(|| MmapStream::with_buffers(device, Type::VideoCapture, BUFFERS))?;
        let mut capture = Self {
            stream: Some(stream),
        };
        let stream = capture.stream()?;
        // The library puts back the buffer that it handed out last, the first one at first, when it is asked for the
        // next. All others are the driver's from now on; there may be fewer than were asked for.
        for index in 1..BUFFERS as usize {
            match call(|| CaptureStream::queue(stream, index)) {
                Err(_) if index > 1 => break,
                queued => queued?,
            }
        }
        call(|| stream.start())?;
        Ok(capture)
    }

    fn stream(&mut self) -> io::Result<&mut MmapStream<'static>> {
        self.stream
            .as_mut()
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Capture for V4l2Capture {
    fn wait(&mut self, patience: Duration) -> io::Result<bool> {
        let handle = self.stream()?.handle();
        let patience_ms = patience.as_millis().try_into().unwrap_or(i32::MAX);
        Ok(call(|| handle.poll(POLLIN, patience_ms))? > 0)
    }

    fn take(&mut self) -> io::Result<Taken<'_>> {
        let stream = self.stream()?;
        let (buffer, about) = call(|| CaptureStream::next(stream))?;
        let used = buffer.len().min(about.bytesused as usize);
        Ok(Taken {
            bytes: &buffer[..used],
            stamp: stamp_of(about),
            damaged: about.flags.contains(Flags::ERROR),
        })
    }
}

impl Drop for V4l2Capture {
    fn drop(&mut self) {
        let Some(mut stream) = self.stream.take() else {
            return;
        };
        let stopped = call(|| stream.stop());
        let gone = rustix::io::Errno::NODEV.raw_os_error();
        match stopped {
            Err(error) if error.raw_os_error() != Some(gone) => {
                // Dropping it would panic, and again while that is caught.
                warn!(%error, "a camera cannot be stopped; it stays open");
                std::mem::forget(stream);
            }
            _ => {
                let _ = call(|| {
                    drop(stream);
                    Ok(())
                });
            }
        }
    }
}

/// The stamp of a buffer, by the driver's flags.
fn stamp_of(about: &Metadata) -> Stamp {
    let clock = if about.flags & Flags::TIMESTAMP_MASK == Flags::TIMESTAMP_MONOTONIC {
        StampClock::Monotonic
    } else {
        StampClock::Other
    };
    let moment = if about.flags & Flags::TSTAMP_SRC_MASK == Flags::TSTAMP_SRC_SOE {
        Moment::StartOfExposure
    } else {
        Moment::EndOfFrame
    };
    let seconds_ns = about.timestamp.sec.saturating_mul(1_000_000_000);
    let rest_ns = about.timestamp.usec.saturating_mul(1_000);
    Stamp {
        clock,
        moment,
        time_ns: seconds_ns.saturating_add(rest_ns),
    }
}

#[cfg(test)]
mod tests {
    use moq_v4l::Timestamp;

    use super::*;

    #[test]
    fn the_flags_of_a_driver_say_what_its_stamp_is() {
        // As in linux/videodev2.h: 0x2000 monotonic, 0x4000 copied, 0x10000 start of exposure.
        for (flags, clock, moment) in [
            (0x0000_2001, StampClock::Monotonic, Moment::EndOfFrame),
            (0x0001_2004, StampClock::Monotonic, Moment::StartOfExposure),
            (0x0000_4000, StampClock::Other, Moment::EndOfFrame),
            (0x0001_0000, StampClock::Other, Moment::StartOfExposure),
        ] {
            let about = Metadata {
                flags: Flags::from(flags),
                timestamp: Timestamp::new(12, 345_678),
                ..Metadata::default()
            };
            let expected = Stamp {
                clock,
                moment,
                time_ns: 12_345_678_000,
            };
            assert_eq!(stamp_of(&about), expected, "{flags:#x}");
        }
    }

    #[test]
    fn a_device_that_is_no_camera_is_refused_and_named() {
        let config = |device: &str| V4l2Config {
            device: device.into(),
            width: 64,
            height: 48,
            ..V4l2Config::default()
        };
        for (device, words) in [
            ("/dev/video-none", "\"/dev/video-none\" is not there"),
            ("/tmp", "\"/tmp\" is no device"),
            ("/dev/zero", "\"/dev/zero\" has no formats to capture"),
        ] {
            let error = open(&config(device)).err().unwrap().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_panic_of_the_library_is_an_error() {
        let error = call(|| -> io::Result<()> { panic!("Invalid colorspace") }).unwrap_err();
        assert_eq!(error.to_string(), "moq-v4l panicked: Invalid colorspace");
    }
}
