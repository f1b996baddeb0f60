//! GGCVT as an ONNX graph: what `model::ggcvt` computes at the trained ground resolution, for a
//! panorama that is not turned, or for a pinhole camera whose matrix is known when the file is
//! written.
//!
//! The projection of overhead cells into the ground image, and the columns they attend to, are in `projection`; the steps of the
//! optimiser that finds a heading are in `rotation`, layers of tokens in `attention`. Cells of the
//! coarsest level are kept window by window, as tokens `[cells, channels]`, until the attention is
//! done. Of the distances, the heatmap needs the finest ones alone; the aerial map that they are
//! looked for in, and the length they are divided by, are the cut points, and beside them the
//! coarser maps where an optimiser needs them.

mod attention;
mod projection;
mod rotation;

use super::graph::{Graph, Kernel, Value};
use super::network::Network;
use crate::model::ggcvt::cross_view::TEMPERATURE;
use crate::model::ggcvt::projection::{Maps, panorama};
use crate::model::ggcvt::{DISTANCE_EPSILON, GgcvtCamera, LENGTH_EPSILON};
use crate::model::layers::Conv;
use crate::model::parameters::{ParameterId, Parameters};
use crate::model::vgg::{Decoder, Vgg};
use crate::model::{Ggcvt, GgcvtSpec, ModelError};
use crossfix_kernels::{Tensor, ops};
use projection::{Look, Pinhole, Places};
use rotation::Views;
use tract_onnx::pb::tensor_proto::DataType;

/// The finest level, which the heatmap is made of.
const FINEST: usize = 2;

/// Translates `model`; `temperature` divides the logits before the softmax. `camera` is the matrix
/// of a pinhole camera: fx, fy, cx, cy in pixels of the ground image. Nothing for a network that
/// needs one and is given none.
pub(super) fn network(
    model: &Ggcvt,
    temperature: f64,
    camera: Option<[f64; 4]>,
) -> Result<Option<Network>, ModelError> {
    let spec = model.spec();
    let translation = Translation {
        spec,
        parameters: model.parameters(),
        graph: Graph::new("crossfix"),
    };
    let projection = match (&spec.camera, camera) {
        (GgcvtCamera::Panorama { .. }, _) => Projection::Panorama(translation.panorama_looks()?),
        (pinhole, Some(matrix)) => match Pinhole::new(pinhole, matrix) {
            Some(pinhole) => Projection::Pinhole(pinhole),
            None => return Ok(None),
        },
        (GgcvtCamera::Pinhole { .. }, None) => return Ok(None),
    };
    Ok(Some(translation.run(model, temperature, projection)))
}

/// How overhead cells are projected into the ground image.
enum Projection {
    Panorama(Vec<Look>),
    Pinhole(Pinhole),
}

struct Translation<'a> {
    spec: &'a GgcvtSpec,
    parameters: &'a Parameters,
    graph: Graph,
}

