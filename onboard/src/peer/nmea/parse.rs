//! NMEA 0183 sentences to GNSS fixes: pure, so that recorded sentences test it.
//!
//! GGA, RMC and GST with the same time of day are one epoch. Date comes from RMC; a time of day that
//! falls by half a day without a new date is the next day.

use std::time::Duration;

use chrono::{Days, NaiveDate, NaiveTime};
use crossfix_calibration::Geodetic;
use nmea::ParseResult;
use nmea::sentences::rmc::RmcStatusOfFix;
use nmea::sentences::{GgaData, RmcData};

use super::NmeaConfig;
use crate::event::{CovarianceRule, FixDimension, GnssFix};
use crate::peer::covariance::{self, GstSigmas, positive};
use crate::utc;

/// How long after its last sentence an epoch is taken as complete.
const SETTLE: Duration = Duration::from_millis(60);
/// Metres per second of one knot.
const MPS_PER_KNOT: f64 = 1852.0 / 3600.0;
/// 1-sigma of a height that was never measured, metres.
const UNKNOWN_HEIGHT_SIGMA_M: f64 = 1000.0;
/// A receiver clock that steps back further than this was set anew; less is a repeated epoch.
const CLOCK_STEP_NS: i64 = 5_000_000_000;

/// Groups sentences by epoch, and makes a fix of each.
#[derive(Debug)]
pub struct NmeaSentences {
    config: NmeaConfig,
    epoch: Option<Epoch>,
    done: Option<Epoch>,
    date: Option<(NaiveDate, NaiveTime)>, // the latest date, and the time of day it was seen at
    last_fix_ns: Option<i64>,
    bad_sentences: u64,
}

#[derive(Debug)]
struct Epoch {
    time: NaiveTime,
    arrived: Duration,
    rmc: Option<RmcData>,
    gga: Option<GgaData>,
    gst: Option<GstSigmas>,
}

impl NmeaSentences {
    /// Starts without any epoch.
    pub fn new(config: &NmeaConfig) -> Self {
        Self {
            config: config.clone(),
            epoch: None,
            done: None,
            date: None,
            last_fix_ns: None,
            bad_sentences: 0,
        }
    }

    /// Sentences with a wrong checksum or shape, which were passed over.
    pub fn bad_sentences(&self) -> u64 {
        self.bad_sentences
    }

    /// Takes one line in; `now` is any monotonic time. Take the fixes out after each line.
    pub fn line(&mut self, line: &[u8], now: Duration) {
        // Receivers mix binary messages in; a sentence begins at the last `$`.
        let Some(start) = line.iter().rposition(|byte| *byte == b'$') else {
            return;
        };
        match nmea::parse_bytes(&line[start..]) {
            Ok(ParseResult::GGA(gga)) => self.add(gga.fix_time, now, |epoch| epoch.gga = Some(gga)),
            Ok(ParseResult::RMC(rmc)) => self.add(rmc.fix_time, now, |epoch| epoch.rmc = Some(rmc)),
            Ok(ParseResult::GST(gst)) => self.add(gst.time, now, |epoch| {
                epoch.gst = Some(GstSigmas {
                    latitude_m: wide(gst.lat_sd),
                    longitude_m: wide(gst.long_sd),
                    altitude_m: wide(gst.alt_sd),
                    major_m: wide(gst.ellipse_semi_major_sd),
                    minor_m: wide(gst.ellipse_semi_minor_sd),
                    orientation_deg: wide(gst.err_ellipse_orientation),
                });
            }),
            Ok(_) => {}
            Err(
                nmea::Error::Unsupported(_)
                | nmea::Error::Unknown(_)
                | nmea::Error::DisabledSentence,
            ) => {}
            Err(_) => self.bad_sentences += 1,
        }
    }

    /// A fix whose epoch is complete: all three sentences are there, a newer epoch began, or nothing
    /// more came for a moment.
    pub fn take(&mut self, now: Duration) -> Option<GnssFix> {
        if let Some(done) = self.done.take()
            && let Some(fix) = self.fix(&done)
        {
            return Some(fix);
        }
        let epoch = self.epoch.as_ref()?;
        let complete = epoch.rmc.is_some() && epoch.gga.is_some() && epoch.gst.is_some();
        if complete || now.saturating_sub(epoch.arrived) >= SETTLE {
            self.finish()
        } else {
            None
        }
    }

    /// The fix of the last epoch of a recording.
    pub fn finish(&mut self) -> Option<GnssFix> {
        let epoch = self.epoch.take()?;
        self.fix(&epoch)
    }

