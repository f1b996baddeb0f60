//! Estimates and responses in gpsd's JSON: pure functions, so that their texts are tested.
//!
//! TPV `epx`, `epy` and `eph` are at 95 %, which is what gpsd computes and most clients assume; GST is
//! 1 sigma. Clients pass over fields they do not know, so ours begin with `crossfix_`.

use serde::Serialize;
use serde_json::{Value, json};

use crate::OUTPUT_DEVICE_PREFIX;
use crate::event::{Estimate, EstimateKind, Jamming, State};
use crate::peer::ellipse::Ellipse;
use crate::peer::reception::Attendant;
use crate::utc;

/// Half the 95 % interval of a normal distribution, in sigmas.
const P95_SIGMAS: f64 = 1.959_964;
/// Below this speed a course is noise, m/s.
const MIN_COURSE_SPEED_MPS: f64 = 0.5;
/// A yaw less certain than this is not worth an ATT, radians.
const MAX_ATT_SIGMA_RAD: f64 = 0.6;
/// Error of the times at 95 %, seconds: estimates hold at the times of the sensors' stamps.
const TIME_ERROR_S: f64 = 0.005;

#[derive(Serialize)]
struct Tpv<'a> {
    class: &'static str,
    device: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u8>,
    mode: u8,
    time: String,
    ept: f64,
    #[serde(skip_serializing_if = "Option::is_none", flatten)]
    position: Option<Position>,
    crossfix_state: State,
    crossfix_reason: &'a str,
    crossfix_mode_count: usize,
    crossfix_reset_count: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    crossfix_protection_radius_m: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    crossfix_spoofing: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    crossfix_jamming: Option<&'static str>,
}

#[derive(Serialize)]
struct Position {
    lat: f64,
    lon: f64,
    #[serde(flatten)]
    height: Option<Height>,
    epx: f64,
    epy: f64,
    eph: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    track: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    speed: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epd: Option<f64>,
}

#[derive(Serialize)]
struct Height {
    #[serde(rename = "altHAE")]
    alt_hae: f64,
    #[serde(rename = "altMSL")]
    alt_msl: f64,
    /// The old name of `altMSL`, which many clients read.
    alt: f64,
    #[serde(rename = "geoidSep")]
    geoid_sep: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    epv: Option<f64>,
}

/// The name of the device that an estimate of this kind comes from.
pub fn device(kind: EstimateKind) -> String {
    let name = match kind {
        EstimateKind::Fused => "fused",
        EstimateKind::VisualOnly => "visual_only",
    };
    format!("{OUTPUT_DEVICE_PREFIX}{name}")
}

/// Time, position and velocity; mode 1 and no position when lost.
pub fn tpv(estimate: &Estimate, attendant: &Attendant) -> Value {
    let position = position(estimate, attendant);
    let mode = position
        .as_ref()
        .map_or(1, |position| if position.height.is_some() { 3 } else { 2 });
    let tpv = Tpv {
        class: "TPV",
        device: device(estimate.kind),
        // 5 is dead reckoning; without a status it is a plain fix.
        status: (estimate.state == State::Coasting).then_some(5),
        mode,
        time: utc::iso8601_from_ns(estimate.time_ns),
        ept: TIME_ERROR_S,
        position,
        crossfix_state: estimate.state,
        crossfix_reason: &estimate.reason,
        crossfix_mode_count: estimate.mode_count,
        crossfix_reset_count: estimate.reset_count,
        crossfix_protection_radius_m: finite(estimate.protection_radius_m, 3),
        crossfix_spoofing: attendant.is_spoofed,
        crossfix_jamming: match attendant.jamming {
            Jamming::NotSaid => None,
            Jamming::None => Some("none"),
            Jamming::Warning => Some("warning"),
            Jamming::Critical => Some("critical"),
        },
    };
    serde_json::to_value(tpv).unwrap_or(Value::Null)
}

