//! Now, in the time of the events.
//!
//! Live events carry UTC and recorded ones the time of their drive, so "now" is the newest event's time
//! plus what has passed since. That also survives a machine whose own clock was never set.

/// A time this far from the others is not believed at first, nanoseconds.
const JUMP_NS: u64 = 5_000_000_000;
/// Doubted times in a row before they are believed.
const JUMP_EVENTS: u32 = 5;
/// Part of an event's lag by which the clock gives way, so that one stamp too early does not stay.
const SLEW: i64 = 20;

/// Gives the time between events, on the events' own time scale.
#[derive(Debug, Default)]
pub struct EventClock {
    /// An event's time, and when it arrived.
    anchor: Option<(i64, i64)>,
    doubted: u32,
}

impl EventClock {
    /// Notes an event's time as it arrives.
    pub fn note(&mut self, time_ns: i64, arrived_ns: i64) {
        let Some(now_ns) = self.now_ns(arrived_ns) else {
            self.anchor = Some((time_ns, arrived_ns));
            return;
        };
        let lag_ns = now_ns.saturating_sub(time_ns);
        if lag_ns.unsigned_abs() > JUMP_NS {
            self.doubted += 1;
            if self.doubted < JUMP_EVENTS {
                return;
            }
            self.anchor = Some((time_ns, arrived_ns));
        } else if lag_ns < 0 {
            self.anchor = Some((time_ns, arrived_ns));
        } else if let Some((anchor_ns, _)) = &mut self.anchor {
            *anchor_ns -= lag_ns / SLEW;
        }
        self.doubted = 0;
    }

    /// The time now; nothing before the first event.
    pub fn now_ns(&self, arrived_now_ns: i64) -> Option<i64> {
        let (anchor_ns, arrived_ns) = self.anchor?;
        let since_ns = arrived_now_ns.saturating_sub(arrived_ns).max(0);
        Some(anchor_ns.saturating_add(since_ns))
    }
}
