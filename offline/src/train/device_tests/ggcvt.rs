//! The same of GGCVT, whose step projects the ground and looks for poses on the device.

use super::*;
use crate::model::ggcvt::GgcvtCamera;
use crate::model::ggcvt::tests::{KITTI, VIGOR, tiny};
use crate::model::{Ggcvt, GgcvtSpec};
use crate::train::recorded::device_of;

/// One window at the coarsest level of the optimiser, whose tokens are 2 by 2 there.
fn spec_of(camera: GgcvtCamera) -> GgcvtSpec {
    GgcvtSpec {
        window: 2,
        unused_layers: true,
        ..tiny(camera)
    }
}

/// Noise that each camera saw in its own way; of the pinhole cameras one in three knows its
/// heading.
fn samples(spec: &GgcvtSpec) -> Noise<'static> {
    let panorama = matches!(spec.camera, GgcvtCamera::Panorama { .. });
    Noise::of(spec.describe(), 1, move |index| {
        if panorama {
            GroundProjection::Panorama {
                metres_per_pixel: 0.5 + 0.01 * index as f64,
                turn_rad: 0.4 * index as f64 - 1.0,
            }
        } else {
            GroundProjection::Pinhole {
                camera: [36.0 + index as f64, 35.0, 32.0, 6.0],
                heading: index.is_multiple_of(3).then_some(0.2 - 0.1 * index as f32),
            }
        }
    })
}

fn network(spec: &GgcvtSpec, device: &Device) -> Ggcvt {
    let mut model = Ggcvt::new(spec.clone(), 1).unwrap();
    model.parameters_mut().move_to(device).unwrap();
    model
}

/// Places by distance, as published, and by the labels of adaptation.
fn losses() -> [LossConfig; 2] {
    let none = LossConfig {
        info_nce: 0.0,
        heatmap: 0.0,
        orientation: 0.0,
        sigma_m: 2.0,
        ..LossConfig::default()
    };
    [
        LossConfig {
            triplet: 1.0,
            ..none.clone()
        },
        LossConfig {
            info_nce: 1.0,
            levels: Some(2),
            ..none
        },
    ]
}

/// Against the processor: steps of Adam amplify roundings. 4e-7 was seen.
#[test]
fn recorded_steps_have_the_bits_of_launched_ones_and_the_losses_of_the_processor() {
    let [places, labels] = losses();
    // With epochs of two steps, before each of which Adam forgets: two recordings, and a replay of
    // each. Labels are learnt alike with either camera.
    for (camera, loss, fresh_moments) in [
        (VIGOR, labels, false),
        (VIGOR, places.clone(), true),
        (KITTI, places, true),
    ] {
        let spec = spec_of(camera);
        let samples = samples(&spec);
        let config = FitConfig {
            fresh_moments,
            batch: if fresh_moments { samples.len() / 2 } else { 2 },
            learning_rate: 1e-4,
            loss,
            ..settings(if fresh_moments { 4 } else { 3 })
        };
        let [here, launched, recorded] =
            [(Device::Cpu, true), (emulated(), false), (emulated(), true)].map(
                |(device, may_record)| {
                    let mut model = network(&spec, &device);
                    let before = numbers(&model);
                    let records = device_of(&mut model).is_some();
                    assert_eq!(records, device != Device::Cpu);
                    let losses = plain(&mut model, &samples, &config, may_record);
                    let after = numbers(&model);
                    assert!(before != after, "nothing was learnt");
                    (losses, after)
                },
            );
        let what = format!("{camera:?}, {:?}", config.loss);
        assert_eq!(recorded.0, launched.0, "{what}");
        assert!(recorded.1 == launched.1, "{what}: other numbers");
        assert_eq!(recorded.0.len() as u64, config.steps.unwrap());
        for (got, expected) in recorded.0.iter().zip(&here.0) {
            let difference = ((got - expected) / expected).abs();
            assert!(difference < 1e-5, "{what}: {got} is not {expected}");
        }
    }
}

/// The last step's line of the curve is that of steps that are told one by one.
#[test]
fn the_terms_of_recorded_steps_are_told() {
    let spec = spec_of(VIGOR);
    let [_, labels] = losses();
    let loss = LossConfig {
        triplet: 0.5,
        ..labels
    };
    let config = FitConfig {
        loss,
        ..settings(3)
    };
    let [launched, recorded] = [false, true].map(|may_record| {
        let folder = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(folder.path()).unwrap();
        let never = Interrupt::default();
        let mut model = network(&spec, &emulated());
        let noise = samples(&spec);
        let path = folder.file("train.curve.jsonl");
        let folder = Some(&folder);
        train(
            &mut model, &noise, &config, folder, false, &never, may_record,
        )
        .unwrap();
        let curve = std::fs::read_to_string(path).unwrap();
        serde_json::from_str::<serde_json::Value>(curve.lines().next().unwrap()).unwrap()
    });
    assert_eq!(launched, recorded);
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    let info_nce = recorded["info_nce"].as_array().unwrap();
    let mean = info_nce.iter().map(number).sum::<f64>() / 2.0;
    let total = mean + 0.5 * number(&recorded["triplet"]);
    assert!(
        (number(&recorded["loss"]) / total - 1.0).abs() < 1e-6,
        "{recorded}"
    );
}

/// What is timed, and that the projections, the pose's limits and the losses are the device's.
#[test]
fn a_step_is_measured_and_waits_for_nobody() {
    let spec = spec_of(KITTI);
    let [places, _] = losses();
    let config = FitConfig {
        drop_connect: false,
        learning_rate: 1e-4,
        loss: places,
        ..settings(1)
    };
    let device = emulated();
    let measured = measure::training(&mut network(&spec, &device), &config, 1).unwrap();
    let mut here = network(&spec, &Device::Cpu);
    let expected = measure::training(&mut here, &config, 1).unwrap();
    assert_eq!(measured.losses.len(), 4);
    for (got, expected) in measured.losses.iter().zip(&expected.losses) {
        let difference = ((got - expected) / expected).abs();
        assert!(difference < 1e-5, "{got} is not {expected}");
    }
    let timed = measure::profile(&mut network(&spec, &device), &config).unwrap();
    for kernel in [
        "plane_grid_forward",
        "plane_grid_in_front",
        "plane_grid_to_pose",
        "grid_columns",
        "replace_beyond_backward",
        "soft_margin_triplet_backward",
        "absolute_error_backward",
        "uncertainty_weighted_backward",
    ] {
        assert!(
            timed.iter().any(|launch| launch.name.starts_with(kernel)),
            "{kernel}"
        );
    }
}
