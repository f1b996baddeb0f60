//! A recorded drive through the core: the same bytes each time, and the damage is told.

use std::path::Path;
use std::process::Command;

use crossfix_calibration::Geodetic;
use crossfix_onboard::config::Config;
use crossfix_onboard::event::{
    CovarianceRule, Estimate, FixDimension, GnssFix, OdometrySample, Reception, State,
};
use crossfix_onboard::log::LogWriter;
use crossfix_onboard::pipeline::replay;

const START_NS: i64 = 1_700_000_000_000_000_000;

/// Thirty seconds to the north at 10 m/s with 10 Hz odometry; no fix in the seconds 10 to 20.
fn record(path: &Path) {
    let mut log = LogWriter::create(path).unwrap();
    for tenth in 0..300 {
        let time_ns = START_NS + tenth * 100_000_000;
        if tenth % 10 == 0 && !(100..200).contains(&tenth) {
            log.write_gnss(&GnssFix {
                time_ns,
                position: Geodetic::new(52.0 + tenth as f64 / 111_250.0, 4.0, 30.0).unwrap(),
                covariance_m2: [[4.0, 0.0], [0.0, 4.0]],
                height_sigma_m: 5.0,
                covariance_rule: CovarianceRule::Gst,
                speed_mps: Some(10.0),
                track_deg: Some(0.0),
                dimension: FixDimension::Three,
                reception: Reception::default(),
            })
            .unwrap();
        }
        log.write_odometry(&OdometrySample {
            time_ns,
            forward_speed_mps: Some(10.0),
            yaw_rate_rps: Some(0.0),
            yaw: None,
            speed_sigma_mps: 0.1,
            yaw_rate_sigma_rps: 0.01,
        })
        .unwrap();
    }
    log.finish().unwrap();
}

#[test]
fn the_same_drive_gives_the_same_estimates_and_coasts_through_the_gap() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("drive.mcap");
    record(&path);
    let run = || {
        let mut estimates: Vec<Estimate> = Vec::new();
        let summary = replay(&path, &Config::default(), |estimate| {
            estimates.push(estimate.clone());
        })
        .unwrap();
        assert_eq!((summary.events, summary.bad_messages), (320, 0));
        assert!(summary.damage.is_none());
        estimates
    };
    let (once, again) = (run(), run());
    assert_eq!(format!("{once:?}"), format!("{again:?}"));
    let states = |from_s: i64, to_s: i64| {
        let window = (START_NS + from_s * 1_000_000_000)..(START_NS + to_s * 1_000_000_000);
        once.iter()
            .filter(|estimate| window.contains(&estimate.time_ns))
            .map(|estimate| estimate.state)
            .collect::<Vec<_>>()
    };
    assert!(states(2, 9).iter().all(|state| *state == State::Degraded));
    assert!(
        states(16, 19).iter().all(|state| *state == State::Coasting),
        "{:?}",
        states(16, 19)
    );
    assert!(states(25, 30).iter().all(|state| *state == State::Degraded));
    let last = once.last().unwrap();
    assert!(
        (last.position.latitude_deg - (52.0 + 299.0 / 111_250.0)).abs() * 111_250.0 < 3.0,
        "{last:?}"
    );
}

#[test]
fn a_cut_log_is_replayed_as_far_as_it_goes_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("drive.mcap");
    record(&path);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 40]).unwrap();
    let out = folder.path().join("out.mcap");
    let program = || {
        let mut program = Command::new(env!("CARGO_BIN_EXE_crossfixd"));
        program.arg("replay").arg(&path);
        program
    };
    let output = program()
        .args(["--json", "--out"])
        .arg(&out)
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("damaged"));
    let lines = String::from_utf8(output.stdout).unwrap();
    assert!(lines.lines().count() > 100);
    assert!(
        lines
            .lines()
            .all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok())
    );
    assert!(std::fs::metadata(&out).unwrap().len() > 1000);
    // A second run would overwrite the first one's output, and refuses.
    assert!(!program().arg("--out").arg(&out).status().unwrap().success());
}
