//! How fast a training step or a forward pass is on a device, and where its time goes: what
//! `examples/device_step.rs` prints. Made like a run of [`super::fit`]: the step is recorded, and
//! every batch is prepared on the host and travels to the device.

use super::fit::one_step;
use super::recorded::Recorded;
use super::{FitConfig, TrainError, World};
use crate::data::batch::Batch;
use crate::data::examples::Example;
use crate::model::loss::PoseTarget;
use crate::model::{
    Ccvpe, CrossViewModel, Extent, ForwardOptions, GroundCamera, GroundProjection, Input,
    ModelError, ModelSpec, NetworkSpec, Recordable,
};
use crossfix_kernels::cuda::{Cuda, Step, Timed};
use crossfix_kernels::ops::Augment;
use crossfix_kernels::optim::Adam;
use crossfix_kernels::{Device, Pixels, Tape, Tensor};
use std::time::Instant;

/// What was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct StepTiming {
    /// Milliseconds of wall time for a step, each with a new batch from the host.
    pub step_ms: f64,
    /// Milliseconds that the device was at work in a step; none on the processor.
    pub device_ms: Option<f64>,
    /// Bytes of the device's memory that the process held; none on the processor.
    pub held_bytes: Option<usize>,
    /// Losses of all steps.
    pub losses: Vec<f32>,
}

/// A batch of reproducible images, the camera near the middle.
fn batch_of(spec: &ModelSpec, samples: usize) -> Result<Batch, ModelError> {
    let noise = |shape: [usize; 4]| {
        let count = shape.iter().product::<usize>();
        let bytes = (0..count).map(|i| (i * 7919 % 256) as u8).collect();
        Pixels::new(bytes, shape)
    };
    let projection = match spec.camera {
        // Of a field of view of 90 degrees, as far as the network is concerned.
        GroundCamera::CalibratedPinhole { .. } => GroundProjection::Pinhole {
            camera: [
                spec.ground_columns,
                spec.ground_columns,
                spec.ground_columns,
                spec.ground_rows,
            ]
            .map(|length| length as f64 / 2.0),
            heading: Some(0.1),
        },
        _ => GroundProjection::Panorama {
            metres_per_pixel: spec.metres_per_pixel,
            turn_rad: 0.0,
        },
    };
    let middle = spec.heatmap.side as f64 / 2.0;
    let example = |index: usize| Example {
        target: PoseTarget {
            column: middle + index as f64,
            row: middle,
            residual_rad: 0.1,
            weight: 1.0,
            map: None,
        },
        left_bin: 0,
        projection,
        metres_per_cell: spec.heatmap.metres_per_cell,
        camera_cell: [middle, middle],
        augment: [Augment::default(); 2],
    };
    let left_bins = if spec.ground_left_bin() { samples } else { 0 };
    Ok(Batch {
        input: Input {
            ground: noise([samples, 3, spec.ground_rows, spec.ground_columns])?,
            aerial: noise([samples, 3, spec.aerial_px, spec.aerial_px])?,
            augment: Some([(); 2].map(|()| Augment::tensor(&vec![Augment::default(); samples]))),
            ground_left_bin: vec![0; left_bins],
            projections: vec![projection; samples],
        },
        examples: (0..samples).map(example).collect(),
    })
}

/// Bytes that the process holds of a device, whether in use or kept for reuse.
fn held(cuda: &Cuda) -> usize {
    let memory = cuda.memory();
    memory.in_use + memory.free + memory.kept_for_graphs
}

/// Times `steps` training steps of `config.batch` samples, after three that do not count.
///
/// # Errors
/// [`TrainError::Model`] when the device fails, [`TrainError::NotFinite`] when the loss does.
pub fn training(
    model: &mut dyn CrossViewModel,
    config: &FitConfig,
    steps: usize,
) -> Result<StepTiming, TrainError> {
    let batch = batch_of(model.describe(), config.batch)?;
    let mut adam = Adam::default();
    let mut losses = Vec::new();
    let rate = config.learning_rate;
    let mut note = |finished: super::recorded::Finished| match finished.not_finite {
        None => {
            losses.extend(finished.steps.iter().map(|done| done.total));
            Ok(())
        }
        Some(what) => Err(TrainError::NotFinite {
            step: 0,
            what,
            checkpoint: "nothing".into(),
        }),
    };
    let alone = World::alone();
    note(one_step(
        model, &mut adam, &batch, config, rate, None, alone,
    )?)?;
    let Device::Cuda(cuda) = model.parameters().device() else {
        for _ in 0..2 {
            note(one_step(
                model, &mut adam, &batch, config, rate, None, alone,
            )?)?;
        }
        let start = Instant::now();
        for _ in 0..steps {
            note(one_step(
                model, &mut adam, &batch, config, rate, None, alone,
            )?)?;
        }
        return Ok(StepTiming {
            step_ms: start.elapsed().as_secs_f64() * 1e3 / steps as f64,
            device_ms: None,
            held_bytes: None,
            losses,
        });
    };
    let model = recordable(model)?;
    let mut recorded = Recorded::begin(&cuda, model, &mut adam, &batch, config, None)?;
    for _ in 0..2 {
        note(recorded.enqueue(model, &mut adam, &batch, config, rate, None)?)?;
    }
    note(recorded.drain(model, &mut adam)?)?;
    let start = Instant::now();
    for _ in 0..steps {
        note(recorded.enqueue(model, &mut adam, &batch, config, rate, None)?)?;
    }
    note(recorded.drain(model, &mut adam)?)?;
    let step_ms = start.elapsed().as_secs_f64() * 1e3 / steps as f64;
    let device_ms = recorded.replay_ms(steps)?;
    Ok(StepTiming {
        step_ms,
        device_ms: Some(device_ms),
        held_bytes: Some(held(&cuda)),
        losses,
    })
}

