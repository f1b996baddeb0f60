//! Web Mercator tiles from aerial pictures.

use super::geotiff::GeoTiff;
use crate::data::pairs::write::{JPEG_QUALITY, write_file, write_tiles};
use anyhow::{Context, bail};
use crossfix_calibration::TileId;
use crossfix_calibration::mercator::{
    geodetic_from_world_pixel, ground_resolution, world_pixel_from_geodetic,
};
use crossfix_onboard::tiles::TileManifest;
use image::codecs::jpeg::JpegEncoder;
use image::{ImageFormat, RgbaImage};
use std::collections::BTreeSet;
use std::io::Cursor;
use std::path::PathBuf;

/// Side of a tile, pixels.
const TILE_PX: u32 = 256;
/// Tile pixels between places that are worked out exactly.
const EXACT_EVERY_PX: u32 = 16;
/// Samples of a tile pixel along each axis, at most.
const MOST_SAMPLES: usize = 6;
/// Most tiles of one set.
const MOST_TILES: usize = 2_000_000;

/// Arguments of `crossfix tiles import`.
#[derive(Debug, Clone, clap::Args)]
pub struct TilesImportArgs {
    /// Aerial pictures as GeoTIFF or COG, 8 bits: EPSG:3857, 4326, 4258, UTM (WGS 84, ETRS89), 2154, 3812, 3035. The
    /// first that shows a place wins.
    #[arg(required = true)]
    pub pictures: Vec<PathBuf>,
    /// The archive to write (.pmtiles); its description goes beside it as .toml.
    #[arg(long)]
    pub out: PathBuf,
    /// EPSG number of the pictures' reference system, where they do not say it.
    #[arg(long)]
    pub epsg: Option<u32>,
    /// Zoom of the tiles [default: the first that is as fine as the pictures].
    #[arg(long, value_parser = clap::value_parser!(u8).range(10..=22))]
    pub zoom: Option<u8>,
    /// 1-sigma error of the pictures' georeference, metres; the supplier states it.
    #[arg(long)]
    pub georef_sigma_m: f64,
    /// Day of the flight, YYYY-MM-DD (or YYYY-MM or YYYY).
    #[arg(long)]
    pub capture_date: String,
    /// Words that must accompany the pictures.
    #[arg(long)]
    pub attribution: String,
    /// Licence of the pictures, as an SPDX expression or its name.
    #[arg(long)]
    pub licence: String,
}

/// Runs it.
///
/// # Errors
/// When a picture cannot be used, or the disk refuses.
pub fn run(args: &TilesImportArgs) -> anyhow::Result<()> {
    let made = import(args)?;
    crate::outln!(
        "{}: {} tiles of zoom {} ({:.3} m a pixel), {} of them with ground that is not covered, {:.2} km²",
        args.out.display(),
        made.tiles,
        made.zoom,
        made.metres_per_pixel,
        made.partly,
        made.km2
    );
    if made.moves {
        crate::note!(
            "the pictures are tied to a plate (ETRS89), which has moved from WGS 84 by about 2.5 cm a year since 1989: some 0.9 m in Europe. `crossfix adapt` and `calibrate` find it as the tiles' offset"
        );
    }
    Ok(())
}

/// What was made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Made {
    /// Tiles written.
    pub tiles: usize,
    /// Of these, tiles of which part is transparent.
    pub partly: usize,
    /// Their zoom.
    pub zoom: u8,
    /// Their resolution on the ground.
    pub metres_per_pixel: f64,
    /// Ground that is covered.
    pub km2: f64,
    /// Whether the pictures' system moves against WGS 84.
    pub moves: bool,
}

