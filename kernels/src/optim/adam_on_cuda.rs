//! Adam on a device: all parameters in a few launches, without waiting for the device.
//!
//! What changes from step to step, the learning rate and the bias corrections, comes as a tensor,
//! so that a recorded step can be replayed. What is kept is updated where it lies.

use super::Guard;
use super::adam::{Adam, Moments, Parameter, StepReport, check_rate, coefficients};
use crate::cuda::{AddressWords, Cuda, DeviceBuffer, Kernel, Launch, Source, count, parameters};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tape::Gradients;
use crate::tensor::Tensor;

/// Parameters of one launch; what they need fits the 4 KiB that a kernel takes by value.
const TENSORS: usize = 64;

/// Elements of a block, which works on one parameter and, for the length, leaves one partial sum.
const CHUNK: usize = 8192;
/// Threads of the block that adds those up.
const NORM_THREADS: u32 = 1024;

pub(crate) static SOURCE: Source = Source {
    name: "optim/adam.cu",
    text: include_str!("adam.cu"),
    hot: &["adam_squares", "adam_norm", "adam_update"],
};

const fn kernel(entry: &'static str) -> Kernel {
    Kernel {
        source: &SOURCE,
        entry,
    }
}

static SQUARES: Kernel = kernel("adam_squares");
static NORM: Kernel = kernel("adam_norm");
static UPDATE: Kernel = kernel("adam_update");

parameters! {
    struct AdamTensors {
        parameter: [AddressWords; TENSORS],
        gradient: [AddressWords; TENSORS],
        first: [AddressWords; TENSORS],
        second: [AddressWords; TENSORS],
        count: [u32; TENSORS],
        slot: [u32; TENSORS],
        /// Of each tensor; above all blocks where there is none.
        first_block: [u32; TENSORS],
        /// Of the launch's blocks.
        first_partial: u32,
        weight_decay: f32,
        first_share: f32,
        second_share: f32,
        epsilon: f32,
    }
}

parameters! {
    struct AdamNormParameters {
        count: u32,
        most: f32,
    }
}

/// What one launch works on.
struct OfLaunch {
    tensors: AdamTensors,
    /// Of them that there are.
    filled: usize,
    blocks: usize,
}

impl Adam {
    /// Prepares one step: counts it for every parameter that has moments, and returns what
    /// [`Adam::enqueue`] needs for it, on the host.
    ///
    /// # Shapes
    /// Returns `[parameters, 2]`.
    ///
    /// # Errors
    /// [`Error::NotFinite`] when the learning rate is.
    pub fn begin_step(&mut self, learning_rate: f64) -> Result<Tensor> {
        check_rate(learning_rate)?;
        for moments in self.state.moments.iter_mut().flatten() {
            moments.step += 1;
        }
        Ok(self.coefficients(learning_rate))
    }

    /// Takes back what [`Adam::begin_step`] counted, after a step that came to nothing because a
    /// gradient was not finite.
    pub fn undo_step(&mut self) {
        for moments in self.state.moments.iter_mut().flatten() {
            moments.step -= 1;
        }
    }

    fn coefficients(&self, learning_rate: f64) -> Tensor {
        let of = |moments: &Option<Moments>| match moments {
            Some(moments) if moments.step > 0 => {
                coefficients(self.betas, moments.step, learning_rate)
            }
            _ => [0.0; 2],
        };
        let coefficients: Vec<f32> = self.state.moments.iter().flat_map(of).collect();
        Tensor::from_parts(coefficients, &[self.state.moments.len(), 2])
    }

    /// Enqueues one step on a device, in place, within a recorded step or not. Every parameter
    /// that has a gradient has moments already: do the first step with [`Adam::step`].
    ///
    /// Where a gradient is not finite nothing changes, which shows in the returned lengths.
    ///
    /// # Shapes
    /// `coefficients` `[parameters, 2]` from [`Adam::begin_step`], on the device; returns
    /// `[1 + parameters]`: the length of all gradients together, then of each.
    ///
    /// # Errors
    /// [`Error::Shape`] when gradients, moments and coefficients do not fit the parameters;
    /// [`Error::Argument`] when a recorded step cannot update a parameter where it lies, because
    /// another tensor shares it; [`Error::Device`], [`Error::Cuda`].
    pub fn enqueue(
        &mut self,
        parameters: &mut [Parameter],
        gradients: &Gradients,
        coefficients: &Tensor,
    ) -> Result<Tensor> {
        self.enqueue_watched(parameters, gradients, coefficients, None)
    }

    /// As [`Adam::enqueue`], under a guard: `values`, the loss first, go into its log, and once it
    /// has stopped, nothing changes.
    ///
    /// # Errors
    /// As [`Adam::enqueue`], and [`Error::Shape`] when the guard was made for other values.
    pub fn enqueue_guarded(
        &mut self,
        parameters: &mut [Parameter],
        gradients: &Gradients,
        coefficients: &Tensor,
        (guard, values): (&mut Guard, &Tensor),
    ) -> Result<()> {
        let guard = Some((guard, values));
        self.enqueue_watched(parameters, gradients, coefficients, guard)?;
        Ok(())
    }

