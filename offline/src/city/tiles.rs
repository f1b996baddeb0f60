//! A district's aerial picture as web-mercator tiles.

use super::PlacedDistrict;
use super::dice::Dice;
use super::district::SIDE_M;
use super::sensor::Exposure;
use crossfix_calibration::mercator::{geodetic_from_world_pixel, world_pixel_from_geodetic};
use crossfix_calibration::{Geodetic, RgbImage, TileId};
use rayon::prelude::*;

/// Default zoom of the tiles: 0.37 m per pixel at the simulated latitude.
pub const ZOOM: u8 = 18;
/// Pixels along a side of a tile.
pub const TILE_PX: usize = 256;
const AERIAL_SENSOR: u64 = 20;

/// Every tile that the district touches, in order; beyond its border its edge is repeated.
pub fn render(placed: &PlacedDistrict) -> Vec<(TileId, RgbImage)> {
    render_each(placed, |id, tile| (id, tile))
}

/// As [`render`], each tile given to `take` at once, so that few are held as pixels.
pub fn render_each<T: Send>(
    placed: &PlacedDistrict,
    take: impl Fn(TileId, RgbImage) -> T + Sync,
) -> Vec<T> {
    let zoom = placed.detail.zoom;
    let side = f64::from(SIDE_M);
    let corners = [[0.0, 0.0], [side, 0.0], [side, side], [0.0, side]].map(|corner| {
        let place = placed.geodetic(corner);
        world_pixel_from_geodetic(place.latitude_deg, place.longitude_deg, zoom, TILE_PX)
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
        .flat_map(|y| (west..=east).map(move |x| TileId { zoom, x, y }))
        .collect();
    // One flight, one exposure.
    let style = &placed.district.style.aerial_sensor;
    let exposure = Exposure::new(style, &mut Dice::new(placed.seed, &[AERIAL_SENSOR]));
    ids.into_par_iter()
        .map(|id| take(id, render_tile(placed, id, &exposure)))
        .collect()
}

fn render_tile(placed: &PlacedDistrict, id: TileId, exposure: &Exposure) -> RgbImage {
    // Over a tile (94 m at zoom 18) the map from its pixels to local metres is bilinear to well below 1 mm.
    let corner = |right: u32, down: u32| {
        let pixel = [f64::from(id.x + right), f64::from(id.y + down)].map(|p| p * TILE_PX as f64);
        let [latitude_deg, longitude_deg] = geodetic_from_world_pixel(pixel, id.zoom, TILE_PX);
        let local = placed.local(Geodetic {
            latitude_deg,
            longitude_deg,
            height_m: 0.0,
        });
        placed
            .district
            .grid
            .point(local.map(|metres| metres as f32))
    };
    let corners = [corner(0, 0), corner(1, 0), corner(0, 1), corner(1, 1)];
    let pixels = sample(&placed.district.aerial, &corners);
    let salt = (u64::from(id.x) << 32) | u64::from(id.y);
    exposure.develop(TILE_PX, TILE_PX, pixels.into_iter(), salt)
}

/// The light on each tile pixel, the tile's corners given as (column, row) of the raster.
fn sample(aerial: &RgbImage, corners: &[[f32; 2]; 4]) -> Vec<[f32; 3]> {
    let cells = (corners[1][0] - corners[0][0]) / TILE_PX as f32;
    // Samples of the raster per tile pixel and axis: two are 0.18 m apart at zoom 18, finer than
    // its cells. Where the pixels are finer themselves, light is interpolated between cells.
    match (1.1 * cells).ceil() as usize {
        0 | 1 => interpolate(aerial, corners),
        samples => average(aerial, corners, samples),
    }
}

/// Start and step of `lines`-many points along the `line`-th of as many lines across a tile.
fn scan_line(corners: &[[f32; 2]; 4], line: usize, lines: usize) -> [[f32; 2]; 2] {
    let down = (line as f32 + 0.5) / lines as f32;
    let at = |right: usize, axis: usize| {
        let (upper, lower) = (corners[right][axis], corners[right + 2][axis]);
        upper + down * (lower - upper)
    };
    let start = [at(0, 0), at(0, 1)];
    let step = [0, 1].map(|axis| (at(1, axis) - start[axis]) / lines as f32);
    [start, step]
}

fn average(aerial: &RgbImage, corners: &[[f32; 2]; 4], samples: usize) -> Vec<[f32; 3]> {
    let lines = TILE_PX * samples;
    let last = (aerial.width - 1) as f32;
    let mut sums = vec![[0_u16; 3]; TILE_PX * TILE_PX];
    for line in 0..lines {
        let [start, step] = scan_line(corners, line, lines);
        let row = line / samples * TILE_PX;
        for (column, sum) in sums[row..row + TILE_PX].iter_mut().enumerate() {
            for part in 0..samples {
                let along = (column * samples + part) as f32 + 0.5;
                let [x, y] =
                    [0, 1].map(|axis| (start[axis] + along * step[axis]).clamp(0.0, last) as usize);
                let cell = 3 * (y * aerial.width + x);
                for (sum, channel) in sum.iter_mut().zip(&aerial.data[cell..cell + 3]) {
                    *sum += u16::from(*channel);
                }
            }
        }
    }
    let count = (samples * samples) as f32;
    sums.into_iter()
        .map(|sum| sum.map(|total| f32::from(total) / count))
        .collect()
}

fn interpolate(aerial: &RgbImage, corners: &[[f32; 2]; 4]) -> Vec<[f32; 3]> {
    // The last cell that has a neighbour to the right and below.
    let last = (aerial.width - 2) as f32;
    let mut pixels = Vec::with_capacity(TILE_PX * TILE_PX);
    for line in 0..TILE_PX {
        let [start, step] = scan_line(corners, line, TILE_PX);
        for column in 0..TILE_PX {
            let along = column as f32 + 0.5;
            let [x, y] =
                [0, 1].map(|axis| (start[axis] + along * step[axis] - 0.5).clamp(0.0, last));
            let upper = 3 * (y as usize * aerial.width + x as usize);
            let lower = upper + 3 * aerial.width;
            let (right, down) = (x.fract(), y.fract());
            pixels.push(std::array::from_fn(|channel| {
                let [a, b, c, d] = [upper, upper + 3, lower, lower + 3]
                    .map(|at| f32::from(aerial.data[at + channel]));
                let (above, below) = (a + right * (b - a), c + right * (d - c));
                above + down * (below - above)
            }));
        }
    }
    pixels
}
