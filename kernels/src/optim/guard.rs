//! Stops training on a GPU without synchronising: a step whose loss or gradient is not finite changes
//! nothing, nor does any later step, and the host finds out when it next reads the report.

use crate::cuda::{
    AddressWords, Arriving, Cuda, DeviceBuffer, Kernel, Launch, Source, count, parameters,
};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops::RunningStatistics;
use crate::tensor::Tensor;

const OP: &str = "guard";

/// Tensors of one launch.
const KEPT: usize = 64;

pub(crate) static SOURCE: Source = Source {
    name: "optim/guard.cu",
    text: include_str!("guard.cu"),
    hot: &[],
};
static VERDICT: Kernel = Kernel {
    source: &SOURCE,
    entry: "guard_verdict",
};
static KEEP: Kernel = Kernel {
    source: &SOURCE,
    entry: "guard_keep",
};

parameters! {
    struct GuardParameters {
        columns: u32,
        rows: u32,
        lengths: u32,
    }
}

parameters! {
    struct GuardTensors {
        value: [AddressWords; KEPT],
        kept: [AddressWords; KEPT],
        count: [u32; KEPT],
    }
}

/// The state of a training on its device: whether it stopped, how the latest steps went, and the
/// batch norms' running statistics after the last good one.
pub struct Guard {
    cuda: Cuda,
    /// Whether it stopped (0 or 1), steps before that.
    state: DeviceBuffer<u32>,
    /// `[rows, columns + 1]`.
    log: DeviceBuffer,
    /// Lengths of the gradients in the step that stopped it.
    broken: DeviceBuffer,
    kept: Vec<[DeviceBuffer; 2]>,
    shape: GuardParameters,
}

/// A report requested by [`Guard::begin_report`], being downloaded.
pub struct PendingReport {
    state: Arriving<u32>,
    log: Arriving<f32>,
    shape: GuardParameters,
}

/// The progress of a training on its device.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// A loss or a gradient was not finite: nothing has changed since.
    pub stopped: bool,
    /// Steps before that.
    pub steps: u64,
    rows: Vec<Vec<f32>>,
}

impl Report {
    /// The values of a step, counted from 0, and behind them the length of its gradients. Only the
    /// latest are there, as many as the guard has rows; after a stop the one that stopped it is
    /// step number `steps`.
    pub fn values(&self, step: u64) -> &[f32] {
        &self.rows[(step % self.rows.len() as u64) as usize]
    }
}

impl Guard {
    /// For steps that log `columns` values, the loss first, of which the last `rows` steps are
    /// remembered; `statistics` are put back to where the last good step left them.
    ///
    /// # Errors
    /// [`Error::Argument`] for a log without room, [`Error::OutOfMemory`], [`Error::Cuda`].
    pub fn new(
        cuda: &Cuda,
        columns: usize,
        rows: usize,
        parameters: usize,
        statistics: &[RunningStatistics],
    ) -> Result<Self> {
        if columns == 0 || rows == 0 {
            return Err(Error::argument(OP, "a log needs a column and a row"));
        }
        let copy = |tensor: &Tensor| {
            let mut copy = cuda.any(tensor.len())?;
            copy.copy_from(tensor.buffer())?;
            Ok::<_, Error>(copy)
        };
        let kept = statistics
            .iter()
            .map(|s| Ok([copy(&s.mean)?, copy(&s.variance)?]));
        let mut guard = Self {
            cuda: cuda.clone(),
            state: cuda.zeros(2)?,
            log: cuda.zeros(rows * (columns + 1))?,
            broken: cuda.zeros(1 + parameters)?,
            kept: kept.collect::<Result<_>>()?,
            shape: GuardParameters {
                columns: count(OP, columns)?,
                rows: count(OP, rows)?,
                lengths: count(OP, 1 + parameters)?,
            },
        };
        // Launched once without effect, so that the kernel is compiled before a recording.
        let nothing = Tensor::zeros(&[columns]).to(&Device::Cuda(cuda.clone()))?;
        guard.judge(&nothing, &mut cuda.zeros(1 + parameters)?)?;
        guard.state.fill_zero()?;
        Ok(guard)
    }

