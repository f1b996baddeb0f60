//! How the daemon and its peers are, as one report for status, pages and diagnostics.

use serde::Serialize;

use crate::clocks::ClockHealth;
use crate::core::CoreCounters;
use crate::event::State;
use crate::matcher::ModelFile;
use crate::port::Clients;
use crate::shadow::ShadowHealth;

/// A report of the whole daemon, sent at regular times and whenever a state or reason changes.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Health {
    /// When it was made, nanoseconds UTC by this machine's clock.
    pub time_ns: i64,
    /// State of the latest estimate; none before the first.
    pub state: Option<State>,
    /// Time since the latest estimate, seconds; none before the first.
    pub estimate_age_s: Option<f64>,
    /// Everything that is not as it should be, in words; empty when all is well.
    pub reasons: Vec<String>,
    /// Each source, in the order of the config.
    pub sources: Vec<SourceHealth>,
    /// Each sink, in the order of the config; a source that is also written to is listed here too.
    pub sinks: Vec<SinkHealth>,
    /// Events the core took in.
    pub events: u64,
    /// Estimates the core gave.
    pub estimates: u64,
    /// Frames that were dropped because the core was busy.
    pub frames_dropped: u64,
    /// What became of the events.
    pub core: CoreCounters,
    /// The student that runs; none without one.
    pub model: Option<ModelFile>,
    /// The student in shadow mode; none where the config names none.
    pub shadow: Option<ShadowHealth>,
}

/// One source.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SourceHealth {
    /// Name from the config.
    pub name: String,
    /// Whether it has delivered since it was last opened.
    pub up: bool,
    /// Events it delivered.
    pub events: u64,
    /// Time of its latest event, nanoseconds UTC.
    pub last_event_ns: Option<i64>,
    /// Why it failed last; none while it delivers.
    pub error: Option<String>,
    /// What its owner should know although nothing failed, such as that nobody sends to it.
    pub remark: Option<String>,
    /// What is thought of its clock, for each kind of event it delivers.
    pub clocks: Vec<ClockHealth>,
}

/// One sink.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SinkHealth {
    /// Name from the config, or the kind.
    pub name: String,
    /// Whether it is open.
    pub up: bool,
    /// What it took.
    pub written: u64,
    /// What it lost because it was slow or not open.
    pub dropped: u64,
    /// Its clients, if it is a server.
    pub clients: Option<Clients>,
    /// Why it failed last; none while it is open.
    pub error: Option<String>,
}

impl Health {
    /// Whether a state, an error or a reason differs; counters and times always do.
    pub fn differs_from(&self, before: &Self) -> bool {
        let sources = |health: &Self| -> Vec<(bool, Option<String>)> {
            let sources = health.sources.iter();
            sources.map(|s| (s.up, s.error.clone())).collect()
        };
        let sinks = |health: &Self| -> Vec<(bool, Option<String>)> {
            let sinks = health.sinks.iter();
            sinks.map(|s| (s.up, s.error.clone())).collect()
        };
        self.state != before.state
            || self.reasons != before.reasons
            || sources(self) != sources(before)
            || sinks(self) != sinks(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_no_change_and_an_error_is() {
        let source = SourceHealth {
            name: "gnss".into(),
            up: true,
            ..Default::default()
        };
        let before = Health {
            sources: vec![source.clone()],
            ..Default::default()
        };
        let mut counted = before.clone();
        counted.sources[0].events = 7;
        counted.events = 7;
        assert!(!counted.differs_from(&before));
        let mut failed = before.clone();
        failed.sources[0].error = Some("unplugged".into());
        assert!(failed.differs_from(&before));
    }
}
