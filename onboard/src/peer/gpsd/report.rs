//! gpsd's JSON lines to GNSS fixes: pure, so that recorded lines test it.
//!
//! Facts behind it (gpsd 3.22 and its manual): GST may come before or after the TPV of its epoch; one
//! epoch may have several TPVs while gpsd learns the receiver's cycle; a TPV may have no time; absent
//! `status` is a plain fix; an over-long line is cut by gpsd itself, so broken JSON is normal.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::NaiveDateTime;
use gpsd_proto::{Gst, Tpv};
use serde_json::Value;

use super::GpsdConfig;
use super::device::{Device, reception_of, sigmas};
use crate::event::GnssFix;
use crate::peer::dates;
use crate::{OUTPUT_DEVICE_PREFIX, utc};

/// Devices whose reports are kept apart; more than any vehicle has.
const MAX_DEVICES: usize = 16;
/// `status` of a TPV (gpsd's manual).
const STATUS_DEAD_RECKONING: i64 = 5;
const STATUS_SIMULATED: i64 = 8;

/// What a line was, beyond the fixes that [`GpsdReports::take`] hands out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A report, understood or of no use to us.
    Report,
    /// gpsd's greeting, with its release and protocol version.
    Version {
        /// Release of the server.
        release: String,
        /// Major version of its protocol.
        proto_major: u64,
    },
    /// gpsd's answer to our request, and whether it sends reports now.
    Watch {
        /// JSON reports are on.
        enabled: bool,
    },
    /// The devices that gpsd has, if the one that the config asks for is not among them.
    WithoutDevice(Vec<String>),
    /// gpsd refused a request.
    Error(String),
    /// Not JSON, or not what its class promises.
    Broken(String),
}

/// Groups reports by device and epoch, and makes a fix of each epoch.
#[derive(Debug)]
pub struct GpsdReports {
    config: GpsdConfig,
    devices: BTreeMap<String, Device>,
    machine: Option<NaiveDateTime>,
    rollovers: i64,
    simulated: u64,
}

impl GpsdReports {
    /// Starts without any device.
    pub fn new(config: &GpsdConfig) -> Self {
        Self {
            config: config.clone(),
            devices: BTreeMap::new(),
            machine: None,
            rollovers: 0,
            simulated: 0,
        }
    }

    /// Says what date and time it is here, for receivers whose date is 1024 weeks behind.
    pub fn set_machine_time(&mut self, machine: Option<NaiveDateTime>) {
        self.machine = machine;
    }

    /// What the receiver does that its owner should know, as sentences.
    pub fn remarks(&self) -> Vec<String> {
        dates::remarks(self.rollovers, self.simulated)
    }

    /// Takes one line in; `now` is any monotonic time. Take the fixes out after each line.
    pub fn line(&mut self, line: &[u8], now: Duration) -> Line {
        let value: Value = match serde_json::from_slice(line) {
            Ok(value) => value,
            Err(error) => return Line::Broken(error.to_string()),
        };
        match value.get("class").and_then(Value::as_str) {
            Some("TPV") => {
                let status = value.get("status").and_then(Value::as_i64);
                if status == Some(STATUS_SIMULATED) && !self.config.accept_simulated {
                    self.simulated += 1;
                    return Line::Report;
                }
                // A receiver's own dead reckoning is no measurement of this moment.
                if status == Some(STATUS_DEAD_RECKONING) {
                    return Line::Report;
                }
                self.report(value, |device, time_ns, tpv: Tpv| {
                    device.tpv(time_ns, tpv, now);
                })
            }
            Some("GST") => self.report(value, |device, time_ns, gst: Gst| {
                device.gst = Some((time_ns, sigmas(&gst)));
            }),
            Some("SKY") => {
                let path = value.get("device").and_then(Value::as_str).unwrap_or("");
                let reception = reception_of(&value);
                let path = path.to_owned();
                if self.listens_to(&path)
                    && let Some(device) = self.device(&path)
                {
                    device.reception = reception;
                }
                Line::Report
            }
            Some("DEVICES") => self.devices(&value),
            Some("DEVICE") => {
                self.driver(&value);
                Line::Report
            }
            Some("VERSION") => Line::Version {
                release: value
                    .get("release")
                    .and_then(Value::as_str)
                    .unwrap_or("?")
                    .chars()
                    .take(40)
                    .collect(),
                proto_major: value
                    .get("proto_major")
                    .and_then(Value::as_u64)
                    .unwrap_or(0),
            },
            Some("WATCH") => {
                let is_true = |key| value.get(key).and_then(Value::as_bool).unwrap_or(false);
                Line::Watch {
                    enabled: is_true("enable") && is_true("json"),
                }
            }
            Some("ERROR") => Line::Error(
                value
                    .get("message")
                    .and_then(Value::as_str)
                    .unwrap_or("?")
                    .chars()
                    .take(200)
                    .collect(),
            ),
            Some(_) => Line::Report,
            None => Line::Broken("an object without a class".into()),
        }
    }

