//! A district's aerial picture as web-mercator tiles.

use super::PlacedDistrict;
use super::dice::Dice;
use super::district::{SIDE_CELLS, SIDE_M, grid_point};
use super::sensor::Exposure;
use crossfix_calibration::mercator::{geodetic_from_world_pixel, world_pixel_from_geodetic};
use crossfix_calibration::{Geodetic, RgbImage, TileId};
use rayon::prelude::*;

/// Zoom of the tiles: 0.37 m per pixel at the simulated latitude.
pub const ZOOM: u8 = 18;
/// Pixels along a side of a tile.
pub const TILE_PX: usize = 256;
/// Samples of the raster per tile pixel and axis: 0.18 m apart, finer than its cells.
const SAMPLES: usize = 2;
const AERIAL_SENSOR: u64 = 20;

/// Every tile that the district touches, in order; beyond its border its edge is repeated.
pub fn render(placed: &PlacedDistrict) -> Vec<(TileId, RgbImage)> {
    let side = f64::from(SIDE_M);
    let corners = [[0.0, 0.0], [side, 0.0], [side, side], [0.0, side]].map(|corner| {
        let place = placed.geodetic(corner);
        world_pixel_from_geodetic(place.latitude_deg, place.longitude_deg, ZOOM, TILE_PX)
    });
    let tile = |axis: usize, pick: fn(f64, f64) -> f64| {
        let pixel = corners
            .iter()
            .map(|corner| corner[axis])
            .reduce(pick)
            .unwrap_or(0.0);
        (pixel / TILE_PX as f64) as u32
    };
    let (west, east) = (tile(0, f64::min), tile(0, f64::max));
    let (north, south) = (tile(1, f64::min), tile(1, f64::max));
    let ids: Vec<TileId> = (north..=south)
        .flat_map(|y| (west..=east).map(move |x| TileId { zoom: ZOOM, x, y }))
        .collect();
    // One flight, one exposure.
    let style = &placed.district.style.aerial_sensor;
    let exposure = Exposure::new(style, &mut Dice::new(placed.seed, &[AERIAL_SENSOR]));
    ids.into_par_iter()
        .map(|id| (id, render_tile(placed, id, &exposure)))
        .collect()
}

fn render_tile(placed: &PlacedDistrict, id: TileId, exposure: &Exposure) -> RgbImage {
    // Over a tile (94 m) the map from its pixels to local metres is bilinear to well below 1 mm.
    let corner = |right: u32, down: u32| {
        let pixel = [f64::from(id.x + right), f64::from(id.y + down)].map(|p| p * TILE_PX as f64);
        let [latitude_deg, longitude_deg] = geodetic_from_world_pixel(pixel, ZOOM, TILE_PX);
        let local = placed.local(Geodetic {
            latitude_deg,
            longitude_deg,
            height_m: 0.0,
        });
        grid_point(local.map(|metres| metres as f32))
    };
    let corners = [corner(0, 0), corner(1, 0), corner(0, 1), corner(1, 1)];
    let sums = sample(&placed.district.aerial, &corners);
    let pixels = sums
        .into_iter()
        .map(|sum| sum.map(|total| f32::from(total) / (SAMPLES * SAMPLES) as f32));
    let salt = (u64::from(id.x) << 32) | u64::from(id.y);
    exposure.develop(TILE_PX, TILE_PX, pixels, salt)
}

/// Sums of the samples of each tile pixel, the tile's corners given as (column, row) of the raster.
fn sample(aerial: &RgbImage, corners: &[[f32; 2]; 4]) -> Vec<[u16; 3]> {
    const LINES: usize = TILE_PX * SAMPLES;
    let last = (SIDE_CELLS - 1) as f32;
    let mut sums = vec![[0_u16; 3]; TILE_PX * TILE_PX];
    for line in 0..LINES {
        let down = (line as f32 + 0.5) / LINES as f32;
        let at = |right: usize, axis: usize| {
            let (upper, lower) = (corners[right][axis], corners[right + 2][axis]);
            upper + down * (lower - upper)
        };
        let start = [at(0, 0), at(0, 1)];
        let step = [0, 1].map(|axis| (at(1, axis) - start[axis]) / LINES as f32);
        let row = line / SAMPLES * TILE_PX;
        for (column, sum) in sums[row..row + TILE_PX].iter_mut().enumerate() {
            for part in 0..SAMPLES {
                let along = (column * SAMPLES + part) as f32 + 0.5;
                let [x, y] =
                    [0, 1].map(|axis| (start[axis] + along * step[axis]).clamp(0.0, last) as usize);
                let cell = 3 * (y * SIDE_CELLS + x);
                for (sum, channel) in sum.iter_mut().zip(&aerial.data[cell..cell + 3]) {
                    *sum += u16::from(*channel);
                }
            }
        }
    }
    sums
}
