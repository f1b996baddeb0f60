use super::*;
use crate::data::Pair;
use crate::model::weights::arrays_of;
use crate::model::{Ccvpe, CrossViewModel, named, preset};
use crate::train::BatchNormKind;
use crate::train::tests::noise_pairs;
use crossfix_kernel_emulator::{Emulator, Options};
use crossfix_kernels::Device;
use crossfix_kernels::cuda::Cuda;

fn pairs() -> Vec<Pair> {
    let pairs = noise_pairs(10, "compact").into_iter();
    pairs.map(|(pair, _)| pair).collect()
}

fn teacher() -> Ccvpe {
    Ccvpe::new(preset("compact").unwrap(), 3).unwrap()
}

#[test]
fn the_student_learns_only_kept_labels_and_only_coarse_levels() {
    let config = AdaptConfig {
        epochs: 1.0,
        batch: 4,
        ..AdaptConfig::default()
    };
    let interrupt = Interrupt::default();
    let adapted = adapt(&teacher(), &pairs(), &config, 1, None, false, &interrupt).unwrap();
    let kept = adapted.filtered.kept.iter().filter(|kept| **kept).count();
    assert_eq!(kept, 8);
    assert_eq!(adapted.fits[0].total_steps, 3);
    assert_eq!(adapted.fits[1].total_steps, 2);
    let (before, after) = (arrays_of(&teacher()), arrays_of(adapted.student.as_ref()));
    let changed = |name: &str| before[name] != after[name];
    assert!(changed("conv3.2.weight"));
    assert!(!changed("conv2.0.weight"));
    assert!(!changed("grd_feature_to_descriptor3.0.weight"));
}

#[test]
fn labels_are_centres_of_heatmap_cells() {
    let pairs = pairs();
    for label in label(&mut teacher(), &pairs, &AdaptConfig::default()).unwrap() {
        assert_eq!((label.column.fract(), label.row.fract()), (0.5, 0.5));
        assert_eq!(label.offset_m, [label.column - 32.0, 32.0 - label.row]);
        assert_eq!(label.residual_rad, 0.0);
    }
}

#[test]
fn a_share_of_nothing_is_refused() {
    let config = AdaptConfig {
        keep: 0.0,
        ..AdaptConfig::default()
    };
    let result = adapt(
        &teacher(),
        &pairs(),
        &config,
        1,
        None,
        false,
        &Interrupt::default(),
    );
    assert!(result.err().unwrap().to_string().contains("keep is 0"));
}

#[test]
fn both_kinds_of_network_adapt_with_their_own_recipe() {
    let pairs: Vec<Pair> = noise_pairs(6, "ggcvt-compact")
        .into_iter()
        .map(|(pair, _)| pair)
        .collect();
    let teacher = named("ggcvt-compact").unwrap().build(3).unwrap();
    let config = AdaptConfig {
        epochs: 1.0,
        ..teacher.paper()
    };
    assert_eq!((config.levels, config.keep, config.batch), (3, 0.7, 4));
    let ccvpe = Ccvpe::new(preset("compact").unwrap(), 3).unwrap().paper();
    assert_eq!((ccvpe.levels, ccvpe.keep, ccvpe.batch), (2, 0.8, 8));
    let interrupt = Interrupt::default();
    let adapted = adapt(
        teacher.as_ref(),
        &pairs,
        &config,
        1,
        None,
        false,
        &interrupt,
    )
    .unwrap();
    assert_eq!(
        adapted.filtered.kept.iter().filter(|kept| **kept).count(),
        5
    );
    let (before, after) = (
        arrays_of(teacher.as_ref()),
        arrays_of(adapted.student.as_ref()),
    );
    let untouched: Vec<&String> = before
        .keys()
        .filter(|name| before[*name] == after[*name])
        .collect();
    assert!(untouched.is_empty(), "{untouched:?}");
}

/// The whole of an adaptation, with its first step launched and the others recorded, and a student
/// that begins as a clone of the teacher.
#[test]
fn a_device_adapts_as_the_processor_does() {
    let pairs: Vec<Pair> = noise_pairs(4, "compact")
        .into_iter()
        .map(|(pair, _)| pair)
        .collect();
    let config = AdaptConfig {
        epochs: 2.0,
        batch: 2,
        keep: 1.0,
        ..AdaptConfig::default()
    };
    assert_eq!(config.batch_norm, BatchNormKind::Frozen);
    let emulator = Emulator::new(Options::default());
    let emulated = Device::Cuda(Cuda::with_driver(Box::new(emulator)));
    let [here, there] = [Device::Cpu, emulated].map(|device| {
        let mut teacher = teacher();
        teacher.parameters_mut().move_to(&device).unwrap();
        let interrupt = Interrupt::default();
        adapt(&teacher, &pairs, &config, 1, None, false, &interrupt).unwrap()
    });
    let cells = |adapted: &Adapted| -> Vec<_> {
        let cell = |label: &Label| (label.id.clone(), label.column, label.row);
        adapted.labels.iter().map(cell).collect()
    };
    assert_eq!(cells(&here), cells(&there));
    assert_eq!(here.filtered.kept, there.filtered.kept);
    for (here, there) in here.fits.iter().zip(&there.fits) {
        assert_eq!(here.losses.len(), 4);
        for (got, expected) in there.losses.iter().zip(&here.losses) {
            let difference = ((got - expected) / expected).abs();
            assert!(difference < 1e-4, "{got} is not {expected}");
        }
    }
}