/// Makes the tile set.
///
/// # Errors
/// As [`run`].
pub fn import(args: &TilesImportArgs) -> anyhow::Result<Made> {
    if args.out.extension().is_none_or(|name| name != "pmtiles") {
        bail!(
            "--out {}: give a name that ends in .pmtiles",
            args.out.display()
        );
    }
    for path in [args.out.clone(), args.out.with_extension("toml")] {
        if path.exists() {
            bail!(
                "{} is there already; give another --out or remove it",
                path.display()
            );
        }
    }
    let mut pictures = Vec::new();
    for path in &args.pictures {
        pictures.push(GeoTiff::open(path, args.epsg).map_err(anyhow::Error::msg)?);
    }
    let (latitude_deg, resolution) = middle_of(&pictures[0]).with_context(|| {
        format!(
            "{}: its middle is nowhere on Earth; is --epsg right?",
            args.pictures[0].display()
        )
    })?;
    let zoom = args.zoom.unwrap_or_else(|| {
        let fine = |zoom: &u8| {
            ground_resolution(latitude_deg, *zoom, TILE_PX as usize) <= 1.1 * resolution
        };
        (10..=22).find(fine).unwrap_or(22)
    });
    let metres_per_pixel = ground_resolution(latitude_deg, zoom, TILE_PX as usize);
    let manifest = TileManifest {
        zoom,
        tile_px: TILE_PX as usize,
        metres_per_pixel,
        georef_sigma_m: args.georef_sigma_m,
        capture_date: args.capture_date.clone(),
        attribution: args.attribution.clone(),
        licence: args.licence.clone(),
        source: Some(format!(
            "crossfix tiles import of {} pictures",
            pictures.len()
        )),
    };
    manifest.check().map_err(anyhow::Error::msg)?;
    let ids = tiles_of(&pictures, zoom)?;
    if ids.len() > MOST_TILES {
        bail!(
            "{} tiles at zoom {zoom} are too many for one set; import the pictures in parts, or with a lower --zoom",
            ids.len()
        );
    }
    let bar = crate::progress::bar("tiles", ids.len() as u64);
    let mut tiles = Vec::new();
    let (mut partly, mut covered) = (0, 0usize);
    for id in ids {
        let tile = paint(&mut pictures, id).map_err(anyhow::Error::msg)?;
        bar.inc(1);
        let opaque = tile.pixels().filter(|pixel| pixel.0[3] > 0).count();
        if opaque == 0 {
            continue;
        }
        covered += opaque;
        let whole = opaque == (TILE_PX * TILE_PX) as usize;
        partly += usize::from(!whole);
        tiles.push((id, encoded(tile, whole)?));
    }
    bar.finish_and_clear();
    if tiles.is_empty() {
        bail!("the pictures show nothing: all of them is transparent or without data");
    }
    // The kind of the archive is that of most of its tiles.
    tiles.sort_by_key(|(_, bytes)| bytes[0] == 0x89);
    let count = tiles.len();
    let made = Made {
        tiles: count,
        partly,
        zoom,
        metres_per_pixel,
        km2: covered as f64 * metres_per_pixel.powi(2) / 1e6,
        moves: pictures.iter().any(|picture| picture.projection.moves),
    };
    write_tiles(&args.out, tiles, &manifest)?;
    let text = toml::to_string(&manifest).context("cannot write the description")?;
    write_file(&args.out.with_extension("toml"), text.as_bytes())?;
    Ok(made)
}

/// Latitude of the middle of a picture, and its resolution there in metres.
fn middle_of(picture: &GeoTiff) -> Option<(f64, f64)> {
    let middle = picture.size.map(|size| f64::from(size) / 2.0);
    let here = picture.place(middle)?;
    let there = picture.place([middle[0] + 10.0, middle[1]])?;
    let place = |[latitude, longitude]: [f64; 2]| {
        crossfix_calibration::Geodetic::new(latitude, longitude, 0.0).ok()
    };
    let frame = crossfix_calibration::LocalFrame::new(place(here)?);
    let enu = frame.enu_from_geodetic(place(there)?);
    Some((here[0], enu.east().hypot(enu.north()) / 10.0))
}

/// The tiles that the pictures touch.
fn tiles_of(pictures: &[GeoTiff], zoom: u8) -> anyhow::Result<BTreeSet<TileId>> {
    let mut ids = BTreeSet::new();
    for picture in pictures {
        let [columns, rows] = picture.size.map(f64::from);
        let (mut low, mut high) = ([f64::INFINITY; 2], [f64::NEG_INFINITY; 2]);
        // Borders are curves in Web Mercator.
        for step in 0..=32 {
            let share = f64::from(step) / 32.0;
            for pixel in [
                [share * columns, 0.0],
                [share * columns, rows],
                [0.0, share * rows],
                [columns, share * rows],
            ] {
                let Some([latitude, longitude]) = picture.place(pixel) else {
                    continue;
                };
                if latitude.abs() > 85.0 {
                    bail!("a picture reaches latitude {latitude:.2}; Web Mercator ends at 85");
                }
                let world = world_pixel_from_geodetic(latitude, longitude, zoom, TILE_PX as usize);
                for axis in 0..2 {
                    low[axis] = low[axis].min(world[axis]);
                    high[axis] = high[axis].max(world[axis]);
                }
            }
        }
        if !low.iter().chain(&high).all(|value| value.is_finite()) {
            bail!("a picture is nowhere on Earth; is --epsg right?");
        }
        let tile = |value: f64| (value / f64::from(TILE_PX)).floor() as u32;
        if f64::from(tile(high[0]) - tile(low[0])) * f64::from(tile(high[1]) - tile(low[1]))
            > MOST_TILES as f64
        {
            bail!(
                "a picture covers too much for zoom {zoom}; import it in parts, or with a lower --zoom"
            );
        }
        for y in tile(low[1])..=tile(high[1]) {
            for x in tile(low[0])..=tile(high[0]) {
                ids.insert(TileId { zoom, x, y });
            }
        }
    }
    Ok(ids)
}

