//! One screen: draw a batch, forward, loss, backward, step; write down how it went.

use super::average::Average;
use super::order::{Order, generator};
use super::recorded::{Finished, Recorded, StepLosses, device_of};
use super::{Checkpoint, FitConfig, Schedule, TrainError, World};
use crate::data::batch::{Batch, BatchError, batches_ahead};
use crate::data::examples::Examples;
use crate::data::loader::{Ahead, Workers};
use crate::model::loss::PoseTarget;
use crate::model::weights::arrays_from;
use crate::model::{CrossViewModel, ForwardOptions, GroundCamera, ModelError, Share};
use crate::progress;
use crate::run::{RunContext, RunFolder, sha256_bytes, sha256_json};
use crossfix_kernels::optim::{Adam, AdamState};
use crossfix_kernels::{Device, Error as KernelError, Tape};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// What a process says that was asked to stop.
const INTERRUPTED: &str = "stopped on request";

/// A checkpoint is written after this long, however few steps were done.
const CHECKPOINT_AFTER: Duration = Duration::from_mins(1);

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Fitted {
    /// Steps done, of how many.
    pub steps: u64,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// Total loss of each step of this call.
    pub losses: Vec<f32>,
    /// Seconds this call took.
    pub seconds: f64,
    /// Stopped early on request; the checkpoint continues it.
    pub interrupted: bool,
}

/// Trains `model` on `examples`, writing `NAME.checkpoint.safetensors` and `NAME.curve.jsonl` into
/// `folder` (nothing without one). With `resume`, goes on where the checkpoint of the same
/// settings, seed and examples stopped; the result has the same bits as an uninterrupted run.
///
/// # Errors
/// [`TrainError`]; on a loss that is not finite the checkpoint holds the last good state.
pub fn fit(
    name: &'static str,
    model: &mut dyn CrossViewModel,
    examples: &dyn Examples,
    config: &FitConfig,
    run: &RunContext,
) -> Result<Fitted, TrainError> {
    fit_how(name, model, examples, config, run, true)
}

