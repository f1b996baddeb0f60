//! Earth-centred, Earth-fixed metres, and the closed forms between them and WGS 84.

use nalgebra::Vector3;

use super::Geodetic;
use super::wgs84::{ECCENTRICITY_SQUARED as E2, EQUATORIAL_RADIUS_M as A, prime_vertical_radius_m};

/// Earth-centred, Earth-fixed metres: x through (0°, 0°), y through (0°, 90° E), z through the north pole.
///
/// A different type from [`super::Enu`]: a frame turns one into the other, and they cannot be mixed.
///
/// ```
/// use crossfix_calibration::{Ecef, Enu, Geodetic, LocalFrame};
/// let frame = LocalFrame::new(Geodetic::new(52.0, 4.0, 0.0).unwrap());
/// let sum = frame.enu_from_ecef(Ecef::new(3.9e6, 2.7e5, 5.0e6)) + Enu::new(1.0, 2.0, 3.0);
/// let place = frame.geodetic_from_enu(sum);
/// ```
///
/// ```compile_fail
/// use crossfix_calibration::{Ecef, Enu};
/// let sum = Ecef::new(1.0, 2.0, 3.0) + Enu::new(1.0, 2.0, 3.0);
/// ```
///
/// ```compile_fail
/// use crossfix_calibration::{Ecef, Geodetic, LocalFrame};
/// let frame = LocalFrame::new(Geodetic::new(52.0, 4.0, 0.0).unwrap());
/// let place = frame.geodetic_from_enu(Ecef::new(1.0, 2.0, 3.0));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ecef(pub Vector3<f64>);

impl Ecef {
    /// From metres along x, y and z.
    pub fn new(x: f64, y: f64, z: f64) -> Self {
        Self(Vector3::new(x, y, z))
    }

    /// Straight-line distance in metres.
    pub fn distance_m(self, other: Self) -> f64 {
        (self.0 - other.0).norm()
    }

    /// The point at a place.
    pub fn from_geodetic(place: Geodetic) -> Self {
        let (sin_lat, cos_lat) = place.latitude_deg.to_radians().sin_cos();
        let (sin_lon, cos_lon) = place.longitude_deg.to_radians().sin_cos();
        let n = prime_vertical_radius_m(place.latitude_deg.to_radians());
        let across = (n + place.height_m) * cos_lat;
        Self::new(
            across * cos_lon,
            across * sin_lon,
            (n * (1.0 - E2) + place.height_m) * sin_lat,
        )
    }

    /// The place of a point; exact, without iteration.
    ///
    /// Valid outside the evolute of the ellipse, that is farther than 43 km from the Earth's centre;
    /// nearer than that the numbers mean nothing.
    ///
    /// # Source
    /// Vermeille, "Direct transformation from geocentric coordinates to geodetic coordinates",
    /// Journal of Geodesy 76 (2002).
    pub fn to_geodetic(self) -> Geodetic {
        let (x, y, z) = (self.0.x, self.0.y, self.0.z);
        let across = x.hypot(y);
        let p = (across / A).powi(2);
        let q = (1.0 - E2) * (z / A).powi(2);
        let r = (p + q - E2 * E2) / 6.0;
        let s = E2 * E2 * p * q / (4.0 * r.powi(3));
        let t = (1.0 + s + (s * (2.0 + s)).sqrt()).cbrt();
        let u = r * (1.0 + t + 1.0 / t);
        let v = (u * u + E2 * E2 * q).sqrt();
        let w = E2 * (u + v - q) / (2.0 * v);
        let k = (u + v + w * w).sqrt() - w;
        let d = k * across / (k + E2);
        let dz = d.hypot(z);
        Geodetic {
            latitude_deg: (2.0 * z.atan2(d + dz)).to_degrees(),
            longitude_deg: y.atan2(x).to_degrees(),
            height_m: (k + E2 - 1.0) / k * dz,
        }
    }
}

impl std::ops::Sub for Ecef {
    type Output = Vector3<f64>;
    fn sub(self, other: Self) -> Vector3<f64> {
        self.0 - other.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::wgs84::POLAR_RADIUS_M;
    use super::*;

    fn place(latitude_deg: f64, longitude_deg: f64, height_m: f64) -> Geodetic {
        Geodetic {
            latitude_deg,
            longitude_deg,
            height_m,
        }
    }

    #[test]
    fn axes_point_where_the_docs_say() {
        for (at, expected) in [
            (place(0.0, 0.0, 10.0), [A + 10.0, 0.0, 0.0]),
            (place(0.0, 90.0, 0.0), [0.0, A, 0.0]),
            (place(90.0, 0.0, 5.0), [0.0, 0.0, POLAR_RADIUS_M + 5.0]),
            (place(-90.0, 77.0, 0.0), [0.0, 0.0, -POLAR_RADIUS_M]),
        ] {
            let got = Ecef::from_geodetic(at);
            assert!(
                got.distance_m(Ecef::new(expected[0], expected[1], expected[2])) < 1e-8,
                "{got:?}"
            );
        }
    }

    #[test]
    fn poles_and_equator_come_back_exactly_enough() {
        for lat in [
            -90.0,
            -89.999_999_9,
            -1e-9,
            0.0,
            1e-9,
            45.0,
            89.999_999_9,
            90.0,
        ] {
            for h in [-400.0, 0.0, 9000.0] {
                let back = Ecef::from_geodetic(place(lat, 12.0, h)).to_geodetic();
                assert!(
                    (back.latitude_deg - lat).abs() < 1e-13 * 360.0
                        && (back.height_m - h).abs() < 5e-9,
                    "{back:?}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn wgs84_to_ecef_and_back(lat in -90.0..=90.0f64, lon in -180.0..180.0f64, h in -10_000.0..1e6f64) {
            let point = Ecef::from_geodetic(place(lat, lon, h));
            let back = point.to_geodetic();
            prop_assert!((back.latitude_deg - lat).abs() < 1e-12 * 100.0);
            prop_assert!((back.height_m - h).abs() < 1e-8);
            prop_assert!(Ecef::from_geodetic(back).distance_m(point) < 2e-8);
        }
    }
}
