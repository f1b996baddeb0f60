use super::*;
use crate::data::{Dataset, Labelled, Pair, Sample};
use crate::model::loss::PoseTarget;
use crate::model::weights::{Arrays, arrays_of};
use crate::model::{Ccvpe, CrossViewModel, GroundProjection, named, preset};
use crate::run::{Interrupt, RunContext, RunFolder};
use crossfix_calibration::{Geodetic, RgbImage};
use crossfix_kernels::testing::{assert_close, in_processes};
use std::sync::Arc;

/// Pairs of noise: nothing to understand, enough to remember.
pub(crate) fn noise_pairs(count: usize, preset_name: &str) -> Vec<(Pair, PoseTarget)> {
    let spec = named(preset_name).unwrap().describe();
    let mut state = 1u32;
    let mut byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let mut image = |width: usize, height: usize| RgbImage {
        width,
        height,
        data: (0..width * height * 3).map(|_| byte()).collect(),
    };
    (0..count)
        .map(|index| {
            let projection = GroundProjection::Panorama {
                metres_per_pixel: spec.metres_per_pixel,
                turn_rad: 0.0,
            };
            let sample = Sample {
                drive: "noise".into(),
                time_ns: index as i64,
                centre: Geodetic::new(52.0, 4.3, 0.0).unwrap(),
                coarse_covariance_m2: [[100.0, 0.0], [0.0, 100.0]],
                yaw_rad: 0.0,
                left_bin: index % spec.orientation_bins,
                ..Sample::unplaced(format!("noise-{index}"), projection)
            };
            let pair = Pair {
                sample,
                ground: image(spec.ground_columns, spec.ground_rows),
                aerial: image(spec.aerial_px, spec.aerial_px),
            };
            let target = PoseTarget {
                column: 20.5 + 5.0 * (index % 5) as f64,
                row: 12.5 + 7.0 * (index % 6) as f64,
                residual_rad: 0.0,
                weight: 1.0,
                map: None,
            };
            (pair, target)
        })
        .collect()
}

fn settings(steps: u64) -> FitConfig {
    FitConfig {
        steps: Some(steps),
        augmentation: Augmentation::none(),
        checkpoint_every: 4,
        ..FitConfig::default()
    }
}

/// Trains on pairs with their labels.
fn fit_pairs(
    model: &mut dyn CrossViewModel,
    pairs: &[(Pair, PoseTarget)],
    config: &FitConfig,
    folder: Option<&RunFolder>,
    resume: bool,
    interrupt: &Interrupt,
) -> Result<Fitted, TrainError> {
    fit_pairs_in(
        World::alone(),
        model,
        pairs,
        config,
        folder,
        resume,
        interrupt,
    )
}

/// As [`fit_pairs`], in one of several processes.
fn fit_pairs_in(
    world: &World,
    model: &mut dyn CrossViewModel,
    pairs: &[(Pair, PoseTarget)],
    config: &FitConfig,
    folder: Option<&RunFolder>,
    resume: bool,
    interrupt: &Interrupt,
) -> Result<Fitted, TrainError> {
    let spec = model.describe().clone();
    let dataset: Vec<Pair> = pairs.iter().map(|(pair, _)| pair.clone()).collect();
    let labels = pairs.iter().map(|(_, target)| target.clone()).enumerate();
    let examples = Labelled {
        dataset: &dataset,
        labels: &labels.collect::<Vec<_>>(),
        epochs: &[],
        augmentation: &config.augmentation,
        spec: &spec,
    };
    let run = RunContext {
        seed: 5,
        folder,
        resume,
        interrupt,
        world,
    };
    fit("train", model, &examples, config, &run)
}

fn train(
    model: &mut Ccvpe,
    pairs: &[(Pair, PoseTarget)],
    config: &FitConfig,
    folder: Option<&RunFolder>,
    resume: bool,
    interrupt: &Interrupt,
) -> Fitted {
    fit_pairs(model, pairs, config, folder, resume, interrupt).unwrap()
}