/// A tile from the first picture that shows each pixel, averaged where pictures are finer.
fn paint(pictures: &mut [GeoTiff], id: TileId) -> Result<RgbaImage, String> {
    let mut tile = RgbaImage::new(TILE_PX, TILE_PX);
    for picture in pictures {
        if tile.pixels().all(|pixel| pixel.0[3] > 0) {
            break;
        }
        paint_from(picture, id, &mut tile)?;
    }
    Ok(tile)
}

fn paint_from(picture: &mut GeoTiff, id: TileId, tile: &mut RgbaImage) -> Result<(), String> {
    let cells = TILE_PX / EXACT_EVERY_PX;
    // Picture pixels of a coarse grid of tile pixels.
    let mut nodes = Vec::with_capacity(((cells + 1) * (cells + 1)) as usize);
    for row in 0..=cells {
        for column in 0..=cells {
            let world = [
                f64::from(id.x * TILE_PX + column * EXACT_EVERY_PX),
                f64::from(id.y * TILE_PX + row * EXACT_EVERY_PX),
            ];
            let place = geodetic_from_world_pixel(world, id.zoom, TILE_PX as usize);
            let Some(coordinates) = picture.projection.forward(place) else {
                return Ok(());
            };
            nodes.push(picture.pixel(coordinates));
        }
    }
    let [columns, rows] = picture.size.map(f64::from);
    let outside = |axis: usize, size: f64| {
        nodes.iter().all(|node: &[f64; 2]| node[axis] < -1.0)
            || nodes.iter().all(|node| node[axis] > size + 1.0)
    };
    if outside(0, columns) || outside(1, rows) {
        return Ok(());
    }
    let side = (cells + 1) as usize;
    let step =
        (nodes[1][0] - nodes[0][0]).hypot(nodes[1][1] - nodes[0][1]) / f64::from(EXACT_EVERY_PX);
    let samples = ((step - 0.1).ceil().max(1.0) as usize).min(MOST_SAMPLES);
    for row in 0..TILE_PX {
        for column in 0..TILE_PX {
            if tile.get_pixel(column, row).0[3] > 0 {
                continue;
            }
            let (mut sum, mut weight) = ([0.0f64; 3], 0.0);
            for part in 0..samples * samples {
                let at = |value: u32, part: usize| {
                    (f64::from(value) + (part as f64 + 0.5) / samples as f64)
                        / f64::from(EXACT_EVERY_PX)
                };
                let (u, v) = (at(column, part % samples), at(row, part / samples));
                let (i, j) = ((u as usize).min(side - 2), (v as usize).min(side - 2));
                let (fu, fv) = (u - i as f64, v - j as f64);
                let node = |di: usize, dj: usize| nodes[(j + dj) * side + i + di];
                let source = [0, 1].map(|axis| {
                    let upper = node(0, 0)[axis] * (1.0 - fu) + node(1, 0)[axis] * fu;
                    let lower = node(0, 1)[axis] * (1.0 - fu) + node(1, 1)[axis] * fu;
                    upper * (1.0 - fv) + lower * fv
                });
                bilinear(picture, source, &mut sum, &mut weight)?;
            }
            // A pixel shows ground when most of it does.
            if weight > 0.5 * (samples * samples) as f64 {
                let colour = sum.map(|value| (value / weight + 0.5) as u8);
                tile.put_pixel(
                    column,
                    row,
                    image::Rgba([colour[0], colour[1], colour[2], 255]),
                );
            }
        }
    }
    Ok(())
}

/// Adds the colour at a continuous pixel, of those of its four neighbours that show something.
fn bilinear(
    picture: &mut GeoTiff,
    [x, y]: [f64; 2],
    sum: &mut [f64; 3],
    weight: &mut f64,
) -> Result<(), String> {
    let (x, y) = (x - 0.5, y - 0.5);
    let (left, top) = (x.floor(), y.floor());
    let (fx, fy) = (x - left, y - top);
    for (dx, dy, share) in [
        (0, 0, (1.0 - fx) * (1.0 - fy)),
        (1, 0, fx * (1.0 - fy)),
        (0, 1, (1.0 - fx) * fy),
        (1, 1, fx * fy),
    ] {
        if share == 0.0 {
            continue;
        }
        if let Some(colour) = picture.colour([left as i64 + dx, top as i64 + dy])? {
            for (sum, value) in sum.iter_mut().zip(colour) {
                *sum += share * f64::from(value);
            }
            *weight += share;
        }
    }
    Ok(())
}

/// A whole tile as JPEG, one with transparent pixels as PNG.
fn encoded(tile: RgbaImage, whole: bool) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if whole {
        let rgb = image::DynamicImage::ImageRgba8(tile).into_rgb8();
        JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY).encode_image(&rgb)?;
    } else {
        tile.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png)?;
    }
    Ok(bytes)
}
