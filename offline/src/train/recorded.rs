//! Training on a device by replays of one recorded step.
//!
//! Nothing waits for the device inside a step: the next batch travels while this one is computed,
//! losses are read ten steps at a time and one step late. A step whose loss or gradient is not
//! finite changes nothing, nor do those enqueued after it; see [`Guard`].

use super::{FitConfig, World};
use crate::data::batch::Batch;
use crate::model::loss::PoseTarget;
use crate::model::{LossComponents, ModelError, Prepared, Recordable};
use crossfix_kernels::cuda::{Cuda, Step};
use crossfix_kernels::optim::{Adam, Guard, PendingReport, Report};
use crossfix_kernels::{Device, Pixels, Tape, Tensor, ops};
use rand_chacha::ChaCha8Rng;

/// Steps after which the losses are read.
const READ_EVERY: u64 = 10;

/// Steps whose losses the device keeps: those not read yet, and some to spare.
const REMEMBERED: usize = 16;

/// A training whose steps are replays of one recorded step.
pub(super) struct Recorded {
    step: Step,
    guard: Guard,
    /// Steps enqueued, steps whose values were read.
    enqueued: u64,
    read: u64,
    /// A report of losses that is on its way from the device.
    pending: Option<PendingReport>,
    /// Which values follow the loss in a step's row.
    components: LossComponents,
}

/// How one step went.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StepLosses {
    pub total: f32,
    pub info_nce: Vec<f32>,
    pub triplet: Option<f32>,
    pub heatmap: Option<f32>,
    pub orientation: Option<f32>,
    pub gradient_norm: f64,
}

impl StepLosses {
    /// Of the shares of a batch, the losses of the batch.
    pub fn average(&mut self, world: &World) -> Result<(), ModelError> {
        if world.size() == 1 {
            return Ok(());
        }
        let terms = [&mut self.triplet, &mut self.heatmap, &mut self.orientation];
        let all = [&mut self.total].into_iter().chain(&mut self.info_nce);
        let mut all: Vec<&mut f32> = all.chain(terms.into_iter().flatten()).collect();
        let means = world.means(all.iter().map(|value| f64::from(**value)).collect())?;
        for (value, mean) in all.iter_mut().zip(means) {
            **value = mean as f32;
        }
        Ok(())
    }
}

/// Steps that finished since the losses were read before.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Finished {
    /// Steps that went well, in their order.
    pub steps: Vec<StepLosses>,
    /// What was not finite in the step after those. Parameters, moments and statistics are as the
    /// last good step left them; the optimiser has forgotten the steps that came to nothing.
    pub not_finite: Option<String>,
}

impl Finished {
    /// Later steps behind these.
    pub fn append(&mut self, later: Self) {
        self.steps.extend(later.steps);
        self.not_finite = self.not_finite.take().or(later.not_finite);
    }
}

/// The loss first, then its terms, `[values]`.
fn row(terms: &crate::model::loss::LossTerms) -> Result<Tensor, crossfix_kernels::Error> {
    let tape = &mut Tape::inference();
    let one = |tape: &mut Tape, term: &Tensor| ops::reshape(tape, &term.detach(), &[1, 1, 1, 1]);
    let all = [&terms.total].into_iter().chain(&terms.info_nce);
    let all = all.chain(&terms.triplet);
    let all = all.chain(&terms.heatmap).chain(&terms.orientation);
    let all = all
        .map(|term| one(tape, term))
        .collect::<Result<Vec<_>, _>>()?;
    let joined = ops::concat_channels(tape, &all.iter().collect::<Vec<_>>())?;
    let values = joined.len();
    ops::reshape(tape, &joined, &[values])
}

impl Recorded {
    /// Records the step of `model` for batches like `batch`. One step was done launch by launch,
    /// so that kernels are compiled and the optimiser has its moments; no tensor shares the
    /// network's numbers.
    ///
    /// # Errors
    /// [`ModelError::Kernel`] from the device.
    pub fn begin(
        cuda: &Cuda,
        model: &mut dyn Recordable,
        adam: &mut Adam,
        batch: &Batch,
        config: &FitConfig,
        mut drop_connect: Option<ChaCha8Rng>,
    ) -> Result<Self, ModelError> {
        let prepared = prepare(model, batch, config, drop_connect.as_mut())?;
        let parameters = model.parameters().all().len();
        let mut inputs: Vec<Tensor> = prepared.tensors().into_iter().cloned().collect();
        inputs.push(Tensor::zeros(&[parameters, 2]));
        let components = prepared.components();
        let columns = 1 + components.count();
        let statistics = model.parameters().all_statistics();
        let mut guard = Guard::new(cuda, columns, REMEMBERED, parameters, statistics)?;
        // Once outside the recording, which must find all kernels compiled.
        guard.keep(model.parameters_mut().all_statistics_mut())?;
        let work = |inputs: &[Tensor], images: &[Pixels]| -> Result<_, ModelError> {
            let prepared = prepared.like(&mut inputs.iter().cloned(), images);
            let coefficients = inputs.last().expect("the coefficients come last");
            let mut tape = Tape::training();
            let terms =
                model.step_loss(&mut tape, &prepared, &config.loss, config.batch_norm_mode())?;
            let values = row(&terms)?;
            let gradients = tape.backward(&terms.total)?;
            let parameters = model.parameters_mut();
            adam.enqueue_guarded(
                parameters.all_mut(),
                &gradients,
                coefficients,
                (&mut guard, &values),
            )?;
            guard.keep(parameters.all_statistics_mut())?;
            Ok(Vec::new())
        };
        let step = Step::record_with(cuda, &inputs, prepared.images(), work)?;
        Ok(Self {
            step,
            guard,
            enqueued: 0,
            read: 0,
            pending: None,
            components,
        })
    }

