//! One simulated dataset, harmed in one way at a time.

use super::*;
use crate::city::frames::{CameraKind, Headings};
use crate::city::style::Gap;
use crate::city::{AreaConfig, AreaName, Part, build_area};
use crate::data::Pairs;
use crate::simulate::{Contents, PairsPlan, write_pairs};
use crossfix_calibration::{Geodetic, PatchGeoreference, PatchSpec, TileId};
use crossfix_onboard::tiles::TileStore;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

/// Two drives with odometry, one district.
fn original() -> &'static Path {
    static MADE: OnceLock<tempfile::TempDir> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let area = build_area(AreaConfig {
            area: AreaName::Target,
            seed: 6,
            gap: Gap::default(),
        });
        let plan = PairsPlan {
            headings: Headings::Measured,
            part: Part::Adapt,
            districts: 1,
            contents: Contents::Drives {
                drives: 4,
                length_m: 320.0,
                spacing_m: 8.0,
                logs: 0,
            },
            camera: CameraKind::Panorama,
        };
        let hidden = indicatif::ProgressBar::hidden();
        write_pairs(&area, &plan, folder.path(), &hidden).unwrap();
        folder
    });
    made.path()
}

fn copied() -> tempfile::TempDir {
    crate::data::vigor::copy_of(original())
}

fn looked(folder: &Path, truth: bool) -> Report {
    let look = Look {
        truth,
        ..Look::default()
    };
    pairs(folder, look, &Interrupt::default()).unwrap()
}

/// The one kind of problem that `harm` makes, which must be `check` and say `words`.
fn harmed(check: &str, words: &str, harm: impl FnOnce(&Path)) {
    let folder = copied();
    harm(folder.path());
    let report = looked(folder.path(), false);
    let text = report.to_string();
    let problems = report.found.iter().filter(|found| found.problem);
    let kinds: BTreeSet<&str> = problems.map(|found| found.check).collect();
    assert_eq!(kinds, BTreeSet::from([check]), "{text}");
    assert!(text.contains(words), "{words:?} is not in {text}");
}

fn rows_changed(folder: &Path, change: impl Fn(usize, &mut Value)) {
    let path = folder.join("pairs.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let lines = text.lines().enumerate().map(|(index, line)| {
        let mut row: Value = serde_json::from_str(line).unwrap();
        change(index, &mut row);
        format!("{row}\n")
    });
    fs::write(path, lines.collect::<String>()).unwrap();
}

fn picture(folder: &Path, row: usize) -> PathBuf {
    let pairs = Pairs::open(folder).unwrap();
    folder.join(&pairs.rows[row].image)
}

fn number(row: &mut Value, field: &str, change: impl Fn(f64) -> f64) {
    row[field] = json!(change(row[field].as_f64().unwrap()));
}

#[test]
fn a_simulated_dataset_has_no_problem_and_nothing_to_note() {
    let report = looked(original(), true);
    assert!(report.found.is_empty(), "{report}");
    assert!(
        report.pairs > 60 && report.decoded == report.pairs && report.tiles > 10,
        "{report}"
    );
}

