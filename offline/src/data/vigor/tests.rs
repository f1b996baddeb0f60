use super::split::{ggcvt_order, train_validation};
use super::*;
use crate::data::golden::{Golden, first_pass, numbers};
use crate::data::numpy::shuffled;
use crate::data::{Dataset, Example, Examples};
use crate::metrics::published::Outcome;
use crate::model::loss::{gaussian, level_target, max_pool, orientation_shares};
use crate::model::{GroundCamera, GroundProjection, ModelSpec, named};
use crossfix_kernels::ops::Augment;
use rand::SeedableRng;
use serde_json::Value;

fn network() -> ModelSpec {
    named("ccvpe-vigor").unwrap().describe()
}

fn split(area: &str, train: bool) -> VigorSplit {
    match (area.starts_with("same"), train) {
        (true, true) => VigorSplit::SameAreaTrain,
        (true, false) => VigorSplit::SameAreaTest,
        (false, true) => VigorSplit::CrossAreaTrain,
        (false, false) => VigorSplit::CrossAreaTest,
    }
}

fn open(golden: &Golden, split: VigorSplit) -> Vigor {
    Vigor::open(&VigorFolder::new(&golden.tree), split).unwrap()
}

fn panorama_of(vigor: &Vigor, index: usize) -> String {
    let row = &vigor.rows[index];
    format!("{}/panorama/{}", row.city.folder(), row.panorama)
}

fn images(spec: &ModelSpec) -> [Vec<u8>; 2] {
    [
        vec![0; 3 * spec.ground_rows * spec.ground_columns],
        vec![0; 3 * spec.aerial_px * spec.aerial_px],
    ]
}

fn indices(value: &Value) -> Vec<usize> {
    numbers(value).into_iter().map(|v| v as usize).collect()
}

#[test]
fn lists_labels_and_offsets_are_those_of_the_published_loader() {
    for golden in Golden::all("vigor_expected_ccvpe") {
        for (name, expected) in golden.json["lists"].as_object().unwrap() {
            let vigor = open(&golden, split(name, name.ends_with("train")));
            assert_eq!(
                vigor.tiles.len() as u64,
                expected["n_sat"].as_u64().unwrap()
            );
            assert_eq!(vigor.rows.len() as u64, expected["n_grd"].as_u64().unwrap());
            vigor.check_pictures().unwrap();
            for (index, row) in vigor.rows.iter().enumerate() {
                assert_eq!(
                    panorama_of(&vigor, index),
                    expected["grd"][index].as_str().unwrap()
                );
                let labels = row.tiles.map(|(tile, _)| tile);
                assert_eq!(
                    labels.to_vec(),
                    indices(&expected["labels"][index]),
                    "{name}"
                );
                for (place, (_, offset)) in row.tiles.iter().enumerate() {
                    let delta = numbers(&expected["delta"][index][place]);
                    assert_eq!([offset.south_px, offset.west_px].to_vec(), delta);
                }
            }
        }
    }
}

#[test]
fn images_rolls_and_ground_truth_are_those_of_the_published_loader() {
    let spec = network();
    for golden in Golden::all("vigor_expected_ccvpe") {
        for item in golden.json["items"].as_array().unwrap() {
            let name = item["name"].as_str().unwrap();
            let train = item["train"].as_bool().unwrap();
            let vigor = open(&golden, split(item["split"].as_str().unwrap(), train));
            let index = item["idx"].as_u64().unwrap() as usize;
            assert_eq!(
                panorama_of(&vigor, index),
                item["grd"].as_str().unwrap(),
                "{name}"
            );
            let mut samples =
                VigorSamples::new(&vigor, vec![index], Headings::Within(180.0), &spec).unwrap();
            samples.semi_positives = !item["pos_only"].as_bool().unwrap();
            let mut draws = item["forced_semi_draws"]
                .as_array()
                .map_or(Vec::new(), |_| indices(&item["forced_semi_draws"]))
                .into_iter();
            let place = samples.draw_tile(index, || draws.next().unwrap());
            assert_eq!(place as u64, item["pos_index"].as_u64().unwrap(), "{name}");

            let angle_deg = item["orientation_angle"].as_f64().unwrap();
            let [mut ground, mut aerial] = images(&spec);
            let example = samples
                .read(index, angle_deg / 360.0, place, &mut ground, &mut aerial)
                .unwrap();
            let ground = first_pass(&ground, spec.ground_columns, example.augment[0], spec.kind);
            let aerial = first_pass(&aerial, spec.aerial_px, example.augment[1], spec.kind);
            golden.check_image(item, "grd", &ground);
            golden.check_image(item, "sat", &aerial);

            let sigma_cells = published_sigma_cells(4.0, 512);
            let map = gaussian(512, &example.target, sigma_cells);
            golden.check_ground_truth(item, &map);
            let peak = Outcome::true_peak(&example, 512);
            let expected =
                ["argmax_col", "argmax_row"].map(|key| item["gt"][key].as_u64().unwrap());
            assert_eq!(peak.map(|cell| cell as u64), expected, "{name}");
            check_orientation(
                item,
                &map,
                example.target.residual_rad,
                spec.orientation_bins,
            );
        }
    }
}

