//! The files around the pickle: zip (torch 1.6 and later) and the legacy sequence before it; and safetensors,
//! which have none.

use super::Problem;
use super::pickle::{self, Element, Handle, Heap, Storage, TensorRef, Value};
use safetensors::{Dtype, SafeTensors};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;
use zip::{CompressionMethod, ZipArchive};

/// Larger files are refused.
const MOST_BYTES: u64 = 4 << 30;
/// Dicts inside dicts.
const MOST_DEPTH: usize = 6;
/// Entries looked at in all dicts together; shared dicts are seen once for each path to them.
const MOST_ENTRIES: usize = 1 << 18;
/// First object of a legacy file.
const LEGACY_MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;

/// An open checkpoint: its tensors by name, and where their numbers are.
pub struct Checkpoint {
    tensors: BTreeMap<String, TensorRef>,
    storages: Storages,
    format: &'static str,
}

enum Storages {
    Zip {
        archive: ZipArchive<BufReader<File>>,
        folder: String,
    },
    /// All of the file, and where each storage begins.
    Bytes {
        bytes: Vec<u8>,
        starts: HashMap<String, usize>,
    },
}

impl Checkpoint {
    /// Opens a file and lists its tensors. Their numbers are not read yet.
    ///
    /// # Errors
    /// [`Problem`] when the file cannot be read, is damaged or is not a state dict.
    pub fn open(path: &Path) -> Result<Self, Problem> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        if size > MOST_BYTES {
            let what = format!("it has {size} bytes, and {MOST_BYTES} are the most");
            return Err(Problem::Refused(what));
        }
        let mut start = [0; 9];
        let known = file.read(&mut start)?;
        file.rewind()?;
        match &start[..known] {
            [b'P', b'K', 3, 4, ..] => Self::zip(file, size),
            [0x80, ..] => Self::legacy(file, size),
            // The length of a header of less than 16 MB, and its beginning.
            [_, _, _, 0, 0, 0, 0, 0, b'{', ..] => Self::safetensors(file, size),
            _ => Err(Problem::Refused(
                "it is neither a zip nor a legacy PyTorch checkpoint, and no safetensors file"
                    .into(),
            )),
        }
    }

    fn zip(file: File, size: u64) -> Result<Self, Problem> {
        let mut archive = ZipArchive::new(BufReader::new(file)).map_err(damaged)?;
        let folders: Vec<String> = archive
            .file_names()
            .filter_map(|name| name.strip_suffix("data.pkl"))
            .filter(|folder| folder.is_empty() || folder.ends_with('/'))
            .map(str::to_string)
            .collect();
        let [folder] = &folders[..] else {
            return Err(Problem::Refused(
                "it is a zip without (or with more than) one data.pkl".into(),
            ));
        };
        let folder = folder.clone();
        let order = format!("{folder}byteorder");
        if archive.index_for_name(&order).is_some()
            && member(&mut archive, &order, 64)? != b"little"
        {
            return Err(Problem::Refused(
                "it was written on a big-endian machine".into(),
            ));
        }
        let most = size.min(pickle::MOST_BYTES as u64);
        let program = member(&mut archive, &format!("{folder}data.pkl"), most)?;
        let loaded = pickle::load(&program)?;
        Ok(Self {
            tensors: tensors(&loaded.heap, loaded.root)?,
            storages: Storages::Zip { archive, folder },
            format: "zip",
        })
    }

    /// Four pickles (magic number, version, facts about the machine, the object), one of the
    /// storages' names, then for each its length and numbers.
    fn legacy(mut file: File, size: u64) -> Result<Self, Problem> {
        let mut bytes = Vec::with_capacity(size as usize);
        file.read_to_end(&mut bytes)?;
        let mut at = 0;
        let mut next = || {
            let loaded = pickle::load(&bytes[at..])?;
            at += loaded.length;
            Ok::<_, Problem>(loaded)
        };
        let magic = next()?;
        if *magic.heap.get(magic.root) != Value::Int(LEGACY_MAGIC) {
            return Err(Problem::Refused(
                "it is a pickle, but not of PyTorch's".into(),
            ));
        }
        let version = next()?;
        if *version.heap.get(version.root) != Value::Int(1001) {
            return Err(Problem::Refused(
                "it is of an unknown legacy version".into(),
            ));
        }
        let machine = next()?;
        if lookup(&machine.heap, machine.root, "little_endian") == Some(&Value::Bool(false)) {
            return Err(Problem::Refused(
                "it was written on a big-endian machine".into(),
            ));
        }
        let object = next()?;
        let names = next()?;
        let elements: HashMap<&str, Element> = object
            .heap
            .values()
            .iter()
            .filter_map(|value| match value {
                Value::Storage(storage) => Some((storage.key.as_str(), storage.element)),
                _ => None,
            })
            .collect();
        let Value::List(list) = names.heap.get(names.root) else {
            return Err(Problem::Damaged("no list of storages".into()));
        };
        let mut starts = HashMap::new();
        for name in list {
            let Value::Text(name) = names.heap.get(*name) else {
                return Err(Problem::Damaged("a storage without a name".into()));
            };
            let short = || Problem::Damaged(format!("storage {name} ends early"));
            let length = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>());
            let length = usize::try_from(i64::from_le_bytes(*length.ok_or_else(short)?));
            let element = elements
                .get(name.as_str())
                .ok_or_else(|| Problem::Damaged(format!("storage {name} belongs to no tensor")))?;
            let start = at + 8;
            let end = length
                .ok()
                .and_then(|length| length.checked_mul(element.bytes()))
                .and_then(|length| length.checked_add(start))
                .filter(|end| *end <= bytes.len());
            at = end.ok_or_else(short)?;
            if starts.insert(name.clone(), start).is_some() {
                return Err(Problem::Damaged(format!("storage {name} is there twice")));
            }
        }
        let tensors = tensors(&object.heap, object.root)?;
        Ok(Self {
            tensors,
            storages: Storages::Bytes { bytes, starts },
            format: "legacy",
        })
    }

    fn safetensors(mut file: File, size: u64) -> Result<Self, Problem> {
        let mut bytes = Vec::with_capacity(size as usize);
        file.read_to_end(&mut bytes)?;
        let (header, metadata) = SafeTensors::read_metadata(&bytes).map_err(damaged)?;
        // Header length, header, numbers.
        let first = 8 + header;
        let (mut tensors, mut starts) = (BTreeMap::new(), HashMap::new());
        for (name, info) in metadata.tensors() {
            let element = match info.dtype {
                Dtype::F64 => Element::F64,
                Dtype::F32 => Element::F32,
                Dtype::F16 => Element::F16,
                Dtype::BF16 => Element::Bf16,
                Dtype::I64 => Element::I64,
                Dtype::I32 => Element::I32,
                Dtype::I16 => Element::I16,
                Dtype::I8 => Element::I8,
                Dtype::U8 => Element::U8,
                Dtype::BOOL => Element::Bool,
                other => {
                    let what = format!("{name} holds {other:?}; convert it to float32");
                    return Err(Problem::Refused(what));
                }
            };
            let shape = info.shape.clone();
            let mut stride = vec![1; shape.len()];
            for axis in (1..shape.len()).rev() {
                stride[axis - 1] = stride[axis] * shape[axis];
            }
            let storage = Storage {
                key: name.clone(),
                element,
                length: shape.iter().product(),
            };
            starts.insert(name.clone(), first + info.data_offsets.0);
            let tensor = TensorRef {
                storage,
                offset: 0,
                shape,
                stride,
            };
            tensors.insert(name, tensor);
        }
        Ok(Self {
            tensors,
            storages: Storages::Bytes { bytes, starts },
            format: "safetensors",
        })
    }

    /// `zip`, `legacy` or `safetensors`.
    pub fn format(&self) -> &'static str {
        self.format
    }

    /// Keeps one state dict under the names of a network: that under `key` (`model_ema`), or the one that holds
    /// most of the tensors that the network `is_known` to have, whatever stands before their names (`state_dict.`
    /// of a training checkpoint, `module.` of data-parallel training). Returns the names of all others, such as
    /// an optimiser's.
    ///
    /// # Errors
    /// [`Problem::Several`] when two of them hold equally many, [`Problem::Mismatch`] when `key` names nothing.
    pub fn choose(
        &mut self,
        is_known: impl Fn(&str) -> bool,
        key: Option<&str>,
    ) -> Result<Vec<String>, Problem> {
        let key = key.map_or(String::new(), |key| format!("{key}."));
        let mut found: BTreeMap<&str, usize> = BTreeMap::new();
        let mut any = false;
        for name in self.tensors.keys().filter(|name| name.starts_with(&key)) {
            any = true;
            let dots = name.match_indices('.').map(|(at, _)| at + 1);
            for at in std::iter::once(0).chain(dots).filter(|at| *at >= key.len()) {
                if is_known(&name[at..]) {
                    *found.entry(&name[..at]).or_default() += 1;
                }
            }
        }
        if !any && !key.is_empty() {
            let mut tops: Vec<&str> = self
                .tensors
                .keys()
                .filter_map(|n| n.split('.').next())
                .collect();
            tops.dedup();
            tops.truncate(20);
            return Err(Problem::Mismatch(format!(
                "nothing stands under {:?}; there are {}",
                key.trim_end_matches('.'),
                tops.join(", ")
            )));
        }
        let Some(most) = found.values().max().copied() else {
            return Ok(Vec::new());
        };
        let chosen = found.iter().filter(|(_, count)| **count == most);
        let chosen: Vec<String> = chosen.map(|(prefix, _)| (*prefix).to_owned()).collect();
        let [prefix] = &chosen[..] else {
            let keys = chosen
                .iter()
                .map(|prefix| match prefix.trim_end_matches('.') {
                    "" => "the file itself",
                    key => key,
                });
            return Err(Problem::Several(keys.collect::<Vec<_>>().join(", ")));
        };
        let mut others = Vec::new();
        for (name, tensor) in std::mem::take(&mut self.tensors) {
            match name.strip_prefix(prefix.as_str()) {
                Some(rest) => {
                    self.tensors.insert(rest.to_owned(), tensor);
                }
                None => others.push(name),
            }
        }
        Ok(others)
    }

    /// Names and shapes.
    pub fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        let tensors = self.tensors.iter();
        tensors
            .map(|(name, tensor)| (name.clone(), tensor.shape.clone()))
            .collect()
    }

    /// The numbers of the tensors that are `wanted`, row-major. Each storage is read once.
    ///
    /// # Errors
    /// [`Problem`] when a storage is not there, or not whole.
    pub fn read(
        &mut self,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<BTreeMap<String, Vec<f32>>, Problem> {
        let mut by_storage: BTreeMap<&str, Vec<(&String, &TensorRef)>> = BTreeMap::new();
        for (name, tensor) in self.tensors.iter().filter(|(name, _)| wanted(name)) {
            let key = tensor.storage.key.as_str();
            by_storage.entry(key).or_default().push((name, tensor));
        }
        let mut found = BTreeMap::new();
        for (key, tensors) in by_storage {
            let storage = &tensors[0].1.storage;
            if tensors.iter().any(|(_, tensor)| tensor.storage != *storage) {
                let what = format!("storage {key} is described in two ways");
                return Err(Problem::Damaged(what));
            }
            let length = storage.length * storage.element.bytes();
            let own;
            let bytes = match &mut self.storages {
                Storages::Zip { archive, folder } => {
                    own = member(archive, &format!("{folder}data/{key}"), length as u64)?;
                    own.as_slice()
                }
                Storages::Bytes { bytes, starts } => {
                    let start = starts.get(key).copied().unwrap_or(bytes.len());
                    bytes[start..].get(..length).unwrap_or_default()
                }
            };
            if bytes.len() != length {
                let what = format!("storage {key} has not its {length} bytes");
                return Err(Problem::Damaged(what));
            }
            for (name, tensor) in tensors {
                found.insert(name.clone(), numbers(tensor, bytes));
            }
        }
        Ok(found)
    }
}

