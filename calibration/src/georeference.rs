//! Aerial tiles to the patch a network eats; the only file that multiplies by metres per pixel.
//!
//! A patch is square, north up unless it is turned, `metres_per_pixel` on the ground in both directions, flat in the ENU
//! frame about its centre. Patch pixels are `[col, row]` with `[0, 0]` the top-left (north-west)
//! corner (if it is not turned) and pixel centres at `+0.5`. A map pixel is found through its exact place: ENU to WGS 84
//! on the ellipsoid, then Web Mercator.

use crate::geodesy::mercator::{MAX_LATITUDE_DEG, geodetic_from_world_pixel};
use crate::geodesy::wgs84::{meridian_radius_m, prime_vertical_radius_m, wrap_longitude_deg};
use crate::{Enu, Error, Geodetic, LocalFrame, Result, TileId};

/// Size and resolution of a patch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PatchSpec {
    /// Pixels along one side.
    pub size_px: usize,
    /// Metres per patch pixel.
    pub metres_per_pixel: f64,
}

impl PatchSpec {
    /// Metres along one side.
    pub fn side_m(&self) -> f64 {
        self.size_px as f64 * self.metres_per_pixel
    }

    fn check(&self) -> Result<()> {
        if self.size_px == 0 || self.size_px > 4096 {
            return Err(Error::Patch(format!(
                "{} pixels a side; need 1 to 4096",
                self.size_px
            )));
        }
        if !(self.metres_per_pixel > 0.0 && self.side_m() <= 20_000.0) {
            let mpp = self.metres_per_pixel;
            return Err(Error::Patch(format!(
                "{mpp} metres per pixel; need a positive number and a side of at most 20 km"
            )));
        }
        Ok(())
    }
}

/// A name for a patch's content: equal keys show equal ground (heights don't matter).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PatchKey {
    latitude_bits: u64,
    longitude_bits: u64,
    metres_per_pixel_bits: u64,
    size_px: usize,
    right_yaw_bits: u64,
}

/// A patch tied to the ground.
#[derive(Debug, Clone, PartialEq)]
pub struct PatchGeoreference {
    spec: PatchSpec,
    frame: LocalFrame,
    right_yaw_rad: f64,
}

impl PatchGeoreference {
    /// The patch whose centre is exactly at a place.
    ///
    /// # Errors
    /// [`Error::Geodetic`], [`Error::Patch`] for unusable numbers, [`Error::BeyondMercator`] when a
    /// corner lies beyond ±85.05°.
    pub fn exactly_at(centre: Geodetic, spec: PatchSpec) -> Result<Self> {
        centre.check()?;
        spec.check()?;
        let longitude_deg = wrap_longitude_deg(centre.longitude_deg);
        // Adding zero turns −0 into +0, so that the key has one spelling of the equator.
        let centre = Geodetic {
            latitude_deg: centre.latitude_deg + 0.0,
            longitude_deg: longitude_deg + 0.0,
            ..centre
        };
        let patch = Self {
            spec,
            frame: LocalFrame::new(centre),
            right_yaw_rad: 0.0,
        };
        let half_m = spec.side_m() / 2.0;
        // Half a diagonal is 1.42 half sides; a degree of latitude is shortest at the equator.
        let reach_deg = (1.5 * half_m / meridian_radius_m(0.0)).to_degrees();
        if centre.latitude_deg.abs() + reach_deg > MAX_LATITUDE_DEG {
            return Err(Error::BeyondMercator {
                latitude_deg: centre.latitude_deg,
                limit_deg: MAX_LATITUDE_DEG,
            });
        }
        Ok(patch)
    }

