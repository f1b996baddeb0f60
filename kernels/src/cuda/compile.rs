//! From a `.cu` file to machine code, with NVRTC. Needs the compiler's library, not a device.

use super::driver::Source;
use crate::error::{Error, Result};
use cudarc::nvrtc::{result, sys};
use std::ffi::{CStr, CString};
use std::path::Path;

/// What every `.cu` file may include.
pub const COMMON: &str = include_str!("common.cuh");

/// The options besides the architecture. `-v` makes the assembler say what each kernel uses.
const OPTIONS: [&str; 3] = ["--std=c++17", "--generate-line-info", "--ptxas-options=-v"];

/// The oldest architecture that the kernels support: Turing.
pub(super) const OLDEST: u32 = 75;

/// Machine code of one file.
pub struct Compiled {
    /// For `cuModuleLoadData`.
    pub cubin: Vec<u8>,
    /// The compiler's log: warnings and register use.
    pub log: String,
}

/// The resources of a kernel, as the assembler reported them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Usage {
    /// The kernel.
    pub entry: String,
    /// Registers of each thread.
    pub registers: u32,
    /// Static shared memory of each block, bytes.
    pub shared_bytes: u32,
    /// Local memory of each thread, bytes.
    pub stack_bytes: u32,
    /// Register spills: bytes stored to and loaded from local memory.
    pub spill_bytes: u32,
}

/// NVRTC's version, such as (13, 0).
///
/// # Errors
/// [`Error::Cuda`] when the library is not there or not usable.
pub fn compiler_version() -> Result<(i32, i32)> {
    require_library()?;
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the library and the symbol are there, checked above; both pointers are to ints.
    unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) }
        .result()
        .map_err(|error| Error::cuda("nvrtcVersion", error))?;
    Ok((major, minor))
}

/// Compiles `source` for `architecture`, 90 for `sm_90`.
///
/// # Errors
/// [`Error::Compile`] with the compiler's message; [`Error::Cuda`] when there is no compiler.
pub fn compile(source: &'static Source, architecture: u32) -> Result<Compiled> {
    require_library()?;
    let program = Program::new(source)?;
    let mut options = vec![format!("--gpu-architecture=sm_{architecture}")];
    options.extend(OPTIONS.map(String::from));
    // SAFETY: `program` is alive; an option without a NUL byte becomes a C string.
    let compiled = unsafe { result::compile_program(program.0, &options) };
    let log = program.log();
    let failed = |error: result::NvrtcError| Error::Compile {
        source_name: source.name,
        architecture,
        log: format!("{error}: {}", log.trim()),
    };
    compiled.map_err(failed)?;
    let mut length = 0;
    // SAFETY: `program` is alive and compiled for a real architecture, so it has a CUBIN.
    unsafe { sys::nvrtcGetCUBINSize(program.0, &raw mut length) }
        .result()
        .map_err(failed)?;
    let mut cubin = vec![0u8; length];
    // SAFETY: `cubin` has the room that was asked for.
    unsafe { sys::nvrtcGetCUBIN(program.0, cubin.as_mut_ptr().cast()) }
        .result()
        .map_err(failed)?;
    Ok(Compiled { cubin, log })
}

/// The cache key of a compilation: it differs whenever the result could differ.
pub(super) fn key(source: &Source, architecture: u32, (major, minor): (i32, i32)) -> String {
    // FNV-1a with 128 bits (Fowler, Noll, Vo); no adversary writes our sources.
    let mut hash = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128;
    let version = format!("{architecture} {major}.{minor} {}", OPTIONS.join(" "));
    for text in [source.text, COMMON, &version] {
        // The separator keeps ("ab", "c") apart from ("a", "bc"); it occurs in no text.
        for byte in text.bytes().chain([0xff]) {
            hash = (hash ^ u128::from(byte)).wrapping_mul(0x0100_0000_0000_0000_0000_013b);
        }
    }
    let stem = source.name.replace(['/', '.'], "-");
    format!("{stem}-sm_{architecture}-{hash:032x}.cubin")
}

/// Puts machine code made by [`compile`] into `folder` under the name by which a device looks for
/// it in its cache, `crossfix/kernels` in `$XDG_CACHE_HOME`: a machine with a GPU then compiles nothing.
///
/// # Errors
/// [`Error::Cuda`] when there is no compiler to ask for its version, or nothing can be written.
pub fn keep(
    folder: &Path,
    source: &'static Source,
    architecture: u32,
    compiled: &Compiled,
) -> Result<()> {
    let path = folder.join(key(source, architecture, compiler_version()?));
    write_whole(&path, &compiled.cubin)
        .map_err(|error| Error::cuda(format!("writing {}", path.display()), error))
}

/// Writes the file whole or not at all.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let unfinished = path.with_extension(format!("{}.tmp", std::process::id()));
    std::fs::write(&unfinished, bytes)?;
    std::fs::rename(&unfinished, path)
}

/// What each kernel of a compilation uses, from the assembler's report.
pub fn usage(log: &str) -> Vec<Usage> {
    let mut kernels: Vec<Usage> = Vec::new();
    for line in log.lines() {
        if let Some((_, after)) = line.split_once("Compiling entry function '") {
            kernels.push(Usage {
                entry: after.split('\'').next().unwrap_or_default().into(),
                ..Usage::default()
            });
        }
        let Some(kernel) = kernels.last_mut() else {
            continue;
        };
        kernel.stack_bytes += number_before(line, " bytes stack frame");
        kernel.spill_bytes += number_before(line, " bytes spill stores");
        kernel.spill_bytes += number_before(line, " bytes spill loads");
        kernel.registers += number_before(line, " registers");
        kernel.shared_bytes += number_before(line, " bytes smem");
    }
    kernels
}