    fn enqueue_watched(
        &mut self,
        parameters: &mut [Parameter],
        gradients: &Gradients,
        coefficients: &Tensor,
        guard: Option<(&mut Guard, &Tensor)>,
    ) -> Result<Tensor> {
        self.check_state(parameters)?;
        coefficients.expect_shape("adam", "coefficients", &[parameters.len(), 2])?;
        let mut inputs: Vec<&Tensor> = vec![coefficients];
        inputs.extend(parameters.iter().map(|parameter| &parameter.value));
        let Device::Cuda(cuda) = Device::common("adam", &inputs)? else {
            return Err(Error::argument("adam", "on the CPU, use Adam::step"));
        };
        let empty = AdamTensors::from(self.settings(1.0));
        let mut launches: Vec<OfLaunch> = Vec::new();
        for (slot, (parameter, moments)) in parameters
            .iter_mut()
            .zip(&mut self.state.moments)
            .enumerate()
        {
            let Some(gradient) = gradients.get(&parameter.value) else {
                if moments.is_some() && cuda.is_recording() {
                    // Its steps would be counted, but not done.
                    let what = format!("{} moved before, but not in this step", parameter.name);
                    return Err(Error::argument("adam", what));
                }
                continue;
            };
            gradient.expect_shape("adam", "gradient", parameter.value.shape())?;
            Device::common("adam", &[&parameter.value, gradient])?;
            let Some(moments) = moments else {
                let what = format!("{} has a gradient but no moments yet", parameter.name);
                return Err(Error::argument("adam", what));
            };
            if cuda.is_recording() {
                let mut kept = [&parameter.value, &moments.first, &moments.second].into_iter();
                if kept.any(Tensor::is_shared) {
                    let what = format!(
                        "{} or its moments are shared with another tensor, so a recorded step \
                         cannot update them in place; drop or copy that one first",
                        parameter.name
                    );
                    return Err(Error::argument("adam", what));
                }
            }
            if launches.last().is_none_or(|last| last.filled == TENSORS) {
                let before = launches.iter().map(|launch| launch.blocks).sum::<usize>();
                let mut tensors = empty;
                tensors.first_partial = count("adam", before)?;
                launches.push(OfLaunch {
                    tensors,
                    filled: 0,
                    blocks: 0,
                });
            }
            let OfLaunch {
                tensors,
                filled,
                blocks,
            } = launches.last_mut().expect("pushed above");
            tensors.parameter[*filled] = parameter.value.buffer_mut()?.address_words();
            tensors.first[*filled] = moments.first.buffer_mut()?.address_words();
            tensors.second[*filled] = moments.second.buffer_mut()?.address_words();
            tensors.gradient[*filled] = gradient.buffer().address_words();
            tensors.count[*filled] = count("adam", parameter.value.len())?;
            tensors.slot[*filled] = slot as u32;
            tensors.first_block[*filled] = *blocks as u32;
            *filled += 1;
            *blocks += parameter.value.len().div_ceil(CHUNK).max(1);
        }
        let norm_parameters = AdamNormParameters {
            count: count("adam", parameters.len())?,
            most: self.clip_norm.unwrap_or(0.0) as f32,
        };
        let coefficients = coefficients.buffer();
        let lengths = enqueue(&cuda, &launches, &norm_parameters, coefficients, guard)?;
        for parameter in parameters {
            if gradients.get(&parameter.value).is_some() {
                let value = std::mem::replace(&mut parameter.value, Tensor::scalar(0.0));
                parameter.value = value.with_gradient();
            }
        }
        Ok(lengths)
    }

    /// [`Adam::step`] for parameters on a device: waits for the length of the gradients.
    pub(super) fn step_on_cuda(
        &mut self,
        cuda: &Cuda,
        parameters: &mut [Parameter],
        gradients: &Gradients,
        learning_rate: f64,
    ) -> Result<StepReport> {
        let before = self.state.clone_counts();
        self.state.moments.resize(parameters.len(), None);
        let result = self.try_step_on_cuda(cuda, parameters, gradients, learning_rate);
        if result.is_err() {
            self.state.restore_counts(&before);
        }
        result
    }

    fn try_step_on_cuda(
        &mut self,
        cuda: &Cuda,
        parameters: &mut [Parameter],
        gradients: &Gradients,
        learning_rate: f64,
    ) -> Result<StepReport> {
        for (parameter, moments) in parameters.iter().zip(&mut self.state.moments) {
            if gradients.get(&parameter.value).is_none() {
                continue;
            }
            if moments.is_none() {
                let zeros = || {
                    let zeros = cuda.zeros(parameter.value.len())?;
                    Ok::<_, Error>(Tensor::from_device(zeros, parameter.value.shape()))
                };
                *moments = Some(Moments {
                    step: 0,
                    first: zeros()?,
                    second: zeros()?,
                });
            }
            if let Some(moments) = moments {
                moments.step += 1;
            }
        }
        let device = Device::Cuda(cuda.clone());
        let coefficients = self.coefficients(learning_rate).to(&device)?;
        let lengths = self
            .enqueue(parameters, gradients, &coefficients)?
            .to_vec()?;
        if !lengths[0].is_finite() {
            let broken = lengths[1..].iter().position(|length| !length.is_finite());
            return Err(Error::NotFinite {
                op: "global_norm",
                what: match broken {
                    Some(slot) => format!("gradient of {}", parameters[slot].name),
                    None => "length of all gradients".into(),
                },
            });
        }
        Ok(StepReport {
            gradient_norm: f64::from(lengths[0]),
        })
    }
}

