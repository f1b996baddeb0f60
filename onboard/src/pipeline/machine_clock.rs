//! The clock that arrivals are stamped with.

#[cfg(test)]
use std::sync::Arc;
#[cfg(test)]
use std::sync::atomic::{AtomicI64, Ordering};

use rustix::time::{ClockId, clock_gettime};

/// Counts on while the machine sleeps, unlike [`std::time::Instant`], and is never set.
#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::Monotonic;

/// Nanoseconds since this machine started, as arrivals are stamped.
pub fn boot_time_ns() -> i64 {
    ArrivalClock::Machine.now_ns()
}

/// Where the time of arrivals and ticks is from.
#[derive(Debug, Clone, Default)]
pub enum ArrivalClock {
    /// Nanoseconds since this machine started.
    #[default]
    Machine,
    /// What a test says.
    #[cfg(test)]
    Staged(Arc<AtomicI64>),
}

impl ArrivalClock {
    /// The time now, nanoseconds.
    pub fn now_ns(&self) -> i64 {
        match self {
            Self::Machine => {
                let now = clock_gettime(CLOCK);
                now.tv_sec
                    .saturating_mul(1_000_000_000)
                    .saturating_add(now.tv_nsec)
            }
            #[cfg(test)]
            Self::Staged(now_ns) => now_ns.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_in_nanoseconds() {
        let clock = ArrivalClock::Machine;
        let before_ns = clock.now_ns();
        std::thread::sleep(std::time::Duration::from_millis(20));
        let passed_ns = clock.now_ns() - before_ns;
        assert!(
            (20_000_000..5_000_000_000).contains(&passed_ns),
            "{passed_ns}"
        );
    }
}