#[test]
fn one_batch_can_be_learned_by_heart() {
    for name in ["compact", "compact-front"] {
        let pairs = noise_pairs(4, name);
        let mut model = Ccvpe::new(preset(name).unwrap(), 1).unwrap();
        let config = FitConfig {
            batch: 4,
            ..settings(60)
        };
        let fitted = train(
            &mut model,
            &pairs,
            &config,
            None,
            false,
            &Interrupt::default(),
        );
        let (first, last) = (fitted.losses[0], fitted.losses[59]);
        crate::note!(
            "{name}: {:.1} ms a sample, loss {first} to {last}",
            fitted.seconds * 1e3 / 240.0
        );
        assert!(last < 0.4 * first, "{name}: loss {first} became {last}");
    }
}

/// The triplets' sum is 3 ln 2 for maps that say nothing.
#[test]
fn a_network_that_correlates_learns_one_batch_by_heart() {
    let pairs = noise_pairs(4, "ggcvt-compact");
    let mut model = named("ggcvt-compact").unwrap().build(1).unwrap();
    let config = FitConfig {
        batch: 4,
        steps: Some(60),
        augmentation: Augmentation::none(),
        ..crate::recipe::defaults::supervised(model.describe())
    };
    let interrupt = Interrupt::default();
    let fitted = fit_pairs(model.as_mut(), &pairs, &config, None, false, &interrupt).unwrap();
    let (first, last) = (fitted.losses[0], fitted.losses[59]);
    crate::note!(
        "{:.1} ms a sample, loss {first} to {last}",
        fitted.seconds * 1e3 / 240.0
    );
    assert!(last < 0.4 * first, "loss {first} became {last}");
}

#[test]
fn same_seed_gives_the_same_bits_for_ten_steps() {
    let pairs = noise_pairs(6, "compact");
    let config = FitConfig {
        batch: 2,
        augmentation: Augmentation::default(),
        ..settings(10)
    };
    let run = || {
        let mut model = Ccvpe::new(preset("compact").unwrap(), 1).unwrap();
        let fitted = train(
            &mut model,
            &pairs,
            &config,
            None,
            false,
            &Interrupt::default(),
        );
        (fitted.losses, arrays_of(&model))
    };
    let (first, second) = (run(), run());
    assert_eq!(first.0.len(), 10);
    assert!(first == second);
}

#[test]
fn an_interrupted_run_resumes_to_the_same_bits() {
    let pairs = noise_pairs(6, "compact");
    let whole_folder = tempfile::tempdir().unwrap();
    let whole = RunFolder::create(whole_folder.path()).unwrap();
    let config = FitConfig {
        batch: 2,
        ..settings(6)
    };
    let mut uninterrupted = Ccvpe::new(preset("compact").unwrap(), 1).unwrap();
    train(
        &mut uninterrupted,
        &pairs,
        &config,
        Some(&whole),
        false,
        &Interrupt::default(),
    );

    // The checkpoint of step 4 is what an interrupt there leaves.
    let part_folder = tempfile::tempdir().unwrap();
    let part = RunFolder::create(part_folder.path()).unwrap();
    let mut interrupted = Ccvpe::new(preset("compact").unwrap(), 1).unwrap();
    let asked = Interrupt::default();
    asked.ask();
    let stopped = train(
        &mut interrupted,
        &pairs,
        &config,
        Some(&part),
        false,
        &asked,
    );
    assert!(stopped.interrupted && stopped.steps == 0);
    let mut resumed = Ccvpe::new(preset("compact").unwrap(), 99).unwrap();
    let fitted = train(
        &mut resumed,
        &pairs,
        &config,
        Some(&part),
        true,
        &Interrupt::default(),
    );
    assert!(!fitted.interrupted);
    assert!(arrays_of(&resumed) == arrays_of(&uninterrupted));
}

