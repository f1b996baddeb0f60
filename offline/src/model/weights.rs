//! Weights as safetensors: arrays by name, and one JSON text that describes them.
//!
//! The text is the metadata entry `crossfix`: the network's table, how pixels are normalised,
//! where the weights came from and how good they were.

use super::{CrossViewModel, ModelError, NetworkKind, NetworkSpec, PIXEL_MEAN, PIXEL_SIGMA};
use crossfix_kernels::{Device, Tensor};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

/// Key of our JSON text among the metadata.
const METADATA_KEY: &str = "crossfix";
/// Files larger than this are refused before they are read.
const MOST_BYTES: u64 = 2 << 30;

/// The description in a weights file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(into = "WrittenHeader", try_from = "WrittenHeader")]
pub struct Header {
    /// Version of this header; ours is 1.
    pub format_version: u32,
    /// The network.
    pub spec: NetworkSpec,
    /// How pixels are normalised (inside the network).
    pub normalisation: Normalisation,
    /// How the weights were made: command, seed, hashes, metrics. Free form.
    pub provenance: Value,
}

/// A header as it stands in a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenHeader {
    format_version: u32,
    /// Files older than the second network name none.
    #[serde(default)]
    network: NetworkKind,
    spec: Value,
    normalisation: Normalisation,
    provenance: Value,
}

impl From<Header> for WrittenHeader {
    fn from(header: Header) -> Self {
        Self {
            format_version: header.format_version,
            network: header.spec.kind(),
            spec: serde_json::to_value(&header.spec).unwrap_or_default(),
            normalisation: header.normalisation,
            provenance: header.provenance,
        }
    }
}

impl TryFrom<WrittenHeader> for Header {
    type Error = serde_json::Error;

    fn try_from(written: WrittenHeader) -> Result<Self, Self::Error> {
        Ok(Self {
            format_version: written.format_version,
            spec: NetworkSpec::read(written.network, written.spec)?,
            normalisation: written.normalisation,
            provenance: written.provenance,
        })
    }
}

/// (pixel / 255 - mean) / sigma.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalisation {
    /// Mean of each channel, pixels in [0, 1].
    pub mean: [f32; 3],
    /// Standard deviation of each channel.
    pub sigma: [f32; 3],
}

impl Header {
    /// The header of a network made here.
    pub fn new(spec: NetworkSpec, provenance: Value) -> Self {
        let [mean, sigma] = match spec.kind() {
            NetworkKind::Ccvpe => [PIXEL_MEAN, PIXEL_SIGMA],
            NetworkKind::Ggcvt => [[0.0; 3], [1.0; 3]],
        };
        Self {
            format_version: 1,
            spec,
            normalisation: Normalisation { mean, sigma },
            provenance,
        }
    }
}

/// Named arrays, as a file holds them.
pub type Arrays = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// The numbers of `model`, which lies on any device, by name.
///
/// # Errors
/// [`ModelError::Kernel`] when the device failed.
pub fn arrays_from(model: &dyn CrossViewModel) -> Result<Arrays, ModelError> {
    if model.parameters().device() == Device::Cpu {
        return Ok(arrays_of(model));
    }
    let mut host = model.boxed_clone();
    host.parameters_mut().move_to(&Device::Cpu)?;
    Ok(arrays_of(host.as_ref()))
}

/// The numbers of `model`, which lies on the host, by name.
pub fn arrays_of(model: &dyn CrossViewModel) -> Arrays {
    let parameters = model.parameters();
    let mut arrays = Arrays::new();
    for parameter in parameters.all() {
        let value = &parameter.value;
        let array = (value.shape().to_vec(), value.data().to_vec());
        arrays.insert(parameter.name.clone(), array);
    }
    let statistics = parameters.all_statistics();
    for (name, statistics) in parameters.statistics_names().iter().zip(statistics) {
        let mean = (vec![statistics.mean.len()], statistics.mean.data().to_vec());
        let variance = (
            vec![statistics.variance.len()],
            statistics.variance.data().to_vec(),
        );
        arrays.insert(format!("{name}.running_mean"), mean);
        arrays.insert(format!("{name}.running_var"), variance);
    }
    arrays
}

