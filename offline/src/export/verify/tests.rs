use super::super::{noise_input, student_card, with_camera, with_window, write_onnx};
use super::*;
use crate::data::pose::{left_bin, strip_spec, yaw_from_heading};
use crate::model::spec::{BlockKind, BlockSpec, CcvpeSpec, Padding};
use crate::model::{Ccvpe, Ggcvt, GgcvtSpec, ggcvt, preset};
use crossfix_calibration::PatchSpec;
use crossfix_kernels::ops::Augment;
use crossfix_onboard::card::WindowOutput;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A network whose batch norms do something.
fn random_model(spec: CcvpeSpec, seed: u64) -> Ccvpe {
    let mut model = Ccvpe::new(spec, seed).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut draw = |old: &crossfix_kernels::Tensor, low: f32, high: f32| {
        let values = (0..old.len()).map(|_| rng.random_range(low..high));
        crossfix_kernels::Tensor::new(values.collect(), old.shape()).unwrap()
    };
    let parameters = model.parameters_mut();
    for statistics in parameters.all_statistics_mut() {
        statistics.mean = draw(&statistics.mean, -0.5, 0.5);
        statistics.variance = draw(&statistics.variance, 0.3, 2.0);
    }
    for parameter in parameters.all_mut() {
        let is_norm = parameter.name.contains("_bn");
        if !is_norm && !parameter.name.ends_with(".bias") {
            continue;
        }
        let middle = if is_norm && parameter.name.ends_with(".weight") {
            1.0
        } else {
            0.0
        };
        parameter.value = draw(&parameter.value, middle - 0.3, middle + 0.3).with_gradient();
    }
    model
}

fn exported(spec: CcvpeSpec, temperature: f64) -> Verification {
    verified(&random_model(spec, 3), temperature)
}

fn verified(model: &dyn CrossViewModel, temperature: f64) -> Verification {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("student.onnx");
    let card = student_card(model.describe(), temperature, "MIT");
    write_onnx(model, card, &path).unwrap();
    let input = noise_input(model.describe(), 2, 5).unwrap();
    verify_export(model, &path, &input).unwrap()
}

/// Room for directions of short vectors, which rounding turns the most.
fn assert_same(found: Verification) {
    assert!(found.max_relative_error() <= 1e-4, "{found:?}");
}

#[test]
fn compact_student_answers_as_in_training() {
    assert_same(exported(preset("compact").unwrap(), 1.0));
}

#[test]
fn temperature_is_inside_the_graph() {
    assert_same(exported(preset("compact").unwrap(), 2.5));
}

#[test]
fn front_student_answers_as_in_training() {
    assert_same(exported(preset("compact-front").unwrap(), 1.0));
}

/// A GGCVT network all of whose numbers do something.
fn random_ggcvt(spec: GgcvtSpec, seed: u64) -> Ggcvt {
    let mut model = Ggcvt::new(spec, seed).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for parameter in model.parameters_mut().all_mut() {
        let table = parameter.name.ends_with("bias_table");
        if parameter.value.shape().len() > 1 && !table {
            continue;
        }
        let values = parameter.value.data().iter();
        let values = values.map(|value| value + rng.random_range(-0.3..0.3));
        let shape = parameter.value.shape().to_vec();
        parameter.value = crossfix_kernels::Tensor::new(values.collect(), &shape)
            .unwrap()
            .with_gradient();
    }
    model
}

#[test]
fn a_ggcvt_with_a_panorama_answers_as_in_training() {
    let spec = ggcvt::preset("ggcvt-compact").unwrap();
    // The temperature of a trained one, and a sharp one, whose heatmap a small error bends.
    for temperature in [1.0, 0.05] {
        let found = verified(&random_ggcvt(spec.clone(), 3), temperature);
        assert_eq!(found.max_relative_error_orientation, None);
        assert_same(found);
    }
    // Several windows, an odd template and a whole sphere.
    assert_same(verified(&random_ggcvt(small("ggcvt-vigor"), 4), 0.3));
}

