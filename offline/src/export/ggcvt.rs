//! GGCVT with a panorama as an ONNX graph: what `model::ggcvt` computes for a view that is not
//! turned, at the trained ground resolution.
//!
//! The daemon gives such views only, so where an overhead cell is seen, and the columns it attends
//! to, are known when the file is written: projection is four look-ups with known weights. Cells
//! of the coarsest level are kept window by window, as tokens `[cells, channels]`, until the
//! attention is done. Of the distances, the heatmap needs the finest ones alone; the aerial map
//! that they are looked for in, and the length they are divided by, are the cut points.

use super::graph::{Graph, Kernel, Value};
use super::network::Network;
use crate::model::ggcvt::attention::{
    self, CrossAttention, Linear, Norm, SelfAttention, WindowBlock,
};
use crate::model::ggcvt::cross_view::{COLUMN_NUDGE, TEMPERATURE};
use crate::model::ggcvt::projection::{Maps, panorama_grid};
use crate::model::ggcvt::{Camera, DISTANCE_EPSILON, LENGTH_EPSILON};
use crate::model::layers::Conv;
use crate::model::parameters::{ParameterId, Parameters};
use crate::model::vgg::{Decoder, Vgg};
use crate::model::{Ggcvt, GgcvtSpec, ModelError};
use tract_onnx::pb::tensor_proto::DataType;

/// The finest level, which the heatmap is made of.
const FINEST: usize = 2;

/// Translates `model`, which sees panoramas; `temperature` divides the logits before the softmax.
/// Nothing for networks with another camera.
pub(super) fn network(model: &Ggcvt, temperature: f64) -> Result<Option<Network>, ModelError> {
    let spec = model.spec();
    let Camera::Panorama {
        height_m,
        metres_per_pixel,
        top_deg,
        span_deg,
    } = spec.camera
    else {
        return Ok(None);
    };
    let mut looks = Vec::with_capacity(3);
    for (level, side) in spec.sides().into_iter().enumerate() {
        let maps = Maps {
            side,
            ground: [spec.ground_rows, spec.ground_columns].map(|length| length / (8 >> level)),
        };
        let cell_m = metres_per_pixel * spec.aerial_px as f64 / side as f64;
        let edges = [top_deg, span_deg].map(f64::to_radians);
        let grid = panorama_grid(maps, &[cell_m], &[0.0], height_m, edges)?;
        looks.push(Look {
            maps,
            places: grid.data().as_chunks::<2>().0.to_vec(),
        });
    }
    let mut graph = Graph::new("crossfix");
    let known = Known {
        length_epsilon: graph.floats("length_epsilon", &[1], &[LENGTH_EPSILON]),
        norm_epsilon: graph.floats("norm_epsilon", &[1], &[attention::EPSILON]),
        one: graph.floats("one", &[1], &[1.0]),
        root_half: graph.floats("root_half", &[1], &[std::f32::consts::FRAC_1_SQRT_2]),
    };
    let translation = Translation {
        spec,
        parameters: model.parameters(),
        looks,
        known,
        graph,
    };
    Ok(Some(translation.run(model, temperature)))
}

/// Where the cells of an overhead map are seen in a ground feature map: column and row.
struct Look {
    maps: Maps,
    places: Vec<[f32; 2]>,
}

/// Numbers that many nodes read.
struct Known {
    length_epsilon: Value,
    norm_epsilon: Value,
    one: Value,
    root_half: Value,
}

struct Translation<'a> {
    spec: &'a GgcvtSpec,
    parameters: &'a Parameters,
    looks: Vec<Look>,
    known: Known,
    graph: Graph,
}

