//! Local east-north-up metres on the plane that touches the ellipsoid at an origin.

use nalgebra::{Matrix3, Vector3};

use super::{Ecef, Geodetic};

/// East, north and up in metres, about the origin of some [`LocalFrame`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Enu(pub Vector3<f64>);

impl Enu {
    /// From metres east, north and up.
    pub fn new(east: f64, north: f64, up: f64) -> Self {
        Self(Vector3::new(east, north, up))
    }
    /// Metres east.
    pub fn east(self) -> f64 {
        self.0.x
    }
    /// Metres north.
    pub fn north(self) -> f64 {
        self.0.y
    }
    /// Metres up.
    pub fn up(self) -> f64 {
        self.0.z
    }
    /// `[east, north]` in metres.
    pub fn horizontal(self) -> [f64; 2] {
        [self.0.x, self.0.y]
    }
    /// Distance over ground to another point of the same frame, in metres.
    pub fn horizontal_distance(self, other: Self) -> f64 {
        (self.0.x - other.0.x).hypot(self.0.y - other.0.y)
    }
}

impl std::ops::Add for Enu {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl std::ops::Sub for Enu {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

/// An origin and the rotation from ECEF into its east-north-up axes.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalFrame {
    origin: Geodetic,
    origin_ecef: Ecef,
    rotation_enu_from_ecef: Matrix3<f64>,
}

impl LocalFrame {
    /// The frame that touches the ellipsoid at `origin`.
    pub fn new(origin: Geodetic) -> Self {
        let (sin_lat, cos_lat) = origin.latitude_deg.to_radians().sin_cos();
        let (sin_lon, cos_lon) = origin.longitude_deg.to_radians().sin_cos();
        let rotation_enu_from_ecef = Matrix3::new(
            -sin_lon,
            cos_lon,
            0.0, // east
            -sin_lat * cos_lon,
            -sin_lat * sin_lon,
            cos_lat, // north
            cos_lat * cos_lon,
            cos_lat * sin_lon,
            sin_lat, // up
        );
        Self {
            origin,
            origin_ecef: Ecef::from_geodetic(origin),
            rotation_enu_from_ecef,
        }
    }

    /// Where the frame touches.
    pub fn origin(&self) -> Geodetic {
        self.origin
    }

    /// A global point in this frame.
    pub fn enu_from_ecef(&self, point: Ecef) -> Enu {
        Enu(self.rotation_enu_from_ecef * (point - self.origin_ecef))
    }

    /// A point of this frame in global metres.
    pub fn ecef_from_enu(&self, point: Enu) -> Ecef {
        Ecef(self.origin_ecef.0 + self.rotation_enu_from_ecef.tr_mul(&point.0))
    }

    /// A place in this frame.
    pub fn enu_from_geodetic(&self, place: Geodetic) -> Enu {
        self.enu_from_ecef(Ecef::from_geodetic(place))
    }

    /// The place of a point of this frame.
    pub fn geodetic_from_enu(&self, point: Enu) -> Geodetic {
        self.ecef_from_enu(point).to_geodetic()
    }
}

#[cfg(test)]
mod tests {
    use geographiclib_rs::{DirectGeodesic, Geodesic, InverseGeodesic};
    use proptest::prelude::*;

    use super::*;
    use crate::{Heading, Yaw};

    fn place(latitude_deg: f64, longitude_deg: f64, height_m: f64) -> Geodetic {
        Geodetic {
            latitude_deg,
            longitude_deg,
            height_m,
        }
    }

    #[test]
    fn short_steps_agree_with_geographiclib_at_every_latitude() {
        let geodesic = Geodesic::wgs84();
        for lat in [-89.9, -75.0, -33.0, 0.0, 10.0, 52.0116, 70.0, 85.0, 89.9] {
            for azimuth_deg in [0.0, 37.0, 90.0, 143.0, 180.0, 251.0, 359.0] {
                for distance_m in [1.0, 50.0, 1000.0] {
                    let (lat2, lon2): (f64, f64) =
                        geodesic.direct(lat, 179.9999, azimuth_deg, distance_m);
                    let frame = LocalFrame::new(place(lat, 179.9999, 0.0));
                    let enu = frame.enu_from_geodetic(place(lat2, lon2, 0.0));
                    let got_m = enu.east().hypot(enu.north());
                    let got = Yaw::new(enu.north().atan2(enu.east()));
                    let off_rad = got.difference_rad(Heading::from_degrees(azimuth_deg).yaw());
                    // The plane leaves the ellipsoid: chord and arc differ by d³/(6 R²), 4 µm at a kilometre.
                    let tolerance_m = 1e-7 + distance_m.powi(3) / (5.0 * 6.3e6f64.powi(2));
                    assert!(
                        (got_m - distance_m).abs() < tolerance_m,
                        "{lat} {azimuth_deg} {distance_m}: {got_m}"
                    );
                    assert!(
                        off_rad.abs() * distance_m < 1e-5,
                        "{lat} {azimuth_deg} {distance_m}: {off_rad}"
                    );
                }
            }
        }
    }

    #[test]
    fn north_is_along_the_meridian_and_up_is_height() {
        let frame = LocalFrame::new(place(52.0116, 4.3571, 3.0));
        let north = frame.enu_from_geodetic(place(52.0117, 4.3571, 3.0));
        assert!(north.north() > 11.0 && north.east().abs() < 1e-9);
        let up = frame.enu_from_geodetic(place(52.0116, 4.3571, 8.0));
        assert!(
            (up.up() - 5.0).abs() < 1e-8 && up.horizontal_distance(Enu::new(0.0, 0.0, 0.0)) < 1e-8
        );
    }

    proptest! {
        #[test]
        fn enu_to_wgs84_and_back(lat in -90.0..=90.0f64, lon in -180.0..180.0f64, h in -100.0..5000.0f64,
                                 e in -5e3..5e3f64, n in -5e3..5e3f64, u in -100.0..100.0f64) {
            let frame = LocalFrame::new(place(lat, lon, h));
            let point = Enu::new(e, n, u);
            let back = frame.enu_from_geodetic(frame.geodetic_from_enu(point));
            prop_assert!((back.0 - point.0).norm() < 2e-8, "{back:?}");
        }

        #[test]
        fn geodesic_inverse_agrees_with_enu(lat in -89.0..89.0f64, lon in -180.0..180.0f64,
                                            e in -200.0..200.0f64, n in -200.0..200.0f64) {
            prop_assume!(e.hypot(n) > 1.0);
            let origin = place(lat, lon, 0.0);
            let there = LocalFrame::new(origin).geodetic_from_enu(Enu::new(e, n, 0.0));
            let distance_m: f64 = Geodesic::wgs84().inverse(lat, lon, there.latitude_deg, there.longitude_deg);
            prop_assert!((distance_m - e.hypot(n)).abs() < 1e-6, "{distance_m} {}", e.hypot(n));
        }
    }
}