    /// Enqueues one step; returns the earlier steps whose losses arrived meanwhile.
    ///
    /// # Errors
    /// [`ModelError`] when the batch does not fit or the device failed.
    pub fn enqueue(
        &mut self,
        model: &mut dyn Recordable,
        adam: &mut Adam,
        batch: &Batch,
        config: &FitConfig,
        rate: f64,
        mut drop_connect: Option<ChaCha8Rng>,
    ) -> Result<Finished, ModelError> {
        let prepared = prepare(model, batch, config, drop_connect.as_mut())?;
        let mut inputs: Vec<Tensor> = prepared.tensors().into_iter().cloned().collect();
        inputs.push(adam.begin_step(rate)?);
        self.step.run_with(&inputs, prepared.images())?;
        self.enqueued += 1;
        let finished = match self.pending.take() {
            None => Finished::default(),
            Some(pending) => self.read(model, adam, &pending.wait()?)?,
        };
        if finished.not_finite.is_none() && self.enqueued.is_multiple_of(READ_EVERY) {
            self.pending = Some(self.guard.begin_report()?);
        }
        Ok(finished)
    }

    /// Waits for all steps and returns those not returned yet. The network's parameters may be read
    /// afterwards.
    ///
    /// # Errors
    /// [`ModelError::Kernel`] when the device failed.
    pub fn drain(
        &mut self,
        model: &mut dyn Recordable,
        adam: &mut Adam,
    ) -> Result<Finished, ModelError> {
        // What was asked for before is in this report as well: the device remembers more steps.
        self.pending = None;
        let report = self.guard.begin_report()?.wait()?;
        self.read(model, adam, &report)
    }

    /// Milliseconds that the device works on one step, averaged over `replays` of the latest inputs.
    /// They change the parameters.
    pub fn replay_ms(&mut self, replays: usize) -> Result<f64, ModelError> {
        Ok(self.step.replay_ms(replays)?)
    }

    fn read(
        &mut self,
        model: &mut dyn Recordable,
        adam: &mut Adam,
        report: &Report,
    ) -> Result<Finished, ModelError> {
        let done = (self.read..report.steps).map(|step| self.done(report.values(step)));
        let mut finished = Finished {
            steps: done.collect(),
            not_finite: None,
        };
        self.read = report.steps;
        if report.stopped {
            let loss = report.values(report.steps)[0];
            let what = if loss.is_finite() {
                let lengths = self.guard.broken_lengths()?;
                let broken = lengths[1..].iter().position(|length| !length.is_finite());
                match broken {
                    Some(index) => {
                        format!("gradient of {}", model.parameters().all()[index].name)
                    }
                    None => "length of all gradients".into(),
                }
            } else {
                format!("the loss ({loss})")
            };
            finished.not_finite = Some(what);
            for _ in report.steps..self.enqueued {
                adam.undo_step();
            }
            self.enqueued = report.steps;
        }
        Ok(finished)
    }

    fn done(&self, values: &[f32]) -> StepLosses {
        let (gradient_norm, values) = values.split_last().expect("a row has values");
        let (info_nce, rest) = values[1..].split_at(self.components.info_nce);
        let mut rest = rest.iter().copied();
        let mut next = |has: bool| has.then(|| rest.next()).flatten();
        StepLosses {
            total: values[0],
            info_nce: info_nce.to_vec(),
            triplet: next(self.components.triplet),
            heatmap: next(self.components.heatmap),
            orientation: next(self.components.orientation),
            gradient_norm: f64::from(*gradient_norm),
        }
    }
}

/// The device, where the network's steps can be recorded on it.
pub(super) fn device_of(model: &mut dyn crate::model::CrossViewModel) -> Option<Cuda> {
    match model.parameters().device() {
        Device::Cuda(cuda) if model.recordable().is_some() => Some(cuda),
        _ => None,
    }
}

fn prepare(
    model: &dyn Recordable,
    batch: &Batch,
    config: &FitConfig,
    drop_connect: Option<&mut ChaCha8Rng>,
) -> Result<Prepared, ModelError> {
    let targets: Vec<PoseTarget> = batch
        .examples
        .iter()
        .map(|example| example.target.clone())
        .collect();
    model.prepare(&batch.input, &targets, &config.loss, drop_connect)
}
