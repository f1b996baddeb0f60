//! Finding a GPU, with a clear error when there is none.

use super::modules::Modules;
use super::products::Products;
use super::staging::Staging;
use super::transfers::{Arrivals, Uploads};
use super::{Context, Gpu, describe, failed};
use crate::cuda::compile::OLDEST;
use crate::cuda::driver::Driver;
use crate::error::{Error, Result};
use cudarc::driver::{result, sys};
use std::sync::{Arc, Mutex};

/// CUDA 12.0: the first driver that has all we call.
const OLDEST_DRIVER: i32 = 12_000;

/// What we call in the driver's library; an older one may lack some.
const SYMBOLS: [&[u8]; 42] = [
    b"cuInit\0",
    b"cuDriverGetVersion\0",
    b"cuGetErrorString\0",
    b"cuDeviceGet\0",
    b"cuDeviceGetCount\0",
    b"cuDeviceGetName\0",
    b"cuDeviceGetAttribute\0",
    b"cuDevicePrimaryCtxRetain\0",
    b"cuDevicePrimaryCtxRelease_v2\0",
    b"cuCtxSetCurrent\0",
    b"cuStreamCreate\0",
    b"cuStreamDestroy_v2\0",
    b"cuStreamSynchronize\0",
    b"cuStreamWaitEvent\0",
    b"cuStreamBeginCapture_v2\0",
    b"cuStreamEndCapture\0",
    b"cuEventCreate\0",
    b"cuEventRecord\0",
    b"cuEventSynchronize\0",
    b"cuEventQuery\0",
    b"cuEventElapsedTime\0",
    b"cuEventDestroy_v2\0",
    b"cuMemAlloc_v2\0",
    b"cuMemAllocAsync\0",
    b"cuMemFree_v2\0",
    b"cuMemHostAlloc\0",
    b"cuMemFreeHost\0",
    b"cuMemGetInfo_v2\0",
    b"cuMemcpyHtoDAsync_v2\0",
    b"cuMemcpyDtoHAsync_v2\0",
    b"cuMemcpyDtoDAsync_v2\0",
    b"cuMemsetD8Async\0",
    b"cuModuleLoadData\0",
    b"cuModuleUnload\0",
    b"cuModuleGetFunction\0",
    b"cuFuncSetAttribute\0",
    b"cuFuncGetAttribute\0",
    b"cuLaunchKernel\0",
    b"cuGraphInstantiateWithFlags\0",
    b"cuGraphLaunch\0",
    b"cuGraphDestroy\0",
    b"cuGraphExecDestroy\0",
];

/// What is checked in NVIDIA's library before a GPU is opened; a trait, so that tests can mock it.
trait Library {
    /// Whether the library is there.
    fn is_present(&self) -> bool;
    /// Whether it has this symbol.
    fn has(&self, symbol: &[u8]) -> bool;
    /// Initialises it.
    fn start(&self) -> std::result::Result<(), String>;
    /// The version of CUDA it is made for: 13000 is 13.0.
    fn version(&self) -> Result<i32>;
    /// The number of GPUs.
    fn gpu_count(&self) -> Result<i32>;
}

/// The installed library.
struct Installed;

impl Library for Installed {
    fn is_present(&self) -> bool {
        // SAFETY: looks for a shared library; its initialisation is the vendor's.
        unsafe { sys::is_culib_present() }
    }

    fn has(&self, symbol: &[u8]) -> bool {
        // SAFETY: only looks the symbol up; nothing is called through it.
        unsafe { sys::culib().get::<*const ()>(symbol) }.is_ok()
    }

    fn start(&self) -> std::result::Result<(), String> {
        result::init().map_err(describe)
    }

    fn version(&self) -> Result<i32> {
        let mut version = 0;
        // SAFETY: the pointer is to an int.
        unsafe { sys::cuDriverGetVersion(&raw mut version) }
            .result()
            .map_err(failed("cuDriverGetVersion"))?;
        Ok(version)
    }

    fn gpu_count(&self) -> Result<i32> {
        result::device::get_count().map_err(failed("cuDeviceGetCount"))
    }
}

