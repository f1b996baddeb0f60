//! A real minute of driving (comma2k19) through the daemon's core: u-blox fixes, wheel speed, gyro.

use anyhow::{Context, Result};
use crossfix_calibration::nalgebra::Vector3;
use crossfix_calibration::{Ecef, Geodetic, LocalFrame};
use crossfix_onboard::core::Core;
use crossfix_onboard::event::{
    Arrival, CovarianceRule, EstimateKind, Event, FixDimension, GnssFix, OdometrySample, Reception,
    State,
};
use crossfix_onboard::fusion::FusionConfig;
use crossfix_tests::read_csv;

/// The recorder's first frame, UTC; any fixed time would do.
const START_NS: i64 = 1_533_226_488_397_000_000;
/// What a single-frequency receiver of that time claims under an open sky, metres.
const FIX_SIGMA_M: f64 = 1.5;

fn time_ns(time_s: f64) -> i64 {
    START_NS + (time_s * 1e9).round() as i64
}

/// Position error, m, at every truth instant, of the newest position known then: what a consumer
/// that acts at that instant has.
fn held_error_m(truth: &[(i64, [f64; 2])], known: &[(i64, [f64; 2])]) -> f64 {
    let errors = truth.iter().filter_map(|(time_ns, [east, north])| {
        let newest = known
            .partition_point(|(known_ns, _)| known_ns <= time_ns)
            .checked_sub(1)?;
        let [known_east, known_north] = known[newest].1;
        Some((known_east - east).hypot(known_north - north))
    });
    let errors: Vec<f64> = errors.collect();
    errors.iter().sum::<f64>() / errors.len() as f64
}

#[test]
fn wheel_speed_and_gyro_make_the_real_minute_better_than_the_fixes_alone() -> Result<()> {
    let fixes = read_csv("comma2k19/fixes.csv")?;
    let first = Geodetic::new(fixes[0][1], fixes[0][2], 0.0)?;
    let frame = LocalFrame::new(first);
    let local = |place: Geodetic| {
        let enu = frame.enu_from_geodetic(place);
        [enu.east(), enu.north()]
    };
    let truth: Vec<(i64, [f64; 2])> = read_csv("comma2k19/truth_ecef.csv")?
        .iter()
        .map(|row| {
            let enu = frame.enu_from_ecef(Ecef(Vector3::new(row[1], row[2], row[3])));
            (time_ns(row[0]), [enu.east(), enu.north()])
        })
        .collect();

    let mut events = Vec::new();
    for row in &fixes {
        events.push(Event::Gnss(GnssFix {
            time_ns: time_ns(row[0]),
            position: Geodetic::new(row[1], row[2], row[3])?,
            covariance_m2: [[FIX_SIGMA_M.powi(2), 0.0], [0.0, FIX_SIGMA_M.powi(2)]],
            height_sigma_m: 2.0 * FIX_SIGMA_M,
            covariance_rule: CovarianceRule::Recorded,
            speed_mps: Some(row[4]),
            track_deg: Some(row[5]),
            dimension: FixDimension::Three,
            reception: Reception::default(),
        }));
    }
    let gyro = read_csv("comma2k19/gyro.csv")?;
    for row in read_csv("comma2k19/wheel_speed.csv")? {
        let newest = gyro.partition_point(|sample| sample[0] <= row[0]);
        let Some(rates) = newest.checked_sub(1).map(|index| &gyro[index]) else {
            continue;
        };
        events.push(Event::Odometry(OdometrySample {
            time_ns: time_ns(row[0]),
            forward_speed_mps: Some(row[1]),
            // The gyro's axes are forward, right, down; ours counts from above.
            yaw_rate_rps: Some(-rates[3]),
            yaw: None,
            speed_sigma_mps: 0.1,
            yaw_rate_sigma_rps: 0.01,
        }));
    }
    events.sort_by_key(Event::time_ns);

    let mut core = Core::new(FusionConfig::default(), None, None, None);
    let (mut fused, mut inside) = (Vec::new(), Vec::new());
    for event in events {
        for estimate in core.handle(Arrival::at_once("recorded", event)) {
            if estimate.kind != EstimateKind::Fused || estimate.state == State::Lost {
                continue;
            }
            assert_eq!(
                estimate.state,
                State::Degraded,
                "no imagery here: {}",
                estimate.reason
            );
            let place = local(estimate.position);
            let after = truth.partition_point(|(time_ns, _)| *time_ns < estimate.time_ns);
            if let Some((_, [east, north])) = truth.get(after) {
                let [[ee, en], [_, nn]] = estimate.covariance_m2;
                let (e, n) = (place[0] - east, place[1] - north);
                let squared = (nn * e * e - 2.0 * en * e * n + ee * n * n) / (ee * nn - en * en);
                inside.push(squared <= 5.991);
            }
            fused.push((estimate.time_ns, place));
        }
    }
    let alone: Vec<(i64, [f64; 2])> = fixes
        .iter()
        .map(|row| {
            Ok((
                time_ns(row[0]),
                local(Geodetic::new(row[1], row[2], row[3])?),
            ))
        })
        .collect::<Result<_>>()?;
    let from = fused.first().context("the core gave no position")?.0;
    let truth: Vec<_> = truth
        .into_iter()
        .filter(|(time_ns, _)| *time_ns >= from)
        .collect();
    let (alone_m, fused_m) = (held_error_m(&truth, &alone), held_error_m(&truth, &fused));
    let coverage = inside.iter().filter(|inside| **inside).count() as f64 / inside.len() as f64;
    println!(
        "fixes alone {alone_m:.3} m, fused {fused_m:.3} m; 95 % region holds the truth {:.1} %",
        coverage * 100.0
    );
    assert!(
        fused_m < alone_m,
        "fused {fused_m:.3} m, fixes alone {alone_m:.3} m"
    );
    assert!(
        coverage >= 0.9,
        "the 95 % region held the truth only {:.1} % of the time",
        coverage * 100.0
    );
    Ok(())
}
