//! What one check between two sources found, with counters and words.

use serde::Serialize;

/// What a check makes of a source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// There was nothing to compare it with lately.
    #[default]
    Unchecked,
    /// It agrees with the others.
    Agrees,
    /// It has just contradicted them: set aside until the next comparison.
    Doubted,
    /// It has contradicted them repeatedly: not used until it agrees again for a while.
    Excluded,
}

/// What one check found out about one source, for the status.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SourceVerdict {
    /// Name of the check.
    pub check: &'static str,
    /// What is checked: a quantity, or a source by its name in the config.
    pub source: String,
    /// What came out last.
    pub trust: Trust,
    /// What is wrong with it, as a sentence without changing numbers; empty when nothing is.
    pub words: String,
    /// Comparisons that agreed.
    pub agreed: u64,
    /// Comparisons that contradicted.
    pub contradicted: u64,
    /// Times that it was excluded.
    pub exclusions: u64,
}

/// The state of one check.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    check: &'static str,
    source: String,
    pub(crate) trust: Trust,
    words: String,
    agreed: u64,
    contradicted: u64,
    exclusions: u64,
    /// Comparisons in a row that contradicted, and that agreed.
    pub(crate) bad_run: u32,
    pub(crate) good_run: u32,
    /// Time of the last agreement, nanoseconds.
    pub(crate) agreed_ns: Option<i64>,
    /// Whether its problem began with the receiver's speed or course.
    pub(crate) is_accused_by_receiver: bool,
}

impl Gate {
    pub(crate) fn new(check: &'static str, source: impl Into<String>) -> Self {
        Self {
            check,
            source: source.into(),
            trust: Trust::Unchecked,
            words: String::new(),
            agreed: 0,
            contradicted: 0,
            exclusions: 0,
            bad_run: 0,
            good_run: 0,
            agreed_ns: None,
            is_accused_by_receiver: false,
        }
    }

    /// A comparison agreed; after `enough` in a row an excluded source is believed again.
    pub(crate) fn agree(&mut self, time_ns: i64, enough: u32) {
        self.agreed += 1;
        self.bad_run = 0;
        self.good_run += 1;
        let back = match self.trust {
            Trust::Excluded => self.good_run >= enough,
            _ => true,
        };
        if back {
            if self.trust == Trust::Excluded {
                tracing::info!(check = self.check, source = self.source, "believed again");
            }
            self.trust = Trust::Agrees;
            self.is_accused_by_receiver = false;
            self.words.clear();
            self.agreed_ns = Some(time_ns);
        }
    }

    /// A comparison contradicted; after `enough` in a row the source is excluded.
    pub(crate) fn contradict(&mut self, enough: u32, words: impl Into<String>) {
        self.contradicted += 1;
        self.good_run = 0;
        self.bad_run += 1;
        let words = words.into();
        if self.trust == Trust::Excluded {
            return;
        }
        if self.bad_run >= enough {
            self.exclude(words);
        } else {
            self.trust = Trust::Doubted;
            self.words = words;
        }
    }

    /// Excludes at once.
    pub(crate) fn exclude(&mut self, words: impl Into<String>) {
        self.words = words.into();
        if self.trust != Trust::Excluded {
            self.trust = Trust::Excluded;
            self.exclusions += 1;
            self.good_run = 0;
            tracing::warn!(check = self.check, source = self.source, "{}", self.words);
        }
    }

    /// Its accuser was wrong: nothing is known about it.
    pub(crate) fn pardon(&mut self) {
        if self.trust == Trust::Excluded {
            tracing::info!(
                check = self.check,
                source = self.source,
                "its accuser was wrong"
            );
        }
        self.trust = Trust::Unchecked;
        self.is_accused_by_receiver = false;
        self.words.clear();
        self.bad_run = 0;
        self.good_run = 0;
    }

    /// Says better what is wrong, once more is known.
    pub(crate) fn explain(&mut self, words: impl Into<String>) {
        self.words = words.into();
    }

    /// What is wrong, while something is.
    pub(crate) fn problem(&self) -> Option<&str> {
        matches!(self.trust, Trust::Doubted | Trust::Excluded).then_some(self.words.as_str())
    }

    /// Whether it agreed at most this long before `now_ns`, and nothing contradicted since.
    pub(crate) fn agreed_within(&self, now_ns: i64, span_ns: i64) -> bool {
        self.trust == Trust::Agrees
            && self
                .agreed_ns
                .is_some_and(|agreed_ns| now_ns.saturating_sub(agreed_ns) <= span_ns)
    }

    pub(crate) fn verdict(&self) -> SourceVerdict {
        SourceVerdict {
            check: self.check,
            source: self.source.clone(),
            trust: self.trust,
            words: self.words.clone(),
            agreed: self.agreed,
            contradicted: self.contradicted,
            exclusions: self.exclusions,
        }
    }
}
