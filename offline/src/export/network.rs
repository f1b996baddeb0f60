//! The network as an ONNX graph: what `model::ccvpe` computes, batch norms folded.
//!
//! Everything that depends on the aerial patch alone is made first and listed as a cut point, so
//! that a drive computes it once for each patch: the descriptors, and the part of each decoder
//! step's first convolution that reads the aerial encoder's skip.

mod window;

use super::graph::{Graph, Kernel, Value};
use crate::model::layers::{Block, Conv, Encoder, Norm, Step};
use crate::model::parameters::{ParameterId, Parameters};
use crate::model::{Ccvpe, CrossViewModel, pixel_affine};
use crossfix_kernels::ops::{Activation, Conv2d, Pad};
use crossfix_onboard::card::WindowOutput;
use std::collections::HashMap;
use tract_onnx::pb::{GraphProto, tensor_proto::DataType};

/// Guards divisions by zero norms, as in training.
const L2_EPSILON: f32 = 1e-12;

/// The graph and the names of its cut points.
pub(super) struct Network {
    pub graph: GraphProto,
    pub aerial_features: Vec<String>,
    pub ground_descriptors: Vec<String>,
}

/// Translates `model`; `temperature` divides the logits before the softmax. With a `window`, the decoders
/// are there a second time, for a part of the patch.
pub(super) fn network(model: &Ccvpe, temperature: f64, window: Option<WindowOutput>) -> Network {
    Translation {
        model,
        parameters: model.parameters(),
        graph: Graph::new("crossfix"),
        picked: HashMap::new(),
    }
    .run(temperature, window)
}

/// The ground descriptors of a level, rolled to each of its bins: a matrix `[bins, channels]`, and which of
/// its entries a descriptor of part of the turn covers.
struct Rolled {
    rows: Value,
    window: Option<Value>,
}

struct Translation<'a> {
    model: &'a Ccvpe,
    parameters: &'a Parameters,
    graph: Graph,
    /// What [`Translation::pick`] has picked: of which values, by what.
    picked: HashMap<(Vec<i64>, String), Value>,
}

