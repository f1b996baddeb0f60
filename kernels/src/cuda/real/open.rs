//! Finding a card without falling over when there is none.

use super::modules::Modules;
use super::products::Products;
use super::staging::Staging;
use super::{Card, Context, describe, failed};
use crate::cuda::compile::OLDEST;
use crate::cuda::driver::Driver;
use crate::error::{Error, Result};
use cudarc::driver::{result, sys};
use std::sync::{Arc, Mutex};

/// CUDA 12.0: the first driver that has all we call.
const OLDEST_DRIVER: i32 = 12_000;

/// What we call in the driver's library; an older one may lack some.
const SYMBOLS: [&[u8]; 40] = [
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
    b"cuStreamBeginCapture_v2\0",
    b"cuStreamEndCapture\0",
    b"cuEventCreate\0",
    b"cuEventRecord\0",
    b"cuEventSynchronize\0",
    b"cuEventQuery\0",
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

/// Opens the card with this number.
///
/// # Errors
/// [`Error::NoDevice`], [`Error::OldDriver`], [`Error::Architecture`], or [`Error::Cuda`] when the
/// card is there and refuses.
pub fn open(ordinal: usize) -> Result<Box<dyn Driver>> {
    let none = |cause: String, way_out: &str| Error::NoDevice {
        asked: format!("cuda:{ordinal}"),
        cause,
        way_out: way_out.into(),
    };
    // SAFETY: looks for a shared library; its initialisation is the vendor's.
    if !unsafe { sys::is_culib_present() } {
        return Err(none(
            "NVIDIA's driver library (libcuda.so.1) is not found".into(),
            "install the NVIDIA driver, version 580 or newer (in a container: start it with the \
             GPUs), or use --device cpu",
        ));
    }
    for symbol in SYMBOLS {
        // SAFETY: only looks the symbol up; nothing is called through it.
        if unsafe { sys::culib().get::<*const ()>(symbol) }.is_err() {
            let name = String::from_utf8_lossy(&symbol[..symbol.len() - 1]);
            return Err(Error::OldDriver {
                found: format!("NVIDIA's driver lacks {name}"),
                needed: "580 (CUDA 13.0)",
            });
        }
    }
    result::init().map_err(|error| {
        none(
            format!("NVIDIA's driver does not start ({})", describe(error)),
            "see whether nvidia-smi works, or use --device cpu",
        )
    })?;
    let version = driver_version()?;
    if version < OLDEST_DRIVER {
        return Err(Error::OldDriver {
            found: format!("NVIDIA's driver is made for CUDA {}", dotted(version)),
            needed: "580 (CUDA 13.0)",
        });
    }
    let count = result::device::get_count().map_err(failed("cuDeviceGetCount"))?;
    if ordinal >= usize::try_from(count).unwrap_or(0) {
        return Err(match count {
            ..=0 => none(
                "NVIDIA's driver is there but shows no card".into(),
                "check CUDA_VISIBLE_DEVICES, or use --device cpu",
            ),
            _ => none(
                format!("the cards are cuda:0 to cuda:{}", count - 1),
                "use one of them",
            ),
        });
    }
    let context = Arc::new(retain(ordinal as i32)?);
    Ok(Box::new(Card {
        modules: Mutex::new(Modules::new(context.clone(), version)),
        products: Mutex::new(Products::new(context.clone())),
        staging: Mutex::new(Staging::new(context.clone())),
        context,
    }))
}

fn driver_version() -> Result<i32> {
    let mut version = 0;
    // SAFETY: the pointer is to an int.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }
        .result()
        .map_err(failed("cuDriverGetVersion"))?;
    Ok(version)
}

/// 13000 is 13.0.
pub(super) fn dotted(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

fn retain(ordinal: i32) -> Result<Context> {
    use sys::CUdevice_attribute_enum as Attribute;
    let device = result::device::get(ordinal).map_err(failed("cuDeviceGet"))?;
    let name = result::device::get_name(device).map_err(failed("cuDeviceGetName"))?;
    let attribute = |attribute| {
        // SAFETY: the device came from `device::get`.
        unsafe { result::device::get_attribute(device, attribute) }
            .map_err(failed("cuDeviceGetAttribute"))
    };
    let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)? as u32;
    let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)? as u32;
    let architecture = major * 10 + minor;
    if architecture < OLDEST {
        return Err(Error::Architecture { name, major, minor });
    }
    let pools = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED)?;
    // SAFETY: the device came from `device::get`; released below or when the context is dropped.
    let context = unsafe { result::primary_ctx::retain(device) }
        .map_err(failed("cuDevicePrimaryCtxRetain"))?;
    let streams = || {
        // SAFETY: the context is retained.
        unsafe { result::ctx::set_current(context)? };
        // Neither waits for the default stream, which others may use.
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking)?;
        let allocations = result::stream::create(result::stream::StreamKind::NonBlocking)?;
        Ok((stream, allocations))
    };
    match streams() {
        Ok((stream, allocations)) => Ok(Context {
            device,
            context,
            stream,
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

    #[test]
    fn driver_versions_read_as_people_write_them() {
        assert_eq!(dotted(13_000), "13.0");
        assert_eq!(dotted(12_040), "12.4");
    }
}
