//! Runs the exported student with tract, in two halves.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crossfix_calibration::{Heatmap, Part, PatchKey, RgbImage};
use tracing::warn;
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::*;

use super::convolution::replace_convolutions;
use super::memory;
use super::onnx::Student;
use super::{GroundStrip, Inside, MatchError, MatchResult, MatchTimings, Matcher, ModelFile};
use crate::card::{HeatmapOutput, OrientationConvention, StudentCard, WindowOutput};
use crate::lru::Lru;
use crate::panics::quietly;
use crate::transport::file;

/// Most memory for the weights and intermediate results of a student, unless something else is said, MB.
pub const DEFAULT_MEMORY_MB: u64 = 4096;
/// Largest student that is read, in bytes.
const LARGEST_MODEL: u64 = 1 << 30;
/// Aerial features kept, in bytes; of a student with larger ones, those of two patches.
const FEATURE_BYTES: usize = 16 << 20;
/// How far the sum of a heatmap may be from 1 before it is called broken.
const SUM_TOLERANCE: f64 = 1e-2;

type Features = Arc<Vec<TValue>>;

/// An exported student in tract: the aerial half, remembered per patch, and the rest.
///
/// Batch 1, f32, on the calling thread. A student with a window is there twice, whole and over the window.
pub struct TractMatcher {
    card: StudentCard,
    file: Option<ModelFile>,
    aerial: Arc<TypedRunnableModel>,
    ground: Arc<TypedRunnableModel>,
    windowed: Option<Arc<TypedRunnableModel>>,
    features: Lru<PatchKey, Features>,
}

impl fmt::Debug for TractMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TractMatcher")
            .field("card", &self.card)
            .finish_non_exhaustive()
    }
}

