//! Logs (MCAP): fixes, odometry, headings and frames of drives that the daemon recorded (docs/recording.md), or
//! ROS 2 and Foxglove. Topics are chosen as the daemon's replay does.

use super::settings::Settings;
use super::track::Track;
use super::{Frame, Place, Recording};
use anyhow::{Context, bail};
use crossfix_calibration::Camera;
use crossfix_onboard::clocks::{ClockConfig, ClockRule, ClockState, Clocks, TimeVerdict};
use crossfix_onboard::event::{
    Arrival, CameraFrame, EstimateKind, Event, GnssFix, OdometrySample, State, YawMeasurement,
};
use crossfix_onboard::log::{LogReader, Message, Recording as LogFile};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Headings of estimates count up to this error, 1-sigma.
const KNOWN_HEADING_RAD: f64 = 0.35;
/// Pictures that are read ahead of those that are asked for, bytes: logs are not quite in the order of time.
const AHEAD_BYTES: usize = 256 << 20;

/// Of a source so many are left out until its clock is known.
const FIRST_EVENTS: usize = 30;
/// Frames are written up to so much after what came later, nanoseconds: those that are kept for disagreement.
const LATE_NS: i64 = 10_000_000_000;

/// What one log holds, without its pictures.
#[derive(Default)]
struct Log {
    /// Fixes, odometry and frames in the order of the log, frames without their pictures.
    events: Vec<Recorded>,
    headings: Vec<(i64, YawMeasurement)>,
    /// By topic.
    cameras: BTreeMap<String, Camera>,
    bad: usize,
    damage: Option<String>,
    /// Which topics were chosen, where that is not plain.
    remarks: Vec<String>,
    /// Whose recording it is.
    vehicle: Option<String>,
}

/// An event, the source of which is its topic.
struct Recorded {
    arrival: Arrival,
    /// Number of a picture in its file.
    number: usize,
}

/// Opens logs; those that follow one another within the gap of a drive are one recording.
///
/// # Errors
/// When one cannot be opened.
pub fn open(paths: &[PathBuf], settings: &Settings) -> anyhow::Result<Vec<Recording>> {
    use rayon::prelude::*;
    let logs: Vec<(PathBuf, Log)> = paths
        .par_iter()
        .map(|path| anyhow::Ok((path.clone(), read(path, settings)?)))
        .collect::<anyhow::Result<_>>()?;
    let mut parts: Vec<(i64, PathBuf, Log)> = Vec::new();
    for (path, log) in logs {
        let arrivals = log.events.iter().map(|event| event.arrival.arrived_ns);
        parts.push((arrivals.min().unwrap_or(0), path, log));
    }
    // By folder and vehicle: two vehicles record at the same time.
    parts.sort_by(|a, b| {
        let a = (a.1.parent(), &a.2.vehicle, a.0, &a.1);
        a.cmp(&(b.1.parent(), &b.2.vehicle, b.0, &b.1))
    });
    let mut recordings = Vec::new();
    let mut parts = parts.into_iter().peekable();
    while let Some((_, path, log)) = parts.next() {
        let mut files = vec![path];
        let mut logs = vec![log];
        while let Some((begins, next, after)) = parts.peek() {
            let same_folder = next.parent() == files[0].parent()
                && is_rotated(next, &files[0])
                && after.vehicle == logs[0].vehicle;
            let arrivals = logs[logs.len() - 1].events.iter();
            let arrivals = arrivals.map(|event| event.arrival.arrived_ns);
            let ended = arrivals.max().unwrap_or(i64::MIN);
            let gap_ns = (settings.gap_s * 1e9) as i64;
            let follows = ended.saturating_sub(LATE_NS)..ended.saturating_add(gap_ns);
            if !same_folder || !follows.contains(begins) {
                break;
            }
            let (_, path, log) = parts.next().unwrap_or_default();
            files.push(path);
            logs.push(log);
        }
        recordings.push(join(files, logs, settings));
    }
    Ok(recordings)
}

/// Whether two files are parts of one recorder's sequence: `crossfix-NUMBER-TIME.mcap`.
fn is_rotated(a: &Path, b: &Path) -> bool {
    let form = |path: &Path| {
        let name = path.file_stem()?.to_str()?;
        name.strip_prefix("crossfix-").map(|_| ())
    };
    form(a).is_some() && form(b).is_some()
}