/// One member of at most `most` bytes, stored as it is.
fn member(
    archive: &mut ZipArchive<BufReader<File>>,
    name: &str,
    most: u64,
) -> Result<Vec<u8>, Problem> {
    let file = archive.by_name(name).map_err(damaged)?;
    if file.compression() != CompressionMethod::Stored || file.size() > most {
        let what = format!("its member {name} is compressed or larger than {most} bytes");
        return Err(Problem::Refused(what));
    }
    let mut bytes = Vec::with_capacity(file.size() as usize);
    file.take(most).read_to_end(&mut bytes).map_err(damaged)?;
    Ok(bytes)
}

fn damaged(error: impl std::fmt::Display) -> Problem {
    Problem::Damaged(error.to_string())
}

fn lookup<'a>(heap: &'a Heap, dict: Handle, key: &str) -> Option<&'a Value> {
    let Value::Dict(entries) = heap.get(dict) else {
        return None;
    };
    let mut entries = entries.iter();
    let is_key = |name: Handle| matches!(heap.get(name), Value::Text(text) if text == key);
    entries
        .find(|(name, _)| is_key(*name))
        .map(|(_, value)| heap.get(*value))
}

/// Every tensor by its path through dicts inside dicts.
fn tensors(heap: &Heap, root: Handle) -> Result<BTreeMap<String, TensorRef>, Problem> {
    if !matches!(heap.get(root), Value::Dict(_)) {
        return Err(Problem::Refused("its object is not a dict".into()));
    }
    let mut found = BTreeMap::new();
    let mut budget = MOST_ENTRIES;
    walk(heap, root, "", 0, &mut budget, &mut found)?;
    Ok(found)
}