fn position(estimate: &Estimate, attendant: &Attendant) -> Option<Position> {
    if estimate.state == State::Lost {
        return None;
    }
    let [[ee, _], [_, nn]] = estimate.covariance_m2;
    let moving = estimate.speed_mps.abs() >= MIN_COURSE_SPEED_MPS
        && estimate.yaw_sigma_rad < MAX_ATT_SIGMA_RAD;
    Some(Position {
        lat: finite(estimate.position.latitude_deg, 9)?,
        lon: finite(estimate.position.longitude_deg, 9)?,
        height: height(estimate, attendant),
        epx: finite(P95_SIGMAS * ee.sqrt(), 3)?,
        epy: finite(P95_SIGMAS * nn.sqrt(), 3)?,
        eph: finite(Ellipse::new(estimate.covariance_m2).p95_radius_m(), 3)?,
        track: moving
            .then(|| finite(estimate.course().rounded_degrees(3), 3))
            .flatten(),
        speed: finite(estimate.speed_mps.abs(), 3),
        epd: moving
            .then(|| finite(P95_SIGMAS * estimate.yaw_sigma_rad.to_degrees(), 3))
            .flatten(),
    })
}

fn height(estimate: &Estimate, attendant: &Attendant) -> Option<Height> {
    let height_m = estimate.height_m?;
    let alt_msl = finite(height_m - attendant.geoid_m, 3)?;
    Some(Height {
        alt_hae: finite(height_m, 3)?,
        alt_msl,
        alt: alt_msl,
        geoid_sep: finite(attendant.geoid_m, 3)?,
        epv: (attendant.height_sigma_m).and_then(|sigma_m| finite(P95_SIGMAS * sigma_m, 3)),
    })
}

/// The receiver's satellites: `hdop` and how many there are; gpsd's clients show no fix without.
pub fn sky(estimate: &Estimate, attendant: &Attendant) -> Value {
    let mut sky = json!({
        "class": "SKY",
        "device": device(estimate.kind),
        "time": utc::iso8601_from_ns(estimate.time_ns),
        "hdop": finite(attendant.hdop, 2),
        "satellites": [],
    });
    for (key, count) in [
        ("uSat", attendant.satellites_used),
        ("nSat", attendant.satellites_visible),
    ] {
        if let Some(count) = count {
            sky[key] = count.into();
        }
    }
    sky
}

/// The 1-sigma error ellipse; none when lost.
pub fn gst(estimate: &Estimate) -> Option<Value> {
    if estimate.state == State::Lost {
        return None;
    }
    let [[ee, _], [_, nn]] = estimate.covariance_m2;
    let ellipse = Ellipse::new(estimate.covariance_m2);
    Some(json!({
        "class": "GST",
        "device": device(estimate.kind),
        "time": utc::iso8601_from_ns(estimate.time_ns),
        "major": finite(ellipse.major_m, 3)?,
        "minor": finite(ellipse.minor_m, 3)?,
        "orient": finite(ellipse.orientation.rounded_degrees(3), 3)?,
        "lat": finite(nn.sqrt(), 3)?,
        "lon": finite(ee.sqrt(), 3)?,
    }))
}

/// The heading, where it is known.
pub fn att(estimate: &Estimate) -> Option<Value> {
    if estimate.state == State::Lost || !(estimate.yaw_sigma_rad < MAX_ATT_SIGMA_RAD) {
        return None;
    }
    Some(json!({
        "class": "ATT",
        "device": device(estimate.kind),
        "time": utc::iso8601_from_ns(estimate.time_ns),
        "heading": finite(estimate.yaw.heading().rounded_degrees(3), 3)?,
    }))
}

/// Everything a watching client gets for one estimate. GST first, as receivers' drivers do, so that a
/// client which waits for neither has both.
pub fn reports(estimate: &Estimate, attendant: &Attendant) -> Vec<String> {
    [
        gst(estimate),
        Some(sky(estimate, attendant)),
        Some(tpv(estimate, attendant)),
        att(estimate),
    ]
    .into_iter()
    .flatten()
    .map(|value| line(&value))
    .collect()
}

/// One object as it goes over the wire.
pub fn line(value: &Value) -> String {
    format!("{value}\r\n")
}

/// What a client asked to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Watch {
    /// It watches: `?POLL` answers with the latest. Reports are only sent in the formats below, which
    /// a client asks for beside.
    pub enabled: bool,
    /// JSON reports.
    pub json: bool,
    /// NMEA sentences.
    pub nmea: bool,
}

