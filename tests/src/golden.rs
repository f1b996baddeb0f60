//! Golden vectors: the formula that fills weights and images, the files, and how near is near.
//!
//! The folder is `CROSSFIX_GOLDENS`, or the repository's copy. Its README says what the files hold.
//! With `CROSSFIX_GOLDENS_TABLE` set, every comparison is printed.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

/// The folder of golden vectors.
pub fn folder() -> PathBuf {
    std::env::var_os("CROSSFIX_GOLDENS").map_or_else(|| crate::data("golden"), PathBuf::from)
}

/// Fills weights and images from names, the same in every language.
#[derive(Debug, Clone)]
pub struct Generator {
    seed: String,
}

impl Generator {
    /// For a set of vectors with this seed.
    pub fn new(seed: &str) -> Self {
        Self { seed: seed.into() }
    }

    /// FNV-1a (64 bits) of `seed:name`.
    pub fn key(&self, name: &str) -> u64 {
        fnv1a(format!("{}:{name}", self.seed).as_bytes())
    }

    /// offset + scale · u for each of `length` elements of the tensor `name`.
    pub fn fill(&self, name: &str, length: usize, offset: f64, scale: f64) -> Vec<f32> {
        let key = self.key(name);
        (0..length as u64)
            .map(|index| (offset + scale * uniform(key, index)) as f32)
            .collect()
    }

    /// Images with fine and coarse structure, `[N, C, H, W]`.
    pub fn images(&self, name: &str, shape: [usize; 4], offset: f64, amplitude: f64) -> Vec<f32> {
        let [n, c, h, w] = shape;
        let (fine, block) = (self.key(name), self.key(&format!("{name}.block")));
        let (block_rows, block_columns) = (h.div_ceil(16), w.div_ceil(16));
        let mut values = Vec::with_capacity(n * c * h * w);
        for plane in 0..n * c {
            for row in 0..h {
                for column in 0..w {
                    let coarse = (plane * block_rows + row / 16) * block_columns + column / 16;
                    let u = uniform(fine, values.len() as u64);
                    let u = 0.5 * u + 0.5 * uniform(block, coarse as u64);
                    values.push((offset + amplitude * u) as f32);
                }
            }
        }
        values
    }
}

