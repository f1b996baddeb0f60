//! `--device` and `--precision`: where a network runs, for the subcommands that run one.

use anyhow::Context;
use clap::{Args, ValueEnum};
use crossfix_kernels::Device;
use crossfix_kernels::cuda::Precision;

/// Where the network runs.
#[derive(Debug, Clone, Args)]
pub struct DeviceArgs {
    /// auto (the first CUDA device, or else the processor), cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
    /// How exact products and convolutions are on a CUDA device; all else, and all that is kept, is
    /// f32 in any case.
    #[arg(long, value_enum, default_value_t = Exactness::F32)]
    precision: Exactness,
}

/// How exact the factors of products and convolutions are. Sums, weights, activations, gradients and
/// the optimiser's moments are f32 in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Exactness {
    /// 24 bits, as on the processor.
    F32,
    /// 11 bits, on tensor cores.
    Tf32,
    /// 8 bits, on tensor cores.
    Bf16,
}

impl DeviceArgs {
    /// Refuses a device that was asked for where none runs the network.
    ///
    /// # Errors
    /// Which option that was.
    pub fn refuse(&self, why: &str) -> anyhow::Result<()> {
        if !matches!(self.device.as_str(), "auto" | "cpu") || self.precision != Exactness::F32 {
            anyhow::bail!("{why}; leave --device and --precision away");
        }
        Ok(())
    }

    /// Opens the device and says which it is.
    pub fn open(&self) -> anyhow::Result<Device> {
        let device = if self.device == "auto" {
            let (device, why_not_cuda) = Device::auto();
            match why_not_cuda {
                None => crate::note!("device: {}", device.describe()),
                Some(why) => crate::note!("device: {} ({why})", device.describe()),
            }
            device
        } else {
            let device = Device::parse(&self.device);
            let device = device.with_context(|| format!("--device {}", self.device))?;
            crate::note!("device: {}", device.describe());
            device
        };
        if let Device::Cuda(cuda) = &device {
            cuda.set_precision(match self.precision {
                Exactness::F32 => Precision::F32,
                Exactness::Tf32 => Precision::Tf32,
                Exactness::Bf16 => Precision::Bf16,
            });
        }
        Ok(device)
    }
}
