//! Kernels compiled once for the GPU, and kept on disk for the next run.

use super::{Context, describe};
use crate::cuda::compile::{compile, compiler_version, key, write_whole};
use crate::cuda::driver::{Kernel, Source};
use crate::error::{Error, Result};
use cudarc::driver::{result, sys};
use std::collections::HashMap;
use std::ffi::CString;
use std::path::PathBuf;
use std::sync::Arc;

/// Dynamic shared memory that a kernel may use by default.
const SHARED_BYTES_UNASKED: u32 = 48 * 1024;

pub struct Modules {
    context: Arc<Context>,
    /// 13000 for CUDA 13.0.
    driver_version: i32,
    modules: HashMap<&'static str, sys::CUmodule>,
    functions: HashMap<&'static str, Function>,
}

// SAFETY: the handles belong to the context, which may be entered from any thread.
unsafe impl Send for Modules {}

struct Function {
    handle: sys::CUfunction,
    /// Dynamic shared memory set for it.
    shared_bytes: u32,
}

impl Modules {
    pub fn new(context: Arc<Context>, driver_version: i32) -> Self {
        Self {
            context,
            driver_version,
            modules: HashMap::new(),
            functions: HashMap::new(),
        }
    }

    /// The kernel, ready for a launch with that much dynamic shared memory. The context is current.
    pub fn function(&mut self, kernel: &Kernel, shared_bytes: u32) -> Result<sys::CUfunction> {
        if !self.functions.contains_key(kernel.entry) {
            let function = self.load(kernel)?;
            self.functions.insert(kernel.entry, function);
        }
        let function = self.functions.get_mut(kernel.entry);
        let function = function.expect("inserted above");
        if shared_bytes > function.shared_bytes {
            let attribute =
                sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let bytes = shared_bytes.min(i32::MAX as u32) as i32;
            // SAFETY: the function's module is loaded until `self` is dropped.
            unsafe { result::function::set_function_attribute(function.handle, attribute, bytes) }
                .map_err(|error| {
                    Error::cuda(
                        format!("launching {}", kernel.entry),
                        format!("{shared_bytes} bytes of shared memory: {}", describe(error)),
                    )
                })?;
            function.shared_bytes = shared_bytes;
        }
        Ok(function.handle)
    }

    fn load(&mut self, kernel: &Kernel) -> Result<Function> {
        let source = kernel.source;
        let module = if let Some(module) = self.modules.get(source.name) {
            *module
        } else {
            let module = self.build(source)?;
            self.modules.insert(source.name, module);
            module
        };
        let name = CString::new(kernel.entry).expect("kernel names hold no NUL byte");
        // SAFETY: the module stays loaded until `self` is dropped.
        let handle = unsafe { result::module::get_function(module, name) }.map_err(|error| {
            let cause = format!("{}: {}", source.name, describe(error));
            Error::cuda(format!("finding kernel {}", kernel.entry), cause)
        })?;
        Ok(Function {
            handle,
            shared_bytes: SHARED_BYTES_UNASKED,
        })
    }

    /// From the disk, or compiled and then put there.
    fn build(&self, source: &'static Source) -> Result<sys::CUmodule> {
        let architecture = self.context.architecture;
        let compiler = compiler_version()?;
        check_compiler(compiler, self.driver_version)?;
        let path = cache_folder().map(|folder| folder.join(key(source, architecture, compiler)));
        // A file that does not load, say after a crash, is compiled again and replaced.
        let kept = path.as_ref().and_then(|path| std::fs::read(path).ok());
        if let Some(Ok(module)) = kept.map(|cubin| self.load_module(source, &cubin)) {
            return Ok(module);
        }
        let compiled = compile(source, architecture)?;
        let module = self.load_module(source, &compiled.cubin)?;
        if let Some(path) = path {
            // If it cannot be written, the next run compiles again; that is no error.
            let _ = write_whole(&path, &compiled.cubin);
        }
        Ok(module)
    }

    fn load_module(&self, source: &Source, cubin: &[u8]) -> Result<sys::CUmodule> {
        self.context.enter()?;
        if !cubin.starts_with(b"\x7fELF") {
            return Err(Error::cuda(
                format!("loading {}", source.name),
                "not machine code",
            ));
        }
        // SAFETY: it is an ELF image, whose length is within it, written whole by `keep` or made
        // by the compiler; the driver copies it.
        unsafe { result::module::load_data(cubin.as_ptr().cast()) }
            .map_err(|error| Error::cuda(format!("loading {}", source.name), describe(error)))
    }
}

impl Drop for Modules {
    fn drop(&mut self) {
        if self.context.synchronise().is_ok() {
            for module in self.modules.values() {
                // SAFETY: loaded once, unloaded once, and nothing runs.
                let _ = unsafe { result::module::unload(*module) };
            }
        }
    }
}

/// Refuses a compiler whose machine code the driver may not know.
fn check_compiler((major, minor): (i32, i32), driver_version: i32) -> Result<()> {
    if major <= driver_version / 1000 {
        return Ok(());
    }
    Err(Error::OldDriver {
        found: format!(
            "NVIDIA's driver is made for CUDA {}, older than the compiler {major}.{minor} \
             (libnvrtc)",
            super::open::dotted(driver_version),
        ),
        needed: "580 (CUDA 13.0), or libnvrtc of the driver's version",
    })
}

/// This platform's cache folder.
fn cache_folder() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let base = if cfg!(windows) {
        variable("LOCALAPPDATA").map(PathBuf::from)
    } else {
        let absolute = |path: &PathBuf| path.is_absolute();
        let xdg = variable("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .filter(absolute);
        xdg.or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".cache")))
    };
    base.map(|base| base.join("crossfix").join("kernels"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compiler_newer_than_the_driver_is_refused() {
        assert_eq!(check_compiler((13, 0), 13_000), Ok(()));
        assert_eq!(check_compiler((12, 9), 13_000), Ok(()));
        let error = check_compiler((13, 0), 12_040).unwrap_err();
        assert!(matches!(error, Error::OldDriver { .. }));
        let message = error.to_string();
        assert!(
            message.contains("12.4") && message.contains("13.0 (libnvrtc)"),
            "{message}"
        );
    }
}