    /// A fix whose epoch is complete: its GST is there, a newer epoch began, or the settle time is over.
    pub fn take(&mut self, now: Duration) -> Option<GnssFix> {
        let settle = Duration::from_secs_f64(self.config.settle_s);
        self.devices.values_mut().find_map(|device| {
            if let Some(done) = device.done.take() {
                return device.finish(done, &self.config);
            }
            let epoch = device.epoch.as_ref()?;
            let has_gst = device
                .gst
                .is_some_and(|(time_ns, _)| time_ns == epoch.time_ns);
            if !has_gst && now.saturating_sub(epoch.arrived) < settle {
                return None;
            }
            let epoch = device.epoch.take()?;
            device.finish(epoch, &self.config)
        })
    }

    /// Whether an epoch waits for its settle time.
    pub fn is_settling(&self) -> bool {
        self.devices
            .values()
            .any(|device| device.epoch.is_some() || device.done.is_some())
    }

    fn report<T: serde::de::DeserializeOwned>(
        &mut self,
        value: Value,
        take: impl FnOnce(&mut Device, i64, T),
    ) -> Line {
        let path = value
            .get("device")
            .and_then(Value::as_str)
            .unwrap_or("")
            .to_owned();
        if !self.listens_to(&path) {
            return Line::Report;
        }
        let time_ns = value
            .get("time")
            .and_then(Value::as_str)
            .and_then(utc::ns_from_iso8601)
            .map(|time_ns| self.without_rollover(time_ns));
        match (serde_json::from_value(value), time_ns) {
            (Err(error), _) => Line::Broken(error.to_string()),
            // Before the receiver knows the date there is no moment this could be true of.
            (Ok(_), None) => Line::Report,
            (Ok(report), Some(time_ns)) => {
                if let Some(device) = self.device(&path) {
                    take(device, time_ns, report);
                }
                Line::Report
            }
        }
    }

    /// The time with the week number that the receiver's firmware has lost, if it has.
    fn without_rollover(&mut self, time_ns: i64) -> i64 {
        let machine = self.machine;
        self.rollovers = machine.map_or(0, |machine| dates::rollovers(time_ns, machine));
        time_ns.saturating_add(dates::rollover_ns(self.rollovers))
    }

    fn devices(&mut self, value: &Value) -> Line {
        let devices = value.get("devices").and_then(Value::as_array);
        let mut paths = Vec::new();
        for device in devices.into_iter().flatten().take(MAX_DEVICES) {
            self.driver(device);
            let path = device.get("path").and_then(Value::as_str);
            paths.extend(path.map(|path| path.chars().take(100).collect::<String>()));
        }
        match &self.config.device {
            // None at all is a gpsd that waits for its receivers.
            Some(wanted) if !paths.is_empty() && !paths.contains(wanted) => {
                Line::WithoutDevice(paths)
            }
            _ => Line::Report,
        }
    }

    /// Whether a device is the configured one, or any but our own output.
    fn listens_to(&self, path: &str) -> bool {
        let wanted = self.config.device.as_deref();
        wanted.is_none_or(|wanted| wanted == path) && !path.starts_with(OUTPUT_DEVICE_PREFIX)
    }

    fn device(&mut self, path: &str) -> Option<&mut Device> {
        if !self.devices.contains_key(path) && self.devices.len() >= MAX_DEVICES {
            return None;
        }
        Some(self.devices.entry(path.to_owned()).or_default())
    }