fn read(path: &Path, settings: &Settings) -> anyhow::Result<Log> {
    let whole =
        LogFile::open(path, &settings.topics).with_context(|| path.display().to_string())?;
    let choice = whole.choice();
    let mut log = Log {
        remarks: choice.remarks.clone(),
        ..Log::default()
    };
    let mut number = 0;
    let mut reader = LogReader::open(path).with_context(|| path.display().to_string())?;
    while let Some(record) = reader.next_record() {
        let record = match record {
            Ok(record) => record,
            Err(error) if error.ends_the_log() => {
                log.damage = Some(error.to_string());
                break;
            }
            Err(_) => {
                log.bad += 1;
                continue;
            }
        };
        let topic = record.topic.to_string();
        // Pictures are numbered whether they are used or not.
        number += usize::from(matches!(record.message, Message::Frame(_)));
        let (arrived_ns, number) = (record.log_time_ns, number.saturating_sub(1));
        let arrived = |log: &mut Log, topic: Arc<str>, event: Event| {
            let arrival = Arrival::new(topic, arrived_ns, event);
            log.events.push(Recorded { arrival, number });
        };
        let message = match (choice.get(&topic), record.message) {
            (Some(used), message) => used.of(message),
            (None, message @ (Message::Calibration(_) | Message::Estimate(_))) => message,
            (None, _) => continue,
        };
        match message {
            Message::Gnss(fix) => arrived(&mut log, record.topic, Event::Gnss(fix)),
            Message::Odometry(sample) => arrived(&mut log, record.topic, Event::Odometry(sample)),
            Message::Frame(frame) => {
                let frame = CameraFrame {
                    image: [].into(),
                    ..frame
                };
                arrived(&mut log, record.topic, Event::Frame(frame));
            }
            Message::Calibration(camera) => {
                log.cameras.insert(topic, camera);
            }
            Message::Estimate(estimate) if estimate.kind == EstimateKind::Fused => {
                let known =
                    estimate.yaw_sigma_rad < KNOWN_HEADING_RAD && estimate.state != State::Lost;
                let yaw = YawMeasurement {
                    yaw: estimate.yaw,
                    sigma_rad: estimate.yaw_sigma_rad,
                };
                log.headings
                    .extend(known.then_some((estimate.time_ns, yaw)));
            }
            _ => {}
        }
    }
    log.vehicle = reader.vehicle().map(str::to_owned);
    Ok(log)
}

/// Events by topic, on one clock.
#[derive(Default)]
struct Sorted {
    fixes: BTreeMap<String, Vec<GnssFix>>,
    odometry: BTreeMap<String, Vec<OdometrySample>>,
    frames: BTreeMap<String, Vec<Frame>>,
}

/// Brings events, each from one of the files, to GNSS time as the daemon does: by when they arrived, a constant
/// offset is taken off, and what cannot be right is left out.
fn sorted(
    mut events: Vec<(usize, Recorded)>,
    settings: &Settings,
    notes: &mut Vec<String>,
) -> Sorted {
    // Frames that are kept for disagreement are written late.
    events.sort_by_key(|(_, event)| event.arrival.arrived_ns);
    let topics = events
        .iter()
        .map(|(_, event)| event.arrival.source.to_string());
    let rules = topics.map(|topic| (topic, (None, ClockRule::Correct)));
    let mut clocks = Clocks::new(ClockConfig {
        sources: rules.collect(),
    });
    let mut sorted = Sorted::default();
    let mut left_out: BTreeMap<String, usize> = BTreeMap::new();
    let ended_ns = events
        .last()
        .map_or(0, |(_, event)| event.arrival.arrived_ns);
    for (
        file,
        Recorded {
            mut arrival,
            number,
        },
    ) in events
    {
        let is_right = !settings.judge_clocks
            || matches!(
                clocks.judge(&mut arrival),
                TimeVerdict::Use | TimeVerdict::StartOver
            );
        let topic = arrival.source.to_string();
        if !is_right {
            *left_out.entry(topic).or_default() += 1;
            continue;
        }
        match arrival.event {
            Event::Gnss(fix) => sorted.fixes.entry(topic).or_default().push(fix),
            Event::Odometry(sample) => sorted.odometry.entry(topic).or_default().push(sample),
            Event::Frame(frame) => sorted.frames.entry(topic).or_default().push(Frame {
                time_ns: frame.time_ns,
                at: Place::Log(file, number),
            }),
            Event::SourceState { .. } => {}
        }
    }
    let problems = clocks.health(ended_ns).into_iter();
    notes.extend(problems.filter_map(|clock| {
        let problem = clock.problem?;
        Some(match clock.state {
            ClockState::Corrected => format!(
                "{problem}; if its stamps are right and it only arrived late, set judge_clocks = false"
            ),
            _ => problem,
        })
    }));
    let noted = left_out.iter().filter(|(_, count)| **count > FIRST_EVENTS);
    notes.extend(noted.map(|(topic, count)| {
        format!(
            "{count} messages of {topic} are left out for their stamps; judge_clocks = false takes stamps as they are"
        )
    }));
    sorted
}

