//! NMEA 0183 sentences to GNSS fixes: pure, so that recorded sentences test it.
//!
//! Every receiver has its own choice of sentences. A place comes from GGA, GNS, RMC or GLL, in this order;
//! speed and course from RMC or VTG, errors from GST or the dilution of precision, the date from RMC or
//! ZDA, and without either from this machine's clock.

use std::time::Duration;

use chrono::NaiveDateTime;
use crossfix_calibration::Geodetic;

use super::NmeaConfig;
use super::epoch::{Epoch, Epochs};
use super::quality::Quality;
use super::sentence::{Sentence, Unread};
use crate::event::{CovarianceRule, FixDimension, GnssFix, HEIGHTS_M, Reception};
use crate::peer::covariance::{self, positive};
use crate::peer::dates;
use crate::peer::geoid::Geoid;

/// 1-sigma of a height that was never measured, metres.
const UNKNOWN_HEIGHT_SIGMA_M: f64 = 1000.0;
/// A receiver clock that steps back further than this was set anew; less is a repeated epoch.
const CLOCK_STEP_NS: i64 = 5_000_000_000;

/// Groups sentences by epoch, and makes a fix of each.
#[derive(Debug)]
pub struct NmeaSentences {
    config: NmeaConfig,
    epochs: Epochs,
    /// The latest date and time of day that the receiver gave, or that a fix had, and this machine's then.
    date_time: Option<(NaiveDateTime, Option<NaiveDateTime>)>,
    /// Date and time of this machine, or of the recording.
    machine: Option<NaiveDateTime>,
    last_fix_ns: Option<i64>,
    bad_sentences: u64,
    readable: u64,
    rollovers: i64,
    geoid: Geoid,
    undated: u64,
    simulated: u64,
}

/// Whether a line ends in a sentence with its checksum.
fn is_whole(line: &[u8]) -> bool {
    let whole = || {
        let start = line.iter().rposition(|byte| *byte == b'$')?;
        let text = line[start + 1..].trim_ascii_end();
        let (sentence, sum) = text.split_at_checked(text.len().checked_sub(3)?)?;
        let sum = std::str::from_utf8(sum.strip_prefix(b"*")?).ok()?;
        let sum = u8::from_str_radix(sum, 16).ok()?;
        Some(sentence.iter().fold(0, |all, byte| all ^ byte) == sum)
    };
    whole() == Some(true)
}

impl NmeaSentences {
    /// Starts without any epoch.
    pub fn new(config: &NmeaConfig) -> Self {
        Self {
            config: config.clone(),
            epochs: Epochs::default(),
            date_time: None,
            machine: None,
            last_fix_ns: None,
            bad_sentences: 0,
            readable: 0,
            rollovers: 0,
            geoid: Geoid::default(),
            undated: 0,
            simulated: 0,
        }
    }

    /// Says what date and time it is where the sentences are read, or was when they were recorded: for
    /// receivers that give no date, and for those whose date is 1024 weeks behind.
    pub fn set_machine_time(&mut self, machine: Option<NaiveDateTime>) {
        self.machine = machine;
    }

    /// Sentences with a wrong checksum or shape, which were passed over.
    pub fn bad_sentences(&self) -> u64 {
        self.bad_sentences
    }

    /// Whole sentences, of kinds that tell nothing here too: what a port at another speed has none of.
    pub fn readable(&self) -> u64 {
        self.readable
    }

