//! Work in parts, on machines that do not know of one another: one of N shards of a dataset goes through a
//! network, its answers are kept in a file, and the files of all shards are merged.
//!
//! A shard is a stretch of whole batches, in the samples' order, so that every sample goes through the
//! network beside the same others as in one run, and the merged answers have the same bits. What looks at
//! several samples at once (the consensus of drives, means and medians) comes after the merge.
//!
//! `file` is what a shard's file holds.

mod file;
#[cfg(test)]
mod tests;

pub use file::{FORMAT, keep};

use crate::data::Dataset;
use crate::model::{CrossViewModel, ModelSpec};
use crate::predict::{PairPrediction, batch_size};
use crate::run::sha256_json;
use crossfix_calibration::LogMap;
use crossfix_kernels::Device;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::PathBuf;
use std::str::FromStr;

/// More shards than this are a mistake, or a file that lies.
const MOST_SHARDS: usize = 65_536;
/// Of those that are missing so many are named.
const MOST_NAMED: usize = 20;
/// Longer values that differ are not printed, characters.
const LONGEST_DIFFERENCE: usize = 600;

/// One of several parts of a work, counted from 0; written from 1, `2/4`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Which one.
    pub index: usize,
    /// Of how many.
    pub of: usize,
}

impl Shard {
    /// All of it.
    pub const WHOLE: Self = Self { index: 0, of: 1 };

    /// The samples of this shard among those of `dataset`, for a network.
    pub fn samples(self, dataset: &dyn Dataset, spec: &ModelSpec) -> Vec<usize> {
        let (count, size) = (dataset.len(), batch_size(spec));
        let begin = |index: usize| count.min(count.div_ceil(size) * index / self.of * size);
        (begin(self.index)..begin(self.index + 1)).collect()
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(part, of)| {
            let (part, of): (usize, usize) = (part.parse().ok()?, of.parse().ok()?);
            let index = part.checked_sub(1)?;
            (part <= of && of <= MOST_SHARDS).then_some(Self { index, of })
        });
        parts.ok_or_else(|| {
            format!("write K/N with K from 1 to N, such as 2/4, and N up to {MOST_SHARDS}")
        })
    }
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.index + 1, self.of)
    }
}

/// What a network found for one sample.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its prediction, with the heatmap where that is needed whole.
    pub prediction: PairPrediction,
    /// The heatmap in few bytes, where drives are to agree.
    pub map: Option<LogMap>,
}

/// What answers are made of, the same in all shards: another value gives other answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inputs {
    /// Version of the program.
    pub version: String,
    /// What the answers are for: `evaluate` or `adapt`.
    pub purpose: String,
    /// SHA-256 of the network's file.
    pub model_sha256: String,
    /// What the dataset says of itself, with hashes of its text where it has one.
    pub dataset: Value,
    /// SHA-256 of the names of all samples, in their order.
    pub samples_sha256: String,
    /// Where the network runs, and how exactly.
    pub device: String,
    /// What else decides what is asked.
    pub settings: Value,
}

impl Inputs {
    /// Of a network from a file with this hash, run over `dataset`; `about` is what that says of itself.
    pub fn new(
        purpose: &str,
        model_sha256: String,
        model: Option<&dyn CrossViewModel>,
        (dataset, about): (&dyn Dataset, Value),
        settings: Value,
    ) -> Self {
        let names: Vec<&str> = dataset.samples().map(|sample| sample.id.as_str()).collect();
        let device = model.map(|model| kind_of(&model.parameters().device()));
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            purpose: purpose.into(),
            model_sha256,
            dataset: about,
            samples_sha256: sha256_json(&names),
            device: device.unwrap_or_else(|| kind_of(&Device::Cpu)),
            settings,
        }
    }

    /// The first thing that differs from `other`, and both its values.
    fn difference(&self, other: &Self) -> Option<String> {
        let [mine, others] = [self, other].map(|inputs| serde_json::json!(inputs));
        let names = [
            "version",
            "purpose",
            "model_sha256",
            "dataset",
            "samples_sha256",
            "device",
            "settings",
        ];
        let name = names.into_iter().find(|name| mine[name] != others[name])?;
        let [mine, others] = [&mine, &others].map(|inputs| inputs[name].to_string());
        if mine.len() + others.len() > LONGEST_DIFFERENCE {
            return Some(format!("its {name} is another"));
        }
        Some(format!("its {name} is {mine}, not {others}"))
    }
}