/// A table that a test can run, with several windows, an odd template and the published camera.
fn small(name: &str) -> GgcvtSpec {
    GgcvtSpec {
        preset: "small".into(),
        ground_rows: 48,
        ground_columns: 96,
        aerial_px: 128,
        widths: [4, 6, 8],
        embedding: 6,
        window: 4,
        uncertainty: [4, 4],
        cross_width: 8,
        cross_heads: 2,
        templates: [7, 13, 27],
        unused_layers: false,
        ..ggcvt::preset(name).unwrap()
    }
}

/// A camera whose image of 48 × 96 shows KITTI's angles.
const CAMERA: [f64; 4] = [55.3, 91.1, 46.9, 23.6];

fn verified_pinhole(model: &dyn CrossViewModel, temperature: f64) -> Verification {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("student.onnx");
    let card = student_card(model.describe(), temperature, "MIT");
    let card = write_onnx(model, with_camera(card, CAMERA), &path).unwrap();
    assert!((card.ground.fov_deg - 81.9).abs() < 0.5, "{card:?}");
    let input = noise_input(model.describe(), 2, 5).unwrap();
    the_daemon_answers_like_training(model, &path, &card, &input);
    verify_export(model, &path, &input).unwrap()
}

/// The first sample of `input`, whose patch has its right edge ahead.
fn the_daemon_answers_like_training(
    model: &dyn CrossViewModel,
    path: &Path,
    card: &StudentCard,
    input: &Input,
) {
    let mut matcher = TractMatcher::load(path).unwrap();
    assert_eq!(matcher.card(), card);
    let input = seen_by(card, model.describe(), input.clone());
    let expected = Reference::new(model, &input, card.temperature).unwrap();
    let place = Geodetic::new(52.0, 4.0, 0.0).unwrap();
    let patch = PatchGeoreference::exactly_at(place, card.aerial.patch_spec()).unwrap();
    let yaw_rad = 0.7;
    let (image, aerial) = (
        picture(&input.ground).unwrap(),
        picture(&input.aerial).unwrap(),
    );
    let strip = GroundStrip {
        image: &image,
        left_azimuth_rad: card.ground.strip_spec(yaw_rad).left_azimuth_rad,
    };
    let key = patch.turned(yaw_rad).unwrap().key();
    let answer = matcher.match_frame(strip, key, &aerial).unwrap();
    let found = answer.heatmap.probabilities();
    let error = relative_error(found, part(&expected.heatmaps, 0, input.len()));
    assert!(error <= 1e-4, "{error}");
    // What it finds of the heading is not used.
    assert_eq!(answer.yaw_residual_rad, None);
}

/// Scores of cells behind the camera are moved by 100 and keep 8e-6 of it: sharper heatmaps than
/// this bend by more than the bound with the last bits of either side.
#[test]
fn a_ggcvt_with_a_pinhole_camera_answers_as_in_training() {
    for temperature in [1.0, 0.3] {
        let model = random_ggcvt(small("ggcvt-kitti2"), 3);
        let found = verified_pinhole(&model, temperature);
        assert_eq!(found.max_relative_error_orientation, None);
        assert_same(found);
    }
}

#[test]
fn a_ggcvt_that_finds_its_heading_answers_as_in_training() {
    // Steps that matter; the second time shifts leave the range with every other step.
    for step in [0.2, 1.3] {
        let mut model = random_ggcvt(small("ggcvt-kitti3"), 4);
        for parameter in model.parameters_mut().all_mut() {
            let name = &parameter.name;
            let factor = match name.strip_prefix("TransRefine.") {
                // As small as the golden vectors' formula has them.
                Some(rest) if rest.ends_with("head.weight") => 0.1,
                Some(rest) if rest.ends_with("head.bias") => 0.0,
                _ => continue,
            };
            let offset = if factor == 0.0 { step } else { 0.0 };
            let values = parameter.value.data().iter();
            let values = values.map(|value| value * factor + offset).collect();
            let shape = parameter.value.shape().to_vec();
            parameter.value = crossfix_kernels::Tensor::new(values, &shape)
                .unwrap()
                .with_gradient();
        }
        let found = verified_pinhole(&model, 1.0);
        assert!(found.max_relative_error_orientation.is_some());
        assert_same(found);
    }
}

