//! The first layers of VGG16 and the decoder steps that GGCVT puts on them.
//!
//! Source: Very Deep Convolutional Networks for Large-Scale Image Recognition (Simonyan,
//! Zisserman 2015), configuration D.

use super::ccvpe::pointwise;
use super::layers::{Conv, Pass};
use super::parameters::Builder;
use crossfix_kernels::ops::{self, Conv2d};
use crossfix_kernels::{Result, Tensor};

/// Seven 3×3 convolutions with three halvings of the side.
#[derive(Debug, Clone)]
pub(crate) struct Vgg {
    pub convolutions: Vec<Conv>,
}

/// Features after each halving.
pub(crate) struct Features {
    /// At half the side, rectified.
    pub half: Tensor,
    /// At a quarter, rectified.
    pub quarter: Tensor,
    /// At an eighth, as the convolution left them.
    pub eighth: Tensor,
}

/// Enlarges, concatenates a skip, and convolves twice.
#[derive(Debug, Clone)]
pub(crate) struct Decoder {
    pub first: Conv,
    pub second: Conv,
}

/// A 3×3 convolution that keeps the side.
pub(super) fn conv3x3(
    builder: &mut Builder,
    name: &str,
    [inputs, outputs]: [usize; 2],
    bias: bool,
) -> Conv {
    let weight = format!("{name}.weight");
    Conv {
        weight: builder.weight(weight, &[outputs, inputs, 3, 3], 9 * inputs),
        bias: bias.then(|| builder.constant(format!("{name}.bias"), outputs, 0.0)),
        options: Conv2d {
            padding: [1; 4],
            ..pointwise()
        },
    }
}

impl Vgg {
    /// `widths` are the channels at half, a quarter and an eighth of the side. Names carry the
    /// indices of VGG16's layers.
    pub fn new(builder: &mut Builder, name: &str, [half, quarter, eighth]: [usize; 3]) -> Self {
        let shapes = [
            (0, [3, half]),
            (2, [half, half]),
            (5, [half, quarter]),
            (7, [quarter, quarter]),
            (10, [quarter, eighth]),
            (12, [eighth, eighth]),
            (14, [eighth, eighth]),
        ];
        let layer = |(index, shape)| conv3x3(builder, &format!("{name}.conv{index}"), shape, true);
        Self {
            convolutions: shapes.map(layer).into(),
        }
    }

    pub fn forward(&self, pass: &mut Pass, image: &Tensor) -> Result<Features> {
        let half = self.stage(pass, 0..2, image)?;
        let half = ops::relu(pass.tape, &half)?;
        let quarter = self.stage(pass, 2..4, &half)?;
        let quarter = ops::relu(pass.tape, &quarter)?;
        Ok(Features {
            eighth: self.stage(pass, 4..7, &quarter)?,
            half,
            quarter,
        })
    }

    /// Convolutions with rectifiers between them, then the halving.
    fn stage(
        &self,
        pass: &mut Pass,
        layers: std::ops::Range<usize>,
        input: &Tensor,
    ) -> Result<Tensor> {
        let mut x = input.clone();
        for (index, conv) in self.convolutions[layers].iter().enumerate() {
            if index > 0 {
                x = ops::relu(pass.tape, &x)?;
            }
            x = conv.forward(pass, &x)?;
            pass.show(conv.weight, 1, &x);
        }
        ops::max_pool2d(pass.tape, &x, 2)
    }
}

impl Decoder {
    /// `inputs` counts the enlarged channels and those of the skip.
    pub fn new(builder: &mut Builder, name: &str, inputs: usize, outputs: usize) -> Self {
        Self::with_hidden(builder, name, [inputs, outputs, outputs])
    }

    /// With another number of channels between the convolutions.
    pub fn with_hidden(
        builder: &mut Builder,
        name: &str,
        [inputs, hidden, outputs]: [usize; 3],
    ) -> Self {
        Self {
            first: conv3x3(builder, &format!("{name}.1"), [inputs, hidden], false),
            second: conv3x3(builder, &format!("{name}.3"), [hidden, outputs], false),
        }
    }

    pub fn forward(&self, pass: &mut Pass, coarse: &Tensor, skip: &Tensor) -> Result<Tensor> {
        let up = ops::upsample2x(pass.tape, coarse)?;
        let joined = ops::concat_channels(pass.tape, &[&up, skip])?;
        let x = ops::relu(pass.tape, &joined)?;
        let x = self.first.forward(pass, &x)?;
        let x = ops::relu(pass.tape, &x)?;
        let x = self.second.forward(pass, &x)?;
        pass.show(self.second.weight, 2, &x);
        Ok(x)
    }
}
