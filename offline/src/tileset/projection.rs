//! From the coordinates of an aerial picture to WGS 84 and back.

use proj4rs::Proj;
use proj4rs::transform::transform;

/// A coordinate reference system that is read without a shift of datum.
pub struct Projection {
    kind: Kind,
    /// Whether it is tied to a plate, and so moves against WGS 84 over the years.
    pub moves: bool,
}

enum Kind {
    /// Longitude and latitude.
    Degrees,
    /// EPSG:3857, whose sphere takes latitudes of the ellipsoid for its own.
    WebMercator,
    /// A projection, and longitude and latitude on the same ellipsoid.
    Projected(Box<[Proj; 2]>),
}

/// Radius of Web Mercator's sphere, metres.
const RADIUS_M: f64 = 6_378_137.0;

/// What to do about all others.
const REMEDY: &str =
    "warp it first: gdalwarp -t_srs EPSG:3857 -r bilinear -dstalpha IN.tif OUT.tif";

impl Projection {
    /// The system with this EPSG number: 3857, 4326, 4258, UTM on WGS 84 (32601 to 32660, 32701 to 32760) and
    /// on ETRS89 (25828 to 25838), Lambert-93 (2154), Belgian Lambert 2008 (3812), LAEA Europe (3035).
    ///
    /// # Errors
    /// What to do about another number.
    ///
    /// # Source
    /// EPSG registry, parameters of the projections named.
    pub fn of_epsg(code: u32) -> Result<Self, String> {
        let grs80 = "+ellps=GRS80 +towgs84=0,0,0,0,0,0,0 +units=m +no_defs";
        let plain = match code {
            3857 => Some((Kind::WebMercator, false)),
            4326 => Some((Kind::Degrees, false)),
            4258 => Some((Kind::Degrees, true)),
            _ => None,
        };
        if let Some((kind, moves)) = plain {
            return Ok(Self { kind, moves });
        }
        let (text, moves) = match code {
            32601..=32660 => (
                format!(
                    "+proj=utm +zone={} +datum=WGS84 +units=m +no_defs",
                    code - 32600
                ),
                false,
            ),
            32701..=32760 => (
                format!(
                    "+proj=utm +zone={} +south +datum=WGS84 +units=m +no_defs",
                    code - 32700
                ),
                false,
            ),
            25828..=25838 => (format!("+proj=utm +zone={} {grs80}", code - 25800), true),
            2154 => (
                format!(
                    "+proj=lcc +lat_1=49 +lat_2=44 +lat_0=46.5 +lon_0=3 +x_0=700000 +y_0=6600000 {grs80}"
                ),
                true,
            ),
            3812 => (
                format!(
                    "+proj=lcc +lat_1=49.8333333333333 +lat_2=51.1666666666667 +lat_0=50.797815 +lon_0=4.35921583333333 +x_0=649328 +y_0=665262 {grs80}"
                ),
                true,
            ),
            3035 => (
                format!("+proj=laea +lat_0=52 +lon_0=10 +x_0=4321000 +y_0=3210000 {grs80}"),
                true,
            ),
            other => {
                return Err(format!("EPSG:{other} is not read; {REMEDY}"));
            }
        };
        let wrong = |error: proj4rs::errors::Error| format!("EPSG:{code}: {error}; {REMEDY}");
        let longlat = if moves {
            "+proj=longlat +ellps=GRS80 +towgs84=0,0,0,0,0,0,0 +no_defs"
        } else {
            "+proj=longlat +datum=WGS84 +no_defs"
        };
        let both = [text.as_str(), longlat].map(Proj::from_proj_string);
        let [proj, longlat] = both;
        let both = [proj.map_err(wrong)?, longlat.map_err(wrong)?];
        Ok(Self {
            kind: Kind::Projected(Box::new(both)),
            moves,
        })
    }

