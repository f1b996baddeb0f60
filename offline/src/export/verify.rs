//! Compares an exported file with the training engine, whole and cut as the daemon cuts it.

use super::{ExportError, LEFT_BIN_INPUT, seen_by};
use crate::model::weights::{Arrays, write_arrays};
use crate::model::{CrossViewModel, Extent, ForwardOptions, Input, ModelError};
use anyhow::Context;
use crossfix_calibration::{Geodetic, Heatmap, PatchGeoreference, RgbImage};
use crossfix_kernels::{Pixels, Tape, ops};
use crossfix_onboard::card::{CARD_KEY, StudentCard};
use crossfix_onboard::matcher::{GroundStrip, Inside, Matcher, TractMatcher};
use prost::Message;
use serde::Serialize;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use tract_onnx::pb::{GraphProto, ModelProto, ValueInfoProto};
use tract_onnx::prelude::*;

/// Largest difference between the exported file and the training engine.
///
/// Relative to the largest magnitude of each output.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Verification {
    /// Of the heatmap.
    pub max_relative_error_heatmap: f64,
    /// Of the orientation field, where the network gives one. Where the vector before its normalisation
    /// is all but zero, the last bits of the arithmetic turn the direction far.
    pub max_relative_error_orientation: Option<f64>,
    /// Of the vectors that the orientation is the direction of, where the network has them: a difference in
    /// direction counts in proportion to the vector's length, that of the longest one in full.
    pub max_relative_error_orientation_vectors: Option<f64>,
    /// Of the orientation at the heatmap's mode, around which driving reads it; 0 where the network
    /// gives none.
    pub max_error_orientation_at_mode: f64,
}

impl Verification {
    /// The larger of both.
    pub fn max_relative_error(&self) -> f64 {
        largest(
            self.max_relative_error_heatmap,
            self.max_relative_error_orientation.unwrap_or(0.0),
        )
    }

    /// Takes in the outputs for one sample of `samples`.
    fn compare(
        &mut self,
        outputs: &[Vec<f32>],
        expected: &Reference,
        sample: usize,
        samples: usize,
    ) {
        let heatmap = part(&expected.heatmaps, sample, samples);
        let worst = &mut self.max_relative_error_heatmap;
        *worst = largest(*worst, relative_error(&outputs[0], heatmap));
        let Some(orientations) = &expected.orientations else {
            return;
        };
        let (field, orientation) = (&outputs[1], part(orientations, sample, samples));
        let anywhere = relative_error(field, orientation);
        let vectors = match &expected.lengths {
            Some(lengths) => error_by_length(field, orientation, part(lengths, sample, samples)),
            None => anywhere,
        };
        for (worst, error) in [
            (&mut self.max_relative_error_orientation, anywhere),
            (&mut self.max_relative_error_orientation_vectors, vectors),
        ] {
            *worst = worst.map(|worst| largest(worst, error));
        }
        for at in [mode(heatmap), heatmap.len() + mode(heatmap)] {
            let found = field.get(at).copied().unwrap_or(f32::NAN);
            let worst = &mut self.max_error_orientation_at_mode;
            *worst = largest(*worst, f64::from((found - orientation[at]).abs()));
        }
    }
}

/// Runs the file at `path` with tract and compares it with `model` on every sample of `input`, both
/// as a whole and cut at its aerial features.
///
/// # Errors
/// [`ExportError`] when the file cannot be read or run.
pub fn verify_export(
    model: &dyn CrossViewModel,
    path: &Path,
    input: &Input,
) -> Result<Verification, ExportError> {
    let bytes = std::fs::read(path).map_err(|source| ExportError::File {
        path: path.into(),
        source,
    })?;
    let broken = |what: String| ExportError::Run {
        path: path.into(),
        what,
    };
    let proto = ModelProto::decode(bytes.as_slice()).map_err(|error| broken(error.to_string()))?;
    let card = proto
        .metadata_props
        .iter()
        .find(|entry| entry.key == CARD_KEY);
    let card = card.ok_or_else(|| broken(format!("it has no {CARD_KEY:?}")))?;
    let card = StudentCard::from_json(&card.value)?;
    let input = &seen_by(&card, model.describe(), input.clone());
    let expected = Reference::new(model, input, card.temperature)?;
    let student = Student::load(&proto, &card).map_err(|error| broken(format!("{error:#}")))?;
    let mut found = Verification {
        max_relative_error_heatmap: 0.0,
        max_relative_error_orientation: expected.orientations.as_ref().map(|_| 0.0),
        max_relative_error_orientation_vectors: expected.orientations.as_ref().map(|_| 0.0),
        max_error_orientation_at_mode: 0.0,
    };
    for sample in 0..input.len() {
        let both = student
            .run(input, sample)
            .map_err(|error| broken(format!("{error:#}")))?;
        for outputs in both {
            let wanted = 1 + usize::from(expected.orientations.is_some());
            if outputs.len() != wanted {
                let what = format!("it gives {} outputs instead of {wanted}", outputs.len());
                return Err(broken(what));
            }
            found.compare(&outputs, &expected, sample, input.len());
        }
    }
    Ok(found)
}

