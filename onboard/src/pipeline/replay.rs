//! A recorded drive through the same core, as fast as it goes and always to the same bytes.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::warn;

use super::live_core::LiveCore;
use super::setup::{self, SetupError, core_from};
use crate::config::Config;
use crate::core::{Core, CoreCounters};
use crate::event::Estimate;
use crate::log::{Arrivals, Complaints, LogError, Message, Record, Recording};
use crate::shadow::{Comparison, Shadow, ShadowHealth};

/// Silence in a log longer than this was no silence of the sources: the recorder did not run. It is
/// passed over in one step, nanoseconds.
const LONGEST_SILENCE_NS: i64 = 600_000_000_000;

/// Why a drive cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The config names a tile set or student that cannot be used.
    #[error(transparent)]
    Setup(#[from] SetupError),
}

/// What a replay met.
#[derive(Debug, Default)]
pub struct ReplaySummary {
    /// Events the core took in.
    pub events: u64,
    /// Estimates it gave.
    pub estimates: u64,
    /// Messages that were left out.
    pub bad_messages: u64,
    /// Messages that say that nothing was measured.
    pub empty_messages: u64,
    /// Where the log stops making sense, if it does.
    pub damage: Option<LogError>,
    /// What became of the events.
    pub counters: CoreCounters,
    /// What a student in shadow mode came to, where the config names one.
    pub shadow: Option<ShadowHealth>,
}

/// What a replay hands out, in the order in which it comes.
#[derive(Debug, Clone, Copy)]
pub enum Replayed<'a> {
    /// Where the vehicle was.
    Estimate(&'a Estimate),
    /// What a student in shadow mode said of a frame.
    Comparison(&'a Comparison),
}

/// Replays a log and hands each estimate to `publish`.
///
/// The core is ticked as on a drive, on the log's own time, and judges the clocks of the sources by it.
/// The camera's calibration is the config's, or else the log's.
///
/// # Errors
/// [`ReplayError`] before anything is replayed; damage to the log is in the summary.
pub fn replay(
    log: &Path,
    config: &Config,
    mut publish: impl FnMut(&Estimate),
) -> Result<ReplaySummary, ReplayError> {
    replay_until(log, config, &AtomicBool::new(false), |replayed| {
        if let Replayed::Estimate(estimate) = replayed {
            publish(estimate);
        }
    })
}

/// The same, until `stop` is set, and with what a student in shadow mode says. One that cannot be used
/// changes nothing, and the summary says why.
///
/// # Errors
/// As [`replay`].
pub fn replay_until(
    log: &Path,
    config: &Config,
    stop: &AtomicBool,
    publish: impl FnMut(Replayed<'_>),
) -> Result<ReplaySummary, ReplayError> {
    let mut core = core_from(config)?;
    let recording = Recording::open(log, &config.topics)?;
    for remark in &recording.choice().remarks {
        warn!(remark, "topics of the log");
    }
    core.set_clocks(config.recorded_clocks(recording.choice()));
    let records = recording.records();
    let summary = replay_records(
        records.take_while(|_| !stop.load(Ordering::Relaxed)),
        core,
        config,
        publish,
    );
    if summary.estimates == 0 && summary.damage.is_none() && !stop.load(Ordering::Relaxed) {
        return Err(recording.unusable(&summary.why_nothing()).into());
    }
    Ok(summary)
}

impl ReplaySummary {
    /// Why there are no estimates.
    fn why_nothing(&self) -> String {
        let Self {
            events,
            bad_messages,
            empty_messages,
            counters,
            ..
        } = self;
        if *events == 0 {
            return format!(
                "no message became an event ({bad_messages} cannot be read, {empty_messages} say that \
                 nothing was measured)"
            );
        }
        format!(
            "of {events} events no estimate came: {} fixes were used, {} were not, and {} events have times \
             that do not fit; the first estimate needs a fix",
            counters.fixes, counters.fixes_unused, counters.times_doubted
        )
    }
}

/// The student in shadow mode, or the reason in the summary.
fn load_shadow(config: &Config, summary: &mut ReplaySummary) -> Option<Box<Shadow>> {
    let shadow = config.shadow.as_ref()?;
    setup::load_shadow(config, shadow)
        .inspect_err(|failure| {
            warn!(error = %failure, "the student for shadow mode cannot be used");
            let name = shadow.model.display().to_string();
            summary.shadow = Some(ShadowHealth::broken(&name, failure.to_string()));
        })
        .ok()
}

fn replay_records(
    records: impl Iterator<Item = Result<Record, LogError>>,
    core: Core,
    config: &Config,
    mut publish: impl FnMut(Replayed<'_>),
) -> ReplaySummary {
    let mut summary = ReplaySummary::default();
    let mut complaints = Complaints::default();
    let mut shadow = load_shadow(config, &mut summary);
    let tick_ns = (config.daemon.tick_s * 1e9) as i64;
    let mut core = LiveCore::new(core, tick_ns, i64::MIN);
    let mut last_ns: Option<i64> = None;
    for record in Arrivals::new(records) {
        let arrival = match record {
            Ok(Record {
                message: Message::Calibration(camera),
                ..
            }) => {
                if config.camera.is_none() {
                    core.set_camera(camera);
                }
                continue;
            }
            Ok(Record {
                message: Message::Nothing(_),
                ..
            }) => {
                summary.empty_messages += 1;
                continue;
            }
            Ok(record) => record.into_arrival(),
            Err(error) if error.ends_the_log() => {
                warn!(%error, "the replay ends here");
                summary.damage = Some(error);
                break;
            }
            Err(error) => {
                complaints.note("replay", &error);
                continue;
            }
        };
        let Some(arrival) = arrival else { continue };
        let arrived_ns = arrival.arrived_ns;
        let mut publish_all = |estimates: Vec<Estimate>| {
            summary.estimates += estimates.len() as u64;
            estimates
                .iter()
                .for_each(|estimate| publish(Replayed::Estimate(estimate)));
        };
        let silence_ns = last_ns.map_or(i64::MAX, |last_ns| arrived_ns.saturating_sub(last_ns));
        if silence_ns < LONGEST_SILENCE_NS {
            while core.next_tick_ns() < arrived_ns {
                publish_all(core.wait_over(core.next_tick_ns()));
            }
        }
        last_ns = Some(arrived_ns);
        summary.events += 1;
        publish_all(core.handle(arrival));
        let seen = core.take_match().zip(core.take_look());
        if let (Some(shadow), Some((found, look))) = (&mut shadow, seen)
            && let Some(comparison) = shadow.consider(&found, &look)
        {
            publish(Replayed::Comparison(&comparison));
        }
    }
    if let (Some(shadow), Some(config)) = (&shadow, &config.shadow) {
        let name = config.model.display().to_string();
        summary.shadow = Some(shadow.tally().health(&name, 0));
    }
    if let Some(left_out) = complaints.summary() {
        warn!(left_out, "the replay is over");
    }
    summary.bad_messages = complaints.count();
    summary.counters = core.counters();
    summary
}
