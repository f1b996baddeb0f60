//! Telemetry of GoPro videos: the fixes in an MP4 file's track `gpmd`, on the clock of its pictures.
//!
//! A payload covers about a second of the video. Cameras until HERO10 write `GPS5` (with one time, one dilution of
//! precision and one kind of fix for a payload), HERO11 and newer ones `GPS9` (with each of them for every sample) as well.
//! The fixes of a payload become one, at its middle: 10 to 18 a second of a filtered receiver tell no more than
//! that, but their movement within the second is the course.

mod gpmf;
#[cfg(test)]
pub(super) mod tests;

use anyhow::{Context, bail};
use crossfix_calibration::{Geodetic, LocalFrame};
use crossfix_onboard::event::{CovarianceRule, FixDimension, GnssFix, Reception};
use gpmf::{Entry, entries};
use mp4box::registry::StructuredData;
use mp4box::samples::extract_track_samples;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use time::{Date, Duration, Month, PrimitiveDateTime, Time};

const SECOND_NS: f64 = 1e9;
/// Payloads of a video, at most: more than a month of seconds.
const MOST_PAYLOADS: u32 = 4_000_000;
/// Bytes of a payload, at most.
const MOST_PAYLOAD_BYTES: u32 = 16 << 20;
/// 1-sigma error of a fix without dilution of precision, metres.
const DEFAULT_SIGMA_M: f64 = 8.0;
/// Metres of 1-sigma error for each unit of dilution of precision.
const DOP_SIGMA_M: f64 = 4.0;
/// A dilution of precision from which on the receiver knows none.
const NO_DOP: f64 = 99.0;
/// Movement within a payload that has a course, metres.
const LEAST_COURSE_M: f64 = 1.0;
/// Times of payloads further apart than this are worth a word, seconds.
const TIMES_AGREE_S: f64 = 0.5;

/// What a video tells.
#[derive(Debug, Clone, PartialEq)]
pub struct Telemetry {
    /// One fix for each payload that has one, in the order of time; stamped by the clock of the pictures.
    pub fixes: Vec<GnssFix>,
    /// UTC of the video's first picture, nanoseconds: the median over payloads.
    pub begins_ns: i64,
    /// Things to say about it.
    pub notes: Vec<String>,
}

/// Whether a file is a video by its name.
pub fn is_video(path: &Path) -> bool {
    let extension = path.extension().and_then(|name| name.to_str());
    let extension = extension.map(str::to_ascii_lowercase);
    matches!(extension.as_deref(), Some("mp4" | "mov" | "360" | "lrv"))
}

/// Reads the telemetry of a video.
///
/// # Errors
/// When the file cannot be read, is no MP4 file, has no such track, or no payload with a fix and a time.
pub fn open(path: &Path) -> anyhow::Result<Telemetry> {
    let in_file = || path.display().to_string();
    let file = File::open(path).with_context(in_file)?;
    let bytes = file.metadata().with_context(in_file)?.len();
    let mut file = BufReader::new(file);
    let payloads = payloads(&mut file, bytes).with_context(in_file)?;
    telemetry(&payloads).with_context(in_file)
}

/// One sample of the track.
#[derive(Debug, Clone, PartialEq)]
struct Payload {
    /// Seconds since the video's first picture.
    begins_s: f64,
    seconds: f64,
    bytes: Vec<u8>,
}

/// The samples of the telemetry's track.
fn payloads<R: Read + Seek>(file: &mut R, bytes: u64) -> anyhow::Result<Vec<Payload>> {
    let (boxes, _) = mp4box::get_boxes_tolerant(file, bytes, true).context("is no MP4 file")?;
    let movie = boxes.iter().find(|one| one.typ == "moov");
    let Some(movie) = movie.and_then(|one| one.children.as_ref()) else {
        bail!("is no MP4 file, or was cut short: it has no moov box");
    };
    for track in movie.iter().filter(|one| one.typ == "trak") {
        if !is_telemetry(track) {
            continue;
        }
        let count = descendant(track, &["mdia", "minf", "stbl", "stsz"]);
        if let Some(StructuredData::SampleSize(sizes)) =
            count.and_then(|one| one.structured_data.as_ref())
            && sizes.sample_count > MOST_PAYLOADS
        {
            bail!("its telemetry claims {} payloads", sizes.sample_count);
        }
        let Some(track) = extract_track_samples(track, file)? else {
            continue;
        };
        let claimed: u64 = track.samples.iter().map(|one| u64::from(one.size)).sum();
        if claimed > bytes {
            bail!("its telemetry claims {claimed} bytes, and the file has {bytes}");
        }
        let ticks_a_second = f64::from(track.timescale.max(1));
        let mut found = Vec::with_capacity(track.samples.len());
        for sample in &track.samples {
            if sample.size > MOST_PAYLOAD_BYTES {
                bail!("a payload of its telemetry claims {} bytes", sample.size);
            }
            let mut bytes = vec![0; sample.size as usize];
            file.seek(SeekFrom::Start(sample.file_offset))?;
            file.read_exact(&mut bytes)
                .context("its telemetry is cut short")?;
            found.push(Payload {
                begins_s: sample.dts as f64 / ticks_a_second,
                seconds: f64::from(sample.duration) / ticks_a_second,
                bytes,
            });
        }
        return Ok(found);
    }
    bail!("has no telemetry (a track gpmd); only videos of GoPro cameras have one")
}

