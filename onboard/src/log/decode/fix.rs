//! A position of others as a fix of ours.

use crossfix_calibration::Geodetic;

use crate::event::{CovarianceRule, FixDimension, GnssFix, HEIGHTS_M, Reception};
use crate::peer::covariance::{diagonal, floored, positive};

/// 1-sigma error of a receiver that states none, metres; as of the live receivers.
const DEFAULT_SIGMA_M: f64 = 10.0;
/// No receiver is believed to be better, metres; as of the live receivers.
const FLOOR_SIGMA_M: f64 = 0.3;
/// Slower than this, a velocity has no direction, m/s.
const SLOWEST_TRACK_MPS: f64 = 0.1;

/// `position_covariance_type` of ROS 2's `NavSatFix` and of Foxglove's `LocationFix`.
const APPROXIMATED: u8 = 1;
const DIAGONAL_KNOWN: u8 = 2;
const KNOWN: u8 = 3;

/// A position as `NavSatFix` and `LocationFix` say it.
pub struct ForeignFix<'a> {
    pub time_ns: i64,
    pub latitude_deg: f64,
    pub longitude_deg: f64,
    /// Above the ellipsoid, metres; NaN when it is not known.
    pub altitude_m: f64,
    /// East, north, up, row-major, m²; may be empty.
    pub covariance: &'a [f64],
    pub covariance_type: u8,
    /// East and north, m/s.
    pub velocity_mps: Option<[f64; 2]>,
}