#[test]
fn a_ggcvt_whose_camera_is_not_named_is_refused_with_the_reason() {
    for name in ["ggcvt-kitti2", "ggcvt-kitti3"] {
        let model = Ggcvt::new(small(name), 0).unwrap();
        let card = student_card(model.describe(), 1.0, "MIT");
        let error = write_onnx(&model, card, Path::new("never.onnx")).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("--camera"), "{error}");
    }
    let model = Ggcvt::new(small("ggcvt-vigor"), 0).unwrap();
    let card = with_camera(student_card(model.describe(), 1.0, "MIT"), CAMERA);
    let error = write_onnx(&model, card, Path::new("never.onnx")).unwrap_err();
    assert!(error.to_string().contains("no camera matrix"), "{error}");
}

/// Squeeze-and-excite, skips, stem, head, mirrored borders, and a search of three bins.
#[test]
fn every_layer_of_the_published_networks_is_translated() {
    let mut spec = preset("compact").unwrap();
    let block = |expand, kernel, stride, channels| BlockSpec {
        kind: BlockKind::MbConv { expand },
        kernel,
        stride,
        channels,
    };
    spec.encoder.stem = Some(8);
    spec.encoder.head = Some(96);
    spec.encoder.blocks = vec![
        block(1, 3, 1, 12),
        block(2, 5, 2, 24),
        block(2, 3, 1, 24),
        block(2, 5, 2, 40),
        block(2, 3, 2, 80),
    ];
    for steps in [&mut spec.location, &mut spec.orientation] {
        steps[0].skip = Some(3);
        steps[2].skip = None;
    }
    spec.padding = Padding::Reflect;
    spec.orientation_prior = Some(1);
    assert_same(exported(spec.clone(), 1.0));
    spec.orientation_prior = None;
    spec.descriptor_cell = 2;
    for level in &mut spec.levels {
        level.grid /= 2;
    }
    let (location, orientation) = (spec.location.clone(), spec.orientation.clone());
    for steps in [&mut spec.location, &mut spec.orientation] {
        steps.iter_mut().for_each(|step| step.skip = None);
    }
    spec.location[1].skip = location[0].skip;
    spec.orientation[2].skip = orientation[1].skip;
    assert_same(exported(spec, 1.0));
}

/// Sample 0 of `[N, 3, H, W]` pixels.
#[test]
fn the_daemon_drives_with_what_was_exported() {
    for name in ["compact", "compact-unknown-heading"] {
        the_daemon_drives_with(name);
    }
}

fn the_daemon_drives_with(name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("student.onnx");
    let model = random_model(preset(name).unwrap(), 4);
    let card = student_card(model.describe(), 1.5, "MIT");
    let card = write_onnx(&model, card, &path).unwrap();
    let input = noise_input(model.describe(), 1, 6).unwrap();
    let mut matcher = TractMatcher::load(&path).unwrap();
    assert_eq!(matcher.card(), &card);
    let patch = PatchSpec {
        size_px: card.aerial.size_px,
        metres_per_pixel: card.aerial.metres_per_pixel,
    };
    let place = Geodetic::new(52.0, 4.0, 0.0).unwrap();
    let key = PatchGeoreference::exactly_at(place, patch).unwrap().key();
    let (image, patch) = (
        picture(&input.ground).unwrap(),
        picture(&input.aerial).unwrap(),
    );
    let strip = GroundStrip {
        image: &image,
        left_azimuth_rad: card.ground.strip_spec(0.3).left_azimuth_rad,
    };
    let answer = matcher.match_frame(strip, key, &patch).unwrap();
    let heatmap = Reference::new(&model, &input, 1.5).unwrap().heatmaps;
    assert!(relative_error(answer.heatmap.probabilities(), &heatmap) <= 1e-4);
    assert!(answer.yaw_residual_rad.is_some());
}