/// By the weights that runs of fewer steps end with.
#[test]
fn averaged_weights_are_those_of_all_steps() {
    let pairs = noise_pairs(4, "compact");
    let never = Interrupt::default();
    let config = |steps, average| FitConfig {
        batch: 2,
        decay: DecayKind::Constant,
        warm_up_steps: 0,
        average,
        ..settings(steps)
    };
    let new = || Ccvpe::new(preset("compact").unwrap(), 1).unwrap();
    let run = |steps, average| {
        let mut model = new();
        train(
            &mut model,
            &pairs,
            &config(steps, average),
            None,
            false,
            &never,
        );
        arrays_of(&model)
    };
    let [one, two, three] = [1, 2, 3].map(|steps| run(steps, 0.0));
    // One step is its own average, to the bit.
    assert!(run(1, 0.5) == one);
    let averaged = run(3, 0.5);
    for (name, (_, values)) in &averaged {
        for (index, value) in values.iter().enumerate() {
            let [one, two, three] = [&one, &two, &three].map(|arrays| arrays[name].1[index]);
            let expected = (one + 2.0 * two + 4.0 * three) / 7.0;
            let slack = 1e-6 + 1e-5 * expected.abs();
            assert!(
                (value - expected).abs() < slack,
                "{name}: {value}, {expected}"
            );
        }
    }
    assert!(averaged["conv3.2.weight"] != three["conv3.2.weight"]);
    for average in [-0.1, 1.0, f64::NAN] {
        assert!(config(3, average).check().is_err());
    }
}

/// What the third step does to the numbers is what a new optimiser's first step would do: every
/// change is the learning rate, whatever the moments were.
#[test]
fn fresh_moments_are_those_of_a_first_step() {
    let pairs = noise_pairs(4, "compact");
    let run = |steps, fresh_moments| {
        let config = FitConfig {
            batch: 2,
            learning_rate: 1e-3,
            decay: DecayKind::Constant,
            warm_up_steps: 0,
            fresh_moments,
            ..settings(steps)
        };
        let mut model = Ccvpe::new(preset("compact").unwrap(), 1).unwrap();
        train(
            &mut model,
            &pairs,
            &config,
            None,
            false,
            &Interrupt::default(),
        );
        arrays_of(&model)
    };
    let check = |after: &Arrays, before: &Arrays, same_size: bool| {
        let weights = after.keys().filter(|name| name.ends_with(".weight"));
        let changes = weights.flat_map(|name| after[name].1.iter().zip(&before[name].1));
        let changes = changes.map(|(after, before)| (after - before).abs());
        let moved = changes.filter(|change| *change > 0.0);
        let (mut count, mut near) = (0, 0);
        for change in moved {
            count += 1;
            near += usize::from((9.0e-4..1.1e-3).contains(&change));
        }
        let share = near as f64 / f64::from(count);
        assert_eq!(share > 0.9, same_size, "{near} of {count}");
    };
    let before = run(2, true);
    assert!(before == run(2, false));
    check(&run(3, true), &before, true);
    check(&run(3, false), &before, false);
}

#[test]
fn rates_that_fall_by_epochs_fall_where_epochs_begin() {
    let rates = |decay| {
        let config = FitConfig {
            batch: 3,
            learning_rate: 1.0,
            decay,
            warm_up_steps: 0,
            ..FitConfig::default()
        };
        let schedule = config.schedule(7);
        let begins: Vec<u64> = (0..8).filter(|step| schedule.epoch_begins(*step)).collect();
        // Step 3 is the first whose first example (the tenth) is of the second epoch.
        assert_eq!(begins, [3, 5, 7]);
        [0, 2, 3, 4, 5, 7].map(|step| schedule.at(step, 8))
    };
    let tenth = rates(DecayKind::TenthAfterFirstEpoch);
    assert_eq!(tenth, [1.0, 1.0, 0.1, 0.1, 0.1, 0.1]);
    let hundredths = rates(DecayKind::HundredthEachEpoch);
    assert_eq!(hundredths, [1.0, 1.0, 0.99, 0.99, 0.98, 0.97]);
}