fn descendant<'a>(whole: &'a mp4box::Box, path: &[&str]) -> Option<&'a mp4box::Box> {
    path.iter().try_fold(whole, |one, name| {
        let children = one.children.as_ref()?;
        children.iter().find(|child| child.typ == *name)
    })
}

/// Whether a track's samples are described as `gpmd`.
fn is_telemetry(track: &mp4box::Box) -> bool {
    let described = descendant(track, &["mdia", "minf", "stbl", "stsd"]);
    match described.and_then(|one| one.structured_data.as_ref()) {
        Some(StructuredData::SampleDescription(described)) => {
            described.entries.iter().any(|entry| entry.codec == "gpmd")
        }
        _ => false,
    }
}

/// One position of a payload.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Position {
    latitude_deg: f64,
    longitude_deg: f64,
    /// Over ground.
    speed_mps: f64,
    dop: f64,
    /// 0 (none), 2 or 3 dimensions.
    fix: u32,
}

/// The positions of a payload, evenly spread over it, and UTC of the first, nanoseconds.
#[derive(Debug, Clone, Default, PartialEq)]
struct Block {
    positions: Vec<Position>,
    utc_ns: Option<i64>,
}

fn telemetry(payloads: &[Payload]) -> anyhow::Result<Telemetry> {
    let blocks: Vec<(&Payload, Block)> = payloads
        .iter()
        .map(|payload| (payload, block(&payload.bytes)))
        .collect();
    let begins = blocks.iter().filter_map(|(payload, block)| {
        let has_fix = block.positions.iter().any(|position| position.fix >= 2);
        let utc_ns = block.utc_ns.filter(|_| has_fix)?;
        utc_ns.checked_sub((payload.begins_s * SECOND_NS) as i64)
    });
    let mut begins: Vec<i64> = begins.collect();
    begins.sort_unstable();
    let Some(begins_ns) = begins.get(begins.len() / 2).copied() else {
        bail!(
            "none of its {} payloads of telemetry has a position with a time; was the receiver (GPS) switched on, and outdoors?",
            payloads.len()
        );
    };
    let mut fixes = Vec::new();
    for (payload, block) in &blocks {
        fixes.extend(fix(payload, block, begins_ns));
    }
    if fixes.is_empty() {
        bail!(
            "none of its {} payloads of telemetry has a position that can be; was the receiver outdoors?",
            payloads.len()
        );
    }
    let mut notes = Vec::new();
    if fixes.len() < payloads.len() {
        let without = payloads.len() - fixes.len();
        notes.push(format!(
            "{without} of {} seconds of telemetry have no fix",
            payloads.len()
        ));
    }
    let off = |begin: &i64| begin.abs_diff(begins_ns) as f64 / SECOND_NS > TIMES_AGREE_S;
    let differ = begins.iter().filter(|begin| off(begin)).count();
    if differ > 0 {
        notes.push(format!(
            "the times of {differ} of {} payloads differ from the others by more than {TIMES_AGREE_S} s; the median is taken",
            begins.len()
        ));
    }
    Ok(Telemetry {
        fixes,
        begins_ns,
        notes,
    })
}

/// The fix in the middle of those of a payload.
fn fix(payload: &Payload, block: &Block, begins_ns: i64) -> Option<GnssFix> {
    let count = block.positions.len();
    let fixed = block.positions.iter().enumerate();
    let fixed: Vec<(usize, &Position)> = fixed.filter(|(_, position)| position.fix >= 2).collect();
    let (index, middle) = *fixed.get(fixed.len() / 2)?;
    let place =
        |position: &Position| Geodetic::new(position.latitude_deg, position.longitude_deg, 0.0);
    let position = place(middle).ok()?;
    let ends = fixed.first().zip(fixed.last());
    let track_deg = ends.and_then(|((_, first), (_, last))| {
        let frame = LocalFrame::new(place(first).ok()?);
        let moved = frame.enu_from_geodetic(place(last).ok()?);
        let metres = moved.east().hypot(moved.north());
        let course_deg = moved.east().atan2(moved.north()).to_degrees();
        (metres >= LEAST_COURSE_M).then_some(course_deg.rem_euclid(360.0))
    });
    let has_dop = middle.dop > 0.0 && middle.dop < NO_DOP;
    let sigma_m = if has_dop {
        (middle.dop * DOP_SIGMA_M).max(1.0)
    } else {
        DEFAULT_SIGMA_M
    };
    let at_s = payload.begins_s + payload.seconds * index as f64 / count as f64;
    Some(GnssFix {
        time_ns: begins_ns.checked_add((at_s * SECOND_NS) as i64)?,
        position,
        covariance_m2: [[sigma_m * sigma_m, 0.0], [0.0, sigma_m * sigma_m]],
        height_sigma_m: f64::from(u16::MAX),
        covariance_rule: if has_dop {
            CovarianceRule::Hdop
        } else {
            CovarianceRule::Default
        },
        speed_mps: Some(middle.speed_mps).filter(|speed| *speed >= 0.0),
        track_deg,
        dimension: if middle.fix >= 3 {
            FixDimension::Three
        } else {
            FixDimension::Two
        },
        reception: Reception::default(),
    })
}

