//! Training on a device, here the emulator: recorded steps have the bits of launched ones, and
//! what happens to a run on the processor happens to it on a device.

mod ggcvt;

use super::fit::fit_how;
use super::order::Order;
use super::*;
use crate::data::{Example, Examples, ReadExample};
use crate::model::loss::{LossConfig, PoseTarget};
use crate::model::spec::BlockKind;
use crate::model::weights::{Arrays, arrays_from, read_arrays};
use crate::model::{Ccvpe, CcvpeSpec, CrossViewModel, GroundProjection, ModelSpec, preset};
use crate::run::{Interrupt, RunContext, RunFolder};
use crossfix_kernel_emulator::{Emulator, Options, Schedule};
use crossfix_kernels::Device;
use crossfix_kernels::cuda::{Cuda, Timed};
use crossfix_kernels::ops::Augment;
use crossfix_kernels::testing::noise;
use rand_chacha::ChaCha8Rng;
use std::sync::atomic::{AtomicU64, Ordering};

const SEED: u64 = 5;
const SAMPLES: usize = 6;

/// The compact network at a quarter of its sides and a twelfth of its channels, with blocks that
/// stochastic depth drops.
fn tiny() -> CcvpeSpec {
    let mut spec = preset("compact").unwrap();
    spec.preset = "tiny".into();
    (spec.ground_rows, spec.ground_columns, spec.aerial_px) = (16, 64, 32);
    for (block, channels) in spec.encoder.blocks.iter_mut().zip([4, 6, 6, 8, 8, 8, 8]) {
        block.channels = channels;
    }
    for block in [2, 4] {
        spec.encoder.blocks[block].kind = BlockKind::MbConv { expand: 2 };
    }
    spec.orientation_bins = 4;
    for (level, (grid, ground)) in spec.levels.iter_mut().zip([(2, 4), (4, 2), (8, 2)]) {
        level.grid = grid;
        level.ground_channels = ground;
        level.aerial_channels = 4 * ground;
        level.shift = ground;
    }
    for (step, (up, hidden, out)) in spec
        .location
        .iter_mut()
        .zip([(6, 8, 8), (4, 4, 8), (4, 4, 1)])
    {
        (step.up, step.hidden, step.out) = (up, hidden, out);
    }
    for (step, (up, hidden, out)) in
        spec.orientation
            .iter_mut()
            .zip([(4, 4, 8), (4, 4, 4), (4, 4, 2)])
    {
        (step.up, step.hidden, step.out) = (up, hidden, out);
    }
    spec
}

/// The same that sees half of the circle, each sample another half.
fn tiny_front() -> CcvpeSpec {
    let mut spec = tiny();
    spec.preset = "tiny-front".into();
    spec.ground_columns = 32;
    spec.ground_wraps = false;
    spec.ground_left_bin = true;
    spec.orientation_prior = Some(1);
    spec
}

/// Noise with poses, each sample rolled and coloured in its own way. One sample may be broken; and somebody may be called with the number of
/// samples read.
struct Noise<'a> {
    spec: ModelSpec,
    orientation_bins: usize,
    /// How each sample was seen.
    projection: Box<dyn Fn(usize) -> GroundProjection + Sync>,
    broken: Option<usize>,
    read: AtomicU64,
    watch: Box<dyn Fn(u64) + Sync + 'a>,
}

impl Noise<'_> {
    fn new(spec: &CcvpeSpec) -> Self {
        let panorama = GroundProjection::Panorama {
            metres_per_pixel: spec.metres_per_pixel,
            turn_rad: 0.0,
        };
        Self::of(spec.describe(), spec.orientation_bins, move |_| panorama)
    }

    fn of(
        spec: ModelSpec,
        orientation_bins: usize,
        projection: impl Fn(usize) -> GroundProjection + Sync + 'static,
    ) -> Self {
        Self {
            spec,
            orientation_bins,
            projection: Box::new(projection),
            broken: None,
            read: AtomicU64::new(0),
            watch: Box::new(|_| {}),
        }
    }
}