impl Translation<'_> {
    fn run(mut self, model: &Ggcvt, temperature: f64) -> Network {
        let spec = self.spec;
        let shape = [1, 3, spec.ground_rows, spec.ground_columns];
        let ground = self.graph.input("ground", &shape, DataType::Float);
        let shape = [1, 3, spec.aerial_px, spec.aerial_px];
        let aerial = self.graph.input("aerial", &shape, DataType::Float);
        let scale = self.graph.floats("pixel_scale", &[1], &[1.0 / 255.0]);
        let [ground, aerial] =
            [ground, aerial].map(|image| self.graph.combine("Mul", &image, &scale));

        // The aerial half. What the coarser levels would be compared with is not needed.
        let [half, quarter, eighth] = self.vgg(&model.aerial, &aerial);
        let quarter = self.decoder(&model.aerial_decoders[0], &eighth, &quarter);
        let half = self.decoder(&model.aerial_decoders[1], &quarter, &half);
        let unit = self.unit(&half);
        let map = self.graph.map("Relu", &unit);
        let map = self.graph.rename(&map, "aerial_features_0");
        let length = self.length(model, &map);
        let length = self.graph.rename(&length, "aerial_features_1");

        // The ground half: seen from above, coarse to fine.
        let [half, quarter, eighth] = self.vgg(&model.ground, &ground);
        let quarter = self.decoder(&model.ground_decoders[0], &eighth, &quarter);
        let half = self.decoder(&model.ground_decoders[1], &quarter, &half);
        let [coarse, middle, fine] = [&eighth, &quarter, &half].map(|map| self.unit(map));
        let mut overhead = self.attended(model, &coarse, &eighth);
        for (level, ground) in [(1, &middle), (FINEST, &fine)] {
            let cells: Vec<usize> = (0..self.looks[level].places.len()).collect();
            let seen = self.seen(ground, level, &cells);
            let seen = self.image(&seen, self.looks[level].maps.side);
            let more = self.decoder(&model.overhead_decoders[level - 1], &overhead, &seen);
            let more = self.unit(&more);
            overhead = self.graph.combine("Add", &seen, &more);
        }
        let (corner, side) = (spec.template_corners()[FINEST], spec.templates[FINEST]);
        let template = self.crop(&overhead, corner, side);
        let template = self.unit(&template);
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
        let heatmap = self.graph.rename(&heatmap, "heatmap");

        let names = |values: &[&Value]| values.iter().map(|value| value.name.clone()).collect();
        Network {
            aerial_features: names(&[&map, &length]),
            ground_descriptors: names(&[&template]),
            graph: self.graph.finish(&[heatmap], &[map, length, template]),
        }
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

    /// All values as one vector of length 1. The length of lengths of axes: no sum is long enough
    /// to lose digits.
    fn unit(&mut self, x: &Value) -> Value {
        let lengths = (0..x.shape.len()).rev();
        let length = lengths.fold(x.clone(), |x, axis| self.graph.reduce("ReduceL2", &x, axis));
        let length = self
            .graph
            .combine("Max", &length, &self.known.length_epsilon);
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
        let epsilon = self
            .graph
            .floats("distance_epsilon", &[1], &[DISTANCE_EPSILON]);
        self.graph.combine("Max", &length, &epsilon)
    }

    /// What `cells` of the overhead map of `level` see of the ground features `[1, C, H, W]`:
    /// `[cells, C]`. A cell of which one of the four neighbours lies outside sees nothing.
    fn seen(&mut self, ground: &Value, level: usize, cells: &[usize]) -> Value {
        let [rows, columns] = self.looks[level].maps.ground;
        let mut index = [(); 4].map(|()| vec![0i64; cells.len()]);
        let mut weight = [(); 4].map(|()| vec![0.0f32; cells.len()]);
        for (at, cell) in cells.iter().enumerate() {
            let [x, y] = self.looks[level].places[*cell];
            let (left, top) = (x.floor(), y.floor());
            let inside = |from: f32, length: usize| from >= 0.0 && from + 1.0 < length as f32;
            if !inside(left, columns) || !inside(top, rows) {
                continue;
            }
            let (right_share, low_share) = (x - left, y - top);
            for corner in 0..4 {
                let (right, low) = (corner % 2, corner / 2);
                let across = [1.0 - right_share, right_share][right];
                let down = [1.0 - low_share, low_share][low];
                index[corner][at] = ((top as usize + low) * columns + left as usize + right) as i64;
                weight[corner][at] = across * down;
            }
        }
        let pixels = self.tokens(ground);
        let mut seen: Option<Value> = None;
        for (corner, (index, weight)) in index.iter().zip(&weight).enumerate() {
            let name = |what: &str| format!("seen_{level}_{corner}_{what}");
            let index = self.graph.integers(&name("pixel"), &[cells.len()], index);
            let weight = self
                .graph
                .floats(&name("weight"), &[cells.len(), 1], weight);
            let part = self.graph.gather(&pixels, &index, 0);
            let part = self.graph.combine("Mul", &part, &weight);
            seen = Some(match seen {
                None => part,
                Some(seen) => self.graph.combine("Add", &seen, &part),
            });
        }
        seen.expect("four corners")
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
    fn attended(&mut self, model: &Ggcvt, ground: &Value, features: &Value) -> Value {
        let look = &self.looks[0];
        let (side, window) = (look.maps.side, self.spec.window);
        let windows = side / window;
        let cell = |token: usize| {
            let (tile, inside) = (token / (window * window), token % (window * window));
            let row = tile / windows * window + inside / window;
            row * side + tile % windows * window + inside % window
        };
        let cells: Vec<usize> = (0..side * side).map(cell).collect();
        let last = look.maps.ground[1] - 1;
        let sides = cells.iter().flat_map(|cell| {
            let left = (look.places[*cell][0] + COLUMN_NUDGE).floor();
            [left, left + 1.0].map(|column| (column.max(0.0) as usize).min(last) as i64)
        });
        let sides: Vec<i64> = sides.collect();
        let sides = self
            .graph
            .integers("seen_columns", &[cells.len(), 2], &sides);
        let mut x = self.seen(ground, 0, &cells);

        // Column by column, so that a column is one row of what is looked up.
        let [channels, rows, columns] = [1, 2, 3].map(|axis| features.shape[axis]);
        let tokens = self.graph.reshape(features, &[channels, rows, columns]);
        let tokens = self.graph.transpose(&tokens, &[2, 1, 0]);
        let tokens = self.graph.reshape(&tokens, &[columns * rows, channels]);
        let tokens = self.standardise(&tokens);
        for (within, across) in &model.attention {
            x = self.self_attention(within, &x);
            x = self.cross_attention(across, &x, &tokens, &sides, columns);
        }
        let x = self.unit(&x);
        let x = self
            .graph
            .reshape(&x, &[windows, windows, window, window, channels]);
        let x = self.graph.transpose(&x, &[4, 0, 2, 1, 3]);
        self.graph.reshape(&x, &[1, channels, side, side])
    }

    /// A linear layer of tokens, its inputs multiplied by `factor` and, before that, by the weight
    /// of `norm` and moved by its bias.
    fn linear(
        &mut self,
        [weight, bias]: [Option<ParameterId>; 2],
        norm: Option<&Norm>,
        factor: f64,
        x: &Value,
    ) -> Value {
        let weight = weight.expect("a linear layer has a weight");
        let (name, inputs) = (self.name(weight), x.shape[1]);
        let rows = self.values(weight).chunks_exact(inputs);
        let outputs = rows.len();
        let [gamma, beta] = [0, 1].map(|which| norm.map(|norm| self.values(norm.0[which])));
        let mut turned = vec![0.0; inputs * outputs];
        let mut offset = vec![0.0; outputs];
        for (output, row) in rows.enumerate() {
            let mut sum = bias.map_or(0.0, |bias| f64::from(self.values(bias)[output]));
            for (input, weight) in row.iter().enumerate() {
                let weight = f64::from(*weight) * factor;
                sum += weight * beta.map_or(0.0, |beta| f64::from(beta[input]));
                let weight = weight * gamma.map_or(1.0, |gamma| f64::from(gamma[input]));
                turned[input * outputs + output] = weight as f32;
            }
            offset[output] = sum as f32;
        }
        let weight = self
            .graph
            .floats(&format!("{name}.turned"), &[inputs, outputs], &turned);
        let x = self.graph.matrix_product(x, &weight);
        if bias.is_none() && norm.is_none() {
            return x;
        }
        let offset = self
            .graph
            .floats(&format!("{name}.offset"), &[outputs], &offset);
        self.graph.combine("Add", &x, &offset)
    }

    /// Each token with mean 0 and variance 1.
    fn standardise(&mut self, x: &Value) -> Value {
        let mean = self.graph.reduce("ReduceMean", x, 1);
        let centred = self.graph.combine("Sub", x, &mean);
        let squares = self.graph.combine("Mul", &centred, &centred);
        let variance = self.graph.reduce("ReduceMean", &squares, 1);
        let variance = self
            .graph
            .combine("Add", &variance, &self.known.norm_epsilon);
        let sigma = self.graph.map("Sqrt", &variance);
        self.graph.combine("Div", &centred, &sigma)
    }

    fn norm(&mut self, norm: &Norm, x: &Value) -> Value {
        let mut x = self.standardise(x);
        for (op, id) in ["Mul", "Add"].into_iter().zip(norm.0) {
            let name = self.parameters.name(id).to_string();
            let values = self.values(id).to_vec();
            let values = self.graph.floats(&name, &[values.len()], &values);
            x = self.graph.combine(op, &x, &values);
        }
        x
    }

    /// Linear, x (1 + erf(x / √2)) / 2, linear. The last layer does the halving.
    fn mlp(&mut self, [first, second]: &[Linear; 2], norm: Option<&Norm>, x: &Value) -> Value {
        let x = self.linear(ids(first), norm, 1.0, x);
        let scaled = self.graph.combine("Mul", &x, &self.known.root_half);
        let erf = self.graph.map("Erf", &scaled);
        let share = self.graph.combine("Add", &erf, &self.known.one);
        let x = self.graph.combine("Mul", &x, &share);
        self.linear(ids(second), None, 0.5, &x)
    }

    fn self_attention(&mut self, attention: &SelfAttention, x: &Value) -> Value {
        let embedding = &attention.embedding;
        let layer = [Some(embedding.conv.weight), embedding.conv.bias];
        let x = self.linear(layer, None, 1.0, x);
        let x = self.norm(&embedding.norm, &x);
        let x = self.window_block(&attention.block, &x);
        self.linear(ids(&attention.head), None, 1.0, &x)
    }

    fn window_block(&mut self, block: &WindowBlock, x: &Value) -> Value {
        let (heads, window) = (self.spec.heads, self.spec.window);
        let (cells, width) = (window * window, x.shape[1]);
        let (windows, depth) = (x.shape[0] / cells, width / heads);
        let normal = self.standardise(x);
        let [q, k, v] = match &block.projections[..] {
            [q, k, v] => [q, k, v].map(|layer| ids(layer)),
            _ => unreachable!("the layers over the map have three projections"),
        };
        let scale = 1.0 / (depth as f64).sqrt();
        let mut heads_of = |layer, factor, order: &[usize]| {
            let x = self.linear(layer, Some(&block.first), factor, &normal);
            let x = self.graph.reshape(&x, &[windows, cells, heads, depth]);
            self.graph.transpose(&x, order)
        };
        let q = heads_of(q, scale, &[0, 2, 1, 3]);
        let k = heads_of(k, 1.0, &[0, 2, 3, 1]);
        let v = heads_of(v, 1.0, &[0, 2, 1, 3]);
        let scores = self.graph.matrix_product(&q, &k);
        let bias = self.window_bias(block);
        let scores = self.graph.combine("Add", &scores, &bias);
        let shares = self.graph.softmax(&scores, 3);
        let mixed = self.graph.matrix_product(&shares, &v);
        let mixed = self.graph.transpose(&mixed, &[0, 2, 1, 3]);
        let mixed = self.graph.reshape(&mixed, &[windows * cells, width]);
        let out = self.linear(ids(&block.out), None, 1.0, &mixed);
        let x = self.graph.combine("Add", x, &out);
        let normal = self.standardise(&x);
        let more = self.mlp(&block.mlp, Some(&block.second), &normal);
        self.graph.combine("Add", &x, &more)
    }

    /// What the table adds to the score of each pair of cells of a window:
    /// `[1, heads, cells, cells]`.
    fn window_bias(&mut self, block: &WindowBlock) -> Value {
        let (heads, side) = (self.spec.heads, block.window);
        let cells = side * side;
        let table = self.values(block.table);
        let mut bias = Vec::with_capacity(heads * cells * cells);
        for head in 0..heads {
            for query in 0..cells {
                for key in 0..cells {
                    let row = query / side + side - 1 - key / side;
                    let column = query % side + side - 1 - key % side;
                    bias.push(table[(row * (2 * side - 1) + column) * heads + head]);
                }
            }
        }
        let name = self.parameters.name(block.table).to_string();
        self.graph.floats(&name, &[1, heads, cells, cells], &bias)
    }

    /// `ground` are the standardised ground tokens, column by column; `sides` are the two columns
    /// of each overhead token.
    fn cross_attention(
        &mut self,
        attention: &CrossAttention,
        x: &Value,
        ground: &Value,
        sides: &Value,
        columns: usize,
    ) -> Value {
        let [(q_norm, q), (k_norm, k), (v_norm, v)] = &attention.projections;
        let normal = self.standardise(x);
        let heads = attention.heads;
        let width = self.parameters.value(q.weight).shape()[0];
        let (depth, tokens) = (width / heads, x.shape[0]);
        let scale = 1.0 / (depth as f64).sqrt();
        let q = self.linear(ids(q), Some(q_norm), scale, &normal);
        let q = self.graph.reshape(&q, &[tokens, heads, 1, depth]);
        let seen = 2 * ground.shape[0] / columns;
        let mut look_up = |layer: &Linear, norm: &Norm, order: &[usize]| {
            let x = self.linear(ids(layer), Some(norm), 1.0, ground);
            let x = self.graph.reshape(&x, &[columns, seen / 2 * width]);
            let x = self.graph.gather(&x, sides, 0);
            let x = self.graph.reshape(&x, &[tokens, seen, heads, depth]);
            self.graph.transpose(&x, order)
        };
        let k = look_up(k, k_norm, &[0, 2, 3, 1]);
        let v = look_up(v, v_norm, &[0, 2, 1, 3]);
        let scores = self.graph.matrix_product(&q, &k);
        let shares = self.graph.softmax(&scores, 3);
        let mixed = self.graph.matrix_product(&shares, &v);
        let mixed = self.graph.reshape(&mixed, &[tokens, width]);
        let z = self.linear(ids(&attention.out), None, 1.0, &mixed);
        let z = self.norm(&attention.before, &z);
        let more = self.mlp(&attention.mlp, None, &z);
        let z = self.graph.combine("Add", &z, &more);
        self.norm(&attention.after, &z)
    }
}

/// Weight and bias.
fn ids(layer: &Linear) -> [Option<ParameterId>; 2] {
    [Some(layer.weight), layer.bias]
}
