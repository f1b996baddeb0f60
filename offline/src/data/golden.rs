//! What the published loaders return for the small trees in `tests/data/golden`, or for those in
//! the folder that `CROSSFIX_GOLDENS` names.

use crate::model::{NetworkKind, PIXEL_MEAN, PIXEL_SIGMA};
use crossfix_kernels::Pixels;
use crossfix_kernels::ops::{self, Augment, Augmented, Normalisation};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One file of expectations, and the tree it is about.
pub struct Golden {
    /// The JSON.
    pub json: Value,
    /// The tree.
    pub tree: PathBuf,
    tensors: BTreeMap<String, Vec<f32>>,
}

impl Golden {
    /// Every file of this kind: the repository's copy when the named folder has none.
    pub fn all(kind: &str) -> Vec<Self> {
        let copy = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/golden");
        let named = std::env::var_os("CROSSFIX_GOLDENS").map(PathBuf::from);
        let found = named.map_or(Vec::new(), |folder| Self::in_folder(&folder, kind));
        let found = if found.is_empty() {
            Self::in_folder(Path::new(copy), kind)
        } else {
            found
        };
        assert!(!found.is_empty(), "no golden file of kind {kind}");
        found
    }

    fn in_folder(folder: &Path, kind: &str) -> Vec<Self> {
        let entries = std::fs::read_dir(folder).expect("the folder of goldens");
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
            .iter()
            .filter(|path| path.extension().is_some_and(|e| e == "json"))
            .filter_map(|path| Self::read(path, kind))
            .collect()
    }

    fn read(path: &Path, kind: &str) -> Option<Self> {
        let json: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        if json["kind"] != kind {
            return None;
        }
        let bytes = std::fs::read(path.with_extension("safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let tensors = file.tensors().into_iter().map(|(name, projection)| {
            let values = projection.data().chunks_exact(4);
            let values = values.map(|b| f32::from_le_bytes(b.try_into().unwrap()));
            (name, values.collect())
        });
        let tree = path.parent().unwrap().join(json["tree"].as_str().unwrap());
        Some(Self {
            tensors: tensors.collect(),
            tree,
            json,
        })
    }

    /// Compares what [`first_pass`] makes of an image with the strided sample of the published one and
    /// with its statistics. JPEG decoders differ by a level or two.
    pub fn check_image(&self, item: &Value, what: &str, values: &[f32]) {
        let name = format!("{}/{what}", item["name"].as_str().unwrap());
        let stride = item[format!("{what}_stride")].as_u64().unwrap() as usize;
        let expected = &self.tensors[&name];
        let found: Vec<f32> = values.iter().step_by(stride).copied().collect();
        assert_eq!(found.len(), expected.len(), "{name}");
        let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
        let largest = differences.clone().fold(0.0, f32::max);
        let mean = differences.sum::<f32>() / found.len() as f32;
        let jpeg = item["grd"]
            .as_str()
            .is_some_and(|path| path.ends_with(".jpg"))
            && what == "grd";
        let (most, most_mean) = if jpeg { (0.1, 0.01) } else { (1e-6, 1e-6) };
        assert!(
            largest < most && mean < most_mean,
            "{name}: largest {largest}, mean {mean}"
        );
        let sum: f64 = values.iter().map(|value| f64::from(*value)).sum();
        let expected = item[format!("{what}_stats")]["mean"].as_f64().unwrap();
        let mean = sum / values.len() as f64;
        assert!(
            (mean - expected).abs() < f64::from(most_mean) + 1e-7,
            "{name}: {mean} {expected}"
        );
    }

    /// Compares a ground truth map with the published one: its sum, its peak, and a patch of it.
    pub fn check_ground_truth(&self, item: &Value, map: &[f32]) {
        let name = item["name"].as_str().unwrap();
        let side = map.len().isqrt();
        let sum: f64 = map.iter().map(|value| f64::from(*value)).sum();
        let gt = &item["gt"];
        assert!(
            (sum - gt["sum"].as_f64().unwrap()).abs() < 1e-3,
            "{name}: {sum}"
        );
        let first = crate::predict::arg_max(map, |_| true).unwrap();
        let expected = [&gt["argmax_row"], &gt["argmax_col"]].map(|v| v.as_u64().unwrap() as usize);
        assert_eq!([first / side, first % side], expected, "{name}");
        let origin = item["gt_patch_origin"].as_array().unwrap();
        let [top, left] = [0, 1].map(|axis| origin[axis].as_u64().unwrap() as usize);
        for (index, expected) in self.tensors[&format!("{name}/gt_patch")].iter().enumerate() {
            let found = map[(top + index / 9) * side + left + index % 9];
            assert!(
                (found - expected).abs() < 1e-6,
                "{name}: {found} {expected}"
            );
        }
    }
}

/// An image `[3, rows, columns]` as a network's first pass changes it, normalised for CCVPE or 0 to
/// 1 for GGCVT.
pub fn first_pass(image: &[u8], columns: usize, augment: Augment, kind: NetworkKind) -> Vec<f32> {
    let (mean, sigma) = match kind {
        NetworkKind::Ccvpe => (PIXEL_MEAN, PIXEL_SIGMA),
        NetworkKind::Ggcvt => ([0.0; 3], [1.0; 3]),
    };
    let shape = [1, 3, image.len() / 3 / columns, columns];
    let pixels = Pixels::new(image.to_vec(), shape).unwrap();
    let how = Normalisation {
        mean,
        sigma,
        bf16: false,
    };
    let samples = &Augment::tensor(&[augment]);
    let wraps = true;
    let changed = ops::normalise_images(&pixels, &how, Some(Augmented { samples, wraps }));
    changed.unwrap().into_data()
}

/// The numbers of a JSON array.
pub fn numbers(value: &Value) -> Vec<f64> {
    let array = value.as_array().expect("an array");
    array.iter().map(|v| v.as_f64().unwrap()).collect()
}