/// The shares of the orientation bins, and the pooled targets of the levels.
pub(crate) fn check_orientation(item: &Value, map: &[f32], angle_rad: f64, bins: usize) {
    let name = item["name"].as_str().unwrap();
    let expected = numbers(&item["orientation_vec"]);
    assert!((angle_rad.cos() - expected[0]).abs() < 1e-6, "{name}");
    assert!((angle_rad.sin() - expected[1]).abs() < 1e-6, "{name}");
    let sum: f64 = map.iter().map(|value| f64::from(*value)).sum();
    let sums = item["gt_with_ori_channel_sums"].as_object().unwrap();
    // The published loader leaves the stack empty in tests; nothing to compare there.
    if sums.is_empty() {
        return;
    }
    for (channel, share) in orientation_shares(angle_rad, bins) {
        let expected = sums
            .get(&channel.to_string())
            .map_or(0.0, |v| v.as_f64().unwrap());
        let found = f64::from(share) * sum;
        assert!(
            (found - expected).abs() < 2e-3,
            "{name}: channel {channel}, {found} {expected}"
        );
    }
    let all: Vec<isize> = (0..bins as isize).collect();
    let levels = item.get("pooled").and_then(Value::as_object);
    for (level, expected) in levels.into_iter().flatten() {
        let k: usize = level.trim_start_matches("level").parse().unwrap();
        let grid = 4 << k;
        let target = level_target(&max_pool(map, 512, grid), angle_rad, &all, bins);
        let sum: f64 = target.iter().map(|value| f64::from(*value)).sum();
        let above = target.iter().filter(|value| **value > 1e-2).count() as u64;
        let expected_sum = expected["sum"].as_f64().unwrap();
        assert!(
            (sum - expected_sum).abs() < 1e-3,
            "{name} {level}: {sum} {expected_sum}"
        );
        assert_eq!(
            above,
            expected["n_gt_1e_2"].as_u64().unwrap(),
            "{name} {level}"
        );
        let largest = target.iter().copied().fold(0.0, f32::max);
        assert!((f64::from(largest) - expected["max"].as_f64().unwrap()).abs() < 1e-6);
        let first = crate::predict::arg_max(&target, |_| true).unwrap();
        let found = [first / (grid * grid), first / grid % grid, first % grid];
        assert_eq!(
            found.to_vec(),
            indices(&expected["argmax"]),
            "{name} {level}"
        );
    }
}

#[test]
fn splits_are_the_published_permutations() {
    for golden in Golden::all("vigor_expected_ccvpe") {
        for (count, expected) in golden.json["val_split"].as_object().unwrap() {
            let [train, validation] = train_validation(count.parse().unwrap());
            if expected.get("train").is_some() {
                assert_eq!(train, indices(&expected["train"]));
                assert_eq!(validation, indices(&expected["val"]));
            } else {
                assert_eq!(train[..10], indices(&expected["train_first10"])[..]);
                assert_eq!(validation[..10], indices(&expected["val_first10"])[..]);
                assert_eq!(train.len() as u64, expected["n_train"].as_u64().unwrap());
                assert_eq!(validation.len() as u64, expected["n_val"].as_u64().unwrap());
            }
        }
    }
}

