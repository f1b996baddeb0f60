//! Aerial pictures painted with functions of the place, in several reference systems, become tiles that show the
//! same at the same places.

use super::check::look;
use super::import::import;
use super::projection::Projection;
use super::*;
use crossfix_calibration::mercator::geodetic_from_world_pixel;
use crossfix_calibration::{Enu, Geodetic, LocalFrame, PatchSpec, TileId};
use crossfix_onboard::tiles::{TileError, TileStore};
use std::fs::File;
use std::path::{Path, PathBuf};
use tiff::encoder::{TiffEncoder, colortype};
use tiff::tags::Tag;

const PLACE: [f64; 2] = [48.8566, 2.3522];

fn geodetic([latitude, longitude]: [f64; 2]) -> Geodetic {
    Geodetic::new(latitude, longitude, 0.0).unwrap()
}

/// Waves of 40 to 70 m, so that a shift by a tenth of a metre shows.
fn colour(place: [f64; 2]) -> [f64; 3] {
    let enu = LocalFrame::new(geodetic(PLACE)).enu_from_geodetic(geodetic(place));
    let wave =
        |metres: f64, length: f64| 127.5 + 90.0 * (metres / length * std::f64::consts::TAU).sin();
    [
        wave(enu.east(), 40.0),
        wave(enu.north(), 50.0),
        wave(enu.east() + enu.north(), 70.0),
    ]
}

/// A picture of `size` square pixels around the place; `paint` may change a pixel of colour and alpha.
fn picture(
    path: &Path,
    epsg: u16,
    step: f64,
    size: u32,
    no_data: Option<&str>,
    paint: impl Fn(u32, u32, [u8; 4]) -> [u8; 4],
) {
    let projection = Projection::of_epsg(epsg.into()).unwrap();
    let [x, y] = projection.forward(PLACE).unwrap();
    let half = f64::from(size) / 2.0 * step;
    let (left, top) = (x - half, y + half);
    let mut data = Vec::new();
    for row in 0..size {
        for column in 0..size {
            let at = [
                left + (f64::from(column) + 0.5) * step,
                top - (f64::from(row) + 0.5) * step,
            ];
            let [r, g, b] =
                colour(projection.inverse(at).unwrap()).map(|value| value.round() as u8);
            data.extend(paint(column, row, [r, g, b, 255]));
        }
    }
    let geographic = matches!(epsg, 4326 | 4258);
    let keys: Vec<u16> = if geographic {
        vec![1, 1, 0, 2, 1024, 0, 1, 2, 2048, 0, 1, epsg]
    } else {
        vec![1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, epsg]
    };
    let mut encoder = TiffEncoder::new(File::create(path).unwrap()).unwrap();
    let mut image = encoder.new_image::<colortype::RGBA8>(size, size).unwrap();
    image.rows_per_strip(16).unwrap();
    let tags = image.encoder();
    tags.write_tag(Tag::ModelPixelScaleTag, &[step, step, 0.0][..])
        .unwrap();
    tags.write_tag(Tag::ModelTiepointTag, &[0.0, 0.0, 0.0, left, top, 0.0][..])
        .unwrap();
    tags.write_tag(Tag::GeoKeyDirectoryTag, &keys[..]).unwrap();
    if let Some(text) = no_data {
        tags.write_tag(Tag::GdalNodata, text).unwrap();
    }
    image.write_data(&data).unwrap();
}

fn args(pictures: &[PathBuf], out: PathBuf) -> TilesImportArgs {
    TilesImportArgs {
        pictures: pictures.into(),
        out,
        epsg: None,
        zoom: None,
        georef_sigma_m: 0.3,
        capture_date: "2025-06-01".into(),
        attribution: "made up".into(),
        licence: "CC0-1.0".into(),
    }
}

/// Largest difference from the function of the place, over the middle of the covered tiles.
fn worst(out: &Path, step_px: usize) -> f64 {
    let mut store = TileStore::open(out).unwrap();
    let zoom = store.manifest().zoom;
    let middle = TileId::containing(PLACE[0], PLACE[1], zoom).unwrap();
    let tile = store.tile(middle).unwrap().expect("the middle is covered");
    let mut worst = 0.0f64;
    for row in (0..256).step_by(step_px) {
        for column in (0..256).step_by(step_px) {
            let world = [
                f64::from(middle.x * 256) + column as f64 + 0.5,
                f64::from(middle.y * 256) + row as f64 + 0.5,
            ];
            let expected = colour(geodetic_from_world_pixel(world, zoom, 256));
            let got = tile.pixel(column, row);
            for (got, expected) in got.into_iter().zip(expected) {
                worst = worst.max((f64::from(got) - expected).abs());
            }
        }
    }
    worst
}