/// As [`fit`]; `may_record` lets a device replay its steps, which gives the same bits.
pub(super) fn fit_how(
    name: &'static str,
    model: &mut dyn CrossViewModel,
    examples: &dyn Examples,
    config: &FitConfig,
    run: &RunContext,
    may_record: bool,
) -> Result<Fitted, TrainError> {
    let RunContext {
        seed,
        folder,
        resume,
        interrupt,
        world,
    } = *run;
    config.check()?;
    let share = world.share(config.batch)?;
    let spec = model.describe().clone();
    examples.check(&spec)?;
    if config.augmentation.field_of_view_deg < 360.0 && spec.camera != GroundCamera::Panorama {
        return Err(TrainError::Settings(format!(
            "augmentation.field_of_view_deg is {}, and only of images of the whole circle a sector can be left; set it to 360",
            config.augmentation.field_of_view_deg
        )));
    }
    if examples.is_empty() {
        return Err(TrainError::Settings("no example to train on".into()));
    }
    world.check(config.batch, &model.parameters().device())?;
    let mut average = (config.average > 0.0).then(|| Average::new(config.average));
    if average.is_some() && model.parameters().device() != Device::Cpu {
        let what = "weights are averaged over steps on the CPU alone; use --device cpu, or set average to 0";
        return Err(TrainError::Settings(what.into()));
    }
    let epochs = examples.epochs();
    let total = config.total_steps_of(&epochs);
    let run_sha256 = fingerprint(name, model, examples, config, seed);
    let path = folder.map(|folder| folder.file(&format!("{name}.checkpoint.safetensors")));
    let curve = format!("{name}.curve.jsonl");
    let mut adam = Adam {
        clip_norm: config.clip_norm,
        ..Adam::default()
    };
    let mut step = 0;
    match (folder, &path) {
        (Some(folder), Some(path)) if resume && path.exists() => {
            step = Checkpoint::load(path, &run_sha256, model, &mut adam, average.as_mut())?.step;
            // Rows of steps after the checkpoint come again.
            let known = |row: &Value| row["step"].as_u64().is_some_and(|row| row <= step);
            folder
                .retain_lines(&curve, known)
                .map_err(|error| TrainError::Write {
                    path: folder.file(&curve).display().to_string(),
                    error,
                })?;
            crate::note!("{name}: going on after step {step} of {total}");
        }
        (Some(folder), path) => {
            folder.forget(&curve);
            if let (true, Some(path)) = (resume, path) {
                crate::note!("{name}: no {}, beginning with step 1", path.display());
            }
        }
        (None, _) => {}
    }
    // Nobody writes before all have read.
    let what = "the network, its settings, the examples or the checkpoint";
    world.agree(what, || Ok((&run_sha256, step, parameters_sha256(model)?)))?;
    let writes = folder.is_some_and(RunFolder::writes);
    let save = |step, model: &dyn CrossViewModel, adam: &Adam, average: Option<&Average>| {
        if let (true, Some(path), Some(folder)) = (writes, &path, folder) {
            let run_sha256 = run_sha256.clone();
            Checkpoint { step, run_sha256 }.save(path, model, adam, average)?;
            folder.share();
        }
        Ok::<(), ModelError>(())
    };
    let start = Instant::now();
    let first = step;
    let mut progress = Progress {
        step,
        total,
        schedule: config.schedule(examples.len()),
        bar: if world.is_first() {
            progress::bar(name, total)
        } else {
            indicatif::ProgressBar::hidden()
        },
        losses: Vec::new(),
        curve: folder.map(|folder| (folder, curve)),
    };
    progress.bar.set_position(step);
    // Which examples a step has and how they are seen depends on seed and step alone, so batches
    // are made on other threads before their step comes.
    let draw = |step: u64| {
        let mut rng = generator(seed, 1, step);
        let mut order = Order::new(seed, &epochs);
        let first = step * config.batch as u64;
        let drawn = (first..first + config.batch as u64)
            .map(|place| examples.draw(order.at(place), &mut rng))
            .collect::<Vec<_>>();
        drawn
            .into_iter()
            .skip(share.start)
            .take(share.len())
            .collect()
    };
    let train = |batches: &mut Ahead<Result<Batch, BatchError>>| -> Result<(), TrainError> {
        let mut saved = Instant::now();
        // Steps begun. On a device the last of them are under way, and not in `progress` yet.
        let mut begun = first;
        let mut recorded: Option<Recorded> = None;
        let device = device_of(model).filter(|_| may_record);
        let mut unreadable = None;
        let mut elsewhere = None;
        while begun < total && (world.size() > 1 || !interrupt.asked()) {
            let next = batches.next();
            let stopped = next.is_none();
            let batch = match next {
                Some(Ok(batch)) => Some(batch),
                Some(Err(error)) => {
                    unreadable = Some(error);
                    None
                }
                None => None,
            };
            // All of them begin a step, or none.
            let message = unreadable.as_ref().map(ToString::to_string);
            let ready = match &message {
                None if stopped => INTERRUPTED,
                None => "",
                Some(message) => message,
            };
            let ready = world.texts(ready)?;
            elsewhere = ready.into_iter().find(|text| !text.is_empty());
            let (Some(batch), None) = (batch, &elsewhere) else {
                break;
            };
            let rate = progress.schedule.at(begun, total);
            let mut finished = Finished::default();
            if config.fresh_moments && progress.schedule.epoch_begins(begun) {
                // The next step makes new ones, launch by launch, and is recorded anew.
                if let Some(mut recorded) = recorded.take() {
                    let model = model.recordable().expect("it was recorded");
                    finished = recorded.drain(model, &mut adam)?;
                }
                if finished.not_finite.is_none() {
                    adam.state = AdamState::default();
                }
            }
            let drop_connect = |step| config.drop_connect.then(|| generator(seed, 2, step));
            if finished.not_finite.is_none() {
                finished.append(match &mut recorded {
                    None => one_step(
                        model,
                        &mut adam,
                        &batch,
                        config,
                        rate,
                        drop_connect(begun),
                        world,
                    )?,
                    Some(recorded) => recorded.enqueue(
                        model.recordable().expect("it was recorded"),
                        &mut adam,
                        &batch,
                        config,
                        rate,
                        drop_connect(begun),
                    )?,
                });
            }
            begun += 1;
            let saves = begun.is_multiple_of(config.checkpoint_every)
                || saved.elapsed() >= CHECKPOINT_AFTER;
            let last = begun == total || interrupt.asked();
            if let (true, None, Some(recorded)) =
                (saves || last, &finished.not_finite, &mut recorded)
            {
                let model = model.recordable().expect("it was recorded");
                finished.append(recorded.drain(model, &mut adam)?);
            }
            progress.note(&finished.steps)?;
            if let (Some(average), None) = (&mut average, &finished.not_finite) {
                average.note(model, progress.step);
            }
            if let Some(what) = finished.not_finite {
                save(progress.step, model, &adam, average.as_ref())?;
                world.barrier()?;
                progress.bar.abandon();
                return Err(TrainError::NotFinite {
                    step: progress.step,
                    what,
                    checkpoint: path
                        .as_ref()
                        .map_or("memory".into(), |path| path.display().to_string()),
                });
            }
            if saves {
                save(progress.step, model, &adam, average.as_ref())?;
                saved = Instant::now();
            }
            if let (false, None, Some(cuda)) = (last, &recorded, &device) {
                let model = model.recordable().expect("it has a device for that");
                let drop_connect = drop_connect(begun);
                recorded = Some(Recorded::begin(
                    cuda,
                    model,
                    &mut adam,
                    &batch,
                    config,
                    drop_connect,
                )?);
            }
        }
        if let Some(mut recorded) = recorded {
            // Stopped while steps are under way: their losses are read now.
            let model = model.recordable().expect("it was recorded");
            progress.note(&recorded.drain(model, &mut adam)?.steps)?;
        }
        // Also before an error: what was learnt is kept, and the file can be mended.
        save(progress.step, model, &adam, average.as_ref())?;
        world.barrier()?;
        match unreadable {
            None => match elsewhere {
                Some(what) if what != INTERRUPTED => Err(TrainError::Parallel(what)),
                _ => Ok(()),
            },
            Some(BatchError::Data(error)) => Err(TrainError::Data(error)),
            Some(BatchError::Model(error)) => Err(TrainError::Model(error)),
        }
    };
    batches_ahead(
        first..total,
        Workers::default(),
        interrupt,
        &spec,
        draw,
        train,
    )?;
    progress.bar.finish_and_clear();
    if let (Some(average), true) = (&average, progress.step == total) {
        average.put_into(model)?;
    }
    world.agree("the trained network", || parameters_sha256(model))?;
    Ok(Fitted {
        steps: progress.step,
        total_steps: total,
        losses: progress.losses,
        seconds: start.elapsed().as_secs_f64(),
        interrupted: progress.step < total,
    })
}

