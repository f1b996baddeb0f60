//! Compares an exported file with the training engine, whole and cut as the daemon cuts it.

use super::{ExportError, LEFT_BIN_INPUT};
use crate::model::weights::{Arrays, write_arrays};
use crate::model::{CrossViewModel, Extent, ForwardOptions, Input, ModelError};
use anyhow::Context;
use crossfix_kernels::{Tape, ops};
use crossfix_onboard::card::{CARD_KEY, StudentCard};
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
    let (heatmaps, orientations) = reference(model, input, card.temperature)?;
    let student = Student::load(&proto, &card).map_err(|error| broken(format!("{error:#}")))?;
    let mut found = Verification {
        max_relative_error_heatmap: 0.0,
        max_relative_error_orientation: orientations.as_ref().map(|_| 0.0),
        max_error_orientation_at_mode: 0.0,
    };
    for sample in 0..input.len() {
        let both = student
            .run(input, sample)
            .map_err(|error| broken(format!("{error:#}")))?;
        for outputs in both {
            let wanted = 1 + usize::from(orientations.is_some());
            if outputs.len() != wanted {
                let what = format!("it gives {} outputs instead of {wanted}", outputs.len());
                return Err(broken(what));
            }
            let expected = part(&heatmaps, sample, input.len());
            let at_mode = [mode(expected), expected.len() + mode(expected)];
            let worst = &mut found.max_relative_error_heatmap;
            *worst = largest(*worst, relative_error(&outputs[0], expected));
            if let (Some(orientations), Some(worst)) =
                (&orientations, &mut found.max_relative_error_orientation)
            {
                let expected = part(orientations, sample, input.len());
                *worst = largest(*worst, relative_error(&outputs[1], expected));
                let worst = &mut found.max_error_orientation_at_mode;
                for at in at_mode {
                    let found = outputs[1].get(at).copied().unwrap_or(f32::NAN);
                    *worst = largest(*worst, f64::from((found - expected[at]).abs()));
                }
            }
        }
    }
    Ok(found)
}

