//! When a source is not believed.

use std::collections::VecDeque;

/// How long a past exclusion is remembered, nanoseconds: longer than measurements are kept.
const KEEP_NS: i64 = 20_000_000_000;

/// Stretches of time in which a source is not believed.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Exclusion {
    /// Since when it is excluded, nanoseconds.
    open_ns: Option<i64>,
    past_ns: VecDeque<(i64, i64)>,
}

impl Exclusion {
    /// Whether a measurement of this time is not believed.
    pub(crate) fn covers(&self, time_ns: i64) -> bool {
        self.open_ns.is_some_and(|since_ns| time_ns >= since_ns)
            || self
                .past_ns
                .iter()
                .any(|(from_ns, until_ns)| (*from_ns..*until_ns).contains(&time_ns))
    }

    /// Whether it is excluded now.
    pub(crate) fn is_open(&self) -> bool {
        self.open_ns.is_some()
    }

    /// Excludes from this time on, or from an earlier one when it was excluded later.
    pub(crate) fn open(&mut self, since_ns: i64) {
        self.open_ns = Some(
            self.open_ns
                .map_or(since_ns, |open_ns| open_ns.min(since_ns)),
        );
    }

    /// Believes again from this time on.
    pub(crate) fn close(&mut self, until_ns: i64) {
        if let Some(since_ns) = self.open_ns.take() {
            self.past_ns.push_back((since_ns, until_ns));
            while let Some((_, gone_ns)) = self.past_ns.front()
                && *gone_ns < until_ns.saturating_sub(KEEP_NS)
            {
                self.past_ns.pop_front();
            }
        }
    }
}

/// Who is not believed.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Exclusions {
    pub(crate) speed: Exclusion,
    pub(crate) yaw_rate: Exclusion,
    pub(crate) heading: Exclusion,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_stays_excluded_after_it_ended() {
        let mut exclusion = Exclusion::default();
        exclusion.open(100);
        exclusion.open(50);
        assert!(exclusion.covers(60) && exclusion.covers(1_000) && !exclusion.covers(49));
        exclusion.close(200);
        assert!(exclusion.covers(60) && !exclusion.covers(200) && !exclusion.is_open());
    }
}
