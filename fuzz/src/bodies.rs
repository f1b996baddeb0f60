//! What each fuzz target does with its bytes; the seeded test of the workspace (`tests/fuzz.rs`) does the
//! same. Bytes that are no input of the kind are an error somewhere, and never a panic.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crossfix_calibration::{Geodetic, TileId, Yaw};
use crossfix_onboard::config::Config;
use crossfix_onboard::core::Core;
use crossfix_onboard::event::{
    Arrival, CameraFrame, CovarianceRule, Estimate, Event, FixDimension, GnssFix, OdometrySample,
    Reception, State, YawMeasurement,
};
use crossfix_onboard::fusion::FusionConfig;
use crossfix_onboard::log::LogReader;
use crossfix_onboard::matcher::TractMatcher;
use crossfix_onboard::peer::gpsd::{GpsdConfig, GpsdReports};
use crossfix_onboard::peer::nmea::{NmeaConfig, NmeaSentences};
use crossfix_onboard::peer::ubx::{UbxConfig, UbxStream};
use crossfix_onboard::tiles::TileStore;

/// A target by name.
pub type Body = fn(&[u8]);

/// Every target.
pub const BODIES: [(&str, Body); 10] = [
    ("gpsd", gpsd),
    ("nmea", nmea),
    ("ubx", ubx),
    ("mcap", mcap),
    ("pmtiles", pmtiles),
    ("config", config),
    ("pickle", pickle),
    ("safetensors", safetensors),
    ("onnx", onnx),
    ("core_events", core_events),
];

/// Lines of a gpsd server.
pub fn gpsd(bytes: &[u8]) {
    let mut reports = GpsdReports::new(&GpsdConfig::default());
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let now = Duration::from_millis(20 * index as u64);
        reports.line(line, now);
        check_fix(reports.take(now));
    }
    check_fix(reports.take(Duration::from_hours(1)));
}

/// Sentences of a receiver.
pub fn nmea(bytes: &[u8]) {
    let mut sentences = NmeaSentences::new(&NmeaConfig::default());
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let now = Duration::from_millis(20 * index as u64);
        sentences.line(line, now);
        check_fix(sentences.take(now));
    }
    check_fix(sentences.finish());
}

/// Bytes of a u-blox receiver.
pub fn ubx(bytes: &[u8]) {
    let mut stream = UbxStream::new(&UbxConfig::default());
    for (index, piece) in bytes.chunks(61).enumerate() {
        let now = Duration::from_millis(20 * index as u64);
        stream.bytes(piece, now);
        while let Some(fix) = stream.take(now) {
            check_fix(Some(fix));
        }
    }
    check_fix(stream.finish(Duration::from_hours(1)));
}

fn check_fix(fix: Option<GnssFix>) {
    if let Some(fix) = fix {
        assert!(fix.position.check().is_ok(), "{fix:?}");
        assert!(
            fix.covariance_m2
                .as_flattened()
                .iter()
                .all(|v| v.is_finite()),
            "{fix:?}"
        );
    }
}

/// A drive log.
pub fn mcap(bytes: &[u8]) {
    for record in LogReader::new(bytes, "fuzz.mcap".as_ref()).records() {
        if record.is_err_and(|error| error.ends_the_log()) {
            break;
        }
    }
}

/// A tile archive.
pub fn pmtiles(bytes: &[u8]) {
    let (folder, path) = scratch("tiles.pmtiles");
    let manifest = "zoom = 18\ntile_px = 256\nmetres_per_pixel = 0.3676\ngeoref_sigma_m = 0.5\n\
                    capture_date = \"2024-01-01\"\nattribution = \"x\"\nlicence = \"x\"\n";
    let written = std::fs::write(folder.join("tiles.toml"), manifest)
        .and_then(|()| std::fs::write(&path, bytes));
    written.expect("the scratch folder is writable");
    if let Ok(mut store) = TileStore::open(&path) {
        for (x, y) in [(0, 0), (134_244, 86_459), (262_143, 262_143)] {
            let _ = store.tile(TileId { zoom: 18, x, y });
        }
    }
}

/// A config file.
pub fn config(bytes: &[u8]) {
    if let Ok(config) = Config::parse(&String::from_utf8_lossy(bytes)) {
        config.check_run();
        let again = Config::parse(&config.to_toml()).expect("what is printed reads back");
        assert_eq!(config.to_toml(), again.to_toml());
    }
}

/// A PyTorch checkpoint.
pub fn pickle(bytes: &[u8]) {
    let (_, path) = scratch("checkpoint.pt");
    std::fs::write(&path, bytes).expect("the scratch folder is writable");
    let wanted = BTreeMap::from([("weight".to_owned(), vec![2, 3])]);
    let _ = crossfix_offline::import::read(&path, &wanted, |_| true, None);
}

/// Weights of ours.
pub fn safetensors(bytes: &[u8]) {
    let (_, path) = scratch("weights.safetensors");
    std::fs::write(&path, bytes).expect("the scratch folder is writable");
    let _ = crossfix_offline::model::weights::read_arrays(&path);
}

/// An exported student.
pub fn onnx(bytes: &[u8]) {
    // A model that needs much is not built here, so that many fit into a second.
    let _ = TractMatcher::within(bytes, "fuzz.onnx", 16);
}

