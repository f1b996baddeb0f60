//! What is stated of the sources' clocks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::EventKind;

/// What happens to a source whose clock is off by a constant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockRule {
    /// Its events are not used until its clock is right.
    #[default]
    Refuse,
    /// The offset is taken off its stamps, and said. GPS time, TAI, time zones, this machine's own
    /// uptime and wrong units are corrected exactly; any other constant as far as the least time that
    /// events take to arrive, which cannot be told from it.
    Correct,
}

/// What is stated of one source's clock.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SourceClock {
    /// Longest time from the moment something is true until it arrives, seconds.
    pub latency_s: f64,
    /// What to do when the clock is off.
    pub rule: ClockRule,
}

/// What is stated of all clocks: for each source by name, and for those not named by what they deliver.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClockConfig {
    /// Stated for these sources; a latency that is not given is the default for the kind of event.
    pub sources: BTreeMap<String, (Option<f64>, ClockRule)>,
}

/// Default of the longest latency of fixes: a receiver at 9600 baud takes most of a second, seconds.
pub const GNSS_LATENCY_S: f64 = 1.0;
/// Default of the longest latency of frames: exposure, encoding, disk or network, seconds.
pub const CAMERA_LATENCY_S: f64 = 1.0;
/// Default of the longest latency of odometry samples, seconds.
pub const ODOMETRY_LATENCY_S: f64 = 0.5;

impl ClockConfig {
    /// What is stated of the events of this kind from this source.
    pub fn of(&self, source: &str, kind: EventKind) -> SourceClock {
        let (latency_s, rule) = self.sources.get(source).copied().unwrap_or_default();
        let default_s = match kind {
            EventKind::Gnss => GNSS_LATENCY_S,
            EventKind::Camera => CAMERA_LATENCY_S,
            EventKind::Odometry => ODOMETRY_LATENCY_S,
        };
        SourceClock {
            latency_s: latency_s.unwrap_or(default_s),
            rule,
        }
    }
}