impl Examples for Noise<'_> {
    fn len(&self) -> usize {
        SAMPLES
    }

    fn draw<'a>(&'a self, index: usize, _: &mut ChaCha8Rng) -> ReadExample<'a> {
        Box::new(move |ground, aerial| {
            (self.watch)(self.read.fetch_add(1, Ordering::SeqCst));
            for (image, seed) in [(&mut *ground, 1), (aerial, 2)] {
                let values = noise(&[image.len()], seed + 10 * index as u64);
                let pixels = values.data().iter().map(|value| 127.5 + 127.0 * value);
                image
                    .iter_mut()
                    .zip(pixels)
                    .for_each(|(to, pixel)| *to = pixel as u8);
            }
            let colours = |strength: f32| Augment {
                roll: index as i32 - 2,
                saturation: 1.0 - 0.03 * index as f32,
                gain: [1.0 + strength, 1.0, 1.0 - strength],
                offset: 40.0 * strength,
            };
            let aerial = Augment {
                roll: 0,
                ..colours(0.03)
            };
            let mut augment = [colours(0.06), aerial];
            if self.broken == Some(index) {
                augment[0].gain[1] = f32::NAN;
            }
            let side = self.spec.heatmap.side as f64;
            let target = PoseTarget {
                column: side * (0.2 + 0.1 * index as f64),
                row: side * (0.8 - 0.1 * index as f64),
                residual_rad: 0.1 * index as f64 - 0.2,
                weight: 1.0,
                map: None,
            };
            Ok(Example {
                left_bin: index % self.orientation_bins,
                projection: (self.projection)(index),
                metres_per_cell: self.spec.heatmap.metres_per_cell,
                camera_cell: [target.column, target.row],
                target,
                augment,
            })
        })
    }

    fn identity(&self) -> Vec<(String, [f64; 4])> {
        vec![("noise".into(), [0.0; 4])]
    }

    fn check(&self, _: &ModelSpec) -> Result<(), ModelError> {
        Ok(())
    }
}

fn emulated() -> Device {
    device(Options::default())
}

fn device(options: Options) -> Device {
    let options = Options {
        schedule: Schedule::Random(1),
        ..options
    };
    Device::Cuda(Cuda::with_driver(Box::new(Emulator::new(options))))
}

/// Without a schedule, so that a run is the beginning of a longer one.
fn settings(steps: u64) -> FitConfig {
    FitConfig {
        batch: 2,
        steps: Some(steps),
        decay: DecayKind::Constant,
        warm_up_steps: 0,
        clip_norm: Some(1.0),
        checkpoint_every: 1000,
        loss: LossConfig {
            sigma_m: 4.0,
            ..LossConfig::default()
        },
        ..FitConfig::default()
    }
}

fn network(spec: &CcvpeSpec, device: &Device, seed: u64) -> Ccvpe {
    let mut model = Ccvpe::new(spec.clone(), seed).unwrap();
    model.parameters_mut().move_to(device).unwrap();
    model
}

fn numbers(model: &dyn CrossViewModel) -> Arrays {
    arrays_from(model).unwrap()
}

fn train(
    model: &mut dyn CrossViewModel,
    samples: &Noise,
    config: &FitConfig,
    folder: Option<&RunFolder>,
    resume: bool,
    interrupt: &Interrupt,
    may_record: bool,
) -> Result<Fitted, TrainError> {
    let run = RunContext {
        seed: SEED,
        folder,
        resume,
        interrupt,
        world: World::alone(),
    };
    fit_how("train", model, samples, config, &run, may_record)
}

fn plain(
    model: &mut dyn CrossViewModel,
    samples: &Noise,
    config: &FitConfig,
    may_record: bool,
) -> Vec<f32> {
    let never = Interrupt::default();
    let fitted = train(model, samples, config, None, false, &never, may_record);
    fitted.unwrap().losses
}