#[test]
fn ggcvt_uses_the_published_order_offsets_and_rolls() {
    let spec = named("ggcvt-vigor").unwrap().describe();
    for golden in Golden::all("vigor_expected_ggcvt") {
        for (count, expected) in golden.json["shuffle20"].as_object().unwrap() {
            assert_eq!(ggcvt_order(count.parse().unwrap()), indices(expected));
        }
        for (name, expected) in golden.json["order"].as_object().unwrap() {
            let vigor = open(&golden, split(name, name.ends_with("train")));
            let order = ggcvt_order(vigor.rows.len());
            let found: Vec<String> = order.iter().map(|i| panorama_of(&vigor, *i)).collect();
            let expected: Vec<&str> = expected
                .as_array()
                .unwrap()
                .iter()
                .map(|v| v.as_str().unwrap())
                .collect();
            assert_eq!(found, expected, "{name}");
        }
        for item in golden.json["items"].as_array().unwrap() {
            let train = item["train"].as_bool().unwrap();
            let vigor = open(&golden, split(item["split"].as_str().unwrap(), train));
            let index = ggcvt_order(vigor.rows.len())[item["idx"].as_u64().unwrap() as usize];
            assert_eq!(panorama_of(&vigor, index), item["grd"].as_str().unwrap());
            let samples =
                VigorSamples::new(&vigor, vec![index], Headings::Within(0.0), &spec).unwrap();
            let [mut ground, mut aerial] = images(&spec);
            // Its rolls are rotation · range / 180 of half the width: the same share of the circle.
            let turn = item["rotation_deg"].as_f64().unwrap() / 360.0;
            let example = samples
                .read(index, turn, 0, &mut ground, &mut aerial)
                .unwrap();
            let ground = first_pass(&ground, spec.ground_columns, example.augment[0], spec.kind);
            let aerial = first_pass(&aerial, spec.aerial_px, example.augment[1], spec.kind);
            golden.check_image(item, "grd", &ground);
            golden.check_image(item, "sat", &aerial);
            let [south, west] = vigor.rows[index].tiles[0].1.rounded(512);
            assert_eq!(-west * 4.0 / 512.0, item["gt_shift_u"].as_f64().unwrap());
            assert_eq!(south * 4.0 / 512.0, item["gt_shift_v"].as_f64().unwrap());
            let metres = item["meter_per_pixel"].as_f64().unwrap();
            assert!((example.metres_per_cell - 2.0 * metres).abs() < 1e-7);
            // What the loss reads from the label: the published shifts, without any rounding.
            let target = [example.target.column, example.target.row];
            let shift = target.map(|cell| spec.px_from_cell(cell) / 128.0);
            let expected = ["gt_shift_u", "gt_shift_v"].map(|key| item[key].as_f64().unwrap());
            assert_eq!(shift, expected);
            let GroundProjection::Panorama {
                metres_per_pixel,
                turn_rad,
            } = example.projection
            else {
                panic!("a panorama");
            };
            assert!((metres_per_pixel - metres).abs() < 1e-7);
            let turn_deg = item["rotation_deg"].as_f64().unwrap();
            assert!((turn_rad.to_degrees() - turn_deg).abs() < 1e-9);
        }
    }
}

#[test]
fn a_limited_field_of_view_keeps_the_left_of_the_rolled_panorama() {
    let golden = &Golden::all("vigor_expected_ccvpe")[0];
    let vigor = open(golden, VigorSplit::SameAreaTrain);
    let whole = network();
    let half = ModelSpec {
        ground_columns: 320,
        camera: GroundCamera::CutPanorama,
        ..whole.clone()
    };
    let read = |spec: &ModelSpec| {
        let samples = VigorSamples::new(&vigor, vec![0], Headings::Within(0.0), spec).unwrap();
        let [mut ground, mut aerial] = images(spec);
        let example = samples.read(0, 0.3, 0, &mut ground, &mut aerial).unwrap();
        let ground = first_pass(&ground, spec.ground_columns, example.augment[0], spec.kind);
        let augment = [Augment::default(); 2];
        (ground, Example { augment, ..example })
    };
    let ((all, a), (left, b)) = (read(&whole), read(&half));
    assert_eq!(a, b);
    for (wide, narrow) in all.chunks_exact(640).zip(left.chunks_exact(320)) {
        assert_eq!(wide[..320], *narrow);
    }
}

#[test]
fn the_target_area_is_read_without_the_places_of_its_cameras() {
    let golden = &Golden::all("vigor_expected_ccvpe")[0];
    let folder = VigorFolder::new(&golden.tree);
    let spec = network();
    let choose = |count| split::target_area(count)[0].clone();
    let images = VigorImages::open(&folder, VigorSplit::CrossAreaTest, choose, &spec).unwrap();
    assert_eq!(images.len(), 7);
    // The same pixels as a sample that is not turned.
    let vigor = open(golden, VigorSplit::CrossAreaTest);
    let index = split::target_area(10)[0][2];
    let samples = VigorSamples::new(&vigor, vec![index], Headings::Within(0.0), &spec).unwrap();
    let [mut ground, mut aerial] = self::images(&spec);
    let rng = &mut rand_chacha::ChaCha8Rng::seed_from_u64(0);
    samples.draw(0, rng)(&mut ground, &mut aerial).unwrap();
    let pair = images.pair(2).unwrap();
    assert_eq!(pair.sample.id, vigor.rows[index].panorama);
    let plane = 512 * 512;
    assert!((0..plane).all(|i| pair.aerial.data[i * 3 + 1] == aerial[plane + i]));
    let plane = 320 * 640;
    assert!((0..plane).all(|i| pair.ground.data[i * 3 + 2] == ground[2 * plane + i]));
}

