//! Takes everything that happens, and writes what is worth keeping.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::fs::RenameFlags;
use tracing::info;

use super::RecordSinkConfig;
use super::choose::{Chooser, Chosen, Reason};
use super::folder::Folder;
use super::private::{rounded, rounded_covariance};
use crate::event::{Arrival, Estimate, EstimateKind, Event, GnssFix};
use crate::health::Health;
use crate::log::{LogError, LogWriter, RECORDING, Selection, topic};
use crate::pipeline::ArrivalClock;
use crate::port::{Outbound, PeerError, Writer};
use crate::utc;

/// Health is written this often when nothing changes.
const HEALTH_EVERY: Duration = Duration::from_secs(10);
/// While the vehicle stands, messages of one topic are so far apart, nanoseconds.
const STANDING_EVERY_NS: i64 = 10_000_000_000;
/// How often the free space and the age of the files are looked at.
const TIDY_EVERY: Duration = Duration::from_secs(30);

/// Writes recordings.
pub struct Recorder {
    config: RecordSinkConfig,
    folder: Folder,
    chooser: Chooser,
    topics: Topics,
    file: Option<OpenFile>,
    /// The latest time of a receiver's fix, nanoseconds UTC.
    fix_ns: Option<i64>,
    health: Option<(Health, Instant)>,
    tidied: Instant,
    /// UTC minus the clock of the arrivals, nanoseconds.
    offset_ns: i64,
    /// While the vehicle stands: when a message of a topic was written last.
    written_ns: HashMap<String, i64>,
}

struct OpenFile {
    log: LogWriter,
    path: PathBuf,
    flushed: Instant,
    dirty: bool,
    /// Whether anything but its beginning is on the disk.
    kept: bool,
}

impl Recorder {
    /// Takes the folder; the first file begins with the first fix.
    pub fn open(config: &RecordSinkConfig) -> Result<Self, PeerError> {
        static OFFSET_NS: OnceLock<i64> = OnceLock::new();
        let folder = Folder::open(&config.folder, config.min_free_mb)?;
        // First: what is due to go makes the room, and goes on a full disk too.
        let (total_mb, days) = (config.total_mb, config.retention_days);
        folder.tidy(Path::new(""), total_mb, days, utc::now_ns());
        folder.check_space()?;
        let clock = ArrivalClock::default();
        Ok(Self {
            folder,
            chooser: Chooser::new(config),
            config: config.clone(),
            topics: Topics::default(),
            file: None,
            fix_ns: None,
            health: None,
            tidied: Instant::now(),
            offset_ns: *OFFSET_NS.get_or_init(|| utc::now_ns().saturating_sub(clock.now_ns())),
            written_ns: HashMap::new(),
        })
    }

    fn log_ns(&self, arrived_ns: i64) -> i64 {
        arrived_ns.saturating_add(self.offset_ns)
    }

    fn log_now_ns(&self) -> i64 {
        self.log_ns(ArrivalClock::default().now_ns())
    }

    fn event(&mut self, arrival: &Arrival) -> Result<(), PeerError> {
        self.chooser.note_arrival(arrival.arrived_ns);
        let log_ns = self.log_ns(arrival.arrived_ns);
        match &arrival.event {
            Event::Gnss(fix) => {
                self.chooser.note_fix(fix);
                self.fix_ns = Some(fix.time_ns);
                self.begin(fix.time_ns)?;
                let topic = self.topics.of(topic::GNSS, &arrival.source);
                if self.is_worth_it(&topic, log_ns) {
                    let fix = self.private_fix(fix);
                    let log = self.log();
                    log.map_or(Ok(()), |log| {
                        log.record_gnss(&topic, &arrival.source, log_ns, &fix)
                    })?;
                }
            }
            Event::Odometry(sample) => {
                let topic = self.topics.of(topic::ODOMETRY, &arrival.source);
                if self.is_worth_it(&topic, log_ns) {
                    let log = self.log();
                    log.map_or(Ok(()), |log| log.record_odometry(&topic, log_ns, sample))?;
                }
            }
            Event::Frame(frame) => {
                if let Some(chosen) = self.chooser.note_frame(frame, arrival.arrived_ns) {
                    self.keep(&chosen)?;
                }
            }
            Event::SourceState { .. } => {}
        }
        Ok(())
    }

