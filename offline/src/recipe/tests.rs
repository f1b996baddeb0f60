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
        world: crate::train::World::alone(),
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
        prior: CoarsePrior::Ignored,
        heading: HeadingLabels::Given,
        ..TeacherMode::default()
    };
    for label in mode
        .label(&mut teacher(), &pairs, false, &Interrupt::default())
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
        filter: Filter::AuxiliaryStudent {
            keep: 0.0,
            keep_first: None,
        },
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
    assert_eq!(
        recipe.filter,
        Filter::AuxiliaryStudent {
            keep: 0.7,
            keep_first: None
        }
    );
    assert_eq!((recipe.fit.loss.levels, recipe.fit.batch), (Some(3), 4));
    let ccvpe = defaults::paper(&named("compact").unwrap().describe());
    assert_eq!(
        ccvpe.filter,
        Filter::AuxiliaryStudent {
            keep: 0.8,
            keep_first: None
        }
    );
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
        filter: Filter::AuxiliaryStudent {
            keep: 1.0,
            keep_first: None,
        },
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
        .label(
            first_student.as_mut(),
            &pairs(),
            false,
            &Interrupt::default(),
        )
        .unwrap();
    recipe.rounds = 2;
    let twice = adapted(&teacher(), &pairs(), &recipe);
    assert_eq!(twice.labels, expected);
    assert_ne!(twice.labels, once.labels);
}

#[test]
fn labels_of_lowest_entropy_are_kept_without_an_auxiliary_student() {
    let mut recipe = short(&teacher(), 1.0, 4);
    recipe.filter = Filter::LowestEntropy { keep: 0.5 };
    let adapted = adapted(&teacher(), &pairs(), &recipe);
    assert!(adapted.auxiliary.is_none());
    let (kept, dropped): (Vec<_>, Vec<_>) =
        adapted.labels.iter().partition(|label| label.is_kept());
    assert_eq!(kept.len(), adapted.labels.len().div_ceil(2));
    let most = kept.iter().map(|label| label.entropy);
    let most = most.fold(f64::MIN, f64::max);
    assert!(dropped.iter().all(|label| label.entropy >= most));
}

#[test]
fn labels_weigh_as_near_as_the_auxiliary_student_is_and_it_learned_them_alike() {
    // A rate at which modes move.
    let mut recipe = short(&teacher(), 1.0, 4);
    recipe.fit.learning_rate = 0.02;
    let hard = adapted(&teacher(), &pairs(), &recipe);
    let distances = hard.auxiliary.unwrap().distances_m;
    // The furthest weighs half.
    let furthest_m = distances.iter().copied().fold(0.001, f64::max);
    let sigma_m = furthest_m / (2.0 * 2.0_f64.ln()).sqrt();
    recipe.filter = Filter::WeighByAuxiliaryStudent { sigma_m };
    let soft = adapted(&teacher(), &pairs(), &recipe);
    assert_eq!(soft.auxiliary.as_ref().unwrap().distances_m, distances);
    for (label, distance_m) in soft.labels.iter().zip(&distances) {
        assert_eq!(label.weight, closeness(*distance_m, sigma_m));
    }
    assert!(soft.labels.iter().any(|label| label.weight < 0.6));
    assert_eq!(closeness(0.0, 2.0), 1.0);
    assert!((closeness(2.0, 2.0) - (-0.5_f64).exp()).abs() < 1e-12);
    assert_eq!(closeness(6.2, 2.0), 0.0);
    recipe.filter = Filter::WeighByAuxiliaryStudent { sigma_m: 0.0 };
    assert!(
        recipe
            .check()
            .unwrap_err()
            .to_string()
            .contains("sigma_m is 0")
    );
}

