//! Work recorded once and replayed: a step of fixed shape without the cost of its launches.

use super::Cuda;
use super::driver::{Address, Graph};
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use std::collections::HashSet;

/// Recorded work. The memory it uses serves nobody else until it is dropped.
pub struct Capture {
    cuda: Cuda,
    graph: Option<Box<dyn Graph>>,
    used: HashSet<Address>,
}

impl Capture {
    /// Enqueues the recorded work.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn replay(&self) -> Result<()> {
        self.graph.as_ref().map_or(Ok(()), |graph| graph.replay())
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // First the graph, then the claim on its memory.
        self.graph = None;
        self.cuda.0.pool.forget(&self.used);
    }
}

/// Ends a recording, also when the recorded work panics.
struct Recording<'a>(&'a Cuda);

impl Recording<'_> {
    fn end(self) -> Result<Capture> {
        let cuda = self.0;
        std::mem::forget(self);
        let graph = cuda.0.driver.end_capture();
        let mut capture = Capture {
            cuda: cuda.clone(),
            graph: None,
            used: cuda.0.pool.end_recording(),
        };
        capture.graph = Some(graph?);
        Ok(capture)
    }
}

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        // What was recorded so far is of no use.
        let _ = Recording(self.0).end();
    }
}

impl Cuda {
    /// Records what `work` enqueues, without running it. What `work` computes on the host is done
    /// once, now; what it allocates is the recording's. Everything must have run once before, so
    /// that kernels are compiled and tables uploaded. Nobody else may use the device meanwhile.
    ///
    /// # Errors
    /// What `work` returns; [`Error::Cuda`] when it reads or uploads values, or a recording is
    /// under way.
    pub fn capture<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(Capture, T)> {
        if !self.0.pool.begin_recording() {
            return Err(Error::cuda("recording", "another recording is under way"));
        }
        if let Err(error) = self.0.driver.begin_capture() {
            let used = self.0.pool.end_recording();
            self.0.pool.forget(&used);
            return Err(error);
        }
        let recording = Recording(self);
        let made = work()?;
        Ok((recording.end()?, made))
    }
}

/// A step of fixed shape, recorded once and replayed with new inputs: for training, forward,
/// backward and the optimiser's update in one enqueued piece.
///
/// Values that change from step to step, such as images, masks drawn by chance and the learning
/// rate, are inputs. What the step keeps, such as parameters and moments, it updates in place.
pub struct Step {
    capture: Capture,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
}

impl Step {
    /// Records `work` on inputs shaped like `inputs`, which lie on the device. It does not run
    /// yet. Do the first step without recording, so that kernels are compiled.
    ///
    /// # Errors
    /// As [`Cuda::capture`]; [`Error::Device`] when an input lies elsewhere.
    pub fn record(
        cuda: &Cuda,
        inputs: &[Tensor],
        work: impl FnOnce(&[Tensor]) -> Result<Vec<Tensor>>,
    ) -> Result<Self> {
        let device = crate::Device::Cuda(cuda.clone());
        // Memory of its own: the caller's tensors stay as they are.
        let inputs = inputs
            .iter()
            .map(|input| {
                if input.device() != device {
                    return Err(Error::Device {
                        op: "step",
                        first: input.device().describe(),
                        second: device.describe(),
                    });
                }
                let mut copy = cuda.any(input.len())?;
                copy.copy_from(input.buffer())?;
                Ok(Tensor::from_device(copy, input.shape()))
            })
            .collect::<Result<Vec<_>>>()?;
        let (capture, outputs) = cuda.capture(|| work(&inputs))?;
        Ok(Self {
            capture,
            inputs,
            outputs,
        })
    }

    /// Enqueues the step with new inputs, which may lie on the host. The returned outputs are the
    /// same tensors each time, holding the latest step's values.
    ///
    /// # Errors
    /// [`Error::Shape`] when an input has another shape than recorded; [`Error::Cuda`].
    pub fn run(&mut self, inputs: &[Tensor]) -> Result<&[Tensor]> {
        if inputs.len() != self.inputs.len() {
            let expected = self.inputs.len();
            return Err(Error::shape(
                "step",
                "number of inputs",
                expected,
                inputs.len(),
            ));
        }
        for (new, old) in inputs.iter().zip(&self.inputs) {
            new.expect_shape("step", "input", old.shape())?;
            match new.device() {
                crate::Device::Cpu => old.buffer().overwrite(new.data())?,
                crate::Device::Cuda(_) => old.buffer().overwrite_from(new.buffer())?,
            }
        }
        self.capture.replay()?;
        Ok(&self.outputs)
    }
}