#[test]
fn a_window_is_a_part_of_the_whole_wherever_it_is() {
    for (name, side_m) in [
        ("compact", 25.0),
        ("compact", 12.0),
        ("compact-front", 20.0),
        ("compact-unknown-heading", 30.0),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("student.onnx");
        let model = random_model(preset(name).unwrap(), 4);
        let card = with_window(student_card(model.describe(), 0.7, "MIT"), side_m);
        let card = write_onnx(&model, card, &path).unwrap();
        let window = card.window.unwrap();
        let input = noise_input(model.describe(), 1, 6).unwrap();
        assert!(verify_window(&path, &input).unwrap() <= 1e-4);
        let mut matcher = TractMatcher::load(&path).unwrap();
        let spec = card.aerial.patch_spec();
        let place = Geodetic::new(52.0, 4.0, 0.0).unwrap();
        let key = PatchGeoreference::exactly_at(place, spec).unwrap().key();
        let mut input = noise_input(model.describe(), 1, 6).unwrap();
        let (image, patch) = (
            picture(&input.ground).unwrap(),
            picture(&input.aerial).unwrap(),
        );
        let strip = GroundStrip {
            image: &image,
            left_azimuth_rad: card.ground.strip_spec(0.3).left_azimuth_rad,
        };
        let whole = matcher.match_frame(strip, key, &patch).unwrap();
        assert_eq!(whole.part, None);
        let all = whole.heatmap.probabilities();
        if let Some(bin) = input.ground_left_bin.first_mut() {
            *bin = card.ground.left_bin(strip.left_azimuth_rad).unwrap();
        }
        let orientation = Reference::new(&model, &input, 0.7).unwrap().orientations;
        let orientation = orientation.unwrap();
        let most = spec.side_m() / 2.0 - 2.0;
        for at in 0..49 {
            let offset_m = [at % 7, at / 7].map(|at| f64::from(at - 3) / 3.0 * most);
            let inside = Inside {
                offset_m,
                radius_m: 1.5,
            };
            let found = matcher.match_inside(strip, key, &patch, inside).unwrap();
            let cells = found.part.unwrap();
            assert_eq!(cells.side, window.side);
            let part = found.heatmap.probabilities();
            let inside: Vec<usize> = cells.rows(card.heatmap.side).flatten().collect();
            let sum_of =
                |heatmap: &[f32]| -> f64 { inside.iter().map(|at| f64::from(heatmap[*at])).sum() };
            let told = |heatmap: &[f32]| -> Vec<f32> {
                let told = inside.iter().map(|at| f64::from(heatmap[*at]));
                told.map(|p| (p / sum_of(heatmap)) as f32).collect()
            };
            let error = relative_error(&told(part), &told(all));
            assert!(error <= 1e-4, "{name} {offset_m:?}: {error}");
            // Around the mode, weighted by the part.
            let (mode, side) = (mode(part), card.heatmap.side);
            let near = |at: usize, mode: usize| at.abs_diff(mode) <= 1;
            let around =
                |at: &&usize| near(*at / side, mode / side) && near(*at % side, mode % side);
            let all_cells: Vec<usize> = (0..all.len()).collect();
            let sum = |field: &[f32]| -> f64 {
                let near = all_cells.iter().filter(around);
                near.map(|at| f64::from(part[*at] * field[*at])).sum()
            };
            let (cosines, sines) = orientation.split_at(all.len());
            let yaw = sum(sines).atan2(sum(cosines));
            let apart = (found.yaw_residual_rad.unwrap() - yaw).abs();
            assert!(apart <= 1e-4, "{name} {offset_m:?}: {apart} rad");
        }
        let wide = Inside {
            offset_m: [0.0; 2],
            radius_m: side_m,
        };
        let found = matcher.match_inside(strip, key, &patch, wide).unwrap();
        assert_eq!(found.part, None);
        assert_eq!(found.heatmap.probabilities(), all);
    }
}