impl Translation<'_> {
    fn run(mut self, model: &Ggcvt, temperature: f64, projection: Projection) -> Network {
        let spec = self.spec;
        let shape = [1, 3, spec.ground_rows, spec.ground_columns];
        let ground = self.graph.input("ground", &shape, DataType::Float);
        let shape = [1, 3, spec.aerial_px, spec.aerial_px];
        let aerial = self.graph.input("aerial", &shape, DataType::Float);
        let scale = self.graph.floats("pixel_scale", &[1], &[1.0 / 255.0]);
        let [ground, aerial] =
            [ground, aerial].map(|image| self.graph.combine("Mul", &image, &scale));

        // The aerial half. Only an optimiser needs the coarser levels.
        let [half, quarter, eighth] = self.vgg(&model.aerial, &aerial);
        let quarter = self.decoder(&model.aerial_decoders[0], &eighth, &quarter);
        let half = self.decoder(&model.aerial_decoders[1], &quarter, &half);
        let map = self.aerial_map(&half, 0);
        let length = self.length(model, &map);
        let length = self.graph.rename(&length, "aerial_features_1");
        let mut cuts = vec![map.clone(), length.clone()];
        let optimiser = match spec.camera {
            GgcvtCamera::Pinhole { iterations, .. } if iterations > 0 => {
                model.rotation.as_ref().zip(Some(iterations))
            }
            _ => None,
        };
        if optimiser.is_some() {
            let coarser = [&eighth, &quarter].into_iter().zip(2..);
            cuts.extend(coarser.map(|(features, cut)| self.aerial_map(features, cut)));
        }

        // The ground half: seen from above, coarse to fine.
        let [half, quarter, eighth] = self.vgg(&model.ground, &ground);
        let quarter = self.decoder(&model.ground_decoders[0], &eighth, &quarter);
        let half = self.decoder(&model.ground_decoders[1], &quarter, &half);
        let unit = |this: &mut Self, map| this.unit(map, LENGTH_EPSILON);
        let ground = [&eighth, &quarter, &half].map(|map| unit(&mut self, map));
        let mut heading = None;
        let (looks, in_front) = match projection {
            Projection::Panorama(looks) => (looks, None),
            Projection::Pinhole(pinhole) => {
                let pose = match optimiser {
                    None => self.graph.floats("known_pose", &[1, 3], &[0.0; 3]),
                    Some((optimiser, iterations)) => {
                        let views = Views {
                            ground: ground.each_ref(),
                            aerial: [&cuts[2], &cuts[3], &cuts[0]],
                        };
                        let pose = self.found_pose(optimiser, &pinhole, &views, iterations);
                        heading = Some((pose.clone(), pinhole.heading_range_rad));
                        // The place is looked for with the heading alone.
                        let alone = self
                            .graph
                            .floats("heading_alone", &[1, 3], &[0.0, 0.0, 1.0]);
                        self.graph.combine("Mul", &pose, &alone)
                    }
                };
                let [coarse, middle, fine] =
                    [0, 1, 2].map(|level| self.pinhole_look(level, &pinhole, &pose));
                let in_front = self.in_front(&coarse.1);
                (vec![coarse.0, middle.0, fine.0], Some(in_front))
            }
        };
        let mut overhead = self.attended(model, &ground[0], &eighth, &looks[0], in_front.as_ref());
        for level in 1..=FINEST {
            let seen = self.seen(&ground[level], &looks[level]);
            let seen = self.image(&seen, looks[level].maps.side);
            let more = self.decoder(&model.overhead_decoders[level - 1], &overhead, &seen);
            let more = self.unit(&more, LENGTH_EPSILON);
            overhead = self.graph.combine("Add", &seen, &more);
        }
        let (corner, side) = (spec.template_corners()[FINEST], spec.templates[FINEST]);
        let template = self.crop(&overhead, corner, side);
        let template = self.unit(&template, LENGTH_EPSILON);
        let template = self.graph.rename(&template, "ground_descriptors_0");

        // A distance is 2 - 2 correlation / length. The 2 moves no softmax.
        let correlation = self.graph.correlate(&map, &template);
        let scores = self.graph.combine("Div", &correlation, &length);
        let sharpness = (2.0 / f64::from(TEMPERATURE) / temperature) as f32;
        let sharpness = self.graph.floats("sharpness", &[1], &[sharpness]);
        let logits = self.graph.combine("Mul", &scores, &sharpness);
        let places = spec.places()[FINEST];
        let logits = self.graph.reshape(&logits, &[1, places * places]);
        let heatmap = self.graph.softmax(&logits, 1);
        let heatmap = self.graph.reshape(&heatmap, &[1, places, places]);
        let mut outputs = vec![self.graph.rename(&heatmap, "heatmap")];
        if let Some((pose, range_rad)) = heading {
            outputs.push(self.orientation(&pose, range_rad, places));
        }

        let names = |values: &[Value]| values.iter().map(|value| value.name.clone()).collect();
        let aerial_features = names(&cuts);
        cuts.push(template);
        Network {
            aerial_features,
            ground_descriptors: names(&cuts[cuts.len() - 1..]),
            graph: self.graph.finish(&outputs, &cuts),
        }
    }

    /// Cells and the ground features below them.
    fn maps(&self, level: usize) -> Maps {
        Maps::new(self.spec, level)
    }

    fn panorama_looks(&self) -> Result<Vec<Look>, ModelError> {
        let mut looks = Vec::with_capacity(3);
        for level in 0..3 {
            let maps = self.maps(level);
            let Some(panorama) = panorama(self.spec, level) else {
                unreachable!("asked for panoramas alone")
            };
            let view = vec![self.spec.metres_per_pixel() as f32, 0.0];
            let grid = ops::panorama_grid(&Tensor::new(view, &[1, 2])?, &panorama)?;
            let places = Places::Known(grid.data().as_chunks::<2>().0.to_vec());
            looks.push(Look {
                level,
                maps,
                places,
            });
        }
        Ok(looks)
    }

    /// Aerial features of unit length, rectified.
    fn aerial_map(&mut self, features: &Value, cut: usize) -> Value {
        let unit = self.unit(features, LENGTH_EPSILON);
        let map = self.graph.map("Relu", &unit);
        self.graph.rename(&map, &format!("aerial_features_{cut}"))
    }

    /// The heading of `pose`, the same everywhere: cosine and sine of how far it is clockwise from
    /// the aerial image's top, `[1, 2, side, side]`.
    fn orientation(&mut self, pose: &Value, range_rad: f64, side: usize) -> Value {
        let heading = self.graph.slice(pose, 1, 2, 3);
        let range = self.number(range_rad as f32);
        let angle = self.graph.combine("Mul", &heading, &range);
        // The heading is a quarter of the turn less this angle.
        let parts = ["Sin", "Cos"].map(|op| self.graph.map(op, &angle));
        let both = self.graph.concat(1, &[&parts[0], &parts[1]]);
        let both = self.graph.reshape(&both, &[1, 2, 1, 1]);
        let ones = vec![1.0; side * side];
        let everywhere = self.graph.floats("everywhere", &[1, 1, side, side], &ones);
        let field = self.graph.combine("Mul", &both, &everywhere);
        self.graph.rename(&field, "orientation")
    }

    fn values(&self, id: ParameterId) -> &[f32] {
        self.parameters.value(id).data()
    }

    /// A parameter's name without its last part.
    fn name(&self, id: ParameterId) -> String {
        let name = self.parameters.name(id);
        name.strip_suffix(".weight").unwrap_or(name).to_string()
    }

    fn conv(&mut self, conv: &Conv, x: &Value) -> Value {
        let shape = self.parameters.value(conv.weight).shape();
        let shape = [shape[0], shape[1], shape[2], shape[3]];
        let bias = conv.bias.map(|id| self.values(id).to_vec());
        let kernel = Kernel {
            name: self.name(conv.weight),
            shape,
            weight: self.values(conv.weight).to_vec(),
            bias: bias.unwrap_or_else(|| vec![0.0; shape[0]]),
        };
        self.graph.conv(x, &kernel, &conv.options)
    }

    /// Features at half, a quarter and an eighth of the side; the last are not rectified.
    fn vgg(&mut self, vgg: &Vgg, image: &Value) -> [Value; 3] {
        let mut x = image.clone();
        let stages = [0..2, 2..4, 4..7].map(|layers| {
            for (index, conv) in vgg.convolutions[layers].iter().enumerate() {
                if index > 0 {
                    x = self.graph.map("Relu", &x);
                }
                x = self.conv(conv, &x);
            }
            let features = self.graph.max_pool(&x);
            x = self.graph.map("Relu", &features);
            (features, x.clone())
        });
        let [(_, half), (_, quarter), (eighth, _)] = stages;
        [half, quarter, eighth]
    }

    fn decoder(&mut self, decoder: &Decoder, coarse: &Value, skip: &Value) -> Value {
        // Rectified before it is enlarged: a quarter of the work, the same numbers.
        let coarse = self.graph.map("Relu", coarse);
        let up = self.graph.repeat2x(&coarse);
        let skip = self.graph.map("Relu", skip);
        let x = self.graph.concat(1, &[&up, &skip]);
        let x = self.conv(&decoder.first, &x);
        let x = self.graph.map("Relu", &x);
        self.conv(&decoder.second, &x)
    }

    /// All values as one vector of length 1, if it is longer than `epsilon`. The length of lengths
    /// of axes: no sum is long enough to lose digits.
    fn unit(&mut self, x: &Value, epsilon: f32) -> Value {
        let lengths = (0..x.shape.len()).rev();
        let length = lengths.fold(x.clone(), |x, axis| self.graph.reduce("ReduceL2", &x, axis));
        let epsilon = self.number(epsilon);
        let length = self.graph.combine("Max", &length, &epsilon);
        self.graph.combine("Div", x, &length)
    }

    /// A square of an image.
    fn crop(&mut self, x: &Value, corner: usize, side: usize) -> Value {
        let rows = self.graph.slice(x, 2, corner, corner + side);
        self.graph.slice(&rows, 3, corner, corner + side)
    }

    /// What a correlation with the aerial map is divided by: the length of the map in the template's
    /// square, and the uncertainty there.
    fn length(&mut self, model: &Ggcvt, map: &Value) -> Value {
        let (side, places) = (self.spec.templates[FINEST], self.spec.places()[FINEST]);
        let energy = self.graph.reduce("ReduceSumSquare", map, 1);
        // Sums over a square, along one side and the other.
        let mut sums = energy;
        for (name, shape) in [
            ("row_sum", [1, 1, 1, side]),
            ("column_sum", [1, 1, side, 1]),
        ] {
            let kernel = Kernel {
                name: name.into(),
                shape,
                weight: vec![1.0; side],
                bias: vec![0.0],
            };
            sums = self.graph.conv(&sums, &kernel, &super::network::plain(1));
        }
        let [first, second, last] = &model.uncertainty[FINEST];
        let mut x = map.clone();
        for conv in [first, second] {
            x = self.conv(conv, &x);
            x = self.graph.map("Relu", &x);
        }
        let x = self.conv(last, &x);
        let x = self.graph.map("Sigmoid", &x);
        let confidence = self.crop(&x, self.spec.uncertainty_corners()[FINEST], places);
        let squared = self.graph.combine("Mul", &sums, &confidence);
        let length = self.graph.map("Sqrt", &squared);
        let epsilon = self.number(DISTANCE_EPSILON);
        self.graph.combine("Max", &length, &epsilon)
    }

    /// Pixels `[1, C, H, W]` as tokens `[H · W, C]`, row by row.
    fn tokens(&mut self, image: &Value) -> Value {
        let [channels, rows, columns] = [1, 2, 3].map(|axis| image.shape[axis]);
        let x = self.graph.reshape(image, &[channels, rows * columns]);
        self.graph.transpose(&x, &[1, 0])
    }

    /// Tokens `[side · side, C]`, row by row, as pixels `[1, C, side, side]`.
    fn image(&mut self, tokens: &Value, side: usize) -> Value {
        let x = self.graph.transpose(tokens, &[1, 0]);
        self.graph.reshape(&x, &[1, tokens.shape[1], side, side])
    }

    /// The coarsest overhead map, improved by attention. `features` are the ground features before
    /// they were normalised.
    fn attended(
        &mut self,
        model: &Ggcvt,
        ground: &Value,
        features: &Value,
        look: &Look,
        in_front: Option<&Value>,
    ) -> Value {
        let (side, window) = (look.maps.side, self.spec.window);
        let windows = side / window;
        let cell = |token: usize| {
            let (tile, inside) = (token / (window * window), token % (window * window));
            let row = tile / windows * window + inside / window;
            row * side + tile % windows * window + inside % window
        };
        let cells: Vec<usize> = (0..side * side).map(cell).collect();
        let name = "window_by_window";
        let look = self.reordered(look, name, &cells);
        let in_front = in_front.map(|in_front| {
            let order = self.order(name, &cells);
            self.graph.gather(in_front, &order, 0)
        });
        let sides = self.seen_columns(&look);
        let mut x = self.seen(ground, &look);

        // Column by column, so that a column is one row of what is looked up.
        let [channels, rows, columns] = [1, 2, 3].map(|axis| features.shape[axis]);
        let tokens = self.graph.reshape(features, &[channels, rows, columns]);
        let tokens = self.graph.transpose(&tokens, &[2, 1, 0]);
        let tokens = self.graph.reshape(&tokens, &[columns * rows, channels]);
        let tokens = self.standardise(&tokens);
        for (within, across) in &model.attention {
            x = self.self_attention(within, &x, in_front.as_ref());
            x = self.cross_attention(across, &x, &tokens, &sides, columns);
        }
        let x = self.unit(&x, LENGTH_EPSILON);
        let x = self
            .graph
            .reshape(&x, &[windows, windows, window, window, channels]);
        let x = self.graph.transpose(&x, &[4, 0, 2, 1, 3]);
        self.graph.reshape(&x, &[1, channels, side, side])
    }
}
