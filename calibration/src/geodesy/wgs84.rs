//! The WGS 84 ellipsoid and places on it.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Equatorial radius in metres (defining constant, NGA.STND.0036 table 3.1).
pub const EQUATORIAL_RADIUS_M: f64 = 6_378_137.0;
/// Inverse flattening (defining constant, NGA.STND.0036 table 3.1).
pub const INVERSE_FLATTENING: f64 = 298.257_223_563;
/// Flattening `f`.
pub const FLATTENING: f64 = 1.0 / INVERSE_FLATTENING;
/// Polar radius `b = a (1 − f)` in metres.
pub const POLAR_RADIUS_M: f64 = EQUATORIAL_RADIUS_M * (1.0 - FLATTENING);
/// First eccentricity squared `e² = f (2 − f)`.
pub const ECCENTRICITY_SQUARED: f64 = FLATTENING * (2.0 - FLATTENING);

/// A place: WGS 84 latitude and longitude in degrees, height in metres above the ellipsoid.
///
/// The fields are public because this is how data enters and leaves; [`Geodetic::new`] is the
/// checked constructor for numbers from outside.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Geodetic {
    /// Degrees north of the equator, −90 to 90.
    pub latitude_deg: f64,
    /// Degrees east of Greenwich, −180 to 180.
    pub longitude_deg: f64,
    /// Metres above the ellipsoid (not above sea level).
    pub height_m: f64,
}

impl Geodetic {
    /// A checked place.
    ///
    /// # Errors
    /// [`Error::Geodetic`] when a number is not finite or outside its range.
    pub fn new(latitude_deg: f64, longitude_deg: f64, height_m: f64) -> Result<Self> {
        let place = Self {
            latitude_deg,
            longitude_deg,
            height_m,
        };
        place.check()?;
        Ok(place)
    }

    /// Checks the numbers, for a value that was deserialised or built from its fields.
    ///
    /// # Errors
    /// [`Error::Geodetic`] when a number is not finite or outside its range.
    pub fn check(&self) -> Result<()> {
        let &Self {
            latitude_deg,
            longitude_deg,
            height_m,
        } = self;
        let good = (-90.0..=90.0).contains(&latitude_deg)
            && (-180.0..=180.0).contains(&longitude_deg)
            && height_m.is_finite();
        if good {
            Ok(())
        } else {
            Err(Error::Geodetic {
                latitude_deg,
                longitude_deg,
                height_m,
            })
        }
    }
}

/// Radius of curvature in the prime vertical `N = a / √(1 − e² sin²φ)`: metres per radian of
/// longitude are `N cos φ`.
pub fn prime_vertical_radius_m(latitude_rad: f64) -> f64 {
    EQUATORIAL_RADIUS_M / (1.0 - ECCENTRICITY_SQUARED * latitude_rad.sin().powi(2)).sqrt()
}

/// Radius of curvature along the meridian `M = a (1 − e²) / (1 − e² sin²φ)^{3/2}`: metres per radian
/// of latitude.
pub fn meridian_radius_m(latitude_rad: f64) -> f64 {
    let s = 1.0 - ECCENTRICITY_SQUARED * latitude_rad.sin().powi(2);
    EQUATORIAL_RADIUS_M * (1.0 - ECCENTRICITY_SQUARED) / (s * s.sqrt())
}

/// The same longitude in −180 (included) to 180 (excluded).
pub fn wrap_longitude_deg(longitude_deg: f64) -> f64 {
    (longitude_deg + 180.0).rem_euclid(360.0) - 180.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_constants_match_the_standard() {
        // NGA.STND.0036 table 3.5: b = 6356752.3142 m, e² = 6.694379990141e-3.
        assert!((POLAR_RADIUS_M - 6_356_752.314_2).abs() < 1e-4);
        assert!((ECCENTRICITY_SQUARED - 6.694_379_990_141e-3).abs() < 1e-15);
    }

    #[test]
    fn radii_meet_at_the_pole_and_differ_at_the_equator() {
        let pole = std::f64::consts::FRAC_PI_2;
        assert!((prime_vertical_radius_m(pole) - meridian_radius_m(pole)).abs() < 1e-6);
        assert!((prime_vertical_radius_m(0.0) - EQUATORIAL_RADIUS_M).abs() < 1e-9);
        let b2_over_a = POLAR_RADIUS_M * POLAR_RADIUS_M / EQUATORIAL_RADIUS_M;
        assert!((meridian_radius_m(0.0) - b2_over_a).abs() < 1e-6);
    }

    #[test]
    fn places_off_the_earth_are_refused_with_their_numbers() {
        for (lat, lon, h) in [
            (90.1, 0.0, 0.0),
            (0.0, -180.5, 0.0),
            (f64::NAN, 0.0, 0.0),
            (0.0, 0.0, f64::INFINITY),
        ] {
            let error = Geodetic::new(lat, lon, h).unwrap_err().to_string();
            assert!(
                error.contains(&lat.to_string()) && error.contains("-90..=90"),
                "{error}"
            );
        }
        assert!(Geodetic::new(-90.0, 180.0, -10.0).is_ok());
    }

    #[test]
    fn longitude_wraps_into_one_turn() {
        for (longitude_deg, expected) in [
            (180.0, -180.0),
            (-180.0, -180.0),
            (190.0, -170.0),
            (-541.0, 179.0),
            (4.5, 4.5),
        ] {
            assert!(
                (wrap_longitude_deg(longitude_deg) - expected).abs() < 1e-12,
                "{longitude_deg}"
            );
        }
    }
}
