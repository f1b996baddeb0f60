//! GNSS time: what the leading receiver's stamps say it is, at each moment of this machine's clock.
//!
//! A stamp minus its arrival is the offset between the clocks minus the time the fix took to arrive, so
//! the largest of these is nearest to the offset. One that does not fit is doubted, and several that
//! agree with each other over some time mean that the receiver's clock changed.

use super::window::RecentMax;
use super::{SECOND_NS, TOLERANCE_NS};

/// How far back the least latency is looked for, nanoseconds.
const STRETCH_NS: i64 = 30 * SECOND_NS;
/// Fixes that agree before a changed clock is believed, and the time they span, nanoseconds.
const AGREEING: usize = 3;
const AGREEING_NS: i64 = 3 * SECOND_NS / 2;
/// Another receiver may lead after this silence of the leader, nanoseconds.
const SILENCE_NS: i64 = 10 * SECOND_NS;

/// What a fix says about GNSS time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeadVerdict {
    /// It fits.
    Fits,
    /// It does not fit, and is not used.
    Doubted,
    /// It is one of several that say that the receiver's clock changed.
    Changed,
}

/// The time that one receiver tells.
#[derive(Debug, Clone)]
pub struct Lead {
    /// The stream that leads.
    pub stream: usize,
    latency_ns: i64,
    offset: RecentMax,
    offset_ns: i64,
    fitted_ns: i64,
    /// Whether the next fix is believed whatever it says: the machine slept, or stood still.
    unsure: bool,
    candidate: Option<Candidate>,
}

/// Fixes in a row that agree with each other and not with the rest.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    began_ns: i64,
    lowest_ns: i64,
    highest_ns: i64,
    count: usize,
}

impl Lead {
    /// The first fix is believed.
    pub fn new(stream: usize, stamp_ns: i64, arrived_ns: i64, latency_ns: i64) -> Self {
        let offset_ns = stamp_ns.saturating_sub(arrived_ns);
        let mut lead = Self {
            stream,
            latency_ns,
            offset: RecentMax::new(STRETCH_NS),
            offset_ns,
            fitted_ns: arrived_ns,
            unsure: false,
            candidate: None,
        };
        lead.fit(offset_ns, arrived_ns);
        lead
    }

    /// GNSS time at this arrival, nanoseconds UTC.
    pub fn utc_ns(&self, arrived_ns: i64) -> i64 {
        arrived_ns.saturating_add(self.offset_ns)
    }

    /// How far the stamps of others may be ahead: fixes take up to this long to arrive, nanoseconds.
    pub fn ahead_ns(&self) -> i64 {
        self.latency_ns + TOLERANCE_NS
    }

    /// The next fix is believed whatever it says.
    pub fn doubt(&mut self) {
        self.unsure = true;
    }

    /// Whether another receiver may take over.
    pub fn is_silent(&self, arrived_ns: i64) -> bool {
        arrived_ns.saturating_sub(self.fitted_ns) > SILENCE_NS
    }

    /// Another receiver leads from now on; the time goes on.
    pub fn hand_over(&mut self, stream: usize, latency_ns: i64) {
        self.stream = stream;
        self.latency_ns = latency_ns;
        self.candidate = None;
    }

    /// Whether the last stamps do not fit those before.
    pub fn is_doubted(&self) -> bool {
        self.candidate.is_some()
    }

    /// What is the matter with the last stamps, in words; nothing when they fit.
    pub fn words(&self) -> Option<String> {
        let candidate = self.candidate?;
        let ahead_ns = candidate.highest_ns.saturating_sub(self.offset_ns);
        let direction = if ahead_ns < 0 { "behind" } else { "ahead of" };
        Some(format!(
            "its clock is {:.2} s {direction} its own fixes before",
            (ahead_ns as f64 * 1e-9).abs()
        ))
    }

    /// Takes a fix into account.
    pub fn judge(&mut self, stamp_ns: i64, arrived_ns: i64) -> LeadVerdict {
        let offset_ns = stamp_ns.saturating_sub(arrived_ns);
        let ahead_ns = offset_ns.saturating_sub(self.offset_ns);
        if (-self.ahead_ns()..=TOLERANCE_NS).contains(&ahead_ns) {
            self.unsure = false;
            self.candidate = None;
            self.fit(offset_ns, arrived_ns);
            return LeadVerdict::Fits;
        }
        let agreed = Candidate::with(self.candidate, offset_ns, arrived_ns);
        self.candidate = Some(agreed);
        let lasted_ns = arrived_ns.saturating_sub(agreed.began_ns);
        if !self.unsure && (agreed.count < AGREEING || lasted_ns < AGREEING_NS) {
            return LeadVerdict::Doubted;
        }
        self.unsure = false;
        self.candidate = None;
        self.offset = RecentMax::new(STRETCH_NS);
        self.fit(agreed.highest_ns, arrived_ns);
        // Fixes that come sooner than before are no change of a clock.
        if (0..=self.ahead_ns()).contains(&ahead_ns) {
            LeadVerdict::Fits
        } else {
            LeadVerdict::Changed
        }
    }

    fn fit(&mut self, offset_ns: i64, arrived_ns: i64) {
        self.offset.add(offset_ns, arrived_ns);
        self.offset_ns = self.offset.get().unwrap_or(offset_ns);
        self.fitted_ns = arrived_ns;
    }
}

