//! When the messages of a log arrived, from log times that may be wrong.
//!
//! The order of a log is the order of arrival. A log time that leaves it, and that its neighbours do not
//! share, is a wrong stamp that the recorder took for the time; the message arrived with the one before.

use std::collections::VecDeque;

use super::{LogError, Record};

/// Messages after one that say whether its log time can be right.
const AHEAD: usize = 8;
/// Log times may be this much out of order, nanoseconds.
const DISORDER_NS: i64 = 1_000_000_000;

/// The records of a log with log times that only go back where the log starts over.
pub struct Arrivals<I> {
    records: I,
    ahead: VecDeque<Result<Record, LogError>>,
    last_ns: Option<i64>,
}

impl<I: Iterator<Item = Result<Record, LogError>>> Arrivals<I> {
    /// Of these records.
    pub fn new(records: I) -> Self {
        Self {
            records,
            ahead: VecDeque::with_capacity(AHEAD + 1),
            last_ns: None,
        }
    }

    fn arrived_ns(&self, log_time_ns: i64) -> i64 {
        let mut later: Vec<i64> = self
            .ahead
            .iter()
            .filter_map(|record| Some(record.as_ref().ok()?.log_time_ns))
            .collect();
        later.sort_unstable();
        let typical_ns = later.get(later.len() / 2).copied().unwrap_or(log_time_ns);
        let last_ns = self.last_ns.unwrap_or(typical_ns.min(log_time_ns));
        let leaves = log_time_ns > last_ns.saturating_add(DISORDER_NS)
            && log_time_ns > typical_ns.saturating_add(DISORDER_NS);
        let starts_over = typical_ns < last_ns.saturating_sub(DISORDER_NS);
        if !leaves && (log_time_ns >= last_ns || starts_over) {
            log_time_ns
        } else {
            last_ns
        }
    }
}

impl<I: Iterator<Item = Result<Record, LogError>>> Iterator for Arrivals<I> {
    type Item = Result<Record, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ahead.len() <= AHEAD
            && let Some(record) = self.records.next()
        {
            self.ahead.push_back(record);
        }
        let mut record = self.ahead.pop_front()?;
        if let Ok(record) = &mut record {
            record.log_time_ns = self.arrived_ns(record.log_time_ns);
            self.last_ns = Some(record.log_time_ns);
        }
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Message;

    fn arrivals(log_times_ns: &[i64]) -> Vec<i64> {
        let records = log_times_ns.iter().map(|time_ns| {
            Ok(Record {
                topic: "/other".into(),
                log_time_ns: *time_ns,
                message: Message::Other {
                    topic: "/other".into(),
                    time_ns: *time_ns,
                    data: Vec::new(),
                },
            })
        });
        Arrivals::new(records)
            .map(|record| record.unwrap().log_time_ns)
            .collect()
    }

    const SECOND_NS: i64 = 1_000_000_000;

    #[test]
    fn a_log_in_order_stays_as_it_is_with_its_gaps() {
        let times: Vec<i64> = (0..40)
            .map(|tenth| tenth * SECOND_NS / 10 + tenth / 20 * 500 * SECOND_NS)
            .collect();
        assert_eq!(arrivals(&times), times);
        assert_eq!(arrivals(&[7]), [7]);
    }

    #[test]
    fn a_wild_time_is_that_of_the_message_before() {
        let mut times: Vec<i64> = (0..40).map(|tenth| tenth * SECOND_NS / 10).collect();
        let right = times.clone();
        for (index, wild) in [(0, i64::MAX), (9, 9 * SECOND_NS), (20, i64::MIN), (30, 0)] {
            times[index] = wild;
        }
        let found = arrivals(&times);
        assert!(found.is_sorted());
        for (found, right) in found.iter().zip(right) {
            assert!((found - right).abs() <= SECOND_NS / 2, "{found} {right}");
        }
    }

    #[test]
    fn where_a_log_starts_over_time_goes_back() {
        let times: Vec<i64> = (0..60).map(|tenth| tenth % 30 * SECOND_NS / 10).collect();
        assert_eq!(arrivals(&times), times);
    }
}
