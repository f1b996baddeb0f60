use super::*;
use crate::data::Dataset;
use crate::data::golden::{Golden, first_pass, numbers};
use crate::data::vigor::published_sigma_cells;
use crate::model::loss::{gaussian, orientation_shares};
use crate::model::{GroundProjection, ModelSpec, named};
use serde_json::Value;

fn network() -> ModelSpec {
    named("ccvpe-kitti").unwrap().describe()
}

fn open(golden: &Golden, item: &Value) -> Kitti {
    let split = [KittiSplit::Train, KittiSplit::Test1, KittiSplit::Test2]
        .into_iter()
        .find(|split| item["file"] == split.file())
        .unwrap();
    Kitti::open(&KittiFolder::new(&golden.tree), split).unwrap()
}

fn placed(samples: &KittiSamples, item: &Value) -> (usize, Placement) {
    let index = item["idx"].as_u64().unwrap() as usize;
    let mut draws = match item["uniform_draws"].as_array() {
        Some(_) => numbers(&item["uniform_draws"]),
        None => Vec::new(),
    }
    .into_iter();
    (index, samples.placement(index, || draws.next().unwrap()))
}

fn images(spec: &ModelSpec) -> [Vec<u8>; 2] {
    [
        vec![0; 3 * spec.ground_rows * spec.ground_columns],
        vec![0; 3 * spec.aerial_px * spec.aerial_px],
    ]
}

fn check_angle(found_deg: f64, expected: &Value) {
    let expected = expected.as_f64().unwrap();
    assert!(
        (found_deg - expected).abs() < 1e-9,
        "{found_deg} {expected}"
    );
}

#[test]
fn patches_frames_and_ground_truth_are_those_of_the_published_loader() {
    let spec = network();
    for golden in Golden::all("kitti_expected_ccvpe") {
        let metres = golden.json["meter_per_pixel"].as_f64().unwrap();
        assert!((METRES_PER_PIXEL - metres).abs() < 1e-15);
        let range = golden.json["shift_range_pixels"].as_f64().unwrap();
        assert!((Placement::range_px() - range).abs() < 1e-9);
        for item in golden.json["items"].as_array().unwrap() {
            let kitti = open(&golden, item);
            kitti.check_pictures().unwrap();
            let turn = item["rotation_range"].as_f64().unwrap();
            let all = (0..kitti.rows.len()).collect();
            let samples = KittiSamples::new(&kitti, all, turn, &spec).unwrap();
            let (index, placement) = placed(&samples, item);
            let line = item["line"].as_str().unwrap();
            assert!(line.starts_with(&kitti.rows[index].name.id()));
            check_angle(placement.heading_deg(), &item["orientation_angle"]);
            let [mut ground, mut aerial] = images(&spec);
            let example = samples
                .read(index, placement, &mut ground, &mut aerial)
                .unwrap();
            let ground = first_pass(&ground, spec.ground_columns, example.augment[0], spec.kind);
            let aerial = first_pass(&aerial, spec.aerial_px, example.augment[1], spec.kind);
            golden.check_image(item, "grd", &ground);
            golden.check_image(item, "sat", &aerial);
            let map = gaussian(512, &example.target, published_sigma_cells(4.0, 512));
            golden.check_ground_truth(item, &map);
            let direction = numbers(&item["orientation_vec"]);
            let angle = example.target.residual_rad;
            assert!((angle.cos() - direction[0]).abs() < 1e-6);
            assert!((angle.sin() - direction[1]).abs() < 1e-6);
            let sum: f64 = map.iter().map(|value| f64::from(*value)).sum();
            for (channel, share) in orientation_shares(angle, spec.orientation_bins) {
                let sums = &item["gt_with_ori_channel_sums"];
                let expected = sums[channel.to_string()].as_f64().unwrap_or(0.0);
                assert!((f64::from(share) * sum - expected).abs() < 2e-3, "{item}");
            }
        }
    }
}