fn no_device(ordinal: usize, cause: String, way_out: &str) -> Error {
    Error::NoDevice {
        asked: format!("cuda:{ordinal}"),
        cause,
        way_out: way_out.into(),
    }
}

/// Checks everything that opening this GPU needs; returns the driver's version.
fn probe(library: &dyn Library, ordinal: usize) -> Result<i32> {
    let none = |cause: String, way_out: &str| no_device(ordinal, cause, way_out);
    if !library.is_present() {
        return Err(none(
            "NVIDIA's driver library (libcuda.so.1) is not found".into(),
            "install the NVIDIA driver, version 580 or newer (in a container: start it with the \
             GPUs), or use --device cpu",
        ));
    }
    if let Some(symbol) = SYMBOLS.iter().find(|symbol| !library.has(symbol)) {
        let name = String::from_utf8_lossy(&symbol[..symbol.len() - 1]);
        return Err(Error::OldDriver {
            found: format!("NVIDIA's driver lacks {name}"),
            needed: "580 (CUDA 13.0)",
        });
    }
    library.start().map_err(|cause| {
        none(
            format!("NVIDIA's driver does not start ({cause})"),
            "see whether nvidia-smi works, or use --device cpu",
        )
    })?;
    let version = library.version()?;
    if version < OLDEST_DRIVER {
        return Err(Error::OldDriver {
            found: format!("NVIDIA's driver is made for CUDA {}", dotted(version)),
            needed: "580 (CUDA 13.0)",
        });
    }
    let count = usize::try_from(library.gpu_count()?).unwrap_or(0);
    match count {
        0 => Err(none(
            "NVIDIA's driver is there but finds no GPU".into(),
            "check CUDA_VISIBLE_DEVICES, or use --device cpu",
        )),
        _ if ordinal >= count => Err(none(
            format!("the GPUs are cuda:0 to cuda:{}", count - 1),
            "use one of them, or use --device cpu",
        )),
        _ => Ok(version),
    }
}

/// Opens the GPU with this number.
///
/// # Errors
/// [`Error::NoDevice`], [`Error::OldDriver`], [`Error::Architecture`], or [`Error::Cuda`] when the
/// GPU is there and refuses.
pub fn open(ordinal: usize) -> Result<Box<dyn Driver>> {
    let version = probe(&Installed, ordinal)?;
    let context = Arc::new(retain(ordinal)?);
    Ok(Box::new(Gpu {
        modules: Mutex::new(Modules::new(context.clone(), version)),
        products: Mutex::new(Products::new(context.clone())),
        staging: Mutex::new(Staging::new(context.clone(), context.stream)),
        uploads: Mutex::new(Uploads::new(&context)?),
        graph_nodes: Mutex::default(),
        arrivals: Arrivals::default(),
        context,
    }))
}