    fn add(&mut self, time: Option<NaiveTime>, now: Duration, set: impl FnOnce(&mut Epoch)) {
        let Some(time) = time else { return };
        if self.epoch.as_ref().is_some_and(|epoch| epoch.time != time) {
            self.done = self.epoch.take();
        }
        let epoch = self.epoch.get_or_insert(Epoch {
            time,
            arrived: now,
            rmc: None,
            gga: None,
            gst: None,
        });
        epoch.arrived = now;
        set(epoch);
    }

    fn time_ns(&mut self, epoch: &Epoch) -> Option<i64> {
        let date = match (epoch.rmc.as_ref().and_then(|rmc| rmc.fix_date), self.date) {
            (Some(date), _) => date,
            (None, Some((date, seen))) if (seen - epoch.time).num_hours() >= 12 => {
                date.checked_add_days(Days::new(1))?
            }
            (None, Some((date, _))) => date,
            (None, None) => return None, // before the receiver knows the date
        };
        self.date = Some((date, epoch.time));
        utc::ns_from_date_time(date, epoch.time)
    }

    fn fix(&mut self, epoch: &Epoch) -> Option<GnssFix> {
        let time_ns = self.time_ns(epoch)?;
        let void = epoch
            .rmc
            .as_ref()
            .is_some_and(|rmc| rmc.status_of_fix == RmcStatusOfFix::Invalid)
            || epoch
                .gga
                .as_ref()
                .is_some_and(|gga| gga.fix_type.is_none_or(|fix_type| !fix_type.is_valid()));
        let repeated = self
            .last_fix_ns
            .is_some_and(|last| time_ns <= last && last.saturating_sub(time_ns) < CLOCK_STEP_NS);
        if void || repeated {
            return None;
        }
        let gga = epoch.gga.as_ref();
        let rmc = epoch.rmc.as_ref();
        let latitude_deg = gga
            .and_then(|gga| gga.latitude)
            .or(rmc.and_then(|rmc| rmc.lat))?;
        let longitude_deg = gga
            .and_then(|gga| gga.longitude)
            .or(rmc.and_then(|rmc| rmc.lon))?;
        let height_m = gga
            .and_then(|gga| Some(wide(gga.altitude)? + wide(gga.geoid_separation).unwrap_or(0.0)))
            .filter(|height_m| (-1e4..1e5).contains(height_m));
        let position = Geodetic::new(latitude_deg, longitude_deg, height_m.unwrap_or(0.0)).ok()?;
        let config = &self.config;
        let hdop = positive(gga.and_then(|gga| wide(gga.hdop)));
        let (covariance_m2, covariance_rule) =
            match (epoch.gst.and_then(|gst| gst.covariance_m2()), hdop) {
                (Some(covariance_m2), _) => (covariance_m2, CovarianceRule::Gst),
                (None, Some(hdop)) => {
                    // HDOP spans both axes, so each has its share.
                    let sigma_m = hdop * config.range_sigma_m / std::f64::consts::SQRT_2;
                    (covariance::diagonal(sigma_m, sigma_m), CovarianceRule::Hdop)
                }
                (None, None) => (
                    covariance::diagonal(config.default_sigma_m, config.default_sigma_m),
                    CovarianceRule::Default,
                ),
            };
        let covariance_m2 = covariance::floored(covariance_m2, config.floor_sigma_m);
        let horizontal_sigma_m = (covariance_m2[0][0] + covariance_m2[1][1]).sqrt();
        let height_sigma_m = match height_m {
            Some(_) => epoch
                .gst
                .and_then(|gst| positive(gst.altitude_m))
                .unwrap_or(2.0 * horizontal_sigma_m)
                .max(config.floor_sigma_m),
            None => UNKNOWN_HEIGHT_SIGMA_M,
        };
        self.last_fix_ns = Some(time_ns);
        Some(GnssFix {
            time_ns,
            position,
            covariance_m2,
            height_sigma_m,
            covariance_rule,
            speed_mps: rmc
                .and_then(|rmc| wide(rmc.speed_over_ground))
                .map(|knots| knots * MPS_PER_KNOT)
                .filter(|speed| (0.0..1e3).contains(speed)),
            track_deg: rmc
                .and_then(|rmc| wide(rmc.true_course))
                .filter(|track| (0.0..=360.0).contains(track)),
            dimension: if height_m.is_some() {
                FixDimension::Three
            } else {
                FixDimension::Two
            },
        })
    }
}

