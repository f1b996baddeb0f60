//! Names what makes a clock differ from UTC, and takes it off the stamps.

use super::SECOND_NS;

/// GPS time minus UTC since 2017 (IS-GPS-200: UTC has had 18 leap seconds since 1980), seconds.
const GPS_MINUS_UTC_S: i64 = 18;
/// TAI minus UTC since 2017 (IERS Bulletin C), seconds.
const TAI_MINUS_UTC_S: i64 = 37;
/// Time zones differ from UTC by multiples of this, seconds.
const ZONE_STEP_S: i64 = 900;
/// No time zone is further from UTC, seconds.
const LARGEST_ZONE_S: i64 = 14 * 3600;
/// How far behind a known offset the earliest events may be, because they take that long to arrive.
const BEHIND_NS: i64 = SECOND_NS / 2;
/// Stamps below this count from a start, not from 1970: no drive is from before 1990, nanoseconds.
const EARLIEST_UTC_NS: i64 = 20 * 365 * 86_400 * SECOND_NS;

/// A unit that stamps come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// As it should be.
    Nanoseconds,
    /// A thousandth of the number that it should be.
    Microseconds,
    /// A millionth.
    Milliseconds,
    /// A billionth.
    Seconds,
}

impl Unit {
    const ALL: [Self; 4] = [
        Self::Nanoseconds,
        Self::Microseconds,
        Self::Milliseconds,
        Self::Seconds,
    ];

    /// The unit that makes `counted` the time that passed, unless that is nanoseconds.
    pub fn of_rate(counted: i64, passed_ns: i64) -> Option<Self> {
        let others = [Self::Microseconds, Self::Milliseconds, Self::Seconds];
        others.into_iter().find(|unit| {
            let counted_ns = counted.saturating_mul(unit.ns());
            // The resolution of the unit, and a tenth.
            let tolerance_ns = unit.ns().max(passed_ns / 10);
            counted > 0 && counted_ns.saturating_sub(passed_ns).saturating_abs() <= tolerance_ns
        })
    }

    /// What is the matter with stamps in this unit that count from an unknown start.
    pub fn words_of_unknown_start(self) -> String {
        format!(
            "its stamps are {}, not nanoseconds, and do not count from 1970",
            self.name()
        )
    }

    fn ns(self) -> i64 {
        match self {
            Self::Nanoseconds => 1,
            Self::Microseconds => 1_000,
            Self::Milliseconds => 1_000_000,
            Self::Seconds => SECOND_NS,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Nanoseconds => "nanoseconds",
            Self::Microseconds => "microseconds",
            Self::Milliseconds => "milliseconds",
            Self::Seconds => "seconds",
        }
    }
}

/// What stamps count from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Epoch {
    /// UTC, plus this many nanoseconds for no known reason.
    Utc(i64),
    /// GPS time.
    Gps,
    /// International atomic time.
    Tai,
    /// Local time, this many seconds ahead of UTC.
    Zone(i64),
    /// The start of this machine: the clock that arrivals are stamped with.
    ThisMachine,
    /// Another start, this many nanoseconds behind UTC.
    OtherStart(i64),
}

/// How stamps differ from UTC in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// What one of them is.
    pub unit: Unit,
    /// Where they count from.
    pub epoch: Epoch,
}

/// The times at one arrival.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// On this machine's clock, nanoseconds.
    pub arrived_ns: i64,
    /// GNSS time then, nanoseconds UTC.
    pub utc_ns: i64,
    /// How far a stamp may be ahead of that, because fixes take that long to arrive, nanoseconds.
    pub ahead_ns: i64,
}

impl Scale {
    /// What the stamp of an event that took as little time as possible says about its clock.
    pub fn of(stamp: i64, at: Moment) -> Self {
        let near = |utc_ns: i64, offset_ns: i64| {
            let ahead_ns = utc_ns.saturating_sub(at.utc_ns).saturating_sub(offset_ns);
            (-BEHIND_NS..=at.ahead_ns).contains(&ahead_ns)
        };
        for unit in Unit::ALL {
            let stamp_ns = stamp.saturating_mul(unit.ns());
            let ahead_s = stamp_ns.saturating_sub(at.utc_ns) / SECOND_NS;
            let zone_s = (ahead_s + ahead_s.signum() * ZONE_STEP_S / 2) / ZONE_STEP_S * ZONE_STEP_S;
            let epoch = if near(stamp_ns, 0) {
                Epoch::Utc(0)
            } else if near(stamp_ns, GPS_MINUS_UTC_S * SECOND_NS) {
                Epoch::Gps
            } else if near(stamp_ns, TAI_MINUS_UTC_S * SECOND_NS) {
                Epoch::Tai
            } else if zone_s.abs() <= LARGEST_ZONE_S && near(stamp_ns, zone_s * SECOND_NS) {
                Epoch::Zone(zone_s)
            } else if near(stamp_ns, at.arrived_ns.saturating_sub(at.utc_ns)) {
                Epoch::ThisMachine
            } else {
                continue;
            };
            return Self { unit, epoch };
        }
        let offset_ns = stamp.saturating_sub(at.utc_ns);
        let epoch = if (0..EARLIEST_UTC_NS).contains(&stamp) {
            Epoch::OtherStart(offset_ns.saturating_neg())
        } else {
            Epoch::Utc(offset_ns)
        };
        Self {
            unit: Unit::Nanoseconds,
            epoch,
        }
    }

    /// Whether its offset is known and not only measured.
    pub fn is_exact(self) -> bool {
        !matches!(self.epoch, Epoch::Utc(1.. | ..=-1) | Epoch::OtherStart(_))
    }

