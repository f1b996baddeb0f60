//! Attention: within windows of the overhead map, and from the map to the ground image.
//!
//! Tokens stay where they are, as pixels with channels; a linear layer is a 1×1 convolution.

use super::super::ccvpe::pointwise;
use super::super::layers::{Conv, Pass};
use super::super::parameters::{Builder, ParameterId};
use super::spec::GgcvtSpec;
use crossfix_kernels::ops::{self, Conv2d};
use crossfix_kernels::{Result, Tensor};

/// Added to a variance before its root is taken.
pub(crate) const EPSILON: f32 = 1e-5;

/// Weight `[O, I]` and, where there is one, bias `[O]`.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    pub weight: ParameterId,
    pub bias: Option<ParameterId>,
}

/// Weight and bias of a layer norm.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Norm(pub [ParameterId; 2]);

/// Cuts the map into tokens and normalises them.
#[derive(Debug, Clone)]
pub(crate) struct Embedding {
    pub conv: Conv,
    pub norm: Norm,
}

/// One transformer block with attention in windows.
#[derive(Debug, Clone)]
pub(crate) struct WindowBlock {
    pub first: Norm,
    /// Query, key and value, or one layer that gives all three.
    pub projections: Vec<Linear>,
    pub table: ParameterId,
    pub out: Linear,
    pub second: Norm,
    pub mlp: [Linear; 2],
    pub window: usize,
}

/// Embedding, block, and back to the map's channels.
#[derive(Debug, Clone)]
pub(crate) struct SelfAttention {
    pub embedding: Embedding,
    pub block: WindowBlock,
    pub head: Linear,
}

/// From each overhead pixel to the ground columns in its direction.
#[derive(Debug, Clone)]
pub(crate) struct CrossAttention {
    /// Of query, key and value.
    pub projections: [(Norm, Linear); 3],
    pub heads: usize,
    pub out: Linear,
    pub before: Norm,
    pub mlp: [Linear; 2],
    pub after: Norm,
}

impl Linear {
    pub fn new(
        builder: &mut Builder,
        name: &str,
        [inputs, outputs]: [usize; 2],
        bias: bool,
    ) -> Self {
        let weight = format!("{name}.weight");
        Self {
            weight: builder.weight(weight, &[outputs, inputs], 2 * inputs),
            bias: bias.then(|| builder.constant(format!("{name}.bias"), outputs, 0.0)),
        }
    }

    pub fn forward(&self, pass: &mut Pass, input: &Tensor) -> Result<Tensor> {
        let weight = pass.parameters.value(self.weight);
        let bias = self.bias.map(|id| pass.parameters.value(id));
        let shape = [weight.shape()[0], weight.shape()[1], 1, 1];
        let weight = ops::reshape(pass.tape, weight, &shape)?;
        ops::conv2d(pass.tape, input, &weight, bias, &pointwise())
    }
}

impl Norm {
    pub fn new(builder: &mut Builder, name: &str, width: usize) -> Self {
        Self([
            builder.constant(format!("{name}.weight"), width, 1.0),
            builder.constant(format!("{name}.bias"), width, 0.0),
        ])
    }

    pub fn forward(&self, pass: &mut Pass, input: &Tensor) -> Result<Tensor> {
        let [gamma, beta] = self.0.map(|id| pass.parameters.value(id));
        ops::layer_norm(pass.tape, input, gamma, beta, EPSILON)
    }
}

/// A linear layer, the error unit, a linear layer.
fn mlp(pass: &mut Pass, layers: &[Linear; 2], input: &Tensor) -> Result<Tensor> {
    let x = layers[0].forward(pass, input)?;
    let x = ops::gelu(pass.tape, &x)?;
    layers[1].forward(pass, &x)
}

impl Embedding {
    /// Patches of `patch` × `patch` pixels become tokens.
    pub fn new(
        builder: &mut Builder,
        name: &str,
        [inputs, width]: [usize; 2],
        patch: usize,
    ) -> Self {
        let taps = inputs * patch * patch;
        let shape = [width, inputs, patch, patch];
        Self {
            conv: Conv {
                weight: builder.weight(format!("{name}.proj.weight"), &shape, 2 * taps),
                bias: Some(builder.constant(format!("{name}.proj.bias"), width, 0.0)),
                options: Conv2d {
                    stride: patch,
                    ..pointwise()
                },
            },
            norm: Norm::new(builder, &format!("{name}.norm"), width),
        }
    }

    pub fn forward(&self, pass: &mut Pass, input: &Tensor) -> Result<Tensor> {
        let x = self.conv.forward(pass, input)?;
        let x = self.norm.forward(pass, &x)?;
        pass.show(self.conv.weight, 2, &x);
        Ok(x)
    }
}

