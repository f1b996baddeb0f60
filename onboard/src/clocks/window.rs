//! The largest value of the last seconds.

/// Keeps the maximum of the current and the previous stretch of time, so it covers between one and two
/// of them, in constant memory.
#[derive(Debug, Clone, Copy)]
pub struct RecentMax {
    stretch_ns: i64,
    began_ns: i64,
    current: Option<i64>,
    previous: Option<i64>,
}

impl RecentMax {
    /// Covers at least the last `stretch_ns`.
    pub fn new(stretch_ns: i64) -> Self {
        Self {
            stretch_ns,
            began_ns: i64::MIN,
            current: None,
            previous: None,
        }
    }

    /// Adds a value at `now_ns`.
    pub fn add(&mut self, value: i64, now_ns: i64) {
        let age_ns = now_ns.saturating_sub(self.began_ns);
        if age_ns >= self.stretch_ns || age_ns < 0 {
            self.previous = self
                .current
                .filter(|_| (0..2 * self.stretch_ns).contains(&age_ns));
            self.current = None;
            self.began_ns = now_ns;
        }
        self.current = self.current.max(Some(value));
    }

    /// The largest of them; nothing before the first.
    pub fn get(&self) -> Option<i64> {
        self.current.max(self.previous)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_maximum_is_forgotten_after_two_stretches_and_not_before_one() {
        let mut recent = RecentMax::new(100);
        assert_eq!(recent.get(), None);
        recent.add(9, 0);
        for now_ns in (10..=110).step_by(10) {
            recent.add(1, now_ns);
            assert_eq!(recent.get(), Some(9), "{now_ns}");
        }
        for now_ns in (120..=230).step_by(10) {
            recent.add(1, now_ns);
        }
        assert_eq!(recent.get(), Some(1));
        recent.add(0, 10_000);
        assert_eq!(recent.get(), Some(0), "silence forgets too");
    }
}
