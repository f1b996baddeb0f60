//! Recorded steps (CUDA graphs): a step of fixed shape is recorded once and replayed without the cost
//! of its launches.

use super::driver::{Address, Graph};
use super::{Cuda, DeviceBuffer};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::pixels::Pixels;
use crate::tensor::Tensor;
use std::collections::HashSet;
use std::sync::Arc;

/// A recorded graph. The pool does not hand out the memory it uses until it is dropped.
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

    /// Milliseconds of the device for the recorded work, from as many replays, one behind the
    /// other.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn replay_ms(&self, replays: usize) -> Result<f64> {
        let driver = &self.cuda.0.driver;
        let before = driver.mark()?;
        for _ in 0..replays {
            self.replay()?;
        }
        let after = driver.mark()?;
        Ok(before.milliseconds_to(&*after)? / replays.max(1) as f64)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // Destroy the graph before its memory is released.
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
        cuda.end_ordering();
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
        // The unfinished recording is discarded.
        let _ = Recording(self.0).end();
    }
}

impl Cuda {
    /// Records what `work` enqueues, without running it. What `work` computes on the host is done
    /// once, now; what it allocates belongs to the recording. Everything must have run once before, so
    /// that kernels are compiled and tables uploaded. No other thread may use the device meanwhile.
    ///
    /// # Errors
    /// What `work` returns; [`Error::Cuda`] when it reads or uploads values, or a recording is
    /// under way.
    pub fn capture<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(Capture, T)> {
        self.capture_with(work)
    }

    /// As [`Cuda::capture`], for work with another error type.
    fn capture_with<T, E: From<Error>>(
        &self,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<(Capture, T), E> {
        if !self.0.pool.begin_recording() {
            return Err(Error::cuda("recording", "another recording is under way").into());
        }
        if let Err(error) = self.0.driver.begin_capture() {
            let used = self.0.pool.end_recording();
            self.0.pool.forget(&used);
            return Err(error.into());
        }
        let recording = Recording(self);
        self.begin_ordering();
        let made = work()?;
        Ok((recording.end().map_err(E::from)?, made))
    }
}

/// Inputs begin at multiples of this many bytes, as allocations do.
const ALIGNMENT: usize = 256;

/// A step of fixed shape, recorded once and replayed with new inputs: for training, forward,
/// backward and the optimiser's update in one enqueued piece.
///
/// What changes from step to step, such as images, masks drawn by chance and the learning rate, is
/// an input: tensors, and images as bytes. What the step keeps, such as parameters and moments, it
/// updates in place.
///
/// Inputs from the host are uploaded on a second queue into one of two staging buffers, so that those
/// of the next step arrive while this step runs; the step begins with a copy from there.
pub struct Step {
    capture: Capture,
    cuda: Cuda,
    inputs: Vec<Tensor>,
    images: Vec<Pixels>,
    /// First byte of each input in `arena` and `places`: of the tensors, then of the images.
    offsets: Vec<usize>,
    /// All inputs, as the recorded work reads them.
    arena: Arc<DeviceBuffer<u8>>,
    /// The two staging buffers, used alternately.
    places: [DeviceBuffer<u8>; 2],
    staging: usize,
    outputs: Vec<Tensor>,
}

impl Step {
    /// Records `work` on inputs shaped like `inputs`. It does not run yet. Do the first step
    /// without recording, so that kernels are compiled.
    ///
    /// # Errors
    /// As [`Cuda::capture`]; [`Error::OutOfMemory`].
    pub fn record(
        cuda: &Cuda,
        inputs: &[Tensor],
        work: impl FnOnce(&[Tensor]) -> Result<Vec<Tensor>>,
    ) -> Result<Self> {
        Self::record_with(cuda, inputs, &[], |inputs, _| work(inputs))
    }