/// FNV-1a, 64 bits.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// What splitmix64 gives in a state.
pub fn splitmix64(state: u64) -> u64 {
    let z = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// In [-1, 1), exact in f32.
pub fn uniform(key: u64, index: u64) -> f64 {
    let z = splitmix64(key.wrapping_add(index)) >> 40;
    z as f64 / f64::from(1u32 << 23) - 1.0
}

/// Other last bits for `values`, drawn from `name`; the same values for rounding 0.
pub fn nudge(generator: &Generator, name: &str, rounding: u32, values: &mut [f32]) {
    if rounding > 0 {
        let key = generator.key(&format!("{name}.rounding{rounding}"));
        for (index, value) in (0..).zip(values) {
            let bit = splitmix64(key.wrapping_add(index)) & 1;
            *value = f32::from_bits(value.to_bits() ^ bit as u32);
        }
    }
}

/// Offset and scale of a CCVPE parameter or buffer, by its published name and shape.
pub fn ccvpe_rule(name: &str, shape: &[usize]) -> (f64, f64) {
    let last = name.rsplit('.').next().unwrap_or(name);
    let first = name.split('.').next().unwrap_or(name);
    let fan = |gain: f64, n: usize| gain * (3.0 / n as f64).sqrt();
    let n: usize = shape.iter().skip(1).product();
    match last {
        "num_batches_tracked" => return (0.0, 0.0),
        "running_mean" | "bias" => return (0.0, 0.05),
        "running_var" => return (1.0, 0.2),
        _ => {}
    }
    if shape.len() == 1 {
        (1.0, 0.1)
    } else if first.starts_with("deconv") && (!first.ends_with("_ori") || first == "deconv6_ori") {
        (0.0, 1.0)
    } else if first.starts_with("deconv") {
        (0.0, fan(1.0, shape[0]))
    } else if name.contains("_project_conv.") {
        (0.0, fan(1.7, n))
    } else if name.contains("_se_expand.") {
        (0.0, fan(3.0, n))
    } else {
        (0.0, fan(1.5, n))
    }
}

/// Offset and scale of a GGCVT parameter, by its published name and shape.
pub fn ggcvt_rule(name: &str, shape: &[usize]) -> (f64, f64) {
    let last = name.rsplit('.').next().unwrap_or(name);
    let n: usize = shape.iter().skip(1).product();
    let fan = |gain: f64| gain * (3.0 / n as f64).sqrt();
    let branch = name
        .strip_prefix("uncertain_net.conv")
        .is_some_and(|rest| rest.get(1..) == Some(".1.weight"));
    match (name, last) {
        ("coe_R", _) => (-5.0, 0.0),
        ("coe_T", _) => (-3.0, 0.0),
        (_, "relative_position_bias_table") => (0.0, 0.5),
        (_, "bias") => (0.0, 0.1),
        _ if shape.len() == 1 => (1.0, 0.1),
        _ if branch || name.ends_with("patch_embed.proj.weight") => (0.0, fan(1000.0)),
        _ if name.starts_with("TransRefine.") && name.ends_with(".head.weight") => (0.0, fan(0.2)),
        _ => (0.0, fan(1.5)),
    }
}

/// One case: its settings, and the stored samples of its tensors.
#[derive(Debug)]
pub struct Case {
    /// File name without ending.
    pub name: String,
    /// The JSON file.
    pub json: Value,
    samples: HashMap<String, Vec<f32>>,
}

/// The cases of these kinds in [`folder`], by name.
///
/// # Errors
/// When the folder or a file cannot be read, or the repository's copy has none of them.
pub fn cases(kinds: &[&str]) -> Result<Vec<Case>> {
    let folder = folder();
    let mut found = BTreeMap::new();
    let mut files = 0;
    let listing = std::fs::read_dir(&folder)
        .with_context(|| format!("the golden vectors in {}", folder.display()))?;
    for entry in listing {
        let path = entry?.path();
        if path.extension().is_none_or(|ending| ending != "json") {
            continue;
        }
        files += 1;
        let bytes = std::fs::read(&path)?;
        let json: Value =
            serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?;
        if !kinds.contains(&json["kind"].as_str().unwrap_or_default()) {
            continue;
        }
        let name = path.file_stem().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        let tensors = path.with_extension("safetensors");
        let samples = if tensors.exists() {
            read_samples(&tensors)?
        } else {
            HashMap::new()
        };
        found.insert(
            name.clone(),
            Case {
                name,
                json,
                samples,
            },
        );
    }
    ensure!(files > 0, "{} holds no .json file", folder.display());
    if found.is_empty() {
        let message = format!("{} has no case of kind {kinds:?}", folder.display());
        ensure!(std::env::var_os("CROSSFIX_GOLDENS").is_some(), "{message}");
        eprintln!("NOTHING CHECKED: {message}");
    }
    Ok(found.into_values().collect())
}

fn read_samples(path: &std::path::Path) -> Result<HashMap<String, Vec<f32>>> {
    let bytes = std::fs::read(path)?;
    let file = safetensors::SafeTensors::deserialize(&bytes)
        .with_context(|| path.display().to_string())?;
    let tensors = file.tensors().into_iter().map(|(name, view)| {
        ensure!(
            view.dtype() == safetensors::Dtype::F32,
            "{name} is not of f32"
        );
        let data = view.data().chunks_exact(4);
        let data = data.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        Ok((name, data.collect()))
    });
    tensors.collect()
}

impl Case {
    /// A number in the JSON file.
    ///
    /// # Errors
    /// When it is not there.
    pub fn number(&self, path: &str) -> Result<f64> {
        let value = self.json.pointer(path).and_then(Value::as_f64);
        value.with_context(|| format!("{}: no number at {path}", self.name))
    }

    /// A number, or what goes without saying.
    pub fn number_or(&self, path: &str, default: f64) -> f64 {
        self.number(path).unwrap_or(default)
    }

    /// A text in the JSON file.
    ///
    /// # Errors
    /// When it is not there.
    pub fn text(&self, path: &str) -> Result<&str> {
        let value = self.json.pointer(path).and_then(Value::as_str);
        value.with_context(|| format!("{}: no text at {path}", self.name))
    }

    /// The four axes of an image batch.
    ///
    /// # Errors
    /// When it is not there.
    pub fn shape4(&self, path: &str) -> Result<[usize; 4]> {
        let list = self.json.pointer(path).map(shape_of).unwrap_or_default();
        let shape = <[usize; 4]>::try_from(list);
        shape.map_err(|_| anyhow::anyhow!("{}: no four axes at {path}", self.name))
    }

    /// A list of numbers.
    ///
    /// # Errors
    /// When it is not there.
    pub fn numbers(&self, path: &str) -> Result<Vec<f64>> {
        let list = self.json.pointer(path).and_then(Value::as_array);
        let list = list.with_context(|| format!("{}: no list at {path}", self.name))?;
        let numbers: Option<Vec<f64>> = list.iter().map(Value::as_f64).collect();
        numbers.with_context(|| format!("{}: not only numbers at {path}", self.name))
    }

    /// The stored part of a tensor, and what is known about the whole.
    pub fn tensor(&self, name: &str) -> Option<Golden<'_>> {
        Some(Golden {
            about: self.json.get("tensors")?.get(name)?,
            samples: self.samples.get(name)?,
        })
    }

    /// Names of the tensors, in order.
    pub fn tensor_names(&self) -> Vec<&str> {
        let tensors = self.json.get("tensors").and_then(Value::as_object);
        tensors
            .into_iter()
            .flatten()
            .map(|(name, _)| name.as_str())
            .collect()
    }
}