/// Batch statistics, stochastic depth, draws and weighted labels are of the whole batch. Tolerances:
/// sums in f32 are added in another order, which Adam spreads over the steps.
#[test]
fn processes_train_as_one_would_on_the_whole_batch() {
    for name in ["compact", "ggcvt-compact"] {
        let pairs = noise_pairs(12, name).into_iter();
        let pairs: Vec<_> = pairs
            .enumerate()
            .map(|(index, (pair, mut target))| {
                target.weight = 1.0 + (index % 3) as f64;
                (pair, target)
            })
            .collect();
        let mut config = FitConfig {
            batch: 6,
            steps: Some(5),
            checkpoint_every: 2,
            ..crate::recipe::defaults::supervised(&named(name).unwrap().describe())
        };
        config.loss.weighted = true;
        if config.loss.triplet > 0.0 {
            (config.loss.triplet, config.loss.info_nce) = (0.0, 1.0);
        }
        let run = |world: &World, folder: Option<&RunFolder>, resume| {
            let mut model = named(name).unwrap().build(1).unwrap();
            let interrupt = Interrupt::default();
            let fitted = fit_pairs_in(
                world,
                model.as_mut(),
                &pairs,
                &config,
                folder,
                resume,
                &interrupt,
            );
            (fitted.unwrap(), arrays_of(model.as_ref()))
        };
        let (alone, arrays) = run(World::alone(), None, false);
        let path = tempfile::tempdir().unwrap();
        let found = in_processes(3, |communicator| {
            let world = World::new(communicator);
            let folder = RunFolder::create_in(path.path(), &world).unwrap();
            let first = run(&world, Some(&folder), false);
            // The checkpoint of the first process is what all go on from.
            let again = run(&world, Some(&folder), true);
            assert!(first.1 == again.1 && again.0.losses.is_empty());
            first
        });
        assert!(found[0].1 == found[1].1 && found[0].1 == found[2].1);
        for (fitted, _) in &found {
            assert_close(&fitted.losses, &alone.losses, 1e-5);
        }
        let (mut worst, mut count) = (0.0f32, 0);
        for (name, (_, values)) in &arrays {
            for (value, other) in values.iter().zip(&found[0].1[name].1) {
                worst = worst.max((value - other).abs());
                count += 1;
            }
        }
        crate::note!("{name}: {count} numbers, worst difference {worst:e}");
        assert!(worst < 1e-3, "{name}: {worst}");
        let curve = std::fs::read_to_string(path.path().join("train.curve.jsonl")).unwrap();
        assert_eq!(curve.lines().count(), 1);
    }
}

#[test]
fn processes_without_equal_shares_or_with_other_examples_are_refused() {
    let pairs = noise_pairs(4, "compact");
    let refused = |batch, other: bool| {
        in_processes(2, |communicator| {
            let world = World::new(communicator);
            let mut model = Ccvpe::new(preset("compact").unwrap(), 1).unwrap();
            let config = FitConfig {
                batch,
                ..settings(1)
            };
            let count = if other { 3 + world.rank() } else { 4 };
            let (pairs, never) = (&pairs[..count], Interrupt::default());
            let fitted = fit_pairs_in(&world, &mut model, pairs, &config, None, false, &never);
            fitted.unwrap_err().to_string()
        })
    };
    for message in refused(3, false) {
        assert!(message.contains("a multiple of 2"), "{message}");
    }
    for message in refused(2, true) {
        assert!(message.contains("0 and 1 disagree"), "{message}");
    }
}

