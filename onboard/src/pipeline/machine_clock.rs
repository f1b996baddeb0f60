//! The clock that arrivals are stamped with.

use rustix::time::{ClockId, clock_gettime};

/// Counts on while the machine sleeps, unlike [`std::time::Instant`], and is never set.
#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::Monotonic;

/// This machine's monotonic time, nanoseconds since it started.
pub fn now_ns() -> i64 {
    let now = clock_gettime(CLOCK);
    now.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(now.tv_nsec)
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_goes_on_in_nanoseconds() {
        let before = super::now_ns();
        std::thread::sleep(std::time::Duration::from_millis(20));
        let passed_ns = super::now_ns() - before;
        assert!(
            (20_000_000..5_000_000_000).contains(&passed_ns),
            "{passed_ns}"
        );
    }
}