#[test]
fn a_window_that_no_network_can_have_is_refused() {
    let model = random_model(preset("compact").unwrap(), 4);
    for side_m in [0.5, 500.0, f64::NAN] {
        let card = with_window(student_card(model.describe(), 1.0, "MIT"), side_m);
        let refused = write_onnx(&model, card, Path::new("/nowhere/student.onnx")).unwrap_err();
        assert!(refused.to_string().contains("window"), "{refused}");
    }
    let other = random_ggcvt(ggcvt::preset("ggcvt-compact").unwrap(), 4);
    let card = student_card(other.describe(), 1.0, "MIT");
    let card = StudentCard {
        window: Some(WindowOutput {
            side: 11,
            orientation_side: 5,
        }),
        ..card
    };
    let refused = write_onnx(&other, card, Path::new("/nowhere/student.onnx")).unwrap_err();
    assert!(refused.to_string().contains("window"), "{refused}");
}

#[test]
fn images_that_are_still_to_be_augmented_are_not_compared() {
    let model = random_model(preset("compact").unwrap(), 4);
    let mut input = noise_input(model.describe(), 1, 6).unwrap();
    input.augment = Some([(); 2].map(|()| Augment::tensor(&[Augment::default()])));
    let refused = Reference::new(&model, &input, 1.0).err().unwrap();
    let said = refused.to_string();
    assert!(said.contains("augmented"), "{said}");
}

#[test]
fn the_daemon_drives_with_a_ggcvt_and_hears_no_yaw_from_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("student.onnx");
    let model = random_ggcvt(ggcvt::preset("ggcvt-compact").unwrap(), 4);
    let card = student_card(model.describe(), 0.2, "MIT");
    let card = write_onnx(&model, card, &path).unwrap();
    assert!(card.heatmap.inner && card.aerial_features.len() == 2);
    let mut input = noise_input(model.describe(), 1, 6).unwrap();
    let mut matcher = TractMatcher::load(&path).unwrap();
    assert_eq!(matcher.card(), &card);
    let patch = PatchSpec {
        size_px: card.aerial.size_px,
        metres_per_pixel: card.aerial.metres_per_pixel,
    };
    let place = Geodetic::new(52.0, 4.0, 0.0).unwrap();
    let key = PatchGeoreference::exactly_at(place, patch).unwrap().key();
    let aerial = picture(&input.aerial).unwrap();
    // The second time with the aerial features of the first, and another view.
    for seed in [7, 8] {
        input.ground = noise_input(model.describe(), 1, seed).unwrap().ground;
        let image = picture(&input.ground).unwrap();
        let strip = GroundStrip {
            image: &image,
            left_azimuth_rad: card.ground.strip_spec(0.3).left_azimuth_rad,
        };
        let answer = matcher.match_frame(strip, key, &aerial).unwrap();
        let expected = Reference::new(&model, &input, 0.2).unwrap();
        let found = answer.heatmap.probabilities();
        assert!(relative_error(found, &expected.heatmaps) <= 1e-4, "{seed}");
        assert_eq!(answer.yaw_residual_rad, None);
        assert_eq!(expected.orientations, None);
        assert_eq!(answer.heatmap.side(), 49);
    }
}

