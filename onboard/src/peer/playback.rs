//! One common clock for recordings that are played as if they happened now.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::port::READ_PATIENCE;

/// Maps recorded times to now; clones share the mapping, so that several recordings stay together.
#[derive(Debug, Clone, Default)]
pub struct Playback {
    start: Arc<Mutex<Option<(i64, Instant)>>>, // recorded time and the moment it stands for
}

impl Playback {
    /// Waits for something recorded at `time_ns`, at most for [`READ_PATIENCE`]; whether it is due. The
    /// first call of all is due at once.
    pub fn wait_for(&self, time_ns: i64) -> bool {
        let wait = self.until(time_ns);
        std::thread::sleep(wait.min(READ_PATIENCE));
        wait <= READ_PATIENCE
    }

    fn until(&self, time_ns: i64) -> Duration {
        let now = Instant::now();
        let mut start = self.start.lock().unwrap_or_else(PoisonError::into_inner);
        let (start_ns, began) = *start.get_or_insert((time_ns, now));
        let due =
            Duration::from_nanos(u64::try_from(time_ns.saturating_sub(start_ns)).unwrap_or(0));
        due.saturating_sub(now - began)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recordings_that_share_a_playback_stay_together() {
        let one = Playback::default();
        let other = one.clone();
        assert_eq!(one.until(5_000_000_000), Duration::ZERO);
        assert!(other.until(65_000_000_000) > Duration::from_secs(50));
        assert!(!other.wait_for(65_000_000_000));
        assert_eq!(other.until(4_000_000_000), Duration::ZERO);
        assert!(one.wait_for(i64::MIN));
    }
}
