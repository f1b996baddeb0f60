//! What is wrong with single messages, told once for each topic.

use std::collections::BTreeMap;

use tracing::warn;

use super::LogError;

/// The messages of a log that were left out, by topic.
#[derive(Debug, Default)]
pub struct Complaints {
    topics: BTreeMap<String, (u64, String)>, // how many, and what was wrong with the first
}

impl Complaints {
    /// Tells that a message is left out, if it is the first of its topic.
    pub fn note(&mut self, source: &str, error: &LogError) {
        let LogError::BadMessage { topic, reason, .. } = error else {
            warn!(source, %error, "reading a recorded drive");
            return;
        };
        if let Some((count, _)) = self.topics.get_mut(topic) {
            *count += 1;
            return;
        }
        warn!(source, %error, "more of this topic are only counted");
        self.topics.insert(topic.clone(), (1, reason.clone()));
    }

    /// Messages left out.
    pub fn count(&self) -> u64 {
        self.topics.values().map(|(count, _)| count).sum()
    }

    /// All of them as a sentence; none when there are none.
    pub fn summary(&self) -> Option<String> {
        let topics: Vec<_> = self
            .topics
            .iter()
            .map(|(topic, (count, reason))| format!("{count} on {topic} (the first: {reason})"))
            .collect();
        (!topics.is_empty()).then(|| format!("messages left out: {}", topics.join("; ")))
    }
}