impl TractMatcher {
    /// Loads `student.onnx`, checks it against its own card, and cuts it at the aerial features.
    ///
    /// # Errors
    /// [`MatchError`] with what is wrong with the file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, MatchError> {
        let path = path.as_ref();
        let bytes = Self::read(path)?;
        Self::from_bytes(&bytes, &path.display().to_string())
    }

    /// The bytes of a student's file, as far as a student can have.
    ///
    /// # Errors
    /// [`MatchError::Read`] when it is no regular file, too large or cannot be read.
    pub fn read(path: &Path) -> Result<Vec<u8>, MatchError> {
        file::read(path, LARGEST_MODEL).map_err(|error| MatchError::Read {
            path: path.to_owned(),
            source: error.into(),
        })
    }

    /// The same from bytes in memory; `name` is for messages.
    ///
    /// # Errors
    /// [`MatchError`] with what is wrong with the bytes.
    pub fn from_bytes(bytes: &[u8], name: &str) -> Result<Self, MatchError> {
        Self::within(bytes, name, DEFAULT_MEMORY_MB)
    }

    /// The same of a student that needs at most `memory_mb` MB for weights and intermediate results.
    ///
    /// # Errors
    /// [`MatchError`] with what is wrong with the bytes.
    pub fn within(bytes: &[u8], name: &str, memory_mb: u64) -> Result<Self, MatchError> {
        let student = Student::parse(bytes, name)?;
        let fail = |problem: String| MatchError::Model {
            name: name.to_owned(),
            problem,
        };
        let limit_bytes = memory_mb.saturating_mul(1 << 20);
        let aerial = student.aerial_part().map_err(fail)?;
        let aerial = runnable(&aerial, limit_bytes).map_err(fail)?;
        let shapes = output_shapes(&aerial).map_err(fail)?;
        let floats = shapes.iter().map(|shape| shape.iter().product::<usize>());
        let feature_bytes = floats.sum::<usize>() * size_of::<f32>();
        let ground = student.ground_part(&shapes).map_err(fail)?;
        let ground = runnable(&ground, limit_bytes).map_err(fail)?;
        let windowed = student.window_part(&shapes).transpose().map_err(fail)?;
        let windowed = windowed.map(|part| runnable(&part, limit_bytes));
        let windowed = windowed.transpose().map_err(fail)?;
        if let (
            Some(windowed),
            Some(WindowOutput {
                side,
                orientation_side,
            }),
        ) = (&windowed, student.card.window)
        {
            let expected = vec![
                vec![1, side, side],
                vec![1, 2, orientation_side, orientation_side],
                vec![2],
            ];
            let actual = output_shapes(windowed).map_err(fail)?;
            if actual != expected {
                return Err(fail(format!(
                    "answers over a window as {actual:?}, and its card means {expected:?}"
                )));
            }
        }
        let side = student.card.heatmap.side;
        let expected = [vec![1, side, side], vec![1, 2, side, side]];
        let outputs = student.card.outputs().iter();
        for ((name, expected), actual) in outputs
            .zip(expected)
            .zip(output_shapes(&ground).map_err(fail)?)
        {
            if actual != expected {
                return Err(fail(format!(
                    "answers `{name}` as {actual:?}, and its card means {expected:?}"
                )));
            }
        }
        Ok(Self {
            card: student.card,
            file: None,
            aerial,
            ground,
            windowed,
            features: Lru::new(FEATURE_BYTES.max(2 * feature_bytes)),
        })
    }

    /// The same, from this file.
    pub fn of_file(self, file: ModelFile) -> Self {
        Self {
            file: Some(file),
            ..self
        }
    }

    /// Forgets the aerial features of all patches: the next ones may show something else at the same place.
    pub fn forget_patches(&mut self) {
        self.features.clear();
    }

    fn features(&mut self, key: PatchKey, patch: &RgbImage) -> Result<Features, MatchError> {
        if let Some(features) = self.features.get(&key) {
            return Ok(features);
        }
        let features = run(&self.aerial, tvec!(planar(patch)?.into()))?;
        let weight = features
            .iter()
            .map(|feature| feature.len() * size_of::<f32>())
            .sum();
        let features = Arc::new(features.to_vec());
        self.features.insert(key, features.clone(), weight);
        Ok(features)
    }

    /// What the network answers, over the whole patch or with this model over the window at that column and row.
    fn answer(
        &mut self,
        strip: GroundStrip<'_>,
        key: PatchKey,
        patch: &RgbImage,
        window: Option<(Arc<TypedRunnableModel>, [usize; 2])>,
    ) -> Result<(TVec<TValue>, MatchTimings), MatchError> {
        let size_px = self.card.aerial.size_px;
        let ground = self.card.ground;
        check_size("ground", strip.image, [ground.columns, ground.rows])?;
        check_size("aerial", patch, [size_px, size_px])?;
        let left_bin =
            ground
                .left_bin(strip.left_azimuth_rad)
                .ok_or_else(|| MatchError::Direction {
                    left_azimuth_deg: strip.left_azimuth_rad.to_degrees(),
                    bin_deg: 360.0 / ground.orientation_bins.unwrap_or(1) as f64,
                })?;
        let start = Instant::now();
        let features = self.features(key, patch)?;
        let aerial = start.elapsed();
        let mut inputs: TVec<TValue> = tvec!(planar(strip.image)?.into());
        if ground.orientation_bins.is_some() {
            inputs.push(tensor1(&[left_bin as i64]).into());
        }
        inputs.extend(features.iter().cloned());
        let outputs = if let Some((model, [column, row])) = window {
            inputs.push(tensor1(&[row as i64, column as i64]).into());
            run(&model, inputs)?
        } else {
            run(&self.ground, inputs)?
        };
        let timings = MatchTimings {
            aerial,
            ground_and_matching: start.elapsed().checked_sub(aerial).unwrap(),
        };
        Ok((outputs, timings))
    }

    /// What the windowed part makes of these cells.
    fn answer_part(
        &mut self,
        strip: GroundStrip<'_>,
        key: PatchKey,
        patch: &RgbImage,
        part: Part,
        model: Arc<TypedRunnableModel>,
    ) -> Result<MatchResult, MatchError> {
        let window = Some((model, part.corner));
        let (outputs, timings) = self.answer(strip, key, patch, window)?;
        let output = self.card.heatmap;
        let within = floats(&outputs[0])?;
        let heatmap = Heatmap::of_part(output.side, output.metres_per_cell, part, within);
        let heatmap = heatmap.map_err(|error| MatchError::Run(error.to_string()))?;
        let corner = floats(&outputs[2])?;
        let corner = [corner[1], corner[0]].map(|cell| cell as usize);
        Ok(MatchResult {
            yaw_residual_rad: yaw_residual(floats(&outputs[1])?, corner, &heatmap),
            heatmap,
            part: Some(part),
            timings,
        })
    }
}