#[test]
fn a_checkpoint_of_other_settings_is_refused() {
    let pairs = noise_pairs(2, "compact");
    let folder = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(folder.path()).unwrap();
    let mut model = Ccvpe::new(preset("compact").unwrap(), 1).unwrap();
    let config = FitConfig {
        batch: 2,
        ..settings(1)
    };
    train(
        &mut model,
        &pairs,
        &config,
        Some(&folder),
        false,
        &Interrupt::default(),
    );
    let other = FitConfig {
        learning_rate: 1e-5,
        ..config
    };
    let result = fit_pairs(
        &mut model,
        &pairs,
        &other,
        Some(&folder),
        true,
        &Interrupt::default(),
    );
    assert!(
        result
            .unwrap_err()
            .to_string()
            .contains("settings, seed or dataset changed")
    );
}

#[test]
fn a_loss_that_is_not_finite_keeps_the_last_good_state() {
    let pairs = noise_pairs(2, "compact");
    let folder = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(folder.path()).unwrap();
    let mut model = Ccvpe::new(preset("compact").unwrap(), 1).unwrap();
    let before = arrays_of(&model);
    let mut config = FitConfig {
        batch: 2,
        ..settings(3)
    };
    config.loss.info_nce = f32::INFINITY;
    let result = fit_pairs(
        &mut model,
        &pairs,
        &config,
        Some(&folder),
        false,
        &Interrupt::default(),
    );
    let message = result.unwrap_err().to_string();
    assert!(
        message.contains("not finite") && message.contains("checkpoint"),
        "{message}"
    );
    assert!(arrays_of(&model) == before);
    assert!(folder.file("train.checkpoint.safetensors").exists());
}

#[test]
fn levels_beyond_the_supervised_ones_stay_untouched() {
    let pairs = noise_pairs(4, "compact");
    let mut model = Ccvpe::new(preset("compact").unwrap(), 1).unwrap();
    let before = arrays_of(&model);
    let mut config = FitConfig {
        batch: 4,
        batch_norm: BatchNormKind::Frozen,
        ..settings(2)
    };
    config.loss.levels = Some(2);
    config.loss.heatmap = 0.0;
    config.loss.orientation = 0.0;
    train(
        &mut model,
        &pairs,
        &config,
        None,
        false,
        &Interrupt::default(),
    );
    let after = arrays_of(&model);
    let changed = |name: &str| before[name] != after[name];
    assert!(changed("deconv3.weight") && changed("conv3.0.weight"));
    assert!(
        !changed("deconv2.weight") && !changed("deconv1_ori.weight") && !changed("conv1.2.weight")
    );
    assert!(!changed("sat_efficientnet._blocks.0._bn.running_mean"));
    assert_eq!(model.spec().levels.len(), 3);
}