fn shape_of(value: &Value) -> Vec<usize> {
    let axes = value.as_array().into_iter().flatten();
    axes.filter_map(Value::as_u64)
        .map(|axis| axis as usize)
        .collect()
}

/// A stored tensor.
#[derive(Debug, Clone, Copy)]
pub struct Golden<'a> {
    about: &'a Value,
    samples: &'a [f32],
}

impl Golden<'_> {
    /// Its shape.
    pub fn shape(&self) -> Vec<usize> {
        shape_of(&self.about["shape"])
    }

    /// A number about the whole tensor, such as `l2` or `f32_rel_l2`.
    pub fn about(&self, what: &str) -> f64 {
        self.about[what].as_f64().unwrap_or(f64::NAN)
    }

    /// The larger of the relative L2 errors of the stored elements and of the whole norm.
    ///
    /// `expected` maps a stored element to what is compared (identity for most).
    ///
    /// # Errors
    /// When `found` has not as many elements as the tensor.
    pub fn relative_error(&self, found: &[f32], expected: impl Fn(f64) -> f64) -> Result<f64> {
        let length: usize = self.shape().iter().product();
        ensure!(
            found.len() == length,
            "{} elements where {length} belong",
            found.len()
        );
        let stride = self.about["stride"].as_u64().unwrap_or(1).max(1) as usize;
        let (mut difference, mut size) = (0.0, 0.0);
        let mut count = 0;
        for (found, golden) in found.iter().step_by(stride).zip(self.samples) {
            let golden = expected(f64::from(*golden));
            difference += (f64::from(*found) - golden).powi(2);
            size += golden.powi(2);
            count += 1;
        }
        if count != self.samples.len() || size == 0.0 {
            bail!(
                "{count} of {} stored elements, size {size}",
                self.samples.len()
            );
        }
        Ok((difference / size).sqrt())
    }
}

/// L2 norm.
pub fn l2(values: &[f32]) -> f64 {
    let squares = values.iter().map(|value| f64::from(*value).powi(2));
    squares.sum::<f64>().sqrt()
}

/// What was compared in one case, and how it went.
#[derive(Debug)]
pub struct Comparison {
    case: String,
    compared: usize,
    failures: Vec<String>,
    /// Worst share of the allowed error: its name, the error, the allowance.
    worst: (String, f64, f64),
}

impl Comparison {
    /// Nothing yet.
    pub fn new(case: &str) -> Self {
        Self {
            case: case.into(),
            compared: 0,
            failures: Vec::new(),
            worst: (String::new(), 0.0, 1.0),
        }
    }

    /// Notes an error and what is allowed.
    pub fn note(&mut self, name: &str, error: f64, allowed: f64) {
        self.compared += 1;
        if std::env::var_os("CROSSFIX_GOLDENS_TABLE").is_some() {
            println!("{} {name}: {error:.2e} of {allowed:.2e}", self.case);
        }
        // Written so that NaN fails.
        if !(error <= allowed) {
            self.failures
                .push(format!("{name}: {error:.2e}, {allowed:.2e} allowed"));
        }
        if !(error / allowed <= self.worst.1 / self.worst.2) {
            self.worst = (name.into(), error, allowed);
        }
    }

    /// Notes that `found` is `expected` within `allowed`, relative.
    pub fn close(&mut self, name: &str, found: f64, expected: f64, allowed: f64) {
        self.note(name, ((found - expected) / expected).abs(), allowed);
    }

    /// Notes a failure in words.
    pub fn fail(&mut self, what: impl Into<String>) {
        self.compared += 1;
        self.failures.push(what.into());
    }

    /// Prints one line, and fails with everything that was out of bounds.
    ///
    /// # Errors
    /// When something was, or nothing was compared.
    pub fn finish(self) -> Result<()> {
        let (name, error, allowed) = &self.worst;
        println!(
            "{}: {} compared, nearest to its bound {name}: {error:.1e} of {allowed:.1e}",
            self.case, self.compared
        );
        ensure!(self.compared > 0, "{}: nothing was compared", self.case);
        ensure!(
            self.failures.is_empty(),
            "{}: {} of {} out of bounds:\n  {}",
            self.case,
            self.failures.len(),
            self.compared,
            self.failures.join("\n  ")
        );
        Ok(())
    }
}

/// Allowed for outputs: three times the distance of `PyTorch`'s own f32 run, at least 2e-5.
pub fn forward_tolerance(spread: f64) -> f64 {
    (3.0 * spread).max(2e-5)
}

/// Allowed for gradients: five times the distance of `PyTorch`'s own f32 run, at least 1e-3.
pub fn gradient_tolerance(spread: f64) -> f64 {
    (5.0 * spread).max(1e-3)
}