#[test]
fn ggcvt_uses_the_same_patches_with_its_own_shifts_and_camera() {
    let spec = named("ggcvt-kitti3").unwrap().describe();
    for golden in Golden::all("kitti_expected_ggcvt") {
        for item in golden.json["items"].as_array().unwrap() {
            let kitti = open(&golden, item);
            let turn = item["rotation_range"].as_f64().unwrap();
            let all = (0..kitti.rows.len()).collect();
            let samples = KittiSamples::new(&kitti, all, turn, &spec).unwrap();
            let (index, placement) = placed(&samples, item);
            let [mut ground, mut aerial] = images(&spec);
            let example = samples
                .read(index, placement, &mut ground, &mut aerial)
                .unwrap();
            let ground = first_pass(&ground, spec.ground_columns, example.augment[0], spec.kind);
            let aerial = first_pass(&aerial, spec.aerial_px, example.augment[1], spec.kind);
            golden.check_image(item, "grd", &ground);
            golden.check_image(item, "sat", &aerial);
            // The label is the published one: 20 m times the shifts, turned by the heading.
            let number = |key: &str| item[key].as_f64().unwrap();
            let (sin, cos) = (number("gt_heading") * turn).to_radians().sin_cos();
            let (x, y) = (-20.0 * number("gt_shift_u"), -20.0 * number("gt_shift_v"));
            let metres = [example.target.column, example.target.row]
                .map(|cell| spec.px_from_cell(cell) * METRES_PER_PIXEL);
            for (found, expected) in metres
                .into_iter()
                .zip([y * sin - x * cos, x * sin + y * cos])
            {
                assert!((found - expected).abs() < 1e-5, "{found} {expected}");
            }
            for (found, key) in [
                (-placement.forward, "gt_shift_u"),
                (-placement.left, "gt_shift_v"),
            ] {
                assert!((found - item[key].as_f64().unwrap()).abs() < 1e-7);
            }
            let camera = kitti.cameras[&kitti.rows[index].name.day].scaled(1024, 256);
            let expected = item["camera_k"].as_array().unwrap();
            let row = |r: usize| numbers(&expected[r]);
            for (found, expected) in [
                (camera.focal_px[0], row(0)[0]),
                (camera.centre_px[0], row(0)[2]),
                (camera.focal_px[1], row(1)[1]),
                (camera.centre_px[1], row(1)[2]),
            ] {
                assert!((found - expected).abs() < 1e-4, "{found} {expected}");
            }
            let GroundProjection::Pinhole { camera, heading } = example.projection else {
                panic!("a pinhole");
            };
            assert!((camera[0] - row(0)[0]).abs() < 1e-4 && (camera[3] - row(1)[2]).abs() < 1e-4);
            assert!((f64::from(heading.unwrap()) - number("gt_heading")).abs() < 1e-7);
        }
    }
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let golden = &Golden::all("kitti_expected_ccvpe")[0];
    let copy = crate::data::vigor::copy_of(&golden.tree);
    let folder = KittiFolder::new(copy.path());
    let kitti = Kitti::open(&folder, KittiSplit::Test1).unwrap();
    std::fs::remove_file(kitti.map_path(0)).unwrap();
    std::fs::remove_file(kitti.frame_path(1)).unwrap();
    let name = &kitti.rows[1].name;
    let yaw = format!(
        "raw_data/{}/{}/oxts/data/{}.txt",
        name.day, name.drive, name.frame
    );
    std::fs::write(copy.path().join(&yaw), "1 2 3").unwrap();
    let list = folder.lists.join("test1_files.txt");
    let text = std::fs::read_to_string(&list).unwrap();
    std::fs::write(
        &list,
        format!(
            "{text}../../etc/passwd.png 0 0 0\n{} 0 2 0\n",
            name.id() + ".png"
        ),
    )
    .unwrap();
    let calibration = copy.path().join("raw_data").join(&name.day);
    std::fs::write(calibration.join("calib_cam_to_cam.txt"), "P_rect_02: x").unwrap();
    let problems = Kitti::open(&folder, KittiSplit::Test1).unwrap_err();
    assert_eq!(problems.list.len(), 6, "{problems}");
    for what in [
        yaw.as_str(),
        "line 3",
        "line 4",
        "calib_cam_to_cam",
        "satmap",
        "image_02",
    ] {
        assert!(problems.to_string().contains(what), "{what} in {problems}");
    }
}

#[test]
fn pictures_of_another_shape_are_listed() {
    let golden = &Golden::all("kitti_expected_ccvpe")[0];
    let copy = crate::data::vigor::copy_of(&golden.tree);
    let kitti = Kitti::open(&KittiFolder::new(copy.path()), KittiSplit::Test2).unwrap();
    image::RgbImage::new(600, 500)
        .save(kitti.map_path(0))
        .unwrap();
    image::RgbImage::new(640, 480)
        .save(kitti.frame_path(1))
        .unwrap();
    assert_eq!(kitti.check_pictures().unwrap_err().list.len(), 2);
}

#[test]
fn adaptation_reads_test_patches_and_knows_the_heading_alone() {
    let golden = &Golden::all("kitti_expected_ccvpe")[0];
    let folder = KittiFolder::new(&golden.tree);
    let spec = network();
    let all = |count| (0..count).collect();
    assert!(KittiImages::open(&folder, KittiSplit::Train, all, 180.0, &spec).is_err());
    let images = KittiImages::open(&folder, KittiSplit::Test2, all, 180.0, &spec).unwrap();
    assert_eq!(images.len(), 2);
    let pair = images.pair(0).unwrap();
    assert_eq!((pair.aerial.width, pair.ground.width), (512, 1024));
    // theta 0.95673674 of 180°.
    let expected = (90.0 - 0.956_736_74 * 180.0 + 360.0f64).to_radians();
    assert!((images.sample(0).heading_residual_rad - expected).abs() < 1e-9);
}
