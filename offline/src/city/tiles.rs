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
/// Samples of the raster per tile pixel and axis: 0.12 m apart, finer than its cells.
const SAMPLES: usize = 3;
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
    let aerial = &placed.district.aerial.data;
    let last = (SIDE_CELLS - 1) as f32;
    let pixels = (0..TILE_PX * TILE_PX).map(|index| {
        let (column, row) = (index % TILE_PX, index / TILE_PX);
        let mut sum = [0_u32; 3];
        for sample in 0..SAMPLES * SAMPLES {
            let part = |whole: usize, part: usize| {
                (whole as f32 + (part as f32 + 0.5) / SAMPLES as f32) / TILE_PX as f32
            };
            let (s, t) = (part(column, sample % SAMPLES), part(row, sample / SAMPLES));
            let at: [usize; 2] = std::array::from_fn(|i| {
                let upper = corners[0][i] + s * (corners[1][i] - corners[0][i]);
                let lower = corners[2][i] + s * (corners[3][i] - corners[2][i]);
                (upper + t * (lower - upper)).clamp(0.0, last) as usize
            });
            let start = 3 * (at[1] * SIDE_CELLS + at[0]);
            for (sum, channel) in sum.iter_mut().zip(&aerial[start..start + 3]) {
                *sum += u32::from(*channel);
            }
        }
        sum.map(|total| total as f32 / (SAMPLES * SAMPLES) as f32)
    });
    let salt = (u64::from(id.x) << 32) | u64::from(id.y);
    exposure.develop(TILE_PX, TILE_PX, pixels, salt)
}