/// A copy of a tree that a test may damage.
pub(crate) fn copy_of(tree: &std::path::Path) -> tempfile::TempDir {
    fn copy(from: &std::path::Path, to: &std::path::Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy(&entry.path(), &target);
            } else {
                // Bytes alone: the copy must be writable.
                std::fs::write(target, std::fs::read(entry.path()).unwrap()).unwrap();
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    copy(tree, folder.path());
    folder
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let golden = &Golden::all("vigor_expected_ccvpe")[0];
    let copy = copy_of(&golden.tree);
    let root = copy.path();
    let vigor = open(golden, VigorSplit::CrossAreaTest);
    // A panorama and a used tile go, a label breaks, one names a file elsewhere, one a tile that
    // is not listed.
    let missing = panorama_of(&vigor, 9);
    std::fs::remove_file(root.join(&missing)).unwrap();
    let (city, tile) = vigor.tiles[vigor.rows[9].tiles[0].0].clone();
    std::fs::remove_file(root.join(city.folder()).join("satellite").join(&tile)).unwrap();
    let labels = root.join("splits__corrected/SanFrancisco/pano_label_balanced__corrected.txt");
    let text = std::fs::read_to_string(&labels).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines[0] = lines[0].replace(' ', "\t");
    lines[1] = format!("../../{}", lines[1]);
    lines[2] = lines[2].replacen("satellite_", "unknown_", 1);
    std::fs::write(&labels, lines.join("\n")).unwrap();
    let folder = VigorFolder::new(root);
    let problems = Vigor::open(&folder, VigorSplit::CrossAreaTest).unwrap_err();
    assert_eq!(problems.list.len(), 5, "{problems}");
    for what in [
        "line 1:",
        "line 2:",
        "unknown_",
        missing.as_str(),
        tile.as_str(),
    ] {
        assert!(problems.to_string().contains(what), "{what} in {problems}");
    }
}

#[test]
fn pictures_of_another_shape_are_listed() {
    let golden = &Golden::all("vigor_expected_ccvpe")[0];
    let copy = copy_of(&golden.tree);
    let vigor = Vigor::open(&VigorFolder::new(copy.path()), VigorSplit::SameAreaTest).unwrap();
    image::RgbImage::new(30, 30)
        .save(vigor.panorama_path(0))
        .unwrap();
    std::fs::write(vigor.panorama_path(1), b"no picture").unwrap();
    let tile = vigor.tile_path(vigor.rows[0].tiles[0].0);
    image::RgbImage::new(512, 512).save(tile).unwrap();
    let problems = vigor.check_pictures().unwrap_err();
    assert_eq!(problems.list.len(), 3, "{problems}");
}

#[test]
fn an_unreadable_panorama_is_refused_or_black_as_published() {
    let golden = &Golden::all("vigor_expected_ccvpe")[0];
    let copy = copy_of(&golden.tree);
    let vigor = Vigor::open(&VigorFolder::new(copy.path()), VigorSplit::SameAreaTest).unwrap();
    std::fs::write(vigor.panorama_path(0), b"no picture").unwrap();
    let spec = network();
    let mut samples = VigorSamples::new(&vigor, vec![0], Headings::Within(0.0), &spec).unwrap();
    let [mut ground, mut aerial] = images(&spec);
    let error = samples
        .read(0, 0.0, 0, &mut ground, &mut aerial)
        .unwrap_err();
    assert!(
        error.to_string().contains(&vigor.rows[0].panorama),
        "{error}"
    );
    samples.black_where_unreadable = true;
    samples.read(0, 0.0, 0, &mut ground, &mut aerial).unwrap();
    assert!(ground.iter().all(|value| *value == 0));
}

#[test]
fn the_same_seed_draws_the_same_sample() {
    let golden = &Golden::all("vigor_expected_ccvpe")[0];
    let vigor = open(golden, VigorSplit::SameAreaTrain);
    let spec = network();
    let samples = VigorSamples::new(&vigor, vec![3], Headings::Within(180.0), &spec).unwrap();
    let draw = |seed| {
        let [mut ground, mut aerial] = images(&spec);
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        samples.draw(0, &mut rng)(&mut ground, &mut aerial).unwrap()
    };
    assert_eq!(draw(5), draw(5));
    assert_ne!(draw(5), draw(6));
    assert_ne!(shuffled(0, 50), shuffled(1, 50));
}