impl Candidate {
    fn with(before: Option<Self>, offset_ns: i64, arrived_ns: i64) -> Self {
        let alone = Self {
            began_ns: arrived_ns,
            lowest_ns: offset_ns,
            highest_ns: offset_ns,
            count: 1,
        };
        let Some(before) = before else { return alone };
        let both = Self {
            began_ns: before.began_ns,
            lowest_ns: before.lowest_ns.min(offset_ns),
            highest_ns: before.highest_ns.max(offset_ns),
            count: before.count + 1,
        };
        // A backlog that is worked off fast is not a clock.
        if both.highest_ns.saturating_sub(both.lowest_ns) <= 2 * TOLERANCE_NS {
            both
        } else {
            alone
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START_NS: i64 = 1_700_000_000 * SECOND_NS;

    fn seconds(seconds: f64) -> i64 {
        (seconds * 1e9) as i64
    }

    /// Fixes at 1 Hz whose clock is ahead by `ahead_s` at each second, from the tenth on.
    fn play(ahead_s: impl Fn(i64) -> f64) -> (Lead, Vec<LeadVerdict>) {
        let mut lead = Lead::new(0, START_NS, seconds(0.1), SECOND_NS);
        let verdicts = (1..40)
            .map(|second| {
                let stamp_ns = START_NS + second * SECOND_NS + seconds(ahead_s(second));
                lead.judge(stamp_ns, second * SECOND_NS + seconds(0.1))
            })
            .collect();
        (lead, verdicts)
    }

    fn count(verdicts: &[LeadVerdict], of: LeadVerdict) -> usize {
        verdicts.iter().filter(|verdict| **verdict == of).count()
    }

    #[test]
    fn one_stamp_far_off_in_either_direction_moves_nothing() {
        for wild_s in [9.0, -9.0, 0.6, -3600.0, 9e8] {
            let (lead, verdicts) = play(|second| if second == 10 { wild_s } else { 0.0 });
            assert_eq!(count(&verdicts, LeadVerdict::Doubted), 1, "{wild_s}");
            assert_eq!(count(&verdicts, LeadVerdict::Changed), 0);
            assert_eq!(lead.utc_ns(seconds(50.1)), START_NS + 50 * SECOND_NS);
        }
    }

    #[test]
    fn a_clock_that_was_set_is_believed_after_three_fixes_and_told() {
        for step_s in [9.0, -9.0, -3600.0, 3600.0, -1024.0 * 604_800.0] {
            let (lead, verdicts) = play(|second| if second >= 10 { step_s } else { 0.0 });
            assert_eq!(count(&verdicts, LeadVerdict::Doubted), 2, "{step_s}");
            assert_eq!(verdicts[11], LeadVerdict::Changed);
            assert_eq!(
                lead.utc_ns(seconds(50.1)),
                START_NS + 50 * SECOND_NS + seconds(step_s)
            );
        }
    }

    #[test]
    fn a_change_of_latency_is_no_change_of_the_clock() {
        // It takes 0.8 s longer from the tenth second on, or until then.
        let (_, slower) = play(|second| if second >= 10 { -0.8 } else { 0.0 });
        assert_eq!(count(&slower, LeadVerdict::Fits), slower.len());
        let (lead, faster) = play(|second| if second >= 10 { 0.8 } else { 0.0 });
        assert_eq!(count(&faster, LeadVerdict::Changed), 0);
        assert_eq!(count(&faster, LeadVerdict::Doubted), 2);
        assert_eq!(
            lead.utc_ns(seconds(50.1)),
            START_NS + 50 * SECOND_NS + seconds(0.8)
        );
    }

    #[test]
    fn stamps_that_jump_about_never_agree() {
        let (_, verdicts) = play(|second| {
            if second >= 10 {
                (second * second % 97) as f64 * 10.0 + 5.0
            } else {
                0.0
            }
        });
        assert_eq!(count(&verdicts, LeadVerdict::Changed), 0);
        assert!(count(&verdicts, LeadVerdict::Doubted) > 25);
    }

    #[test]
    fn a_backlog_is_late_and_not_a_clock() {
        let mut lead = Lead::new(0, START_NS, 0, SECOND_NS);
        // Ten seconds of 10 Hz fixes at once, and once worked off in two seconds.
        for drain_s in [0.0, 2.0] {
            for tenth in 0..=100 {
                let stamp_ns = START_NS + tenth * SECOND_NS / 10;
                let arrived_ns = 10 * SECOND_NS + seconds(drain_s * tenth as f64 / 100.0);
                assert_ne!(lead.judge(stamp_ns, arrived_ns), LeadVerdict::Changed);
            }
        }
        assert_eq!(lead.utc_ns(20 * SECOND_NS), START_NS + 20 * SECOND_NS);
    }

    #[test]
    fn a_machine_clock_that_drifts_is_followed() {
        let mut lead = Lead::new(0, START_NS, 0, SECOND_NS);
        for second in 1..7200 {
            let arrived_ns = seconds(second as f64 * (1.0 + 100e-6));
            assert_eq!(
                lead.judge(START_NS + second * SECOND_NS, arrived_ns),
                LeadVerdict::Fits
            );
            let error_ns = lead.utc_ns(arrived_ns) - (START_NS + second * SECOND_NS);
            assert!(error_ns.abs() < seconds(0.01), "{error_ns}");
        }
    }
}