/// Writes what the training engine makes of `input`, so that others can compare their runtime: a
/// safetensors file with `ground` and `aerial` as given, `heatmap` `[N, side, side]` and
/// `orientation` `[N, 2, side, side]` where the network gives one, and the left bins where it needs
/// them.
///
/// # Errors
/// [`ExportError::Model`] when the input doesn't fit or the file cannot be written.
pub fn write_parity(
    path: &Path,
    model: &dyn CrossViewModel,
    temperature: f64,
    input: &Input,
) -> Result<(), ExportError> {
    let (heatmap, orientation) = reference(model, input, temperature)?;
    let (n, side) = (input.len(), model.describe().heatmap_side());
    let mut arrays = Arrays::from([
        ("ground".into(), array(&input.ground)?),
        ("aerial".into(), array(&input.aerial)?),
        ("heatmap".into(), (vec![n, side, side], heatmap)),
    ]);
    if let Some(orientation) = orientation {
        let shape = vec![n, 2, side, side];
        arrays.insert("orientation".into(), (shape, orientation));
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

fn array(tensor: &crossfix_kernels::Tensor) -> Result<(Vec<usize>, Vec<f32>), ModelError> {
    Ok((tensor.shape().to_vec(), tensor.to_vec()?))
}

/// Heatmaps and, where there are any, orientation fields of the training engine, one sample after
/// the other.
fn reference(
    model: &dyn CrossViewModel,
    input: &Input,
    temperature: f64,
) -> Result<(Vec<f32>, Option<Vec<f32>>), ModelError> {
    let mut model = model.boxed_clone();
    let mut tape = Tape::inference();
    let options = ForwardOptions::evaluation(Extent::Everything);
    let prediction = model.forward(&mut tape, input, options)?;
    let missing = || ModelError::Input("the pass ended before the outputs".into());
    let logits = prediction.logits.ok_or_else(missing)?;
    let logits = ops::scale(&mut tape, &logits, (1.0 / temperature) as f32)?;
    let heatmap = ops::softmax(&mut tape, &logits)?;
    let orientation = prediction.orientation.map(|field| field.to_vec());
    Ok((heatmap.to_vec()?, orientation.transpose()?))
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
        let image = |tensor: &crossfix_kernels::Tensor| {
            let shape = tensor.shape();
            let data = part(tensor.host("export")?, sample, shape[0]);
            Tensor::from_shape(&[1, shape[1], shape[2], shape[3]], data)
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
fn part(data: &[f32], sample: usize, samples: usize) -> &[f32] {
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

/// The larger one; infinite when either is not a number.
pub(super) fn largest(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        f64::INFINITY
    } else {
        a.max(b)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{noise_input, student_card, write_onnx};
    use super::*;
    use crate::dataset::pose::{left_bin, strip_spec, yaw_from_heading};
    use crate::model::spec::{BlockKind, BlockSpec, CcvpeSpec, Padding};
    use crate::model::{Ccvpe, Ggcvt, GgcvtSpec, ggcvt, preset};
    use crossfix_calibration::{Geodetic, PatchGeoreference, PatchSpec, RgbImage};
    use crossfix_onboard::matcher::{GroundStrip, Matcher, TractMatcher};
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// A network whose batch norms do something.
    fn random_model(spec: CcvpeSpec, seed: u64) -> Ccvpe {
        let mut model = Ccvpe::new(spec, seed).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut draw = |old: &crossfix_kernels::Tensor, low: f32, high: f32| {
            let values = (0..old.len()).map(|_| rng.random_range(low..high));
            crossfix_kernels::Tensor::new(values.collect(), old.shape()).unwrap()
        };
        let parameters = model.parameters_mut();
        for statistics in parameters.all_statistics_mut() {
            statistics.mean = draw(&statistics.mean, -0.5, 0.5);
            statistics.variance = draw(&statistics.variance, 0.3, 2.0);
        }
        for parameter in parameters.all_mut() {
            let is_norm = parameter.name.contains("_bn");
            if !is_norm && !parameter.name.ends_with(".bias") {
                continue;
            }
            let middle = if is_norm && parameter.name.ends_with(".weight") {
                1.0
            } else {
                0.0
            };
            parameter.value = draw(&parameter.value, middle - 0.3, middle + 0.3).with_gradient();
        }
        model
    }

    fn exported(spec: CcvpeSpec, temperature: f64) -> Verification {
        verified(&random_model(spec, 3), temperature)
    }

    fn verified(model: &dyn CrossViewModel, temperature: f64) -> Verification {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("student.onnx");
        let card = student_card(model.describe(), temperature, "MIT");
        write_onnx(model, card, &path).unwrap();
        let input = noise_input(model.describe(), 2, 5).unwrap();
        verify_export(model, &path, &input).unwrap()
    }

    /// Room for directions of short vectors, which rounding turns the most.
    fn assert_same(found: Verification) {
        assert!(found.max_relative_error() <= 1e-4, "{found:?}");
    }

    #[test]
    fn compact_student_answers_as_in_training() {
        assert_same(exported(preset("compact").unwrap(), 1.0));
    }

    #[test]
    fn temperature_is_inside_the_graph() {
        assert_same(exported(preset("compact").unwrap(), 2.5));
    }

    #[test]
    fn front_student_answers_as_in_training() {
        assert_same(exported(preset("compact-front").unwrap(), 1.0));
    }

    /// A GGCVT network all of whose numbers do something.
    fn random_ggcvt(spec: GgcvtSpec, seed: u64) -> Ggcvt {
        let mut model = Ggcvt::new(spec, seed).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for parameter in model.parameters_mut().all_mut() {
            let table = parameter.name.ends_with("bias_table");
            if parameter.value.shape().len() > 1 && !table {
                continue;
            }
            let values = parameter.value.data().iter();
            let values = values.map(|value| value + rng.random_range(-0.3..0.3));
            let shape = parameter.value.shape().to_vec();
            parameter.value = crossfix_kernels::Tensor::new(values.collect(), &shape)
                .unwrap()
                .with_gradient();
        }
        model
    }

    #[test]
    fn a_ggcvt_with_a_panorama_answers_as_in_training() {
        let spec = ggcvt::preset("ggcvt-compact").unwrap();
        // The temperature of a trained one, and a sharp one, whose heatmap a small error bends.
        for temperature in [1.0, 0.05] {
            let found = verified(&random_ggcvt(spec.clone(), 3), temperature);
            assert_eq!(found.max_relative_error_orientation, None);
            assert_same(found);
        }
        // Several windows, an odd template and a whole sphere.
        let published = ggcvt::preset("ggcvt-vigor").unwrap();
        let small = GgcvtSpec {
            preset: "small".into(),
            ground_rows: 48,
            ground_columns: 96,
            aerial_px: 96,
            widths: [4, 6, 8],
            embedding: 6,
            window: 4,
            uncertainty: [4, 4],
            cross_width: 8,
            cross_heads: 2,
            templates: [5, 9, 19],
            unused_layers: false,
            ..published
        };
        assert_same(verified(&random_ggcvt(small, 4), 0.3));
    }

    #[test]
    fn a_ggcvt_that_no_graph_can_hold_is_refused_with_the_reason() {
        for (name, expected) in [
            ("ggcvt-kitti2", "the camera matrix of each picture"),
            ("ggcvt-kitti3", "its heading optimiser"),
        ] {
            let model = Ggcvt::new(ggcvt::preset(name).unwrap(), 0).unwrap();
            let card = student_card(model.describe(), 1.0, "MIT");
            let error = write_onnx(&model, card, Path::new("never.onnx")).unwrap_err();
            let error = error.to_string();
            assert!(error.contains(name) && error.contains(expected), "{error}");
        }
    }

    /// Squeeze-and-excite, skips, stem, head, mirrored borders, and a search of three bins.
    #[test]
    fn every_layer_of_the_published_networks_is_translated() {
        let mut spec = preset("compact").unwrap();
        let block = |expand, kernel, stride, channels| BlockSpec {
            kind: BlockKind::MbConv { expand },
            kernel,
            stride,
            channels,
        };
        spec.encoder.stem = Some(8);
        spec.encoder.head = Some(96);
        spec.encoder.blocks = vec![
            block(1, 3, 1, 12),
            block(2, 5, 2, 24),
            block(2, 3, 1, 24),
            block(2, 5, 2, 40),
            block(2, 3, 2, 80),
        ];
        for steps in [&mut spec.location, &mut spec.orientation] {
            steps[0].skip = Some(3);
            steps[2].skip = None;
        }
        spec.padding = Padding::Reflect;
        spec.orientation_prior = Some(1);
        assert_same(exported(spec.clone(), 1.0));
        spec.orientation_prior = None;
        spec.descriptor_cell = 2;
        for level in &mut spec.levels {
            level.grid /= 2;
        }
        let (location, orientation) = (spec.location.clone(), spec.orientation.clone());
        for steps in [&mut spec.location, &mut spec.orientation] {
            steps.iter_mut().for_each(|step| step.skip = None);
        }
        spec.location[1].skip = location[0].skip;
        spec.orientation[2].skip = orientation[1].skip;
        assert_same(exported(spec, 1.0));
    }

    /// Sample 0 of `[N, 3, H, W]` pixels.
    fn picture(images: &crossfix_kernels::Tensor) -> RgbImage {
        let [height, width] = [images.shape()[2], images.shape()[3]];
        let pixels = height * width;
        let values = (0..pixels).flat_map(|at| [0, 1, 2].map(|channel| channel * pixels + at));
        RgbImage {
            width,
            height,
            data: values.map(|at| images.data()[at] as u8).collect(),
        }
    }

    #[test]
    fn the_daemon_drives_with_what_was_exported() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("student.onnx");
        let model = random_model(preset("compact").unwrap(), 4);
        let card = student_card(model.describe(), 1.5, "MIT");
        let card = write_onnx(&model, card, &path).unwrap();
        let input = noise_input(model.describe(), 1, 6).unwrap();
        let mut matcher = TractMatcher::load(&path).unwrap();
        assert_eq!(matcher.card(), &card);
        let patch = PatchSpec {
            size_px: card.aerial.size_px,
            metres_per_pixel: card.aerial.metres_per_pixel,
        };
        let place = Geodetic::new(52.0, 4.0, 0.0).unwrap();
        let key = PatchGeoreference::exactly_at(place, patch).unwrap().key();
        let (image, patch) = (picture(&input.ground), picture(&input.aerial));
        let strip = GroundStrip {
            image: &image,
            left_azimuth_rad: card.ground.strip_spec(0.3).left_azimuth_rad,
        };
        let answer = matcher.match_frame(strip, key, &patch).unwrap();
        let (heatmap, _) = reference(&model, &input, 1.5).unwrap();
        assert!(relative_error(answer.heatmap.probabilities(), &heatmap) <= 1e-4);
        assert!(answer.yaw_residual_rad.is_some());
    }

    #[test]
    fn the_daemon_drives_with_a_ggcvt_and_hears_no_yaw_from_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("student.onnx");
        let model = random_ggcvt(ggcvt::preset("ggcvt-compact").unwrap(), 4);
        let card = student_card(model.describe(), 0.2, "MIT");
        let card = write_onnx(&model, card, &path).unwrap();
        assert!(card.heatmap.inner && card.aerial_features.len() == 2);
        let mut input = noise_input(model.describe(), 1, 6).unwrap();
        let mut matcher = TractMatcher::load(&path).unwrap();
        assert_eq!(matcher.card(), &card);
        let patch = PatchSpec {
            size_px: card.aerial.size_px,
            metres_per_pixel: card.aerial.metres_per_pixel,
        };
        let place = Geodetic::new(52.0, 4.0, 0.0).unwrap();
        let key = PatchGeoreference::exactly_at(place, patch).unwrap().key();
        let aerial = picture(&input.aerial);
        // The second time with the aerial features of the first, and another view.
        for seed in [7, 8] {
            input.ground = noise_input(model.describe(), 1, seed).unwrap().ground;
            let image = picture(&input.ground);
            let strip = GroundStrip {
                image: &image,
                left_azimuth_rad: card.ground.strip_spec(0.3).left_azimuth_rad,
            };
            let answer = matcher.match_frame(strip, key, &aerial).unwrap();
            let (heatmap, orientation) = reference(&model, &input, 0.2).unwrap();
            let found = answer.heatmap.probabilities();
            assert!(relative_error(found, &heatmap) <= 1e-4, "{seed}");
            assert_eq!((answer.yaw_residual_rad, orientation), (None, None));
            assert_eq!(answer.heatmap.side(), 49);
        }
    }

    #[test]
    fn the_daemon_drives_with_a_front_student_whichever_way_the_vehicle_heads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("student.onnx");
        let model = random_model(preset("compact-front").unwrap(), 7);
        let card = student_card(model.describe(), 1.0, "MIT");
        let card = write_onnx(&model, card, &path).unwrap();
        let mut input = noise_input(model.describe(), 1, 8).unwrap();
        let mut matcher = TractMatcher::load(&path).unwrap();
        assert_eq!(matcher.card(), &card);
        let patch = PatchSpec {
            size_px: card.aerial.size_px,
            metres_per_pixel: card.aerial.metres_per_pixel,
        };
        let place = Geodetic::new(52.0, 4.0, 0.0).unwrap();
        let key = PatchGeoreference::exactly_at(place, patch).unwrap().key();
        let (image, patch) = (picture(&input.ground), picture(&input.aerial));
        let mut seen: Vec<Vec<f32>> = Vec::new();
        for heading_deg in [0.0, 47.0, 90.0, 171.0, -140.0, -33.0] {
            let yaw_rad = yaw_from_heading(heading_deg);
            let training = strip_spec(model.describe(), yaw_rad);
            input.ground_left_bin = vec![left_bin(model.describe(), &training)];
            let (heatmap, _) = reference(&model, &input, 1.0).unwrap();
            // What the daemon cuts for this heading is what training cut.
            let driving = card.ground.strip_spec(yaw_rad);
            assert!((driving.left_azimuth_rad - training.left_azimuth_rad).abs() < 1e-9);
            assert!((driving.radians_per_pixel - training.radians_per_pixel).abs() < 1e-12);
            let strip = GroundStrip {
                image: &image,
                left_azimuth_rad: driving.left_azimuth_rad,
            };
            let answer = matcher.match_frame(strip, key, &patch).unwrap();
            let found = answer.heatmap.probabilities();
            assert!(relative_error(found, &heatmap) <= 1e-4, "{heading_deg}");
            assert!(seen.iter().all(|other| relative_error(found, other) > 1e-2));
            seen.push(heatmap);
        }
    }

    #[test]
    fn a_card_of_another_network_is_refused() {
        let model = Ccvpe::new(preset("compact").unwrap(), 0).unwrap();
        let mut card = student_card(model.describe(), 1.0, "MIT");
        card.heatmap.side = 32;
        let error = write_onnx(&model, card, Path::new("never.onnx")).unwrap_err();
        assert!(error.to_string().contains("heatmap.side"), "{error}");
    }

    #[test]
    fn a_missing_number_is_an_infinite_error() {
        assert!(relative_error(&[f32::NAN], &[1.0]).is_infinite());
        assert!(relative_error(&[1.0], &[1.0, 2.0]).is_infinite());
        assert!((relative_error(&[1.0, 3.0], &[2.0, 4.0]) - 0.25).abs() < 1e-9);
    }
}
