use super::*;
use crate::data::Pair;
use crate::data::pairs::truth::Truth;
use crate::model::weights::arrays_of;
use crate::model::{Ccvpe, CrossViewModel, named, preset};
use crate::run::Interrupt;
use crate::train::BatchNormKind;
use crate::train::tests::noise_pairs;
use crossfix_kernel_emulator::{Emulator, Options};
use crossfix_kernels::Device;
use crossfix_kernels::cuda::Cuda;

fn pairs() -> Vec<Pair> {
    let pairs = noise_pairs(10, "compact").into_iter();
    pairs.map(|(pair, _)| pair).collect()
}

/// Adapts with seed 1, without a folder.
fn adapted(teacher: &dyn CrossViewModel, pairs: &dyn Dataset, recipe: &Recipe) -> Adapted {
    adapt(teacher, pairs, recipe, &run(&Interrupt::default())).unwrap()
}

fn run(interrupt: &Interrupt) -> RunContext<'_> {
    RunContext {
        seed: 1,
        folder: None,
        resume: false,
        interrupt,
    }
}

/// The recipe `paper` of a network, shortened.
fn short(model: &dyn CrossViewModel, epochs: f64, batch: usize) -> Recipe {
    let mut recipe = defaults::paper(model.describe());
    recipe.fit.epochs = epochs;
    recipe.fit.batch = batch;
    recipe
}

fn teacher() -> Ccvpe {
    Ccvpe::new(preset("compact").unwrap(), 3).unwrap()
}

#[test]
fn the_student_learns_only_kept_labels_and_only_coarse_levels() {
    let adapted = adapted(&teacher(), &pairs(), &short(&teacher(), 1.0, 4));
    let kept = adapted
        .labels
        .iter()
        .filter(|label| label.is_kept())
        .count();
    assert_eq!(kept, 8);
    assert_eq!(adapted.auxiliary.unwrap().fit.total_steps, 3);
    assert_eq!(adapted.fit.total_steps, 2);
    let (before, after) = (arrays_of(&teacher()), arrays_of(adapted.student.as_ref()));
    let changed = |name: &str| before[name] != after[name];
    assert!(changed("conv3.2.weight"));
    assert!(!changed("conv2.0.weight"));
    assert!(!changed("grd_feature_to_descriptor3.0.weight"));
}

#[test]
fn labels_are_centres_of_heatmap_cells() {
    let pairs = pairs();
    let mode = TeacherMode {
        within_prior: false,
        heading: HeadingLabels::Given,
    };
    for label in mode
        .label(&mut teacher(), &pairs, &Interrupt::default())
        .unwrap()
    {
        assert_eq!((label.column.fract(), label.row.fract()), (0.5, 0.5));
        assert_eq!(label.offset_m, [label.column - 32.0, 32.0 - label.row]);
        assert_eq!(label.residual_rad, 0.0);
    }
}

#[test]
fn a_share_of_nothing_is_refused() {
    let recipe = Recipe {
        filter: Filter::AuxiliaryStudent { keep: 0.0 },
        ..short(&teacher(), 1.0, 4)
    };
    let interrupt = Interrupt::default();
    let result = adapt(&teacher(), &pairs(), &recipe, &run(&interrupt));
    assert!(result.err().unwrap().to_string().contains("keep is 0"));
}

#[test]
fn both_kinds_of_network_adapt_with_their_own_recipe() {
    let pairs: Vec<Pair> = noise_pairs(6, "ggcvt-compact")
        .into_iter()
        .map(|(pair, _)| pair)
        .collect();
    let teacher = named("ggcvt-compact").unwrap().build(3).unwrap();
    let mut recipe = defaults::paper(teacher.describe());
    recipe.fit.epochs = 1.0;
    assert_eq!(recipe.filter, Filter::AuxiliaryStudent { keep: 0.7 });
    assert_eq!((recipe.fit.loss.levels, recipe.fit.batch), (Some(3), 4));
    let ccvpe = defaults::paper(&named("compact").unwrap().describe());
    assert_eq!(ccvpe.filter, Filter::AuxiliaryStudent { keep: 0.8 });
    assert_eq!((ccvpe.fit.loss.levels, ccvpe.fit.batch), (Some(2), 8));
    let adapted = adapted(teacher.as_ref(), &pairs, &recipe);
    let kept = adapted.labels.iter().filter(|label| label.is_kept());
    assert_eq!(kept.count(), 5);
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
    let recipe = Recipe {
        filter: Filter::AuxiliaryStudent { keep: 1.0 },
        ..short(&teacher(), 2.0, 2)
    };
    assert_eq!(recipe.fit.batch_norm, BatchNormKind::Frozen);
    let emulator = Emulator::new(Options::default());
    let emulated = Device::Cuda(Cuda::with_driver(Box::new(emulator)));
    let [here, there] = [Device::Cpu, emulated].map(|device| {
        let mut teacher = teacher();
        teacher.parameters_mut().move_to(&device).unwrap();
        adapted(&teacher, &pairs, &recipe)
    });
    let cells = |adapted: &Adapted| -> Vec<_> {
        let cell = |label: &PseudoLabel| (label.id.clone(), label.column, label.row, label.weight);
        adapted.labels.iter().map(cell).collect()
    };
    assert_eq!(cells(&here), cells(&there));
    let fits = |adapted: Adapted| [adapted.auxiliary.unwrap().fit, adapted.fit];
    for (here, there) in fits(here).iter().zip(&fits(there)) {
        assert_eq!(here.losses.len(), 4);
        for (got, expected) in there.losses.iter().zip(&here.losses) {
            let difference = ((got - expected) / expected).abs();
            assert!(difference < 1e-4, "{got} is not {expected}");
        }
    }
}

#[test]
fn without_a_filter_there_is_no_auxiliary_student_and_every_label_is_learned() {
    let mut recipe = short(&teacher(), 1.0, 4);
    recipe.filter = Filter::KeepAll;
    let adapted = adapted(&teacher(), &pairs(), &recipe);
    assert!(adapted.auxiliary.is_none());
    assert_eq!(adapted.kept_fraction(), 1.0);
    assert_eq!(adapted.fit.total_steps, 3);
}

#[test]
fn a_second_round_is_labelled_by_the_first_rounds_student() {
    let mut recipe = short(&teacher(), 1.0, 4);
    recipe.filter = Filter::KeepAll;
    recipe.fit.learning_rate = 1e-2;
    let once = adapted(&teacher(), &pairs(), &recipe);
    let Labeller::TeacherMode(mode) = recipe.labeller else {
        panic!("the paper labels by mode")
    };
    let mut first_student = once.student;
    let expected = mode
        .label(first_student.as_mut(), &pairs(), &Interrupt::default())
        .unwrap();
    recipe.rounds = 2;
    let twice = adapted(&teacher(), &pairs(), &recipe);
    assert_eq!(twice.labels, expected);
    assert_ne!(twice.labels, once.labels);
}

#[test]
fn true_positions_are_refused_where_truth_is_not_given_and_pairs_without_it_are_not_learned() {
    let recipe = defaults::oracle(teacher().describe());
    let interrupt = Interrupt::default();
    let refused = adapt(&teacher(), &pairs(), &recipe, &run(&interrupt));
    assert!(refused.err().unwrap().to_string().contains("--truth"));
    let labels = oracle::true_labels(teacher().describe(), &pairs(), &Truth::default());
    assert!(labels.iter().all(|label| !label.is_kept()));
}
