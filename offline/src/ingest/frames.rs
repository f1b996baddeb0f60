//! Folders of pictures named by their time, beside a track: GPX, NMEA, or the video that they were cut from.

use super::track::Track;
use super::{Frame, Place, Recording, gopro, name_of};
use anyhow::{Context, bail};
use crossfix_calibration::Geodetic;
use crossfix_onboard::event::{CovarianceRule, FixDimension, GnssFix, Reception};
use crossfix_onboard::file;
use crossfix_onboard::peer::nmea::{NmeaConfig, NmeaSentences};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Largest track file.
const MOST_TRACK_BYTES: u64 = 512 << 20;
/// 1-sigma error of a track point that states none, metres.
const DEFAULT_SIGMA_M: f64 = 5.0;

/// The files of a folder, by name.
///
/// # Errors
/// When it cannot be listed.
pub fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Opens a folder of pictures beside a track.
///
/// # Errors
/// When the track cannot be read, or no picture is named by a time.
pub fn open(folder: &Path, files: &[PathBuf], track: &Path) -> anyhow::Result<Recording> {
    let (fixes, begins_ns, notes) = if gopro::is_video(track) {
        let video = gopro::open(track)?;
        (video.fixes, Some(video.begins_ns), video.notes)
    } else {
        (read_track(track)?, None, Vec::new())
    };
    let mut frames: Vec<Frame> = files
        .iter()
        .filter_map(|path| {
            let time_ns = time_of(path, begins_ns)?;
            let at = Place::File(path.clone());
            Some(Frame { time_ns, at })
        })
        .collect();
    if frames.is_empty() {
        bail!(
            "no picture in {} is named by its time; name them by {}, or leave --track away to read positions from EXIF",
            folder.display(),
            match begins_ns {
                Some(_) =>
                    "milliseconds since the video's beginning (1234.jpg; GUIDE.md has the line for ffmpeg)",
                None => "nanoseconds UTC (1767225600000000000.jpg)",
            }
        );
    }
    frames.sort_by_key(|frame| frame.time_ns);
    let (first, last) = (fixes[0].time_ns, fixes[fixes.len() - 1].time_ns);
    let inside = frames
        .iter()
        .filter(|frame| (first..=last).contains(&frame.time_ns))
        .count();
    if inside == 0 {
        bail!(
            "no picture of {} was taken while {} goes: pictures begin at {} and it at {first} (nanoseconds UTC); is one of them local time?",
            folder.display(),
            track.display(),
            frames[0].time_ns
        );
    }
    let mut sources = vec![track.to_path_buf()];
    sources.extend(frames.iter().filter_map(|frame| match &frame.at {
        Place::File(path) => Some(path.clone()),
        Place::Log(..) => None,
    }));
    Ok(Recording {
        name: name_of(folder),
        files: sources,
        track: Track::new(fixes, Vec::new(), Vec::new()),
        frames,
        camera: None,
        notes,
    })
}

/// The time in a picture's name: nanoseconds, microseconds or milliseconds UTC, by its digits; fewer digits are
/// milliseconds since a video began.
fn time_of(path: &Path, begins_ns: Option<i64>) -> Option<i64> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    if !matches!(extension.as_str(), "jpg" | "jpeg" | "png" | "webp") {
        return None;
    }
    let stem = path.file_stem()?.to_str()?;
    let value: i64 = stem.parse().ok()?;
    let factor = match stem.len() {
        18..=19 => 1,
        15..=16 => 1_000,
        12..=13 => 1_000_000,
        1..=11 if value >= 0 => return begins_ns?.checked_add(value * 1_000_000),
        _ => return None,
    };
    value.checked_mul(factor)
}

/// Fixes of a GPX or NMEA file, in the order of time.
fn read_track(path: &Path) -> anyhow::Result<Vec<GnssFix>> {
    let text = file::read(path, MOST_TRACK_BYTES);
    let text = text.with_context(|| format!("cannot read {}", path.display()))?;
    let gpx = path
        .extension()
        .is_some_and(|name| name.eq_ignore_ascii_case("gpx"));
    let mut fixes = if gpx {
        gpx_fixes(&text).with_context(|| path.display().to_string())?
    } else {
        nmea_fixes(&text)
    };
    fixes.sort_by_key(|fix| fix.time_ns);
    if fixes.is_empty() {
        bail!("{} holds no position with a time", path.display());
    }
    Ok(fixes)
}

fn nmea_fixes(text: &[u8]) -> Vec<GnssFix> {
    let mut sentences = NmeaSentences::new(&NmeaConfig::default());
    let mut fixes = Vec::new();
    // A recorder writes an epoch at a time; half a second apart is far enough for the sentences' grouping.
    let mut now = Duration::ZERO;
    for line in text.split(|byte| *byte == b'\n') {
        now += Duration::from_millis(1);
        sentences.line(line, now);
        while let Some(fix) = sentences.take(now) {
            fixes.push(fix);
        }
    }
    fixes.extend(sentences.finish());
    fixes
}

fn gpx_fixes(text: &[u8]) -> anyhow::Result<Vec<GnssFix>> {
    let gpx = gpx::read(text).context("is no GPX file")?;
    let mut fixes = Vec::new();
    for point in gpx
        .tracks
        .iter()
        .flat_map(|track| &track.segments)
        .flat_map(|segment| &segment.points)
    {
        let Some(time) = point.time else { continue };
        let time = time::OffsetDateTime::from(time).unix_timestamp_nanos();
        let place = point.point();
        let Ok(position) = Geodetic::new(place.y(), place.x(), 0.0) else {
            continue;
        };
        let sigma_m = point
            .hdop
            .map_or(DEFAULT_SIGMA_M, |hdop| (hdop * 4.0).max(1.0));
        fixes.push(GnssFix {
            time_ns: i64::try_from(time)?,
            position,
            covariance_m2: [[sigma_m * sigma_m, 0.0], [0.0, sigma_m * sigma_m]],
            height_sigma_m: f64::from(u16::MAX),
            covariance_rule: if point.hdop.is_some() {
                CovarianceRule::Hdop
            } else {
                CovarianceRule::Default
            },
            speed_mps: point.speed,
            track_deg: None,
            dimension: FixDimension::Two,
            reception: Reception::default(),
        });
    }
    Ok(fixes)
}