/// The logs of one drive as one recording.
fn join(files: Vec<PathBuf>, logs: Vec<Log>, settings: &Settings) -> Recording {
    let stem = files[0].file_stem().unwrap_or_default().to_string_lossy();
    // Vehicles call their recordings alike.
    let name = match logs.iter().find_map(|log| log.vehicle.as_deref()) {
        Some(vehicle) => {
            let is_plain = |letter: &char| letter.is_alphanumeric() || "._-".contains(*letter);
            let vehicle: String = vehicle.chars().filter(is_plain).collect();
            format!("{vehicle}-{}", stem.trim_start_matches("crossfix-"))
        }
        None => stem.into_owned(),
    };
    let mut notes = Vec::new();
    let mut cameras = BTreeMap::<String, Camera>::new();
    let (mut headings, mut events) = (Vec::new(), Vec::new());
    for (file, log) in logs.into_iter().enumerate() {
        for (topic, camera) in log.cameras {
            cameras.entry(topic).or_insert(camera);
        }
        headings.extend(log.headings);
        events.extend(log.events.into_iter().map(|event| (file, event)));
        if log.bad > 0 {
            notes.push(format!("{} messages are left out", log.bad));
        }
        notes.extend(log.damage);
        for remark in log.remarks {
            if !notes.contains(&remark) {
                notes.push(remark);
            }
        }
    }
    let Sorted {
        fixes,
        odometry,
        frames,
    } = sorted(events, settings, &mut notes);
    let all: Vec<String> = frames.keys().cloned().collect();
    if all.len() > 1 {
        let (first, all) = (&all[0], all.join(", "));
        notes.push(format!(
            "cameras {all}: {first} is taken; topics.camera chooses"
        ));
    }
    // A recorder of ours describes its first camera; another's pictures are not of it.
    let taken = all.first().map_or("", String::as_str);
    let camera = match cameras.remove(&taken.replacen("/image", "/calibration", 1)) {
        Some(camera) => Some(camera),
        None if taken.starts_with("/camera/image/") || cameras.len() > 1 => None,
        None => cameras.pop_first().map(|(_, camera)| camera),
    };
    let mut frames = frames.into_values().next().unwrap_or_default();
    frames.sort_by_key(|frame| frame.time_ns);
    frames.dedup_by_key(|frame| frame.time_ns);
    // The receiver with most to say.
    let fixes = fixes.into_values().max_by_key(Vec::len).unwrap_or_default();
    // One topic says the speed, and it or another one the yaw rate.
    let odometry = odometry.into_values().flatten().collect();
    if fixes.is_empty() {
        notes.push("it holds no fix of a receiver".into());
    }
    Recording {
        name,
        files,
        track: Track::new(fixes, odometry, headings),
        frames,
        camera,
        notes,
    }
}

/// The wanted pictures of a recording's logs, handed over by their numbers among the wanted.
pub struct Pictures<'a> {
    files: &'a [PathBuf],
    /// Wanted pictures by file and number in it.
    wanted: HashMap<(usize, usize), usize>,
    reader: Option<(usize, usize, LogReader)>,
    ready: HashMap<usize, Vec<u8>>,
    bytes: usize,
}

impl<'a> Pictures<'a> {
    /// Opens no file yet.
    pub fn open(files: &'a [PathBuf], wanted: HashMap<(usize, usize), usize>) -> Self {
        Self {
            files,
            wanted,
            reader: None,
            ready: HashMap::new(),
            bytes: 0,
        }
    }

    /// The bytes of a wanted picture.
    ///
    /// # Errors
    /// When the log ends before it, or pictures come too far out of the order of time.
    pub fn take(&mut self, index: usize) -> anyhow::Result<Vec<u8>> {
        loop {
            if let Some(bytes) = self.ready.remove(&index) {
                self.bytes -= bytes.len();
                return Ok(bytes);
            }
            if self.bytes > AHEAD_BYTES {
                bail!("the pictures of the log are too far out of the order of time");
            }
            self.read_one()?;
        }
    }

    fn read_one(&mut self) -> anyhow::Result<()> {
        let (file, number, mut reader) = match self.reader.take() {
            Some(open) => open,
            None => (0, 0, LogReader::open(&self.files[0])?),
        };
        let next = match reader.next_record() {
            Some(Ok(record)) => match record.message {
                Message::Frame(frame) => {
                    if let Some(index) = self.wanted.get(&(file, number)) {
                        self.bytes += frame.image.len();
                        self.ready.insert(*index, frame.image.to_vec());
                    }
                    (file, number + 1, reader)
                }
                _ => (file, number, reader),
            },
            Some(Err(error)) if !error.ends_the_log() => (file, number, reader),
            None | Some(Err(_)) => {
                let path = self.files.get(file + 1);
                let path = path.context("a picture that was there is not there any more")?;
                (file + 1, 0, LogReader::open(path)?)
            }
        };
        self.reader = Some(next);
        Ok(())
    }
}