/// Where a run is, and where it writes how it goes.
struct Progress<'a> {
    /// Steps done.
    step: u64,
    total: u64,
    schedule: Schedule,
    bar: indicatif::ProgressBar,
    losses: Vec<f32>,
    /// The folder, and the file in it.
    curve: Option<(&'a RunFolder, String)>,
}

impl Progress<'_> {
    /// Writes down steps that went well.
    fn note(&mut self, done: &[StepLosses]) -> Result<(), TrainError> {
        for done in done {
            let rate = self.schedule.at(self.step, self.total);
            self.losses.push(done.total);
            self.step += 1;
            self.bar.set_position(self.step);
            if !self.step.is_multiple_of(10) && self.step != self.total {
                continue;
            }
            self.bar.set_message(format!("loss {:.3}", done.total));
            let Some((folder, curve)) = &self.curve else {
                continue;
            };
            let line = json!({
                "step": self.step, "loss": done.total, "info_nce": done.info_nce,
                "triplet": done.triplet, "heatmap": done.heatmap, "orientation": done.orientation,
                "learning_rate": rate, "gradient_norm": done.gradient_norm,
            });
            folder
                .append_line(curve, &line)
                .map_err(|error| TrainError::Write {
                    path: folder.file(curve).display().to_string(),
                    error,
                })?;
        }
        Ok(())
    }
}

