//! Scripted jumps of the position: the reset counter grows by one at each, and at nothing else.

use crossfix_calibration::{Enu, Geodetic, LocalFrame};
use crossfix_onboard::config::Config;
use crossfix_onboard::event::{
    CovarianceRule, Estimate, EstimateKind, FixDimension, GnssFix, OdometrySample, Reception, State,
};
use crossfix_onboard::log::LogWriter;
use crossfix_onboard::pipeline::replay;

const START_NS: i64 = 1_700_000_000_000_000_000;
const TENTH_NS: i64 = 100_000_000;
const SPEED_MPS: f64 = 10.0;
const JUMPS: usize = 20;
/// Tenths of a second between two jumps.
const BETWEEN: i64 = 600;
/// Consecutive estimates farther apart than this, beyond the way between them, are a discontinuity.
const DISCONTINUITY_M: f64 = 10.0;

/// Where the receiver is put at a jump, metres east and north: in every direction, near and far.
fn offset_m(jumps: usize) -> [f64; 2] {
    (1..=jumps).fold([0.0, 0.0], |[east, north], jump| {
        let (sin, cos) = (jump as f64 * 2.4).sin_cos();
        let size_m = 60.0 + 25.0 * jump as f64;
        [east + size_m * cos, north + size_m * sin]
    })
}

fn estimates() -> Vec<Estimate> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jumps.mcap");
    let mut log = LogWriter::create(&path).unwrap();
    let frame = LocalFrame::new(Geodetic::new(52.0116, 4.3571, 40.0).unwrap());
    for tenth in 0..BETWEEN * (JUMPS as i64 + 1) {
        let time_ns = START_NS + tenth * TENTH_NS;
        if tenth % 10 == 0 {
            let [east, north] = offset_m((tenth / BETWEEN) as usize);
            let along_m = SPEED_MPS * tenth as f64 / 10.0;
            log.write_gnss(&GnssFix {
                time_ns,
                position: frame.geodetic_from_enu(Enu::new(east, north + along_m, 0.0)),
                covariance_m2: [[1.0, 0.0], [0.0, 1.0]],
                height_sigma_m: 3.0,
                covariance_rule: CovarianceRule::Gst,
                speed_mps: Some(SPEED_MPS),
                track_deg: Some(0.0),
                dimension: FixDimension::Three,
                reception: Reception::default(),
            })
            .unwrap();
        }
        log.write_odometry(&OdometrySample {
            time_ns,
            forward_speed_mps: Some(SPEED_MPS),
            yaw_rate_rps: Some(0.0),
            yaw: None,
            speed_sigma_mps: 0.1,
            yaw_rate_sigma_rps: 0.01,
        })
        .unwrap();
    }
    log.finish().unwrap();
    let mut estimates = Vec::new();
    replay(&path, &Config::default(), |estimate| {
        if estimate.kind == EstimateKind::Fused {
            estimates.push(estimate.clone());
        }
    })
    .unwrap();
    estimates
}

#[test]
fn twenty_jumps_are_twenty_resets_and_every_discontinuity_has_one() {
    let estimates = estimates();
    let mut resets = Vec::new();
    let mut silent = Vec::new();
    for pair in estimates.windows(2) {
        let [before, after] = pair else { continue };
        let grown = after.reset_count.wrapping_sub(before.reset_count);
        assert!(grown <= 1, "{before:?} {after:?}");
        let seconds = (after.time_ns - before.time_ns) as f64 * 1e-9;
        let [east, north] = LocalFrame::new(before.position)
            .enu_from_geodetic(after.position)
            .horizontal();
        let step_m = east.hypot(north - SPEED_MPS * seconds);
        let known = before.state != State::Lost && after.state != State::Lost;
        if grown == 1 {
            resets.push((after.time_ns - START_NS) / TENTH_NS);
        } else if known && step_m > DISCONTINUITY_M {
            silent.push((after.time_ns - START_NS, step_m));
        }
    }
    assert!(silent.is_empty(), "jumps without a reset: {silent:?}");
    let by_jump: Vec<usize> = (1..=JUMPS as i64)
        .map(|jump| {
            let window = jump * BETWEEN..(jump + 1) * BETWEEN;
            resets.iter().filter(|tenth| window.contains(tenth)).count()
        })
        .collect();
    assert_eq!(by_jump, [1; JUMPS], "resets at {resets:?}");
    assert_eq!(resets.len(), JUMPS, "resets at {resets:?}");
}