/// Writes a network. The file appears whole or not at all.
///
/// # Errors
/// [`ModelError::Weights`] when it cannot be written.
pub fn save(path: &Path, model: &dyn CrossViewModel, provenance: Value) -> Result<(), ModelError> {
    let header = Header::new(model.table(), provenance);
    let text = serde_json::to_value(&header).map_err(|error| wrong(path, error))?;
    write_arrays(path, &arrays_from(model)?, &text)
}

/// Reads a network and its file's description of it.
///
/// # Errors
/// [`ModelError::Weights`] naming tensors that are missing, extra, or of another shape.
pub fn load(path: &Path) -> Result<(Box<dyn CrossViewModel>, Header), ModelError> {
    let (arrays, text) = read_arrays(path)?;
    let header: Header = serde_json::from_value(text).map_err(|error| {
        wrong(path, format!("the metadata is not a network's: {error}; was it made by `crossfix train`, `adapt` or `import`?"))
    })?;
    if header.format_version != 1 {
        let version = header.format_version;
        return Err(wrong(
            path,
            format!("format version {version}, this program reads 1; update it"),
        ));
    }
    let normalisation = Header::new(header.spec.clone(), Value::Null).normalisation;
    if header.normalisation != normalisation {
        return Err(wrong(
            path,
            "pixels are normalised in another way than this program does",
        ));
    }
    let mut model = header.spec.build(0).map_err(|error| wrong(path, error))?;
    fill(model.as_mut(), arrays, path)?;
    Ok((model, header))
}

/// Puts `arrays` into `model`, all or none.
///
/// # Errors
/// [`ModelError::Weights`] naming every kind of disagreement, with the first few names.
pub fn fill(
    model: &mut dyn CrossViewModel,
    mut arrays: Arrays,
    path: &Path,
) -> Result<(), ModelError> {
    let (mut missing, mut shapes, mut broken) = (Vec::new(), Vec::new(), Vec::new());
    let mut take = |name: &str, shape: &[usize]| match arrays.remove(name) {
        None => {
            missing.push(name.to_string());
            Vec::new()
        }
        Some((found, data)) => {
            if found != shape {
                shapes.push(format!("{name} (expected {shape:?}, found {found:?})"));
            }
            if !data.iter().all(|value| value.is_finite()) {
                broken.push(name.to_string());
            }
            data
        }
    };
    let parameters = model.parameters();
    let values: Vec<_> = parameters
        .all()
        .iter()
        .map(|p| (take(&p.name, p.value.shape()), p.value.shape().to_vec()))
        .collect();
    let names = parameters.statistics_names().iter();
    let statistics: Vec<_> = names
        .zip(parameters.all_statistics())
        .map(|(name, old)| {
            let mean = take(&format!("{name}.running_mean"), &[old.mean.len()]);
            (
                mean,
                take(&format!("{name}.running_var"), &[old.mean.len()]),
            )
        })
        .collect();
    if statistics
        .iter()
        .flat_map(|(_, variance)| variance)
        .any(|v| *v < 0.0)
    {
        broken.push("a running variance is negative".into());
    }
    let extra: Vec<String> = arrays.into_keys().collect();
    let mut problems = Vec::new();
    for (what, names) in [
        ("missing", missing),
        ("of another shape", shapes),
        ("not finite", broken),
        ("not part of this network", extra),
    ] {
        if !names.is_empty() {
            let more = names.len().saturating_sub(5);
            let first = names[..names.len().min(5)].join(", ");
            let tail = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            problems.push(format!("{} tensors {what}: {first}{tail}", names.len()));
        }
    }
    if !problems.is_empty() {
        let preset = &model.describe().preset;
        return Err(wrong(
            path,
            format!(
                "the tensors don't make a {preset:?} network: {}",
                problems.join("; ")
            ),
        ));
    }
    let parameters = model.parameters_mut();
    let device = parameters.device();
    for (slot, (data, shape)) in parameters.all_mut().iter_mut().zip(values) {
        slot.value = Tensor::new(data, &shape)?.with_gradient();
    }
    for (slot, (mean, variance)) in parameters.all_statistics_mut().iter_mut().zip(statistics) {
        let channels = [mean.len()];
        slot.mean = Tensor::new(mean, &channels)?;
        slot.variance = Tensor::new(variance, &channels)?;
    }
    Ok(parameters.move_to(&device)?)
}