    /// The patch whose centre is the grid point nearest to a place, so that nearby fixes share a patch.
    ///
    /// The grid is global: rows `grid_m` apart along the meridian (on average), and in each row a
    /// whole number of points around the parallel, as near to `grid_m` apart as that allows.
    ///
    /// # Errors
    /// As [`Self::exactly_at`]; [`Error::Patch`] when `grid_m` is not between a millimetre and 10 km.
    pub fn centred_on(near: Geodetic, spec: PatchSpec, grid_m: f64) -> Result<Self> {
        near.check()?;
        if !(1e-3..=1e4).contains(&grid_m) {
            return Err(Error::Patch(format!(
                "a grid of {grid_m} m; need 0.001 to 10000"
            )));
        }
        let rows_per_degree =
            (meridian_radius_m(45f64.to_radians()) * 1f64.to_radians() / grid_m).max(1.0);
        let latitude_deg = (near.latitude_deg * rows_per_degree).round() / rows_per_degree;
        let latitude_rad = latitude_deg.to_radians();
        let around_m =
            std::f64::consts::TAU * prime_vertical_radius_m(latitude_rad) * latitude_rad.cos();
        let points = (around_m / grid_m).round().max(1.0);
        let point = ((near.longitude_deg / 360.0 + 0.5) * points)
            .round()
            .rem_euclid(points);
        let longitude_deg = (point / points - 0.5) * 360.0;
        Self::exactly_at(
            Geodetic {
                latitude_deg: latitude_deg.clamp(-90.0, 90.0),
                longitude_deg,
                ..near
            },
            spec,
        )
    }

    /// The patch of the same size around the same centre whose right edge looks along this yaw (radians
    /// counter-clockwise from east): turned by 0, it has north up.
    ///
    /// # Errors
    /// [`Error::Patch`] for a yaw that is no number.
    pub fn turned(&self, right_yaw_rad: f64) -> Result<Self> {
        if !right_yaw_rad.is_finite() {
            return Err(Error::Patch(format!(
                "turned by {right_yaw_rad} rad; need a number"
            )));
        }
        Ok(Self {
            right_yaw_rad: right_yaw_rad + 0.0,
            ..self.clone()
        })
    }

    /// Yaw that the right edge looks along, radians counter-clockwise from east: 0 with north up.
    pub fn right_yaw_rad(&self) -> f64 {
        self.right_yaw_rad
    }

    /// Size and resolution.
    pub fn spec(&self) -> PatchSpec {
        self.spec
    }

    /// Where the middle of the patch is.
    pub fn centre(&self) -> Geodetic {
        self.frame.origin()
    }

    /// The ENU frame about the centre, in which the patch is flat.
    pub fn frame(&self) -> &LocalFrame {
        &self.frame
    }

    /// A name for the content, for caches.
    pub fn key(&self) -> PatchKey {
        PatchKey {
            latitude_bits: self.centre().latitude_deg.to_bits(),
            longitude_bits: self.centre().longitude_deg.to_bits(),
            metres_per_pixel_bits: self.spec.metres_per_pixel.to_bits(),
            size_px: self.spec.size_px,
            right_yaw_bits: self.right_yaw_rad.to_bits(),
        }
    }

    /// `[east, north]` metres from the centre of a patch pixel `[col, row]`.
    pub fn enu_from_pixel(&self, pixel: [f64; 2]) -> [f64; 2] {
        let half = self.spec.size_px as f64 / 2.0;
        let right_m = (pixel[0] - half) * self.spec.metres_per_pixel;
        let up_m = (half - pixel[1]) * self.spec.metres_per_pixel;
        let (sine, cosine) = self.right_yaw_rad.sin_cos();
        [
            cosine * right_m - sine * up_m,
            sine * right_m + cosine * up_m,
        ]
    }

    /// Patch pixel `[col, row]` of `[east, north]` metres from the centre.
    pub fn pixel_from_enu(&self, enu: [f64; 2]) -> [f64; 2] {
        let half = self.spec.size_px as f64 / 2.0;
        let (sine, cosine) = self.right_yaw_rad.sin_cos();
        let right_m = cosine * enu[0] + sine * enu[1];
        let up_m = cosine * enu[1] - sine * enu[0];
        [
            half + right_m / self.spec.metres_per_pixel,
            half - up_m / self.spec.metres_per_pixel,
        ]
    }

    /// The place of a patch pixel.
    pub fn geodetic_from_pixel(&self, pixel: [f64; 2]) -> Geodetic {
        let [east, north] = self.enu_from_pixel(pixel);
        self.frame.geodetic_from_enu(Enu::new(east, north, 0.0))
    }

    /// The patch pixel over (or under) a place, possibly outside the patch.
    pub fn pixel_from_geodetic(&self, place: Geodetic) -> [f64; 2] {
        self.pixel_from_enu(self.frame.enu_from_geodetic(place).horizontal())
    }
}

