//! The tiles around the pairs: there, with ground on them, joined at their borders, of the stated scale; and
//! where they are not, whether they would be under another reading of the positions or of the tiles' names.

use super::{Report, Rows};
use crate::data::pairs::PairRow;
use crate::data::pairs::TilePool;
use crate::model::ModelSpec;
use crossfix_calibration::mercator::{ground_resolution, world_pixel_from_geodetic};
use crossfix_calibration::{Geodetic, LocalFrame, PatchGeoreference, PatchSpec, RgbImage, TileId};
use crossfix_onboard::tiles::{TileError, TileManifest, TileStore};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Patch that is looked at when no network is named: the compact network's.
const PATCH: PatchSpec = PatchSpec {
    size_px: 128,
    metres_per_pixel: 0.5,
};
/// Grid on which patches are centred, as training does.
const GRID_M: f64 = 8.0;
/// Share of positions on tiles below which another reading is looked for.
const MOSTLY: f64 = 0.5;
/// Share of positions on tiles from which another reading explains the data.
const EXPLAINS: f64 = 0.8;
/// Share of a tile in exactly one extreme colour from which it is taken for no data.
const MOST_EMPTY: f64 = 0.25;
/// Borders of tiles may differ this many times as much as neighbouring pixels.
const MOST_BORDER: f64 = 3.0;
/// Borders that are needed to say so.
const LEAST_BORDERS: usize = 10;

/// Metres between the coarse positions of two rows.
pub(super) fn distance_m(a: &PairRow, b: &PairRow) -> f64 {
    let place = |row: &PairRow| Geodetic {
        latitude_deg: row.latitude_deg,
        longitude_deg: row.longitude_deg,
        height_m: 0.0,
    };
    let enu = LocalFrame::new(place(a)).enu_from_geodetic(place(b));
    enu.east().hypot(enu.north())
}

/// Other ways in which positions are written, by what they would be called.
const READINGS: [(&str, fn([f64; 2]) -> [f64; 2]); 6] = [
    ("latitude and longitude exchanged", |[lat, lon]| [lon, lat]),
    ("longitudes counted westward", |[lat, lon]| [lat, -lon]),
    ("latitudes counted southward", |[lat, lon]| [-lat, lon]),
    ("both signs exchanged", |[lat, lon]| [-lat, -lon]),
    ("degrees and minutes (ddmm.mmmm) divided by 100", |place| {
        place.map(|value| {
            let value = value * 100.0;
            (value / 100.0).trunc() + value % 100.0 / 60.0
        })
    }),
    ("radians", |place| place.map(f64::to_degrees)),
];