/// A folder for this process and thread, and a file in it.
fn scratch(name: &str) -> (PathBuf, PathBuf) {
    let thread = format!("{:?}", std::thread::current().id());
    let folder =
        std::env::temp_dir().join(format!("crossfix-fuzz-{}-{thread}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("there is a folder for scratch files");
    let path = folder.join(name);
    (folder, path)
}

const START_NS: i64 = 1_700_000_000_000_000_000;
/// Numbers that no sensor should deliver.
const WILD: [f64; 8] = [
    f64::NAN,
    f64::INFINITY,
    f64::NEG_INFINITY,
    1e300,
    -1e300,
    1e-300,
    -0.0,
    1e9,
];

/// Reads choices out of bytes, and zeros after their end.
struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        self.0.next().copied().unwrap_or(0)
    }

    /// About `usual`, or now and then something wild.
    fn number(&mut self, usual: f64, spread: f64) -> f64 {
        match self.byte() {
            wild @ 248.. => WILD[usize::from(wild - 248)],
            other => usual + spread * (f64::from(other) / 124.0 - 1.0),
        }
    }

    /// About `usual_ns`, or now and then far off.
    fn time_ns(&mut self, usual_ns: i64) -> i64 {
        match self.byte() {
            255 => i64::MAX,
            254 => i64::MIN,
            253 => 0,
            252 => usual_ns / 1000,
            251 => usual_ns.saturating_add(37_000_000_000),
            250 => usual_ns.saturating_sub(15_000_000_000),
            other => usual_ns.saturating_add((i64::from(other) - 100) * 2_000_000),
        }
    }
}

/// Any sequence of events: no panic, no number that is none, no `ok` without evidence of two kinds.
pub fn core_events(bytes: &[u8]) {
    let mut core = Core::new(FusionConfig::default(), None, None, None);
    let mut choices = Choices(bytes.iter());
    let mut now_ns = 5_000_000_000_i64;
    while choices.0.len() > 0 {
        now_ns = match choices.byte() {
            255 => now_ns.saturating_add(90_000_000_000),
            254 => now_ns.saturating_sub(5_000_000_000),
            step => now_ns.saturating_add(i64::from(step) * 2_000_000),
        };
        let true_ns = START_NS.saturating_add(now_ns);
        let east_deg = now_ns as f64 * 1e-9 * 1.5e-4;
        let source = ["one", "two"][usize::from(choices.byte() % 8 == 0)];
        let event = match choices.byte() % 8 {
            0 => None,
            1..=3 => Some(fix(&mut choices, true_ns, east_deg)),
            7 => Some(Event::Frame(CameraFrame {
                time_ns: choices.time_ns(true_ns),
                image: bytes[..bytes.len().min(64)].into(),
                camera: "front".into(),
            })),
            _ => Some(odometry(&mut choices, true_ns)),
        };
        let estimates = match event {
            Some(event) => core.handle(Arrival::new(source, now_ns, event)),
            None => core.tick(now_ns),
        };
        let counters = core.counters();
        for estimate in &estimates {
            check_estimate(estimate);
            let kinds = usize::from(counters.fixes > 0)
                + usize::from(counters.odometry > 0)
                + usize::from(counters.frames > 0);
            assert!(estimate.state != State::Ok || kinds >= 2, "{estimate:?}");
        }
    }
}

fn fix(choices: &mut Choices<'_>, true_ns: i64, east_deg: f64) -> Event {
    let [ee, en, ne, nn] = [9.0, 0.0, 0.0, 9.0].map(|usual| choices.number(usual, 4.0));
    let latitude_deg = choices.number(52.0, 1e-4);
    let longitude_deg = choices.number(4.0 + east_deg, 1e-4);
    // Not through `new`, which would refuse what a source must not deliver.
    let position = Geodetic {
        latitude_deg,
        longitude_deg,
        height_m: choices.number(30.0, 10.0),
    };
    Event::Gnss(GnssFix {
        time_ns: choices.time_ns(true_ns),
        position,
        covariance_m2: [[ee, en], [ne, nn]],
        height_sigma_m: choices.number(5.0, 2.0),
        covariance_rule: CovarianceRule::Default,
        speed_mps: (choices.byte().is_multiple_of(2)).then(|| choices.number(10.0, 5.0)),
        track_deg: (choices.byte().is_multiple_of(2)).then(|| choices.number(90.0, 180.0)),
        dimension: FixDimension::Three,
        reception: Reception::default(),
    })
}

fn odometry(choices: &mut Choices<'_>, true_ns: i64) -> Event {
    Event::Odometry(OdometrySample {
        time_ns: choices.time_ns(true_ns),
        forward_speed_mps: (!choices.byte().is_multiple_of(8)).then(|| choices.number(10.0, 5.0)),
        yaw_rate_rps: (!choices.byte().is_multiple_of(8)).then(|| choices.number(0.0, 0.5)),
        yaw: (choices.byte().is_multiple_of(4)).then(|| YawMeasurement {
            yaw: Yaw::new(choices.number(0.0, 3.0)),
            sigma_rad: choices.number(0.1, 0.1),
        }),
        speed_sigma_mps: choices.number(0.1, 0.1),
        yaw_rate_sigma_rps: choices.number(0.01, 0.01),
    })
}

fn check_estimate(estimate: &Estimate) {
    let [[ee, en], [ne, nn]] = estimate.covariance_m2;
    let numbers = [
        estimate.position.latitude_deg,
        estimate.position.longitude_deg,
        ee,
        en,
        ne,
        nn,
        estimate.yaw.radians(),
        estimate.yaw_sigma_rad,
        estimate.speed_mps,
        estimate.protection_radius_m,
    ];
    if estimate.state != State::Lost {
        assert!(
            numbers.iter().all(|number| number.is_finite()),
            "{estimate:?}"
        );
        assert!(estimate.position.latitude_deg.abs() <= 90.0, "{estimate:?}");
        assert!(ee > 0.0 && nn > 0.0 && ee * nn >= en * ne, "{estimate:?}");
        assert!(estimate.protection_radius_m > 0.0, "{estimate:?}");
    }
}