    /// As [`Step::record`], with images as inputs and for work with another error type.
    ///
    /// # Errors
    /// As [`Step::record`].
    pub fn record_with<E: From<Error>>(
        cuda: &Cuda,
        inputs: &[Tensor],
        images: &[Pixels],
        work: impl FnOnce(&[Tensor], &[Pixels]) -> Result<Vec<Tensor>, E>,
    ) -> Result<Self, E> {
        let numbers = inputs.iter().map(|input| input.len() * size_of::<f32>());
        let pixels = images.iter().map(|image| image.shape().iter().product());
        let mut bytes = 0;
        let mut offsets = Vec::with_capacity(inputs.len() + images.len());
        for length in numbers.chain(pixels) {
            offsets.push(bytes);
            bytes += usize::next_multiple_of(length, ALIGNMENT);
        }
        let arena = Arc::new(cuda.zeros(bytes)?);
        let places = [cuda.zeros(bytes)?, cuda.zeros(bytes)?];
        // Uploads must not arrive before the buffers are zeroed.
        for slot in 0..places.len() {
            cuda.0.driver.release_to_uploads(slot)?;
        }
        let part = |(input, offset): (&Tensor, &usize)| {
            let part = DeviceBuffer::part(&arena, *offset, input.len());
            Tensor::from_device(part, input.shape())
        };
        let image = |(image, offset): (&Pixels, &usize)| {
            let shape = image.shape();
            let part = DeviceBuffer::part(&arena, *offset, shape.iter().product());
            Pixels::from_device(part, shape)
        };
        let of_images = &offsets[inputs.len()..];
        let inputs: Vec<Tensor> = inputs.iter().zip(&offsets).map(part).collect();
        let images: Vec<Pixels> = images.iter().zip(of_images).map(image).collect();
        let (capture, outputs) = cuda.capture_with(|| work(&inputs, &images))?;
        Ok(Self {
            capture,
            cuda: cuda.clone(),
            inputs,
            images,
            offsets,
            arena,
            places,
            staging: 0,
            outputs,
        })
    }

    /// Enqueues the step with new inputs, which may lie on the host. The returned outputs are the
    /// same tensors each time, holding the latest step's values.
    ///
    /// # Errors
    /// [`Error::Shape`] when an input has another shape than recorded; [`Error::Device`] when one
    /// lies on another device; [`Error::Cuda`].
    pub fn run(&mut self, inputs: &[Tensor]) -> Result<&[Tensor]> {
        self.run_with(inputs, &[])
    }

    /// As [`Step::run`], of a step that takes images too.
    ///
    /// # Errors
    /// As [`Step::run`].
    pub fn run_with(&mut self, inputs: &[Tensor], images: &[Pixels]) -> Result<&[Tensor]> {
        self.check(inputs, images)?;
        let driver = &self.cuda.0.driver;
        let place = &self.places[self.staging];
        // This staging buffer was read by the step before the last: it is free when that has run.
        driver.await_release(self.staging)?;
        let (of_inputs, of_images) = self.offsets.split_at(inputs.len());
        for (input, offset) in inputs.iter().zip(of_inputs) {
            if input.device() == Device::Cpu {
                // SAFETY: what read this place last is behind the fence above; the copy below
                // comes after the fence that it waits for.
                unsafe { place.overwrite_concurrently(*offset, input.data())? };
            }
        }
        for (image, offset) in images.iter().zip(of_images) {
            if image.device() == Device::Cpu {
                // SAFETY: as above.
                unsafe { place.overwrite_concurrently(*offset, image.host("step")?)? };
            }
        }
        driver.await_uploads()?;
        self.arena.overwrite_from(place)?;
        driver.release_to_uploads(self.staging)?;
        self.staging = 1 - self.staging;
        for (input, mine) in inputs.iter().zip(&self.inputs) {
            if input.device() != Device::Cpu {
                mine.buffer().overwrite_from(input.buffer())?;
            }
        }
        for (image, mine) in images.iter().zip(&self.images) {
            if image.device() != Device::Cpu {
                mine.buffer().overwrite_from(image.buffer())?;
            }
        }
        self.capture.replay()?;
        Ok(&self.outputs)
    }

    /// Milliseconds of the device for one step, from as many replays of the latest inputs, one
    /// behind the other with nothing in between.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn replay_ms(&mut self, replays: usize) -> Result<f64> {
        self.capture.replay_ms(replays)
    }

    /// The outputs of the latest enqueued step; reading them waits for it.
    pub fn outputs(&self) -> &[Tensor] {
        &self.outputs
    }

    fn check(&self, inputs: &[Tensor], images: &[Pixels]) -> Result<()> {
        for (what, got, expected) in [
            ("number of inputs", inputs.len(), self.inputs.len()),
            ("number of images", images.len(), self.images.len()),
        ] {
            if got != expected {
                return Err(Error::shape("step", what, expected, got));
            }
        }
        for (new, old) in inputs.iter().zip(&self.inputs) {
            new.expect_shape("step", "input", old.shape())?;
        }
        for (new, old) in images.iter().zip(&self.images) {
            new.expect_shape("step", "images", old.shape())?;
        }
        let here = Device::Cuda(self.cuda.clone());
        let devices = inputs.iter().map(Tensor::device);
        for device in devices.chain(images.iter().map(Pixels::device)) {
            if device != Device::Cpu && device != here {
                return Err(Error::Device {
                    op: "step",
                    first: device.describe(),
                    second: here.describe(),
                });
            }
        }
        Ok(())
    }
}