    /// Coordinates (x, y) of a place; degrees of longitude and latitude in systems of degrees.
    pub fn forward(&self, [latitude_deg, longitude_deg]: [f64; 2]) -> Option<[f64; 2]> {
        let (latitude, longitude) = (latitude_deg.to_radians(), longitude_deg.to_radians());
        let point = match &self.kind {
            Kind::Degrees => [longitude_deg, latitude_deg],
            Kind::WebMercator => [RADIUS_M * longitude, RADIUS_M * latitude.tan().asinh()],
            Kind::Projected(both) => {
                let mut point = (longitude, latitude, 0.0);
                transform(&both[1], &both[0], &mut point).ok()?;
                [point.0, point.1]
            }
        };
        point.iter().all(|value| value.is_finite()).then_some(point)
    }

    /// Latitude and longitude of coordinates (x, y).
    pub fn inverse(&self, [x, y]: [f64; 2]) -> Option<[f64; 2]> {
        let place = match &self.kind {
            Kind::Degrees => [y, x],
            Kind::WebMercator => [(y / RADIUS_M).sinh().atan(), x / RADIUS_M].map(f64::to_degrees),
            Kind::Projected(both) => {
                let mut point = (x, y, 0.0);
                transform(&both[0], &both[1], &mut point).ok()?;
                [point.1, point.0].map(f64::to_degrees)
            }
        };
        place.iter().all(|angle| angle.is_finite()).then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossfix_calibration::mercator::world_pixel_from_geodetic;

    #[test]
    fn known_points_come_out() {
        // EPSG Guidance Note 7-2 (Lambert conic, ETRS89-LAEA) and published points: RGF93 Lambert-93 of
        // (46.5 N, 3 E) is its origin; LAEA of (50 N, 5 E) is 3962799.45, 2999718.85.
        for (code, place, x, y) in [
            (2154, [46.5, 3.0], 700_000.0, 6_600_000.0),
            (3035, [50.0, 5.0], 3_962_799.45, 2_999_718.85),
            (32631, [0.0, 3.0], 500_000.0, 0.0),
            (32733, [0.0, 15.0], 500_000.0, 10_000_000.0),
            // Away from the origins: by the formulas of Guidance Note 7-2 and Krüger's series in another program.
            (2154, [48.8566, 2.3522], 652_469.023, 6_862_035.259),
            (3812, [50.8503, 4.3517], 648_798.736, 671_100.414),
            (32631, [48.8566, 2.3522], 452_482.533, 5_411_717.177),
            (25831, [48.8566, 2.3522], 452_482.533, 5_411_717.177),
        ] {
            let projection = Projection::of_epsg(code).unwrap();
            let got = projection.forward(place).unwrap();
            assert!(
                (got[0] - x).abs() < 0.01 && (got[1] - y).abs() < 0.01,
                "{code}: {got:?}"
            );
        }
    }

    #[test]
    fn every_system_comes_back_and_web_mercator_is_ours() {
        let place = [48.8566, 2.3522];
        for code in [3857, 4326, 4258, 32631, 25831, 2154, 3812, 3035] {
            let projection = Projection::of_epsg(code).unwrap();
            let back = projection
                .inverse(projection.forward(place).unwrap())
                .unwrap();
            for axis in 0..2 {
                assert!((back[axis] - place[axis]).abs() < 1e-9, "{code}: {back:?}");
            }
        }
        let [x, y] = Projection::of_epsg(3857).unwrap().forward(place).unwrap();
        let [column, row] = world_pixel_from_geodetic(place[0], place[1], 20, 256);
        let half = std::f64::consts::PI * 6_378_137.0;
        let per_metre = 256.0 * f64::from(1 << 20) / (2.0 * half);
        assert!((column - (x + half) * per_metre).abs() < 1e-4);
        assert!((row - (half - y) * per_metre).abs() < 1e-4);
    }

    #[test]
    fn other_systems_are_refused_with_the_way_round_them() {
        for code in [27700, 28992, 26918, 99999] {
            let what = Projection::of_epsg(code).err().unwrap();
            assert!(what.contains("gdalwarp"), "{what}");
        }
    }
}