/// The positions of a payload: `GPS9` of the first stream that has it, or else `GPS5`.
fn block(payload: &[u8]) -> Block {
    let mut found = Block::default();
    for device in entries(payload).filter(|entry| &entry.key == b"DEVC") {
        for stream in device.inside().filter(|entry| &entry.key == b"STRM") {
            let of = |key: &[u8; 4]| stream.inside().find(|entry| entry.key == *key);
            let Some(scales) = of(b"SCAL").and_then(|entry| entry.scales()) else {
                continue;
            };
            if let Some(block) = of(b"GPS9").and_then(|entry| gps9(&entry, &scales)) {
                return block;
            }
            if found.positions.is_empty()
                && let Some(positions) = of(b"GPS5")
            {
                let number = |key| of(key).and_then(|entry| entry.first_unsigned());
                found = Block {
                    positions: gps5(
                        &positions,
                        &scales,
                        number(b"GPSF").unwrap_or(0),
                        number(b"GPSP").unwrap_or(9999),
                    ),
                    utc_ns: of(b"GPSU").and_then(|entry| utc_ns(entry.data)),
                };
            }
        }
    }
    found
}

/// Big-endian numbers of four bytes, over their scales.
fn scaled<const N: usize>(structure: &[u8], scales: &[f64]) -> Option<[f64; N]> {
    let mut values = [0.0; N];
    for (index, value) in values.iter_mut().enumerate() {
        let bytes = structure.get(4 * index..4 * index + 4)?;
        let number = i32::from_be_bytes(bytes.try_into().ok()?);
        let scale = *scales.get(index).or(scales.first())?;
        *value = f64::from(number) / scale;
    }
    values
        .iter()
        .all(|value| value.is_finite())
        .then_some(values)
}

/// Latitude, longitude, height, speed over ground, speed in space.
fn gps5(entry: &Entry, scales: &[f64], fix: u32, dop_hundredths: u32) -> Vec<Position> {
    let structures = entry.data.chunks_exact(entry.structure_bytes.max(1));
    let positions = structures.filter_map(|structure| {
        let [latitude_deg, longitude_deg, _, speed_mps, _] = scaled(structure, scales)?;
        Some(Position {
            latitude_deg,
            longitude_deg,
            speed_mps,
            dop: f64::from(dop_hundredths) / 100.0,
            fix,
        })
    });
    positions.collect()
}

/// As [`gps5`], then days since 2000, seconds since midnight, dilution of precision, kind of fix.
fn gps9(entry: &Entry, scales: &[f64]) -> Option<Block> {
    let structures = entry.data.chunks_exact(entry.structure_bytes.max(1));
    let mut block = Block::default();
    for structure in structures {
        let [latitude_deg, longitude_deg, _, speed_mps, _, days, seconds] =
            scaled(structure, scales)?;
        let &[a, b, c, d] = structure.get(28..32)? else {
            return None;
        };
        let fix = u32::from(u16::from_be_bytes([c, d]));
        if block.positions.is_empty() && fix >= 2 {
            if !(0.0..36_525.0).contains(&days) || !(0.0..86_401.0).contains(&seconds) {
                return None;
            }
            let midnight = Date::from_calendar_date(2000, Month::January, 1).ok()?;
            let midnight = midnight.checked_add(Duration::days(days as i64))?;
            let utc = midnight.midnight().assume_utc();
            let utc = utc.checked_add(Duration::seconds_f64(seconds))?;
            block.utc_ns = i64::try_from(utc.unix_timestamp_nanos()).ok();
        }
        block.positions.push(Position {
            latitude_deg,
            longitude_deg,
            speed_mps,
            dop: f64::from(u16::from_be_bytes([a, b])) / scales.get(7)?,
            fix,
        });
    }
    (!block.positions.is_empty()).then_some(block)
}

/// UTC nanoseconds of `yymmddhhmmss.sss`.
fn utc_ns(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?.trim_end_matches('\0');
    let two = |at: usize| text.get(at..at + 2)?.parse::<u8>().ok();
    let month = Month::try_from(two(2)?).ok()?;
    let date = Date::from_calendar_date(2000 + i32::from(two(0)?), month, two(4)?).ok()?;
    let time = Time::from_hms(two(6)?, two(8)?, two(10)?).ok()?;
    let share: f64 = match text.get(12..) {
        None | Some("") => 0.0,
        Some(share) => share.parse().ok()?,
    };
    let whole = PrimitiveDateTime::new(date, time).assume_utc();
    let whole = i64::try_from(whole.unix_timestamp_nanos()).ok()?;
    (0.0..1.0)
        .contains(&share)
        .then(|| whole + (share * SECOND_NS) as i64)
}
