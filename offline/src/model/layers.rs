//! The few layers a CCVPE network is made of: where their numbers are and how they run.

use super::Share;
use super::parameters::{Builder, ParameterId, Parameters, StatisticsId};
use super::spec::{BlockKind, BlockSpec, EncoderSpec, Padding, StepSpec};
use crossfix_kernels::ops::{self, Activation, BatchNormMode, Conv2d, Pad};
use crossfix_kernels::{Result, Tape, Tensor};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// What one forward pass carries through the layers.
pub(crate) struct Pass<'a> {
    pub tape: &'a mut Tape,
    pub parameters: &'a mut Parameters,
    pub batch_norm: BatchNormMode,
    /// In training with stochastic depth: the factors of each block that drops, in their order.
    pub drop_connect: Option<std::slice::Iter<'a, Tensor>>,
    /// Sees intermediate values.
    pub watch: Option<Watch<'a>>,
}

/// Called with the name of a layer and what came out of it. A layer is named like its weight,
/// less `.weight`; a batch norm is reported with its activation, an encoder block as
/// `ENCODER._blocks.INDEX`.
pub type Watch<'a> = &'a mut dyn FnMut(&str, &Tensor);

impl Pass<'_> {
    /// Shows `output` under the name of `weight`, less as many parts as `parts`.
    pub fn show(&mut self, weight: ParameterId, parts: usize, output: &Tensor) {
        if let Some(watch) = &mut self.watch {
            let name = self.parameters.name(weight);
            let end = name.rmatch_indices('.').nth(parts.saturating_sub(1));
            watch(&name[..end.map_or(name.len(), |(at, _)| at)], output);
        }
    }
}

/// A convolution and its bias, if it has one.
#[derive(Debug, Clone)]
pub(crate) struct Conv {
    pub weight: ParameterId,
    pub bias: Option<ParameterId>,
    pub options: Conv2d,
}

/// A batch norm and the activation fused with it.
#[derive(Debug, Clone)]
pub(crate) struct Norm {
    pub gamma: ParameterId,
    pub beta: ParameterId,
    pub statistics: StatisticsId,
    pub epsilon: f32,
    pub activation: Activation,
}

/// Squeeze-and-excite: weights and biases of the two 1×1 convolutions.
#[derive(Debug, Clone)]
pub(crate) struct Excite {
    pub reduce: [ParameterId; 2],
    pub expand: [ParameterId; 2],
}

/// One encoder block: convolutions with their norms, in order; squeeze-and-excite before the last.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    pub convolutions: Vec<(Conv, Norm)>,
    pub excite: Option<Excite>,
    pub residual: bool,
    pub drop_probability: f32,
}

/// Stem, blocks and head of an encoder.
#[derive(Debug, Clone)]
pub(crate) struct Encoder {
    pub stem: Option<(Conv, Norm)>,
    pub blocks: Vec<Block>,
    pub head: Option<(Conv, Norm)>,
}

/// A decoder step: up, concatenate, two convolutions.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub up: [ParameterId; 2],
    pub skip: Option<usize>,
    pub first: Conv,
    pub second: Conv,
}

/// Border rule of an encoder or decoder.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Border {
    pub rows: Pad,
    pub columns: Pad,
}

impl Border {
    pub fn new(padding: Padding, wraps: bool) -> Self {
        let pad = match padding {
            Padding::Zero => Pad::Zero,
            Padding::Reflect => Pad::Reflect,
        };
        if wraps {
            // The published ground encoder pads its rows with zeros.
            Self {
                rows: Pad::Zero,
                columns: Pad::Circular,
            }
        } else {
            Self {
                rows: pad,
                columns: pad,
            }
        }
    }
}

/// Everything that fixes a convolution but its weights.
struct ConvShape {
    inputs: usize,
    outputs: usize,
    kernel: usize,
    stride: usize,
    depthwise: bool,
    bias: bool,
}

impl Builder {
    fn conv(&mut self, name: &str, shape: &ConvShape, border: Border) -> Conv {
        let groups = if shape.depthwise { shape.inputs } else { 1 };
        let per_group = shape.inputs / groups;
        let (before, after) = EncoderSpec::padding(shape.kernel, shape.stride);
        let fan_in = per_group * shape.kernel * shape.kernel;
        let dims = [shape.outputs, per_group, shape.kernel, shape.kernel];
        Conv {
            weight: self.weight(format!("{name}.weight"), &dims, fan_in),
            bias: shape
                .bias
                .then(|| self.constant(format!("{name}.bias"), shape.outputs, 0.0)),
            options: Conv2d {
                stride: shape.stride,
                padding: [before, after, before, after],
                rows: border.rows,
                columns: border.columns,
                groups,
            },
        }
    }

