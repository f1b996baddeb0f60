use super::*;
use crossfix_kernel_emulator::{Emulator, Options, Schedule};
use crossfix_kernels::Device;
use crossfix_kernels::cuda::Cuda;
use crossfix_kernels::optim::Adam;
use crossfix_kernels::testing::{assert_close, noise};

/// A network small enough for a test: one window at the coarsest level.
pub(crate) fn tiny(camera: GgcvtCamera) -> GgcvtSpec {
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
fn input(spec: &GgcvtSpec, projection: GroundProjection) -> GgcvtInput {
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
        projections: vec![projection; 2],
    }
}

/// As published.
pub(crate) const VIGOR: GgcvtCamera = GgcvtCamera::Panorama {
    height_m: 2.0,
    metres_per_pixel: 0.140_184,
    top_deg: 0.0,
    span_deg: 180.0,
};
/// Over less ground than published, as the networks here are small.
pub(crate) const KITTI: GgcvtCamera = GgcvtCamera::Pinhole {
    height_m: 1.65,
    metres_per_pixel: 0.4,
    shift_range_m: 5.0,
    heading_range_deg: 10.0,
    iterations: 1,
    learnt_balance: true,
};

const PANORAMA: GroundProjection = GroundProjection::Panorama {
    metres_per_pixel: 0.5,
    turn_rad: 0.1,
};
const PINHOLE: GroundProjection = GroundProjection::Pinhole {
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
    let spec = tiny(VIGOR);
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
    let spec = tiny(VIGOR);
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

/// The losses before and after one step of Adam, and each parameter's gradient by name.
fn one_step(
    camera: GgcvtCamera,
    projection: GroundProjection,
    device: &Device,
) -> Result<([f32; 2], Vec<(String, Vec<f32>)>), ModelError> {
    // The optimiser's tokens are 2 by 2 at the coarsest level.
    let spec = GgcvtSpec {
        window: 2,
        ..tiny(camera)
    };
    let mut model = Ggcvt::new(spec.clone(), 3)?;
    model.parameters_mut().move_to(device)?;
    let input = input(&spec, projection);
    let truth = Tensor::new(vec![0.1, -0.2, 0.3, -0.1, 0.05, -0.3], &[2, 3])?;
    let loss = |model: &mut Ggcvt, tape: &mut Tape| {
        let options = GgcvtOptions {
            column_nudge: 1e-4,
            ..GgcvtOptions::default()
        };
        let prediction = model.forward(tape, &input, options)?;
        let offsets = [[0.1, -0.2], [-0.05, 0.15]];
        let places = loss::triplets(tape, &spec, &prediction, &offsets)?;
        let place = loss::sum(tape, &places)?;
        let Some(balance) = model.balance() else {
            return Ok(place);
        };
        let rotation = loss::pose_error(tape, &prediction.poses, &truth)?;
        Ok::<_, ModelError>(loss::balanced(tape, [&place, &rotation], balance)?)
    };
    let mut tape = Tape::training();
    let before = loss(&mut model, &mut tape)?;
    let gradients = tape.backward(&before)?;
    let named = model.parameters().all().iter().filter_map(|parameter| {
        let gradient = gradients.get(&parameter.value)?;
        Some((parameter.name.clone(), gradient.to_vec()))
    });
    let named: Vec<_> = named.collect();
    let parameters = model.parameters_mut().all_mut();
    Adam::default().step(parameters, &gradients, 1e-3)?;
    let after = loss(&mut model, &mut Tape::inference())?;
    let named = named.into_iter().map(|(name, values)| Ok((name, values?)));
    let named = named.collect::<Result<_, crossfix_kernels::Error>>()?;
    Ok(([before.item()?, after.item()?], named))
}

/// A whole step: every operation of the network, its losses, their gradients and the optimiser.
#[test]
fn a_training_step_on_a_device_is_the_processors() {
    for (camera, projection) in [(VIGOR, PANORAMA), (KITTI, PINHOLE)] {
        let emulator = Emulator::new(Options {
            schedule: Schedule::Random(5),
            ..Options::default()
        });
        let device = Device::Cuda(Cuda::with_driver(Box::new(emulator)));
        let (expected, gradients) = one_step(camera, projection, &Device::Cpu).unwrap();
        let (got, on_device) = one_step(camera, projection, &device).unwrap();
        // Some hundred roundings of numbers around 1 follow each other.
        assert_close(&got, &expected, 1e-4);
        assert!(expected[0] != expected[1], "{expected:?}");
        assert_eq!(on_device.len(), gradients.len());
        let largest = |values: &[f32]| values.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        let of_all = gradients.iter().map(|(_, values)| largest(values));
        // A bias of all keys moves no softmax: its gradient is 0 but for the roundings of others.
        let floor = 1e-6 * of_all.fold(0.0, f32::max);
        for ((name, got), (_, expected)) in on_device.iter().zip(&gradients) {
            let apart: Vec<f32> = got.iter().zip(expected).map(|(g, e)| g - e).collect();
            let (apart, most) = (largest(&apart), largest(expected));
            crate::outln!("{name:60} {most:9.2e} {apart:9.2e}");
            assert!(
                apart <= 1e-4 * most + floor,
                "{name}: {apart:e} of {most:e}"
            );
        }
    }
}