#[test]
fn the_daemon_drives_with_a_front_student_whichever_way_the_vehicle_heads() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("student.onnx");
    let model = random_model(preset("compact-front").unwrap(), 7);
    let card = student_card(model.describe(), 1.0, "MIT");
    let card = write_onnx(&model, card, &path).unwrap();
    let mut input = noise_input(model.describe(), 1, 8).unwrap();
    let mut matcher = TractMatcher::load(&path).unwrap();
    assert_eq!(matcher.card(), &card);
    let patch = PatchSpec {
        size_px: card.aerial.size_px,
        metres_per_pixel: card.aerial.metres_per_pixel,
    };
    let place = Geodetic::new(52.0, 4.0, 0.0).unwrap();
    let key = PatchGeoreference::exactly_at(place, patch).unwrap().key();
    let (image, patch) = (
        picture(&input.ground).unwrap(),
        picture(&input.aerial).unwrap(),
    );
    let mut seen: Vec<Vec<f32>> = Vec::new();
    for heading_deg in [0.0, 47.0, 90.0, 171.0, -140.0, -33.0] {
        let yaw_rad = yaw_from_heading(heading_deg);
        let training = strip_spec(model.describe(), yaw_rad);
        input.ground_left_bin = vec![left_bin(model.describe(), &training)];
        let heatmap = Reference::new(&model, &input, 1.0).unwrap().heatmaps;
        // What the daemon cuts for this heading is what training cut.
        let driving = card.ground.strip_spec(yaw_rad);
        assert!((driving.left_azimuth_rad - training.left_azimuth_rad).abs() < 1e-9);
        assert!((driving.radians_per_pixel - training.radians_per_pixel).abs() < 1e-12);
        let strip = GroundStrip {
            image: &image,
            left_azimuth_rad: driving.left_azimuth_rad,
        };
        let answer = matcher.match_frame(strip, key, &patch).unwrap();
        let found = answer.heatmap.probabilities();
        assert!(relative_error(found, &heatmap) <= 1e-4, "{heading_deg}");
        assert!(seen.iter().all(|other| relative_error(found, other) > 1e-2));
        seen.push(heatmap);
    }
}

#[test]
fn a_card_of_another_network_is_refused() {
    let model = Ccvpe::new(preset("compact").unwrap(), 0).unwrap();
    let mut card = student_card(model.describe(), 1.0, "MIT");
    card.heatmap.side = 32;
    let error = write_onnx(&model, card, Path::new("never.onnx")).unwrap_err();
    assert!(error.to_string().contains("heatmap.side"), "{error}");
}

#[test]
fn a_missing_number_is_an_infinite_error() {
    assert!(relative_error(&[f32::NAN], &[1.0]).is_infinite());
    assert!(relative_error(&[1.0], &[1.0, 2.0]).is_infinite());
    assert!((relative_error(&[1.0, 3.0], &[2.0, 4.0]) - 0.25).abs() < 1e-9);
}

/// Where the vector is all but zero, any direction will do; where it is long, none but the right one.
#[test]
fn a_direction_counts_as_much_as_its_vector_is_long() {
    let (east, north) = ([1.0, 0.0], [0.0, 1.0]);
    let field = |first: [f32; 2], second: [f32; 2]| [first[0], second[0], first[1], second[1]];
    let expected = field(east, east);
    let lengths = [5.0, 5e-5];
    let error = |found: &[f32]| error_by_length(found, &expected, &lengths);
    assert_eq!(error(&field(east, east)), 0.0);
    assert!((error(&field(east, north)) - 1e-5).abs() < 1e-10);
    assert_eq!(error(&field(north, east)), 1.0);
    assert_eq!(error(&field([f32::NAN, 0.0], east)), f64::INFINITY);
    assert_eq!(error(&field(east, [f32::NAN, 0.0])), f64::INFINITY);
    assert_eq!(error(&expected[..2]), f64::INFINITY);
    assert_eq!(
        error_by_length(&expected, &expected, &[0.0; 2]),
        f64::INFINITY
    );
}