#[test]
fn pictures_of_every_system_show_what_was_painted_there() {
    let folder = tempfile::tempdir().unwrap();
    // The waves rise by 14 grey levels a metre at most: 0.2 m are 3, JPEG adds as much.
    for (epsg, step) in [
        (3857, 0.3),
        (4326, 2e-6),
        (32631, 0.2),
        (25831, 0.2),
        (2154, 0.2),
    ] {
        let path = folder.path().join(format!("{epsg}.tif"));
        picture(&path, epsg, step, 900, None, |_, _, colour| colour);
        let out = folder.path().join(format!("{epsg}.pmtiles"));
        let made = import(&args(&[path], out.clone())).unwrap();
        assert!(made.tiles > 4 && made.partly > 0, "{epsg}: {made:?}");
        assert_eq!(made.moves, matches!(epsg, 25831 | 2154));
        let worst = worst(&out, 3);
        assert!(worst < 9.0, "EPSG:{epsg}: {worst} grey levels");
    }
}

#[test]
fn transparent_pixels_and_no_data_are_not_covered() {
    let folder = tempfile::tempdir().unwrap();
    let spec = PatchSpec {
        size_px: 40,
        metres_per_pixel: 0.5,
    };
    for (name, no_data) in [("alpha", None), ("nodata", Some("0"))] {
        let path = folder.path().join(format!("{name}.tif"));
        picture(
            &path,
            32631,
            0.25,
            800,
            no_data,
            |column, _, colour| match (column < 400, no_data) {
                (true, None) => [colour[0], colour[1], colour[2], 0],
                (true, Some(_)) => [0, 0, 0, 255],
                _ => colour,
            },
        );
        let out = folder.path().join(format!("{name}.pmtiles"));
        import(&args(&[path], out.clone())).unwrap();
        let mut store = TileStore::open(&out).unwrap();
        let frame = LocalFrame::new(geodetic(PLACE));
        let at = |east: f64| frame.geodetic_from_enu(Enu::new(east, 0.0, 0.0));
        assert!(store.patch(at(50.0), spec, 1.0).is_ok(), "{name}");
        for east in [0.0, -50.0, -300.0] {
            let patch = store.patch(at(east), spec, 1.0);
            assert!(
                matches!(patch, Err(TileError::NotCovered { .. })),
                "{name} at {east}"
            );
        }
    }
}

#[test]
fn of_several_pictures_the_first_wins_and_gaps_are_filled() {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["a.tif", "b.tif"].map(|name| folder.path().join(name));
    picture(&paths[0], 3857, 0.4, 500, None, |column, _, colour| {
        if column < 250 { colour } else { [0; 4] }
    });
    picture(&paths[1], 32631, 0.4, 700, None, |_, _, _| {
        [10, 20, 30, 255]
    });
    let out = folder.path().join("both.pmtiles");
    import(&args(&paths, out.clone())).unwrap();
    let mut store = TileStore::open(&out).unwrap();
    let spec = PatchSpec {
        size_px: 20,
        metres_per_pixel: 1.0,
    };
    let frame = LocalFrame::new(geodetic(PLACE));
    let (_, east) = store
        .patch(frame.geodetic_from_enu(Enu::new(35.0, 0.0, 0.0)), spec, 1.0)
        .unwrap();
    let [r, g, b] = east.pixel(10, 10);
    assert!(
        r.abs_diff(10) < 4 && g.abs_diff(20) < 4 && b.abs_diff(30) < 4,
        "{r} {g} {b}"
    );
    let (_, west) = store
        .patch(
            frame.geodetic_from_enu(Enu::new(-35.0, 0.0, 0.0)),
            spec,
            1.0,
        )
        .unwrap();
    assert!(west.data.iter().any(|value| *value > 60));
}