/// Looks at the tile set; its description if there is one that can be opened.
pub(super) fn look(
    rows: &Rows,
    spec: Option<&ModelSpec>,
    sample: Option<usize>,
    report: &mut Report,
) -> Option<TileManifest> {
    let path = rows.folder.join(&rows.manifest.as_ref()?.tiles);
    let name = rows.manifest.as_ref()?.tiles.display().to_string();
    let mut store = match TileStore::open(&path) {
        Ok(store) => store,
        Err(error) => {
            let remedy = "GUIDE.md says what a tile set needs";
            report.problem("tiles", (&name, None), error.to_string(), remedy);
            return None;
        }
    };
    let tiles = store.manifest().clone();
    if !readings(&mut store, &name, rows, report) {
        return None;
    }
    scale(&tiles, &name, rows, report);
    let patch = spec.map_or(PATCH, |spec| PatchSpec {
        size_px: spec.aerial_px,
        metres_per_pixel: spec.metres_per_pixel,
    });
    // Computed again where it is needed: of a million pairs they would fill memory.
    let needed = |row: &PairRow| {
        let place = Geodetic {
            latitude_deg: row.latitude_deg,
            longitude_deg: row.longitude_deg,
            height_m: 0.0,
        };
        let patch = PatchGeoreference::centred_on(place, patch, GRID_M);
        let ids = patch.and_then(|patch| patch.tiles(tiles.zoom, tiles.tile_px));
        (place, ids.unwrap_or_default())
    };
    let mut there: HashMap<TileId, bool> = HashMap::new();
    for (_, row) in &rows.rows {
        for id in needed(row).1 {
            there.entry(id).or_insert_with(|| store.has(id));
        }
    }
    drop(store);
    let mut some: BTreeSet<TileId> = BTreeSet::new();
    for row in rows.spread(sample) {
        let ids = needed(&rows.rows[row].1).1;
        some.extend(ids.iter().filter(|id| there[id]));
    }
    let looked = decode(&path, &some.into_iter().collect::<Vec<_>>());
    report.tiles = looked.len();
    for (id, tile) in &looked {
        one_tile(&name, *id, tile, report);
    }
    borders(&name, &looked, report);
    // A tile without ground is as good as none.
    for (id, tile) in &looked {
        if matches!(tile, Ok(tile) if tile.covered == 0.0) {
            there.insert(*id, false);
        }
    }
    let partly = |id: &&TileId| matches!(looked.get(*id), Some(Ok(tile)) if tile.covered < 1.0);
    let mut pool = TileStore::open(&path).ok()?;
    for (line, row) in &rows.rows {
        let (place, ids) = needed(row);
        let missing = ids.iter().filter(|id| !there[id]).count();
        let at = ("pairs.jsonl", Some(*line));
        let remedy = "add tiles there, or leave the rows out; transparent ground is not covered";
        if missing > 0 {
            let what = format!(
                "{:.5}, {:.5}: {missing} of the {} tiles around it are not in {name} or transparent",
                row.latitude_deg,
                row.longitude_deg,
                ids.len()
            );
            report.problem("tiles-not-covered", at, what, remedy);
        } else if ids.iter().any(|id| partly(&id))
            && let Err(error @ TileError::NotCovered { .. }) = pool.patch(place, patch, GRID_M)
        {
            let what = format!("part of the ground is transparent: {error}");
            report.problem("tiles-not-covered", at, what, remedy);
        }
    }
    Some(tiles)
}

/// Whether the stated resolution is that of the zoom at the pairs' latitude.
fn scale(tiles: &TileManifest, name: &str, rows: &Rows, report: &mut Report) {
    let mut latitudes: Vec<f64> = rows.rows.iter().map(|(_, row)| row.latitude_deg).collect();
    latitudes.sort_by(f64::total_cmp);
    let Some(latitude_deg) = latitudes.get(latitudes.len() / 2) else {
        return;
    };
    let right = ground_resolution(*latitude_deg, tiles.zoom, tiles.tile_px);
    let ratio = tiles.metres_per_pixel / right;
    if !(0.95..=1.05).contains(&ratio) {
        let what = format!(
            "metres_per_pixel = {} in its description, and zoom {} with {} px tiles has {right:.4} at latitude {latitude_deg:.2}",
            tiles.metres_per_pixel, tiles.zoom, tiles.tile_px
        );
        let remedy = "correct zoom, tile_px or metres_per_pixel: one of them is another tile set's, or positions are elsewhere";
        report.problem("tiles-scale", (name, None), what, remedy);
    }
}