fn recordable(model: &mut dyn CrossViewModel) -> Result<&mut dyn Recordable, ModelError> {
    let preset = model.describe().preset.clone();
    let wrong = || ModelError::Input(format!("the steps of {preset} are not recorded"));
    model.recordable().ok_or_else(wrong)
}

/// Times `rounds` forward passes of `samples` samples over the whole network, after three.
///
/// # Errors
/// [`ModelError::Kernel`] when the device fails.
pub fn inference(
    model: &mut Ccvpe,
    samples: usize,
    rounds: usize,
) -> Result<StepTiming, ModelError> {
    let batch = batch_of(model.describe(), samples)?;
    let options = || ForwardOptions::evaluation(Extent::Everything);
    model.forward(&mut Tape::inference(), &batch.input, options())?;
    let Device::Cuda(cuda) = model.parameters().device() else {
        for _ in 0..2 {
            model.forward(&mut Tape::inference(), &batch.input, options())?;
        }
        let start = Instant::now();
        for _ in 0..rounds {
            model.forward(&mut Tape::inference(), &batch.input, options())?;
        }
        return Ok(StepTiming {
            step_ms: start.elapsed().as_secs_f64() * 1e3 / rounds as f64,
            device_ms: None,
            held_bytes: None,
            losses: Vec::new(),
        });
    };
    let images = [batch.input.ground.clone(), batch.input.aerial.clone()];
    let work = |_: &[Tensor], images: &[Pixels]| -> Result<_, ModelError> {
        let input = Input {
            ground: images[0].clone(),
            aerial: images[1].clone(),
            augment: None,
            ground_left_bin: Vec::new(),
            projections: Vec::new(),
        };
        let prediction = model.forward(&mut Tape::inference(), &input, options())?;
        let all = [prediction.logits, prediction.orientation];
        Ok(all.into_iter().flatten().collect())
    };
    let mut step = Step::record_with(&cuda, &[], &images, work)?;
    for _ in 0..2 {
        step.run_with(&[], &images)?;
    }
    cuda.synchronise()?;
    let start = Instant::now();
    for _ in 0..rounds {
        step.run_with(&[], &images)?;
    }
    cuda.synchronise()?;
    let step_ms = start.elapsed().as_secs_f64() * 1e3 / rounds as f64;
    Ok(StepTiming {
        step_ms,
        device_ms: Some(step.replay_ms(rounds)?),
        held_bytes: Some(held(&cuda)),
        losses: Vec::new(),
    })
}

/// One training step launch by launch, each launch timed by itself; nothing on the processor.
///
/// # Errors
/// As [`training`].
pub fn profile(
    model: &mut dyn CrossViewModel,
    config: &FitConfig,
) -> Result<Vec<Timed>, TrainError> {
    let Device::Cuda(cuda) = model.parameters().device() else {
        return Ok(Vec::new());
    };
    let batch = batch_of(model.describe(), config.batch)?;
    let mut adam = Adam::default();
    let rate = config.learning_rate;
    // Compiles, uploads tables, fills the pool.
    for _ in 0..2 {
        one_step(model, &mut adam, &batch, config, rate, None, World::alone())?;
    }
    let model = recordable(model)?;
    let targets: Vec<PoseTarget> = batch
        .examples
        .iter()
        .map(|example| example.target.clone())
        .collect();
    let prepared = model.prepare(&batch.input, &targets, &config.loss, None)?;
    let device = Device::Cuda(cuda.clone());
    let prepared = prepared.to(&device).map_err(ModelError::from)?;
    let coefficients = adam
        .begin_step(rate)
        .and_then(|coefficients| coefficients.to(&device))
        .map_err(ModelError::from)?;
    let ((), timed) = cuda.profile(|| -> Result<(), ModelError> {
        cuda.begin_part("forward and loss");
        let mut tape = Tape::training();
        let terms =
            model.step_loss(&mut tape, &prepared, &config.loss, config.batch_norm_mode())?;
        cuda.begin_part("backward");
        let gradients = tape.backward(&terms.total)?;
        cuda.begin_part("Adam");
        adam.enqueue(model.parameters_mut().all_mut(), &gradients, &coefficients)?;
        Ok(())
    })?;
    Ok(timed)
}

/// The losses of the same training on the processor and on `device`, step by step.
///
/// # Errors
/// As [`training`].
pub fn compare(
    table: &NetworkSpec,
    config: &FitConfig,
    device: &Device,
    steps: usize,
) -> Result<Vec<[f32; 2]>, TrainError> {
    let losses = |device: &Device| -> Result<Vec<f32>, TrainError> {
        let mut model = table.build(1)?;
        let parameters = model.parameters_mut();
        parameters.move_to(device).map_err(ModelError::from)?;
        Ok(training(&mut *model, config, steps)?.losses)
    };
    let (here, there) = (losses(&Device::Cpu)?, losses(device)?);
    Ok(here.into_iter().zip(there).map(|(h, t)| [h, t]).collect())
}