    /// Enqueues the check of one step, between the norms of its gradients and the update.
    pub(super) fn judge(&mut self, values: &Tensor, lengths: &mut DeviceBuffer) -> Result<()> {
        let GuardParameters {
            columns,
            lengths: count,
            ..
        } = self.shape;
        if (values.len(), lengths.len()) != (columns as usize, count as usize) {
            return Err(Error::shape(
                OP,
                "values and lengths",
                [columns as usize, count as usize],
                [values.len(), lengths.len()],
            ));
        }
        // SAFETY: guard_verdict(values, lengths, state, log, broken, GuardParameters) by one
        // block: `columns` values, `lengths` lengths here and in `broken`, two numbers of state
        // and `rows` rows of one more than `columns`, as made by `new` and checked above.
        unsafe {
            Launch::new(&VERDICT)
                .input(values.buffer())
                .output(lengths)
                .output(&mut self.state)
                .output(&mut self.log)
                .output(&mut self.broken)
                .parameters(&self.shape)
                .enqueue(&self.cuda)
        }
    }

    /// Enqueues, after the update: the running statistics are kept when the step was good, and put
    /// back when it was not. Where another tensor shares them, they become a copy; within a recording
    /// that is refused.
    ///
    /// # Errors
    /// [`Error::Shape`] when they are not those the guard was made for, [`Error::Argument`] when
    /// another tensor shares them within a recording, [`Error::Cuda`].
    pub fn keep(&mut self, statistics: &mut [RunningStatistics]) -> Result<()> {
        if statistics.len() != self.kept.len() {
            let (expected, got) = (self.kept.len(), statistics.len());
            return Err(Error::shape(OP, "running statistics", expected, got));
        }
        let mut pairs = Vec::with_capacity(2 * statistics.len());
        for (statistics, [mean, variance]) in statistics.iter_mut().zip(&self.kept) {
            for (value, kept) in [
                (&mut statistics.mean, mean),
                (&mut statistics.variance, variance),
            ] {
                value.expect_shape(OP, "running statistics", &[kept.len()])?;
                if value.is_shared() && self.cuda.is_recording() {
                    // A copy would take their place, and no replay would see it.
                    let what = "running statistics are shared with another tensor; copy that first";
                    return Err(Error::argument(OP, what));
                }
                let length = count(OP, kept.len())?;
                let kept = kept.address_words();
                pairs.push((value.buffer_mut()?.address_words(), kept, length));
            }
        }
        for pairs in pairs.chunks(KEPT) {
            let mut tensors = GuardTensors {
                value: [AddressWords::default(); KEPT],
                kept: [AddressWords::default(); KEPT],
                count: [0; KEPT],
            };
            for (slot, (value, kept, length)) in pairs.iter().enumerate() {
                tensors.value[slot] = *value;
                tensors.kept[slot] = *kept;
                tensors.count[slot] = *length;
            }
            // SAFETY: guard_keep(state, GuardTensors): the first `pairs.len()` of both addresses
            // are buffers of `count` elements, by which the kernel guards its index; nobody else
            // holds the values, and the kept ones are ours.
            unsafe {
                Launch::new(&KEEP)
                    .grid([1, pairs.len(), 1])
                    .input(&self.state)
                    .parameters(&tensors)
                    .enqueue(&self.cuda)?;
            }
        }
        Ok(())
    }

    /// Asks how it went up to here, without waiting.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn begin_report(&self) -> Result<PendingReport> {
        Ok(PendingReport {
            state: self.state.begin_download()?,
            log: self.log.begin_download()?,
            shape: self.shape,
        })
    }

    /// Lengths of the gradients in the step that stopped it: all together, then of each parameter.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn broken_lengths(&self) -> Result<Vec<f32>> {
        self.broken.to_vec()
    }
}

impl PendingReport {
    /// Waits for the steps that were enqueued when it was asked for; later ones may run on.
    ///
    /// # Errors
    /// [`Error::Cuda`], also for anything that failed before.
    pub fn wait(self) -> Result<Report> {
        let state = self.state.wait()?;
        let log = self.log.wait()?;
        let row = self.shape.columns as usize + 1;
        Ok(Report {
            stopped: state[0] != 0,
            steps: u64::from(state[1]),
            rows: log.chunks_exact(row).map(<[f32]>::to_vec).collect(),
        })
    }
}
