//! Attention and its layers. Tokens are rows, `[tokens, channels]`.

use super::super::graph::Value;
use super::Translation;
use crate::model::ggcvt::attention::{
    self, CrossAttention, Linear, Norm, SelfAttention, WindowBlock,
};
use crate::model::parameters::ParameterId;

/// Added to the score of a cell behind the camera.
const HIDDEN: f32 = -100.0;

impl Translation<'_> {
    /// A linear layer of tokens, its inputs multiplied by `factor` and, before that, by the weight
    /// of `norm` and moved by its bias.
    pub fn linear(&mut self, layer: &Layer, norm: Option<&Norm>, factor: f64, x: &Value) -> Value {
        let inputs = x.shape[1];
        let (part, parts) = layer.part;
        let all = self.values(layer.weight).len() / inputs;
        let outputs = all / parts;
        let of_part = part * outputs..(part + 1) * outputs;
        let mut name = self.name(layer.weight);
        if parts > 1 {
            name = format!("{name}.{part}");
        }
        let bias = layer.bias.map(|bias| &self.values(bias)[of_part.clone()]);
        let rows = self.values(layer.weight).chunks_exact(inputs);
        let rows = rows.take(of_part.end).skip(of_part.start);
        let [gamma, beta] = [0, 1].map(|which| norm.map(|norm| self.values(norm.0[which])));
        let mut turned = vec![0.0; inputs * outputs];
        let mut offset = vec![0.0; outputs];
        for (output, row) in rows.enumerate() {
            let mut sum = layer.scale * bias.map_or(0.0, |bias| f64::from(bias[output]));
            for (input, weight) in row.iter().enumerate() {
                let weight = f64::from(*weight) * factor * layer.scale;
                sum += weight * beta.map_or(0.0, |beta| f64::from(beta[input]));
                let weight = weight * gamma.map_or(1.0, |gamma| f64::from(gamma[input]));
                turned[input * outputs + output] = weight as f32;
            }
            offset[output] = sum as f32;
        }
        let plain = bias.is_none() && norm.is_none();
        let weight = self
            .graph
            .floats(&format!("{name}.turned"), &[inputs, outputs], &turned);
        let x = self.graph.matrix_product(x, &weight);
        if plain {
            return x;
        }
        let offset = self
            .graph
            .floats(&format!("{name}.offset"), &[outputs], &offset);
        self.graph.combine("Add", &x, &offset)
    }

    /// Each token with mean 0 and variance 1.
    pub fn standardise(&mut self, x: &Value) -> Value {
        let mean = self.graph.reduce("ReduceMean", x, 1);
        let centred = self.graph.combine("Sub", x, &mean);
        let squares = self.graph.combine("Mul", &centred, &centred);
        let variance = self.graph.reduce("ReduceMean", &squares, 1);
        let epsilon = self.number(attention::EPSILON);
        let variance = self.graph.combine("Add", &variance, &epsilon);
        let sigma = self.graph.map("Sqrt", &variance);
        self.graph.combine("Div", &centred, &sigma)
    }

    pub fn norm(&mut self, norm: &Norm, x: &Value) -> Value {
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
        let x = self.linear(&ids(first), norm, 1.0, x);
        let root_half = self.number(std::f32::consts::FRAC_1_SQRT_2);
        let one = self.number(1.0);
        let scaled = self.graph.combine("Mul", &x, &root_half);
        let erf = self.graph.map("Erf", &scaled);
        let share = self.graph.combine("Add", &erf, &one);
        let x = self.graph.combine("Mul", &x, &share);
        self.linear(&ids(second), None, 0.5, &x)
    }

    /// `in_front` are 1 and 0 for cells in front of the camera and behind it.
    pub fn self_attention(
        &mut self,
        attention: &SelfAttention,
        x: &Value,
        in_front: Option<&Value>,
    ) -> Value {
        let embedding = &attention.embedding;
        let layer = whole(embedding.conv.weight, embedding.conv.bias);
        let x = self.linear(&layer, None, 1.0, x);
        let x = self.norm(&embedding.norm, &x);
        let x = self.window_block(&attention.block, &x, in_front);
        self.linear(&ids(&attention.head), None, 1.0, &x)
    }

    /// Tokens lie window by window.
    pub fn window_block(
        &mut self,
        block: &WindowBlock,
        x: &Value,
        in_front: Option<&Value>,
    ) -> Value {
        let (heads, window) = (self.spec.heads, self.spec.window);
        let (cells, width) = (window * window, x.shape[1]);
        let (windows, depth) = (x.shape[0] / cells, width / heads);
        let normal = self.standardise(x);
        let [q, k, v] = match &block.projections[..] {
            [q, k, v] => [q, k, v].map(ids),
            [joined, ..] => [0, 1, 2].map(|part| Layer {
                part: (part, 3),
                ..ids(joined)
            }),
            [] => unreachable!("a block has projections"),
        };
        let q = Layer {
            scale: 1.0 / (depth as f64).sqrt(),
            ..q
        };
        let mut heads_of = |layer: &Layer, order: &[usize]| {
            let x = self.linear(layer, Some(&block.first), 1.0, &normal);
            let x = self.graph.reshape(&x, &[windows, cells, heads, depth]);
            self.graph.transpose(&x, order)
        };
        let q = heads_of(&q, &[0, 2, 1, 3]);
        let k = heads_of(&k, &[0, 2, 3, 1]);
        let v = heads_of(&v, &[0, 2, 1, 3]);
        let scores = self.graph.matrix_product(&q, &k);
        let bias = self.window_bias(block);
        let mut scores = self.graph.combine("Add", &scores, &bias);
        if let Some(in_front) = in_front {
            let (one, hidden) = (self.number(1.0), self.number(HIDDEN));
            let behind = self.graph.combine("Sub", &one, in_front);
            let behind = self.graph.combine("Mul", &behind, &hidden);
            let behind = self.graph.reshape(&behind, &[windows, 1, 1, cells]);
            scores = self.graph.combine("Add", &scores, &behind);
        }
        let shares = self.graph.softmax(&scores, 3);
        let mixed = self.graph.matrix_product(&shares, &v);
        let mixed = self.graph.transpose(&mixed, &[0, 2, 1, 3]);
        let mixed = self.graph.reshape(&mixed, &[windows * cells, width]);
        let out = self.linear(&ids(&block.out), None, 1.0, &mixed);
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
    pub fn cross_attention(
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
        let q = self.linear(&ids(q), Some(q_norm), scale, &normal);
        let q = self.graph.reshape(&q, &[tokens, heads, 1, depth]);
        let seen = 2 * ground.shape[0] / columns;
        let mut look_up = |layer: &Linear, norm: &Norm, order: &[usize]| {
            let x = self.linear(&ids(layer), Some(norm), 1.0, ground);
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
        let z = self.linear(&ids(&attention.out), None, 1.0, &mixed);
        let z = self.norm(&attention.before, &z);
        let more = self.mlp(&attention.mlp, None, &z);
        let z = self.graph.combine("Add", &z, &more);
        self.norm(&attention.after, &z)
    }
}

/// A linear layer, or one of the equal parts that its outputs are cut into.
pub(super) struct Layer {
    weight: ParameterId,
    bias: Option<ParameterId>,
    /// Which part, of how many.
    part: (usize, usize),
    /// What its outputs are multiplied by.
    scale: f64,
}

/// All outputs of a layer.
pub(super) fn whole(weight: ParameterId, bias: Option<ParameterId>) -> Layer {
    Layer {
        weight,
        bias,
        part: (0, 1),
        scale: 1.0,
    }
}

fn ids(layer: &Linear) -> Layer {
    whole(layer.weight, layer.bias)
}
