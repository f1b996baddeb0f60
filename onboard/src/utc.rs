//! UTC nanoseconds to and from the texts that protocols write.

use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, NaiveDateTime, SecondsFormat, Timelike, Utc};

/// This machine's clock, nanoseconds UTC.
pub fn now_ns() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Nanoseconds UTC of an ISO 8601 text such as gpsd's `2020-07-11T22:37:48.000Z`.
pub fn ns_from_iso8601(text: &str) -> Option<i64> {
    DateTime::parse_from_rfc3339(text)
        .ok()?
        .timestamp_nanos_opt()
}

/// ISO 8601 with milliseconds, as gpsd writes it.
pub fn iso8601_from_ns(time_ns: i64) -> String {
    at(time_ns).to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// `20200711T223748Z`, for the names of files.
pub fn compact_from_ns(time_ns: i64) -> String {
    at(time_ns).format(COMPACT).to_string()
}

/// Nanoseconds UTC of such a text.
pub fn ns_from_compact(text: &str) -> Option<i64> {
    let time = NaiveDateTime::parse_from_str(text, COMPACT).ok()?;
    time.and_utc().timestamp_nanos_opt()
}

const COMPACT: &str = "%Y%m%dT%H%M%SZ";

/// NMEA's `hhmmss.ss` and `ddmmyy`.
pub fn nmea_time_and_date(time_ns: i64) -> (String, String) {
    let at = at(time_ns);
    let centiseconds = at.nanosecond() / 10_000_000;
    (
        format!("{}.{:02}", at.format("%H%M%S"), centiseconds.min(99)),
        at.format("%d%m%y").to_string(),
    )
}

fn at(time_ns: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_nanos(time_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpsd_times_read_and_write_alike() {
        let text = "2020-07-11T22:37:48.125Z";
        let time_ns = ns_from_iso8601(text).unwrap();
        assert_eq!(time_ns, 1_594_507_068_125_000_000);
        assert_eq!(iso8601_from_ns(time_ns), text);
        assert_eq!(
            nmea_time_and_date(time_ns),
            ("223748.12".into(), "110720".into())
        );
    }

    #[test]
    fn times_in_file_names_are_whole_seconds() {
        let text = compact_from_ns(1_594_507_068_999_000_000);
        assert_eq!(text, "20200711T223748Z");
        assert_eq!(ns_from_compact(&text), Some(1_594_507_068_000_000_000));
        for text in [
            "",
            "20200711T223748",
            "20200711T223748Z1",
            "20201311T223748Z",
        ] {
            assert_eq!(ns_from_compact(text), None, "{text}");
        }
    }

    #[test]
    fn texts_that_are_no_time_are_none() {
        for text in [
            "",
            "2020",
            "2020-13-40T99:99:99Z",
            "9999999-01-01T00:00:00Z",
            "0000-01-01T00:00:00Z",
            "\u{1f980}",
        ] {
            assert_eq!(ns_from_iso8601(text), None, "{text}");
        }
    }
}