/// Writes arrays and a JSON text as one safetensors file, whole or not at all.
///
/// # Errors
/// [`ModelError::Weights`] when it cannot be written.
pub fn write_arrays(path: &Path, arrays: &Arrays, text: &Value) -> Result<(), ModelError> {
    let bytes: Vec<(&str, &[usize], Vec<u8>)> = arrays
        .iter()
        .map(|(name, (shape, data))| {
            let bytes = data.iter().flat_map(|value| value.to_le_bytes()).collect();
            (name.as_str(), shape.as_slice(), bytes)
        })
        .collect();
    let mut views = Vec::with_capacity(bytes.len());
    for (name, shape, bytes) in &bytes {
        let view = TensorView::new(Dtype::F32, shape.to_vec(), bytes);
        views.push((*name, view.map_err(|error| wrong(path, error))?));
    }
    // One entry only: a map of several would be written in random order.
    let metadata = HashMap::from([(METADATA_KEY.to_string(), text.to_string())]);
    let file = safetensors::serialize(views, Some(metadata)).map_err(|error| wrong(path, error))?;
    write_whole(path, &file).map_err(|error| wrong(path, error))
}

/// Writes beside `path`, then renames, so that an interrupted write leaves the old file.
///
/// # Errors
/// The operating system's.
pub fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    let mut file = std::fs::File::create(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    std::fs::rename(&part, path)
}

/// Reads what [`write_arrays`] wrote.
///
/// # Errors
/// [`ModelError::Weights`] when the file is damaged, too large, or not ours.
pub fn read_arrays(path: &Path) -> Result<(Arrays, Value), ModelError> {
    let size = std::fs::metadata(path)
        .map_err(|error| wrong(path, error))?
        .len();
    if size > MOST_BYTES {
        return Err(wrong(
            path,
            format!("{size} bytes; weights have at most {MOST_BYTES}"),
        ));
    }
    let bytes = std::fs::read(path).map_err(|error| wrong(path, error))?;
    parse_arrays(&bytes).map_err(|what| wrong(path, what))
}

fn parse_arrays(bytes: &[u8]) -> Result<(Arrays, Value), String> {
    let damaged = |error: safetensors::SafeTensorError| {
        format!("not a whole safetensors file ({error}); copy it again")
    };
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
    let text = metadata
        .metadata()
        .as_ref()
        .and_then(|map| map.get(METADATA_KEY));
    let text = text.ok_or("no `crossfix` metadata: these weights were not made by this program; use `crossfix import`")?;
    let text = serde_json::from_str(text)
        .map_err(|error| format!("the `crossfix` metadata is not JSON: {error}"))?;
    let tensors = SafeTensors::deserialize(bytes).map_err(damaged)?;
    let mut arrays = Arrays::new();
    for (name, view) in tensors.tensors() {
        if view.dtype() != Dtype::F32 {
            return Err(format!(
                "tensor {name} has type {:?}; only F32 is read",
                view.dtype()
            ));
        }
        let data = view
            .data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        arrays.insert(name, (view.shape().to_vec(), data.collect()));
    }
    Ok((arrays, text))
}