impl Matcher for TractMatcher {
    fn card(&self) -> &StudentCard {
        &self.card
    }

    fn file(&self) -> Option<&ModelFile> {
        self.file.as_ref()
    }

    fn match_frame(
        &mut self,
        strip: GroundStrip<'_>,
        key: PatchKey,
        patch: &RgbImage,
    ) -> Result<MatchResult, MatchError> {
        let (outputs, timings) = self.answer(strip, key, patch, None)?;
        let heatmap = heatmap(floats(&outputs[0])?, &self.card)?;
        let yaw_residual_rad = match self.card.orientation {
            OrientationConvention::YawResidual => {
                yaw_residual(floats(&outputs[1])?, [0, 0], &heatmap)
            }
            OrientationConvention::None => None,
        };
        Ok(MatchResult {
            heatmap,
            yaw_residual_rad,
            part: None,
            timings,
        })
    }

    fn match_inside(
        &mut self,
        strip: GroundStrip<'_>,
        key: PatchKey,
        patch: &RgbImage,
        inside: Inside,
    ) -> Result<MatchResult, MatchError> {
        let window = self.card.window.zip(self.windowed.clone());
        let Some((WindowOutput { side, .. }, model)) = window else {
            return self.match_frame(strip, key, patch);
        };
        let Some(corner) = window_start(self.card.heatmap, side, inside) else {
            return self.match_frame(strip, key, patch);
        };
        let part = Part { corner, side };
        match self.answer_part(strip, key, patch, part, model) {
            Err(MatchError::Run(problem)) => {
                warn!(
                    problem,
                    "the student's window fails; the whole patch is used from now on"
                );
                self.windowed = None;
                self.match_frame(strip, key, patch)
            }
            answered => answered,
        }
    }
}

/// Column and row of the heatmap where a window of `side` cells around a circle begins; none where it does
/// not hold the circle.
fn window_start(heatmap: HeatmapOutput, side: usize, inside: Inside) -> Option<[usize; 2]> {
    let half = heatmap.side as f64 / 2.0;
    let [east, north] = inside
        .offset_m
        .map(|offset| offset / heatmap.metres_per_cell);
    let radius = inside.radius_m / heatmap.metres_per_cell;
    let start = |centre: f64| -> Option<usize> {
        let last = (heatmap.side - side) as f64;
        let start = (centre - side as f64 / 2.0).round().clamp(0.0, last);
        // Written so that NaN is outside.
        let holds = start <= centre - radius && centre + radius <= start + side as f64;
        holds.then_some(start as usize)
    };
    Some([start(half + east)?, start(half - north)?])
}

/// Optimises a model that fits into this memory and makes it ready to run.
fn runnable(model: &ModelProto, limit_bytes: u64) -> Result<Arc<TypedRunnableModel>, String> {
    let built = quietly("tract", || -> TractResult<_> {
        let mut inference = tract_onnx::onnx()
            .with_ignore_value_info(true)
            .parse(model, None)?;
        if !inference.unresolved_inputs.is_empty() {
            anyhow::bail!("unresolved inputs {:?}", inference.unresolved_inputs);
        }
        memory::check(&mut inference.model, limit_bytes).map_err(anyhow::Error::msg)?;
        let mut model = inference.model.into_typed()?.into_decluttered()?;
        replace_convolutions(&mut model)?;
        model.into_optimized()?.into_runnable()
    });
    match built {
        Ok(Ok(model)) => Ok(model),
        Ok(Err(e)) => Err(format!("cannot be built ({e:#})")),
        Err(panic) => Err(format!("cannot be built ({panic})")),
    }
}