/// The number before `word` in `line`; 0 if there is none.
fn number_before(line: &str, word: &str) -> u32 {
    let Some((before, _)) = line.split_once(word) else {
        return 0;
    };
    let digits = before.rsplit(|c: char| !c.is_ascii_digit()).next();
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// Checks that the library is there before the first call: the bindings panic without it.
fn require_library() -> Result<()> {
    const WAY_OUT: &str = "install CUDA 13.0's runtime compiler (libnvrtc.so.13, in the CUDA \
                           toolkit or the wheel nvidia-cuda-nvrtc), put its folder on \
                           LD_LIBRARY_PATH, or use --device cpu";
    // SAFETY: looks for a shared library; its initialisation is the vendor's.
    if !unsafe { sys::is_culib_present() } {
        return Err(Error::cuda(
            "loading NVRTC",
            format!("it is not found; {WAY_OUT}"),
        ));
    }
    let symbols: [&[u8]; 8] = [
        b"nvrtcVersion\0",
        b"nvrtcCreateProgram\0",
        b"nvrtcCompileProgram\0",
        b"nvrtcGetProgramLogSize\0",
        b"nvrtcGetProgramLog\0",
        b"nvrtcGetCUBINSize\0",
        b"nvrtcGetCUBIN\0",
        b"nvrtcDestroyProgram\0",
    ];
    for symbol in symbols {
        // SAFETY: only looks the symbol up; nothing is called through it.
        if unsafe { sys::culib().get::<*const ()>(symbol) }.is_err() {
            let symbol = String::from_utf8_lossy(&symbol[..symbol.len() - 1]);
            return Err(Error::cuda(
                "loading NVRTC",
                format!("it is too old, {symbol} is missing; {WAY_OUT}"),
            ));
        }
    }
    Ok(())
}

/// A program being compiled.
struct Program(sys::nvrtcProgram);

impl Program {
    fn new(source: &Source) -> Result<Self> {
        let text = |text: &str| {
            CString::new(text).map_err(|_| Error::cuda(source.name, "the text holds a NUL byte"))
        };
        let (code, name) = (text(source.text)?, text(source.name)?);
        let (header, header_name) = (text(COMMON)?, c"common.cuh");
        let mut program = std::ptr::null_mut();
        // SAFETY: all are C strings that outlive the call, which copies them; there is one header
        // and one name for it.
        unsafe {
            sys::nvrtcCreateProgram(
                &raw mut program,
                code.as_ptr(),
                name.as_ptr(),
                1,
                &header.as_ptr(),
                &header_name.as_ptr(),
            )
        }
        .result()
        .map_err(|error| Error::cuda("nvrtcCreateProgram", error))?;
        Ok(Self(program))
    }

    fn log(&self) -> String {
        // SAFETY: the program is alive.
        let Ok(log) = (unsafe { result::get_program_log(self.0) }) else {
            return String::new();
        };
        let bytes: Vec<u8> = log.iter().map(|byte| *byte as u8).collect();
        CStr::from_bytes_until_nul(&bytes)
            .map(|log| log.to_string_lossy().into_owned())
            .unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the program is alive and not used again. A failure leaks it, no more.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_assemblers_report_is_understood() {
        // From NVRTC 13.0.88.
        let log = "ptxas info    : 0 bytes gmem\n\
            ptxas info    : Compiling entry function 'roll_forward' for 'sm_90'\n\
            ptxas info    : Function properties for roll_forward\n    \
            0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
            ptxas info    : Used 18 registers, used 0 barriers, 12 bytes cmem[4]\n\
            ptxas info    : Compiling entry function 'big' for 'sm_90'\n\
            ptxas info    : Function properties for big\n    \
            64 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads\n\
            ptxas info    : Used 255 registers, used 1 barriers, 64 bytes cumulative stack size, 4096 bytes smem\n";
        let kernel = |entry: &str, registers, shared_bytes, stack_bytes, spill_bytes| Usage {
            entry: entry.into(),
            registers,
            shared_bytes,
            stack_bytes,
            spill_bytes,
        };
        let expected = [
            kernel("roll_forward", 18, 0, 0, 0),
            kernel("big", 255, 4096, 64, 20),
        ];
        assert_eq!(usage(log), expected);
    }

    #[test]
    fn what_is_kept_is_there_whole_and_leaves_nothing_else() {
        let folder = std::env::temp_dir().join(format!("crossfix-modules-{}", std::process::id()));
        let path = folder.join("a").join("x.cubin");
        write_whole(&path, b"first").unwrap();
        write_whole(&path, b"second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(
            std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1
        );
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn keys_differ_with_text_architecture_and_compiler() {
        let source = |text| Source {
            name: "ops/x.cu",
            text,
            hot: &[],
        };
        let keys = [
            key(&source("a"), 90, (13, 0)),
            key(&source("b"), 90, (13, 0)),
            key(&source("a"), 80, (13, 0)),
            key(&source("a"), 90, (13, 1)),
        ];
        let different: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(different.len(), keys.len());
        assert!(keys[0].starts_with("ops-x-cu-sm_90-"), "{}", keys[0]);
    }
}