impl ForeignFix<'_> {
    /// In our terms.
    ///
    /// # Errors
    /// The position is none.
    pub fn into_fix(self) -> Result<GnssFix, String> {
        let has_height = HEIGHTS_M.contains(&self.altitude_m);
        let height_m = if has_height { self.altitude_m } else { 0.0 };
        let position = Geodetic::new(self.latitude_deg, self.longitude_deg, height_m)
            .map_err(|error| error.to_string())?;
        let (covariance_m2, covariance_rule) = self.horizontal();
        let up_m2 = positive(self.covariance.get(8).copied());
        let is_stated = covariance_rule != CovarianceRule::Default;
        let height_sigma_m = up_m2
            .filter(|_| is_stated)
            .map_or(2.0 * DEFAULT_SIGMA_M, f64::sqrt);
        let velocity = self
            .velocity_mps
            .filter(|velocity| velocity.iter().all(|part| part.is_finite()));
        let speed_mps = velocity.map(|[east, north]| east.hypot(north));
        Ok(GnssFix {
            time_ns: self.time_ns,
            position,
            covariance_m2: floored(covariance_m2, FLOOR_SIGMA_M),
            height_sigma_m: height_sigma_m.max(FLOOR_SIGMA_M),
            covariance_rule,
            speed_mps,
            track_deg: velocity
                .filter(|_| speed_mps.is_some_and(|speed| speed > SLOWEST_TRACK_MPS))
                .map(|[east, north]| east.atan2(north).to_degrees().rem_euclid(360.0)),
            dimension: if has_height {
                FixDimension::Three
            } else {
                FixDimension::Two
            },
            reception: Reception::default(),
        })
    }

    /// East and north, m². What is stated as known or approximated and cannot be a variance (0, negative,
    /// NaN: drivers write all of these) counts as unknown.
    fn horizontal(&self) -> ([[f64; 2]; 2], CovarianceRule) {
        let default = (
            diagonal(DEFAULT_SIGMA_M, DEFAULT_SIGMA_M),
            CovarianceRule::Default,
        );
        let &[ee, en, _, ne, nn, ..] = self.covariance else {
            return default;
        };
        let (Some(ee), Some(nn)) = (positive(Some(ee)), positive(Some(nn))) else {
            return default;
        };
        let is_whole = (en - ne).abs() <= 1e-6 * (ee + nn) && ee * nn - en * ne > 0.0;
        match self.covariance_type {
            KNOWN if is_whole => {
                let en = 0.5 * (en + ne);
                ([[ee, en], [en, nn]], CovarianceRule::Recorded)
            }
            KNOWN | DIAGONAL_KNOWN | APPROXIMATED => {
                ([[ee, 0.0], [0.0, nn]], CovarianceRule::Recorded)
            }
            _ => default,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: [f64; 9] = [4.0, 1.0, 0.0, 1.0, 9.0, 0.0, 0.0, 0.0, 25.0];

    fn fix(covariance: &[f64], covariance_type: u8, altitude_m: f64) -> GnssFix {
        let foreign = ForeignFix {
            time_ns: 5,
            latitude_deg: 52.0,
            longitude_deg: 4.0,
            altitude_m,
            covariance,
            covariance_type,
            velocity_mps: None,
        };
        foreign.into_fix().unwrap()
    }

    #[test]
    fn the_covariance_type_says_what_of_the_covariance_counts() {
        let full = fix(&FULL, 3, 40.0);
        assert_eq!(full.covariance_m2, [[4.0, 1.0], [1.0, 9.0]]);
        assert_eq!((full.height_sigma_m, full.position.height_m), (5.0, 40.0));
        for covariance_type in [1, 2] {
            let found = fix(&FULL, covariance_type, 40.0);
            assert_eq!(found.covariance_m2, [[4.0, 0.0], [0.0, 9.0]]);
            assert_eq!(found.covariance_rule, CovarianceRule::Recorded);
        }
        for (covariance, covariance_type) in [
            (&FULL[..], 0),
            (&FULL[..], 77),
            (&[0.0; 9][..], 2),
            (&[f64::NAN; 9][..], 3),
            (&[-1.0; 9][..], 1),
            (&[f64::INFINITY; 9][..], 3),
            (&[][..], 3),
        ] {
            let found = fix(covariance, covariance_type, 40.0);
            assert_eq!(
                found.covariance_rule,
                CovarianceRule::Default,
                "{covariance:?}"
            );
            assert_eq!(found.covariance_m2, [[100.0, 0.0], [0.0, 100.0]]);
            assert_eq!(found.height_sigma_m, 20.0);
        }
    }

    #[test]
    fn a_covariance_that_cannot_be_whole_is_taken_by_its_diagonal_and_none_is_too_good() {
        let impossible = [4.0, 7.0, 0.0, 7.0, 9.0, 0.0, 0.0, 0.0, 25.0];
        assert_eq!(
            fix(&impossible, 3, 1.0).covariance_m2,
            [[4.0, 0.0], [0.0, 9.0]]
        );
        let perfect = [1e-8, 0.0, 0.0, 0.0, 1e-8, 0.0, 0.0, 0.0, 1e-8];
        let found = fix(&perfect, 3, 1.0);
        assert!((found.covariance_m2[0][0].sqrt() - FLOOR_SIGMA_M).abs() < 1e-9);
        assert_eq!(found.height_sigma_m, FLOOR_SIGMA_M);
    }

    #[test]
    fn without_a_height_it_is_a_fix_in_two_dimensions_and_without_a_place_none() {
        assert_eq!(fix(&FULL, 3, f64::NAN).dimension, FixDimension::Two);
        assert_eq!(fix(&FULL, 3, 1.0).dimension, FixDimension::Three);
        for (latitude_deg, longitude_deg) in [(f64::NAN, 4.0), (52.0, f64::NAN), (91.0, 4.0)] {
            let foreign = ForeignFix {
                time_ns: 5,
                latitude_deg,
                longitude_deg,
                altitude_m: 0.0,
                covariance: &FULL,
                covariance_type: 3,
                velocity_mps: None,
            };
            assert!(foreign.into_fix().is_err());
        }
    }

    #[test]
    fn a_velocity_becomes_speed_and_course() {
        let moving = |velocity_mps| {
            let foreign = ForeignFix {
                time_ns: 5,
                latitude_deg: 52.0,
                longitude_deg: 4.0,
                altitude_m: 0.0,
                covariance: &FULL,
                covariance_type: 3,
                velocity_mps: Some(velocity_mps),
            };
            let fix = foreign.into_fix().unwrap();
            (fix.speed_mps, fix.track_deg)
        };
        assert_eq!(moving([-3.0, 0.0]), (Some(3.0), Some(270.0)));
        assert_eq!(moving([0.0, 0.0]), (Some(0.0), None));
        assert_eq!(moving([f64::NAN, 0.0]), (None, None));
    }
}
