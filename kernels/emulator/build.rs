//! Compiles every `.cu` file as C++ against the emulator's language header, twice: as it is, and
//! with every access to memory reported; and the emulator itself.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, thread};

/// One `.cu` file and its kernels, with the arguments of their `__launch_bounds__`.
struct Source {
    path: PathBuf,
    /// As in `crossfix_kernels::cuda::Source`: relative to the crate's `src`.
    name: String,
    entries: Vec<(String, String)>,
}

impl Source {
    fn identifier(&self) -> String {
        self.name.replace(|c: char| !c.is_ascii_alphanumeric(), "_")
    }

    /// Where its static shared memory lies.
    fn section(&self, variant: &str) -> String {
        format!("crossfix_{variant}_{}", self.identifier())
    }

    /// The translation unit. An unnamed namespace keeps helpers of the same name apart.
    fn unit(&self, variant: &str) -> String {
        let section = self.section(variant);
        let mut unit = String::from("#include \"cuda_language.h\"\n");
        for edge in ["start", "stop"] {
            let _ = writeln!(
                unit,
                "extern char __{edge}_{section}[] __attribute__((weak, visibility(\"hidden\")));"
            );
        }
        // extern "C" names are one for the whole program, whatever the namespace.
        for (entry, _) in &self.entries {
            let _ = writeln!(unit, "#define {entry} crossfix_{variant}_{entry}");
        }
        let _ = writeln!(unit, "namespace {{\n#include \"{}\"", self.path.display());
        unit += "const emulated::Entry entries[] = {\n";
        for (entry, bounds) in &self.entries {
            let comma = if bounds.is_empty() { "" } else { ", " };
            let _ = writeln!(
                unit,
                "    CROSSFIX_ENTRY(\"{entry}\", {entry}{comma}{bounds}),"
            );
        }
        let _ = writeln!(
            unit,
            "    {{nullptr, nullptr, nullptr, 0, 0}}\n}};\n}}\n\
             extern const emulated::Source {variant}_{};\n\
             const emulated::Source {variant}_{} = {{\"{}\", entries, {}, __start_{section}, __stop_{section}}};",
            self.identifier(),
            self.identifier(),
            self.name,
            self.entries.len(),
        );
        unit
    }
}

/// All `.cu` files below `folder`, named relative to `root`.
fn find(folder: &Path, root: &Path, found: &mut Vec<Source>) {
    println!("cargo:rerun-if-changed={}", folder.display());
    let entries = fs::read_dir(folder).expect("the sources are there");
    let mut paths: Vec<PathBuf> = entries.map(|e| e.expect("readable").path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            find(&path, root, found);
        } else if path.extension().is_some_and(|e| e == "cu" || e == "cuh") {
            println!("cargo:rerun-if-changed={}", path.display());
            if path.extension().is_some_and(|e| e == "cu") {
                let name = path.strip_prefix(root).expect("below the root");
                found.push(Source {
                    name: name.to_str().expect("plain names").to_string(),
                    path,
                    entries: Vec::new(),
                });
            }
        }
    }
}

/// The kernels in preprocessed text, where `__global__` is a word of ours.
fn entries(text: &str) -> Vec<(String, String)> {
    let text: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .fold(String::new(), |text, line| text + line + "\n");
    let mut found = Vec::new();
    for part in text.split("__crossfix_global__").skip(1) {
        let mut head = part.to_string();
        let mut bounds = String::new();
        if let Some(begin) = head.find("__crossfix_bounds__") {
            let open = begin + head[begin..].find('(').expect("bounds have arguments");
            let mut depth = 0;
            let length = head[open..]
                .find(|c| {
                    depth += i32::from(c == '(') - i32::from(c == ')');
                    depth == 0
                })
                .expect("bounds end");
            // Only those of this kernel: before its parameters.
            if !head[..begin].contains(['{', ';', '(']) {
                bounds = head[open + 1..open + length].trim().to_string();
                head.replace_range(begin..=open + length, " ");
            }
        }
        let parameters = head.find('(').expect("a kernel has parameters");
        let name = head[..parameters]
            .split_whitespace()
            .last()
            .expect("a kernel has a name");
        let is_definition = head.find('{') < head.find(';') || !head.contains(';');
        if is_definition && !found.iter().any(|(n, _)| n == name) {
            found.push((name.to_string(), bounds));
        }
    }
    found
}

fn compiler(cpp: &Path, common: &Path) -> cc::Build {
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        .include(cpp)
        .include(common)
        .flag("-g1")
        .flag("-fno-strict-aliasing")
        .flag("-ftls-model=initial-exec");
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
        // Built and run on one machine; NVRTC contracts to fused multiply-adds too.
        build.flag("-mavx2").flag("-mfma");
    }
    build
}

