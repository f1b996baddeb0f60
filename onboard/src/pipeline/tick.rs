//! When the core is ticked because nothing else made it give an estimate; one rule for live and replay.

/// The part of a tick after which the core is asked again when it had no estimate, because a fix was
/// due any moment.
const RETRY_PART: i64 = 4;

/// Keeps the time of the next tick, on any clock in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub struct Ticker {
    tick_ns: i64,
    next_ns: i64,
}

impl Ticker {
    /// Ticks for the first time one tick after `now_ns`.
    pub fn new(tick_ns: i64, now_ns: i64) -> Self {
        Self {
            tick_ns,
            next_ns: now_ns.saturating_add(tick_ns),
        }
    }

    /// Something else came at `now_ns`: the next tick is a whole one later.
    pub fn restart(&mut self, now_ns: i64) {
        self.next_ns = now_ns.saturating_add(self.tick_ns);
    }

    /// When the next tick is due.
    pub fn next_ns(&self) -> i64 {
        self.next_ns
    }

    /// The core was ticked at `now_ns` and gave estimates or none.
    pub fn ticked(&mut self, now_ns: i64, gave_estimates: bool) {
        let wait_ns = if gave_estimates {
            self.tick_ns
        } else {
            self.tick_ns / RETRY_PART
        };
        self.next_ns = now_ns.saturating_add(wait_ns.max(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_without_an_estimate_is_repeated_soon() {
        let mut ticker = Ticker::new(100, 0);
        assert_eq!(ticker.next_ns(), 100);
        ticker.ticked(100, true);
        assert_eq!(ticker.next_ns(), 200);
        ticker.ticked(200, false);
        assert_eq!(ticker.next_ns(), 225);
        ticker.restart(210);
        assert_eq!(ticker.next_ns(), 310);
    }
}
