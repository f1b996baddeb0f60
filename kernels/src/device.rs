//! Where tensors lie and operations run.

use crate::cuda::{Cuda, fill};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// The CPU, or one CUDA device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Device {
    /// The CPU and its memory.
    #[default]
    Cpu,
    /// A CUDA device; see [`Cuda`].
    Cuda(Cuda),
}

impl Device {
    /// The device that `--device` names: `cpu`, `cuda` (the first), `cuda:1`, or `auto`, for which
    /// see [`Device::auto`].
    ///
    /// # Errors
    /// [`Error::Argument`] for another word; for `cuda` the errors of [`Cuda::open`].
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "cpu" => return Ok(Self::Cpu),
            "auto" => return Ok(Self::auto().0),
            "cuda" => return Cuda::open(0).map(Self::Cuda),
            _ => {}
        }
        match text.strip_prefix("cuda:").map(str::parse) {
            Some(Ok(ordinal)) => Cuda::open(ordinal).map(Self::Cuda),
            _ => Err(Error::argument(
                "device",
                format!("{text:?} is none of auto, cpu, cuda, cuda:0, cuda:1, ..."),
            )),
        }
    }

    /// The first CUDA device, or else the CPU and why there is no such device.
    pub fn auto() -> (Self, Option<Error>) {
        match Cuda::open(0) {
            Ok(cuda) => (Self::Cuda(cuda), None),
            Err(error) => (Self::Cpu, Some(error)),
        }
    }

    /// A description for people: `cpu (16 threads)`, `NVIDIA H200 (sm_90)`.
    pub fn describe(&self) -> String {
        match self {
            Self::Cpu => format!("cpu ({} threads)", rayon::current_num_threads()),
            Self::Cuda(cuda) => format!("{} (sm_{})", cuda.name(), cuda.architecture()),
        }
    }

    /// A tensor on this device, filled with one value.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] or [`Error::Cuda`] from the device.
    pub fn full(&self, shape: &[usize], value: f32) -> Result<Tensor> {
        match self {
            Self::Cpu => Ok(Tensor::full(shape, value)),
            Self::Cuda(cuda) => {
                let mut buffer = cuda.any(shape.iter().product())?;
                if value.to_bits() == 0 {
                    buffer.fill_zero()?;
                } else {
                    fill(&mut buffer, value)?;
                }
                Ok(Tensor::from_device(buffer, shape))
            }
        }
    }

    /// Waits until all enqueued work has run.
    ///
    /// # Errors
    /// [`Error::Cuda`] when something enqueued has failed.
    pub fn synchronise(&self) -> Result<()> {
        match self {
            Self::Cpu => Ok(()),
            Self::Cuda(cuda) => cuda.synchronise(),
        }
    }

    /// The device that all inputs of `op` lie on; the first one's when there is only one.
    ///
    /// # Errors
    /// [`Error::Device`] naming two of them that differ.
    pub(crate) fn common(op: &'static str, inputs: &[&Tensor]) -> Result<Self> {
        let mut devices = inputs.iter().map(|input| input.device());
        let first = devices.next().unwrap_or_default();
        match devices.find(|device| *device != first) {
            None => Ok(first),
            Some(other) => Err(Error::Device {
                op,
                first: first.describe(),
                second: other.describe(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_words_are_refused_with_the_known_ones() {
        for text in ["gpu", "cuda:", "cuda:x", "cuda:-1", ""] {
            let message = Device::parse(text).unwrap_err().to_string();
            assert!(message.contains("auto, cpu, cuda"), "{message}");
        }
    }

    /// For a machine without a GPU; with one, nothing is refused.
    #[test]
    fn without_a_card_cuda_is_refused_with_a_way_out_and_auto_takes_the_processor() {
        let asked = Device::parse("cuda:7");
        let (device, why_not) = Device::auto();
        match why_not {
            Some(error) => {
                assert_eq!(device, Device::Cpu);
                let message = asked.unwrap_err().to_string();
                assert!(message.contains("use --device cpu"), "{message}");
                assert!(error.to_string().contains("use --device cpu"), "{error}");
            }
            None => assert_ne!(device, Device::Cpu),
        }
        assert!(Device::parse("auto").is_ok());
    }

    #[test]
    fn the_processor_needs_nothing() {
        let device = Device::parse("cpu").unwrap();
        assert_eq!(device, Device::Cpu);
        assert!(device.describe().starts_with("cpu ("));
        assert_eq!(device.full(&[2], 3.0).unwrap().data(), [3.0, 3.0]);
    }
}