/// What decides the bits of a network's answers about a device: which one, and how exact its products are.
fn kind_of(device: &Device) -> String {
    match device {
        // Vector units of another kind add in another order.
        Device::Cpu => cpu_kind().into(),
        Device::Cuda(cuda) => format!("{}, {:?}", cuda.name(), cuda.precision()),
    }
}

/// The vector units that a processor brings, as far as loops are compiled for them.
fn cpu_kind() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            return "cpu, x86_64 with AVX-512";
        }
        if is_x86_feature_detected!("avx2") {
            return "cpu, x86_64 with AVX2";
        }
    }
    match std::env::consts::ARCH {
        "aarch64" => "cpu, aarch64",
        _ => "cpu",
    }
}

/// Why the answers of shards cannot be written or merged.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// A file that cannot be read or written.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: String,
        /// The operating system's reason.
        error: std::io::Error,
    },
    /// A file that holds no answers, or not all of its shard's.
    #[error("{path}: {what}; make it again with --shard")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// A file of another network, dataset, program or setting.
    #[error("{path} is of another run: {what}; leave it away, or make it again with --shard")]
    Foreign {
        /// The file.
        path: String,
        /// What differs.
        what: String,
    },
    /// Two files of one shard.
    #[error("{first} and {second} are both shard {shard}; leave one away")]
    Twice {
        /// The file that came first.
        first: String,
        /// The other one.
        second: String,
        /// Which shard.
        shard: Shard,
    },
    /// A shard without a file.
    #[error("no file has shard {shards}; make it with --shard, and name its file too")]
    Missing {
        /// Which ones.
        shards: String,
    },
}

/// The answers of all samples, in their order, from the files of all shards in any order.
///
/// # Errors
/// [`ShardError`] naming the file that is missing, there twice, of another run or damaged.
pub fn merge(
    files: &[PathBuf],
    expected: &Inputs,
    dataset: &dyn Dataset,
    spec: &ModelSpec,
) -> Result<Vec<Answer>, ShardError> {
    let mut shards: Vec<Option<(String, Vec<Answer>)>> = Vec::new();
    let mut expected = expected.clone();
    for path in files {
        // Where the network ran is for the files to agree on; here it does not run.
        let (shard, answers) = file::read(path, &mut expected, shards.is_empty(), dataset, spec)?;
        let path = path.display().to_string();
        if shards.is_empty() {
            shards.resize_with(shard.of, || None);
        }
        if shards.len() != shard.of {
            let what = format!(
                "it is shard {shard}, and those before it are of {}",
                shards.len()
            );
            return Err(ShardError::Foreign { path, what });
        }
        if let Some((first, _)) = &shards[shard.index] {
            return Err(ShardError::Twice {
                first: first.clone(),
                second: path,
                shard,
            });
        }
        shards[shard.index] = Some((path, answers));
    }
    let of = shards.len().max(1);
    let missing = shards.iter().enumerate().filter(|(_, file)| file.is_none());
    let mut missing: Vec<String> = missing
        .map(|(index, _)| Shard { index, of }.to_string())
        .collect();
    if missing.len() > MOST_NAMED {
        let more = missing.len() - MOST_NAMED;
        missing.truncate(MOST_NAMED);
        missing.push(format!("and {more} more"));
    }
    if !missing.is_empty() || shards.is_empty() {
        return Err(ShardError::Missing {
            shards: missing.join(", "),
        });
    }
    let answers = shards.into_iter().flatten();
    Ok(answers.flat_map(|(_, answers)| answers).collect())
}
