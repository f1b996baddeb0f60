//! The stamps that drivers put on pictures, on the clock of arrivals.
//!
//! V4L2 counts from the monotonic clock, which stands still while the machine sleeps; arrivals count from
//! the boot clock, which does not. Both are read when a picture is taken out of its buffer. From the boot clock to
//! UTC it is the daemon's clocks that lead ([`crate::clocks`]), by the stamps of the receiver.

use rustix::time::{ClockId, clock_gettime};

use crate::pipeline::boot_time_ns;

/// When a picture was taken, as its driver says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Which clock it is of.
    pub clock: StampClock,
    /// What it is the time of.
    pub moment: Moment,
    /// Nanoseconds.
    pub time_ns: i64,
}

/// The clock of a stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StampClock {
    /// CLOCK_MONOTONIC.
    Monotonic,
    /// Not said, or that of whoever fed a loopback device; such stamps are not used.
    Other,
}

/// What a stamp is the time of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The first pixel was exposed.
    StartOfExposure,
    /// The last pixel arrived.
    EndOfFrame,
}

impl Moment {
    /// For the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StartOfExposure => "start of exposure",
            Self::EndOfFrame => "end of frame",
        }
    }
}

/// One moment on both clocks, nanoseconds.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// CLOCK_MONOTONIC.
    pub monotonic_ns: i64,
    /// The clock of arrivals.
    pub boot_ns: i64,
}

impl Now {
    /// Both clocks, read one after the other.
    pub fn read() -> Self {
        let monotonic = clock_gettime(ClockId::Monotonic);
        Self {
            monotonic_ns: monotonic.tv_sec * 1_000_000_000 + monotonic.tv_nsec,
            boot_ns: boot_time_ns(),
        }
    }
}

impl Stamp {
    /// Whether it says when the picture was taken: none that is before the machine's start or after now does.
    pub fn is_usable(&self, now: Now) -> bool {
        self.clock == StampClock::Monotonic && self.time_ns > 0 && self.time_ns <= now.monotonic_ns
    }

    /// When the picture was taken, nanoseconds on the clock of arrivals; now, when the stamp does not say.
    pub fn boot_ns(&self, now: Now) -> i64 {
        let age_ns = if self.is_usable(now) {
            now.monotonic_ns - self.time_ns
        } else {
            0
        };
        now.boot_ns - age_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(clock: StampClock, time_ns: i64) -> Stamp {
        Stamp {
            clock,
            moment: Moment::EndOfFrame,
            time_ns,
        }
    }

    #[test]
    fn a_stamp_is_as_old_on_the_clock_of_arrivals() {
        // The machine slept for 1000 s.
        let now = Now {
            monotonic_ns: 50_000_000_000,
            boot_ns: 1_050_000_000_000,
        };
        let monotonic = stamp(StampClock::Monotonic, 49_967_000_000);
        assert_eq!(monotonic.boot_ns(now), 1_049_967_000_000);
        assert!(monotonic.is_usable(now));
        for (clock, time_ns) in [
            (StampClock::Other, 49_967_000_000),
            (StampClock::Monotonic, 0),
            (StampClock::Monotonic, -5),
            (StampClock::Monotonic, 50_000_000_001),
            (StampClock::Monotonic, i64::MAX),
        ] {
            let stamp = stamp(clock, time_ns);
            assert!(!stamp.is_usable(now), "{stamp:?}");
            assert_eq!(stamp.boot_ns(now), now.boot_ns, "{stamp:?}");
        }
    }

    #[test]
    fn both_clocks_go_on_together() {
        let (first, second) = (Now::read(), Now::read());
        let passed_ns = second.monotonic_ns - first.monotonic_ns;
        assert!(passed_ns >= 0);
        let apart_ns = (second.boot_ns - first.boot_ns - passed_ns).abs();
        assert!(apart_ns < 1_000_000_000, "{apart_ns} ns");
    }
}