/// The largest difference of the first sample's heatmap over windows in the middle and in two corners from the same
/// cells of the whole heatmap, relative to the largest there, as the daemon's matcher computes both.
///
/// # Errors
/// [`ExportError::Run`] when the daemon cannot use the file or its window.
pub fn verify_window(path: &Path, input: &Input) -> Result<f64, ExportError> {
    let failed = |problem: &dyn std::fmt::Display| ExportError::Run {
        path: path.into(),
        what: problem.to_string(),
    };
    let mut matcher = TractMatcher::load(path).map_err(|error| failed(&error))?;
    let card = matcher.card().clone();
    let spec = card.aerial.patch_spec();
    let key = Geodetic::new(0.0, 0.0, 0.0)
        .and_then(|place| PatchGeoreference::exactly_at(place, spec))
        .map_err(|error| failed(&error))?
        .key();
    let (ground, aerial) = (picture(&input.ground)?, picture(&input.aerial)?);
    let strip = GroundStrip {
        image: &ground,
        left_azimuth_rad: card.ground.strip_spec(0.0).left_azimuth_rad,
    };
    let whole = matcher.match_frame(strip, key, &aerial);
    let whole = whole.map_err(|error| failed(&error))?;
    let reach_m = 0.45 * spec.side_m();
    let mut worst = 0.0;
    for offset_m in [[0.0; 2], [reach_m, -reach_m], [-reach_m, reach_m]] {
        let inside = Inside {
            offset_m,
            radius_m: 0.02 * spec.side_m(),
        };
        let found = matcher.match_inside(strip, key, &aerial, inside);
        let found = found.map_err(|error| failed(&error))?;
        let cells = found
            .part
            .ok_or_else(|| failed(&"its window is not used"))?;
        let of_cells = |heatmap: &Heatmap| -> Vec<f32> {
            let rows = cells.rows(card.heatmap.side);
            let values: Vec<f32> = rows
                .flat_map(|row| heatmap.probabilities()[row].to_vec())
                .collect();
            let sum: f64 = values.iter().map(|p| f64::from(*p)).sum();
            values
                .iter()
                .map(|p| (f64::from(*p) / sum) as f32)
                .collect()
        };
        let (part, expected) = (of_cells(&found.heatmap), of_cells(&whole.heatmap));
        worst = largest(worst, relative_error(&part, &expected));
    }
    Ok(worst)
}

/// The first picture of a table.
fn picture(images: &Pixels) -> Result<RgbImage, ModelError> {
    let [_, _, height, width] = images.shape();
    let bytes = images.host("export")?;
    let pixels = height * width;
    let values = (0..3 * pixels).map(|at| bytes[at % 3 * pixels + at / 3]);
    Ok(RgbImage {
        width,
        height,
        data: values.collect(),
    })
}

/// Writes what the training engine makes of `input`, so that others can compare their runtime: a
/// safetensors file with `ground` and `aerial` as given, `heatmap` `[N, side, side]`,
/// `orientation` `[N, 2, side, side]` where the network gives one, `orientation_length`
/// `[N, side, side]` of its vectors before their normalisation where it has them, and the left bins
/// where it needs them.
///
/// # Errors
/// [`ExportError::Model`] when the input doesn't fit or the file cannot be written.
pub fn write_parity(
    path: &Path,
    model: &dyn CrossViewModel,
    temperature: f64,
    input: &Input,
) -> Result<(), ExportError> {
    let expected = Reference::new(model, input, temperature)?;
    let (n, side) = (input.len(), model.describe().heatmap_side());
    let mut arrays = Arrays::from([
        ("ground".into(), array(&input.ground)?),
        ("aerial".into(), array(&input.aerial)?),
        ("heatmap".into(), (vec![n, side, side], expected.heatmaps)),
    ]);
    if let Some(orientations) = expected.orientations {
        let shape = vec![n, 2, side, side];
        arrays.insert("orientation".into(), (shape, orientations));
    }
    if let Some(lengths) = expected.lengths {
        let shape = vec![n, side, side];
        arrays.insert("orientation_length".into(), (shape, lengths));
    }
    if !input.ground_left_bin.is_empty() {
        let bins = input
            .ground_left_bin
            .iter()
            .map(|bin| *bin as f32)
            .collect();
        arrays.insert(LEFT_BIN_INPUT.into(), (vec![n], bins));
    }
    let text = serde_json::json!({ "preset": model.describe().preset, "temperature": temperature });
    Ok(write_arrays(path, &arrays, &text)?)
}

