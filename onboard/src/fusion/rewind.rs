//! The last seconds of measurements and of the filter, so that a source found out to be lying can be
//! taken back to where its lie began.

use std::collections::VecDeque;
use std::sync::Arc;

use super::filter::Filter;
use crate::event::{CrossViewFix, GnssFix, OdometrySample};

/// How long measurements are kept, nanoseconds.
const KEEP_NS: i64 = 8_000_000_000;
/// Time between two kept states of the filter, nanoseconds.
const SPACING_NS: i64 = 450_000_000;

/// More measurements than this without a newer state are forgotten: their times do not advance.
const MOST_MEASUREMENTS: usize = 1 << 14;

/// What the filter takes in.
#[derive(Debug, Clone)]
pub(super) enum Measurement {
    /// A fix and the name of its receiver.
    Gnss(Arc<str>, GnssFix),
    Odometry(OdometrySample),
    Visual(Arc<CrossViewFix>),
    /// A frame is from this time: dead-reckon to there.
    Reach(i64),
}

impl Measurement {
    pub(super) fn fix(&self) -> Option<&GnssFix> {
        match self {
            Self::Gnss(_, fix) => Some(fix),
            _ => None,
        }
    }
}

/// States of the filter and the measurements since the oldest of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory {
    /// Each with the number of measurements before it, counted from the start.
    states: VecDeque<(u64, Filter)>,
    measurements: VecDeque<Measurement>,
    /// Number of the oldest measurement kept.
    oldest: u64,
}

impl Memory {
    /// A measurement was taken in and left the filter like this. States are kept after fixes, or about
    /// every second without.
    pub(super) fn note(&mut self, measurement: Measurement, filter: &Filter) {
        let is_fix = matches!(measurement, Measurement::Gnss(..));
        self.measurements.push_back(measurement);
        let since_ns = self.states.back().map_or(i64::MAX, |(_, last)| {
            filter.now_ns.saturating_sub(last.now_ns)
        });
        let due_ns = if is_fix { SPACING_NS } else { 3 * SPACING_NS };
        if since_ns >= due_ns {
            let number = self.oldest + self.measurements.len() as u64;
            self.states.push_back((number, filter.clone()));
        }
        if self.measurements.len() > MOST_MEASUREMENTS {
            *self = Self::default();
            return;
        }
        while let Some((number, second)) = self.states.get(1)
            && second.now_ns < filter.now_ns.saturating_sub(KEEP_NS)
        {
            let gone = (number - self.oldest) as usize;
            self.measurements.drain(..gone);
            self.oldest = *number;
            self.states.pop_front();
        }
    }

    /// The latest state at `time_ns` or before (or else the oldest), and the measurements since, which
    /// then have to be noted again.
    pub(super) fn rewind(&mut self, time_ns: i64) -> Option<(Filter, Vec<Measurement>)> {
        let at = self
            .states
            .iter()
            .rposition(|(_, state)| state.now_ns <= time_ns)
            .unwrap_or(0);
        let (number, state) = self.states.get(at)?.clone();
        self.states.truncate(at + 1);
        let since = self
            .measurements
            .split_off((number - self.oldest) as usize)
            .into();
        Some((state, since))
    }
}