    /// What the receiver does that its owner should know, as sentences.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = dates::remarks(self.rollovers, self.simulated);
        if self.undated > 0 {
            remarks.push(
                "the receiver sends no date (neither RMC nor ZDA) and this machine's clock is not set; its positions are not used"
                    .to_owned(),
            );
        }
        remarks
    }

    /// Takes one line in; `now` is any monotonic time. Take the fixes out after each line.
    pub fn line(&mut self, line: &[u8], now: Duration) {
        self.readable += u64::from(is_whole(line));
        match Sentence::parse(line) {
            Ok(Sentence::Date(date_time)) => self.date_time = Some((date_time, self.machine)),
            Ok(sentence) => self.epochs.add(&sentence, now),
            Err(Unread::Other) => {}
            Err(Unread::Bad) => self.bad_sentences += 1,
        }
    }

    /// A fix whose epoch is complete.
    pub fn take(&mut self, now: Duration) -> Option<GnssFix> {
        while let Some(epoch) = self.epochs.take(now) {
            if let Some(fix) = self.fix(&epoch) {
                return Some(fix);
            }
        }
        None
    }

    /// The fix of the last epoch of a recording.
    pub fn finish(&mut self) -> Option<GnssFix> {
        while let Some(epoch) = self.epochs.finish() {
            if let Some(fix) = self.fix(&epoch) {
                return Some(fix);
            }
        }
        None
    }

    /// The date and time of day now by the latest that is known: it went on as this machine's did. In a file the
    /// machine's stands still.
    fn date_time_now(&self) -> Option<NaiveDateTime> {
        let (date_time, machine_then) = self.date_time?;
        let passed = machine_then.zip(self.machine);
        let passed = passed.map(|(then, now)| now.signed_duration_since(then));
        match passed.filter(|passed| passed.num_milliseconds() > 0) {
            Some(passed) => date_time.checked_add_signed(passed),
            None => Some(date_time),
        }
    }

    fn time_ns(&mut self, epoch: &Epoch) -> Option<i64> {
        let known = || self.date_time_now();
        let near = epoch.date_time.or_else(known).or(self.machine);
        let Some(date_time) = near.and_then(|near| dates::nearest(epoch.time, near)) else {
            self.undated += 1;
            return None;
        };
        self.date_time = Some((date_time, self.machine));
        let time_ns = date_time.and_utc().timestamp_nanos_opt()?;
        self.rollovers = self
            .machine
            .map_or(0, |machine| dates::rollovers(time_ns, machine));
        time_ns.checked_add(dates::rollover_ns(self.rollovers))
    }

    fn fix(&mut self, epoch: &Epoch) -> Option<GnssFix> {
        let places = [epoch.position, epoch.minimum, epoch.place];
        let places = || places.iter().flatten();
        let is = |quality| places().any(|place| place.quality == Some(quality));
        // Any of them may be the first to notice that the position is lost.
        if is(Quality::Invalid) {
            return None;
        }
        if is(Quality::Simulated) && !self.config.accept_simulated {
            self.simulated += 1;
            return None;
        }
        let place = places().find(|p| p.latitude_deg.is_some() && p.longitude_deg.is_some())?;
        let quality = places().find_map(|place| place.quality);
        let quality = quality.unwrap_or(Quality::Plain);
        let time_ns = self.time_ns(epoch)?;
        let repeated = self
            .last_fix_ns
            .is_some_and(|last| time_ns <= last && last.saturating_sub(time_ns) < CLOCK_STEP_NS);
        if repeated {
            return None;
        }
        let mut position = Geodetic::new(place.latitude_deg?, place.longitude_deg?, 0.0).ok()?;
        let geoid_m = places().find_map(|place| place.geoid_m);
        let height_m = places()
            .find_map(|place| place.sea_level_height_m)
            .map(|above_sea_m| {
                above_sea_m + geoid_m.unwrap_or_else(|| self.geoid.separation_m(position))
            })
            .filter(|height_m| HEIGHTS_M.contains(height_m));
        position.height_m = height_m.unwrap_or(0.0);
        let (covariance_m2, covariance_rule) = self.covariance(epoch, quality);
        let horizontal_sigma_m = (covariance_m2[0][0] + covariance_m2[1][1]).sqrt();
        let height_sigma_m = match height_m {
            Some(_) => (epoch.sigmas)
                .and_then(|gst| positive(gst.altitude_m))
                .unwrap_or(2.0 * horizontal_sigma_m)
                .max(self.config.floor_sigma_m),
            None => UNKNOWN_HEIGHT_SIGMA_M,
        };
        self.last_fix_ns = Some(time_ns);
        Some(GnssFix {
            time_ns,
            position,
            covariance_m2,
            height_sigma_m,
            covariance_rule,
            speed_mps: epoch.velocity.speed_mps,
            track_deg: epoch.velocity.track_deg,
            dimension: if height_m.is_some() {
                FixDimension::Three
            } else {
                FixDimension::Two
            },
            reception: Reception {
                satellites_used: places().find_map(|place| place.satellites),
                satellites_visible: None,
                hdop: places().find_map(|place| place.hdop),
                geoid_m,
                ..Reception::default()
            },
        })
    }

    /// The horizontal covariance by the best evidence of the epoch, m², and which that was.
    fn covariance(&self, epoch: &Epoch, quality: Quality) -> ([[f64; 2]; 2], CovarianceRule) {
        let config = &self.config;
        let hdop = positive(epoch.position.and_then(|position| position.hdop));
        let (covariance_m2, rule) = match (epoch.sigmas.and_then(|gst| gst.covariance_m2()), hdop) {
            (Some(covariance_m2), _) => (covariance_m2, CovarianceRule::Gst),
            (None, Some(hdop)) => {
                // HDOP spans both axes, so each has its share.
                let range_sigma_m = config.range_sigma_m * quality.range_share();
                let sigma_m = hdop * range_sigma_m / std::f64::consts::SQRT_2;
                (covariance::diagonal(sigma_m, sigma_m), CovarianceRule::Hdop)
            }
            (None, None) => {
                let sigma_m = config.default_sigma_m * quality.range_share();
                (
                    covariance::diagonal(sigma_m, sigma_m),
                    CovarianceRule::Default,
                )
            }
        };
        (
            covariance::floored(covariance_m2, config.floor_sigma_m),
            rule,
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::utc;

    /// Metres per second of one knot.
    const MPS_PER_KNOT: f64 = 1852.0 / 3600.0;

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

    /// Fixes of lines that arrive at these times, seconds, and on a machine whose clock says so.
    fn timed(lines: &[(f64, String)], machine: Option<&str>) -> (Vec<GnssFix>, Vec<String>) {
        let mut sentences = NmeaSentences::new(&NmeaConfig::default());
        let machine = machine.map(|text| text.parse::<NaiveDateTime>().unwrap());
        sentences.set_machine_time(machine);
        let mut fixes = Vec::new();
        for (at_s, line) in lines {
            let now = Duration::from_secs_f64(*at_s);
            // The reader asks every 50 ms, whether anything came or not.
            fixes.extend(sentences.take(now));
            sentences.line(line.as_bytes(), now);
            fixes.extend(sentences.take(now));
        }
        fixes.extend(sentences.finish());
        assert_eq!(sentences.bad_sentences(), 0);
        (fixes, sentences.remarks())
    }

    #[test]
    fn a_night_without_a_fix_passes_for_receivers_without_a_date_too() {
        let mut sentences = NmeaSentences::new(&NmeaConfig::default());
        let mut fix_at = |machine: &str, time: &str| {
            sentences.set_machine_time(Some(machine.parse().unwrap()));
            let body = format!("GNGGA,{time}.00,5200.696,N,00421.426,E,1,10,0.9,10.0,M,40.0,M,,");
            sentences.line(sentence(&body).as_bytes(), Duration::ZERO);
            sentences.finish().unwrap().time_ns
        };
        let evening = fix_at("2026-11-29T18:00:05", "180000");
        let morning = fix_at("2026-11-30T08:00:05", "080000");
        assert_eq!(morning - evening, 14 * 3600 * 1_000_000_000);
    }

    #[test]
    fn noise_of_another_speed_holds_no_sentence() {
        let mut sentences = NmeaSentences::new(&NmeaConfig::default());
        for line in [&b"\xf8\x80$\x00\xff"[..], b"", b"$", b"$GNGGA,1*00", b"$*0"] {
            sentences.line(line, Duration::ZERO);
        }
        assert_eq!(sentences.readable(), 0);
        // Of kinds that tell nothing here, too.
        sentences.line(b"$GPGSV,1,1,00*79\r", Duration::ZERO);
        assert_eq!(sentences.readable(), 1);
    }

    /// Twelve seconds of a receiver that sends these sentences, `TIME` for the time of day, each of
    /// them `gap_s` after the one before.
    fn receiver(bodies: &[&str], gap_s: f64) -> Vec<(f64, String)> {
        let mut lines = Vec::new();
        for second in 0..12 {
            for (number, body) in bodies.iter().enumerate() {
                let at_s = f64::from(second) + gap_s * number as f64;
                let body = body.replace("TIME", &format!("1000{second:02}.00"));
                lines.push((at_s, sentence(&body)));
            }
        }
        lines
    }

    const GGA: &str = "GNGGA,TIME,5200.696,N,00421.426,E,1,10,0.9,10.0,M,40.0,M,,";
    const RMC: &str = "GNRMC,TIME,A,5200.696,N,00421.426,E,19.44,90.0,291126,,,A";
    const GST: &str = "GNGST,TIME,,,,,0.9,1.2,2.0";
    const ZDA: &str = "GNZDA,TIME,29,11,2026,00,00";
    const GSV: &str = "GPGSV,1,1,00";

    #[test]
    fn a_slow_port_spreads_an_epoch_over_its_second_and_nothing_of_it_is_lost() {
        for bodies in [
            [GGA, GSV, GSV, GSV, GSV, GSV, RMC, GST],
            [RMC, GSV, GSV, GGA, GSV, GSV, GSV, GST],
            [GST, GSV, GSV, GGA, GSV, GSV, GSV, RMC],
        ] {
            let (fixes, _) = timed(&receiver(&bodies, 0.13), None);
            assert_eq!(fixes.len(), 12, "{bodies:?}");
            for fix in &fixes {
                assert!((fix.speed_mps.unwrap() - 10.0).abs() < 0.01);
                assert_eq!(fix.covariance_rule, CovarianceRule::Gst);
                assert!((fix.covariance_m2[0][0].sqrt() - 1.2).abs() < 1e-6);
                assert!((fix.position.height_m - 50.0).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn from_the_second_epoch_on_a_fix_comes_with_its_last_sentence() {
        let mut sentences = NmeaSentences::new(&NmeaConfig::default());
        for (number, (at_s, line)) in receiver(&[GGA, RMC, GST], 0.05).iter().enumerate() {
            let now = Duration::from_secs_f64(*at_s);
            sentences.line(line.as_bytes(), now);
            let came = sentences.take(now).is_some();
            // The first epoch ends where the second begins; then each with its GST.
            let expected = number == 3 || (number > 3 && number % 3 == 2);
            assert_eq!(came, expected, "sentence {number}");
        }
    }

    #[test]
    fn a_sentence_that_ceases_delays_one_fix_and_one_that_appears_is_taken_from_then_on() {
        let mut lines = receiver(&[GGA, RMC, GST], 0.05);
        lines.retain(|(at_s, line)| !(line.contains("GST") && (4.0..8.0).contains(at_s)));
        let (fixes, _) = timed(&lines, None);
        assert_eq!(fixes.len(), 12);
        let gst = |fix: &GnssFix| fix.covariance_rule == CovarianceRule::Gst;
        let with: Vec<bool> = fixes.iter().map(gst).collect();
        // The epoch in which it appears again was handed out before it came.
        assert_eq!(
            with,
            [
                true, true, true, true, false, false, false, false, false, true, true, true
            ]
        );
    }

    #[test]
    fn receivers_without_rmc_have_a_date_from_zda_or_from_this_machine() {
        let expected = utc::ns_from_iso8601("2026-11-29T10:00:00Z").unwrap();
        let vtg = "GNVTG,90.0,T,,M,19.44,N,36.0,K,A";
        let gns = "GNGNS,TIME,5200.696,N,00421.426,E,RRNN,12,0.8,10.0,40.0,,";
        let gll = "GNGLL,5200.696,N,00421.426,E,TIME,A,R";
        let machine = Some("2026-11-29T10:00:05");
        for (bodies, machine) in [
            (vec![GGA], machine),
            (vec![GGA, ZDA], None),
            (vec![GGA, ZDA, vtg], None),
            (vec![ZDA, gns, gll], None),
            (vec![gll], machine),
            // Midnight lies between the receiver and the machine.
            (vec![GGA], Some("2026-11-29T21:59:00")),
        ] {
            let (fixes, remarks) = timed(&receiver(&bodies, 0.05), machine);
            assert_eq!(fixes.len(), 12, "{bodies:?}");
            assert_eq!(fixes[0].time_ns, expected, "{bodies:?}");
            assert_eq!(remarks, Vec::<String>::new());
            if bodies.contains(&vtg) {
                assert!((fixes[5].speed_mps.unwrap() - 10.0).abs() < 0.01);
            }
        }
        let (fixes, remarks) = timed(&receiver(&[GGA], 0.05), None);
        assert_eq!(fixes, []);
        assert!(remarks[0].contains("no date"), "{remarks:?}");
    }

    #[test]
    fn quality_decides_the_sigma_where_there_is_no_gst() {
        let sigma_m = |quality: &str| {
            let gga = GGA.replace(",E,1,", &format!(",E,{quality},"));
            let (fixes, _) = timed(&receiver(&[&gga, ZDA], 0.05), None);
            fixes.first().map(|fix| fix.covariance_m2[0][0].sqrt())
        };
        let plain = 0.9 * 3.5 / std::f64::consts::SQRT_2;
        let near = |sigma_m: Option<f64>, expected: f64| {
            assert!((sigma_m.unwrap() - expected).abs() < 1e-6, "{sigma_m:?}");
        };
        near(sigma_m("1"), plain);
        near(sigma_m("2"), 0.5 * plain);
        near(sigma_m("9"), 0.5 * plain);
        // The floor of the config holds for carrier-phase solutions too.
        near(sigma_m("4"), 0.3);
        near(sigma_m("5"), 0.3);
        assert_eq!(sigma_m("6"), None);
        let simulated = receiver(&[&GGA.replace(",E,1,", ",E,8,"), RMC], 0.05);
        let (fixes, remarks) = timed(&simulated, None);
        assert_eq!(fixes, []);
        assert!(remarks[0].contains("simulated"), "{remarks:?}");
    }

    #[test]
    fn a_date_of_1024_weeks_ago_is_corrected_and_said() {
        let old = receiver(&[GGA, &RMC.replace("291126", "150407")], 0.05);
        let (fixes, remarks) = timed(&old, Some("2026-11-29T10:00:00"));
        let expected = utc::ns_from_iso8601("2026-11-29T10:00:00Z").unwrap();
        assert_eq!((fixes.len(), fixes[0].time_ns), (12, expected));
        assert!(remarks[0].contains("1024 weeks"), "{remarks:?}");
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
