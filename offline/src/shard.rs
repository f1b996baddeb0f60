//! Work in parts, on machines that do not know of one another: one of N shards of a dataset goes through a
//! network, its answers are kept in a file, and the files of all shards are merged.
//!
//! A shard is a stretch of whole batches, in the samples' order, so that every sample goes through the
//! network beside the same others as in one run, and the merged answers have the same bits. What looks at
//! several samples at once (the consensus of drives, means and medians) comes after the merge.
//!
//! A file is JSON lines: the [`Inputs`] and the shard first, then an [`Answer`] for each sample.

use crate::data::Dataset;
use crate::model::weights::write_whole;
use crate::model::{CrossViewModel, ModelSpec};
use crate::predict::{PairPrediction, batch_size};
use crate::run::sha256_json;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crossfix_calibration::LogMap;
use crossfix_kernels::Device;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
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

/// The first line of a file.
#[derive(Serialize, Deserialize)]
struct Header {
    inputs: Inputs,
    shard: Shard,
    answers: usize,
}

#[derive(Serialize, Deserialize)]
struct Row {
    prediction: PairPrediction,
    /// Little-endian f32, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    heatmap: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    map: Option<Map>,
}

#[derive(Serialize, Deserialize)]
struct Map {
    metres_per_cell: f64,
    /// A byte for each cell, base64.
    levels: String,
}

impl Row {
    fn of(answer: &Answer) -> Self {
        let heatmap = answer.prediction.heatmap.as_ref().map(|heatmap| {
            let bytes = heatmap.iter().flat_map(|value| value.to_le_bytes());
            STANDARD.encode(bytes.collect::<Vec<u8>>())
        });
        Self {
            prediction: answer.prediction.clone(),
            heatmap,
            map: answer.map.as_ref().map(|map| Map {
                metres_per_cell: map.metres_per_cell(),
                levels: STANDARD.encode(map.levels()),
            }),
        }
    }

    fn answer(self) -> Result<Answer, String> {
        let decode = |text: &String| STANDARD.decode(text).map_err(|error| error.to_string());
        let mut prediction = self.prediction;
        if let Some(text) = &self.heatmap {
            let bytes = decode(text)?;
            let (values, rest) = bytes.as_chunks::<4>();
            if !rest.is_empty() {
                return Err("a heatmap is cut short".into());
            }
            prediction.heatmap = Some(
                values
                    .iter()
                    .map(|four| f32::from_le_bytes(*four))
                    .collect(),
            );
        }
        let map = self.map.map(|map| {
            LogMap::from_levels(map.metres_per_cell, decode(&map.levels)?)
                .map_err(|error| error.to_string())
        });
        Ok(Answer {
            prediction,
            map: map.transpose()?,
        })
    }
}

/// Writes the answers of one shard.
///
/// # Errors
/// [`ShardError::File`].
pub fn write(
    path: &Path,
    inputs: &Inputs,
    shard: Shard,
    answers: &[Answer],
) -> Result<(), ShardError> {
    let header = Header {
        inputs: inputs.clone(),
        shard,
        answers: answers.len(),
    };
    let file = |error| ShardError::File {
        path: path.display().to_string(),
        error,
    };
    let mut text = serde_json::to_vec(&header).map_err(|error| file(error.into()))?;
    text.push(b'\n');
    for (number, answer) in answers.iter().enumerate() {
        let begin = text.len();
        serde_json::to_writer(&mut text, &Row::of(answer)).map_err(|error| file(error.into()))?;
        // JSON has no NaN: it would be written as nothing, and read as another answer.
        if serde_json::from_slice::<Row>(&text[begin..]).is_err() {
            let what = format!(
                "the network answers sample {} of shard {shard} with numbers that are not finite",
                number + 1
            );
            return Err(file(std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                what,
            )));
        }
        text.push(b'\n');
    }
    write_whole(path, &text).map_err(file)
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
        let (shard, answers) = read(path, &mut expected, shards.is_empty(), dataset, spec)?;
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

