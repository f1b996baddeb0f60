//! Measurements for the tests of the checks.

use crossfix_calibration::{Enu, Geodetic, LocalFrame, Yaw};

use crate::event::{
    CovarianceRule, FixDimension, GnssFix, OdometrySample, Reception, YawMeasurement,
};

/// A fix at a second, this far east and north of Delft, good to 3 m.
pub(crate) fn fix(second: i64, place_m: [f64; 2]) -> GnssFix {
    let frame = LocalFrame::new(Geodetic::new(52.0116, 4.3571, 0.0).unwrap());
    let place = frame.geodetic_from_enu(Enu::new(place_m[0], place_m[1], 0.0));
    GnssFix {
        time_ns: second * 1_000_000_000,
        position: Geodetic::new(place.latitude_deg, place.longitude_deg, 3.0).unwrap(),
        covariance_m2: [[9.0, 0.0], [0.0, 9.0]],
        height_sigma_m: 5.0,
        covariance_rule: CovarianceRule::Recorded,
        speed_mps: None,
        track_deg: None,
        dimension: FixDimension::Three,
        reception: Reception::default(),
    }
}

/// A sample at a tenth of a second, with a heading.
pub(crate) fn sample(
    tenth: i64,
    speed_mps: f64,
    yaw_rate_rps: f64,
    yaw_rad: f64,
) -> OdometrySample {
    OdometrySample {
        time_ns: tenth * 100_000_000,
        forward_speed_mps: Some(speed_mps),
        yaw_rate_rps: Some(yaw_rate_rps),
        yaw: Some(YawMeasurement {
            yaw: Yaw::new(yaw_rad),
            sigma_rad: 0.03,
        }),
        speed_sigma_mps: 0.05,
        yaw_rate_sigma_rps: 0.005,
    }
}
