//! The file of one shard: JSON lines, the [`Inputs`] and the shard first, then a row for each sample with its name, then how many
//! rows there are and the SHA-256 of all bytes before. Rows are written as they are made, under another name until the file
//! is whole.

use super::{Answer, Inputs, MOST_SHARDS, Shard, ShardError};
use crate::data::{Dataset, Subset};
use crate::model::ModelSpec;
use crate::predict::{PairPrediction, batch_size};
use crate::run::hexadecimal;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crossfix_calibration::LogMap;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Version of the file's format.
pub const FORMAT: u32 = 2;
/// So many batches are answered before their rows are written.
const BATCHES_AT_A_TIME: usize = 16;
/// What the last line begins with.
const END: &[u8] = b"{\"rows\":";

/// The first line of a file.
#[derive(Serialize, Deserialize)]
struct Header {
    /// [`FORMAT`].
    format: u32,
    inputs: Inputs,
    shard: Shard,
}

/// The last line of a file.
#[derive(Serialize, Deserialize)]
struct End {
    rows: usize,
    /// Of all bytes before this line.
    sha256: String,
}

#[derive(Serialize, Deserialize)]
struct Row {
    /// Name of the sample.
    id: String,
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
    fn of(id: &str, answer: &Answer) -> Self {
        let heatmap = answer.prediction.heatmap.as_ref().map(|heatmap| {
            let bytes = heatmap.iter().flat_map(|value| value.to_le_bytes());
            STANDARD.encode(bytes.collect::<Vec<u8>>())
        });
        Self {
            id: id.into(),
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

/// Asks `ask` for the answers of a shard's samples, some whole batches at a time, and writes them as they come; how many
/// there were.
///
/// # Errors
/// [`ShardError::File`], and what `ask` says; then there is no file.
pub fn keep<E: From<ShardError>>(
    path: &Path,
    inputs: &Inputs,
    shard: Shard,
    (dataset, spec): (&dyn Dataset, &ModelSpec),
    mut ask: impl FnMut(&Subset) -> Result<Vec<Answer>, E>,
) -> Result<usize, E> {
    let samples = shard.samples(dataset, spec);
    let mut writer = Writer::create(path, inputs, shard)?;
    for samples in samples.chunks(batch_size(spec) * BATCHES_AT_A_TIME) {
        let answers = ask(&Subset { dataset, samples })?;
        for (index, answer) in samples.iter().zip(&answers) {
            writer.row(&dataset.sample(*index).id, answer)?;
        }
    }
    Ok(writer.finish()?)
}

/// A file that grows.
struct Writer {
    path: PathBuf,
    part: PathBuf,
    file: BufWriter<File>,
    hash: Sha256,
    rows: usize,
}

impl Writer {
    fn create(path: &Path, inputs: &Inputs, shard: Shard) -> Result<Self, ShardError> {
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".{}.part", std::process::id()));
        let part = path.with_file_name(name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(at(folder))?;
        }
        let file = File::create(&part).map_err(at(&part))?;
        let mut writer = Self {
            path: path.into(),
            part,
            file: BufWriter::new(file),
            hash: Sha256::new(),
            rows: 0,
        };
        let inputs = inputs.clone();
        let format = FORMAT;
        writer.line(&Header {
            format,
            inputs,
            shard,
        })?;
        Ok(writer)
    }

    fn line(&mut self, value: &impl Serialize) -> Result<Vec<u8>, ShardError> {
        let file = at(&self.path);
        let mut text = serde_json::to_vec(value).map_err(|error| file(error.into()))?;
        text.push(b'\n');
        self.hash.update(&text);
        self.file.write_all(&text).map_err(file)?;
        Ok(text)
    }

    fn row(&mut self, id: &str, answer: &Answer) -> Result<(), ShardError> {
        let text = self.line(&Row::of(id, answer))?;
        // JSON has no NaN: it would be written as nothing, and read as another answer.
        if serde_json::from_slice::<Row>(&text).is_err() {
            let what = format!("the network answers {id} with numbers that are not finite");
            let kind = std::io::ErrorKind::InvalidData;
            return Err(at(&self.path)(std::io::Error::new(kind, what)));
        }
        self.rows += 1;
        Ok(())
    }

    fn finish(mut self) -> Result<usize, ShardError> {
        let rows = self.rows;
        let sha256 = hexadecimal(&self.hash.clone().finalize());
        self.line(&End { rows, sha256 })?;
        let file = at(&self.path);
        self.file.flush().map_err(&file)?;
        self.file.get_ref().sync_all().map_err(&file)?;
        std::fs::rename(&self.part, &self.path).map_err(&file)?;
        Ok(rows)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Gone where it was finished.
        let _ = std::fs::remove_file(&self.part);
    }
}

fn at(path: &Path) -> impl Fn(std::io::Error) -> ShardError + use<> {
    let path = path.display().to_string();
    move |error| ShardError::File {
        path: path.clone(),
        error,
    }
}

/// One file; `expected` takes the device of the first.
pub(super) fn read(
    path: &Path,
    expected: &mut Inputs,
    is_first: bool,
    dataset: &dyn Dataset,
    spec: &ModelSpec,
) -> Result<(Shard, Vec<Answer>), ShardError> {
    let name = path.display().to_string();
    let damaged = |what: String| ShardError::Damaged {
        path: name.clone(),
        what,
    };
    let foreign = |what: String| ShardError::Foreign {
        path: name.clone(),
        what,
    };
    let mut file = BufReader::new(File::open(path).map_err(at(path))?);
    let mut hash = Sha256::new();
    let mut line = Vec::new();
    file.read_until(b'\n', &mut line).map_err(at(path))?;
    if let Ok(other) = serde_json::from_slice::<serde_json::Value>(&line)
        && other["inputs"].is_object()
        && other["format"] != FORMAT
    {
        let what = format!("its format is {}, not {FORMAT}", other["format"]);
        return Err(foreign(what));
    }
    let header: Header = serde_json::from_slice(&line)
        .map_err(|error| damaged(format!("it holds no answers of a shard ({error})")))?;
    let Header { inputs, shard, .. } = header;
    if !(1..=MOST_SHARDS).contains(&shard.of) || shard.index >= shard.of {
        return Err(damaged(format!("there is no shard {shard}")));
    }
    if is_first {
        expected.device.clone_from(&inputs.device);
    }
    if let Some(what) = inputs.difference(expected) {
        return Err(foreign(what));
    }
    let samples = shard.samples(dataset, spec);
    let mut answers = Vec::new();
    let end: End = loop {
        hash.update(&line);
        line.clear();
        file.read_until(b'\n', &mut line).map_err(at(path))?;
        let number = answers.len() + 2;
        if line.is_empty() {
            let what = format!("it ends after {} of {} rows", answers.len(), samples.len());
            return Err(damaged(what));
        }
        let wrong = |error| damaged(format!("line {number}: {error}"));
        if line.starts_with(END) {
            break serde_json::from_slice(&line).map_err(wrong)?;
        }
        let row: Row = serde_json::from_slice(&line).map_err(wrong)?;
        let expected = samples.get(answers.len());
        let expected = expected.map(|index| dataset.sample(*index).id.as_str());
        if expected != Some(row.id.as_str()) {
            let here = expected.unwrap_or("nothing more");
            return Err(damaged(format!(
                "line {number} is of {}, and {here} comes there: rows are missing, doubled or moved",
                row.id
            )));
        }
        let answer = row.answer();
        answers.push(answer.map_err(|what| damaged(format!("line {number}: {what}")))?);
    };
    line.clear();
    file.read_until(b'\n', &mut line).map_err(at(path))?;
    if !line.is_empty() {
        return Err(damaged("something follows its last line".into()));
    }
    if answers.len() != end.rows || answers.len() != samples.len() {
        let what = format!(
            "{} rows, and shard {shard} has {} samples",
            answers.len(),
            samples.len()
        );
        return Err(damaged(what));
    }
    let found = hexadecimal(&hash.finalize());
    if found != end.sha256 {
        return Err(damaged(format!(
            "its checksum is {found}, and {} was written: it was changed or damaged since",
            end.sha256
        )));
    }
    Ok((shard, answers))
}