impl super::AdamState {
    /// Steps of each parameter, `None` where there are no moments.
    fn clone_counts(&self) -> Vec<Option<u64>> {
        let count = |moments: &Option<Moments>| moments.as_ref().map(|moments| moments.step);
        self.moments.iter().map(count).collect()
    }

    /// Back to those, without the moments made since.
    fn restore_counts(&mut self, counts: &[Option<u64>]) {
        self.moments.truncate(counts.len());
        for (moments, count) in self.moments.iter_mut().zip(counts) {
            match (moments.as_mut(), count) {
                (Some(moments), Some(count)) => moments.step = *count,
                _ => *moments = None,
            }
        }
    }
}

impl From<super::adam::Settings> for AdamTensors {
    fn from(settings: super::adam::Settings) -> Self {
        Self {
            parameter: [AddressWords::default(); TENSORS],
            gradient: [AddressWords::default(); TENSORS],
            first: [AddressWords::default(); TENSORS],
            second: [AddressWords::default(); TENSORS],
            count: [0; TENSORS],
            slot: [0; TENSORS],
            first_block: [u32::MAX; TENSORS],
            first_partial: 0,
            weight_decay: settings.weight_decay,
            first_share: settings.first_share,
            second_share: settings.second_share,
            epsilon: settings.epsilon,
        }
    }
}

/// Squares, then the norm, then the update, each over all launches.
fn enqueue(
    cuda: &Cuda,
    launches: &[OfLaunch],
    norm: &AdamNormParameters,
    coefficients: &DeviceBuffer,
    guard: Option<(&mut Guard, &Tensor)>,
) -> Result<Tensor> {
    let slots = norm.count as usize;
    let bytes =
        |tensors: &AdamTensors| 4 * tensors.count.iter().map(|c| *c as usize).sum::<usize>();
    let blocks = launches.iter().map(|launch| launch.blocks).sum::<usize>();
    let mut partial = cuda.any::<f64>(blocks.max(1))?;
    // First and number of each parameter's partial sums. Without a gradient it has none.
    let mut ranges = cuda.zeros::<u32>(2 * slots)?;
    let mut lengths = cuda.any(1 + slots)?;
    let mut factor = cuda.any::<f32>(1)?;
    for OfLaunch {
        tensors, blocks, ..
    } in launches
    {
        let launch = Launch::new(&SQUARES)
            .grid([*blocks, 1, 1])
            .bytes(bytes(tensors));
        // SAFETY: adam_squares(partial, ranges, AdamTensors): each block finds its tensor by
        // `first_block`, whose gradient is a buffer of `count` elements, by which the kernel
        // guards its index; a partial sum for each block of all launches; slots are below the
        // number of parameters, for each of which `ranges` has two numbers.
        unsafe {
            launch
                .output(&mut partial)
                .output(&mut ranges)
                .parameters(tensors)
                .enqueue(cuda)?;
        }
    }
    // SAFETY: adam_norm(partial, ranges, norm, factor, AdamNormParameters) by one block: the
    // ranges lie within `partial`, one for each of `count` parameters; one more length than
    // those, and one factor.
    unsafe {
        Launch::new(&NORM)
            .block([NORM_THREADS, 1, 1])
            .input(&partial)
            .input(&ranges)
            .output(&mut lengths)
            .output(&mut factor)
            .parameters(norm)
            .enqueue(cuda)?;
    }
    if let Some((guard, values)) = guard {
        guard.judge(values, &mut lengths)?;
    }
    for OfLaunch {
        tensors, blocks, ..
    } in launches
    {
        // Read: parameter, gradient, two moments. Written: all but the gradient.
        let launch = Launch::new(&UPDATE)
            .grid([*blocks, 1, 1])
            .bytes(7 * bytes(tensors));
        // SAFETY: adam_update(coefficients, norm, factor, AdamTensors): each block finds its
        // tensor by `first_block`, and there its four buffers of `count` elements, by which the
        // kernel guards its index;
        // parameters and moments were borrowed mutably, so nobody else reads them in this step;
        // two coefficients for each parameter, checked by the caller.
        unsafe {
            launch
                .input(coefficients)
                .input(&lengths)
                .input(&factor)
                .parameters(tensors)
                .enqueue(cuda)?;
        }
    }
    Ok(Tensor::from_device(lengths, &[1 + slots]))
}
