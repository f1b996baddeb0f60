use super::*;
use crossfix_kernels::optim::Adam;
use crossfix_kernels::testing::noise;

/// A network small enough for a test: one window at the coarsest level.
fn tiny(camera: Camera) -> GgcvtSpec {
    GgcvtSpec {
        preset: "tiny".into(),
        ground_rows: 16,
        ground_columns: 64,
        aerial_px: 64,
        widths: [4, 6, 8],
        embedding: 6,
        heads: 3,
        window: 4,
        uncertainty: [4, 4],
        cross_width: 8,
        cross_heads: 2,
        templates: [3, 6, 13],
        unused_layers: false,
        camera,
        ..preset("ggcvt-vigor").unwrap()
    }
}

fn pinhole() -> Camera {
    Camera::Pinhole {
        height_m: 1.65,
        metres_per_pixel: 0.5,
        shift_range_m: 10.0,
        heading_range_deg: 10.0,
        iterations: 2,
        learnt_balance: true,
    }
}

/// Images of noise in [0, 1].
fn input(spec: &GgcvtSpec, view: View) -> GgcvtInput {
    let image = |shape: &[usize], seed| {
        let data = noise(shape, seed)
            .data()
            .iter()
            .map(|x| 0.5 + 0.5 * x)
            .collect();
        Tensor::new(data, shape).unwrap()
    };
    GgcvtInput {
        ground: image(&[2, 3, spec.ground_rows, spec.ground_columns], 1),
        aerial: image(&[2, 3, spec.aerial_px, spec.aerial_px], 2),
        views: vec![view; 2],
    }
}

const PANORAMA: View = View::Panorama {
    metres_per_pixel: 0.5,
    turn_rad: 0.1,
};
const PINHOLE: View = View::Pinhole {
    camera: [36.0, 36.0, 32.0, 6.0],
    heading: None,
};

#[test]
fn published_networks_have_the_published_parameters() {
    for (name, tensors, count) in [
        ("ggcvt-vigor", 140, 6_784_825),
        ("ggcvt-kitti-3dof", 205, 7_216_893),
        ("ggcvt-kitti-2dof", 203, 7_216_891),
    ] {
        let model = Ggcvt::new(preset(name).unwrap(), 0).unwrap();
        assert_eq!(model.parameters().count(), count, "{name}");
        assert_eq!(model.parameters().all().len(), tensors, "{name}");
    }
}

#[test]
fn the_compact_network_is_small() {
    let model = Ggcvt::new(preset("ggcvt-compact").unwrap(), 0).unwrap();
    let count = model.parameters().count();
    assert!((100_000..500_000).contains(&count), "{count}");
}

#[test]
fn views_of_another_camera_are_refused() {
    let spec = tiny(Camera::Panorama { height_m: 2.0 });
    let mut model = Ggcvt::new(spec.clone(), 0).unwrap();
    let wrong = input(&spec, PINHOLE);
    let options = GgcvtOptions::default();
    assert!(
        model
            .forward(&mut Tape::inference(), &wrong, options)
            .is_err()
    );
}

#[test]
fn coarse_levels_do_not_change_when_finer_ones_are_left_out() {
    let spec = tiny(Camera::Panorama { height_m: 2.0 });
    let mut model = Ggcvt::new(spec.clone(), 1).unwrap();
    let input = input(&spec, PANORAMA);
    let mut run = |levels| {
        let options = GgcvtOptions {
            levels,
            ..GgcvtOptions::default()
        };
        model
            .forward(&mut Tape::inference(), &input, options)
            .unwrap()
    };
    let (all, one) = (run(None), run(Some(1)));
    assert_eq!((all.distances.len(), one.distances.len()), (3, 1));
    assert_eq!(all.distances[0].data(), one.distances[0].data());
}

#[test]
fn one_batch_is_learnt_by_heart() {
    for (camera, view) in [
        (Camera::Panorama { height_m: 2.0 }, PANORAMA),
        (pinhole(), PINHOLE),
    ] {
        let spec = tiny(camera);
        let mut model = Ggcvt::new(spec.clone(), 3).unwrap();
        let input = input(&spec, view);
        let offsets = [[0.08, -0.11], [-0.05, 0.13]];
        let truth = Tensor::new(vec![0.2, -0.3, 0.4, -0.1, 0.3, -0.5], &[2, 3]).unwrap();
        let mut adam = Adam::default();
        let mut losses = Vec::new();
        for _ in 0..40 {
            let mut tape = Tape::training();
            let options = GgcvtOptions::default();
            let prediction = model.forward(&mut tape, &input, options).unwrap();
            let terms = loss::triplets(&mut tape, &spec, &prediction, &offsets).unwrap();
            let mut total = loss::sum(&mut tape, &terms).unwrap();
            if !prediction.poses.is_empty() {
                let error = loss::pose_error(&mut tape, &prediction.poses, &truth).unwrap();
                total = ops::add(&mut tape, &total, &error).unwrap();
            }
            losses.push(total.item().unwrap());
            let gradients = tape.backward(&total).unwrap();
            adam.step(model.parameters_mut().all_mut(), &gradients, 3e-3)
                .unwrap();
        }
        let (first, last) = (losses[0], losses[losses.len() - 1]);
        assert!(last < 0.6 * first, "{camera:?}: {first} to {last}");
    }
}
