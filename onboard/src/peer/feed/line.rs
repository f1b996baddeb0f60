//! One line of the feed to an odometry sample: pure, so that lines test it.

use serde::Deserialize;

use super::{FeedConfig, Stamps};
use crate::event::{OdometrySample, YawMeasurement};

/// No vehicle is faster, and none turns faster; larger values are in other units.
const LARGEST_SPEED_MPS: f64 = 150.0;
const LARGEST_YAW_RATE_RPS: f64 = 20.0;
/// 1-sigma error of a heading that states none, degrees.
const HEADING_SIGMA_DEG: f64 = 5.0;

/// A line. Whatever is not measured is left out.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Line {
    time_ns: Option<i64>,
    clock: Option<Stamps>,
    speed_mps: Option<f64>,
    speed_sigma_mps: Option<f64>,
    yaw_rate_radps: Option<f64>,
    yaw_rate_sigma_radps: Option<f64>,
    heading_deg: Option<f64>,
    heading_sigma_deg: Option<f64>,
    wheel_speeds_mps: Option<Vec<f64>>,
    gyro_radps: Option<[f64; 3]>,
}

/// The sample of a line that arrived at `now_ns` on this machine's clock.
///
/// # Errors
/// What is wrong with it, in words.
pub fn sample_of(line: &[u8], config: &FeedConfig, now_ns: i64) -> Result<OdometrySample, String> {
    let line: Line = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    if let Some(clock) = line.clock
        && clock != config.stamps
    {
        return Err(format!(
            "says that its clock is {clock:?}, and the source has stamps = {:?}",
            config.stamps
        ));
    }
    let time_ns = match (config.stamps, line.time_ns) {
        (Stamps::Arrival, _) => now_ns.saturating_sub((config.delay_s * 1e9) as i64),
        (_, Some(time_ns)) => time_ns,
        (_, None) => return Err("has no time_ns; send it, or set stamps = \"arrival\"".to_owned()),
    };
    let wheels = line
        .wheel_speeds_mps
        .as_deref()
        .map(rear_wheels)
        .transpose()?;
    let speed_mps = line
        .speed_mps
        .or(wheels.map(|[left, right]| f64::midpoint(left, right)));
    let of_wheels = wheels
        .zip(config.track_width_m)
        .map(|([left, right], width_m)| (right - left) / width_m);
    let of_gyro = line.gyro_radps.map(|[_, _, z]| z);
    let yaw_rate_rps = line.yaw_rate_radps.or(of_gyro).or(of_wheels);
    let yaw = line.heading_deg.map(|heading_deg| {
        let sigma_deg = line.heading_sigma_deg.unwrap_or(HEADING_SIGMA_DEG);
        YawMeasurement::from_heading_deg(heading_deg, sigma_deg)
    });
    if speed_mps.is_none() && yaw_rate_rps.is_none() && yaw.is_none() {
        return Err(
            "has none of speed_mps, wheel_speeds_mps, yaw_rate_radps, gyro_radps and heading_deg"
                .to_owned(),
        );
    }
    let sigmas = [
        line.speed_sigma_mps,
        line.yaw_rate_sigma_radps,
        line.heading_sigma_deg,
    ];
    if sigmas.into_iter().flatten().any(|sigma| sigma <= 0.0) {
        return Err("a sigma is not positive; leave it out if it is not known".to_owned());
    }
    within("the speed", "m/s", speed_mps, LARGEST_SPEED_MPS)?;
    within("the yaw rate", "rad/s", yaw_rate_rps, LARGEST_YAW_RATE_RPS)?;
    Ok(OdometrySample {
        time_ns,
        forward_speed_mps: speed_mps,
        yaw_rate_rps,
        yaw,
        speed_sigma_mps: line.speed_sigma_mps.unwrap_or(config.speed_sigma_mps),
        yaw_rate_sigma_rps: line
            .yaw_rate_sigma_radps
            .unwrap_or(config.yaw_rate_sigma_radps),
    })
}

/// The left and the right rear wheel, which do not steer.
fn rear_wheels(wheels: &[f64]) -> Result<[f64; 2], String> {
    match *wheels {
        [left, right] | [_, _, left, right] => Ok([left, right]),
        _ => Err(format!(
            "wheel_speeds_mps has {} values; send [left, right] or [front left, front right, rear left, rear \
             right]",
            wheels.len()
        )),
    }
}