#[test]
fn text_as_windows_and_editors_write_it_is_read() {
    let folder = copied();
    let path = folder.path().join("pairs.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let text = text.replace('\n', " \t\r\n");
    fs::write(&path, format!("\u{feff}{text}\r\n\r\n")).unwrap();
    let report = looked(folder.path(), true);
    assert!(report.found.is_empty(), "{report}");
}

#[test]
fn every_wrong_line_is_named_at_once() {
    let folder = copied();
    rows_changed(folder.path(), |index, row| match index {
        3 => row["latitude_deg"] = json!(191.0),
        7 => row["lever_arm_m"] = json!([0.0, 1.0]),
        9 => row["heading_sigma_deg"] = json!(0),
        11 => {
            row["latitude_deg"] = json!(0.0);
            row["longitude_deg"] = json!(0.0);
        }
        _ => {}
    });
    let report = looked(folder.path(), false);
    let wrong = report.found.iter().filter(|found| found.check == "row");
    let lines: Vec<Option<usize>> = wrong.map(|found| found.line).collect();
    assert_eq!(lines, [4, 8, 10, 12].map(Some), "{report}");
    let text = report.to_string();
    for words in [
        "move them from the antenna",
        "without a fix",
        "pairs.jsonl, line 4",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn harmed_pictures_are_named() {
    let cut = |closed: bool| {
        move |folder: &Path| {
            let path = picture(folder, 5);
            let mut bytes = fs::read(&path).unwrap();
            bytes.truncate(bytes.len() / 2);
            if closed {
                bytes.extend_from_slice(&[0xff, 0xd9]);
            }
            fs::write(path, bytes).unwrap();
        }
    };
    harmed("picture-cut", "pairs.jsonl, line 6", cut(false));
    harmed("picture-cut", "copy the pictures again", cut(true));
    let replace = |row: usize, with: fn(&Path)| {
        move |folder: &Path| {
            let path = picture(folder, row);
            fs::remove_file(&path).unwrap();
            with(&path);
        }
    };
    harmed("picture-missing", "line 2", replace(1, |_| {}));
    harmed(
        "picture-file",
        "no regular file",
        replace(1, |path| {
            let made = std::process::Command::new("mkfifo").arg(path).status();
            assert!(made.unwrap().success());
        }),
    );
    harmed(
        "picture-link",
        "leads nowhere",
        replace(1, |path| {
            std::os::unix::fs::symlink("/nowhere/a.jpg", path).unwrap();
        }),
    );
    harmed(
        "picture-format",
        "GIF",
        replace(1, |path| fs::write(path, b"GIF89a..........").unwrap()),
    );
    harmed(
        "picture-blank",
        "contrast",
        replace(1, |path| {
            image::RgbImage::new(256, 48).save(path).unwrap();
        }),
    );
    harmed(
        "picture-size",
        "give each camera its own",
        replace(1, |path| {
            let noise = |x: u32, y: u32| image::Rgb([(x * 7) as u8, (y * 9) as u8, 3]);
            image::RgbImage::from_fn(128, 48, noise).save(path).unwrap();
        }),
    );
    // A header that promises more than anybody decodes.
    harmed(
        "picture-unreadable",
        "60000",
        replace(1, |path| {
            image::RgbImage::new(64, 64)
                .save(path.with_extension("jpeg"))
                .unwrap();
            let mut jpeg = fs::read(path.with_extension("jpeg")).unwrap();
            let frame = jpeg
                .windows(2)
                .position(|pair| pair == [0xff, 0xc0])
                .unwrap();
            jpeg[frame + 5..frame + 9].copy_from_slice(&[0xea, 0x60, 0xea, 0x60]);
            fs::write(path, jpeg).unwrap();
        }),
    );
    harmed("picture-twice", "also the picture of line 1", |folder| {
        let first = Pairs::open(folder).unwrap().rows[0].image.clone();
        rows_changed(folder, |index, row| {
            if index == 20 {
                row["image"] = json!(first);
            }
        });
    });
    harmed("picture-frozen", "froze", |folder| {
        for row in 11..35 {
            fs::copy(picture(folder, 10), picture(folder, row)).unwrap();
        }
    });
}

#[test]
fn a_name_that_only_looks_right_is_shown_the_right_one() {
    harmed("picture-missing", "Ü.jpg", |folder| {
        let composed = folder.join("images/Ü.jpg");
        fs::rename(picture(folder, 4), &composed).unwrap();
        rows_changed(folder, |index, row| {
            if index == 4 {
                // The letter and its dots one after the other.
                row["image"] = json!("images/U\u{308}.jpg");
            }
        });
    });
}

#[test]
fn pictures_turned_by_exif_are_right() {
    let folder = copied();
    for row in 0..looked(folder.path(), false).pairs {
        let path = picture(folder.path(), row);
        image::open(&path).unwrap().rotate180().save(&path).unwrap();
        let jpeg = fs::read(&path).unwrap();
        let exif = b"\xff\xe1\0\x22Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x03\0\0\0\0\0\0";
        fs::write(&path, [&jpeg[..2], exif, &jpeg[2..]].concat()).unwrap();
    }
    let report = looked(folder.path(), false);
    assert!(report.found.is_empty(), "{report}");
    let upright = crate::data::picture::read(&picture(original(), 3)).unwrap();
    let turned = crate::data::picture::read(&picture(folder.path(), 3)).unwrap();
    let mean = |other: &[u8]| {
        let off = upright
            .data
            .iter()
            .zip(other)
            .map(|(a, b)| u64::from(a.abs_diff(*b)));
        off.sum::<u64>() as f64 / other.len() as f64
    };
    let mut reversed = upright.data.clone();
    reversed.reverse();
    // Compressed twice, and the same picture.
    assert!(
        2.0 * mean(&turned.data) < mean(&reversed),
        "{} {}",
        mean(&turned.data),
        mean(&reversed)
    );
}

#[test]
fn positions_of_another_order_or_sign_are_named() {
    harmed("positions", "latitude and longitude exchanged", |folder| {
        rows_changed(folder, |_, row| {
            let latitude = row["latitude_deg"].clone();
            row["latitude_deg"] = row["longitude_deg"].clone();
            row["longitude_deg"] = latitude;
        });
    });
    harmed("positions", "counted westward", |folder| {
        rows_changed(folder, |_, row| number(row, "longitude_deg", |lon| -lon));
    });
    harmed("tiles-not-covered", "tiles of this area", |folder| {
        rows_changed(folder, |_, row| {
            number(row, "latitude_deg", |lat| lat + 1.0);
        });
    });
}

#[test]
fn headings_and_times_of_other_units_are_named() {
    harmed("heading", "radians", |folder| {
        rows_changed(folder, |_, row| number(row, "heading_deg", f64::to_radians));
    });
    harmed("heading", "ENU", |folder| {
        rows_changed(folder, |_, row| {
            number(row, "heading_deg", |heading| {
                (90.0 - heading).rem_euclid(360.0)
            });
        });
    });
    harmed("heading", "heading_sigma_deg 180", |folder| {
        rows_changed(folder, |_, row| row["heading_deg"] = json!(17.0));
    });
    harmed("clock", "milliseconds", |folder| {
        rows_changed(folder, |_, row| {
            row["time_ns"] = json!(row["time_ns"].as_i64().unwrap() / 1_000_000);
            row["odometry"] = Value::Null;
        });
    });
    harmed("order", "sort each drive by time", |folder| {
        rows_changed(folder, |index, row| {
            if index == 9 {
                row["time_ns"] = json!(row["time_ns"].as_i64().unwrap() - 3_600_000_000_000i64);
            }
        });
    });
    harmed("odometry", "feet", |folder| {
        rows_changed(folder, |_, row| {
            if row["odometry"].is_object() {
                number(&mut row["odometry"], "forward_m", |metres| metres * 3.2808);
            }
        });
    });
}

/// Headings of another convention are seen without any order, by the streets along which rows lie.
#[test]
fn headings_are_held_against_streets_where_rows_have_no_order() {
    let shuffled = |folder: &Path, heading: fn(f64) -> f64| {
        rows_changed(folder, |index, row| {
            row["drive"] = json!(format!("alone-{index}"));
            row["odometry"] = Value::Null;
            number(row, "heading_deg", |deg| heading(deg).rem_euclid(360.0));
        });
    };
    let folder = copied();
    shuffled(folder.path(), |heading| heading);
    assert!(!looked(folder.path(), false).refuses());
    harmed("heading", "streets", |folder| {
        shuffled(folder, |heading| 90.0 - heading);
    });
}

/// Places at random lie along no street: their headings are right all the same.
#[test]
fn scattered_places_say_nothing_about_headings() {
    for seed in [101, 105] {
        let folder = tempfile::tempdir().unwrap();
        let area = build_area(AreaConfig {
            area: AreaName::Target,
            seed,
            gap: Gap::default(),
        });
        let plan = PairsPlan {
            headings: Headings::Measured,
            part: Part::Adapt,
            districts: 2,
            contents: Contents::Random { pairs: 250 },
            camera: CameraKind::Panorama,
        };
        let hidden = indicatif::ProgressBar::hidden();
        write_pairs(&area, &plan, folder.path(), &hidden).unwrap();
        let report = looked(folder.path(), false);
        assert!(!report.refuses(), "{seed}: {report}");
    }
}

#[test]
fn headings_of_another_convention_are_held_against_the_truth() {
    let folder = copied();
    rows_changed(folder.path(), |index, row| {
        row["drive"] = json!(format!("alone-{index}"));
        row["odometry"] = Value::Null;
        number(row, "heading_deg", |deg| (deg + 180.0).rem_euclid(360.0));
    });
    // An axis is the same from both ends.
    assert!(!looked(folder.path(), false).refuses());
    let report = looked(folder.path(), true);
    assert!(
        report.to_string().contains("turned by half a circle"),
        "{report}"
    );
}

/// Writes the tiles that the rows need as `xyz/zoom/x/y.png`.
fn unpacked(
    folder: &Path,
    name: impl Fn(TileId) -> [u32; 2],
    paint: impl Fn(TileId, &mut image::RgbaImage),
) {
    let pairs = Pairs::open(folder).unwrap();
    let mut store = TileStore::open(pairs.tiles()).unwrap();
    let (zoom, tile_px) = (store.manifest().zoom, store.manifest().tile_px);
    let spec = PatchSpec {
        size_px: 160,
        metres_per_pixel: 0.5,
    };
    let mut ids = BTreeSet::new();
    for row in &pairs.rows {
        let place = Geodetic::new(row.latitude_deg, row.longitude_deg, 0.0).unwrap();
        let patch = PatchGeoreference::centred_on(place, spec, 8.0).unwrap();
        ids.extend(patch.tiles(zoom, tile_px).unwrap());
    }
    for id in ids {
        let Some(tile) = store.tile(id).unwrap() else {
            continue;
        };
        let picture = image::RgbImage::from_raw(tile_px as u32, tile_px as u32, tile.data.clone());
        let mut picture = image::DynamicImage::ImageRgb8(picture.unwrap()).into_rgba8();
        paint(id, &mut picture);
        let [x, y] = name(id);
        let column = folder.join(format!("xyz/{zoom}/{x}"));
        fs::create_dir_all(&column).unwrap();
        picture.save(column.join(format!("{y}.png"))).unwrap();
    }
    fs::copy(folder.join("tiles.toml"), folder.join("xyz/tiles.toml")).unwrap();
    let manifest = fs::read_to_string(folder.join("dataset.toml")).unwrap();
    fs::write(
        folder.join("dataset.toml"),
        manifest.replace("tiles.pmtiles", "xyz"),
    )
    .unwrap();
}

#[test]
fn harmed_tiles_are_named() {
    let plain = |id: TileId| [id.x, id.y];
    let folder = copied();
    unpacked(folder.path(), plain, |_, _| {});
    let report = looked(folder.path(), false);
    assert!(report.found.is_empty(), "{report}");
    let third = |id: TileId| (id.x + id.y).is_multiple_of(3);
    harmed("tiles-not-covered", "transparent", |folder| {
        unpacked(folder, plain, |id, tile| {
            if third(id) {
                tile.pixels_mut().for_each(|pixel| pixel.0 = [0; 4]);
            }
        });
    });
    harmed("tiles-not-covered", "part of the ground", |folder| {
        unpacked(folder, plain, |id, tile| {
            let clear = tile
                .enumerate_pixels_mut()
                .filter(|(x, ..)| third(id) && *x < 100);
            clear.for_each(|(.., pixel)| pixel.0[3] = 0);
        });
    });
    harmed("tiles-no-data", "must be transparent", |folder| {
        unpacked(folder, plain, |id, tile| {
            let black = tile
                .enumerate_pixels_mut()
                .filter(|(x, ..)| third(id) && *x < 200);
            black.for_each(|(.., pixel)| pixel.0 = [0, 0, 0, 255]);
        });
    });
    harmed("tiles-rows", "TMS", |folder| {
        unpacked(folder, |id| [id.x, (1 << id.zoom) - 1 - id.y], |_, _| {});
    });
    harmed("tiles-rows", "zoom/y/x", |folder| {
        unpacked(folder, |id| [id.y, id.x], |_, _| {});
    });
    harmed("tiles-borders", "scaled or turned", |folder| {
        unpacked(folder, plain, |_, tile| {
            *tile = image::imageops::rotate180(tile);
        });
    });
    harmed("tiles-scale", "correct zoom", |folder| {
        let path = folder.join("tiles.toml");
        let text = fs::read_to_string(&path).unwrap();
        let line = text
            .lines()
            .find(|line| line.starts_with("metres_per_pixel"))
            .unwrap();
        fs::write(&path, text.replace(line, "metres_per_pixel = 0.29")).unwrap();
    });
}

#[test]
fn a_camera_that_is_described_as_another_is_named() {
    harmed("camera", "panoramas narrower than 360°", |folder| {
        let path = folder.join("dataset.toml");
        let text = fs::read_to_string(&path).unwrap();
        let text = text.lines().filter(|line| !line.contains("_elevation_deg"));
        fs::write(
            &path,
            text.map(|line| format!("{line}\n")).collect::<String>(),
        )
        .unwrap();
    });
    harmed("camera", "a whole circle that closes", |folder| {
        let rows = Pairs::open(folder).unwrap().rows;
        for row in rows {
            let path = folder.join(row.image);
            let part = image::open(&path).unwrap().crop_imm(40, 0, 150, 48);
            let wide = part.resize_exact(256, 48, image::imageops::FilterType::Triangle);
            wide.into_rgb8().save(path).unwrap();
        }
    });
}

/// The shipped teacher says whether data that are right in all else were meant otherwise.
#[test]
fn a_network_is_asked_and_names_other_readings() {
    let teacher = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/assets/teacher-compact.safetensors"
    );
    let asked = |folder: &Path| {
        let (mut teacher, _) = crate::model::weights::load(Path::new(teacher)).unwrap();
        let spec = teacher.describe().clone();
        let look = Look {
            spec: Some(&spec),
            network: Some(teacher.as_mut()),
            ..Look::default()
        };
        pairs(folder, look, &Interrupt::default()).unwrap()
    };
    let report = asked(original());
    assert!(!report.refuses(), "{report}");
    let folder = copied();
    for row in 0..report.pairs {
        let path = picture(folder.path(), row);
        image::open(&path).unwrap().rotate180().save(path).unwrap();
    }
    let report = asked(folder.path());
    assert!(
        report.to_string().contains("pictures that are upside down"),
        "{report}"
    );
    // No order, and an axis that fits: only the pictures tell.
    let folder = copied();
    rows_changed(folder.path(), |index, row| {
        row["drive"] = json!(format!("alone-{index}"));
        row["odometry"] = Value::Null;
        number(row, "heading_deg", |deg| (deg + 180.0).rem_euclid(360.0));
    });
    let report = asked(folder.path());
    assert!(
        report.to_string().contains("turned by half a circle"),
        "{report}"
    );
}

/// One vehicle whose instrument lies among others: the drive is named, and no other.
#[test]
fn one_lying_vehicle_is_named_among_others() {
    fn odometry(name: &'static str, factor: f64) -> Box<dyn Fn(&mut Value)> {
        Box::new(move |row| {
            if let Some(step) = row.get_mut("odometry").filter(|step| !step.is_null()) {
                number(step, name, |value| factor * value);
            }
        })
    }
    fn turned(degrees: f64) -> Box<dyn Fn(&mut Value)> {
        Box::new(move |row| number(row, "heading_deg", |deg| (deg + degrees).rem_euclid(360.0)))
    }
    let drives: BTreeSet<String> = Pairs::open(original())
        .unwrap()
        .rows
        .into_iter()
        .map(|row| row.drive)
        .collect();
    let liar = drives.iter().nth(1).unwrap();
    for (check, words, lie) in [
        (
            "odometry",
            "speeds in miles an hour",
            odometry("forward_m", 2.237),
        ),
        ("odometry", "speeds in km/h", odometry("forward_m", 3.6)),
        ("odometry", "times as far", odometry("forward_m", 0.0)),
        ("heading", "half a circle", turned(180.0)),
        ("heading", "from its course", turned(90.0)),
    ] {
        let folder = copied();
        rows_changed(folder.path(), |_, row| {
            if row["drive"] == liar.as_str() {
                lie(row);
            }
        });
        let report = looked(folder.path(), false);
        let problems: Vec<_> = report.found.iter().filter(|found| found.problem).collect();
        let text = report.to_string();
        assert_eq!(problems.len(), 1, "{words}: {text}");
        assert_eq!(problems[0].check, check, "{text}");
        assert!(text.contains(&format!("drive {liar:?}")), "{text}");
        assert!(text.contains(words), "{words}: {text}");
    }
}