    fn norm(&mut self, name: &str, channels: usize, epsilon: f32, activation: Activation) -> Norm {
        Norm {
            gamma: self.constant(format!("{name}.weight"), channels, 1.0),
            beta: self.constant(format!("{name}.bias"), channels, 0.0),
            statistics: self.statistics(name.into(), channels),
            epsilon,
            activation,
        }
    }

    /// Names follow the published state dict, so that its checkpoints load by name.
    pub fn encoder(&mut self, name: &str, spec: &EncoderSpec, border: Border) -> Encoder {
        let epsilon = spec.epsilon;
        let plain = |inputs, outputs, kernel, stride| ConvShape {
            inputs,
            outputs,
            kernel,
            stride,
            depthwise: false,
            bias: false,
        };
        let stem = spec.stem.map(|channels| {
            (
                self.conv(
                    &format!("{name}._conv_stem"),
                    &plain(3, channels, 3, 2),
                    border,
                ),
                self.norm(&format!("{name}._bn0"), channels, epsilon, Activation::Silu),
            )
        });
        let mut inputs = spec.stem.unwrap_or(3);
        let mut blocks = Vec::new();
        for (index, block) in spec.blocks.iter().enumerate() {
            let name = format!("{name}._blocks.{index}");
            let share = index as f32 / spec.blocks.len() as f32;
            blocks.push(self.block(&name, inputs, block, border, epsilon, share));
            inputs = block.channels;
        }
        let head = spec.head.map(|channels| {
            (
                self.conv(
                    &format!("{name}._conv_head"),
                    &plain(inputs, channels, 1, 1),
                    border,
                ),
                self.norm(&format!("{name}._bn1"), channels, epsilon, Activation::Silu),
            )
        });
        Encoder { stem, blocks, head }
    }

    fn block(
        &mut self,
        name: &str,
        inputs: usize,
        spec: &BlockSpec,
        border: Border,
        epsilon: f32,
        share: f32,
    ) -> Block {
        let residual = spec.stride == 1 && inputs == spec.channels;
        let shape = |inputs, outputs, kernel, stride, depthwise| ConvShape {
            inputs,
            outputs,
            kernel,
            stride,
            depthwise,
            bias: false,
        };
        let BlockKind::MbConv { expand } = spec.kind else {
            let conv = shape(inputs, spec.channels, spec.kernel, spec.stride, false);
            return Block {
                convolutions: vec![(
                    self.conv(&format!("{name}._conv"), &conv, border),
                    self.norm(
                        &format!("{name}._bn"),
                        spec.channels,
                        epsilon,
                        Activation::Silu,
                    ),
                )],
                excite: None,
                residual,
                drop_probability: 0.0,
            };
        };
        let hidden = inputs * expand;
        let squeezed = (inputs / 4).max(1);
        let mut convolutions = Vec::new();
        if expand != 1 {
            let conv = shape(inputs, hidden, 1, 1, false);
            convolutions.push((
                self.conv(&format!("{name}._expand_conv"), &conv, border),
                self.norm(&format!("{name}._bn0"), hidden, epsilon, Activation::Silu),
            ));
        }
        let conv = shape(hidden, hidden, spec.kernel, spec.stride, true);
        convolutions.push((
            self.conv(&format!("{name}._depthwise_conv"), &conv, border),
            self.norm(&format!("{name}._bn1"), hidden, epsilon, Activation::Silu),
        ));
        let excite = Excite {
            reduce: [
                self.weight(
                    format!("{name}._se_reduce.weight"),
                    &[squeezed, hidden],
                    hidden,
                ),
                self.constant(format!("{name}._se_reduce.bias"), squeezed, 0.0),
            ],
            expand: [
                self.weight(
                    format!("{name}._se_expand.weight"),
                    &[hidden, squeezed],
                    squeezed,
                ),
                self.constant(format!("{name}._se_expand.bias"), hidden, 0.0),
            ],
        };
        let conv = shape(hidden, spec.channels, 1, 1, false);
        convolutions.push((
            self.conv(&format!("{name}._project_conv"), &conv, border),
            self.norm(
                &format!("{name}._bn2"),
                spec.channels,
                epsilon,
                Activation::None,
            ),
        ));
        Block {
            convolutions,
            excite: Some(excite),
            residual,
            drop_probability: 0.2 * share,
        }
    }