fn array(images: &Pixels) -> Result<(Vec<usize>, Vec<f32>), ModelError> {
    Ok((images.shape().to_vec(), numbers(images.host("export")?)))
}

/// Pixels as a graph takes them.
fn numbers(bytes: &[u8]) -> Vec<f32> {
    bytes.iter().copied().map(f32::from).collect()
}

/// What the training engine answers, one sample after the other: a graph sees one, and an optimiser
/// that starts anew draws from one list for a batch.
struct Reference {
    heatmaps: Vec<f32>,
    orientations: Option<Vec<f32>>,
    /// Of the vectors that the orientations are the directions of.
    lengths: Option<Vec<f32>>,
}

impl Reference {
    fn new(
        model: &dyn CrossViewModel,
        input: &Input,
        temperature: f64,
    ) -> Result<Self, ModelError> {
        let mut model = model.boxed_clone();
        let mut all = Self {
            heatmaps: Vec::new(),
            orientations: None,
            lengths: None,
        };
        for sample in 0..input.len() {
            let mut tape = Tape::inference();
            let options = ForwardOptions::evaluation(Extent::Everything);
            let prediction = model.forward(&mut tape, &only(input, sample)?, options)?;
            let missing = || ModelError::Input("the pass ended before the outputs".into());
            let logits = prediction.logits.ok_or_else(missing)?;
            let logits = ops::scale(&mut tape, &logits, (1.0 / temperature) as f32)?;
            all.heatmaps
                .extend(ops::softmax(&mut tape, &logits)?.to_vec()?);
            if let Some(field) = prediction.orientation {
                let orientations = all.orientations.get_or_insert_default();
                orientations.extend(field.to_vec()?);
            }
            if let Some(vectors) = prediction.orientation_vectors {
                let vectors = vectors.to_vec()?;
                let (cosines, sines) = vectors.split_at(vectors.len() / 2);
                let lengths = cosines.iter().zip(sines).map(|(c, s)| c.hypot(*s));
                all.lengths.get_or_insert_default().extend(lengths);
            }
        }
        Ok(all)
    }
}

/// One sample of a batch, which a graph sees as it is.
fn only(input: &Input, sample: usize) -> Result<Input, ModelError> {
    if input.augment.is_some() {
        return Err(ModelError::Input(
            "a graph takes images as they are, and these are to be augmented".into(),
        ));
    }
    let image = |images: &Pixels| {
        let [samples, channels, rows, columns] = images.shape();
        let data = part(images.host("export")?, sample, samples).to_vec();
        Pixels::new(data, [1, channels, rows, columns])
    };
    Ok(Input {
        ground: image(&input.ground)?,
        aerial: image(&input.aerial)?,
        augment: None,
        ground_left_bin: input
            .ground_left_bin
            .get(sample)
            .copied()
            .into_iter()
            .collect(),
        projections: input.projections.get(sample).copied().into_iter().collect(),
    })
}

/// The exported file in tract: whole, and in two halves.
struct Student {
    whole: Runnable,
    aerial: Runnable,
    ground: Runnable,
}

struct Runnable {
    inputs: Vec<String>,
    model: Arc<TypedRunnableModel>,
}

impl Student {
    fn load(proto: &ModelProto, card: &StudentCard) -> TractResult<Self> {
        let graph = proto.graph.as_ref().context("it has no graph")?;
        let features = &card.aerial_features;
        let announced = |name: &&String| graph.value_info.iter().find(|info| info.name == **name);
        let cuts: Vec<ValueInfoProto> = features
            .iter()
            .filter_map(|name| announced(&name))
            .cloned()
            .collect();
        let (aerial, others): (Vec<_>, Vec<_>) = graph
            .input
            .iter()
            .cloned()
            .partition(|input| input.name == "aerial");
        Ok(Self {
            whole: Runnable::load(proto, graph.clone())?,
            aerial: Runnable::load(proto, cut(graph, aerial, cuts.clone()))?,
            ground: Runnable::load(
                proto,
                cut(graph, [others, cuts].concat(), graph.output.clone()),
            )?,
        })
    }