fn run(model: &Arc<TypedRunnableModel>, inputs: TVec<TValue>) -> Result<TVec<TValue>, MatchError> {
    match quietly("tract", || model.run(inputs)) {
        Ok(Ok(outputs)) => Ok(outputs),
        Ok(Err(e)) => Err(MatchError::Run(format!("{e:#}"))),
        Err(panic) => Err(MatchError::Run(panic)),
    }
}

fn output_shapes(model: &Arc<TypedRunnableModel>) -> Result<Vec<Vec<usize>>, String> {
    let model = model.model();
    model
        .outputs
        .iter()
        .map(|outlet| {
            let fact = model.outlet_fact(*outlet).map_err(|e| e.to_string())?;
            if fact.datum_type != f32::datum_type() {
                return Err(format!(
                    "answers {:?}, and a student answers f32",
                    fact.datum_type
                ));
            }
            let shape = fact.shape.as_concrete().map(<[usize]>::to_vec);
            shape.ok_or_else(|| {
                format!(
                    "answers a shape that depends on its input ({:?})",
                    fact.shape
                )
            })
        })
        .collect()
}

fn check_size(
    what: &'static str,
    image: &RgbImage,
    expected: [usize; 2],
) -> Result<(), MatchError> {
    let actual = [image.width, image.height];
    if actual != expected || image.data.len() != 3 * actual[0] * actual[1] {
        return Err(MatchError::Input {
            what,
            actual,
            expected,
        });
    }
    Ok(())
}

/// Interleaved bytes to `[1, 3, H, W]` floats from 0 to 255.
fn planar(image: &RgbImage) -> Result<Tensor, MatchError> {
    let pixels = image.width * image.height;
    let mut planes = vec![0f32; 3 * pixels];
    for (i, pixel) in image.data.chunks_exact(3).enumerate() {
        for (channel, &value) in pixel.iter().enumerate() {
            planes[channel * pixels + i] = f32::from(value);
        }
    }
    Tensor::from_shape(&[1, 3, image.height, image.width], &planes)
        .map_err(|e| MatchError::Run(e.to_string()))
}

fn floats(value: &TValue) -> Result<&[f32], MatchError> {
    value
        .try_as_plain_ram()
        .and_then(|plain| plain.as_slice::<f32>())
        .map_err(|e| MatchError::Run(e.to_string()))
}

/// Renormalised in f64, since the graph sums 4096 f32.
fn heatmap(probabilities: &[f32], card: &StudentCard) -> Result<Heatmap, MatchError> {
    let sum: f64 = probabilities.iter().map(|&p| f64::from(p)).sum();
    if (sum - 1.0).abs() > SUM_TOLERANCE || probabilities.iter().any(|p| *p < 0.0) {
        return Err(MatchError::Run(format!(
            "its heatmap sums to {sum}, not to 1"
        )));
    }
    let probabilities = probabilities
        .iter()
        .map(|&p| (f64::from(p) / sum) as f32)
        .collect();
    Heatmap::new(
        card.heatmap.side,
        card.heatmap.metres_per_cell,
        probabilities,
    )
    .map_err(|e| MatchError::Run(e.to_string()))
}