#[test]
fn a_share_that_falls_learns_the_nearest_labels_in_every_epoch() {
    let mut recipe = short(&teacher(), 2.0, 4);
    let with = |recipe: &mut Recipe, keep, keep_first| {
        recipe.filter = Filter::AuxiliaryStudent { keep, keep_first };
    };
    with(&mut recipe, 0.4, Some(1.0));
    let falling = adapted(&teacher(), &pairs(), &recipe);
    // Ten labels, then four: 14 examples in batches of four.
    assert_eq!((falling.kept_fraction(), falling.fit.total_steps), (1.0, 4));
    with(&mut recipe, 1.0, Some(0.4));
    let rising = adapted(&teacher(), &pairs(), &recipe);
    assert_eq!((rising.kept_fraction(), rising.fit.total_steps), (1.0, 4));
    with(&mut recipe, 0.4, None);
    let few = adapted(&teacher(), &pairs(), &recipe);
    // The first step of the rising share has four of the same labels as the filter keeps: the same loss but for their order.
    let difference = rising.fit.losses[0] - few.fit.losses[0];
    assert!(difference.abs() < 1e-3 * few.fit.losses[0], "{difference}");
    assert!((falling.fit.losses[0] - few.fit.losses[0]).abs() > difference.abs());
    for wrong in [0.0, 1.1] {
        with(&mut recipe, 0.4, Some(wrong));
        assert!(recipe.check().is_err());
    }
    with(&mut recipe, 0.4, Some(1.0));
    recipe.fit.steps = Some(3);
    assert!(
        recipe
            .check()
            .unwrap_err()
            .to_string()
            .contains("fit.steps")
    );
}

#[test]
fn fused_labels_are_the_modes_of_both_heatmaps_multiplied() {
    let mut recipe = short(&teacher(), 1.0, 4);
    recipe.fit.learning_rate = 1e-2;
    recipe.filter = Filter::FuseWithAuxiliary;
    let adapted = adapted(&teacher(), &pairs(), &recipe);
    assert_eq!(adapted.kept_fraction(), 1.0);
    let never = Interrupt::default();
    let modes = |model: &mut dyn CrossViewModel| {
        predict_modes(model, &pairs(), TeacherMode::default(), true, &never).unwrap()
    };
    let mut auxiliary = adapted.auxiliary.unwrap().model;
    let (ours, theirs) = (modes(&mut teacher()), modes(auxiliary.as_mut()));
    for ((label, ours), theirs) in adapted.labels.iter().zip(&ours).zip(&theirs) {
        let [ours, theirs] = [ours, theirs].map(|found| found.heatmap.as_ref().unwrap());
        let product: Vec<f32> = ours.iter().zip(theirs).map(|(a, b)| a * b).collect();
        let best = crate::predict::arg_max(&product, |_| true).unwrap();
        let place = [best % 64, best / 64].map(|cell| cell as f64 + 0.5);
        assert_eq!([label.column, label.row], place);
    }
}

#[test]
fn whole_heatmaps_are_learned_with_a_maximum_of_one_and_need_an_unmoved_image() {
    let recipe = ablations::named("paper-heatmap-no-filter", teacher().describe()).unwrap();
    let recipe = Recipe {
        fit: FitConfig {
            epochs: 1.0,
            ..recipe.fit
        },
        ..recipe
    };
    let adapted = adapted(&teacher(), &pairs(), &recipe);
    for label in &adapted.labels {
        let map = label.map.as_ref().unwrap();
        assert_eq!(map.len(), 64 * 64);
        let peak = label.row as usize * 64 + label.column as usize;
        assert_eq!(map[peak], 1.0);
        assert!(map.iter().all(|value| (0.0..=1.0).contains(value)));
    }
    let mut mirrored = recipe.clone();
    mirrored.fit.augmentation.symmetries = true;
    assert!(mirrored.check().is_err());
    let mut with_prior = recipe;
    if let Labeller::TeacherHeatmap(mode) = &mut with_prior.labeller {
        mode.prior = CoarsePrior::Ellipse;
    }
    assert!(with_prior.check().is_err());
}

#[test]
fn a_temperature_sharpens_whole_heatmaps_and_means_nothing_to_modes() {
    let labelled = |temperature| {
        let mode = TeacherMode {
            temperature,
            ..TeacherMode::default()
        };
        let never = Interrupt::default();
        mode.label(&mut teacher(), &pairs(), true, &never).unwrap()
    };
    let (plain, sharp) = (labelled(1.0), labelled(0.5));
    for (plain, sharp) in plain.iter().zip(&sharp) {
        let [plain, sharp] = [plain, sharp].map(|label| label.map.as_ref().unwrap());
        let both = plain.iter().zip(sharp.iter());
        for (plain, sharp) in both {
            assert!((plain * plain - sharp).abs() < 1e-6, "{plain} {sharp}");
        }
    }
    let with = |name: &str, temperature| {
        let mut recipe = ablations::named(name, teacher().describe()).unwrap();
        match &mut recipe.labeller {
            Labeller::TeacherMode(mode) | Labeller::TeacherHeatmap(mode) => {
                mode.temperature = temperature;
            }
            _ => unreachable!("both label by a teacher"),
        }
        recipe.check()
    };
    assert!(with("paper-heatmap", 0.5).is_ok() && with("paper", 1.0).is_ok());
    assert!(with("paper-heatmap", 0.0).is_err());
    let message = with("paper", 0.5).unwrap_err().to_string();
    assert!(message.contains("teacher_heatmap"), "{message}");
}