    /// Adds one decoder step; `skip_channels` come from the encoder.
    pub fn step(
        &mut self,
        names: [&str; 2],
        inputs: usize,
        spec: &StepSpec,
        skip_channels: usize,
        border: Border,
    ) -> Step {
        let [up, convolutions] = names;
        let conv = |inputs, outputs| ConvShape {
            inputs,
            outputs,
            kernel: 3,
            stride: 1,
            depthwise: false,
            bias: true,
        };
        Step {
            up: [
                self.weight(format!("{up}.weight"), &[inputs, spec.up, 2, 2], inputs),
                self.constant(format!("{up}.bias"), spec.up, 0.0),
            ],
            skip: spec.skip,
            first: self.conv(
                &format!("{convolutions}.0"),
                &conv(spec.up + skip_channels, spec.hidden),
                border,
            ),
            second: self.conv(
                &format!("{convolutions}.2"),
                &conv(spec.hidden, spec.out),
                border,
            ),
        }
    }
}

impl Conv {
    pub fn forward(&self, pass: &mut Pass, input: &Tensor) -> Result<Tensor> {
        let bias = self.bias.map(|id| pass.parameters.value(id));
        let weight = pass.parameters.value(self.weight);
        ops::conv2d(pass.tape, input, weight, bias, &self.options)
    }
}

fn conv_norm(pass: &mut Pass, (conv, norm): &(Conv, Norm), input: &Tensor) -> Result<Tensor> {
    let output = conv.forward(pass, input)?;
    pass.show(conv.weight, 1, &output);
    let gamma = pass.parameters.value(norm.gamma).clone();
    let beta = pass.parameters.value(norm.beta).clone();
    let output = ops::batch_norm(
        pass.tape,
        &output,
        &gamma,
        &beta,
        pass.parameters.statistics_mut(norm.statistics),
        pass.batch_norm,
        norm.epsilon,
        norm.activation,
    )?;
    pass.show(norm.gamma, 1, &output);
    Ok(output)
}

impl Encoder {
    /// Draws the factors of stochastic depth for `samples` of a batch, `[N]` for each block that drops.
    pub fn draw_drop_connect(
        &self,
        rng: &mut ChaCha8Rng,
        samples: usize,
        share: Share,
    ) -> Result<Vec<Tensor>> {
        let dropping = self.blocks.iter().filter(|block| block.drops());
        dropping
            .map(|block| {
                let keep_probability = 1.0 - block.drop_probability;
                let keep = share.draw(samples, || rng.random::<f32>() < keep_probability);
                let factors = ops::drop_connect_factors(&keep, keep_probability)?;
                Tensor::new(factors, &[samples])
            })
            .collect()
    }

    /// The features, and the output of every block.
    pub fn forward(&self, pass: &mut Pass, image: &Tensor) -> Result<(Tensor, Vec<Tensor>)> {
        let mut x = image.clone();
        if let Some(stem) = &self.stem {
            x = conv_norm(pass, stem, &x)?;
        }
        let mut outputs = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            x = block.forward(pass, &x)?;
            pass.show(block.convolutions[0].0.weight, 2, &x);
            outputs.push(x.clone());
        }
        if let Some(head) = &self.head {
            x = conv_norm(pass, head, &x)?;
        }
        Ok((x, outputs))
    }
}

impl Block {
    /// Whether stochastic depth drops its branch.
    fn drops(&self) -> bool {
        self.residual && self.drop_probability > 0.0
    }

    fn forward(&self, pass: &mut Pass, input: &Tensor) -> Result<Tensor> {
        let mut x = input.clone();
        for (index, convolution) in self.convolutions.iter().enumerate() {
            if let (true, Some(excite)) = (index + 1 == self.convolutions.len(), &self.excite) {
                let [reduce, reduce_bias] = excite.reduce.map(|id| pass.parameters.value(id));
                let [expand, expand_bias] = excite.expand.map(|id| pass.parameters.value(id));
                x = ops::squeeze_excite(pass.tape, &x, reduce, reduce_bias, expand, expand_bias)?;
            }
            x = conv_norm(pass, convolution, &x)?;
        }
        if !self.residual {
            return Ok(x);
        }
        if self.drops()
            && let Some(factors) = &mut pass.drop_connect
        {
            let factors = factors.next().expect("factors for each block that drops");
            x = ops::drop_connect_by(pass.tape, &x, factors)?;
        }
        ops::add(pass.tape, &x, input)
    }
}

impl Step {
    pub fn forward(&self, pass: &mut Pass, input: &Tensor, skips: &[Tensor]) -> Result<Tensor> {
        let [weight, bias] = self.up.map(|id| pass.parameters.value(id));
        let mut x = ops::conv_transpose2x2(pass.tape, input, weight, bias)?;
        pass.show(self.up[0], 1, &x);
        if let Some(block) = self.skip {
            x = ops::concat_channels(pass.tape, &[&x, &skips[block]])?;
        }
        let x = self.first.forward(pass, &x)?;
        let x = ops::relu(pass.tape, &x)?;
        let x = self.second.forward(pass, &x)?;
        pass.show(self.second.weight, 1, &x);
        Ok(x)
    }
}