/// A kill leaves rows of steps after the checkpoint, the last one cut short.
#[test]
fn a_resumed_curve_has_each_step_once() {
    let pairs = noise_pairs(4, "compact");
    let folder = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(folder.path()).unwrap();
    let config = FitConfig {
        batch: 1,
        ..settings(20)
    };
    let asked = Interrupt::default();
    asked.ask();
    let new = || Ccvpe::new(preset("compact").unwrap(), 1).unwrap();
    train(&mut new(), &pairs, &config, Some(&folder), false, &asked);
    let curve = folder.file("train.curve.jsonl");
    std::fs::write(&curve, "{\"step\":10,\"loss\":1.0}\n{\"step\":20,\"lo").unwrap();
    let never = Interrupt::default();
    train(&mut new(), &pairs, &config, Some(&folder), true, &never);
    let text = std::fs::read_to_string(&curve).unwrap();
    let rows = text.lines().map(serde_json::from_str::<serde_json::Value>);
    let steps: Vec<u64> = rows
        .map(|row| row.unwrap()["step"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, [10, 20]);
    // Once more: nothing is left to do, and nothing changes.
    let fitted = train(&mut new(), &pairs, &config, Some(&folder), true, &never);
    assert!(!fitted.interrupted && fitted.losses.is_empty() && fitted.steps == 20);
    assert_eq!(std::fs::read_to_string(&curve).unwrap(), text);
}

/// Pairs of which one cannot be read.
struct Broken {
    pairs: Vec<Pair>,
    index: usize,
}

impl Dataset for Broken {
    fn len(&self) -> usize {
        self.pairs.len()
    }

    fn sample(&self, index: usize) -> &Sample {
        self.pairs.sample(index)
    }

    fn pair(&self, index: usize) -> Result<Arc<Pair>, DatasetError> {
        if index == self.index {
            return Err(DatasetError::Pair {
                id: self.pairs[index].sample.id.clone(),
                what: "gone".into(),
            });
        }
        self.pairs.pair(index)
    }
}

#[test]
fn a_pair_that_cannot_be_read_stops_a_run_that_goes_on_once_it_can() {
    let pairs = noise_pairs(6, "compact");
    let config = FitConfig {
        batch: 2,
        // The checkpoint has the averaged weights too.
        average: 0.9,
        ..settings(6)
    };
    let never = Interrupt::default();
    let new = || Ccvpe::new(preset("compact").unwrap(), 1).unwrap();
    let mut whole = new();
    train(&mut whole, &pairs, &config, None, false, &never);

    let folder = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(folder.path()).unwrap();
    let labels = pairs.iter().map(|(_, target)| target.clone()).enumerate();
    let labels: Vec<(usize, PoseTarget)> = labels.collect();
    let spec = named("compact").unwrap().describe();
    let broken = Broken {
        pairs: pairs.iter().map(|(pair, _)| pair.clone()).collect(),
        // The last of the first epoch: two steps come before it.
        index: super::order::Order::new(5, &[6]).at(5),
    };
    let examples = Labelled {
        dataset: &broken,
        labels: &labels,
        epochs: &[],
        augmentation: &config.augmentation,
        spec: &spec,
    };
    let run = RunContext {
        seed: 5,
        folder: Some(&folder),
        resume: false,
        interrupt: &never,
        world: World::alone(),
    };
    let error = fit("train", &mut new(), &examples, &config, &run).unwrap_err();
    assert!(error.to_string().contains("gone"), "{error}");
    let mut resumed = new();
    let fitted = train(&mut resumed, &pairs, &config, Some(&folder), true, &never);
    assert_eq!(fitted.losses.len(), 4);
    assert!(arrays_of(&resumed) == arrays_of(&whole));

    // The pair is in the second process's share; both end, and say why.
    let ended = in_processes(2, |communicator| {
        let world = World::new(communicator);
        let run = RunContext {
            folder: None,
            world: &world,
            ..run
        };
        let error = fit("train", &mut new(), &examples, &config, &run).unwrap_err();
        error.to_string()
    });
    assert!(ended.iter().all(|what| what.contains("gone")), "{ended:?}");
}

#[test]
fn all_processes_stop_where_one_is_asked_to() {
    let pairs = noise_pairs(4, "compact");
    let config = FitConfig {
        batch: 2,
        ..settings(3)
    };
    let path = tempfile::tempdir().unwrap();
    let found = in_processes(2, |communicator| {
        let world = World::new(communicator);
        let folder = RunFolder::create_in(path.path(), &world).unwrap();
        let asked = Interrupt::default();
        if !world.is_first() {
            asked.ask();
        }
        let mut model = Ccvpe::new(preset("compact").unwrap(), 1).unwrap();
        let folder = Some(&folder);
        fit_pairs_in(&world, &mut model, &pairs, &config, folder, false, &asked).unwrap()
    });
    assert!(
        found
            .iter()
            .all(|fitted| fitted.interrupted && fitted.steps == 0)
    );
    assert!(path.path().join("train.checkpoint.safetensors").exists());
}