    /// What the file gives, whole and through the halves.
    fn run(&self, input: &Input, sample: usize) -> TractResult<[Vec<Vec<f32>>; 2]> {
        let image = |images: &Pixels| {
            let [samples, channels, rows, columns] = images.shape();
            let data = numbers(part(images.host("export")?, sample, samples));
            Tensor::from_shape(&[1, channels, rows, columns], &data)
        };
        let mut known = vec![
            ("ground", image(&input.ground)?),
            ("aerial", image(&input.aerial)?),
        ];
        if let Some(bin) = input.ground_left_bin.get(sample) {
            known.push((LEFT_BIN_INPUT, tensor1(&[*bin as i64])));
        }
        let whole = self.whole.run(&known)?;
        let features = self.aerial.run(&known)?;
        let names = self
            .ground
            .inputs
            .iter()
            .filter(|name| known.iter().all(|(known, _)| known != name));
        let names: Vec<&str> = names.map(String::as_str).collect();
        known.extend(names.into_iter().zip(features));
        Ok([outputs(&whole)?, outputs(&self.ground.run(&known)?)?])
    }
}

impl Runnable {
    fn load(proto: &ModelProto, graph: GraphProto) -> TractResult<Self> {
        let inputs = graph.input.iter().map(|input| input.name.clone()).collect();
        let proto = ModelProto {
            graph: Some(graph),
            ..proto.clone()
        };
        let model = tract_onnx::onnx()
            .with_ignore_value_info(true)
            .parse(&proto, None)?
            .model;
        let model = model.into_optimized()?.into_runnable()?;
        Ok(Self { inputs, model })
    }

    fn run(&self, known: &[(&str, Tensor)]) -> TractResult<Vec<Tensor>> {
        let find = |name: &String| known.iter().find(|(known, _)| known == name);
        let inputs: Option<TVec<TValue>> = self
            .inputs
            .iter()
            .map(|name| find(name).map(|(_, tensor)| tensor.clone().into()))
            .collect();
        let outputs = self.model.run(inputs.context("an input is missing")?)?;
        Ok(outputs.into_iter().map(TValue::into_tensor).collect())
    }
}

fn outputs(tensors: &[Tensor]) -> TractResult<Vec<Vec<f32>>> {
    let floats = |tensor: &Tensor| -> TractResult<Vec<f32>> {
        Ok(tensor.try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
    };
    tensors.iter().map(floats).collect()
}

/// The part of `graph` that makes `output` out of `input`.
fn cut(graph: &GraphProto, input: Vec<ValueInfoProto>, output: Vec<ValueInfoProto>) -> GraphProto {
    let given: HashSet<&str> = input.iter().map(|value| value.name.as_str()).collect();
    let mut wanted: HashSet<&str> = output.iter().map(|value| value.name.as_str()).collect();
    let mut node = Vec::new();
    for maker in graph.node.iter().rev() {
        let needed =
            |name: &String| wanted.contains(name.as_str()) && !given.contains(name.as_str());
        if maker.output.iter().any(needed) {
            wanted.extend(maker.input.iter().map(String::as_str));
            node.push(maker.clone());
        }
    }
    node.reverse();
    let weights = graph.initializer.iter();
    GraphProto {
        name: graph.name.clone(),
        initializer: weights
            .filter(|weight| wanted.contains(weight.name.as_str()))
            .cloned()
            .collect(),
        node,
        input,
        output,
        ..GraphProto::default()
    }
}

/// The values of one sample of `samples`.
fn part<T>(data: &[T], sample: usize, samples: usize) -> &[T] {
    let length = data.len() / samples.max(1);
    &data[sample * length..(sample + 1) * length]
}

/// The cell of the largest value.
fn mode(heatmap: &[f32]) -> usize {
    let mode = (0..heatmap.len()).max_by(|a, b| heatmap[*a].total_cmp(&heatmap[*b]));
    mode.unwrap_or(0)
}

/// max |a - b| / max |b|; infinite when there is no number to compare.
fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    let size = expected
        .iter()
        .fold(0.0f32, |size, value| size.max(value.abs()));
    if found.len() != expected.len() || size == 0.0 {
        return f64::INFINITY;
    }
    let differences = found
        .iter()
        .zip(expected)
        .map(|(a, b)| f64::from((a - b).abs() / size));
    differences.fold(0.0, largest)
}

/// max |a - b| · length / max length over the directions `[2, cells]` of vectors of these lengths;
/// infinite when there is no number to compare.
fn error_by_length(found: &[f32], expected: &[f32], lengths: &[f32]) -> f64 {
    let longest = lengths
        .iter()
        .fold(0.0f32, |most, length| most.max(*length));
    if found.len() != expected.len() || found.len() != 2 * lengths.len() || longest == 0.0 {
        return f64::INFINITY;
    }
    let pairs = found.iter().zip(expected);
    let errors = pairs
        .zip(lengths.iter().chain(lengths))
        .map(|((a, b), length)| f64::from((a - b).abs() * (length / longest)));
    errors.fold(0.0, largest)
}

/// The larger one; infinite when either is not a number.
pub(super) fn largest(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        f64::INFINITY
    } else {
        a.max(b)
    }
}

#[cfg(test)]
mod tests;