/// Whether most positions lie on a tile; if not, what they or the tiles' names could mean instead.
fn readings(store: &mut TileStore, name: &str, rows: &Rows, report: &mut Report) -> bool {
    if rows.rows.is_empty() {
        return false;
    }
    let (zoom, tile_px) = (store.manifest().zoom, store.manifest().tile_px);
    let last = (1u32 << zoom) - 1;
    let mut asked: HashMap<TileId, bool> = HashMap::new();
    let mut share = |place: &dyn Fn([f64; 2]) -> [f64; 2], tile: &dyn Fn(TileId) -> TileId| {
        share_on_tiles(rows, (zoom, tile_px), place, |id| {
            let id = tile(id);
            *asked.entry(id).or_insert_with(|| store.has(id))
        })
    };
    let plain = share(&|place| place, &|id| id);
    if plain > MOSTLY {
        return true;
    }
    let at = ("pairs.jsonl", None);
    let percent = 100.0 * plain;
    let south = |id: TileId| TileId {
        y: last - id.y,
        ..id
    };
    let turned = |id: TileId| TileId {
        x: id.y,
        y: id.x,
        ..id
    };
    // Rows counted from the south put tiles where latitudes of the other sign are; their borders tell.
    let southern = share(&|place| place, &south) >= EXPLAINS;
    let on_tiles: Vec<TileId> = asked
        .iter()
        .filter(|(_, there)| **there)
        .map(|(id, _)| *id)
        .collect();
    if southern && joins_northward(store, &on_tiles) {
        let what = format!(
            "{percent:.0} % of the positions are on tiles; nearly all are with rows counted from the south (TMS)"
        );
        let remedy = "name tiles zoom/x/y with y growing southward, as web maps do";
        report.problem("tiles-rows", (name, None), what, remedy);
        return false;
    }
    let mut share = |place: &dyn Fn([f64; 2]) -> [f64; 2], tile: &dyn Fn(TileId) -> TileId| {
        share_on_tiles(rows, (zoom, tile_px), place, |id| {
            let id = tile(id);
            *asked.entry(id).or_insert_with(|| store.has(id))
        })
    };
    for (words, reading) in READINGS {
        if share(&reading, &|id| id) >= EXPLAINS {
            let what =
                format!("{percent:.0} % of the positions are on tiles; nearly all are as {words}");
            let remedy = "write latitude_deg and longitude_deg in degrees, north and east positive";
            report.problem("positions", at, what, remedy);
            return false;
        }
    }
    if share(&|place| place, &turned) >= EXPLAINS {
        let what = format!(
            "{percent:.0} % of the positions are on tiles; nearly all are with folders zoom/y/x"
        );
        let remedy = "name tiles zoom/x/y with y growing southward, as web maps do";
        report.problem("tiles-rows", (name, None), what, remedy);
        return false;
    }
    let what = format!("{percent:.0} % of the positions are on one of its tiles");
    let remedy = "take tiles of this area, or positions of this area; zoom in the description is that of the tiles";
    report.problem("tiles-not-covered", (name, None), what, remedy);
    false
}

/// Share of the rows that are on a tile, by `there`, when their positions are read as `place` says.
fn share_on_tiles(
    rows: &Rows,
    (zoom, tile_px): (u8, usize),
    place: &dyn Fn([f64; 2]) -> [f64; 2],
    mut there: impl FnMut(TileId) -> bool,
) -> f64 {
    let last = (1u32 << zoom) - 1;
    let on_tile = rows.rows.iter().filter(|(_, row)| {
        let [latitude, longitude] = place([row.latitude_deg, row.longitude_deg]);
        if !(latitude.abs() < 85.0 && longitude.abs() <= 180.0) {
            return false;
        }
        let [x, y] = world_pixel_from_geodetic(latitude, longitude, zoom, tile_px);
        let id = |pixel: f64| ((pixel / tile_px as f64) as u32).min(last);
        there(TileId {
            zoom,
            x: id(x),
            y: id(y),
        })
    });
    on_tile.count() as f64 / rows.rows.len() as f64
}

/// Whether tiles go on in the tile of the next higher row at their upper border rather than their lower one.
fn joins_northward(store: &mut TileStore, ids: &[TileId]) -> bool {
    let (mut up, mut down, mut count) = (0.0, 0.0, 0);
    for id in ids {
        let next = TileId { y: id.y + 1, ..*id };
        let (Ok(Some(tile)), Ok(Some(next))) = (store.tile(*id), store.tile(next)) else {
            continue;
        };
        let bottom = tile.height - 1;
        for column in 0..tile.width {
            up += difference(tile.pixel(column, 0), next.pixel(column, bottom));
            down += difference(tile.pixel(column, bottom), next.pixel(column, 0));
        }
        count += 1;
        if count == 20 {
            break;
        }
    }
    count > 0 && up < 0.7 * down
}

/// What was seen of one tile.
struct Tile {
    covered: f64,
    /// Share in exactly black or exactly white.
    empty: f64,
    /// Mean difference of neighbours in a row.
    neighbours: f64,
    /// Its first and last column and row.
    edges: [Vec<[u8; 3]>; 4],
}