impl Translation<'_> {
    fn run(mut self, temperature: f64, window: Option<WindowOutput>) -> Network {
        let (model, spec) = (self.model, self.model.spec());
        let shape = [1, 3, spec.ground_rows, spec.ground_columns];
        let ground = self.graph.input("ground", &shape, DataType::Float);
        let shape = [1, 3, spec.aerial_px, spec.aerial_px];
        let aerial = self.graph.input("aerial", &shape, DataType::Float);
        let left_bin = spec.ground_left_bin.then(|| {
            self.graph
                .input(super::LEFT_BIN_INPUT, &[1], DataType::Int64)
        });
        let epsilon = self.graph.floats("l2_epsilon", &[1], &[L2_EPSILON]);
        let scale: Vec<f32> = (0..3).map(|channel| pixel_affine(channel).0).collect();
        let offset: Vec<f32> = (0..3).map(|channel| pixel_affine(channel).1).collect();
        let scale = self.graph.floats("pixel_scale", &[1, 3, 1, 1], &scale);
        let offset = self.graph.floats("pixel_offset", &[1, 3, 1, 1], &offset);
        let [ground, aerial] = [ground, aerial].map(|image| {
            let scaled = self.graph.combine("Mul", &image, &scale);
            self.graph.combine("Add", &scaled, &offset)
        });

        // The aerial half. Scores are cosines, which the length of a descriptor does not change,
        // so unit descriptors serve both the matching and the decoders.
        let (features, skips) = self.encoder(&model.aerial_encoder, &aerial);
        let first = self.descriptor_map(&features);
        let first = self.unit(&first, &epsilon);
        let mut cuts = vec![self.graph.rename(&first, "aerial_features_0")];
        let first = cuts[0].clone();
        let mut from_skips = Vec::new();
        for step in model.location.iter().chain(&model.orientation) {
            from_skips.push(step.skip.map(|block| {
                let part = self.first_of_skip(step, &skips[block]);
                let name = format!("aerial_features_{}", cuts.len());
                cuts.push(self.graph.rename(&part, &name));
                cuts[cuts.len() - 1].clone()
            }));
        }
        let from_skips_of_orientation = from_skips.split_off(model.location.len());
        let aerial_features: Vec<String> = cuts.iter().map(|cut| cut.name.clone()).collect();

        // The ground half.
        let (features, _) = self.encoder(&model.ground_encoder, &ground);
        let mut descriptors = Vec::new();
        for k in 0..spec.levels.len() {
            let descriptor = self.ground_descriptor(&features, k);
            descriptors.push(
                self.graph
                    .rename(&descriptor, &format!("ground_descriptors_{k}")),
            );
        }
        let ground_descriptors = descriptors.iter().map(|cut| cut.name.clone()).collect();
        cuts.extend(descriptors.iter().cloned());

        let rolled: Vec<Rolled> = descriptors
            .iter()
            .enumerate()
            .map(|(k, descriptor)| self.rolled(descriptor, k, left_bin.as_ref(), &epsilon))
            .collect();

        // Matching and location, coarse to fine.
        let mut stack = None;
        let mut unit = first.clone();
        let mut x = first.clone();
        for (k, rolled) in rolled.iter().enumerate() {
            if k > 0 {
                unit = self.unit(&x, &epsilon);
            }
            let scores = self.scores(&unit, rolled, &epsilon);
            let joined = self.joined(&scores, &unit, k);
            stack.get_or_insert(scores);
            x = self.step(&model.location[k], &joined, from_skips[k].as_ref());
        }
        let heatmap = self.heatmap(&x, temperature);
        let heatmap = self.graph.rename(&heatmap, "heatmap");

        // Orientation, from the score stack of the coarsest level.
        let mut y = match &stack {
            Some(stack) => self.graph.concat(1, &[stack, &first]),
            None => first.clone(),
        };
        for (step, from_skip) in model.orientation.iter().zip(&from_skips_of_orientation) {
            y = self.step(step, &y, from_skip.as_ref());
        }
        let orientation = self.unit(&y, &epsilon);
        let orientation = self.graph.rename(&orientation, "orientation");
        if let Some(window) = window {
            let known = window::Known {
                first: &first,
                rolled: &rolled,
                from_skips: [&from_skips, &from_skips_of_orientation],
                epsilon: &epsilon,
            };
            cuts.extend(self.windowed(&known, window, temperature));
        }
        Network {
            graph: self.graph.finish(&[heatmap, orientation], &cuts),
            aerial_features,
            ground_descriptors,
        }
    }

    /// What a location step takes: the best score of each cell before its unit descriptor.
    fn joined(&mut self, scores: &Value, unit: &Value, k: usize) -> Value {
        let allowed = if k == 0 && self.model.spec().orientation_prior.is_some() {
            self.searched(scores)
        } else {
            scores.clone()
        };
        let matching = if allowed.shape[1] == 1 {
            allowed
        } else {
            self.graph.reduce("ReduceMax", &allowed, 1)
        };
        self.graph.concat(1, &[&matching, unit])
    }

    /// Probabilities `[1, side, side]` of logits `[1, 1, side, side]`.
    fn heatmap(&mut self, logits: &Value, temperature: f64) -> Value {
        let side = logits.shape[3];
        let mut logits = self.graph.reshape(logits, &[1, side * side]);
        let sharpness = (1.0 / temperature) as f32;
        if (sharpness - 1.0).abs() > 0.0 {
            let sharpness = self.graph.floats("inverse_temperature", &[1], &[sharpness]);
            logits = self.graph.combine("Mul", &logits, &sharpness);
        }
        let heatmap = self.graph.softmax(&logits, 1);
        self.graph.reshape(&heatmap, &[1, side, side])
    }

    fn values(&self, id: ParameterId) -> &[f32] {
        self.parameters.value(id).data()
    }

    /// A convolution's numbers with `norm` folded in. The name is the parameter's, less `.weight`.
    fn kernel(&self, conv: &Conv, norm: Option<&Norm>) -> Kernel {
        let weight = self.parameters.value(conv.weight);
        let shape = weight.shape();
        let shape = [shape[0], shape[1], shape[2], shape[3]];
        let mut bias = vec![0.0; shape[0]];
        if let Some(id) = conv.bias {
            bias.iter_mut()
                .zip(self.values(id))
                .for_each(|(to, from)| *to = f64::from(*from));
        }
        let mut factors = vec![1.0; shape[0]];
        if let Some(norm) = norm {
            let statistics = self.parameters.statistics(norm.statistics);
            let (gamma, beta) = (self.values(norm.gamma), self.values(norm.beta));
            for channel in 0..shape[0] {
                let variance =
                    f64::from(statistics.variance.data()[channel]) + f64::from(norm.epsilon);
                let factor = f64::from(gamma[channel]) / variance.sqrt();
                let mean = f64::from(statistics.mean.data()[channel]);
                bias[channel] = (bias[channel] - mean) * factor + f64::from(beta[channel]);
                factors[channel] = factor;
            }
        }
        let per_output = weight.len() / shape[0];
        let weight = weight
            .data()
            .iter()
            .enumerate()
            .map(|(at, value)| (f64::from(*value) * factors[at / per_output]) as f32)
            .collect();
        Kernel {
            name: self.name(conv.weight),
            shape,
            weight,
            bias: bias.into_iter().map(|value| value as f32).collect(),
        }
    }

    /// A parameter's name without its last part.
    fn name(&self, id: ParameterId) -> String {
        let name = self.parameters.name(id);
        name.strip_suffix(".weight").unwrap_or(name).to_string()
    }

    fn conv_norm(&mut self, (conv, norm): &(Conv, Norm), x: &Value) -> Value {
        let kernel = self.kernel(conv, Some(norm));
        let x = self.graph.conv(x, &kernel, &conv.options);
        match norm.activation {
            Activation::None => x,
            Activation::Silu => self.graph.silu(&x),
            Activation::Relu => self.graph.map("Relu", &x),
        }
    }

    fn encoder(&mut self, encoder: &Encoder, image: &Value) -> (Value, Vec<Value>) {
        let mut x = image.clone();
        if let Some(stem) = &encoder.stem {
            x = self.conv_norm(stem, &x);
        }
        let mut outputs = Vec::new();
        for block in &encoder.blocks {
            x = self.block(block, &x);
            outputs.push(x.clone());
        }
        if let Some(head) = &encoder.head {
            x = self.conv_norm(head, &x);
        }
        (x, outputs)
    }

    fn block(&mut self, block: &Block, input: &Value) -> Value {
        let mut x = input.clone();
        for (index, convolution) in block.convolutions.iter().enumerate() {
            if let (true, Some(excite)) = (index + 1 == block.convolutions.len(), &block.excite) {
                let pooled = self.graph.mean_pool(&x);
                let reduced = self.dense(&excite.reduce, &pooled);
                let reduced = self.graph.silu(&reduced);
                let expanded = self.dense(&excite.expand, &reduced);
                let gate = self.graph.map("Sigmoid", &expanded);
                x = self.graph.combine("Mul", &x, &gate);
            }
            x = self.conv_norm(convolution, &x);
        }
        if block.residual {
            x = self.graph.combine("Add", &x, input);
        }
        x
    }

    /// A fully connected layer, weight `[O, C]`, on `[1, C, 1, 1]`.
    fn dense(&mut self, [weight, bias]: &[ParameterId; 2], x: &Value) -> Value {
        let shape = self.parameters.value(*weight).shape();
        let kernel = Kernel {
            name: self.name(*weight),
            shape: [shape[0], shape[1], 1, 1],
            weight: self.values(*weight).to_vec(),
            bias: self.values(*bias).to_vec(),
        };
        self.graph.conv(x, &kernel, &plain(1))
    }

    /// Descriptors of the coarsest level: one linear map of each cell of feature pixels.
    fn descriptor_map(&mut self, features: &Value) -> Value {
        let cell = self.model.spec().descriptor_cell;
        let [weight, bias] = self.model.aerial_head;
        let kernel = Kernel {
            name: self.name(weight),
            shape: [
                self.parameters.value(weight).shape()[0],
                features.shape[1],
                cell,
                cell,
            ],
            weight: self.values(weight).to_vec(),
            bias: self.values(bias).to_vec(),
        };
        self.graph.conv(features, &kernel, &plain(cell))
    }

    /// The descriptor `[1, columns * channels]` of level `k`, column outer, channel inner. The 1×1
    /// convolution and the weighted sum over rows are both linear: one convolution, as high as the
    /// features.
    fn ground_descriptor(&mut self, features: &Value, k: usize) -> Value {
        let head = &self.model.ground_heads[k];
        let pointwise = self.kernel(&head.conv, None);
        let [rows, row_bias] = head.rows.map(|id| self.values(id));
        let row_sum: f64 = rows.iter().map(|row| f64::from(*row)).sum();
        let bias = |bias: &f32| (f64::from(row_bias[0]) + f64::from(*bias) * row_sum) as f32;
        let weight = |weight: &f32| {
            let weight = f64::from(*weight);
            rows.iter()
                .map(move |row| (weight * f64::from(*row)) as f32)
        };
        let kernel = Kernel {
            shape: [pointwise.shape[0], pointwise.shape[1], rows.len(), 1],
            weight: pointwise.weight.iter().flat_map(weight).collect(),
            bias: pointwise.bias.iter().map(bias).collect(),
            name: pointwise.name,
        };
        let x = self.graph.conv(features, &kernel, &plain(1));
        let [channels, columns] = [x.shape[1], x.shape[3]];
        let x = self.graph.reshape(&x, &[channels, columns]);
        let x = self.graph.transpose(&x, &[1, 0]);
        self.graph.reshape(&x, &[1, channels * columns])
    }

    /// x / max(|x|, epsilon) over the channels of each pixel.
    fn unit(&mut self, x: &Value, epsilon: &Value) -> Value {
        let norm = self.norm(x, 1, epsilon);
        self.graph.combine("Div", x, &norm)
    }

    fn norm(&mut self, x: &Value, axis: usize, epsilon: &Value) -> Value {
        let norm = self.graph.reduce("ReduceL2", x, axis);
        self.graph.combine("Max", &norm, epsilon)
    }

    /// The unit descriptor of level `k`, rolled to each of its bins.
    fn rolled(
        &mut self,
        descriptor: &Value,
        k: usize,
        left_bin: Option<&Value>,
        epsilon: &Value,
    ) -> Rolled {
        let spec = self.model.spec();
        let level = &spec.levels[k];
        let (channels, length) = (level.aerial_channels, descriptor.shape[1]);
        let wanted = spec.stack_bins(k);
        // With a left bin, all bins are rolled and the north-aligned ones are picked at run time.
        let all: Vec<isize> = (0..spec.orientation_bins as isize).collect();
        let bins = if left_bin.is_some() { &all } else { &wanted };

        let norm = self.norm(descriptor, 1, epsilon);
        let ground = self.graph.combine("Div", descriptor, &norm);
        let ground = self.graph.reshape(&ground, &[length]);
        let ground = if length < channels {
            let rest = vec![0.0; channels - length];
            let rest = self
                .graph
                .floats(&format!("beyond_descriptor_{k}"), &[rest.len()], &rest);
            self.graph.concat(0, &[&ground, &rest])
        } else {
            ground
        };
        // Entry c of the roll by s is descriptor entry c - s, past the start of the window.
        let roll: Vec<i64> = bins
            .iter()
            .flat_map(|bin| {
                let shift = bin * level.shift as isize + spec.window_offset(k) as isize;
                (0..channels as isize)
                    .map(move |c| (c - shift).rem_euclid(channels as isize) as i64)
            })
            .collect();
        let shape = [bins.len(), channels];
        let index = self.graph.integers(&format!("roll_{k}"), &shape, &roll);
        let mut rolled = self.graph.gather(&ground, &index, 0);
        let inside = |at: &i64| i64::from((*at as usize) < length);
        let inside: Vec<i64> = roll.iter().map(inside).collect();
        let window = |graph: &mut Graph| {
            let window: Vec<f32> = inside.iter().map(|inside| *inside as f32).collect();
            graph.floats(&format!("window_{k}"), &shape, &window)
        };
        let window = if let Some(left_bin) = left_bin {
            let count = all.len() as isize;
            let bins = |left: isize| wanted.iter().map(move |bin| (bin + left).rem_euclid(count));
            let table = (0..count).flat_map(bins).map(|bin| bin as i64);
            let table: Vec<i64> = table.collect();
            let sides = [all.len(), wanted.len()];
            let rows = self.pick(&table, left_bin, |graph| {
                graph.integers(&format!("bins_{k}"), &sides, &table)
            });
            let sides = [wanted.len(), channels];
            rolled = self.graph.gather(&rolled, &rows, 0);
            rolled = self.graph.reshape(&rolled, &sides);
            (length < channels).then(|| {
                let window = self.pick(&inside, &rows, window);
                self.graph.reshape(&window, &sides)
            })
        } else {
            (length < channels).then(|| window(&mut self.graph))
        };
        Rolled {
            rows: rolled,
            window,
        }
    }

    /// Scores `[1, bins, side, side]` of aerial cells `[1, channels, side, side]`: one product with the
    /// rolled ground descriptors.
    fn scores(&mut self, unit: &Value, rolled: &Rolled, epsilon: &Value) -> Value {
        let [channels, rows, columns] = [1, 2, 3].map(|axis| unit.shape[axis]);
        let cells = self.graph.reshape(unit, &[channels, rows * columns]);
        let mut scores = self.graph.matrix_product(&rolled.rows, &cells);
        if let Some(window) = &rolled.window {
            let squares = self.graph.combine("Mul", &cells, &cells);
            let squares = self.graph.matrix_product(window, &squares);
            let norms = self.graph.map("Sqrt", &squares);
            let norms = self.graph.combine("Max", &norms, epsilon);
            scores = self.graph.combine("Div", &scores, &norms);
        }
        let bins = rolled.rows.shape[0];
        self.graph.reshape(&scores, &[1, bins, rows, columns])
    }

    /// Rows `rows` of a table with these `values`, as `table` writes it: one node for equal tables.
    ///
    /// Tract merges equal tables and nodes by itself, but of nodes that have both inputs in common it
    /// may take each for the other's copy and drop both (0.23.9: "`eval()` called on a Dummy op").
    fn pick(
        &mut self,
        values: &[i64],
        rows: &Value,
        table: impl FnOnce(&mut Graph) -> Value,
    ) -> Value {
        let key = (values.to_vec(), rows.name.clone());
        if let Some(picked) = self.picked.get(&key) {
            return picked.clone();
        }
        let table = table(&mut self.graph);
        let picked = self.graph.gather(&table, rows, 0);
        self.picked.insert(key, picked.clone());
        picked
    }

    /// The channels of the coarsest stack that location searches.
    fn searched(&mut self, stack: &Value) -> Value {
        let channels = self.model.spec().searched_channels();
        if let [only] = channels[..] {
            return self.graph.slice(stack, 1, only, only + 1);
        }
        let index: Vec<i64> = channels.iter().map(|channel| *channel as i64).collect();
        let index = self
            .graph
            .integers("searched_channels", &[index.len()], &index);
        self.graph.gather(stack, &index, 1)
    }

    /// What a step's first convolution makes of the skip, bias included. The skip's channels come
    /// after the upsampled ones, and a convolution is linear.
    fn first_of_skip(&mut self, step: &Step, skip: &Value) -> Value {
        let whole = self.kernel(&step.first, None);
        let (name, inputs) = (format!("{}.skip", whole.name), whole.shape[1]);
        let kernel = Kernel {
            name,
            ..of_inputs(whole, inputs - skip.shape[1], inputs)
        };
        self.graph.conv(skip, &kernel, &step.first.options)
    }

    /// A decoder step; `from_skip` is what [`Self::first_of_skip`] made.
    fn step(&mut self, step: &Step, x: &Value, from_skip: Option<&Value>) -> Value {
        let [weight, bias] = step.up;
        let shape = self.parameters.value(weight).shape();
        let kernel = Kernel {
            name: self.name(weight),
            shape: [shape[0], shape[1], shape[2], shape[3]],
            weight: self.values(weight).to_vec(),
            bias: self.values(bias).to_vec(),
        };
        let x = self.graph.upsample(x, &kernel);
        let kernel = self.kernel(&step.first, None);
        let x = if let Some(from_skip) = from_skip {
            let kernel = Kernel {
                bias: vec![0.0; kernel.shape[0]],
                ..of_inputs(kernel, 0, x.shape[1])
            };
            let x = self.graph.conv(&x, &kernel, &step.first.options);
            self.graph.combine("Add", &x, from_skip)
        } else {
            self.graph.conv(&x, &kernel, &step.first.options)
        };
        let x = self.graph.map("Relu", &x);
        let kernel = self.kernel(&step.second, None);
        self.graph.conv(&x, &kernel, &step.second.options)
    }
}

/// The part of a kernel that reads the input channels `from..to`.
fn of_inputs(kernel: Kernel, from: usize, to: usize) -> Kernel {
    let [outputs, inputs, rows, columns] = kernel.shape;
    let taps = rows * columns;
    let weight = kernel
        .weight
        .chunks_exact(inputs * taps)
        .flat_map(|output| &output[from * taps..to * taps])
        .copied()
        .collect();
    Kernel {
        shape: [outputs, to - from, rows, columns],
        weight,
        ..kernel
    }
}

pub(super) fn plain(stride: usize) -> Conv2d {
    Conv2d {
        stride,
        padding: [0; 4],
        rows: Pad::Zero,
        columns: Pad::Zero,
        groups: 1,
    }
}