impl WindowBlock {
    /// With one layer for query, key and value and biases everywhere (`joined`), or with three and
    /// none. The published names differ as well.
    pub fn new(builder: &mut Builder, name: &str, spec: &GgcvtSpec, joined: bool) -> Self {
        let width = spec.embedding;
        let mut linear =
            |part: &str, shape, bias| Linear::new(builder, &format!("{name}.{part}"), shape, bias);
        let projections = if joined {
            vec![linear("attn.qkv", [width, 3 * width], true)]
        } else {
            ["q_proj", "k_proj", "v_proj"]
                .map(|part| linear(&format!("attn.{part}"), [width; 2], false))
                .into()
        };
        let out = linear("attn.proj", [width; 2], joined);
        let mlp = [
            linear("mlp.fc1", [width, 4 * width], true),
            linear("mlp.fc2", [4 * width, width], true),
        ];
        let first = if joined { "norm1" } else { "normx" };
        let table = format!("{name}.attn.relative_position_bias_table");
        let rows = (2 * spec.window - 1).pow(2);
        Self {
            projections,
            out,
            mlp,
            first: Norm::new(builder, &format!("{name}.{first}"), width),
            second: Norm::new(builder, &format!("{name}.norm2"), width),
            // Small: the bias begins near nothing.
            table: builder.weight(table, &[rows, spec.heads], 10_000),
            window: spec.window,
        }
    }

    pub fn forward(
        &self,
        pass: &mut Pass,
        tokens: &Tensor,
        mask: Option<&Tensor>,
    ) -> Result<Tensor> {
        let normal = self.first.forward(pass, tokens)?;
        let [q, k, v] = self.project(pass, &normal)?;
        let table = pass.parameters.value(self.table);
        let x = ops::window_attention(pass.tape, [&q, &k, &v], table, mask, self.window)?;
        let x = self.out.forward(pass, &x)?;
        let x = ops::add(pass.tape, tokens, &x)?;
        let normal = self.second.forward(pass, &x)?;
        let more = mlp(pass, &self.mlp, &normal)?;
        ops::add(pass.tape, &x, &more)
    }

    fn project(&self, pass: &mut Pass, tokens: &Tensor) -> Result<[Tensor; 3]> {
        if let [q, k, v] = &self.projections[..] {
            return Ok([
                q.forward(pass, tokens)?,
                k.forward(pass, tokens)?,
                v.forward(pass, tokens)?,
            ]);
        }
        let all = self.projections[0].forward(pass, tokens)?;
        let width = all.shape()[1] / 3;
        let mut part = |index: usize| {
            let channels: Vec<usize> = (index * width..(index + 1) * width).collect();
            ops::select_channels(pass.tape, &all, &channels)
        };
        Ok([part(0)?, part(1)?, part(2)?])
    }
}

impl SelfAttention {
    pub fn new(builder: &mut Builder, name: &str, spec: &GgcvtSpec) -> Self {
        let (channels, width) = (spec.channels()[0], spec.embedding);
        Self {
            embedding: Embedding::new(
                builder,
                &format!("{name}.patch_embed"),
                [channels, width],
                1,
            ),
            block: WindowBlock::new(builder, &format!("{name}.layers.0.blocks.0"), spec, false),
            head: Linear::new(builder, &format!("{name}.head"), [width, channels], true),
        }
    }

    /// What comes out replaces the map: there is no residual around the whole.
    pub fn forward(&self, pass: &mut Pass, map: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let tokens = self.embedding.forward(pass, map)?;
        let tokens = self.block.forward(pass, &tokens, mask)?;
        let x = self.head.forward(pass, &tokens)?;
        pass.show(self.head.weight, 2, &x);
        Ok(x)
    }
}

impl CrossAttention {
    pub fn new(builder: &mut Builder, name: &str, spec: &GgcvtSpec) -> Self {
        let (channels, width) = (spec.channels()[0], spec.cross_width);
        let projections = ["to_q", "to_k", "to_v"].map(|part| {
            let name = format!("{name}.{part}");
            (
                Norm::new(builder, &format!("{name}.0"), channels),
                Linear::new(builder, &format!("{name}.1"), [channels, width], false),
            )
        });
        let mut linear =
            |part: &str, shape| Linear::new(builder, &format!("{name}.{part}"), shape, true);
        let out = linear("proj", [width, channels]);
        let mlp = [
            linear("mlp.0", [channels, 2 * channels]),
            linear("mlp.2", [2 * channels, channels]),
        ];
        Self {
            projections,
            heads: spec.cross_heads,
            out,
            mlp,
            before: Norm::new(builder, &format!("{name}.prenorm"), channels),
            after: Norm::new(builder, &format!("{name}.postnorm"), channels),
        }
    }

    /// Keys and values are computed once for each ground pixel, not for each pair of an overhead
    /// pixel and a ground pixel: the same numbers for a hundredth of the work.
    pub fn forward(
        &self,
        pass: &mut Pass,
        map: &Tensor,
        ground: &Tensor,
        columns: &Tensor,
    ) -> Result<Tensor> {
        let mut project = |index: usize, x: &Tensor| {
            let (norm, linear): &(Norm, Linear) = &self.projections[index];
            let x = norm.forward(pass, x)?;
            linear.forward(pass, &x)
        };
        let (q, k, v) = (project(0, map)?, project(1, ground)?, project(2, ground)?);
        let z = ops::column_attention(pass.tape, [&q, &k, &v], columns, self.heads)?;
        let z = self.out.forward(pass, &z)?;
        let z = self.before.forward(pass, &z)?;
        let more = mlp(pass, &self.mlp, &z)?;
        let z = ops::add(pass.tape, &z, &more)?;
        let z = self.after.forward(pass, &z)?;
        pass.show(self.out.weight, 2, &z);
        Ok(z)
    }
}