fn wrong(path: &Path, what: impl std::fmt::Display) -> ModelError {
    ModelError::Weights {
        path: path.display().to_string(),
        what: what.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Ccvpe, named, preset};
    use super::*;
    use proptest::prelude::*;

    fn small_file() -> (tempfile::TempDir, std::path::PathBuf, Ccvpe) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights.safetensors");
        let model = Ccvpe::new(preset("compact").unwrap(), 7).unwrap();
        save(&path, &model, serde_json::json!({"seed": 7})).unwrap();
        (folder, path, model)
    }

    #[test]
    fn what_is_saved_is_loaded_to_the_bit() {
        let (_folder, path, model) = small_file();
        let (loaded, header) = load(&path).unwrap();
        assert_eq!(arrays_of(loaded.as_ref()), arrays_of(&model));
        assert_eq!(header.provenance["seed"], 7);
    }

    #[test]
    fn both_kinds_of_network_are_saved_and_loaded() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["compact-front", "ggcvt-compact"] {
            let path = folder.path().join(name);
            let model = named(name).unwrap().build(3).unwrap();
            save(&path, model.as_ref(), Value::Null).unwrap();
            let (loaded, header) = load(&path).unwrap();
            assert_eq!(header.spec, named(name).unwrap());
            assert_eq!(loaded.describe(), model.describe());
            assert_eq!(arrays_of(loaded.as_ref()), arrays_of(model.as_ref()));
        }
    }

    #[test]
    fn a_file_that_names_no_kind_holds_a_ccvpe_network() {
        let (_folder, path, _) = small_file();
        let (arrays, mut text) = read_arrays(&path).unwrap();
        assert_eq!(
            text.as_object_mut().unwrap().remove("network").unwrap(),
            "ccvpe"
        );
        write_arrays(&path, &arrays, &text).unwrap();
        assert_eq!(load(&path).unwrap().1.spec.kind(), NetworkKind::Ccvpe);
    }

    #[test]
    fn same_network_makes_the_same_file() {
        let (folder, path, model) = small_file();
        let again = folder.path().join("again.safetensors");
        save(&again, &model, serde_json::json!({"seed": 7})).unwrap();
        assert_eq!(std::fs::read(path).unwrap(), std::fs::read(again).unwrap());
    }

    #[test]
    fn missing_extra_and_misshapen_tensors_are_named() {
        let (_folder, path, model) = small_file();
        let (mut arrays, text) = read_arrays(&path).unwrap();
        arrays.remove("deconv1.bias");
        arrays.insert("surplus".into(), (vec![1], vec![0.0]));
        arrays.get_mut("deconv2.bias").unwrap().0 = vec![2, 12];
        arrays.get_mut("deconv3.bias").unwrap().1[0] = f32::NAN;
        write_arrays(&path, &arrays, &text).unwrap();
        let message = load(&path).err().unwrap().to_string();
        for name in [
            "deconv1.bias",
            "surplus",
            "deconv2.bias",
            "[2, 12]",
            "deconv3.bias",
        ] {
            assert!(message.contains(name), "{name} not in: {message}");
        }
        drop(model);
    }

    #[test]
    fn a_table_that_asks_for_too_much_memory_is_refused() {
        let mut spec = preset("compact").unwrap();
        spec.location[0].up = 8192;
        spec.location[0].hidden = 8192;
        assert!(Ccvpe::new(spec, 0).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn damaged_files_are_refused_without_panic(cut in 0usize..4096, at in 0usize..4096, byte: u8) {
            let arrays = Arrays::from([("a".to_string(), (vec![2], vec![1.0, 2.0]))]);
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("w");
            write_arrays(&path, &arrays, &serde_json::json!({"x": 1})).unwrap();
            let mut bytes = std::fs::read(&path).unwrap();
            let place = at % bytes.len();
            bytes[place] = byte;
            bytes.truncate(bytes.len() - cut % bytes.len());
            let _ = parse_arrays(&bytes);
        }
    }
}