/// One file; `expected` takes the device of the first.
fn read(
    path: &Path,
    expected: &mut Inputs,
    is_first: bool,
    dataset: &dyn Dataset,
    spec: &ModelSpec,
) -> Result<(Shard, Vec<Answer>), ShardError> {
    let name = path.display().to_string();
    let file = |error| ShardError::File {
        path: name.clone(),
        error,
    };
    let damaged = |what: String| ShardError::Damaged {
        path: name.clone(),
        what,
    };
    let mut lines = BufReader::new(std::fs::File::open(path).map_err(file)?).lines();
    let first = lines.next().transpose().map_err(file)?.unwrap_or_default();
    let header: Header = serde_json::from_str(&first)
        .map_err(|error| damaged(format!("it holds no answers of a shard ({error})")))?;
    let Header {
        inputs,
        shard,
        answers: promised,
    } = header;
    if !(1..=MOST_SHARDS).contains(&shard.of) || shard.index >= shard.of {
        return Err(damaged(format!("there is no shard {shard}")));
    }
    if is_first {
        expected.device.clone_from(&inputs.device);
    }
    if let Some(what) = inputs.difference(expected) {
        return Err(ShardError::Foreign { path: name, what });
    }
    let mut answers = Vec::new();
    for (number, line) in lines.enumerate() {
        let row: Row = serde_json::from_str(&line.map_err(file)?)
            .map_err(|error| damaged(format!("line {}: {error}", number + 2)))?;
        let answer = row.answer();
        answers.push(answer.map_err(|what| damaged(format!("line {}: {what}", number + 2)))?);
    }
    let samples = shard.samples(dataset, spec).len();
    if answers.len() != promised || answers.len() != samples {
        let what = format!(
            "{} answers, and shard {shard} has {samples} samples",
            answers.len()
        );
        return Err(damaged(what));
    }
    Ok((shard, answers))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Pair, Subset};
    use crate::evaluate::temperature;
    use crate::model::{Ccvpe, named, preset};
    use crate::recipe::{self, Labeller, Shared, defaults};
    use crate::run::{Interrupt, RunContext};
    use crate::train::World;
    use crate::train::tests::noise_pairs;
    use serde_json::{Value, json};

    /// Pairs of two drives whose frames alternate, so that shards cut both.
    fn pairs(count: usize) -> Vec<Pair> {
        let pairs = noise_pairs(count, "compact").into_iter().enumerate();
        let pairs = pairs.map(|(index, (mut pair, _))| {
            pair.sample.drive = format!("drive-{}", index % 2);
            pair.sample.time_ns = index as i64 * 1_000_000_000;
            pair
        });
        pairs.collect()
    }

    fn inputs(pairs: &dyn Dataset, settings: Value) -> Inputs {
        Inputs::new("adapt", "ab".into(), None, (pairs, json!("data")), settings)
    }

    /// Asks the network shard by shard, and writes files.
    fn write_shards(
        folder: &Path,
        of: usize,
        (labeller, pairs): (&Labeller, &Vec<Pair>),
        model: &mut dyn CrossViewModel,
    ) -> Vec<PathBuf> {
        let inputs = inputs(pairs, json!(labeller));
        let file = |index| {
            let shard = Shard { index, of };
            let samples = shard.samples(pairs, model.describe());
            let part = Subset {
                dataset: pairs,
                samples: &samples,
            };
            let never = Interrupt::default();
            let answers = recipe::answers(labeller, model, &part, &never).unwrap();
            let path = folder.join(format!("{}-of-{of}", index + 1));
            write(&path, &inputs, shard, &answers).unwrap();
            path
        };
        (0..of).map(file).collect()
    }

    #[test]
    fn numbers_of_shards_that_cannot_be_are_refused() {
        for text in [
            "0/2",
            "3/2",
            "1/65537",
            "1/18446744073709551615",
            "1",
            "a/b",
        ] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
        let folder = tempfile::tempdir().unwrap();
        let pairs = pairs(4);
        let path = folder.path().join("large");
        for of in [MOST_SHARDS + 1, usize::MAX] {
            let header = Header {
                inputs: inputs(&pairs, json!(1)),
                shard: Shard { index: 0, of },
                answers: 0,
            };
            std::fs::write(&path, serde_json::to_vec(&header).unwrap()).unwrap();
            let model = Ccvpe::new(preset("compact").unwrap(), 4).unwrap();
            let files = std::slice::from_ref(&path);
            let merged = merge(files, &inputs(&pairs, json!(1)), &pairs, model.describe());
            assert!(matches!(merged, Err(ShardError::Damaged { .. })));
        }
    }

    #[test]
    fn shards_count_from_one_and_cover_every_sample_once_in_whole_batches() {
        assert_eq!("1/1".parse(), Ok(Shard::WHOLE));
        assert_eq!("3/4".parse(), Ok(Shard { index: 2, of: 4 }));
        assert_eq!(Shard { index: 2, of: 4 }.to_string(), "3/4");
        for wrong in ["0/4", "5/4", "1", "a/b", "1/0", "0/0"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
        let spec = named("compact").unwrap().describe();
        for count in [0, 1, 16, 17, 50] {
            let pairs = pairs(count);
            for of in [1, 2, 3, 7] {
                let shards = (0..of).map(|index| Shard { index, of }.samples(&pairs, &spec));
                let shards: Vec<Vec<usize>> = shards.collect();
                let begins = shards.iter().filter_map(|samples| samples.first());
                assert!(
                    begins
                        .into_iter()
                        .all(|first| first % batch_size(&spec) == 0)
                );
                assert_eq!(shards.concat(), (0..count).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn merged_shards_label_and_adapt_to_the_bits_of_one_run() {
        let pairs = pairs(40);
        let folder = tempfile::tempdir().unwrap();
        let mut teacher = Ccvpe::new(preset("compact").unwrap(), 4).unwrap();
        let spec = teacher.describe().clone();
        let mut consensus = defaults::consensus(&spec);
        consensus.fit.steps = Some(1);
        consensus.gate.enforce = false;
        consensus.filter = recipe::Filter::KeepAll;
        let mut heatmaps = recipe::Recipe {
            labeller: Labeller::TeacherHeatmap(recipe::TeacherMode {
                prior: recipe::CoarsePrior::Ignored,
                heading: recipe::HeadingLabels::Given,
            }),
            ..consensus.clone()
        };
        heatmaps.fit.augmentation.symmetries = false;
        heatmaps.fit.augmentation.crop_jitter_m = 0.0;
        for recipe in [consensus, heatmaps] {
            let labeller = &recipe.labeller;
            let mut files = write_shards(folder.path(), 3, (labeller, &pairs), &mut teacher);
            files.rotate_left(1);
            let expected = inputs(&pairs, json!(labeller));
            let answers = merge(&files, &expected, &pairs, &spec).unwrap();
            let never = Interrupt::default();
            let run = RunContext {
                seed: 1,
                folder: None,
                resume: false,
                interrupt: &never,
                world: World::alone(),
            };
            let adapted = |shared: &mut Shared| {
                let adapted = recipe::adapt_sharing(&teacher, &pairs, &recipe, &run, shared);
                let adapted = adapted.unwrap();
                let arrays = crate::model::weights::arrays_of(adapted.student.as_ref());
                (adapted.labels, adapted.evidence, arrays)
            };
            let merged = adapted(&mut Shared::answered(answers));
            assert!(merged == adapted(&mut Shared::default()));
        }
    }

    #[test]
    fn merged_shards_measure_the_same() {
        let pairs = pairs(20);
        let mut model = Ccvpe::new(preset("compact").unwrap(), 4).unwrap();
        let spec = model.describe().clone();
        let never = Interrupt::default();
        let whole = crate::predict::predict(&mut model, &pairs, true, &never).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let labeller = Labeller::TeacherHeatmap(recipe::TeacherMode {
            prior: recipe::CoarsePrior::Ignored,
            heading: recipe::HeadingLabels::Given,
        });
        let files = write_shards(folder.path(), 2, (&labeller, &pairs), &mut model);
        let expected = inputs(&pairs, json!(labeller));
        let answers = merge(&files, &expected, &pairs, &spec).unwrap();
        let merged = answers.into_iter().map(|answer| answer.prediction);
        let merged: Vec<PairPrediction> = merged.collect();
        assert!(merged == whole);
        let rows = pairs.iter().map(|pair| {
            let place = pair.sample.centre;
            let row = json!({
                "id": pair.sample.id,
                "latitude_deg": place.latitude_deg,
                "longitude_deg": place.longitude_deg,
                "heading_deg": 90.0,
            });
            row.to_string() + "\n"
        });
        std::fs::write(folder.path().join("truth.jsonl"), rows.collect::<String>()).unwrap();
        let truth = crate::data::pairs::truth::Truth::open(folder.path()).unwrap();
        let [merged, whole] =
            [merged, whole].map(|found| temperature(&pairs, &found, &truth, &spec));
        assert!(merged.is_some() && merged == whole);
    }

    #[test]
    fn files_that_are_missing_twice_there_of_another_run_or_damaged_are_named() {
        let pairs = pairs(40);
        let folder = tempfile::tempdir().unwrap();
        let mut model = Ccvpe::new(preset("compact").unwrap(), 4).unwrap();
        let spec = model.describe().clone();
        let labeller = defaults::consensus(&spec).labeller;
        let files = write_shards(folder.path(), 3, (&labeller, &pairs), &mut model);
        let halves = write_shards(folder.path(), 2, (&labeller, &pairs), &mut model);
        let expected = inputs(&pairs, json!(labeller));
        let refused = |files: &[&PathBuf], expected: &Inputs| {
            let files: Vec<PathBuf> = files.iter().map(|path| (*path).clone()).collect();
            merge(&files, expected, &pairs, &spec).unwrap_err()
        };
        let [a, b, c] = [&files[0], &files[1], &files[2]];
        let missing = refused(&[c, a], &expected).to_string();
        assert!(missing.contains("no file has shard 2/3"), "{missing}");
        let twice = refused(&[a, b, a], &expected);
        assert!(matches!(twice, ShardError::Twice { .. }), "{twice}");
        let other_count = refused(&[a, &halves[1]], &expected).to_string();
        assert!(
            other_count.contains("2-of-2 is of another run"),
            "{other_count}"
        );
        let others = [
            (
                "version",
                Inputs {
                    version: "0".into(),
                    ..expected.clone()
                },
            ),
            (
                "model_sha256",
                Inputs {
                    model_sha256: "cd".into(),
                    ..expected.clone()
                },
            ),
            (
                "samples_sha256",
                inputs(&pairs[..39].to_vec(), json!(labeller)),
            ),
            ("settings", inputs(&pairs, json!("paper"))),
        ];
        for (name, other) in others {
            let foreign = refused(&[a, b, c], &other).to_string();
            assert!(foreign.contains("1-of-3 is of another run"), "{foreign}");
            assert!(foreign.contains(name), "{foreign}");
        }
        let elsewhere = Inputs {
            device: "a card".into(),
            ..expected.clone()
        };
        assert!(merge(&files, &elsewhere, &pairs, &spec).is_ok());
        let text = std::fs::read_to_string(b).unwrap();
        let here = format!("\"device\":\"{}\"", cpu_kind());
        let on_card = text.replace(&here, "\"device\":\"a card\"");
        std::fs::write(b, on_card).unwrap();
        let mixed = refused(&[a, b, c], &expected).to_string();
        assert!(
            mixed.contains("2-of-3 is of another run: its device"),
            "{mixed}"
        );
        let lines: Vec<&str> = text.lines().collect();
        for damaged in [
            "",
            "{}\n",
            &text[..text.len() - 40],
            &(lines[..5].join("\n") + "\n"),
        ] {
            std::fs::write(b, damaged).unwrap();
            let message = refused(&[a, b, c], &expected).to_string();
            assert!(message.contains("2-of-3: "), "{message}");
        }
        std::fs::remove_file(b).unwrap();
        let absent = refused(&[a, b, c], &expected);
        assert!(matches!(absent, ShardError::File { .. }), "{absent}");
    }
}