/// `[latitude_deg, longitude_deg]` of a pixel of a tile, for whoever draws tiles.
pub fn geodetic_from_tile_pixel(tile: TileId, tile_px: usize, pixel: [f64; 2]) -> [f64; 2] {
    let corner = [
        f64::from(tile.x) * tile_px as f64,
        f64::from(tile.y) * tile_px as f64,
    ];
    geodetic_from_world_pixel(
        [corner[0] + pixel[0], corner[1] + pixel[1]],
        tile.zoom,
        tile_px,
    )
}
#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SPEC: PatchSpec = PatchSpec {
        size_px: 128,
        metres_per_pixel: 0.5,
    };

    fn place(latitude_deg: f64, longitude_deg: f64) -> Geodetic {
        Geodetic {
            latitude_deg,
            longitude_deg,
            height_m: 0.0,
        }
    }
    #[test]
    fn poles_are_refused_and_the_last_usable_latitude_is_not() {
        for lat in [90.0, -90.0, 85.06, -85.051] {
            let error = PatchGeoreference::centred_on(place(lat, 0.0), SPEC, 0.5).unwrap_err();
            assert!(matches!(error, Error::BeyondMercator { .. }), "{error}");
        }
        assert!(PatchGeoreference::exactly_at(place(85.05, 0.0), SPEC).is_ok());
    }

    #[test]
    fn ahead_is_at_the_right_of_a_turned_patch() {
        let north_up = PatchGeoreference::exactly_at(place(52.0, 4.0), SPEC).unwrap();
        let yaw_rad = 2.0f64;
        let turned = north_up.turned(yaw_rad).unwrap();
        let ahead = turned.pixel_from_enu([10.0 * yaw_rad.cos(), 10.0 * yaw_rad.sin()]);
        assert!((ahead[0] - 84.0).abs() < 1e-9 && (ahead[1] - 64.0).abs() < 1e-9);
        assert_ne!(turned.key(), north_up.key());
        assert_eq!(turned.turned(0.0).unwrap(), north_up);
        assert!(turned.turned(f64::NAN).is_err());
    }

    proptest! {
        #[test]
        fn pixel_round_trips(lat in -85.0..85.0f64, lon in -180.0..180.0f64, col in 0.0..128.0f64, row in 0.0..128.0f64,
                             right_yaw_rad in prop_oneof![Just(0.0), -4.0..4.0f64]) {
            let patch = PatchGeoreference::centred_on(place(lat, lon), SPEC, 0.5).unwrap();
            let patch = patch.turned(right_yaw_rad).unwrap();
            let by_enu = patch.pixel_from_enu(patch.enu_from_pixel([col, row]));
            let by_place = patch.pixel_from_geodetic(patch.geodetic_from_pixel([col, row]));
            for back in [by_enu, by_place] {
                prop_assert!((back[0] - col).abs() < 1e-6 && (back[1] - row).abs() < 1e-6, "{back:?}");
            }
        }

        #[test]
        fn moving_the_patch_moves_the_answer(lat in -80.0..80.0f64, lon in -180.0..180.0f64, e in -30.0..30.0f64, n in -30.0..30.0f64) {
            let here = PatchGeoreference::exactly_at(place(lat, lon), SPEC).unwrap();
            let moved_to = here.frame().geodetic_from_enu(Enu::new(e, n, 0.0));
            let there = PatchGeoreference::exactly_at(moved_to, SPEC).unwrap();
            let landmark = here.geodetic_from_pixel([64.0, 64.0]);
            let [col, row] = there.pixel_from_geodetic(landmark);
            // Meridians converge: at 80° north by 27 µrad over 30 m.
            prop_assert!((col - (64.0 - e / 0.5)).abs() < 0.01 && (row - (64.0 + n / 0.5)).abs() < 0.01, "{col} {row}");
        }

        #[test]
        fn grid_rounding_moves_less_than_a_grid_step_and_is_stable(lat in -80.0..80.0f64, lon in -180.0..=180.0f64, grid in 0.5..16.0f64) {
            let near = place(lat, lon);
            let patch = PatchGeoreference::centred_on(near, SPEC, grid).unwrap();
            let moved = patch.frame().enu_from_geodetic(near);
            prop_assert!(moved.east().abs() < 0.52 * grid && moved.north().abs() < 0.52 * grid, "{moved:?}");
            let again = PatchGeoreference::centred_on(patch.centre(), SPEC, grid).unwrap();
            prop_assert_eq!(patch.key(), again.key());
        }
    }
}