/// 13000 is 13.0.
pub(super) fn dotted(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// Refuses a GPU that the kernels do not support.
fn check_capability(name: &str, major: u32, minor: u32) -> Result<u32> {
    let architecture = major * 10 + minor;
    if architecture >= OLDEST {
        return Ok(architecture);
    }
    let name = name.into();
    Err(Error::Architecture { name, major, minor })
}

fn retain(ordinal: usize) -> Result<Context> {
    use sys::CUdevice_attribute_enum as Attribute;
    let device = result::device::get(ordinal as i32).map_err(failed("cuDeviceGet"))?;
    let name = result::device::get_name(device).map_err(failed("cuDeviceGetName"))?;
    let attribute = |attribute| {
        // SAFETY: the device came from `device::get`.
        unsafe { result::device::get_attribute(device, attribute) }
            .map_err(failed("cuDeviceGetAttribute"))
    };
    let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)? as u32;
    let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)? as u32;
    let architecture = check_capability(&name, major, minor)?;
    let pools = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED)?;
    // SAFETY: the device came from `device::get`; released below or when the context is dropped.
    let context =
        unsafe { result::primary_ctx::retain(device) }.map_err(|error| match error.0 {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => no_device(
                ordinal,
                format!("{name} has no memory left to begin with"),
                "end other programs on the GPU (nvidia-smi lists them), or use --device cpu",
            ),
            _ => failed("cuDevicePrimaryCtxRetain")(error),
        })?;
    let streams = || {
        // SAFETY: the context is retained.
        unsafe { result::ctx::set_current(context)? };
        // None waits for the default stream, which others may use.
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking)?;
        let copies = result::stream::create(result::stream::StreamKind::NonBlocking)?;
        let allocations = result::stream::create(result::stream::StreamKind::NonBlocking)?;
        Ok([stream, copies, allocations])
    };
    match streams() {
        Ok([stream, copies, allocations]) => Ok(Context {
            device,
            context,
            stream,
            copies,
            allocations,
            name,
            architecture,
            has_memory_pools: pools != 0,
        }),
        Err(error) => {
            // SAFETY: retained once above.
            let _ = unsafe { result::primary_ctx::release(device) };
            Err(failed("cuStreamCreate")(error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mock of the library.
    #[derive(Clone, Copy)]
    struct MockLibrary {
        is_present: bool,
        lacks: &'static [u8],
        starts: bool,
        version: i32,
        gpus: i32,
    }

    const WHOLE: MockLibrary = MockLibrary {
        is_present: true,
        lacks: b"",
        starts: true,
        version: 13_000,
        gpus: 2,
    };

    impl Library for MockLibrary {
        fn is_present(&self) -> bool {
            self.is_present
        }

        fn has(&self, symbol: &[u8]) -> bool {
            assert!(self.is_present, "the bindings panic without the library");
            symbol != self.lacks
        }

        fn start(&self) -> std::result::Result<(), String> {
            assert!(self.lacks.is_empty(), "the bindings panic without a symbol");
            self.starts.then_some(()).ok_or("CUDA_ERROR_UNKNOWN".into())
        }

        fn version(&self) -> Result<i32> {
            Ok(self.version)
        }

        fn gpu_count(&self) -> Result<i32> {
            Ok(self.gpus)
        }
    }

    #[test]
    fn whatever_is_missing_is_named_with_a_way_out() {
        assert_eq!(probe(&WHOLE, 1), Ok(13_000));
        let lacks = b"cuGraphLaunch\0";
        let wrong = [
            (
                MockLibrary {
                    is_present: false,
                    ..WHOLE
                },
                "libcuda.so.1",
            ),
            (MockLibrary { lacks, ..WHOLE }, "lacks cuGraphLaunch"),
            (
                MockLibrary {
                    starts: false,
                    ..WHOLE
                },
                "CUDA_ERROR_UNKNOWN",
            ),
            (
                MockLibrary {
                    version: 11_080,
                    ..WHOLE
                },
                "made for CUDA 11.8",
            ),
            (MockLibrary { gpus: 0, ..WHOLE }, "finds no GPU"),
            (MockLibrary { gpus: 1, ..WHOLE }, "cuda:0 to cuda:0"),
        ];
        for (library, says) in wrong {
            let error = probe(&library, 1).unwrap_err();
            let is_old = matches!(error, Error::OldDriver { .. });
            assert_eq!(is_old, says.contains("lacks") || says.contains("11.8"));
            assert!(
                is_old || matches!(error, Error::NoDevice { .. }),
                "{error:?}"
            );
            let message = error.to_string();
            assert!(message.contains(says), "{message}");
            assert!(message.contains("use --device cpu"), "{message}");
        }
    }

    #[test]
    fn a_card_before_turing_is_refused_by_name() {
        assert_eq!(check_capability("NVIDIA H200", 9, 0), Ok(90));
        assert_eq!(check_capability("Tesla T4", 7, 5), Ok(75));
        let error = check_capability("Tesla V100", 7, 0).unwrap_err();
        assert!(matches!(error, Error::Architecture { .. }));
        let message = error.to_string();
        assert!(
            message.contains("Tesla V100") && message.contains("--device cpu"),
            "{message}"
        );
    }

    #[test]
    fn driver_versions_read_as_people_write_them() {
        assert_eq!(dotted(13_000), "13.0");
        assert_eq!(dotted(12_040), "12.4");
    }
}