/// State of the server that its responses need.
#[derive(Debug)]
pub struct Server {
    /// Which estimates it serves.
    pub kind: EstimateKind,
    /// When the first estimate came.
    pub activated_ns: Option<i64>,
    /// The latest estimate, and what the receiver says.
    pub latest: Option<(Estimate, Attendant)>,
}

impl Server {
    /// The greeting of the server.
    pub fn version() -> Value {
        let release = concat!("crossfix-", env!("CARGO_PKG_VERSION"));
        json!({"class": "VERSION", "release": release, "rev": release, "proto_major": 3, "proto_minor": 14})
    }

    /// Answers one request, without its end mark, such as `?POLL`.
    pub fn answer(&self, request: &str, watch: &mut Watch) -> Vec<Value> {
        let (command, argument) = match request.split_once('=') {
            Some((command, argument)) => (command.trim(), Some(argument.trim())),
            None => (request.trim(), None),
        };
        match command {
            "?VERSION" => vec![Self::version()],
            "?DEVICES" => vec![self.devices()],
            "?DEVICE" => vec![self.device()],
            "?POLL" => vec![self.poll(*watch)],
            "?WATCH" => match argument.map(serde_json::from_str::<Value>) {
                None => vec![self.devices(), watch_echo(*watch)],
                Some(Ok(Value::Object(wishes))) => {
                    let device = wishes.get("device").and_then(Value::as_str);
                    if let Some(device) = device.filter(|device| *device != self::device(self.kind))
                    {
                        return vec![error(&format!("No such device: {device}"))];
                    }
                    let wish = |key| wishes.get(key).and_then(Value::as_bool);
                    let raw = wishes.get("raw");
                    let is_raw = raw.is_some_and(|raw| {
                        raw.as_bool() == Some(true) || raw.as_i64().is_some_and(|level| level > 0)
                    });
                    *watch = if wish("enable").unwrap_or(true) {
                        Watch {
                            enabled: true,
                            json: wish("json").unwrap_or(watch.json),
                            // Raw data, as gpsmon asks for, are sentences here.
                            nmea: wish("nmea").unwrap_or(watch.nmea || is_raw),
                        }
                    } else {
                        Watch::default()
                    };
                    vec![self.devices(), watch_echo(*watch)]
                }
                Some(_) => vec![error("Invalid WATCH: give a JSON object")],
            },
            _ => vec![error(&format!("Unrecognized request '{request}'"))],
        }
    }

    fn device(&self) -> Value {
        let mut device =
            json!({"class": "DEVICE", "path": device(self.kind), "driver": "crossfix", "flags": 1});
        if let Some(activated_ns) = self.activated_ns {
            device["activated"] = utc::iso8601_from_ns(activated_ns).into();
        }
        device
    }

    fn devices(&self) -> Value {
        json!({"class": "DEVICES", "devices": [self.device()]})
    }

    fn poll(&self, watch: Watch) -> Value {
        // As with gpsd, nothing is active before a WATCH.
        let latest = self.latest.as_ref().filter(|_| watch.enabled);
        let time = latest.map_or(String::new(), |(estimate, _)| {
            utc::iso8601_from_ns(estimate.time_ns)
        });
        json!({
            "class": "POLL",
            "time": time,
            "active": usize::from(latest.is_some()),
            "tpv": latest.map(|(estimate, attendant)| tpv(estimate, attendant)).into_iter().collect::<Vec<_>>(),
            "gst": latest.and_then(|(estimate, _)| gst(estimate)).into_iter().collect::<Vec<_>>(),
            "sky": latest.map(|(estimate, attendant)| sky(estimate, attendant)).into_iter().collect::<Vec<_>>(),
        })
    }
}

fn watch_echo(watch: Watch) -> Value {
    json!({
        "class": "WATCH", "enable": watch.enabled, "json": watch.json, "nmea": watch.nmea,
        "raw": 0, "scaled": false, "timing": false, "split24": false, "pps": false,
    })
}

