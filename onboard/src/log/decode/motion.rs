//! A twist or an angular velocity of others as an odometry sample of ours.
//!
//! ROS (REP 103) and Foxglove measure in a frame of the vehicle with x forward, y left, z up: the speed is
//! `linear.x`, the yaw rate `angular.z`, counter-clockwise. Frames whose names say otherwise are turned
//! (`..._frd`, `base_link_ned`: z down) or refused (a frame fixed to the earth: `linear.x` is then no speed
//! forward).

use crate::event::OdometrySample;

/// What is assumed of odometry that states no errors.
pub const DEFAULT_SPEED_SIGMA_MPS: f64 = 0.2;
pub const DEFAULT_YAW_RATE_SIGMA_RPS: f64 = 0.01;
/// A stated error is not believed to be smaller.
const FLOOR_SPEED_SIGMA_MPS: f64 = 0.01;
const FLOOR_YAW_RATE_SIGMA_RPS: f64 = 0.0005;
/// A stated error this large says that the quantity is not measured.
const UNKNOWN_SPEED_SIGMA_MPS: f64 = 30.0;
const UNKNOWN_YAW_RATE_SIGMA_RPS: f64 = 3.0;
/// No vehicle's.
const LARGEST_SPEED_MPS: f64 = 1e3;
const LARGEST_YAW_RATE_RPS: f64 = 1e2;

/// Parts of the names of frames that are fixed to the earth, or those of a receiver's velocity.
const EARTH_FIXED: [&str; 10] = [
    "map", "odom", "world", "earth", "enu", "utm", "gps", "gnss", "navsat", "ecef",
];

/// A value and its variance; a variance that cannot be one is not known.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    pub value: f64,
    pub variance: f64,
}

/// A sample of what a twist in the frame of this name says; quantities that are not measured are left out.
///
/// # Errors
/// The frame is none of the vehicle's, or the values are no vehicle's.
pub fn sample_of_twist(
    time_ns: i64,
    frame: &str,
    speed: Measured,
    yaw_rate: Measured,
) -> Result<OdometrySample, String> {
    let up = upwards(frame)?;
    let words = words(frame);
    let is_vehicle = has(&words, &["base", "link", "body", "vehicle"]);
    if !is_vehicle && has(&words, &[&EARTH_FIXED[..], &["ned"]].concat()) {
        return Err(format!(
            "its twist is in the frame {frame:?}, which is not the vehicle's, so its x is no speed \
             forward; name a topic in base_link"
        ));
    }
    sample(time_ns, Some(speed), Some(yaw_rate), up)
}

/// A sample of an angular velocity in the frame of an IMU that is mounted upright.
///
/// # Errors
/// As [`sample_of_twist`].
pub fn sample_of_imu(
    time_ns: i64,
    frame: &str,
    yaw_rate: Measured,
) -> Result<OdometrySample, String> {
    sample(time_ns, None, Some(yaw_rate), upwards(frame)?)
}

/// 1 for frames whose z points up, -1 for those in which it points down.
fn upwards(frame: &str) -> Result<f64, String> {
    let words = words(frame);
    if has(&words, &["optical"]) {
        return Err(format!(
            "it is in the frame {frame:?} of a camera, whose z points forward"
        ));
    }
    let down = has(&words, &["frd", "ned"]);
    Ok(if down { -1.0 } else { 1.0 })
}

fn words(frame: &str) -> Vec<String> {
    let words = frame.split(|letter: char| !letter.is_ascii_alphanumeric());
    words.map(str::to_ascii_lowercase).collect()
}

fn has(words: &[String], wanted: &[&str]) -> bool {
    words.iter().any(|word| wanted.contains(&word.as_str()))
}