    fn driver(&mut self, device: &Value) {
        let text = |key| device.get(key).and_then(Value::as_str);
        if let (Some(path), Some(driver)) = (text("path"), text("driver")) {
            let driver = driver.to_owned();
            if let Some(device) = self.device(path) {
                device.driver = Some(driver);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crossfix_calibration::Geodetic;

    use super::*;
    use crate::event::{CovarianceRule, FixDimension};
    use crate::peer::covariance;

    const CAPTURE: &str = include_str!("../../../tests/data/gpsd_m9n.json");
    const SETTLED: Duration = Duration::from_millis(50);

    /// Fixes of lines that arrive 100 ms apart.
    fn fixes(lines: &str, config: &GpsdConfig) -> Vec<GnssFix> {
        let mut reports = GpsdReports::new(config);
        let mut fixes = Vec::new();
        for (index, line) in lines.lines().enumerate() {
            let now = Duration::from_millis(100 * index as u64);
            reports.line(line.as_bytes(), now);
            fixes.extend(reports.take(now));
            fixes.extend(reports.take(now + SETTLED));
        }
        fixes
    }

    #[test]
    fn each_epoch_of_a_real_receiver_is_one_fix() {
        let fixes = fixes(CAPTURE, &GpsdConfig::default());
        let seconds: Vec<i64> = fixes
            .iter()
            .map(|fix| fix.time_ns / 1_000_000_000 % 100)
            .collect();
        assert_eq!(seconds, [68, 69, 70, 71]);
        let last = fixes.last().unwrap();
        assert_eq!(last.covariance_rule, CovarianceRule::Gst);
        let expected = covariance::diagonal(1.0, 0.98);
        for axis in 0..2 {
            assert!((last.covariance_m2[axis][axis] - expected[axis][axis]).abs() < 1e-9);
        }
        assert!((last.position.latitude_deg - 38.110_494_833).abs() < 1e-12);
        assert!(
            (last.position.height_m - 53.1).abs() < 1e-9,
            "height above the ellipsoid"
        );
        assert_eq!(last.dimension, FixDimension::Three);
        assert_eq!(last.height_sigma_m, 3.0);
    }

    #[test]
    fn the_first_words_of_gpsd_are_recognised() {
        let mut reports = GpsdReports::new(&GpsdConfig::default());
        let kinds: Vec<Line> = CAPTURE
            .lines()
            .take(3)
            .map(|line| reports.line(line.as_bytes(), SETTLED))
            .collect();
        let version = Line::Version {
            release: "3.22".into(),
            proto_major: 3,
        };
        assert_eq!(
            kinds,
            [version, Line::Report, Line::Watch { enabled: true }]
        );
        let error = r#"{"class":"ERROR","message":"Unrecognized request '?FOO'"}"#;
        assert!(matches!(
            reports.line(error.as_bytes(), SETTLED),
            Line::Error(_)
        ));
    }

    /// One fix from one TPV with these extra fields.
    fn one(extra: &str, driver: &str, config: &GpsdConfig) -> Option<GnssFix> {
        let device = format!(
            r#"{{"class":"DEVICE","path":"/dev/a","driver":"{driver}","bps":115200,"activated":0}}"#
        );
        let tpv = format!(
            r#"{{"class":"TPV","device":"/dev/a","mode":3,"time":"2020-07-11T22:37:48.000Z","lat":1.5,"lon":2.5{extra}}}"#
        );
        fixes(&format!("{device}\n{tpv}"), config).pop()
    }

    #[test]
    fn eph_means_what_the_driver_makes_of_it() {
        let config = GpsdConfig {
            floor_sigma_m: 0.01,
            ..GpsdConfig::default()
        };
        let sigma_m = |driver| {
            one(r#","eph":2.447746830680816"#, driver, &config)
                .unwrap()
                .covariance_m2[0][0]
                .sqrt()
        };
        assert!((sigma_m("NMEA0183") - 1.0).abs() < 1e-4);
        assert!((sigma_m("u-blox") - 2.4477 / std::f64::consts::SQRT_2).abs() < 1e-3);
    }

    #[test]
    fn better_evidence_comes_first_and_the_rule_is_kept() {
        let config = GpsdConfig::default();
        let rule = |extra| one(extra, "NMEA0183", &config).unwrap().covariance_rule;
        assert_eq!(
            rule(r#","epx":3.92,"epy":1.96,"eph":9"#),
            CovarianceRule::EpxEpy
        );
        assert_eq!(rule(r#","epx":3.92,"eph":9"#), CovarianceRule::Eph);
        assert_eq!(rule(""), CovarianceRule::Default);
        assert_eq!(rule(r#","eph":0.0"#), CovarianceRule::Default);
        assert_eq!(rule(r#","eph":1e39"#), CovarianceRule::Default);
        let fix = one(r#","epx":0.002,"epy":0.002"#, "NMEA0183", &config).unwrap();
        assert!(
            (fix.covariance_m2[0][0].sqrt() - config.floor_sigma_m).abs() < 1e-9,
            "the floor holds"
        );
    }

    #[test]
    fn a_gst_after_the_tpv_is_waited_for() {
        let mut reports = GpsdReports::new(&GpsdConfig::default());
        let at = Duration::from_millis;
        let time = "2020-07-11T22:37:48.000Z";
        reports.line(
            format!(r#"{{"class":"TPV","mode":3,"time":"{time}","lat":1,"lon":2,"eph":9}}"#)
                .as_bytes(),
            at(0),
        );
        assert_eq!(reports.take(at(5)), None);
        assert!(reports.is_settling());
        reports.line(
            format!(r#"{{"class":"GST","time":"{time}","lat":1.5,"lon":2.5}}"#).as_bytes(),
            at(6),
        );
        assert_eq!(
            reports.take(at(6)).unwrap().covariance_rule,
            CovarianceRule::Gst
        );
        assert_eq!(reports.take(at(500)), None);
    }

    #[test]
    fn a_burst_of_epochs_without_gst_is_a_fix_each() {
        let mut reports = GpsdReports::new(&GpsdConfig::default());
        let mut seconds = Vec::new();
        for second in 40..44 {
            let line = format!(
                r#"{{"class":"TPV","mode":3,"time":"2020-07-11T22:37:{second}.000Z","lat":1,"lon":2,"eph":9}}"#
            );
            reports.line(line.as_bytes(), Duration::ZERO);
            seconds.extend(reports.take(Duration::ZERO));
        }
        seconds.extend(reports.take(SETTLED));
        let seconds: Vec<i64> = seconds
            .iter()
            .map(|fix| fix.time_ns / 1_000_000_000 % 60)
            .collect();
        assert_eq!(seconds, [40, 41, 42, 43]);
    }

    #[test]
    fn our_own_output_and_other_devices_are_not_read() {
        let tpv = |device: &str| {
            format!(
                r#"{{"class":"TPV","device":"{device}","mode":3,"time":"2020-07-11T22:37:48.000Z","lat":1,"lon":2}}"#
            )
        };
        assert_eq!(fixes(&tpv("crossfix://fused"), &GpsdConfig::default()), []);
        let only_b = GpsdConfig {
            device: Some("/dev/b".into()),
            ..GpsdConfig::default()
        };
        assert_eq!(fixes(&tpv("/dev/a"), &only_b), []);
        assert_eq!(fixes(&tpv("/dev/b"), &only_b).len(), 1);
    }

    #[test]
    fn a_receiver_that_gpsd_does_not_have_is_named_with_those_it_has() {
        let config = GpsdConfig {
            device: Some("/dev/ttyACM1".into()),
            ..GpsdConfig::default()
        };
        let devices = r#"{"class":"DEVICES","devices":[{"class":"DEVICE","path":"/dev/ttyACM0"}]}"#;
        let line = GpsdReports::new(&config).line(devices.as_bytes(), SETTLED);
        assert_eq!(line, Line::WithoutDevice(vec!["/dev/ttyACM0".into()]));
        let any = GpsdReports::new(&GpsdConfig::default()).line(devices.as_bytes(), SETTLED);
        assert_eq!(any, Line::Report);
    }

    #[test]
    fn satellites_are_carried_and_simulated_and_reckoned_positions_are_not_taken() {
        let sky =
            r#"{"class":"SKY","device":"/dev/a","hdop":0.8,"nSat":20,"uSat":9,"satellites":[]}"#;
        let old = r#"{"class":"SKY","device":"/dev/a","satellites":[{"PRN":1,"used":true},{"PRN":2,"used":false}]}"#;
        let tpv = |more: &str| {
            format!(
                r#"{{"class":"TPV","device":"/dev/a","mode":3,"time":"2020-07-11T22:37:48.000Z","lat":52.0,"lon":4.4,"altMSL":10.0{more}}}"#
            )
        };
        let config = GpsdConfig::default();
        let fix = fixes(&format!("{sky}\n{}", tpv("")), &config)
            .pop()
            .unwrap();
        let reception = fix.reception;
        assert_eq!(
            (reception.satellites_used, reception.satellites_visible),
            (Some(9), Some(20))
        );
        assert_eq!(reception.hdop, Some(0.8));
        // Without gpsd's separation the geoid is EGM96's.
        assert!(
            (fix.position.height_m - 53.4).abs() < 0.6,
            "{}",
            fix.position.height_m
        );
        let fix = fixes(&format!("{old}\n{}", tpv("")), &config)
            .pop()
            .unwrap();
        assert_eq!(
            (
                fix.reception.satellites_used,
                fix.reception.satellites_visible
            ),
            (Some(1), Some(2))
        );
        assert_eq!(fixes(&tpv(r#","status":8"#), &config), []);
        assert_eq!(fixes(&tpv(r#","status":5"#), &config), []);
        let bench = GpsdConfig {
            accept_simulated: true,
            ..GpsdConfig::default()
        };
        assert_eq!(fixes(&tpv(r#","status":8"#), &bench).len(), 1);
    }

    #[test]
    fn no_fix_no_time_or_no_place_is_no_event() {
        for line in [
            r#"{"class":"TPV","mode":1,"time":"2020-07-11T22:37:48.000Z","lat":1,"lon":2}"#,
            r#"{"class":"TPV","mode":3,"lat":1,"lon":2}"#,
            r#"{"class":"TPV","mode":3,"time":"2020-07-11T22:37:48.000Z","lat":91,"lon":2}"#,
            r#"{"class":"TPV","mode":3,"time":"2020-07-11T22:37:48.000Z","lon":2}"#,
            r#"{"class":"TPV","mode":3,"time":"soon","lat":1,"lon":2}"#,
        ] {
            assert_eq!(fixes(line, &GpsdConfig::default()), [], "{line}");
        }
    }

    #[test]
    fn classes_and_fields_we_do_not_know_are_passed_over() {
        let mut reports = GpsdReports::new(&GpsdConfig::default());
        for line in [
            r#"{"class":"ATT","heading":1.0}"#,
            r#"{"class":"TOFF","real_sec":1330212592}"#,
            r#"{"class":"RTCM3","type":1005}"#,
            r#"{"class":"DEVICE","path":"/dev/x","activated":0,"bps":460800}"#,
        ] {
            assert_eq!(
                reports.line(line.as_bytes(), SETTLED),
                Line::Report,
                "{line}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..8)) {
            let mut reports = GpsdReports::new(&GpsdConfig::default());
            for line in &lines {
                reports.line(line, SETTLED);
                reports.take(Duration::MAX);
            }
        }

        #[test]
        fn real_lines_with_bytes_changed_make_no_impossible_fix(
            line in 0usize..20, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let mut bytes = CAPTURE.lines().nth(line).unwrap_or("{}").as_bytes().to_vec();
            for (index, byte) in changes {
                let at = index.index(bytes.len());
                bytes[at] = byte;
            }
            let mut reports = GpsdReports::new(&GpsdConfig::default());
            reports.line(&bytes, Duration::ZERO);
            if let Some(fix) = reports.take(SETTLED) {
                prop_assert!(Geodetic::new(fix.position.latitude_deg, fix.position.longitude_deg, fix.position.height_m).is_ok());
                prop_assert!(fix.covariance_m2[0][0] > 0.0 && fix.covariance_m2[1][1] > 0.0);
                prop_assert!(fix.height_sigma_m.is_finite());
            }
        }
    }
}