    fn estimate(&mut self, estimate: &Estimate) -> Result<(), PeerError> {
        let log_ns = self.log_now_ns();
        let topic = match estimate.kind {
            EstimateKind::Fused => topic::FUSED,
            EstimateKind::VisualOnly => topic::VISUAL_ONLY,
        };
        if self.is_worth_it(topic, log_ns) {
            let step_m = self.config.round_position_m;
            let mut private = estimate.clone();
            private.position = rounded(estimate.position, step_m);
            private.covariance_m2 = rounded_covariance(estimate.covariance_m2, step_m);
            private.protection_radius_m += step_m * std::f64::consts::FRAC_1_SQRT_2;
            let log = self.log();
            log.map_or(Ok(()), |log| log.record_estimate(log_ns, &private))?;
        }
        Ok(())
    }

    fn health(&mut self, health: &Health) -> Result<(), PeerError> {
        let due = self.health.as_ref().is_none_or(|(before, written)| {
            written.elapsed() >= HEALTH_EVERY || health.differs_from(before)
        });
        let log_ns = self.log_now_ns();
        if let Some(log) = self.log().filter(|_| due) {
            log.record_health(log_ns, health)?;
            self.health = Some((health.clone(), Instant::now()));
        }
        Ok(())
    }

    fn keep(&mut self, chosen: &Chosen) -> Result<(), PeerError> {
        let log_ns = self.log_ns(chosen.arrived_ns);
        let frame = &chosen.frame;
        let topic = self.topics.of(topic::IMAGE, &frame.camera);
        let Some(log) = self.log() else {
            return Ok(());
        };
        log.record_frame(&topic, log_ns, frame)?;
        log.record_selection(
            log_ns,
            &Selection {
                time_ns: frame.time_ns,
                camera: &frame.camera,
                reason: match chosen.reason {
                    Reason::Distance => "distance",
                    Reason::Disagreement => "disagreement",
                },
                travelled_m: chosen.travelled_m,
                disagreement: chosen.disagreement,
            },
        )?;
        Ok(())
    }

    /// A message is kept unless the vehicle stands and one of its topic was kept a short time ago.
    fn is_worth_it(&mut self, topic: &str, log_ns: i64) -> bool {
        if !self.chooser.stands() {
            self.written_ns.clear();
            return true;
        }
        let since_ns = self
            .written_ns
            .get(topic)
            .map_or(i64::MAX, |before_ns| log_ns.saturating_sub(*before_ns));
        if (0..STANDING_EVERY_NS).contains(&since_ns) {
            return false;
        }
        self.written_ns.insert(topic.to_owned(), log_ns);
        true
    }

    fn private_fix(&self, fix: &GnssFix) -> GnssFix {
        let step_m = self.config.round_position_m;
        let mut private = fix.clone();
        private.position = rounded(fix.position, step_m);
        private.covariance_m2 = rounded_covariance(fix.covariance_m2, step_m);
        private
    }

    /// The file to write to, marked as written to; none before the first fix.
    fn log(&mut self) -> Option<&mut LogWriter> {
        let file = self.file.as_mut()?;
        file.dirty = true;
        Some(&mut file.log)
    }

    /// Makes sure that there is a file to write to.
    fn begin(&mut self, time_ns: i64) -> Result<(), PeerError> {
        if self.file.is_some() {
            return Ok(());
        }
        self.folder.check_space()?;
        let (part, path) = self.folder.next(time_ns);
        let mut log = LogWriter::create(&part)?;
        log.write_metadata(RECORDING, self.about())?;
        if let Some(camera) = &self.config.camera {
            log.record_calibration(self.log_now_ns(), camera)?;
        }
        log.flush()?;
        let folder = File::open(&self.config.folder)
            .map_err(PeerError::io("opening the folder of recordings"))?;
        rustix::fs::renameat_with(
            rustix::fs::CWD,
            &part,
            rustix::fs::CWD,
            &path,
            RenameFlags::NOREPLACE,
        )
        .map_err(std::io::Error::from)
        .and_then(|()| folder.sync_all())
        .map_err(PeerError::io(format!("beginning {path:?}")))?;
        info!(sink = "record", ?path, "recording");
        self.file = Some(OpenFile {
            log,
            path,
            flushed: Instant::now(),
            dirty: true,
            kept: false,
        });
        self.health = None;
        self.tidy();
        Ok(())
    }

