//! Dates that a receiver gets wrong, or leaves out.

use std::time::SystemTime;

use chrono::{DateTime, Duration, NaiveDateTime, NaiveTime};

/// GPS counts weeks modulo this; old firmware reports dates that are as much too early.
const ROLLOVER_WEEKS: i64 = 1024;
/// A corrected date must be as near to this machine's, days.
const NEAR_DAYS: i64 = 60;
/// Nothing of ours ran before; a clock that says so was never set. 1 January 2026, seconds UTC.
const FIRST_DATE_S: i64 = 1_767_225_600;

/// This machine's date and time, if its clock was ever set.
pub fn machine_time() -> Option<NaiveDateTime> {
    date_time(SystemTime::now()).filter(|now| now.and_utc().timestamp() >= FIRST_DATE_S)
}

/// Date and time of day of a system time.
pub fn date_time(time: SystemTime) -> Option<NaiveDateTime> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let seconds = i64::try_from(since.as_secs()).ok()?;
    DateTime::from_timestamp(seconds, since.subsec_nanos()).map(|time| time.naive_utc())
}

/// `time` of the day that brings it nearest to `near`.
pub fn nearest(time: NaiveTime, near: NaiveDateTime) -> Option<NaiveDateTime> {
    let same_day = near.date().and_time(time);
    let candidates = [
        Some(same_day),
        same_day.checked_sub_signed(Duration::days(1)),
        same_day.checked_add_signed(Duration::days(1)),
    ];
    let candidates = candidates.into_iter().flatten();
    candidates.min_by_key(|candidate| (*candidate - near).abs())
}

/// The rollovers, of 1024 weeks each, that a receiver's date is behind: those that bring it to within two
/// months of this machine's, and none where no number does. A recording of years ago stays as it is,
/// unless it is 1024 weeks old to the month.
pub fn rollovers(reported_ns: i64, machine: NaiveDateTime) -> i64 {
    let reported = DateTime::from_timestamp_nanos(reported_ns).naive_utc();
    let behind_days = (machine - reported).num_days();
    let rollover_days = ROLLOVER_WEEKS * 7;
    let rollovers = (behind_days + rollover_days / 2).div_euclid(rollover_days);
    if rollovers >= 1 && (behind_days - rollovers * rollover_days).abs() <= NEAR_DAYS {
        rollovers
    } else {
        0
    }
}

/// Nanoseconds of so many rollovers.
pub fn rollover_ns(rollovers: i64) -> i64 {
    rollovers.saturating_mul(ROLLOVER_WEEKS * 7 * 86_400 * 1_000_000_000)
}

/// What the owner of such a receiver should know, as sentences.
pub fn remarks(rollovers: i64, simulated: u64) -> Vec<String> {
    let mut remarks = Vec::new();
    if rollovers > 0 {
        remarks.push(format!(
            "the receiver's date is {} weeks behind (week number rollover) and is corrected; update its firmware",
            ROLLOVER_WEEKS * rollovers
        ));
    }
    if simulated > 0 {
        remarks.push(
            "the receiver says its positions are simulated, so they are not used; set accept_simulated = true on a test bench"
                .to_owned(),
        );
    }
    remarks
}

#[cfg(test)]
mod tests {
    use chrono::NaiveDate;

    use super::*;

    fn at(year: i32, month: u32, day: u32, hour: u32) -> NaiveDateTime {
        let date = NaiveDate::from_ymd_opt(year, month, day).unwrap();
        date.and_hms_opt(hour, 0, 0).unwrap()
    }

    fn ns(date_time: NaiveDateTime) -> i64 {
        date_time.and_utc().timestamp_nanos_opt().unwrap()
    }

    #[test]
    fn a_time_of_day_is_of_the_nearest_day() {
        let near = at(2026, 11, 29, 23);
        let one = NaiveTime::from_hms_opt(1, 0, 0).unwrap();
        assert_eq!(nearest(one, near), Some(at(2026, 11, 30, 1)));
        let ten = NaiveTime::from_hms_opt(22, 0, 0).unwrap();
        assert_eq!(
            nearest(ten, at(2026, 11, 29, 1)),
            Some(at(2026, 11, 28, 22))
        );
    }

    #[test]
    fn a_date_1024_weeks_old_is_corrected_and_an_old_recording_is_not() {
        let machine = at(2026, 11, 29, 10);
        let rolled = ns(at(2007, 4, 15, 10));
        assert_eq!(rollovers(rolled, machine), 1);
        assert_eq!(rolled + rollover_ns(1), ns(machine));
        assert_eq!(rollovers(rolled - rollover_ns(1), machine), 2);
        for (year, month) in [(2020, 7), (2026, 11), (2027, 3), (2008, 4), (2006, 4)] {
            assert_eq!(rollovers(ns(at(year, month, 11, 0)), machine), 0, "{year}");
        }
    }
}