/// Against the processor: five steps of Adam amplify roundings, most where gradients are near 0. The
/// first loss comes before any.
#[test]
fn recorded_steps_have_the_bits_of_launched_ones_and_the_losses_of_the_processor() {
    // The second with epochs of two steps, before each of which Adam forgets.
    for (spec, fresh_moments) in [(tiny(), false), (tiny_front(), true)] {
        let samples = Noise::new(&spec);
        let config = FitConfig {
            fresh_moments,
            batch: if fresh_moments { samples.len() / 2 } else { 2 },
            ..settings(5)
        };
        let [here, launched, recorded] =
            [(Device::Cpu, true), (emulated(), false), (emulated(), true)].map(
                |(device, may_record)| {
                    let mut model = network(&spec, &device, 1);
                    let losses = plain(&mut model, &samples, &config, may_record);
                    (losses, numbers(&model))
                },
            );
        assert_eq!(recorded.0, launched.0, "{}", spec.preset);
        assert!(recorded.1 == launched.1, "{}: other numbers", spec.preset);
        assert_eq!(recorded.0.len(), 5);
        for (step, (got, expected)) in recorded.0.iter().zip(&here.0).enumerate() {
            let difference = ((got - expected) / expected).abs();
            let allowed = if step == 0 { 1e-6 } else { 1e-4 };
            assert!(difference < allowed, "step {step}: {got} is not {expected}");
        }
    }
}

/// As a student adapts: it begins as a clone of its teacher, whose running statistics it keeps and so
/// shares.
#[test]
fn a_clone_with_frozen_statistics_is_recorded_beside_its_original() {
    let spec = tiny();
    let samples = Noise::new(&spec);
    let config = FitConfig {
        batch_norm: BatchNormKind::Frozen,
        ..settings(4)
    };
    let [launched, recorded] = [false, true].map(|may_record| {
        let teacher = network(&spec, &emulated(), 1);
        let before = numbers(&teacher);
        let mut student = teacher.clone();
        let losses = plain(&mut student, &samples, &config, may_record);
        assert!(numbers(&teacher) == before, "the teacher changed");
        (losses, numbers(&student))
    });
    assert_eq!(recorded.0, launched.0);
    assert!(recorded.1 == launched.1, "other numbers");
}

#[test]
fn a_broken_sample_stops_a_recorded_run_where_the_last_good_step_left_it() {
    let spec = tiny();
    let device = emulated();
    // The sample that comes first in the third step, the second that is a replay.
    let mut samples = Noise::new(&spec);
    samples.broken = Some(Order::new(SEED, &[SAMPLES]).at(2 * 2));
    let folder = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(folder.path()).unwrap();
    let mut model = network(&spec, &device, 1);
    let never = Interrupt::default();
    let error = train(
        &mut model,
        &samples,
        &settings(6),
        Some(&folder),
        false,
        &never,
        true,
    )
    .unwrap_err();
    let message = error.to_string();
    assert!(
        matches!(error, TrainError::NotFinite { step: 2, .. }),
        "{message}"
    );
    assert!(
        message.contains("loss") && message.contains("clip_norm"),
        "{message}"
    );

    // Steps three to six were enqueued before anybody looked. None of them left a trace.
    let mut good = network(&spec, &device, 1);
    plain(&mut good, &Noise::new(&spec), &settings(2), true);
    assert!(numbers(&model) == numbers(&good));
    let (saved, text) = read_arrays(&folder.file("train.checkpoint.safetensors")).unwrap();
    assert_eq!(text["checkpoint"]["step"], 2);
    for (name, values) in numbers(&good) {
        assert!(saved[&name] == values, "{name} in the checkpoint");
    }
    let steps = text["checkpoint"]["adam_steps"].as_object().unwrap();
    assert!(!steps.is_empty() && steps.values().all(|step| *step == 2));
}

#[test]
fn an_interrupted_recorded_run_resumes_to_the_same_bits() {
    let spec = tiny();
    let device = emulated();
    let config = settings(7);
    let mut whole = network(&spec, &device, 1);
    plain(&mut whole, &Noise::new(&spec), &config, true);

    let folder = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(folder.path()).unwrap();
    let interrupt = Interrupt::default();
    let mut samples = Noise::new(&spec);
    // Samples are read ahead: the stop comes some steps before the one that this is of.
    samples.watch = Box::new(|read| {
        if read == 2 * 6 {
            interrupt.ask();
        }
    });
    let mut model = network(&spec, &device, 1);
    let stopped = train(
        &mut model,
        &samples,
        &config,
        Some(&folder),
        false,
        &interrupt,
        true,
    );
    let stopped = stopped.unwrap();
    assert!(
        stopped.interrupted && stopped.steps < 7,
        "{}",
        stopped.steps
    );
    let mut resumed = network(&spec, &device, 99);
    let never = Interrupt::default();
    let samples = Noise::new(&spec);
    let rest = train(
        &mut resumed,
        &samples,
        &config,
        Some(&folder),
        true,
        &never,
        true,
    );
    let rest = rest.unwrap();
    assert_eq!(rest.losses.len() as u64, 7 - stopped.steps);
    assert!(numbers(&resumed) == numbers(&whole));
}

