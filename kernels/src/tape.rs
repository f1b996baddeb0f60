//! Backward closures, in the order the forward operations ran.
//!
//! An operation computes its output, then calls [`Tape::record`] with a closure that turns the
//! gradient of the output into the gradients of its inputs. [`Tape::backward`] runs the closures
//! in reverse and adds up what reaches each tensor. A tape is used for one step and dropped.

use crate::communicator::Communicator;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops::elementwise;
use crate::tensor::{Tensor, TensorId};
use std::collections::HashMap;
use std::sync::Arc;

/// Turns the gradient of an output into the gradients of the inputs, in their order.
/// `None` for an input that gets none.
type Backward = Box<dyn FnOnce(&Tensor) -> Result<Vec<Option<Tensor>>> + Send>;

struct Entry {
    output: TensorId,
    inputs: Vec<Option<TensorId>>,
    backward: Backward,
}

/// Records how each tensor was made, so that gradients can flow back.
pub struct Tape {
    entries: Vec<Entry>,
    recording: bool,
    communicator: Option<Arc<dyn Communicator>>,
}

/// Gradients by tensor, as [`Tape::backward`] found them.
#[derive(Debug, Default)]
pub struct Gradients(HashMap<TensorId, Tensor>);

impl Gradients {
    /// The gradient of `tensor`; `None` when the loss does not depend on it.
    pub fn get(&self, tensor: &Tensor) -> Option<&Tensor> {
        self.0.get(&tensor.id())
    }

    /// Replaces the gradients of `leaves` by their means over the processes: those of the mean of their
    /// losses. Every process has the same leaves, and a gradient for the same of them.
    ///
    /// # Errors
    /// [`Error::Communication`], or the device's own.
    pub fn average<'a>(
        &mut self,
        leaves: impl Iterator<Item = &'a Tensor>,
        communicator: &dyn Communicator,
    ) -> Result<()> {
        let ids = leaves.map(Tensor::id);
        let ids: Vec<TensorId> = ids.filter(|id| self.0.contains_key(id)).collect();
        let mut all = Vec::new();
        for id in &ids {
            all.extend(self.0[id].to_vec()?);
        }
        communicator.all_reduce_sum(&mut all)?;
        let share = 1.0 / communicator.size() as f32;
        let mut rest = &all[..];
        for id in ids {
            let old = &self.0[&id];
            let (values, others) = rest.split_at(old.len());
            let values = values.iter().map(|value| value * share).collect();
            let new = Tensor::from_parts(values, old.shape()).to(&old.device())?;
            self.0.insert(id, new);
            rest = others;
        }
        Ok(())
    }
}

impl Tape {
    /// A tape that records, for training.
    pub fn training() -> Self {
        Self {
            entries: Vec::new(),
            recording: true,
            communicator: None,
        }
    }

    /// As [`Tape::training`], for a share of a batch whose other shares are other processes'; `None`
    /// for a batch that is whole.
    pub fn training_across(communicator: Option<Arc<dyn Communicator>>) -> Self {
        Self {
            communicator,
            ..Self::training()
        }
    }

    /// A tape that records nothing, for inference: intermediate values are freed at once.
    pub fn inference() -> Self {
        Self {
            entries: Vec::new(),
            recording: false,
            communicator: None,
        }
    }

    /// How the processes that hold the batch's other shares are reached.
    pub(crate) fn communicator(&self) -> Option<&Arc<dyn Communicator>> {
        self.communicator.as_ref()
    }

    /// Whether operations need to keep what their backward pass uses.
    pub fn is_recording(&self) -> bool {
        self.recording
    }

    /// Whether a gradient will flow to any of `inputs`, so that saving for backward is worth it.
    pub fn needs_gradient(&self, inputs: &[&Tensor]) -> bool {
        self.recording && inputs.iter().any(|tensor| tensor.requires_gradient())
    }

    /// Records that `output` was computed from `inputs`; `backward` maps the output's gradient to one
    /// gradient (or `None`) for each input. Does nothing when no input needs a gradient.
    pub fn record<F>(&mut self, output: &mut Tensor, inputs: &[&Tensor], backward: F)
    where
        F: FnOnce(&Tensor) -> Result<Vec<Option<Tensor>>> + Send + 'static,
    {
        if !self.needs_gradient(inputs) {
            return;
        }
        output.mark_requires_gradient();
        let inputs = inputs
            .iter()
            .map(|tensor| tensor.requires_gradient().then(|| tensor.id()))
            .collect();
        self.entries.push(Entry {
            output: output.id(),
            inputs,
            backward: Box::new(backward),
        });
    }

    /// Gradients of the scalar `loss` for every leaf it depends on (made by [`Tensor::with_gradient`]).
    ///
    /// # Errors
    /// [`Error::Shape`] when `loss` is not one number, or a backward closure's own error.
    pub fn backward(self, loss: &Tensor) -> Result<Gradients> {
        if loss.len() != 1 {
            return Err(Error::shape("backward", "loss", "one number", loss.shape()));
        }
        self.backward_from(loss, loss.device().full(loss.shape(), 1.0)?)
    }

    /// As [`Tape::backward`], starting from a given gradient of `output`.
    ///
    /// # Errors
    /// [`Error::Shape`] when `gradient` and `output` differ in shape, [`Error::Device`] when they
    /// lie on different devices, or a closure's own error.
    pub fn backward_from(self, output: &Tensor, gradient: Tensor) -> Result<Gradients> {
        gradient.expect_shape("backward", "gradient of the output", output.shape())?;
        Device::common("backward", &[output, &gradient])?;
        let mut gradients = HashMap::from([(output.id(), gradient)]);
        for entry in self.entries.into_iter().rev() {
            // The loss does not depend on this output: its closure, and all it saved, is dropped here.
            let Some(gradient) = gradients.remove(&entry.output) else {
                continue;
            };
            for (input, gradient) in entry.inputs.into_iter().zip((entry.backward)(&gradient)?) {
                if let (Some(input), Some(gradient)) = (input, gradient) {
                    accumulate(&mut gradients, input, gradient)?;
                }
            }
        }
        Ok(Gradients(gradients))
    }
}

fn accumulate(
    gradients: &mut HashMap<TensorId, Tensor>,
    id: TensorId,
    gradient: Tensor,
) -> Result<()> {
    match gradients.remove(&id) {
        None => gradients.insert(id, gradient),
        Some(sum) => {
            gradient.expect_shape("backward", "second gradient of one tensor", sum.shape())?;
            gradients.insert(id, elementwise::accumulated(sum, &gradient)?)
        }
    };
    Ok(())
}