/// An ERROR object.
pub fn error(message: &str) -> Value {
    let message: String = message.chars().take(120).collect();
    json!({"class": "ERROR", "message": message})
}

/// Rounded to so many decimals; `None` when it is no number.
fn finite(value: f64, decimals: i32) -> Option<f64> {
    let scale = 10f64.powi(decimals);
    value.is_finite().then(|| (value * scale).round() / scale)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::event::{Event, Spoofing};
    use crate::peer::gpsd::{GpsdConfig, GpsdReports};
    use crate::peer::reception::Receivers;
    use crate::peer::testing::{estimate, fix};

    /// With a receiver of nine satellites.
    fn attendant(estimate: &Estimate) -> Attendant {
        let mut receivers = Receivers::default();
        receivers.note(&Event::Gnss(fix(estimate.time_ns)));
        receivers.attend(estimate)
    }

    fn tpv(estimate: &Estimate) -> Value {
        super::tpv(estimate, &attendant(estimate))
    }

    fn reports(estimate: &Estimate) -> Vec<String> {
        super::reports(estimate, &attendant(estimate))
    }

    fn server() -> Server {
        let latest = estimate(State::Degraded);
        Server {
            kind: EstimateKind::Fused,
            activated_ns: Some(latest.time_ns),
            latest: Some((latest.clone(), attendant(&latest))),
        }
    }

    #[test]
    fn a_report_carries_position_errors_at_95_percent_and_the_state() {
        let tpv = tpv(&estimate(State::Degraded));
        assert_eq!(tpv["class"], "TPV");
        assert_eq!(tpv["device"], "crossfix://fused");
        assert_eq!(tpv["mode"], 3);
        assert_eq!(tpv["time"], "2020-07-11T22:37:48.500Z");
        assert_eq!(
            (tpv["lat"].as_f64(), tpv["lon"].as_f64()),
            (Some(-33.5), Some(151.25))
        );
        assert_eq!(
            [
                &tpv["altHAE"],
                &tpv["altMSL"],
                &tpv["alt"],
                &tpv["geoidSep"]
            ],
            [40.0, 18.0, 18.0, 22.0]
        );
        assert_eq!(
            (tpv["epv"].as_f64(), tpv["ept"].as_f64()),
            (Some(5.88), Some(0.005))
        );
        assert_eq!(
            (tpv["epx"].as_f64(), tpv["epy"].as_f64()),
            (Some(3.92), Some(1.96))
        );
        assert_eq!(
            (tpv["track"].as_f64(), tpv["speed"].as_f64()),
            (Some(90.0), Some(10.0))
        );
        assert_eq!(tpv["crossfix_state"], "degraded");
        assert!(tpv.get("status").is_none());
        let gst = gst(&estimate(State::Degraded)).unwrap();
        assert_eq!(
            (
                gst["lon"].as_f64(),
                gst["lat"].as_f64(),
                gst["orient"].as_f64()
            ),
            (Some(2.0), Some(1.0), Some(90.0))
        );
    }

    #[test]
    fn attacks_that_a_receiver_tells_are_reported_and_silence_is_left_out() {
        let estimate = estimate(State::Degraded);
        let silent = tpv(&estimate);
        assert!(
            silent.get("crossfix_spoofing").is_none() && silent.get("crossfix_jamming").is_none()
        );
        let mut said = fix(estimate.time_ns);
        said.reception.spoofing = Spoofing::Indicated;
        said.reception.jamming = Jamming::Critical;
        let mut receivers = Receivers::default();
        receivers.note(&Event::Gnss(said));
        let tpv = super::tpv(&estimate, &receivers.attend(&estimate));
        assert_eq!(tpv["crossfix_spoofing"], true);
        assert_eq!(tpv["crossfix_jamming"], "critical");
    }

    #[test]
    fn when_lost_there_is_mode_1_and_no_position() {
        let lost = estimate(State::Lost);
        let tpv = tpv(&lost);
        assert_eq!(tpv["mode"], 1);
        assert!(
            ["lat", "lon", "eph", "speed"]
                .iter()
                .all(|key| tpv.get(*key).is_none()),
            "{tpv}"
        );
        assert_eq!(reports(&lost).len(), 2);
    }

    #[test]
    fn numbers_that_are_none_are_left_out() {
        let mut estimate = estimate(State::Ok);
        estimate.height_m = None;
        estimate.yaw_sigma_rad = f64::INFINITY;
        estimate.protection_radius_m = f64::INFINITY;
        let tpv = tpv(&estimate);
        assert_eq!(tpv["mode"], 2);
        assert!(
            [
                "altHAE",
                "altMSL",
                "alt",
                "geoidSep",
                "epv",
                "track",
                "epd",
                "crossfix_protection_radius_m"
            ]
            .iter()
            .all(|key| tpv.get(*key).is_none()),
            "{tpv}"
        );
        assert!(!reports(&estimate).concat().contains("null"));
        estimate.covariance_m2 = [[f64::NAN; 2]; 2];
        assert_eq!(super::tpv(&estimate, &attendant(&estimate))["mode"], 1);
    }

    #[test]
    fn our_own_client_and_gpsd_proto_read_our_reports() {
        let mut estimate = estimate(State::Degraded);
        estimate.speed_mps = 3.0;
        for line in reports(&estimate) {
            assert!(line.ends_with("\r\n"));
            let value: Value = serde_json::from_str(&line).unwrap();
            if value["class"] != "ATT" {
                serde_json::from_value::<gpsd_proto::ResponseData>(value).unwrap();
            }
        }
        let mut config = GpsdConfig::default();
        let fix = |config: &GpsdConfig| {
            let mut reader = GpsdReports::new(config);
            for line in reports(&estimate) {
                // Our own device is refused, so this reader is shown another.
                reader.line(
                    line.replace("crossfix://fused", "/dev/x").as_bytes(),
                    Duration::ZERO,
                );
            }
            reader.take(Duration::ZERO)
        };
        let [[ee, en], [_, nn]] = fix(&config).unwrap().covariance_m2;
        assert!((ee - 4.0).abs() + en.abs() + (nn - 1.0).abs() < 1e-9);
        config.device = Some("/dev/y".into());
        assert_eq!(fix(&config), None);
    }

    #[test]
    fn requests_get_the_answers_that_gpsd_gives() {
        let server = server();
        let mut watch = Watch::default();
        let mut classes = |request| {
            let values = server.answer(request, &mut watch);
            values
                .iter()
                .map(|value| value["class"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(classes("?VERSION"), ["VERSION"]);
        assert_eq!(classes("?DEVICES"), ["DEVICES"]);
        assert_eq!(
            classes("?WATCH={\"enable\":true,\"json\":true}"),
            ["DEVICES", "WATCH"]
        );
        assert_eq!(classes("?POLL"), ["POLL"]);
        assert_eq!(classes("?WATCH={\"enable\":tru"), ["ERROR"]);
        assert_eq!(classes("?WATCH={\"device\":\"/dev/ttyUSB0\"}"), ["ERROR"]);
        assert_eq!(classes("?FOO"), ["ERROR"]);
        assert_eq!(classes("GET / HTTP/1.1"), ["ERROR"]);
        assert_eq!(
            watch,
            Watch {
                enabled: true,
                json: true,
                nmea: false
            }
        );
        assert_eq!(
            server.answer("?POLL", &mut watch)[0]["tpv"][0]["crossfix_state"],
            "degraded"
        );
        server.answer("?WATCH={\"enable\":false}", &mut watch);
        assert_eq!(watch, Watch::default());
        assert_eq!(server.answer("?POLL", &mut watch)[0]["active"], 0);
        // As gpsd-py3 asks: no reports are streamed, and polls are answered.
        let answers = server.answer("?WATCH={\"enable\":true}", &mut watch);
        assert_eq!(answers[1]["enable"], true);
        assert!(!watch.json && !watch.nmea);
        assert_eq!(server.answer("?POLL", &mut watch)[0]["active"], 1);
    }

    proptest! {
        #[test]
        fn no_request_makes_it_panic(request in "\\PC{0,100}", watch in "[?]WATCH=\\PC{0,60}") {
            server().answer(&request, &mut Watch::default());
            server().answer(&watch, &mut Watch::default());
        }
    }
}