/// The angle of the mean (cosine, sine) over the mode and its neighbours, weighted by probability. The field
/// is a square whose first cell has column and row `corner`.
fn yaw_residual(orientation: &[f32], corner: [usize; 2], heatmap: &Heatmap) -> Option<f64> {
    let side = heatmap.side();
    let [col, row] = heatmap.mode().cell;
    let cells = orientation.len() / 2;
    let field_side = cells.isqrt();
    let (mut cosine, mut sine) = (0.0, 0.0);
    for r in row.saturating_sub(1)..(row + 2).min(side) {
        for c in col.saturating_sub(1)..(col + 2).min(side) {
            let at = [r.checked_sub(corner[1])?, c.checked_sub(corner[0])?];
            if at.iter().any(|at| *at >= field_side) {
                return None;
            }
            let at = at[0] * field_side + at[1];
            let weight = f64::from(heatmap.probabilities()[r * side + c]);
            cosine += weight * f64::from(orientation[at]);
            sine += weight * f64::from(orientation[cells + at]);
        }
    }
    let angle = sine.atan2(cosine);
    (cosine.hypot(sine) > 0.0 && angle.is_finite()).then_some(angle)
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use super::*;
    use crate::matcher::tiny::{Tiny, encode, key};

    fn picture(width: usize, height: usize, value: impl Fn(usize, usize, usize) -> u8) -> RgbImage {
        let mut image = RgbImage::black(width, height);
        for (i, byte) in image.data.iter_mut().enumerate() {
            let pixel = i / 3;
            *byte = value(pixel % width, pixel / width, i % 3);
        }
        image
    }

    /// A patch that is bright in one cell, in the red channel.
    fn patch(col: usize, row: usize) -> RgbImage {
        picture(8, 8, |c, r, channel| {
            if (c, r, channel) == (col, row, 0) {
                200
            } else {
                10
            }
        })
    }

    fn grey() -> RgbImage {
        picture(8, 4, |_, _, _| 100)
    }

    /// A panorama, north in its centre.
    fn south(image: &RgbImage) -> GroundStrip<'_> {
        GroundStrip {
            image,
            left_azimuth_rad: -PI,
        }
    }

    #[test]
    fn the_two_halves_together_are_the_whole_graph() {
        let mut matcher = TractMatcher::from_bytes(&encode(&Tiny::default()), "tiny").unwrap();
        let result = matcher
            .match_frame(south(&grey()), key(0), &patch(5, 2))
            .unwrap();
        assert_eq!(result.heatmap.mode().cell, [5, 2]);
        // Logits are aerial red × mean ground / 1000: 20 at the mode and 1 in the other 63 cells.
        let expected = 1.0 / (1.0 + 63.0 * (-19f64).exp());
        assert!((f64::from(result.heatmap.mode().probability) - expected).abs() < 1e-6);
        // The tiny student answers cos = 0.3 and sin = 0.4 everywhere.
        assert!((result.yaw_residual_rad.unwrap() - 0.4f64.atan2(0.3)).abs() < 1e-6);
    }

    #[test]
    fn aerial_features_are_computed_once_per_patch() {
        let mut matcher = TractMatcher::from_bytes(&encode(&Tiny::default()), "tiny").unwrap();
        let first = matcher
            .match_frame(south(&grey()), key(0), &patch(5, 2))
            .unwrap();
        // Another picture under the same key is not looked at.
        let cached = matcher
            .match_frame(south(&grey()), key(0), &patch(1, 1))
            .unwrap();
        assert_eq!(first.heatmap, cached.heatmap);
        let other = matcher
            .match_frame(south(&grey()), key(1), &patch(1, 1))
            .unwrap();
        assert_eq!(other.heatmap.mode().cell, [1, 1]);
    }

    #[test]
    fn pictures_of_other_sizes_are_refused_with_both_sizes() {
        let mut matcher = TractMatcher::from_bytes(&encode(&Tiny::default()), "tiny").unwrap();
        let error = matcher
            .match_frame(south(&patch(0, 0)), key(0), &patch(0, 0))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("ground") && error.contains("[8, 8]") && error.contains("[8, 4]"),
            "{error}"
        );
        let mut short = grey();
        short.data.pop();
        let found = matcher.match_frame(south(&short), key(0), &patch(0, 0));
        assert!(matches!(found, Err(MatchError::Input { .. })));
    }

    /// The tiny student as one that sees half of the circle: its logits grow with the square of the
    /// left bin.
    fn front(spoil: impl Fn(&mut Tiny)) -> Result<TractMatcher, MatchError> {
        let mut tiny = Tiny::front();
        spoil(&mut tiny);
        TractMatcher::from_bytes(&encode(&tiny), "front.onnx")
    }

    #[test]
    fn a_front_student_is_told_on_which_bin_its_strip_begins() {
        let mut matcher = front(|_| ()).unwrap();
        let bin_rad = PI / 2.0;
        for bin in 0..4 {
            let strip = GroundStrip {
                image: &grey(),
                left_azimuth_rad: -PI + f64::from(bin) * bin_rad,
            };
            let found = matcher.match_frame(strip, key(0), &patch(5, 2)).unwrap();
            // Row `bin` of the table is bin².
            let expected = 1.0 / (1.0 + 63.0 * (-0.19 * f64::from(bin * bin)).exp());
            let found = f64::from(found.heatmap.probabilities()[2 * 8 + 5]);
            assert!((found - expected).abs() < 1e-6, "{bin}: {found} {expected}");
        }
        let between = GroundStrip {
            image: &grey(),
            left_azimuth_rad: 0.4 * bin_rad,
        };
        let error = matcher
            .match_frame(between, key(0), &patch(5, 2))
            .unwrap_err();
        assert!(matches!(error, MatchError::Direction { bin_deg, .. } if bin_deg == 90.0));
    }

    #[test]
    fn a_front_student_whose_card_tells_of_another_graph_is_refused() {
        let cases: [(fn(&mut Tiny), &str); 6] = [
            (
                |t| t.card.ground.orientation_bins = None,
                "no ground.orientation_bins",
            ),
            (
                |t| {
                    t.card.ground.orientation_bins = None;
                    t.card.ground.fov_deg = 360.0;
                },
                "an input `ground_left_bin`, which its card knows nothing about",
            ),
            (
                |t| t.card.ground.orientation_bins = Some(8),
                "a table of 4 orientation bins, and its card says 8",
            ),
            (
                |t| {
                    t.graph().input.pop();
                },
                "no input `ground_left_bin`",
            ),
            (
                |t| t.graph().input[2] = super::super::onnx::value("ground_left_bin", &[1]),
                "`ground_left_bin` that is not int64 [1]",
            ),
            (
                |t| t.graph().node[0].input.swap(0, 1),
                "for something else than looking up a bin",
            ),
        ];
        for (spoil, expected) in cases {
            let message = front(spoil).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn students_that_lie_are_refused_by_name() {
        let refuse = |spoil: fn(&mut Tiny)| {
            let mut tiny = Tiny::default();
            spoil(&mut tiny);
            TractMatcher::from_bytes(&encode(&tiny), "tiny.onnx")
                .unwrap_err()
                .to_string()
        };
        let cases: [(fn(&mut Tiny), &str); 10] = [
            (|t| t.model.metadata_props.clear(), "no card"),
            (|t| t.model.metadata_props[0].value = "{}".into(), "card"),
            (|t| t.model.graph = None, "no graph"),
            (
                |t| t.card.ground.rows = 5,
                "`ground` that is not float [1, 3, 5, 8]",
            ),
            (
                |t| t.card.aerial_features = vec!["elsewhere".into()],
                "`elsewhere`",
            ),
            (
                |t| t.card.aerial_features = vec!["ground_mean".into()],
                "needs `",
            ),
            (
                |t| {
                    t.graph().output.remove(0);
                },
                "no output `heatmap`",
            ),
            (
                |t| t.graph().node[0].op_type = "Loop".into(),
                "operator `Loop`",
            ),
            (
                |t| t.graph().initializer[0].dims[0] = 1 << 40,
                "impossible size",
            ),
            (
                |t| {
                    t.graph().initializer[0].raw_data.pop();
                },
                "values in it",
            ),
        ];
        for (spoil, expected) in cases {
            let message = refuse(spoil);
            assert!(
                message.contains(expected) && message.contains("tiny.onnx"),
                "{message}"
            );
        }
        let reordered = refuse(|t| t.graph().node.reverse());
        assert!(reordered.contains("before anything made it"), "{reordered}");
        let external = refuse(|t| t.graph().initializer[0].data_location = Some(1));
        assert!(external.contains("another file"), "{external}");
        let resized = refuse(|t| {
            t.card.heatmap = crate::card::HeatmapOutput {
                side: 4,
                metres_per_cell: 16.0,
                inner: false,
            };
        });
        assert!(
            resized.contains("answers `heatmap` as [1, 8, 8]"),
            "{resized}"
        );
    }

    #[test]
    fn missing_files_and_garbage_are_errors() {
        let missing = TractMatcher::load("/nowhere/student.onnx")
            .unwrap_err()
            .to_string();
        assert!(missing.contains("/nowhere/student.onnx"), "{missing}");
        for bytes in [&b""[..], b"not a model", &[0xff; 300], &[0; 300]] {
            assert!(TractMatcher::from_bytes(bytes, "x").is_err());
        }
        let whole = encode(&Tiny::default());
        for length in (0..whole.len()).step_by(7) {
            assert!(
                TractMatcher::from_bytes(&whole[..length], "x").is_err(),
                "{length}"
            );
        }
    }

    #[test]
    fn a_small_file_that_needs_much_memory_is_refused_before_it_takes_it() {
        use tract_onnx::pb::{TensorProto, tensor_proto::DataType};
        let integers = |name: &str, values: &[i64]| TensorProto {
            name: name.into(),
            dims: vec![values.len() as i64],
            data_type: DataType::Int64 as i32,
            int64_data: values.to_vec(),
            ..TensorProto::default()
        };
        // The features times a tensor that is made of one number, in three ways.
        let big = |op: &str, extent: &[i64], rank: usize| {
            let mut tiny = Tiny::default();
            let graph = tiny.graph();
            graph.initializer.push(TensorProto {
                name: "one".into(),
                dims: vec![1; rank],
                data_type: DataType::Float as i32,
                float_data: vec![1.0],
                ..TensorProto::default()
            });
            graph.initializer.push(integers("extent", extent));
            let made = crate::matcher::tiny::node(op, &["one", "extent"], "big");
            graph.node.insert(0, made);
            let sum = crate::matcher::tiny::node("ReduceMax", &["big"], "small");
            graph.node.insert(1, sum);
            graph.node[2].input[0] = "aerial".into();
            let scaled =
                crate::matcher::tiny::node("Mul", &["aerial_features_0", "small"], "scaled");
            graph.node.insert(3, scaled);
            for node in &mut graph.node[4..] {
                for input in &mut node.input {
                    if input == "aerial_features_0" {
                        *input = "scaled".into();
                    }
                }
            }
            tiny
        };
        let cases: [(&str, &[i64], usize); 3] = [
            ("Expand", &[1, 50, 8000, 8000], 4),
            ("Tile", &[1, 50, 8000, 8000], 4),
            ("Pad", &[0, 0, 0, 0, 0, 49, 7999, 7999], 4),
        ];
        for (op, extent, rank) in cases {
            let bytes = encode(&big(op, extent, rank));
            assert!(bytes.len() < 4000);
            let begun = Instant::now();
            let refused = TractMatcher::within(&bytes, "x", 2048)
                .unwrap_err()
                .to_string();
            assert!(
                refused.contains("model.memory_mb") && refused.contains("`make_big`"),
                "{op}: {refused}"
            );
            assert!(begun.elapsed() < std::time::Duration::from_secs(2));
        }
        let modest = encode(&big("Expand", &[1, 1, 16, 16], 4));
        TractMatcher::within(&modest, "x", 1).expect("it needs little");
    }

    #[test]
    fn the_seed_of_the_fuzz_target_is_the_tiny_student() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tiny.onnx");
        let bytes = encode(&Tiny::front());
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            std::fs::write(path, &bytes).unwrap();
        }
        assert!(std::fs::read(path).unwrap() == bytes);
        TractMatcher::from_bytes(&bytes, path).unwrap();
    }

    #[test]
    fn flipped_bytes_are_errors_or_another_model_but_never_a_panic() {
        let whole = encode(&Tiny::default());
        for at in (0..whole.len()).step_by(3) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x55;
            if let Ok(mut matcher) = TractMatcher::from_bytes(&bytes, "x") {
                let _ = matcher.match_frame(south(&grey()), key(0), &patch(0, 0));
            }
        }
    }
}