/// Settings, seed and examples: what must be equal for a checkpoint to fit.
fn fingerprint(
    name: &str,
    model: &dyn CrossViewModel,
    examples: &dyn Examples,
    config: &FitConfig,
    seed: u64,
) -> String {
    let config = FitConfig {
        checkpoint_every: 1,
        ..config.clone()
    };
    let labels = examples.identity();
    sha256_json(&(name, model.table(), config, seed, labels))
}

/// Hash of the network's numbers.
fn parameters_sha256(model: &dyn CrossViewModel) -> Result<String, ModelError> {
    let mut bytes = Vec::new();
    for (_, values) in arrays_from(model)?.values() {
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }
    Ok(sha256_bytes(&bytes))
}

/// One step, launch by launch where there is a device; waits for its loss. `batch` is this process's
/// share, and the losses are those of the whole batch.
pub(super) fn one_step(
    model: &mut dyn CrossViewModel,
    adam: &mut Adam,
    batch: &Batch,
    config: &FitConfig,
    rate: f64,
    mut drop_connect: Option<ChaCha8Rng>,
    world: &World,
) -> Result<Finished, ModelError> {
    let targets: Vec<PoseTarget> = batch
        .examples
        .iter()
        .map(|example| example.target.clone())
        .collect();
    let mut tape = Tape::training_across(world.communicator().cloned());
    let samples = batch.input.len();
    let statistics = model.parameters().all_statistics().to_vec();
    let options = ForwardOptions {
        batch_norm: config.batch_norm_mode(),
        drop_connect: drop_connect.as_mut(),
        share: Share {
            before: samples * world.rank(),
            behind: samples * (world.size() - 1 - world.rank()),
        },
        extent: config.loss.extent(model.describe()),
    };
    // A step that fails leaves the state before it: the running statistics are put back.
    let attempt = || -> Result<StepLosses, ModelError> {
        let prediction = model.forward(&mut tape, &batch.input, options)?;
        let loss = model.loss(&mut tape, &prediction, &targets, &config.loss)?;
        let mut losses = StepLosses {
            total: loss.total.item()?,
            info_nce: loss.info_nce,
            triplet: loss.triplet,
            heatmap: loss.heatmap,
            orientation: loss.orientation,
            gradient_norm: 0.0,
        };
        losses.average(world)?;
        let value = losses.total;
        if !value.is_finite() {
            return Err(ModelError::Kernel(KernelError::NotFinite {
                op: "loss",
                what: format!("the loss ({value})"),
            }));
        }
        let mut gradients =
            std::mem::replace(&mut tape, Tape::inference()).backward(&loss.total)?;
        if let Some(communicator) = world.communicator() {
            let leaves = model.parameters().all().iter();
            let leaves = leaves.map(|parameter| &parameter.value);
            gradients.average(leaves, communicator.as_ref())?;
        }
        let report = adam.step(model.parameters_mut().all_mut(), &gradients, rate)?;
        losses.gradient_norm = report.gradient_norm;
        Ok(losses)
    };
    let result = attempt();
    if result.is_err() {
        model
            .parameters_mut()
            .all_statistics_mut()
            .clone_from_slice(&statistics);
    }
    match result {
        Ok(done) => Ok(Finished {
            steps: vec![done],
            not_finite: None,
        }),
        Err(ModelError::Kernel(KernelError::NotFinite { what, .. })) => Ok(Finished {
            steps: Vec::new(),
            not_finite: Some(what),
        }),
        Err(error) => Err(error),
    }
}