fn decode(path: &std::path::Path, ids: &[TileId]) -> BTreeMap<TileId, Result<Tile, String>> {
    let Ok(pool) = TilePool::open(path.into()) else {
        return BTreeMap::new();
    };
    let see = |(index, id): (usize, &TileId)| {
        let tile = pool.with(index, |store| {
            Ok((store.tile(*id)?, store.covered_fraction(*id)?))
        });
        let tile = tile.map(|(image, covered)| of_image(image, covered));
        (*id, tile.map_err(|error| error.to_string()))
    };
    ids.par_iter().enumerate().map(see).collect()
}

fn of_image(image: Option<Arc<RgbImage>>, covered: f64) -> Tile {
    let Some(image) = image else {
        return Tile {
            covered,
            empty: 0.0,
            neighbours: 0.0,
            edges: Default::default(),
        };
    };
    let (width, height) = (image.width, image.height);
    let pixels = image.data.chunks_exact(3);
    let extreme = |pixel: &[u8]| pixel == [0; 3] || pixel == [u8::MAX; 3];
    let empty = pixels.filter(|pixel| extreme(pixel)).count();
    let rows = (0..height).step_by(8);
    let neighbours: f64 = rows
        .clone()
        .map(|row| {
            let columns = (0..width - 1).step_by(2);
            let count = columns.len() as f64;
            let sum: f64 = columns
                .map(|column| difference(image.pixel(column, row), image.pixel(column + 1, row)))
                .sum();
            sum / count
        })
        .sum();
    let column = |column: usize| (0..height).map(|row| image.pixel(column, row)).collect();
    let row = |row: usize| (0..width).map(|column| image.pixel(column, row)).collect();
    Tile {
        covered,
        empty: empty as f64 / (width * height) as f64,
        neighbours: neighbours / rows.len() as f64,
        edges: [column(0), column(width - 1), row(0), row(height - 1)],
    }
}

fn difference(a: [u8; 3], b: [u8; 3]) -> f64 {
    (0..3).map(|k| f64::from(a[k].abs_diff(b[k]))).sum::<f64>() / 3.0
}

fn one_tile(name: &str, id: TileId, tile: &Result<Tile, String>, report: &mut Report) {
    let file = format!("{name}, tile {}/{}/{}", id.zoom, id.x, id.y);
    match tile {
        Err(what) => {
            let remedy = "write the tile set again";
            report.problem("tiles-damaged", (&file, None), what.clone(), remedy);
        }
        Ok(tile) if tile.empty > MOST_EMPTY => {
            let percent = 100.0 * tile.empty;
            let what = format!("{percent:.0} % of it is exactly black or exactly white");
            let remedy = "pixels without data must be transparent (PNG or WebP), or the tile left out; black ground would be learned";
            report.problem("tiles-no-data", (&file, None), what, remedy);
        }
        Ok(_) => {}
    }
}

/// Neighbouring tiles go on in one another.
fn borders(name: &str, tiles: &BTreeMap<TileId, Result<Tile, String>>, report: &mut Report) {
    let good = |id: TileId| match tiles.get(&id) {
        Some(Ok(tile)) if tile.covered == 1.0 && tile.empty < MOST_EMPTY => Some(tile),
        _ => None,
    };
    let mut ratios = Vec::new();
    for id in tiles.keys() {
        let Some(tile) = good(*id) else { continue };
        let east = TileId { x: id.x + 1, ..*id };
        let south = TileId { y: id.y + 1, ..*id };
        for (other, [mine, theirs]) in [(east, [1, 0]), (south, [3, 2])] {
            let Some(other) = good(other) else { continue };
            let pairs = tile.edges[mine].iter().zip(&other.edges[theirs]);
            let sum: f64 = pairs.clone().map(|(a, b)| difference(*a, *b)).sum();
            let usual = 0.5 * (tile.neighbours + other.neighbours);
            ratios.push((sum / pairs.len() as f64 + 1.0) / (usual + 1.0));
        }
    }
    if ratios.len() < LEAST_BORDERS {
        return;
    }
    ratios.sort_by(f64::total_cmp);
    let ratio = ratios[ratios.len() / 2];
    if ratio > MOST_BORDER {
        let what = format!(
            "at the borders of tiles colours change {ratio:.1} times as much as between neighbouring pixels"
        );
        let remedy = "tiles are named wrongly (rows from the south, another zoom), or each was scaled or turned by itself";
        report.problem("tiles-borders", (name, None), what, remedy);
    }
}