fn within(what: &str, unit: &str, value: Option<f64>, limit: f64) -> Result<(), String> {
    match value {
        Some(value) if !(value.abs() <= limit) => Err(format!(
            "{what} is {value} {unit}, which is no vehicle's; check the unit"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str, config: &FeedConfig) -> Result<OdometrySample, String> {
        sample_of(line.as_bytes(), config, 5_000_000_000)
    }

    #[test]
    fn every_field_is_read() {
        let sample = read(
            "{\"time_ns\": 7, \"clock\": \"utc\", \"speed_mps\": -2.5, \"speed_sigma_mps\": 0.1, \"yaw_rate_radps\": 0.25, \
             \"yaw_rate_sigma_radps\": 0.002, \"heading_deg\": 0.0, \"heading_sigma_deg\": 1.0}",
            &FeedConfig::default(),
        )
        .unwrap();
        assert_eq!(sample.time_ns, 7);
        assert_eq!(
            (sample.forward_speed_mps, sample.yaw_rate_rps),
            (Some(-2.5), Some(0.25))
        );
        assert_eq!(
            (sample.speed_sigma_mps, sample.yaw_rate_sigma_rps),
            (0.1, 0.002)
        );
        let yaw = sample.yaw.unwrap().yaw.radians();
        assert!(
            (yaw - std::f64::consts::FRAC_PI_2).abs() < 1e-12,
            "north: {yaw}"
        );
    }

    #[test]
    fn wheels_and_a_gyro_stand_in_for_what_is_not_sent() {
        let config = FeedConfig {
            track_width_m: Some(1.5),
            ..FeedConfig::default()
        };
        let both = read(
            "{\"time_ns\":7,\"wheel_speeds_mps\":[9,9,4.0,4.6]}",
            &config,
        )
        .unwrap();
        assert!((both.forward_speed_mps.unwrap() - 4.3).abs() < 1e-12);
        assert!(
            (both.yaw_rate_rps.unwrap() - 0.4).abs() < 1e-12,
            "to the left"
        );
        let gyro = "{\"time_ns\":7,\"wheel_speeds_mps\":[4.0,4.6],\"gyro_radps\":[9,9,0.1]}";
        assert_eq!(read(gyro, &config).unwrap().yaw_rate_rps, Some(0.1));
        let wheels = read(
            "{\"time_ns\":7,\"wheel_speeds_mps\":[4,4]}",
            &FeedConfig::default(),
        );
        assert_eq!(wheels.unwrap().yaw_rate_rps, None);
    }

    #[test]
    fn without_a_stamp_the_arrival_counts() {
        let config = FeedConfig {
            stamps: Stamps::Arrival,
            delay_s: 0.5,
            ..FeedConfig::default()
        };
        assert_eq!(
            read("{\"speed_mps\":1}", &config).unwrap().time_ns,
            4_500_000_000
        );
    }

    #[test]
    fn a_line_that_cannot_be_right_is_refused_in_words() {
        for (line, words) in [
            ("{\"speed_mps\":1}", "time_ns"),
            ("{\"time_ns\":7,\"speed\":1}", "speed_mps"),
            ("{\"time_ns\":7}", "none of"),
            ("{\"time_ns\":7,\"speed_mps\":500}", "unit"),
            ("{\"time_ns\":7,\"yaw_rate_radps\":-45}", "unit"),
            (
                "{\"time_ns\":7,\"speed_mps\":1,\"speed_sigma_mps\":0}",
                "sigma",
            ),
            ("{\"time_ns\":7,\"wheel_speeds_mps\":[1]}", "1 values"),
            (
                "{\"time_ns\":7,\"clock\":\"boot\",\"speed_mps\":1}",
                "clock",
            ),
            ("{\"time_ns\":7.5,\"speed_mps\":1}", "i64"),
            ("speed 7", "expected"),
        ] {
            let message = read(line, &FeedConfig::default()).unwrap_err();
            assert!(message.contains(words), "{line}: {message}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = sample_of(&bytes, &FeedConfig::default(), 1);
        }
    }
}