#[test]
fn averaged_weights_are_refused_on_a_device() {
    let config = FitConfig {
        average: 0.9,
        ..settings(1)
    };
    let spec = tiny();
    let samples = Noise::new(&spec);
    let mut model = network(&spec, &emulated(), 1);
    let never = Interrupt::default();
    let refused = train(&mut model, &samples, &config, None, false, &never, true);
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("set average to 0")
    );
}

/// Whatever the device refuses ends the run with the way out, and the checkpoint of the last save
/// stays what it was.
#[test]
fn a_device_that_refuses_ends_the_run_with_the_way_out_and_leaves_the_checkpoint() {
    let spec = tiny();
    let folder = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(folder.path()).unwrap();
    let never = Interrupt::default();
    let samples = Noise::new(&spec);
    let run = |device: &Device, config: &FitConfig, resume: bool| {
        let mut model = network(&spec, device, 1);
        train(
            &mut model,
            &samples,
            config,
            Some(&folder),
            resume,
            &never,
            true,
        )
    };
    let config = settings(2);
    run(&Device::Cpu, &config, false).unwrap();
    let path = folder.file("train.checkpoint.safetensors");
    let before = std::fs::read(&path).unwrap();
    let small = device(Options {
        memory_bytes: 1 << 18,
        ..Options::default()
    });
    let broken = device(Options {
        broken_kernel: Some("rolled_matching_to_aerial"),
        ..Options::default()
    });
    for (device, way_out) in [(small, "smaller batch"), (broken, "use --device cpu")] {
        // A fresh run would begin anew: both go on from nothing, into the same folder.
        let error = run(&device, &config, false).unwrap_err().to_string();
        assert!(error.contains(way_out), "{error}");
        assert!(
            std::fs::read(&path).unwrap() == before,
            "the checkpoint changed"
        );
    }
}

#[test]
fn a_step_is_measured_and_taken_apart_on_a_device() {
    let spec = tiny();
    let config = FitConfig {
        drop_connect: false,
        ..settings(1)
    };
    let device = emulated();
    let mut model = network(&spec, &device, 1);
    let measured = measure::training(&mut model, &config, 1).unwrap();
    // One launched, two replays to warm up, one that counts; those of the device's own clock come
    // after it and are not told.
    assert_eq!(measured.losses.len(), 4);
    assert!(measured.step_ms > 0.0 && measured.device_ms.is_some_and(|ms| ms > 0.0));
    assert!(measured.held_bytes.is_some_and(|bytes| bytes > 100_000));
    let mut here = network(&spec, &Device::Cpu, 1);
    let expected = measure::training(&mut here, &config, 1).unwrap();
    for (got, expected) in measured.losses.iter().zip(&expected.losses) {
        assert!(
            ((got - expected) / expected).abs() < 1e-4,
            "{got} is not {expected}"
        );
    }

    let timed = measure::profile(&mut network(&spec, &device, 1), &config).unwrap();
    for part in ["forward and loss", "backward", "Adam"] {
        assert!(timed.iter().any(|launch| launch.part == part), "{part}");
    }
    let dense = |launch: &&Timed| launch.name.starts_with("conv2d_forward");
    let first = timed.iter().find(dense).unwrap();
    // The ground encoder's first convolution: 2 samples, 4 channels of 8 x 32 from 3 x 3 x 3.
    assert_eq!(first.operations, 2 * 2 * 4 * (8 * 32) * 27);
    assert!(first.bytes >= 4 * 2 * (3 * 16 * 64 + 4 * 8 * 32));
    assert!(timed.iter().all(|launch| launch.milliseconds >= 0.0));
}
