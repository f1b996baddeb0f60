//! A recorded drive through the same core, as fast as it goes and always to the same bytes.

use std::path::Path;

use tracing::warn;

use super::setup::{SetupError, core_from};
use super::tick::Ticker;
use crate::config::Config;
use crate::core::{Core, CoreCounters};
use crate::event::Estimate;
use crate::log::{LogError, LogReader, Message, Record};

/// Silence in a log longer than this is passed over in one step, seconds.
const LONGEST_SILENCE_S: f64 = 60.0;
/// An event that is earlier than the one before by less than this is out of order; by more, the log
/// started over. Nanoseconds.
const LARGEST_DISORDER_NS: i64 = 999_999_999;

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
    /// Where the log stops making sense, if it does.
    pub damage: Option<LogError>,
    /// What became of the events.
    pub counters: CoreCounters,
}

/// Replays a log and hands each estimate to `publish`.
///
/// Where the log is silent for longer than a tick the core is ticked, on the log's own time. The
/// camera's calibration is the config's, or else the log's.
///
/// # Errors
/// [`ReplayError`] before anything is replayed; damage to the log is in the summary.
pub fn replay(
    log: &Path,
    config: &Config,
    publish: impl FnMut(&Estimate),
) -> Result<ReplaySummary, ReplayError> {
    let core = core_from(config)?;
    Ok(replay_records(
        LogReader::open(log)?.records(),
        core,
        config,
        publish,
    ))
}

fn replay_records(
    records: impl Iterator<Item = Result<Record, LogError>>,
    mut core: Core,
    config: &Config,
    mut publish: impl FnMut(&Estimate),
) -> ReplaySummary {
    let mut summary = ReplaySummary::default();
    let mut ticker: Option<Ticker> = None;
    let mut last_ns: Option<i64> = None;
    let tick_ns = (config.daemon.tick_s * 1e9) as i64;
    for record in records {
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
            Ok(record) => record.into_arrival(),
            Err(error) if error.ends_the_log() => {
                warn!(%error, "the replay ends here");
                summary.damage = Some(error);
                break;
            }
            Err(error) => {
                warn!(%error, "replaying without it");
                summary.bad_messages += 1;
                continue;
            }
        };
        let Some(arrival) = arrival else { continue };
        let time_ns = arrival.arrived_ns;
        let mut publish_all = |estimates: Vec<Estimate>| {
            summary.estimates += estimates.len() as u64;
            estimates.iter().for_each(&mut publish);
        };
        let silence_ns = last_ns.map_or(0, |last_ns| time_ns.saturating_sub(last_ns));
        if let Some(ticker) = &mut ticker
            && (silence_ns as f64) < LONGEST_SILENCE_S * 1e9
        {
            while ticker.next_ns() < time_ns {
                let now_ns = ticker.next_ns();
                let estimates = core.tick(now_ns);
                ticker.ticked(now_ns, !estimates.is_empty());
                publish_all(estimates);
            }
        }
        // An event a little out of order does not set the time back.
        let reached_ns = match last_ns {
            Some(last_ns) if (-LARGEST_DISORDER_NS..0).contains(&silence_ns) => last_ns,
            _ => time_ns,
        };
        last_ns = Some(reached_ns);
        ticker = Some(Ticker::new(tick_ns, reached_ns));
        summary.events += 1;
        publish_all(core.handle(arrival));
    }
    summary.counters = core.counters();
    summary
}