fn walk(
    heap: &Heap,
    handle: Handle,
    path: &str,
    depth: usize,
    budget: &mut usize,
    found: &mut BTreeMap<String, TensorRef>,
) -> Result<(), Problem> {
    match heap.get(handle) {
        Value::Tensor(tensor) if found.insert(path.to_string(), tensor.clone()).is_some() => {
            return Err(Problem::Damaged(format!("tensor {path} is there twice")));
        }
        Value::Dict(entries) => {
            if depth > MOST_DEPTH || entries.len() > *budget {
                return Err(Problem::Refused(
                    "its dicts are too deep or too many".into(),
                ));
            }
            *budget -= entries.len();
            for (key, value) in entries {
                let key = match heap.get(*key) {
                    Value::Text(text) => text.clone(),
                    Value::Int(number) => number.to_string(),
                    _ => continue,
                };
                let path = if depth == 0 {
                    key
                } else {
                    format!("{path}.{key}")
                };
                walk(heap, *value, &path, depth + 1, budget, found)?;
            }
        }
        // Epochs, settings and the like beside the tensors.
        _ => {}
    }
    Ok(())
}

/// The numbers of a tensor, row-major. Its view was checked to lie inside its storage.
fn numbers(tensor: &TensorRef, bytes: &[u8]) -> Vec<f32> {
    let element = tensor.storage.element;
    let size = element.bytes();
    let count = tensor.shape.iter().product();
    if count == 0 {
        // The view of nothing may begin anywhere, also behind the storage's end.
        return Vec::new();
    }
    let mut expected = 1;
    let contiguous = tensor
        .shape
        .iter()
        .zip(&tensor.stride)
        .rev()
        .all(|(axis, stride)| {
            let fits = *axis == 1 || *stride == expected;
            expected *= axis;
            fits
        });
    if contiguous {
        let bytes = &bytes[tensor.offset * size..][..count * size];
        return match element {
            Element::F32 => {
                let (numbers, _) = bytes.as_chunks::<4>();
                numbers.iter().map(|b| f32::from_le_bytes(*b)).collect()
            }
            _ => bytes
                .chunks_exact(size)
                .map(|b| number(element, b))
                .collect(),
        };
    }
    let mut index = vec![0; tensor.shape.len()];
    let mut values = Vec::with_capacity(count);
    for _ in 0..count {
        let steps = index.iter().zip(&tensor.stride);
        let at = tensor.offset + steps.map(|(index, stride)| index * stride).sum::<usize>();
        values.push(number(element, &bytes[at * size..][..size]));
        for axis in (0..index.len()).rev() {
            index[axis] += 1;
            if index[axis] < tensor.shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    values
}

/// One element, little-endian.
fn number(element: Element, bytes: &[u8]) -> f32 {
    let mut all = [0; 8];
    all[..bytes.len().min(8)].copy_from_slice(&bytes[..bytes.len().min(8)]);
    let bits = u64::from_le_bytes(all);
    match element {
        Element::F64 => f64::from_bits(bits) as f32,
        Element::F32 => f32::from_bits(bits as u32),
        Element::F16 => half::f16::from_bits(bits as u16).to_f32(),
        Element::Bf16 => half::bf16::from_bits(bits as u16).to_f32(),
        Element::I64 => bits as i64 as f32,
        Element::I32 => bits as i32 as f32,
        Element::I16 => bits as i16 as f32,
        Element::I8 => bits as i8 as f32,
        Element::U8 | Element::Bool => bits as f32,
    }
}

#[cfg(test)]
mod tests {
    use super::super::pickle::Storage;
    use super::*;

    #[test]
    fn a_view_of_nothing_may_begin_behind_its_storage() {
        let storage = Storage {
            key: "0".to_owned(),
            element: Element::F32,
            length: 0,
        };
        let tensor = TensorRef {
            storage,
            offset: 19,
            shape: vec![0, 3],
            stride: vec![3, 1],
        };
        assert!(numbers(&tensor, &[]).is_empty());
    }
}