/// Sentences have at most four decimals; going through `f32` must not add more.
fn wide(value: Option<f32>) -> Option<f64> {
    value
        .filter(|value| value.is_finite())
        .map(|value| (f64::from(value) * 1e4).round() / 1e4)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fixes(lines: &[u8]) -> Vec<GnssFix> {
        let mut sentences = NmeaSentences::new(&NmeaConfig::default());
        let mut fixes = Vec::new();
        for line in lines.split(|byte| *byte == b'\n') {
            sentences.line(line, Duration::ZERO);
            fixes.extend(sentences.take(Duration::ZERO));
        }
        fixes.extend(sentences.finish());
        fixes
    }

    #[test]
    fn an_epoch_with_gst_takes_its_sigmas() {
        let fixes = fixes(include_bytes!("../../../tests/data/m9n.nmea"));
        assert_eq!(fixes.len(), 4);
        assert_eq!(
            fixes[0].time_ns,
            utc::ns_from_iso8601("2020-07-11T22:37:45Z").unwrap()
        );
        assert_eq!(fixes[0].covariance_rule, CovarianceRule::Gst);
        assert!((fixes[0].covariance_m2[0][0] - 1.0).abs() < 1e-9);
        assert!((fixes[0].covariance_m2[1][1] - 0.98 * 0.98).abs() < 1e-9);
        assert!((fixes[0].position.latitude_deg - (38.0 + 6.62964 / 60.0)).abs() < 1e-12);
        assert!(
            (fixes[0].position.height_m - (83.1 - 29.5)).abs() < 1e-6,
            "height above the ellipsoid"
        );
        assert!((fixes[0].speed_mps.unwrap() - 0.040 * MPS_PER_KNOT).abs() < 1e-9);
        assert_eq!(fixes[0].track_deg, None);
        assert!((fixes[0].height_sigma_m - 3.1).abs() < 1e-9);
    }

    #[test]
    fn an_epoch_without_gst_falls_back_on_the_dilution() {
        let fixes = fixes(include_bytes!("../../../tests/data/bt451.nmea"));
        assert!(fixes.len() >= 3, "{}", fixes.len());
        assert!(
            fixes
                .iter()
                .all(|fix| fix.covariance_rule == CovarianceRule::Hdop)
        );
        assert!(
            fixes
                .windows(2)
                .all(|pair| pair[1].time_ns - pair[0].time_ns == 500_000_000)
        );
    }

    fn sentence(body: &str) -> String {
        format!(
            "${body}*{:02X}\n",
            body.bytes().fold(0, |sum, byte| sum ^ byte)
        )
    }

    #[test]
    fn midnight_between_gga_and_rmc_is_the_next_day() {
        let lines = [
            sentence("GPRMC,235959.00,A,4916.45,N,12311.12,W,000.5,054.7,191194,,,A"),
            sentence("GPGGA,000000.00,4916.45,N,12311.12,W,1,08,1.0,10.0,M,0.0,M,,"),
        ]
        .concat();
        let times: Vec<i64> = fixes(lines.as_bytes())
            .iter()
            .map(|fix| fix.time_ns)
            .collect();
        assert_eq!(times.len(), 2);
        assert_eq!(times[1] - times[0], 1_000_000_000);
    }

    #[test]
    fn no_fix_wrong_checksum_or_no_date_is_no_event() {
        for lines in [
            sentence("GPRMC,235959.00,V,,,,,,,191194,,,N"),
            sentence("GPGGA,000000.00,4916.45,N,12311.12,W,1,08,1.0,10.0,M,0.0,M,,"),
            "$GPRMC,235959.00,A,4916.45,N,12311.12,W,000.5,054.7,191194,,,A*00\n".into(),
            [
                sentence("GPRMC,235959.00,A,4916.45,N,12311.12,W,000.5,054.7,191194,,,A"),
                sentence("GPGGA,235959.00,4916.45,N,12311.12,W,0,00,99.9,,M,,M,,"),
            ]
            .concat(),
        ] {
            assert_eq!(fixes(lines.as_bytes()), [], "{lines}");
        }
    }

    #[test]
    fn binary_messages_between_sentences_do_no_harm() {
        let mut bytes = b"\xb5\x62\x01\x07\x00$\xff".to_vec();
        bytes.extend(
            sentence("GPRMC,235959.00,A,4916.45,N,12311.12,W,000.5,054.7,191194,,,A").bytes(),
        );
        assert_eq!(fixes(&bytes).len(), 1);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..8)) {
            fixes(&lines.join(&b'\n'));
        }

        #[test]
        fn fields_of_any_kind_make_no_impossible_fix(
            kind in prop::sample::select(vec!["GPGGA", "GNRMC", "GNGST"]),
            fields in prop::collection::vec("[0-9.NSEWAVM-]{0,11}|é|99999999999", 0..20),
        ) {
            let rmc = sentence("GPRMC,235959.00,A,4916.45,N,12311.12,W,000.5,054.7,191194,,,A");
            for fix in fixes((rmc + &sentence(&format!("{kind},235959.00,{}", fields.join(",")))).as_bytes()) {
                prop_assert!(fix.covariance_m2[0][0] > 0.0 && fix.covariance_m2[1][1].is_finite());
                prop_assert!(fix.position.latitude_deg.abs() <= 90.0 && fix.position.height_m.is_finite());
            }
        }
    }
}