#[test]
fn views_are_1_or_4_and_have_no_heading_of_the_teacher() {
    let with = |change: fn(&mut TeacherMode)| {
        let mut recipe = short(&teacher(), 1.0, 4);
        if let Labeller::TeacherMode(mode) = &mut recipe.labeller {
            change(mode);
        }
        recipe
    };
    let four = with(|mode| mode.views = 4);
    let labels = adapted(&teacher(), &pairs(), &four).labels;
    assert_ne!(labels, adapted(&teacher(), &pairs(), &with(|_| {})).labels);
    assert!(with(|mode| mode.views = 3).check().is_err());
    let refused = with(|mode| (mode.views, mode.heading) = (4, HeadingLabels::Teacher)).check();
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("labeller.heading")
    );
}

#[test]
fn the_entropy_of_its_own_heatmap_changes_what_a_student_learns_and_may_not_be_negative() {
    let mut recipe = short(&teacher(), 1.0, 4);
    recipe.filter = Filter::KeepAll;
    let without = adapted(&teacher(), &pairs(), &recipe);
    recipe.fit.loss.entropy = 1.0;
    let with = adapted(&teacher(), &pairs(), &recipe);
    // The first step starts from the same network, so its loss has the entropy added.
    assert!(with.fit.losses[0] > without.fit.losses[0] + 1.0);
    recipe.fit.loss.entropy = -1.0;
    assert!(recipe.check().is_err());
}

#[test]
fn a_second_rounds_filter_has_an_auxiliary_student_of_its_own() {
    let mut recipe = short(&teacher(), 1.0, 4);
    recipe.fit.learning_rate = 1e-2;
    let once = adapted(&teacher(), &pairs(), &recipe);
    let again = adapted(once.student.as_ref(), &pairs(), &recipe);
    recipe.rounds = 2;
    let twice = adapted(&teacher(), &pairs(), &recipe);
    let distances = |adapted: &Adapted| adapted.auxiliary.as_ref().unwrap().distances_m.clone();
    assert_eq!(distances(&twice), distances(&again));
    assert_ne!(distances(&twice), distances(&once));
    assert_eq!(
        arrays_of(twice.student.as_ref()),
        arrays_of(again.student.as_ref())
    );
}