fn main() {
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it"));
    let cpp = here.join("cpp");
    let kernels = fs::canonicalize(here.join("../src")).expect("we live in kernels/");
    let common = kernels.join("cuda");
    println!("cargo:rerun-if-changed={}", cpp.display());
    println!("cargo:rerun-if-changed=build.rs");

    if let Err(error) = compiler(&cpp, &common).try_get_compiler() {
        panic!("the kernel emulator of the tests needs a C++ compiler (apt install g++): {error}");
    }

    let mut sources = Vec::new();
    find(&kernels, &kernels, &mut sources);
    let tests = here.join("tests");
    find(&tests.join("faults"), &tests, &mut sources);

    let scan = |source: &mut Source| {
        let unit = out.join(format!("scan_{}.cpp", source.identifier()));
        let text = format!(
            "#include \"cuda_language.h\"\n#include \"{}\"\n",
            source.path.display()
        );
        fs::write(&unit, text).expect("OUT_DIR is writable");
        let expanded = compiler(&cpp, &common)
            .define("CROSSFIX_SCAN", None)
            .cargo_metadata(false)
            .file(&unit)
            .try_expand()
            .unwrap_or_else(|error| panic!("{}: {error}", source.path.display()));
        source.entries = entries(&String::from_utf8_lossy(&expanded));
    };
    in_parallel(&mut sources, &scan);

    let mut registry = String::from("#include \"emulator.h\"\n");
    for variant in ["plain", "checked"] {
        let mut names = String::new();
        for source in &sources {
            let name = format!("{variant}_{}", source.identifier());
            let _ = writeln!(registry, "extern const emulated::Source {name};");
            let _ = write!(names, "&{name}, ");
            fs::write(out.join(format!("{name}.cpp")), source.unit(variant))
                .expect("OUT_DIR is writable");
        }
        let _ = writeln!(
            registry,
            "extern const emulated::Source* const emulated::{variant}_sources[] = {{{names}nullptr}};"
        );
    }
    fs::write(out.join("registry.cpp"), registry).expect("OUT_DIR is writable");

    let plain = |source: &mut Source| {
        let mut build = compiler(&cpp, &common);
        compile(source, "plain", &out, build.opt_level(2))
    };
    let checked = |source: &mut Source| {
        let mut build = compiler(&cpp, &common);
        build
            .opt_level(1)
            .flag("-fsanitize=thread")
            .flag("-fsanitize=bounds,alignment,shift,integer-divide-by-zero");
        compile(source, "checked", &out, &mut build)
    };
    let mut all = compiler(&cpp, &common);
    all.opt_level(2);
    for name in [
        "interface",
        "machine",
        "memory",
        "races",
        "tensor_core",
        "undefined",
    ] {
        all.file(cpp.join(format!("{name}.cpp")));
    }
    all.file(out.join("registry.cpp"));
    for object in in_parallel(&mut sources, &plain).into_iter().flatten() {
        all.object(object);
    }
    for object in in_parallel(&mut sources, &checked).into_iter().flatten() {
        all.object(object);
    }
    all.compile("crossfix_emulator");
}

/// One object file, with the static shared variables in a section of its own: they are the only
/// ones that a kernel may change, hence its `.bss`. (As an attribute in the code, GCC would ignore
/// the section inside templates.)
fn compile(source: &Source, variant: &str, out: &Path, build: &mut cc::Build) -> Vec<PathBuf> {
    let name = format!("{variant}_{}.cpp", source.identifier());
    let objects = build
        .flag("-fno-data-sections")
        .warnings(false)
        .cargo_metadata(false)
        .file(out.join(name))
        .compile_intermediates();
    for object in &objects {
        let section = source.section(variant);
        let rename = format!(".bss={section},alloc,load,data,contents");
        let status = Command::new("objcopy")
            .args(["--rename-section", &rename])
            .arg(object)
            .status();
        let status = status.expect("objcopy is part of binutils, which every compiler needs");
        assert!(status.success(), "objcopy failed for {}", object.display());
    }
    objects
}

/// Runs `work` on every source, on as many threads as cargo gives us.
fn in_parallel<T: Send>(
    sources: &mut [Source],
    work: &(impl Fn(&mut Source) -> T + Sync),
) -> Vec<T> {
    let jobs: usize = env::var("NUM_JOBS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(1);
    let share = sources.len().div_ceil(jobs.max(1)).max(1);
    thread::scope(|scope| {
        let running: Vec<_> = sources
            .chunks_mut(share)
            .map(|chunk| scope.spawn(move || chunk.iter_mut().map(work).collect::<Vec<T>>()))
            .collect();
        running
            .into_iter()
            .flat_map(|thread| {
                thread
                    .join()
                    .expect("a .cu file does not compile, see above")
            })
            .collect()
    })
}
