//! Compiles every kernel for every architecture we support, without a GPU, and prints what each
//! takes of a multiprocessor. Exits non-zero when one does not compile, or a hot one spills.
//!
//! ```text
//! LD_LIBRARY_PATH=.../nvidia/cu13/lib cargo run --release -p crossfix-kernels --example compile_kernels [--keep FOLDER] [sm ...]
//! ```
//!
//! `--keep` puts the machine code where a device finds it when FOLDER is `crossfix/kernels` in its
//! `$XDG_CACHE_HOME`.

use crossfix_kernels::Error;
use crossfix_kernels::cuda::Source;
use crossfix_kernels::cuda::compile::{compile, compiler_version, keep, usage};
use crossfix_kernels::kernel_sources;
use rayon::prelude::*;
use std::path::PathBuf;
use std::process::ExitCode;

/// What must be refused, with the compiler's words.
static BROKEN: Source = Source {
    name: "broken.cu",
    text: "extern \"C\" __global__ void broken(float* x) { x[0] = no_such_name; }\n",
    hot: &[],
};

/// Turing, Ampere (A100, then consumer GPUs), Ada, Hopper, Blackwell.
const ARCHITECTURES: [u32; 6] = [75, 80, 86, 89, 90, 100];

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut folder = None;
    if let Some(at) = arguments.iter().position(|argument| argument == "--keep") {
        let found: Vec<String> = arguments.drain(at..(at + 2).min(arguments.len())).collect();
        let Some(path) = found.get(1) else {
            eprintln!("compile_kernels: --keep wants a folder");
            return ExitCode::from(2);
        };
        folder = Some(PathBuf::from(path));
    }
    let asked: Result<Vec<u32>, _> = arguments.iter().map(|sm| sm.parse()).collect();
    let architectures = match asked {
        Ok(asked) if asked.is_empty() => ARCHITECTURES.to_vec(),
        Ok(asked) => asked,
        Err(error) => {
            eprintln!("compile_kernels: architectures are numbers such as 90: {error}");
            return ExitCode::from(2);
        }
    };
    match compiler_version() {
        Ok((major, minor)) => println!("NVRTC {major}.{minor}"),
        Err(error) => {
            eprintln!("compile_kernels: {error}");
            return ExitCode::FAILURE;
        }
    }
    let sources = kernel_sources();
    let jobs: Vec<_> = sources
        .iter()
        .flat_map(|source| architectures.iter().map(|sm| (*source, *sm)))
        .collect();
    let compiled: Vec<_> = jobs
        .par_iter()
        .map(|(source, sm)| compile(source, *sm))
        .collect();

    let mut kernels = 0;
    let mut problems = Vec::new();
    println!(
        "{:32} {:>5} {:>9} {:>7} {:>6}",
        "kernel", "sm", "registers", "shared", "spills"
    );
    for ((source, sm), compiled) in jobs.iter().zip(compiled) {
        let compiled = match compiled {
            Ok(compiled) => compiled,
            Err(error) => {
                problems.push(error.to_string());
                continue;
            }
        };
        if let Some(folder) = &folder
            && let Err(error) = keep(folder, source, *sm, &compiled)
        {
            problems.push(error.to_string());
        }
        let used = usage(&compiled.log);
        for entry in source.entries() {
            let Some(kernel) = used.iter().find(|kernel| kernel.entry == entry) else {
                problems.push(format!("{}: no report on {entry} for sm_{sm}", source.name));
                continue;
            };
            kernels += 1;
            println!(
                "{entry:32} {sm:>5} {:>9} {:>7} {:>6}",
                kernel.registers, kernel.shared_bytes, kernel.spill_bytes
            );
            if kernel.spill_bytes > 0 && source.hot.contains(&entry) {
                let spilled = kernel.spill_bytes;
                problems.push(format!(
                    "{entry} spills {spilled} bytes on sm_{sm}, and it is hot"
                ));
            }
        }
        for line in compiled.log.lines().filter(|line| line.contains("warning")) {
            println!("  {}: {line}", source.name);
        }
    }
    match compile(&BROKEN, architectures[0]).map(|_| ()) {
        Err(Error::Compile { log, .. }) if log.contains("no_such_name") => {}
        other => problems.push(format!(
            "a broken file gave {other:?}, not the compiler's words"
        )),
    }
    println!("{kernels} kernels in {} files compiled", sources.len());
    for problem in &problems {
        eprintln!("compile_kernels: {problem}");
    }
    ExitCode::from(u8::from(!problems.is_empty()))
}