#[test]
fn recipes_that_share_an_auxiliary_student_end_with_the_same_bits() {
    let interrupt = Interrupt::default();
    let mut shared = Shared::default();
    let mut recipe = short(&teacher(), 1.0, 4);
    for (keep, held_out) in [(0.8, 0.0), (0.5, 0.0), (0.5, 0.3)] {
        recipe.filter = Filter::AuxiliaryStudent {
            keep,
            keep_first: None,
        };
        recipe.gate.held_out = held_out;
        let pairs = drive();
        let run = run(&interrupt);
        let found = adapt_sharing(&teacher(), &pairs, None, &recipe, &run, &mut shared).unwrap();
        let alone = adapted(&teacher(), &pairs, &recipe);
        assert_eq!(found.labels, alone.labels, "{keep} {held_out}");
        assert_eq!(
            arrays_of(found.student.as_ref()),
            arrays_of(alone.student.as_ref())
        );
    }
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

/// Ten pairs of noise as one drive eastward, 4 m from frame to frame.
fn drive() -> Vec<Pair> {
    let mut pairs = pairs();
    let frame = crossfix_calibration::LocalFrame::new(pairs[0].sample.centre);
    for (index, pair) in pairs.iter_mut().enumerate() {
        let east = 4.0 * index as f64;
        let sample = &mut pair.sample;
        sample.drive = "drive".into();
        sample.time_ns = index as i64 * 500_000_000;
        sample.centre = frame.geodetic_from_enu(crossfix_calibration::Enu::new(east, 0.0, 0.0));
        sample.coarse_offset_m = [0.0; 2];
        sample.coarse_covariance_m2 = [[9.0, 0.0], [0.0, 9.0]];
        (sample.yaw_rad, sample.yaw_sigma_rad) = (0.0, 0.03);
        sample.odometry = (index > 0).then_some(crate::data::OdometryStep {
            forward_m: 4.0,
            left_m: 0.0,
            yaw_rad: 0.0,
        });
    }
    pairs
}

/// The recipe `consensus` of a network, shortened, its gate silent.
fn short_consensus() -> Recipe {
    let mut recipe = defaults::consensus(teacher().describe());
    recipe.fit.epochs = 1.0;
    recipe.fit.batch = 4;
    recipe.gate.enforce = false;
    // An untrained teacher supports nothing.
    recipe.filter = Filter::Support {
        least: 0.0,
        keep_alone: 0.8,
    };
    recipe
}

#[test]
fn consensus_says_which_evidence_it_had() {
    let mut pairs = drive();
    let with = adapted(&teacher(), &pairs, &short_consensus());
    let evidence = with.evidence.unwrap();
    assert_eq!((evidence.by_odometry, evidence.by_coarse), (9, 0));
    assert!(
        evidence
            .describe()
            .contains("9 joined to the frame before by odometry")
    );
    assert!(with.auxiliary.is_none());
    for pair in &mut pairs {
        pair.sample.odometry = None;
    }
    let without = adapted(&teacher(), &pairs, &short_consensus());
    let evidence = without.evidence.unwrap();
    assert_eq!((evidence.by_odometry, evidence.by_coarse), (0, 9));
    assert!(without.auxiliary.is_none());
    for pair in &mut pairs {
        pair.sample.drive = String::new();
    }
    let alone = adapted(&teacher(), &pairs, &short_consensus());
    let evidence = alone.evidence.as_ref().unwrap();
    assert!(evidence.stands_alone() && evidence.describe().contains("stand alone"));
    // As in `paper`: an auxiliary student, and four fifths of the labels.
    assert!(alone.auxiliary.is_some());
    assert_eq!(alone.kept_fraction(), 0.8);
}

#[test]
fn a_label_counts_by_its_support_and_not_at_all_below_the_least() {
    let mut recipe = short_consensus();
    let labels = adapted(&teacher(), &drive(), &recipe).labels;
    let highest = labels.iter().map(|label| label.support).fold(0.0, f64::max);
    recipe.filter = Filter::Support {
        least: highest * 0.999,
        keep_alone: 0.8,
    };
    let adapted = adapted(&teacher(), &drive(), &recipe);
    for label in &adapted.labels {
        let expected = if label.support >= highest * 0.999 {
            label.support
        } else {
            0.0
        };
        assert_eq!(label.weight, expected);
    }
    assert!(adapted.kept_fraction() < 1.0);
    recipe.filter = Filter::Support {
        least: 0.99,
        keep_alone: 0.8,
    };
    let interrupt = Interrupt::default();
    let none = adapt(&teacher(), &drive(), &recipe, &run(&interrupt)).err();
    assert!(none.unwrap().to_string().contains("no label has a support"));
}

#[test]
fn frames_of_a_drive_follow_its_odometry() {
    let pairs = drive();
    let labels = adapted(&teacher(), &pairs, &short_consensus()).labels;
    // An untrained teacher says nothing, so neighbours' labels are apart as odometry says.
    for two in labels.windows(2) {
        let step = two[1].offset_m[0] - two[0].offset_m[0];
        assert!(step.abs() < 1.5, "{step}");
    }
}

#[test]
fn headings_against_the_course_are_refused_before_anything_is_trained() {
    let mut pairs: Vec<Pair> = Vec::new();
    for _ in 0..5 {
        for mut pair in drive() {
            // Northward headings on an eastward drive.
            pair.sample.yaw_rad = std::f64::consts::FRAC_PI_2;
            pair.sample.drive = format!("drive-{}", pairs.len() / 10);
            pairs.push(pair);
        }
    }
    let mut recipe = short_consensus();
    recipe.gate.enforce = true;
    let interrupt = Interrupt::default();
    let refused = adapt(&teacher(), &pairs, &recipe, &run(&interrupt)).err();
    let message = refused.unwrap().to_string();
    assert!(message.contains("90.0° from the course"), "{message}");
    assert!(message.contains("--force"), "{message}");
    recipe.gate.enforce = false;
    let forced = adapt(&teacher(), &pairs, &recipe, &run(&interrupt)).unwrap();
    assert!(forced.verdict.refuses());
}

/// The pairs of [`drive`] as another network opens them: patches centred elsewhere.
fn opened_elsewhere(pairs: &[Pair], spec: &ModelSpec, east_m: f64) -> Vec<Pair> {
    let moved = |pair: &Pair| {
        let mut pair = pair.clone();
        let frame = crossfix_calibration::LocalFrame::new(pair.sample.centre);
        let centre = crossfix_calibration::Enu::new(east_m, 0.0, 0.0);
        pair.sample.centre = frame.geodetic_from_enu(centre);
        pair.sample.coarse_offset_m[0] -= east_m;
        assert!(pair.check(spec).is_ok());
        pair
    };
    pairs.iter().map(moved).collect()
}

#[test]
fn a_student_of_another_size_learns_the_teachers_labels_at_their_places() {
    let pairs = drive();
    let student = named("compact-small").unwrap().build(5).unwrap();
    let own = opened_elsewhere(&pairs, student.describe(), 3.0);
    let mut recipe = short(&teacher(), 1.0, 4);
    recipe.student = Some(FitConfig {
        epochs: 30.0,
        batch: 4,
        ..defaults::from_nothing(student.describe())
    });
    let pupil = Pupil {
        model: student.as_ref(),
        pairs: &own,
    };
    let interrupt = Interrupt::default();
    let run = run(&interrupt);
    let learned = |pupil| {
        let shared = &mut Shared::default();
        adapt_sharing(&teacher(), &pairs, pupil, &recipe, &run, shared)
    };
    let (with, without) = (learned(Some(pupil)).unwrap(), learned(None).unwrap());
    assert_eq!(with.student.describe().preset, "compact-small");
    // Labels and their filter do not depend on who learns them.
    assert_eq!(with.labels, without.labels);
    let auxiliary = with.auxiliary.unwrap();
    assert_eq!(auxiliary.model.describe().preset, "compact");
    let steps = |fit: &crate::train::Fitted| fit.total_steps;
    assert_eq!((steps(&auxiliary.fit), steps(&with.fit)), (3, 60));
    let loss = |from: usize| with.fit.losses[from..from + 10].iter().sum::<f32>();
    assert!(loss(50) < 0.9 * loss(0), "{} {}", loss(0), loss(50));
    // Three metres to the west in its own patches, where that is inside.
    let carried = pupil.labels(&pairs, &with.labels);
    for (carried, label) in carried.iter().zip(&with.labels) {
        assert!((carried.offset_m[0] - (label.offset_m[0] - 3.0)).abs() < 1e-3);
        assert!((carried.offset_m[1] - label.offset_m[1]).abs() < 1e-3);
        let inside = label.column >= 3.0;
        assert_eq!(carried.is_kept(), label.is_kept() && inside, "{label:?}");
    }
    assert!(carried.iter().any(PseudoLabel::is_kept));
}

#[test]
fn a_student_that_cannot_learn_is_refused_before_anything_is_trained() {
    let pairs = drive();
    let interrupt = Interrupt::default();
    let refused = |student: &str, pairs_of_student: &[Pair], recipe: &Recipe| {
        let model = named(student).unwrap().build(1).unwrap();
        let own = pairs_of_student.to_vec();
        let pupil = Pupil {
            model: model.as_ref(),
            pairs: &own,
        };
        let run = run(&interrupt);
        let shared = &mut Shared::default();
        let adapted = adapt_sharing(&teacher(), &pairs, Some(pupil), recipe, &run, shared);
        adapted.err().unwrap().to_string()
    };
    let paper = short(&teacher(), 1.0, 4);
    let message = refused("compact-front", &pairs, &paper);
    assert!(message.contains("different cameras"), "{message}");
    let message = refused("compact-small", &pairs[1..], &paper);
    assert!(
        message.contains("different samples (9 and 10)"),
        "{message}"
    );
    let heatmaps = ablations::named("paper-heatmap", teacher().describe()).unwrap();
    let message = refused("ggcvt-compact", &pairs, &heatmaps);
    assert!(message.contains("whole heatmaps"), "{message}");
}
