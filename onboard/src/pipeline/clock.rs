//! Now, in the time of the events.
//!
//! Live events carry UTC and recorded ones the time of their drive, so "now" is the newest event's time
//! plus what has passed since. That also survives a machine whose own clock was never set.

use std::time::{Duration, Instant};

/// A time this far from the others is not believed at first.
const JUMP: Duration = Duration::from_secs(5);
/// Doubted times in a row before they are believed.
const JUMP_EVENTS: u32 = 5;
/// Part of an event's lag by which the clock gives way, so that one stamp too early does not stay.
const SLEW: i64 = 20;

/// Tells the time of the events between events.
#[derive(Debug, Default)]
pub struct EventClock {
    anchor: Option<(i64, Instant)>,
    doubted: u32,
}

impl EventClock {
    /// Notes an event's time as it arrives.
    pub fn note(&mut self, time_ns: i64, now: Instant) {
        let Some(now_ns) = self.now_ns(now) else {
            self.anchor = Some((time_ns, now));
            return;
        };
        let lag_ns = now_ns.saturating_sub(time_ns);
        if lag_ns.unsigned_abs() > JUMP.as_nanos() as u64 {
            self.doubted += 1;
            if self.doubted < JUMP_EVENTS {
                return;
            }
            self.anchor = Some((time_ns, now));
        } else if lag_ns < 0 {
            self.anchor = Some((time_ns, now));
        } else if let Some((anchor_ns, _)) = &mut self.anchor {
            *anchor_ns -= lag_ns / SLEW;
        }
        self.doubted = 0;
    }

    /// The time now; nothing before the first event.
    pub fn now_ns(&self, now: Instant) -> Option<i64> {
        let (anchor_ns, at) = self.anchor?;
        let since = i64::try_from(now.saturating_duration_since(at).as_nanos()).unwrap_or(i64::MAX);
        Some(anchor_ns.saturating_add(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn now_is_the_newest_event_and_what_passed_since() {
        let start = Instant::now();
        let mut clock = EventClock::default();
        assert_eq!(clock.now_ns(start), None);
        clock.note(1_000, start);
        assert_eq!(clock.now_ns(start + SECOND), Some(1_000_001_000));
        clock.note(1_500_000_000, start + SECOND);
        assert_eq!(clock.now_ns(start + SECOND), Some(1_500_000_000));
    }

    #[test]
    fn one_wild_stamp_is_not_believed_and_many_are() {
        let start = Instant::now();
        let mut clock = EventClock::default();
        clock.note(0, start);
        clock.note(i64::MAX, start);
        assert_eq!(clock.now_ns(start), Some(0));
        for _ in 0..JUMP_EVENTS {
            clock.note(3_600_000_000_000, start);
        }
        assert_eq!(clock.now_ns(start), Some(3_600_000_000_000));
    }

    #[test]
    fn a_stamp_too_early_is_forgotten_by_and_by() {
        let start = Instant::now();
        let mut clock = EventClock::default();
        clock.note(3_000_000_000, start);
        for tenth in 0..200 {
            clock.note(
                100_000_000 * tenth,
                start + Duration::from_millis(100 * tenth as u64),
            );
        }
        let lead_ns = clock.now_ns(start + 20 * SECOND).unwrap() - 20_000_000_000;
        assert!(lead_ns.abs() < 50_000_000, "{lead_ns}");
    }
}
