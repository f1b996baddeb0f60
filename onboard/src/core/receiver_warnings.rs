//! What receivers say of attacks on their signals.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::event::{GnssFix, Jamming, Spoofing};

/// Older words say nothing, nanoseconds.
const FRESH_NS: i64 = 10_000_000_000;
/// More receivers than anybody has.
const MOST_RECEIVERS: usize = 64;

/// The latest words of each receiver that warns.
#[derive(Debug, Default)]
pub struct ReceiverWarnings {
    latest: BTreeMap<Arc<str>, Warning>,
}

#[derive(Debug)]
struct Warning {
    time_ns: i64,
    spoofing: Spoofing,
    jamming: Jamming,
}

impl ReceiverWarnings {
    /// Listens to a fix; whether it may be used.
    pub fn note(&mut self, source: &Arc<str>, fix: &GnssFix) -> bool {
        let (spoofing, jamming) = (fix.reception.spoofing, fix.reception.jamming);
        let warns = matches!(spoofing, Spoofing::Indicated | Spoofing::Accepted)
            || matches!(jamming, Jamming::Warning | Jamming::Critical);
        if !warns {
            self.latest.remove(source);
        } else if self.latest.contains_key(source) || self.latest.len() < MOST_RECEIVERS {
            let warning = Warning {
                time_ns: fix.time_ns,
                spoofing,
                jamming,
            };
            self.latest.insert(source.clone(), warning);
        }
        spoofing != Spoofing::Indicated
    }

    /// What is to be said at this time.
    pub fn sentences(&self, now_ns: i64) -> Vec<String> {
        let fresh = self
            .latest
            .iter()
            .filter(|(_, warning)| now_ns.saturating_sub(warning.time_ns) < FRESH_NS);
        let mut sentences = Vec::new();
        for (source, warning) in fresh {
            match warning.spoofing {
                Spoofing::Indicated => sentences.push(format!(
                    "{source} says that its signals are forged; its fixes are not used"
                )),
                Spoofing::Accepted => {
                    sentences.push(format!("{source} says that its signals are forged"));
                }
                Spoofing::NotSaid | Spoofing::None => {}
            }
            if matches!(warning.jamming, Jamming::Warning | Jamming::Critical) {
                sentences.push(format!("{source} says that it is jammed"));
            }
        }
        sentences
    }
}
