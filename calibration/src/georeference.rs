//! Aerial tiles to the north-up patch a network eats; the only file that multiplies by metres per pixel.
//!
//! A patch is square, north up, `metres_per_pixel` on the ground in both directions, flat in the ENU
//! frame about its centre. Patch pixels are `[col, row]` with `[0, 0]` the top-left (north-west)
//! corner and pixel centres at `+0.5`. A map pixel is found through its exact place: ENU to WGS 84
//! on the ellipsoid, then Web Mercator.

use std::sync::Arc;

use crate::geodesy::mercator::{self, MAX_LATITUDE_DEG, MAX_ZOOM, geodetic_from_world_pixel};
use crate::geodesy::wgs84::{meridian_radius_m, prime_vertical_radius_m, wrap_longitude_deg};
use crate::{Enu, Error, Geodetic, LocalFrame, Result, RgbImage, TileId};

/// Patch pixels between two points at which the place is worked out exactly.
const EXACT_EVERY_PX: usize = 16;
/// Samples per patch pixel and axis at most, however fine the tiles are.
const MAX_SUPERSAMPLE: usize = 8;
/// Map pixels that one patch may need at most (100 MB).
const MAX_MOSAIC_PX: usize = 1 << 25;

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
}

/// A patch tied to the ground.
#[derive(Debug, Clone, PartialEq)]
pub struct PatchGeoreference {
    spec: PatchSpec,
    frame: LocalFrame,
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
        }
    }

    /// `[east, north]` metres from the centre of a patch pixel `[col, row]`.
    pub fn enu_from_pixel(&self, pixel: [f64; 2]) -> [f64; 2] {
        let half = self.spec.size_px as f64 / 2.0;
        [
            (pixel[0] - half) * self.spec.metres_per_pixel,
            (half - pixel[1]) * self.spec.metres_per_pixel,
        ]
    }

    /// Patch pixel `[col, row]` of `[east, north]` metres from the centre.
    pub fn pixel_from_enu(&self, enu: [f64; 2]) -> [f64; 2] {
        let half = self.spec.size_px as f64 / 2.0;
        [
            half + enu[0] / self.spec.metres_per_pixel,
            half - enu[1] / self.spec.metres_per_pixel,
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

    /// The map tiles that [`Self::render`] will ask for, north-west first.
    ///
    /// # Errors
    /// [`Error::Patch`] for a zoom or tile size that cannot work.
    pub fn tiles(&self, zoom: u8, tile_px: usize) -> Result<Vec<TileId>> {
        let mut tiles = Vec::new();
        self.window(zoom, tile_px)?.each_tile(|tile, _| {
            tiles.push(tile);
            Ok(())
        })?;
        // A patch wider than the world (low zooms) meets the same tile twice.
        let mut seen = std::collections::HashSet::new();
        tiles.retain(|&tile| seen.insert(tile));
        Ok(tiles)
    }

    /// Resamples map tiles to the patch: bilinear between map pixels, averaged over a grid of samples
    /// inside each patch pixel where the map is finer than the patch.
    ///
    /// # Errors
    /// [`Error::MissingTile`] for the first tile that `tile` does not give, [`Error::ImageSize`] for
    /// one that is not `tile_px` square, [`Error::Patch`] for a zoom or tile size that cannot work.
    pub fn render(
        &self,
        zoom: u8,
        tile_px: usize,
        tile: impl FnMut(TileId) -> Option<Arc<RgbImage>>,
    ) -> Result<RgbImage> {
        let window = self.window(zoom, tile_px)?;
        let mosaic = self.mosaic(&window, tile)?;
        let fineness = self.spec.metres_per_pixel
            / mercator::ground_resolution(self.centre().latitude_deg, zoom, tile_px);
        // A tenth finer than the patch is not worth four samples.
        let samples = ((fineness - 0.1).ceil().max(1.0) as usize).min(MAX_SUPERSAMPLE);
        Ok(self.resample(&window, &mosaic, samples))
    }

    /// World pixel of a patch pixel, exact; x is kept on the centre's side of the antimeridian.
    fn world_pixel(&self, pixel: [f64; 2], zoom: u8, tile_px: usize) -> [f64; 2] {
        let place = self.geodetic_from_pixel(pixel);
        let centre_longitude_deg = self.centre().longitude_deg;
        let turn_deg = wrap_longitude_deg(place.longitude_deg - centre_longitude_deg);
        mercator::world_pixel_from_geodetic(
            place.latitude_deg,
            centre_longitude_deg + turn_deg,
            zoom,
            tile_px,
        )
    }

    /// The map pixels the patch needs, and the exact mapping at the nodes of a coarse grid.
    fn window(&self, zoom: u8, tile_px: usize) -> Result<Window> {
        if zoom > MAX_ZOOM || !(2..=4096).contains(&tile_px) {
            return Err(Error::Patch(format!(
                "zoom {zoom} with {tile_px}-pixel tiles; need zoom 0 to {MAX_ZOOM} and 2 to 4096 pixels"
            )));
        }
        let cells = self.spec.size_px.div_ceil(EXACT_EVERY_PX);
        let mut nodes = Vec::with_capacity((cells + 1) * (cells + 1));
        for row in 0..=cells {
            for col in 0..=cells {
                nodes.push(self.world_pixel(
                    [(col * EXACT_EVERY_PX) as f64, (row * EXACT_EVERY_PX) as f64],
                    zoom,
                    tile_px,
                ));
            }
        }
        let world_px = mercator::world_size_px(zoom, tile_px) as i64;
        // One pixel more on each side, for the bilinear neighbours; rows end with the world.
        let low = |axis: usize| {
            nodes
                .iter()
                .map(|n| n[axis])
                .fold(f64::INFINITY, f64::min)
                .floor() as i64
                - 1
        };
        let high = |axis: usize| {
            nodes
                .iter()
                .map(|n| n[axis])
                .fold(f64::NEG_INFINITY, f64::max)
                .ceil() as i64
                + 1
        };
        let (left, right) = (low(0), high(0));
        let (top, bottom) = (low(1).clamp(0, world_px - 2), high(1).clamp(2, world_px));
        let (width, height) = ((right - left) as usize, (bottom - top) as usize);
        if width.saturating_mul(height) > MAX_MOSAIC_PX {
            return Err(Error::Patch(format!(
                "zoom {zoom} needs {width}x{height} map pixels for one {} m patch; choose a lower zoom",
                self.spec.side_m()
            )));
        }
        Ok(Window {
            zoom,
            tile_px: tile_px as i64,
            world_px,
            left,
            top,
            width,
            height,
            nodes,
            cells,
        })
    }

    fn mosaic(
        &self,
        window: &Window,
        mut tile: impl FnMut(TileId) -> Option<Arc<RgbImage>>,
    ) -> Result<RgbImage> {
        let mut mosaic = RgbImage::black(window.width, window.height);
        let side = window.tile_px as usize;
        window.each_tile(|id, [x0, y0]| {
            let Geodetic {
                latitude_deg,
                longitude_deg,
                ..
            } = self.centre();
            let image = tile(id).ok_or(Error::MissingTile {
                tile: id,
                latitude_deg,
                longitude_deg,
            })?;
            image.check_size(&format!("aerial tile {id}"), side, side)?;
            // The part of the tile that lies in the window, in window pixels.
            let (from_x, to_x) = (x0.max(0), (x0 + window.tile_px).min(window.width as i64));
            let (from_y, to_y) = (y0.max(0), (y0 + window.tile_px).min(window.height as i64));
            let bytes = (to_x - from_x) as usize * 3;
            for y in from_y..to_y {
                let source = ((y - y0) as usize * side + (from_x - x0) as usize) * 3;
                let target = (y as usize * window.width + from_x as usize) * 3;
                mosaic.data[target..target + bytes]
                    .copy_from_slice(&image.data[source..source + bytes]);
            }
            Ok(())
        })?;
        Ok(mosaic)
    }

    fn resample(&self, window: &Window, mosaic: &RgbImage, samples: usize) -> RgbImage {
        let size = self.spec.size_px;
        let mut patch = RgbImage::black(size, size);
        let weight = 1.0 / (samples * samples) as f32;
        let mut sums = vec![0.0f32; size * 3];
        // Where in its cell of nodes each sample of a row lies; the same for every row.
        let across: Vec<f32> = (0..EXACT_EVERY_PX * samples)
            .map(|k| (k as f32 + 0.5) / (EXACT_EVERY_PX * samples) as f32)
            .collect();
        for (row, line) in patch.data.chunks_exact_mut(size * 3).enumerate() {
            sums.fill(0.0);
            for i in 0..samples {
                let nodes = window.nodes_at_row(row as f64 + (i as f64 + 0.5) / samples as f64);
                for (ends, sums) in nodes.windows(2).zip(sums.chunks_mut(EXACT_EVERY_PX * 3)) {
                    let [x, y] = ends[0].map(|v| v as f32);
                    let [dx, dy] = [
                        (ends[1][0] - ends[0][0]) as f32,
                        (ends[1][1] - ends[0][1]) as f32,
                    ];
                    for (sum, at) in sums.chunks_exact_mut(3).zip(across.chunks_exact(samples)) {
                        for t in at {
                            add_bilinear(mosaic, x + dx * t, y + dy * t, sum);
                        }
                    }
                }
            }
            for (o, s) in line.iter_mut().zip(&sums) {
                *o = (s * weight + 0.5) as u8;
            }
        }
        patch
    }
}

/// A rectangle of map pixels and the mapping from patch pixels into it.
struct Window {
    zoom: u8,
    tile_px: i64,
    world_px: i64,
    /// World pixel of the rectangle's left edge; negative or beyond the world across the antimeridian.
    left: i64,
    top: i64,
    width: usize,
    height: usize,
    /// Exact world pixels of patch pixels `EXACT_EVERY_PX` apart, `cells + 1` a side, row-major.
    nodes: Vec<[f64; 2]>,
    cells: usize,
}

impl Window {
    /// Calls `visit` with each tile and the window pixel of its top-left corner.
    fn each_tile(&self, mut visit: impl FnMut(TileId, [i64; 2]) -> Result<()>) -> Result<()> {
        let tiles_around = self.world_px / self.tile_px;
        let (right, bottom) = (self.left + self.width as i64, self.top + self.height as i64);
        for y in self.top.div_euclid(self.tile_px)..=(bottom - 1).div_euclid(self.tile_px) {
            for x in self.left.div_euclid(self.tile_px)..=(right - 1).div_euclid(self.tile_px) {
                let id = TileId {
                    zoom: self.zoom,
                    x: x.rem_euclid(tiles_around) as u32,
                    y: y as u32,
                };
                visit(
                    id,
                    [x * self.tile_px - self.left, y * self.tile_px - self.top],
                )?;
            }
        }
        Ok(())
    }

    /// Window pixels of the nodes' columns at a patch row, linear between the rows of nodes.
    fn nodes_at_row(&self, row: f64) -> Vec<[f64; 2]> {
        let v = row / EXACT_EVERY_PX as f64;
        let j = (v as usize).min(self.cells - 1);
        let f = v - j as f64;
        let upper = &self.nodes[j * (self.cells + 1)..][..=self.cells];
        let lower = &self.nodes[(j + 1) * (self.cells + 1)..][..=self.cells];
        let corner = [self.left as f64, self.top as f64];
        let mix = |a: &[f64; 2], b: &[f64; 2]| [0, 1].map(|k| a[k] + (b[k] - a[k]) * f - corner[k]);
        upper.iter().zip(lower).map(|(a, b)| mix(a, b)).collect()
    }
}

/// Adds the bilinear colour at continuous `(x, y)`, edges repeated; the image is at least 2 × 2.
#[inline]
fn add_bilinear(image: &RgbImage, x: f32, y: f32, sum: &mut [f32]) {
    // A hair below the last centre, so that a right and a lower neighbour always exist.
    let x = (x - 0.5).clamp(0.0, image.width as f32 - 1.001);
    let y = (y - 0.5).clamp(0.0, image.height as f32 - 1.001);
    let (x0, y0) = (x as usize, y as usize);
    let (fx, fy) = (x - x0 as f32, y - y0 as f32);
    let at = (y0 * image.width + x0) * 3;
    let upper = &image.data[at..at + 6];
    let lower = &image.data[at + image.width * 3..at + image.width * 3 + 6];
    let [a, b, c, d] = [
        (1.0 - fx) * (1.0 - fy),
        fx * (1.0 - fy),
        (1.0 - fx) * fy,
        fx * fy,
    ];
    for k in 0..3 {
        let [p, q] = [upper[k], upper[k + 3]].map(f32::from);
        let [r, s] = [lower[k], lower[k + 3]].map(f32::from);
        sum[k] += p * a + q * b + r * c + s * d;
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

    /// Tiles painted with smooth functions of the exact place, so that any patch pixel can be predicted.
    fn painted(tile: TileId, paint: impl Fn([f64; 2]) -> [u8; 3]) -> Arc<RgbImage> {
        let mut image = RgbImage::black(256, 256);
        for row in 0..256 {
            for col in 0..256 {
                let at = geodetic_from_tile_pixel(tile, 256, [col as f64 + 0.5, row as f64 + 0.5]);
                image.set_pixel(col, row, paint(at));
            }
        }
        Arc::new(image)
    }

    /// Waves of 40 m and 56 m in the ENU frame about `origin`.
    fn waves(origin: &LocalFrame, [latitude_deg, longitude_deg]: [f64; 2]) -> [f64; 3] {
        let p = origin.enu_from_geodetic(place(latitude_deg, wrap_longitude_deg(longitude_deg)));
        let wave =
            |x: f64, length_m: f64| 127.5 + 100.0 * (x / length_m * std::f64::consts::TAU).sin();
        [
            wave(p.east(), 40.0),
            wave(p.north(), 56.0),
            wave(p.east() + p.north(), 64.0),
        ]
    }

    fn worst_difference(centre: Geodetic, zoom: u8) -> f64 {
        let origin = LocalFrame::new(place(centre.latitude_deg, centre.longitude_deg));
        let patch = PatchGeoreference::exactly_at(centre, SPEC).unwrap();
        let paint = |at| waves(&origin, at).map(|v| v.round() as u8);
        let image = patch
            .render(zoom, 256, |tile| Some(painted(tile, paint)))
            .unwrap();
        let mut worst = 0.0f64;
        for row in 0..128 {
            for col in 0..128 {
                let at = patch.geodetic_from_pixel([col as f64 + 0.5, row as f64 + 0.5]);
                let expected = waves(&origin, [at.latitude_deg, at.longitude_deg]);
                for (got, expected) in image.pixel(col, row).into_iter().zip(expected) {
                    worst = worst.max((f64::from(got) - expected).abs());
                }
            }
        }
        worst
    }

    #[test]
    fn patch_shows_the_ground_it_claims_to_show() {
        // A shift by 0.1 px would change the steepest wave by 0.8 grey levels; rounding twice costs 1.
        for (lat, lon, zoom) in [
            (52.0116, 4.3571, 18),
            (52.0116, 4.3571, 17),
            (0.0, 0.0, 18),
            (-33.9, 151.2, 18),
            (84.9, 10.0, 15),
        ] {
            let worst = worst_difference(place(lat, lon), zoom);
            assert!(worst < 1.8, "{lat},{lon} zoom {zoom}: {worst} grey levels");
        }
    }

    #[test]
    fn patch_crosses_the_antimeridian() {
        for lon in [180.0, -180.0, 179.999_9, -179.999_8] {
            let patch = PatchGeoreference::exactly_at(place(52.0, lon), SPEC).unwrap();
            let columns: std::collections::BTreeSet<u32> =
                patch.tiles(18, 256).unwrap().iter().map(|t| t.x).collect();
            assert!(
                columns.contains(&0) && columns.contains(&((1 << 18) - 1)),
                "{lon}: {columns:?}"
            );
            assert!(worst_difference(place(52.0, lon), 18) < 1.8);
        }
    }

    #[test]
    fn poles_are_refused_and_the_last_usable_latitude_is_not() {
        for lat in [90.0, -90.0, 85.06, -85.051] {
            let error = PatchGeoreference::centred_on(place(lat, 0.0), SPEC, 0.5).unwrap_err();
            assert!(matches!(error, Error::BeyondMercator { .. }), "{error}");
        }
        assert!(PatchGeoreference::exactly_at(place(85.05, 0.0), SPEC).is_ok());
        assert!(worst_difference(place(-85.05, 179.999), 15) < 1.8);
    }

    #[test]
    fn missing_and_misshapen_tiles_are_named() {
        let patch = PatchGeoreference::exactly_at(place(52.0116, 4.3571), SPEC).unwrap();
        let wanted = patch.tiles(18, 256).unwrap();
        let error = patch.render(18, 256, |_| None).unwrap_err();
        assert!(
            matches!(error, Error::MissingTile { tile, .. } if tile == wanted[0]),
            "{error}"
        );
        let error = patch
            .render(18, 256, |_| Some(Arc::new(RgbImage::black(512, 512))))
            .unwrap_err();
        assert!(error.to_string().contains("expected 256x256"), "{error}");
        let lying = RgbImage {
            width: 256,
            height: 256,
            data: vec![0; 7],
        };
        assert!(
            patch
                .render(18, 256, |_| Some(Arc::new(lying.clone())))
                .is_err()
        );
        assert!(
            patch.render(31, 256, |_| None).is_err() && patch.render(30, 4096, |_| None).is_err()
        );
        assert!(patch.render(18, 0, |_| None).is_err());
    }

    #[test]
    fn a_patch_larger_than_its_tiles_world_still_renders() {
        let spec = PatchSpec {
            size_px: 64,
            metres_per_pixel: 100.0,
        };
        let patch = PatchGeoreference::exactly_at(place(10.0, 179.99), spec).unwrap();
        assert_eq!(
            patch.tiles(0, 256).unwrap(),
            [TileId {
                zoom: 0,
                x: 0,
                y: 0
            }]
        );
        assert!(
            patch
                .render(0, 256, |_| Some(Arc::new(RgbImage::black(256, 256))))
                .is_ok()
        );
    }

    #[test]
    fn fine_tiles_are_averaged_not_picked() {
        // One-pixel checks at 0.15 m vanish into grey at 0.5 m.
        let patch = PatchGeoreference::exactly_at(place(0.0, 0.0), SPEC).unwrap();
        let checks = |_| {
            let mut tile = RgbImage::black(256, 256);
            for at in 0..256 * 256 {
                if (at / 256 + at % 256) % 2 == 0 {
                    tile.set_pixel(at % 256, at / 256, [255; 3]);
                }
            }
            Some(Arc::new(tile))
        };
        let image = patch.render(20, 256, checks).unwrap();
        let (low, high) = (
            image.data.iter().min().unwrap(),
            image.data.iter().max().unwrap(),
        );
        assert!(*low > 95 && *high < 160, "{low}..{high}");
    }

    proptest! {
        #[test]
        fn pixel_round_trips(lat in -85.0..85.0f64, lon in -180.0..180.0f64, col in 0.0..128.0f64, row in 0.0..128.0f64) {
            let patch = PatchGeoreference::centred_on(place(lat, lon), SPEC, 0.5).unwrap();
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

        #[test]
        fn interpolated_map_pixels_stay_within_a_hundredth_of_the_exact(lat in -85.0..85.0f64, lon in -180.0..180.0f64,
                                                                   col in 0.0..128.0f64, row in 0.0..128.0f64) {
            let patch = PatchGeoreference::exactly_at(place(lat, lon), SPEC).unwrap();
            let window = patch.window(18, 256).unwrap();
            let exact = patch.world_pixel([col, row], 18, 256);
            let nodes = window.nodes_at_row(row);
            let (cell, t) = ((col / 16.0) as usize, (col / 16.0).fract());
            let got = [0, 1].map(|k| nodes[cell][k] * (1.0 - t) + nodes[cell + 1][k] * t);
            let error = (got[0] + window.left as f64 - exact[0]).hypot(got[1] + window.top as f64 - exact[1]);
            prop_assert!(error < 0.01, "{error} px");
        }
    }
}
