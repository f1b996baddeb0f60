//! Web Mercator tiles, by their exact spherical formulas on WGS 84 latitude and longitude.
//!
//! World pixels: `[x, y]` with `[0, 0]` the north-west corner of the world at −180°, x eastward and y
//! southward, `2^zoom * tile_px` pixels each way; pixel centres at `+0.5`.

use std::f64::consts::PI;

use super::wgs84::{ECCENTRICITY_SQUARED, EQUATORIAL_RADIUS_M};

/// Where the square world ends: `atan(sinh π)` in degrees.
pub const MAX_LATITUDE_DEG: f64 = 85.051_128_779_806_59;
/// The deepest zoom we accept; tile numbers still fit in 32 bits and nobody serves finer.
pub const MAX_ZOOM: u8 = 30;

/// One tile of the XYZ scheme (y counts southward).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TileId {
    /// Zoom level.
    pub zoom: u8,
    /// Column, eastward from −180°.
    pub x: u32,
    /// Row, southward from the northern limit.
    pub y: u32,
}

impl TileId {
    /// The tile that holds a place, or `None` beyond the Mercator limit or [`MAX_ZOOM`].
    pub fn containing(latitude_deg: f64, longitude_deg: f64, zoom: u8) -> Option<Self> {
        if zoom > MAX_ZOOM
            || latitude_deg.is_nan()
            || latitude_deg.abs() > MAX_LATITUDE_DEG
            || !longitude_deg.is_finite()
        {
            return None;
        }
        let [x, y] = world_pixel_from_geodetic(latitude_deg, longitude_deg, zoom, 1);
        let tiles = 1i64 << zoom;
        Some(Self {
            zoom,
            x: (x.floor() as i64).rem_euclid(tiles) as u32,
            y: (y.floor() as i64).clamp(0, tiles - 1) as u32,
        })
    }
}

impl std::fmt::Display for TileId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.zoom, self.x, self.y)
    }
}

/// Pixels around the world at a zoom.
pub fn world_size_px(zoom: u8, tile_px: usize) -> f64 {
    (f64::from(zoom)).exp2() * tile_px as f64
}

/// World pixel of a place. Longitudes outside ±180° continue past the seam; latitudes beyond
/// [`MAX_LATITUDE_DEG`] fall outside `0..world_size_px`, the poles at infinity.
pub fn world_pixel_from_geodetic(
    latitude_deg: f64,
    longitude_deg: f64,
    zoom: u8,
    tile_px: usize,
) -> [f64; 2] {
    let world = world_size_px(zoom, tile_px);
    let latitude_rad = latitude_deg.to_radians();
    // asinh(tan φ) is the Gudermannian's inverse, odd and exact at the equator.
    let y = 0.5 - latitude_rad.tan().asinh() / (2.0 * PI);
    [(longitude_deg / 360.0 + 0.5) * world, y * world]
}

/// `[latitude_deg, longitude_deg]` of a world pixel; the inverse of [`world_pixel_from_geodetic`].
pub fn geodetic_from_world_pixel(pixel: [f64; 2], zoom: u8, tile_px: usize) -> [f64; 2] {
    let world = world_size_px(zoom, tile_px);
    let latitude_rad = (2.0 * PI * (0.5 - pixel[1] / world)).sinh().atan();
    [latitude_rad.to_degrees(), (pixel[0] / world - 0.5) * 360.0]
}

/// Metres on the ellipsoid per tile pixel, eastward, at a latitude.
///
/// Web Mercator treats geodetic latitude as if the Earth were a sphere, so the northward figure
/// differs by up to 0.7 %; anything that needs metres goes through [`super::LocalFrame`] instead.
pub fn ground_resolution(latitude_deg: f64, zoom: u8, tile_px: usize) -> f64 {
    let (sin, cos) = latitude_deg.to_radians().sin_cos();
    let radius_m = EQUATORIAL_RADIUS_M / (1.0 - ECCENTRICITY_SQUARED * sin * sin).sqrt();
    2.0 * PI * radius_m * cos / world_size_px(zoom, tile_px)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_limit_is_the_square_worlds_edge() {
        assert!((PI.sinh().atan().to_degrees() - MAX_LATITUDE_DEG).abs() < 1e-13);
        assert!(world_pixel_from_geodetic(MAX_LATITUDE_DEG, 0.0, 18, 256)[1].abs() < 1e-5);
        assert!(
            TileId::containing(86.0, 0.0, 3).is_none()
                && TileId::containing(90.0, 0.0, 3).is_none()
        );
    }

    #[test]
    fn known_tiles() {
        // slippy map tilenames (OpenStreetMap wiki): the world, and the quarter that holds Europe.
        assert_eq!(
            TileId::containing(52.0, 4.0, 0),
            Some(TileId {
                zoom: 0,
                x: 0,
                y: 0
            })
        );
        assert_eq!(
            TileId::containing(52.0, 4.0, 1),
            Some(TileId {
                zoom: 1,
                x: 1,
                y: 0
            })
        );
        assert_eq!(
            TileId::containing(0.000_1, -179.999_9, 18),
            Some(TileId {
                zoom: 18,
                x: 0,
                y: (1 << 17) - 1
            })
        );
        assert_eq!(
            TileId::containing(-0.000_1, 180.0, 18),
            Some(TileId {
                zoom: 18,
                x: 0,
                y: 1 << 17
            })
        );
    }

    #[test]
    fn resolution_is_156_km_per_pixel_at_the_whole_worlds_equator() {
        assert!((ground_resolution(0.0, 0, 256) - 156_543.033_928).abs() < 1e-3);
        assert!((ground_resolution(60.0, 0, 256) / 156_543.033_928 - 0.5).abs() < 2e-3);
    }

    proptest! {
        #[test]
        fn pixel_round_trip(lat in -85.05..85.05f64, lon in -180.0..180.0f64, zoom in 0u8..=22) {
            let pixel = world_pixel_from_geodetic(lat, lon, zoom, 256);
            let [lat2, lon2] = geodetic_from_world_pixel(pixel, zoom, 256);
            prop_assert!((lat2 - lat).abs() < 1e-11 && (lon2 - lon).abs() < 1e-11);
        }
    }
}