fn sample(
    time_ns: i64,
    speed: Option<Measured>,
    yaw_rate: Option<Measured>,
    up: f64,
) -> Result<OdometrySample, String> {
    let speed = speed.and_then(|speed| {
        let stated = sigma(
            speed.variance,
            DEFAULT_SPEED_SIGMA_MPS,
            FLOOR_SPEED_SIGMA_MPS,
        );
        (speed.value.is_finite() && stated < UNKNOWN_SPEED_SIGMA_MPS)
            .then_some((speed.value, stated))
    });
    let yaw_rate = yaw_rate.and_then(|rate| {
        let stated = sigma(
            rate.variance,
            DEFAULT_YAW_RATE_SIGMA_RPS,
            FLOOR_YAW_RATE_SIGMA_RPS,
        );
        (rate.value.is_finite() && stated < UNKNOWN_YAW_RATE_SIGMA_RPS)
            .then_some((up * rate.value, stated))
    });
    let (speed_mps, rate_rps) = (
        speed.map_or(0.0, |(value, _)| value),
        yaw_rate.map_or(0.0, |(value, _)| value),
    );
    if speed_mps.abs() > LARGEST_SPEED_MPS || rate_rps.abs() > LARGEST_YAW_RATE_RPS {
        return Err(format!(
            "a speed of {speed_mps} m/s or a yaw rate of {rate_rps} rad/s is no vehicle's; check the units"
        ));
    }
    Ok(OdometrySample {
        time_ns,
        forward_speed_mps: speed.map(|(value, _)| value),
        yaw_rate_rps: yaw_rate.map(|(value, _)| value),
        yaw: None,
        speed_sigma_mps: speed.map_or(DEFAULT_SPEED_SIGMA_MPS, |(_, sigma)| sigma),
        yaw_rate_sigma_rps: yaw_rate.map_or(DEFAULT_YAW_RATE_SIGMA_RPS, |(_, sigma)| sigma),
    })
}

/// The standard deviation of a stated variance: 0, negative and NaN are not known.
fn sigma(variance: f64, default: f64, floor: f64) -> f64 {
    if variance > 0.0 {
        variance.sqrt().max(floor)
    } else {
        default
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(value: f64, variance: f64) -> Measured {
        Measured { value, variance }
    }

    fn twist(frame: &str) -> Result<OdometrySample, String> {
        sample_of_twist(1, frame, measured(8.0, 0.04), measured(0.25, 0.0001))
    }

    #[test]
    fn a_twist_in_the_vehicles_frame_is_speed_and_yaw_rate() {
        for frame in [
            "base_link",
            "/robot1/base_footprint",
            "",
            "wheel",
            "base_link_gps",
        ] {
            let sample = twist(frame).unwrap();
            assert_eq!(
                (sample.forward_speed_mps, sample.yaw_rate_rps),
                (Some(8.0), Some(0.25)),
                "{frame}"
            );
            assert_eq!(
                (sample.speed_sigma_mps, sample.yaw_rate_sigma_rps),
                (0.2, 0.01)
            );
        }
        for frame in ["base_link_frd", "base_link_ned"] {
            assert_eq!(twist(frame).unwrap().yaw_rate_rps, Some(-0.25), "{frame}");
        }
    }

    #[test]
    fn a_twist_in_a_frame_of_the_earth_is_refused_with_its_name() {
        for frame in [
            "map",
            "odom",
            "/robot/odom",
            "gps",
            "local_enu",
            "ned",
            "camera_optical",
        ] {
            let message = twist(frame).unwrap_err();
            assert!(message.contains(frame), "{message}");
        }
    }

    #[test]
    fn an_error_that_is_not_known_is_the_default_and_one_beyond_measure_says_unmeasured() {
        for variance in [0.0, -1.0, f64::NAN] {
            let sample =
                sample_of_twist(1, "", measured(8.0, variance), measured(0.1, variance)).unwrap();
            assert_eq!(
                (sample.speed_sigma_mps, sample.yaw_rate_sigma_rps),
                (DEFAULT_SPEED_SIGMA_MPS, DEFAULT_YAW_RATE_SIGMA_RPS)
            );
        }
        let sample = sample_of_twist(1, "", measured(8.0, 1e-12), measured(0.0, 1e6)).unwrap();
        assert_eq!(sample.speed_sigma_mps, FLOOR_SPEED_SIGMA_MPS);
        assert_eq!(sample.yaw_rate_rps, None);
        let nothing = sample_of_twist(1, "", measured(f64::NAN, 1.0), measured(f64::NAN, 1.0));
        assert_eq!(nothing.unwrap().forward_speed_mps, None);
        assert!(sample_of_twist(1, "", measured(5e3, 1.0), measured(0.0, 1.0)).is_err());
    }

    #[test]
    fn an_imu_gives_a_yaw_rate_alone_whatever_its_frame_is_called() {
        for (frame, expected) in [("gps", 0.5), ("imu_link", 0.5), ("imu_frd", -0.5)] {
            let sample = sample_of_imu(1, frame, measured(0.5, 0.0)).unwrap();
            assert_eq!(
                (sample.forward_speed_mps, sample.yaw_rate_rps),
                (None, Some(expected))
            );
        }
    }
}
