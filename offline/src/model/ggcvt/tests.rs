use super::*;
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
        ("ggcvt-kitti3", 205, 7_216_893),
        ("ggcvt-kitti2", 203, 7_216_891),
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
    assert!((50_000..300_000).contains(&count), "{count}");
}

#[test]
fn views_of_another_camera_are_refused() {
    let spec = tiny(preset("ggcvt-vigor").unwrap().camera);
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
    let spec = tiny(preset("ggcvt-vigor").unwrap().camera);
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