#[test]
fn what_cannot_be_placed_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.pmtiles");
    let refused = |path: &Path, words: &str| {
        let what = import(&args(&[path.into()], out.clone()))
            .unwrap_err()
            .to_string();
        assert!(what.contains(words), "{words}: {what}");
    };
    let plain = folder.path().join("plain.tif");
    let mut encoder = TiffEncoder::new(File::create(&plain).unwrap()).unwrap();
    encoder
        .write_image::<colortype::RGB8>(4, 4, &[7; 48])
        .unwrap();
    refused(&plain, "does not say where it is");
    let deep = folder.path().join("deep.tif");
    let mut encoder = TiffEncoder::new(File::create(&deep).unwrap()).unwrap();
    encoder
        .write_image::<colortype::RGB16>(4, 4, &[7; 48])
        .unwrap();
    refused(&deep, "gdal_translate");
    let text = folder.path().join("text.tif");
    std::fs::write(&text, "not a picture").unwrap();
    refused(&text, "no TIFF");
    let good = folder.path().join("good.tif");
    picture(&good, 3857, 0.5, 64, None, |_, _, colour| colour);
    let mut wrong = args(std::slice::from_ref(&good), out.clone());
    wrong.epsg = Some(27700);
    assert!(import(&wrong).unwrap_err().to_string().contains("gdalwarp"));
    let mut undated = args(&[good], out);
    undated.capture_date = "last summer".into();
    assert!(
        import(&undated)
            .unwrap_err()
            .to_string()
            .contains("capture_date")
    );
}

#[test]
fn a_cut_picture_is_an_error_and_not_black_ground() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.tif");
    picture(&path, 3857, 0.5, 400, None, |_, _, colour| colour);
    let bytes = std::fs::read(&path).unwrap();
    // The directory stands at the end of the file, so pixels are taken from the middle of a copy.
    let cut = folder.path().join("cut2.tif");
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let out = folder.path().join("out.pmtiles");
    assert!(import(&args(&[cut], out.clone())).is_err());
    assert!(!out.exists());
}

#[test]
fn a_tile_set_is_held_against_where_it_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tif");
    picture(&path, 32631, 0.4, 700, None, |_, _, colour| colour);
    let out = folder.path().join("a.pmtiles");
    import(&args(&[path], out.clone())).unwrap();
    let dataset = folder.path().join("pairs");
    std::fs::create_dir_all(&dataset).unwrap();
    std::fs::write(
        dataset.join("dataset.toml"),
        "format = \"crossfix-pairs\"\nversion = 1\narea = \"x\"\nlicence = \"CC0-1.0\"\nprovenance = \"x\"\n\
         heading_convention = \"degrees clockwise from true north\"\ntiles = \"a.pmtiles\"\n\
         [camera]\nkind = \"equirectangular\"\nwidth = 256\nheight = 128\n",
    )
    .unwrap();
    let rows = |count: i32| {
        let frame = LocalFrame::new(geodetic(PLACE));
        let rows = (0..count).map(|index| {
            let place = frame.geodetic_from_enu(Enu::new(f64::from(index) * 20.0, 0.0, 0.0));
            format!(
                "{{\"id\":\"{index}\",\"drive\":\"d\",\"time_ns\":{index},\"image\":\"a.jpg\",\"latitude_deg\":{},\"longitude_deg\":{},\"covariance_m2\":[[9.0,0.0],[0.0,9.0]],\"heading_deg\":0,\"heading_sigma_deg\":5}}\n",
                place.latitude_deg, place.longitude_deg
            )
        });
        std::fs::write(dataset.join("pairs.jsonl"), rows.collect::<String>()).unwrap();
    };
    let mut given = TilesCheckArgs {
        tiles: out,
        tracks: vec![dataset.clone()],
        side_m: 64.0,
        most_years: 100.0,
        metres_per_pixel: 0.5,
        json: false,
    };
    rows(5);
    let found = look(&given).unwrap();
    assert_eq!((found.places, found.covered), (5, 5));
    assert!(found.problems.is_empty(), "{found:?}");
    rows(12);
    let found = look(&given).unwrap();
    assert!(
        found.covered < 12 && found.problems[0].contains("lack ground"),
        "{found:?}"
    );
    rows(3);
    given.most_years = 0.1;
    given.metres_per_pixel = 0.1;
    let problems = look(&given).unwrap().problems.join(" ");
    assert!(
        problems.contains("years old") && problems.contains("higher zoom"),
        "{problems}"
    );
}