    fn about(&self) -> BTreeMap<String, String> {
        let config = &self.config;
        BTreeMap::from(
            [
                ("vehicle", config.vehicle.clone()),
                ("version", env!("CARGO_PKG_VERSION").to_owned()),
                ("frame_every_m", config.frame_every_m.to_string()),
                ("round_position_m", config.round_position_m.to_string()),
                ("zones", config.zones.len().to_string()),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        )
    }

    fn tidy(&mut self) {
        self.tidied = Instant::now();
        let current = self.file.as_ref().map(|file| file.path.clone());
        let current = current.unwrap_or_default();
        let now_ns = self.fix_ns.unwrap_or_else(utc::now_ns);
        let RecordSinkConfig {
            total_mb,
            retention_days,
            ..
        } = self.config;
        self.folder.tidy(&current, total_mb, retention_days, now_ns);
    }

    fn close(&mut self) -> Result<(), PeerError> {
        if let Some(file) = self.file.take() {
            file.log.finish()?;
        }
        Ok(())
    }

    fn take_in(&mut self, outbound: &Outbound) -> Result<(), PeerError> {
        match outbound {
            Outbound::Event(arrival) => self.event(arrival)?,
            Outbound::Match(found) => {
                if let Some(chosen) = self.chooser.note_match(found) {
                    self.keep(&chosen)?;
                }
            }
            Outbound::Estimate(estimate) => {
                self.chooser.note_estimate(estimate);
                self.estimate(estimate)?;
            }
            Outbound::Health(health) => self.health(health)?,
            Outbound::Shadow(_) => {}
        }
        self.do_what_is_due()
    }

    fn do_what_is_due(&mut self) -> Result<(), PeerError> {
        if let Some(file) = &mut self.file
            && file.dirty
            && file.flushed.elapsed().as_secs_f64() >= self.config.flush_s
        {
            file.log.flush()?;
            file.flushed = Instant::now();
            file.dirty = false;
            file.kept = true;
            let size = std::fs::metadata(&file.path).map_or(0, |about| about.len());
            self.folder.check_space()?;
            if size >= self.config.file_mb * 1_000_000 {
                self.close()?;
                self.begin(self.fix_ns.unwrap_or_else(utc::now_ns))?;
            }
        }
        if self.tidied.elapsed() >= TIDY_EVERY {
            self.tidy();
        }
        Ok(())
    }

    /// After a failure: a full disk makes every try fail, and none may leave an empty file behind, nor
    /// say something else than the one before.
    fn failed(&mut self, failure: PeerError) -> PeerError {
        if let Some(file) = self.file.take().filter(|file| !file.kept) {
            // If this fails too, the file stays; nothing depends on it.
            let _ = std::fs::remove_file(&file.path);
        }
        let reason = match failure {
            PeerError::Log(LogError::Write { reason, .. }) => reason,
            PeerError::Log(LogError::Io { source, .. }) => source.to_string(),
            other => return other,
        };
        let folder = &self.config.folder;
        PeerError::Protocol(format!("nothing is recorded into {folder:?}: {reason}"))
    }
}

impl Writer for Recorder {
    fn write(&mut self, outbound: &Outbound) -> Result<(), PeerError> {
        self.take_in(outbound)
            .map_err(|failure| self.failed(failure))
    }

    fn poll(&mut self) -> Result<(), PeerError> {
        self.do_what_is_due()
            .map_err(|failure| self.failed(failure))
    }

    fn finish(mut self: Box<Self>) -> Result<(), PeerError> {
        for chosen in self.chooser.finish() {
            self.keep(&chosen)?;
        }
        self.close()
    }
}

/// The topic of each source: the first of a kind has the well-known one, the others their name behind it.
#[derive(Default)]
struct Topics {
    first: HashMap<&'static str, String>,
}

impl Topics {
    fn of(&mut self, kind: &'static str, source: &str) -> String {
        let first = self.first.entry(kind).or_insert_with(|| source.to_owned());
        if first == source {
            kind.to_owned()
        } else {
            format!("{kind}/{source}")
        }
    }
}
