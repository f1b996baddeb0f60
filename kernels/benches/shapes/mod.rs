//! Convolutions of the published CCVPE network: its encoders at 512 × 512, its decoders.

use crossfix_kernels::ops::{Conv2d, Pad};

/// One convolution for a batch of one.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub outputs: usize,
    pub inputs: usize,
    pub kernel: usize,
    pub stride: usize,
    pub depthwise: bool,
    /// Of the input image, a square.
    pub side: usize,
}

const fn dense(outputs: usize, inputs: usize, kernel: usize, stride: usize, side: usize) -> Shape {
    Shape {
        outputs,
        inputs,
        kernel,
        stride,
        depthwise: false,
        side,
    }
}

const fn depthwise(channels: usize, kernel: usize, stride: usize, side: usize) -> Shape {
    Shape {
        outputs: channels,
        inputs: channels,
        kernel,
        stride,
        depthwise: true,
        side,
    }
}

/// The list that `tests/scripts/bench_torch.py` holds too.
pub const SHAPES: &[Shape] = &[
    dense(96, 16, 1, 1, 256),
    dense(24, 144, 1, 1, 128),
    dense(240, 40, 1, 1, 64),
    dense(80, 480, 1, 1, 32),
    dense(672, 112, 1, 1, 32),
    dense(1152, 192, 1, 1, 16),
    dense(1280, 320, 1, 1, 16),
    dense(32, 3, 3, 2, 512),
    dense(640, 1344, 3, 1, 16),
    dense(320, 432, 3, 1, 32),
    dense(160, 200, 3, 1, 64),
    dense(80, 104, 3, 1, 128),
    dense(40, 56, 3, 1, 256),
    dense(16, 16, 3, 1, 512),
    depthwise(32, 3, 1, 256),
    depthwise(96, 3, 2, 256),
    depthwise(144, 3, 1, 128),
    depthwise(144, 5, 2, 128),
    depthwise(240, 5, 1, 64),
    depthwise(480, 3, 1, 32),
    depthwise(672, 5, 1, 32),
    depthwise(1152, 5, 1, 16),
];

impl Shape {
    pub fn name(&self) -> String {
        let Shape {
            outputs,
            inputs,
            kernel,
            stride,
            side,
            ..
        } = self;
        let kind = if self.depthwise { "depthwise" } else { "dense" };
        format!("{kind} {kernel}x{kernel}/{stride} {inputs}->{outputs} @{side}")
    }

    pub fn options(&self) -> Conv2d {
        Conv2d {
            stride: self.stride,
            padding: [self.kernel / 2; 4],
            rows: Pad::Zero,
            columns: Pad::Zero,
            groups: if self.depthwise { self.inputs } else { 1 },
        }
    }

    pub fn input(&self) -> [usize; 4] {
        [1, self.inputs, self.side, self.side]
    }

    pub fn weight(&self) -> [usize; 4] {
        let per_group = if self.depthwise { 1 } else { self.inputs };
        [self.outputs, per_group, self.kernel, self.kernel]
    }

    /// Elements of the output.
    pub fn output_len(&self) -> usize {
        self.outputs * (self.side / self.stride).pow(2)
    }

    /// Operations of the forward pass, a multiply-add being two.
    pub fn flop(&self) -> f64 {
        let taps = self.weight()[1] * self.kernel * self.kernel;
        2.0 * (self.output_len() * taps) as f64
    }
}