    /// The stamp in nanoseconds UTC.
    pub fn utc_ns(self, stamp: i64, at: Moment) -> i64 {
        let stamp_ns = stamp.saturating_mul(self.unit.ns());
        let offset_ns = match self.epoch {
            Epoch::Utc(offset_ns) => offset_ns,
            Epoch::Gps => GPS_MINUS_UTC_S * SECOND_NS,
            Epoch::Tai => TAI_MINUS_UTC_S * SECOND_NS,
            Epoch::Zone(seconds) => seconds * SECOND_NS,
            Epoch::ThisMachine => at.arrived_ns.saturating_sub(at.utc_ns),
            Epoch::OtherStart(behind_ns) => behind_ns.saturating_neg(),
        };
        stamp_ns.saturating_sub(offset_ns)
    }

    /// What is the matter with the clock, for people; `offset_s` is what was measured.
    pub fn words(self, offset_s: f64) -> String {
        let direction = if offset_s < 0.0 { "behind" } else { "ahead of" };
        let by = format!("is {:.2} s {direction} GNSS", offset_s.abs());
        let clock = match self.epoch {
            Epoch::Utc(0) => String::new(),
            Epoch::Utc(_) => format!("its clock {by}"),
            Epoch::Gps => format!("its clock {by}: it shows GPS time, not UTC"),
            Epoch::Tai => format!("its clock {by}: it shows TAI, not UTC"),
            Epoch::Zone(seconds) => format!(
                "its clock {by}: it shows local time (UTC{:+03}:{:02}), not UTC",
                seconds / 3600,
                seconds.abs() / 60 % 60
            ),
            Epoch::ThisMachine => {
                format!("its clock {by}: it is this machine's own (as since its start), not UTC")
            }
            Epoch::OtherStart(_) => format!("its clock {by}: it counts from a start, not in UTC"),
        };
        if self.unit == Unit::Nanoseconds {
            return clock;
        }
        let unit = format!("its stamps are {}, not nanoseconds", self.unit.name());
        match self.epoch {
            Epoch::Gps => format!("{unit}, and GPS time, not UTC"),
            Epoch::Tai => format!("{unit}, and TAI, not UTC"),
            Epoch::Zone(_) => format!("{unit}, and local time, not UTC"),
            Epoch::ThisMachine => format!("{unit}, and of this machine's own clock, not UTC"),
            Epoch::Utc(_) | Epoch::OtherStart(_) => unit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Moment = Moment {
        arrived_ns: 7_200 * SECOND_NS,
        utc_ns: 1_700_000_000 * SECOND_NS,
        ahead_ns: SECOND_NS,
    };

    fn scale(stamp: i64) -> Scale {
        Scale::of(stamp, AT)
    }

    #[test]
    fn known_offsets_are_named_and_taken_off_exactly() {
        let true_ns = AT.utc_ns + 120_000_000;
        let cases = [
            (true_ns, Unit::Nanoseconds, Epoch::Utc(0)),
            (true_ns + 18 * SECOND_NS, Unit::Nanoseconds, Epoch::Gps),
            (true_ns + 37 * SECOND_NS, Unit::Nanoseconds, Epoch::Tai),
            (
                true_ns - 5 * 3600 * SECOND_NS,
                Unit::Nanoseconds,
                Epoch::Zone(-5 * 3600),
            ),
            (
                true_ns + 20_700 * SECOND_NS,
                Unit::Nanoseconds,
                Epoch::Zone(20_700),
            ),
            (true_ns / 1000, Unit::Microseconds, Epoch::Utc(0)),
            (true_ns / 1_000_000, Unit::Milliseconds, Epoch::Utc(0)),
            (true_ns / SECOND_NS, Unit::Seconds, Epoch::Utc(0)),
            (
                AT.arrived_ns + 120_000_000,
                Unit::Nanoseconds,
                Epoch::ThisMachine,
            ),
            (
                AT.arrived_ns / 1000 + 120_000,
                Unit::Microseconds,
                Epoch::ThisMachine,
            ),
        ];
        for (stamp, unit, epoch) in cases {
            let found = scale(stamp);
            assert_eq!((found.unit, found.epoch), (unit, epoch), "{stamp}");
            assert!(found.is_exact());
            let resolution_ns = unit.ns();
            let error_ns = found.utc_ns(stamp, AT) - true_ns;
            assert!(error_ns.abs() < resolution_ns, "{stamp}: {error_ns} ns");
        }
    }

    #[test]
    fn any_other_offset_is_measured() {
        let late = scale(AT.utc_ns - 15 * SECOND_NS);
        assert_eq!(late.epoch, Epoch::Utc(-15 * SECOND_NS));
        assert_eq!(late.words(-15.0), "its clock is 15.00 s behind GNSS");
        let other = scale(90_000 * SECOND_NS);
        assert!(matches!(other.epoch, Epoch::OtherStart(_)) && !other.is_exact());
        assert_eq!(other.utc_ns(90_001 * SECOND_NS, AT), AT.utc_ns + SECOND_NS);
        assert!(
            scale(AT.utc_ns - 3_590 * SECOND_NS)
                .words(-3590.0)
                .contains("3590.00 s behind")
        );
    }

    proptest::proptest! {
        #[test]
        fn any_stamp_at_any_moment_has_words_and_overflows_nothing(stamp: i64, arrived_ns: i64, utc_ns: i64) {
            let at = Moment { arrived_ns, utc_ns, ahead_ns: SECOND_NS };
            let scale = Scale::of(stamp, at);
            scale.utc_ns(stamp, at);
            scale.words(1.0);
        }
    }
}
