//! Map tiles to the pixels of a patch: which tiles, one mosaic of them, and its resampling.

use std::sync::Arc;

use crate::geodesy::mercator::{self, MAX_ZOOM};
use crate::geodesy::wgs84::wrap_longitude_deg;
use crate::{Error, Geodetic, PatchGeoreference, Result, RgbImage, TileId};

/// Patch pixels between two points at which the place is worked out exactly.
const EXACT_EVERY_PX: usize = 16;
/// Samples per patch pixel and axis at most, however fine the tiles are.
const MAX_SUPERSAMPLE: usize = 8;
/// Map pixels that one patch may need at most (100 MB).
const MAX_MOSAIC_PX: usize = 1 << 25;

impl PatchGeoreference {
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
        let fineness = self.spec().metres_per_pixel
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
        let cells = self.spec().size_px.div_ceil(EXACT_EVERY_PX);
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
                self.spec().side_m()
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
    ) -> Result<Mosaic> {
        let mut mosaic = Mosaic {
            width: window.width,
            height: window.height,
            pixels: vec![[0; 4]; window.width * window.height],
        };
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
            let wide = (to_x - from_x) as usize;
            for y in from_y..to_y {
                let source = ((y - y0) as usize * side + (from_x - x0) as usize) * 3;
                let target = y as usize * window.width + from_x as usize;
                let source = image.data[source..source + wide * 3].chunks_exact(3);
                for (pixel, rgb) in mosaic.pixels[target..target + wide].iter_mut().zip(source) {
                    *pixel = [rgb[0], rgb[1], rgb[2], 0];
                }
            }
            Ok(())
        })?;
        Ok(mosaic)
    }

    fn resample(&self, window: &Window, mosaic: &Mosaic, samples: usize) -> RgbImage {
        let size = self.spec().size_px;
        let mut patch = RgbImage::black(size, size);
        let weight = 1.0 / (samples * samples) as f32;
        let mut sums = vec![[0.0f32; 4]; size];
        // Where in its cell of nodes each sample of a row lies; the same for every row.
        let across: Vec<f32> = (0..EXACT_EVERY_PX * samples)
            .map(|k| (k as f32 + 0.5) / (EXACT_EVERY_PX * samples) as f32)
            .collect();
        for (row, line) in patch.data.chunks_exact_mut(size * 3).enumerate() {
            sums.fill([0.0; 4]);
            for i in 0..samples {
                let nodes = window.nodes_at_row(row as f64 + (i as f64 + 0.5) / samples as f64);
                for (ends, sums) in nodes.windows(2).zip(sums.chunks_mut(EXACT_EVERY_PX)) {
                    let [x, y] = ends[0].map(|v| v as f32);
                    let [dx, dy] = [
                        (ends[1][0] - ends[0][0]) as f32,
                        (ends[1][1] - ends[0][1]) as f32,
                    ];
                    for (sum, at) in sums.iter_mut().zip(across.chunks_exact(samples)) {
                        for t in at {
                            add_bilinear(mosaic, x + dx * t, y + dy * t, sum);
                        }
                    }
                }
            }
            for (rgb, sum) in line.chunks_exact_mut(3).zip(&sums) {
                for (o, s) in rgb.iter_mut().zip(sum) {
                    *o = (s * weight + 0.5) as u8;
                }
            }
        }
        patch
    }
}

/// The map pixels of a window, each with a fourth byte that makes them as wide as vector lanes.
struct Mosaic {
    width: usize,
    height: usize,
    pixels: Vec<[u8; 4]>,
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

/// Adds the bilinear colour at continuous `(x, y)`, edges repeated; the mosaic is at least 2 × 2.
#[inline]
fn add_bilinear(mosaic: &Mosaic, x: f32, y: f32, sum: &mut [f32; 4]) {
    // A hair below the last centre, so that a right and a lower neighbour always exist.
    let x = (x - 0.5).clamp(0.0, mosaic.width as f32 - 1.001);
    let y = (y - 0.5).clamp(0.0, mosaic.height as f32 - 1.001);
    let (x0, y0) = (x as usize, y as usize);
    let (fx, fy) = (x - x0 as f32, y - y0 as f32);
    let at = y0 * mosaic.width + x0;
    let upper = &mosaic.pixels[at..at + 2];
    let lower = &mosaic.pixels[at + mosaic.width..at + mosaic.width + 2];
    let [a, b, c, d] = [
        (1.0 - fx) * (1.0 - fy),
        fx * (1.0 - fy),
        (1.0 - fx) * fy,
        fx * fy,
    ];
    let [p, q] = [upper[0], upper[1]].map(|pixel| pixel.map(f32::from));
    let [r, s] = [lower[0], lower[1]].map(|pixel| pixel.map(f32::from));
    for k in 0..4 {
        sum[k] += p[k] * a + q[k] * b + r[k] * c + s[k] * d;
    }
}
#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::georeference::geodetic_from_tile_pixel;
    use crate::{LocalFrame, PatchSpec};

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
            (-85.05, 179.999, 15),
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
